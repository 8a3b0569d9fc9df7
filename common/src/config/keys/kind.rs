//! What a key is, and the forms that values have.

use crate::config::parse::{parse_boolean, parse_decimal, parse_duration, parse_integer, parse_memory_size};

/// One configuration key.
#[derive(Debug, PartialEq)]
pub struct ConfigKey {
    /// The name under which the value is stored and shown.
    pub name: &'static str,
    /// Other names that are accepted, mostly Flink's older ones.
    pub aliases: &'static [&'static str],
    /// The form of its value.
    pub kind: ValueKind,
    /// The value if none is set.
    pub default: Option<&'static str>,
    pub(super) help: &'static str,
}

impl ConfigKey {
    /// What the key does, in plain words.
    #[must_use]
    pub fn help(&self) -> &'static str {
        self.help.trim_start()
    }
}

/// The form of a key's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueKind {
    /// A time span such as `10 s`, at least `min_ms` milliseconds long.
    Duration {
        /// The shortest span that makes sense, in milliseconds.
        min_ms: u64,
    },
    /// A size such as `32 kb`, within bounds.
    MemorySize {
        /// The smallest size that works.
        min_bytes: u64,
        /// The largest size that works.
        max_bytes: u64,
    },
    /// A whole number within bounds, both included.
    Integer {
        /// The smallest number.
        min: i64,
        /// The largest number.
        max: i64,
    },
    /// A number such as `1.5` within bounds, both included.
    Decimal {
        /// The smallest number.
        min: f64,
        /// The largest number.
        max: f64,
    },
    /// `true` or `false`.
    Boolean,
    /// One of some words; each is listed with the other spellings that are accepted for it.
    Choice(&'static [&'static [&'static str]]),
    /// Any text that is not empty.
    Text,
}

impl ValueKind {
    /// The text in the form in which it is stored, or `None` if it is not of this kind.
    pub(in super::super) fn normalize(&self, text: &str) -> Option<String> {
        let text = text.trim();
        match *self {
            Self::Duration { min_ms } => parse_duration(text)
                .filter(|duration| duration.as_millis() >= u128::from(min_ms))
                .map(|_| text.into()),
            Self::MemorySize { min_bytes, max_bytes } => parse_memory_size(text)
                .filter(|bytes| (min_bytes..=max_bytes).contains(bytes))
                .map(|_| text.into()),
            Self::Integer { min, max } => parse_integer(text)
                .filter(|number| (min..=max).contains(number))
                .map(|number| number.to_string()),
            Self::Decimal { min, max } => {
                parse_decimal(text).filter(|number| (min..=max).contains(number)).map(|_| text.into())
            }
            Self::Boolean => parse_boolean(text).map(|value| value.to_string()),
            Self::Choice(choices) => choices
                .iter()
                .find(|spellings| spellings.iter().any(|spelling| spelling.eq_ignore_ascii_case(text)))
                .and_then(|spellings| spellings.first())
                .map(|canonical| (*canonical).to_owned()),
            Self::Text => Some(text.to_owned()).filter(|text| !text.is_empty()),
        }
    }

    /// What a value has to be, with an example, for an error message.
    pub fn expectation(&self) -> String {
        match *self {
            Self::Duration { min_ms: 0 } => "a duration, for example `10 s` or `500 ms`".to_owned(),
            Self::Duration { min_ms } => {
                format!("a duration of at least {min_ms} ms, for example `10 s` or `500 ms`")
            }
            Self::MemorySize { min_bytes, max_bytes } => {
                format!("a memory size from `{}` to `{}`", memory_text(min_bytes), memory_text(max_bytes))
            }
            Self::Integer { min, max } => {
                format!("a whole number from {min} to {max}, for example `{}`", 4.clamp(min, max))
            }
            Self::Decimal { min, max } => {
                format!("a number from {min:?} to {max:?}, for example `{:?}`", 1.5_f64.clamp(min, max))
            }
            Self::Boolean => "`true` or `false`".to_owned(),
            Self::Choice(choices) => {
                let words: Vec<_> = choices.iter().filter_map(|spellings| spellings.first()).collect();
                let listed: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
                format!("one of {}", listed.join(", "))
            }
            Self::Text => "a text that is not empty".to_owned(),
        }
    }
}

/// A memory size with the largest unit that leaves a whole number.
pub(super) fn memory_text(bytes: u64) -> String {
    [(40, "tb"), (30, "gb"), (20, "mb"), (10, "kb")]
        .into_iter()
        .find(|(shift, _)| bytes >= 1 << shift && bytes.trailing_zeros() >= *shift)
        .map_or_else(|| format!("{bytes} b"), |(shift, unit)| format!("{} {unit}", bytes >> shift))
}

/// Any duration, zero included.
pub(super) const DURATION: ValueKind = ValueKind::Duration { min_ms: 0 };
/// A duration that cannot be zero: it would mean "at once" or "all the time".
pub(super) const POSITIVE_DURATION: ValueKind = ValueKind::Duration { min_ms: 1 };
/// The largest count.
pub(super) const COUNT_MAX: i64 = u32::MAX as i64;
