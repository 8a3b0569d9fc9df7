//! Thalweg's connectors: sources, sinks and formats, one cargo feature each.
//!
//! On a record's way this crate stands at both ends: `Source::poll` brings records in, `Sink::write` takes them out.
//! A connector keeps the promises of checkpoints: a source's position is part of every snapshot, and a transactional
//! sink shows its output only when the checkpoint that contains it is complete.

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "conformance")]
pub mod conformance;
pub(crate) mod digits;
#[cfg(feature = "files")]
pub mod files;
#[cfg(feature = "firehose")]
pub mod firehose;
pub mod formats;
#[cfg(feature = "kinesis")]
pub mod kinesis;
#[cfg(feature = "aws")]
pub(crate) mod properties;
pub mod tutorial;

#[cfg(feature = "files")]
pub use files::{FileSink, FileSource, TextFileSink, TextFileSource};
#[cfg(feature = "firehose")]
pub use firehose::FirehoseSink;
#[cfg(feature = "kinesis")]
pub use kinesis::{KinesisSink, KinesisSource};
