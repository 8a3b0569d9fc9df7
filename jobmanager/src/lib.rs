//! Thalweg's control plane: the job manager as a library. The `jobmanager` program and local mode start it.
//!
//! A command's way through the modules: `service` takes a request, `submission` checks a job, [`consensus`] puts
//! it into the replicated log, [`cluster`] applies it; the `leader` actor of the leading node drives one pure `job` core
//! per job, which decides with `scheduler` where tasks run and with `checkpoint` when state is saved.

mod checkpoint;
pub mod cluster;
pub mod consensus;
mod job;
mod job_manager;
mod leader;
mod metrics;
#[cfg(feature = "rest")]
mod rest;
mod rest_listener;
mod scheduler;
mod service;
mod submission;
#[cfg(test)]
mod testing;

pub use job_manager::{EmbeddedError, JobManager, JobManagerHandle, JobManagerOptions, StartError};
pub use rest_listener::{RestBindError, RestListener};
pub use service::{JobEvent, JobWatch};
/// The body of the program's hidden command `exec-plan`.
pub use submission::exec_plan;
