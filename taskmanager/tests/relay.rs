//! A task manager between a leader and a worker that are played by the test: what is passed on, what is refused, and what
//! becomes of it all when either end goes away.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use support::{
    JOB, JobManager, LaunchedWorker, Role, Session, TASK, TestLauncher, soon, test_launcher, worker_id,
};
use thalweg_common::id::TaskManagerId;
use thalweg_common::task_scope::TaskScope;
use thalweg_common::telemetry;
use thalweg_proto::blob::BlobHash;
use thalweg_proto::convert::WireId;
use thalweg_proto::v1;
use thalweg_proto::v1::job_manager_message::Message as Order;
use thalweg_proto::v1::task_manager_message::Message as News;
use thalweg_proto::v1::worker_command::Message as Command;
use thalweg_proto::v1::worker_message::Message as Said;
use thalweg_taskmanager::{TaskManager, TaskManagerHandle, TaskManagerOptions};
use tokio::sync::mpsc;

struct Node {
    manager: TaskManagerHandle,
    workers: mpsc::Receiver<LaunchedWorker>,
    data: tempfile::TempDir,
    _scope: TaskScope,
}

async fn node(job_managers: &[&str]) -> Node {
    let (launcher, workers) = test_launcher();
    let data = tempfile::tempdir().unwrap();
    let scope = TaskScope::new("test");
    let manager = start(job_managers, data.path(), launcher, &scope).await.unwrap();
    Node { manager, workers, data, _scope: scope }
}

async fn start(
    job_managers: &[&str],
    data: &std::path::Path,
    launcher: Arc<TestLauncher>,
    scope: &TaskScope,
) -> Result<TaskManagerHandle, thalweg_common::failure::Failure> {
    let job_managers = job_managers.iter().map(ToString::to_string).collect();
    let mut options = TaskManagerOptions::new(TaskManagerId("tm-1".into()), job_managers, data.to_path_buf());
    let settings = [("taskmanager.network.compression.codec", "LZ4"), ("parallelism.default", "7")];
    options.worker_configuration = settings.map(|(key, value)| (key.to_string(), value.to_string())).into();
    options.slots = 2;
    options.attach_timeout = Duration::from_millis(200);
    options.exit_timeout = Duration::from_millis(200);
    TaskManager::start(options, launcher, scope).await
}

impl Node {
    async fn launched(&mut self) -> LaunchedWorker {
        soon(self.workers.recv()).await.unwrap()
    }
}

/// A node with a worker whose task of attempt 1 runs.
async fn running(leader: &mut JobManager) -> (Node, Session, LaunchedWorker, support::Attached) {
    let mut node = node(&[&leader.address]).await;
    let (mut session, _) = leader.register(1).await;
    session.start_worker(1, 1, None).await;
    let worker = node.launched().await;
    let mut attached = worker.attach().await;
    session.worker_ready().await;
    session.deploy(1, 1).await;
    assert!(matches!(attached.command().await, Some(Command::DeployTasks(_))));
    attached.say_status(1, v1::TaskStatus::Running).await;
    assert!(matches!(session.next().await, Some(News::TaskStatusChanged(_))));
    (node, session, worker, attached)
}

#[tokio::test]
async fn a_job_from_its_start_to_its_end() {
    let mut leader = JobManager::leader();
    let mut node = node(&[&leader.address]).await;
    let (mut session, register) = leader.register(1).await;
    assert_eq!((register.task_manager_id.as_str(), register.slots, register.running.len()), ("tm-1", 2, 0));
    soon(node.manager.registered()).await;

    session.start_worker(1, 1, None).await;
    let worker = node.launched().await;
    assert_eq!((worker.spec.job_id, worker.spec.plan_fingerprint), (JOB, support::FINGERPRINT));
    assert_eq!(worker.spec.configuration["parallelism.default"], "1", "the job's own wins");
    assert_eq!(worker.spec.configuration["taskmanager.network.compression.codec"], "LZ4");
    let mut attached = worker.attach().await;
    let ready = session.worker_ready().await;
    assert_eq!(
        (worker_id(&ready.worker_id), ready.data_address.as_str()),
        (worker.spec.worker_id, "127.0.0.1:6001")
    );

    session.deploy(1, 1).await;
    let Some(Command::DeployTasks(deployed)) = attached.command().await else { panic!("no deployment") };
    assert_eq!(deployed.tasks.len(), 1);
    attached.say_status(1, v1::TaskStatus::Running).await;
    assert!(matches!(session.next().await, Some(News::TaskStatusChanged(_))));

    let trigger =
        v1::TriggerCheckpoint { job_id: JOB.to_wire(), attempt: 1, checkpoint_id: 5, ..Default::default() };
    session.order(1, Order::TriggerCheckpoint(trigger.clone())).await;
    assert_eq!(attached.command().await, Some(Command::TriggerCheckpoint(trigger)));
    let acknowledged = v1::CheckpointAcknowledged { attempt: 1, checkpoint_id: 5, ..Default::default() };
    attached.say(Said::CheckpointAcknowledged(acknowledged.clone())).await;
    assert_eq!(session.next().await, Some(News::CheckpointAcknowledged(acknowledged)));

    session.cancel(1, 1).await;
    assert!(matches!(attached.command().await, Some(Command::CancelTasks(_))));
    attached.say_stopped(1).await;
    assert_eq!(session.tasks_stopped().await, 1);

    session.stop_worker(1).await;
    assert!(matches!(attached.command().await, Some(Command::Shutdown(_))));
    worker.exit("as told");
    soon(node.manager.stop()).await;
    assert_eq!(session.next().await, None, "an end that was asked for is no news");
}

#[tokio::test]
async fn counters_travel_with_heartbeats() {
    let mut leader = JobManager::leader();
    let (_node, mut session, _worker, attached) = running(&mut leader).await;
    let task = v1::TaskCounters {
        subtask: Some(TASK.into()),
        records_in: 42,
        busy_ns: 43,
        output_queue_length: 44,
        ..Default::default()
    };
    let counters =
        v1::JobCounters { job_id: JOB.to_wire(), attempt: 1, tasks: vec![task], ..Default::default() };
    attached.say(Said::Counters(counters)).await;
    loop {
        if let Some(News::Heartbeat(heartbeat)) = session.any().await
            && let Some(told) =
                heartbeat.jobs.iter().flat_map(|job| &job.tasks).find(|task| task.records_in == 42)
        {
            assert_eq!((told.busy_ns, told.output_queue_length), (43, 44));
            break;
        }
    }
}

#[tokio::test]
async fn a_leader_that_reads_late_misses_nothing() {
    const ACKNOWLEDGEMENTS: u64 = 600;
    let mut leader = JobManager::leader();
    let (_node, mut session, _worker, attached) = running(&mut leader).await;
    // Far more than the stream's queue and the connection's window hold.
    let inline = v1::snapshot_handle::Location::Inline(vec![7; 60_000].into());
    for checkpoint_id in 0..ACKNOWLEDGEMENTS {
        let snapshot = v1::SnapshotHandle { location: Some(inline.clone()), ..Default::default() };
        let acknowledged = v1::CheckpointAcknowledged {
            attempt: 1,
            checkpoint_id,
            snapshot: Some(snapshot),
            ..Default::default()
        };
        attached.say(Said::CheckpointAcknowledged(acknowledged)).await;
    }
    for expected in 0..ACKNOWLEDGEMENTS {
        match session.next().await {
            Some(News::CheckpointAcknowledged(acknowledged)) => {
                assert_eq!(acknowledged.checkpoint_id, expected)
            }
            other => panic!("{other:?} instead of acknowledgement {expected}"),
        }
    }
}

#[tokio::test]
async fn a_follower_leads_to_the_leader() {
    let mut leader = JobManager::leader();
    let follower = JobManager::start(Role { follows: Some(Some(leader.address.clone())), ..Role::default() });
    let node = node(&[&follower.address]).await;
    leader.register(3).await;
    soon(node.manager.registered()).await;
}

#[tokio::test]
async fn losing_the_leader_touches_nothing_that_runs() {
    let mut first = JobManager::leader();
    let mut second = JobManager::leader();
    let (launcher, mut workers) = test_launcher();
    let (data, scope) = (tempfile::tempdir().unwrap(), TaskScope::new("test"));
    let _manager = start(&[&first.address, &second.address], data.path(), launcher, &scope).await.unwrap();
    let (mut session, _) = first.register(1).await;
    session.start_worker(1, 1, None).await;
    let worker = soon(workers.recv()).await.unwrap();
    let mut attached = worker.attach().await;
    session.worker_ready().await;
    session.deploy(1, 1).await;
    assert!(matches!(attached.command().await, Some(Command::DeployTasks(_))));

    first.kill();
    attached.say_status(1, v1::TaskStatus::Running).await;
    let (session, register) = second.register(2).await;
    let running = &register.running[0];
    assert_eq!((running.attempt, worker_id(&running.worker_id)), (1, worker.spec.worker_id));
    assert_eq!(running.tasks[0].subtask, Some(TASK.into()));

    // The old leader's order comes late, the new one's counts: the worker sees only the latter.
    session.cancel(1, 1).await;
    let completed = v1::CheckpointCompleted { job_id: JOB.to_wire(), attempt: 1, ..Default::default() };
    session.order(2, Order::CheckpointCompleted(completed.clone())).await;
    assert_eq!(attached.command().await, Some(Command::CheckpointCompleted(completed)));
}

#[tokio::test]
async fn a_leader_of_a_lower_term_is_left() {
    let mut current = JobManager::leader();
    let mut stale = JobManager::leader();
    let node = node(&[&current.address, &stale.address]).await;
    let (session, _) = current.register(5).await;
    soon(node.manager.registered()).await;
    drop(session);
    let (mut old, _) = stale.register(4).await;
    assert_eq!(old.next().await, None, "it leaves at once");
    current.register(6).await;
}

#[tokio::test]
async fn a_silent_leader_is_left() {
    telemetry::init("test");
    let (copies, mut logged) = telemetry::LogCopies::new();
    telemetry::copy_to(copies);
    let mut leader = JobManager::leader();
    let _node = node(&[&leader.address]).await;
    let mut session = leader.accept().await;
    let registered =
        v1::Registered { heartbeat_interval_ms: 10, heartbeat_timeout_ms: 100, job_managers: vec![] };
    session.order(1, Order::Registered(registered)).await;
    while session.any().await.is_some() {}
    leader.register(1).await;
    let expected = format!("The heartbeat of JobManager with id {} timed out", leader.address);
    while !logged.recv().await.expect("the process lives").text.contains(&expected) {}
}

#[tokio::test]
async fn a_lost_worker_is_reported() {
    let mut leader = JobManager::leader();
    let (_node, mut session, worker, _attached) = running(&mut leader).await;
    worker.exit("exited with status 3");
    assert_eq!(session.worker_lost().await.message, "exited with status 3");
}

#[tokio::test]
async fn a_worker_that_closes_its_stream_but_lives_is_killed() {
    let mut leader = JobManager::leader();
    let (_node, mut session, mut worker, attached) = running(&mut leader).await;
    drop(attached);
    worker.killed().await;
    let failure = session.worker_lost().await;
    assert!(failure.message.contains("closed its connection"), "{failure}");
}

#[tokio::test]
async fn a_worker_that_does_not_stop_its_tasks_is_killed() {
    let mut leader = JobManager::leader();
    let (_node, mut session, mut worker, mut attached) = running(&mut leader).await;
    session.cancel(1, 1).await;
    assert!(matches!(attached.command().await, Some(Command::CancelTasks(_))));
    worker.killed().await;
    assert!(session.worker_lost().await.message.contains("did not stop within 0.3 s"));
    assert_eq!(session.tasks_stopped().await, 1);
}

#[tokio::test]
async fn a_worker_that_does_not_attach_is_killed() {
    let mut leader = JobManager::leader();
    let mut node = node(&[&leader.address]).await;
    let (mut session, _) = leader.register(1).await;
    session.start_worker(1, 1, None).await;
    let mut worker = node.launched().await;
    worker.killed().await;
    assert!(session.worker_lost().await.message.contains("did not report to its task manager within 0.2 s"));
}

#[tokio::test]
async fn a_wrong_token_is_refused() {
    let mut leader = JobManager::leader();
    let mut node = node(&[&leader.address]).await;
    let (mut session, _) = leader.register(1).await;
    session.start_worker(1, 1, None).await;
    let worker = node.launched().await;
    let refused = worker.attach_with(vec![0; 32]).await.err().unwrap();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    worker.attach().await;
    session.worker_ready().await;
}

#[tokio::test]
async fn a_binary_is_fetched_before_its_worker_is_launched() {
    let bytes = b"not really a program".to_vec();
    let hash = BlobHash::of(&bytes);
    let size = bytes.len() as u64;
    let mut leader =
        JobManager::start(Role { blobs: BTreeMap::from([(hash, bytes.clone())]), ..Role::default() });
    let mut node = node(&[&leader.address]).await;
    let (session, _) = leader.register(1).await;
    session.start_worker(1, 1, Some((hash, size))).await;
    let worker = node.launched().await;
    let binary = worker.spec.binary.clone().unwrap();
    assert_eq!(binary, node.data.path().join("blobs").join(hash.to_string()));
    assert_eq!(std::fs::read(binary).unwrap(), bytes);
}

#[tokio::test]
async fn a_binary_that_nobody_has_is_a_lost_worker() {
    let mut leader = JobManager::leader();
    let _node = node(&[&leader.address]).await;
    let (mut session, _) = leader.register(1).await;
    session.start_worker(1, 1, Some((BlobHash([1; 32]), 5))).await;
    let failure = session.worker_lost().await;
    assert!(failure.message.contains("no job manager gave the job's binary 0101"), "{failure}");
}

#[tokio::test]
async fn logs_are_read_for_the_leader() {
    let mut leader = JobManager::leader();
    let (_node, mut session, worker, _attached) = running(&mut leader).await;
    let log = worker.spec.log_directory.join(format!("{}.out", worker.spec.worker_id));
    std::fs::write(log, "hello").unwrap();
    let request = v1::LogsRequest { request_id: 9, job_id: JOB.to_wire(), tail_bytes: 4 };
    session.order(1, Order::LogsRequest(request)).await;
    let Some(News::Logs(logs)) = session.next().await else { panic!("no logs") };
    assert_eq!(logs.request_id, 9);
    assert_eq!(logs.parts[0].data.as_ref(), b"ello");
    assert_eq!(logs.parts[0].source, format!("stdout {}", worker.spec.worker_id));
}

#[tokio::test]
async fn what_is_said_of_time_is_passed_on_in_both_directions() {
    let mut leader = JobManager::leader();
    let (_node, mut session, _worker, mut attached) = running(&mut leader).await;
    // Of an attempt that has no tasks here nothing is passed on; the next message shows it.
    for attempt in [7, 1] {
        let job_id = JOB.to_wire();
        let sources = v1::SourceWatermarks { job_id: job_id.clone(), attempt, sources: vec![] };
        attached.say(Said::SourceWatermarks(sources)).await;
        let told = v1::TaskTime { job_id, attempt, request_id: 3, ..Default::default() };
        attached.say(Said::TaskTime(told)).await;
    }
    let Some(News::SourceWatermarks(sources)) = session.next().await else { panic!("no watermarks") };
    let Some(News::TaskTime(told)) = session.next().await else { panic!("no time") };
    assert_eq!((sources.attempt, told.attempt, told.request_id), (1, 1, 3));

    for attempt in [0, 1] {
        let said = v1::GroupWatermarks { job_id: JOB.to_wire(), attempt, groups: vec![] };
        session.order(1, Order::GroupWatermarks(said)).await;
        let request = v1::TimeRequest { job_id: JOB.to_wire(), attempt, request_id: 4 };
        session.order(1, Order::TimeRequest(request)).await;
    }
    let Some(Command::GroupWatermarks(said)) = attached.command().await else { panic!("no watermarks") };
    let Some(Command::TimeRequest(request)) = attached.command().await else { panic!("no request") };
    assert_eq!((said.attempt, request.attempt, request.request_id), (1, 1, 4));
}

#[tokio::test]
async fn a_drained_task_manager_has_told_the_leader_and_runs_nothing() {
    let mut leader = JobManager::leader();
    let (node, mut session, worker, mut attached) = running(&mut leader).await;
    assert!(!node.manager.drain(Duration::from_millis(50)).await, "a task runs");
    assert!(matches!(session.next().await, Some(News::Draining(_))));
    session.start_worker(1, 2, None).await;
    assert!(session.worker_lost().await.message.contains("being stopped"));
    session.cancel(1, 1).await;
    assert!(matches!(attached.command().await, Some(Command::CancelTasks(_))));
    attached.say_stopped(1).await;
    assert_eq!(session.tasks_stopped().await, 1);
    assert!(node.manager.drain(support::PATIENCE).await);
    let told = async {
        assert!(matches!(attached.command().await, Some(Command::Shutdown(_))));
        worker.exit("as told");
    };
    soon(async { tokio::join!(node.manager.stop(), told) }).await;
}

#[tokio::test]
async fn two_task_managers_do_not_share_a_data_directory() {
    let leader = JobManager::leader();
    let node = node(&[&leader.address]).await;
    let (launcher, _workers) = test_launcher();
    let scope = TaskScope::new("second");
    let refused = start(&[&leader.address], node.data.path(), launcher.clone(), &scope).await.unwrap_err();
    assert!(refused.message.contains("used by another task manager"), "{refused}");
    soon(node.manager.stop()).await;
    start(&[&leader.address], node.data.path(), launcher, &scope).await.unwrap();
}

#[tokio::test]
async fn wrong_options_are_refused() {
    let (launcher, _workers) = test_launcher();
    let (data, scope) = (tempfile::tempdir().unwrap(), TaskScope::new("test"));
    for job_managers in [&[][..], &["nonsense"]] {
        assert!(!start(job_managers, data.path(), launcher.clone(), &scope).await.unwrap_err().retryable);
    }
}
