//! Watching a job: its present state, then every change until it has ended, over changes of the leader.

use thalweg_common::id::JobId;
use tonic::Streaming;

use super::{Attempt, BACKOFF, ClientError, JobClient, Search};
use crate::convert::WireId;
use crate::model::{JobEvent, JobSummary};
use crate::v1;

/// News of one job, made by [`JobClient::watch`].
#[derive(Debug)]
pub struct JobWatch<'client> {
    client: &'client JobClient,
    job_id: JobId,
    events: Option<Streaming<v1::JobEvent>>,
    /// What the caller knows: a new connection tells the present state again, which is no news if it is the same.
    known: Option<JobSummary>,
    /// Whether the last connection told nothing at all, so that the next one is not made at once.
    pause: bool,
}

impl<'client> JobWatch<'client> {
    pub(super) fn new(client: &'client JobClient, job_id: JobId) -> Self {
        Self { client, job_id, events: None, known: None, pause: false }
    }

    /// The next news; `None` when the job has ended and that was told. Cancel-safe.
    ///
    /// When the leader changes, the watch goes on at the new one: changes that happened in between are told as one event
    /// without a [`JobEvent::change`].
    ///
    /// # Errors
    /// When there is no such job, nobody leads, or the cluster refuses.
    pub async fn next(&mut self) -> Result<Option<JobEvent>, ClientError> {
        loop {
            if self.known.as_ref().is_some_and(|summary| summary.status.is_terminal()) {
                return Ok(None);
            }
            let Some(events) = &mut self.events else {
                if self.pause {
                    tokio::time::sleep(BACKOFF.min).await;
                }
                self.events = Some(self.open().await?);
                self.pause = true;
                continue;
            };
            match events.message().await {
                Ok(Some(event)) => {
                    self.pause = false;
                    let event = JobEvent::try_from(event)?;
                    if self.is_news(&event) {
                        self.known = Some(event.summary.clone());
                        return Ok(Some(event));
                    }
                }
                // The end of the stream before the job's, or a broken connection: the next leader goes on.
                Ok(None) => self.events = None,
                Err(status) => {
                    self.events = None;
                    if let Attempt::Refused(error) = Attempt::<()>::from(Err(status)) {
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn open(&self) -> Result<Streaming<v1::JobEvent>, ClientError> {
        self.client.learn_members().await?;
        let mut search = Search::start(self.client);
        loop {
            let request = v1::WatchJobRequest { job_id: self.job_id.to_wire() };
            let answer = search.service().await?.watch_job(request).await;
            if let Some(response) = search.settle(Attempt::from(answer))? {
                return Ok(response.into_inner());
            }
        }
    }

    fn is_news(&self, event: &JobEvent) -> bool {
        let Some(known) = &self.known else { return true };
        let news = &event.summary;
        event.change.is_some()
            || (news.status, news.attempt, &news.reason) != (known.status, known.attempt, &known.reason)
    }
}
