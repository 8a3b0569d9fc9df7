//! The client against job managers of a few lines: followers, leaders, and leaders that die at a chosen moment.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use thalweg_common::id::SubmissionId;
use thalweg_common::limits::{GRPC_MAX_MESSAGE_BYTES, UPLOAD_CHUNK_BYTES};
use thalweg_common::status::JobStatus;
use thalweg_common::task_scope::TaskScope;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Streaming};

use super::*;
use crate::blob::BlobHash;
use crate::leader::not_leader;
use crate::v1::job_service_server::{JobService, JobServiceServer};
use crate::v1::submit_job_request::Message as Submit;
use crate::v1::submit_job_response::Message as Answer;

/// Far longer than any of these tests takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// When a leader drops dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    Never,
    /// When this many bytes of a binary have come.
    AfterBytes(usize),
    /// When a job is made, before its client is told.
    BeforeResult,
    /// When a watcher was told the present state.
    AfterFirstEvent,
}

#[derive(Debug, Clone)]
enum Role {
    Leader,
    Follower(Option<String>),
}

/// What all job managers of a cluster agree on.
#[derive(Default)]
struct Replicated {
    blobs: BTreeMap<Bytes, usize>,
    jobs: BTreeMap<u128, v1::SubmitHeader>,
    status: Vec<v1::JobEvent>,
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

fn event(from: Option<JobStatus>, to: JobStatus) -> v1::JobEvent {
    let change = from.map(|from| v1::StatusChange {
        from: v1::JobStatus::from(from).into(),
        to: v1::JobStatus::from(to).into(),
        ..Default::default()
    });
    v1::JobEvent { summary: Some(summary(1, to)), change, failure: None }
}

/// A job manager in a runtime of its own, so that its end closes its connections as a process's end does.
struct Server {
    address: String,
    role: watch::Sender<Role>,
    calls: Arc<AtomicUsize>,
    runtime: Option<Runtime>,
    died: mpsc::Receiver<()>,
}

impl Server {
    fn start(role: Role, death: Death, cluster: &Arc<Mutex<Replicated>>) -> Self {
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
    async fn dies(&mut self) {
        self.died.recv().await.unwrap();
        self.kill();
    }

    fn calls(&self) -> usize {
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

fn cluster() -> Arc<Mutex<Replicated>> {
    Arc::default()
}

async fn client(servers: &[&str]) -> JobClient {
    JobClient::connect(servers.iter().map(ToString::to_string).collect()).await.unwrap()
}

/// An address at which nobody listens.
fn dead_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

struct Binary {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

fn binary(bytes: usize) -> Binary {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("job");
    std::fs::write(&path, vec![42; bytes]).unwrap();
    Binary { _directory: directory, path }
}

fn options(binary: &Binary, id: u128) -> SubmitOptions {
    SubmitOptions {
        binary: binary.path.clone(),
        arguments: vec!["--input".into(), "x".into()],
        configuration: BTreeMap::from([("parallelism.default".into(), "4".into())]),
        submission_id: SubmissionId(id),
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("what was waited for did not happen")
}

#[tokio::test]
async fn a_follower_leads_to_the_leader_which_is_asked_first_from_then_on() {
    let cluster = cluster();
    let leader = Server::start(Role::Leader, Death::Never, &cluster);
    let follower = Server::start(Role::Follower(Some(leader.address.clone())), Death::Never, &cluster);
    let client = client(&[&follower.address]).await;
    for _ in 0..3 {
        assert_eq!(soon(client.list()).await.unwrap(), []);
    }
    assert_eq!((follower.calls(), leader.calls()), (1, 3));
}

#[tokio::test]
async fn dead_addresses_are_passed_over() {
    let leader = Server::start(Role::Leader, Death::Never, &cluster());
    let client = client(&[&dead_address(), &leader.address]).await;
    assert_eq!(soon(client.list()).await.unwrap(), []);
}

#[tokio::test]
async fn an_election_is_waited_for() {
    let server = Server::start(Role::Follower(None), Death::Never, &cluster());
    let client = client(&[&server.address]).await;
    let elected = async {
        while server.calls() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.role.send(Role::Leader).unwrap();
    };
    let (jobs, ()) = soon(async { tokio::join!(client.list(), elected) }).await;
    assert_eq!(jobs.unwrap(), []);
}

#[tokio::test]
async fn nobody_leading_is_reported_with_addresses_and_the_last_answer() {
    let server = Server::start(Role::Follower(None), Death::Never, &cluster());
    let dead = dead_address();
    let deadline = Duration::from_millis(200);
    let client =
        JobClient::connect_within(vec![dead.clone(), server.address.clone()], deadline).await.unwrap();
    let error = soon(client.list()).await.unwrap_err();
    assert!(error.is_unreachable());
    let text = error.to_string();
    assert!(text.contains(&dead) && text.contains(&server.address) && text.contains("majority"), "{text}");
    let error = JobClient::connect_within(vec![dead.clone()], deadline).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn wrong_addresses_are_refused_at_once() {
    for addresses in [vec![], vec!["nonsense".to_string()]] {
        assert!(JobClient::connect(addresses).await.unwrap_err().is_unreachable());
    }
}

#[tokio::test]
async fn a_refusal_is_passed_on_and_not_repeated() {
    let server = Server::start(Role::Leader, Death::Never, &cluster());
    let client = client(&[&server.address]).await;
    let error = soon(client.describe(JobId(1))).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no such job; `thalweg list` shows all");
    assert_eq!(server.calls(), 1);
    let error = soon(client.cancel(JobId(1))).await.unwrap_err();
    assert_eq!(error.to_string(), "the job has ended");
    let error = soon(client.task_managers()).await.unwrap_err();
    assert!(error.to_string().contains("cluster's version"), "{error}");
}

#[tokio::test]
async fn logs_of_one_source_are_joined() {
    let server = Server::start(Role::Leader, Death::Never, &cluster());
    let parts = soon(client(&[&server.address]).await.logs(JobId(1), 0)).await.unwrap();
    let parts: Vec<_> = parts.iter().map(|part| (part.source.as_str(), part.data.as_slice())).collect();
    assert_eq!(parts, [("stdout", &b"ab"[..]), ("stderr", b"c")]);
}

#[tokio::test]
async fn a_binary_is_uploaded_once_and_known_from_then_on() {
    let cluster = cluster();
    let server = Server::start(Role::Leader, Death::Never, &cluster);
    let client = client(&[&server.address]).await;
    let binary = binary(2 * UPLOAD_CHUNK_BYTES + 17);
    let mut steps = Vec::new();
    let result = soon(client.submit(options(&binary, 1), |step| steps.push(step.to_string()))).await.unwrap();
    assert_eq!((result.job_id, result.repeated, result.warnings), (JobId(1), false, vec!["w".to_string()]));
    assert_eq!(steps, ["reading the binary", "checking the job's plan"]);
    let again = soon(client.submit(options(&binary, 1), |_| ())).await.unwrap();
    assert_eq!((again.job_id, again.repeated), (JobId(1), true));
    let cluster = cluster.lock().unwrap();
    assert_eq!(cluster.blobs.values().collect::<Vec<_>>(), [&(2 * UPLOAD_CHUNK_BYTES + 17)]);
    assert_eq!(cluster.jobs[&1].arguments, ["--input", "x"]);
    assert_eq!(cluster.jobs[&1].configuration["parallelism.default"], "4");
}

#[tokio::test]
async fn a_leader_that_dies_makes_no_second_job() {
    let binary = binary(3 * UPLOAD_CHUNK_BYTES);
    for death in [Death::AfterBytes(UPLOAD_CHUNK_BYTES), Death::BeforeResult] {
        let cluster = cluster();
        let mut dying = Server::start(Role::Leader, death, &cluster);
        let next = Server::start(Role::Leader, Death::Never, &cluster);
        let client = client(&[&dying.address, &next.address]).await;
        let (result, ()) =
            soon(async { tokio::join!(client.submit(options(&binary, 7), |_| ()), dying.dies()) }).await;
        let result = result.unwrap();
        assert_eq!(result.job_id, JobId(7));
        assert_eq!(result.repeated, death == Death::BeforeResult);
        assert_eq!(cluster.lock().unwrap().jobs.len(), 1);
    }
}

#[tokio::test]
async fn a_binary_that_cannot_be_read_is_named() {
    let server = Server::start(Role::Leader, Death::Never, &cluster());
    let client = client(&[&server.address]).await;
    let directory = tempfile::tempdir().unwrap();
    for path in [directory.path().to_path_buf(), directory.path().join("missing")] {
        let options = SubmitOptions { binary: path.clone(), ..options(&binary(1), 1) };
        let error = soon(client.submit(options, |_| ())).await.unwrap_err();
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        assert!(!error.is_unreachable());
    }
}

#[tokio::test]
async fn a_watch_goes_on_at_the_next_leader() {
    use JobStatus::{Finished, Running};
    let (first, second) = (cluster(), cluster());
    first.lock().unwrap().status = vec![event(None, Running), event(None, Running)];
    second.lock().unwrap().status = vec![event(None, Running), event(Some(Running), Finished)];
    let mut dying = Server::start(Role::Leader, Death::AfterFirstEvent, &first);
    let next = Server::start(Role::Leader, Death::Never, &second);
    let client = client(&[&dying.address, &next.address]).await;
    let mut watch = client.watch(JobId(1));
    let event = soon(watch.next()).await.unwrap().unwrap();
    assert_eq!((event.summary.status, event.change), (Running, None));
    let (event, ()) = soon(async { tokio::join!(watch.next(), dying.dies()) }).await;
    let event = event.unwrap().unwrap();
    assert_eq!(event.summary.status, Finished);
    assert_eq!(event.change.map(|change| (change.from, change.to)), Some((Running, Finished)));
    assert_eq!(soon(watch.next()).await.unwrap(), None);
}

#[tokio::test]
async fn a_watch_of_an_unknown_job_is_refused() {
    let server = Server::start(Role::Follower(Some(dead_address())), Death::Never, &cluster());
    let client =
        JobClient::connect_within(vec![server.address.clone()], Duration::from_millis(100)).await.unwrap();
    assert!(soon(client.watch(JobId(1)).next()).await.unwrap_err().is_unreachable());
}

#[test]
fn requests_may_move_between_threads() {
    fn is_send<T: Send>(_: T) {}
    fn check(client: &'static JobClient, options: SubmitOptions) {
        is_send(client.list());
        is_send(client.logs(JobId(1), 0));
        is_send(client.submit(options, |_| ()));
        is_send(async { client.watch(JobId(1)).next().await });
    }
    let _ = check;
}
