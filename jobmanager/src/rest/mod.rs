//! REST on `rest.port`, with the paths and shapes of Flink's, so that its command-line client, dashboards and scripts go on working.
//!
//! Beside gRPC this is the second way into the service layer ([`crate::service`]): handlers read and check a request, ask
//! [`JobServer`], and write the answer as Flink does. They decide nothing.
//!
//! ```text
//! connection, with TLS if it is on    connections.rs
//! -> whoever shows the token          admission.rs: 401 for everybody else; in front of the dashboard, too
//! request, below `/` or `/v1`         server.rs: limits, router
//! -> followers ask the leader         leading.rs: at the cluster's own port; 503 while nobody leads
//! -> handler                          routes.rs lists them all; cluster.rs, jobs.rs, ...
//! -> JSON, or `{"errors":["..."]}`    error.rs
//! ```
//!
//! To add a path: one more [`routes::Route`]; it is served at both places, by every job manager, and described in the OpenAPI document by
//! that. What is no API (`dashboard::pages`) is served without asking who leads.
//!
//! Invariants: what is not known is left out or has Flink's own word for unknown (`-1`), never made up; bodies, uploads and remembered
//! operations are bounded by `REST_*` of `common/src/limits/`.

mod actions;
mod admission;
mod api;
mod checkpoints;
mod cluster;
mod configuration;
mod connections;
mod dashboard;
mod error;
mod exceptions;
mod ids;
mod java;
mod job;
mod jobs;
mod leading;
mod metrics;
mod multipart;
mod openapi;
mod operations;
mod routes;
mod server;
mod task_managers;
mod traffic;
mod uploads;
mod vertex;

pub(crate) use api::{Rest, start};
