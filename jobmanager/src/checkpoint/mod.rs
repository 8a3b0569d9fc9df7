//! Checkpoints of one job: when they are taken ([`coordinator`]), what is kept of them ([`metadata`]), whether they can be
//! relied on ([`verify`]), those of other jobs that one begins with (`foreign`), which parts of them a subtask needs ([`Shape`]), who needs which shared file ([`shared`]), and how they went ([`history`]).

pub mod coordinator;
pub(crate) mod foreign;
pub mod history;
pub mod shared;
pub mod verify;

pub use coordinator::{Coordinator, Effect, Event};
pub use history::{History, Statistics};
pub use shared::SharedFiles;
pub use thalweg_proto::checkpoint::{self as metadata, CheckpointMetadata, Shape};

#[cfg(test)]
mod metadata_tests;
#[cfg(test)]
mod shape_tests;
