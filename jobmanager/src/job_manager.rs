//! One job manager: its server, its leader actor and its stores, started and stopped together.
//!
//! Used by the `jobmanager` program and by local mode, which runs one inside the job's own process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use thalweg_common::clock::SharedClock;
use thalweg_common::config::Configuration;
use thalweg_common::failure::Failure;
use thalweg_common::graph::JobGraph;
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;
use thalweg_common::task_scope::TaskScope;
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::cluster::StatusChange;
use crate::consensus::Consensus;

/// What a job manager needs to start.
pub struct JobManagerOptions {
    /// Where it serves; bound already, so that its port is known.
    pub listener: TcpListener,
    /// `host:port` under which others reach it.
    pub address: String,
    /// Settings of the cluster.
    pub configuration: Configuration,
    /// Job binaries are kept here, and checkpoints of jobs that name no directory. Created if it does not exist.
    pub data_directory: PathBuf,
    /// The `jobmanager` program, which runs a binary's plan by `exec-plan`. Without it only embedded jobs are accepted.
    pub plan_program: Option<PathBuf>,
    /// The time.
    pub clock: SharedClock,
    /// More services for the same port, as Raft's.
    pub routes: Routes,
}

/// A job manager could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("cannot use the data directory {}: {reason}; check its path, permissions and free space", path.display())]
    DataDirectory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
}

/// Why an embedded job was not accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EmbeddedError {
    /// It cannot run as it is, or the job manager does not lead.
    #[error("{reason}")]
    Refused {
        /// Cause and cure.
        reason: String,
    },
}

/// A running job manager.
#[derive(Clone)]
pub struct JobManagerHandle {
    /// `host:port` under which others reach it.
    pub address: String,
}

/// A job as a watcher sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobEvent {
    /// Its state.
    pub status: JobStatus,
    /// Its execution attempt; 0 before the first.
    pub attempt: u32,
    /// Why it is in its state, as `waiting for 2 of 4 slots: ...`. May be empty.
    pub reason: String,
    /// The change that led to it; absent in the first event and when only the reason is new.
    pub change: Option<StatusChange>,
    /// The last failure, if the job had one.
    pub failure: Option<Failure>,
}

/// Follows one job.
pub struct JobWatch {}

impl JobWatch {
    /// The present state first, then every change; `None` after the job's last state. Cancel-safe.
    pub async fn next(&mut self) -> Option<JobEvent> {
        None
    }
}

/// Starts job managers.
pub struct JobManager;

impl JobManager {
    /// Starts to serve. Its tasks run in a child of `scope`, and end when that is cancelled.
    ///
    /// # Errors
    /// When its data directory cannot be used.
    pub async fn start(
        options: JobManagerOptions,
        _consensus: Arc<dyn Consensus>,
        _scope: &TaskScope,
    ) -> Result<JobManagerHandle, StartError> {
        Ok(JobManagerHandle { address: options.address })
    }
}

impl JobManagerHandle {
    /// Submits a job whose workers run in this process: no binary, no plan process.
    ///
    /// # Errors
    /// When the graph or the settings cannot run; the message says why.
    pub async fn submit_embedded(
        &self,
        _graph: JobGraph,
        _arguments: Vec<String>,
        _configuration: BTreeMap<String, String>,
    ) -> Result<JobId, EmbeddedError> {
        Err(EmbeddedError::Refused { reason: "not yet".to_string() })
    }

    /// Cancels a job: returns when that is in the log; a job that has ended stays as it is.
    ///
    /// # Errors
    /// When there is no such job.
    pub async fn cancel(&self, _job_id: JobId) -> Result<(), EmbeddedError> {
        Ok(())
    }

    /// Follows a job.
    #[must_use]
    pub fn watch(&self, _job_id: JobId) -> JobWatch {
        JobWatch {}
    }
}
