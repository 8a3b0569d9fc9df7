//! One job: its vertices with their tasks, its plan, its settings.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Map, Value, json};
use thalweg_common::Timestamp;
use thalweg_common::config::{ConfigKey, RestartStrategy, keys};
use thalweg_common::graph::{JobGraph, Partitioning};
use thalweg_common::id::{SubtaskId, VertexId};
use thalweg_common::status::{JobStatus, TaskStatus};

use super::error::Answer;
use super::jobs::{counts, duration_ms};
use super::traffic::Traffic;
use super::{Rest, configuration, ids};
use crate::cluster::JobRecord;
use crate::leader::LiveJob;
use crate::service::task_status;

/// All of Flink's states of a job.
const JOB_STATES: [&str; 11] = [
    "INITIALIZING",
    "CREATED",
    "RUNNING",
    "FAILING",
    "FAILED",
    "CANCELLING",
    "CANCELED",
    "FINISHED",
    "RESTARTING",
    "SUSPENDED",
    "RECONCILING",
];

/// `GET /jobs/{jobid}`
pub(super) async fn details(State(rest): State<Rest>, Path(id): Path<String>) -> Answer {
    let (job, live) = rest.job(&id).await?;
    let now_ms = rest.clock.now_ms();
    let graph = &job.graph;
    let vertices: Vec<_> = numbers(graph).map(|number| vertex(&job, live.as_ref(), number)).collect();
    let mut status_counts = counts(&[]);
    for number in numbers(graph) {
        let name = aggregate(&tasks(&job, live.as_ref(), number)).to_lowercase();
        let known = status_counts.get(&name).and_then(Value::as_u64).unwrap_or(0);
        status_counts.insert(name, (known + 1).into());
    }
    Ok(Json(json!({
        "jid": job.id.to_string(),
        "name": job.name,
        "isStoppable": false,
        "state": job.status.name(),
        "job-type": "STREAMING",
        "start-time": job.submitted_ms,
        "end-time": job.ended_ms.unwrap_or(-1),
        "duration": duration_ms(&job, now_ms),
        "maxParallelism": setting(&job, &keys::PIPELINE_MAX_PARALLELISM),
        "now": now_ms,
        "timestamps": timestamps(&job),
        "vertices": vertices,
        "status-counts": upper_case(status_counts),
        "plan": plan_of(&job),
        "pending-operators": 0,
    })))
}

/// `GET /jobs/{jobid}/plan`
pub(super) async fn plan(State(rest): State<Rest>, Path(id): Path<String>) -> Answer {
    let job = rest.jobs.record(ids::job(&id)?)?;
    Ok(Json(json!({ "plan": plan_of(&job) })))
}

/// `GET /jobs/{jobid}/status`
pub(super) async fn status(State(rest): State<Rest>, Path(id): Path<String>) -> Answer {
    let job = rest.jobs.record(ids::job(&id)?)?;
    Ok(Json(json!({ "status": job.status.name() })))
}

/// `GET /jobs/{jobid}/config`
pub(super) async fn settings(State(rest): State<Rest>, Path(id): Path<String>) -> Answer {
    let job = rest.jobs.record(ids::job(&id)?)?;
    let own = job.configuration.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let own = own.map(|(key, value)| (key.to_string(), Value::from(configuration::shown(key, value))));
    Ok(Json(json!({
        "jid": job.id.to_string(),
        "name": job.name,
        "execution-config": {
            "restart-strategy": restart_strategy(&job.graph.restart_strategy),
            "job-parallelism": setting(&job, &keys::PARALLELISM_DEFAULT),
            "user-config": own.collect::<Map<_, _>>(),
        },
    })))
}

/// A number that was set for the job as a whole; Flink's -1 if none was.
fn setting(job: &JobRecord, key: &ConfigKey) -> i64 {
    job.configuration.get(key.name).and_then(|value| value.parse().ok()).unwrap_or(-1)
}

pub(super) fn numbers(graph: &JobGraph) -> std::ops::Range<VertexId> {
    0..u32::try_from(graph.vertices.len()).unwrap_or(u32::MAX)
}

/// The states of the tasks of a vertex.
pub(super) fn tasks(job: &JobRecord, live: Option<&LiveJob>, vertex: VertexId) -> Vec<TaskStatus> {
    let parallelism = job.graph.vertices.get(vertex as usize).map_or(0, |vertex| vertex.parallelism);
    let subtasks = (0..parallelism).map(|index| SubtaskId { vertex, index });
    subtasks.map(|subtask| task_status(job, live, subtask)).collect()
}

fn vertex(job: &JobRecord, live: Option<&LiveJob>, number: VertexId) -> Value {
    let Some(vertex) = job.graph.vertices.get(number as usize) else { return Value::Null };
    let tasks = tasks(job, live, number);
    let of_vertex = |subtask: &SubtaskId| subtask.vertex == number;
    let running = live.into_iter().flat_map(|live| &live.tasks).filter(|(subtask, _)| of_vertex(subtask));
    let traffic: Vec<_> = running.map(|(_, task)| Traffic::of(&task.counters)).collect();
    json!({
        "id": ids::of_vertex(&job.graph, number),
        "name": vertex.name,
        "maxParallelism": vertex.max_parallelism,
        "parallelism": vertex.parallelism,
        "status": aggregate(&tasks),
        // When a task began is not kept: its duration is what it has run by its own clock.
        "start-time": -1,
        "end-time": -1,
        "duration": traffic.iter().map(Traffic::duration_ms).max().unwrap_or(-1),
        "tasks": upper_case(counts(&tasks)),
        "metrics": Traffic::sum(&traffic).to_json(traffic.len() == tasks.len()),
    })
}

/// The state of a vertex, by Flink's rule: what is wrong comes first, and it runs as long as any task does.
pub(super) fn aggregate(tasks: &[TaskStatus]) -> &'static str {
    let any = |wanted: &str| tasks.iter().any(|task| ids::task_status(*task) == wanted);
    let first =
        ["FAILED", "CANCELING", "CANCELED", "INITIALIZING", "RUNNING"].into_iter().find(|name| any(name));
    if let Some(first) = first {
        return first;
    }
    match any("FINISHED") {
        true if tasks.iter().all(|task| *task == TaskStatus::Finished) => TaskStatus::Finished.name(),
        true => TaskStatus::Running.name(),
        false => TaskStatus::Created.name(),
    }
}

fn upper_case(counts: Map<String, Value>) -> Map<String, Value> {
    counts.into_iter().map(|(state, count)| (state.to_uppercase(), count)).collect()
}

/// When the job came into each state last; 0 for those in which it never was.
fn timestamps(job: &JobRecord) -> Map<String, Value> {
    let last = |name: &str| -> Timestamp {
        let entered = job.history.iter().rfind(|change| change.to.name() == name);
        match entered {
            Some(change) => change.time_ms,
            None if name == JobStatus::Created.name() => job.submitted_ms,
            None => 0,
        }
    };
    JOB_STATES.iter().map(|name| ((*name).to_string(), last(name).into())).collect()
}

/// The plan as Flink's dashboard draws it.
fn plan_of(job: &JobRecord) -> Value {
    let graph = &job.graph;
    let input = |(number, edge): (usize, &thalweg_common::graph::Edge)| {
        json!({
            "num": number,
            "id": ids::of_vertex(graph, edge.source),
            "ship_strategy": ship_strategy(edge.partitioning),
            "exchange": "pipelined_bounded",
        })
    };
    let node = |number: VertexId| {
        let vertex = graph.vertices.get(number as usize)?;
        let inputs: Vec<_> = graph.inputs(number).map(|(_, edge)| edge).enumerate().map(input).collect();
        let mut node = Map::from_iter([
            ("id".to_string(), ids::of_vertex(graph, number).into()),
            ("parallelism".to_string(), vertex.parallelism.into()),
            ("operator".to_string(), "".into()),
            ("operator_strategy".to_string(), "".into()),
            ("description".to_string(), vertex.name.clone().into()),
            ("optimizer_properties".to_string(), Value::Object(Map::new())),
        ]);
        if !inputs.is_empty() {
            node.insert("inputs".to_string(), inputs.into());
        }
        Some(Value::Object(node))
    };
    json!({
        "jid": job.id.to_string(),
        "name": job.name,
        "type": "STREAMING",
        "nodes": numbers(graph).filter_map(node).collect::<Vec<_>>(),
    })
}

fn ship_strategy(partitioning: Partitioning) -> &'static str {
    match partitioning {
        Partitioning::Forward => "FORWARD",
        Partitioning::Hash => "HASH",
        Partitioning::Rebalance => "REBALANCE",
        Partitioning::Rescale => "RESCALE",
        Partitioning::Broadcast => "BROADCAST",
        // Flink has no channels for splits.
        Partitioning::Splits => "CUSTOM",
    }
}

fn restart_strategy(strategy: &RestartStrategy) -> String {
    match strategy {
        RestartStrategy::None => "Restart deactivated.".to_string(),
        RestartStrategy::FixedDelay { attempts, delay_ms } => {
            let attempts = match *attempts {
                RestartStrategy::UNLIMITED => "without limit".to_string(),
                attempts => format!("at most {attempts} times"),
            };
            format!("Restart with fixed delay ({delay_ms} ms), {attempts}.")
        }
        RestartStrategy::ExponentialDelay {
            initial_backoff_ms, max_backoff_ms, backoff_multiplier, ..
        } => {
            format!(
                "Restart with exponential delay (from {initial_backoff_ms} ms to {max_backoff_ms} ms, times {backoff_multiplier})."
            )
        }
        RestartStrategy::FailureRate { max_failures, interval_ms, delay_ms } => format!(
            "Restart with delay ({delay_ms} ms) while there are at most {max_failures} failures in {interval_ms} ms."
        ),
    }
}
