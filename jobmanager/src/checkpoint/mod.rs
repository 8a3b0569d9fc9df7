//! Checkpoints of one job: when they are taken ([`coordinator`]), what is kept of them ([`metadata`]), whether they can be
//! relied on ([`verify`]), which parts of them a subtask needs ([`shape`]), who needs which shared file ([`shared`]), and how they went ([`history`]).

pub mod coordinator;
pub mod history;
pub mod metadata;
pub mod shape;
pub mod shared;
pub mod verify;

pub use coordinator::{Coordinator, Effect, Event};
pub use history::{History, Statistics};
pub use metadata::CheckpointMetadata;
pub use shape::Shape;
pub use shared::SharedFiles;
