//! From submission to the end when nothing goes wrong, and cancellation at every point.

use super::*;
use JobStatus::{Canceled, Cancelling, Created, Finished, Restarting, Running};

#[test]
fn a_bounded_job_goes_from_submission_to_its_end() {
    let mut bench = Bench::submitted(checkpointed_graph(), &["a", "b"]);
    assert_eq!((bench.status(), bench.attempt()), (Created, 1));
    assert_eq!(bench.take_kinds(), ["a:StartWorker", "b:StartWorker"]);
    bench.report("a", 1, News::WorkerReady(worker("a")));
    assert_eq!(bench.take_kinds(), [""; 0], "tasks are deployed when all workers are ready");
    bench.report("b", 1, News::WorkerReady(worker("b")));
    let sent = bench.take_sent();
    let Message::DeployTasks(deployment) = &sent[1].1 else { panic!("{sent:?}") };
    assert_eq!(sent[1].0, "b");
    assert_eq!(deployment.tasks, [(subtask(0, 1), vec![]), (subtask(1, 1), vec![])]);
    assert_eq!(deployment.locations.len(), 4);
    assert_eq!(deployment.locations[0], (subtask(0, 0), worker("a")));
    assert!(
        bench.logged("Deploying source (1/2)#1 to flink-taskmanager-a")
            && bench.logged("Deploying count (2/2)#1 to flink-taskmanager-b")
    );

    bench.all_tasks(TaskStatus::Initializing);
    assert_eq!(bench.status(), Created);
    bench.all_tasks(TaskStatus::Running);
    assert_eq!(bench.status(), Running);
    assert!(bench.logged(&format!("Job test ({JOB}) switched from CREATED to RUNNING.")));

    bench.all_tasks(TaskStatus::Drained);
    assert_eq!(bench.take_kinds(), ["a:TriggerCheckpoint", "b:TriggerCheckpoint"]);
    bench.acknowledge_all(1);
    let sent = bench.take_sent();
    let expected = Message::CheckpointCompleted { attempt: 1, checkpoint_id: 1, is_final: true };
    assert_eq!(sent, [("a".into(), expected.clone()), ("b".into(), expected)]);
    bench.all_tasks(TaskStatus::Finished);
    assert_eq!((bench.status(), bench.core.is_ended()), (Finished, true));
    assert_eq!(bench.take_kinds(), ["a:StopWorker", "b:StopWorker"]);
    assert!(bench.other.contains(&Action::DeleteAllCheckpoints));
    assert_eq!(bench.core.slots().count(), 0);
}

#[test]
fn a_task_may_be_drained_before_others_run() {
    let mut bench = Bench::submitted(checkpointed_graph(), &["a", "b"]);
    bench.workers_ready();
    for vertex in 0..2 {
        bench.task("a", subtask(vertex, 0), TaskStatus::Running);
        bench.task("a", subtask(vertex, 0), TaskStatus::Drained);
    }
    bench.task("b", subtask(0, 1), TaskStatus::Drained);
    assert_eq!(bench.status(), Created);
    bench.take_kinds();
    bench.task("b", subtask(1, 1), TaskStatus::Drained);
    assert_eq!(bench.status(), Running);
    assert_eq!(bench.take_kinds(), ["a:TriggerCheckpoint", "b:TriggerCheckpoint"]);
}

#[test]
fn a_job_waits_for_slots_with_a_reason_and_starts_when_they_come() {
    let mut bench = Bench::submitted(checkpointed_graph(), &[]);
    assert_eq!(
        bench.core.waits_for(),
        "waiting for 2 of 2 slots: no task manager is registered; start more task managers or lower --parallelism"
    );
    assert_eq!(bench.attempt(), 0);
    bench.register("a");
    assert_eq!((bench.attempt(), bench.core.waits_for()), (1, ""));
    assert_eq!(bench.take_kinds(), ["a:StartWorker"]);
    assert_eq!(bench.core.slots().collect::<BTreeSet<_>>().len(), 2);
}

#[test]
fn slots_that_never_come_are_a_failure() {
    let mut bench = Bench::submitted(checkpointed_graph(), &[]);
    bench.advance(PATIENCE.slot_request_ms - 1);
    assert_eq!(bench.status(), Created);
    bench.advance(1);
    assert_eq!(bench.status(), Restarting);
    let message = bench.record().failures[0].failure.message.clone();
    let line = "Flink job did not start within a total timeout of 1 minute for application: test";
    assert!(bench.logged(line));
    assert!(
        message.starts_with("no slots within 60000 ms (slot.request.timeout): waiting for 2 of 2"),
        "{message}"
    );
    bench.advance(100);
    bench.advance(PATIENCE.slot_request_ms);
    bench.advance(100);
    bench.advance(PATIENCE.slot_request_ms);
    assert_eq!(bench.status(), JobStatus::Failed, "two restarts are allowed");
    assert_eq!(bench.attempt(), 0);
}

#[test]
fn tasks_are_started_only_for_an_attempt_that_is_in_the_log() {
    let mut bench = Bench::submitted(checkpointed_graph(), &[]);
    bench.hold_log = true;
    bench.register("a");
    assert_eq!(bench.log.len(), 1);
    assert_eq!(bench.take_kinds(), [""; 0]);
    bench.apply_log();
    assert_eq!(bench.take_kinds(), ["a:StartWorker"]);
}

/// Brings a job into a state in which it is then cancelled, and what must be told to stop.
#[test]
fn a_job_is_cancelled_from_every_state() {
    type Prepare = fn() -> Bench;
    let table: [(&str, Prepare, &[&str]); 7] = [
        ("waiting", || Bench::submitted(checkpointed_graph(), &[]), &[]),
        ("starting workers", || Bench::submitted(checkpointed_graph(), &["a", "b"]), &["a", "b"]),
        (
            "deploying",
            || {
                let mut bench = Bench::submitted(checkpointed_graph(), &["a", "b"]);
                bench.workers_ready();
                bench
            },
            &["a", "b"],
        ),
        ("running", Bench::running, &["a", "b"]),
        (
            "one task manager lost, stopping for a restart",
            || {
                let mut bench = Bench::running();
                bench.lose("b");
                bench
            },
            &["a"],
        ),
        (
            "waiting for the restart",
            || {
                let mut bench = Bench::running();
                bench.task("a", subtask(0, 0), TaskStatus::Failed);
                bench.stop_tasks_on("a");
                bench.stop_tasks_on("b");
                assert!(matches!(bench.core.phase, Phase::Delayed { .. }));
                bench
            },
            &[],
        ),
        (
            "starting again",
            || {
                let mut bench = Bench::running();
                bench.task("a", subtask(0, 0), TaskStatus::Failed);
                bench.stop_tasks_on("a");
                bench.stop_tasks_on("b");
                bench.advance(100);
                assert_eq!(bench.attempt(), 2);
                bench
            },
            &["a", "b"],
        ),
    ];
    for (name, prepare, still_running) in table {
        let mut bench = prepare();
        bench.step(Input::Cancel);
        bench.step(Input::Cancel);
        if !still_running.is_empty() {
            assert_eq!(bench.status(), Cancelling, "{name}");
        }
        for task_manager in still_running {
            assert!(!bench.core.is_ended(), "{name}");
            bench.stop_tasks_on(task_manager);
        }
        assert_eq!(bench.status(), Canceled, "{name}");
        assert!(bench.core.is_ended() && bench.core.slots().count() == 0, "{name}");
        assert!(bench.other.contains(&Action::DeleteAllCheckpoints), "{name}");
        assert_eq!(bench.history().iter().filter(|status| **status == Cancelling).count(), 1, "{name}");
        bench.advance(1_000_000);
        assert_eq!(bench.core.deadline(), None, "{name}");
    }
}

#[test]
fn a_job_that_fails_for_good_can_still_be_cancelled() {
    let mut graph = checkpointed_graph();
    graph.restart_strategy = thalweg_common::config::RestartStrategy::None;
    let mut bench = Bench::submitted(graph, &["a", "b"]);
    bench.workers_ready();
    bench.task("a", subtask(0, 0), TaskStatus::Failed);
    assert_eq!(bench.status(), JobStatus::Failing);
    bench.step(Input::Cancel);
    assert_eq!(bench.status(), Cancelling);
    bench.stop_tasks_on("a");
    bench.stop_tasks_on("b");
    assert_eq!(bench.status(), Canceled);
}

#[test]
fn an_ended_job_takes_no_notice() {
    let mut bench = Bench::running();
    bench.step(Input::Cancel);
    bench.stop_tasks_on("a");
    bench.stop_tasks_on("b");
    assert!(bench.core.is_ended());
    bench.take_kinds();
    let history = bench.history();
    bench.step(Input::Cancel);
    bench.task("a", subtask(0, 0), TaskStatus::Failed);
    bench.lose("a");
    bench.advance(1_000_000);
    assert_eq!(bench.history(), history);
    bench.register_with("b", 1, TaskStatus::Running);
    assert_eq!(bench.take_kinds(), ["b:StopWorker"], "whoever still runs it is told to stop");
}

#[test]
fn a_stopping_task_manager_loses_its_tasks_without_a_counted_failure() {
    let mut bench = Bench::running();
    bench.registered.remove(&tm("b"));
    bench.step(Input::Draining { task_manager: tm("b") });
    assert_eq!(bench.status(), Restarting);
    assert_eq!(bench.take_kinds(), ["a:CancelTasks", "b:CancelTasks"]);
    bench.stop_tasks_on("b");
    bench.stop_tasks_on("a");
    assert_eq!((bench.attempt(), bench.members()), (2, vec!["a".to_string()]), "at once, elsewhere");
    assert_eq!(bench.take_kinds(), ["b:StopWorker", "a:StartWorker"]);
    assert_eq!((bench.record().restarts.restarts, bench.record().failures.len()), (0, 0));
    bench.step(Input::Draining { task_manager: tm("c") });
    assert_eq!(bench.attempt(), 2, "a stranger");
}
