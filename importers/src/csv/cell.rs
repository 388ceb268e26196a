//! What one cell of text can be.

use crate::calendar;

/// Cells that hold no value where a column is not text.
const MISSING: [&str; 8] = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"];
/// Integers beyond this have neighbours that are the same as floats.
const MAX_EXACT: i64 = 1 << 53;
/// Nanoseconds of a day, in a type in which they can be summed up.
const DAY: i128 = 86_400_000_000_000;

/// The finest unit that a time is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unit {
    Days,
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

impl Unit {
    /// As CF writes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Days => "days",
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
            Self::Microseconds => "microseconds",
            Self::Nanoseconds => "nanoseconds",
        }
    }

    fn nanoseconds(self) -> i128 {
        match self {
            Self::Days => DAY,
            Self::Seconds => 1_000_000_000,
            Self::Milliseconds => 1_000_000,
            Self::Microseconds => 1_000,
            Self::Nanoseconds => 1,
        }
    }
}

/// A time: nanoseconds since 1970-01-01, its unit, and whether it told its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time {
    pub(super) nanoseconds: i128,
    pub(super) unit: Unit,
    pub(super) has_zone: bool,
}

impl Time {
    /// The time in another unit; `None` if it does not fit.
    pub(super) fn count(self, unit: Unit) -> Option<i64> {
        i64::try_from(self.nanoseconds.div_euclid(unit.nanoseconds())).ok()
    }
}

pub(super) fn is_missing(cell: &str) -> bool {
    MISSING.contains(&cell)
}

/// An integer in plain digits; what begins with a zero or a plus is a code and not a number.
pub(super) fn integer(cell: &str) -> Option<i64> {
    let digits = cell.strip_prefix('-').unwrap_or(cell);
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_code = digits.is_empty() || digits.len() > 1 && digits.starts_with('0');
    if !is_plain || is_code || cell == "-0" {
        return None;
    }
    // The least one is the fill value.
    cell.parse().ok().filter(|&number| number != i64::MIN)
}

/// A float; an integer only if it is exact.
pub(super) fn float(cell: &str) -> Option<f64> {
    let digits = cell.strip_prefix('-').unwrap_or(cell);
    match digits {
        "inf" | "Inf" | "Infinity" | "infinity" => {
            let sign = if cell.starts_with('-') { -1.0 } else { 1.0 };
            return Some(sign * f64::INFINITY);
        }
        "NaN" | "nan" if digits == cell => return Some(f64::NAN),
        "0" => return cell.parse().ok(),
        _ => {}
    }
    let is_number = |byte: u8| byte.is_ascii_digit() || b".eE+-".contains(&byte);
    let starts = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if !starts || !digits.bytes().all(is_number) {
        return None;
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let exact = integer(cell)?;
        return (-MAX_EXACT..=MAX_EXACT)
            .contains(&exact)
            .then_some(exact as f64);
    }
    let second = digits.as_bytes().get(1);
    if digits.starts_with('0') && second.is_some_and(u8::is_ascii_digit) {
        return None;
    }
    cell.parse().ok().filter(|number: &f64| number.is_finite())
}

pub(super) fn boolean(cell: &str) -> Option<bool> {
    match cell {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// A date, or a date and a time of day, of ISO 8601: `2020-02-29`, `2020-02-29T12:30`,
/// `2020-02-29 12:30:15.25+01:00`.
pub(super) fn time(cell: &str) -> Option<Time> {
    let (year, rest) = number(cell, 4)?;
    let (month, rest) = number(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = number(rest.strip_prefix('-')?, 2)?;
    let days = calendar::days(year, month, day)?;
    let mut time = Time {
        nanoseconds: i128::from(days) * DAY,
        unit: Unit::Days,
        has_zone: false,
    };
    if rest.is_empty() {
        return Some(time);
    }
    let (hour, rest) = number(rest.strip_prefix(['T', ' '])?, 2)?;
    let (minute, mut rest) = number(rest.strip_prefix(':')?, 2)?;
    let (mut second, mut fraction, mut digits) = (0, 0, 0);
    if let Some(more) = rest.strip_prefix(':') {
        (second, rest) = number(more, 2)?;
        if let Some(more) = rest.strip_prefix('.') {
            digits = more.bytes().take_while(u8::is_ascii_digit).count();
            (fraction, rest) = number(more, digits)?;
        }
    }
    if hour > 23 || minute > 59 || second > 59 || digits > 9 {
        return None;
    }
    time.unit = match digits {
        0 => Unit::Seconds,
        1..=3 => Unit::Milliseconds,
        4..=6 => Unit::Microseconds,
        _ => Unit::Nanoseconds,
    };
    let seconds = i128::from((hour * 60 + minute) * 60 + second);
    let fraction = i128::from(fraction) * 10i128.pow(9 - digits as u32);
    time.nanoseconds += seconds * 1_000_000_000 + fraction;
    let offset = match rest {
        "" => return Some(time),
        "Z" => 0,
        rest => {
            let sign = match rest.as_bytes()[0] {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let (hours, rest) = number(&rest[1..], 2)?;
            let (minutes, rest) = number(rest.strip_prefix(':').unwrap_or(rest), 2)?;
            if !rest.is_empty() || hours > 23 || minutes > 59 {
                return None;
            }
            sign * (hours * 60 + minutes)
        }
    };
    time.has_zone = true;
    time.nanoseconds -= i128::from(offset) * 60_000_000_000;
    Some(time)
}

/// So many digits off the front.
fn number(text: &str, digits: usize) -> Option<(i64, &str)> {
    let number = text
        .get(..digits)
        .filter(|n| n.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some((number.parse().ok()?, &text[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_from_codes() {
        assert_eq!(integer("-12"), Some(-12));
        assert_eq!(integer("0"), Some(0));
        for code in [
            "007",
            "+1",
            "",
            "-",
            "-0",
            "1.0",
            "9223372036854775808",
            "-9223372036854775808",
            "1_0",
        ] {
            assert_eq!(integer(code), None, "{code}");
        }
        assert_eq!(float("1e3"), Some(1000.0));
        assert_eq!(float("-.5"), Some(-0.5));
        assert_eq!(float("0"), Some(0.0));
        assert_eq!(float("-0").map(f64::to_bits), Some((-0.0f64).to_bits()));
        assert_eq!(float("-inf"), Some(f64::NEG_INFINITY));
        assert!(float("nan").is_some_and(f64::is_nan));
        for code in [
            "007",
            "00.5",
            "1e999",
            "e5",
            "1x",
            "",
            "9007199254740993",
            "0x10",
            "-nan",
            "--1",
        ] {
            assert_eq!(float(code), None, "{code}");
        }
    }

    #[test]
    fn times_are_counted_since_1970() {
        let count = |text: &str, unit| time(text).and_then(|time| time.count(unit));
        assert_eq!(count("1970-01-01", Unit::Days), Some(0));
        assert_eq!(count("0001-01-01", Unit::Days), Some(-719_162));
        assert_eq!(count("2000-03-01", Unit::Days), Some(11_017));
        assert_eq!(count("1969-12-31T23:59:59", Unit::Seconds), Some(-1));
        assert_eq!(
            count("2020-02-29 12:30", Unit::Seconds),
            Some(1_582_979_400)
        );
        assert_eq!(
            count("1970-01-01T01:00:00.25+01:00", Unit::Milliseconds),
            Some(250)
        );
        assert_eq!(
            count("1970-01-01T00:00:00.000000001Z", Unit::Nanoseconds),
            Some(1)
        );
        for bad in [
            "2019-02-29",
            "2020-13-01",
            "2020-1-01",
            "20200101",
            "2020-01-01T",
            "2020-01-01T24:00",
            "2020-01-01T10:00X",
            "2020-01-01T10:00:00.",
            "2020-01-01T10:00+1",
            "é020-01-01",
            "2020-01-01T10:00:00.1234567890",
        ] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }
}
