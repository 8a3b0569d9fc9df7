//! A keyed job under kills and a failing store, and the proof that each of its updates is in the output exactly once.
//!
//! [`schedule`] says when what is killed, purely from a seed; [`events`] says what the job reads, so that the job
//! (`src/bin/exactly_once_job.rs`) and the [`oracle`] agree on that and on nothing else; [`blocks`] is its source with an enumerator; [`output`] watches what the job commits;
//! [`run`] does it all; [`report`] is what is told about it.

pub mod blocks;
pub mod events;
pub mod oracle;
pub mod output;
pub mod report;
mod rng;
pub mod run;
pub mod schedule;
mod victims;
