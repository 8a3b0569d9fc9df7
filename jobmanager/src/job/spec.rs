//! What an attempt does not change about a job: its graph, its binary, where its checkpoints are and how patient its leader is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thalweg_common::graph::{JobGraph, Regions};
use thalweg_common::id::{Attempt, JobId, SubtaskId};
use thalweg_common::properties::RuntimeProperties;

use crate::checkpoint::metadata;
use crate::cluster::{Binary, JobRecord, Layout};
use crate::scheduler::adaptive::AdaptiveSettings;

/// How long a leader waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For slots, before that counts as a failure.
    pub slot_request_ms: u64,
    /// For task managers to register with a new leader, before their tasks count as lost.
    pub adoption_ms: u64,
    /// For a task to react to its cancellation; enforced by its task manager.
    pub cancellation_ms: u64,
    /// How long an attempt must have run to be restarted without a delay.
    pub immediate_restart_ms: u64,
    /// Whether a failure restarts only the regions that it concerns.
    pub restarts_regions: bool,
    /// Present where the adaptive scheduler is in charge.
    pub adaptive: Option<AdaptiveSettings>,
}

/// A job as it was submitted, or rescaled.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSpec {
    /// Its id.
    pub job_id: JobId,
    /// Its name.
    pub name: String,
    /// What runs it; absent in local mode.
    pub binary: Option<Binary>,
    /// Given to the binary.
    pub arguments: Vec<String>,
    /// Given to the binary.
    pub configuration: BTreeMap<String, String>,
    /// Given to the binary.
    pub properties: RuntimeProperties,
    /// Its plan.
    pub graph: Arc<JobGraph>,
    /// Of the plan.
    pub fingerprint: u64,
    /// All subtasks.
    pub subtasks: BTreeSet<SubtaskId>,
    /// Which of them are restarted together.
    pub regions: Regions,
    /// URI of the directory of this job's checkpoints; absent when it takes none.
    pub checkpoint_directory: Option<String>,
    /// How long to wait.
    pub patience: Patience,
}

impl JobSpec {
    /// What the cluster remembers of a job, and how patient to be with it.
    #[must_use]
    pub fn new(record: &JobRecord, patience: Patience) -> Self {
        let directory = record.checkpoint_directory.as_deref();
        Self {
            job_id: record.id,
            name: record.name.clone(),
            binary: record.binary,
            arguments: record.arguments.clone(),
            configuration: record.configuration.clone(),
            properties: record.properties.clone(),
            graph: Arc::clone(&record.graph),
            fingerprint: record.graph.fingerprint(),
            subtasks: record.graph.subtasks().collect(),
            regions: Regions::of(&record.graph),
            checkpoint_directory: directory.map(|directory| metadata::job_directory(directory, record.id)),
            patience,
        }
    }

    /// What it runs in.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout { graph: Arc::clone(&self.graph), configuration: self.configuration.clone() }
    }

    /// The same job in another layout.
    #[must_use]
    pub fn with_layout(&self, layout: &Layout) -> Self {
        Self {
            configuration: layout.configuration.clone(),
            graph: Arc::clone(&layout.graph),
            fingerprint: layout.graph.fingerprint(),
            subtasks: layout.graph.subtasks().collect(),
            regions: Regions::of(&layout.graph),
            ..self.clone()
        }
    }

    /// A task's name for people, as in `map (2/4)#1`.
    pub(crate) fn task_name(&self, subtask: SubtaskId, attempt: Attempt) -> String {
        let vertex = self.graph.vertices.get(subtask.vertex as usize);
        let (name, parallelism) = vertex.map_or(("?", 0), |vertex| (&vertex.name, vertex.parallelism));
        format!("{name} ({}/{parallelism})#{attempt}", subtask.index + 1)
    }
}
