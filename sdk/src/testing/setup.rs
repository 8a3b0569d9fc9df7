//! `JobSetup`: how a topology is run by a `JobHarness`.

use std::collections::BTreeSet;
use std::fmt;

use thalweg_common::Timestamp;
use thalweg_common::config::{Configuration, keys};
use thalweg_common::record::Record;
use thalweg_runtime::side_output::OutputTag;
use thalweg_runtime::testing::JobSnapshot;

use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::stream::DataStream;

/// How a [`JobHarness`](super::JobHarness) runs a topology. By default: without arguments, at parallelism 1, from nothing, at the time 0,
/// with all sources and sinks replaced.
#[derive(Default)]
pub struct JobSetup {
    pub(super) arguments: Vec<String>,
    pub(super) configuration: Configuration,
    pub(super) kept: BTreeSet<String>,
    pub(super) side_outputs: Vec<ReadSideOutput>,
    pub(super) start_ms: Option<Timestamp>,
    pub(super) restored: Option<JobSnapshot>,
    pub(super) first_error: Option<Error>,
}

/// Adds a reader of a side output to a topology.
pub(super) type ReadSideOutput = Box<dyn FnOnce(&Environment) -> Result<()>>;

impl fmt::Debug for JobSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobSetup")
            .field("arguments", &self.arguments)
            .field("configuration", &self.configuration)
            .field("kept", &self.kept)
            .field("start_ms", &self.start_ms)
            .finish_non_exhaustive()
    }
}

impl JobSetup {
    /// What [`Environment::args`] gives.
    #[must_use]
    pub fn arguments<A: Into<String>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// A setting that wins over those in the topology. Those of threads, network, checkpoints and the state backend have no effect in a
    /// harness, which keeps state in memory.
    #[must_use]
    pub fn configure(mut self, key: &str, value: impl fmt::Display) -> Self {
        if let Err(error) = self.configuration.set(key, &value.to_string()) {
            self.first_error.get_or_insert(error.into());
        }
        self
    }

    /// The parallelism of operators that set none.
    #[must_use]
    pub fn parallelism(self, parallelism: u32) -> Self {
        self.configure(keys::PARALLELISM_DEFAULT.name, parallelism)
    }

    /// Runs the source or sink of this name as it is, such as one of files in a temporary directory. A source that looks at the clock is
    /// given that of the harness.
    #[must_use]
    pub fn keeping(mut self, name: &str) -> Self {
        self.kept.insert(name.to_string());
        self
    }

    /// Keeps what the operator with this name or uid emits to a side output, for
    /// [`JobHarness::side_output`](super::JobHarness::side_output): for one that the topology does not read. What it reads goes to its
    /// sinks.
    #[must_use]
    pub fn reading_side_output<S: Record>(mut self, operator: &str, tag: &OutputTag<S>) -> Self {
        let (operator, tag) = (operator.to_string(), *tag);
        self.side_outputs.push(Box::new(move |environment| {
            let node = environment.node_named(&operator)?;
            let stream = DataStream::<()>::of_node(environment.clone(), node).side_output(&tag);
            stream.discard().name(&side_output_name(&operator, &tag));
            Ok(())
        }));
        self
    }

    /// Starts the clock at this time, in milliseconds since the epoch. Without it: at 0, or when the restored snapshot was taken.
    #[must_use]
    pub fn starting_at(mut self, now_ms: Timestamp) -> Self {
        self.start_ms = Some(now_ms);
        self
    }

    /// Goes on from a snapshot, which may be of another parallelism.
    #[must_use]
    pub fn restoring(mut self, snapshot: &JobSnapshot) -> Self {
        self.restored = Some(snapshot.clone());
        self
    }
}

/// How the reader of a side output is called.
pub(super) fn side_output_name<S>(operator: &str, tag: &OutputTag<S>) -> String {
    format!("{operator}: {}", tag.name())
}
