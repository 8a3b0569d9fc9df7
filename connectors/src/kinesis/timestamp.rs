//! Points in time as Flink's properties write them: seconds since the epoch, or text by a pattern of Java's `SimpleDateFormat`. Pure.

use thalweg_common::Timestamp;
use thalweg_common::calendar::days_of;

use crate::digits;

/// The pattern of Flink's consumer.
pub(super) const DEFAULT_PATTERN: &str = "yyyy-MM-dd'T'HH:mm:ss.SSSXXX";

const DAY_MS: i64 = 86_400_000;

/// Milliseconds since the epoch: by the pattern, or else a number of seconds, perhaps with a fraction.
pub(super) fn parse(text: &str, pattern: &str) -> Result<Timestamp, String> {
    by_pattern(text, pattern).or_else(|why| {
        let Ok(seconds) = text.parse::<f64>() else { return Err(why) };
        let millis = seconds * 1_000.0;
        if !seconds.is_finite() || seconds < 0.0 || millis > i64::MAX as f64 {
            return Err(format!("`{text}` is no number of seconds since 1970"));
        }
        Ok(millis.round() as i64)
    })
}

/// What a text says, field by field.
#[derive(Debug)]
struct Fields {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    millisecond: i64,
    offset_ms: i64,
}

fn by_pattern(text: &str, pattern: &str) -> Result<Timestamp, String> {
    let mut fields =
        Fields { year: 1970, month: 1, day: 1, hour: 0, minute: 0, second: 0, millisecond: 0, offset_ms: 0 };
    let fits = || format!("`{text}` is not written as `{pattern}`");
    let (mut rest, mut letters) = (text, pattern);
    while let Some(letter) = letters.chars().next() {
        if letter == '\'' {
            let (literal, behind) = letters[1..]
                .split_once('\'')
                .ok_or_else(|| format!("the pattern `{pattern}` has a quotation mark without an end"))?;
            letters = behind;
            // Two in a row are one.
            let literal = if literal.is_empty() { "'" } else { literal };
            rest = rest.strip_prefix(literal).ok_or_else(fits)?;
            continue;
        }
        let run = letters.chars().take_while(|other| *other == letter).count();
        letters = &letters[run * letter.len_utf8()..];
        if !letter.is_ascii_alphabetic() {
            let literal: String = std::iter::repeat_n(letter, run).collect();
            rest = rest.strip_prefix(literal.as_str()).ok_or_else(fits)?;
            continue;
        }
        // Fields that touch each other have exactly as many digits as letters.
        let next_is_field =
            letters.starts_with(|next: char| next.is_ascii_alphabetic() && !"XZ".contains(next));
        rest = fields.read(letter, run, next_is_field, rest).ok_or_else(|| match "yMdHmsSXZ".contains(letter) {
            true => fits(),
            false => format!("the pattern `{pattern}` has a `{letter}`, which is not understood; use y, M, d, H, m, s, S, X and Z"),
        })?;
    }
    if rest.is_empty() { fields.millis().ok_or_else(fits) } else { Err(fits()) }
}

impl Fields {
    /// Reads a field, and gives what is behind it.
    fn read<'a>(&mut self, letter: char, run: usize, is_exact: bool, text: &'a str) -> Option<&'a str> {
        if letter == 'X' || letter == 'Z' {
            return self.read_offset(text);
        }
        let digits = digits::count(text.as_bytes());
        let length = if is_exact { run.min(digits) } else { digits };
        let (value, _) = digits::leading(text.as_bytes(), length)?;
        let rest = &text[length..];
        let field = match letter {
            'y' => &mut self.year,
            'M' => &mut self.month,
            'd' => &mut self.day,
            'H' => &mut self.hour,
            'm' => &mut self.minute,
            's' => &mut self.second,
            'S' => &mut self.millisecond,
            _ => return None,
        };
        *field = value;
        Some(rest)
    }

    /// `Z`, `+09`, `+0900` or `+09:00`.
    fn read_offset<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        if let Some(rest) = text.strip_prefix('Z') {
            return Some(rest);
        }
        let sign = match text.chars().next()? {
            '+' => 1,
            '-' => -1,
            _ => return None,
        };
        let (hours, rest) = text[1..].split_at_checked(2)?;
        let behind = rest.strip_prefix(':').unwrap_or(rest);
        let (minutes, rest) = match behind.split_at_checked(2) {
            Some((minutes, rest)) if minutes.bytes().all(|byte| byte.is_ascii_digit()) => (minutes, rest),
            _ => ("0", rest),
        };
        let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
        self.offset_ms = sign * minutes * 60_000;
        Some(rest)
    }

    fn millis(&self) -> Option<Timestamp> {
        let is_valid = (1..=12).contains(&self.month)
            && (1..=31).contains(&self.day)
            && (0..24).contains(&self.hour)
            && (0..60).contains(&self.minute)
            && (0..60).contains(&self.second)
            && (0..1_000).contains(&self.millisecond)
            && (0..10_000).contains(&self.year);
        is_valid.then(|| {
            let seconds = (self.hour * 60 + self.minute) * 60 + self.second;
            days_of(self.year, self.month, self.day) * DAY_MS + seconds * 1_000 + self.millisecond
                - self.offset_ms
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_seconds_and_texts_follow_the_pattern() {
        for (text, pattern, expected) in [
            ("1459799926.480", DEFAULT_PATTERN, Ok(1_459_799_926_480)),
            ("0", DEFAULT_PATTERN, Ok(0)),
            ("2016-04-04T19:58:46.480-00:00", DEFAULT_PATTERN, Ok(1_459_799_926_480)),
            ("2016-04-05T04:58:46.480+09:00", DEFAULT_PATTERN, Ok(1_459_799_926_480)),
            ("2016-04-04T19:58:46.480Z", DEFAULT_PATTERN, Ok(1_459_799_926_480)),
            ("2022-03-23 10:19:54", "yyyy-MM-dd HH:mm:ss", Ok(1_648_030_794_000)),
            ("20240229", "yyyyMMdd", Ok(1_709_164_800_000)),
            ("2024-01-01", DEFAULT_PATTERN, Err("is not written as")),
            ("2024-13-01", "yyyy-MM-dd", Err("is not written as")),
            ("Mon", "EEE", Err("has a `E`, which is not understood")),
            ("-5", DEFAULT_PATTERN, Err("is no number of seconds")),
        ] {
            let found = parse(text, pattern);
            match expected {
                Ok(millis) => assert_eq!(found, Ok(millis), "{text}"),
                Err(part) => {
                    assert!(found.as_ref().is_err_and(|why| why.contains(part)), "{text}: {found:?}")
                }
            }
        }
    }
}
