//! The lives of jobs: from submission to the end, failures, checkpoints, cancellation.

use std::time::Duration;

use thalweg_common::failure::Fault;
use thalweg_common::id::JobId;
use thalweg_common::status::{JobStatus, TaskStatus};
use thalweg_proto::convert::WireId;
use thalweg_proto::metrics::BackPressure;
use thalweg_proto::model::{CheckpointStatus, SubtaskDetails};
use thalweg_proto::v1;
use thalweg_proto::v1::TaskStatus as Reported;
use thalweg_proto::v1::task_manager_message::Message as Says;

use crate::fake::*;

#[tokio::test]
async fn a_bounded_job_runs_to_its_end() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.task_manager("a", 1).await, cluster.task_manager("b", 1).await);
    let job = cluster.submit(graph(2, None)).await;
    let client = cluster.client().await;
    let mut watch = client.watch(job);
    let mut states = vec![watch.next().await.unwrap().unwrap().summary.status];

    let (on_a, on_b) = tokio::join!(a.deployed(), b.deployed());
    assert_eq!((on_a.attempt, on_a.tasks.len(), on_a.locations.len()), (1, 2, 4));
    assert_eq!(on_a.locations, on_b.locations);
    assert_eq!(on_a.plan_fingerprint, graph(2, None).fingerprint());
    assert_eq!(on_a.checkpoint_directory, "");
    assert_eq!((a.term, b.term), (1, 1));
    for manager in [&a, &b] {
        manager.status(job, 1, Reported::Running).await;
    }
    job_is(&client, job, "all tasks running", |job| job.tasks_running == 4).await;
    // The second report repeats the first: rates are still those since the beginning.
    for (records_out, back_pressured_ms, per_second) in [(42, 0, 42.0), (42, 0, 42.0), (45, 200, 15.0)] {
        let counters = v1::TaskCounters {
            subtask: Some(v1::SubtaskId { vertex: 0, index: 0 }),
            status: Reported::Running.into(),
            records_out,
            busy_ns: 1_000_000_000,
            back_pressured_ns: back_pressured_ms * 1_000_000,
            ..v1::TaskCounters::default()
        };
        let jobs = vec![v1::JobCounters {
            job_id: job.to_wire(),
            attempt: 1,
            tasks: vec![counters],
            ..Default::default()
        }];
        a.say(Says::Heartbeat(v1::Heartbeat { jobs, process: None })).await;
        let told = a.try_next().await.unwrap().unwrap();
        assert!(matches!(told, v1::job_manager_message::Message::HeartbeatAnswer(_)), "{told:?}");
        let details = client.describe(job).await.unwrap();
        let is_it = |task: &&SubtaskDetails| task.counters.records_out == records_out;
        let source = details.vertices[0].subtasks.iter().find(is_it).unwrap();
        assert_eq!((source.task_manager.as_str(), source.counters.status), ("a", TaskStatus::Running));
        let rates = source.metrics.rates.unwrap();
        assert_eq!(rates.num_records_out_per_second, per_second);
        let is_high = rates.back_pressure_level == BackPressure::High;
        assert_eq!(is_high, back_pressured_ms > 0);
    }

    for manager in [&a, &b] {
        manager.status(job, 1, Reported::Drained).await;
    }
    let trigger = a.until(trigger_checkpoint).await;
    assert!(trigger.r#final && trigger.checkpoint_id == 1);
    for manager in [&a, &b] {
        manager.acknowledge(job, 1, 1).await;
    }
    for manager in [&mut a, &mut b] {
        assert!(manager.until(checkpoint_completed).await.r#final);
        manager.status(job, 1, Reported::Finished).await;
    }
    a.until(stop_worker).await;

    while let Some(event) = soon("an event", watch.next()).await.unwrap() {
        states.push(event.summary.status);
    }
    states.dedup();
    assert_eq!(states, [JobStatus::Created, JobStatus::Running, JobStatus::Finished]);
    let details = client.describe(job).await.unwrap();
    assert_eq!(details.history.len(), 2);
    assert!(details.summary.end_time_ms.is_some());
    assert!(
        details
            .vertices
            .iter()
            .flat_map(|vertex| &vertex.subtasks)
            .all(|task| task.counters.status == TaskStatus::Finished)
    );
    assert_eq!(client.list().await.unwrap()[0].status, JobStatus::Finished);
}

#[tokio::test]
async fn a_failed_task_restarts_the_job_and_stale_reports_are_refused() {
    let cluster = Cluster::start().await;
    let mut a = cluster.task_manager("a", 2).await;
    let job = cluster.submit(graph(2, None)).await;
    let client = cluster.client().await;
    a.deployed().await;
    a.status(job, 1, Reported::Running).await;
    job_is(&client, job, "running", |job| job.status == JobStatus::Running).await;

    a.task(job, 1, (1, 0), Reported::Failed).await;
    assert_eq!(a.until(cancel_tasks).await.attempt, 1);
    a.tasks_stopped(job, 1).await;
    assert_eq!(a.deployed().await.attempt, 2);
    // The old attempt has nothing to say any more.
    a.task(job, 1, (0, 0), Reported::Failed).await;
    a.tasks_stopped(job, 1).await;
    a.status(job, 2, Reported::Running).await;
    job_is(&client, job, "running again", |job| job.status == JobStatus::Running && job.attempt == 2).await;

    let details = client.describe(job).await.unwrap();
    assert_eq!(details.failures.len(), 1);
    let record = &details.failures[0];
    assert_eq!(
        (record.task.as_str(), record.task_manager.as_str(), record.attempt),
        ("count (1/2)#1", "a", 1)
    );
    assert_eq!((record.failure.message.as_str(), record.failure.fault), ("panicked: boom", Fault::User));
    let states: Vec<_> = details.history.iter().map(|change| change.to).collect();
    assert_eq!(states, [JobStatus::Running, JobStatus::Restarting, JobStatus::Running]);
}

#[tokio::test]
async fn a_closed_connection_is_a_lost_task_manager() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.task_manager("a", 2).await, cluster.task_manager("b", 2).await);
    let job = cluster.submit(graph(2, None)).await;
    tokio::join!(a.deployed(), b.deployed());
    a.status(job, 1, Reported::Running).await;
    b.status(job, 1, Reported::Running).await;
    let client = cluster.client().await;
    job_is(&client, job, "running", |job| job.status == JobStatus::Running).await;
    drop(b);
    a.until(cancel_tasks).await;
    a.tasks_stopped(job, 1).await;
    let deployment = a.deployed().await;
    assert_eq!(
        (deployment.attempt, deployment.tasks.len()),
        (2, 4),
        "all of it runs on the one that is left"
    );
    let failure = client.describe(job).await.unwrap().failures[0].failure.message.clone();
    assert!(failure.starts_with("lost task manager b: "), "{failure}");
}

#[tokio::test]
async fn a_silent_task_manager_is_lost_after_the_heartbeat_timeout() {
    let cluster = Cluster::configured("heartbeat.interval: 50 ms\nheartbeat.timeout: 300 ms").await;
    let mut a = cluster.task_manager("a", 2).await;
    let job = cluster.submit(graph(1, None)).await;
    a.deployed().await;
    let client = cluster.client().await;
    job_is(&client, job, "a restart", |job| job.status == JobStatus::Restarting).await;
    let failure = client.describe(job).await.unwrap().failures[0].failure.message.clone();
    let reason = "The heartbeat of TaskManager with id a timed out: nothing was heard of it for 300 ms (heartbeat.timeout)";
    assert!(failure.contains(reason), "{failure}");
    assert!(a.try_next().await.unwrap().is_none(), "its connection is closed");
    assert_eq!(client.task_managers().await.unwrap(), []);
}

#[tokio::test]
async fn checkpoints_complete_and_are_restored() {
    let cluster = Cluster::start().await;
    let directory = cluster.directory.path().join("checkpoints");
    let mut a = cluster.task_manager("a", 1).await;
    let job = cluster.submit(graph(1, Some(&directory))).await;
    let client = cluster.client().await;
    let deployment = a.deployed().await;
    let job_directory = directory.join(job.to_string());
    assert_eq!(deployment.checkpoint_directory, job_directory.display().to_string());
    a.status(job, 1, Reported::Running).await;
    for checkpoint in 1..=2 {
        assert_eq!(a.until(trigger_checkpoint).await.checkpoint_id, checkpoint);
        a.acknowledge(job, 1, checkpoint).await;
        assert_eq!(a.until(checkpoint_completed).await.checkpoint_id, checkpoint);
        assert!(job_directory.join(format!("chk-{checkpoint}/_metadata")).is_file());
    }
    soon("the older checkpoint's deletion", async {
        while job_directory.join("chk-1/_metadata").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await; // not a wait: the pause between two looks
        }
    })
    .await;

    a.task(job, 1, (0, 0), Reported::Failed).await;
    a.until(cancel_tasks).await;
    a.tasks_stopped(job, 1).await;
    let deployment = a.deployed().await;
    assert_eq!((deployment.attempt, deployment.restored_checkpoint_id), (2, 2));
    assert!(deployment.tasks.iter().all(|task| task.snapshots == [snapshot()]));
    let checkpoints = client.describe(job).await.unwrap().checkpoints;
    assert_eq!((checkpoints.completed, checkpoints.restored_id), (2, Some(2)));
    let latest = checkpoints.latest.unwrap();
    assert_eq!((latest.id, latest.bytes), (2, 10));

    a.status(job, 2, Reported::Running).await;
    client.cancel(job).await.unwrap();
    a.until(cancel_tasks).await;
    a.tasks_stopped(job, 2).await;
    job_is(&client, job, "the end", |job| job.status == JobStatus::Canceled).await;
    soon("the deletion of all checkpoints", async {
        while job_directory.join("chk-2/_metadata").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await; // not a wait: the pause between two looks
        }
    })
    .await;
}

#[tokio::test]
async fn a_job_waits_for_slots_with_a_reason_and_is_cancelled() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let _a = cluster.task_manager("a", 1).await;
    let job = cluster.submit(graph(3, None)).await;
    let waits = "waiting for 2 of 3 slots: 1 task manager with 1 slot is registered; start more task managers or lower --parallelism";
    job_is(&client, job, "a reason", |job| job.reason == waits).await;
    let mut watch = client.watch(job);
    assert_eq!(watch.next().await.unwrap().unwrap().summary.reason, waits);
    let b = cluster.task_manager("b", 1).await;
    let event = soon("another reason", watch.next()).await.unwrap().unwrap();
    assert!(event.summary.reason.starts_with("waiting for 1 of 3 slots: 2 task managers"), "{event:?}");
    assert_eq!(event.change, None);
    drop(b);
    client.cancel(job).await.unwrap();
    client.cancel(job).await.unwrap();
    job_is(&client, job, "the end", |job| job.status == JobStatus::Canceled).await;
    assert!(client.cancel(JobId(7)).await.unwrap_err().to_string().contains("there is no job"));
    assert!(cluster.manager.cancel(JobId(7)).await.is_err());
}

#[tokio::test]
async fn slots_of_a_job_that_has_ended_go_to_the_one_that_waits() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let mut a = cluster.task_manager("a", 2).await;
    let first = cluster.submit(graph(2, None)).await;
    a.deployed().await;
    let second = cluster.submit(graph(1, None)).await;
    job_is(&client, second, "a reason", |job| job.reason.contains("2 of them taken by other jobs")).await;
    assert_eq!(client.task_managers().await.unwrap()[0].slots_free, 0);
    client.cancel(first).await.unwrap();
    a.until(cancel_tasks).await;
    a.tasks_stopped(first, 1).await;
    let deployment = a.deployed().await;
    assert_eq!(deployment.job_id, second.to_wire());
}

#[tokio::test]
async fn a_stopping_task_manager_gets_no_more_tasks_and_loses_those_it_has() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.task_manager("a", 2).await, cluster.task_manager("b", 2).await);
    let job = cluster.submit(graph(2, None)).await;
    tokio::join!(a.deployed(), b.deployed());
    a.say(Says::Draining(v1::Draining {})).await;
    a.until(cancel_tasks).await;
    b.until(cancel_tasks).await;
    a.tasks_stopped(job, 1).await;
    b.tasks_stopped(job, 1).await;
    let deployment = b.deployed().await;
    assert_eq!((deployment.attempt, deployment.tasks.len()), (2, 4));
    a.until(stop_worker).await;
    assert!(cluster.client().await.describe(job).await.unwrap().failures.is_empty());
}

#[tokio::test]
async fn graphs_and_settings_that_cannot_run_are_refused() {
    let cluster = Cluster::start().await;
    let refused = |graph, key: &str, value: &str| {
        let configuration = [(key.to_string(), value.to_string())].into();
        cluster.manager.submit_embedded(graph, Default::default(), configuration)
    };
    let good = ("parallelism.default", "2");
    let mut wide = graph(2, None);
    wide.vertices[0].parallelism = 129;
    let mut nameless = graph(2, None);
    nameless.name = String::new();
    let mut lost = graph(2, None);
    lost.checkpointing.interval_ms = Some(1_000);
    lost.checkpointing.directory = Some("ftp://host/x".into());
    let table = [
        (wide, good, "parallelism 129"),
        (nameless, good, "name must have"),
        (lost, good, "the checkpoint directory is wrong"),
        (graph(2, None), ("hartbeat.interval", "1 s"), "did you mean `heartbeat.interval`?"),
    ];
    for (graph, (key, value), expected) in table {
        let error = refused(graph, key, value).await.unwrap_err();
        assert!(error.to_string().contains(expected), "`{error}` should contain `{expected}`");
    }
    assert!(cluster.client().await.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn logs_are_gathered_from_all_task_managers() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.task_manager("a", 1).await, cluster.task_manager("b", 1).await);
    let job = cluster.submit(graph(2, None)).await;
    let client = cluster.client().await;
    let answer = |request: &v1::LogsRequest, text: &'static str| {
        let part = v1::LogPart { source: "stdout".into(), data: text.into() };
        let logs = v1::Logs { request_id: request.request_id, parts: vec![part] };
        assert_eq!(request.job_id, job.to_wire());
        Says::Logs(logs)
    };
    let (logs, ()) = tokio::join!(client.logs(job, 100), async {
        let request = a.until(logs_request).await;
        a.say(answer(&request, "from a")).await;
        let request = b.until(logs_request).await;
        assert_eq!(request.tail_bytes, 100);
        b.say(answer(&request, "from b")).await;
    });
    let mut texts: Vec<_> = logs.unwrap().into_iter().map(|part| format!("{part:?}")).collect();
    texts.sort();
    assert_eq!(texts.len(), 2, "{texts:?}");
}

#[tokio::test]
async fn the_history_of_checkpoints_tells_the_phases_that_tasks_report() {
    let cluster = Cluster::start().await;
    let mut a = cluster.task_manager("a", 1).await;
    let checkpoints = cluster.directory.path().join("checkpoints");
    let job = cluster.submit(graph(1, Some(&checkpoints))).await;
    let client = cluster.client().await;
    a.deployed().await;
    a.status(job, 1, Reported::Running).await;
    let trigger = a.until(trigger_checkpoint).await;
    let phases = v1::CheckpointPhases { sync_us: 3, async_us: 4, incremental_bytes: 5, ..Default::default() };
    let tasks = a.tasks.clone();
    for (vertex, index) in tasks {
        a.say(Says::CheckpointAcknowledged(v1::CheckpointAcknowledged {
            job_id: job.to_wire(),
            attempt: 1,
            checkpoint_id: trigger.checkpoint_id,
            subtask: Some(v1::SubtaskId { vertex, index }),
            snapshot: Some(snapshot()),
            phases: Some(phases),
        }))
        .await;
    }
    a.until(checkpoint_completed).await;
    let told = client.checkpoints(job).await.unwrap();
    let first = told.history.iter().find(|one| one.id == trigger.checkpoint_id).unwrap();
    assert_eq!(first.status, CheckpointStatus::Completed);
    assert_eq!((first.subtasks.len(), first.subtasks_total), (2, 2));
    let told_phases = first.subtasks[1].phases;
    assert_eq!((told_phases.sync_us, told_phases.async_us, told_phases.incremental_bytes), (3, 4, 5));
    assert_eq!((first.state_bytes(), first.incremental_bytes()), (10, 10));
    let retained = told.retained.last().unwrap();
    assert!(retained.path.ends_with("_metadata") && retained.unreadable.is_empty(), "{retained:?}");
    let unknown = client.checkpoints(JobId(7)).await.unwrap_err().to_string();
    assert!(unknown.contains("there is no job"), "{unknown}");
}
