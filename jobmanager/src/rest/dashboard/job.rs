//! A job as the dashboard shows it, and what can be asked of it beyond Flink's paths.

use axum::Json;
use axum::extract::{Path, Query, State};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thalweg_common::config::{CheckpointConfig, RestartStrategy};
use thalweg_common::graph::{Edge, JobGraph};
use thalweg_common::limits::{DASHBOARD_LOG_TAIL_BYTES, REST_MAX_LOG_BYTES};
use thalweg_proto::convert::{Malformed, WireId};
use thalweg_proto::model::time::JobTime;
use thalweg_proto::model::{Checkpoints, JobDetails, SavepointSummary};
use thalweg_proto::v1;
use thalweg_proto::v1::job_service_server::JobService;
use thalweg_proto::why::why as reasons;
use tonic::Request;

use crate::rest::error::{Answer, RestError};
use crate::rest::{Rest, ids};

/// Everything about a job: the same as `thalweg describe --json`, and what draws its graph.
#[derive(Serialize)]
struct Job {
    now_ms: i64,
    #[serde(flatten)]
    details: JobDetails,
    plan: Option<Plan>,
    savepoints: Vec<SavepointSummary>,
}

/// The part of a job graph that people look at.
#[derive(Serialize)]
struct Plan {
    vertices: Vec<Value>,
    edges: Vec<Edge>,
    checkpointing: CheckpointConfig,
    restart_strategy: RestartStrategy,
}

impl From<JobGraph> for Plan {
    fn from(graph: JobGraph) -> Self {
        let operator = |operator: &thalweg_common::graph::Operator| {
            json!({
                "name": operator.name,
                "kind": operator.kind,
                "uid": operator.uid,
                "location": operator.location,
                "inputs": operator.inputs,
            })
        };
        let vertices = graph.vertices.iter().map(|vertex| {
            let operators: Vec<_> = vertex.operators.iter().map(operator).collect();
            json!({ "operators": operators, "slot_sharing_group": vertex.slot_sharing_group })
        });
        Self {
            vertices: vertices.collect(),
            edges: graph.edges,
            checkpointing: graph.checkpointing,
            restart_strategy: graph.restart_strategy,
        }
    }
}

/// What this job manager has written itself cannot be unreadable, unless something is broken.
pub(super) fn readable(malformed: Malformed) -> RestError {
    tonic::Status::internal(format!("the description of the job is broken, please report it: {malformed}"))
        .into()
}

fn as_json(value: impl Serialize) -> Answer {
    let value = serde_json::to_value(value);
    value
        .map(Json)
        .map_err(|error| tonic::Status::internal(format!("the answer cannot be written: {error}")).into())
}

/// `GET /thalweg/jobs/JOB`
pub(in crate::rest) async fn describe(State(rest): State<Rest>, Path(job): Path<String>) -> Answer {
    let job_id = ids::job(&job)?;
    let mut details = JobDetails::try_from(rest.jobs.describe(job_id).await?).map_err(readable)?;
    let request = Request::new(v1::ListSavepointsRequest { job_id: job_id.to_wire() });
    let savepoints = rest.jobs.list_savepoints(request).await?.into_inner().savepoints;
    as_json(Job {
        now_ms: rest.clock.now_ms(),
        plan: details.graph.take().map(Plan::from),
        savepoints: savepoints.into_iter().map(SavepointSummary::from).collect(),
        details,
    })
}

/// `GET /thalweg/jobs/JOB/checkpoints`
pub(in crate::rest) async fn checkpoints(State(rest): State<Rest>, Path(job): Path<String>) -> Answer {
    let request = Request::new(v1::ListCheckpointsRequest { job_id: ids::job(&job)?.to_wire() });
    let listed = rest.jobs.list_checkpoints(request).await?.into_inner();
    as_json(Checkpoints::try_from(listed).map_err(readable)?)
}

/// `GET /thalweg/jobs/JOB/why`: asks all tasks how they keep time.
pub(in crate::rest) async fn why(State(rest): State<Rest>, Path(job): Path<String>) -> Answer {
    let request = Request::new(v1::GetTimeRequest { job_id: ids::job(&job)?.to_wire() });
    let time = rest.jobs.get_time(request).await?.into_inner();
    let time = JobTime::try_from(time).map_err(readable)?;
    as_json(json!({ "waiting": reasons(&time), "tasks": time.tasks, "missing": time.missing }))
}

/// `GET /thalweg/jobs/JOB/charts`
pub(in crate::rest) async fn charts(State(rest): State<Rest>, Path(job): Path<String>) -> Answer {
    let job_id = ids::job(&job)?;
    rest.jobs.record(job_id)?;
    as_json(rest.last_hour.curves(job_id))
}

/// How much of each log is wanted.
#[derive(Deserialize)]
pub(in crate::rest) struct Tail {
    tail_bytes: Option<u64>,
}

/// `GET /thalweg/jobs/JOB/logs?tail_bytes=N`: the ends of what its workers wrote, as far as their task managers answer.
pub(in crate::rest) async fn logs(
    State(rest): State<Rest>,
    Path(job): Path<String>,
    Query(tail): Query<Tail>,
) -> Answer {
    let job_id = ids::job(&job)?;
    let tail_bytes = tail.tail_bytes.unwrap_or(DASHBOARD_LOG_TAIL_BYTES).clamp(1, REST_MAX_LOG_BYTES as u64);
    let pieces = rest.jobs.logs(job_id, tail_bytes).await?;
    futures_util::pin_mut!(pieces);
    let (mut logs, mut room, mut left_out) = (Vec::new(), REST_MAX_LOG_BYTES, 0);
    while let Some(piece) = pieces.next().await {
        let text = String::from_utf8_lossy(&piece.part.data);
        if text.len() > room {
            left_out += 1;
            continue;
        }
        room -= text.len();
        logs.push(json!({ "task_manager": piece.task_manager.0, "source": piece.part.source, "text": text }));
    }
    logs.sort_by_key(|log| (log["task_manager"].to_string(), log["source"].to_string()));
    as_json(
        json!({ "job_id": job_id.to_string(), "tail_bytes": tail_bytes, "logs": logs, "left_out": left_out }),
    )
}
