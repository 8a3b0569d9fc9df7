//! Which records of a poll are from which split of a source: what a reader tells, for whoever keeps time per split.
//!
//! Beside a record's way: the head of a source writes it between a poll and the batch's way through the chain, and the operator directly
//! behind the source reads it when that batch comes. Invariant: where nobody wants it, nothing is told.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use thalweg_common::Timestamp;

use super::alignment::{Alignment, splits_ahead};
use crate::split::{SourceReader, SourceSplit};

/// What a [`SourceReader`](crate::split::SourceReader) tells of its splits behind a poll.
#[derive(Debug, Default)]
pub struct SplitReport {
    /// Whether the source tells anything.
    is_told: bool,
    /// The splits that are not at their end, in the order in which the reader got them.
    open: Vec<String>,
    /// Whether they are read one after the other.
    is_in_turn: bool,
    /// Whether splits may come at any moment, so that a reader without any is not idle.
    is_expecting: bool,
    /// Changes with `open`.
    version: u64,
    /// Of the last poll, in the order of its batch.
    records: Vec<(String, usize)>,
    /// The watermarks of the splits, where single ones may have to wait.
    watermarks: Vec<(String, Timestamp)>,
    /// Whether single ones can.
    can_pause: bool,
}

impl SplitReport {
    /// The next `count` records of the batch are from this split.
    pub fn records(&mut self, split_id: &str, count: usize) {
        if count > 0 {
            self.records.push((split_id.to_owned(), count));
        }
    }

    /// This split is at its end; the records that were told are still from it.
    pub fn finished(&mut self, split_id: &str) {
        self.open.retain(|open| open != split_id);
        self.version += 1;
    }

    /// A new poll begins.
    pub(crate) fn begin(&mut self) {
        self.records.clear();
    }

    /// The reader `R` has these splits from now on, and tells of them.
    pub(crate) fn added<R: SourceReader>(&mut self, splits: &[R::Split]) {
        self.is_in_turn = R::READS_IN_TURN;
        self.can_pause = R::PAUSES_SPLITS;
        self.opened(splits.iter().map(SourceSplit::split_id));
    }

    /// These splits are there from now on, beside each other, and it is told of them.
    pub(crate) fn opened(&mut self, splits: impl IntoIterator<Item = String>) {
        self.is_told = true;
        self.open.extend(splits);
        self.version += 1;
    }

    /// Whether splits may come at any moment.
    pub(crate) fn expect(&mut self, is_expecting: bool) {
        if std::mem::replace(&mut self.is_expecting, is_expecting) != is_expecting {
            self.version += 1;
        }
    }

    /// Whether the reader can pause single splits.
    pub(crate) fn can_pause(&self) -> bool {
        self.can_pause
    }

    /// How far the splits are, which may have to wait for others.
    pub(crate) fn set_watermarks(&mut self, watermarks: impl Iterator<Item = (String, Timestamp)>) {
        self.watermarks.clear();
        self.watermarks.extend(watermarks);
    }

    /// The splits that are ahead of this time.
    pub(crate) fn ahead(&self, limit: Timestamp) -> BTreeSet<String> {
        splits_ahead(self.watermarks.iter().map(|(split, watermark)| (split.as_str(), *watermark)), limit)
    }

    /// Whether the source tells of its splits.
    pub(crate) fn is_told(&self) -> bool {
        self.is_told
    }

    /// What has time of its own now, if there was a change since `version`; and the version.
    pub(crate) fn open_since(&self, version: u64) -> Option<(OpenSplits<'_>, u64)> {
        let is_read = if self.is_in_turn { 1 } else { self.open.len() };
        let splits = self.open.get(..is_read).unwrap_or_default();
        let open = OpenSplits { splits, is_expecting: self.is_expecting };
        (self.version != version).then_some((open, self.version))
    }

    /// From which splits the batch is, if that was told of all its records.
    pub(crate) fn of_batch(&self, records: usize) -> Option<&[(String, usize)]> {
        let told: usize = self.records.iter().map(|(_, count)| count).sum();
        (told == records).then_some(self.records.as_slice())
    }
}

/// The splits of a reader that have time of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenSplits<'a> {
    /// Those that are being read.
    pub(crate) splits: &'a [String],
    /// Whether there may be more at any moment: then who has none is not idle.
    pub(crate) is_expecting: bool,
}

/// A report that the head of a chain shares with the operators behind it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedSplits {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    is_wanted: AtomicBool,
    report: Mutex<SplitReport>,
    /// Set where the source is aligned with others.
    alignment: OnceLock<Alignment>,
}

impl SharedSplits {
    /// Somebody wants to be told. Said before the source is built.
    pub(crate) fn want(&self) {
        self.shared.is_wanted.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.shared.is_wanted.load(Ordering::Relaxed)
    }

    /// The source is aligned with others. Said before it is built; false if it was said before.
    pub(crate) fn align(&self, alignment: Alignment) -> bool {
        self.shared.alignment.set(alignment).is_ok()
    }

    /// How the source is aligned with others, if it is.
    pub(crate) fn alignment(&self) -> Option<Alignment> {
        self.shared.alignment.get().cloned()
    }

    /// The report. The lock is taken once per batch and never contended.
    pub(crate) fn lock(&self) -> MutexGuard<'_, SplitReport> {
        self.shared.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
