//! The cluster at a glance, and its settings.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};
use thalweg_common::config::keys;
use thalweg_proto::model::{JobManagers, JobSummary, ProcessMetrics, TaskCounters};
use thalweg_proto::v1;
use thalweg_proto::v1::job_service_server::JobService;
use tonic::Request;

use super::job::readable;
use crate::cluster::JobRecord;
use crate::leader::{LiveJob, TaskManagerView};
use crate::metrics::{JobFigures, figures};
use crate::rest::Rest;
use crate::rest::configuration::shown;
use crate::rest::error::{Answer, RestError};

/// Points of the curve beside each job: ten minutes.
const RECENT_POINTS: usize = 60;

#[derive(Serialize)]
struct Job {
    #[serde(flatten)]
    summary: JobSummary,
    /// What it does at this moment, if it goes on.
    live: Option<Live>,
}

#[derive(Serialize)]
struct Live {
    records_in: Option<f32>,
    records_out: Option<f32>,
    /// Parts of its time, of the subtask with the greatest.
    busy_share: Option<f32>,
    back_pressured_share: Option<f32>,
    /// When its last checkpoint completed.
    checkpoint_ms: Option<i64>,
    /// Records that its sources have read per second, the oldest first.
    recent: Vec<Option<f32>>,
}

/// `GET /thalweg/cluster`
pub(in crate::rest) async fn overview(State(rest): State<Rest>) -> Answer {
    let managers =
        rest.jobs.list_job_managers(Request::new(v1::ListJobManagersRequest {})).await?.into_inner();
    let JobManagers { term, job_managers } = managers.into();
    let job_managers: Vec<Value> = job_managers
        .into_iter()
        .map(|manager| {
            json!({
                "id": manager.id,
                "address": manager.address,
                "leader": manager.leader,
                "voter": manager.voter,
            })
        })
        .collect();
    let task_managers = rest.jobs.task_managers().await?;
    let jobs = jobs(&rest, &task_managers).await?;
    let task_managers: Vec<Value> = task_managers.iter().map(task_manager).collect();
    Ok(Json(json!({
        "now_ms": rest.clock.now_ms(),
        "version": env!("CARGO_PKG_VERSION"),
        "term": term,
        "job_managers": job_managers,
        "task_managers": task_managers,
        "jobs": jobs,
    })))
}

fn task_manager(view: &TaskManagerView) -> Value {
    json!({
        "id": view.id.0,
        "host": view.host,
        "slots_total": view.slots_total,
        "slots_free": view.slots_free,
        "labels": view.labels,
        "connected_since_ms": view.connected_since_ms,
        "last_heartbeat_ms": view.last_heartbeat_ms,
        "process": view.process.as_ref().map(|process: &ProcessMetrics| json!(process)),
    })
}

async fn jobs(rest: &Rest, managers: &[TaskManagerView]) -> Result<Vec<Job>, RestError> {
    let listed = rest.jobs.list_jobs(Request::new(v1::ListJobsRequest {})).await?.into_inner().jobs;
    let live = rest.jobs.live(None).await?;
    let now_ms = rest.clock.now_ms();
    let state = rest.jobs.state().read();
    let mut jobs = Vec::with_capacity(listed.len());
    for summary in listed {
        let summary = JobSummary::try_from(summary).map_err(readable)?;
        let record = state.job(summary.job_id).filter(|_| !summary.status.is_terminal());
        let known = record.zip(live.get(&summary.job_id));
        let figures = known.map(|(record, live)| (record, now(now_ms, record, live, managers)));
        let live = figures.map(|(record, figures)| Live {
            records_in: figures.records_in,
            records_out: figures.records_out,
            busy_share: figures.busy.map(|ms| ms / 1_000.0),
            back_pressured_share: figures.back_pressured.map(|ms| ms / 1_000.0),
            checkpoint_ms: record.latest_checkpoint().map(|checkpoint| checkpoint.completed_ms),
            recent: rest.last_hour.recent(summary.job_id, RECENT_POINTS),
        });
        jobs.push(Job { summary, live });
    }
    Ok(jobs)
}

fn now(now_ms: i64, record: &JobRecord, live: &LiveJob, managers: &[TaskManagerView]) -> JobFigures {
    figures(now_ms, record, live, managers, |task| {
        let told = live.tasks.get(&task.counters.subtask)?.earlier.clone()?;
        TaskCounters::try_from(told).ok()
    })
}

/// `GET /thalweg/configuration`
pub(in crate::rest) async fn configuration(State(rest): State<Rest>) -> Answer {
    let mut settings: Vec<_> = keys::all()
        .map(|key| {
            let value = rest.configuration.text(key).map(|value| shown(key.name, value));
            json!({ "key": key.name, "value": value, "is_set": rest.configuration.is_set(key), "help": key.help() })
        })
        .collect();
    settings.sort_by_key(|setting| setting["key"].as_str().map(str::to_string));
    Ok(Json(json!({ "settings": settings })))
}
