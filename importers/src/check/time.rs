//! Units of time, their reference dates and calendars.

use compute::cf::time::{Calendar, TimeUnits};
use serde_json::{Map, Value, json};

use super::Findings;
use super::file::{Place, Role};

/// The first day of the Gregorian calendar; `standard` has another one before.
const GREGORIAN_FROM: (i64, u8, u8) = (1582, 10, 15);

/// Whether the units are of times since some reference.
pub(super) fn is_since(units: &str) -> bool {
    let mut words = units.split_whitespace().skip(1);
    words
        .next()
        .is_some_and(|word| word.eq_ignore_ascii_case("since"))
}

/// Whether the variable says that it is a coordinate of time.
fn is_time(place: &Place<'_>) -> bool {
    let named = place.role == Role::Coordinate && place.variable.name.eq_ignore_ascii_case("time");
    let standard = matches!(
        place.text("standard_name"),
        Some("time" | "forecast_reference_time")
    );
    named || standard || place.text("axis") == Some("T")
}

pub(super) fn check(place: &Place<'_>, findings: &mut Findings) {
    if !place.is_number() || place.role == Role::Part {
        return;
    }
    let units = place.text("units").unwrap_or_default();
    if !is_since(units) {
        if is_time(place) {
            findings.error(
                "time-reference",
                "4.4",
                format!("it is a time with units {units:?}, which have no reference"),
                "say since when, like units = \"hours since 1970-01-01\"",
            );
        }
        return;
    }
    if place.has("calendar") && place.text("calendar").is_none() {
        findings.error(
            "calendar",
            "4.4.1",
            "its calendar is not text",
            "name one, like calendar = \"standard\"",
        );
        return;
    }
    let calendar = place.text("calendar").unwrap_or("standard");
    // A month and its kin have no fixed length; the reference and the calendar are all that may be
    // wrong besides.
    let attributes: Map<String, Value> = [
        ("units".to_owned(), json!(units)),
        ("calendar".to_owned(), json!(calendar)),
    ]
    .into_iter()
    .collect();
    match TimeUnits::new(&place.variable.data_type, &attributes) {
        Ok(_) => {}
        Err(compute::Error::Attribute { name, reason }) if name == "calendar" => findings.error(
            "calendar",
            "4.4.1",
            format!("its calendar {reason}"),
            "name one of CF's calendars",
        ),
        Err(compute::Error::Attribute { reason, .. }) => findings.error(
            "time-units",
            "4.4",
            format!(
                "its units: {}",
                reason.strip_prefix("is ").unwrap_or(&reason)
            ),
            "write a unit of fixed length since a date that is in the calendar, like \
             \"days since 1850-01-01\"",
        ),
        Err(error) => findings.error(
            "time-units",
            "4.4",
            format!("its units: {error}"),
            "write them like \"days since 1850-01-01\"",
        ),
    }
    if Calendar::parse(calendar) == Some(Calendar::Standard)
        && reference_date(units).is_some_and(|date| date < GREGORIAN_FROM)
    {
        findings.warn(
            "mixed-calendar",
            "4.4.1",
            format!("its reference in {units:?} is before 1582-10-15 in the standard calendar"),
            "say calendar = \"proleptic_gregorian\" if the dates are that, or take a later reference",
        );
    }
}

/// Year, month and day of the reference, where they are written with dashes.
fn reference_date(units: &str) -> Option<(i64, u8, u8)> {
    let date = units.split_whitespace().nth(2)?;
    let date = date.split(['T', 't']).next()?;
    let (sign, date) = match date.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, date),
    };
    let mut parts = date.splitn(3, '-');
    let year: i64 = parts.next()?.parse().ok()?;
    let mut part = || parts.next().map_or(Some(1), |part| part.parse::<u8>().ok());
    Some((sign * year, part()?, part()?))
}
