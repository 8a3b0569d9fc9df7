//! How a program outside the cluster asks for something: finds the leader, follows it, retries, and never submits twice.
//!
//! Stands at the start of a command's way. A request goes to the supposed leader; a follower's answer names another one,
//! a broken connection means asking the next address, and only a real answer or the deadline ends it. That is right for
//! every request here because each may be repeated: a submission carries its id, all others change nothing or say what
//! shall be.

mod error;
mod rescale;
mod savepoint;
mod submit;
mod watch;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thalweg_common::clock::{Deadline, SharedClock, SystemClock, deadline_in};
use thalweg_common::id::{CheckpointId, JobId};
use thalweg_common::limits::MAX_LEADER_REDIRECTS;
use thalweg_common::task_scope::with_causes;
use tonic::{Code, Status};

use crate::convert::WireId;
use crate::leader::redirect;
use crate::model::time::JobTime;
use crate::model::{Checkpoints, JobDetails, JobManagers, JobSummary, LogPart, TaskManagerSummary};
use crate::route::{Backoff, Route, RouteStep};
use crate::transport::{Channel, Dialer, GrpcChannel, check_address, endpoint, job_service};
use crate::v1::{self, job_service_client::JobServiceClient};

pub use error::ClientError;
pub use rescale::Rescaled;
pub use submit::{Begin, GivenProperties, KnownBinary, SubmitOptions};
pub use watch::JobWatch;

/// How long a request looks for a leader before it gives up, unless told otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// How long one job manager may take to answer a simple request before another one is asked.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Pauses between rounds in which nobody led. A new leader is elected within half a second.
const BACKOFF: Backoff = Backoff { min: Duration::from_millis(50), max: Duration::from_secs(1) };

/// Most bytes of logs that are read for one request.
const MAX_LOG_BYTES: usize = 64 * 1024 * 1024;

/// A client of a cluster's JobService. Every method follows the leader and retries until the client's deadline.
#[derive(Debug)]
pub struct JobClient {
    state: Mutex<State>,
    dialer: Dialer,
    clock: SharedClock,
    deadline: Duration,
}

#[derive(Debug)]
struct State {
    route: Route,
    /// The connection that answered last.
    open: Option<(String, Channel)>,
    /// Whether the other members of the cluster were asked for.
    members_known: bool,
}

type Service = JobServiceClient<GrpcChannel>;

/// One attempt's end, as seen by the loop that follows the leader.
enum Attempt<T> {
    /// It is done.
    Done(T),
    /// The other end is gone or does not lead: ask again.
    Again {
        /// What it met.
        status: Status,
        /// Whether the leader had answered before that: then the search for one starts over.
        answered: bool,
    },
    /// The cluster or the caller's own files say no: asking again would not help.
    Refused(ClientError),
}

impl<T> From<Result<T, Status>> for Attempt<T> {
    fn from(result: Result<T, Status>) -> Self {
        match result {
            Ok(value) => Self::Done(value),
            Err(status) if is_transient(&status) => Self::Again { status, answered: false },
            Err(status) => Self::Refused(ClientError::refused(&status)),
        }
    }
}

/// Whether another job manager, or the same one a little later, may give a better answer.
fn is_transient(status: &Status) -> bool {
    // A status that was made at this end out of a broken connection has a source; one that was sent has none.
    redirect(status).is_some()
        || status.code() == Code::Unavailable
        || std::error::Error::source(status).is_some()
}

impl JobClient {
    /// A client of the cluster to which these job managers (`host:port`) belong; one that is up is enough. Waits until one
    /// accepts a connection.
    ///
    /// # Errors
    /// When an address is none, or nobody accepts a connection in time.
    pub async fn connect(addresses: Vec<String>) -> Result<Self, ClientError> {
        Self::connect_within(addresses, DEFAULT_DEADLINE).await
    }

    /// The same, with another deadline for this and for every request.
    ///
    /// # Errors
    /// As for [`JobClient::connect`].
    pub async fn connect_within(addresses: Vec<String>, deadline: Duration) -> Result<Self, ClientError> {
        Self::connect_with(Dialer::default(), addresses, deadline).await
    }

    /// The same, with TLS and token as `dialer` has them.
    ///
    /// # Errors
    /// As for [`JobClient::connect`].
    pub async fn connect_with(
        dialer: Dialer,
        addresses: Vec<String>,
        deadline: Duration,
    ) -> Result<Self, ClientError> {
        if addresses.is_empty() {
            return Err(ClientError::NoAddress);
        }
        addresses.iter().try_for_each(|address| check_address(address))?;
        let state = State { route: Route::new(addresses, BACKOFF), open: None, members_known: false };
        let client = Self { state: Mutex::new(state), dialer, clock: SystemClock::shared(), deadline };
        client.request(|_| async { Ok(tonic::Response::new(())) }).await?;
        Ok(client)
    }

    /// All jobs that the cluster remembers, the newest first.
    ///
    /// # Errors
    /// When nobody leads or the cluster refuses.
    pub async fn list(&self) -> Result<Vec<JobSummary>, ClientError> {
        let response = self
            .request(|mut service| async move { service.list_jobs(v1::ListJobsRequest {}).await })
            .await?;
        Ok(response.jobs.into_iter().map(JobSummary::try_from).collect::<Result<_, _>>()?)
    }

    /// Everything about one job.
    ///
    /// # Errors
    /// When there is no such job, nobody leads, or the cluster refuses.
    pub async fn describe(&self, job_id: JobId) -> Result<JobDetails, ClientError> {
        let request = v1::DescribeJobRequest { job_id: job_id.to_wire() };
        let ask = |mut service: Service| {
            let request = request.clone();
            async move { service.describe_job(request).await }
        };
        Ok(self.request(ask).await?.try_into()?)
    }

    /// The checkpoints of one job: what can be restored, and what the last ones took.
    ///
    /// # Errors
    /// When there is no such job, nobody leads, or the cluster refuses.
    pub async fn checkpoints(&self, job_id: JobId) -> Result<Checkpoints, ClientError> {
        let request = v1::ListCheckpointsRequest { job_id: job_id.to_wire() };
        let ask = |mut service: Service| {
            let request = request.clone();
            async move { service.list_checkpoints(request).await }
        };
        Ok(self.request(ask).await?.try_into()?)
    }

    /// How the tasks of one job keep time at this moment. Takes up to two seconds if some of them do not answer.
    ///
    /// # Errors
    /// When there is no such job, nobody leads, or the cluster refuses.
    pub async fn time(&self, job_id: JobId) -> Result<JobTime, ClientError> {
        let request = v1::GetTimeRequest { job_id: job_id.to_wire() };
        let ask = |mut service: Service| {
            let request = request.clone();
            async move { service.get_time(request).await }
        };
        Ok(self.request(ask).await?.try_into()?)
    }

    /// Asks for the cancellation of a job; [`JobClient::watch`] tells when it is done.
    ///
    /// # Errors
    /// When there is no such job, nobody leads, or the cluster refuses.
    pub async fn cancel(&self, job_id: JobId) -> Result<(), ClientError> {
        let request = v1::CancelJobRequest { job_id: job_id.to_wire() };
        let ask = |mut service: Service| {
            let request = request.clone();
            async move { service.cancel_job(request).await }
        };
        self.request(ask).await?;
        Ok(())
    }

    /// Takes a checkpoint of a running job now, and returns its number when it is complete. If the leader changes meanwhile the next one is
    /// asked for another.
    ///
    /// # Errors
    /// When there is no such job, it takes no checkpoints, this one fails, or nobody leads.
    pub async fn checkpoint(&self, job_id: JobId) -> Result<CheckpointId, ClientError> {
        self.learn_members().await?;
        let mut search = Search::start(self);
        loop {
            let request = v1::TriggerCheckpointRequest { job_id: job_id.to_wire() };
            let answer = search.service().await?.trigger_checkpoint(request).await;
            if let Some(response) = search.settle(Attempt::from(answer))? {
                return Ok(response.into_inner().checkpoint_id);
            }
        }
    }

    /// The last `tail_bytes` of each log of the job's workers; 0 for the cluster's default.
    ///
    /// # Errors
    /// When there is no such job, nobody leads, or the cluster refuses.
    pub async fn logs(&self, job_id: JobId, tail_bytes: u64) -> Result<Vec<LogPart>, ClientError> {
        let request = v1::GetLogsRequest { job_id: job_id.to_wire(), tail_bytes };
        let mut search = Search::start(self);
        loop {
            let mut service = search.service().await?;
            let outcome = Attempt::from(collect_logs(&mut service, request.clone()).await);
            if let Some(parts) = search.settle(outcome)? {
                return Ok(parts);
            }
        }
    }

    /// The task managers that are connected.
    ///
    /// # Errors
    /// When nobody leads or the cluster refuses.
    pub async fn task_managers(&self) -> Result<Vec<TaskManagerSummary>, ClientError> {
        let ask = |mut service: Service| async move {
            service.list_task_managers(v1::ListTaskManagersRequest {}).await
        };
        Ok(self.request(ask).await?.task_managers.into_iter().map(TaskManagerSummary::from).collect())
    }

    /// The job managers of the cluster.
    ///
    /// # Errors
    /// When nobody leads or the cluster refuses.
    pub async fn job_managers(&self) -> Result<JobManagers, ClientError> {
        let ask = |mut service: Service| async move {
            service.list_job_managers(v1::ListJobManagersRequest {}).await
        };
        Ok(self.request(ask).await?.into())
    }

    /// Makes a job manager that runs at `address` a member of the cluster. It may take a while to catch up.
    ///
    /// # Errors
    /// When nobody leads or the cluster refuses.
    pub async fn add_job_manager(&self, id: u64, address: &str) -> Result<(), ClientError> {
        check_address(address)?;
        let mut search = Search::start(self);
        loop {
            let request = v1::AddJobManagerRequest { id, address: address.to_string() };
            let answer = search.service().await?.add_job_manager(request).await;
            if search.settle(Attempt::from(answer))?.is_some() {
                return Ok(());
            }
        }
    }

    /// Takes a job manager out of the cluster.
    ///
    /// # Errors
    /// When nobody leads or the cluster refuses.
    pub async fn remove_job_manager(&self, id: u64) -> Result<(), ClientError> {
        let mut search = Search::start(self);
        loop {
            let answer = search.service().await?.remove_job_manager(v1::RemoveJobManagerRequest { id }).await;
            if search.settle(Attempt::from(answer))?.is_some() {
                return Ok(());
            }
        }
    }

    /// News of a job until it has ended, over changes of the leader.
    #[must_use]
    pub fn watch(&self, job_id: JobId) -> JobWatch<'_> {
        JobWatch::new(self, job_id)
    }

    /// Learns the other job managers, so that a long request survives the death of all that were named. What is not
    /// learned is only missed then, so a refusal does not matter.
    async fn learn_members(&self) -> Result<(), ClientError> {
        if self.state().members_known {
            return Ok(());
        }
        match self.job_managers().await {
            Ok(members) => {
                let mut state = self.state();
                state.route.learn(members.job_managers.into_iter().map(|manager| manager.address));
                state.members_known = true;
                Ok(())
            }
            Err(ClientError::Refused { message, .. }) => {
                tracing::debug!("the members of the cluster are not known: {message}");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Asks the leader a question that is answered at once.
    async fn request<T, F>(&self, ask: impl Fn(Service) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let mut search = Search::start(self);
        loop {
            let service = search.service().await?;
            let answer = tokio::time::timeout(REQUEST_TIMEOUT, ask(service)).await;
            let timed_out =
                |_| Err(Status::unavailable(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs())));
            if let Some(response) = search.settle(Attempt::from(answer.unwrap_or_else(timed_out)))? {
                return Ok(response.into_inner());
            }
        }
    }

    /// The open connection to `address`, or a new one.
    async fn channel(&self, address: &str) -> Result<Channel, Status> {
        if let Some((open, channel)) = &self.state().open
            && open == address
        {
            return Ok(channel.clone());
        }
        let endpoint = endpoint(address).map_err(|error| Status::unavailable(error.to_string()))?;
        let connected = self.dialer.connect(&endpoint).await;
        let channel = connected.map_err(|error| Status::unavailable(with_causes(&error)))?;
        self.state().open = Some((address.to_string(), channel.clone()));
        Ok(channel)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request on its way from job manager to job manager.
struct Search<'client> {
    client: &'client JobClient,
    deadline: Deadline,
    address: String,
    last: String,
    /// How often a leader answered and then broke off.
    broken_off: usize,
}

impl<'client> Search<'client> {
    fn start(client: &'client JobClient) -> Self {
        let deadline = deadline_in(&client.clock, client.deadline);
        Self { client, deadline, address: String::new(), last: "none".into(), broken_off: 0 }
    }

    /// The next job manager that accepts a connection; its answer is to be settled.
    async fn service(&mut self) -> Result<Service, ClientError> {
        loop {
            let step = self.client.state().route.step();
            match step {
                RouteStep::Pause(_) if self.deadline.is_over() => return Err(self.unreachable()),
                RouteStep::Pause(pause) => tokio::time::sleep(pause.min(self.deadline.remaining())).await,
                RouteStep::Ask(address) => {
                    self.address = address;
                    match self.client.channel(&self.address).await {
                        Ok(channel) => return Ok(job_service(channel)),
                        Err(status) => self.passed_over(&status),
                    }
                }
            }
        }
    }

    /// What an attempt has brought: its value, nothing yet, or a refusal.
    fn settle<T>(&mut self, outcome: Attempt<T>) -> Result<Option<T>, ClientError> {
        let status = match outcome {
            Attempt::Done(value) => {
                self.client.state().route.leads(&self.address);
                return Ok(Some(value));
            }
            Attempt::Refused(error) => {
                self.client.state().route.leads(&self.address);
                return Err(error);
            }
            Attempt::Again { status, answered } => {
                // A leader that always breaks off is not waited for without end.
                if answered && self.broken_off < MAX_LEADER_REDIRECTS {
                    self.broken_off += 1;
                    self.client.state().route.leads(&self.address);
                    self.deadline = deadline_in(&self.client.clock, self.client.deadline);
                }
                status
            }
        };
        self.passed_over(&status);
        Ok(None)
    }

    fn passed_over(&mut self, status: &Status) {
        self.last = format!("{}: {}", self.address, reason(status));
        let mut state = self.client.state();
        match redirect(status) {
            Some(leader) => state.route.redirected(leader.filter(|leader| check_address(leader).is_ok())),
            None => {
                state.open.take_if(|(open, _)| *open == self.address);
                state.route.unreachable(&self.address);
            }
        }
    }

    fn unreachable(&self) -> ClientError {
        let addresses = self.client.state().route.addresses().join(", ");
        ClientError::Unreachable { addresses, waited: self.client.deadline, last: self.last.clone() }
    }
}

/// What a status says, with what caused it.
fn reason(status: &Status) -> String {
    match (status.message(), std::error::Error::source(status)) {
        ("", None) => status.code().to_string(),
        (message, None) => message.to_string(),
        (_, Some(source)) => with_causes(source),
    }
}

async fn collect_logs(service: &mut Service, request: v1::GetLogsRequest) -> Result<Vec<LogPart>, Status> {
    let mut chunks = service.get_logs(request).await?.into_inner();
    let mut parts: Vec<LogPart> = Vec::new();
    let mut bytes = 0;
    while let Some(chunk) = chunks.message().await? {
        bytes += chunk.data.len();
        if bytes > MAX_LOG_BYTES {
            return Err(Status::out_of_range(format!(
                "the logs are larger than {} MiB; ask for fewer bytes of each",
                MAX_LOG_BYTES / (1024 * 1024)
            )));
        }
        match parts.last_mut() {
            Some(part) if part.task_manager == chunk.task_manager && part.source == chunk.source => {
                part.data.extend_from_slice(&chunk.data);
            }
            _ => parts.push(LogPart {
                task_manager: chunk.task_manager,
                source: chunk.source,
                data: chunk.data.into(),
            }),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
