//! Tests of jobs: a function, a whole topology, or a job in a cluster.
//!
//! | what is tested | with | what runs |
//! | --- | --- | --- |
//! | a [`KeyedProcess`](crate::prelude::KeyedProcess) or another operator | [`OperatorHarness`] | one subtask of it, nothing else |
//! | a topology, as it is given to [`run`](crate::run) | [`JobHarness`] | all its tasks and channels, in the thread of the test, on a clock that the test moves |
//! | what depends on time, failures and processes | [`run_local`], [`LocalCluster`] | a job manager, a task manager and a worker |
//!
//! The first two are deterministic: nothing sleeps, nothing happens before the test says so. Flink has `TestHarness` for the first and
//! `MiniCluster` for everything else.
//!
//! # A whole job
//!
//! A [`JobHarness`] takes a topology as it is. Sources and sinks with a connection to the outside are replaced by their names: the test
//! says what a source reads, and looks at what has come to a sink.
//!
//! ```
//! use thalweg::prelude::*;
//! use thalweg::testing::{JobHarness, JobSetup};
//! # use thalweg::testing::scripted;
//!
//! /// How often each user clicks in a minute.
//! fn topology(env: &mut Environment) -> thalweg::Result<()> {
//!     let strategy = bounded_out_of_orderness(secs(5)).timestamps(|click: &(String, Timestamp)| click.1);
//!     # let click_stream = || scripted::<(String, Timestamp)>();
//!     env.source("clicks", click_stream())
//!         .watermarks(strategy)
//!         .key_by(|click| click.0.clone())
//!         .window(tumbling(minutes(1)))
//!         .aggregate(thalweg::aggregates::Count)
//!         .uid("per-minute")
//!         .print_debug()
//!         .name("counts");
//!     Ok(())
//! }
//!
//! let click = |user: &str, at: Timestamp| (user.to_string(), at);
//! let mut job = JobHarness::open(topology, JobSetup::default())?;
//! job.feed("clicks", [click("ann", 1_000), click("ann", 30_000)])?;
//! // The watermark is five seconds behind: nothing is known of the minute yet.
//! assert_eq!(job.output::<(String, u64)>("counts")?, []);
//!
//! // The job goes on with three subtasks, and then the minute is over.
//! let snapshot = job.snapshot()?;
//! let mut job = JobHarness::open(topology, JobSetup::default().parallelism(3).restoring(&snapshot))?;
//! job.feed("clicks", [click("bob", 65_000)])?;
//! assert_eq!(job.output::<(String, u64)>("counts")?, [("ann".to_string(), 2)]);
//! job.end_input()?;
//! assert_eq!(job.output::<(String, u64)>("counts")?, [("bob".to_string(), 1)]);
//! # Ok::<(), thalweg::Error>(())
//! ```
//!
//! # A single function
//!
//! An [`OperatorHarness`] gives records, watermarks and the time of the clock to a [function on keys](OperatorHarness::keyed), takes its
//! snapshots and restores them, also at another parallelism:
//!
//! ```
//! use thalweg::prelude::*;
//! use thalweg::testing::{OperatorHarness, Setup};
//!
//! /// Says after ten seconds what was said.
//! #[derive(State, Clone, Default)]
//! struct Echo {
//!     said: ValueState<String>,
//! }
//!
//! impl KeyedProcess<u64, (u64, String)> for Echo {
//!     type Out = String;
//!
//!     fn on_record(&mut self, (_, text): (u64, String), context: &mut Context<'_, u64, String>) -> Result<(), Failure> {
//!         self.said.set(context, text);
//!         let at = context.current_processing_time() + 10_000;
//!         context.register_processing_time_timer(at);
//!         Ok(())
//!     }
//!
//!     fn on_timer(&mut self, _: Timestamp, context: &mut Context<'_, u64, String>) -> Result<(), Failure> {
//!         let said = self.said.take(context);
//!         said.into_iter().for_each(|text| context.emit(text));
//!         Ok(())
//!     }
//! }
//!
//! let mut harness = OperatorHarness::keyed(|record: &(u64, String)| record.0, Echo::default(), Setup::default())?;
//! harness.push(vec![(7, "hello".to_string())])?;
//! harness.processing_time(9_999)?;
//! assert!(harness.output().is_empty());
//! harness.processing_time(10_000)?;
//! assert_eq!(harness.output(), ["hello"]);
//! # Ok::<(), Failure>(())
//! ```

mod job;
#[cfg(feature = "local")]
mod local;
mod setup;
pub(crate) mod stand_ins;

pub use job::JobHarness;
#[cfg(feature = "local")]
pub use local::{LocalCluster, run_local};
pub use setup::JobSetup;
pub use stand_ins::{Scripted, scripted};
pub use thalweg_proto::model::{JobDetails, MetricValue, UserMetric};
pub use thalweg_runtime::testing::{JobSnapshot, OperatorHarness, Setup};

/// The name of a job that a test runs.
const JOB_NAME: &str = "test";
