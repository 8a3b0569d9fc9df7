//! The task managers, and what their workers have written.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use thalweg_common::limits::REST_MAX_LOG_BYTES;

use super::Rest;
use super::error::{Answer, RestError};
use super::ids;
use crate::leader::TaskManagerView;

/// `GET /taskmanagers`
pub(super) async fn list(State(rest): State<Rest>) -> Answer {
    let managers = rest.jobs.task_managers().await?;
    Ok(Json(json!({ "taskmanagers": managers.iter().map(one).collect::<Vec<_>>() })))
}

/// `GET /taskmanagers/{taskmanagerid}`
pub(super) async fn details(State(rest): State<Rest>, Path(id): Path<String>) -> Answer {
    let managers = rest.jobs.task_managers().await?;
    let manager = managers.iter().find(|manager| manager.id.0 == id);
    Ok(Json(one(manager.ok_or_else(|| unknown(&id))?)))
}

pub(super) fn unknown(id: &str) -> RestError {
    RestError::not_found(format!("no task manager `{id}` is connected; `/taskmanagers` lists those that are"))
}

fn one(manager: &TaskManagerView) -> Value {
    let mut all = Map::from_iter([
        ("id".to_string(), manager.id.0.clone().into()),
        ("path".to_string(), manager.host.clone().into()),
        // Flink's name for the time of the last heartbeat.
        ("timeSinceLastHeartbeat".to_string(), manager.last_heartbeat_ms.into()),
        ("slotsNumber".to_string(), manager.slots_total.into()),
        ("freeSlots".to_string(), manager.slots_free.into()),
    ]);
    if let Some(process) = manager.process {
        let metrics = json!({ "heapUsed": process.heap_used_bytes, "heapMax": process.heap_total_bytes });
        all.insert("metrics".to_string(), metrics);
    }
    Value::Object(all)
}

/// `GET /jobs/{jobid}/log`: the end of what the workers of a job have written, all task managers one after the other. Flink has logs of task
/// managers; here each job has its own.
pub(super) async fn job_log(State(rest): State<Rest>, Path(id): Path<String>) -> Result<Response, RestError> {
    let mut pieces = Box::pin(rest.jobs.logs(ids::job(&id)?, 0).await?);
    let mut text = Vec::new();
    let (mut source, mut size) = (String::new(), 0);
    while let Some(piece) = pieces.next().await {
        size += piece.part.data.len();
        if size > REST_MAX_LOG_BYTES {
            text.extend_from_slice(b"\n==> the rest is longer than what is told here <==\n");
            break;
        }
        let title = format!("{} {}", piece.task_manager, piece.part.source);
        if title != source {
            text.extend_from_slice(format!("==> {title} <==\n").as_bytes());
            source = title;
        }
        text.extend_from_slice(&piece.part.data);
    }
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}
