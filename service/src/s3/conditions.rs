//! Conditions of a request for an object, and the range it asks for.
//!
//! Source: RFC 9110, section 13.2.2, for the order; Amazon S3, GetObject, for tags without quotes.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, HeaderName, header};

use super::refusal::Refusal;
use crate::http::answer::parse_range;

/// What tells the versions of an object apart.
#[derive(Debug)]
pub(super) struct Version {
    /// With its quotes.
    pub(super) etag: String,
    /// In whole seconds.
    pub(super) modified: SystemTime,
}

impl Version {
    /// A version that was written at a time, of which seconds count.
    pub(super) fn new(etag: String, time: SystemTime) -> Self {
        let seconds = time.duration_since(SystemTime::UNIX_EPOCH);
        let seconds = seconds.map_or(0, |since| since.as_secs());
        Self {
            etag,
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        }
    }

    /// Whether the client has this version already.
    ///
    /// # Errors
    /// 412 if it wants another one.
    pub(super) fn is_known(&self, headers: &HeaderMap) -> Result<bool, Refusal> {
        if let Some(tags) = text(headers, header::IF_MATCH) {
            if !self.is_one_of(tags) {
                return Err(Refusal::precondition_failed("If-Match"));
            }
        } else if let Some(time) = time(headers, header::IF_UNMODIFIED_SINCE)
            && self.modified > time
        {
            return Err(Refusal::precondition_failed("If-Unmodified-Since"));
        }
        Ok(match text(headers, header::IF_NONE_MATCH) {
            Some(tags) => self.is_one_of(tags),
            None => {
                let since = time(headers, header::IF_MODIFIED_SINCE);
                since.is_some_and(|time| self.modified <= time)
            }
        })
    }

    /// The range of an object of `length` bytes that is asked for; `None` for all of it.
    ///
    /// # Errors
    /// 416 for a range outside of it.
    pub(super) fn range(
        &self,
        headers: &HeaderMap,
        length: u64,
    ) -> Result<Option<Range<u64>>, Refusal> {
        let applies = text(headers, header::IF_RANGE).is_none_or(|condition| {
            let time = httpdate::parse_http_date(condition);
            condition == self.etag || time.is_ok_and(|time| time == self.modified)
        });
        match text(headers, header::RANGE).filter(|_| applies) {
            Some(range) => Ok(parse_range(range, length)?),
            None => Ok(None),
        }
    }

    fn is_one_of(&self, tags: &str) -> bool {
        let own = self.etag.trim_matches('"');
        let is_own = |tag: &str| {
            let tag = tag.trim().trim_start_matches("W/");
            tag == "*" || tag.trim_matches('"') == own
        };
        tags.split(',').any(is_own)
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn time(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    // What is no time is as if it were not there.
    httpdate::parse_http_date(text(headers, name)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "Thu, 01 Jan 2026 00:00:04 GMT";
    const OWN: &str = "Thu, 01 Jan 2026 00:00:05 GMT";

    fn version() -> Version {
        let time = httpdate::parse_http_date(OWN).unwrap();
        Version::new("\"a-1\"".to_owned(), time + Duration::from_millis(700))
    }

    fn headers(given: &[(HeaderName, &str)]) -> HeaderMap {
        let each = given.iter();
        each.map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn conditions_are_looked_at_in_order() {
        use header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
        for (given, expected) in [
            (vec![], Some(false)),
            (vec![(IF_MATCH, "\"a-1\"")], Some(false)),
            (vec![(IF_MATCH, "a-1")], Some(false)),
            (vec![(IF_MATCH, "*")], Some(false)),
            (vec![(IF_MATCH, "\"b\", \"a-1\"")], Some(false)),
            (vec![(IF_MATCH, "\"b\"")], None),
            (vec![(IF_NONE_MATCH, "\"a-1\"")], Some(true)),
            (vec![(IF_NONE_MATCH, "\"b\"")], Some(false)),
            (vec![(IF_MODIFIED_SINCE, OWN)], Some(true)),
            (vec![(IF_MODIFIED_SINCE, BEFORE)], Some(false)),
            (vec![(IF_MODIFIED_SINCE, "yesterday")], Some(false)),
            (vec![(IF_UNMODIFIED_SINCE, OWN)], Some(false)),
            (vec![(IF_UNMODIFIED_SINCE, BEFORE)], None),
            // A tag goes before a time.
            (
                vec![(IF_MATCH, "a-1"), (IF_UNMODIFIED_SINCE, BEFORE)],
                Some(false),
            ),
            (
                vec![(IF_NONE_MATCH, "b"), (IF_MODIFIED_SINCE, OWN)],
                Some(false),
            ),
        ] {
            let known = version().is_known(&headers(&given)).ok();
            assert_eq!(known, expected, "{given:?}");
        }
    }

    #[test]
    fn ranges_apply_to_the_version_that_is_meant() {
        use header::{IF_RANGE, RANGE};
        for (condition, expected) in [
            ("\"a-1\"", Some(2..4)),
            (OWN, Some(2..4)),
            ("\"b\"", None),
            (BEFORE, None),
        ] {
            let given = headers(&[(RANGE, "bytes=2-3"), (IF_RANGE, condition)]);
            assert_eq!(version().range(&given, 9).unwrap(), expected, "{condition}");
        }
        assert!(
            version()
                .range(&headers(&[(RANGE, "bytes=9-")]), 9)
                .is_err()
        );
    }
}
