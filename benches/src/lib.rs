//! Measurements of Thalweg, each a program in `src/bin`, run by `cargo xtask bench NAME`.
//!
//! Every measurement is repeated; what is reported is the median with its spread, so that a busy machine shows.

pub mod arrivals;
pub mod byte_stream;
pub mod contest;
pub mod flink;
pub mod flow;
pub mod latencies;
pub mod measurement;
pub mod monotonic;
pub mod newest;
pub mod nexmark;
pub mod payload;
pub mod progress;
pub mod schedule;
pub mod submitted;
pub mod table;
pub mod tally;
pub mod usage;
