//! Calendars: dates to day numbers and back, by counting days.
//!
//! Source: CF conventions §4.4.1; `cftime` for the years before 1, and for the day of the year and
//! of the week in calendars that have no such thing by nature.

/// Furthest year that is calculated with, before or after year 0.
pub(super) const YEARS_MAX: i64 = 1_000_000_000;

/// Day number of 1582-10-15, the first day of the Gregorian calendar.
const GREGORIAN: i64 = -141_427;

const CUMULATED: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
const CUMULATED_LEAP: [i64; 12] = [0, 31, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335];

/// A way of counting days in months and years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Calendar {
    /// Julian until 1582-10-04, then Gregorian from 1582-10-15. Year -1 is followed by year 1.
    Standard,
    /// Gregorian at all times, with a year 0.
    ProlepticGregorian,
    /// Julian at all times. Year -1 is followed by year 1.
    Julian,
    /// No year has a leap day.
    NoLeap,
    /// Every year has a leap day.
    AllLeap,
    /// Twelve months of 30 days.
    Days360,
}

/// A day of a calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Date {
    /// Year; negative before the common era.
    pub year: i64,
    /// Month, from 1.
    pub month: u8,
    /// Day of the month, from 1.
    pub day: u8,
}

impl Calendar {
    /// The calendar that CF's `calendar` names, in any case; `tai` counts as the proleptic
    /// Gregorian one.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "standard" | "gregorian" => Self::Standard,
            "proleptic_gregorian" | "tai" => Self::ProlepticGregorian,
            "julian" => Self::Julian,
            "noleap" | "365_day" => Self::NoLeap,
            "all_leap" | "366_day" => Self::AllLeap,
            "360_day" => Self::Days360,
            _ => return None,
        })
    }

    /// CF's name of the calendar.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::ProlepticGregorian => "proleptic_gregorian",
            Self::Julian => "julian",
            Self::NoLeap => "noleap",
            Self::AllLeap => "all_leap",
            Self::Days360 => "360_day",
        }
    }

    /// Whether days of the week are those of the real world.
    pub fn is_real(self) -> bool {
        !matches!(self, Self::NoLeap | Self::AllLeap | Self::Days360)
    }

    /// The number of a date: days since 1970-01-01 (Gregorian) in calendars of the real world, since
    /// 0000-01-01 in the others. `None` if there is no such date within 10^9 years.
    pub fn day_number(self, date: Date) -> Option<i64> {
        let Date { year, month, day } = date;
        if year.abs() > YEARS_MAX || !(1..=12).contains(&month) {
            return None;
        }
        let (month_index, day_index) = (usize::from(month) - 1, i64::from(day) - 1);
        if day == 0 || day > self.days_in_month(year, month)? {
            return None;
        }
        Some(match self {
            Self::Days360 => year * 360 + 30 * month_index as i64 + day_index,
            Self::NoLeap => year * 365 + CUMULATED[month_index] + day_index,
            Self::AllLeap => year * 366 + CUMULATED_LEAP[month_index] + day_index,
            Self::ProlepticGregorian => from_gregorian(date),
            Self::Julian => from_julian(date, self.astronomical(year)?),
            Self::Standard => {
                let gregorian = from_gregorian(date);
                match from_julian(date, self.astronomical(year)?) {
                    julian if julian < GREGORIAN => julian,
                    _ if gregorian < GREGORIAN => return None,
                    _ => gregorian,
                }
            }
        })
    }

    /// The date of a day number.
    pub fn date(self, number: i64) -> Date {
        let months = |number: i64, length: i64, cumulated: &[i64; 12]| {
            let day = number.rem_euclid(length);
            let month = cumulated.partition_point(|&start| start <= day);
            Date {
                year: number.div_euclid(length),
                month: month as u8,
                day: (day - cumulated[month - 1] + 1) as u8,
            }
        };
        match self {
            Self::Days360 => {
                let day = number.rem_euclid(360);
                Date {
                    year: number.div_euclid(360),
                    month: (day / 30 + 1) as u8,
                    day: (day % 30 + 1) as u8,
                }
            }
            Self::NoLeap => months(number, 365, &CUMULATED),
            Self::AllLeap => months(number, 366, &CUMULATED_LEAP),
            Self::ProlepticGregorian => to_gregorian(number),
            Self::Standard if number >= GREGORIAN => to_gregorian(number),
            Self::Standard | Self::Julian => {
                let mut date = to_julian(number);
                // Year 0, astronomically, is year -1 of history.
                date.year -= i64::from(date.year <= 0);
                date
            }
        }
    }

    /// Days in a month; `None` for a month or year that the calendar does not have. October 1582
    /// has days up to 31, although some are missing.
    pub fn days_in_month(self, year: i64, month: u8) -> Option<u8> {
        let is_leap = self.is_leap(year)?;
        Some(match (self, month) {
            (_, 0 | 13..) => return None,
            (Self::Days360, _) => 30,
            (_, 2) => 28 + u8::from(is_leap),
            (_, 4 | 6 | 9 | 11) => 30,
            _ => 31,
        })
    }

    /// Day of the year, from 1. Days that 1582 skipped are counted, as `cftime` does.
    pub fn day_of_year(self, date: Date) -> i64 {
        let month = usize::from(date.month.clamp(1, 12)) - 1;
        let start = match self {
            Self::Days360 => 30 * month as i64,
            _ if self.is_leap(date.year) == Some(true) => CUMULATED_LEAP[month],
            _ => CUMULATED[month],
        };
        start + i64::from(date.day)
    }

    /// Day of the week, 0 on Monday. In calendars not of the real world, weeks run through and
    /// 0000-01-01 is a Monday.
    pub fn day_of_week(self, number: i64) -> i64 {
        // 1970-01-01 was a Thursday.
        (number + if self.is_real() { 3 } else { 0 }).rem_euclid(7)
    }

    /// The year before or after, over the year 0 that some calendars lack.
    pub(super) fn next_year(self, year: i64) -> i64 {
        year + 1 + i64::from(year == -1 && !self.has_year_zero())
    }

    fn has_year_zero(self) -> bool {
        !matches!(self, Self::Standard | Self::Julian)
    }

    /// The year counted with a year 0; `None` for a year 0 that does not exist.
    fn astronomical(self, year: i64) -> Option<i64> {
        match year {
            _ if self.has_year_zero() => Some(year),
            0 => None,
            _ => Some(year + i64::from(year < 0)),
        }
    }

    fn is_leap(self, year: i64) -> Option<bool> {
        let counted = self.astronomical(year)?;
        let gregorian = counted % 4 == 0 && (counted % 100 != 0 || counted % 400 == 0);
        Some(match self {
            Self::ProlepticGregorian => gregorian,
            Self::Standard if year >= 1582 => gregorian,
            Self::Standard | Self::Julian => counted % 4 == 0,
            Self::AllLeap => true,
            Self::NoLeap | Self::Days360 => false,
        })
    }
}

/// Days from 1 March to a day, in a year that begins in March; and the year.
fn since_march(date: Date, year: i64) -> (i64, i64) {
    let month = (i64::from(date.month) + 9) % 12;
    let day = (153 * month + 2) / 5 + i64::from(date.day) - 1;
    (day, year - i64::from(date.month <= 2))
}

/// The inverse of [`since_march`].
fn of_march(day: i64, year: i64) -> Date {
    let shifted = (5 * day + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    Date {
        year: year + i64::from(month <= 2),
        month: month as u8,
        day: (day - (153 * shifted + 2) / 5 + 1) as u8,
    }
}

/// Day number of 0000-03-01, Gregorian.
const GREGORIAN_MARCH: i64 = -719_468;
/// Day number of 0000-03-01, Julian.
const JULIAN_MARCH: i64 = -719_470;

fn from_gregorian(date: Date) -> i64 {
    let (day, year) = since_march(date, date.year);
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    GREGORIAN_MARCH + 365 * year + leaps + day
}

/// Source: "chrono-Compatible Low-Level Date Algorithms" by Howard Hinnant, `civil_from_days`.
fn to_gregorian(number: i64) -> Date {
    let days = number - GREGORIAN_MARCH;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day = of_era - (365 * year + year / 4 - year / 100);
    of_march(day, year + era * 400)
}

/// `year` is counted with a year 0.
fn from_julian(date: Date, year: i64) -> i64 {
    let (day, year) = since_march(date, year);
    JULIAN_MARCH + 365 * year + year.div_euclid(4) + day
}

/// The year is counted with a year 0.
fn to_julian(number: i64) -> Date {
    let days = number - JULIAN_MARCH;
    let (era, of_era) = (days.div_euclid(1461), days.rem_euclid(1461));
    let year = (of_era - of_era / 1460) / 365;
    of_march(of_era - 365 * year, year + era * 4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Calendar; 6] = [
        Calendar::Standard,
        Calendar::ProlepticGregorian,
        Calendar::Julian,
        Calendar::NoLeap,
        Calendar::AllLeap,
        Calendar::Days360,
    ];

    #[test]
    fn every_day_follows_the_day_before() {
        for calendar in ALL {
            let first = calendar.day_number(Date {
                year: -401,
                month: 12,
                day: 30,
            });
            let first = first.unwrap();
            let mut before = calendar.date(first);
            for number in first + 1..first + 365 * 3000 {
                let date = calendar.date(number);
                assert_eq!(calendar.day_number(date), Some(number), "{date:?}");
                let next = Date {
                    day: before.day + 1,
                    ..before
                };
                let is_gap = calendar == Calendar::Standard && number == GREGORIAN;
                if calendar.day_number(next).is_some() {
                    assert_eq!(date, next);
                } else if is_gap {
                    assert_eq!((before.day, date.day), (4, 15));
                } else if before.month == 12 {
                    assert_eq!(date.year, calendar.next_year(before.year));
                    assert_eq!((date.month, date.day), (1, 1));
                } else {
                    assert_eq!((date.month, date.day), (before.month + 1, 1));
                }
                before = date;
            }
        }
    }

    #[test]
    fn dates_that_do_not_exist_have_no_number() {
        for (calendar, year, month, day) in [
            (Calendar::Standard, 2021, 2, 29),
            (Calendar::Standard, 1900, 2, 29),
            (Calendar::Standard, 1582, 10, 5),
            (Calendar::Standard, 1582, 10, 14),
            (Calendar::Standard, 0, 1, 1),
            (Calendar::Julian, 0, 1, 1),
            (Calendar::NoLeap, 2020, 2, 29),
            (Calendar::Days360, 2020, 1, 31),
            (Calendar::AllLeap, 2020, 2, 30),
            (Calendar::ProlepticGregorian, 2020, 13, 1),
            (Calendar::ProlepticGregorian, 2020, 0, 1),
            (Calendar::ProlepticGregorian, 2020, 1, 0),
            (Calendar::ProlepticGregorian, YEARS_MAX + 1, 1, 1),
        ] {
            let date = Date { year, month, day };
            assert_eq!(calendar.day_number(date), None, "{calendar:?} {date:?}");
        }
    }

    proptest! {
        #[test]
        fn dates_round_trip(number in -300_000_000_000i64..300_000_000_000, nth in 0usize..6) {
            let date = ALL[nth].date(number);
            prop_assert_eq!(ALL[nth].day_number(date), Some(number));
        }
    }
}
