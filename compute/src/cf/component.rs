//! Parts of a time: what xarray's `.dt` has.

use super::calendar::{Calendar, Date};
use super::time::{DAY, HOUR, MINUTE, SECOND};

/// A part of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Component {
    /// The year.
    Year,
    /// 1 to 12.
    Month,
    /// Day of the month, from 1.
    Day,
    /// 0 to 23.
    Hour,
    /// 0 to 59.
    Minute,
    /// 0 to 59.
    Second,
    /// From 1.
    DayOfYear,
    /// 0 on Monday.
    DayOfWeek,
    /// Week of ISO 8601, from 1.
    Week,
    /// 1 to 4.
    Quarter,
    /// `DJF`, `JJA`, `MAM` or `SON`.
    Season,
    /// Year and month, for instance `2020-01`.
    YearMonth,
    /// Year, month and day, for instance `2020-01-31`.
    Date,
}

/// In alphabetical order, as xarray sorts them.
const SEASONS: [&str; 4] = ["DJF", "JJA", "MAM", "SON"];

impl Component {
    /// All components, and the names they have in xarray.
    pub const ALL: [(&'static str, Self); 13] = [
        ("year", Self::Year),
        ("month", Self::Month),
        ("day", Self::Day),
        ("hour", Self::Hour),
        ("minute", Self::Minute),
        ("second", Self::Second),
        ("dayofyear", Self::DayOfYear),
        ("dayofweek", Self::DayOfWeek),
        ("week", Self::Week),
        ("quarter", Self::Quarter),
        ("season", Self::Season),
        ("yearmonth", Self::YearMonth),
        ("date", Self::Date),
    ];

    /// The component of this name.
    pub fn parse(name: &str) -> Option<Self> {
        let known = Self::ALL.iter().find(|(known, _)| *known == name);
        known.map(|(_, component)| *component)
    }

    /// The component of an instant, in attoseconds since day 0 of `calendar`; for those that are
    /// text, a number that sorts as the text should. `None` for a week of a calendar that has none.
    pub fn of(self, calendar: Calendar, instant: i128) -> Option<i64> {
        // Instants are within 10^9 years.
        let number = instant.div_euclid(DAY) as i64;
        let time = instant.rem_euclid(DAY);
        let date = || calendar.date(number);
        Some(match self {
            Self::Year => date().year,
            Self::Month => date().month.into(),
            Self::Day => date().day.into(),
            Self::Hour => (time / HOUR) as i64,
            Self::Minute => (time % HOUR / MINUTE) as i64,
            Self::Second => (time % MINUTE / SECOND) as i64,
            Self::DayOfYear => calendar.day_of_year(date()),
            Self::DayOfWeek => calendar.day_of_week(number),
            Self::Week if calendar.is_real() => iso_week(number),
            Self::Week => return None,
            Self::Quarter => i64::from(date().month - 1) / 3 + 1,
            Self::Season => [0, 2, 1, 3][usize::from(date().month % 12) / 3],
            Self::YearMonth => date().year * 12 + i64::from(date().month) - 1,
            Self::Date => number,
        })
    }

    /// The text of a value of [`Component::of`]; `None` if it is a number.
    pub fn text(self, calendar: Calendar, value: i64) -> Option<String> {
        match self {
            Self::Season => {
                let season = usize::try_from(value).ok().and_then(|at| SEASONS.get(at));
                season.map(|&season| season.to_owned())
            }
            Self::YearMonth => {
                let (year, month) = (value.div_euclid(12), value.rem_euclid(12) + 1);
                Some(format!("{}-{month:02}", year_text(year)))
            }
            Self::Date => Some(date_text(calendar.date(value))),
            _ => None,
        }
    }
}

/// Week of ISO 8601: that of its Thursday, counted in the Gregorian calendar.
fn iso_week(number: i64) -> i64 {
    let calendar = Calendar::ProlepticGregorian;
    let thursday = number - calendar.day_of_week(number) + 3;
    (calendar.day_of_year(calendar.date(thursday)) - 1) / 7 + 1
}

fn year_text(year: i64) -> String {
    let sign = if year < 0 { "-" } else { "" };
    format!("{sign}{:04}", year.unsigned_abs())
}

fn date_text(date: Date) -> String {
    format!("{}-{:02}-{:02}", year_text(date.year), date.month, date.day)
}

/// ISO 8601 text of an instant, in attoseconds since day 0 of `calendar`, as short as it can be
/// without loss, but no shorter than parts of `resolution` attoseconds ask for.
pub(crate) fn iso_text(calendar: Calendar, instant: i128, resolution: i128) -> String {
    let date = date_text(calendar.date(instant.div_euclid(DAY) as i64));
    let time = instant.rem_euclid(DAY);
    if time == 0 && resolution >= DAY {
        return date;
    }
    let (hour, minute) = (time / HOUR, time % HOUR / MINUTE);
    let mut text = format!("{date}T{hour:02}:{minute:02}");
    if time % MINUTE != 0 || resolution < MINUTE {
        text.push_str(&format!(":{:02}", time % MINUTE / SECOND));
    }
    if time % SECOND != 0 {
        let fraction = format!(".{:018}", time % SECOND);
        text.push_str(fraction.trim_end_matches('0'));
    }
    text
}
