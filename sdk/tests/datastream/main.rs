//! The DataStream API on an embedded cluster and by hand: one program of tests, so that the runtime is compiled for it once.

#![cfg(feature = "local")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod acceptance;
mod alignment;
mod async_io;
mod cep;
mod connected;
mod job_harness;
mod joins;
mod local;
mod metrics;
mod side_outputs;
mod timers;
mod timestamps;
mod two_stages;
mod windows;
