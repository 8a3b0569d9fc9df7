//! What every sequence of commands keeps, and what single commands answer.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use thalweg_common::codec;
use thalweg_common::failure::Failure;
use thalweg_common::id::{JobId, SubtaskId, TaskManagerId};
use thalweg_common::limits::{
    MAX_CONCURRENT_CHECKPOINTS, MAX_FAILURE_TEXT_BYTES, MAX_JOB_FAILURES, MAX_JOB_HISTORY,
    MAX_REMEMBERED_JOBS,
};
use thalweg_common::status::JobStatus;

use super::*;
use crate::testing::{checkpointed_graph, graph_of, submission, vertex};

const JOB: JobId = JobId(1);

fn placement(task_manager: &str) -> Placement {
    let slot = Slot { task_manager: TaskManagerId(task_manager.into()), number: 0 };
    Placement::from([(SubtaskId { vertex: 0, index: 0 }, slot)])
}

fn start(attempt: u32) -> Command {
    Command::StartAttempt { job_id: JOB, attempt, placement: placement("a"), restored: None, time_ms: 2 }
}

fn change(attempt: u32, to: JobStatus) -> Command {
    Command::ChangeJobStatus(StatusChanged {
        job_id: JOB,
        attempt,
        to,
        reason: "because".into(),
        failure: None,
        going_on: BTreeSet::new(),
        restarts: None,
        time_ms: 3,
    })
}

fn begin(attempt: u32) -> Command {
    Command::BeginCheckpoint { job_id: JOB, attempt, time_ms: 4 }
}

fn completed(id: u64) -> CompletedCheckpoint {
    CompletedCheckpoint {
        id,
        attempt: 1,
        is_final: false,
        triggered_ms: 4,
        completed_ms: 5,
        size_bytes: 6,
        path: Some(format!("/checkpoints/{JOB}/chk-{id}/_metadata")),
        unreadable: None,
    }
}

fn complete(attempt: u32, id: u64) -> Command {
    Command::CompleteCheckpoint { job_id: JOB, attempt, checkpoint: completed(id) }
}

fn submit() -> Command {
    Command::SubmitJob(submission(1, checkpointed_graph()))
}

/// A state after these commands, each of which is accepted.
fn after(commands: impl IntoIterator<Item = Command>) -> ClusterState {
    let mut state = ClusterState::default();
    for command in commands {
        let outcome = state.apply(command.clone());
        assert!(!matches!(outcome, Outcome::Refused { .. }), "{command:?}: {outcome:?}");
    }
    state
}

fn running() -> ClusterState {
    after([submit(), start(1), change(1, JobStatus::Running)])
}

fn refusal(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused { reason } => reason,
        other => panic!("expected a refusal: {other:?}"),
    }
}

#[test]
fn a_repeated_submission_answers_with_its_job() {
    let mut state = after([submit()]);
    let mut again = submission(2, checkpointed_graph());
    again.submission_id = submission(1, checkpointed_graph()).submission_id;
    let submission_id = again.submission_id;
    assert_eq!(
        state.apply(Command::SubmitJob(again)),
        Outcome::Submitted { job_id: JOB, repeated: true },
        "the same wish to submit"
    );
    assert_eq!(state.jobs().count(), 1);
    assert_eq!(state.job_of_submission(submission_id).unwrap().id, JOB);
    assert_eq!(state.submitted(), 1);
}

#[test]
fn stale_attempts_are_refused_by_type() {
    for command in [start(3), change(2, JobStatus::Restarting), begin(2), complete(2, 1)] {
        let mut state = after([submit(), start(1)]);
        let before = state.clone();
        let reason = refusal(state.apply(command.clone()));
        assert!(matches!(reason, Refusal::StaleAttempt { present: 1, .. }), "{command:?}: {reason}");
        assert_eq!(state, before, "a refused command changes nothing");
    }
}

#[test]
fn an_attempt_starts_once_and_only_when_none_runs() {
    let mut state = after([submit(), start(1)]);
    assert_eq!(state.apply(start(1)), Outcome::Ok, "the same start, proposed again");
    let elsewhere = Command::StartAttempt {
        job_id: JOB,
        attempt: 1,
        placement: placement("b"),
        restored: None,
        time_ms: 2,
    };
    assert!(matches!(refusal(state.apply(elsewhere)), Refusal::StaleAttempt { .. }));
    assert!(matches!(refusal(running().apply(start(2))), Refusal::NotNow { .. }));
    let mut state = running();
    state.apply(change(1, JobStatus::Restarting));
    assert_eq!(state.apply(start(2)), Outcome::Ok);
    assert_eq!(state.job(JOB).unwrap().attempt, 2);
}

#[test]
fn changes_follow_the_allowed_transitions_and_are_remembered() {
    let mut state = running();
    assert_eq!(state.apply(change(1, JobStatus::Running)), Outcome::Ok, "proposed again");
    assert!(matches!(refusal(state.apply(change(1, JobStatus::Failed))), Refusal::Transition { .. }));
    assert_eq!(state.apply(change(1, JobStatus::Finished)), Outcome::Ok);
    assert!(matches!(refusal(state.apply(change(1, JobStatus::Cancelling))), Refusal::Transition { .. }));
    let job = state.job(JOB).unwrap();
    let history: Vec<_> = job.history.iter().map(|change| (change.number, change.from, change.to)).collect();
    use JobStatus::{Created, Finished, Running};
    assert_eq!(history, [(1, Created, Running), (2, Running, Finished)]);
    assert_eq!((job.ended_ms, job.reason.as_str()), (Some(3), "because"));
    assert_eq!(job.changes_after(1).count(), 1);
}

#[test]
fn checkpoint_ids_grow_and_only_the_one_in_progress_completes() {
    let mut state = running();
    assert_eq!(state.apply(begin(1)), Outcome::CheckpointBegun { checkpoint_id: 1 });
    assert!(matches!(refusal(state.apply(complete(1, 2))), Refusal::StaleCheckpoint { .. }));
    assert_eq!(state.apply(complete(1, 1)), Outcome::Ok);
    assert_eq!(state.apply(complete(1, 1)), Outcome::Ok, "proposed again");
    assert_eq!(state.apply(begin(1)), Outcome::CheckpointBegun { checkpoint_id: 2 });
    let abort = Command::AbortCheckpoint { job_id: JOB, attempt: 1, checkpoint_id: 2 };
    assert_eq!(state.apply(abort.clone()), Outcome::Ok);
    assert_eq!(state.apply(abort), Outcome::Ok, "proposed again");
    assert!(matches!(
        refusal(state.apply(complete(1, 2))),
        Refusal::StaleCheckpoint { in_progress: None, .. }
    ));
    assert_eq!(state.apply(begin(1)), Outcome::CheckpointBegun { checkpoint_id: 3 });
    assert_eq!(state.apply(complete(1, 3)), Outcome::Ok);
    let job = state.job(JOB).unwrap();
    assert_eq!((job.checkpoints_completed, job.checkpoints_failed), (2, 1));
    assert_eq!(job.latest_checkpoint(), Some(&completed(3)));
    assert_eq!(job.checkpoints.len(), 1, "as many as are kept by default");
}

#[test]
fn several_in_progress_complete_in_order_and_a_newer_one_ends_the_older() {
    let mut state = running();
    (0..3).for_each(|_| drop(state.apply(begin(1))));
    assert_eq!(state.job(JOB).unwrap().checkpoints_in_progress, [1, 2, 3].into());
    assert_eq!(state.apply(complete(1, 2)), Outcome::Ok);
    assert!(matches!(
        refusal(state.apply(complete(1, 1))),
        Refusal::StaleCheckpoint { in_progress: Some(3), .. }
    ));
    assert_eq!(state.apply(complete(1, 3)), Outcome::Ok);
    let job = state.job(JOB).unwrap();
    assert_eq!((job.checkpoints_completed, job.checkpoints_failed), (2, 1));
}

#[test]
fn as_many_checkpoints_are_kept_as_configured_and_sound_ones_longest() {
    let mut graph = crate::testing::checkpointed_graph();
    graph.checkpointing.retained = 3;
    let submit = Command::SubmitJob(crate::testing::submission(JOB.0, graph));
    let mut state = after([submit, start(1), change(1, JobStatus::Running)]);
    let kept = |state: &ClusterState| {
        state.job(JOB).unwrap().checkpoints.iter().map(|checkpoint| checkpoint.id).collect::<Vec<_>>()
    };
    for id in 1..=4 {
        state.apply(begin(1));
        assert_eq!(state.apply(complete(1, id)), Outcome::Ok);
    }
    assert_eq!(kept(&state), [2, 3, 4]);
    let skip = Command::SkipCheckpoints {
        job_id: JOB,
        attempt: 1,
        restored: 3,
        skipped: vec![(4, "ä".repeat(MAX_FAILURE_TEXT_BYTES))],
    };
    assert_eq!(state.apply(skip.clone()), Outcome::Ok);
    assert_eq!(state.apply(skip), Outcome::Ok, "proposed again");
    let job = state.job(JOB).unwrap();
    assert_eq!(job.restored, Some(3));
    let reason = job.latest_checkpoint().unwrap().unreadable.clone().unwrap();
    assert!(reason.len() <= MAX_FAILURE_TEXT_BYTES);
    assert_eq!(crate::cluster::candidates(&job.checkpoints), [4, 3, 2], "it may be back");
    state.apply(begin(1));
    state.apply(complete(1, 5));
    assert_eq!(kept(&state), [2, 3, 5], "an unreadable one goes first");
    let mut replaced = state.job(JOB).unwrap().checkpoints.clone();
    replaced[1].unreadable = Some("cut off".into());
    assert_eq!(crate::cluster::candidates(&replaced), [5, 2, 3], "what has been replaced is tried last");
    let stale = Command::SkipCheckpoints { job_id: JOB, attempt: 2, restored: 3, skipped: vec![] };
    assert!(matches!(refusal(state.apply(stale)), Refusal::StaleAttempt { .. }));
}

#[test]
fn a_checkpoint_dies_with_its_attempt() {
    let mut state = running();
    state.apply(begin(1));
    state.apply(change(1, JobStatus::Restarting));
    assert!(matches!(refusal(state.apply(complete(1, 1))), Refusal::NotNow { .. }));
    state.apply(start(2));
    assert!(matches!(refusal(state.apply(begin(2))), Refusal::NotNow { .. }), "not before it runs");
    state.apply(change(2, JobStatus::Running));
    assert_eq!(state.apply(begin(2)), Outcome::CheckpointBegun { checkpoint_id: 2 });
    assert_eq!(state.job(JOB).unwrap().checkpoints_failed, 1);
}

#[test]
fn failures_are_kept_with_bounded_texts_and_numbers() {
    let mut state = running();
    for round in 0..2 * MAX_JOB_HISTORY as i64 {
        let attempt = state.job(JOB).unwrap().attempt;
        let failure = FailureRecord {
            time_ms: round,
            attempt,
            task: "map (1/1)#1".into(),
            task_manager: "a".into(),
            failure: Failure::user("ä".repeat(MAX_FAILURE_TEXT_BYTES)),
        };
        let restarts = RestartRecord { restarts: attempt, ..RestartRecord::default() };
        let outcome = state.apply(Command::ChangeJobStatus(StatusChanged {
            job_id: JOB,
            attempt,
            to: JobStatus::Restarting,
            reason: String::new(),
            failure: Some(failure),
            going_on: BTreeSet::new(),
            restarts: Some(restarts),
            time_ms: round,
        }));
        assert_eq!(outcome, Outcome::Ok);
        state.apply(start(attempt + 1));
    }
    let job = state.job(JOB).unwrap();
    assert_eq!((job.failures.len(), job.history.len()), (MAX_JOB_FAILURES, MAX_JOB_HISTORY));
    assert_eq!(job.failures.back().unwrap().time_ms, 2 * MAX_JOB_HISTORY as i64 - 1, "the newest are kept");
    assert!(job.failures.iter().all(|record| record.failure.message.len() <= MAX_FAILURE_TEXT_BYTES));
    assert_eq!(job.restarts.restarts, job.attempt - 1);
}

#[test]
fn the_job_that_ended_first_is_forgotten_first() {
    let mut state = ClusterState::default();
    let graph = graph_of(vec![vertex("v", 1, "default")]);
    for id in 1..=MAX_REMEMBERED_JOBS as u128 {
        state.apply(Command::SubmitJob(submission(id, graph.clone())));
    }
    let one_more = Command::SubmitJob(submission(100_000, graph.clone()));
    assert!(matches!(refusal(state.apply(one_more.clone())), Refusal::TooManyJobs { .. }));
    for (id, time_ms) in [(7, 20), (5, 10)] {
        for to in [JobStatus::Cancelling, JobStatus::Canceled] {
            let outcome = state.apply(Command::ChangeJobStatus(StatusChanged {
                job_id: JobId(id),
                attempt: 0,
                to,
                reason: String::new(),
                failure: None,
                going_on: BTreeSet::new(),
                restarts: None,
                time_ms,
            }));
            assert_eq!(outcome, Outcome::Ok);
        }
    }
    assert_eq!(state.apply(one_more), Outcome::Submitted { job_id: JobId(100_000), repeated: false });
    assert!(state.job(JobId(5)).is_none() && state.job(JobId(7)).is_some());
    assert!(state.job_of_submission(submission(5, graph).submission_id).is_none());
    assert_eq!(state.jobs().count(), MAX_REMEMBERED_JOBS);
}

fn any_status() -> impl Strategy<Value = JobStatus> {
    use JobStatus::*;
    prop_oneof![
        3 => Just(Running),
        2 => Just(Restarting),
        1 => Just(Failing),
        1 => Just(Failed),
        1 => Just(Cancelling),
        1 => Just(Canceled),
        1 => Just(Finished),
        1 => Just(Created),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    let ids = (1u128..4, 0u32..4, 1u64..6);
    prop_oneof![
        Just(Command::Noop),
        (1u128..4, 1u128..4).prop_map(|(job, wish)| {
            let mut submit = submission(job, checkpointed_graph());
            submit.submission_id = submission(wish, checkpointed_graph()).submission_id;
            Command::SubmitJob(submit)
        }),
        ids.clone().prop_map(|(job, attempt, id)| Command::StartAttempt {
            job_id: JobId(job),
            attempt,
            placement: placement(if id % 2 == 0 { "a" } else { "b" }),
            restored: Some(id),
            time_ms: 1,
        }),
        (ids.clone(), any_status()).prop_map(|((job, attempt, _), to)| {
            Command::ChangeJobStatus(StatusChanged {
                job_id: JobId(job),
                attempt,
                to,
                reason: "r".into(),
                failure: None,
                going_on: if to == JobStatus::Restarting { [0].into() } else { BTreeSet::new() },
                restarts: None,
                time_ms: 1,
            })
        }),
        ids.clone().prop_map(|(job, attempt, _)| Command::BeginCheckpoint {
            job_id: JobId(job),
            attempt,
            time_ms: 1
        }),
        ids.clone().prop_map(|(job, attempt, id)| Command::CompleteCheckpoint {
            job_id: JobId(job),
            attempt,
            checkpoint: completed(id),
        }),
        ids.clone().prop_map(|(job, attempt, restored)| Command::SkipCheckpoints {
            job_id: JobId(job),
            attempt,
            restored,
            skipped: vec![(restored + 1, "gone".into())],
        }),
        ids.prop_map(|(job, attempt, checkpoint_id)| Command::AbortCheckpoint {
            job_id: JobId(job),
            attempt,
            checkpoint_id
        }),
    ]
}

/// What holds between a state and the one after it.
fn check_step(before: &ClusterState, after: &ClusterState, outcome: &Outcome) -> Result<(), TestCaseError> {
    if matches!(outcome, Outcome::Refused { .. }) {
        prop_assert_eq!(before, after);
    }
    let mut submissions = BTreeMap::new();
    for job in after.jobs() {
        prop_assert!(submissions.insert(job.submission_id, job.id).is_none(), "two jobs of one submission");
        prop_assert_eq!(after.job_of_submission(job.submission_id).map(|job| job.id), Some(job.id));
        prop_assert_eq!(job.ended_ms.is_some(), job.status.is_terminal());
        prop_assert!(job.checkpoints_in_progress.len() <= MAX_CONCURRENT_CHECKPOINTS);
        let newest = job.checkpoints_in_progress.last();
        prop_assert!(newest.is_none_or(|newest| *newest <= job.last_checkpoint_id));
        let oldest = job.checkpoints_in_progress.first();
        let latest = job.latest_checkpoint();
        prop_assert!(oldest.is_none_or(|oldest| latest.is_none_or(|latest| latest.id < *oldest)));
        prop_assert!(job.checkpoints.iter().is_sorted_by_key(|checkpoint| checkpoint.id));
        prop_assert!(job.checkpoints.len() <= job.graph.checkpointing.keeps());
        prop_assert!(job.latest_checkpoint().is_none_or(|latest| latest.id <= job.last_checkpoint_id));
        let mut from = JobStatus::Created;
        for change in &job.history {
            prop_assert_eq!(change.from, from);
            prop_assert!(change.from.can_become(change.to));
            from = change.to;
        }
        prop_assert_eq!(job.status, from);
        let Some(old) = before.job(job.id) else { continue };
        prop_assert!(job.attempt == old.attempt || job.attempt == old.attempt + 1);
        prop_assert!(job.last_checkpoint_id >= old.last_checkpoint_id);
        let latest = |job: &JobRecord| job.latest_checkpoint().map(|latest| latest.id);
        prop_assert!(latest(job) >= latest(old));
        if old.status.is_terminal() {
            prop_assert_eq!(job.status, old.status);
            prop_assert_eq!(job.attempt, old.attempt);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_sequence_of_commands_keeps_the_invariants(commands in proptest::collection::vec(any_command(), 0..80)) {
        let (mut state, mut other) = (ClusterState::default(), ClusterState::default());
        for command in commands {
            let before = state.clone();
            let sent: Command = codec::from_bytes(&codec::to_bytes(&command).unwrap()).unwrap();
            prop_assert_eq!(&sent, &command, "a command survives the log");
            let outcome = state.apply(command);
            prop_assert_eq!(&other.apply(sent), &outcome, "every node answers the same");
            check_step(&before, &state, &outcome)?;
            let stored: Outcome = codec::from_bytes(&codec::to_bytes(&outcome).unwrap()).unwrap();
            prop_assert_eq!(stored, outcome);
        }
        prop_assert_eq!(&other, &state);
        let snapshot: ClusterState = codec::from_bytes(&codec::to_bytes(&state).unwrap()).unwrap();
        prop_assert_eq!(snapshot, state, "the state survives a snapshot");
    }
}
