//! The values of a variable, looked at in order and piece by piece.

use array::{DataType, Elements, Region};
use half::f16;

use crate::Error;
use crate::source::{Source, Variable};

/// Elements read at once.
const PIECE: u64 = 1 << 20;
/// Longer variables are not looked at: no coordinate is.
const MAX_ELEMENTS: u64 = 1 << 28;

/// What the values are like.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Scan {
    /// NaN, or one of the values that stand for missing ones.
    pub(super) missing: u64,
    /// Place of the first value that is not further in the direction of those before.
    pub(super) turns_at: Option<u64>,
    /// Place of the first value that is equal to the one before it.
    pub(super) repeats_at: Option<u64>,
    /// Of those that are not missing; infinite if there are none.
    pub(super) least: f64,
    pub(super) greatest: f64,
}

/// Looks at all values of a numeric variable; `None` if it is not one or too long.
///
/// # Errors
/// What [`Source::read`] says.
pub(super) fn scan(
    source: &Source,
    variable: &Variable,
    missing: &[f64],
) -> Result<Option<Scan>, Error> {
    let known = |count: u64, length: &u64| count.checked_mul(*length);
    let count = variable.shape.iter().try_fold(1u64, known);
    let Some(count) = count.filter(|&count| count <= MAX_ELEMENTS) else {
        return Ok(None);
    };
    let mut state = State::new(missing);
    for region in pieces(&variable.shape, count) {
        let Elements::Fixed(bytes) = source.read(variable, &region)? else {
            return Ok(None);
        };
        let is_number = match variable.data_type {
            DataType::Int8 => state.take(&bytes, i8::from_le_bytes),
            DataType::Int16 => state.take(&bytes, i16::from_le_bytes),
            DataType::Int32 => state.take(&bytes, i32::from_le_bytes),
            DataType::Int64 => state.take_wide(&bytes, |word| i128::from(i64::from_le_bytes(word))),
            DataType::UInt8 => state.take(&bytes, u8::from_le_bytes),
            DataType::UInt16 => state.take(&bytes, u16::from_le_bytes),
            DataType::UInt32 => state.take(&bytes, u32::from_le_bytes),
            DataType::UInt64 => {
                state.take_wide(&bytes, |word| i128::from(u64::from_le_bytes(word)))
            }
            DataType::Float16 => state.take(&bytes, |word| f16::from_le_bytes(word).to_f32()),
            DataType::Float32 => state.take(&bytes, f32::from_le_bytes),
            DataType::Float64 => state.take(&bytes, f64::from_le_bytes),
            _ => false,
        };
        if !is_number {
            return Ok(None);
        }
    }
    Ok(Some(state.scan))
}

/// Boxes of at most [`PIECE`] elements, or of one position of the first dimension, that cover a
/// shape in order.
fn pieces(shape: &[u64], count: u64) -> Vec<Region> {
    if count == 0 {
        return Vec::new();
    }
    let Some((&first, rest)) = shape.split_first() else {
        return vec![Region::whole(shape)];
    };
    let row = rest.iter().product::<u64>().max(1);
    let step = (PIECE / row).clamp(1, first);
    let starts = (0..first.div_ceil(step)).map(|piece| piece * step);
    let piece = |start: u64| {
        let mut corner = vec![0; shape.len()];
        let mut lengths = shape.to_vec();
        corner[0] = start;
        lengths[0] = step.min(first - start);
        Region::new(corner, lengths).ok()
    };
    starts.filter_map(piece).collect()
}

/// The scan so far.
struct State<'a> {
    scan: Scan,
    missing: &'a [f64],
    /// The value before, exact for integers of 64 bits too.
    before: Option<Value>,
    ascends: Option<bool>,
    count: u64,
}

#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Value {
    Wide(i128),
    Narrow(f64),
}

impl<'a> State<'a> {
    fn new(missing: &'a [f64]) -> Self {
        Self {
            scan: Scan {
                least: f64::INFINITY,
                greatest: f64::NEG_INFINITY,
                ..Scan::default()
            },
            missing,
            before: None,
            ascends: None,
            count: 0,
        }
    }

    fn take<T: Into<f64>, const N: usize>(
        &mut self,
        bytes: &[u8],
        number: fn([u8; N]) -> T,
    ) -> bool {
        for &word in bytes.as_chunks::<N>().0 {
            let value = number(word).into();
            self.one(value, Value::Narrow(value));
        }
        true
    }

    fn take_wide(&mut self, bytes: &[u8], number: fn([u8; 8]) -> i128) -> bool {
        for &word in bytes.as_chunks::<8>().0 {
            let value = number(word);
            self.one(value as f64, Value::Wide(value));
        }
        true
    }

    fn one(&mut self, rough: f64, value: Value) {
        let at = self.count;
        self.count += 1;
        if rough.is_nan() || self.missing.contains(&rough) {
            self.scan.missing += 1;
            return;
        }
        self.scan.least = self.scan.least.min(rough);
        self.scan.greatest = self.scan.greatest.max(rough);
        if let Some(before) = self.before.replace(value) {
            let ascends = value > before;
            if value == before {
                self.scan.repeats_at.get_or_insert(at);
            } else if *self.ascends.get_or_insert(ascends) != ascends {
                self.scan.turns_at.get_or_insert(at);
            }
        }
    }
}
