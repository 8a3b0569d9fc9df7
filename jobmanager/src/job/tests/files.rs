//! Which checkpoints and files are kept, which deleted, and what is restored when the newest cannot be.

use thalweg_common::config::{CheckpointRetention, RestartStrategy};

use super::checkpoints::{deleted, restart, with_checkpoint};
use super::*;
use JobStatus::{Canceled, Restarting, Running};

/// A running job that keeps this many checkpoints.
fn keeping(retained: u32) -> Bench {
    let mut graph = checkpointed_graph();
    graph.checkpointing.retained = retained;
    graph.checkpointing.tolerable_failures = 10;
    graph.restart_strategy = RestartStrategy::FixedDelay { attempts: 10, delay_ms: 100 };
    let mut bench = Bench::submitted(graph, &["a", "b"]);
    bench.workers_ready();
    bench.all_tasks(TaskStatus::Running);
    bench
}

fn shared(checkpoint: CheckpointId, name: &str) -> SharedFile {
    let path = SharedFile::path(1, checkpoint, subtask(0, 0), name);
    SharedFile { path, size_bytes: 7, checksum: 8 }
}

fn with_shared(files: &[&SharedFile]) -> SnapshotHandle {
    SnapshotHandle { shared: files.iter().map(|file| (*file).clone()).collect(), ..snapshot() }
}

/// The next checkpoint, completed, with these shared files.
fn complete(bench: &mut Bench, files: &[&SharedFile]) -> CheckpointId {
    bench.advance(1_000);
    let id = bench.record().last_checkpoint_id;
    bench.acknowledge_with(id, &with_shared(files));
    assert_eq!(bench.record().latest_checkpoint().map(|latest| latest.id), Some(id));
    id
}

fn deleted_files(bench: &Bench) -> Vec<String> {
    let files = |action: &Action| match action {
        Action::DeleteShared(paths) => paths.clone(),
        _ => vec![],
    };
    bench.other.iter().flat_map(files).collect()
}

fn ready_again(bench: &mut Bench) {
    bench.workers_ready();
    bench.all_tasks(TaskStatus::Running);
    assert_eq!(bench.status(), Running);
}

#[test]
fn as_many_checkpoints_are_kept_as_configured() {
    let mut bench = keeping(3);
    for _ in 0..5 {
        complete(&mut bench, &[]);
    }
    assert_eq!(deleted(&bench), [1, 2]);
    let kept: Vec<_> = bench.record().checkpoints.iter().map(|checkpoint| checkpoint.id).collect();
    assert_eq!(kept, [3, 4, 5]);
}

#[test]
fn shared_files_go_with_the_last_checkpoint_that_names_them_and_not_before_the_log_says_so() {
    let mut bench = keeping(2);
    let (a, b, c) = (shared(1, "a"), shared(1, "b"), shared(3, "c"));
    complete(&mut bench, &[&a, &b]);
    complete(&mut bench, &[&b]);
    bench.hold_log = true;
    bench.advance(1_000);
    bench.apply_log();
    bench.acknowledge_with(3, &with_shared(&[&b, &c]));
    assert_eq!(
        (deleted(&bench), deleted_files(&bench)),
        (vec![], vec![]),
        "checkpoint 3 is not in the log yet"
    );
    bench.apply_log();
    assert_eq!((deleted(&bench), deleted_files(&bench)), (vec![1], vec![a.path]));
    let latest = bench.record().latest_checkpoint().unwrap();
    assert_eq!(latest.size_bytes, 4 * (1 + 14), "with its shared files");
}

#[test]
fn what_an_aborted_checkpoint_uploaded_goes_at_once_and_what_comes_late_with_the_next_that_completes() {
    let mut bench = keeping(1);
    let (kept, orphan, late) = (shared(1, "kept"), shared(2, "orphan"), shared(2, "late"));
    complete(&mut bench, &[&kept]);
    bench.advance(1_000);
    bench.acknowledge("a", 2, subtask(0, 0), &with_shared(&[&kept, &orphan]));
    bench.report(
        "b",
        1,
        News::Declined { checkpoint_id: 2, subtask: subtask(1, 1), failure: failure("disk full") },
    );
    bench.acknowledge("a", 2, subtask(1, 0), &with_shared(&[&late]));
    assert_eq!(deleted_files(&bench), [orphan.path.as_str()]);
    assert_eq!(deleted(&bench), [0; 0], "tasks may still write");
    complete(&mut bench, &[&kept]);
    assert_eq!(deleted_files(&bench), [orphan.path, late.path]);
    assert_eq!(deleted(&bench), [1, 2]);
}

#[test]
fn checkpoints_that_fail_one_after_the_other_leave_no_more_than_the_last_and_files_that_nobody_told_of_are_found()
 {
    let mut bench = keeping(1);
    let (kept, silent) = (shared(1, "kept"), shared(3, "silent"));
    complete(&mut bench, &[&kept]);
    for id in 2..5 {
        bench.advance(1_000);
        let news =
            News::Declined { checkpoint_id: id, subtask: subtask(1, 1), failure: failure("disk full") };
        bench.report("b", 1, news);
    }
    assert_eq!(deleted(&bench), [2, 3], "4 has just failed: its tasks may still write");
    bench.listing = [&kept, &silent].map(|file| file.path.clone()).to_vec();
    complete(&mut bench, &[&kept]);
    assert_eq!((deleted_files(&bench), &bench.listing), (vec![silent.path], &vec![kept.path]));
    assert_eq!(deleted(&bench), [2, 3, 1, 2, 3, 4], "all once more: tasks may have been late");
}

#[test]
fn a_checkpoint_that_names_a_file_which_is_being_deleted_is_given_up() {
    let mut bench = keeping(1);
    let old = shared(1, "old");
    complete(&mut bench, &[&old]);
    bench.hold_log = true;
    bench.advance(1_000);
    bench.apply_log();
    bench.acknowledge_all(2);
    // The deletion is under way and not confirmed.
    let command = bench.log.pop_front().unwrap();
    let outcome = bench.state.apply(command.clone());
    let proposal = Proposal::of(&command);
    let actions = bench.core.step(Input::Proposed { proposal, outcome }, Bench::moment(bench.now_ms));
    assert!(actions.contains(&Action::DeleteShared(vec![old.path.clone()])), "{actions:?}");
    bench.hold_log = false;
    bench.advance(1_000);
    bench.acknowledge("a", 3, subtask(0, 0), &with_shared(&[&old]));
    assert_eq!((bench.record().checkpoints_failed, bench.record().checkpoints_completed), (1, 2));
    let said =
        |action: &Action| matches!(action, Action::Warn(line) if line.contains("belonged to a checkpoint"));
    assert!(bench.other.iter().any(said));
}

#[test]
fn a_new_leader_keeps_what_it_needs_and_finds_what_nobody_knows() {
    let mut bench = keeping(1);
    let (kept, announced, silent, foreign) =
        (shared(1, "kept"), shared(2, "announced"), shared(2, "silent"), "shared/other".to_string());
    complete(&mut bench, &[&kept]);
    bench.advance(1_000);
    bench.acknowledge("a", 2, subtask(0, 0), &with_shared(&[&announced]));
    let mut bench = bench.new_leader();
    bench.listing = [&kept, &announced, &silent].map(|file| file.path.clone()).to_vec();
    bench.listing.extend([foreign.clone(), "chk-1/_metadata".into(), "chk-2/0-0-a1".into()]);
    bench.register_with("a", 1, TaskStatus::Running);
    bench.register_with("b", 1, TaskStatus::Running);
    assert_eq!(deleted_files(&bench), [""; 0]);
    complete(&mut bench, &[&kept]);
    assert_eq!(deleted_files(&bench), [announced.path, silent.path]);
    assert!(bench.listing.contains(&kept.path) && bench.listing.contains(&foreign));
    assert!(deleted(&bench).contains(&2), "what it wrote for itself goes too");
    bench.listing.push(shared(2, "later").path);
    complete(&mut bench, &[&kept]);
    assert_eq!(deleted_files(&bench).len(), 2, "it looks once");
}

#[test]
fn nothing_is_deleted_while_the_metadata_of_a_retained_checkpoint_cannot_be_read() {
    let mut bench = keeping(2);
    let (a, b) = (shared(1, "a"), shared(2, "b"));
    complete(&mut bench, &[&a]);
    complete(&mut bench, &[&a, &b]);
    bench.files.remove(&1);
    let mut bench = bench.new_leader();
    let said = |action: &Action| matches!(action, Action::Warn(line) if line.contains("no shared files are deleted"));
    assert!(bench.other.iter().any(said));
    bench.register_with("a", 1, TaskStatus::Running);
    bench.register_with("b", 1, TaskStatus::Running);
    bench.listing = vec![a.path.clone(), b.path.clone()];
    complete(&mut bench, &[]);
    assert_eq!(deleted_files(&bench), [""; 0], "2 is kept and names both");
    complete(&mut bench, &[]);
    assert_eq!(deleted_files(&bench), [a.path, b.path]);
}

#[test]
fn the_newest_checkpoint_that_can_be_read_is_restored() {
    let mut bench = keeping(3);
    for _ in 0..3 {
        complete(&mut bench, &[]);
    }
    bench.files.remove(&3);
    restart(&mut bench);
    assert_eq!(bench.record().restored, Some(2));
    bench.take_kinds();
    bench.workers_ready();
    let sent = bench.take_sent();
    let Message::DeployTasks(deployment) = &sent[0].1 else { panic!("{sent:?}") };
    assert_eq!(deployment.restored, Some(2));
    bench.all_tasks(TaskStatus::Running);
    let reason = bench.record().reason.clone();
    assert_eq!(reason, "restored from checkpoint 2; skipped checkpoint 3: no such file");
    let said =
        |action: &Action| matches!(action, Action::Warn(line) if line.contains("goes back to checkpoint 2"));
    assert!(bench.other.iter().any(said));
    let unreadable = bench.record().latest_checkpoint().unwrap().unreadable.clone();
    assert_eq!(unreadable.as_deref(), Some("no such file"));
    assert_eq!(deleted(&bench), [0; 0], "what is wrong with it may be mended");
    complete(&mut bench, &[]);
    let kept: Vec<_> = bench.record().checkpoints.iter().map(|checkpoint| checkpoint.id).collect();
    assert_eq!((deleted(&bench), kept), (vec![3], vec![1, 2, 4]));
}

#[test]
fn without_any_readable_checkpoint_the_attempt_fails_with_every_reason() {
    let mut bench = keeping(2);
    complete(&mut bench, &[]);
    complete(&mut bench, &[]);
    let files = std::mem::take(&mut bench.files);
    restart(&mut bench);
    assert_eq!(bench.history(), [Running, Restarting, Restarting]);
    let failure = bench.record().failures[1].failure.clone();
    assert!(failure.retryable);
    let expected = "none of the retained checkpoints can be restored: checkpoint 2: no such file; checkpoint 1: no such file; \
                    bring the files back, or submit the job again to start it without its state";
    assert_eq!(failure.message, expected);
    assert_eq!((deleted(&bench), deleted_files(&bench)), (vec![], vec![]));
    bench.files = files;
    bench.stop_tasks_on("a");
    bench.stop_tasks_on("b");
    bench.advance(100);
    ready_again(&mut bench);
    assert_eq!(bench.record().reason, "restored from checkpoint 2", "they are back");
}

#[test]
fn a_storage_that_does_not_answer_is_no_reason_to_go_back() {
    let mut bench = keeping(2);
    complete(&mut bench, &[]);
    complete(&mut bench, &[]);
    bench.hold_files = true;
    restart(&mut bench);
    let outage = thalweg_common::failure::Failure::external("no answer");
    let result = Err(RestoreError::Failed(outage));
    bench.step(Input::MetadataRead { attempt: 2, checkpoint_id: 2, result });
    assert_eq!(bench.status(), Restarting);
    let message = bench.record().failures[1].failure.message.clone();
    assert_eq!(message, "cannot restore checkpoint 2: no answer");
    assert_eq!(bench.record().restored, Some(2));
}

#[test]
fn a_checkpoint_whose_restore_fails_in_a_task_is_read_as_a_whole_before_the_next_try() {
    let mut bench = keeping(2);
    complete(&mut bench, &[]);
    complete(&mut bench, &[]);
    bench.damaged.insert(2);
    restart(&mut bench);
    bench.workers_ready();
    assert_eq!(bench.record().restored, Some(2), "by its size it is sound");
    let failure = thalweg_common::failure::Failure::external("the snapshot is damaged");
    let news = News::Task { subtask: subtask(1, 0), status: TaskStatus::Failed, failure: Some(failure) };
    bench.report("a", 2, news);
    bench.stop_tasks_on("a");
    bench.stop_tasks_on("b");
    bench.advance(100);
    ready_again(&mut bench);
    assert_eq!((bench.attempt(), bench.record().restored), (3, Some(1)));
}

#[test]
fn when_the_contents_of_every_checkpoint_are_damaged_the_job_says_so_of_each_and_waits() {
    let mut bench = keeping(2);
    complete(&mut bench, &[]);
    complete(&mut bench, &[]);
    bench.damaged = [1, 2].into();
    restart(&mut bench);
    // Each looks sound until a task has tried to restore it.
    for attempt in 2..4 {
        bench.workers_ready();
        let failure = thalweg_common::failure::Failure::external("the snapshot is damaged");
        let news = News::Task { subtask: subtask(1, 0), status: TaskStatus::Failed, failure: Some(failure) };
        bench.report("a", attempt, news);
        bench.stop_tasks_on("a");
        bench.stop_tasks_on("b");
        bench.advance(100);
    }
    let failures = &bench.record().failures;
    let last = failures.back().unwrap().failure.message.clone();
    assert!(last.starts_with("none of the retained checkpoints can be restored: checkpoint 2: "), "{last}");
    assert!(last.contains("; checkpoint 1: "), "{last}");
    assert_eq!((deleted(&bench), deleted_files(&bench)), (vec![], vec![]));
    bench.damaged.clear();
    bench.stop_tasks_on("a");
    bench.stop_tasks_on("b");
    bench.advance(100);
    ready_again(&mut bench);
    assert_eq!(
        bench.record().reason,
        "restored from checkpoint 2",
        "the newest, although it was passed over before"
    );
    assert_eq!(bench.record().latest_checkpoint().unwrap().unreadable, None);
}

#[test]
fn checkpoints_outlive_a_cancelled_job_when_they_are_to() {
    for (retention, kept) in [
        (CheckpointRetention::RetainOnCancellation, true),
        (CheckpointRetention::DeleteOnCancellation, false),
        (CheckpointRetention::NoExternalized, false),
    ] {
        let mut graph = checkpointed_graph();
        graph.checkpointing.retention = retention;
        let mut bench = Bench::submitted(graph, &["a", "b"]);
        bench.workers_ready();
        bench.all_tasks(TaskStatus::Running);
        complete(&mut bench, &[]);
        bench.advance(1_000);
        bench.step(Input::Cancel);
        bench.stop_tasks_on("a");
        bench.stop_tasks_on("b");
        assert_eq!(bench.status(), Canceled);
        assert_eq!(bench.other.contains(&Action::DeleteAllCheckpoints), !kept, "{retention:?}");
        assert_eq!(deleted(&bench) == [2], kept, "what was in progress is not kept: {retention:?}");
    }
}

#[test]
fn the_history_tells_how_checkpoints_went() {
    use crate::checkpoint::history::Standing;
    let mut bench = with_checkpoint();
    bench.advance(1_000);
    bench.acknowledge("a", 2, subtask(0, 0), &snapshot());
    let now = bench.core.checkpoints();
    let standing: Vec<_> =
        now.iter().map(|one| (one.checkpoint_id, &one.standing, one.parts.len())).collect();
    assert_eq!(standing, [(1, &Standing::Completed, 4), (2, &Standing::InProgress, 1)]);
    restart(&mut bench);
    let failed = Standing::Failed("its attempt ended".into());
    assert_eq!(bench.core.checkpoints()[1].standing, failed);
}
