//! A job manager over its real gRPC: clients on one side, fake task managers on the other.

#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(feature = "raft")]
mod failover;
mod fake;
mod jobs;
mod leading;
mod metrics;
#[cfg(feature = "rest")]
mod rest;
#[cfg(feature = "raft")]
mod submission;
mod time;
