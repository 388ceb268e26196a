//! Weighted reductions equal those of xarray.

use array::DataType;
use compute::weighted::{WeightedPartial, WeightedReducer, WeightedReduction, Weights};
use compute::{Block, Combiner, Error};

use crate::golden::{bytes, data_type};
use crate::order::{golden, integers, reduced};

fn floats(bytes: &[u8]) -> Vec<f64> {
    let floats = bytes.as_chunks().0.iter();
    floats.map(|&bytes| f64::from_le_bytes(bytes)).collect()
}

/// Whether `a` is `b`, or NaN where xarray has an infinite variance.
fn close(a: f64, b: f64) -> bool {
    a == b
        || (a.is_nan() && b == f64::INFINITY)
        || (a.is_nan() && b.is_nan())
        || (a - b).abs() <= 1e-12 * (a.abs() + b.abs() + 1.0)
}

#[test]
fn weighted_reductions_are_xarrays() {
    for row in golden() {
        let of = data_type(row["data_type"].as_str().unwrap());
        let shape = integers(&row["shape"]);
        let values = bytes(&row["values"]);
        for case in row["weighted"].as_array().unwrap() {
            let reduced = reduced(case, shape.len());
            let weight_axes = integers(&case["weight_axes"]);
            let axes: Vec<bool> = (0..3).map(|axis| weight_axes.contains(&axis)).collect();
            let weights = floats(&bytes(&case["weights"]));
            let reduction = WeightedReduction {
                reducer: case["reducer"].as_str().unwrap().parse().unwrap(),
                skip_missing: case["skipna"].as_bool(),
            };
            let wanted = floats(&bytes(&case["result"]));
            // In one block, and in one for each row of the first axis if that is reduced.
            for rows in if reduced[0] {
                vec![1, shape[0]]
            } else {
                vec![1]
            } {
                let mut row_shape = shape.clone();
                row_shape[0] /= rows;
                let mut partials = Vec::new();
                let parts = if axes[0] { rows as usize } else { 1 };
                for (nth, values) in values
                    .chunks_exact(values.len() / rows as usize)
                    .enumerate()
                {
                    let block = Block {
                        data_type: &of,
                        bytes: values,
                        shape: &row_shape,
                        reduced: &reduced,
                        places: &[],
                        selection_shape: &[],
                    };
                    let mut parts = weights.chunks_exact(weights.len() / parts).cycle();
                    let weights = Weights {
                        values: parts.nth(nth).unwrap(),
                        axes: &axes,
                    };
                    partials.push(WeightedPartial::of(reduction, &block, &weights).unwrap());
                }
                let found = floats(&Combiner::merge_all(partials).unwrap().finish());
                let same = found.iter().zip(&wanted).all(|(a, b)| close(*a, *b));
                assert!(
                    same && found.len() == wanted.len(),
                    "{of} {case} {found:?} {wanted:?}"
                );
            }
        }
    }
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let reduction = WeightedReduction {
        reducer: WeightedReducer::Mean,
        skip_missing: None,
    };
    let block = Block {
        data_type: &DataType::UInt8,
        bytes: &[1, 2, 3],
        shape: &[3],
        reduced: &[true],
        places: &[],
        selection_shape: &[],
    };
    for values in [&[1.0, f64::NAN, 1.0][..], &[1.0, 2.0]] {
        let weights = Weights {
            values,
            axes: &[true],
        };
        let found = WeightedPartial::of(reduction, &block, &weights);
        assert!(matches!(
            found,
            Err(Error::Parameter {
                name: "weights",
                ..
            })
        ));
    }
    assert!(reduction.data_type(&DataType::String).is_err());
    assert!("median".parse::<WeightedReducer>().is_err());
}
