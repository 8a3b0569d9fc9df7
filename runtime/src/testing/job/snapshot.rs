//! What a job that is driven by hand had at a barrier, and which of it each subtask of another start goes on with.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::graph::{JobGraph, StateKind};
use thalweg_common::id::{Attempt, CheckpointId, SubtaskId};
use thalweg_common::key_group::groups_of;
use thalweg_common::manifest::{self, StateManifest};
use thalweg_proto::checkpoint::Shape;

use crate::snapshot::TaskSnapshot;
use crate::task::upload;

/// A checkpoint of a [`ManualJob`](super::ManualJob): can be restored any number of times, at any parallelism.
#[derive(Debug, Clone)]
pub struct JobSnapshot {
    shape: Shape,
    manifest: StateManifest,
    /// As they would be stored.
    tasks: BTreeMap<SubtaskId, Bytes>,
    pub(super) next_checkpoint: CheckpointId,
    /// Of the job that it was taken of.
    pub(super) attempt: Attempt,
    now_ms: Timestamp,
}

impl JobSnapshot {
    pub(super) fn new(
        graph: &JobGraph,
        tasks: BTreeMap<SubtaskId, Bytes>,
        next_checkpoint: CheckpointId,
        attempt: Attempt,
        now_ms: Timestamp,
    ) -> Self {
        let (shape, manifest) = (Shape::of(graph), StateManifest::of(graph));
        Self { shape, manifest, tasks, next_checkpoint, attempt, now_ms }
    }

    /// When it was taken, in milliseconds since the epoch.
    #[must_use]
    pub fn now_ms(&self) -> Timestamp {
        self.now_ms
    }

    /// How many bytes each subtask has of the task with this operator, which is named by its uid, name or id; nothing if there is none
    /// that remembers something.
    #[must_use]
    pub fn sizes(&self, operator: &str) -> Vec<usize> {
        let id = self.manifest.find(operator).map(|operator| operator.id);
        let vertices = (0u32..).zip(&self.shape.vertices);
        let vertices = vertices.filter(|(_, vertex)| id.is_some_and(|id| vertex.operators.contains(&id)));
        let of_vertex = |number| self.tasks.iter().filter(move |(subtask, _)| subtask.vertex == number);
        vertices.flat_map(|(number, _)| of_vertex(number)).map(|(_, bytes)| bytes.len()).collect()
    }

    /// Whether a job can go on with it, as the job manager checks that. State keeps its max parallelism, whatever the job declares.
    pub(super) fn check(&self, graph: &mut JobGraph) -> Result<(), Failure> {
        let report = manifest::check(&self.manifest, &StateManifest::of(graph), false);
        let mut refusals = report.refusals();
        for vertex in &mut graph.vertices {
            let reports = vertex.operators.iter().filter_map(|operator| report.operator(operator.id));
            if let Some(kept) = reports.filter_map(|operator| operator.max_parallelism).next() {
                vertex.max_parallelism = kept.restored;
            }
        }
        refusals.extend(self.moved_positions(graph));
        match refusals.is_empty() {
            true => Ok(()),
            false => Err(Failure::user(format!("the snapshot cannot be restored: {}", refusals.join("; ")))),
        }
    }

    /// Sources whose positions cannot be divided, and that have another parallelism now.
    fn moved_positions(&self, graph: &JobGraph) -> Vec<String> {
        let operators = graph
            .vertices
            .iter()
            .flat_map(|vertex| vertex.operators.iter().map(move |operator| (operator, vertex.parallelism)));
        let before = |id| self.shape.vertices.iter().find(|vertex| vertex.operators.contains(id));
        let moved = operators.filter(|(operator, parallelism)| {
            let is_whole = operator.states.iter().any(|state| state.kind == StateKind::Source);
            is_whole && before(&operator.id).is_some_and(|vertex| vertex.parallelism != *parallelism)
        });
        moved
            .map(|(operator, _)| {
                format!("the source {} has no splits and keeps its parallelism", operator.name)
            })
            .collect()
    }

    /// What a subtask goes on with.
    pub(super) fn for_subtask(
        &self,
        graph: &JobGraph,
        subtask: SubtaskId,
    ) -> Result<Vec<TaskSnapshot>, Failure> {
        let needed = self.shape.needed_by(graph, graph.fingerprint(), subtask, false);
        let stored: Vec<Bytes> = needed.iter().filter_map(|from| self.tasks.get(from)).cloned().collect();
        let mut snapshots = upload::decode(&stored)?;
        if let Some(vertex) = graph.vertices.get(subtask.vertex as usize).filter(|_| snapshots.len() > 1) {
            let operators: BTreeSet<_> = vertex.operators.iter().map(|operator| operator.id).collect();
            let owned = groups_of(subtask.index, vertex.parallelism, vertex.max_parallelism);
            snapshots.iter_mut().for_each(|snapshot| snapshot.keep(&operators, owned));
        }
        Ok(snapshots)
    }
}
