//! A job manager of a few lines for the client's tests: it leads or follows, and dies at a chosen moment.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use thalweg_common::id::JobId;
use thalweg_common::limits::{GRPC_MAX_MESSAGE_BYTES, UPLOAD_CHUNK_BYTES};
use thalweg_common::status::JobStatus;
use thalweg_common::task_scope::TaskScope;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Request, Response, Status, Streaming};

use crate::blob::BlobHash;
use crate::convert::WireId;
use crate::leader::not_leader;
use crate::v1;
use crate::v1::job_service_server::{JobService, JobServiceServer};
use crate::v1::submit_job_request::Message as Submit;
use crate::v1::submit_job_response::Message as Answer;

/// When a leader drops dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    Never,
    /// When this many bytes of a binary have come.
    AfterBytes(usize),
    /// When a job is made, before its client is told.
    BeforeResult,
    /// When a watcher was told the present state.
    AfterFirstEvent,
}

#[derive(Debug, Clone)]
pub(super) enum Role {
    Leader,
    Follower(Option<String>),
}

/// What all job managers of a cluster agree on.
#[derive(Default)]
pub(super) struct Replicated {
    pub(super) blobs: BTreeMap<Bytes, usize>,
    pub(super) jobs: BTreeMap<u128, v1::SubmitHeader>,
    pub(super) status: Vec<v1::JobEvent>,
}
struct JobManager {
    role: watch::Receiver<Role>,
    death: Death,
    die: mpsc::Sender<()>,
    calls: Arc<AtomicUsize>,
    cluster: Arc<Mutex<Replicated>>,
}

impl JobManager {
    fn check_leads(&self) -> Result<(), Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match &*self.role.borrow() {
            Role::Leader => Ok(()),
            Role::Follower(leader) => Err(not_leader(leader.as_deref())),
        }
    }

    /// Ends this job manager's process, as far as anybody can see.
    async fn drop_dead(die: &mpsc::Sender<()>) -> Status {
        die.send(()).await.unwrap();
        std::future::pending().await
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl JobService for JobManager {
    type SubmitJobStream = Answers<v1::SubmitJobResponse>;
    type TriggerSavepointStream = Answers<v1::SavepointEvent>;
    type RescaleJobStream = Answers<v1::RescaleEvent>;
    type WatchJobStream = Answers<v1::JobEvent>;
    type GetLogsStream = Answers<v1::LogChunk>;

    async fn submit_job(
        &self,
        request: Request<Streaming<v1::SubmitJobRequest>>,
    ) -> Result<Response<Self::SubmitJobStream>, Status> {
        self.check_leads()?;
        let (answers, stream) = mpsc::channel(4);
        let submission = Submission {
            requests: request.into_inner(),
            answers: answers.clone(),
            death: self.death,
            die: self.die.clone(),
            cluster: self.cluster.clone(),
        };
        let serve = async move {
            if let Err(status) = submission.serve().await {
                answers.send(Err(status)).await.ok();
            }
            None
        };
        let served = futures_util::stream::once(serve).filter_map(std::future::ready);
        Ok(Response::new(Box::pin(futures_util::stream::select(ReceiverStream::new(stream), served))))
    }

    async fn list_jobs(
        &self,
        _: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        self.check_leads()?;
        let jobs =
            self.cluster.lock().unwrap().jobs.keys().map(|id| summary(*id, JobStatus::Running)).collect();
        Ok(Response::new(v1::ListJobsResponse { jobs }))
    }

    async fn describe_job(
        &self,
        _: Request<v1::DescribeJobRequest>,
    ) -> Result<Response<v1::JobDetails>, Status> {
        self.check_leads()?;
        Err(Status::not_found("there is no such job; `thalweg list` shows all"))
    }

    async fn list_checkpoints(
        &self,
        _: Request<v1::ListCheckpointsRequest>,
    ) -> Result<Response<v1::ListCheckpointsResponse>, Status> {
        self.check_leads()?;
        Err(Status::not_found("there is no such job; `thalweg list` shows all"))
    }

    async fn trigger_savepoint(
        &self,
        _: Request<v1::TriggerSavepointRequest>,
    ) -> Result<Response<Self::TriggerSavepointStream>, Status> {
        Err(Status::aborted("the job is RESTARTING; a savepoint can be taken while all its tasks run"))
    }

    async fn rescale_job(
        &self,
        _: Request<v1::RescaleJobRequest>,
    ) -> Result<Response<Self::RescaleJobStream>, Status> {
        Err(Status::aborted("the job is RESTARTING; it can be rescaled while all its tasks run"))
    }

    async fn list_savepoints(
        &self,
        _: Request<v1::ListSavepointsRequest>,
    ) -> Result<Response<v1::ListSavepointsResponse>, Status> {
        Ok(Response::new(v1::ListSavepointsResponse::default()))
    }

    async fn dispose_savepoint(
        &self,
        _: Request<v1::DisposeSavepointRequest>,
    ) -> Result<Response<v1::DisposeSavepointResponse>, Status> {
        Err(Status::invalid_argument("there are files but no savepoint; check the path"))
    }

    async fn trigger_checkpoint(
        &self,
        _: Request<v1::TriggerCheckpointRequest>,
    ) -> Result<Response<v1::TriggerCheckpointResponse>, Status> {
        self.check_leads()?;
        Ok(Response::new(v1::TriggerCheckpointResponse { checkpoint_id: 12 }))
    }

    async fn cancel_job(
        &self,
        _: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        Err(Status::failed_precondition("the job has ended"))
    }

    async fn watch_job(
        &self,
        _: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        self.check_leads()?;
        let events = self.cluster.lock().unwrap().status.clone();
        let die = self.die.clone();
        let dies = self.death == Death::AfterFirstEvent;
        let stream =
            futures_util::stream::iter(events.into_iter().enumerate()).then(move |(number, event)| {
                let die = die.clone();
                async move { if dies && number == 1 { Err(Self::drop_dead(&die).await) } else { Ok(event) } }
            });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_task_managers(
        &self,
        _: Request<v1::ListTaskManagersRequest>,
    ) -> Result<Response<v1::ListTaskManagersResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_job_managers(
        &self,
        _: Request<v1::ListJobManagersRequest>,
    ) -> Result<Response<v1::ListJobManagersResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn add_job_manager(
        &self,
        _: Request<v1::AddJobManagerRequest>,
    ) -> Result<Response<v1::MembershipResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn remove_job_manager(
        &self,
        _: Request<v1::RemoveJobManagerRequest>,
    ) -> Result<Response<v1::MembershipResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_time(&self, _: Request<v1::GetTimeRequest>) -> Result<Response<v1::JobTime>, Status> {
        self.check_leads()?;
        Err(Status::unimplemented("no task runs here"))
    }

    async fn get_logs(
        &self,
        _: Request<v1::GetLogsRequest>,
    ) -> Result<Response<Self::GetLogsStream>, Status> {
        self.check_leads()?;
        let part = |source: &str, text: &'static str| {
            Ok(v1::LogChunk {
                task_manager: "tm".into(),
                source: source.into(),
                data: Bytes::from_static(text.as_bytes()),
            })
        };
        let parts = vec![part("stdout", "a"), part("stdout", "b"), part("stderr", "c")];
        Ok(Response::new(Box::pin(futures_util::stream::iter(parts))))
    }
}

struct Submission {
    requests: Streaming<v1::SubmitJobRequest>,
    answers: mpsc::Sender<Result<v1::SubmitJobResponse, Status>>,
    death: Death,
    die: mpsc::Sender<()>,
    cluster: Arc<Mutex<Replicated>>,
}

impl Submission {
    async fn serve(mut self) -> Result<(), Status> {
        let Some(Submit::Header(header)) = self.receive().await? else { panic!("no header") };
        let known = self.cluster.lock().unwrap().blobs.contains_key(&header.sha256);
        if !known {
            self.receive_binary(&header).await?;
        }
        self.answer(Answer::Progress(v1::SubmitProgress {
            step: "checking the job's plan".into(),
            received_bytes: 0,
        }))
        .await;
        let id = u128::from_be_bytes(header.submission_id.as_ref().try_into().unwrap());
        let repeated = self.cluster.lock().unwrap().jobs.insert(id, header).is_some();
        if self.death == Death::BeforeResult {
            return Err(JobManager::drop_dead(&self.die).await);
        }
        let result = v1::SubmitResult {
            job_id: JobId(id).to_wire(),
            name: "job".into(),
            repeated,
            warnings: vec!["w".into()],
            report: String::new(),
        };
        self.answer(Answer::Result(result)).await;
        Ok(())
    }

    async fn receive_binary(&mut self, header: &v1::SubmitHeader) -> Result<(), Status> {
        self.answer(Answer::UploadWanted(v1::UploadWanted { from_byte: 0 })).await;
        let mut binary = Vec::new();
        while binary.len() < header.size_bytes as usize {
            let Some(Submit::Chunk(chunk)) = self.receive().await? else { panic!("the upload ended early") };
            assert!(chunk.len() <= UPLOAD_CHUNK_BYTES);
            binary.extend_from_slice(&chunk);
            if matches!(self.death, Death::AfterBytes(bytes) if binary.len() >= bytes) {
                return Err(JobManager::drop_dead(&self.die).await);
            }
        }
        assert_eq!(BlobHash::of(&binary).to_wire(), header.sha256);
        self.cluster.lock().unwrap().blobs.insert(header.sha256.clone(), binary.len());
        Ok(())
    }

    async fn receive(&mut self) -> Result<Option<Submit>, Status> {
        Ok(self.requests.message().await?.and_then(|request| request.message))
    }

    async fn answer(&self, message: Answer) {
        self.answers.send(Ok(v1::SubmitJobResponse { message: Some(message) })).await.unwrap();
    }
}

fn summary(id: u128, status: JobStatus) -> v1::JobSummary {
    v1::JobSummary {
        job_id: JobId(id).to_wire(),
        name: "job".into(),
        status: v1::JobStatus::from(status).into(),
        attempt: 1,
        ..Default::default()
    }
}

pub(super) fn event(from: Option<JobStatus>, to: JobStatus) -> v1::JobEvent {
    let change = from.map(|from| v1::StatusChange {
        from: v1::JobStatus::from(from).into(),
        to: v1::JobStatus::from(to).into(),
        ..Default::default()
    });
    v1::JobEvent { summary: Some(summary(1, to)), change, failure: None }
}

/// A job manager in a runtime of its own, so that its end closes its connections as a process's end does.
pub(super) struct Server {
    pub(super) address: String,
    pub(super) role: watch::Sender<Role>,
    calls: Arc<AtomicUsize>,
    runtime: Option<Runtime>,
    died: mpsc::Receiver<()>,
}

impl Server {
    pub(super) fn start(role: Role, death: Death, cluster: &Arc<Mutex<Replicated>>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        listener.set_nonblocking(true).unwrap();
        let (role, current) = watch::channel(role);
        let (die, died) = mpsc::channel(1);
        let calls = Arc::new(AtomicUsize::new(0));
        let service =
            JobManager { role: current, death, die, calls: calls.clone(), cluster: cluster.clone() };
        let entered = runtime.enter();
        let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
        let service = JobServiceServer::new(service).max_decoding_message_size(GRPC_MAX_MESSAGE_BYTES);
        let scope = TaskScope::new("job manager");
        scope.spawn_fallible(
            "serve",
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming),
        );
        drop(entered);
        Self { address, role, calls, runtime: Some(runtime), died }
    }

    fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    /// Waits for the chosen moment, then kills.
    pub(super) async fn dies(&mut self) {
        self.died.recv().await.unwrap();
        self.kill();
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(super) fn cluster() -> Arc<Mutex<Replicated>> {
    Arc::default()
}

/// A server of pages, as a REST API is one.
pub(super) struct Stranger {
    pub(super) address: String,
    _scope: TaskScope,
}

impl Stranger {
    pub(super) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        listener.set_nonblocking(true).unwrap();
        let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
        let scope = TaskScope::new("stranger");
        let serving = tonic::transport::Server::builder().serve_with_incoming(NoPage, incoming);
        scope.spawn_fallible("serve", serving);
        Self { address, _scope: scope }
    }
}

/// Has no page, and says so on one.
#[derive(Clone)]
struct NoPage;

impl Service<http::Request<Body>> for NoPage {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let page = http::Response::builder().status(404).header("content-type", "text/html");
        ready(Ok(page.body(Body::new("<h1>Not found</h1>".to_string())).unwrap()))
    }
}
