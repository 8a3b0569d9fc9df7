//! Checkpoints of one job: when they are taken ([`coordinator`]) and what is kept of them ([`metadata`]).

pub mod coordinator;
pub mod metadata;

pub use coordinator::{Coordinator, Effect, Event};
pub use metadata::CheckpointMetadata;
