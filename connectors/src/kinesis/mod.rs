//! Kinesis Data Streams: a source that follows shards through splits and merges, and a sink that puts records.
//!
//! ```text
//! ShardEnumerator: ListShards -> ShardGraph (pure): parents before children -> splits, pinned to a subtask by Flink's rule
//! ShardReader: for each shard Polling (pure): when to ask for how many -> Service -> records taken apart (deaggregate, pure) -> out
//!              or Subscription (pure): the service pushes them (fan_out)
//! ```
//!
//! Positions (sequence numbers, and places in aggregated records) are the splits of checkpoints. Requests are polled by the task
//! ([`thalweg_runtime::io`]); the enumerator waits for its own on its thread.

mod ancestors;
mod deaggregate;
mod enumerator;
mod fan_out;
mod graph;
mod open_shard;
mod options;
mod polling;
mod position;
mod reader;
mod request;
mod seen;
mod service;
mod shard;
mod sink;
mod source;
mod timestamp;

pub use crate::aws::{AssumeRole, CredentialsProvider, WebIdentity};
pub use enumerator::ShardEnumerator;
pub use fan_out::ConsumerRegistration;
pub use graph::ShardGraph;
pub use position::InitialPosition;
pub use reader::ShardReader;
pub use shard::ShardSplit;
pub use sink::{KinesisSink, UnsentRecord};
pub use source::{KinesisRecord, KinesisSource};
