//! Counts what goes through a gate or an output, for metrics and progress.
//!
//! Stands beside a record's way: written once per batch by the task, read by whoever reports.

use std::sync::atomic::{AtomicU64, Ordering};

/// Records and bytes since the start of a task's attempt.
#[derive(Debug, Default)]
pub struct Traffic {
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Traffic {
    /// Records so far.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Encoded bytes so far, to or from other processes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
