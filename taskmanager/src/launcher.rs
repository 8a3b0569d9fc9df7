//! How workers come to life: the seam between the task manager and what runs the job.
//!
//! The program launches processes ([`ProcessLauncher`](crate::process::ProcessLauncher)); a job in local mode runs its
//! worker inside its own process with a launcher of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use thalweg_common::failure::Failure;
use thalweg_common::id::{JobId, WorkerId};
use thalweg_common::properties::RuntimeProperties;

pub use crate::messages::Token;

/// What a new worker needs to know.
#[derive(Debug, Clone)]
pub struct WorkerSpec {
    /// The job that it works for.
    pub job_id: JobId,
    /// Its own id.
    pub worker_id: WorkerId,
    /// What it has to show when it attaches.
    pub token: Token,
    /// Where it attaches: `host:port` of the task manager's WorkerService.
    pub taskmanager_address: String,
    /// The job's binary; absent for a job without one.
    pub binary: Option<PathBuf>,
    /// The job's arguments.
    pub arguments: Vec<String>,
    /// Flink-named settings that win over those in the program.
    pub configuration: BTreeMap<String, String>,
    /// What the program reads as its runtime properties.
    pub properties: RuntimeProperties,
    /// The plan that it has to arrive at.
    pub plan_fingerprint: u64,
    /// The host on which it serves its channels.
    pub data_host: String,
    /// Where its output goes; exists.
    pub log_directory: PathBuf,
    /// A directory of its own for state, which it makes when it needs it. It is removed when the worker is gone.
    pub state_directory: PathBuf,
    /// Managed memory of each of its slots, in bytes.
    pub managed_bytes_per_slot: u64,
}

/// Brings workers to life.
#[async_trait]
pub trait WorkerLauncher: Send + Sync {
    /// Starts a worker. It attaches by itself.
    ///
    /// # Errors
    /// When it cannot be started.
    async fn launch(&self, spec: WorkerSpec) -> Result<Box<dyn WorkerHandle>, Failure>;
}

/// A worker that was launched. Dropping the handle kills it.
#[async_trait]
pub trait WorkerHandle: Send {
    /// Waits until the worker is gone and tells how it ended, also if it ended well. Cancel-safe.
    async fn exited(&mut self) -> Failure;

    /// Ends the worker at once, without asking it. [`WorkerHandle::exited`] tells when it is gone.
    fn kill(&mut self);
}
