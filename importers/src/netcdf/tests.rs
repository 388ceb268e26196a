//! Files written here, read by the importer, which shares no code with the writer.

use array::{Elements, Region, VariableElements};
use serde_json::json;

use super::*;
use crate::netcdf3::NetCdf3File;
use crate::source::Group;
use crate::source::Reader as _;

fn fixed(data_type: DataType, shape: &[u64], bytes: Vec<u8>) -> Tensor {
    Tensor {
        data_type,
        shape: shape.to_vec(),
        elements: Elements::Fixed(bytes),
    }
}

fn names(names: &[&str]) -> Vec<Option<String>> {
    let name = |name: &&str| (!name.is_empty()).then(|| (*name).to_owned());
    names.iter().map(name).collect()
}

fn attributes(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => panic!("attributes are an object"),
    }
}

/// Writes variables as `(name, dimensions, tensor, attributes)`, the first of them asked for, and reads
/// them back.
fn round_trip(all: &[(&str, &[&str], Tensor, Value)]) -> (Group, Vec<Vec<u8>>, &'static str) {
    let kept: Vec<_> = all
        .iter()
        .map(|(_, dimensions, _, value)| (names(dimensions), attributes(value.clone())))
        .collect();
    let variables: Vec<Variable<'_>> = all
        .iter()
        .zip(&kept)
        .map(
            |((name, _, tensor, _), (dimensions, attributes))| Variable {
                name,
                dimensions,
                tensor,
                attributes,
            },
        )
        .collect();
    let (asked, coordinates) = variables.split_at(1);
    let bytes = write(asked, coordinates).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.nc");
    std::fs::write(&path, bytes).unwrap();
    let (file, mut groups) = NetCdf3File::open(&path).unwrap();
    let group = groups.remove(0);
    let read = |variable: &crate::source::Variable| match file
        .read(variable, &Region::whole(&variable.shape))
        .unwrap()
    {
        Elements::Fixed(bytes) => bytes,
        Elements::Variable(_) => panic!("NetCDF-3 has no such elements"),
    };
    let values = group.variables.iter().map(read).collect();
    (group, values, file.format())
}

fn refused(name: &str, dimensions: &[&str], tensor: &Tensor) -> String {
    let variable = Variable {
        name,
        dimensions: &names(dimensions),
        tensor,
        attributes: &Map::new(),
    };
    write(&[variable], &[]).unwrap_err().to_string()
}

#[test]
fn numbers_come_back_in_the_oldest_layout_that_holds_them() {
    for (data_type, size, format) in [
        (DataType::Int8, 1, "NetCDF-3 classic"),
        (DataType::Int16, 2, "NetCDF-3 classic"),
        (DataType::Int32, 4, "NetCDF-3 classic"),
        (DataType::Float32, 4, "NetCDF-3 classic"),
        (DataType::Float64, 8, "NetCDF-3 classic"),
        (DataType::UInt8, 1, "NetCDF-3 CDF-5"),
        (DataType::UInt16, 2, "NetCDF-3 CDF-5"),
        (DataType::UInt32, 4, "NetCDF-3 CDF-5"),
        (DataType::Int64, 8, "NetCDF-3 CDF-5"),
        (DataType::UInt64, 8, "NetCDF-3 CDF-5"),
    ] {
        let bytes: Vec<u8> = (0..3 * size).map(|i| (i * 37 + 200) as u8).collect();
        let tensor = fixed(data_type.clone(), &[3], bytes.clone());
        let (group, values, found) = round_trip(&[("v", &["x"], tensor, json!({}))]);
        assert_eq!(group.variables[0].data_type, data_type);
        assert_eq!(values[0], bytes, "{data_type}");
        assert_eq!(found, format, "{data_type}");
    }
    let scalar = fixed(DataType::Int16, &[], vec![1, 2]);
    let (group, values, _) = round_trip(&[("v", &[], scalar, json!({}))]);
    assert_eq!(group.variables[0].shape, [0_u64; 0]);
    assert_eq!(values[0], [1, 2]);
}

#[test]
fn attributes_have_the_type_they_ask_for() {
    let given = json!({
        "units": "größe", "_FillValue": -1, "valid_range": [0, 9.0], "flag_values": [1, 70_000],
        "one": 1, "large": 5_000_000_000_i64, "huge": u64::MAX, "scale": 0.5, "mixed": [1, 2.5],
        "truth": true, "nothing": null, "names": ["a", "b"], "of": {"c": []}, "a/b": 1
    });
    let converted = attributes::convert(&attributes(given), Type::Short);
    let found = |name: &str| {
        let values = converted.iter().find(|(known, _)| known == name)?;
        Some((values.1.data_type, values.1.bytes.to_vec()))
    };
    let text = |text: &str| Some((Type::Char, text.as_bytes().to_vec()));
    assert_eq!(found("units"), text("größe"));
    assert_eq!(found("names"), text("[\"a\",\"b\"]"));
    assert_eq!(found("of"), text("{\"c\":[]}"));
    // 70000 is no int16, and null is nothing.
    assert_eq!((found("flag_values"), found("nothing")), (None, None));
    assert_eq!(found("_FillValue"), Some((Type::Short, vec![255, 255])));
    assert_eq!(found("valid_range"), Some((Type::Short, vec![0, 0, 9, 0])));
    for (name, data_type, count) in [
        ("one", Type::Int, 1),
        ("large", Type::Int64, 1),
        ("huge", Type::UInt64, 1),
        ("scale", Type::Double, 1),
        ("mixed", Type::Double, 2),
        ("truth", Type::Byte, 1),
        ("a_b", Type::Int, 1),
    ] {
        let (found, bytes) = found(name).unwrap();
        assert_eq!(
            (found, bytes.len()),
            (data_type, count * data_type.size_bytes()),
            "{name}"
        );
    }
}

#[test]
fn fill_values_of_floats_are_read_as_xarray_writes_them() {
    let base64_of_nan = "AAAAAAAA+H8=";
    for value in [json!("NaN"), json!(base64_of_nan)] {
        let given = attributes(json!({ "_FillValue": value }));
        let converted = attributes::convert(&given, Type::Float);
        let bytes: [u8; 4] = converted[0].1.bytes[..].try_into().unwrap();
        assert!(f32::from_le_bytes(bytes).is_nan());
    }
}

#[test]
fn texts_are_characters_along_a_dimension_more() {
    let words = VariableElements::from_iter([b"wind".as_slice(), b"", "größe".as_bytes()]);
    let tensor = Tensor {
        data_type: DataType::String,
        shape: vec![3],
        elements: Elements::Variable(words),
    };
    let (group, values, _) = round_trip(&[("v", &["x"], tensor, json!({}))]);
    let text = format!("{:?} {:?}", group.variables[0], values[0]);
    assert!(text.contains("utf-8"), "{text}");
    assert_eq!(values[0].len(), 3 * 7);
    assert!(values[0].starts_with(b"wind\0\0\0\0"));
}

#[test]
fn dimensions_are_shared_and_their_names_unique() {
    let square = fixed(DataType::Int8, &[2, 2, 1], vec![1, 2, 3, 4]);
    let x = fixed(DataType::Int8, &[2], vec![8, 9]);
    let level = fixed(DataType::Int8, &[], vec![5]);
    let (group, ..) = round_trip(&[
        (
            "v",
            &["x", "x", ""],
            square,
            json!({"coordinates": "lon level"}),
        ),
        ("x", &["x"], x, json!({})),
        ("level", &[], level, json!({})),
    ]);
    let dimensions = |place: usize| group.variables[place].dimensions.clone();
    let expected = ["x", "x_1", "dim_2"].map(str::to_owned);
    assert_eq!(dimensions(0), expected);
    assert_eq!(dimensions(1), expected[..1]);
    // `lon` is not in the file.
    let text = format!("{:?}", group.variables[0].attributes);
    assert!(
        text.contains("\"level\"") && !text.contains("lon"),
        "{text}"
    );
}

#[test]
fn times_are_cf() {
    let days = DataType::DateTime64 {
        unit: TimeUnit::Day,
        scale_factor: 10,
    };
    let ticks = [2_i64, i64::MIN].map(i64::to_le_bytes).concat();
    let (group, values, _) = round_trip(&[("t", &["t"], fixed(days, &[2], ticks), json!({}))]);
    assert_eq!(values[0], [20_i64, i64::MIN].map(i64::to_le_bytes).concat());
    let text = format!("{:?}", group.variables[0].attributes);
    for part in ["days since 1970-01-01", "proleptic_gregorian", "_FillValue"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn dimensions_of_no_length_count_records() {
    let tensor = fixed(DataType::Int32, &[0, 3], Vec::new());
    let (group, values, _) = round_trip(&[("v", &["t", "x"], tensor, json!({}))]);
    assert_eq!(group.variables[0].shape, [0, 3]);
    assert_eq!(values[0], [0_u8; 0]);
    let inner = fixed(DataType::Int32, &[3, 0], Vec::new());
    assert!(refused("v", &["t", "x"], &inner).contains("length 0"));
}

#[test]
fn what_has_no_place_is_refused() {
    for (data_type, size) in [
        (DataType::Complex64, 8),
        (DataType::RawBits { length_bytes: 2 }, 2),
        (
            DataType::DateTime64 {
                unit: TimeUnit::Month,
                scale_factor: 1,
            },
            8,
        ),
    ] {
        let tensor = fixed(data_type.clone(), &[1], vec![1; size]);
        let reason = refused("v", &["x"], &tensor);
        assert!(reason.contains(&data_type.to_string()), "{reason}");
    }
}

#[test]
fn names_are_those_of_netcdf() {
    for (name, expected) in [
        ("t2m", "t2m"),
        ("größe", "größe"),
        ("2m temperature", "2m temperature"),
        ("a/b", "a_b"),
        ("-x ", "_-x"),
        ("", "_"),
    ] {
        assert_eq!(clean(name), expected);
    }
}
