//! The values of a coordinate, and what a label means among them.

use std::cmp::Ordering;

use array::{DataType, Elements, Tensor};
use serde_json::{Map, Value};

use crate::Error;
use crate::cf::number::quoted;
use crate::cf::time::{Calendar, DAY, TimeUnits};
use crate::cf::{Interval, Stamp, iso_text};
use crate::element::{Element, elements, with_real};
use crate::halves::{bf16_of, f16_of};

/// Stands for a missing time or duration.
const MISSING: i128 = i128::MIN;

#[derive(Clone, Debug)]
pub(super) enum Values {
    /// Integers and durations, in their ticks.
    Integers(Vec<i128>),
    Booleans(Vec<u8>),
    Floats {
        values: Vec<f64>,
        data_type: DataType,
    },
    /// Attoseconds since day 0 of the calendar.
    Times {
        instants: Vec<i128>,
        calendar: Calendar,
        /// The finest part that any of them has, in attoseconds.
        resolution: i128,
    },
    Texts(Vec<Box<str>>),
}

/// A place among values.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Point {
    /// Also an instant, or the number of a truth value.
    Integer(i128),
    Float(f64),
    Text(String),
}

/// What a label means.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Span {
    pub(super) first: Point,
    /// Inclusive.
    pub(super) last: Point,
    /// Whether it is a date coarser than the values, which stands for all of them that it holds.
    pub(super) is_partial: bool,
}

impl Values {
    /// The values of a one-dimensional tensor.
    ///
    /// # Errors
    /// What is wrong: values without labels, times out of range. [`Error::Attribute`] as
    /// [`TimeUnits::new`].
    pub(super) fn new(
        tensor: &Tensor,
        attributes: &Map<String, Value>,
        fail: impl Fn(String) -> Error,
    ) -> Result<Self, Error> {
        let data_type = &tensor.data_type;
        let values = match (&tensor.elements, TimeUnits::new(data_type, attributes)?) {
            (Elements::Fixed(bytes), Some(units)) => {
                let instants = instants(data_type, bytes, &units);
                Self::times(instants.map_err(&fail)?, units.calendar())
            }
            (Elements::Fixed(bytes), None) => Self::fixed(data_type, bytes)
                .ok_or_else(|| fail(format!("holds {data_type}, which has no labels")))?,
            (Elements::Variable(texts), _) if *data_type == DataType::String => Self::Texts(
                texts
                    .iter()
                    .map(|text| String::from_utf8_lossy(text).into())
                    .collect(),
            ),
            (Elements::Variable(_), _) => {
                return Err(fail(format!("holds {data_type}, which has no labels")));
            }
        };
        let length = values.len() as u64;
        if tensor.shape != [length] {
            let shape = &tensor.shape;
            return Err(fail(format!(
                "has shape {shape:?}; labels need one dimension"
            )));
        }
        Ok(values)
    }

    fn times(instants: Vec<i128>, calendar: Calendar) -> Self {
        let second = DAY / 86_400;
        let steps = (0..7).map(|power| second / 1000i128.pow(power));
        let mut steps = [DAY, 3600 * second, 60 * second].into_iter().chain(steps);
        let mut resolution = DAY;
        for instant in instants.iter().filter(|&&instant| instant != MISSING) {
            while instant % resolution != 0 {
                resolution = steps.next().unwrap_or(1);
            }
        }
        Self::Times {
            instants,
            calendar,
            resolution,
        }
    }

    fn fixed(data_type: &DataType, bytes: &[u8]) -> Option<Self> {
        let texts = |size: usize, read: fn(&[u8]) -> Box<str>| {
            Self::Texts(bytes.chunks_exact(size.max(1)).map(read).collect())
        };
        Some(match data_type {
            DataType::Bool => {
                Self::Booleans(bytes.iter().map(|&byte| u8::from(byte != 0)).collect())
            }
            DataType::FixedLengthUtf32 { length_bytes } => texts(*length_bytes as usize, |bytes| {
                let points = bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|&point| u32::from_le_bytes(point));
                let text: String = points
                    .map(|point| char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER))
                    .collect();
                text.trim_end_matches('\0').into()
            }),
            DataType::NullTerminatedBytes { length_bytes } => {
                texts(*length_bytes as usize, |bytes| {
                    String::from_utf8_lossy(bytes).trim_end_matches('\0').into()
                })
            }
            data_type if data_type.is_float() => Self::Floats {
                values: with_real!(
                    data_type,
                    T => elements::<T>(bytes).iter().map(|value| value.to_f64()).collect(),
                    else return None
                ),
                data_type: data_type.clone(),
            },
            _ => Self::Integers(with_real!(
                data_type,
                T => integers(&elements::<T>(bytes)),
                else return None
            )),
        })
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Integers(values) => values.len(),
            Self::Booleans(values) => values.len(),
            Self::Floats { values, .. } => values.len(),
            Self::Times { instants, .. } => instants.len(),
            Self::Texts(values) => values.len(),
        }
    }

    pub(super) fn is_missing(&self, at: usize) -> bool {
        match self {
            Self::Integers(values) => values[at] == MISSING,
            Self::Floats { values, .. } => values[at].is_nan(),
            Self::Times { instants, .. } => instants[at] == MISSING,
            Self::Booleans(_) | Self::Texts(_) => false,
        }
    }

    /// Compares two values that are not missing.
    pub(super) fn compare(&self, a: usize, b: usize) -> Ordering {
        match self {
            Self::Integers(values) => values[a].cmp(&values[b]),
            Self::Booleans(values) => values[a].cmp(&values[b]),
            Self::Floats { values, .. } => {
                values[a].partial_cmp(&values[b]).unwrap_or(Ordering::Equal)
            }
            Self::Times { instants, .. } => instants[a].cmp(&instants[b]),
            Self::Texts(values) => values[a].cmp(&values[b]),
        }
    }

    /// Compares a value that is not missing with a point.
    pub(super) fn compare_with(&self, at: usize, point: &Point) -> Ordering {
        match (self, point) {
            (Self::Integers(values), point) => compare_integer(values[at], point),
            (Self::Booleans(values), point) => compare_integer(values[at].into(), point),
            (Self::Times { instants, .. }, point) => compare_integer(instants[at], point),
            (Self::Floats { values, .. }, point) => values[at]
                .partial_cmp(&point.to_f64())
                .unwrap_or(Ordering::Less),
            (Self::Texts(values), Point::Text(text)) => (*values[at]).cmp(text.as_str()),
            // Labels are read as what the values are.
            (Self::Texts(_), _) => Ordering::Less,
        }
    }

    /// Whether the value at `lower` is nearer to a point between than the one at `upper`.
    pub(super) fn is_lower_nearer(&self, lower: usize, upper: usize, point: &Point) -> bool {
        match (self.point(lower), self.point(upper), point) {
            (Point::Integer(lower), Point::Integer(upper), Point::Integer(point)) => {
                point.saturating_sub(lower) < upper.saturating_sub(*point)
            }
            (lower, upper, point) => {
                let point = point.to_f64();
                point - lower.to_f64() < upper.to_f64() - point
            }
        }
    }

    /// The value at a position.
    pub(super) fn point(&self, at: usize) -> Point {
        match self {
            Self::Integers(values) => Point::Integer(values[at]),
            Self::Booleans(values) => Point::Integer(values[at].into()),
            Self::Floats { values, .. } => Point::Float(values[at]),
            Self::Times { instants, .. } => Point::Integer(instants[at]),
            Self::Texts(values) => Point::Text(values[at].to_string()),
        }
    }

    /// What a label means among these values.
    ///
    /// # Errors
    /// [`Error::LabelText`] if it is not one.
    pub(super) fn read(&self, label: &str) -> Result<Span, Error> {
        let fail = |reason: String| Error::LabelText {
            label: quoted(label),
            reason,
        };
        let only = |point: Point| Span {
            first: point.clone(),
            last: point,
            is_partial: false,
        };
        Ok(match self {
            Self::Texts(_) => only(Point::Text(label.to_owned())),
            Self::Booleans(_) => match label {
                "true" | "True" | "1" => only(Point::Integer(1)),
                "false" | "False" | "0" => only(Point::Integer(0)),
                _ => return Err(fail("is neither true nor false".to_owned())),
            },
            Self::Integers(_) => {
                let integer = label.parse().ok().map(Point::Integer);
                let number = integer.or_else(|| number(label).map(Point::of_f64));
                only(number.ok_or_else(|| fail("is not a number".to_owned()))?)
            }
            Self::Floats { .. } => {
                let number = number(label).ok_or_else(|| fail("is not a number".to_owned()))?;
                only(Point::Float(number))
            }
            Self::Times {
                calendar,
                resolution,
                ..
            } => {
                let stamp = Stamp::parse(label).map_err(fail)?;
                let Interval { first, last } = stamp.interval(*calendar).map_err(fail)?;
                Span {
                    first: Point::Integer(first),
                    last: Point::Integer(last),
                    is_partial: stamp.length() > *resolution,
                }
            }
        })
    }

    /// A point as it is compared with the values: floats as the nearest of their type, so that `0.1`
    /// is a `float32` among such, and whole numbers among integers as integers.
    pub(super) fn fit(&self, point: Point) -> Point {
        match (self, point) {
            (Self::Floats { data_type, .. }, Point::Float(value)) => {
                Point::Float(match data_type {
                    DataType::Float32 => f64::from(value as f32),
                    DataType::Float16 => f16_of(value).to_f64(),
                    DataType::BFloat16 => bf16_of(value).to_f64(),
                    _ => value,
                })
            }
            (Self::Integers(_), Point::Float(value)) => Point::of_f64(value),
            (_, point) => point,
        }
    }

    /// The label of a position.
    pub(super) fn text(&self, at: usize) -> String {
        if self.is_missing(at) {
            return "missing".to_owned();
        }
        match self {
            Self::Integers(values) => values[at].to_string(),
            Self::Booleans(values) => (values[at] != 0).to_string(),
            Self::Floats { values, data_type } if *data_type == DataType::Float64 => {
                values[at].to_string()
            }
            // The shortest digits that 32 bits tell apart.
            Self::Floats { values, .. } => (values[at] as f32).to_string(),
            Self::Times {
                instants,
                calendar,
                resolution,
            } => iso_text(*calendar, instants[at], *resolution),
            Self::Texts(values) => values[at].to_string(),
        }
    }
}

impl Point {
    /// A number; whole ones as integers.
    fn of_f64(value: f64) -> Self {
        if value.fract() == 0.0 && value.abs() < 1e30 {
            Self::Integer(value as i128)
        } else {
            Self::Float(value)
        }
    }

    /// The nearest `f64`; NaN for text.
    pub(super) fn to_f64(&self) -> f64 {
        match self {
            Self::Integer(value) => *value as f64,
            Self::Float(value) => *value,
            Self::Text(_) => f64::NAN,
        }
    }

    /// The same point `degrees` further.
    pub(super) fn plus(&self, degrees: i16) -> Self {
        match self {
            Self::Integer(value) => Self::Integer(value.saturating_add(degrees.into())),
            other => Self::Float(other.to_f64() + f64::from(degrees)),
        }
    }
}

fn compare_integer(value: i128, point: &Point) -> Ordering {
    match point {
        Point::Integer(point) => value.cmp(point),
        // Not whole, or beyond all values.
        Point::Float(point) if value > point.floor() as i128 => Ordering::Greater,
        _ => Ordering::Less,
    }
}

fn number(label: &str) -> Option<f64> {
    label.parse().ok().filter(|number: &f64| !number.is_nan())
}

fn integers<T: Element>(values: &[T]) -> Vec<i128> {
    let integer = |value: &T| {
        if value.is_missing() {
            MISSING
        } else {
            value.to_i128()
        }
    };
    values.iter().map(integer).collect()
}

/// Instants, or what is wrong with one of the values.
fn instants(data_type: &DataType, bytes: &[u8], units: &TimeUnits) -> Result<Vec<i128>, String> {
    // NumPy's NaT, which xarray also takes 64-bit integers of times for.
    let is_nat = |value: i128| *data_type != DataType::UInt64 && value == i64::MIN.into();
    with_real!(
        data_type,
        T => elements::<T>(bytes)
            .iter()
            .enumerate()
            .map(|(at, value)| {
                let instant = if T::IS_FLOAT {
                    units.decode_float(value.to_f64())
                } else if is_nat(value.to_i128()) {
                    Ok(None)
                } else {
                    units.decode_integer(value.to_i128()).map(Some)
                };
                let fail = |error| format!("holds {} at {at}, which {error}", value.to_f64());
                instant.map(|instant| instant.unwrap_or(MISSING)).map_err(fail)
            })
            .collect(),
        else Err(format!("holds {data_type}, which are no times"))
    )
}
