//! Runs a topology with everything that a cluster has, in this process.

use std::fmt::Display;

use thalweg_common::config::Configuration;
use thalweg_common::properties::RuntimeProperties;
use thalweg_proto::model::JobDetails;

use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::mode::local::execute;

use super::JOB_NAME;

/// Runs a topology with a job manager, a task manager and a worker in this process, until the job has ended; returns what
/// the topology returned, such as [`collected`](crate::DataStream::collect) results.
///
/// ```
/// use thalweg::testing::run_local;
///
/// let collected = run_local(|env| Ok(env.from_iter([1_u64, 2, 3]).map(|number| number * 10).collect()))?;
/// assert_eq!(collected.take(), [10, 20, 30]);
/// # Ok::<(), thalweg::Error>(())
/// ```
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
    properties: RuntimeProperties,
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

    /// A runtime property, for [`Environment::properties`].
    #[must_use]
    pub fn property(mut self, group: &str, key: &str, value: impl Display) -> Self {
        if let Err(error) = self.properties.set(group, key, &value.to_string()) {
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
        let environment = Environment::new(&self.arguments, true).with_properties(self.properties.clone());
        let mut environment = environment.under(&self.configuration);
        let result = topology(&mut environment)?;
        let program = environment.build(&self.configuration, JOB_NAME)?;
        let details = execute(program, &self.arguments, &self.properties, &self.configuration)?;
        Ok((result, details))
    }
}
