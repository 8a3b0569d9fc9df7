//! What is asked of a job manager by gRPC and by REST alike: checked here, answered by the leader actor or the replicated state.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use thalweg_common::id::JobId;
use thalweg_common::limits::WATCH_BACKLOG;
use thalweg_proto::model::SavepointMode;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::jobs::JobServer;
use super::submit::Submitter;
use super::{propose_status, rescale, savepoints};
use crate::checkpoint::Statistics;
use crate::cluster::{Command, JobRecord};
use crate::consensus::SharedState;
use crate::job::{CheckpointNews, RescaleNews, SavepointNews};
use crate::leader::{LiveJob, LogPiece, Mail, NotLeading, TaskManagerView};

/// How long task managers may take to send their logs.
const LOGS_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of each log that are sent when the client names no number.
const DEFAULT_TAIL_BYTES: u64 = 64 * 1024;

impl JobServer {
    /// What is replicated.
    pub(crate) fn state(&self) -> &SharedState {
        self.inner.consensus.state()
    }

    /// What the leader knows of one job, or of all, beside the replicated state.
    pub(crate) async fn live(&self, job_id: Option<JobId>) -> Result<BTreeMap<JobId, LiveJob>, Status> {
        let live = self.inner.leader.ask(|reply| Mail::View { job_id, reply }).await;
        live.map_err(NotLeading::into_status)
    }

    /// The last checkpoints of a job, the oldest first.
    pub(crate) async fn checkpoints(&self, job_id: JobId) -> Result<Vec<Statistics>, Status> {
        let history = self.inner.leader.ask(|reply| Mail::Checkpoints { job_id, reply }).await;
        history.map_err(NotLeading::into_status)
    }

    /// The task managers that are registered.
    pub(crate) async fn task_managers(&self) -> Result<Vec<TaskManagerView>, Status> {
        let views = self.inner.leader.ask(|reply| Mail::TaskManagers { reply }).await;
        views.map_err(NotLeading::into_status)
    }

    /// Begins to take a savepoint into `directory`, or into the configured one if that is empty. The answer tells what becomes of it.
    pub(crate) async fn take_savepoint(
        &self,
        job_id: JobId,
        directory: &str,
        mode: SavepointMode,
    ) -> Result<watch::Receiver<SavepointNews>, Status> {
        self.check_leading()?;
        let Submitter { configuration, storages, .. } = &*self.inner.submitter;
        let directory = savepoints::directory(directory, &self.record(job_id)?, configuration, storages)?;
        let asked = self.inner.leader.ask(|reply| Mail::Savepoint { job_id, directory, mode, reply }).await;
        asked.map_err(NotLeading::into_status)
    }

    /// Begins to take a checkpoint now. The answer tells what becomes of it.
    pub(crate) async fn take_checkpoint(
        &self,
        job_id: JobId,
    ) -> Result<watch::Receiver<CheckpointNews>, Status> {
        self.check_leading()?;
        self.record(job_id)?;
        let asked = self.inner.leader.ask(|reply| Mail::Checkpoint { job_id, reply }).await;
        asked.map_err(NotLeading::into_status)
    }

    /// Begins to bring a job to another parallelism. The answer tells what becomes of it.
    pub(crate) async fn rescale(
        &self,
        job_id: JobId,
        parallelism: u32,
    ) -> Result<watch::Receiver<RescaleNews>, Status> {
        self.check_leading()?;
        let layout = rescale::layout(&self.inner.submitter, &self.record(job_id)?, parallelism).await?;
        let asked = self.inner.leader.ask(|reply| Mail::Rescale { job_id, layout, reply }).await;
        asked.map_err(NotLeading::into_status)
    }

    /// Deletes a savepoint with all its files.
    pub(crate) async fn dispose(&self, path: String) -> Result<(), Status> {
        self.check_leading()?;
        let jobs: Vec<JobRecord> = self.inner.consensus.state().read().jobs().cloned().collect();
        let storages = &self.inner.submitter.storages;
        savepoints::dispose(&path, storages, jobs.iter()).await?;
        let uri = storages.open(&path).map_or(path, |storage| storage.uri().to_string());
        let forgotten = self.inner.consensus.propose(Command::ForgetSavepoint { path: uri }).await;
        forgotten.map(drop).map_err(propose_status)
    }

    /// The last `tail_bytes` of each log of the job's workers as they come, 0 for a fair part of them. Ends when all task managers have
    /// answered, or have had time to.
    pub(crate) async fn logs(
        &self,
        job_id: JobId,
        tail_bytes: u64,
    ) -> Result<impl Stream<Item = LogPiece> + use<>, Status> {
        self.check_leading()?;
        self.record(job_id)?;
        let tail_bytes = if tail_bytes == 0 { DEFAULT_TAIL_BYTES } else { tail_bytes };
        let (sink, pieces) = mpsc::channel(WATCH_BACKLOG);
        let asked = self.inner.leader.ask(|reply| Mail::Logs { job_id, tail_bytes, sink, reply }).await;
        asked.map_err(NotLeading::into_status)?;
        Ok(ReceiverStream::new(pieces).take_until(tokio::time::sleep(LOGS_TIMEOUT)))
    }
}
