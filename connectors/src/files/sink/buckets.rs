//! Which bucket, that is which directory, a record goes to. Pure.

use std::fmt::Write as _;
use std::sync::Arc;

use thalweg_common::failure::Failure;

use crate::formats::timestamp::DateTime;

/// What a bucket may depend on beside the record: Flink's `BucketAssigner.Context`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketContext {
    /// When the record happened, in milliseconds since the epoch, if that is known.
    pub timestamp: Option<i64>,
    /// The watermark, if there was one.
    pub watermark: Option<i64>,
    /// The clock, in milliseconds since the epoch.
    pub processing_time: i64,
}

/// Finds the bucket of a record.
pub(super) enum Buckets<T> {
    /// All in the directory itself.
    None,
    /// By the clock.
    ByClock(DatePattern),
    /// By a function.
    By(Arc<BucketFunction<T>>),
}

type BucketFunction<T> = dyn Fn(&T, &BucketContext) -> String + Send + Sync;

impl<T> Clone for Buckets<T> {
    fn clone(&self) -> Self {
        match self {
            Self::None => Self::None,
            Self::ByClock(pattern) => Self::ByClock(pattern.clone()),
            Self::By(function) => Self::By(Arc::clone(function)),
        }
    }
}

impl<T> Buckets<T> {
    /// The bucket that all records of a batch are in, if that does not depend on them.
    pub(super) fn of_all(&self, processing_time: i64) -> Option<String> {
        match self {
            Self::None => Some(String::new()),
            Self::ByClock(pattern) => Some(pattern.at(processing_time)),
            Self::By(_) => None,
        }
    }

    /// The bucket of a record.
    pub(super) fn of(&self, record: &T, context: &BucketContext) -> String {
        match self {
            Self::By(function) => function(record, context),
            Self::None => String::new(),
            Self::ByClock(pattern) => pattern.at(context.processing_time),
        }
    }
}

/// A date and time in UTC as text: `yyyy`, `MM`, `dd`, `HH`, `mm` and `ss` stand for its fields, text between `'` and everything that is no letter
/// for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatePattern {
    pieces: Vec<PatternPiece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PatternPiece {
    Text(String),
    /// Which field, with so many digits.
    Field(usize, usize),
}

impl DatePattern {
    /// The pattern that is written so.
    ///
    /// # Errors
    /// If a letter in it stands for nothing.
    ///
    /// ```
    /// use thalweg_connectors::files::DatePattern;
    ///
    /// let pattern = DatePattern::new("'dt='yyyy-MM-dd/'hr='HH")?;
    /// assert_eq!(pattern.at(1_704_449_472_000), "dt=2024-01-05/hr=10");
    /// # Ok::<(), thalweg_common::failure::Failure>(())
    /// ```
    pub fn new(pattern: &str) -> Result<Self, Failure> {
        let mut pieces = Vec::new();
        let mut rest = pattern;
        while let Some(first) = rest.chars().next() {
            if first == '\'' {
                let Some((text, behind)) = rest.get(1..).and_then(|rest| rest.split_once('\'')) else {
                    return Err(unknown(pattern, "a `'` is not closed"));
                };
                pieces.push(PatternPiece::Text(text.to_owned()));
                rest = behind;
                continue;
            }
            let length: usize = rest.chars().take_while(|next| *next == first).map(char::len_utf8).sum();
            let (run, behind) = rest.split_at(length);
            pieces.push(match run {
                "yyyy" => PatternPiece::Field(0, 4),
                "MM" => PatternPiece::Field(1, 2),
                "dd" => PatternPiece::Field(2, 2),
                "HH" => PatternPiece::Field(3, 2),
                "mm" => PatternPiece::Field(4, 2),
                "ss" => PatternPiece::Field(5, 2),
                _ if first.is_alphabetic() => {
                    return Err(unknown(pattern, &format!("`{run}` stands for nothing")));
                }
                _ => PatternPiece::Text(run.to_owned()),
            });
            rest = behind;
        }
        Ok(Self { pieces })
    }

    /// Flink's default: an hour in a bucket.
    pub(super) fn hours() -> Self {
        let dash = || PatternPiece::Text("-".to_owned());
        let fields = [(0, 4), (1, 2), (2, 2)].map(|(field, digits)| PatternPiece::Field(field, digits));
        let mut pieces: Vec<_> = fields.into_iter().flat_map(|field| [field, dash()]).collect();
        pieces.extend([dash(), PatternPiece::Field(3, 2)]);
        Self { pieces }
    }

    /// The text of a time, in milliseconds since the epoch.
    #[must_use]
    pub fn at(&self, ms: i64) -> String {
        let fields = DateTime::from_epoch_ms(ms).fields();
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                PatternPiece::Text(piece) => text.push_str(piece),
                PatternPiece::Field(field, digits) => {
                    // Writing to a String does not fail.
                    let _ = write!(text, "{:0digits$}", fields.get(*field).copied().unwrap_or_default());
                }
            }
        }
        text
    }
}

fn unknown(pattern: &str, reason: &str) -> Failure {
    Failure::user(format!(
        "`{pattern}` is no pattern of buckets: {reason}; use yyyy, MM, dd, HH, mm and ss, and put text between `'`"
    ))
    .permanent()
}

/// A bucket is a relative directory below that of the sink.
pub(super) fn check(bucket: &str) -> Result<(), Failure> {
    let is_segment = |segment: &str| {
        !segment.is_empty()
            && !segment.starts_with(['.', '_'])
            && segment.len() <= 255
            && !segment.contains(|character: char| character.is_control() || character == '\\')
    };
    if bucket.is_empty() || bucket.len() <= 512 && bucket.split('/').all(is_segment) {
        return Ok(());
    }
    Err(Failure::user(format!(
        "`{}` is no bucket: a bucket is a relative path whose directories do not begin with `.` or `_`, which readers leave out; change what \
         the bucket function gives",
        bucket.escape_debug()
    ))
    .permanent())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_hour_is_a_bucket_by_default() {
        let ms = 1_704_449_472_123;
        assert_eq!(DatePattern::hours().at(ms), "2024-01-05--10");
        assert_eq!(DatePattern::new("yyyy-MM-dd--HH").unwrap().at(ms), "2024-01-05--10");
        assert_eq!(DatePattern::new("yyyy/MM/dd/HHmmss").unwrap().at(ms), "2024/01/05/101112");
        for wrong in ["yy", "yyyy-'x", "YYYY", "EEE"] {
            assert!(DatePattern::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn buckets_stay_below_the_directory_and_are_seen_by_readers() {
        for bucket in ["", "a", "dt=2024-01-05/hr=10", "a b"] {
            check(bucket).unwrap();
        }
        for bucket in
            ["/", "/a", "a/", "a//b", "..", "a/../b", ".a", "a/_b", "a\\b", "a\nb", &"x".repeat(300)]
        {
            assert!(check(bucket).is_err(), "{bucket:?}");
        }
    }
}
