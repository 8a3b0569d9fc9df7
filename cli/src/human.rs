//! Numbers, times and texts in the form in which people read them. Pure: the present time is handed in.
//!
//! Stands between the cluster's answers and the tables. Invariant: nothing here is longer than one line, and no text that
//! came from the cluster reaches a terminal with control characters in it.

use thalweg_common::calendar::date_of;

const SECOND_MS: u64 = 1_000;
const MINUTE_SECONDS: u64 = 60;
const HOUR_SECONDS: u64 = 60 * MINUTE_SECONDS;
const DAY_SECONDS: u64 = 24 * HOUR_SECONDS;

/// A number with separators between its thousands: `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many per second: `1,234,567`; below ten with a digit behind the point: `0.3`.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second >= 9.95 || per_second == 0.0 {
        count(per_second.round() as u64)
    } else {
        format!("{per_second:.1}")
    }
}

/// A part of every second as a share of it: `38 %`.
pub(crate) fn share(ms_per_second: u64) -> String {
    format!("{} %", (ms_per_second + 5) / 10)
}

/// A size in the largest binary unit of which there is at least one: `512 B`, `1.2 MiB`.
pub(crate) fn bytes(size_bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if size_bytes < 1024 {
        return format!("{size_bytes} B");
    }
    let mut tenths = u128::from(size_bytes) * 10;
    let mut unit = "B";
    for larger in UNITS {
        // What would be shown as 1024.0 is one of the next unit.
        if (tenths + 5) / 10 * 10 < 10_240 {
            break;
        }
        tenths = (tenths + 512) / 1024;
        unit = larger;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// A time span: `250 ms`, `1.2 s`, `12 s`, `1m 03s`, `2h 05m`, `3d 04h`.
pub(crate) fn duration(span_ms: u64) -> String {
    match span_ms {
        0..SECOND_MS => format!("{span_ms} ms"),
        SECOND_MS..10_000 => format!("{}.{} s", span_ms / 1_000, span_ms % 1_000 / 100),
        _ => whole_seconds(span_ms / SECOND_MS),
    }
}

/// A time span in microseconds: `150 µs`, `1.5 ms`, `12 ms`, and from a second on as [`duration`] writes it.
pub(crate) fn micros(span_us: u64) -> String {
    match span_us {
        0 => "0 ms".into(),
        1..1_000 => format!("{span_us} µs"),
        1_000..10_000 => format!("{}.{} ms", span_us / 1_000, span_us % 1_000 / 100),
        _ => duration(span_us / 1_000),
    }
}

fn whole_seconds(seconds: u64) -> String {
    match seconds {
        0..MINUTE_SECONDS => format!("{seconds} s"),
        MINUTE_SECONDS..HOUR_SECONDS => format!("{}m {:02}s", seconds / 60, seconds % 60),
        HOUR_SECONDS..DAY_SECONDS => format!("{}h {:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {:02}h", seconds / DAY_SECONDS, seconds % DAY_SECONDS / HOUR_SECONDS),
    }
}

/// The time between two moments in milliseconds; none if the second one is earlier, as when two machines' clocks differ.
pub(crate) fn span_ms(from_ms: i64, to_ms: i64) -> u64 {
    u64::try_from(to_ms.saturating_sub(from_ms)).unwrap_or(0)
}

/// How long ago a moment was: `12 s ago`; `just now` for less than a second, `never` for a moment that has not come.
pub(crate) fn ago(now_ms: i64, then_ms: i64) -> String {
    if then_ms == 0 {
        return "never".into();
    }
    match span_ms(then_ms, now_ms) {
        0..SECOND_MS => "just now".into(),
        span => format!("{} ago", whole_seconds(span / SECOND_MS)),
    }
}

/// A moment as date and time: `2026-11-21 02:21:13 UTC`.
pub(crate) fn date_time(time_ms: i64) -> String {
    format!("{} UTC", seconds_of(time_ms))
}

/// A moment to the millisecond: `2026-11-21 02:21:13.007 UTC`.
pub(crate) fn moment(time_ms: i64) -> String {
    format!("{}.{:03} UTC", seconds_of(time_ms), time_ms.rem_euclid(1_000))
}

fn seconds_of(time_ms: i64) -> String {
    let seconds = time_ms.div_euclid(1_000);
    let day_seconds = i64::try_from(DAY_SECONDS).unwrap_or(i64::MAX);
    let (year, month, day) = date_of(seconds.div_euclid(day_seconds));
    let second_of_day = seconds.rem_euclid(day_seconds);
    let (hour, minute, second) = (second_of_day / 3_600, second_of_day % 3_600 / 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// A text from the cluster in one line, without control characters.
pub(crate) fn one_line(text: &str) -> String {
    let clean = |character: char| if character.is_control() { ' ' } else { character };
    text.chars().map(clean).collect::<String>().trim_end().to_string()
}

/// A text from the cluster in its own lines, each led by `indent` and without control characters; no line for an empty
/// text.
pub(crate) fn indented(text: &str, indent: &str) -> String {
    let text = text.trim_end();
    if text.is_empty() {
        return String::new();
    }
    text.lines().map(|line| format!("{indent}{}\n", one_line(&line.replace('\t', "    ")))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_spans_are_told_in_microseconds() {
        for (span_us, text) in [
            (0, "0 ms"),
            (1, "1 µs"),
            (999, "999 µs"),
            (1_000, "1.0 ms"),
            (9_999, "9.9 ms"),
            (10_000, "10 ms"),
            (1_500_000, "1.5 s"),
        ] {
            assert_eq!(micros(span_us), text);
        }
    }

    #[test]
    fn thousands_are_separated() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345, "12,345"),
            (1_234_567, "1,234,567"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn small_rates_have_a_digit_behind_the_point() {
        for (per_second, text) in
            [(0.0, "0"), (0.04, "0.0"), (0.3, "0.3"), (9.94, "9.9"), (9.96, "10"), (1_234_567.4, "1,234,567")]
        {
            assert_eq!(rate(per_second), text);
        }
        assert_eq!([0, 4, 5, 995, 1_000].map(share), ["0 %", "0 %", "1 %", "100 %", "100 %"]);
    }

    #[test]
    fn sizes_have_the_largest_unit_that_fits() {
        for (size, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            (1_258_291, "1.2 MiB"),
            (1_048_575, "1.0 MiB"),
            (3 << 30, "3.0 GiB"),
            (1 << 40, "1.0 TiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(size), text, "{size}");
        }
    }

    #[test]
    fn durations_have_two_units_at_most() {
        for (span, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (1_290, "1.2 s"),
            (9_999, "9.9 s"),
            (12_900, "12 s"),
            (59_999, "59 s"),
            (63_000, "1m 03s"),
            (3_599_999, "59m 59s"),
            (7_500_000, "2h 05m"),
            (86_400_000, "1d 00h"),
            (273_600_000, "3d 04h"),
        ] {
            assert_eq!(duration(span), text, "{span}");
        }
    }

    #[test]
    fn times_ago_survive_clocks_that_differ() {
        let now = 1_700_000_000_000;
        for (then, text) in [
            (now, "just now"),
            (now - 999, "just now"),
            (now + 5_000, "just now"),
            (now - 12_400, "12 s ago"),
            (now - 63_000, "1m 03s ago"),
            (0, "never"),
            (i64::MIN, "106751991167d 07h ago"),
        ] {
            assert_eq!(ago(now, then), text, "{then}");
        }
    }

    #[test]
    fn dates_know_leap_years() {
        for (time_ms, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (951_868_800_000, "2000-03-01 00:00:00 UTC"),
            (1_700_000_000_999, "2023-11-14 22:13:20 UTC"),
            (1_709_164_800_000, "2024-02-29 00:00:00 UTC"),
            (1_735_689_599_000, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(date_time(time_ms), text);
        }
    }

    #[test]
    fn no_control_character_reaches_the_terminal() {
        assert_eq!(one_line("a\u{1b}[31mb\nc\n"), "a [31mb c");
        assert_eq!(indented("a\n\tb\u{7}\n\n", "  "), "  a\n      b\n");
        assert_eq!(indented("\n", "  "), "");
    }
}
