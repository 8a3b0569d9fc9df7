//! Thalweg's gRPC protocol: what crosses processes, and how to talk to a cluster.
//!
//! [`v1`] holds the generated messages and services; their names stay at the border of each crate, where [`convert`]
//! turns them into the types of `thalweg-common`. [`checkpoint`] is what a checkpoint's
//! metadata holds. [`client`] is how a program outside the cluster asks for something.
//! Tags of the `.proto` files are never reused.

pub mod blob;
pub mod checkpoint;
pub mod client;
pub mod convert;
pub mod leader;
pub mod metrics;
pub mod model;
pub mod route;
pub mod transport;
pub mod why;

/// Generated from `thalweg/v1/*.proto`.
#[allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::doc_markdown,
    // A header is sent once, before many pieces.
    clippy::large_enum_variant
)]
pub mod v1 {
    tonic::include_proto!("thalweg.v1");
}
