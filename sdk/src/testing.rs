//! Runs a topology in this process, or a single function without a job, for tests.
//!
//! ```
//! use thalweg::testing::run_local;
//!
//! let collected = run_local(|env| Ok(env.from_iter([1_u64, 2, 3]).map(|number| number * 10).collect()))?;
//! assert_eq!(collected.take(), [10, 20, 30]);
//! # Ok::<(), thalweg::Error>(())
//! ```
//!
//! An [`OperatorHarness`] gives records, watermarks and the time of the clock to a [function on keys](OperatorHarness::keyed), takes its
//! snapshots and restores them, also at another parallelism: `examples/tests/inactivity_alert.rs` shows how.

use std::fmt::Display;

use thalweg_common::config::Configuration;

pub use thalweg_proto::model::{JobDetails, MetricValue, UserMetric};
pub use thalweg_runtime::testing::{OperatorHarness, Setup};

use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::mode::local::execute;

/// The name of a job that a test runs.
const JOB_NAME: &str = "test";

/// Runs a topology with a job manager, a task manager and a worker in this process, until the job has ended; returns what
/// the topology returned, such as [`collected`](crate::DataStream::collect) results.
///
/// # Errors
/// A mistake in the topology, with its file and line, or the failure of the job.
pub fn run_local<R>(topology: impl FnOnce(&mut Environment) -> Result<R>) -> Result<R> {
    LocalCluster::new().run(topology)
}

/// A cluster inside this process that runs one job, with arguments and settings as if from the command line.
///
/// ```
/// use thalweg::testing::LocalCluster;
///
/// let cluster = LocalCluster::new().configure("parallelism.default", 4).arguments(["--limit", "3"]);
/// let collected = cluster.run(|env| {
///     let limit: u64 = env.args()[1].parse()?;
///     Ok(env.from_iter(0..limit).rebalance().map(|number| number + 1).collect())
/// })?;
/// assert_eq!(collected.take().len(), 3);
/// # Ok::<(), thalweg::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct LocalCluster {
    arguments: Vec<String>,
    configuration: Configuration,
    first_error: Option<Error>,
}

impl LocalCluster {
    /// With as many slots as the job needs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What [`Environment::args`] gives.
    #[must_use]
    pub fn arguments<A: Into<String>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// A setting that wins over those in the topology.
    #[must_use]
    pub fn configure(mut self, key: &str, value: impl Display) -> Self {
        if let Err(error) = self.configuration.set(key, &value.to_string()) {
            self.first_error.get_or_insert(error.into());
        }
        self
    }

    /// Runs a topology until the job has ended; returns what the topology returned.
    ///
    /// # Errors
    /// A wrong setting, a mistake in the topology, with its file and line, or the failure of the job.
    pub fn run<R>(self, topology: impl FnOnce(&mut Environment) -> Result<R>) -> Result<R> {
        self.run_described(topology).map(|(result, _)| result)
    }

    /// The same with what `thalweg describe --output json` shows of the job behind its end: its tasks and operators with all they have
    /// counted, metrics of its own among them.
    ///
    /// ```
    /// use thalweg::testing::LocalCluster;
    ///
    /// let (_, job) = LocalCluster::new().run_described(|env| {
    ///     env.from_iter([1_u64, 2, 3]).filter(|number| number % 2 == 1).collect();
    ///     Ok(())
    /// })?;
    /// let operators = &job.vertices[0].subtasks[0].counters.operators;
    /// assert_eq!((operators[1].records_in, operators[1].records_out), (3, 2));
    /// # Ok::<(), thalweg::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_described<R>(
        self,
        topology: impl FnOnce(&mut Environment) -> Result<R>,
    ) -> Result<(R, JobDetails)> {
        if let Some(error) = self.first_error {
            return Err(error);
        }
        let mut environment = Environment::new(&self.arguments, true);
        let result = topology(&mut environment)?;
        let program = environment.build(&self.configuration, JOB_NAME)?;
        let details = execute(program, self.arguments, &self.configuration)?;
        Ok((result, details))
    }
}
