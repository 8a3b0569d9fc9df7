//! What happens to a job's binary before the job is accepted: stored, checked, planned, replicated.
//!
//! On a command's way this stands between the upload and the replicated log. A binary is verified by its SHA-256 as it
//! arrives ([`blob_store`]), must be an executable for this machine ([`elf`]), must print a plan in a short-lived process
//! with limits ([`plan`]), and must be on the disks of a majority ([`replication`]) before the job is proposed. When it is to run at
//! another parallelism, it is planned once more ([`planner`]).

mod blob_server;
mod blob_store;
mod elf;
mod plan;
mod planner;
mod replication;
mod tidy;
#[cfg(feature = "rest")]
mod uploads;

pub(crate) use blob_server::BlobServer;
pub(crate) use blob_store::{BlobError, BlobStore};
pub use plan::exec_plan;
pub(crate) use plan::{PlanRequest, PlanRunner};
pub(crate) use planner::Planner;
pub(crate) use replication::Replicator;
pub(crate) use tidy::tidy;
#[cfg(feature = "rest")]
pub(crate) use uploads::{Upload, UploadError};

use std::path::Path;

use thalweg_common::failure::Failure;
use thalweg_common::graph::JobGraph;

/// Checks a stored binary and returns the graph that it plans.
///
/// # Errors
/// A permanent failure of the user that says what is wrong with the binary, or an external one of this machine.
pub(crate) async fn check(
    binary: &Path,
    runner: &PlanRunner,
    request: PlanRequest,
) -> Result<JobGraph, Failure> {
    elf::check(binary).map_err(|problem| {
        Failure::user(problem.to_string()).context("the binary cannot run here").permanent()
    })?;
    runner.run(binary, request).await
}
