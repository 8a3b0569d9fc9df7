//! Failures: the first decides, the rest is noise; stale reports; restarts.

use super::*;
use JobStatus::{Failed, Failing, Restarting, Running};
use thalweg_common::config::RestartStrategy;

#[test]
fn a_failed_task_restarts_the_job() {
    let mut bench = Bench::running();
    bench.task("b", subtask(1, 1), TaskStatus::Failed);
    assert_eq!(bench.status(), Restarting);
    assert!(bench.logged(&format!("Job test ({JOB}) switched from RUNNING to RESTARTING.")));
    assert!(
        bench.logged("count (2/2)#1 switched from RUNNING to FAILED on flink-taskmanager-b: panicked: boom")
    );
    assert_eq!(bench.take_kinds(), ["a:CancelTasks", "b:CancelTasks"]);
    let record = bench.record().failures[0].clone();
    assert_eq!(
        (record.task.as_str(), record.task_manager.as_str(), record.attempt),
        ("count (2/2)#1", "b", 1)
    );
    assert_eq!(record.failure.message, "panicked: boom");

    bench.stop_tasks_on("a");
    bench.advance(100);
    assert_eq!(bench.attempt(), 1, "not before all have stopped");
    bench.stop_tasks_on("b");
    assert_eq!(bench.attempt(), 2, "the delay was over by then");
    assert_eq!(bench.take_kinds(), ["a:StartWorker", "b:StartWorker"]);
    bench.workers_ready();
    bench.all_tasks(TaskStatus::Running);
    assert_eq!(bench.history(), [Running, Restarting, Running]);
    assert_eq!(bench.record().restarts.restarts, 1);
}

#[test]
fn the_restart_waits_for_its_delay() {
    let mut bench = Bench::running();
    bench.task("b", subtask(1, 1), TaskStatus::Failed);
    bench.stop_tasks_on("a");
    bench.stop_tasks_on("b");
    assert_eq!(bench.core.deadline(), Some(bench.now_ms + 100));
    assert_eq!(bench.core.slots().count(), 4, "its slots are kept meanwhile");
    bench.advance(99);
    assert_eq!(bench.attempt(), 1);
    bench.advance(1);
    assert_eq!(bench.attempt(), 2);
}

#[test]
fn the_first_failure_of_an_attempt_decides() {
    let mut bench = Bench::running();
    bench.task("b", subtask(1, 1), TaskStatus::Failed);
    bench.task("a", subtask(0, 0), TaskStatus::Failed);
    bench.report("a", 1, worker_lost("a", failure("exit status 3")));
    bench.task("a", subtask(1, 0), TaskStatus::Canceled);
    assert_eq!(bench.history(), [Running, Restarting]);
    assert_eq!(bench.record().failures.len(), 1);
    bench.stop_tasks_on("b");
    bench.lose("a");
    assert!(!bench.logged("The assigned slot a_0 was removed."), "nothing ran in it any more");
    bench.advance(100);
    assert_eq!((bench.attempt(), bench.members()), (2, vec!["b".to_string()]));
    assert_eq!(bench.record().failures.len(), 1, "a lost task manager that had to stop anyway");
}

#[test]
fn failures_while_deploying_restart_too() {
    type Fail = fn(&mut Bench);
    let table: [(&str, bool, Fail, &str); 5] = [
        (
            "task manager lost before workers are ready",
            false,
            |bench| bench.lose("b"),
            "lost task manager b: connection closed",
        ),
        (
            "worker could not be started",
            false,
            |bench| bench.report("b", 1, worker_lost("b", failure("exit status 3"))),
            "exit status 3",
        ),
        (
            "task manager lost after deployment",
            true,
            |bench| bench.lose("b"),
            "lost task manager b: connection closed",
        ),
        ("task failed", true, |bench| bench.task("b", subtask(0, 1), TaskStatus::Failed), "panicked: boom"),
        (
            "worker died",
            true,
            |bench| bench.report("b", 1, worker_lost("b", failure("signal 9"))),
            "signal 9",
        ),
    ];
    for (name, deployed, fail, message) in table {
        let mut bench = Bench::submitted(checkpointed_graph(), &["a", "b"]);
        if deployed {
            bench.workers_ready();
        }
        bench.take_kinds();
        fail(&mut bench);
        assert_eq!(bench.history(), [Restarting], "{name}");
        assert_eq!(bench.record().failures[0].failure.message, message, "{name}");
        assert_eq!(bench.take_kinds()[0], "a:CancelTasks", "{name}");
        bench.stop_tasks_on("a");
        bench.stop_tasks_on("b");
        bench.advance(100);
        assert_eq!(bench.attempt(), 2, "{name}");
    }
}

#[test]
fn a_task_manager_lost_before_its_worker_was_asked_for() {
    let mut bench = Bench::submitted(checkpointed_graph(), &[]);
    bench.hold_log = true;
    bench.register("a");
    assert_eq!(bench.core.phase, Phase::Starting);
    bench.lose("a");
    bench.apply_log();
    assert_eq!(bench.history(), [Restarting]);
    assert_eq!(bench.record().attempt, 1);
    assert_eq!(bench.take_kinds(), [""; 0]);
    bench.advance(100);
    bench.register("b");
    bench.apply_log();
    assert_eq!((bench.attempt(), bench.take_kinds()), (2, vec!["b:StartWorker".to_string()]));
}

#[test]
fn a_task_that_fails_while_the_job_restarts_fails_the_new_attempt() {
    let mut bench = Bench::running();
    bench.task("a", subtask(0, 0), TaskStatus::Failed);
    bench.stop_tasks_on("a");
    bench.stop_tasks_on("b");
    bench.advance(100);
    bench.workers_ready();
    bench.task("a", subtask(0, 0), TaskStatus::Failed);
    assert_eq!(bench.history(), [Running, Restarting, Restarting]);
    bench.stop_tasks_on("a");
    bench.stop_tasks_on("b");
    bench.advance(100);
    assert_eq!(bench.attempt(), 3);
    bench.workers_ready();
    bench.task("a", subtask(0, 0), TaskStatus::Failed);
    assert_eq!(bench.status(), Failing, "two restarts are allowed");
    bench.stop_tasks_on("a");
    bench.stop_tasks_on("b");
    assert_eq!(bench.status(), Failed);
    assert!(bench.record().history.iter().any(|change| change.reason.contains("2 restarts are used up")));
    assert!(!bench.other.contains(&Action::DeleteAllCheckpoints), "kept for whoever looks into it");
    assert_eq!(bench.record().failures.len(), 3);
}

#[test]
fn what_would_repeat_fails_the_job_at_once() {
    let mut bench = Bench::running();
    bench.report("a", 1, worker_lost("a", failure("the plan differs").permanent()));
    assert_eq!(bench.status(), Failing);
    bench.stop_tasks_on("a");
    bench.stop_tasks_on("b");
    assert_eq!(bench.status(), Failed);
}

#[test]
fn reports_of_other_attempts_are_refused() {
    let mut bench = Bench::running();
    bench.task("a", subtask(0, 0), TaskStatus::Failed);
    bench.stop_tasks_on("a");
    bench.stop_tasks_on("b");
    bench.advance(100);
    bench.workers_ready();
    bench.all_tasks(TaskStatus::Running);
    assert_eq!((bench.status(), bench.attempt()), (Running, 2));
    let stale = [
        News::Task { subtask: subtask(0, 0), status: TaskStatus::Failed, failure: Some(failure("old")) },
        worker_lost("an old one", failure("old")),
        News::WorkerReady(worker("x")),
        News::TasksStopped(BTreeSet::new()),
        News::Acknowledged {
            checkpoint_id: 1,
            subtask: subtask(0, 0),
            snapshot: snapshot(),
            phases: CheckpointPhases::default(),
        },
        News::Declined { checkpoint_id: 1, subtask: subtask(0, 0), failure: failure("old") },
    ];
    for (number, news) in stale.into_iter().enumerate() {
        bench.report("a", 1, news.clone());
        assert_eq!(bench.refused_stale(), 3 * number + 1, "{news:?}");
        bench.report("a", 3, news.clone());
        bench.report("stranger", 2, news.clone());
        assert_eq!(bench.refused_stale(), 3 * number + 3, "{news:?}");
    }
    assert_eq!((bench.status(), bench.record().failures.len()), (Running, 1));
}

#[test]
fn a_task_manager_speaks_for_its_own_tasks_only() {
    let mut bench = Bench::running();
    bench.task("a", subtask(0, 1), TaskStatus::Failed);
    assert_eq!((bench.status(), bench.refused_stale()), (Running, 1));
}

#[test]
fn tasks_that_end_by_themselves_are_failures() {
    for status in [TaskStatus::Finished, TaskStatus::Canceled, TaskStatus::Canceling] {
        let mut bench = Bench::running();
        bench.task("a", subtask(0, 0), status);
        assert_eq!(bench.status(), Restarting, "{status}");
    }
}

#[test]
fn a_task_manager_that_does_not_stop_its_tasks_is_cut_off() {
    let mut bench = Bench::running();
    bench.task("a", subtask(0, 0), TaskStatus::Failed);
    bench.stop_tasks_on("a");
    bench.advance(PATIENCE.cancellation_ms + 29_999);
    assert_eq!(bench.attempt(), 1);
    bench.registered.remove(&tm("b"));
    bench.advance(1);
    let cut = |action: &Action| matches!(action, Action::Disconnect { task_manager, .. } if *task_manager == tm("b"));
    assert!(bench.other.iter().any(cut));
    assert_eq!((bench.attempt(), bench.members()), (2, vec!["a".to_string()]));
    bench.lose("b");
    assert_eq!(bench.attempt(), 2, "it is no part of this attempt");
}

#[test]
fn a_task_manager_that_comes_back_with_old_tasks_is_told_to_cancel_them() {
    let mut bench = Bench::running();
    bench.lose("b");
    bench.take_kinds();
    // While the attempt is being stopped: it is waited for.
    bench.register_with("b", 1, TaskStatus::Running);
    assert_eq!(bench.take_kinds(), ["b:CancelTasks"]);
    bench.stop_tasks_on("a");
    assert!(matches!(bench.core.phase, Phase::Stopping { .. }));
    bench.stop_tasks_on("b");
    bench.advance(100);
    bench.workers_ready();
    bench.all_tasks(TaskStatus::Running);
    assert_eq!((bench.status(), bench.attempt()), (Running, 2));
    bench.take_kinds();
    // Later: nobody waits, but its tasks must go.
    bench.register_with("c", 1, TaskStatus::Running);
    let cancel = Message::CancelTasks { attempt: 2, regions: BTreeSet::new() };
    assert_eq!(bench.take_sent(), [("c".into(), cancel)]);
    assert_eq!(bench.status(), Running);
}

#[test]
fn a_job_without_restarts_ends_with_its_failure() {
    let mut graph = checkpointed_graph();
    graph.restart_strategy = RestartStrategy::None;
    let mut bench = Bench::submitted(graph, &["a", "b"]);
    bench.workers_ready();
    bench.all_tasks(TaskStatus::Running);
    bench.step(Input::Draining { task_manager: tm("b") });
    assert_eq!(bench.status(), Running, "it cannot move away");
    bench.take_kinds();
    bench.lose("b");
    assert_eq!(bench.status(), Failing);
    bench.stop_tasks_on("a");
    assert_eq!(bench.status(), Failed);
    assert_eq!(bench.take_kinds(), ["a:CancelTasks", "a:StopWorker"]);
}
