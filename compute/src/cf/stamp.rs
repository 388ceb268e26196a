//! Dates and times as text: ISO 8601 and its CF relatives, each meaning an interval.

use super::calendar::{Calendar, Date, YEARS_MAX};
use super::time::{DAY, HOUR, MINUTE, SECOND};

/// A date, perhaps with a time of day, and how much of it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    date: Date,
    /// Attoseconds since midnight.
    time: i128,
    /// Attoseconds that local time is ahead of UTC.
    ahead: i128,
    resolution: Resolution,
}

/// The finest part given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolution {
    Year,
    Month,
    /// A day or less, in attoseconds.
    Time(i128),
}

/// All instants a text may mean, in attoseconds of its calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) first: i128,
    /// Inclusive.
    pub(crate) last: i128,
}

impl Stamp {
    /// Reads `2020`, `2020-01`, `2020-1-31`, `20200131`, and times `06`, `06:00`, `06:00:00.5` after
    /// `T` or a space, then `Z`, `UTC`, or hours ahead of it such as `+01:00`, `-6:00`, `+0130`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let no_date =
            || "is no date; dates are written 2020, 2020-01, 2020-01-31 or 2020-01-31T06:00";
        let text = text.trim();
        let mut rest = Rest(text);
        let (date, mut resolution) = date(&mut rest).ok_or_else(no_date)?;
        let (mut time, mut ahead) = (0, 0);
        let is_marked = rest.take('T') || rest.take('t');
        let has_gap = rest.skip_spaces();
        if is_marked || (has_gap && rest.0.starts_with(|c: char| c.is_ascii_digit())) {
            let (since_midnight, length) = time_of_day(&mut rest).ok_or(
                "has no valid time of day; times are written 06, 06:00, 06:00:00 or 06:00:00.5",
            )?;
            (time, resolution) = (since_midnight, Resolution::Time(length));
        }
        rest.skip_spaces();
        if !rest.0.is_empty() {
            ahead = offset(rest.0).ok_or_else(no_date)?;
        }
        Ok(Self {
            date,
            time,
            ahead,
            resolution,
        })
    }

    /// The instants it means in a calendar.
    ///
    /// # Errors
    /// If the date does not exist.
    pub(crate) fn interval(&self, calendar: Calendar) -> Result<Interval, String> {
        let missing = || format!("does not exist in the {} calendar", calendar.name());
        let start = |date| {
            calendar
                .day_number(date)
                .map(|number| i128::from(number) * DAY)
        };
        let Date { year, month, .. } = self.date;
        let first = start(self.date).ok_or_else(missing)? + self.time - self.ahead;
        let after = match self.resolution {
            Resolution::Time(length) => first + length,
            Resolution::Month if month < 12 => {
                let month = month + 1;
                start(Date { month, ..self.date }).ok_or_else(missing)? - self.ahead
            }
            Resolution::Year | Resolution::Month => {
                let year = calendar.next_year(year);
                let next = Date {
                    year,
                    month: 1,
                    day: 1,
                };
                start(next).ok_or_else(missing)? - self.ahead
            }
        };
        let last = after - 1;
        Ok(Interval { first, last })
    }

    /// Attoseconds it spans at least; months and years count as more than a day.
    pub(crate) fn length(&self) -> i128 {
        match self.resolution {
            Resolution::Year | Resolution::Month => 2 * DAY,
            Resolution::Time(length) => length,
        }
    }
}

fn date(rest: &mut Rest<'_>) -> Option<(Date, Resolution)> {
    let is_negative = rest.take('-');
    let is_signed = is_negative || rest.take('+');
    let digits = rest.digits(1..=9)?;
    let year: i64 = digits.parse().ok()?;
    let is_year = |year: i64| year < YEARS_MAX;
    if digits.len() == 8 && !is_signed && !rest.0.starts_with('-') {
        let date = Date {
            year: year / 10_000,
            month: (year / 100 % 100) as u8,
            day: (year % 100) as u8,
        };
        return Some((date, Resolution::Time(DAY)));
    }
    let mut date = Date {
        year: if is_negative { -year } else { year },
        month: 1,
        day: 1,
    };
    if !is_year(year) {
        return None;
    }
    if !rest.take('-') {
        return Some((date, Resolution::Year));
    }
    date.month = rest.number()?;
    if !rest.take('-') {
        return Some((date, Resolution::Month));
    }
    date.day = rest.number()?;
    Some((date, Resolution::Time(DAY)))
}

/// Attoseconds since midnight, and how long the finest part given is.
fn time_of_day(rest: &mut Rest<'_>) -> Option<(i128, i128)> {
    let part = |rest: &mut Rest<'_>, below: u8| {
        let number = rest.number()?;
        (number < below).then_some(i128::from(number))
    };
    let mut time = part(rest, 24)? * HOUR;
    if !rest.take(':') {
        return Some((time, HOUR));
    }
    time += part(rest, 60)? * MINUTE;
    if !rest.take(':') {
        return Some((time, MINUTE));
    }
    time += part(rest, 60)? * SECOND;
    if !rest.take('.') {
        return Some((time, SECOND));
    }
    // "30." is a way to write seconds.
    let Some(digits) = rest.digits(1..=18) else {
        return (!rest.0.starts_with(|c: char| c.is_ascii_digit())).then_some((time, SECOND));
    };
    let scale = SECOND / 10i128.pow(digits.len() as u32);
    time += digits.parse::<i128>().ok()? * scale;
    // One to three digits mean milliseconds, and so on, as pandas has it.
    let places = digits.len().next_multiple_of(3) as u32;
    Some((time, SECOND / 10i128.pow(places)))
}

/// Attoseconds ahead of UTC.
fn offset(text: &str) -> Option<i128> {
    if ["Z", "UTC", "GMT"]
        .iter()
        .any(|utc| text.eq_ignore_ascii_case(utc))
    {
        return Some(0);
    }
    let mut rest = Rest(text);
    let is_negative = rest.take('-');
    if !is_negative && !rest.take('+') {
        return None;
    }
    let digits = rest.digits(1..=4)?;
    let (hours, minutes) = match digits.len() {
        1 | 2 if rest.take(':') => (digits, rest.digits(1..=2)?),
        1 | 2 => (digits, "0"),
        length => digits.split_at(length - 2),
    };
    let (hours, minutes) = (hours.parse::<i128>().ok()?, minutes.parse::<i128>().ok()?);
    if !rest.0.is_empty() || hours > 24 || minutes > 59 {
        return None;
    }
    let ahead = hours * HOUR + minutes * MINUTE;
    Some(if is_negative { -ahead } else { ahead })
}

/// What is left to read.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn take(&mut self, c: char) -> bool {
        let rest = self.0.strip_prefix(c);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn skip_spaces(&mut self) -> bool {
        let rest = self.0.trim_start();
        let is_any = rest.len() < self.0.len();
        self.0 = rest;
        is_any
    }

    /// All digits that come next, if they are so many.
    fn digits(&mut self, count: std::ops::RangeInclusive<usize>) -> Option<&'a str> {
        let end = self
            .0
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(self.0.len());
        if !count.contains(&end) {
            return None;
        }
        let (digits, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(digits)
    }

    /// A number of one or two digits.
    fn number(&mut self) -> Option<u8> {
        self.digits(1..=2)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(text: &str) -> (i128, i128) {
        let stamp = Stamp::parse(text).unwrap();
        let interval = stamp.interval(Calendar::ProlepticGregorian).unwrap();
        (interval.first, interval.last + 1 - interval.first)
    }

    #[test]
    fn a_stamp_means_an_interval_of_its_resolution() {
        let start = 18_292 * DAY; // 2020-01-31
        for (text, first, length) in [
            ("2020", 18_262 * DAY, 366 * DAY),
            ("2020-01", 18_262 * DAY, 31 * DAY),
            ("2020-12", 18_597 * DAY, 31 * DAY),
            ("2020-01-31", start, DAY),
            ("2020-1-31", start, DAY),
            ("20200131", start, DAY),
            (" 2020-01-31 ", start, DAY),
            ("2020-01-31T06", start + 6 * HOUR, HOUR),
            ("2020-01-31 06", start + 6 * HOUR, HOUR),
            ("2020-01-31T06:30", start + 390 * MINUTE, MINUTE),
            ("2020-01-31T06:30Z", start + 390 * MINUTE, MINUTE),
            ("2020-01-31 6:30:01", start + 390 * MINUTE + SECOND, SECOND),
            ("2020-01-31 6:30:01.", start + 390 * MINUTE + SECOND, SECOND),
            ("2020-01-31 00:00:00.5", start + SECOND / 2, SECOND / 1000),
            (
                "2020-01-31 00:00:00.0005",
                start + SECOND / 2000,
                SECOND / 1_000_000,
            ),
            ("2020-01-31 00:00:00 UTC", start, SECOND),
            ("2020-01-31 06:00 +01:00", start + 5 * HOUR, MINUTE),
            ("2020-01-31T06:00+0130", start + 270 * MINUTE, MINUTE),
            ("2020-01-31 06:00 -6:00", start + 12 * HOUR, MINUTE),
            ("2020-01-31 -6", start + 6 * HOUR, DAY),
            ("1-1-1", -719_162 * DAY, DAY),
            ("-0001", -719_893 * DAY, 365 * DAY),
        ] {
            assert_eq!(interval(text), (first, length), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_an_error() {
        for text in [
            "",
            "-",
            "x",
            "2020-",
            "2020-01-",
            "2020-001",
            "2020-01-31T24:00",
            "2020-01-31T06:60",
            "2020-01-31T06:00:60",
            "2020-01-31T06:00:00.",
            "2020-01-31Tx",
            "2020-01-31T",
            "2020-01-31 +1:2:3",
            "2020-01-31 +",
            "9999999999",
            "2020/01/31",
            "2020-01-31T00:00:00.0000000000000000001",
            "2020-01-31 +99:00",
            "2020-01-31T06:00x",
            "é",
        ] {
            let stamp = Stamp::parse(text);
            assert!(stamp.is_err() || text.ends_with('.'), "{text}: {stamp:?}");
        }
        let last = Stamp::parse("2021-02-29")
            .unwrap()
            .interval(Calendar::Standard);
        assert_eq!(last.unwrap_err(), "does not exist in the standard calendar");
        assert!(
            Stamp::parse("2020-02-30")
                .unwrap()
                .interval(Calendar::Days360)
                .is_ok()
        );
        assert!(
            Stamp::parse("-1")
                .unwrap()
                .interval(Calendar::Standard)
                .is_ok()
        );
    }
}
