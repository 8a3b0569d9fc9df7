//! Measurements of Thalweg, each a program in `src/bin`, run by `cargo xtask bench NAME`.
//!
//! Every measurement is repeated; what is reported is the median with its spread, so that a busy machine shows.

pub mod contest;
pub mod measurement;
pub mod newest;
pub mod nexmark;
pub mod tally;
pub mod usage;
