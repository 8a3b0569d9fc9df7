//! JobService: what clients ask of the cluster.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use thalweg_common::id::JobId;
use thalweg_common::limits::{CONTROL_STREAM_MESSAGES, WATCH_BACKLOG};
use thalweg_common::status::JobStatus;
use thalweg_common::task_scope::TaskScope;
use thalweg_proto::convert::WireId;
use thalweg_proto::transport::check_address;
use thalweg_proto::v1;
use thalweg_proto::v1::job_service_server::JobService;
use thalweg_proto::v1::submit_job_response::Message as SubmitResponse;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::submit::Submitter;
use super::watch::JobWatch;
use super::{checkpoints, describe, news, propose_status, rescale, savepoints, time};
use crate::cluster::{JobRecord, Refusal};
use crate::consensus::{Consensus, Node, NodeId};
use crate::job::CheckpointNews;
use crate::leader::{Leader, Mail, NotLeading, last};

/// How long a cancellation may take to get into the log.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(30);

/// The service over a job manager.
#[derive(Clone)]
pub(crate) struct JobServer {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) consensus: Arc<dyn Consensus>,
    pub(super) leader: Leader,
    pub(super) submitter: Arc<Submitter>,
    scope: TaskScope,
}

impl JobServer {
    /// Requests that outlast their call run in `scope`.
    pub(crate) fn new(
        consensus: Arc<dyn Consensus>,
        leader: Leader,
        submitter: Arc<Submitter>,
        scope: TaskScope,
    ) -> Self {
        Self { inner: Arc::new(Inner { consensus, leader, submitter, scope }) }
    }

    pub(super) fn check_leading(&self) -> Result<(), Status> {
        self.inner.leader.check_leading().map_err(Status::from)
    }

    /// A copy of what is replicated of one job.
    pub(crate) fn record(&self, job_id: JobId) -> Result<JobRecord, Status> {
        let state = self.state().read();
        let job = state.job(job_id).cloned();
        job.ok_or_else(|| Status::not_found(Refusal::UnknownJob { job_id }.to_string()))
    }

    /// Everything about a job.
    pub(crate) async fn describe(&self, job_id: JobId) -> Result<v1::JobDetails, Status> {
        let live = self.live(Some(job_id)).await?;
        let job = self.record(job_id)?;
        describe::details(&job, live.get(&job_id))
    }

    /// Cancels a job: returns when that is in the log.
    pub(crate) async fn cancel(&self, job_id: JobId) -> Result<(), Status> {
        self.check_leading()?;
        self.record(job_id)?;
        let mut changes = self.inner.consensus.state().changes();
        self.inner
            .leader
            .ask(|reply| Mail::Cancel { job_id, reply })
            .await
            .map_err(NotLeading::into_status)?;
        let cancelled = async {
            loop {
                let status = self.record(job_id)?.status;
                if status == JobStatus::Cancelling || status.is_terminal() {
                    return Ok(());
                }
                self.check_leading()?;
                // Leadership that ends without a further change is noticed a little later.
                if let Ok(changed) = tokio::time::timeout(Duration::from_millis(200), changes.changed()).await
                {
                    changed.map_err(|_| Status::unavailable("the job manager is stopping"))?;
                }
            }
        };
        let timeout = Status::unavailable("the cancellation did not get into the log in time; try again");
        tokio::time::timeout(CANCEL_TIMEOUT, cancelled).await.unwrap_or(Err(timeout))
    }

    /// Follows a job on this node.
    pub(crate) fn watch(&self, job_id: JobId) -> JobWatch {
        JobWatch::new(job_id, self.inner.consensus.state().clone(), self.inner.leader.reasons())
    }

    /// Tells a client everything about a job until it has ended, or another job manager leads.
    async fn tell(
        self,
        mut watch: JobWatch,
        job_id: JobId,
        events: mpsc::Sender<Result<v1::JobEvent, Status>>,
    ) {
        let mut leadership = self.inner.leader.leadership();
        let leads_no_more = async move {
            // An error means that the job manager is stopping.
            let _ = leadership.wait_for(|leadership| !leadership.is_leader).await;
        };
        tokio::pin!(leads_no_more);
        loop {
            let next = tokio::select! {
                biased;
                () = &mut leads_no_more => Some(Err(Status::from(self.inner.leader.not_leading()))),
                () = events.closed() => None,
                event = watch.next() => event.map(Ok),
            };
            let message = match next {
                None => return,
                Some(Err(status)) => Err(status),
                Some(Ok(event)) => {
                    let Ok(job) = self.record(job_id) else { return };
                    let live =
                        self.inner.leader.ask(|reply| Mail::View { job_id: Some(job_id), reply }).await;
                    let live = live.map_err(|_: NotLeading| ()).unwrap_or_default();
                    Ok(describe::event(&job, live.get(&job_id), event))
                }
            };
            let is_last = message.is_err();
            if events.send(message).await.is_err() || is_last {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl JobService for JobServer {
    type SubmitJobStream = BoxStream<'static, Result<v1::SubmitJobResponse, Status>>;
    type TriggerSavepointStream = BoxStream<'static, Result<v1::SavepointEvent, Status>>;
    type RescaleJobStream = BoxStream<'static, Result<v1::RescaleEvent, Status>>;
    type WatchJobStream = BoxStream<'static, Result<v1::JobEvent, Status>>;
    type GetLogsStream = BoxStream<'static, Result<v1::LogChunk, Status>>;

    async fn submit_job(
        &self,
        request: Request<Streaming<v1::SubmitJobRequest>>,
    ) -> Result<Response<Self::SubmitJobStream>, Status> {
        self.check_leading()?;
        let (responses, stream) = mpsc::channel(CONTROL_STREAM_MESSAGES);
        let submitter = Arc::clone(&self.inner.submitter);
        let stopped = self.inner.scope.token();
        self.inner.scope.spawn("submission", async move {
            let result = tokio::select! {
                biased;
                () = stopped.cancelled() => Err(Status::unavailable("the job manager is stopping")),
                // The client is gone: it submits again with the same id, or never.
                () = responses.closed() => return,
                result = submitter.submit(request.into_inner(), &responses) => result,
            };
            let last =
                result.map(|result| v1::SubmitJobResponse { message: Some(SubmitResponse::Result(result)) });
            // It may have gone in this moment.
            let _ = responses.send(last).await;
        });
        Ok(Response::new(ReceiverStream::new(stream).boxed()))
    }

    async fn list_jobs(
        &self,
        _request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let live = self.live(None).await?;
        let state = self.state().read();
        Ok(Response::new(v1::ListJobsResponse { jobs: describe::list(state.jobs(), &live) }))
    }

    async fn describe_job(
        &self,
        request: Request<v1::DescribeJobRequest>,
    ) -> Result<Response<v1::JobDetails>, Status> {
        let job_id = JobId::from_wire("job_id", &request.into_inner().job_id)?;
        self.describe(job_id).await.map(Response::new)
    }

    async fn list_checkpoints(
        &self,
        request: Request<v1::ListCheckpointsRequest>,
    ) -> Result<Response<v1::ListCheckpointsResponse>, Status> {
        let job_id = JobId::from_wire("job_id", &request.into_inner().job_id)?;
        let history = self.checkpoints(job_id).await?;
        Ok(Response::new(checkpoints::answer(&self.record(job_id)?, &history)))
    }

    async fn trigger_checkpoint(
        &self,
        request: Request<v1::TriggerCheckpointRequest>,
    ) -> Result<Response<v1::TriggerCheckpointResponse>, Status> {
        let job_id = JobId::from_wire("job_id", &request.into_inner().job_id)?;
        match last(self.take_checkpoint(job_id).await?).await {
            Some(CheckpointNews::Completed(checkpoint_id)) => {
                Ok(Response::new(v1::TriggerCheckpointResponse { checkpoint_id }))
            }
            Some(CheckpointNews::Failed(reason)) => Err(Status::aborted(reason)),
            // Whoever leads now takes one when it is asked.
            Some(CheckpointNews::Progress) | None => Err(self.inner.leader.not_leading().into_status()),
        }
    }

    async fn trigger_savepoint(
        &self,
        request: Request<v1::TriggerSavepointRequest>,
    ) -> Result<Response<Self::TriggerSavepointStream>, Status> {
        let request = request.into_inner();
        let job_id = JobId::from_wire("job_id", &request.job_id)?;
        let mode = savepoints::mode(request.mode())?;
        let news = self.take_savepoint(job_id, &request.directory, mode).await?;
        let (events, stream) = mpsc::channel(WATCH_BACKLOG);
        let stopped = self.inner.scope.token();
        self.inner.scope.spawn("savepoint", async move {
            let unknown = "another job manager leads now; it knows nothing of the savepoint";
            let telling = news::tell(news, events, savepoints::event, unknown);
            stopped.run_until_cancelled_owned(telling).await;
        });
        Ok(Response::new(ReceiverStream::new(stream).boxed()))
    }

    async fn rescale_job(
        &self,
        request: Request<v1::RescaleJobRequest>,
    ) -> Result<Response<Self::RescaleJobStream>, Status> {
        let v1::RescaleJobRequest { job_id, parallelism } = request.into_inner();
        let job_id = JobId::from_wire("job_id", &job_id)?;
        let news = self.rescale(job_id, parallelism).await?;
        let (events, stream) = mpsc::channel(WATCH_BACKLOG);
        let stopped = self.inner.scope.token();
        self.inner.scope.spawn("rescale", async move {
            let unknown = "another job manager leads now; it knows nothing of whoever asked";
            let telling = news::tell(news, events, rescale::event, unknown);
            stopped.run_until_cancelled_owned(telling).await;
        });
        Ok(Response::new(ReceiverStream::new(stream).boxed()))
    }

    async fn list_savepoints(
        &self,
        request: Request<v1::ListSavepointsRequest>,
    ) -> Result<Response<v1::ListSavepointsResponse>, Status> {
        let job_id = JobId::from_wire("job_id", &request.into_inner().job_id)?;
        self.check_leading()?;
        let savepoints = self.record(job_id)?.savepoints.iter().map(savepoints::summary).collect();
        Ok(Response::new(v1::ListSavepointsResponse { savepoints }))
    }

    async fn dispose_savepoint(
        &self,
        request: Request<v1::DisposeSavepointRequest>,
    ) -> Result<Response<v1::DisposeSavepointResponse>, Status> {
        self.dispose(request.into_inner().path).await?;
        Ok(Response::new(v1::DisposeSavepointResponse {}))
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        let job_id = JobId::from_wire("job_id", &request.into_inner().job_id)?;
        self.cancel(job_id).await?;
        Ok(Response::new(v1::CancelJobResponse {}))
    }

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let job_id = JobId::from_wire("job_id", &request.into_inner().job_id)?;
        self.check_leading()?;
        self.record(job_id)?;
        let (events, stream) = mpsc::channel(WATCH_BACKLOG);
        let (server, watch, stopped) = (self.clone(), self.watch(job_id), self.inner.scope.token());
        self.inner.scope.spawn("watch", async move {
            stopped.run_until_cancelled_owned(server.tell(watch, job_id, events)).await;
        });
        Ok(Response::new(ReceiverStream::new(stream).boxed()))
    }

    async fn list_task_managers(
        &self,
        _request: Request<v1::ListTaskManagersRequest>,
    ) -> Result<Response<v1::ListTaskManagersResponse>, Status> {
        let task_managers = self.task_managers().await?.into_iter().map(|view| v1::TaskManagerSummary {
            id: view.id.0,
            host: view.host,
            slots_total: view.slots_total,
            slots_free: view.slots_free,
            labels: view.labels,
            connected_since_ms: view.connected_since_ms,
            last_heartbeat_ms: view.last_heartbeat_ms,
        });
        Ok(Response::new(v1::ListTaskManagersResponse { task_managers: task_managers.collect() }))
    }

    async fn list_job_managers(
        &self,
        _request: Request<v1::ListJobManagersRequest>,
    ) -> Result<Response<v1::ListJobManagersResponse>, Status> {
        self.check_leading()?;
        let leadership = self.inner.leader.leadership().borrow().clone();
        let leader = leadership.leader.map(|(id, _)| id);
        let job_managers =
            self.inner.consensus.members().into_iter().map(|(id, node)| v1::JobManagerSummary {
                id,
                address: node.address,
                leader: Some(id) == leader,
                voter: self.inner.consensus.is_voter(id),
            });
        Ok(Response::new(v1::ListJobManagersResponse {
            job_managers: job_managers.collect(),
            term: leadership.term,
        }))
    }

    async fn add_job_manager(
        &self,
        request: Request<v1::AddJobManagerRequest>,
    ) -> Result<Response<v1::MembershipResponse>, Status> {
        self.check_leading()?;
        let v1::AddJobManagerRequest { id, address } = request.into_inner();
        check_address(&address).map_err(|error| Status::invalid_argument(error.to_string()))?;
        if id == 0 {
            return Err(Status::invalid_argument("the id of a job manager is a number from 1"));
        }
        let id: NodeId = id;
        self.inner.consensus.add_member(id, Node { address }).await.map_err(propose_status)?;
        Ok(Response::new(v1::MembershipResponse {}))
    }

    async fn remove_job_manager(
        &self,
        request: Request<v1::RemoveJobManagerRequest>,
    ) -> Result<Response<v1::MembershipResponse>, Status> {
        self.check_leading()?;
        self.inner.consensus.remove_member(request.into_inner().id).await.map_err(propose_status)?;
        Ok(Response::new(v1::MembershipResponse {}))
    }

    async fn get_time(&self, request: Request<v1::GetTimeRequest>) -> Result<Response<v1::JobTime>, Status> {
        let job_id = JobId::from_wire("job_id", &request.into_inner().job_id)?;
        self.check_leading()?;
        let record = self.record(job_id)?;
        Ok(Response::new(time::ask(&self.inner.leader, job_id, &record).await?))
    }

    async fn get_logs(
        &self,
        request: Request<v1::GetLogsRequest>,
    ) -> Result<Response<Self::GetLogsStream>, Status> {
        let request = request.into_inner();
        let job_id = JobId::from_wire("job_id", &request.job_id)?;
        let chunks = self.logs(job_id, request.tail_bytes).await?.map(|piece| {
            Ok(v1::LogChunk {
                task_manager: piece.task_manager.0,
                source: piece.part.source,
                data: piece.part.data,
            })
        });
        Ok(Response::new(stream::StreamExt::boxed(chunks)))
    }
}
