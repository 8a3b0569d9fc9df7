//! A job manager on loopback, and task managers that do what a test wants.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::clock::SystemClock;
use thalweg_common::config::{CheckpointConfig, Configuration, RestartStrategy};
use thalweg_common::graph::{Edge, JobGraph, Operator, PROTOCOL_VERSION, Partitioning, Vertex};
use thalweg_common::id::{JobId, OperatorId};
use thalweg_common::security::Security;
use thalweg_common::task_scope::TaskScope;
use thalweg_jobmanager::consensus::local::LocalLog;
use thalweg_jobmanager::consensus::{Consensus, NodeId};
use thalweg_jobmanager::{JobManager, JobManagerHandle, JobManagerOptions, RestListener};
use thalweg_proto::client::JobClient;
use thalweg_proto::convert::WireId;
use thalweg_proto::model::JobSummary;
use thalweg_proto::transport::{Dialer, endpoint, task_manager_service};
use thalweg_proto::v1;
use thalweg_proto::v1::job_manager_message::Message as Told;
use thalweg_proto::v1::task_manager_message::Message as Says;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Status, Streaming};

/// Longest wait for anything. Far more than it takes, because the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for `what` and fails with its name when it does not come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen in {DEADLINE:?}"))
}

/// `source -> count`, checkpointed into `directory` if there is one, restarted after 10 ms for ever.
pub fn graph(parallelism: u32, directory: Option<&std::path::Path>) -> JobGraph {
    let vertex = |number: u32, name: &str| Vertex {
        name: name.into(),
        parallelism,
        max_parallelism: 128,
        slot_sharing_group: "default".into(),
        operators: vec![Operator {
            node: number,
            id: OperatorId(u64::from(number) + 1),
            uid: None,
            name: name.into(),
            kind: "map".into(),
            location: "src/main.rs:1".into(),
            inputs: vec![],
            input_tag: None,
            states: vec![],
            key_schema: None,
            time: None,
        }],
    };
    JobGraph {
        protocol_version: PROTOCOL_VERSION,
        name: "word_count".into(),
        vertices: vec![vertex(0, "source"), vertex(1, "count")],
        edges: vec![Edge {
            source: 0,
            source_operator: 0,
            tag: None,
            target: 1,
            partitioning: Partitioning::Hash,
            schema_fingerprint: 1,
        }],
        checkpointing: CheckpointConfig {
            interval_ms: directory.map(|_| 20),
            directory: directory.map(|directory| directory.display().to_string()),
            ..CheckpointConfig::default()
        },
        restart_strategy: RestartStrategy::FixedDelay { attempts: RestartStrategy::UNLIMITED, delay_ms: 10 },
        warnings: vec![],
    }
}

/// One job manager with a log in memory.
pub struct Cluster {
    pub directory: tempfile::TempDir,
    pub manager: JobManagerHandle,
    pub log: Arc<LocalLog>,
    pub scope: TaskScope,
}

impl Cluster {
    pub async fn start() -> Self {
        Self::configured("").await
    }

    pub async fn configured(settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let log = Arc::new(LocalLog::new(listener.local_addr().unwrap().to_string()));
        let scope = TaskScope::new("test");
        let configuration = Configuration::from_yaml(settings).unwrap();
        let data = directory.path().join("data");
        let manager =
            start(1, listener, log.clone(), configuration, data, None, Routes::default(), &scope).await;
        Self { directory, manager, log, scope }
    }

    pub async fn client(&self) -> JobClient {
        JobClient::connect(vec![self.manager.address.clone()]).await.unwrap()
    }

    pub async fn task_manager(&self, name: &str, slots: u32) -> FakeTaskManager {
        FakeTaskManager::connect(&self.manager.address, name, slots, vec![]).await.unwrap()
    }

    pub async fn submit(&self, graph: JobGraph) -> JobId {
        self.manager.submit_embedded(graph, Default::default(), BTreeMap::new()).await.unwrap()
    }
}

#[expect(clippy::too_many_arguments, reason = "spelled out once, here")]
pub async fn start(
    id: NodeId,
    listener: TcpListener,
    consensus: Arc<dyn Consensus>,
    mut configuration: Configuration,
    data_directory: PathBuf,
    plan_program: Option<PathBuf>,
    routes: Routes,
    scope: &TaskScope,
) -> JobManagerHandle {
    configuration.set("rest.port", "0").unwrap();
    let options = JobManagerOptions {
        id,
        address: listener.local_addr().unwrap().to_string(),
        listener,
        data_directory,
        plan_program,
        clock: SystemClock::shared(),
        security: Security::default(),
        routes,
        rest: Some(RestListener::bind(&configuration, "127.0.0.1").await.unwrap()),
        configuration,
    };
    JobManager::start(options, consensus, scope).await.unwrap()
}

/// Waits until a job is as wanted.
pub async fn job_is(client: &JobClient, job_id: JobId, what: &str, is: impl Fn(&JobSummary) -> bool) {
    soon(what, async {
        loop {
            if is(&client.describe(job_id).await.unwrap().summary) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await; // not a wait: the pause between two looks
        }
    })
    .await;
}

/// A task manager without workers: a test says what it reports.
pub struct FakeTaskManager {
    pub name: String,
    pub term: u64,
    says: mpsc::Sender<v1::TaskManagerMessage>,
    told: Streaming<v1::JobManagerMessage>,
    /// Tasks of the last deployment.
    pub tasks: BTreeSet<(u32, u32)>,
}

impl FakeTaskManager {
    pub async fn connect(
        address: &str,
        name: &str,
        slots: u32,
        running: Vec<v1::RunningTasks>,
    ) -> Result<Self, Status> {
        let channel = Dialer::default().connect_lazy(&endpoint(address).unwrap());
        let (says, queue) = mpsc::channel(64);
        let tasks = running.iter().flat_map(|running| &running.tasks).filter_map(|task| task.subtask);
        let tasks = tasks.map(|subtask| (subtask.vertex, subtask.index)).collect();
        let register = v1::Register {
            task_manager_id: name.into(),
            host: format!("{name}.example"),
            slots,
            labels: vec!["fake".into()],
            running,
        };
        says.try_send(v1::TaskManagerMessage { message: Some(Says::Register(register)) }).unwrap();
        let told = task_manager_service(channel).connect(ReceiverStream::new(queue)).await?.into_inner();
        let mut manager = Self { name: name.into(), term: 0, says, told, tasks };
        match manager.next().await {
            Told::Registered(_) => Ok(manager),
            other => panic!("expected a registration: {other:?}"),
        }
    }

    pub async fn try_next(&mut self) -> Result<Option<Told>, Status> {
        let message = soon("a message of the leader", self.told.message()).await?;
        Ok(message.map(|message| {
            self.term = message.term;
            message.message.unwrap()
        }))
    }

    /// What the leader says next; heartbeats are left out.
    pub async fn next(&mut self) -> Told {
        loop {
            match self.try_next().await.unwrap().expect("the stream goes on") {
                Told::HeartbeatAnswer(_) => {}
                message => return message,
            }
        }
    }

    /// The next message of one kind; others are passed over.
    pub async fn until<T>(&mut self, pick: impl Fn(Told) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.next().await) {
                return found;
            }
        }
    }

    pub async fn say(&self, message: Says) {
        self.says.send(v1::TaskManagerMessage { message: Some(message) }).await.unwrap();
    }

    pub fn worker_id(&self) -> bytes::Bytes {
        thalweg_common::id::WorkerId(self.name.bytes().map(u128::from).sum()).to_wire()
    }

    pub async fn worker_ready(&self, start: &v1::StartWorker) {
        self.say(Says::WorkerReady(v1::WorkerReady {
            job_id: start.job_id.clone(),
            attempt: start.attempt,
            worker_id: self.worker_id(),
            data_address: format!("{}:1", self.name),
        }))
        .await;
    }

    /// Starts the worker and returns the deployment.
    pub async fn deployed(&mut self) -> v1::DeployTasks {
        let start = self.until(start_worker).await;
        self.worker_ready(&start).await;
        let deployment = self.until(deploy_tasks).await;
        let subtasks = deployment.tasks.iter().map(|task| task.subtask.unwrap());
        self.tasks = subtasks.map(|subtask| (subtask.vertex, subtask.index)).collect();
        deployment
    }

    pub async fn status(&self, job: JobId, attempt: u32, status: v1::TaskStatus) {
        for (vertex, index) in &self.tasks {
            self.task(job, attempt, (*vertex, *index), status).await;
        }
    }

    pub async fn task(&self, job: JobId, attempt: u32, (vertex, index): (u32, u32), status: v1::TaskStatus) {
        let failure = (status == v1::TaskStatus::Failed)
            .then(|| thalweg_common::failure::Failure::user("panicked: boom").into());
        self.say(Says::TaskStatusChanged(v1::TaskStatusChanged {
            job_id: job.to_wire(),
            attempt,
            subtask: Some(v1::SubtaskId { vertex, index }),
            status: status.into(),
            failure,
            counters: None,
        }))
        .await;
    }

    pub async fn acknowledge(&self, job: JobId, attempt: u32, checkpoint_id: u64) {
        for (vertex, index) in &self.tasks {
            self.say(Says::CheckpointAcknowledged(v1::CheckpointAcknowledged {
                job_id: job.to_wire(),
                attempt,
                checkpoint_id,
                subtask: Some(v1::SubtaskId { vertex: *vertex, index: *index }),
                snapshot: Some(snapshot()),
                ..v1::CheckpointAcknowledged::default()
            }))
            .await;
        }
    }

    pub async fn tasks_stopped(&self, job: JobId, attempt: u32) {
        self.say(Says::TasksStopped(v1::TasksStopped { job_id: job.to_wire(), attempt, regions: vec![] }))
            .await;
    }

    /// What it would report to a new leader.
    pub fn running(&self, job: JobId, attempt: u32, status: v1::TaskStatus) -> Vec<v1::RunningTasks> {
        let task = |(vertex, index): &(u32, u32)| v1::TaskCounters {
            subtask: Some(v1::SubtaskId { vertex: *vertex, index: *index }),
            status: status.into(),
            ..v1::TaskCounters::default()
        };
        vec![v1::RunningTasks {
            job_id: job.to_wire(),
            attempt,
            worker_id: self.worker_id(),
            data_address: format!("{}:1", self.name),
            tasks: self.tasks.iter().map(task).collect(),
        }]
    }
}

pub fn snapshot() -> v1::SnapshotHandle {
    let bytes = bytes::Bytes::from_static(b"state");
    v1::SnapshotHandle {
        size_bytes: 5,
        checksum: 7,
        shared: vec![],
        location: Some(v1::snapshot_handle::Location::Inline(bytes)),
    }
}

macro_rules! pick {
    ($($function:ident: $variant:ident -> $message:ident),* $(,)?) => {$(
        pub fn $function(told: Told) -> Option<v1::$message> {
            match told {
                Told::$variant(message) => Some(message),
                _ => None,
            }
        }
    )*};
}

pick! {
    start_worker: StartWorker -> StartWorker,
    deploy_tasks: DeployTasks -> DeployTasks,
    cancel_tasks: CancelTasks -> CancelTasks,
    trigger_checkpoint: TriggerCheckpoint -> TriggerCheckpoint,
    checkpoint_completed: CheckpointCompleted -> CheckpointCompleted,
    stop_worker: StopWorker -> StopWorker,
    logs_request: LogsRequest -> LogsRequest,
    group_watermarks: GroupWatermarks -> GroupWatermarks,
    time_request: TimeRequest -> TimeRequest,
}
