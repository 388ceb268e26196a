//! Answers equal those of plain loops, for any type, shape, chunks, selection and axes.

use array::{AxisSelection, DataType, Region, TimeUnit, shape};
use compute::{Error, Reducer, Reduction};
use half::{bf16, f16};
use proptest::prelude::*;

use crate::chunked::{Chunked, resolve};

const TIME: DataType = DataType::DateTime64 {
    unit: TimeUnit::Second,
    scale_factor: 1,
};
const TYPES: [DataType; 14] = [
    DataType::Bool,
    DataType::Int8,
    DataType::Int16,
    DataType::Int32,
    DataType::Int64,
    DataType::UInt8,
    DataType::UInt16,
    DataType::UInt32,
    DataType::UInt64,
    DataType::Float16,
    DataType::BFloat16,
    DataType::Float32,
    DataType::Float64,
    TIME,
];

/// A value as the reference sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    Integer(i128),
    Float(f64),
    Missing,
}

impl Number {
    fn float(self) -> f64 {
        match self {
            Self::Integer(value) => value as f64,
            Self::Float(value) => value,
            Self::Missing => f64::NAN,
        }
    }

    /// Of valid numbers of one kind.
    fn less(self, other: Self) -> bool {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a < b,
            (a, b) => a.float() < b.float(),
        }
    }
}

/// A value of `data_type` made of a seed: often one of few, sometimes missing or extreme.
fn element(data_type: &DataType, seed: u16) -> (Vec<u8>, Number) {
    let small = i64::from(seed % 7) - 3;
    let special = seed / 7 % 11;
    macro_rules! integer {
        ($t:ty) => {{
            let value = match special {
                0 => <$t>::MAX,
                1 => <$t>::MIN,
                _ => small as $t,
            };
            (
                value.to_le_bytes().to_vec(),
                Number::Integer(i128::from(value)),
            )
        }};
    }
    macro_rules! float {
        ($t:ty, $of:expr) => {{
            let value: $t = $of(if special < 3 {
                f64::NAN
            } else {
                small as f64 / 8.0
            });
            let number = if value.is_nan() {
                Number::Missing
            } else {
                Number::Float(value.into())
            };
            (value.to_le_bytes().to_vec(), number)
        }};
    }
    match data_type {
        DataType::Bool => (
            vec![u8::from(small > 0)],
            Number::Integer(i128::from(small > 0)),
        ),
        DataType::Int8 => integer!(i8),
        DataType::Int16 => integer!(i16),
        DataType::Int32 => integer!(i32),
        DataType::Int64 => integer!(i64),
        DataType::UInt8 => integer!(u8),
        DataType::UInt16 => integer!(u16),
        DataType::UInt32 => integer!(u32),
        DataType::UInt64 => integer!(u64),
        DataType::Float16 => float!(f16, f16::from_f64),
        DataType::BFloat16 => float!(bf16, bf16::from_f64),
        DataType::Float32 => float!(f32, |value| value as f32),
        DataType::Float64 => float!(f64, |value| value),
        _ if special < 3 => (i64::MIN.to_le_bytes().to_vec(), Number::Missing),
        _ => (
            small.to_le_bytes().to_vec(),
            Number::Integer(i128::from(small)),
        ),
    }
}

/// The answer of one cell, by a plain loop. `None` where there is none.
fn reference(reduction: &Reduction, skip: bool, cell: &[Number]) -> Option<Number> {
    let is_valid = |number: &&Number| **number != Number::Missing;
    let valid: Vec<Number> = cell.iter().filter(is_valid).copied().collect();
    let used = if skip { &valid[..] } else { cell };
    let n = used.len() as f64;
    let is_float = cell
        .iter()
        .any(|number| matches!(number, Number::Float(_) | Number::Missing));
    let integers = || {
        used.iter().map(|number| match number {
            Number::Integer(value) => *value,
            _ => unreachable!("sums of integers"),
        })
    };
    let sum = || used.iter().map(|number| number.float()).sum::<f64>();
    let variance = || {
        let mean = sum() / n;
        let squares: f64 = used
            .iter()
            .map(|number| (number.float() - mean).powi(2))
            .sum();
        match n - f64::from(reduction.ddof) {
            freedom if skip && freedom <= 0.0 => f64::NAN,
            freedom => squares / freedom.max(0.0),
        }
    };
    let extreme = |least: bool| -> Option<(usize, Number)> {
        let mut best: Option<(usize, Number)> = None;
        for (at, &number) in cell.iter().enumerate() {
            let is_better = match (number, best) {
                (Number::Missing, _) if skip => false,
                (_, None) => true,
                (_, Some((_, Number::Missing))) => false,
                (Number::Missing, _) => true,
                (a, Some((_, b))) => {
                    if least {
                        a.less(b)
                    } else {
                        b.less(a)
                    }
                }
            };
            if is_better {
                best = Some((at, number));
            }
        }
        best
    };
    let integer = |value: i128| Number::Integer(value);
    let is_least = matches!(reduction.reducer, Reducer::Min | Reducer::ArgMin);
    let is_true = |number: &Number| *number == Number::Missing || number.float() != 0.0;
    Some(match reduction.reducer {
        Reducer::Count => integer(valid.len() as i128),
        Reducer::Any => integer(i128::from(cell.iter().any(is_true))),
        Reducer::All => integer(i128::from(cell.iter().all(is_true))),
        Reducer::Min | Reducer::Max => extreme(is_least).map_or(Number::Missing, |best| best.1),
        Reducer::ArgMin | Reducer::ArgMax => integer(extreme(is_least)?.0 as i128),
        Reducer::Sum if is_float => Number::Float(sum()),
        Reducer::Sum => integer(integers().sum()),
        Reducer::Prod if is_float => Number::Float(used.iter().map(|n| n.float()).product()),
        Reducer::Prod => integer(i128::from(
            integers().fold(1i64, |a, b| a.wrapping_mul(b as i64)),
        )),
        Reducer::Mean if is_float => Number::Float(sum() / n),
        Reducer::Mean => Number::Float(integers().sum::<i128>() as f64 / n),
        Reducer::Var => Number::Float(variance()),
        Reducer::Std => Number::Float(variance().sqrt()),
    })
}

/// Whether `bytes`, one element of `data_type`, is `wanted`.
fn is(data_type: &DataType, bytes: &[u8], wanted: Number) -> bool {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    let float = match data_type {
        DataType::Float16 => f64::from(f16::from_bits(u16::from_le_bytes([word[0], word[1]]))),
        DataType::BFloat16 => f64::from(bf16::from_bits(u16::from_le_bytes([word[0], word[1]]))),
        DataType::Float32 => f64::from(f32::from_bits(u64::from_le_bytes(word) as u32)),
        DataType::Float64 => f64::from_le_bytes(word),
        _ => {
            let integer = match wanted {
                Number::Integer(value) => value as i64,
                Number::Missing => i64::MIN,
                Number::Float(_) => return false,
            };
            return integer.to_le_bytes()[..bytes.len()] == *bytes;
        }
    };
    let precision = match data_type {
        DataType::Float16 => 1e-3,
        DataType::BFloat16 => 1e-2,
        DataType::Float32 => 1e-6,
        _ => 1e-12,
    };
    let wanted = wanted.float();
    float == wanted
        || (float.is_nan() && wanted.is_nan())
        || (float - wanted).abs() <= precision * wanted.abs().max(1e-3)
}

fn selectors() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(":".to_owned()),
        1 => Just("::-1".to_owned()),
        1 => Just("::2".to_owned()),
        1 => Just("-1:0:-2".to_owned()),
        1 => Just("[1,0,1]".to_owned()),
    ]
}

#[derive(Clone, Debug)]
struct Case {
    data_type: DataType,
    shape: Vec<u64>,
    chunk_shape: Vec<u64>,
    selection: String,
    reduced: Vec<bool>,
    seeds: Vec<u16>,
    reduction: Reduction,
}

fn cases() -> impl Strategy<Value = Case> {
    let axis = (2u64..7, 1u64..5, selectors(), any::<bool>());
    let options = (prop::option::of(any::<bool>()), 0u32..3);
    (
        0..TYPES.len(),
        0..12usize,
        prop::collection::vec(axis, 0..4),
        options,
    )
        .prop_flat_map(|(data_type, reducer, axes, (skip_missing, ddof))| {
            let shape: Vec<u64> = axes.iter().map(|axis| axis.0).collect();
            let count = shape.iter().product::<u64>() as usize;
            let case = Case {
                data_type: TYPES[data_type].clone(),
                chunk_shape: axes.iter().map(|axis| axis.1).collect(),
                selection: axes
                    .iter()
                    .map(|axis| axis.2.as_str())
                    .collect::<Vec<_>>()
                    .join(","),
                reduced: axes.iter().map(|axis| axis.3).collect(),
                seeds: Vec::new(),
                reduction: Reduction {
                    skip_missing,
                    ddof,
                    ..Reduction::new(Reducer::ALL[reducer])
                },
                shape,
            };
            prop::collection::vec(any::<u16>(), count).prop_map(move |seeds| Case {
                seeds,
                ..case.clone()
            })
        })
}

/// The numbers of each kept cell, in C order of the reduced axes.
fn cells(case: &Case, axes: &[AxisSelection], numbers: &[Number]) -> Vec<Vec<Number>> {
    let selected: Vec<u64> = axes.iter().map(AxisSelection::len).collect();
    let lengths = selected.iter().zip(&case.reduced);
    let kept: Vec<u64> = lengths
        .map(|(&l, &gone)| if gone { 1 } else { l })
        .collect();
    let mut cells = vec![Vec::new(); kept.iter().product::<u64>() as usize];
    for at in Region::whole(&selected).positions() {
        let source: Vec<u64> = at
            .iter()
            .zip(axes)
            .map(|(&n, axis)| axis.position(n))
            .collect();
        let number = numbers[shape::linear_index(&source, &case.shape) as usize];
        let at = at.iter().zip(&case.reduced);
        let cell: Vec<u64> = at.map(|(&n, &gone)| if gone { 0 } else { n }).collect();
        cells[shape::linear_index(&cell, &kept) as usize].push(number);
    }
    cells
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn reductions_equal_plain_loops(case in cases()) {
        let Case { data_type, reduction, .. } = &case;
        let Ok(result) = reduction.data_type(data_type) else { return Ok(()) };
        let elements: Vec<(Vec<u8>, Number)> =
            case.seeds.iter().map(|&seed| element(data_type, seed)).collect();
        let bytes: Vec<u8> = elements.iter().flat_map(|(bytes, _)| bytes).copied().collect();
        let numbers: Vec<Number> = elements.iter().map(|(_, number)| *number).collect();
        let array = Chunked {
            data_type,
            shape: &case.shape,
            bytes: &bytes,
            chunk_shape: &case.chunk_shape,
        };
        let axes = resolve(&case.selection, &case.shape);
        let found = array.reduce_selection(*reduction, &case.reduced, &axes);
        let skip = reduction.skip_missing.unwrap_or(data_type.is_float());
        let wanted: Option<Vec<Number>> = cells(&case, &axes, &numbers)
            .iter()
            .map(|cell| reference(reduction, skip && has_missing(data_type), cell))
            .collect();
        let Some(wanted) = wanted else {
            let is_empty = matches!(found, Err(Error::Empty { .. }));
            prop_assert!(is_empty, "{:?}", found);
            return Ok(());
        };
        let found = found.unwrap();
        let size = result.size_bytes().unwrap();
        prop_assert_eq!(found.len(), wanted.len() * size);
        for (found, wanted) in found.chunks(size).zip(wanted) {
            prop_assert!(is(&result, found, wanted), "{:?} is not {:?}", found, wanted);
        }
    }

    #[test]
    fn sums_of_floats_are_rounded_once(values in prop::collection::vec(-1e12f64..1e12, 1..3000)) {
        // What 128-bit integers can sum exactly.
        let values: Vec<f64> = values.iter().map(|value| (value * 1024.0).round() / 1024.0).collect();
        let exact: i128 = values.iter().map(|value| (value * 1024.0) as i128).sum();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let array = Chunked {
            data_type: &DataType::Float64,
            shape: &[values.len() as u64],
            bytes: &bytes,
            chunk_shape: &[700],
        };
        let found = array.reduce(Reduction::new(Reducer::Sum), &[true]).unwrap();
        prop_assert_eq!(found, (exact as f64 / 1024.0).to_le_bytes());
    }
}

fn has_missing(data_type: &DataType) -> bool {
    data_type.is_float() || *data_type == TIME
}

/// Reduces the first of two dimensions of an array of zeros.
fn over_rows(
    reducer: Reducer,
    data_type: &DataType,
    shape: [u64; 2],
    selection: &str,
) -> Result<Vec<u8>, Error> {
    let array = Chunked {
        data_type,
        shape: &shape,
        bytes: &[0; 96],
        chunk_shape: &[2, 2],
    };
    let axes = resolve(selection, &shape);
    array.reduce_selection(Reduction::new(reducer), &[true, false], &axes)
}

#[test]
fn selecting_nothing_gives_numpys_answers() {
    let reduce = |reducer, data_type| over_rows(reducer, data_type, [4, 3], "2:2");
    let three = |value: f64| Ok([value.to_le_bytes(); 3].concat());
    assert_eq!(reduce(Reducer::Sum, &DataType::Float64), three(0.0));
    assert_eq!(reduce(Reducer::Prod, &DataType::Float64), three(1.0));
    assert_eq!(reduce(Reducer::All, &DataType::Int64), Ok(vec![1; 3]));
    assert_eq!(
        reduce(Reducer::Count, &DataType::Complex64),
        Ok(vec![0; 24])
    );
    let mean = reduce(Reducer::Mean, &DataType::Int64).unwrap();
    assert!(
        mean.as_chunks()
            .0
            .iter()
            .all(|&bytes| f64::from_le_bytes(bytes).is_nan())
    );
}

#[test]
fn extremes_need_a_value_in_the_reduced_dimensions() {
    for reducer in [Reducer::Min, Reducer::Max, Reducer::ArgMin, Reducer::ArgMax] {
        let reduce = |shape, selection| over_rows(reducer, &DataType::Int64, shape, selection);
        assert!(matches!(reduce([4, 3], "2:2"), Err(Error::Empty { .. })));
        assert!(matches!(
            reduce([4, 3], "2:2,1:1"),
            Err(Error::Empty { .. })
        ));
        assert_eq!(reduce([4, 3], ":,1:1"), Ok(vec![]), "nothing is asked for");
    }
}

#[test]
fn what_has_no_meaning_is_refused() {
    for (reducer, data_type) in [
        (Reducer::Sum, DataType::String),
        (Reducer::Sum, TIME),
        (Reducer::Min, DataType::Complex64),
        (Reducer::Count, DataType::RawBits { length_bytes: 2 }),
    ] {
        let refused = Reduction::new(reducer).data_type(&data_type);
        assert!(
            matches!(refused, Err(Error::Undefined { .. })),
            "{data_type}"
        );
    }
}

#[test]
fn accumulators_are_given_as_float64() {
    let array = Chunked {
        data_type: &DataType::Float32,
        shape: &[3],
        bytes: &[0.1f32, 0.2, 1e-9].map(f32::to_le_bytes).concat(),
        chunk_shape: &[2],
    };
    let reduction = Reduction {
        as_float64: true,
        ..Reduction::new(Reducer::Mean)
    };
    let mean = (f64::from(0.1f32) + f64::from(0.2f32) + f64::from(1e-9f32)) / 3.0;
    assert_eq!(
        array.reduce(reduction, &[true]).unwrap(),
        mean.to_le_bytes()
    );
    for (data_type, result) in [
        (DataType::Int8, DataType::Float64),
        (DataType::Complex64, DataType::Complex128),
    ] {
        assert_eq!(reduction.data_type(&data_type), Ok(result));
    }
}
