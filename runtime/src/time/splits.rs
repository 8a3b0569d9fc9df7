//! Which records of a poll are from which split of a source: what a reader tells, for whoever keeps time per split.
//!
//! Beside a record's way: the head of a source writes it between a poll and the batch's way through the chain, and the operator directly
//! behind the source reads it when that batch comes. Invariant: where nobody wants it, nothing is told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a [`SourceReader`](crate::split::SourceReader) tells of its splits behind a poll.
#[derive(Debug, Default)]
pub struct SplitReport {
    /// Whether the source tells anything.
    is_told: bool,
    /// The splits that are not at their end.
    open: Vec<String>,
    /// Changes with `open`.
    version: u64,
    /// Of the last poll, in the order of its batch.
    records: Vec<(String, usize)>,
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

    /// The reader has these splits from now on, and tells of them.
    pub(crate) fn added(&mut self, split_ids: impl IntoIterator<Item = String>) {
        self.is_told = true;
        self.open.extend(split_ids);
        self.version += 1;
    }

    /// Whether the source tells of its splits.
    pub(crate) fn is_told(&self) -> bool {
        self.is_told
    }

    /// The splits that are not at their end, if there was a change since `version`; and the version.
    pub(crate) fn open_since(&self, version: u64) -> Option<(&[String], u64)> {
        (self.version != version).then_some((self.open.as_slice(), self.version))
    }

    /// From which splits the batch is, if that was told of all its records.
    pub(crate) fn of_batch(&self, records: usize) -> Option<&[(String, usize)]> {
        let told: usize = self.records.iter().map(|(_, count)| count).sum();
        (told == records).then_some(self.records.as_slice())
    }
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
}

impl SharedSplits {
    /// Somebody wants to be told. Said before the source is built.
    pub(crate) fn want(&self) {
        self.shared.is_wanted.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.shared.is_wanted.load(Ordering::Relaxed)
    }

    /// The report. The lock is taken once per batch and never contended.
    pub(crate) fn lock(&self) -> MutexGuard<'_, SplitReport> {
        self.shared.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
