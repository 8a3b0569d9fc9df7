//! Where a job's tasks run ([`place`]), at which parallelism ([`adaptive`], [`rescale`]), and what happens after a failure
//! ([`restart`]): pure decisions.

pub mod adaptive;
pub mod place;
pub mod rescale;
pub mod restart;
