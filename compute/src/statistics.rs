//! Statistics of stored values, as they are kept beside the manifest.

use array::{DataType, Moments, Scalar, Statistics, Sum};
use serde_json::{Map, Value};

use crate::accumulators::{LANES, add_to, quotient};
use crate::cf::number::{is_real, is_time};
use crate::cf::{CfDecoder, Decode, Mask, Missing};
use crate::double::Double;
use crate::element::{Element, elements, with_real};
use crate::partial::encode;
use crate::simd::vectorised;
use crate::{Error, Reducer, Reduction};

/// Values looked at together: they stay in the first-level cache from one pass to the next.
const PART: usize = 1024;

/// Statistics of elements as stored, neither scaled nor offset; `None` if the type has none.
///
/// The values must be those of the cells of one inner chunk that are inside the array, in C order:
/// sums of floats depend on the order in their last bits. Value n goes into lane n mod 8, and the
/// lanes are added in turn.
pub fn statistics(data_type: &DataType, bytes: &[u8], missing: &Missing) -> Option<Statistics> {
    with_real!(
        data_type,
        T => Some(of::<T>(&elements::<T>(bytes), &missing.mask())),
        else None
    )
}

/// What a reduction of all cells of an array of `data_type` with these CF attributes comes to, given
/// their statistics as stored: the type of the answer, and one element of it. Missing values are
/// left out, packed ones unpacked, as where the values themselves are reduced.
///
/// # Errors
/// [`Error::NotInStatistics`] for reducers that take more, and for sums of packed values, which are
/// rounded one by one; [`Error::Undefined`] if the reducer has no meaning for the type;
/// [`Error::Empty`] if there is no value to choose from; [`Error::Attribute`] for attributes that
/// are not valid.
pub fn reduce_statistics(
    statistics: &Statistics,
    reducer: Reducer,
    data_type: &DataType,
    attributes: &Map<String, Value>,
) -> Result<(DataType, Vec<u8>), Error> {
    let untold = |reason| Error::NotInStatistics {
        reducer: reducer.name(),
        reason,
    };
    let decoder = CfDecoder::new(data_type, attributes, Decode::Cf)?;
    if decoder.as_ref().is_some_and(CfDecoder::changes_sign) {
        return Err(untold("_Unsigned reads the values with another sign"));
    }
    if is_time(data_type) && statistics.missing > 0 {
        return Err(untold("there are times that are not (NaT)"));
    }
    if decoder.as_ref().is_some_and(CfDecoder::is_packed)
        && !matches!(reducer, Reducer::Count | Reducer::Min | Reducer::Max)
    {
        return Err(untold(
            "the values are packed, and unpacked they are rounded",
        ));
    }
    let summary = Summary::new(Reduction::new(reducer), data_type, decoder.as_ref())
        .ok_or_else(|| untold("it takes more than counts, extremes and sums"))?;
    let decoded = decoder.as_ref().map_or(data_type, CfDecoder::data_type);
    let result = Reduction::new(reducer).data_type(decoded)?;
    Ok((result, summary.finish(statistics)?))
}

/// A reduction of a set of cells to one value, by their statistics as stored.
#[derive(Clone, Debug)]
pub struct Summary<'a> {
    reduction: Reduction,
    data_type: &'a DataType,
    decoder: Option<&'a CfDecoder>,
}

impl<'a> Summary<'a> {
    /// The reduction of values of `data_type`, decoded by `decoder` if they are; `None` if their
    /// statistics do not tell it, or it has no meaning for the type.
    ///
    /// Sums and means of packed values are unpacked as a whole: they differ from sums of values
    /// unpacked one by one, each rounded, in their last digits.
    pub fn new(
        reduction: Reduction,
        data_type: &'a DataType,
        decoder: Option<&'a CfDecoder>,
    ) -> Option<Self> {
        let decoded = decoder.map_or(data_type, CfDecoder::data_type);
        let has_statistics = is_real(data_type) && !is_time(data_type);
        let is_told = matches!(
            reduction.reducer,
            Reducer::Count
                | Reducer::Min
                | Reducer::Max
                | Reducer::Sum
                | Reducer::Mean
                | Reducer::Var
                | Reducer::Std
        );
        let changes_sign = decoder.is_some_and(CfDecoder::changes_sign);
        let is_finite = decoder.is_none_or(|decoder| {
            let (scale, offset) = decoder.packing();
            scale.is_finite() && offset.is_finite()
        });
        let is_defined = reduction.data_type(decoded).is_ok();
        let answers = has_statistics && is_told && !changes_sign && is_finite && is_defined;
        answers.then_some(Self {
            reduction,
            data_type,
            decoder,
        })
    }

    /// The answer: one element of [`Reduction::data_type`].
    ///
    /// # Errors
    /// [`Error::Empty`] for the extreme of no value, where the type has no NaN.
    pub fn finish(&self, statistics: &Statistics) -> Result<Vec<u8>, Error> {
        let reduction = &self.reduction;
        let decoded = self.decoder.map_or(self.data_type, CfDecoder::data_type);
        let result = reduction.data_type(decoded)?;
        let number = |number: f64| encode(&result, [number].into_iter());
        let skips = reduction.skips(decoded);
        let count = statistics.valid;
        let is_count = reduction.reducer == Reducer::Count;
        let has_nan = !skips && statistics.missing > 0 && decoded.is_float();
        if has_nan && !is_count {
            return Ok(number(f64::NAN));
        }
        let Some(moments) = statistics.moments else {
            return match reduction.reducer {
                Reducer::Count => Ok(0u64.to_le_bytes().to_vec()),
                Reducer::Sum if skips && reduction.min_count > 0 => Ok(number(f64::NAN)),
                Reducer::Sum => Ok(vec![0; result.size_bytes().unwrap_or(8)]),
                _ if result.is_float() => Ok(number(f64::NAN)),
                _ => Err(Error::Empty {
                    reducer: reduction.reducer.name(),
                    reason: "all values are missing",
                }),
            };
        };
        let (scale, offset) = self.decoder.map_or((1.0, 0.0), CfDecoder::packing);
        Ok(match reduction.reducer {
            Reducer::Min | Reducer::Max => {
                let falls = self.decoder.is_some_and(CfDecoder::falls);
                let least = (reduction.reducer == Reducer::Min) != falls;
                let stored = if least { moments.min } else { moments.max };
                let stored = bytes_of(self.data_type, stored);
                let value = self.decoder.map_or(stored.clone(), |d| d.decode(&stored));
                if result == *decoded {
                    value
                } else {
                    // `dtype=float64` of another type.
                    as_float64(decoded, &value)
                }
            }
            Reducer::Sum if skips && count < reduction.min_count => number(f64::NAN),
            Reducer::Sum => match moments.sum {
                // Modulo 2^64, as NumPy.
                Sum::Int(sum) if is_integer(&result) => (sum as u64).to_le_bytes().to_vec(),
                sum => {
                    let offsets = array::Double::product(offset, count as f64);
                    number(sum.to_double().times(scale).plus(offsets).to_f64())
                }
            },
            Reducer::Mean if (scale, offset) == (1.0, 0.0) => number(mean(moments.sum, count)),
            Reducer::Mean => {
                let mean = moments.sum.to_double().over(count as f64);
                number(mean.times(scale).plus(offset.into()).to_f64())
            }
            Reducer::Var | Reducer::Std => {
                let freedom = count as f64 - f64::from(reduction.ddof);
                let squares = moments.m2.to_f64() * (scale * scale);
                let variance = if skips && freedom <= 0.0 {
                    f64::NAN
                } else {
                    squares / freedom.max(0.0)
                };
                let is_std = reduction.reducer == Reducer::Std;
                number(if is_std { variance.sqrt() } else { variance })
            }
            _ => count.to_le_bytes().to_vec(),
        })
    }
}

/// The mean of `count` values; that of integers has an error below one unit in the last place.
fn mean(sum: Sum, count: u64) -> f64 {
    match sum {
        Sum::Int(sum) => quotient(sum, count),
        sum => sum.to_f64() / count as f64,
    }
}

fn is_integer(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int64 | DataType::UInt64)
}

/// One element as `float64`.
fn as_float64(data_type: &DataType, bytes: &[u8]) -> Vec<u8> {
    with_real!(
        data_type,
        T => elements::<T>(bytes).iter().flat_map(|value| value.to_f64().to_le_bytes()).collect(),
        else bytes.to_vec()
    )
}

/// The stored bytes of a value of `data_type`.
fn bytes_of(data_type: &DataType, value: Scalar) -> Vec<u8> {
    let size = data_type.size_bytes().unwrap_or(8);
    match value {
        Scalar::Int(value) => value.to_le_bytes()[..size.min(8)].to_vec(),
        Scalar::UInt(value) => value.to_le_bytes()[..size.min(8)].to_vec(),
        Scalar::Float(value) => encode(data_type, [value].into_iter()),
    }
}

vectorised! {
    /// The statistics of some values.
    fn of<'a; T: Element>(values: &'a [T], mask: &'a Mask<T>) -> Statistics {
        let mut tally = Tally::<T>::new();
        for part in values.chunks(PART) {
            let mut flags = [false; PART];
            match valid(part, mask, &mut flags) {
                Valid::All => tally.take(part, All, part.len() as u64),
                Valid::Some(flags) => tally.take(part, flags, flags.count()),
            }
        }
        let mut result = Statistics {
            valid: tally.valid,
            missing: values.len() as u64 - tally.valid,
            moments: None,
        };
        if tally.valid == 0 {
            return result;
        }
        let sum = tally.sum();
        let mean = sum.to_f64() / tally.valid as f64;
        let mut squares = [0.0; LANES];
        for part in values.chunks(PART) {
            let mut flags = [false; PART];
            match valid(part, mask, &mut flags) {
                Valid::All => add_squares(&mut squares, part, All, mean),
                Valid::Some(flags) => add_squares(&mut squares, part, flags, mean),
            }
        }
        result.moments = Some(Moments {
            min: tally
                .least
                .into_iter()
                .reduce(lesser)
                .unwrap_or(T::HIGHEST)
                .to_scalar(),
            max: tally
                .greatest
                .into_iter()
                .reduce(greater)
                .unwrap_or(T::LOWEST)
                .to_scalar(),
            sum,
            m2: squares.iter().sum::<f64>().into(),
        });
        result
    }
}

/// Which values of a part are valid. Most parts have none that is missing, and need no flags.
enum Valid<'a> {
    All,
    Some(Flags<'a>),
}

/// Finds out which values of a part are valid, with room for their flags.
#[inline(always)]
fn valid<'a, T: Element>(part: &[T], mask: &Mask<T>, flags: &'a mut [bool; PART]) -> Valid<'a> {
    let flags = &mut flags[..part.len()];
    mask.flag_valid(part, flags);
    let flags = Flags(flags);
    if flags.count() == part.len() as u64 {
        Valid::All
    } else {
        Valid::Some(flags)
    }
}

/// Whether values are valid: each, or those of one group of lanes after those of the other and then
/// those of the rest, which fills no group.
trait Flagged: Copy {
    fn each(self) -> impl Iterator<Item = bool>;
    fn groups(self) -> impl Iterator<Item = [bool; LANES]>;
    fn rest(self) -> impl Iterator<Item = bool>;
}

/// All values are valid.
#[derive(Clone, Copy)]
struct All;

impl Flagged for All {
    #[inline(always)]
    fn each(self) -> impl Iterator<Item = bool> {
        std::iter::repeat(true)
    }

    #[inline(always)]
    fn groups(self) -> impl Iterator<Item = [bool; LANES]> {
        std::iter::repeat([true; LANES])
    }

    #[inline(always)]
    fn rest(self) -> impl Iterator<Item = bool> {
        std::iter::repeat(true)
    }
}

/// A flag for each value.
#[derive(Clone, Copy)]
struct Flags<'a>(&'a [bool]);

impl Flags<'_> {
    #[inline(always)]
    fn count(self) -> u64 {
        self.0.iter().map(|&is_valid| u64::from(is_valid)).sum()
    }
}

impl Flagged for Flags<'_> {
    #[inline(always)]
    fn each(self) -> impl Iterator<Item = bool> {
        self.0.iter().copied()
    }

    #[inline(always)]
    fn groups(self) -> impl Iterator<Item = [bool; LANES]> {
        self.0.as_chunks().0.iter().copied()
    }

    #[inline(always)]
    fn rest(self) -> impl Iterator<Item = bool> {
        self.0.as_chunks::<LANES>().1.iter().copied()
    }
}

/// Gives `visit` each value with the lane it goes into, and whether it is valid: those of a part in
/// turn.
#[inline(always)]
fn lanes<T: Copy>(values: &[T], valid: impl Flagged, mut visit: impl FnMut(usize, T, bool)) {
    let (groups, rest) = values.as_chunks::<LANES>();
    for (group, valid) in groups.iter().zip(valid.groups()) {
        for lane in 0..LANES {
            visit(lane, group[lane], valid[lane]);
        }
    }
    for (lane, (&value, is_valid)) in rest.iter().zip(valid.rest()).enumerate() {
        visit(lane, value, is_valid);
    }
}

/// Adds the squares of the differences of valid values from `mean`.
#[inline(always)]
fn add_squares<T: Element>(
    squares: &mut [f64; LANES],
    values: &[T],
    valid: impl Flagged,
    mean: f64,
) {
    let mut sums = *squares;
    lanes(values, valid, |lane, value, is_valid| {
        let difference = value.to_f64() - mean;
        sums[lane] += if is_valid {
            difference * difference
        } else {
            0.0
        };
    });
    *squares = sums;
}

#[inline(always)]
fn lesser<T: PartialOrd>(least: T, value: T) -> T {
    if value < least { value } else { least }
}

#[inline(always)]
fn greater<T: PartialOrd>(greatest: T, value: T) -> T {
    if value > greatest { value } else { greatest }
}

/// Count, sums and extremes of valid values, in lanes.
struct Tally<T> {
    valid: u64,
    least: [T; LANES],
    greatest: [T; LANES],
    integer_sum: i128,
    high: [f64; LANES],
    low: [f64; LANES],
}

impl<T: Element> Tally<T> {
    fn new() -> Self {
        Self {
            valid: 0,
            least: [T::HIGHEST; LANES],
            greatest: [T::LOWEST; LANES],
            integer_sum: 0,
            high: [0.0; LANES],
            low: [0.0; LANES],
        }
    }

    /// Takes the values of which so many are valid.
    #[inline(always)]
    fn take(&mut self, values: &[T], valid: impl Flagged, count: u64) {
        self.valid += count;
        if T::IS_FLOAT {
            let (mut high, mut low) = (self.high, self.low);
            lanes(values, valid, |lane, value, is_valid| {
                let value = if is_valid { value.to_f64() } else { 0.0 };
                add_to(&mut high[lane], &mut low[lane], value);
            });
            (self.high, self.low) = (high, low);
        } else if count == values.len() as u64 {
            self.integer_sum += T::exact_sum(values);
        } else {
            let mut kept = [T::MISSING; PART];
            for ((kept, &value), is_valid) in kept.iter_mut().zip(values).zip(valid.each()) {
                *kept = if is_valid { value } else { T::MISSING };
            }
            let others = PART as i128 - i128::from(count);
            self.integer_sum += T::exact_sum(&kept) - others * T::MISSING.to_i128();
        }
        let (mut least, mut greatest) = (self.least, self.greatest);
        lanes(values, valid, |lane, value, is_valid| {
            let (low, high) = if is_valid {
                (value, value)
            } else {
                (T::HIGHEST, T::LOWEST)
            };
            least[lane] = lesser(least[lane], low);
            greatest[lane] = greater(greatest[lane], high);
        });
        (self.least, self.greatest) = (least, greatest);
    }

    fn sum(&self) -> Sum {
        if !T::IS_FLOAT {
            return Sum::Int(self.integer_sum);
        }
        let mut total = Double::default();
        for (&hi, &lo) in self.high.iter().zip(&self.low) {
            total.merge(Double { hi, lo });
        }
        let Double { hi, lo } = total.normalised();
        Sum::Float { hi, lo }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn missing(data_type: &DataType, attributes: &Value) -> Missing {
        Missing::from_attributes(data_type, attributes.as_object().unwrap()).unwrap()
    }

    proptest! {
        #[test]
        fn statistics_are_those_of_the_valid_values(
            values in prop::collection::vec(-9i32..9, 0..3000)
        ) {
            let missing = missing(&DataType::Int32, &json!({"_FillValue": 3, "valid_min": -7}));
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let found = statistics(&DataType::Int32, &bytes, &missing).unwrap();
            let valid: Vec<i64> =
                values.into_iter().filter(|v| *v != 3 && *v >= -7).map(i64::from).collect();
            prop_assert_eq!(found.valid, valid.len() as u64);
            prop_assert_eq!(found.valid + found.missing, bytes.len() as u64 / 4);
            let Some(moments) = found.moments else {
                prop_assert!(valid.is_empty());
                return Ok(());
            };
            let sum: i64 = valid.iter().sum();
            let mean = sum as f64 / valid.len() as f64;
            let m2: f64 = valid.iter().map(|&value| (value as f64 - mean).powi(2)).sum();
            prop_assert_eq!(moments.min, Scalar::Int(*valid.iter().min().unwrap()));
            prop_assert_eq!(moments.max, Scalar::Int(*valid.iter().max().unwrap()));
            prop_assert_eq!(moments.sum, Sum::Int(i128::from(sum)));
            prop_assert!((moments.m2.to_f64() - m2).abs() <= 1e-12 * m2);
        }
    }

    #[test]
    fn float_statistics_are_added_in_c_order() {
        // Written out by hand: 1e16 + 1 + 1 keeps its low part, NaN and the fill value are missing.
        let values = [1e16, f64::NAN, 1.0, -5.0, 1.0];
        let bytes = values.map(f64::to_le_bytes).concat();
        let missing = missing(&DataType::Float64, &json!({"_FillValue": -5}));
        let found = statistics(&DataType::Float64, &bytes, &missing).unwrap();
        assert_eq!((found.valid, found.missing), (3, 2));
        let moments = found.moments.unwrap();
        assert_eq!(
            moments.sum,
            Sum::Float {
                hi: 1e16 + 2.0,
                lo: 0.0
            }
        );
        assert_eq!(
            (moments.min, moments.max),
            (Scalar::Float(1.0), Scalar::Float(1e16))
        );
    }

    #[test]
    fn times_that_are_not_are_left_out_of_sums() {
        let data_type = DataType::DateTime64 {
            unit: array::TimeUnit::Second,
            scale_factor: 1,
        };
        let values = [5, i64::MIN, 7, i64::MIN];
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let found = statistics(&data_type, &bytes, &missing(&data_type, &json!({}))).unwrap();
        assert_eq!((found.valid, found.missing), (2, 2));
        assert_eq!(found.moments.unwrap().sum, Sum::Int(12));
    }

    #[test]
    fn what_is_not_a_real_number_has_no_statistics() {
        for data_type in [DataType::String, DataType::Complex64] {
            assert_eq!(statistics(&data_type, &[], &Missing::default()), None);
        }
        let none = statistics(&DataType::Bool, &[], &Missing::default());
        assert_eq!(none, Some(Statistics::EMPTY));
    }

    /// What reducing all cells comes to, from their statistics.
    fn from_statistics(
        data_type: &DataType,
        values: &[u8],
        attributes: &Value,
        reducer: Reducer,
    ) -> Result<(DataType, Vec<u8>), Error> {
        let missing = missing(data_type, attributes);
        let statistics = statistics(data_type, values, &missing).unwrap();
        let attributes = attributes.as_object().unwrap();
        reduce_statistics(&statistics, reducer, data_type, attributes)
    }

    #[test]
    fn statistics_answer_as_the_values_do() {
        let shorts: Vec<u8> = [3i16, -7, 99, 5]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let packed = json!({ "scale_factor": -0.5, "add_offset": 10.0, "_FillValue": 99 });
        let of = |reducer| from_statistics(&DataType::Int16, &shorts, &packed, reducer);
        // Larger stored values stand for smaller ones.
        assert_eq!(
            of(Reducer::Max),
            Ok((DataType::Float64, 13.5f64.to_le_bytes().to_vec()))
        );
        assert_eq!(
            of(Reducer::Min),
            Ok((DataType::Float64, 7.5f64.to_le_bytes().to_vec()))
        );
        assert_eq!(
            of(Reducer::Count),
            Ok((DataType::Int64, 3i64.to_le_bytes().to_vec()))
        );
        for reducer in [Reducer::Sum, Reducer::Mean, Reducer::Var, Reducer::Std] {
            assert!(matches!(of(reducer), Err(Error::NotInStatistics { .. })));
        }
        let plain = json!({});
        let of = |reducer| from_statistics(&DataType::Int16, &shorts, &plain, reducer);
        assert_eq!(
            of(Reducer::Sum),
            Ok((DataType::Int64, 100i64.to_le_bytes().to_vec()))
        );
        assert_eq!(
            of(Reducer::Mean),
            Ok((DataType::Float64, 25f64.to_le_bytes().to_vec()))
        );
        assert!(of(Reducer::Any).is_err());
    }

    #[test]
    fn statistics_of_values_read_with_another_sign_answer_nothing() {
        let unsigned = json!({ "_Unsigned": "true", "_FillValue": 255 });
        for reducer in Reducer::ALL {
            let answer = from_statistics(&DataType::Int8, &[255, 1, 2], &unsigned, reducer);
            assert!(answer.is_err(), "{reducer:?}");
        }
        let times: Vec<u8> = [i64::MIN, 1, 3]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let time = json!({ "name": "numpy.datetime64", "configuration": { "unit": "s", "scale_factor": 1 } });
        let time = DataType::parse(&time).unwrap();
        let answer = from_statistics(&time, &times, &json!({}), Reducer::Max);
        assert!(matches!(answer, Err(Error::NotInStatistics { .. })));
    }
}
