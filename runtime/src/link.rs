//! Links: how operators of one chain, and the outputs at its ends, call each other directly.
//!
//! On a record's way this is the step "operator after operator, batch in, batch out". A link is called once per batch;
//! the loop over records is inside it.

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;

use crate::batch::Batch;
use crate::event::{Barrier, WatermarkStatus};
use crate::snapshot::SnapshotBuilder;

/// Whether everything that a chain has produced is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing is held back: the task may read more input.
    All,
    /// A channel is full: the task must not read more input, and is woken when there is room again.
    Blocked,
}

impl Flushed {
    /// Blocked if either is.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if self == Self::All { other } else { Self::Blocked }
    }
}

/// Takes batches of `T`: the next operator of a chain, a fan-out, or the output to an edge.
pub trait Link<T>: Send {
    /// Processes and drains `batch`. Never blocks: what a full channel does not take is kept until [`flush`](Self::flush).
    ///
    /// # Errors
    /// A failure of the operator or of a channel; the task fails with it.
    fn process(&mut self, batch: &mut Batch<T>) -> Result<(), Failure>;

    /// No record with this timestamp or an earlier one comes any more: does what is due by then, and passes the watermark on behind
    /// everything that is held back. Each one is later than the one before; [`MAX_WATERMARK`](crate::time::MAX_WATERMARK) is the
    /// last, directly before [`finish`](Self::finish).
    ///
    /// # Errors
    /// As `process`.
    fn watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure>;

    /// The input has become idle (no records and watermarks come for the time being), or active again; passed on behind everything that
    /// is held back. Only changes are told; at the beginning it is active.
    ///
    /// # Errors
    /// As `process`.
    fn watermark_status(&mut self, status: WatermarkStatus) -> Result<(), Failure>;

    /// The input has ended: produces what is still held, and tells the links behind.
    ///
    /// # Errors
    /// As `process`.
    fn finish(&mut self) -> Result<(), Failure>;

    /// The barrier has reached this link: adds its state to `snapshot`, then passes the barrier on.
    ///
    /// # Errors
    /// A state that cannot be written; the task fails with it.
    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure>;

    /// The checkpoint is durable: sinks commit.
    ///
    /// # Errors
    /// A commit that failed for good; the task fails, and the commit is repeated by recovery.
    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure>;

    /// The checkpoint will never complete.
    ///
    /// # Errors
    /// As `completed`.
    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure>;

    /// Sends what is held back; with `partial` also batches that are not full, because nothing more is there to read.
    ///
    /// # Errors
    /// A channel that failed.
    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure>;
}
