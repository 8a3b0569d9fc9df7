//! The guide: what a job is made of, chapter by chapter. Every example runs.
//!
//! 1. [Getting started](getting_started): a job, how it runs, how it is tested
//! 2. [Streams](streams): operators on single records, and how records find the next one
//! 3. [Time](time): timestamps, watermarks, the clock
//! 4. [State](state): what a function remembers of each key, and for how long
//! 5. [Process functions](process_functions): records, timers, side outputs, two inputs
//! 6. [Windows](windows): sums and lists over pieces of a stream
//! 7. [Joins](joins): two streams that are keyed alike
//! 8. [Async I/O](async_io): requests to the outside
//! 9. [Patterns](patterns): sequences of events
//! 10. [Connectors](connectors): sources and sinks
//! 11. [Fault tolerance](fault_tolerance): checkpoints, savepoints, exactly once
//!
//! How jobs are tested is said where the harnesses are: in [`testing`](crate::testing).

#[doc = include_str!("async_io.md")]
pub mod async_io {}
#[doc = include_str!("connectors.md")]
pub mod connectors {}
#[doc = include_str!("fault_tolerance.md")]
pub mod fault_tolerance {}
#[doc = include_str!("getting_started.md")]
pub mod getting_started {}
#[doc = include_str!("joins.md")]
pub mod joins {}
#[doc = include_str!("patterns.md")]
pub mod patterns {}
#[doc = include_str!("process_functions.md")]
pub mod process_functions {}
#[doc = include_str!("state.md")]
pub mod state {}
#[doc = include_str!("streams.md")]
pub mod streams {}
#[doc = include_str!("time.md")]
pub mod time {}
#[doc = include_str!("windows.md")]
pub mod windows {}
