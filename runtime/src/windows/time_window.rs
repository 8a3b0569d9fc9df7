//! `TimeWindow`: a span of time.

use std::fmt;

use thalweg_common::{Record, Timestamp};

/// A window over the times from `start` up to but without `end`, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Record)]
#[record(crate = thalweg_common)]
pub struct TimeWindow {
    /// The first millisecond in it.
    pub start: Timestamp,
    /// The first millisecond behind it.
    pub end: Timestamp,
}

impl TimeWindow {
    /// The window of all records of a key: that of global and of count windows.
    pub const GLOBAL: Self = Self { start: Timestamp::MIN, end: Timestamp::MAX };

    /// From `start` up to but without `end`.
    pub fn new(start: Timestamp, end: Timestamp) -> Self {
        Self { start, end }
    }

    /// The latest time in it: the timestamp of its results, and the watermark at which it fires. That of the global window is the end of
    /// time, as in Flink.
    #[inline]
    pub fn max_timestamp(&self) -> Timestamp {
        if self.end == Timestamp::MAX { Timestamp::MAX } else { self.end.saturating_sub(1) }
    }

    /// Whether the two have a time in common or touch each other: sessions that do become one.
    #[inline]
    pub fn touches(&self, other: &Self) -> bool {
        self.start <= other.end && self.end >= other.start
    }

    /// The smallest window that contains both.
    #[inline]
    #[must_use]
    pub fn cover(&self, other: &Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// When it is forgotten: its latest time plus the allowed lateness.
    #[inline]
    pub(crate) fn cleanup_time(&self, lateness_ms: i64) -> Timestamp {
        self.max_timestamp().saturating_add(lateness_ms)
    }
}

impl fmt::Display for TimeWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

/// The latest time at or before `time` that is `offset` plus a multiple of `unit`.
#[inline]
pub(crate) fn floor(time: Timestamp, offset: i64, unit: i64) -> Timestamp {
    // Reduced first, so that nothing overflows.
    time.saturating_sub((time % unit - offset % unit).rem_euclid(unit))
}
