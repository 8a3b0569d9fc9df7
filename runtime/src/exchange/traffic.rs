//! Counts what goes through a gate or an output and what waits there, for metrics and progress.
//!
//! Stands beside a record's way: written once per batch by the task, read by whoever reports.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Records and bytes since the start of a task's attempt, and batches that wait.
#[derive(Default)]
pub struct Traffic {
    records: AtomicU64,
    bytes: AtomicU64,
    /// What its owner holds back.
    held_back: AtomicU64,
    /// Credit that its remote channels have left.
    credit: AtomicU64,
    /// What waits in front of it.
    queues: Vec<Arc<dyn Queue>>,
}

/// A queue whose length any thread may read.
pub(super) trait Queue: Send + Sync {
    /// How many messages wait.
    fn len(&self) -> u64;
}

impl Traffic {
    /// The traffic of a gate that reads from these queues.
    pub(super) fn behind(queues: Vec<Arc<dyn Queue>>) -> Self {
        Self { queues, ..Self::default() }
    }

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

    /// Messages (batches and events) that wait now: in the channels of a gate, or in an output because its channels are full.
    #[must_use]
    pub fn queue_length(&self) -> u64 {
        self.held_back.load(Ordering::Relaxed) + self.queues.iter().map(|queue| queue.len()).sum::<u64>()
    }

    /// Bytes of credit that are left to the remote channels of an output together, as the task saw it with its last batch.
    #[must_use]
    pub fn credit(&self) -> u64 {
        self.credit.load(Ordering::Relaxed)
    }

    pub(super) fn set_credit(&self, bytes: u64) {
        self.credit.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn add(&self, records: u64, bytes: u64) {
        add(&self.records, records);
        add(&self.bytes, bytes);
    }

    pub(super) fn set_held_back(&self, messages: usize) {
        self.held_back.store(messages as u64, Ordering::Relaxed);
    }
}

/// Only the task writes, so this needs no atomic addition.
fn add(total: &AtomicU64, more: u64) {
    if more > 0 {
        total.store(total.load(Ordering::Relaxed) + more, Ordering::Relaxed);
    }
}

impl fmt::Debug for Traffic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Traffic")
            .field("records", &self.records())
            .field("bytes", &self.bytes())
            .field("queue_length", &self.queue_length())
            .field("credit", &self.credit())
            .finish()
    }
}
