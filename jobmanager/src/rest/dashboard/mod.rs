//! The dashboard: its page and assets, and what it asks beyond Flink's paths, below `/thalweg`.
//!
//! ```text
//! /, /dashboard/FILE      assets.rs: jobmanager/dashboard, embedded; the policy of the page
//! /thalweg/cluster        cluster.rs: machines, and all jobs with what they do
//! /thalweg/jobs/JOB       job.rs: everything about a job, as `thalweg describe --json`, with its plan and savepoints
//!   .../checkpoints, why  the same as these commands print with `--json`
//!   .../charts            the last hour, from the leader's memory (`metrics/hour.rs`)
//!   .../logs              the ends of the workers' logs, as task managers send them
//! /thalweg/configuration  the settings of the job manager that leads, with what each means
//! ```
//! Nothing here decides anything: handlers ask the same service layer as gRPC and the rest of REST. The page asks for one description of a
//! job in every refresh, where Flink's shapes would take a request for each vertex and metric.

mod assets;
mod cluster;
mod job;

use axum::Router;
use axum::routing::get;

use super::Rest;

pub(super) use cluster::{configuration, overview};
pub(super) use job::{charts, checkpoints, describe, logs, why};

/// What is no API: the page and what it is made of. Every job manager serves it, also while nobody leads: then the page waits for one.
pub(super) fn pages() -> Router<Rest> {
    Router::new().route("/", get(async || assets::page())).route("/dashboard/{file}", get(assets::file))
}
