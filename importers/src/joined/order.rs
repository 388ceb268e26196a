//! The order of files along a dimension: their coordinate must ascend, or descend, all the way.

use std::cmp::Ordering;

use array::{DataType, Elements};
use compute::cf::time::TimeUnits;

use crate::Error;

/// Values of a coordinate that are read at once.
pub(super) const BLOCK: u64 = 1 << 16;

/// A value of a coordinate.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) enum Number {
    Integer(i128),
    Float(f64),
}

impl Number {
    /// A number that sorts as the value does, whatever its units if it is a time.
    pub(super) fn instant(self, units: Option<&TimeUnits>) -> f64 {
        let instant = units.and_then(|units| match self {
            Self::Integer(value) => units.decode_integer(value).ok(),
            Self::Float(value) => units.decode_float(value).ok().flatten(),
        });
        match (instant, self) {
            (Some(instant), _) => instant as f64,
            (None, Self::Integer(value)) => value as f64,
            (None, Self::Float(value)) => value,
        }
    }

    /// Text of the value, a date if it is one.
    fn shown(self, units: Option<&TimeUnits>) -> String {
        let instant = units.and_then(|units| match self {
            Self::Integer(value) => units.decode_integer(value).ok(),
            Self::Float(value) => units.decode_float(value).ok().flatten(),
        });
        match (units.zip(instant), self) {
            (Some((units, instant)), _) => units.text(instant),
            (None, Self::Integer(value)) => value.to_string(),
            (None, Self::Float(value)) => value.to_string(),
        }
    }
}

/// Whether values of this type have an order that is checked.
pub(crate) fn is_ordered(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Float32 | DataType::Float64 | DataType::DateTime64 { .. }
        )
}

/// The values of a coordinate that [`is_ordered`]; none of another.
pub(crate) fn numbers(data_type: &DataType, elements: &Elements) -> Vec<Number> {
    let Elements::Fixed(bytes) = elements else {
        return Vec::new();
    };
    macro_rules! read {
        ($t:ty, $number:ident, $wide:ty) => {{
            let values = bytes.chunks_exact(size_of::<$t>());
            let values =
                values.filter_map(|bytes| Some(<$t>::from_le_bytes(bytes.try_into().ok()?)));
            values
                .map(|value| Number::$number(<$wide>::from(value)))
                .collect()
        }};
    }
    match data_type {
        DataType::Int8 => read!(i8, Integer, i128),
        DataType::Int16 => read!(i16, Integer, i128),
        DataType::Int32 => read!(i32, Integer, i128),
        DataType::Int64 | DataType::DateTime64 { .. } => read!(i64, Integer, i128),
        DataType::UInt8 => read!(u8, Integer, i128),
        DataType::UInt16 => read!(u16, Integer, i128),
        DataType::UInt32 => read!(u32, Integer, i128),
        DataType::UInt64 => read!(u64, Integer, i128),
        DataType::Float32 => read!(f32, Float, f64),
        DataType::Float64 => read!(f64, Float, f64),
        _ => Vec::new(),
    }
}

/// A coordinate as far as it was seen, file by file.
#[derive(Debug)]
pub(crate) struct Sequence {
    path: String,
    units: Option<TimeUnits>,
    /// The array that the files go behind.
    stored: Option<String>,
    /// [`Ordering::Less`] if values ascend; none as long as there is one value only.
    direction: Option<Ordering>,
    /// The file before, where it begins and ends.
    before: Option<(String, Number, Number)>,
    /// The file at hand.
    current: Option<(String, Number, Number)>,
}

impl Sequence {
    /// Of the coordinate at `path`.
    pub(crate) fn new(path: String, units: Option<TimeUnits>) -> Self {
        Self {
            path,
            units,
            stored: None,
            direction: None,
            before: None,
            current: None,
        }
    }

    /// The same of files that go behind the array `stored`, which is seen first, under that name.
    pub(crate) fn behind(self, stored: &str) -> Self {
        Self {
            stored: Some(stored.to_owned()),
            ..self
        }
    }

    /// Sees more values of a file, all of whose values come one after the other.
    ///
    /// # Errors
    /// [`Error::Misfit`] for the first value that is not past the one before it.
    pub(crate) fn see(&mut self, file: &str, values: &[Number]) -> Result<(), Error> {
        if self.current.as_ref().is_none_or(|(name, ..)| name != file) {
            let done = self.current.take();
            self.before = done.or(self.before.take());
        }
        for &value in values {
            let last = match (&self.current, &self.before) {
                (Some((_, _, last)), _) | (None, Some((_, _, last))) => Some(*last),
                (None, None) => None,
            };
            let step = last.map(|last| last.partial_cmp(&value));
            let is_number = value.partial_cmp(&value).is_some();
            match (step, self.direction) {
                _ if !is_number => return Err(self.misfit(file, value)),
                (None, _) => {}
                (Some(Some(step)), None) if step != Ordering::Equal => self.direction = Some(step),
                (Some(step), direction) if step == direction && step.is_some() => {}
                _ => return Err(self.misfit(file, value)),
            }
            match &mut self.current {
                Some((_, _, last)) => *last = value,
                None => self.current = Some((file.to_owned(), value, value)),
            }
        }
        Ok(())
    }

    fn misfit(&self, file: &str, value: Number) -> Error {
        let path = &self.path;
        let shown = |value: Number| value.shown(self.units.as_ref());
        let anyway = "--unordered takes the files as they are";
        let reason = match (&self.current, &self.before) {
            (None, Some((before, begin, end))) => {
                let (begins, ends) = (shown(*begin), shown(*end));
                let is_before = match self.direction {
                    Some(Ordering::Greater) => value > *begin,
                    _ => value < *begin,
                };
                if is_before && self.stored.as_ref() == Some(before) {
                    format!(
                        "along {path:?} it begins at {}, before {before}, which reaches from \
                         {begins} to {ends}, and nothing can be put in front; {anyway}",
                        shown(value)
                    )
                } else if is_before {
                    format!(
                        "along {path:?} it begins at {}, before {before}, which begins at \
                         {begins}: give {file} before {before}, or --sort; {anyway}",
                        shown(value)
                    )
                } else {
                    format!(
                        "along {path:?} it overlaps {before}: it begins at {}, {before} reaches \
                         from {begins} to {ends}; {anyway}",
                        shown(value)
                    )
                }
            }
            (Some((_, _, last)), _) => format!(
                "its coordinate {path:?} is not strictly monotonic: {} comes after {}; {anyway}",
                shown(value),
                shown(*last)
            ),
            (None, None) => format!(
                "its coordinate {path:?} begins with {}; {anyway}",
                shown(value)
            ),
        };
        Error::Misfit {
            file: file.to_owned(),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(files: &[(&str, &[f64])]) -> Result<(), String> {
        let mut sequence = Sequence::new("time".into(), None);
        for (file, values) in files {
            let values: Vec<Number> = values.iter().map(|&value| Number::Float(value)).collect();
            for block in values.chunks(2) {
                sequence
                    .see(file, block)
                    .map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    #[test]
    fn files_in_order_are_taken_and_others_told_apart() {
        assert_eq!(
            run(&[("a", &[1.0, 2.0, 3.0]), ("b", &[4.0]), ("c", &[5.0, 6.0])]),
            Ok(())
        );
        assert_eq!(run(&[("a", &[3.0, 2.0]), ("b", &[1.0])]), Ok(()));
        assert_eq!(
            run(&[("a", &[1.0]), ("empty", &[]), ("b", &[0.5]), ("c", &[0.0])]),
            Ok(())
        );
        for (files, wanted) in [
            (
                &[("a", [1.0, 2.0].as_slice()), ("b", &[2.0, 3.0])][..],
                "b does not fit: along \"time\" it overlaps a: it begins at 2, a reaches from 1 to 2",
            ),
            (
                &[("b", &[3.0, 4.0]), ("a", &[1.0, 2.0])],
                "a does not fit: along \"time\" it begins at 1, before b, which begins at 3: give a before b, or --sort",
            ),
            (
                &[("a", &[1.0, 2.0, 2.0])],
                "a does not fit: its coordinate \"time\" is not strictly monotonic: 2 comes after 2",
            ),
            (
                &[("a", &[1.0, f64::NAN])],
                "not strictly monotonic: NaN comes after 1",
            ),
            (&[("a", &[f64::NAN])], "begins with NaN"),
            (&[("a", &[1.0]), ("b", &[1.0])], "overlaps a"),
            (&[("a", &[4.0, 3.0]), ("b", &[3.5])], "overlaps a"),
            (&[("a", &[4.0, 3.0]), ("b", &[5.0])], "give b before a"),
        ] {
            let found = run(files).unwrap_err();
            assert!(found.contains(wanted), "{found}");
        }
    }
}
