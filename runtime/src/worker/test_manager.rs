//! A test in the place of the task manager: starts workers, gives them orders and reads what they say.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::id::{CheckpointId, JobId, SubtaskId, WorkerId};
use thalweg_common::security::Security;
use thalweg_common::status::TaskStatus;
use thalweg_common::task_scope::{ErrorPolicy, TaskScope};
use thalweg_proto::convert::{SnapshotHandle, WireId, task_status};
use thalweg_proto::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use thalweg_proto::v1::{self, worker_command, worker_message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::{WorkerOptions, run};
use crate::program::Program;

const DEADLINE: Duration = Duration::from_secs(30);

pub(super) const JOB: JobId = JobId(7);

/// A task manager that accepts workers and hands them to the test.
pub(super) struct TaskManager {
    pub(super) address: SocketAddr,
    pub(super) attached: mpsc::Receiver<Attached>,
    pub(super) program: Arc<Program>,
    pub(super) scope: TaskScope,
}

/// The stream of one worker.
pub(super) struct Attached {
    pub(super) messages: Streaming<v1::WorkerMessage>,
    pub(super) commands: mpsc::Sender<Result<v1::WorkerCommand, Status>>,
}

struct Service {
    attached: mpsc::Sender<Attached>,
}

#[tonic::async_trait]
impl WorkerService for Service {
    type AttachStream = ReceiverStream<Result<v1::WorkerCommand, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (commands, receiver) = mpsc::channel(100);
        let attached = Attached { messages: request.into_inner(), commands };
        self.attached.send(attached).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// A worker and the test's side of its stream.
pub(super) struct TestWorker {
    pub(super) id: WorkerId,
    pub(super) data_address: String,
    pub(super) stream: Attached,
    pub(super) ended: tokio::sync::oneshot::Receiver<Result<(), Failure>>,
}

impl TaskManager {
    pub(super) async fn start(program: Program) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, attached) = mpsc::channel(10);
        let scope = TaskScope::with_policy("test", ErrorPolicy::LogOnly);
        let server = tonic::transport::Server::builder()
            .add_service(WorkerServiceServer::new(Service { attached: sender }))
            .serve_with_incoming(TcpListenerStream::new(listener));
        scope.spawn_fallible("task manager", server);
        Self { address, attached, program: Arc::new(program), scope }
    }

    pub(super) async fn worker(&mut self, id: u128) -> TestWorker {
        let options = WorkerOptions {
            taskmanager_address: self.address.to_string(),
            job_id: JOB,
            worker_id: WorkerId(id),
            token: vec![1, 2, 3],
            data_host: "127.0.0.1".into(),
            local: true,
            managed_bytes_per_slot: None,
            security: Security::default(),
            state_directory: std::env::temp_dir().join(format!("thalweg-test-{}", std::process::id())),
        };
        let (end, ended) = tokio::sync::oneshot::channel();
        let work = run(Arc::clone(&self.program), options, self.scope.child(format!("worker-{id}")));
        self.scope.spawn("worker", async move { drop(end.send(work.await)) });
        let mut stream = within(self.attached.recv()).await.unwrap();
        let hello = within(stream.messages.message()).await.unwrap().unwrap().message;
        let Some(worker_message::Message::Hello(hello)) = hello else {
            panic!("{hello:?} instead of a hello")
        };
        assert_eq!(hello.job_id, JOB.to_wire());
        assert_eq!(
            (&hello.token[..], hello.plan_fingerprint),
            (&[1, 2, 3][..], self.program.graph.fingerprint())
        );
        assert_eq!(hello.process_id, std::process::id());
        TestWorker { id: WorkerId(id), data_address: format!("127.0.0.1:{}", hello.data_port), stream, ended }
    }
}

pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it happens within the deadline")
}

impl TestWorker {
    pub(super) async fn order(&self, message: worker_command::Message) {
        self.stream.commands.send(Ok(v1::WorkerCommand { message: Some(message) })).await.unwrap();
    }

    /// The next message that is not about counters.
    pub(super) async fn message(&mut self) -> worker_message::Message {
        loop {
            let message = within(self.stream.messages.message()).await.unwrap().expect("the worker goes on");
            match message.message.unwrap() {
                worker_message::Message::Counters(_) => {}
                message => return message,
            }
        }
    }

    pub(super) async fn cancel(&self, attempt: u32) {
        let job_id = JOB.to_wire();
        let cancel = v1::CancelTasks { job_id, attempt, regions: vec![0] };
        self.order(worker_command::Message::CancelTasks(cancel)).await;
    }

    /// Reads statuses until the attempt is reported as stopped.
    pub(super) async fn stopped(&mut self, attempt: u32) -> BTreeMap<SubtaskId, TaskStatus> {
        let mut statuses = BTreeMap::new();
        loop {
            match self.message().await {
                worker_message::Message::TaskStatusChanged(changed) => {
                    let status = task_status("status", changed.status).unwrap();
                    statuses.insert(changed.subtask.unwrap().into(), status);
                }
                worker_message::Message::TasksStopped(stopped) => {
                    assert_eq!(stopped.attempt, attempt);
                    return statuses;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub(super) async fn failure(&mut self) -> (SubtaskId, Failure) {
        loop {
            match self.message().await {
                worker_message::Message::TaskStatusChanged(v1::TaskStatusChanged {
                    subtask: Some(subtask),
                    failure: Some(failure),
                    ..
                }) => return (subtask.into(), failure.try_into().unwrap()),
                worker_message::Message::TaskStatusChanged(_) => {}
                other => panic!("{other:?} instead of a failure"),
            }
        }
    }
}

/// Where the subtasks run: those with an even index in the first worker, the others in the last one.
fn place(subtask: SubtaskId, workers: &[TestWorker]) -> &TestWorker {
    &workers[subtask.index as usize % workers.len()]
}

pub(super) struct Attempt<'a> {
    pub(super) program: &'a Program,
    pub(super) number: u32,
    pub(super) workers: &'a mut [TestWorker],
    pub(super) directory: String,
}

impl Attempt<'_> {
    pub(super) async fn deploy(&self, restored: &BTreeMap<SubtaskId, SnapshotHandle>) {
        for worker in self.workers.iter() {
            let location = |subtask: SubtaskId| {
                let there = place(subtask, self.workers);
                let (worker_id, data_address) = (there.id.to_wire(), there.data_address.clone());
                v1::TaskLocation { subtask: Some(subtask.into()), worker_id, data_address }
            };
            let task = |subtask: SubtaskId| v1::TaskDeployment {
                subtask: Some(subtask.into()),
                snapshots: restored.get(&subtask).cloned().map(Into::into).into_iter().collect(),
                region: 0,
            };
            let all = || self.program.graph.subtasks();
            let here = all().filter(|subtask| place(*subtask, self.workers).id == worker.id);
            let deploy = v1::DeployTasks {
                job_id: JOB.to_wire(),
                attempt: self.number,
                plan_fingerprint: self.program.graph.fingerprint(),
                tasks: here.map(task).collect(),
                locations: all().map(location).collect(),
                checkpoint_directory: self.directory.clone(),
                restore_directory: String::new(),
                savepoint: None,
                restored_checkpoint_id: 0,
            };
            worker.order(worker_command::Message::DeployTasks(deploy)).await;
        }
    }

    /// Waits until every task has this status.
    pub(super) async fn all_are(&mut self, wanted: TaskStatus) {
        for index in 0..self.workers.len() {
            let id = self.workers[index].id;
            let here = |subtask: &SubtaskId| place(*subtask, self.workers).id == id;
            let mut missing: Vec<SubtaskId> = self.program.graph.subtasks().filter(here).collect();
            while !missing.is_empty() {
                match self.workers[index].message().await {
                    worker_message::Message::TaskStatusChanged(changed) => {
                        assert_eq!((changed.attempt, &changed.failure), (self.number, &None));
                        if task_status("status", changed.status).unwrap() == wanted {
                            let subtask = changed.subtask.unwrap().into();
                            missing.retain(|other| *other != subtask);
                        }
                    }
                    other => panic!("{other:?} while waiting for {wanted}"),
                }
            }
        }
    }

    /// Triggers a checkpoint and collects all acknowledgements.
    pub(super) async fn checkpoint(
        &mut self,
        id: CheckpointId,
        is_final: bool,
    ) -> BTreeMap<SubtaskId, SnapshotHandle> {
        for worker in self.workers.iter() {
            let trigger = v1::TriggerCheckpoint {
                job_id: JOB.to_wire(),
                attempt: self.number,
                checkpoint_id: id,
                timestamp_ms: 1,
                r#final: is_final,
                savepoint_directory: String::new(),
            };
            worker.order(worker_command::Message::TriggerCheckpoint(trigger)).await;
        }
        let mut snapshots = BTreeMap::new();
        for index in 0..self.workers.len() {
            let wid = self.workers[index].id;
            let here = self
                .program
                .graph
                .subtasks()
                .filter(|subtask| place(*subtask, self.workers).id == wid)
                .count();
            let mut missing = here;
            while missing > 0 {
                match self.workers[index].message().await {
                    worker_message::Message::CheckpointAcknowledged(acknowledged) => {
                        assert_eq!((acknowledged.attempt, acknowledged.checkpoint_id), (self.number, id));
                        let handle = SnapshotHandle::try_from(acknowledged.snapshot.unwrap()).unwrap();
                        let phases = acknowledged.phases.unwrap();
                        assert!(phases.start_delay_us > 0, "the trigger was in 1970");
                        assert_eq!(phases.incremental_bytes, handle.size_bytes);
                        snapshots.insert(acknowledged.subtask.unwrap().into(), handle);
                        missing -= 1;
                    }
                    worker_message::Message::TaskStatusChanged(changed) => assert_eq!(changed.failure, None),
                    other => panic!("{other:?} during checkpoint {id}"),
                }
            }
        }
        snapshots
    }

    pub(super) async fn completed(&self, id: CheckpointId, is_final: bool) {
        for worker in self.workers.iter() {
            let completed = v1::CheckpointCompleted {
                job_id: JOB.to_wire(),
                attempt: self.number,
                checkpoint_id: id,
                r#final: is_final,
            };
            worker.order(worker_command::Message::CheckpointCompleted(completed)).await;
        }
    }
}
