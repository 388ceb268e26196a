//! Labels of `sel.<dimension>=`, looked up in coordinates of each kind.
#![no_main]

use std::sync::LazyLock;

use array::{DataType, Elements, Tensor};
use compute::labels::{Coordinate, Labels};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

static COORDINATES: LazyLock<Vec<Coordinate>> = LazyLock::new(|| {
    let floats = |values: &[f64]| {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        (
            DataType::Float64,
            values.len(),
            Elements::Fixed(bytes.collect()),
        )
    };
    let integers = |values: &[i64]| {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        (
            DataType::Int64,
            values.len(),
            Elements::Fixed(bytes.collect()),
        )
    };
    let texts = ["oslo", "rome", "new york"].map(str::as_bytes);
    let texts = (
        DataType::String,
        3,
        Elements::Variable(texts.into_iter().collect()),
    );
    let numbers: Vec<f64> = (0..36).map(|nth| f64::from(nth) * 10.0).collect();
    let days: Vec<i64> = (0..800).collect();
    [
        ("lon", floats(&numbers), json!({"units": "degrees_east"})),
        ("lat", floats(&[90.0, 45.5, f64::NAN, -45.5]), json!({})),
        (
            "level",
            integers(&[1000, 850, 500, i64::MIN, i64::MAX]),
            json!({}),
        ),
        (
            "time",
            integers(&days),
            json!({"units": "days since 2019-06-01"}),
        ),
        (
            "time",
            integers(&days),
            json!({"units": "hours since 1-1-1", "calendar": "360_day"}),
        ),
        ("station", texts, json!({})),
    ]
    .into_iter()
    .filter_map(|(name, values, attributes)| coordinate(name, values, &attributes))
    .collect()
});

fn coordinate(
    name: &str,
    (data_type, length, elements): (DataType, usize, Elements),
    attributes: &Value,
) -> Option<Coordinate> {
    let shape = vec![length as u64];
    let tensor = Tensor {
        data_type,
        shape,
        elements,
    };
    Coordinate::new(name, tensor, attributes.as_object()?).ok()
}

fuzz_target!(|text: &str| {
    assert_eq!(COORDINATES.len(), 6);
    let Ok(labels) = text.parse::<Labels>() else {
        return;
    };
    for coordinate in COORDINATES.iter() {
        let Ok(selected) = coordinate.select(&labels) else {
            continue;
        };
        let length = coordinate.len() as u64;
        for nth in 0..selected.len().min(1000) {
            assert!(selected.position(nth) < length);
        }
    }
});
