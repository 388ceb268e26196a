//! Labels as text.
//!
//! ```text
//! 850                 one label: drops the dimension
//! 850,500  or  850,   a list, in this order
//! 1000/500            all from one to the other, both included; either may be left out
//! nearest::x  x,y     also pad:: and ffill::, backfill:: and bfill::
//! "a/b","say ""x"""   quoted labels may hold any character
//! ```

use std::str::FromStr;

use crate::Error;
use crate::cf::number::quoted;

/// Longest text that is parsed, in bytes.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// Labels along one coordinate, as the user gave them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Labels {
    /// One label; the dimension is dropped.
    One(String, Match),
    /// These labels, in this order.
    List(Vec<String>, Match),
    /// All from one label to another, both included; open where there is none.
    Range(Option<String>, Option<String>),
}

/// Which value a label selects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Match {
    /// The one equal to it.
    #[default]
    Exact,
    /// The one nearest to it; the larger of two as near.
    Nearest,
    /// The last one not after it, in the order of storage.
    Pad,
    /// The first one not before it, in the order of storage.
    Backfill,
}

impl FromStr for Labels {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fail = |reason: &str| Error::LabelText {
            label: quoted(text),
            reason: reason.to_owned(),
        };
        if text.len() > MAX_TEXT_BYTES {
            return Err(fail("is longer than 1 MiB"));
        }
        let (method, rest) = method(text.trim());
        let (mut labels, separators) = split(rest).map_err(fail)?;
        match separators.as_slice() {
            [] => match labels.pop().flatten() {
                Some(label) => Ok(Self::One(label, method)),
                None => Err(fail(
                    "is empty; leave the parameter out to select everything",
                )),
            },
            ['/'] if method == Match::Exact => {
                let last = labels.pop().flatten();
                Ok(Self::Range(labels.pop().flatten(), last))
            }
            ['/'] => Err(fail("is a range, which takes no method")),
            all if all.contains(&'/') => Err(fail(
                "has more than one range; quote labels that hold \"/\" or \",\"",
            )),
            _ => {
                // A comma at the end makes a list of one.
                labels.pop_if(|last| last.is_none());
                let labels: Option<Vec<String>> = labels.into_iter().collect();
                let labels = labels.ok_or_else(|| fail("has an empty label between commas"))?;
                Ok(Self::List(labels, method))
            }
        }
    }
}

fn method(text: &str) -> (Match, &str) {
    let method = text.split_once("::").and_then(|(name, rest)| {
        let method = match name.trim() {
            "nearest" => Match::Nearest,
            "pad" | "ffill" => Match::Pad,
            "backfill" | "bfill" => Match::Backfill,
            _ => return None,
        };
        Some((method, rest))
    });
    method.unwrap_or((Match::Exact, text))
}

/// The labels, `None` where there is none, and the separators between them.
fn split(text: &str) -> Result<(Vec<Option<String>>, Vec<char>), &'static str> {
    let (mut labels, mut separators) = (Vec::new(), Vec::new());
    let mut rest = text.trim_start();
    loop {
        let label;
        (label, rest) = match rest.strip_prefix('"') {
            Some(inside) => unquote(inside).map(|(label, rest)| (Some(label), rest))?,
            None => {
                let end = rest.find([',', '/']).unwrap_or(rest.len());
                let (label, rest) = rest.split_at(end);
                let label = label.trim_end();
                ((!label.is_empty()).then(|| label.to_owned()), rest)
            }
        };
        labels.push(label);
        let mut after = rest.chars();
        match after.next() {
            None => return Ok((labels, separators)),
            Some(separator @ (',' | '/')) => separators.push(separator),
            Some(_) => return Err("has text after a closing quote"),
        }
        rest = after.as_str().trim_start();
    }
}

/// Reads up to the closing quote; doubled quotes stand for one.
fn unquote(mut rest: &str) -> Result<(String, &str), &'static str> {
    let mut label = String::new();
    loop {
        let (part, after) = rest.split_once('"').ok_or("has an opening quote only")?;
        label.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                label.push('"');
                rest = more;
            }
            None => return Ok((label, after.trim_start())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(labels: &[&str], method: Match) -> Labels {
        Labels::List(
            labels.iter().map(|&label| label.to_owned()).collect(),
            method,
        )
    }

    #[test]
    fn labels_are_read() {
        let one = |label: &str, method| Labels::One(label.to_owned(), method);
        let range = |first: Option<&str>, last: Option<&str>| {
            Labels::Range(first.map(str::to_owned), last.map(str::to_owned))
        };
        for (text, labels) in [
            ("850", one("850", Match::Exact)),
            (" 2020-01-31 06:00 ", one("2020-01-31 06:00", Match::Exact)),
            ("850,500", list(&["850", "500"], Match::Exact)),
            ("850,", list(&["850"], Match::Exact)),
            ("40/50", range(Some("40"), Some("50"))),
            ("-40 / ", range(Some("-40"), None)),
            ("/50", range(None, Some("50"))),
            ("/", range(None, None)),
            ("nearest::2020-01-06", one("2020-01-06", Match::Nearest)),
            ("nearest:: 1, 2", list(&["1", "2"], Match::Nearest)),
            ("ffill::1", one("1", Match::Pad)),
            ("pad::1", one("1", Match::Pad)),
            ("bfill::1", one("1", Match::Backfill)),
            ("backfill::1", one("1", Match::Backfill)),
            ("other::1", one("other::1", Match::Exact)),
            (
                "\"a/b\", \"say \"\"x\"\"\"",
                list(&["a/b", "say \"x\""], Match::Exact),
            ),
            ("\"\"", one("", Match::Exact)),
            ("\"a,b\"/c", range(Some("a,b"), Some("c"))),
        ] {
            assert_eq!(text.parse(), Ok(labels), "{text}");
        }
        for text in [
            "",
            " ",
            "1,,2",
            ",1",
            ",",
            "1/2/3",
            "1/2,3",
            "nearest::1/2",
            "\"a",
            "\"a\"b",
        ] {
            assert!(text.parse::<Labels>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_fails_without_panic(text in "[-0-9:,/\". é:a-z]{0,16}") {
            let _ = text.parse::<Labels>();
        }
    }
}
