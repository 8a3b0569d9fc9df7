//! What the log remembers of a job's layouts.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;

use super::super::{Command, Placement, StatusChanged};
use super::*;
use crate::testing::{at, checkpointed_graph, submission};

const JOB: JobId = JobId(1);

fn layout(parallelism: u32) -> Layout {
    let configuration = match parallelism {
        2 => BTreeMap::new(),
        other => BTreeMap::from([("parallelism.default".to_string(), other.to_string())]),
    };
    Layout { graph: Arc::new(at(&checkpointed_graph(), &[2, parallelism])), configuration }
}

/// A job that has the layout of parallelism 2, in this state.
fn job(status: JobStatus) -> ClusterState {
    let mut state = ClusterState::default();
    state.apply(Command::SubmitJob(submission(1, checkpointed_graph())));
    if status != JobStatus::Created {
        let (placement, attempt) = (Placement::new(), 1);
        state.apply(Command::StartAttempt { job_id: JOB, attempt, placement, restored: None, time_ms: 1 });
        for to in [JobStatus::Running, status] {
            change(&mut state, to);
        }
    }
    assert_eq!(state.job(JOB).unwrap().status, status);
    state
}

fn change(state: &mut ClusterState, to: JobStatus) {
    let attempt = state.job(JOB).unwrap().attempt;
    let (reason, failure, restarts) = (String::new(), None, None);
    state.apply(Command::ChangeJobStatus(StatusChanged {
        job_id: JOB,
        attempt,
        to,
        reason,
        failure,
        going_on: BTreeSet::new(),
        restarts,
        time_ms: 3,
    }));
}

fn rescale(state: &mut ClusterState, kind: RescaleKind, parallelism: u32) -> Outcome {
    let attempt = state.job(JOB).unwrap().attempt;
    let (layout, reason) = (layout(parallelism), "because".to_string());
    state.apply(Command::Rescale(Rescale { job_id: JOB, attempt, kind, layout, reason, time_ms: 7 }))
}

/// The parallelisms that are remembered: the present one, the one before, the wanted one.
fn remembered(state: &ClusterState) -> (u32, Option<u32>, Option<u32>) {
    let of = |layout: &Layout| layout.graph.vertices[1].parallelism;
    let job = state.job(JOB).unwrap();
    let OtherLayouts { previous, wanted } = &job.layouts;
    (of(&job.layout()), previous.as_ref().map(of), wanted.as_ref().map(of))
}

#[test]
fn what_a_user_wants_can_be_taken_back_until_it_runs() {
    let mut state = job(JobStatus::Running);
    assert_eq!(rescale(&mut state, RescaleKind::Asked, 4), Outcome::Ok);
    let found = state.job(JOB).unwrap();
    assert_eq!(
        (found.status, found.reason.as_str(), found.restarts.resume_at_ms),
        (JobStatus::Restarting, "because", 7)
    );
    assert_eq!(found.history.back().map(|change| change.to), Some(JobStatus::Restarting));
    assert_eq!(remembered(&state), (4, Some(2), None));
    let before = state.clone();
    assert_eq!(rescale(&mut state, RescaleKind::Asked, 4), Outcome::Ok);
    assert_eq!(state, before, "the same once more changes nothing");
    let mut back = state.clone();
    assert_eq!(rescale(&mut back, RescaleKind::RolledBack, 2), Outcome::Ok);
    assert_eq!(remembered(&back), (2, None, None));
    change(&mut state, JobStatus::Running);
    assert_eq!(remembered(&state), (4, None, None));
}

#[test]
fn what_a_job_wants_is_remembered_while_it_has_less() {
    let mut state = job(JobStatus::Created);
    for (parallelism, expected) in [(1, (1, None, Some(2))), (2, (2, None, None)), (1, (1, None, Some(2)))] {
        assert_eq!(rescale(&mut state, RescaleKind::Adapted, parallelism), Outcome::Ok);
        assert_eq!(remembered(&state), expected);
        assert_eq!(state.job(JOB).unwrap().status, JobStatus::Created, "it waits on");
    }
    change(&mut state, JobStatus::Running);
    assert_eq!(remembered(&state), (1, None, Some(2)));
    assert_eq!(rescale(&mut state, RescaleKind::Asked, 3), Outcome::Ok);
    assert_eq!(remembered(&state), (3, Some(1), None), "what a user wants is what it wants");
    assert_eq!(rescale(&mut state, RescaleKind::Adapted, 1), Outcome::Ok);
    assert_eq!(remembered(&state), (1, None, Some(3)));
}

#[test]
fn a_job_that_is_not_to_run_keeps_its_layout() {
    let refused = |outcome: Outcome| matches!(outcome, Outcome::Refused { .. });
    for (status, kind) in [
        (JobStatus::Restarting, RescaleKind::Asked),
        (JobStatus::Created, RescaleKind::Asked),
        (JobStatus::Cancelling, RescaleKind::Adapted),
        (JobStatus::Failing, RescaleKind::RolledBack),
        (JobStatus::Finished, RescaleKind::Asked),
    ] {
        let mut state = job(status);
        let before = state.clone();
        assert!(refused(rescale(&mut state, kind, 4)), "{status} {kind:?}");
        assert_eq!(state, before);
    }
    let mut state = job(JobStatus::Running);
    let (layout, kind) = (layout(4), RescaleKind::Asked);
    let stale = Rescale { job_id: JOB, attempt: 9, kind, layout, reason: String::new(), time_ms: 7 };
    assert!(refused(state.apply(Command::Rescale(stale))));
}
