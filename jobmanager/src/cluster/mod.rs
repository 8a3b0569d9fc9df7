//! The replicated state of the cluster and the commands that change it: `apply(&mut ClusterState, Command)`.
//!
//! On a command's way this is the step after the Raft log. `command` says what can be asked, `job` what is known of
//! one job, `layout` how it comes to another parallelism, `state` how the one changes the other, `refusal` why a command changed nothing.
//!
//! Invariants: applying is pure (ids and times come in the command) and total (no command panics); a refused command
//! changes nothing; everything that is kept is bounded by a limit of `thalweg_common::limits`.

mod command;
mod job;
mod layout;
mod refusal;
mod state;
#[cfg(test)]
mod state_tests;

pub use command::{Command, Outcome, StatusChanged, SubmitJob};
pub use job::{
    Base, BaseKind, Binary, CompletedCheckpoint, FailureRecord, JobRecord, Placement, RestartRecord, Slot,
    StatusChange,
};
pub(crate) use job::{candidates, release, remember, retain, skip};
pub use layout::{Layout, OtherLayouts, Rescale, RescaleKind};
pub use refusal::Refusal;
pub use state::ClusterState;
