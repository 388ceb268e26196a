//! The dimension that files are stacked along, and its coordinate.

use std::fmt;
use std::str::FromStr;

use array::{DataType, Elements, VariableElements};

use crate::Error;
use crate::joined::MAX_MEMBERS;

/// A new dimension, one position for each file: `member`, or with a coordinate `member=r1,r2`,
/// `member=0..7` (both ends are in it), or `member=@` for the part of the file names that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct NewDim {
    /// Its name.
    pub name: String,
    /// The values of the coordinate of that name; there is none without them.
    pub labels: Option<Labels>,
}

/// The values of a new coordinate.
#[derive(Clone, Debug, PartialEq)]
pub enum Labels {
    /// 64-bit integers.
    Integers(Vec<i64>),
    /// 64-bit floats.
    Floats(Vec<f64>),
    /// Texts.
    Texts(Vec<String>),
    /// What tells the names of the files apart.
    FileNames,
}

impl FromStr for NewDim {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, labels) = match text.split_once('=') {
            None => (text, None),
            Some((name, labels)) => (name, Some(labels.parse()?)),
        };
        match name.trim() {
            "" => Err(format!("{text:?} names no dimension")),
            name => Ok(Self {
                name: name.to_owned(),
                labels,
            }),
        }
    }
}

impl fmt::Display for NewDim {
    /// What [`NewDim::from_str`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.labels {
            None => Ok(()),
            Some(labels) => write!(f, "={labels}"),
        }
    }
}

impl FromStr for Labels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "@" {
            return Ok(Self::FileNames);
        }
        if let Some((first, last)) = text.split_once("..") {
            let end = |text: &str| text.trim().parse::<i64>();
            let (Ok(first), Ok(last)) = (end(first), end(last)) else {
                return Err(format!("{text:?} is not a range like 0..7"));
            };
            if first > last || last.abs_diff(first) >= MAX_MEMBERS as u64 {
                return Err(format!(
                    "{text:?}: from 1 to {MAX_MEMBERS} values, ascending"
                ));
            }
            return Ok(Self::Integers((first..=last).collect()));
        }
        let texts: Vec<String> = text.split(',').map(|part| part.trim().to_owned()).collect();
        if texts.iter().any(String::is_empty) {
            return Err(format!("{text:?} has an empty value"));
        }
        Ok(Self::of_texts(texts))
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |texts: Vec<String>| texts.join(",");
        f.write_str(&match self {
            Self::Integers(values) => list(values.iter().map(ToString::to_string).collect()),
            Self::Floats(values) => list(values.iter().map(|value| format!("{value:?}")).collect()),
            Self::Texts(values) => list(values.clone()),
            Self::FileNames => "@".to_owned(),
        })
    }
}

impl Labels {
    /// Numbers if every text is one that is written so.
    fn of_texts(texts: Vec<String>) -> Self {
        let integer = |text: &String| {
            let value = text.parse::<i64>().ok()?;
            (value.to_string() == *text).then_some(value)
        };
        if let Some(values) = texts.iter().map(integer).collect() {
            return Self::Integers(values);
        }
        let float = |text: &String| {
            let looks = text.contains('.') && !text.starts_with("0") || text.starts_with("0.");
            text.parse::<f64>().ok().filter(|_| looks)
        };
        match texts.iter().map(float).collect() {
            Some(values) => Self::Floats(values),
            None => Self::Texts(texts),
        }
    }

    /// The coordinate of files of these names.
    pub(super) fn coordinate(&self, names: &[String]) -> Result<(DataType, Elements), Error> {
        let (data_type, count, elements) = match self {
            Self::Integers(values) => {
                let bytes = values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                (DataType::Int64, values.len(), Elements::Fixed(bytes))
            }
            Self::Floats(values) => {
                let bytes = values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                (DataType::Float64, values.len(), Elements::Fixed(bytes))
            }
            Self::Texts(values) => {
                let texts: VariableElements = values.iter().map(String::as_bytes).collect();
                (DataType::String, values.len(), Elements::Variable(texts))
            }
            Self::FileNames => {
                let parts = differing_parts(names);
                let mut sorted = parts.clone();
                sorted.sort_unstable();
                sorted.dedup();
                if sorted.len() < parts.len() || parts.iter().any(String::is_empty) {
                    return Err(option(
                        "the names of the files do not tell them apart".into(),
                    ));
                }
                return Self::of_texts(parts).coordinate(names);
            }
        };
        if count != names.len() {
            return Err(option(format!("{count} values for {} files", names.len())));
        }
        Ok((data_type, elements))
    }
}

fn option(reason: String) -> Error {
    Error::Option {
        option: "--new-dim",
        reason,
    }
}

/// The names without what all begin and end with; numbers stay whole.
fn differing_parts(names: &[String]) -> Vec<String> {
    let Some(first) = names.first() else {
        return Vec::new();
    };
    let first: Vec<char> = first.chars().collect();
    let (mut start, mut end, mut shortest) = (first.len(), first.len(), first.len());
    for name in names {
        let name: Vec<char> = name.chars().collect();
        shortest = shortest.min(name.len());
        let same = |(a, b): &(&char, &char)| a == b;
        start = start.min(first.iter().zip(&name).take_while(same).count());
        end = end.min(
            first
                .iter()
                .rev()
                .zip(name.iter().rev())
                .take_while(same)
                .count(),
        );
    }
    end = end.min(shortest - start);
    while start > 0 && first[start - 1].is_ascii_digit() {
        start -= 1;
    }
    while end > 0 && first[first.len() - end].is_ascii_digit() {
        end -= 1;
    }
    let part = |name: &String| {
        let name: Vec<char> = name.chars().collect();
        name[start..name.len() - end].iter().collect()
    };
    names.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_what_they_look_like() {
        for (text, wanted) in [
            ("0..3", Labels::Integers(vec![0, 1, 2, 3])),
            ("5, -1", Labels::Integers(vec![5, -1])),
            ("0.5,1.0", Labels::Floats(vec![0.5, 1.0])),
            ("r1,r2", Labels::Texts(vec!["r1".into(), "r2".into()])),
            // Zeros in front mean something.
            ("01,02", Labels::Texts(vec!["01".into(), "02".into()])),
            ("@", Labels::FileNames),
        ] {
            assert_eq!(text.parse::<Labels>().unwrap(), wanted, "{text}");
            let shown = wanted.to_string().parse::<Labels>().unwrap();
            assert_eq!(shown, wanted);
        }
        for bad in ["a,,b", "3..1", "0..99999999999", "x..y", ""] {
            assert!(bad.parse::<Labels>().is_err(), "{bad}");
        }
        assert!("=1".parse::<NewDim>().is_err());
        assert_eq!("member".parse::<NewDim>().unwrap().labels, None);
        assert_eq!("m=a,b".parse::<NewDim>().unwrap().to_string(), "m=a,b");
    }

    #[test]
    fn file_names_give_the_part_that_differs() {
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        for (found, wanted) in [
            (names(&["t.57.nc", "t.61.nc"]), names(&["57", "61"])),
            (
                names(&["m1.nc", "m10.nc", "m11.nc"]),
                names(&["1", "10", "11"]),
            ),
            (names(&["a.nc", "b.nc"]), names(&["a", "b"])),
            (names(&["aa.nc", "aaa.nc"]), names(&["", "a"])),
        ] {
            assert_eq!(differing_parts(&found), wanted);
        }
        let labels = Labels::FileNames;
        assert!(labels.coordinate(&names(&["aa.nc", "aaa.nc"])).is_err());
        assert!(labels.coordinate(&names(&["a.nc", "a.nc"])).is_err());
        let (data_type, _) = labels.coordinate(&names(&["t.57.nc", "t.61.nc"])).unwrap();
        assert_eq!(data_type, DataType::Int64);
    }
}
