//! Savepoints: taking one, perhaps as a job's last act, listing and deleting them.
//!
//! Invariant: a savepoint that may have begun is not asked for again by itself: what became of it is unknown when the connection breaks,
//! and the caller is told so.

use thalweg_common::id::JobId;
use tonic::Code;

use super::{Attempt, ClientError, JobClient, Search, Service};
use crate::convert::{Malformed, WireId};
use crate::model::{SavepointMode, SavepointProgress, SavepointSummary};
use crate::v1;
use crate::v1::savepoint_event::Message;

impl JobClient {
    /// Takes a savepoint of a running job into a new directory below `directory`, or below the configured one, and returns when it is
    /// complete. `progress` is told how far it is.
    ///
    /// # Errors
    /// When the cluster refuses, the savepoint fails, or the leader changes while it is taken.
    pub async fn savepoint(
        &self,
        job_id: JobId,
        directory: Option<&str>,
        mode: SavepointMode,
        mut progress: impl FnMut(SavepointProgress) + Send,
    ) -> Result<SavepointSummary, ClientError> {
        self.learn_members().await?;
        let request = v1::TriggerSavepointRequest {
            job_id: job_id.to_wire(),
            directory: directory.unwrap_or_default().to_string(),
            mode: v1::SavepointMode::from(mode).into(),
        };
        let mut search = Search::start(self);
        let mut events = loop {
            let answer = search.service().await?.trigger_savepoint(request.clone()).await;
            if let Some(response) = search.settle(Attempt::from(answer))? {
                break response.into_inner();
            }
        };
        loop {
            match events.message().await {
                Ok(Some(v1::SavepointEvent { message: Some(Message::Progress(step)) })) => {
                    progress(step.into());
                }
                Ok(Some(v1::SavepointEvent { message: Some(Message::Completed(savepoint)) })) => {
                    return Ok(savepoint.into());
                }
                Ok(Some(v1::SavepointEvent { message: None })) => {
                    return Err(Malformed::missing("savepoint_event.message").into());
                }
                Ok(None) => return Err(unknown(job_id, "the connection was closed")),
                Err(status) => {
                    return Err(match Attempt::<()>::from(Err(status)) {
                        Attempt::Refused(error) => error,
                        _ => unknown(job_id, "the connection broke, or another job manager leads now"),
                    });
                }
            }
        }
    }

    /// The completed savepoints of a job, the newest last.
    ///
    /// # Errors
    /// When there is no such job, nobody leads, or the cluster refuses.
    pub async fn savepoints(&self, job_id: JobId) -> Result<Vec<SavepointSummary>, ClientError> {
        let request = v1::ListSavepointsRequest { job_id: job_id.to_wire() };
        let ask = |mut service: Service| {
            let request = request.clone();
            async move { service.list_savepoints(request).await }
        };
        Ok(self.request(ask).await?.savepoints.into_iter().map(Into::into).collect())
    }

    /// Deletes the savepoint in this directory with all its files.
    ///
    /// # Errors
    /// When there is something else in the directory, a job still needs it, nobody leads, or the storage refuses.
    pub async fn dispose_savepoint(&self, path: &str) -> Result<(), ClientError> {
        let mut search = Search::start(self);
        loop {
            let request = v1::DisposeSavepointRequest { path: path.to_string() };
            let answer = search.service().await?.dispose_savepoint(request).await;
            if search.settle(Attempt::from(answer))?.is_some() {
                return Ok(());
            }
        }
    }
}

fn unknown(job_id: JobId, reason: &str) -> ClientError {
    ClientError::Refused {
        code: Code::Aborted,
        message: format!(
            "{reason} while the savepoint of job {job_id} was taken; `thalweg savepoint list {job_id}` tells whether it is complete, \
             otherwise ask for another one"
        ),
    }
}
