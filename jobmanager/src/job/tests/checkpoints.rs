//! Checkpoints as a part of the job's life: what is told, restored and deleted.

use super::*;
use JobStatus::{Finished, Restarting, Running};

/// A running job with checkpoint 1 completed.
pub(super) fn with_checkpoint() -> Bench {
    let mut bench = Bench::running();
    bench.advance(1_000);
    assert_eq!(bench.take_kinds(), ["a:TriggerCheckpoint", "b:TriggerCheckpoint"]);
    bench.acknowledge_all(1);
    assert_eq!(bench.take_kinds(), ["a:CheckpointCompleted", "b:CheckpointCompleted"]);
    bench
}

pub(super) fn restart(bench: &mut Bench) {
    bench.task("a", subtask(0, 0), TaskStatus::Failed);
    bench.stop_tasks_on("a");
    bench.stop_tasks_on("b");
    bench.advance(100);
}

pub(super) fn deleted(bench: &Bench) -> Vec<CheckpointId> {
    let id = |action: &Action| match action {
        Action::DeleteCheckpoint(id) => Some(*id),
        _ => None,
    };
    bench.other.iter().filter_map(id).collect()
}

#[test]
fn a_completed_checkpoint_is_restored_and_replaces_the_one_before() {
    let mut bench = with_checkpoint();
    let latest = bench.record().latest_checkpoint().unwrap().clone();
    assert_eq!((latest.id, latest.attempt, latest.size_bytes, latest.is_final), (1, 1, 4, false));
    assert_eq!(latest.path.as_deref(), Some("/checkpoints/chk-1"));
    bench.advance(1_000);
    bench.acknowledge_all(2);
    assert_eq!(deleted(&bench), [1]);
    restart(&mut bench);
    assert_eq!(bench.record().restored, Some(2));
    bench.take_kinds();
    bench.workers_ready();
    let sent = bench.take_sent();
    let Message::DeployTasks(deployment) = &sent[0].1 else { panic!("{sent:?}") };
    assert_eq!(deployment.restored, Some(2));
    assert_eq!(deployment.tasks[0], (subtask(0, 0), vec![snapshot()]));
    bench.all_tasks(TaskStatus::Running);
    assert_eq!(bench.record().history.back().unwrap().reason, "restored from checkpoint 2");
    bench.advance(1_000);
    bench.acknowledge_all(3);
    assert_eq!(bench.record().latest_checkpoint().unwrap().id, 3);
}

#[test]
fn nobody_hears_of_a_completion_before_the_log_has_it() {
    let mut bench = Bench::running();
    bench.advance(1_000);
    bench.take_kinds();
    bench.hold_log = true;
    bench.acknowledge_all(1);
    assert_eq!(bench.log.len(), 1);
    assert_eq!(bench.take_kinds(), [""; 0]);
    bench.apply_log();
    assert_eq!(bench.take_kinds(), ["a:CheckpointCompleted", "b:CheckpointCompleted"]);
}

#[test]
fn a_checkpoint_that_is_committed_while_the_job_fails_is_restored() {
    let mut bench = Bench::running();
    bench.advance(1_000);
    bench.hold_log = true;
    bench.acknowledge_all(1);
    // All task managers gone: nothing has to be stopped and the next attempt could start at once.
    bench.lose("a");
    bench.lose("b");
    bench.advance(100);
    bench.register("a");
    assert!(!bench.core.wants_slots(), "until the log has decided");
    bench.hold_log = false;
    bench.apply_log();
    bench.offer();
    assert_eq!((bench.attempt(), bench.record().restored), (2, Some(1)));
    assert_eq!(deleted(&bench), [0; 0]);
}

#[test]
fn a_checkpoint_in_progress_dies_with_its_attempt() {
    let mut bench = with_checkpoint();
    bench.advance(1_000);
    bench.acknowledge("a", 2, subtask(0, 0), &snapshot());
    restart(&mut bench);
    assert_eq!(bench.record().restored, Some(1));
    assert_eq!(bench.record().checkpoints_failed, 1);
    bench.workers_ready();
    bench.all_tasks(TaskStatus::Running);
    bench.acknowledge_all(2);
    assert_eq!(bench.record().checkpoints_completed, 1, "an old id means nothing");
    bench.advance(1_000);
    bench.acknowledge_all(3);
    assert_eq!(bench.record().latest_checkpoint().unwrap().id, 3);
    assert_eq!(deleted(&bench), [1, 2], "the replaced one and what late tasks may have left of the other");
}

#[test]
fn a_failed_checkpoint_is_told_and_may_fail_the_job() {
    let mut bench = with_checkpoint();
    bench.advance(1_000);
    bench.take_kinds();
    bench.report(
        "b",
        1,
        News::Declined { checkpoint_id: 2, subtask: subtask(1, 1), failure: failure("disk full") },
    );
    assert_eq!(
        bench.take_kinds(),
        ["a:CheckpointAborted", "b:CheckpointAborted", "a:CancelTasks", "b:CancelTasks"],
        "none is tolerated"
    );
    assert_eq!(bench.status(), Restarting);
    let message = bench.record().failures[0].failure.message.clone();
    assert!(message.contains("count (2/2)#1 declined it: disk full"), "{message}");
}

#[test]
fn workers_start_while_the_metadata_is_read() {
    let mut bench = with_checkpoint();
    bench.hold_files = true;
    restart(&mut bench);
    bench.take_kinds();
    bench.workers_ready();
    assert_eq!(bench.take_kinds(), [""; 0]);
    let result = Ok(bench.files[&1].clone());
    bench.step(Input::MetadataRead { attempt: 1, checkpoint_id: 1, result: result.clone() });
    assert_eq!(bench.take_kinds(), [""; 0], "of another attempt");
    bench.step(Input::MetadataRead { attempt: 2, checkpoint_id: 1, result });
    assert_eq!(bench.take_kinds(), ["a:DeployTasks", "b:DeployTasks"]);
}

/// A job whose final checkpoint is in the log, but no task has ended yet.
fn finishing(graph: JobGraph) -> Bench {
    let mut bench = Bench::submitted(graph, &["a", "b"]);
    bench.workers_ready();
    bench.all_tasks(TaskStatus::Running);
    bench.all_tasks(TaskStatus::Drained);
    bench.acknowledge_all(1);
    assert!(bench.record().latest_checkpoint().unwrap().is_final);
    bench
}

#[test]
fn a_failure_after_the_final_checkpoint_restores_it_and_finishes_again() {
    let mut bench = finishing(checkpointed_graph());
    bench.task("a", subtask(0, 0), TaskStatus::Finished);
    bench.lose("b");
    assert_eq!(bench.status(), Restarting);
    bench.stop_tasks_on("a");
    bench.advance(100);
    assert_eq!(bench.record().restored, Some(1));
    bench.take_kinds();
    bench.workers_ready();
    bench.all_tasks(TaskStatus::Running);
    bench.take_kinds();
    bench.all_tasks(TaskStatus::Drained);
    assert_eq!(
        bench.take_kinds(),
        ["a:TriggerCheckpoint"],
        "this attempt needs a final checkpoint of its own"
    );
    bench.acknowledge_all(2);
    bench.all_tasks(TaskStatus::Finished);
    assert_eq!(bench.status(), Finished);
}

#[test]
fn no_task_may_finish_by_the_final_checkpoint_of_an_earlier_attempt() {
    let mut bench = finishing(checkpointed_graph());
    bench.lose("b");
    bench.stop_tasks_on("a");
    bench.advance(100);
    bench.workers_ready();
    bench.all_tasks(TaskStatus::Running);
    bench.task("a", subtask(0, 0), TaskStatus::Finished);
    assert_eq!(bench.history(), [Running, Restarting, Running, Restarting]);
}

#[test]
fn without_checkpointing_the_final_checkpoint_has_no_file_and_is_never_restored() {
    let mut graph = checkpointed_graph();
    graph.checkpointing.interval_ms = None;
    graph.checkpointing.directory = None;
    let mut bench = finishing(graph);
    assert_eq!(bench.record().latest_checkpoint().unwrap().path, None);
    assert!(bench.files.is_empty());
    bench.lose("b");
    bench.stop_tasks_on("a");
    bench.advance(100);
    assert_eq!((bench.attempt(), bench.record().restored), (2, None));
    bench.workers_ready();
    bench.all_tasks(TaskStatus::Running);
    bench.all_tasks(TaskStatus::Drained);
    bench.acknowledge_all(2);
    bench.all_tasks(TaskStatus::Finished);
    assert_eq!(bench.status(), Finished);
    assert!(deleted(&bench).is_empty() && !bench.other.contains(&Action::DeleteAllCheckpoints));
}

#[test]
fn checkpoints_go_on_while_parts_of_the_job_are_drained() {
    let mut bench = with_checkpoint();
    for vertex in 0..2 {
        bench.task("a", subtask(vertex, 0), TaskStatus::Drained);
    }
    bench.advance(1_000);
    let sent = bench.take_sent();
    let trigger = |message: &Message| matches!(message, Message::TriggerCheckpoint { is_final: false, .. });
    assert!(sent.len() == 2 && sent.iter().all(|(_, message)| trigger(message)), "{sent:?}");
    bench.acknowledge_all(2);
    assert_eq!(
        bench.record().latest_checkpoint().map(|latest| (latest.id, latest.is_final)),
        Some((2, false))
    );
    restart(&mut bench);
    assert_eq!(bench.record().restored, Some(2));
}

#[test]
fn several_checkpoints_at_a_time_are_told_apart() {
    let mut graph = checkpointed_graph();
    graph.checkpointing.max_concurrent = 2;
    graph.checkpointing.tolerable_failures = 1;
    let mut bench = Bench::submitted(graph, &["a", "b"]);
    bench.workers_ready();
    bench.all_tasks(TaskStatus::Running);
    bench.advance(1_000);
    bench.advance(1_000);
    bench.advance(1_000);
    assert_eq!(bench.record().checkpoints_in_progress, [1, 2].into());
    bench.acknowledge("a", 1, subtask(0, 0), &snapshot());
    bench.take_kinds();
    bench.acknowledge_all(2);
    let kinds = bench.take_kinds();
    let expected =
        ["a:CheckpointCompleted", "b:CheckpointCompleted", "a:CheckpointAborted", "b:CheckpointAborted"];
    assert_eq!(kinds[..4], expected, "the older one is over");
    assert_eq!(bench.record().checkpoints_in_progress, [3].into(), "there was room for the next at once");
    assert_eq!((bench.status(), bench.record().checkpoints_failed), (Running, 1));
    let mut bench = bench.new_leader();
    bench.register_with("a", 1, TaskStatus::Running);
    bench.register_with("b", 1, TaskStatus::Running);
    let kinds = bench.take_kinds();
    assert_eq!(kinds.iter().filter(|kind| kind.ends_with("CheckpointAborted")).count(), 2);
    assert!(bench.record().checkpoints_in_progress.is_empty());
}
