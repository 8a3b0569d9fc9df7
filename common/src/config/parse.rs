//! Reading values: durations, memory sizes, numbers, switches, and words of a fixed choice, as Flink writes them.
//!
//! Pure functions from text to value. `None` means "not such a value"; the caller knows the key and says what was expected.

use std::time::Duration;

/// Units of time with their length in nanoseconds.
const TIME_UNITS: &[(&[&str], u128)] = &[
    (&["ns", "nano", "nanos", "nanosecond", "nanoseconds"], 1),
    (&["µs", "us", "micro", "micros", "microsecond", "microseconds"], 1_000),
    (&["", "ms", "milli", "millis", "millisecond", "milliseconds"], 1_000_000),
    (&["s", "sec", "secs", "second", "seconds"], 1_000_000_000),
    (&["m", "min", "minute", "minutes"], 60 * 1_000_000_000),
    (&["h", "hour", "hours"], 3_600 * 1_000_000_000),
    (&["d", "day", "days"], 86_400 * 1_000_000_000),
];

/// Units of memory with their size in bytes. As in Flink, all of them are powers of 1024.
const MEMORY_UNITS: &[(&[&str], u64)] = &[
    (&["", "b", "byte", "bytes"], 1),
    (&["k", "kb", "kib", "kibibytes"], 1 << 10),
    (&["m", "mb", "mib", "mebibytes"], 1 << 20),
    (&["g", "gb", "gib", "gibibytes"], 1 << 30),
    (&["t", "tb", "tib", "tebibytes"], 1 << 40),
];

/// Reads a duration: a whole number and a unit (`10 s`, `500 ms`, `1min`, `2 h`, `1 d`); without a unit, milliseconds.
///
/// ```
/// use std::time::Duration;
/// use thalweg_common::config::parse_duration;
///
/// assert_eq!(parse_duration("10 s"), Some(Duration::from_secs(10)));
/// assert_eq!(parse_duration("1min"), Some(Duration::from_secs(60)));
/// assert_eq!(parse_duration("250"), Some(Duration::from_millis(250)));
/// assert_eq!(parse_duration("soon"), None);
/// ```
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let (_, unit_ns) = TIME_UNITS.iter().find(|(names, _)| names.contains(&unit.as_str()))?;
    let total_ns = u128::from(number).checked_mul(*unit_ns)?;
    // The milliseconds must fit as well: they are what most code computes with.
    let seconds =
        u64::try_from(total_ns / 1_000_000_000).ok().filter(|seconds| *seconds <= u64::MAX / 1_000)?;
    let nanoseconds = u32::try_from(total_ns % 1_000_000_000).ok()?;
    Some(Duration::new(seconds, nanoseconds))
}

/// Reads a memory size in bytes: a whole number and a unit (`32 kb`, `1gb`, `64 mib`); without a unit, bytes.
///
/// ```
/// use thalweg_common::config::parse_memory_size;
///
/// assert_eq!(parse_memory_size("32 kb"), Some(32 * 1024));
/// assert_eq!(parse_memory_size("64 MiB"), Some(64 * 1024 * 1024));
/// assert_eq!(parse_memory_size("4096"), Some(4096));
/// assert_eq!(parse_memory_size("1.5 gb"), None);
/// ```
#[must_use]
pub fn parse_memory_size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let (_, unit_bytes) = MEMORY_UNITS.iter().find(|(names, _)| names.contains(&unit.as_str()))?;
    number.checked_mul(*unit_bytes)
}

pub(super) fn parse_integer(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

pub(super) fn parse_decimal(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

pub(super) fn parse_boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// Splits `10 s` into `10` and `s`, the unit in lower case.
fn number_and_unit(text: &str) -> Option<(u64, String)> {
    let text = text.trim();
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim().to_lowercase()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        let ms = Duration::from_millis;
        for (text, wanted) in [
            ("0", Some(ms(0))),
            ("7", Some(ms(7))),
            ("10 s", Some(ms(10_000))),
            ("10s", Some(ms(10_000))),
            ("  10   seconds ", Some(ms(10_000))),
            ("500 ms", Some(ms(500))),
            ("1min", Some(ms(60_000))),
            ("1 MIN", Some(ms(60_000))),
            ("3 m", Some(ms(180_000))),
            ("2 h", Some(ms(7_200_000))),
            ("1 d", Some(ms(86_400_000))),
            ("1500 µs", Some(Duration::from_micros(1_500))),
            ("1500 micros", Some(Duration::from_micros(1_500))),
            ("9 ns", Some(Duration::from_nanos(9))),
            ("", None),
            ("s", None),
            ("-1 s", None),
            ("+1 s", None),
            ("1.5 s", None),
            ("1 s 5 ms", None),
            ("10 parsecs", None),
            ("99999999999999999999 ms", None),
            ("18446744073709551615 d", None),
            ("18446744073709551615 s", None),
        ] {
            assert_eq!(parse_duration(text), wanted, "for {text:?}");
        }
    }

    #[test]
    fn memory_sizes() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("100", Some(100)),
            ("100 b", Some(100)),
            ("32 kb", Some(32 << 10)),
            ("32k", Some(32 << 10)),
            ("64 mib", Some(64 << 20)),
            ("64 MB", Some(64 << 20)),
            ("1gb", Some(1 << 30)),
            ("2 tebibytes", Some(2 << 40)),
            ("", None),
            ("kb", None),
            ("-1 kb", None),
            ("0.5 gb", None),
            ("1 qb", None),
            ("16777216 tb", None),
            ("16777215 tb", Some(16_777_215 << 40)),
        ] {
            assert_eq!(parse_memory_size(text), wanted, "for {text:?}");
        }
    }

    #[test]
    fn numbers_and_switches() {
        assert_eq!(parse_integer(" -3 "), Some(-3));
        assert_eq!(parse_integer("3.0"), None);
        assert_eq!(parse_decimal("1.5"), Some(1.5));
        assert_eq!(parse_decimal("inf"), None);
        assert_eq!(parse_decimal("NaN"), None);
        assert_eq!(parse_boolean("True"), Some(true));
        assert_eq!(parse_boolean("false "), Some(false));
        assert_eq!(parse_boolean("yes"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".{0,24}", number in any::<u64>()) {
            let _ = parse_duration(&text);
            let _ = parse_memory_size(&text);
            let _ = parse_duration(&format!("{number}{text}"));
            let _ = parse_memory_size(&format!("{number}{text}"));
        }

        #[test]
        fn every_unit_multiplies(number in 0_u64..1_000_000, unit in 0..TIME_UNITS.len(), spaces in " {0,3}") {
            let (names, unit_ns) = TIME_UNITS[unit];
            for name in names {
                let duration = parse_duration(&format!("{number}{spaces}{name}")).expect("it is well formed");
                prop_assert_eq!(duration.as_nanos(), u128::from(number) * unit_ns);
            }
        }

        #[test]
        fn every_memory_unit_multiplies(number in 0_u64..1_000_000, unit in 0..MEMORY_UNITS.len()) {
            let (names, unit_bytes) = MEMORY_UNITS[unit];
            for name in names {
                prop_assert_eq!(parse_memory_size(&format!("{number} {name}")), Some(number * unit_bytes));
            }
        }
    }
}
