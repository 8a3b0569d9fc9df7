//! Metrics by name: without `get` which there are, with `get=a,b` what they say. Names and values are those of the other reporters.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};
use thalweg_common::id::{JobId, VertexId};
use thalweg_metrics::scope::{self, Labels, Sample};
use thalweg_metrics::sight::{JobSight, TaskSight};

use super::error::{Answer, RestError};
use super::{Rest, ids, task_managers};

/// What a request may say.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    get: Option<String>,
}

/// Values by their names within what was asked about.
type Values = BTreeMap<String, f64>;

impl Wanted {
    fn answer(&self, values: &Values) -> Answer {
        let Some(get) = &self.get else {
            return Ok(Json(values.keys().map(|id| json!({ "id": id })).collect()));
        };
        let known = get.split(',').filter_map(|id| values.get_key_value(id));
        Ok(Json(known.map(|(id, value)| json!({ "id": id, "value": value.to_string() })).collect()))
    }
}

/// `GET /jobmanager/metrics`
pub(super) async fn of_job_manager(State(rest): State<Rest>, Query(wanted): Query<Wanted>) -> Answer {
    let process = rest.process.lock().await.sample(&[std::process::id()], (0, 0));
    let mut values = named(&scope::of_process("jobmanager", &process, &Labels::new()), "flink_jobmanager_");
    let collected = rest.collector.lock().await.collect().await.map_err(tonic::Status::from)?;
    values.extend(named(&collected.cluster(&Labels::new()), "flink_jobmanager_"));
    wanted.answer(&values)
}

/// `GET /taskmanagers/{taskmanagerid}/metrics`
pub(super) async fn of_task_manager(
    State(rest): State<Rest>,
    Path(id): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let managers = rest.jobs.task_managers().await?;
    let manager = managers.iter().find(|manager| manager.id.0 == id);
    let process = manager.ok_or_else(|| task_managers::unknown(&id))?.process;
    let samples = process.map(|process| scope::of_process("taskmanager", &process, &Labels::new()));
    wanted.answer(&named(&samples.unwrap_or_default(), "flink_taskmanager_"))
}

/// `GET /jobs/{jobid}/metrics`
pub(super) async fn of_job(
    State(rest): State<Rest>,
    Path(id): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let (sight, now_ms) = sight(&rest, ids::job(&id)?).await?;
    let samples = sight.map(|sight| scope::of_job(&sight, now_ms, &Labels::new())).unwrap_or_default();
    wanted.answer(&named(&samples, "flink_jobmanager_job_"))
}

/// `GET /jobs/{jobid}/vertices/{vertexid}/metrics`: each name is led by the number of its subtask.
pub(super) async fn of_vertex(
    State(rest): State<Rest>,
    Path((job, vertex)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let subtasks = subtasks(&rest, &job, &vertex).await?;
    let all = subtasks.into_iter().flat_map(|(index, values)| {
        values.into_iter().map(move |(name, value)| (format!("{index}.{name}"), value))
    });
    wanted.answer(&all.collect())
}

/// `GET /jobs/{jobid}/vertices/{vertexid}/subtasks/{subtaskindex}/metrics`
pub(super) async fn of_subtask(
    State(rest): State<Rest>,
    Path((job, vertex, index)): Path<(String, String, u32)>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let subtasks = subtasks(&rest, &job, &vertex).await?;
    let values = subtasks.into_iter().find_map(|(number, values)| (number == index).then_some(values));
    wanted.answer(&values.unwrap_or_default())
}

/// `GET /jobs/{jobid}/vertices/{vertexid}/subtasks/metrics`: least, most, mean and sum over the subtasks.
pub(super) async fn over_subtasks(
    State(rest): State<Rest>,
    Path((job, vertex)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (_, values) in subtasks(&rest, &job, &vertex).await? {
        for (name, value) in values {
            all.entry(name).or_default().push(value);
        }
    }
    let Some(get) = &wanted.get else {
        return Ok(Json(all.keys().map(|id| json!({ "id": id })).collect()));
    };
    let known = get.split(',').filter_map(|id| all.get_key_value(id));
    Ok(Json(known.map(|(id, values)| spread(id, values)).collect()))
}

fn spread(id: &str, values: &[f64]) -> Value {
    let sum: f64 = values.iter().sum();
    json!({
        "id": id,
        "min": values.iter().copied().reduce(f64::min),
        "max": values.iter().copied().reduce(f64::max),
        "avg": sum / values.len() as f64,
        "sum": sum,
    })
}

/// A job at this moment; nothing of one that has ended long ago.
async fn sight(rest: &Rest, job_id: JobId) -> Result<(Option<JobSight>, i64), RestError> {
    rest.jobs.record(job_id)?;
    let collected = rest.collector.lock().await.collect().await.map_err(tonic::Status::from)?;
    Ok((collected.jobs.into_iter().find(|job| job.id == job_id), collected.now_ms))
}

async fn subtasks(rest: &Rest, job: &str, vertex: &str) -> Result<Vec<(u32, Values)>, RestError> {
    let job_id = ids::job(job)?;
    let vertex: VertexId = ids::vertex(&rest.jobs.record(job_id)?.graph, vertex)?;
    let tasks = sight(rest, job_id).await?.0.map(|sight| sight.tasks).unwrap_or_default();
    let of_vertex = tasks.iter().filter(|task| task.counters.subtask.vertex == vertex);
    Ok(of_vertex.map(|task| (task.counters.subtask.index, of_task(task))).collect())
}

/// Those of a task by their names, those of its operators led by the operator's name as Flink writes it.
fn of_task(task: &TaskSight) -> Values {
    let samples = scope::of_task(task, &Labels::new());
    let (operators, own): (Vec<_>, Vec<_>) = samples
        .into_iter()
        .partition(|sample| sample.labels.iter().any(|(label, _)| *label == "operator_name"));
    let mut values = named(&own, "flink_taskmanager_job_task_");
    for sample in &operators {
        let operator = sample.labels.iter().find(|(label, _)| *label == "operator_name");
        let operator = operator.map_or("", |(_, name)| name.as_str());
        let word = |character: char| if character.is_ascii_alphanumeric() { character } else { '_' };
        let operator: String = operator.chars().map(word).collect();
        let name = sample.name.strip_prefix("flink_taskmanager_job_task_operator_").unwrap_or(&sample.name);
        values.insert(format!("{operator}.{name}"), sample.value);
    }
    values
}

fn named(samples: &[Sample], prefix: &str) -> Values {
    let name = |sample: &Sample| sample.name.strip_prefix(prefix).unwrap_or(&sample.name).to_string();
    samples.iter().map(|sample| (name(sample), sample.value)).collect()
}
