//! Conditions as text: `t2m >= 300 and t2m < 310`.

use std::str::FromStr;

use array::Scalar;

use crate::Error;
use crate::predicate::{Comparison, Operator, Predicate};

/// Comparisons of arrays with numbers that all have to hold: each array's name with its predicate,
/// in the order of the text.
///
/// Comparisons are joined by `and`, `&`, `&&` or commas. The name comes first, then one of `<`,
/// `<=`, `>`, `>=`, `==`, `!=`, then a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// Names and predicates; no name twice.
    pub terms: Vec<(String, Predicate)>,
}

impl FromStr for Condition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut terms: Vec<(String, Vec<Comparison>)> = Vec::new();
        for part in parts(text) {
            let (name, comparison) = comparison(part.trim())?;
            match terms.iter_mut().find(|(known, _)| known == name) {
                Some((_, comparisons)) => comparisons.push(comparison),
                None => terms.push((name.to_owned(), vec![comparison])),
            }
        }
        let terms = terms
            .into_iter()
            .map(|(name, comparisons)| Ok((name, Predicate::new(comparisons)?)));
        Ok(Self {
            terms: terms.collect::<Result<_, Error>>()?,
        })
    }
}

/// The text between commas, ampersands and the word `and`.
fn parts(text: &str) -> Vec<&str> {
    let pieces = text.split("&&").flat_map(|piece| piece.split([',', '&']));
    let mut parts = Vec::new();
    for mut piece in pieces {
        while let Some((before, after)) = split_at_and(piece) {
            parts.push(before);
            piece = after;
        }
        parts.push(piece);
    }
    parts
}

fn split_at_and(text: &str) -> Option<(&str, &str)> {
    let (at, _) = text.match_indices("and").find(|(at, word)| {
        let (before, after) = (&text[..*at], &text[at + word.len()..]);
        before.ends_with(char::is_whitespace) && after.starts_with(char::is_whitespace)
    })?;
    Some((&text[..at], &text[at + 3..]))
}

fn comparison(text: &str) -> Result<(&str, Comparison), Error> {
    let refused = |reason: &str| Error::Parameter {
        name: "where",
        reason: format!("has {text:?}, {reason}"),
    };
    let shape = "not a comparison such as t2m>=300";
    let Some(at) = text.find(['<', '>', '=', '!']) else {
        return Err(refused(shape));
    };
    let (name, rest) = (text[..at].trim(), &text[at..]);
    let found = Operator::SIGNS
        .iter()
        .find_map(|(sign, operator)| Some((*operator, rest.strip_prefix(sign)?)));
    let Some((operator, number)) = found else {
        return Err(refused("equality is written == and inequality !="));
    };
    if name.is_empty() {
        return Err(refused(shape));
    }
    let Some(value) = number_of(number.trim()) else {
        return Err(refused("a number has to follow the sign"));
    };
    Ok((name, Comparison { operator, value }))
}

fn number_of(text: &str) -> Option<Scalar> {
    let integer = text.parse().map(Scalar::Int);
    let integer = integer.or_else(|_| text.parse().map(Scalar::UInt));
    integer.or_else(|_| text.parse().map(Scalar::Float)).ok()
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let comparisons = self.terms.iter().flat_map(|(name, predicate)| {
            let comparisons = predicate.comparisons().iter();
            comparisons.map(move |comparison| (name, comparison))
        });
        for (nth, (name, Comparison { operator, value })) in comparisons.enumerate() {
            let joint = if nth == 0 { "" } else { " and " };
            write!(f, "{joint}{name}{}", operator.sign())?;
            match value {
                Scalar::Int(value) => write!(f, "{value}")?,
                Scalar::UInt(value) => write!(f, "{value}")?,
                Scalar::Float(value) => write!(f, "{value:?}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        text.parse::<Condition>().unwrap().to_string()
    }

    #[test]
    fn conditions_are_read_as_written() {
        assert_eq!(told("t2m>310"), "t2m>310");
        assert_eq!(told(" t2m >= 300 and t2m<310.5 "), "t2m>=300 and t2m<310.5");
        assert_eq!(told("land!=0,t2m==-1e3"), "land!=0 and t2m==-1000.0");
        assert_eq!(told("a<1&b<2&&a>-inf"), "a<1 and a>-inf and b<2");
        assert_eq!(
            told("/g/x<18446744073709551615"),
            "/g/x<18446744073709551615"
        );
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for text in [
            "", "t2m", "t2m=3", "t2m!3", ">3", "t2m>", "3<t2m", "a<b", "a<1,", "a<nan",
        ] {
            let error = text.parse::<Condition>().unwrap_err();
            assert!(
                matches!(error, Error::Parameter { name: "where", .. }),
                "{text}"
            );
        }
        assert!(vec!["a<1"; 17].join(",").parse::<Condition>().is_err());
    }
}
