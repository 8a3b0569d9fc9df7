//! What changes something: cancel, stop, savepoints, checkpoints, other parallelisms. All but a cancellation go on behind their request (`operations`).

use std::future::Future;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;
use thalweg_proto::model::SavepointMode;
use tokio::sync::{oneshot, watch};
use tonic::Status;

use super::error::{Answer, RestError};
use super::operations::{Kind, Progress, Subject};
use super::{Rest, ids};
use crate::job::{CheckpointNews, RescaleNews, SavepointNews};
use crate::leader::last;
use crate::service::JobServer;

/// What a request that begins something answers.
type Accepted = Result<(StatusCode, Json<Value>), RestError>;

const SAVEPOINT_UNKNOWN: &str = "another job manager leads now; it knows nothing of the savepoint: look whether it is in \
                                 `/jobs/JOB/checkpoints` before you ask again";
const CHECKPOINT_UNKNOWN: &str = "another job manager leads now; look into `/jobs/JOB/checkpoints` whether one was completed before you ask again";
const RESCALE_UNKNOWN: &str =
    "another job manager leads now; look at the job's parallelism before you ask again";

/// What a request may say about the end of a job.
#[derive(Debug, Deserialize)]
pub(super) struct Mode {
    mode: Option<String>,
}

/// `PATCH /jobs/{jobid}?mode=cancel`
pub(super) async fn cancel(
    State(rest): State<Rest>,
    Path(id): Path<String>,
    Query(Mode { mode }): Query<Mode>,
) -> Accepted {
    match mode.as_deref() {
        None | Some("cancel") => cancelled(&rest, &id).await,
        Some("stop") => Err(RestError::bad_request(
            "there is no mode `stop`; to end a job with a savepoint, `POST /jobs/JOB/stop`",
        )),
        Some(other) => {
            Err(RestError::bad_request(format!("there is no mode `{other}`; write `mode=cancel`")))
        }
    }
}

/// `GET /jobs/{jobid}/yarn-cancel`, for those who cannot `PATCH`.
pub(super) async fn cancel_by_get(State(rest): State<Rest>, Path(id): Path<String>) -> Accepted {
    cancelled(&rest, &id).await
}

async fn cancelled(rest: &Rest, id: &str) -> Accepted {
    let job_id = ids::job(id)?;
    let status = rest.jobs.record(job_id)?.status;
    if matches!(status, JobStatus::Finished | JobStatus::Failed) {
        let message = format!("job {job_id} has ended already: it is {status}");
        return Err(RestError::new(StatusCode::CONFLICT, message));
    }
    rest.jobs.cancel(job_id).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({}))))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavepointRequest {
    #[serde(rename = "target-directory")]
    target_directory: Option<String>,
    #[serde(rename = "cancel-job")]
    cancel_job: Option<bool>,
    #[serde(rename = "formatType")]
    format_type: Option<String>,
    #[serde(rename = "triggerId")]
    trigger_id: Option<String>,
}

/// `POST /jobs/{jobid}/savepoints`
pub(super) async fn savepoint(State(rest): State<Rest>, Path(id): Path<String>, body: Bytes) -> Accepted {
    let job_id = ids::job(&id)?;
    let request: SavepointRequest = read(&body)?;
    check_format(request.format_type.as_deref())?;
    let directory = request.target_directory.unwrap_or_default();
    let cancels = request.cancel_job.unwrap_or(false);
    let jobs = rest.jobs.clone();
    let start = async move {
        let news = jobs.take_savepoint(job_id, &directory, SavepointMode::Continue).await?;
        Ok(async move {
            let location = location(news).await?;
            if cancels {
                jobs.cancel(job_id).await.map_err(|status| {
                    let reason = status.message();
                    format!("the savepoint is at {location}, but the job could not be cancelled: {reason}")
                })?;
            }
            Ok(json!({ "location": location }))
        })
    };
    begin(&rest, of_job(Kind::Savepoint, job_id), request.trigger_id, start).await
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StopRequest {
    target_directory: Option<String>,
    drain: Option<bool>,
    format_type: Option<String>,
    trigger_id: Option<String>,
}

/// `POST /jobs/{jobid}/stop`
pub(super) async fn stop(State(rest): State<Rest>, Path(id): Path<String>, body: Bytes) -> Accepted {
    let job_id = ids::job(&id)?;
    let request: StopRequest = read(&body)?;
    check_format(request.format_type.as_deref())?;
    let directory = request.target_directory.unwrap_or_default();
    let mode = if request.drain.unwrap_or(false) { SavepointMode::Drain } else { SavepointMode::Stop };
    let jobs = rest.jobs.clone();
    let start = async move {
        let news = jobs.take_savepoint(job_id, &directory, mode).await?;
        Ok(async move {
            let location = location(news).await?;
            ended(&jobs, job_id, &location).await?;
            Ok(json!({ "location": location }))
        })
    };
    begin(&rest, of_job(Kind::Savepoint, job_id), request.trigger_id, start).await
}

/// `GET /jobs/{jobid}/savepoints/{triggerid}`, also for those with which a job stops.
pub(super) async fn savepoint_status(
    State(rest): State<Rest>,
    Path((id, trigger)): Path<(String, String)>,
) -> Answer {
    let job_id = ids::job(&id)?;
    rest.operations.status(&of_job(Kind::Savepoint, job_id), &trigger)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CheckpointRequest {
    checkpoint_type: Option<String>,
    trigger_id: Option<String>,
}

/// `POST /jobs/{jobid}/checkpoints`
pub(super) async fn checkpoint(State(rest): State<Rest>, Path(id): Path<String>, body: Bytes) -> Accepted {
    let job_id = ids::job(&id)?;
    let request: CheckpointRequest = read(&body)?;
    check_type(request.checkpoint_type.as_deref())?;
    let jobs = rest.jobs.clone();
    let start = async move {
        let news = jobs.take_checkpoint(job_id).await?;
        Ok(async move {
            match last(news).await {
                Some(CheckpointNews::Completed(id)) => Ok(json!({ "checkpointId": id })),
                Some(CheckpointNews::Failed(reason)) => Err(reason),
                Some(CheckpointNews::Progress) | None => Err(CHECKPOINT_UNKNOWN.to_string()),
            }
        })
    };
    begin(&rest, of_job(Kind::Checkpoint, job_id), request.trigger_id, start).await
}

/// `GET /jobs/{jobid}/checkpoints/{triggerid}`
pub(super) async fn checkpoint_status(
    State(rest): State<Rest>,
    Path((id, trigger)): Path<(String, String)>,
) -> Answer {
    let job_id = ids::job(&id)?;
    rest.operations.status(&of_job(Kind::Checkpoint, job_id), &trigger)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DisposalRequest {
    #[serde(rename = "savepoint-path")]
    savepoint_path: String,
}

/// `POST /savepoint-disposal`
pub(super) async fn dispose(State(rest): State<Rest>, body: Bytes) -> Accepted {
    let request: DisposalRequest = read(&body)?;
    let jobs = rest.jobs.clone();
    let start = async move {
        Ok(async move {
            let disposed = jobs.dispose(request.savepoint_path).await;
            disposed.map(|()| json!({})).map_err(|status| status.message().to_string())
        })
    };
    begin(&rest, disposal(), None, start).await
}

/// `GET /savepoint-disposal/{triggerid}`
pub(super) async fn disposal_status(State(rest): State<Rest>, Path(trigger): Path<String>) -> Answer {
    rest.operations.status(&disposal(), &trigger)
}

/// What a request says about another parallelism.
#[derive(Debug, Deserialize)]
pub(super) struct Parallelism {
    parallelism: u32,
}

/// `PATCH /jobs/{jobid}/rescaling?parallelism=4`
pub(super) async fn rescale(
    State(rest): State<Rest>,
    Path(id): Path<String>,
    Query(Parallelism { parallelism }): Query<Parallelism>,
) -> Accepted {
    let job_id = ids::job(&id)?;
    let jobs = rest.jobs.clone();
    let start = async move {
        let news = jobs.rescale(job_id, parallelism).await?;
        Ok(async move {
            match last(news).await {
                Some(RescaleNews::Running) => Ok(json!({})),
                Some(RescaleNews::Failed(reason)) => Err(reason),
                Some(RescaleNews::Progress(_)) | None => Err(RESCALE_UNKNOWN.to_string()),
            }
        })
    };
    begin(&rest, of_job(Kind::Rescaling, job_id), None, start).await
}

/// `GET /jobs/{jobid}/rescaling/{triggerid}`
pub(super) async fn rescale_status(
    State(rest): State<Rest>,
    Path((id, trigger)): Path<(String, String)>,
) -> Answer {
    let job_id = ids::job(&id)?;
    rest.operations.status(&of_job(Kind::Rescaling, job_id), &trigger)
}

fn of_job(kind: Kind, job_id: JobId) -> Subject {
    Subject { kind, job: job_id.to_string() }
}

fn disposal() -> Subject {
    Subject { kind: Kind::Disposal, job: String::new() }
}

/// A body of JSON; none is the same as `{}`.
pub(super) fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, RestError> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_err(|error| RestError::bad_request(format!("the body cannot be read: {error}")))
}

/// There is one form of savepoints, which is what Flink calls canonical: any version, parallelism and store reads it.
fn check_format(wanted: Option<&str>) -> Result<(), RestError> {
    match wanted {
        None => Ok(()),
        Some(canonical) if canonical.eq_ignore_ascii_case("CANONICAL") => Ok(()),
        Some(other) => Err(RestError::bad_request(format!(
            "there are no savepoints of type `{other}`; ask for `CANONICAL`, or restore a checkpoint as it is"
        ))),
    }
}

/// A checkpoint is as the job's settings say; as in Flink `INCREMENTAL` is the same where those say otherwise.
fn check_type(wanted: Option<&str>) -> Result<(), RestError> {
    match wanted {
        None | Some("CONFIGURED" | "INCREMENTAL") => Ok(()),
        Some("FULL") => Err(RestError::bad_request(
            "a single checkpoint cannot be `FULL`: for all of a job that is `execution.checkpointing.incremental: false`; ask for \
             `CONFIGURED`, or take a savepoint, which needs no other files",
        )),
        Some(other) => Err(RestError::bad_request(format!(
            "there is no checkpoint type `{other}`; write `CONFIGURED` or `INCREMENTAL`"
        ))),
    }
}

/// Begins something unless its trigger id says that it has begun already, and answers as soon as it is under way or refused.
async fn begin<F>(
    rest: &Rest,
    subject: Subject,
    trigger: Option<String>,
    start: impl Future<Output = Result<F, Status>> + Send + 'static,
) -> Accepted
where
    F: Future<Output = Result<Value, String>> + Send + 'static,
{
    let (trigger, is_new) = rest.operations.begin(&subject, trigger)?;
    if is_new {
        let (told, answer) = oneshot::channel();
        let (operations, own) = (Arc::clone(&rest.operations), trigger.clone());
        let stopped = rest.scope.token();
        // Beside the request: whoever asked may go, what was asked for goes on.
        let operation = async move {
            let started = start.await;
            if started.is_err() {
                operations.forget(&subject, &own);
            }
            let (going, answer) = match started {
                Ok(going) => (Some(going), Ok(())),
                Err(status) => (None, Err(status)),
            };
            let _ = told.send(answer);
            let Some(going) = going else { return };
            let progress = match going.await {
                Ok(result) => Progress::Done(result),
                Err(reason) => Progress::Failed(reason),
            };
            operations.end(&subject, &own, progress);
        };
        rest.scope.spawn("operation", async move {
            stopped.run_until_cancelled_owned(operation).await;
        });
        answer.await.map_err(|_| Status::unavailable("the job manager is stopping"))??;
    }
    Ok((StatusCode::ACCEPTED, Json(json!({ "request-id": trigger }))))
}

/// Where the savepoint is, when it is complete.
async fn location(news: watch::Receiver<SavepointNews>) -> Result<String, String> {
    match last(news).await {
        Some(SavepointNews::Completed(savepoint)) => Ok(savepoint.path.unwrap_or_default()),
        Some(SavepointNews::Failed(reason)) => Err(reason),
        Some(SavepointNews::Progress { .. }) | None => Err(SAVEPOINT_UNKNOWN.to_string()),
    }
}

/// Waits until a job has ended that has got its last savepoint.
async fn ended(jobs: &JobServer, job_id: JobId, location: &str) -> Result<(), String> {
    let mut watch = jobs.watch(job_id);
    while let Some(event) = watch.next().await {
        match event.status {
            JobStatus::Running => {}
            JobStatus::Finished => return Ok(()),
            status => {
                return Err(format!(
                    "the savepoint is at {location}, but behind it the job is {status} ({}); it goes on from the savepoint unless it has ended",
                    event.reason
                ));
            }
        }
    }
    Ok(())
}
