//! Timestamps in text: SQL (`2024-01-05 10:11:12.5`) and ISO-8601 (`2024-01-05T10:11:12.5`), as Flink's JSON and CSV formats read and
//! write them. Pure.
//!
//! A [`DateTime`] has no time zone, as SQL's TIMESTAMP. All digits of the fraction pass through, up to nine; trailing zeros are not
//! written, and a fraction of zero not at all. Where a text has a zone (`Z`, `+09:00`), the time is brought to UTC.
//!
//! In a record: `#[serde(with = "thalweg_connectors::formats::timestamp::sql")]` or `iso8601` for a field of the type [`DateTime`],
//! and [`sql_ms`] or [`iso8601_ms`] for one that is an `i64` of milliseconds since the epoch, in UTC.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thalweg_common::Record;
use thalweg_common::calendar::{date_of, days_of};

use super::Malformed;
use crate::digits;

/// Which form a timestamp has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampStandard {
    /// `yyyy-MM-dd HH:mm:ss.s...`: Flink's default.
    #[default]
    Sql,
    /// `yyyy-MM-ddTHH:mm:ss.s...`
    Iso8601,
}

/// A date with a time of day, in no zone in particular. Ordered as time goes.
#[derive(Record, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[record(crate = thalweg_common)]
pub struct DateTime {
    /// Since 1970-01-01 00:00:00.
    seconds: i64,
    nanos: u32,
}

const SECONDS_PER_DAY: i64 = 86_400;

impl DateTime {
    /// So many milliseconds after 1970-01-01 00:00:00.
    #[must_use]
    pub fn from_epoch_ms(ms: i64) -> Self {
        Self { seconds: ms.div_euclid(1_000), nanos: (ms.rem_euclid(1_000) * 1_000_000) as u32 }
    }

    /// Milliseconds since 1970-01-01 00:00:00, without what is finer.
    #[must_use]
    pub fn epoch_ms(self) -> i64 {
        self.seconds.saturating_mul(1_000).saturating_add(i64::from(self.nanos / 1_000_000))
    }

    /// Reads a timestamp of this form.
    ///
    /// # Errors
    /// If the text has another form, or there is no such time.
    pub fn parse(text: &str, standard: TimestampStandard) -> Result<Self, Malformed> {
        parse(text, standard).ok_or_else(|| {
            let form = match standard {
                TimestampStandard::Sql => "SQL timestamp such as `2024-01-05 10:11:12.123`",
                TimestampStandard::Iso8601 => "ISO-8601 timestamp such as `2024-01-05T10:11:12.123`",
            };
            Malformed::new(format_args!("`{}` is no {form}", text.escape_debug()))
        })
    }

    /// Shows it in this form.
    #[must_use]
    pub fn display(self, standard: TimestampStandard) -> impl fmt::Display {
        Shown { time: self, standard }
    }

    /// Year, month, day, hour, minute and second.
    #[must_use]
    pub fn fields(self) -> [i64; 6] {
        let (year, month, day) = date_of(self.seconds.div_euclid(SECONDS_PER_DAY));
        let second = self.seconds.rem_euclid(SECONDS_PER_DAY);
        [year, month, day, second / 3_600, second / 60 % 60, second % 60]
    }
}

struct Shown {
    time: DateTime,
    standard: TimestampStandard,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [year, month, day, hour, minute, second] = self.time.fields();
        let between = if self.standard == TimestampStandard::Sql { ' ' } else { 'T' };
        write!(f, "{year:04}-{month:02}-{day:02}{between}{hour:02}:{minute:02}:{second:02}")?;
        if self.time.nanos == 0 {
            return Ok(());
        }
        let digits = format!("{:09}", self.time.nanos);
        write!(f, ".{}", digits.trim_end_matches('0'))
    }
}

fn parse(text: &str, standard: TimestampStandard) -> Option<DateTime> {
    let mut rest = text.as_bytes();
    let year = number(&mut rest, 4)?;
    mark(&mut rest, b'-')?;
    let month = number(&mut rest, 2)?;
    mark(&mut rest, b'-')?;
    let day = number(&mut rest, 2)?;
    mark(&mut rest, if standard == TimestampStandard::Sql { b' ' } else { b'T' })?;
    let hour = number(&mut rest, 2)?;
    mark(&mut rest, b':')?;
    let minute = number(&mut rest, 2)?;
    // The seconds may be missing in ISO-8601, as Java leaves them out where they are zero.
    let second = match (mark(&mut rest, b':'), standard) {
        (Some(()), _) => number(&mut rest, 2)?,
        (None, TimestampStandard::Iso8601) => 0,
        (None, TimestampStandard::Sql) => return None,
    };
    let nanos = if mark(&mut rest, b'.').is_some() { fraction(&mut rest)? } else { 0 };
    let offset = zone(rest)?;
    let at = days_of(year, month, day);
    let is_day = (1..=12).contains(&month) && date_of(at) == (year, month, day);
    if !is_day || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = at * SECONDS_PER_DAY + hour * 3_600 + minute * 60 + second - offset;
    Some(DateTime { seconds, nanos })
}

fn number(rest: &mut &[u8], count: usize) -> Option<i64> {
    let (value, tail) = digits::leading(rest, count)?;
    *rest = tail;
    Some(value)
}

fn mark(rest: &mut &[u8], wanted: u8) -> Option<()> {
    *rest = rest.strip_prefix(&[wanted])?;
    Some(())
}

/// The digits behind the point; what is finer than a nanosecond is left out.
fn fraction(rest: &mut &[u8]) -> Option<u32> {
    let digits = digits::count(rest);
    let (head, tail) = rest.split_at_checked(digits).filter(|_| digits > 0)?;
    *rest = tail;
    let digit = |place: usize| head.get(place).map_or(0, |byte| u32::from(byte - b'0'));
    Some((0..9).fold(0, |nanos, place| nanos * 10 + digit(place)))
}

/// Seconds by which the zone is ahead of UTC.
fn zone(mut rest: &[u8]) -> Option<i64> {
    let sign = match rest {
        [] | [b'Z'] => return Some(0),
        [b'+', tail @ ..] => {
            rest = tail;
            1
        }
        [b'-', tail @ ..] => {
            rest = tail;
            -1
        }
        _ => return None,
    };
    let hours = number(&mut rest, 2)?;
    let _ = mark(&mut rest, b':');
    let minutes = if rest.is_empty() { 0 } else { number(&mut rest, 2)? };
    (rest.is_empty() && hours <= 18 && minutes <= 59).then_some(sign * (hours * 3_600 + minutes * 60))
}

fn deserialize<'de, D: Deserializer<'de>>(
    source: D,
    standard: TimestampStandard,
) -> Result<DateTime, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(source)?;
    DateTime::parse(&text, standard).map_err(serde::de::Error::custom)
}

fn serialize<S: Serializer>(
    time: DateTime,
    target: S,
    standard: TimestampStandard,
) -> Result<S::Ok, S::Error> {
    target.collect_str(&time.display(standard))
}

/// As text it is in the SQL form.
impl Serialize for DateTime {
    fn serialize<S: Serializer>(&self, target: S) -> Result<S::Ok, S::Error> {
        serialize(*self, target, TimestampStandard::Sql)
    }
}

/// As text it is in the SQL form.
impl<'de> Deserialize<'de> for DateTime {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        deserialize(source, TimestampStandard::Sql)
    }
}

macro_rules! field {
    ($(#[$doc:meta])* $module:ident, $type:ty, $standard:expr, $from:expr, $into:expr) => {
        $(#[$doc])*
        pub mod $module {
            use serde::{Deserializer, Serializer};

            use super::{DateTime, TimestampStandard};

            /// Reads it.
            ///
            /// # Errors
            /// If the text is no timestamp of this form.
            pub fn deserialize<'de, D: Deserializer<'de>>(source: D) -> Result<$type, D::Error> {
                let from: fn(DateTime) -> $type = $from;
                super::deserialize(source, $standard).map(from)
            }

            /// Writes it.
            ///
            /// # Errors
            /// If it cannot be written where it is to go.
            pub fn serialize<S: Serializer>(time: &$type, target: S) -> Result<S::Ok, S::Error> {
                let into: fn($type) -> DateTime = $into;
                super::serialize(into(*time), target, $standard)
            }
        }
    };
}

field!(
    /// For fields of the type [`DateTime`]: SQL form.
    sql, DateTime, TimestampStandard::Sql, |time| time, |time| time
);
field!(
    /// For fields of the type [`DateTime`]: ISO-8601 form.
    iso8601, DateTime, TimestampStandard::Iso8601, |time| time, |time| time
);
field!(
    /// For fields of the type `i64`, milliseconds since the epoch: SQL form.
    sql_ms, i64, TimestampStandard::Sql, DateTime::epoch_ms, DateTime::from_epoch_ms
);
field!(
    /// For fields of the type `i64`, milliseconds since the epoch: ISO-8601 form.
    iso8601_ms, i64, TimestampStandard::Iso8601, DateTime::epoch_ms, DateTime::from_epoch_ms
);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digits_pass_through_and_a_zero_fraction_is_not_written() {
        for (read, written) in [
            ("2024-01-01 12:00:09.999123", "2024-01-01 12:00:09.999123"),
            ("2024-01-01 12:00:10", "2024-01-01 12:00:10"),
            ("2024-01-01 12:00:10.000", "2024-01-01 12:00:10"),
            ("2024-01-01 12:00:10.500", "2024-01-01 12:00:10.5"),
            ("2024-02-29 23:59:59.123456789", "2024-02-29 23:59:59.123456789"),
            ("1969-12-31 23:59:59.25", "1969-12-31 23:59:59.25"),
            ("0001-01-01 00:00:00", "0001-01-01 00:00:00"),
        ] {
            let time = DateTime::parse(read, TimestampStandard::Sql).unwrap();
            assert_eq!(time.display(TimestampStandard::Sql).to_string(), written);
            let iso = read.replace(' ', "T");
            assert_eq!(DateTime::parse(&iso, TimestampStandard::Iso8601).unwrap(), time);
            assert_eq!(time.display(TimestampStandard::Iso8601).to_string(), written.replace(' ', "T"));
        }
    }

    #[test]
    fn zones_are_brought_to_utc_and_milliseconds_are_what_event_time_counts() {
        for (text, ms) in [
            ("1970-01-01T00:00:00.0019", 1),
            ("2025-11-10T02:31:12Z", 1_762_741_872_000),
            ("2025-11-10T11:31:12+09:00", 1_762_741_872_000),
            ("2025-11-09T21:31:12-0500", 1_762_741_872_000),
            ("1970-01-01T00:01", 60_000),
            ("1969-12-31T23:59:59.999", -1),
        ] {
            let time = DateTime::parse(text, TimestampStandard::Iso8601).unwrap();
            assert_eq!(time.epoch_ms(), ms, "{text}");
        }
    }

    #[test]
    fn what_is_no_timestamp_is_refused_with_an_example() {
        for text in [
            "",
            "2024-01-05",
            "2024-01-05T10:11:12",
            "2024-13-05 10:11:12",
            "2024-02-30 10:11:12",
            "2024-01-05 24:00:00",
            "2024-01-05 10:11",
            "2024-01-05 10:11:12.",
            "2024-01-05 10:11:12 x",
            "24-1-5 1:1:1",
            "2024-01-05 10:11:12+9",
        ] {
            let error = DateTime::parse(text, TimestampStandard::Sql).unwrap_err().to_string();
            assert!(error.ends_with("is no SQL timestamp such as `2024-01-05 10:11:12.123`"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(ms in -62_135_596_800_000_i64..253_402_300_800_000) {
            let time = DateTime::from_epoch_ms(ms);
            prop_assert_eq!(time.epoch_ms(), ms);
            for standard in [TimestampStandard::Sql, TimestampStandard::Iso8601] {
                prop_assert_eq!(DateTime::parse(&time.display(standard).to_string(), standard), Ok(time));
            }
        }
    }
}
