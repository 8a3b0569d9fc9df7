//! How REST says no: a status and `{"errors":["cause and cure"]}`, as Flink does.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use thalweg_proto::leader::redirect;
use tonic::{Code, Status};

/// What handlers answer: JSON.
pub(super) type Answer = Result<Json<Value>, RestError>;

/// A refusal.
#[derive(Debug)]
pub(super) struct RestError {
    status: StatusCode,
    message: String,
}

impl RestError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// Of one that led when the request came, or when another one passed it on.
    pub(super) fn leads_no_more() -> Self {
        let message = "this job manager leads no more, and does not pass on what had come so far; ask again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }
}

/// Codes of the service layer as those of HTTP.
impl From<Status> for RestError {
    fn from(status: Status) -> Self {
        if redirect(&status).is_some() {
            return Self::leads_no_more();
        }
        let code = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
            // It can be done, but not now, or not to this job.
            Code::Aborted | Code::AlreadyExists | Code::FailedPrecondition => StatusCode::CONFLICT,
            Code::ResourceExhausted | Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(code, status.message())
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "errors": [self.message] }))).into_response()
    }
}
