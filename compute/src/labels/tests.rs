use array::{AxisSelection, DataType, Elements, TimeUnit, VariableElements};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn coordinate(name: &str, data_type: DataType, bytes: Vec<u8>, attributes: &Value) -> Coordinate {
    let size = data_type.size_bytes().unwrap();
    let tensor = Tensor {
        shape: vec![(bytes.len() / size) as u64],
        data_type,
        elements: Elements::Fixed(bytes),
    };
    Coordinate::new(name, tensor, attributes.as_object().unwrap()).unwrap()
}

fn floats(name: &str, values: impl IntoIterator<Item = f64>, attributes: &Value) -> Coordinate {
    let bytes = values.into_iter().flat_map(f64::to_le_bytes).collect();
    coordinate(name, DataType::Float64, bytes, attributes)
}

fn longitudes(values: impl IntoIterator<Item = f64>) -> Coordinate {
    floats("lon", values, &json!({"units": "degrees_east"}))
}

fn integers(values: impl IntoIterator<Item = i64>, attributes: &Value) -> Coordinate {
    let bytes = values.into_iter().flat_map(i64::to_le_bytes).collect();
    coordinate("n", DataType::Int64, bytes, attributes)
}

fn texts(values: &[&str]) -> Coordinate {
    let elements: VariableElements = values.iter().map(|text| text.as_bytes()).collect();
    let tensor = Tensor {
        data_type: DataType::String,
        shape: vec![values.len() as u64],
        elements: Elements::Variable(elements),
    };
    Coordinate::new("station", tensor, &Map::new()).unwrap()
}

fn select(coordinate: &Coordinate, labels: &str) -> Result<AxisSelection, Error> {
    coordinate.select(&labels.parse()?)
}

fn positions(coordinate: &Coordinate, labels: &str) -> Vec<u64> {
    let found = select(coordinate, labels).unwrap_or_else(|error| panic!("{labels}: {error}"));
    (0..found.len()).map(|nth| found.position(nth)).collect()
}

fn range(start: u64, step: i64, count: u64) -> AxisSelection {
    AxisSelection::Range { start, step, count }
}

#[test]
fn selections_are_as_tight_as_they_can_be() {
    let levels = integers([1000, 850, 500, 250, 100], &json!({}));
    for (labels, wanted) in [
        ("850", AxisSelection::Index(1)),
        ("850,", range(1, 1, 1)),
        ("850,500,250", range(1, 1, 3)),
        ("100,500,1000", range(4, -2, 3)),
        ("100,1000,500", AxisSelection::List([4, 0, 2].into())),
        ("850,850", AxisSelection::List([1, 1].into())),
        ("900/200", range(1, 1, 3)),
        ("200/900", range(1, 1, 3)),
        ("/", range(0, 1, 5)),
        ("260/270", range(0, 1, 0)),
        ("nearest::260", AxisSelection::Index(3)),
        ("nearest::260,270", AxisSelection::List([3, 3].into())),
    ] {
        assert_eq!(select(&levels, labels), Ok(wanted), "{labels}");
    }
}

#[test]
fn longitudes_go_round() {
    let east = longitudes((0..36).map(|n| f64::from(n) * 10.0));
    let falling = longitudes((0..36).rev().map(|n| f64::from(n) * 10.0));
    let west = longitudes((-18..18).map(|n| f64::from(n) * 10.0));
    let closed = longitudes((0..=36).map(|n| f64::from(n) * 10.0));
    let europe = longitudes((-3..=4).map(|n| f64::from(n) * 10.0));
    let america = longitudes((20..=25).map(|n| f64::from(n) * 10.0));
    let all = |first: u64| (0..36).map(|n| (first + n) % 36).collect::<Vec<u64>>();
    for (coordinate, labels, wanted) in [
        (&east, "350/10", vec![35, 0, 1]),
        (&east, "-10/10", vec![35, 0, 1]),
        (&east, "350/370", vec![35, 0, 1]),
        (&east, "10/30", vec![1, 2, 3]),
        (&east, "20/20", vec![2]),
        (&east, "355/5", vec![0]),
        (&east, "352/358", vec![]),
        (&east, "0/360", all(0)),
        (&east, "-180/180", all(18)),
        (&east, "-720/720", all(0)),
        (&east, "30/20", all(3)),
        (&east, "30/10", all(3)[..35].to_vec()),
        (&east, "340/", vec![34, 35]),
        (&falling, "350/10", vec![34, 35, 0]),
        (&falling, "10/30", vec![32, 33, 34]),
        (&west, "170/-170", vec![35, 0, 1]),
        (&west, "170/190", vec![35, 0, 1]),
        (&west, "350/10", vec![17, 18, 19]),
        (&west, "-10/10", vec![17, 18, 19]),
        (&west, "0/360", all(18)),
        (&closed, "350/10", vec![35, 36, 0, 1]),
        (&closed, "0/360", (0..=36).collect()),
        (&closed, "0/10", vec![0, 1]),
        (&closed, "350/360", vec![35, 36]),
        (&closed, "0/0", vec![0]),
        (&closed, "-180/180", (18..=36).chain(0..18).collect()),
        (&europe, "350/10", vec![2, 3, 4]),
        (&europe, "10/-10", vec![2, 3, 4]),
        (&europe, "40/-30", (0..8).collect()),
        (&europe, "0/360", vec![3, 4, 5, 6, 7, 0, 1, 2]),
        (&america, "-160/-110", (0..6).collect()),
        (&america, "0/300", (0..6).collect()),
        (&america, "-150/-130", vec![1, 2, 3]),
        (&east, "-10", vec![35]),
        (&east, "370,-350", vec![1, 1]),
        (&west, "190", vec![1]),
        (&east, "nearest::-1", vec![0]),
        (&east, "nearest::356", vec![0]),
        (&east, "nearest::354", vec![35]),
        (&west, "nearest::178", vec![0]),
        (&america, "nearest::100", vec![0]),
        (&east, "pad::-5", vec![35]),
    ] {
        assert_eq!(positions(coordinate, labels), wanted, "{labels}");
    }
    let whole = integers((0..36).map(|n| n * 10), &json!({"units": "degrees_east"}));
    for (labels, wanted) in [
        ("350/10", vec![35, 0, 1]),
        ("-10/10.5", vec![35, 0, 1]),
        ("-10", vec![35]),
        ("10/20", vec![1, 2]),
    ] {
        assert_eq!(positions(&whole, labels), wanted, "{labels}");
    }
    let elsewhere = floats("x", [0.0, 180.0, 350.0], &json!({"units": "m"}));
    assert!(select(&elsewhere, "-10").is_err());
}

#[test]
fn turned_labels_match_although_digits_are_lost() {
    for nth in 0..36_000 {
        let label = f64::from(nth) / 100.0;
        let stored = longitudes([label]);
        let turned = format!("{:.2}", label - 360.0);
        assert_eq!(
            select(&stored, &turned),
            Ok(AxisSelection::Index(0)),
            "{turned}"
        );
    }
}

#[test]
fn floats_match_in_their_own_precision() {
    let values = [0.1f32, 0.2, 0.3, 0.7];
    let bytes = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let singles = coordinate("x", DataType::Float32, bytes, &json!({}));
    assert_eq!(positions(&singles, "0.7"), [3]);
    assert_eq!(positions(&singles, "0.2/0.3"), [1, 2]);
    assert_eq!(positions(&singles, "-1e300/1e300"), [0, 1, 2, 3]);
    assert_eq!(singles.label(0).unwrap(), "0.1");
    assert!(select(&singles, "0.70001").is_err());
    let infinite = coordinate(
        "x",
        DataType::Float32,
        f32::INFINITY.to_le_bytes().into(),
        &json!({}),
    );
    assert!(select(&infinite, "1e300").is_err());
    assert_eq!(positions(&infinite, "inf"), [0]);
}

#[test]
fn truth_values_and_texts_have_labels() {
    let truths = coordinate("land", DataType::Bool, vec![1, 0, 1], &json!({}));
    assert_eq!(positions(&truths, "true"), [0, 2]);
    assert_eq!(select(&truths, "False"), Ok(AxisSelection::Index(1)));
    let stations = texts(&["a/b", "c,d", "é"]);
    assert_eq!(positions(&stations, "\"c,d\",\"a/b\""), [1, 0]);
    assert_eq!(positions(&stations, "b/"), [1, 2]);
    let utf32 = "ab\0"
        .chars()
        .flat_map(|c| u32::from(c).to_le_bytes())
        .collect();
    let fixed = coordinate(
        "s",
        DataType::FixedLengthUtf32 { length_bytes: 12 },
        utf32,
        &json!({}),
    );
    assert_eq!(positions(&fixed, "ab"), [0]);
    let padded = DataType::NullTerminatedBytes { length_bytes: 3 };
    assert_eq!(
        positions(
            &coordinate("s", padded, b"ab\0c\0\0".to_vec(), &json!({})),
            "c"
        ),
        [1]
    );
}

#[test]
fn missing_values_match_nothing_and_are_in_no_group() {
    let second = DataType::DateTime64 {
        unit: TimeUnit::Second,
        scale_factor: 1,
    };
    let seconds = [86_400, i64::MIN, 0, 86_400 * 40]
        .map(i64::to_le_bytes)
        .concat();
    let times = coordinate("time", second, seconds, &json!({}));
    assert_eq!(positions(&times, "1970-01"), [0, 2]);
    assert_eq!(select(&times, "1970-01-02"), Ok(AxisSelection::Index(0)));
    assert_eq!(positions(&times, "nearest::1970-02-15"), [3]);
    assert_eq!(times.label(1).unwrap(), "missing");
    assert_eq!(times.label(3).unwrap(), "1970-02-10");
    assert!(select(&times, "1970/1971").is_err() && select(&times, "pad::1971").is_err());
    let months = times.group("month").unwrap();
    assert_eq!(
        (months.of, months.labels.shape),
        (vec![0, Groups::NONE, 0, 1], vec![2])
    );
    assert_eq!(times.group("").unwrap().of, [1, Groups::NONE, 0, 2]);
    assert_eq!(times.group("week").unwrap().of, [0, Groups::NONE, 0, 1]);
    let nan = floats("x", [1.0, f64::NAN, 3.0], &json!({}));
    assert_eq!(positions(&nan, "3"), [2]);
    assert_eq!(positions(&nan, "nearest::9"), [2]);
    assert!(select(&nan, "1/3").is_err());
}

#[test]
fn ranges_of_dates_hold_all_of_both() {
    let units = json!({"units": "days since 2020-01-01", "calendar": "360_day"});
    let rising = integers(0..90, &units);
    let falling = integers((0..90).rev(), &units);
    for (labels, days) in [
        ("2020-01/2020-02", 0..60),
        ("2020-02/2020-01", 0..60),
        ("2020-02-30/", 59..90),
        ("/2020-01-05", 0..5),
        ("2020-02", 30..60),
        ("2020-01-30T12/2020-02-02T06", 30..32),
        ("2021/2022", 90..90),
        ("2020-01-03 +00:00/2020-01-02", 1..3),
    ] {
        assert_eq!(
            positions(&rising, labels),
            days.clone().collect::<Vec<_>>(),
            "{labels}"
        );
        let mirrored: Vec<u64> = days.rev().map(|day| 89 - day).collect();
        assert_eq!(positions(&falling, labels), mirrored, "{labels}");
    }
}

#[test]
fn groups_of_dates_and_of_values_are_named() {
    let times = integers(
        [31, 0, 31, 1],
        &json!({"units": "days since 2000-01-01", "calendar": "360_day"}),
    );
    let text = |groups: &Groups| match &groups.labels.elements {
        Elements::Variable(texts) => texts
            .iter()
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .collect(),
        Elements::Fixed(_) => Vec::new(),
    };
    let dates = times.group("date").unwrap();
    assert_eq!(text(&dates), ["2000-01-01", "2000-01-02", "2000-02-02"]);
    assert_eq!((dates.of, dates.name.as_str()), (vec![2, 0, 2, 1], "date"));
    assert_eq!(
        text(&times.group("yearmonth").unwrap()),
        ["2000-01", "2000-02"]
    );
    assert!(times.group("week").is_err());
    let values = times.group("").unwrap();
    assert_eq!((values.of, values.name.as_str()), (vec![2, 0, 2, 1], "n"));
    assert_eq!(
        values.labels.elements,
        Elements::Fixed([0i64, 1, 31].map(i64::to_le_bytes).concat())
    );
    assert_eq!(
        text(&texts(&["b", "a", "b"]).group("").unwrap()),
        ["a", "b"]
    );
    let Err(Error::Label { suggestions, .. }) = times.group("Month") else {
        panic!()
    };
    assert_eq!(suggestions[0], "month");
}

#[test]
fn errors_say_what_there_is() {
    let days = integers(0..366, &json!({"units": "days since 2020-01-01"}));
    let levels = integers([1000, 850, 500], &json!({}));
    let stations = texts(&["Zugspitze", "Hohenpeissenberg", "Sonnblick"]);
    let twice = integers([1, 2, 2, 3], &json!({}));
    for (coordinate, labels, message) in [
        (
            &days,
            "2021",
            "coordinate \"n\" has nothing in \"2021\"; it goes from 2020-01-01 to 2020-12-31, nearest 2020-12-31",
        ),
        (
            &days,
            "2020-01-05T06",
            "has no \"2020-01-05T06\"; it goes from 2020-01-01 to 2020-12-31, nearest 2020-01-05 and 2020-01-06",
        ),
        (
            &days,
            "2021-02-29",
            "label \"2021-02-29\" does not exist in the standard calendar",
        ),
        (
            &days,
            "monday",
            "label \"monday\" is no date; dates are written",
        ),
        (&days, "2020-01-05T25", "no valid time of day"),
        (
            &levels,
            "700",
            "has no \"700\"; it goes from 500 to 1000, nearest 850 and 500",
        ),
        (&levels, "high", "label \"high\" is not a number"),
        (&levels, "nan/1e5", "is not a number"),
        (
            &stations,
            "zugspitz",
            "has no \"zugspitz\"; it goes from Hohenpeissenberg to Zugspitze, nearest Zugspitze",
        ),
        (&stations, "a/b", "is not sorted, so it has no ranges"),
        (&stations, "nearest::Z", "of which none is nearest"),
        (&stations, "pad::Z", "is not sorted"),
        (&twice, "2,3", "has 2 values for \"2\""),
        (&texts(&[]), "x", "it has no values"),
    ] {
        let refused = select(coordinate, labels).unwrap_err().to_string();
        assert!(refused.contains(message), "{labels}: {refused}");
    }
    let tensor = |data_type: DataType, shape: &[u64], bytes: usize| Tensor {
        data_type,
        shape: shape.to_vec(),
        elements: Elements::Fixed(vec![0; bytes]),
    };
    let new =
        |tensor, attributes: &Value| Coordinate::new("c", tensor, attributes.as_object().unwrap());
    assert!(new(tensor(DataType::Complex64, &[1], 8), &json!({})).is_err());
    assert!(new(tensor(DataType::Int16, &[1, 1], 2), &json!({})).is_err());
    assert!(new(tensor(DataType::Int16, &[9], 2), &json!({})).is_err());
    let bad = json!({"units": "days since 2000-01-01", "calendar": "none"});
    assert!(matches!(
        new(tensor(DataType::Int16, &[1], 2), &bad),
        Err(Error::Attribute { .. })
    ));
    let far = Tensor {
        elements: Elements::Fixed(1e300f64.to_le_bytes().to_vec()),
        ..tensor(DataType::Float64, &[1], 8)
    };
    let refused = new(far, &json!({"units": "days since 2000-01-01"})).unwrap_err();
    assert!(matches!(refused, Error::Label { .. }), "{refused}");
}

proptest! {
    #[test]
    fn ranges_hold_what_lies_between(
        mut values in prop::collection::vec(-40i64..40, 0..30), a in -50i64..50, b in -50i64..50,
        is_falling: bool, is_float: bool,
    ) {
        values.sort_unstable();
        if is_falling {
            values.reverse();
        }
        let coordinate = if is_float {
            floats("x", values.iter().map(|&value| value as f64), &json!({}))
        } else {
            integers(values.clone(), &json!({}))
        };
        let wanted: Vec<u64> = (0..values.len() as u64)
            .filter(|&at| (a.min(b)..=a.max(b)).contains(&values[at as usize]))
            .collect();
        prop_assert_eq!(positions(&coordinate, &format!("{a}/{b}")), wanted);
        let wanted: Vec<u64> =
            (0..values.len() as u64).filter(|&at| values[at as usize] >= a).collect();
        prop_assert_eq!(positions(&coordinate, &format!("{a}/")), wanted);
    }

    #[test]
    fn labels_find_what_equals_or_is_nearest(
        values in prop::collection::vec(-20i64..20, 1..20), label in -30i64..30,
    ) {
        let coordinate = integers(values.clone(), &json!({}));
        let wanted: Vec<u64> =
            (0..values.len() as u64).filter(|&at| values[at as usize] == label).collect();
        match select(&coordinate, &label.to_string()) {
            Ok(_) => prop_assert_eq!(positions(&coordinate, &label.to_string()), wanted),
            Err(_) => prop_assert!(wanted.is_empty()),
        }
        // The larger of two as near.
        let best = values.iter().copied().min_by_key(|value| ((value - label).abs(), -value));
        let all: Vec<u64> =
            (0..values.len() as u64).filter(|&at| Some(values[at as usize]) == best).collect();
        match select(&coordinate, &format!("nearest::{label}")) {
            Ok(found) => prop_assert_eq!(vec![found.position(0)], all),
            Err(_) => prop_assert!(all.len() > 1),
        }
    }

    #[test]
    fn longitudes_on_the_globe_are_those_eastward(
        first in -36i32..36, a in -720i32..720, b in -720i32..720, is_falling: bool,
    ) {
        let mut values: Vec<i32> = (0..36).map(|nth| (first + nth) * 10).collect();
        if is_falling {
            values.reverse();
        }
        let coordinate = longitudes(values.iter().map(|&value| f64::from(value)));
        let width = if a <= b { b - a } else { (b - a).rem_euclid(360) };
        let turned = |at: &u64| (values[*at as usize] - a).rem_euclid(360);
        let mut wanted: Vec<u64> = (0..36).filter(|at| turned(at) <= width).collect();
        wanted.sort_by_key(turned);
        if is_falling {
            wanted.reverse();
        }
        prop_assert_eq!(positions(&coordinate, &format!("{a}/{b}")), wanted);
    }

    #[test]
    fn no_labels_panic(text in "(nearest::|pad::)?[-0-9:T/,.e ]{0,12}", values in prop::collection::vec(any::<f64>(), 0..6)) {
        let integer = |value: &f64| value.to_bits().cast_signed();
        for units in ["degrees_east", "days since 1-1-1", "m"] {
            let attributes = json!({"units": units, "calendar": "julian"});
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            for data_type in [DataType::Float64, DataType::Int64] {
                let tensor = Tensor {
                    data_type,
                    shape: vec![values.len() as u64],
                    elements: Elements::Fixed(bytes.clone()),
                };
                if let Ok(coordinate) = Coordinate::new("x", tensor, attributes.as_object().unwrap())
                {
                    let _ = (select(&coordinate, &text), coordinate.group("date"), coordinate.group(""));
                    for value in &values {
                        let _ = select(&coordinate, &integer(value).to_string());
                        let _ = select(&coordinate, &format!("{value}/{value:e}"));
                    }
                }
            }
        }
    }
}
