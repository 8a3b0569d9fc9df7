//! What every Thalweg crate shares: ids, the job graph, key groups, records, configuration, errors, storage, tasks.
//!
//! Nothing here knows of gRPC, Raft or threads of user code; everything above depends on it and it on nothing of ours.

// The derive macros name this crate by its public path, also from inside it.
extern crate self as thalweg_common;

#[cfg(feature = "aws")]
pub mod aws;
pub mod calendar;
pub mod clock;
pub mod codec;
pub mod config;
pub mod entries;
pub mod failure;
pub mod graph;
pub mod id;
pub mod key_group;
pub mod limits;
pub mod manifest;
pub mod properties;
pub mod record;
pub mod schema;
pub mod security;
pub mod status;
pub mod storage;
pub mod task_scope;
pub mod telemetry;
pub mod ttl;

pub use thalweg_derive::Record;

/// Milliseconds since the epoch: an event's time or a wall-clock time.
pub type Timestamp = i64;
