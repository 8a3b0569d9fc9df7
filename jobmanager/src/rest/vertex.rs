//! One vertex of a job: its tasks, what holds them up, how far their time is.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Map, Value, json};
use thalweg_common::id::{SubtaskId, VertexId};
use thalweg_common::status::TaskStatus;
use thalweg_proto::metrics::{BackPressure, TaskRates};
use thalweg_proto::model::TaskCounters;

use super::error::Answer;
use super::job::aggregate;
use super::jobs::counts;
use super::traffic::Traffic;
use super::{Rest, ids};
use crate::cluster::JobRecord;
use crate::leader::{LiveJob, LiveTask, TaskManagerView};
use crate::service::task_status;

/// `GET /jobs/{jobid}/vertices/{vertexid}`
pub(super) async fn details(State(rest): State<Rest>, Path((job, vertex)): Path<(String, String)>) -> Answer {
    let (job, live) = rest.job(&job).await?;
    let number = ids::vertex(&job.graph, &vertex)?;
    let hosts = hosts(&rest.jobs.task_managers().await?);
    let Some(vertex) = job.graph.vertices.get(number as usize) else { return Ok(Json(Value::Null)) };
    let subtask = |index| subtask(&job, live.as_ref(), &hosts, SubtaskId { vertex: number, index });
    let running: Vec<_> =
        of_vertex(live.as_ref(), number).map(|(_, task)| Traffic::of(&task.counters)).collect();
    Ok(Json(json!({
        "id": ids::of_vertex(&job.graph, number),
        "name": vertex.name,
        "parallelism": vertex.parallelism,
        "maxParallelism": vertex.max_parallelism,
        "now": rest.clock.now_ms(),
        "subtasks": (0..vertex.parallelism).map(subtask).collect::<Vec<_>>(),
        "aggregated": { "metrics": Traffic::spread(&running) },
    })))
}

/// `GET /jobs/{jobid}/vertices/{vertexid}/taskmanagers`
pub(super) async fn task_managers(
    State(rest): State<Rest>,
    Path((job, vertex)): Path<(String, String)>,
) -> Answer {
    let (job, live) = rest.job(&job).await?;
    let number = ids::vertex(&job.graph, &vertex)?;
    let hosts = hosts(&rest.jobs.task_managers().await?);
    let mut by_manager: BTreeMap<String, Vec<&LiveTask>> = BTreeMap::new();
    for (_, task) in of_vertex(live.as_ref(), number) {
        by_manager.entry(task.task_manager.to_string()).or_default().push(task);
    }
    let managers = by_manager.into_iter().map(|(id, tasks)| {
        let traffic: Vec<_> = tasks.iter().map(|task| Traffic::of(&task.counters)).collect();
        let states: Vec<TaskStatus> = tasks.iter().map(|task| task.status).collect();
        json!({
            "endpoint": hosts.get(&id),
            "status": aggregate(&states),
            "start-time": -1,
            "end-time": -1,
            "duration": traffic.iter().map(Traffic::duration_ms).max().unwrap_or(-1),
            "metrics": Traffic::sum(&traffic).to_json(true),
            "status-counts": counts(&states),
            "taskmanager-id": id,
        })
    });
    let name = job.graph.vertices.get(number as usize).map(|vertex| vertex.name.clone());
    Ok(Json(json!({
        "id": ids::of_vertex(&job.graph, number),
        "name": name,
        "now": rest.clock.now_ms(),
        "taskmanagers": managers.collect::<Vec<_>>(),
    })))
}

/// `GET /jobs/{jobid}/vertices/{vertexid}/backpressure`
pub(super) async fn back_pressure(
    State(rest): State<Rest>,
    Path((job, vertex)): Path<(String, String)>,
) -> Answer {
    let (job, live) = rest.job(&job).await?;
    let number = ids::vertex(&job.graph, &vertex)?;
    let measured =
        of_vertex(live.as_ref(), number).filter_map(|(subtask, task)| Some((subtask, task, rates(task)?)));
    let measured: Vec<_> = measured.collect();
    let Some(level) = measured.iter().map(|(.., rates)| rates.back_pressure_level).max() else {
        // Flink's word for having no figures yet.
        return Ok(Json(json!({ "status": "deprecated", "subtasks": [] })));
    };
    let part = |ms_per_second: u64| ms_per_second as f64 / 1_000.0;
    let subtasks = measured.iter().map(|(subtask, task, rates)| {
        json!({
            "subtask": subtask.index,
            "attempt-number": task.attempt,
            "backpressure-level": word(rates.back_pressure_level),
            "backpressureLevel": word(rates.back_pressure_level),
            "ratio": part(rates.back_pressured_time_ms_per_second),
            "idleRatio": part(rates.idle_time_ms_per_second),
            "busyRatio": part(rates.busy_time_ms_per_second),
        })
    });
    Ok(Json(json!({
        "status": "ok",
        "backpressure-level": word(level),
        "backpressureLevel": word(level),
        "end-timestamp": rest.clock.now_ms(),
        "subtasks": subtasks.collect::<Vec<_>>(),
    })))
}

/// `GET /jobs/{jobid}/vertices/{vertexid}/watermarks`
pub(super) async fn watermarks(
    State(rest): State<Rest>,
    Path((job, vertex)): Path<(String, String)>,
) -> Answer {
    let (job, live) = rest.job(&job).await?;
    let number = ids::vertex(&job.graph, &vertex)?;
    let watermarks = of_vertex(live.as_ref(), number).filter_map(|(subtask, task)| {
        let watermark = task.counters.current_input_watermark?;
        let id = format!("{}.currentInputWatermark", subtask.index);
        Some(json!({ "id": id, "value": watermark.to_string() }))
    });
    Ok(Json(watermarks.collect()))
}

fn of_vertex(live: Option<&LiveJob>, vertex: VertexId) -> impl Iterator<Item = (&SubtaskId, &LiveTask)> {
    let all = live.into_iter().flat_map(|live| &live.tasks);
    all.filter(move |(subtask, _)| subtask.vertex == vertex)
}

fn hosts(managers: &[TaskManagerView]) -> BTreeMap<String, String> {
    managers.iter().map(|manager| (manager.id.to_string(), manager.host.clone())).collect()
}

fn word(level: BackPressure) -> &'static str {
    match level {
        BackPressure::Ok => "ok",
        BackPressure::Low => "low",
        BackPressure::High => "high",
    }
}

/// How a task has spent its time lately; nothing if it has not run, or told what cannot be read.
fn rates(task: &LiveTask) -> Option<TaskRates> {
    let later = TaskCounters::try_from(task.counters.clone()).ok()?;
    let earlier = task.earlier.clone().map(TaskCounters::try_from).transpose().ok()?;
    TaskRates::between(earlier.as_ref(), &later).filter(|_| !later.status.is_terminal())
}

fn subtask(
    job: &JobRecord,
    live: Option<&LiveJob>,
    hosts: &BTreeMap<String, String>,
    subtask: SubtaskId,
) -> Value {
    let known = live.and_then(|live| live.tasks.get(&subtask));
    let placed = job.placement.get(&subtask).map(|slot| &slot.task_manager);
    let manager = known.map(|task| &task.task_manager).or(placed).map(ToString::to_string);
    let started_by = job.attempts.get(&subtask).copied();
    let traffic = known.map(|task| Traffic::of(&task.counters));
    let mut all = Map::from_iter([
        ("subtask".to_string(), subtask.index.into()),
        ("status".to_string(), ids::task_status(task_status(job, live, subtask)).into()),
        ("attempt".to_string(), known.map(|task| task.attempt).or(started_by).unwrap_or(job.attempt).into()),
        ("start-time".to_string(), (-1).into()),
        ("end-time".to_string(), (-1).into()),
        ("duration".to_string(), traffic.map_or(-1, |traffic| traffic.duration_ms()).into()),
        ("metrics".to_string(), traffic.unwrap_or_default().to_json(traffic.is_some())),
    ]);
    if let Some(manager) = manager {
        if let Some(host) = hosts.get(&manager) {
            all.insert("endpoint".to_string(), host.clone().into());
        }
        all.insert("taskmanager-id".to_string(), manager.into());
    }
    Value::Object(all)
}
