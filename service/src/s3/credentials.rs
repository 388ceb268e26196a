//! The file with the credentials of the gateway.
//!
//! ```json
//! [{"access_key_id": "…", "secret_access_key": "…", "principal": "ada",
//!   "grants": [{"role": "reader", "repository": "climate", "prefix": "north"}]}]
//! ```
//!
//! Secrets are in it as they are: whoever checks a signature has to make it again.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use super::Credential;
use crate::auth::{Grant, Principal};

/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Fewest characters of a secret; S3's own have 40.
const MIN_SECRET: usize = 16;
/// Most characters of an access key.
const MAX_ACCESS_KEY: usize = 128;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    access_key_id: String,
    secret_access_key: String,
    principal: String,
    grants: Vec<Grant>,
}

/// Reads the credentials in a file, by access key.
///
/// # Errors
/// What is wrong with the file. No secret is in it.
pub fn read(path: &Path) -> Result<HashMap<String, Credential>, String> {
    let about = |reason: String| format!("{}: {reason}", path.display());
    let length = std::fs::metadata(path).map_err(|error| about(error.to_string()))?;
    if length.len() > MAX_FILE_BYTES {
        return Err(about(format!("more than {MAX_FILE_BYTES} bytes")));
    }
    let text = std::fs::read(path).map_err(|error| about(error.to_string()))?;
    parse(&text).map_err(about)
}

fn parse(text: &[u8]) -> Result<HashMap<String, Credential>, String> {
    // The message of the parser may repeat what it read, which may be a secret.
    let malformed = |error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        format!(
            "line {line}, column {column}: it is no list of objects with access_key_id, \
             secret_access_key, principal and grants, each of which has a role (reader), and may have \
             a repository and in it a prefix"
        )
    };
    let entries: Vec<Entry> = serde_json::from_slice(text).map_err(malformed)?;
    if entries.is_empty() {
        return Err("it has no credential".into());
    }
    let mut known = HashMap::new();
    for entry in entries {
        let key = entry.access_key_id;
        let is_plain = key
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c));
        if key.is_empty() || key.len() > MAX_ACCESS_KEY || !is_plain {
            return Err(format!(
                "access_key_id {key:?} must be 1 to {MAX_ACCESS_KEY} letters, digits, '.', '_', '-'"
            ));
        }
        if entry.secret_access_key.len() < MIN_SECRET {
            return Err(format!(
                "the secret_access_key of {key:?} has fewer than {MIN_SECRET} characters"
            ));
        }
        if entry.principal.is_empty() {
            return Err(format!("the principal of {key:?} is empty"));
        }
        if entry.grants.is_empty() {
            return Err(format!(
                "{key:?} has no grants: [{{\"role\": \"reader\"}}] reads everything"
            ));
        }
        let credential = Credential {
            secret: entry.secret_access_key,
            principal: Principal {
                id: format!("s3:{key}"),
                name: entry.principal,
                grants: entry.grants,
            },
        };
        if known.insert(key.clone(), credential).is_some() {
            return Err(format!("access_key_id {key:?} is given twice"));
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_without_secrets() {
        let good = r#"{"access_key_id": "a.b", "secret_access_key": "0123456789abcdef", "principal": "ada",
            "grants": [{"role": "reader", "repository": "demo", "prefix": "g"}]}"#;
        let known = parse(format!("[{good}]").as_bytes()).unwrap();
        let ada = &known["a.b"].principal;
        assert_eq!((ada.id.as_str(), ada.name.as_str()), ("s3:a.b", "ada"));
        let may_read = |path: &str| {
            let (demo, path) = ("demo".parse().unwrap(), path.parse().unwrap());
            ada.allows(crate::auth::Action::Read, &demo, &path)
        };
        assert!(may_read("g/f") && !may_read("gg") && !may_read(""));
        assert!(!format!("{known:?}").contains("0123456789abcdef"));
        for (text, reason) in [
            ("[]".to_owned(), "no credential"),
            ("{}".to_owned(), "no list"),
            (format!("[{good},{good}]"), "twice"),
            (format!("[{}]", good.replace("ada", "")), "principal"),
            (format!("[{}]", good.replace("a.b", "a/b")), "access_key_id"),
            (
                format!("[{}]", good.replace("0123456789abcdef", "topsecret")),
                "fewer",
            ),
            (
                format!("[{}]", good.replace("\"0123456789abcdef\"", "17")),
                "no list",
            ),
            (format!("[{}]", good.replace("principal", "who")), "no list"),
            (format!("[{}]", good.replace("reader", "owner")), "no list"),
            (
                format!("[{}]", good.replace("\"repository\": \"demo\", ", "")),
                "no list",
            ),
            (
                format!(
                    "[{}]",
                    good.replace(
                        r#"{"role": "reader", "repository": "demo", "prefix": "g"}"#,
                        ""
                    )
                ),
                "no grants",
            ),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains("topsecret"), "{error}");
        }
    }
}
