//! Days of the proleptic Gregorian calendar.

/// Days since 1970-01-01; `None` if there is no such day. Years from 0 to 9999.
pub(crate) fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let february = 28 + i64::from(is_leap);
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = lengths.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    if !(0..=9999).contains(&year) || !(1..=*length).contains(&day) {
        return None;
    }
    let before = year - 1;
    let leap_days = before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400);
    let months: i64 = lengths[..month as usize - 1].iter().sum();
    // 0001-01-01 is day -719162.
    Some(before * 365 + leap_days + months + day - 1 - 719_162)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_from_1970() {
        assert_eq!(days(1970, 1, 1), Some(0));
        assert_eq!(days(1, 1, 1), Some(-719_162));
        assert_eq!(days(2000, 3, 1), Some(11_017));
        assert_eq!(days(1900, 2, 29), None);
        assert_eq!(days(2020, 0, 1), None);
        assert_eq!(days(2020, 13, 1), None);
    }
}
