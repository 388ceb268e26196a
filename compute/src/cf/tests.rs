use serde_json::json;

use super::*;

fn new(
    data_type: &DataType,
    attributes: &Value,
    decode: Decode,
) -> Result<Option<CfDecoder>, Error> {
    CfDecoder::new(data_type, attributes.as_object().unwrap(), decode)
}

/// Decoded `i16`s; the result must be `float32`.
fn decoded(attributes: &Value, values: [i16; 4]) -> [f32; 4] {
    let decoder = new(&DataType::Int16, attributes, Decode::Cf)
        .unwrap()
        .unwrap();
    assert_eq!(*decoder.data_type(), DataType::Float32);
    let bytes = decoder.decode(&values.map(i16::to_le_bytes).concat());
    bytemuck::pod_read_unaligned(&bytes)
}

#[test]
fn values_outside_the_valid_range_are_missing() {
    let nan = f32::NAN;
    for (attributes, wanted) in [
        (json!({"valid_range": [0, 10]}), [nan, 0.0, 10.0, nan]),
        (json!({"valid_min": 0.5}), [nan, nan, 10.0, 11.0]),
        (json!({"valid_max": 10.5}), [-1.0, 0.0, 10.0, nan]),
        (
            json!({"valid_min": -1e30, "valid_max": [10]}),
            [-1.0, 0.0, 10.0, nan],
        ),
        (json!({"valid_min": 40000}), [nan; 4]),
        (json!({"valid_max": -40000}), [nan; 4]),
        (json!({"valid_range": [5, 4]}), [nan; 4]),
    ] {
        let found = decoded(&attributes, [-1, 0, 10, 11]);
        let same = |(a, b): (&f32, &f32)| a == b || (a.is_nan() && b.is_nan());
        assert!(
            found.iter().zip(&wanted).all(same),
            "{attributes}: {found:?}"
        );
    }
}

#[test]
fn unsigned_turns_all_that_is_missing() {
    let attributes = json!({"_Unsigned": "true", "missing_value": -1, "valid_max": -3});
    let found = decoded(&attributes, [-1, -2, -3, 7]);
    assert!(found[0].is_nan() && found[1].is_nan());
    assert_eq!(found[2..], [65533.0, 7.0]);
}

#[test]
fn times_are_masked_and_not_scaled() {
    let data_type = DataType::DateTime64 {
        unit: array::TimeUnit::Second,
        scale_factor: 1,
    };
    let attributes = json!({"_FillValue": 7, "scale_factor": 2.0});
    let decoder = new(&data_type, &attributes, Decode::Cf).unwrap().unwrap();
    assert_eq!(*decoder.data_type(), data_type);
    let decoded = decoder.decode(&[7i64, 8].map(i64::to_le_bytes).concat());
    assert_eq!(decoded, [i64::MIN, 8].map(i64::to_le_bytes).concat());
}

#[test]
fn integer_factors_of_floats_lose_nothing() {
    let decoder = new(&DataType::Float32, &json!({"scale_factor": 2}), Decode::Cf)
        .unwrap()
        .unwrap();
    assert_eq!(*decoder.data_type(), DataType::Float64);
    assert_eq!(decoder.decode(&1.25f32.to_le_bytes()), 2.5f64.to_le_bytes());
}

#[test]
fn fill_values_are_base64_names_or_numbers() {
    for (fill, value) in [
        (json!("AAAAAAAAFMA="), -5.0),
        (json!("Infinity"), f32::INFINITY),
        (json!(-5), -5.0),
        (json!(0.1), 0.1),
    ] {
        let attributes = json!({"_FillValue": fill});
        let decoder = new(&DataType::Float32, &attributes, Decode::Cf)
            .unwrap()
            .unwrap();
        assert_eq!(
            decoder.decode(&value.to_le_bytes()),
            f32::NAN.to_le_bytes(),
            "{value}"
        );
    }
}

#[test]
fn masking_leaves_scale_and_offset() {
    let attributes = json!({"_FillValue": 1, "scale_factor": 0.5});
    let decoder = new(&DataType::Int16, &attributes, Decode::Mask)
        .unwrap()
        .unwrap();
    assert_eq!(*decoder.data_type(), DataType::Float32);
    assert_eq!(decoder.decode(&3i16.to_le_bytes()), 3f32.to_le_bytes());
    assert!(
        new(&DataType::Int16, &attributes, Decode::Raw)
            .unwrap()
            .is_none()
    );
}

#[test]
fn what_changes_nothing_is_none() {
    for (data_type, attributes) in [
        (
            DataType::Int16,
            json!({"units": "m", "missing_value": null}),
        ),
        (DataType::Int16, json!({"_FillValue": "NaN"})),
        (DataType::Float32, json!({"_FillValue": "NaN"})),
        (DataType::Float32, json!({"_Unsigned": "true"})),
        (
            DataType::Int16,
            json!({"valid_range": "0, 100", "valid_min": []}),
        ),
        (
            DataType::String,
            json!({"_FillValue": "x", "scale_factor": 2}),
        ),
    ] {
        assert!(
            new(&data_type, &attributes, Decode::Cf).unwrap().is_none(),
            "{attributes}"
        );
    }
}

#[test]
fn what_is_not_a_number_is_an_error() {
    for (data_type, attributes) in [
        (DataType::Int16, json!({"scale_factor": "big"})),
        (DataType::Int16, json!({"add_offset": [1, 2]})),
        (DataType::Int16, json!({"_FillValue": {}})),
        (DataType::Float32, json!({"_FillValue": "é".repeat(1000)})),
    ] {
        let refused = new(&data_type, &attributes, Decode::Cf);
        assert!(
            matches!(&refused, Err(Error::Attribute { .. })),
            "{attributes}"
        );
        assert!(refused.unwrap_err().to_string().len() < 200);
    }
}
