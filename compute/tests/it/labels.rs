//! Times and labels mean what they mean to cftime and xarray, recorded by
//! `tests/golden/make_labels.py`.

use array::{AxisSelection, DataType, Elements, Tensor};
use compute::cf::time::{Component, TimeUnits};
use compute::labels::{Coordinate, Groups, Labels};
use serde_json::{Map, Value, json};

fn rows(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap()
}

fn positions(selection: &AxisSelection) -> Vec<u64> {
    let count = selection.len();
    (0..count).map(|nth| selection.position(nth)).collect()
}

#[test]
fn times_are_cftimes() {
    const PARTS: [Component; 8] = [
        Component::Year,
        Component::Month,
        Component::Day,
        Component::Hour,
        Component::Minute,
        Component::Second,
        Component::DayOfYear,
        Component::DayOfWeek,
    ];
    for table in rows(include_str!("../golden/times.json")) {
        let units = TimeUnits::new(&DataType::Float64, table.as_object().unwrap());
        let units = units.unwrap().unwrap();
        for row in table["rows"].as_array().unwrap() {
            let value = &row[0];
            let instant = match value.as_i64() {
                Some(value) => units.decode_integer(value.into()).unwrap(),
                None => units
                    .decode_float(value.as_f64().unwrap())
                    .unwrap()
                    .unwrap(),
            };
            let of = |part: Component| part.of(units.calendar(), instant).unwrap();
            let microseconds = instant.rem_euclid(10i128.pow(18)) / 10i128.pow(12);
            let mut found: Vec<i64> = PARTS.map(of).to_vec();
            found.insert(6, microseconds as i64);
            let wanted: Vec<i64> =
                serde_json::from_value(json!(&row.as_array().unwrap()[1..])).unwrap();
            let what = format!("{value} {} {}", table["units"], table["calendar"]);
            assert_eq!(found, wanted, "{what}");
            if let Some(value) = value.as_i64() {
                assert_eq!(units.encode_integer(instant), Some(value.into()), "{what}");
            }
        }
    }
}

fn tensor(data_type: &str, values: &[Value]) -> Tensor {
    let floats = || values.iter().map(|value| value.as_f64().unwrap());
    let integers = || values.iter().map(|value| value.as_i64().unwrap());
    let (data_type, elements) = match data_type {
        "<f8" => (
            DataType::Float64,
            floats().flat_map(f64::to_le_bytes).collect(),
        ),
        "<f4" => {
            let singles = floats().map(|value| value as f32);
            (
                DataType::Float32,
                singles.flat_map(f32::to_le_bytes).collect(),
            )
        }
        "<i4" => {
            let integers = integers().map(|value| value as i32);
            (
                DataType::Int32,
                integers.flat_map(i32::to_le_bytes).collect(),
            )
        }
        "<i8" => (
            DataType::Int64,
            integers().flat_map(i64::to_le_bytes).collect(),
        ),
        _ => {
            let texts = values.iter().map(|text| text.as_str().unwrap().as_bytes());
            return Tensor {
                data_type: DataType::String,
                shape: vec![values.len() as u64],
                elements: Elements::Variable(texts.collect()),
            };
        }
    };
    Tensor {
        data_type,
        shape: vec![values.len() as u64],
        elements: Elements::Fixed(elements),
    }
}

fn coordinate(row: &Value) -> Coordinate {
    let values = row["values"].as_array().unwrap();
    let attributes = row["attributes"].as_object().cloned().unwrap_or_default();
    let tensor = tensor(row["data_type"].as_str().unwrap(), values);
    Coordinate::new(row["coordinate"].as_str().unwrap(), tensor, &attributes).unwrap()
}

#[test]
fn labels_select_what_xarray_selects() {
    let mut count = 0;
    for row in rows(include_str!("../golden/labels.json")) {
        let coordinate = coordinate(&row);
        for case in row["cases"].as_array().unwrap() {
            let labels = case["labels"].as_str().unwrap();
            let what = format!("{} {labels}", row["coordinate"]);
            let found = labels
                .parse::<Labels>()
                .and_then(|labels| coordinate.select(&labels));
            count += 1;
            match &case["at"] {
                Value::Null => assert!(found.is_err(), "{what}: {found:?}"),
                // One date that holds nothing: xarray refuses it only outside the coordinate.
                Value::Array(at) if at.is_empty() && !labels.contains('/') => {
                    assert!(found.is_err(), "{what}: {found:?}");
                }
                Value::Array(at) => {
                    let wanted: Vec<u64> = at.iter().map(|at| at.as_u64().unwrap()).collect();
                    let found = found.unwrap();
                    assert_eq!(positions(&found), wanted, "{what}");
                    let is_index = matches!(found, AxisSelection::Index(_));
                    // On calendars of cftime, xarray keeps the dimension whatever the date.
                    assert!(!is_index || row["is_cftime"] == true, "{what}: {found:?}");
                }
                at => assert_eq!(
                    found,
                    Ok(AxisSelection::Index(at.as_u64().unwrap())),
                    "{what}"
                ),
            }
        }
    }
    assert!(count > 300, "{count}");
}

/// The values of group labels, as JSON.
fn labels_of(groups: &Groups) -> Vec<Value> {
    match &groups.labels.elements {
        Elements::Fixed(bytes) => {
            let integers = bytes
                .as_chunks()
                .0
                .iter()
                .map(|&bytes| i64::from_le_bytes(bytes));
            integers.map(Value::from).collect()
        }
        Elements::Variable(texts) => {
            let texts = texts.iter().map(|text| str::from_utf8(text).unwrap());
            texts.map(Value::from).collect()
        }
    }
}

#[test]
fn groups_are_xarrays() {
    let mut count = 0;
    for row in rows(include_str!("../golden/labels.json")) {
        for wanted in row["groups"].as_array().into_iter().flatten() {
            let name = wanted["name"].as_str().unwrap();
            let groups = coordinate(&row).group(name).unwrap();
            let what = format!("{} {name}", row["coordinate"]);
            assert_eq!(groups.name, name);
            let wanted = wanted["groups"].as_array().unwrap();
            let labels: Vec<Value> = wanted.iter().map(|group| group[0].clone()).collect();
            assert_eq!(labels_of(&groups), labels, "{what}");
            for (nth, group) in wanted.iter().enumerate() {
                let members = (0..groups.of.len()).filter(|&at| groups.of[at] == nth as u32);
                assert_eq!(json!(members.collect::<Vec<_>>()), group[1], "{what}");
            }
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn area_weights_are_cosines() {
    let values = [
        json!(-90.0),
        json!(0.0),
        json!(60.0),
        json!(90.0),
        json!(100.0),
    ];
    let latitudes = |name, attributes: Value| {
        let attributes: Map<String, Value> = attributes.as_object().cloned().unwrap();
        Coordinate::new(name, tensor("<f8", &values), &attributes).unwrap()
    };
    for (name, attributes) in [
        ("lat", json!({})),
        ("Latitude", json!({})),
        ("y", json!({"units": "degrees_north"})),
        ("y", json!({"standard_name": "latitude"})),
    ] {
        let weights = latitudes(name, attributes).area_weights().unwrap();
        let radians = |degrees: f64| degrees * (std::f64::consts::PI / 180.0);
        let wanted = [-90.0, 0.0, 60.0, 90.0].map(|degrees| radians(degrees).cos());
        assert_eq!(weights[..4], wanted);
        assert_eq!(weights[4], 0.0);
    }
    assert!(
        latitudes("y", json!({"units": "m"}))
            .area_weights()
            .is_err()
    );
}
