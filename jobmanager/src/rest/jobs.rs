//! Jobs in short: which there are, and how they are.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use thalweg_common::Timestamp;
use thalweg_common::status::TaskStatus;

use super::error::Answer;
use super::{Rest, ids};
use crate::cluster::JobRecord;
use crate::leader::LiveJob;
use crate::service::task_status;

/// All of Flink's states of a task, as its objects of counts have them.
const TASK_STATES: [&str; 10] = [
    "created",
    "scheduled",
    "deploying",
    "running",
    "finished",
    "canceling",
    "canceled",
    "failed",
    "reconciling",
    "initializing",
];

/// `GET /jobs`
pub(super) async fn list(State(rest): State<Rest>) -> Answer {
    let state = rest.jobs.state().read();
    let jobs = newest_first(state.jobs());
    let jobs = jobs.iter().map(|job| json!({ "id": job.id.to_string(), "status": job.status.name() }));
    Ok(Json(json!({ "jobs": jobs.collect::<Vec<_>>() })))
}

/// `GET /jobs/overview`
pub(super) async fn overview(State(rest): State<Rest>) -> Answer {
    let live = rest.jobs.live(None).await?;
    let now_ms = rest.clock.now_ms();
    let state = rest.jobs.state().read();
    let jobs = newest_first(state.jobs());
    let jobs = jobs.iter().map(|job| one(job, live.get(&job.id), now_ms));
    Ok(Json(json!({ "jobs": jobs.collect::<Vec<_>>() })))
}

fn newest_first<'a>(jobs: impl Iterator<Item = &'a JobRecord>) -> Vec<&'a JobRecord> {
    let mut jobs: Vec<_> = jobs.collect();
    jobs.sort_by_key(|job| (std::cmp::Reverse(job.submitted_ms), job.id));
    jobs
}

fn one(job: &JobRecord, live: Option<&LiveJob>, now_ms: Timestamp) -> Value {
    let subtasks: Vec<_> = job.graph.subtasks().map(|subtask| task_status(job, live, subtask)).collect();
    let mut tasks = counts(&subtasks);
    tasks.insert("total".to_string(), subtasks.len().into());
    json!({
        "jid": job.id.to_string(),
        "name": job.name,
        "start-time": job.submitted_ms,
        "end-time": job.ended_ms.unwrap_or(-1),
        "duration": duration_ms(job, now_ms),
        "state": job.status.name(),
        "last-modification": job.history.back().map_or(job.submitted_ms, |change| change.time_ms),
        "tasks": tasks,
        "pending-operators": 0,
    })
}

/// From its submission to its end, or to now.
pub(super) fn duration_ms(job: &JobRecord, now_ms: Timestamp) -> Timestamp {
    (job.ended_ms.unwrap_or(now_ms) - job.submitted_ms).max(0)
}

/// How many tasks are in which state, every state of Flink's included.
pub(super) fn counts(tasks: &[TaskStatus]) -> Map<String, Value> {
    let mut counts: BTreeMap<String, u64> =
        TASK_STATES.iter().map(|state| ((*state).to_string(), 0)).collect();
    for task in tasks {
        *counts.entry(ids::task_status(*task).to_lowercase()).or_default() += 1;
    }
    counts.into_iter().map(|(state, count)| (state, count.into())).collect()
}
