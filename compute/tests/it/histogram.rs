//! Histograms equal those of NumPy.

use array::DataType;
use compute::Block;
use compute::histogram::{Bins, Histogram};
use serde_json::Value;

use crate::golden::{bytes, data_type};
use crate::order::{golden, integers};

fn floats(list: &Value) -> Vec<f64> {
    let list = list.as_array().unwrap().iter();
    list.map(|n| n.as_f64().unwrap()).collect()
}

fn pair(list: &Value) -> (f64, f64) {
    let list = floats(list);
    (list[0], list[1])
}

fn bins(of: &DataType, case: &Value) -> Bins {
    if case["bins"].is_array() {
        return Bins::between(of, floats(&case["bins"])).unwrap();
    }
    let count = case["bins"].as_u64().unwrap() as usize;
    if case["found"].is_array() {
        return Bins::over_values(of, count, Some(pair(&case["found"]))).unwrap();
    }
    Bins::uniform(of, count, pair(&case["range"])).unwrap()
}

#[test]
fn histograms_are_numpys() {
    for row in golden() {
        let of = data_type(row["data_type"].as_str().unwrap());
        let shape = integers(&row["shape"]);
        let mut values = bytes(&row["values"]);
        for case in row["histograms"].as_array().unwrap() {
            let bins = bins(&of, case);
            assert_eq!(bins.edges(), floats(&case["edges"]), "{of} {case}");
            if case["found"].is_array() {
                // NumPy was given the finite values alone.
                clear_infinity(&of, &mut values);
            }
            let block = |bytes, shape, reduced| Block {
                data_type: &of,
                bytes,
                shape,
                reduced,
                places: &[],
                selection_shape: &[],
            };
            let all = Histogram::of(&bins, &block(&values, &shape, &[true; 3])).unwrap();
            let wanted = integers(&case["counts"]);
            let wanted: Vec<u8> = wanted.iter().flat_map(|n| n.to_le_bytes()).collect();
            assert_eq!(all.finish(), wanted, "{of} {case}");
            // The same by cells, added up.
            let cells = Histogram::of(&bins, &block(&values, &shape, &[true, false, false]));
            let cells = cells.unwrap().finish();
            let mut sums = vec![0; bins.len()];
            for cell in cells.chunks_exact(8 * bins.len()) {
                for (sum, count) in sums.iter_mut().zip(cell.chunks_exact(8)) {
                    *sum += u64::from_le_bytes(count.try_into().unwrap());
                }
            }
            let sums: Vec<u8> = sums.iter().flat_map(|n| n.to_le_bytes()).collect();
            assert_eq!(sums, wanted, "{of} {case}");
        }
    }
}

fn clear_infinity(of: &DataType, values: &mut [u8]) {
    let (infinite, nan) = match of {
        DataType::Float16 => (vec![0x00, 0x7c], vec![0x00, 0x7e]),
        DataType::Float32 => (
            f32::INFINITY.to_le_bytes().into(),
            f32::NAN.to_le_bytes().into(),
        ),
        DataType::Float64 => (
            f64::INFINITY.to_le_bytes().into(),
            f64::NAN.to_le_bytes().into(),
        ),
        _ => return,
    };
    for value in values
        .chunks_exact_mut(infinite.len())
        .filter(|value| **value == infinite)
    {
        value.copy_from_slice(&nan);
    }
}

#[test]
fn bins_that_make_no_sense_are_refused() {
    let of = DataType::Int16;
    assert!(Bins::uniform(&of, 0, (0.0, 1.0)).is_err());
    assert!(Bins::uniform(&of, 1 << 30, (0.0, 1.0)).is_err());
    assert!(Bins::uniform(&of, 3, (1.0, 0.0)).is_err());
    assert!(Bins::uniform(&of, 3, (0.0, f64::INFINITY)).is_err());
    assert!(Bins::uniform(&DataType::Float32, 1 << 20, (1.0, 1.000_001)).is_err());
    assert!(Bins::between(&of, vec![1.0]).is_err());
    assert!(Bins::between(&of, vec![1.0, 0.0]).is_err());
    assert!(Bins::uniform(&DataType::Complex64, 3, (0.0, 1.0)).is_err());
    assert_eq!(
        Bins::over_values(&of, 2, None).unwrap().edges(),
        [0.0, 0.5, 1.0]
    );
}
