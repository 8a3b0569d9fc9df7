//! Slices: the pieces into which overlapping windows cut the time, so that each record is added up once.
//!
//! A slice reaches from one start or end of a window to the next one, whatever window that is of: all records in it belong to the same
//! windows ("Cutty"; the "pairs" of Krishnamurthy et al., which are fewer than panes of gcd(size, slide)). A sliding window
//! of 15 s every 10 s:
//!
//! ```text
//! windows   |----------------|             [0, 15)
//!                     |----------------|   [10, 25)
//! slices    |---------|------|---|-----|   [0, 10) [10, 15) [15, 20) [20, 25)
//! ```

use super::time_window::{TimeWindow, floor};
use thalweg_common::Timestamp;

/// Windows that are aligned to the clock, the same for all keys: tumbling, sliding and cumulate windows. All in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slicing {
    size: i64,
    /// Between the ends of two windows.
    period: i64,
    offset: i64,
    is_cumulating: bool,
}

/// A slice and the windows that it is part of: those that end at `first_end`, a period later, and so on until `last_end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    pub(crate) first_end: Timestamp,
    /// Before `first_end` if no window covers the slice, which is between two windows that are further apart than they are long.
    pub(crate) last_end: Timestamp,
}

impl Span {
    /// No slice: no time is in it.
    pub(crate) const NONE: Self = Self { start: 0, end: 0, first_end: 0, last_end: 0 };

    #[inline]
    pub(crate) fn contains(&self, time: Timestamp) -> bool {
        self.start <= time && time < self.end
    }

    #[inline]
    pub(crate) fn has_windows(&self) -> bool {
        self.first_end <= self.last_end
    }
}

impl Slicing {
    /// Windows of `size` every `slide`, where one begins at `offset`.
    pub fn hopping(size: i64, slide: i64, offset: i64) -> Self {
        Self { size, period: slide, offset, is_cumulating: false }
    }

    /// Windows that begin every `size` and grow by `step` until they are that long.
    pub fn cumulating(size: i64, step: i64, offset: i64) -> Self {
        Self { size, period: step, offset, is_cumulating: true }
    }

    /// Whether windows that grow step by step never get to their size.
    pub(crate) fn leaves_a_rest(&self) -> bool {
        self.is_cumulating && self.size % self.period != 0
    }

    /// Whether each window is a slice of its own.
    pub fn is_single(&self) -> bool {
        self.size == self.period
    }

    /// A window's ends are this plus multiples of the period.
    #[inline]
    fn phase(&self) -> i64 {
        if self.is_cumulating { self.offset } else { self.offset % self.period + self.size % self.period }
    }

    /// The slice of a time.
    pub(crate) fn span(&self, time: Timestamp) -> Span {
        let from_start = floor(time, self.offset, self.period);
        let from_end = floor(time, self.phase(), self.period);
        let start = from_start.max(from_end);
        let end = from_start.min(from_end).saturating_add(self.period);
        let end = if from_start == from_end { start.saturating_add(self.period) } else { end };
        let first_end = from_end.saturating_add(self.period);
        let last_end = self.last_end(start);
        let first_start = if self.is_cumulating { start } else { first_end.saturating_sub(self.size) };
        if first_start > start || last_end <= start {
            return Span { start, end, first_end: start, last_end: start.saturating_sub(1) };
        }
        Span { start, end, first_end, last_end }
    }

    /// The end of the last window that covers the slice that begins at `start`.
    #[inline]
    pub(crate) fn last_end(&self, start: Timestamp) -> Timestamp {
        let unit = if self.is_cumulating { self.size } else { self.period };
        floor(start, self.offset, unit).saturating_add(self.size)
    }

    /// From which start on slices have windows that end behind `time`.
    #[inline]
    pub(crate) fn first_open(&self, time: Timestamp) -> Timestamp {
        let unit = if self.is_cumulating { self.size } else { self.period };
        floor(time.saturating_sub(self.size), self.offset, unit).saturating_add(unit)
    }

    /// The first end of a window behind `time`.
    #[inline]
    pub(crate) fn next_end(&self, time: Timestamp) -> Timestamp {
        floor(time, self.phase(), self.period).saturating_add(self.period)
    }

    /// The window that ends at `end`, if one does.
    #[inline]
    pub(crate) fn window_ending(&self, end: Timestamp) -> Option<TimeWindow> {
        if floor(end, self.phase(), self.period) != end {
            return None;
        }
        let start = if self.is_cumulating {
            floor(end.saturating_sub(1), self.offset, self.size)
        } else {
            end.saturating_sub(self.size)
        };
        Some(TimeWindow { start, end })
    }

    /// The ends of the windows over a slice, the latest first, as Flink assigns them.
    pub(crate) fn ends(&self, span: &Span) -> impl Iterator<Item = Timestamp> + use<> {
        let (first, period) = (span.first_end, self.period);
        let last = span.last_end;
        std::iter::successors((first <= last).then_some(last), move |end| end.checked_sub(period))
            .take_while(move |end| *end >= first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All windows over a time, by going through them one by one.
    fn windows_over(slicing: &Slicing, time: i64) -> Vec<TimeWindow> {
        let Slicing { size, period, offset, is_cumulating } = *slicing;
        let around = time - 3 * size - 3 * period..time + 3 * size + 3 * period;
        let aligned = |unit: i64| around.clone().filter(move |at| (at - offset).rem_euclid(unit) == 0);
        let all: Vec<TimeWindow> = if is_cumulating {
            let growing = |start: i64| {
                (1..=size / period).map(move |step| TimeWindow::new(start, start + step * period))
            };
            aligned(size).flat_map(growing).collect()
        } else {
            aligned(period).map(|start| TimeWindow::new(start, start + size)).collect()
        };
        all.into_iter().filter(|window| window.start <= time && time < window.end).collect()
    }

    fn slicings() -> impl Strategy<Value = Slicing> {
        prop_oneof![
            (1..40_i64, 1..40_i64, 0..40_i64).prop_map(|(size, slide, offset)| Slicing::hopping(
                size,
                slide,
                offset % slide
            )),
            (1..10_i64, 1..6_i64, 0..40_i64).prop_map(|(step, steps, offset)| Slicing::cumulating(
                step * steps,
                step,
                offset
            )),
        ]
    }

    proptest! {
        #[test]
        fn a_slice_knows_its_windows(slicing in slicings(), time in -100..200_i64) {
            let span = slicing.span(time);
            prop_assert!(span.contains(time), "{span:?}");
            let mut expected = windows_over(&slicing, time);
            expected.sort_by_key(|window| std::cmp::Reverse(window.end));
            let found: Vec<TimeWindow> =
                slicing.ends(&span).filter_map(|end| slicing.window_ending(end)).collect();
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(span.has_windows(), !expected.is_empty());
            for window in &expected {
                prop_assert!(window.start <= span.start && span.end <= window.end, "{span:?} is not in {window}");
            }
            // Every time in the slice has the same windows.
            for other in [span.start, span.end - 1] {
                let mut windows = windows_over(&slicing, other);
                windows.sort_by_key(|window| std::cmp::Reverse(window.end));
                prop_assert_eq!(&windows, &expected);
                prop_assert_eq!(slicing.span(other), span);
            }
            if let (Some(last), Some(first)) = (expected.first(), expected.last()) {
                prop_assert_eq!((span.first_end, span.last_end), (first.end, last.end));
                prop_assert_eq!(slicing.last_end(span.start), last.end);
                prop_assert_eq!(slicing.next_end(span.start), first.end);
                for end in [first.end, last.end - 1, last.end, last.end + 1] {
                    prop_assert_eq!(span.start >= slicing.first_open(end), last.end > end);
                }
            }
        }
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        for slicing in [Slicing::hopping(60_000, 1_000, 500), Slicing::cumulating(60_000, 1_000, 500)] {
            for time in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX] {
                let span = slicing.span(time);
                assert!(span.start <= time);
                assert!(slicing.ends(&span).count() <= 61);
            }
        }
    }
}
