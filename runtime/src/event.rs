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

/// What waiting for a barrier on all channels took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Aligned {
    /// From the barrier's arrival on the first channel to that on the last.
    pub duration: Duration,
    /// Bytes that came over remote channels meanwhile.
    pub bytes: u64,
}

/// What a channel carries beside batches. Costs no credit and never overtakes data.
#[derive(Record, Debug, Clone, Copy, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub enum Event {
    /// A checkpoint's barrier.
    Barrier(Barrier),
    /// No more records come; barriers still may.
    EndOfInput,
}
