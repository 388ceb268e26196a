//! Medians, quantiles, histograms, weighted reductions and masks equal those of NumPy and xarray,
//! recorded by `tests/golden/make_order.py`.

use array::DataType;
use compute::order::{Method, Needs, OrderStatistics, Search};
use compute::{Block, Error};
use proptest::prelude::*;
use serde_json::Value;

use crate::golden::{bytes, data_type, rows};

pub(crate) fn golden() -> Vec<Value> {
    rows(include_str!("../golden/order.json"))
}

pub(crate) fn integers(list: &Value) -> Vec<u64> {
    let list = list.as_array().unwrap().iter();
    list.map(|n| n.as_u64().unwrap()).collect()
}

pub(crate) fn reduced(case: &Value, rank: usize) -> Vec<bool> {
    let axes = integers(&case["axes"]);
    (0..rank as u64).map(|axis| axes.contains(&axis)).collect()
}

fn statistics(case: &Value) -> OrderStatistics {
    let skip = case["skipna"].as_bool();
    if case["median"] == true {
        return OrderStatistics::median(skip);
    }
    let q = case["q"].as_array().unwrap().iter();
    let method: Method = case["method"].as_str().unwrap().parse().unwrap();
    OrderStatistics::quantiles(q.map(|q| q.as_f64().unwrap()).collect(), method, skip).unwrap()
}

/// Finds order statistics in the rows of the first axis, one block each.
fn search(
    statistics: &OrderStatistics,
    data_type: &DataType,
    shape: &[u64],
    reduced: &[bool],
    bytes: &[u8],
    memory: impl Fn(Needs) -> u64,
) -> Result<(Vec<u8>, usize), Error> {
    let split = reduced[0];
    let lengths = || shape.iter().zip(reduced);
    let kept: u64 = lengths()
        .filter(|(_, gone)| !**gone)
        .map(|(n, _)| n)
        .product();
    let each: u64 = lengths()
        .filter(|(_, gone)| **gone)
        .map(|(n, _)| n)
        .product();
    let needs = Needs::of(statistics, data_type, kept, each, 1);
    let mut search = Search::new(
        statistics.clone(),
        data_type,
        kept as usize,
        each,
        memory(needs),
        1,
    )?;
    let rows = if split { shape[0] } else { 1 };
    let mut row_shape = shape.to_vec();
    row_shape[0] /= rows;
    let places: Vec<Vec<u64>> = shape.iter().map(|&length| (0..length).collect()).collect();
    let mut passes = 0;
    while search.needs_pass() {
        let mut found = search.nothing();
        // Backwards: the order does not matter.
        for row in bytes.chunks_exact(bytes.len() / rows as usize).rev() {
            let block = Block {
                data_type,
                bytes: row,
                shape: &row_shape,
                reduced,
                places: &places,
                selection_shape: shape,
            };
            let mut other = search.count(&block)?;
            other.merge(found);
            found = other;
        }
        search.advance(found);
        passes += 1;
        if let Ok(near) = search.finish_approximate() {
            assert!(
                near.low
                    .iter()
                    .zip(&near.high)
                    .all(|(a, b)| a <= b || a.is_nan())
            );
        }
    }
    Ok((search.finish()?, passes))
}

#[test]
fn order_statistics_are_numpys_to_the_bit() {
    let memories: [fn(Needs) -> u64; 4] = [
        |needs| needs.one_pass,
        |needs| needs.least,
        |needs| needs.least * 3,
        |needs| needs.least * 40,
    ];
    for row in golden() {
        let of = data_type(row["data_type"].as_str().unwrap());
        let shape = integers(&row["shape"]);
        let values = bytes(&row["values"]);
        for case in row["order"].as_array().unwrap() {
            let statistics = statistics(case);
            let reduced = reduced(case, shape.len());
            let told = || format!("{of} {case}");
            for memory in memories {
                let found = search(&statistics, &of, &shape, &reduced, &values, memory);
                if case["error"].is_string() {
                    assert!(found.is_err(), "{}", told());
                    continue;
                }
                let result = statistics.data_type(&of).unwrap();
                assert_eq!(
                    result,
                    data_type(case["data_type"].as_str().unwrap()),
                    "{}",
                    told()
                );
                let (found, wanted) = (found.unwrap().0, bytes(&case["result"]));
                assert!(
                    same(&result, &found, &wanted),
                    "{}\n{found:?}\n{wanted:?}",
                    told()
                );
            }
        }
    }
}

/// Whether these are the same bits, but for the kind of NaN and the sign of 0.
pub(crate) fn same(data_type: &DataType, found: &[u8], wanted: &[u8]) -> bool {
    let size = data_type.size_bytes().unwrap();
    let value = |bytes: &[u8]| match *data_type {
        DataType::Float16 => half::f16::from_le_bytes(bytes.try_into().unwrap()).to_f64(),
        DataType::Float32 => f64::from(f32::from_le_bytes(bytes.try_into().unwrap())),
        DataType::Float64 => f64::from_le_bytes(bytes.try_into().unwrap()),
        _ => f64::NEG_INFINITY,
    };
    let mut pairs = found.chunks(size).zip(wanted.chunks(size));
    found.len() == wanted.len()
        && pairs.all(|(a, b)| {
            let both = |test: fn(f64) -> bool| test(value(a)) && test(value(b));
            a == b || both(f64::is_nan) || both(|value| value == 0.0)
        })
}

#[test]
fn less_memory_takes_more_passes() {
    let values: Vec<u8> = (0..1000u32)
        .flat_map(|n| f64::from(n * 7919 % 1009).to_le_bytes())
        .collect();
    let median = OrderStatistics::median(None);
    let passes = |memory: fn(Needs) -> u64| {
        let (of, shape) = (DataType::Float64, [10, 100]);
        search(&median, &of, &shape, &[true, true], &values, memory)
            .unwrap()
            .1
    };
    assert_eq!(passes(|needs| needs.one_pass), 1);
    assert!(passes(|needs| needs.least) > 4);
    let refused = Search::new(median, &DataType::Float64, 1, 1000, 10, 1);
    assert!(matches!(
        refused,
        Err(Error::Parameter { name: "memory", .. })
    ));
}

#[test]
fn where_no_value_is_left_integers_have_no_quantile() {
    let of_none = |method: Method, data_type: &DataType| {
        let q = OrderStatistics::quantiles(vec![0.5], method, None).unwrap();
        let mut search = Search::new(q, data_type, 1, 0, 1 << 20, 1).unwrap();
        while search.needs_pass() {
            search.advance(search.nothing());
        }
        search.finish()
    };
    assert!(of_none(Method::Lower, &DataType::Int16).is_err());
    assert_eq!(
        of_none(Method::Linear, &DataType::Int16),
        Ok(f64::NAN.to_le_bytes().to_vec())
    );
}

#[test]
fn what_is_no_quantile_is_refused() {
    for q in [vec![], vec![1.5], vec![f64::NAN]] {
        assert!(OrderStatistics::quantiles(q, Method::Linear, None).is_err());
    }
    assert!("cubic".parse::<Method>().is_err());
    for (method, name) in Method::ALL.into_iter().zip(Method::NAMES) {
        assert_eq!(name.parse(), Ok(method));
    }
}

proptest! {
    #[test]
    fn medians_are_those_of_sorted_values(
        values in prop::collection::vec(prop_oneof![Just(f32::NAN), -9f32..9.0, Just(0.5)], 2..200),
        factor in 1u64..50,
    ) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let median = OrderStatistics::median(None);
        let shape = [1, values.len() as u64];
        let memory = |needs: Needs| needs.least * factor;
        let (found, _) =
            search(&median, &DataType::Float32, &shape, &[true, true], &bytes, memory).unwrap();
        let mut sorted: Vec<f32> = values.into_iter().filter(|value| !value.is_nan()).collect();
        sorted.sort_by(f32::total_cmp);
        let wanted = match sorted.len() {
            0 => f32::NAN,
            n if n % 2 == 1 => sorted[n / 2],
            n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
        };
        prop_assert_eq!(found, wanted.to_le_bytes().to_vec());
    }
}
