//! Where the sources of an import are, and whether they are still what they were.

use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use storage::Externals;
use tokio::runtime::Handle;

use crate::Error;
use crate::blocking::blocking;
use crate::joined::Member;
use crate::sources::{Resolved, resolve};

/// What a source was when it was opened: an import that goes on later must find the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The source, as it was found.
    pub source: String,
    /// Its bytes, of a file.
    pub length: u64,
    /// When it was last changed, in nanoseconds since 1970, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_ns: Option<u64>,
    /// What its server calls this version of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

/// The sources of an import, found.
#[derive(Clone, Debug)]
pub(crate) struct Origins {
    /// What is joined, in the order given.
    pub(crate) members: Vec<Member>,
    /// What each was, in the same order.
    pub(crate) stamps: Vec<Stamp>,
}

/// Finds what the sources of an import name. `fetched` is called with bytes fetched so far and in
/// all, where the only one has to be.
///
/// # Errors
/// [`Error::Option`] if they name nothing; [`Error::Storage`] if one may not be read or cannot be;
/// of a single source, as [`crate::Source::open`].
pub(crate) async fn find(
    sources: &[String],
    files: &Externals,
    fetched: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<Origins, Error> {
    let found = resolve(sources, files).await?;
    let mut stamps = Vec::with_capacity(found.len());
    for place in &found {
        // Before it is read: a change while it is being read is one afterwards.
        stamps.push(stamp(place, files).await?);
    }
    if let [one] = found.as_slice() {
        let source = one.open(files, fetched).await?;
        let member = Member::new(one.name(), move || Ok(source.clone()));
        return Ok(Origins {
            members: vec![member],
            stamps,
        });
    }
    let mut names: Vec<String> = found.iter().map(Resolved::name).collect();
    names.sort_unstable();
    let is_shared = names.windows(2).any(|pair| pair[0] == pair[1]);
    let member = |place: Resolved| {
        let (files, handle) = (files.clone(), Handle::current());
        let name = match is_shared {
            true => place.location(),
            false => place.name(),
        };
        // Called on threads that may block.
        let open = move || handle.block_on(place.open(&files, &|_, _| {}));
        Member::new(name, open)
    };
    let members = found.into_iter().map(member).collect();
    Ok(Origins { members, stamps })
}

async fn stamp(place: &Resolved, files: &Externals) -> Result<Stamp, Error> {
    let source = place.location();
    if let Some(path) = place.local_path() {
        let path = path.to_owned();
        return blocking(move || stamp_of_path(source, &path)).await;
    }
    match files.open(&source).await {
        Ok(file) => Ok(Stamp {
            source,
            length: file.length(),
            modified_ns: None,
            etag: Some(file.etag().to_owned()),
        }),
        // A hierarchy is not one file.
        Err(storage::Error::NotFound { .. }) => Ok(Stamp {
            source,
            length: 0,
            modified_ns: None,
            etag: None,
        }),
        Err(error) => Err(error.into()),
    }
}

fn stamp_of_path(source: String, path: &Path) -> Result<Stamp, Error> {
    let metadata = std::fs::metadata(path).map_err(|error| Error::Read {
        path: path.to_owned(),
        source: error,
    })?;
    let modified = metadata.modified().ok();
    let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let is_file = metadata.is_file();
    Ok(Stamp {
        source,
        length: if is_file { metadata.len() } else { 0 },
        modified_ns: modified.and_then(|since| u64::try_from(since.as_nanos()).ok()),
        etag: None,
    })
}

/// Fails unless the sources are what they were.
///
/// # Errors
/// [`Error::Changed`] with the first that is not.
pub fn check_same(before: &[Stamp], now: &[Stamp]) -> Result<(), Error> {
    let changed = before.iter().zip(now).find(|(before, now)| before != now);
    let reason = match changed {
        None if before.len() == now.len() => return Ok(()),
        None => format!(
            "there were {} sources, there are {}",
            before.len(),
            now.len()
        ),
        Some((before, now)) if before.source != now.source => {
            format!("{} is now {}", before.source, now.source)
        }
        Some((before, now)) if before.length != now.length => format!(
            "{} had {} bytes, it has {}",
            now.source, before.length, now.length
        ),
        Some((_, now)) => format!("{} was written to", now.source),
    };
    Err(Error::Changed { reason })
}
