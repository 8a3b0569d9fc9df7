//! Events: what flows between records and keeps its place among them.

use std::time::Duration;

use thalweg_common::id::CheckpointId;
use thalweg_common::{Record, Timestamp};

/// A checkpoint barrier (Chandy and Lamport's marker, aligned as in Carbone et al., "Lightweight asynchronous
/// snapshots for distributed dataflows"): records before it belong to the checkpoint, records behind it do not.
#[derive(Record, Debug, Clone, Copy, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub struct Barrier {
    /// The checkpoint.
    pub id: CheckpointId,
    /// When the job manager triggered it, in milliseconds since the epoch.
    pub timestamp_ms: Timestamp,
    /// Whether tasks finish when it completes: all were drained when it was triggered, or it is the savepoint of a job that stops.
    /// Sources read nothing behind it.
    pub is_final: bool,
    /// Whether it is a savepoint: state is written in its canonical form, and all of it.
    pub is_savepoint: bool,
}

impl Barrier {
    /// Whether it may overtake records, where that is configured. A savepoint has none on their way, because any version of the job
    /// must be able to read it; at a final checkpoint there are none left.
    pub(crate) fn may_overtake(&self) -> bool {
        !self.is_savepoint && !self.is_final
    }
}

/// What waiting for a barrier on all channels took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Aligned {
    /// From the barrier's arrival on the first channel to that on the last.
    pub duration: Duration,
    /// Bytes that came over remote channels meanwhile.
    pub bytes: u64,
}

/// Whether watermarks are to be expected. What is idle holds nobody back, see [`time`](crate::time).
#[derive(Record, Debug, Clone, Copy, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub enum WatermarkStatus {
    /// Records and watermarks come; so it is at the beginning.
    Active,
    /// None come for the time being.
    Idle,
}

/// What a channel carries beside batches. Costs no credit. Nothing in a channel ever overtakes; a barrier of an unaligned checkpoint
/// does so at both of its ends, see [`in_flight`](crate::in_flight).
#[derive(Record, Debug, Clone, Copy, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub enum Event {
    /// A checkpoint's barrier.
    Barrier(Barrier),
    /// No more records come; barriers still may.
    EndOfInput,
    /// No record with this timestamp or an earlier one comes behind it; see [`time`](crate::time).
    Watermark(Timestamp),
    /// The sender has become idle, or active again. An idle one sends neither records nor watermarks.
    Status(WatermarkStatus),
}
