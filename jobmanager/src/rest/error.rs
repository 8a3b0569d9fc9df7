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
    leads_no_more: bool,
}

/// Marks the answer to a request that came when this job manager led, and was refused because it does no more.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeadsNoMore;

impl RestError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), leads_no_more: false }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }
}

/// Codes of the service layer as those of HTTP.
impl From<Status> for RestError {
    fn from(status: Status) -> Self {
        let code = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
            // It can be done, but not now, or not to this job.
            Code::Aborted | Code::AlreadyExists | Code::FailedPrecondition => StatusCode::CONFLICT,
            Code::ResourceExhausted | Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let leads_no_more = redirect(&status).is_some();
        Self { status: code, message: status.message().to_string(), leads_no_more }
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "errors": [self.message] }))).into_response();
        if self.leads_no_more {
            response.extensions_mut().insert(LeadsNoMore);
        }
        response
    }
}
