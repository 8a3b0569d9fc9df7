//! A new leader in each state of the job.

use super::*;
use JobStatus::{Canceled, Cancelling, Failed, Failing, Finished, Restarting, Running};

#[test]
fn a_running_job_goes_on_when_its_task_managers_are_back() {
    let mut bench = Bench::running().new_leader();
    assert_eq!(bench.take_kinds(), [""; 0]);
    bench.register_with("a", 1, TaskStatus::Running);
    assert!(matches!(bench.core.phase, Phase::Adopting { .. }));
    bench.register("stranger");
    bench.register_with("b", 1, TaskStatus::Running);
    assert_eq!((bench.core.phase.clone(), bench.status(), bench.attempt()), (Phase::Running, Running, 1));
    assert!(bench.logged(&format!("Job test ({JOB}) goes on in attempt 1.")));
    assert_eq!(bench.take_kinds(), [""; 0], "nothing is disturbed");
    bench.advance(1_000);
    assert_eq!(bench.take_kinds(), ["a:TriggerCheckpoint", "b:TriggerCheckpoint"]);
    bench.acknowledge_all(1);
    assert_eq!(bench.record().checkpoints_completed, 1);
    bench.task("a", subtask(0, 0), TaskStatus::Failed);
    assert_eq!(bench.take_kinds()[2..], ["a:CancelTasks", "b:CancelTasks"]);
}

#[test]
fn news_may_come_before_all_are_back() {
    let mut bench = Bench::running().new_leader();
    bench.register_with("a", 1, TaskStatus::Running);
    bench.task("a", subtask(0, 0), TaskStatus::Drained);
    bench.register_with("b", 1, TaskStatus::Running);
    let status = bench.core.tasks().find(|(id, ..)| *id == subtask(0, 0)).unwrap().2;
    assert_eq!(status, TaskStatus::Drained);
}

#[test]
fn whatever_does_not_run_any_more_is_a_failure() {
    type Fail = fn(&mut Bench);
    let table: [(&str, Fail, &str); 7] = [
        (
            "missing",
            |bench| bench.advance(10_000),
            "lost task manager b: it did not register with the new leader",
        ),
        ("gone again", |bench| bench.lose("a"), "lost task manager a: connection closed"),
        ("runs nothing", |bench| bench.register("b"), "task manager b does not run its tasks any more"),
        (
            "another attempt",
            |bench| bench.register_with("b", 7, TaskStatus::Running),
            "task manager b does not run its tasks any more",
        ),
        (
            "task failed",
            |bench| bench.register_with("b", 1, TaskStatus::Failed),
            "the task was FAILED when the new leader took over",
        ),
        (
            "task being cancelled",
            |bench| bench.register_with("b", 1, TaskStatus::Canceling),
            "the task was CANCELING when the new leader took over",
        ),
        (
            "task fails meanwhile",
            |bench| bench.task("a", subtask(0, 0), TaskStatus::Failed),
            "panicked: boom",
        ),
    ];
    for (name, fail, message) in table {
        let mut bench = Bench::running().new_leader();
        bench.register_with("a", 1, TaskStatus::Running);
        fail(&mut bench);
        bench.advance(200);
        assert_eq!(bench.status(), Restarting, "{name}");
        let found = bench.record().failures[0].failure.message.clone();
        assert!(found.starts_with(message), "{name}: {found}");
        bench.registered = BTreeSet::from([tm("a")]);
        bench.stop_tasks_on("a");
        bench.stop_tasks_on("b");
        bench.advance(100);
        bench.offer();
        assert_eq!(bench.attempt(), 2, "{name}");
    }
}

#[test]
fn a_cause_that_the_old_leader_missed_is_told_to_the_new_one() {
    let lost = |bench: &mut Bench| bench.report("b", 1, worker_lost("b", failure("signal 9")));
    let failed = |bench: &mut Bench| bench.task("b", subtask(1, 1), TaskStatus::Failed);
    type Tell<'a> = &'a dyn Fn(&mut Bench);
    let table: [(Option<TaskStatus>, Tell<'_>, &str); 2] =
        [(None, &lost, "signal 9"), (Some(TaskStatus::Failed), &failed, "panicked: boom")];
    for (reported, tell, message) in table {
        let mut bench = Bench::running().new_leader();
        match reported {
            Some(status) => bench.register_with("b", 1, status),
            None => bench.register("b"),
        }
        bench.register_with("a", 1, TaskStatus::Running);
        assert_eq!(bench.status(), Running);
        tell(&mut bench);
        assert_eq!(bench.status(), Restarting);
        assert_eq!(bench.record().failures[0].failure.message, message);
    }
}

#[test]
fn a_job_being_cancelled_is_cancelled_to_its_end() {
    let mut bench = Bench::running();
    bench.step(Input::Cancel);
    assert_eq!(bench.status(), Cancelling);
    let mut bench = bench.new_leader();
    bench.register_with("a", 1, TaskStatus::Running);
    assert_eq!(bench.take_kinds(), ["a:CancelTasks"]);
    bench.register_with("b", 1, TaskStatus::Canceled);
    assert_eq!(bench.status(), Cancelling);
    bench.stop_tasks_on("a");
    assert_eq!(bench.status(), Canceled);
    assert_eq!(bench.take_kinds(), ["a:StopWorker", "b:StopWorker"]);
}

#[test]
fn a_failing_job_fails_even_if_nobody_comes_back() {
    let mut bench = Bench::running();
    bench.report("a", 1, worker_lost("a", failure("x").permanent()));
    assert_eq!(bench.status(), Failing);
    let mut bench = bench.new_leader();
    bench.advance(9_999);
    assert_eq!(bench.status(), Failing);
    bench.advance(1);
    assert_eq!(bench.status(), Failed);
}

#[test]
fn a_job_that_waited_is_started_when_the_cluster_has_settled() {
    let mut bench = Bench::submitted(checkpointed_graph(), &[]).new_leader();
    bench.register("a");
    assert_eq!(bench.attempt(), 0, "others may be coming back too");
    bench.register("b");
    bench.advance(1_000);
    assert_eq!((bench.attempt(), bench.members().len()), (1, 2));
}

#[test]
fn a_job_that_was_being_deployed_starts_a_new_attempt() {
    let mut bench = Bench::submitted(checkpointed_graph(), &["a", "b"]);
    bench.workers_ready();
    let mut bench = bench.new_leader();
    bench.register_with("a", 1, TaskStatus::Initializing);
    let cancel = Message::CancelTasks { attempt: 1, regions: BTreeSet::new() };
    assert_eq!(bench.take_sent(), [("a".into(), cancel)]);
    bench.register("b");
    bench.advance(1_000);
    assert_eq!(bench.attempt(), 2);
    bench.workers_ready();
    bench.all_tasks(TaskStatus::Running);
    assert_eq!(bench.status(), Running);
}

#[test]
fn a_job_that_was_restarting_waits_for_the_rest_of_its_delay() {
    let mut graph = checkpointed_graph();
    graph.restart_strategy =
        thalweg_common::config::RestartStrategy::FixedDelay { attempts: 1, delay_ms: 30_000 };
    let mut bench = Bench::submitted(graph, &["a", "b"]);
    bench.workers_ready();
    bench.task("a", subtask(0, 0), TaskStatus::Failed);
    bench.now_ms += 10_000;
    let mut bench = bench.new_leader();
    bench.register("a");
    bench.advance(19_999);
    assert_eq!(bench.attempt(), 1);
    bench.advance(1);
    assert_eq!(bench.attempt(), 2);
    bench.workers_ready();
    bench.task("a", subtask(0, 0), TaskStatus::Failed);
    assert_eq!(bench.status(), Failing, "the new leader counts the restarts of the old one");
}

#[test]
fn a_checkpoint_in_progress_is_aborted_by_the_new_leader() {
    let mut bench = Bench::running();
    bench.advance(1_000);
    assert_eq!(bench.record().checkpoints_in_progress, [1].into());
    let mut bench = bench.new_leader();
    bench.register_with("a", 1, TaskStatus::Running);
    bench.register_with("b", 1, TaskStatus::Running);
    assert_eq!(bench.take_kinds(), ["a:CheckpointAborted", "b:CheckpointAborted"]);
    assert!(bench.record().checkpoints_in_progress.is_empty());
    assert_eq!(bench.record().checkpoints_failed, 1);
    bench.acknowledge_all(1);
    assert_eq!(bench.record().checkpoints_completed, 0);
    bench.advance(1_000);
    bench.acknowledge_all(2);
    assert_eq!(bench.record().latest_checkpoint().unwrap().id, 2);
}

#[test]
fn a_completion_that_the_old_leader_did_not_tell_is_told_by_the_new_one() {
    let mut bench = Bench::running();
    bench.advance(1_000);
    bench.acknowledge_all(1);
    let mut bench = bench.new_leader();
    bench.register_with("a", 1, TaskStatus::Running);
    bench.register_with("b", 1, TaskStatus::Running);
    let expected = Message::CheckpointCompleted { attempt: 1, checkpoint_id: 1, is_final: false };
    assert_eq!(bench.take_sent(), [("a".into(), expected.clone()), ("b".into(), expected)]);
}

#[test]
fn drained_tasks_get_their_final_checkpoint_from_the_new_leader() {
    let mut bench = Bench::running().new_leader();
    bench.register_with("a", 1, TaskStatus::Drained);
    bench.register_with("b", 1, TaskStatus::Drained);
    assert_eq!(bench.take_kinds(), ["a:TriggerCheckpoint", "b:TriggerCheckpoint"]);
    bench.acknowledge_all(1);
    bench.all_tasks(TaskStatus::Finished);
    assert_eq!(bench.status(), Finished);
}

#[test]
fn a_final_checkpoint_is_told_again_and_finished_tasks_count() {
    let mut bench = Bench::running();
    bench.all_tasks(TaskStatus::Drained);
    bench.acknowledge_all(1);
    let mut bench = bench.new_leader();
    bench.register_with("a", 1, TaskStatus::Drained);
    bench.register_with("b", 1, TaskStatus::Finished);
    let sent = bench.take_sent();
    assert!(matches!(sent[0].1, Message::CheckpointCompleted { is_final: true, .. }), "{sent:?}");
    for vertex in 0..2 {
        bench.task("a", subtask(vertex, 0), TaskStatus::Finished);
    }
    assert_eq!(bench.status(), Finished);
}

#[test]
fn a_job_whose_tasks_have_all_finished_is_finished_by_the_new_leader() {
    let mut bench = Bench::running();
    bench.all_tasks(TaskStatus::Drained);
    bench.acknowledge_all(1);
    let mut bench = bench.new_leader();
    bench.register_with("a", 1, TaskStatus::Finished);
    bench.register_with("b", 1, TaskStatus::Finished);
    assert_eq!(bench.status(), Finished);
}

#[test]
fn a_task_manager_lost_between_the_final_checkpoint_and_the_end_is_a_restart_under_the_new_leader() {
    let mut bench = Bench::running();
    bench.all_tasks(TaskStatus::Drained);
    bench.acknowledge_all(1);
    let mut bench = bench.new_leader();
    bench.register_with("a", 1, TaskStatus::Finished);
    bench.register("b");
    bench.advance(200);
    assert_eq!(bench.status(), Restarting);
    bench.stop_tasks_on("a");
    bench.stop_tasks_on("b");
    bench.advance(100);
    assert_eq!((bench.attempt(), bench.record().restored), (2, Some(1)));
}

#[test]
fn a_job_is_cancelled_while_it_is_being_adopted() {
    let mut bench = Bench::running().new_leader();
    bench.register_with("a", 1, TaskStatus::Running);
    bench.step(Input::Cancel);
    assert_eq!(bench.status(), Cancelling);
    bench.register_with("b", 1, TaskStatus::Running);
    assert_eq!(bench.take_kinds(), ["a:CancelTasks", "b:CancelTasks"]);
    bench.stop_tasks_on("a");
    bench.stop_tasks_on("b");
    assert_eq!(bench.status(), Canceled);
}
