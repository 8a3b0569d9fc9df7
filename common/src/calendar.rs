//! Days and dates of the Gregorian calendar, also before it was introduced. Pure.
//!
//! For whoever shows or reads a time; inside the system times are milliseconds since the epoch. Years are counted from March, so that the
//! leap day is a year's last one and the months before it have a fixed place: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".

const DAYS_OF_400_YEARS: i64 = 146_097;
const DAYS_FROM_MARCH_OF_YEAR_0: i64 = 719_468;

/// Year, month and day of the day that is `days` after 1970-01-01.
///
/// ```
/// use thalweg_common::calendar::date_of;
///
/// assert_eq!(date_of(0), (1970, 1, 1));
/// assert_eq!(date_of(-1), (1969, 12, 31));
/// ```
#[must_use]
pub const fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_FROM_MARCH_OF_YEAR_0;
    let era = days.div_euclid(DAYS_OF_400_YEARS);
    let day_of_era = days.rem_euclid(DAYS_OF_400_YEARS);
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + (month <= 2) as i64, month, day)
}

/// How many days after 1970-01-01 a date is: the reverse of [`date_of`]. A day that its month does not have counts on into the next one, so
/// whoever reads a date compares it with what [`date_of`] makes of the result.
///
/// ```
/// use thalweg_common::calendar::days_of;
///
/// assert_eq!(days_of(2000, 3, 1), 11_017);
/// assert_eq!(days_of(2023, 2, 29), days_of(2023, 3, 1));
/// ```
#[must_use]
pub const fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - DAYS_FROM_MARCH_OF_YEAR_0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn leap_years_and_the_turns_of_centuries() {
        for (date, days) in [
            ((1970, 1, 1), 0),
            ((1969, 12, 31), -1),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2024, 12, 31), 20_088),
            ((2100, 3, 1), 47_541),
            ((0, 3, 1), -719_468),
        ] {
            assert_eq!(days_of(date.0, date.1, date.2), days, "{date:?}");
            assert_eq!(date_of(days), date, "{days}");
        }
    }

    proptest! {
        #[test]
        fn every_day_has_one_date_and_the_next_day_the_next_one(days in -1_000_000_i64..5_000_000) {
            let (year, month, day) = date_of(days);
            prop_assert_eq!(days_of(year, month, day), days);
            prop_assert!(date_of(days + 1) > (year, month, day));
        }
    }
}
