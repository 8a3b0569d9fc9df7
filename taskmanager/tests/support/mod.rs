//! A job manager of a few lines, and workers that exist only as a stream.
#![allow(clippy::unwrap_used, clippy::panic, dead_code, reason = "each test program uses its part")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, JobId, SubtaskId, Term, WorkerId};
use thalweg_common::task_scope::TaskScope;
use thalweg_proto::blob::BlobHash;
use thalweg_proto::convert::WireId;
use thalweg_proto::leader::not_leader;
use thalweg_proto::transport::{Dialer, endpoint, worker_service};
use thalweg_proto::v1;
use thalweg_proto::v1::blob_service_server::{BlobService, BlobServiceServer};
use thalweg_proto::v1::job_manager_message::Message as Order;
use thalweg_proto::v1::task_manager_message::Message as News;
use thalweg_proto::v1::task_manager_service_server::{TaskManagerService, TaskManagerServiceServer};
use thalweg_proto::v1::worker_command::Message as Command;
use thalweg_proto::v1::worker_message::Message as Said;
use thalweg_taskmanager::launcher::{Token, WorkerHandle, WorkerLauncher, WorkerSpec};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Far longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const JOB: JobId = JobId(7);
pub const FINGERPRINT: u64 = 99;
pub const TASK: SubtaskId = SubtaskId { vertex: 0, index: 0 };

pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("what was waited for did not happen")
}

/// A job manager in a runtime of its own, so that its end closes its connections as a process's end does.
pub struct JobManager {
    pub address: String,
    pub blob_requests: Arc<AtomicUsize>,
    sessions: mpsc::Receiver<Session>,
    runtime: Option<Runtime>,
}

/// What it answers.
#[derive(Clone, Default)]
pub struct Role {
    /// Another one leads: its address, if known.
    pub follows: Option<Option<String>>,
    pub blobs: BTreeMap<BlobHash, Vec<u8>>,
    /// Whether blobs are sent with a wrong byte.
    pub damages: bool,
}

impl JobManager {
    pub fn start(role: Role) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (accepted, sessions) = mpsc::channel(16);
        let blob_requests = Arc::new(AtomicUsize::new(0));
        let service = Service { role, accepted, blob_requests: blob_requests.clone() };
        let entered = runtime.enter();
        let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener).unwrap());
        let server = tonic::transport::Server::builder()
            .add_service(TaskManagerServiceServer::new(service.clone()))
            .add_service(BlobServiceServer::new(service))
            .serve_with_incoming(incoming);
        // The runtime, not the scope, ends it.
        let scope = Box::leak(Box::new(TaskScope::new("job manager")));
        scope.spawn_fallible("serve", server);
        drop(entered);
        Self { address, blob_requests, sessions, runtime: Some(runtime) }
    }

    pub fn leader() -> Self {
        Self::start(Role::default())
    }

    /// The next task manager that connects.
    pub async fn accept(&mut self) -> Session {
        soon(self.sessions.recv()).await.expect("the job manager runs")
    }

    /// The next task manager that connects, registered in this term.
    pub async fn register(&mut self, term: Term) -> (Session, v1::Register) {
        let mut session = self.accept().await;
        let News::Register(register) = session.next().await.unwrap() else { panic!("no registration") };
        let registered = v1::Registered {
            heartbeat_interval_ms: 20,
            heartbeat_timeout_ms: 20_000,
            job_managers: vec![self.address.clone()],
        };
        session.order(term, Order::Registered(registered)).await;
        (session, register)
    }

    pub fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for JobManager {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Clone)]
struct Service {
    role: Role,
    accepted: mpsc::Sender<Session>,
    blob_requests: Arc<AtomicUsize>,
}

/// The leader's end of a task manager's connection.
pub struct Session {
    news: Streaming<v1::TaskManagerMessage>,
    orders: mpsc::Sender<Result<v1::JobManagerMessage, Status>>,
}

impl Session {
    /// What the task manager says next, except heartbeats; `None` when it is gone.
    pub async fn next(&mut self) -> Option<News> {
        loop {
            match self.any().await? {
                News::Heartbeat(_) => {}
                news => return Some(news),
            }
        }
    }

    /// What the task manager says next.
    pub async fn any(&mut self) -> Option<News> {
        soon(self.news.message()).await.ok().flatten().and_then(|message| message.message)
    }

    pub async fn order(&self, term: Term, message: Order) {
        self.orders.send(Ok(v1::JobManagerMessage { term, message: Some(message) })).await.unwrap();
    }

    pub async fn start_worker(&self, term: Term, attempt: Attempt, blob: Option<(BlobHash, u64)>) {
        let start = v1::StartWorker {
            job_id: JOB.to_wire(),
            attempt,
            sha256: blob.map(|(hash, _)| hash.to_wire()).unwrap_or_default(),
            size_bytes: blob.map(|(_, size)| size).unwrap_or_default(),
            arguments: vec!["1000".into()],
            properties: vec![],
            configuration: BTreeMap::from([("parallelism.default".into(), "1".into())]),
            plan_fingerprint: FINGERPRINT,
            cancellation_timeout_ms: 300,
        };
        self.order(term, Order::StartWorker(start)).await;
    }

    pub async fn deploy(&self, term: Term, attempt: Attempt) {
        let deploy = v1::DeployTasks {
            job_id: JOB.to_wire(),
            attempt,
            plan_fingerprint: FINGERPRINT,
            tasks: vec![v1::TaskDeployment { subtask: Some(TASK.into()), ..Default::default() }],
            ..Default::default()
        };
        self.order(term, Order::DeployTasks(deploy)).await;
    }

    pub async fn cancel(&self, term: Term, attempt: Attempt) {
        self.order(
            term,
            Order::CancelTasks(v1::CancelTasks { job_id: JOB.to_wire(), attempt, regions: vec![] }),
        )
        .await;
    }

    pub async fn stop_worker(&self, term: Term) {
        self.order(term, Order::StopWorker(v1::StopWorker { job_id: JOB.to_wire() })).await;
    }

    pub async fn worker_ready(&mut self) -> v1::WorkerReady {
        match self.next().await {
            Some(News::WorkerReady(ready)) => ready,
            other => panic!("{other:?} instead of a ready worker"),
        }
    }

    pub async fn worker_lost(&mut self) -> Failure {
        match self.next().await {
            Some(News::WorkerLost(lost)) => lost.failure.unwrap().try_into().unwrap(),
            other => panic!("{other:?} instead of a lost worker"),
        }
    }

    pub async fn tasks_stopped(&mut self) -> Attempt {
        match self.next().await {
            Some(News::TasksStopped(stopped)) => stopped.attempt,
            other => panic!("{other:?} instead of stopped tasks"),
        }
    }
}

#[tonic::async_trait]
impl TaskManagerService for Service {
    type ConnectStream = ReceiverStream<Result<v1::JobManagerMessage, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::TaskManagerMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        if let Some(leader) = &self.role.follows {
            return Err(not_leader(leader.as_deref()));
        }
        let (orders, stream) = mpsc::channel(16);
        self.accepted.send(Session { news: request.into_inner(), orders }).await.unwrap();
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl BlobService for Service {
    type GetBlobStream = ReceiverStream<Result<v1::BlobChunk, Status>>;

    async fn get_blob(
        &self,
        request: Request<v1::GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        self.blob_requests.fetch_add(1, Ordering::SeqCst);
        let hash = BlobHash::from_wire("sha256", &request.into_inner().sha256)?;
        let Some(mut blob) = self.role.blobs.get(&hash).cloned() else {
            return Err(Status::not_found("not here"));
        };
        if self.role.damages {
            blob[0] ^= 1;
        }
        let (chunks, stream) = mpsc::channel(1_000);
        for chunk in blob.chunks(64 * 1024) {
            chunks.send(Ok(v1::BlobChunk { data: chunk.to_vec().into() })).await.unwrap();
        }
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn put_blob(
        &self,
        _: Request<Streaming<v1::PutBlobRequest>>,
    ) -> Result<Response<v1::PutBlobResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Launches nothing: the test plays the worker.
pub struct TestLauncher {
    launched: mpsc::Sender<LaunchedWorker>,
}

/// A worker that was asked for.
pub struct LaunchedWorker {
    pub spec: WorkerSpec,
    exit: watch::Sender<Option<Failure>>,
    killed: watch::Receiver<bool>,
}

struct TestHandle {
    exit: watch::Receiver<Option<Failure>>,
    killed: watch::Sender<bool>,
}

pub fn test_launcher() -> (Arc<TestLauncher>, mpsc::Receiver<LaunchedWorker>) {
    let (launched, workers) = mpsc::channel(16);
    (Arc::new(TestLauncher { launched }), workers)
}

#[async_trait]
impl WorkerLauncher for TestLauncher {
    async fn launch(&self, spec: WorkerSpec) -> Result<Box<dyn WorkerHandle>, Failure> {
        let (exit, exited) = watch::channel(None);
        let (kill, killed) = watch::channel(false);
        self.launched.send(LaunchedWorker { spec, exit, killed }).await.unwrap();
        Ok(Box::new(TestHandle { exit: exited, killed: kill }))
    }
}

#[async_trait]
impl WorkerHandle for TestHandle {
    async fn exited(&mut self) -> Failure {
        self.exit.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }

    fn kill(&mut self) {
        self.killed.send_replace(true);
    }
}

impl LaunchedWorker {
    /// Plays the worker in place of a process that stands in for one, with what the process was told.
    pub fn of_process(process: &WorkerProcess) -> Self {
        let told = &process.environment;
        let spec = WorkerSpec {
            job_id: told["THALWEG_JOB_ID"].parse().unwrap(),
            worker_id: told["THALWEG_WORKER_ID"].parse().unwrap(),
            token: Token::from_hex(&told["THALWEG_WORKER_TOKEN"]).unwrap(),
            taskmanager_address: told["THALWEG_TASKMANAGER"].clone(),
            binary: None,
            arguments: vec![],
            properties: Default::default(),
            configuration: BTreeMap::new(),
            plan_fingerprint: told["THALWEG_PLAN_FINGERPRINT"].parse().unwrap(),
            data_host: told["THALWEG_DATA_HOST"].clone(),
            log_directory: std::path::PathBuf::new(),
            state_directory: std::path::PathBuf::new(),
            managed_bytes_per_slot: 0,
        };
        Self { spec, exit: watch::channel(None).0, killed: watch::channel(false).1 }
    }

    pub fn exit(&self, message: &str) {
        self.exit.send_replace(Some(Failure::user(message)));
    }

    /// Waits until the task manager kills it, and dies.
    pub async fn killed(&mut self) {
        soon(self.killed.wait_for(|killed| *killed)).await.unwrap();
        self.exit("killed");
    }

    /// Attaches as the worker would.
    pub async fn attach(&self) -> Attached {
        self.attach_with(self.spec.token.as_bytes().to_vec()).await.unwrap()
    }

    pub async fn attach_with(&self, token: Vec<u8>) -> Result<Attached, Status> {
        let channel =
            Dialer::default().connect(&endpoint(&self.spec.taskmanager_address).unwrap()).await.unwrap();
        let (says, queue) = mpsc::channel(16);
        let hello = v1::WorkerHello {
            job_id: self.spec.job_id.to_wire(),
            worker_id: self.spec.worker_id.to_wire(),
            token: token.into(),
            process_id: 1,
            data_port: 6001,
            plan_fingerprint: self.spec.plan_fingerprint,
        };
        says.send(v1::WorkerMessage { message: Some(Said::Hello(hello)) }).await.unwrap();
        let commands = soon(worker_service(channel).attach(ReceiverStream::new(queue))).await?.into_inner();
        Ok(Attached { says, commands })
    }
}

/// A worker's end of its stream.
pub struct Attached {
    says: mpsc::Sender<v1::WorkerMessage>,
    commands: Streaming<v1::WorkerCommand>,
}

impl Attached {
    pub async fn say(&self, message: Said) {
        self.says.send(v1::WorkerMessage { message: Some(message) }).await.unwrap();
    }

    pub async fn say_status(&self, attempt: Attempt, status: v1::TaskStatus) {
        let changed = v1::TaskStatusChanged {
            job_id: JOB.to_wire(),
            attempt,
            subtask: Some(TASK.into()),
            status: status.into(),
            failure: None,
            counters: None,
        };
        self.say(Said::TaskStatusChanged(changed)).await;
    }

    pub async fn say_stopped(&self, attempt: Attempt) {
        self.say(Said::TasksStopped(v1::TasksStopped { job_id: JOB.to_wire(), attempt, regions: vec![] }))
            .await;
    }

    /// The next command; `None` when the stream has ended.
    pub async fn command(&mut self) -> Option<Command> {
        soon(self.commands.message()).await.ok().flatten().and_then(|command| command.message)
    }
}

/// What tests collect from several tasks.
pub type Shared<T> = Arc<Mutex<T>>;

pub fn locked<T>(shared: &Shared<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn worker_id(bytes: &[u8]) -> WorkerId {
    WorkerId::from_wire("worker_id", bytes).unwrap()
}

/// A process, found by the id of the worker that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerProcess {
    pub process: rustix::process::Pid,
    pub environment: BTreeMap<String, String>,
}

impl WorkerProcess {
    /// The process of this worker; waits until there is one that has become the job's binary.
    pub async fn find(worker: Option<WorkerId>, parent: u32) -> Self {
        let search = async {
            loop {
                if let Some(found) = Self::all(parent).into_iter().find(|found| {
                    let id = found.environment.get("THALWEG_WORKER_ID");
                    let name = status(found.process, "Name:").unwrap_or_default();
                    id.is_some()
                        && worker.is_none_or(|worker| id == Some(&worker.to_string()))
                        && !["taskmanager", "exe", ""].contains(&name.as_str())
                }) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(2)).await; // not a wait: the pause between two looks
            }
        };
        soon(search).await
    }

    /// All living children of a process.
    fn all(parent: u32) -> Vec<Self> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap() {
            let path = entry.unwrap().path();
            let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            let Some(process) = number.and_then(rustix::process::Pid::from_raw) else { continue };
            if status(process, "PPid:").as_deref() != Some(&parent.to_string()) {
                continue;
            }
            let environment = std::fs::read(path.join("environ")).unwrap_or_default();
            let environment = String::from_utf8_lossy(&environment)
                .split('\0')
                .filter_map(|entry| entry.split_once('='))
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect();
            found.push(Self { process, environment });
        }
        found
    }

    /// Waits until the process is gone, or a zombie that only waits for somebody to read its exit status.
    pub async fn gone(&self) {
        let poll = async {
            while status(self.process, "State:").is_some_and(|state| !state.starts_with('Z')) {
                tokio::time::sleep(Duration::from_millis(2)).await; // not a wait: the pause between two looks
            }
        };
        soon(poll).await;
    }

    pub fn kill(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.process, signal).unwrap();
    }
}

/// A line of a process's status.
pub fn status(process: rustix::process::Pid, field: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).ok()?;
    text.lines().find_map(|line| line.strip_prefix(field)).map(|value| value.trim().to_string())
}
