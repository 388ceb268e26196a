//! Names of repositories and refs, and the expressions that name a commit.

use std::fmt;
use std::str::FromStr;

use array::Hash;
use chrono::{DateTime, Utc};

use crate::{CommitId, Error};

/// Fewest digits of a commit id prefix.
const MIN_PREFIX_DIGITS: usize = 8;
/// Longest chain `~n` walks.
const MAX_ANCESTORS: u64 = 1 << 32;

/// The name of a repository: `[a-z0-9][a-z0-9._-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepoName(String);

impl RepoName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepoName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let head = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let tail = |c: u8| head(c) || matches!(c, b'.' | b'_' | b'-');
        if !matches_name(text, 63, head, tail) {
            let reason = format!(
                "{text:?} must be 1 to 63 of a-z, 0-9, '.', '_', '-', and start with a letter or digit"
            );
            return Err(Error::invalid("repository name", reason));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a branch or tag: `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`, not 8 or more hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RefName(String);

impl RefName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RefName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let head = |c: u8| c.is_ascii_alphanumeric();
        let tail = |c: u8| head(c) || matches!(c, b'.' | b'_' | b'-');
        if !matches_name(text, 128, head, tail) {
            let reason = format!(
                "{text:?} must be 1 to 128 letters, digits, '.', '_', '-', and start with a letter or digit"
            );
            return Err(Error::invalid("branch or tag name", reason));
        }
        if text.len() >= MIN_PREFIX_DIGITS && text.bytes().all(|c| c.is_ascii_hexdigit()) {
            let reason = format!("{text:?} could be the start of a commit id");
            return Err(Error::invalid("branch or tag name", reason));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn matches_name(
    text: &str,
    most: usize,
    head: impl Fn(u8) -> bool,
    tail: impl Fn(u8) -> bool,
) -> bool {
    let bytes = text.as_bytes();
    (1..=most).contains(&bytes.len()) && head(bytes[0]) && bytes[1..].iter().all(|&c| tail(c))
}

/// Where a ref expression starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefBase {
    /// A branch or a tag.
    Name(RefName),
    /// A whole commit id.
    Commit(CommitId),
    /// At least eight digits of one, lower case.
    Prefix(String),
}

/// What names a commit: a branch, a tag, a commit id or prefix, `x~n` (its n-th first parent), or
/// `x@time` (where branch or tag `x` was at that time).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefExpression {
    /// Where to start.
    pub base: RefBase,
    /// The state of the refs to use; the newest if none.
    pub at: Option<DateTime<Utc>>,
    /// First parents to walk.
    pub ancestors: u64,
}

impl FromStr for RefExpression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |reason: String| Error::invalid("ref", reason);
        let (text, ancestors) = match text.rsplit_once('~') {
            Some((rest, count)) => {
                let count = count
                    .parse::<u64>()
                    .ok()
                    .filter(|&count| count <= MAX_ANCESTORS)
                    .ok_or_else(|| {
                        invalid(format!("{count:?} after '~' is not a number of commits"))
                    })?;
                (rest, count)
            }
            None => (text, 0),
        };
        let (name, at) = match text.split_once('@') {
            Some((name, time)) => {
                // In a URL query or path a '+' of the offset may arrive as a space.
                let time =
                    DateTime::parse_from_rfc3339(&time.replace(' ', "+")).map_err(|error| {
                        invalid(format!("{time:?} is not an RFC 3339 time: {error}"))
                    })?;
                (name, Some(time.with_timezone(&Utc)))
            }
            None => (text, None),
        };
        let is_hex = name.len() >= MIN_PREFIX_DIGITS && name.bytes().all(|c| c.is_ascii_hexdigit());
        let base = if is_hex {
            let digits = name.to_ascii_lowercase();
            match digits.parse::<Hash>() {
                Ok(hash) => RefBase::Commit(CommitId(hash)),
                Err(_) if digits.len() < 64 => RefBase::Prefix(digits),
                Err(_) => return Err(invalid(format!("{name:?} is longer than a commit id"))),
            }
        } else {
            RefBase::Name(name.parse()?)
        };
        if at.is_some() && !matches!(base, RefBase::Name(_)) {
            return Err(invalid(
                "'@time' goes with a branch or a tag, a commit never moves".into(),
            ));
        }
        Ok(Self {
            base,
            at,
            ancestors,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_rules() {
        let long = "a".repeat(64);
        for bad in ["", "-a", "A", "a/b", "a b", long.as_str(), "ä", ".."] {
            assert!(bad.parse::<RepoName>().is_err(), "{bad}");
        }
        for good in ["a", "0.x_y-z"] {
            assert!(good.parse::<RepoName>().is_ok(), "{good}");
        }
        for bad in ["", "_a", "a~1", "a@b", "deadbeef", "0123456789", "a/b"] {
            assert!(bad.parse::<RefName>().is_err(), "{bad}");
        }
        for good in ["main", "v1.0", "deadbee", "2026-01-01"] {
            assert!(good.parse::<RefName>().is_ok(), "{good}");
        }
    }

    #[test]
    fn expressions_take_apart() {
        let parse = |text: &str| text.parse::<RefExpression>();
        assert_eq!(parse("main").unwrap().ancestors, 0);
        assert_eq!(parse("main~3").unwrap().ancestors, 3);
        let timed = parse("main@2026-01-01T00:00:00Z~1").unwrap();
        assert!(timed.at.is_some() && timed.ancestors == 1);
        assert!(matches!(parse("DEADBEEF").unwrap().base, RefBase::Prefix(p) if p == "deadbeef"));
        assert!(matches!(
            parse(&"ab".repeat(32)).unwrap().base,
            RefBase::Commit(_)
        ));
        for bad in [
            "",
            "main~x",
            "main~99999999999",
            "main@yesterday",
            "deadbeef@2026-01-01T00:00:00Z",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&"a".repeat(65)).is_err());
    }
}
