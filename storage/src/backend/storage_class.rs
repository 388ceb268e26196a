//! The storage class of shards.
//!
//! Shards are most of the bytes and are read in ranges; log entries, commits and pages are small and
//! read often, so they stay in the bucket's own class.

use object_store::{Attribute, Attributes};

use super::{Given, Kind, invalid, setting};
use crate::Error;

/// The setting, and in upper case the variable.
pub(super) const SETTING: &str = "quarr_shard_storage_class";

/// Classes whose objects must be restored, which takes hours, before they can be read.
const ARCHIVES: [&str; 3] = ["GLACIER", "DEEP_ARCHIVE", "ARCHIVE"];

/// What shards are stored with.
///
/// # Errors
/// [`Error::Invalid`] if it is no name of a class, or of one that cannot be read at once. Whether
/// the store knows it shows when something is written.
pub(super) fn attributes(kind: &Kind, given: Given<'_>) -> Result<Attributes, Error> {
    let mut attributes = Attributes::default();
    let Some(class) = setting(given, SETTING) else {
        return Ok(attributes);
    };
    let is_name = class.len() <= 64
        && class
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if !is_name {
        return Err(invalid(format!("{class:?} is no storage class")));
    }
    // Google's archive class answers as fast as the others.
    let is_archive = match kind {
        Kind::S3(_) | Kind::Azure(_) => ARCHIVES.contains(&class.to_ascii_uppercase().as_str()),
        _ => false,
    };
    if is_archive {
        return Err(invalid(format!(
            "shards in storage class {class} could not be read without restoring them first"
        )));
    }
    if !matches!(kind, Kind::Memory | Kind::Local(_)) {
        attributes.insert(Attribute::StorageClass, class.into());
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str, class: &str) -> Result<Attributes, Error> {
        attributes(&Kind::of(url).unwrap(), &[(SETTING, class)])
    }

    #[test]
    fn classes_that_cannot_be_read_at_once_are_refused() {
        for (url, class) in [
            ("s3://b", "STANDARD_IA"),
            ("s3://b", "GLACIER_IR"),
            ("s3://b", "INTELLIGENT_TIERING"),
            ("gs://b", "ARCHIVE"),
            ("az://b", "Cool"),
        ] {
            let found = of(url, class).unwrap();
            let set = found.get(&Attribute::StorageClass).unwrap();
            assert_eq!(&**set, class, "{url}");
        }
        for (url, class) in [
            ("s3://b", "GLACIER"),
            ("s3://b", "deep_archive"),
            ("az://b", "Archive"),
            ("gs://b", "NEAR LINE"),
            ("s3://b", "x\r\ny: z"),
        ] {
            assert!(of(url, class).is_err(), "{url} {class}");
        }
        assert!(of("s3://b", "").unwrap().is_empty());
        assert!(of("memory:///", "STANDARD_IA").unwrap().is_empty());
    }
}
