use proptest::prelude::*;
use serde_json::json;

use super::*;

fn units(units: &str, calendar: &str) -> Result<Option<TimeUnits>, Error> {
    let attributes = json!({"units": units, "calendar": calendar});
    TimeUnits::new(&DataType::Float64, attributes.as_object().unwrap())
}

fn native(unit: TimeUnit, scale_factor: u32) -> TimeUnits {
    let data_type = DataType::DateTime64 { unit, scale_factor };
    TimeUnits::new(&data_type, &Map::new()).unwrap().unwrap()
}

#[test]
fn units_that_say_no_time_are_errors_or_none() {
    for (text, calendar, part) in [
        ("years since 2000-01-01", "standard", "no fixed length"),
        ("months since 2000-01-01", "noleap", "no fixed length"),
        (
            "common_years since 2000-01-01",
            "360_day",
            "no fixed length",
        ),
        ("fortnights since 2000-01-01", "standard", "no unit of time"),
        ("days since yesterday", "standard", "is no date"),
        (
            "days since 0000-01-01",
            "standard",
            "does not exist in the standard",
        ),
        (
            "days since 2001-02-29",
            "noleap",
            "does not exist in the noleap",
        ),
        ("days since 2000-01-01", "none", "no dates"),
        ("days since 2000-01-01", "mayan", "not one of standard"),
    ] {
        let refused = units(text, calendar).unwrap_err().to_string();
        assert!(refused.contains(part), "{refused}");
    }
    for text in ["days", "m", "", "days since", "K"] {
        assert_eq!(units(text, "none"), Ok(None), "{text}");
    }
    let attributes = json!({"units": "days since 2000-01-01"});
    let attributes = attributes.as_object().unwrap();
    assert_eq!(TimeUnits::new(&DataType::String, attributes), Ok(None));
}

#[test]
fn native_times_are_exact() {
    for (unit, scale_factor, value, instant) in [
        (TimeUnit::Year, 1, 50, 18_262 * DAY),
        (TimeUnit::Month, 2, -1, -61 * DAY),
        (TimeUnit::Week, 1, 2, 14 * DAY),
        (TimeUnit::Hour, 6, 5, 30 * HOUR),
        (TimeUnit::Nanosecond, 1, 1, NANOSECOND),
        (TimeUnit::Attosecond, 1, i64::MAX, i128::from(i64::MAX)),
    ] {
        let units = native(unit, scale_factor);
        assert_eq!(units.decode_integer(i128::from(value)), Ok(instant));
        assert_eq!(units.encode_integer(instant), Some(i128::from(value)));
    }
    for unit in [
        TimeUnit::Year,
        TimeUnit::Month,
        TimeUnit::Week,
        TimeUnit::Second,
    ] {
        for value in [i64::MAX, i64::MIN] {
            assert!(native(unit, u32::MAX).decode_integer(value.into()).is_err());
        }
    }
}

#[test]
fn what_is_no_time_is_out_of_range_or_missing() {
    let days = units("days since 1900-01-01", "standard").unwrap().unwrap();
    assert_eq!(days.decode_float(f64::NAN), Ok(None));
    for value in [1e300, -1e300, f64::INFINITY, 1e13, 9.969_209_968_386_869e36] {
        assert_eq!(days.decode_float(value), Err(OutOfRange), "{value}");
    }
    for value in [i128::MAX, i128::MIN, i64::MAX.into(), u64::MAX.into()] {
        assert_eq!(days.decode_integer(value), Err(OutOfRange));
    }
    assert_eq!(days.decode_float(5e-324), Ok(Some(days.reference)));
    assert_eq!(days.decode_float(-5e-324), Ok(Some(days.reference)));
}

proptest! {
    #[test]
    fn integers_round_trip(value in -1_000_000_000i128..1_000_000_000, nth in 0usize..6) {
        let unit = ["days", "h", "min", "s", "ms", "ns"][nth];
        let calendar = ["standard", "360_day", "noleap"][nth % 3];
        let units = units(&format!("{unit} since 1850-1-1 6:0:0.5 +1:00"), calendar);
        let units = units.unwrap().unwrap();
        let instant = units.decode_integer(value).unwrap();
        prop_assert_eq!(units.encode_integer(instant), Some(value));
        prop_assert_eq!(units.encode_float(instant), value as f64);
        prop_assert_eq!(units.decode_float(value as f64), Ok(Some(instant)));
    }

    #[test]
    fn any_number_is_a_time_or_an_error(value in any::<f64>(), integer in any::<i128>()) {
        for text in ["common_years since 1-1-1", "ns since -999999999-1-1", "ms since 9999-1-1"] {
            let units = units(text, "noleap").unwrap().unwrap();
            let _ = (units.decode_float(value), units.decode_integer(integer));
            let _ = (units.encode_float(integer), units.encode_integer(integer));
        }
    }
}
