//! The bucket and the key that a request names: in its path, or the bucket in the host.

use percent_encoding::percent_decode_str;

use super::MAX_KEY_BYTES;
use super::refusal::Refusal;

/// What a request is about: the service, a bucket, or an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) bucket: Option<String>,
    /// Only with a bucket; never empty.
    pub(super) key: Option<String>,
}

impl Address {
    /// Takes a path apart as it was sent. A host below `domain` names the bucket.
    pub(super) fn parse(path: &str, host: &str, domain: Option<&str>) -> Result<Self, Refusal> {
        let path = path.strip_prefix('/').unwrap_or(path);
        let of_host = domain.and_then(|domain| below(host, domain));
        let (bucket, key) = match of_host {
            Some(bucket) => (bucket, path),
            None => {
                let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
                (decode(bucket)?, key)
            }
        };
        let key = decode(key)?;
        if key.len() > MAX_KEY_BYTES {
            return Err(Refusal::key_too_long(key.len()));
        }
        Ok(Self {
            bucket: Some(bucket).filter(|bucket| !bucket.is_empty()),
            key: Some(key).filter(|key| !key.is_empty()),
        })
    }
}

/// The name in `NAME.domain` or `NAME.domain:port`.
pub(super) fn below(host: &str, domain: &str) -> Option<String> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.to_ascii_lowercase();
    let bucket = name.strip_suffix(&domain.to_ascii_lowercase())?;
    let bucket = bucket.strip_suffix('.')?;
    (!bucket.is_empty()).then(|| bucket.to_owned())
}

pub(super) fn decode(text: &str) -> Result<String, Refusal> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| Refusal::invalid_uri())?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str, host: &str) -> (Option<String>, Option<String>) {
        let address = Address::parse(path, host, Some("s3.example.org")).unwrap();
        (address.bucket, address.key)
    }

    #[test]
    fn buckets_are_in_the_path_or_in_the_host() {
        let own = |bucket: Option<&str>, key: Option<&str>| {
            (bucket.map(str::to_owned), key.map(str::to_owned))
        };
        for (path, host, expected) in [
            ("/", "s3.example.org", own(None, None)),
            ("/demo", "s3.example.org", own(Some("demo"), None)),
            ("/demo/", "127.0.0.1:9000", own(Some("demo"), None)),
            (
                "/demo/main/a%20b",
                "localhost",
                own(Some("demo"), Some("main/a b")),
            ),
            ("/demo//main", "localhost", own(Some("demo"), Some("/main"))),
            ("/", "Demo.s3.example.org:80", own(Some("demo"), None)),
            (
                "/main/x",
                "a.b.s3.example.org",
                own(Some("a.b"), Some("main/x")),
            ),
            ("/a/b", ".s3.example.org", own(Some("a"), Some("b"))),
            ("/a/b", "evils3.example.org", own(Some("a"), Some("b"))),
        ] {
            assert_eq!(parse(path, host), expected, "{path} at {host}");
        }
        assert!(Address::parse("/demo/%ff", "", None).is_err());
        let long = format!("/demo/{}", "a".repeat(MAX_KEY_BYTES + 1));
        assert!(Address::parse(&long, "", None).is_err());
    }
}
