//! Times as CF and NumPy store them: numbers of units since a reference, in a calendar.
//!
//! An instant is a number of attoseconds since day 0 of its calendar, so that no stored integer
//! loses a digit. Within 10^9 years of day 0 it fits 128 bits with room to spare.
//!
//! Source: CF conventions §4.4; `cftime.num2date` for the forms of units and the rounding of floats.
//! Where this departs from `cftime`: weeks and nanoseconds are units too, fractions of the reference
//! are not cut off at microseconds, products are exact before they are rounded, and zones are also
//! read as `-6:00` and `UTC`.

mod recode;

use array::{DataType, TimeUnit};
use serde_json::{Map, Value};

use super::calendar::{Date, YEARS_MAX};
use super::number::{is_real, is_time, quoted};
use super::stamp::Stamp;
use crate::Error;

pub use super::calendar::Calendar;
pub use super::component::Component;
pub use recode::Inexact;

pub(super) const SECOND: i128 = 1_000_000_000_000_000_000;
pub(super) const MINUTE: i128 = 60 * SECOND;
pub(super) const HOUR: i128 = 60 * MINUTE;
pub(crate) const DAY: i128 = 24 * HOUR;
const MICROSECOND: i128 = SECOND / 1_000_000;
const NANOSECOND: i128 = SECOND / 1_000_000_000;

/// Furthest instant, before or after day 0: 10^9 years of the shortest calendar.
const INSTANT_MAX: i128 = YEARS_MAX as i128 * 360 * DAY;

/// How an array stores times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeUnits {
    calendar: Calendar,
    unit: Unit,
    /// The instant that 0 stands for.
    reference: i128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// In attoseconds.
    Fixed(i128),
    /// Months, of whatever length; since 1970-01.
    Months(i128),
}

/// A number too large to be a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not within 10^9 years of the epoch")]
pub struct OutOfRange;

impl TimeUnits {
    /// How an array with these attributes stores times; `None` if it does not: it is neither a
    /// `datetime64` nor of real numbers with `units` like `days since 1900-01-01`.
    ///
    /// # Errors
    /// [`Error::Attribute`] for units that are no fixed length of time, a reference that is no date,
    /// and an unknown `calendar`.
    pub fn new(
        data_type: &DataType,
        attributes: &Map<String, Value>,
    ) -> Result<Option<Self>, Error> {
        if let DataType::DateTime64 { unit, scale_factor } = data_type {
            return Self::native(*unit, *scale_factor).map(Some);
        }
        let units = attributes.get("units").and_then(Value::as_str);
        let parts = units.and_then(|units| Some((units, split(units)?)));
        let Some((units, (unit, reference))) = parts else {
            return Ok(None);
        };
        if !is_real(data_type) || is_time(data_type) || *data_type == DataType::Bool {
            return Ok(None);
        }
        let calendar = calendar(attributes.get("calendar"))?;
        let fail = |reason: &str| Error::Attribute {
            name: "units".to_owned(),
            reason: format!("is {}: {reason}", quoted(units)),
        };
        let unit = unit_length(unit, calendar).map_err(|reason| fail(&reason))?;
        let refuse = |reason: String| fail(&format!("the reference {reason}"));
        let stamp = Stamp::parse(reference).map_err(refuse)?;
        let interval = stamp.interval(calendar).map_err(refuse)?;
        Ok(Some(Self {
            calendar,
            unit: Unit::Fixed(unit),
            reference: interval.first,
        }))
    }

    fn native(unit: TimeUnit, scale_factor: u32) -> Result<Self, Error> {
        let scale = i128::from(scale_factor);
        let unit = match unit {
            TimeUnit::Year => Unit::Months(12 * scale),
            TimeUnit::Month => Unit::Months(scale),
            TimeUnit::Week => Unit::Fixed(7 * DAY * scale),
            TimeUnit::Day => Unit::Fixed(DAY * scale),
            TimeUnit::Hour => Unit::Fixed(HOUR * scale),
            TimeUnit::Minute => Unit::Fixed(MINUTE * scale),
            TimeUnit::Second => Unit::Fixed(SECOND * scale),
            TimeUnit::Millisecond => Unit::Fixed(SECOND / 1000 * scale),
            TimeUnit::Microsecond => Unit::Fixed(MICROSECOND * scale),
            TimeUnit::Nanosecond => Unit::Fixed(NANOSECOND * scale),
            TimeUnit::Picosecond => Unit::Fixed(1_000_000 * scale),
            TimeUnit::Femtosecond => Unit::Fixed(1000 * scale),
            TimeUnit::Attosecond => Unit::Fixed(scale),
            TimeUnit::Generic => {
                return Err(Error::Attribute {
                    name: "data_type".to_owned(),
                    reason: "is datetime64 without a unit, which says no time".to_owned(),
                });
            }
        };
        Ok(Self {
            calendar: Calendar::ProlepticGregorian,
            unit,
            reference: 0,
        })
    }

    /// The calendar.
    pub fn calendar(&self) -> Calendar {
        self.calendar
    }

    /// The instant, in attoseconds since day 0 of the calendar, that a stored integer stands for.
    /// Exact.
    ///
    /// # Errors
    /// [`OutOfRange`] beyond 10^9 years.
    pub fn decode_integer(&self, value: i128) -> Result<i128, OutOfRange> {
        let unit = match self.unit {
            Unit::Fixed(unit) => unit,
            Unit::Months(months) => {
                let months = value.checked_mul(months).ok_or(OutOfRange)?;
                let year = 1970 + i64::try_from(months.div_euclid(12)).map_err(|_| OutOfRange)?;
                let month = months.rem_euclid(12) as u8 + 1;
                let date = Date {
                    year,
                    month,
                    day: 1,
                };
                // Years are checked before days are counted.
                let number = self.calendar.day_number(date).ok_or(OutOfRange)?;
                return in_range(i128::from(number) * DAY);
            }
        };
        let since = value.checked_mul(unit).ok_or(OutOfRange)?;
        in_range(since.checked_add(self.reference).ok_or(OutOfRange)?)
    }

    /// The instant, in attoseconds since day 0 of the calendar, that a stored float stands for;
    /// `None` for NaN. Times since the reference are rounded to microseconds, or to nanoseconds if
    /// these are the unit, ties to even; those a microsecond off a second, to the side of the second.
    ///
    /// # Errors
    /// [`OutOfRange`] beyond 10^9 years.
    ///
    /// Source: `cftime.num2date`, `cast_to_int`.
    pub fn decode_float(&self, value: f64) -> Result<Option<i128>, OutOfRange> {
        if value.is_nan() {
            return Ok(None);
        }
        let Unit::Fixed(unit) = self.unit else {
            return Err(OutOfRange);
        };
        let quantum = if unit < MICROSECOND {
            NANOSECOND
        } else {
            MICROSECOND
        };
        // At most 365 days in microseconds: 45 bits.
        let quanta = unit / quantum;
        if value.abs() * quanta as f64 > INSTANT_MAX as f64 / quantum as f64 {
            return Err(OutOfRange);
        }
        let (floor, rest) = floor_of_product(value, quanta);
        let mut rounded = match rest {
            std::cmp::Ordering::Less => floor.whole,
            std::cmp::Ordering::Greater => floor.whole + 1,
            std::cmp::Ordering::Equal => floor.whole + (floor.whole & 1),
        };
        if unit >= SECOND {
            rounded = match rounded.rem_euclid(1_000_000) {
                1 => floor.whole,
                999_999 => floor.whole + i128::from(!floor.is_exact),
                _ => rounded,
            };
        }
        // Below twice the furthest instant, which leaves room in 128 bits.
        in_range(rounded * quantum + self.reference).map(Some)
    }

    /// The stored integer of an instant; `None` if it lies between two.
    pub fn encode_integer(&self, instant: i128) -> Option<i128> {
        match self.unit {
            Unit::Fixed(unit) => {
                let since = instant.checked_sub(self.reference)?;
                (since % unit == 0).then(|| since / unit)
            }
            Unit::Months(months) => {
                let number = i64::try_from(instant.div_euclid(DAY)).ok()?;
                let date = self.calendar.date(in_range(instant).ok().map(|_| number)?);
                let since = 12 * (i128::from(date.year) - 1970) + i128::from(date.month) - 1;
                let is_exact = date.day == 1 && instant % DAY == 0 && since % months == 0;
                is_exact.then(|| since / months)
            }
        }
    }

    /// The stored number nearest to an instant; NaN if units are months.
    pub fn encode_float(&self, instant: i128) -> f64 {
        match self.unit {
            Unit::Months(_) => f64::NAN,
            Unit::Fixed(unit) => {
                let since = instant.saturating_sub(self.reference);
                let (whole, rest) = (since.div_euclid(unit), since.rem_euclid(unit));
                whole as f64 + rest as f64 / unit as f64
            }
        }
    }
}

fn in_range(instant: i128) -> Result<i128, OutOfRange> {
    let is_in_range = (-INSTANT_MAX..=INSTANT_MAX).contains(&instant);
    is_in_range.then_some(instant).ok_or(OutOfRange)
}

struct Floor {
    whole: i128,
    /// Whether nothing was cut off.
    is_exact: bool,
}

/// The floor of a product, and how what was cut off compares with a half.
///
/// `value` is finite, `factor` below 2^46 and their product below 2^86.
fn floor_of_product(value: f64, factor: i128) -> (Floor, std::cmp::Ordering) {
    let bits = value.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i32;
    let fraction = i128::from(bits & ((1 << 52) - 1));
    let mantissa = if exponent == 0 {
        fraction
    } else {
        fraction | 1 << 52
    };
    let sign = if value.is_sign_negative() { -1 } else { 1 };
    let product = sign * mantissa * factor;
    let shift = 1075 - exponent.max(1);
    if shift <= 0 {
        let whole = product << -shift;
        let is_exact = true;
        return (Floor { whole, is_exact }, std::cmp::Ordering::Less);
    }
    // The product is below 2^99, so shifts past 100 leave less than a half of either sign.
    let shift = shift.min(110);
    let whole = product >> shift;
    let rest = product - (whole << shift);
    let is_exact = rest == 0;
    (Floor { whole, is_exact }, rest.cmp(&(1 << (shift - 1))))
}

/// `days since 1900-01-01` as `days` and `1900-01-01`.
fn split(units: &str) -> Option<(&str, &str)> {
    let (unit, rest) = units.trim().split_once(char::is_whitespace)?;
    let (since, reference) = rest.trim_start().split_once(char::is_whitespace)?;
    since
        .eq_ignore_ascii_case("since")
        .then_some((unit, reference))
}

fn calendar(value: Option<&Value>) -> Result<Calendar, Error> {
    let name = match value {
        None | Some(Value::Null) => return Ok(Calendar::Standard),
        Some(Value::String(name)) if name.trim().is_empty() => return Ok(Calendar::Standard),
        Some(Value::String(name)) => name.trim(),
        Some(_) => "",
    };
    Calendar::parse(name).ok_or_else(|| Error::Attribute {
        name: "calendar".to_owned(),
        reason: match name.to_ascii_lowercase().as_str() {
            "none" => "is \"none\", so its values are no dates".to_owned(),
            _ => format!(
                "is {}, which is not one of standard, proleptic_gregorian, julian, noleap, \
                 all_leap and 360_day",
                quoted(name)
            ),
        },
    })
}

/// Attoseconds of a unit.
fn unit_length(name: &str, calendar: Calendar) -> Result<i128, String> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "weeks" | "week" => 7 * DAY,
        "days" | "day" | "d" => DAY,
        "hours" | "hour" | "hrs" | "hr" | "h" => HOUR,
        "minutes" | "minute" | "mins" | "min" => MINUTE,
        "seconds" | "second" | "secs" | "sec" | "s" => SECOND,
        "milliseconds" | "millisecond" | "millisecs" | "millisec" | "msecs" | "msec" | "ms" => {
            SECOND / 1000
        }
        "microseconds" | "microsecond" | "microsecs" | "microsec" | "usecs" | "usec" | "us"
        | "µs" | "μs" => MICROSECOND,
        "nanoseconds" | "nanosecond" | "nanosecs" | "nanosec" | "nsecs" | "nsec" | "ns" => {
            NANOSECOND
        }
        "months" | "month" if calendar == Calendar::Days360 => 30 * DAY,
        "common_years" | "common_year" if calendar == Calendar::NoLeap => 365 * DAY,
        "months" | "month" | "years" | "year" | "yrs" | "yr" | "common_years" | "common_year" => {
            return Err(format!(
                "{name} have no fixed length in the {} calendar; store days",
                calendar.name()
            ));
        }
        _ => return Err(format!("{} is no unit of time", quoted(name))),
    })
}

#[cfg(test)]
mod tests;
