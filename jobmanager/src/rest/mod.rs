//! REST on `rest.port`, with the paths and shapes of Flink's, so that its command-line client, dashboards and scripts go on working.
//!
//! Beside gRPC this is the second way into the service layer ([`crate::service`]): handlers read and check a request, ask
//! [`JobServer`], and write the answer as Flink does. They decide nothing.
//!
//! ```text
//! connection, with TLS if it is on    connections.rs
//! -> whoever shows the token          admission.rs: 401 for everybody else; in front of the dashboard, too
//! request, below `/` or `/v1`         server.rs: limits, router
//! -> followers name the leader        leading.rs: 307 to the same path of its REST, or 503 while nobody leads
//! -> handler                          routes.rs lists them all; cluster.rs, jobs.rs, ...
//! -> JSON, or `{"errors":["..."]}`    error.rs
//! ```
//!
//! To add a path: one more [`routes::Route`]; it is served at both places and described in the OpenAPI document by that. To add what
//! is no API (the pages of a dashboard): [`server::router`] has a fallback for whatever no route matches, which does not ask who leads.
//!
//! Invariants: what is not known is left out or has Flink's own word for unknown (`-1`), never made up; bodies, uploads and remembered
//! operations are bounded by `REST_*` of `common/src/limits/`.

#[cfg(feature = "rest")]
mod actions;
mod address;
#[cfg(feature = "rest")]
mod admission;
#[cfg(feature = "rest")]
mod api;
#[cfg(feature = "rest")]
mod checkpoints;
#[cfg(feature = "rest")]
mod cluster;
#[cfg(feature = "rest")]
mod configuration;
#[cfg(feature = "rest")]
mod connections;
#[cfg(feature = "rest")]
mod dashboard;
#[cfg(feature = "rest")]
mod error;
#[cfg(feature = "rest")]
mod exceptions;
#[cfg(feature = "rest")]
mod ids;
#[cfg(feature = "rest")]
mod java;
#[cfg(feature = "rest")]
mod job;
#[cfg(feature = "rest")]
mod jobs;
#[cfg(feature = "rest")]
mod leading;
#[cfg(feature = "rest")]
mod metrics;
#[cfg(feature = "rest")]
mod multipart;
#[cfg(feature = "rest")]
mod openapi;
#[cfg(feature = "rest")]
mod operations;
#[cfg(feature = "rest")]
mod routes;
#[cfg(feature = "rest")]
mod server;
#[cfg(feature = "rest")]
mod task_managers;
#[cfg(feature = "rest")]
mod traffic;
#[cfg(feature = "rest")]
mod uploads;
#[cfg(feature = "rest")]
mod vertex;

pub use address::{RestBindError, RestListener};
#[cfg(feature = "rest")]
pub(crate) use api::{Rest, start};
