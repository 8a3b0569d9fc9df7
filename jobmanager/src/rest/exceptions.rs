//! The failures of a job, in the shape that Flink has for its exceptions since 1.15.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use thalweg_common::failure::Fault;
use thalweg_common::limits::MAX_JOB_FAILURES;

use super::error::Answer;
use super::{Rest, ids};
use crate::cluster::FailureRecord;

/// What a request may say.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wanted {
    max_exceptions: Option<usize>,
}

/// `GET /jobs/{jobid}/exceptions`
pub(super) async fn list(
    State(rest): State<Rest>,
    Path(id): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let job = rest.jobs.record(ids::job(&id)?)?;
    let most = wanted.max_exceptions.unwrap_or(MAX_JOB_FAILURES);
    let entries: Vec<_> = job.failures.iter().rev().take(most).map(entry).collect();
    let truncated = entries.len() < job.failures.len();
    Ok(Json(json!({ "exceptionHistory": { "entries": entries, "truncated": truncated } })))
}

fn entry(record: &FailureRecord) -> Value {
    let fault = match record.failure.fault {
        Fault::User => "USER",
        Fault::External => "EXTERNAL",
        Fault::Internal => "INTERNAL",
    };
    let mut entry = Map::from_iter([
        ("exceptionName".to_string(), record.failure.message.clone().into()),
        ("stacktrace".to_string(), record.failure.to_string().into()),
        ("timestamp".to_string(), record.time_ms.into()),
        ("failureLabels".to_string(), json!({ "fault": fault })),
        ("concurrentExceptions".to_string(), Value::Array(Vec::new())),
    ]);
    for (name, text) in [("taskName", &record.task), ("taskManagerId", &record.task_manager)] {
        if !text.is_empty() {
            entry.insert(name.to_string(), text.clone().into());
        }
    }
    Value::Object(entry)
}
