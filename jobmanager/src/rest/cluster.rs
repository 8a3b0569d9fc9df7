//! The cluster as a whole: how many of what, and what a dashboard needs to know.

use axum::Json;
use axum::extract::State;
use serde_json::json;
use thalweg_common::status::JobStatus;

use super::Rest;
use super::error::Answer;

/// How often a dashboard asks, in milliseconds; Flink's default.
const REFRESH_INTERVAL_MS: u64 = 3_000;

/// What Flink's fields for its own version say here.
const VERSION: &str = concat!("Thalweg ", env!("CARGO_PKG_VERSION"));

/// `GET /overview`
pub(super) async fn overview(State(rest): State<Rest>) -> Answer {
    let managers = rest.jobs.task_managers().await?;
    let count = |wanted: fn(JobStatus) -> bool| {
        rest.jobs.state().read().jobs().filter(|job| wanted(job.status)).count()
    };
    Ok(Json(json!({
        "taskmanagers": managers.len(),
        "slots-total": managers.iter().map(|manager| manager.slots_total).sum::<u32>(),
        "slots-available": managers.iter().map(|manager| manager.slots_free).sum::<u32>(),
        "jobs-running": count(|status| !status.is_terminal()),
        "jobs-finished": count(|status| status == JobStatus::Finished),
        "jobs-cancelled": count(|status| status == JobStatus::Canceled),
        "jobs-failed": count(|status| status == JobStatus::Failed),
        "flink-version": VERSION,
    })))
}

/// `GET /config`
pub(super) async fn dashboard_configuration() -> Answer {
    Ok(Json(json!({
        "refresh-interval": REFRESH_INTERVAL_MS,
        "timezone-name": "UTC",
        "timezone-offset": 0,
        "flink-version": VERSION,
        "features": {
            "web-submit": true,
            "web-cancel": true,
            "web-rescale": true,
            "web-history": false,
        },
    })))
}
