//! Watermark alignment: sources of a group read no further ahead of the one that is furthest behind than each of them may.
//!
//! Beside a watermark's way: the operator behind `watermarks` says how far its subtask is, the worker carries that to the leader and brings
//! back the least of the group, and the head of the source reads only what is not ahead of it. Invariants: who holds nobody back is not
//! waited for; without a word of the leader for some time nobody is held; what is paused holds back neither barriers nor the end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::graph::AlignmentDescriptor;

use super::{MAX_WATERMARK, NO_WATERMARK};

/// How often sources are aligned, unless the author says otherwise: Flink's default.
pub const DEFAULT_UPDATE_INTERVAL: Duration = Duration::from_secs(1);

/// What was said by [`with_watermark_alignment`](super::WatermarkStrategy::with_watermark_alignment): Flink's `WatermarkAlignmentParams`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatermarkAlignment {
    /// Sources of a job with the same name are aligned with each other.
    pub group: String,
    /// How far the watermark may be ahead of the least one of the group, in whole milliseconds.
    pub max_drift: Duration,
    /// How often the group is looked at.
    pub update_interval: Duration,
}

impl WatermarkAlignment {
    /// As the plan shows it.
    #[must_use]
    pub fn describe(&self) -> AlignmentDescriptor {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        AlignmentDescriptor {
            group: self.group.clone(),
            max_drift_ms: ms(self.max_drift),
            update_interval_ms: ms(self.update_interval),
        }
    }
}

/// What one subtask of an aligned source shares with its worker. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Alignment {
    group: Arc<str>,
    max_drift_ms: i64,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Of all that the subtask reads.
    watermark: AtomicI64,
    /// Whether it is idle, or at its end.
    is_out: AtomicBool,
    /// The least watermark of the group, as far as was heard; [`MAX_WATERMARK`] if nobody is to be waited for.
    least: AtomicI64,
}

impl Alignment {
    pub(crate) fn new(alignment: &WatermarkAlignment) -> Self {
        let shared = Shared {
            watermark: AtomicI64::new(NO_WATERMARK),
            is_out: AtomicBool::new(false),
            least: AtomicI64::new(MAX_WATERMARK),
        };
        Self {
            group: alignment.group.as_str().into(),
            max_drift_ms: i64::try_from(alignment.max_drift.as_millis()).unwrap_or(i64::MAX),
            shared: Arc::new(shared),
        }
    }

    pub(crate) fn group(&self) -> &str {
        &self.group
    }

    /// How far the subtask is; whether it is idle or at its end, so that it holds nobody back.
    pub(crate) fn set(&self, watermark: Timestamp, is_out: bool) {
        self.shared.watermark.store(watermark, Ordering::Relaxed);
        self.shared.is_out.store(is_out, Ordering::Relaxed);
    }

    /// What the group is told: its watermark, or [`MAX_WATERMARK`] if it holds nobody back.
    pub(crate) fn reported(&self) -> Timestamp {
        if self.shared.is_out.load(Ordering::Relaxed) { MAX_WATERMARK } else { self.watermark() }
    }

    /// The least of the group, or [`MAX_WATERMARK`] to hold nobody. Says whether that is news, so that who sleeps is to be woken.
    pub(crate) fn announce(&self, least: Timestamp) -> bool {
        self.shared.least.swap(least, Ordering::Relaxed) != least
    }

    /// What is later than this is not read.
    pub(crate) fn limit(&self) -> Timestamp {
        match self.shared.least.load(Ordering::Relaxed) {
            MAX_WATERMARK => MAX_WATERMARK,
            least => least.saturating_add(self.max_drift_ms),
        }
    }

    /// Whether the subtask as a whole is to wait.
    pub(crate) fn is_ahead(&self) -> bool {
        self.watermark() > self.limit()
    }

    /// How far it is ahead of the least of the group, in milliseconds: Flink's `watermarkAlignmentDrift`. Nothing while one of them is
    /// not known.
    pub(crate) fn drift_ms(&self) -> Option<i64> {
        let (watermark, least) = (self.watermark(), self.shared.least.load(Ordering::Relaxed));
        let is_known = watermark != NO_WATERMARK && ![NO_WATERMARK, MAX_WATERMARK].contains(&least);
        is_known.then(|| watermark.saturating_sub(least).max(0))
    }

    fn watermark(&self) -> Timestamp {
        self.shared.watermark.load(Ordering::Relaxed)
    }
}

/// The splits whose watermark is later than the limit: they wait, each on its own.
pub(crate) fn splits_ahead<'a>(
    splits: impl IntoIterator<Item = (&'a str, Timestamp)>,
    limit: Timestamp,
) -> BTreeSet<String> {
    let ahead = splits.into_iter().filter(|(_, watermark)| *watermark > limit);
    ahead.map(|(split, _)| split.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alignment(max_drift_ms: u64) -> Alignment {
        Alignment::new(&WatermarkAlignment {
            group: "g".into(),
            max_drift: Duration::from_millis(max_drift_ms),
            update_interval: DEFAULT_UPDATE_INTERVAL,
        })
    }

    #[test]
    fn a_subtask_waits_when_it_is_further_ahead_than_it_may() {
        const NONE: Timestamp = NO_WATERMARK;
        const MAX: Timestamp = MAX_WATERMARK;
        // Drift, own watermark, the least of the group; whether it waits, how far it is ahead.
        let table = [
            (10, 100, 90, false, Some(10)),
            (10, 101, 90, true, Some(11)),
            (0, 90, 90, false, Some(0)),
            (0, 91, 90, true, Some(1)),
            // Behind what it was itself the least of.
            (10, 80, 90, false, Some(0)),
            // Nobody has told yet, or nobody is to be waited for.
            (10, 5_000, MAX, false, None),
            // Somebody has no watermark: who has one waits for it.
            (10, 5_000, NONE, true, None),
            (10, NONE, NONE, false, None),
            (10, NONE, -500, false, None),
            // No arithmetic goes over the end of time.
            (u64::MAX, MAX - 1, NONE, true, None),
            (u64::MAX, MAX - 1, 7, false, Some(MAX - 8)),
            (10, -5, NONE + 1, true, Some(MAX - 5)),
        ];
        for (drift_ms, own, least, waits, ahead_ms) in table {
            let alignment = alignment(drift_ms);
            alignment.set(own, false);
            alignment.announce(least);
            let found = (alignment.is_ahead(), alignment.drift_ms());
            assert_eq!(found, (waits, ahead_ms), "{drift_ms} {own} {least}");
        }
    }

    #[test]
    fn who_is_idle_or_at_its_end_holds_nobody_back() {
        let alignment = alignment(10);
        assert_eq!(alignment.reported(), NO_WATERMARK, "without a watermark it is waited for");
        alignment.set(7, false);
        assert_eq!(alignment.reported(), 7);
        alignment.set(7, true);
        assert_eq!(alignment.reported(), MAX_WATERMARK);
        assert!(alignment.announce(3) && !alignment.announce(3) && alignment.announce(MAX_WATERMARK));
    }

    #[test]
    fn splits_wait_each_on_its_own() {
        let splits = [("a", 100), ("b", 101), ("c", NO_WATERMARK), ("d", 500)];
        assert_eq!(splits_ahead(splits, 100), ["b", "d"].map(String::from).into());
        assert_eq!(splits_ahead(splits, MAX_WATERMARK), BTreeSet::new());
    }
}
