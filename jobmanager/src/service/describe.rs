//! What clients are told of a job: the replicated record and what the leader knows beside it.

use std::collections::BTreeMap;

use thalweg_common::id::SubtaskId;
use thalweg_common::status::{JobStatus, TaskStatus};
use thalweg_proto::convert::{WireId, properties_to_wire};
use thalweg_proto::v1;
use tonic::Status;

use super::checkpoints;
use super::watch::JobEvent;
use crate::cluster::{JobRecord, StatusChange};
use crate::leader::LiveJob;

/// One line about a job.
pub(super) fn summary(job: &JobRecord, live: Option<&LiveJob>) -> v1::JobSummary {
    let waits_for = live.map(|live| live.waits_for.as_str()).unwrap_or_default();
    let runs = |status| matches!(status, TaskStatus::Running | TaskStatus::Drained);
    let running = live.map_or(0, |live| live.tasks.values().filter(|task| runs(task.status)).count());
    v1::JobSummary {
        job_id: job.id.to_wire(),
        name: job.name.clone(),
        status: v1::JobStatus::from(job.status).into(),
        attempt: job.attempt,
        start_time_ms: job.submitted_ms,
        end_time_ms: job.ended_ms.unwrap_or(0),
        tasks_total: count(job.graph.subtasks().count()),
        tasks_running: if job.status.is_terminal() { 0 } else { count(running) },
        reason: if waits_for.is_empty() { job.reason.clone() } else { waits_for.to_string() },
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The job graph, as clients read it.
pub(super) fn plan(job: &JobRecord) -> Result<String, Status> {
    serde_json::to_string(&*job.graph)
        .map_err(|error| Status::internal(format!("the job graph cannot be written: {error}")))
}

/// Everything about a job.
pub(super) fn details(job: &JobRecord, live: Option<&LiveJob>) -> Result<v1::JobDetails, Status> {
    let vertices = (0u32..).zip(&job.graph.vertices).map(|(vertex, data)| v1::VertexDetails {
        vertex,
        name: data.name.clone(),
        parallelism: data.parallelism,
        max_parallelism: data.max_parallelism,
        subtasks: (0..data.parallelism).map(|index| task(job, live, SubtaskId { vertex, index })).collect(),
    });
    Ok(v1::JobDetails {
        summary: Some(summary(job, live)),
        vertices: vertices.collect(),
        checkpoints: Some(checkpoints::summary(job, live.is_some_and(|live| live.checkpoint_in_progress))),
        failures: job.failures.iter().map(failure).collect(),
        history: job.history.iter().map(change).collect(),
        sha256: job.binary.map(|binary| binary.sha256.to_wire()).unwrap_or_default(),
        arguments: job.arguments.clone(),
        configuration: job.configuration.clone().into_iter().collect(),
        properties: properties_to_wire(&job.properties.shown()),
        warnings: job.warnings.clone(),
        size_bytes: job.binary.map_or(0, |binary| binary.size_bytes),
        graph: plan(job)?,
    })
}

fn task(job: &JobRecord, live: Option<&LiveJob>, subtask: SubtaskId) -> v1::SubtaskDetails {
    let known = live.and_then(|live| live.tasks.get(&subtask));
    let status = task_status(job, live, subtask);
    let mut counters = known.map(|task| task.counters.clone()).unwrap_or_default();
    counters.subtask = Some(subtask.into());
    counters.set_status(status.into());
    let placed = job.placement.get(&subtask).map(|slot| &slot.task_manager);
    let task_manager = known.map(|task| &task.task_manager).or(placed);
    let started_by = job.attempts.get(&subtask).copied();
    v1::SubtaskDetails {
        counters: Some(counters),
        earlier: known.and_then(|task| task.earlier.clone()),
        task_manager: task_manager.map(ToString::to_string).unwrap_or_default(),
        attempt: known.map(|task| task.attempt).or(started_by).unwrap_or(job.attempt),
    }
}

/// The state of a task, also before it has a slot and behind the end of its job.
pub(crate) fn task_status(job: &JobRecord, live: Option<&LiveJob>, subtask: SubtaskId) -> TaskStatus {
    let known = live.and_then(|live| live.tasks.get(&subtask));
    match (job.status, known.map(|task| task.status)) {
        (JobStatus::Finished, _) => TaskStatus::Finished,
        (JobStatus::Canceled | JobStatus::Failed, Some(ended)) if ended.is_terminal() => ended,
        (JobStatus::Canceled | JobStatus::Failed, _) => TaskStatus::Canceled,
        (_, Some(status)) => status,
        (_, None) => TaskStatus::Created,
    }
}

fn failure(record: &crate::cluster::FailureRecord) -> v1::FailureRecord {
    v1::FailureRecord {
        time_ms: record.time_ms,
        attempt: record.attempt,
        task: record.task.clone(),
        task_manager: record.task_manager.clone(),
        failure: Some(record.failure.clone().into()),
    }
}

fn change(change: &StatusChange) -> v1::StatusChange {
    v1::StatusChange {
        time_ms: change.time_ms,
        from: v1::JobStatus::from(change.from).into(),
        to: v1::JobStatus::from(change.to).into(),
        attempt: change.attempt,
        reason: change.reason.clone(),
    }
}

/// News of a job for a watcher.
pub(super) fn event(job: &JobRecord, live: Option<&LiveJob>, event: JobEvent) -> v1::JobEvent {
    let mut summary = summary(job, live);
    // The record may have moved on: each event tells its own state.
    summary.set_status(event.status.into());
    summary.attempt = event.attempt;
    summary.reason = event.reason;
    if !event.status.is_terminal() {
        summary.end_time_ms = 0;
    }
    v1::JobEvent {
        summary: Some(summary),
        change: event.change.as_ref().map(change),
        failure: event.failure.map(Into::into),
    }
}

/// One line about each job, the newest first.
pub(super) fn list<'a>(
    jobs: impl Iterator<Item = &'a JobRecord>,
    live: &BTreeMap<thalweg_common::id::JobId, LiveJob>,
) -> Vec<v1::JobSummary> {
    let mut jobs: Vec<_> = jobs.collect();
    jobs.sort_by_key(|job| (std::cmp::Reverse(job.submitted_ms), job.id));
    jobs.into_iter().map(|job| summary(job, live.get(&job.id))).collect()
}
