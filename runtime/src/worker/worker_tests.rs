//! Whole workers, over gRPC, with a test in the place of the task manager.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use thalweg_common::id::ChannelId;
use thalweg_proto::convert::{SnapshotLocation, WireId, task_status};
use thalweg_proto::v1::exchange_service_client::ExchangeServiceClient;
use thalweg_proto::v1::{self, worker_command, worker_message};

use tokio_stream::StreamExt;

use super::test_manager::{Attempt, JOB, TaskManager, within};
use super::*;
use crate::batch::Batch;
use crate::exchange::{ExchangeSettings, OpenChannel};
use crate::fixtures::{Pair, SOURCES, SUMS, expected_sums, final_sums, pairs, program, sums};
use crate::operator::{Source, SourceContext, SourceStatus};
use crate::operators::{self, Collected, CollectionSource, GeneratorSource};

/// Pairs without end.
fn endless() -> GeneratorSource<impl Fn(u64) -> Pair + Clone + Send + Sync + 'static> {
    GeneratorSource::new(|number| (number % 1_000, 1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_run_a_job_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    for directory in [String::new(), directory.path().display().to_string()] {
        let collected = Collected::default();
        let mut manager = TaskManager::start(sums(CollectionSource::new(pairs(20_000)), 4, &collected)).await;
        let mut workers = [manager.worker(1).await, manager.worker(2).await];
        let mut attempt = Attempt { program: &manager.program, number: 1, workers: &mut workers, directory };
        attempt.deploy(&BTreeMap::new()).await;
        attempt.all_are(TaskStatus::Drained).await;
        attempt.checkpoint(1, true).await;
        assert!(collected.is_empty());
        attempt.completed(1, true).await;
        attempt.all_are(TaskStatus::Finished).await;
        let records = collected.take();
        assert_eq!((records.len(), final_sums(&records)), (20_000, expected_sums(20_000)));
        for worker in workers {
            worker.order(worker_command::Message::Shutdown(v1::Shutdown {})).await;
            assert_eq!(within(worker.ended).await.unwrap(), Ok(()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_from_the_checkpoint_in_the_same_workers() {
    let directory = tempfile::tempdir().unwrap();
    let collected = Collected::default();
    // Enough state that snapshots do not fit into the acknowledgement.
    let source = GeneratorSource::new(|number| (number, 1)).count(60_000);
    let mut manager = TaskManager::start(sums(source, 2, &collected)).await;
    let mut workers = [manager.worker(1).await, manager.worker(2).await];
    let directory_uri = directory.path().display().to_string();

    let mut attempt = Attempt {
        program: &manager.program,
        number: 1,
        workers: &mut workers,
        directory: directory_uri.clone(),
    };
    attempt.deploy(&BTreeMap::new()).await;
    attempt.all_are(TaskStatus::Drained).await;
    let snapshots = attempt.checkpoint(3, false).await;
    attempt.completed(3, false).await;
    let file = "chk-3/1-0-a1";
    let sum = SubtaskId { vertex: SUMS, index: 0 };
    assert_eq!(snapshots[&sum].location, SnapshotLocation::File(file.into()));
    assert!(matches!(
        snapshots[&SubtaskId { vertex: SOURCES, index: 0 }].location,
        SnapshotLocation::Inline(_)
    ));
    for worker in attempt.workers.iter_mut() {
        worker.cancel(1).await;
        let statuses = worker.stopped(1).await;
        assert!(statuses.values().all(|status| *status == TaskStatus::Canceled), "{statuses:?}");
    }

    attempt.number = 2;
    attempt.deploy(&snapshots).await;
    attempt.all_are(TaskStatus::Drained).await;
    attempt.checkpoint(4, true).await;
    attempt.completed(4, true).await;
    attempt.all_are(TaskStatus::Finished).await;
    assert_eq!(collected.take().len(), 60_000);

    // A damaged snapshot is noticed.
    let path = directory.path().join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    attempt.number = 3;
    attempt.deploy(&snapshots).await;
    let (subtask, failure) = attempt.workers[0].failure().await;
    assert_eq!(subtask, sum);
    assert!(failure.message.contains(file) && failure.message.contains("is damaged"), "{failure}");
    for worker in attempt.workers.iter_mut() {
        worker.cancel(3).await;
        worker.stopped(3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_failure_is_the_only_one_and_the_worker_lives_on() {
    let collected = Collected::<Pair>::default();
    let bad = operators::reduce(
        |pair: &Pair| pair.0,
        |a: Pair, b: Pair| {
            assert!(a.1 < 5, "more than enough");
            (a.0, a.1 + b.1)
        },
    );
    let program = program(operators::source(endless()), bad, operators::sink(collected.sink()), 1);
    let mut manager = TaskManager::start(program).await;
    // Both tasks in one worker; a second one that only looks on.
    let mut workers = [manager.worker(1).await];
    let mut attempt =
        Attempt { program: &manager.program, number: 1, workers: &mut workers, directory: String::new() };
    for number in 1..=3 {
        attempt.number = number;
        attempt.deploy(&BTreeMap::new()).await;
        let (subtask, failure) = attempt.workers[0].failure().await;
        assert_eq!(subtask.vertex, SUMS);
        assert!(failure.message.contains("more than enough"), "{failure}");
        attempt.workers[0].cancel(number).await;
        let statuses = attempt.workers[0].stopped(number).await;
        assert_eq!(statuses.get(&SubtaskId { vertex: SOURCES, index: 0 }), Some(&TaskStatus::Canceled));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_deployment_stops_the_older_one_first() {
    let collected = Collected::<Pair>::default();
    let mut manager = TaskManager::start(sums(endless(), 1, &collected)).await;
    let mut workers = [manager.worker(1).await];
    let mut attempt =
        Attempt { program: &manager.program, number: 4, workers: &mut workers, directory: String::new() };
    attempt.deploy(&BTreeMap::new()).await;
    attempt.all_are(TaskStatus::Running).await;
    attempt.number = 5;
    attempt.deploy(&BTreeMap::new()).await;
    let mut canceled = 0;
    while canceled < 2 {
        let worker_message::Message::TaskStatusChanged(changed) = attempt.workers[0].message().await else {
            panic!("only statuses are expected")
        };
        assert_eq!(changed.attempt, 4, "nothing of the new attempt before the old one has ended");
        canceled += i32::from(task_status("status", changed.status).unwrap() == TaskStatus::Canceled);
    }
    attempt.all_are(TaskStatus::Running).await;
    // Unread counters say how far the tasks are.
    let counters = loop {
        let message = within(attempt.workers[0].stream.messages.message()).await.unwrap().unwrap();
        match message.message {
            Some(worker_message::Message::Counters(counters)) if counters.tasks[0].records_in > 0 => {
                break counters;
            }
            Some(worker_message::Message::Counters(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((counters.attempt, counters.tasks.len()), (5, 2));
    assert_eq!(task_status("status", counters.tasks[0].status), Ok(TaskStatus::Running));
    attempt.workers[0].cancel(5).await;
    attempt.workers[0].stopped(5).await;
}

/// A source that cannot be opened.
#[derive(Clone)]
struct Missing;

impl Source for Missing {
    type Out = Pair;

    fn open(&mut self, _: &SourceContext, _: Option<&[u8]>) -> Result<(), Failure> {
        Err(Failure::user("there is no file `input.txt`").permanent())
    }

    fn poll(&mut self, _: &mut Batch<Pair>, _: usize) -> Result<SourceStatus, Failure> {
        Ok(SourceStatus::Finished)
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, Failure> {
        Ok(Vec::new())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_does_not_start_is_a_failure_of_its_own() {
    let mut manager = TaskManager::start(sums(Missing, 1, &Collected::default())).await;
    let mut workers = [manager.worker(1).await];
    let attempt =
        Attempt { program: &manager.program, number: 1, workers: &mut workers, directory: String::new() };
    attempt.deploy(&BTreeMap::new()).await;
    let (subtask, failure) = attempt.workers[0].failure().await;
    assert_eq!(subtask.vertex, SOURCES);
    assert_eq!(failure, Failure::user("source: there is no file `input.txt`").permanent());
    attempt.workers[0].cancel(1).await;
    attempt.workers[0].stopped(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_does_not_outlive_its_task_manager() {
    let mut manager = TaskManager::start(sums(endless(), 2, &Collected::default())).await;
    let mut workers = [manager.worker(1).await];
    let mut attempt =
        Attempt { program: &manager.program, number: 1, workers: &mut workers, directory: String::new() };
    attempt.deploy(&BTreeMap::new()).await;
    attempt.all_are(TaskStatus::Running).await;
    let [worker] = workers;
    drop(worker.stream);
    let failure = within(worker.ended).await.unwrap().expect_err("the task manager is gone");
    assert!(failure.message.contains("task manager"), "{failure}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_plan_ends_the_worker_with_a_word() {
    let mut manager = TaskManager::start(sums(endless(), 1, &Collected::default())).await;
    let mut worker = manager.worker(1).await;
    let deploy =
        v1::DeployTasks { job_id: JOB.to_wire(), attempt: 1, plan_fingerprint: 1, ..Default::default() };
    worker.order(worker_command::Message::DeployTasks(deploy)).await;
    let worker_message::Message::Failed(failure) = worker.message().await else {
        panic!("a failure is expected")
    };
    assert!(failure.message.contains("topology"), "{failure:?}");
    assert!(within(worker.stream.messages.message()).await.unwrap().is_none(), "then it ends its stream");
    drop(worker.stream);
    assert!(within(worker.ended).await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_neighbour_fails_the_channel_and_says_so() {
    let mut manager = TaskManager::start(sums(endless(), 1, &Collected::default())).await;
    let mut worker = manager.worker(1).await;
    let source = SubtaskId { vertex: SOURCES, index: 0 };
    let nowhere = v1::DeployTasks {
        job_id: JOB.to_wire(),
        attempt: 1,
        plan_fingerprint: manager.program.graph.fingerprint(),
        tasks: vec![v1::TaskDeployment { subtask: Some(source.into()), snapshots: Vec::new(), region: 0 }],
        ..Default::default()
    };
    worker.order(worker_command::Message::DeployTasks(nowhere)).await;
    let (subtask, failure) = worker.failure().await;
    assert_eq!(subtask, source);
    assert!(failure.message.contains("does not say where task 1/0 runs"), "{failure}");
    worker.cancel(1).await;
    worker.stopped(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_settings_of_the_exchange_take_effect() {
    let mut program = sums(endless(), 1, &Collected::default());
    program.exchange =
        ExchangeSettings { channel_credit_bytes: 54_321, debloat_target: None, ..program.exchange };
    let mut manager = TaskManager::start(program).await;
    let mut worker = manager.worker(1).await;
    let plan_fingerprint = manager.program.graph.fingerprint();
    let receiver = SubtaskId { vertex: SUMS, index: 0 };
    let deploy = v1::DeployTasks {
        job_id: JOB.to_wire(),
        attempt: 1,
        plan_fingerprint,
        tasks: vec![v1::TaskDeployment { subtask: Some(receiver.into()), snapshots: Vec::new(), region: 0 }],
        ..Default::default()
    };
    worker.order(worker_command::Message::DeployTasks(deploy)).await;

    let channel = ChannelId { edge: 0, from: 0, to: 0 };
    let open =
        v1::OpenChannel::from(OpenChannel { job_id: JOB, region: 0, attempt: 1, channel, plan_fingerprint });
    let open = v1::Frame { sequence: 0, message: Some(v1::frame::Message::Open(open)), backlog: 0 };
    let address = format!("http://{}", worker.data_address);
    let endpoint = tonic::transport::Channel::from_shared(address).unwrap();
    let mut sender = ExchangeServiceClient::new(within(endpoint.connect()).await.unwrap());
    let frames = tokio_stream::once(open).chain(tokio_stream::pending());
    let mut grants = within(sender.open(frames)).await.unwrap().into_inner();
    let grant = within(grants.message()).await.unwrap().unwrap();
    assert_eq!((grant.bytes, grant.window), (54_321, 54_321));
    worker.cancel(1).await;
    worker.stopped(1).await;
}
