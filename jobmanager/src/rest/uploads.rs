//! Job binaries that are uploaded first and run later. Flink calls them jars; here they are executables.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;
use thalweg_common::config::keys;
use thalweg_common::id::SubmissionId;
use thalweg_common::task_scope::blocking;
use thalweg_proto::convert::WireId;
use thalweg_proto::v1;
use tonic::Status;

use super::Rest;
use super::actions::read;
use super::error::{Answer, RestError};
use super::multipart::{Multipart, MultipartError};
use crate::submission::{BlobError, Upload, UploadError};

impl From<MultipartError> for RestError {
    fn from(error: MultipartError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<BlobError> for RestError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::TooLarge { .. } => Self::bad_request(error.to_string()),
            BlobError::Mismatch { .. } | BlobError::Disk { .. } => {
                Status::unavailable(error.to_string()).into()
            }
        }
    }
}

impl From<UploadError> for RestError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::TooMany => Status::aborted(error.to_string()).into(),
            UploadError::Disk(_) => Status::unavailable(error.to_string()).into(),
        }
    }
}

/// `GET /jars`
pub(super) async fn list(State(rest): State<Rest>) -> Answer {
    let files = uploads(&rest).await?.into_iter().map(|upload| {
        json!({ "id": upload.id(), "name": upload.name, "uploaded": upload.uploaded_ms, "entry": [] })
    });
    Ok(Json(json!({ "address": rest.url, "files": files.collect::<Vec<_>>() })))
}

/// `POST /jars/upload`
pub(super) async fn upload(State(rest): State<Rest>, headers: HeaderMap, body: Body) -> Answer {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut multipart = Multipart::new(content_type)?;
    let blobs = &rest.submitter.blobs;
    let mut writer = blobs.receive_any().await?;
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece =
            piece.map_err(|error| RestError::bad_request(format!("the upload broke off: {error}")))?;
        let file = multipart.feed(&piece)?;
        if !file.is_empty() {
            writer.write(file).await?;
        }
    }
    let name = multipart.file_name().unwrap_or_default().to_string();
    multipart.finish()?;
    let hash = writer.finish().await?;
    let blobs = blobs.clone();
    let kept = blocking("keep an upload", move || blobs.keep_upload(hash, &name)).await;
    let upload = kept.map_err(|error| Status::unavailable(error.to_string()))??;
    // Flink's clients take what is behind the last slash.
    Ok(Json(json!({ "filename": format!("uploads/{}", upload.id()), "status": "success" })))
}

/// `DELETE /jars/{jarid}`
pub(super) async fn delete(State(rest): State<Rest>, Path(id): Path<String>) -> Answer {
    let (upload, blobs) = (find(&rest, &id).await?, rest.submitter.blobs.clone());
    let forgotten = blocking("forget an upload", move || blobs.forget_upload(&upload)).await;
    forgotten.map_err(|error| Status::unavailable(error.to_string()))?.map_err(UploadError::Disk)?;
    Ok(Json(json!({})))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RunRequest {
    entry_class: Option<String>,
    program_args: Option<String>,
    program_args_list: Option<Vec<String>>,
    parallelism: Option<u32>,
    job_id: Option<String>,
    allow_non_restored_state: Option<bool>,
    savepoint_path: Option<String>,
    claim_mode: Option<String>,
    flink_configuration: Option<BTreeMap<String, String>>,
}

/// What of that a query may say instead.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunQuery {
    program_arg: Option<String>,
    parallelism: Option<u32>,
    allow_non_restored_state: Option<bool>,
    savepoint_path: Option<String>,
}

/// `POST /jars/{jarid}/run`
pub(super) async fn run(
    State(rest): State<Rest>,
    Path(id): Path<String>,
    Query(query): Query<RunQuery>,
    body: Bytes,
) -> Answer {
    let request: RunRequest = read(&body)?;
    let upload = find(&rest, &id).await?;
    let header = header(request, query, &upload)?;
    let size_bytes = rest.submitter.blobs.size_bytes(upload.hash).await?;
    let submitted = rest.submitter.submit_uploaded(v1::SubmitHeader { size_bytes, ..header }).await?;
    let job_id = thalweg_common::id::JobId::from_wire("job_id", &submitted.job_id).map_err(Status::from)?;
    Ok(Json(json!({ "jobid": job_id.to_string() })))
}

fn header(request: RunRequest, query: RunQuery, upload: &Upload) -> Result<v1::SubmitHeader, RestError> {
    for (name, value) in [("entryClass", &request.entry_class), ("jobId", &request.job_id)] {
        if value.as_ref().is_some_and(|value| !value.is_empty()) {
            return Err(RestError::bad_request(format!(
                "`{name}` cannot be chosen: a job binary begins in one place, and the cluster gives jobs their ids; leave it out"
            )));
        }
    }
    let mut configuration = request.flink_configuration.unwrap_or_default();
    if let Some(parallelism) = request.parallelism.or(query.parallelism) {
        configuration.insert(keys::PARALLELISM_DEFAULT.name.to_string(), parallelism.to_string());
    }
    let listed = |text: &str, separator: char| text.split(separator).map(str::to_string).collect();
    let arguments = match (request.program_args_list, request.program_args, query.program_arg) {
        (Some(list), ..) => list,
        (None, Some(text), _) => text.split_whitespace().map(str::to_string).collect(),
        (None, None, Some(text)) => listed(&text, ','),
        (None, None, None) => Vec::new(),
    };
    let path = request.savepoint_path.or(query.savepoint_path).filter(|path| !path.is_empty());
    let allow_non_restored_state = request.allow_non_restored_state.or(query.allow_non_restored_state);
    let claim = match request.claim_mode.as_deref() {
        None | Some("NO_CLAIM") => false,
        Some("CLAIM") => true,
        Some(other) => {
            let message = format!("there is no claim mode `{other}`; write `CLAIM` or `NO_CLAIM`");
            return Err(RestError::bad_request(message));
        }
    };
    let submission_id = SubmissionId::random()
        .map_err(|error| Status::unavailable(format!("the system gives no random bytes: {error}")))?;
    Ok(v1::SubmitHeader {
        submission_id: submission_id.to_wire(),
        sha256: upload.hash.to_wire(),
        arguments,
        configuration: configuration.into_iter().collect(),
        binary_name: upload.name.clone(),
        savepoint: path.map(|path| v1::SavepointRestore {
            path,
            allow_non_restored_state: allow_non_restored_state.unwrap_or(false),
            claim,
        }),
        ..v1::SubmitHeader::default()
    })
}

async fn uploads(rest: &Rest) -> Result<Vec<Upload>, RestError> {
    let blobs = rest.submitter.blobs.clone();
    let uploads = blocking("list uploads", move || blobs.uploads()).await;
    Ok(uploads.map_err(|error| Status::unavailable(error.to_string()))?.map_err(UploadError::Disk)?)
}

async fn find(rest: &Rest, id: &str) -> Result<Upload, RestError> {
    let found = uploads(rest).await?.into_iter().find(|upload| upload.id() == id);
    found.ok_or_else(|| {
        RestError::not_found(format!(
            "no job binary `{id}` is uploaded to the leading job manager, which keeps what came while it led; `/jars` lists them: upload it again"
        ))
    })
}

/// For the OpenAPI document: what a body that runs an upload may say.
pub(super) const RUN_FIELDS: &[super::routes::Field] = &[
    ("programArgsList", "array", "the job's arguments"),
    ("programArgs", "string", "the same with spaces between them"),
    ("parallelism", "integer", "of operators that set none"),
    ("savepointPath", "string", "a savepoint, or a checkpoint of another job, with which the job begins"),
    ("allowNonRestoredState", "boolean", "drop state that the job does not declare"),
    (
        "claimMode",
        "string",
        "`CLAIM` or `NO_CLAIM`: whether it is deleted when newer checkpoints have replaced it",
    ),
    ("flinkConfiguration", "object", "settings that win over those of the program"),
];

/// The same for [`RunQuery`].
pub(super) const RUN_QUERY: &[super::routes::Field] = &[
    ("programArg", "string", "the job's arguments with commas between them"),
    ("parallelism", "integer", "of operators that set none"),
    ("savepointPath", "string", "what the job begins with"),
    ("allowNonRestoredState", "boolean", "drop state that the job does not declare"),
];

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_request_becomes_a_submission() {
        let upload =
            Upload { hash: thalweg_proto::blob::BlobHash::of(b"job"), name: "job".into(), uploaded_ms: 1 };
        let none = || RunQuery {
            program_arg: None,
            parallelism: None,
            allow_non_restored_state: None,
            savepoint_path: None,
        };
        let parse = |value: Value| serde_json::from_value::<RunRequest>(value).expect("a request");
        let whole = json!({
            "programArgsList": ["--a", "b c"], "parallelism": 3, "savepointPath": "/s", "claimMode": "CLAIM",
            "allowNonRestoredState": true, "flinkConfiguration": { "parallelism.default": "1" },
        });
        let made = header(parse(whole), none(), &upload).expect("accepted");
        assert_eq!(
            (made.arguments, made.binary_name.as_str()),
            (vec!["--a".to_string(), "b c".into()], "job")
        );
        assert_eq!(made.configuration["parallelism.default"], "3");
        let savepoint = made.savepoint.expect("it begins with one");
        assert_eq!(
            (savepoint.path.as_str(), savepoint.allow_non_restored_state, savepoint.claim),
            ("/s", true, true)
        );
        let query = RunQuery { program_arg: Some("a,b".into()), ..none() };
        assert_eq!(header(parse(json!({})), query, &upload).expect("accepted").arguments, ["a", "b"]);
        for refused in
            [json!({ "entryClass": "Main" }), json!({ "jobId": "1" }), json!({ "claimMode": "LEGACY" })]
        {
            assert!(header(parse(refused.clone()), none(), &upload).is_err(), "{refused}");
        }
    }
}
