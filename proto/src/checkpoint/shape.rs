//! The shape of the graph that took a checkpoint, and which of its snapshots each subtask of another graph needs.
//!
//! On a command's way this stands between the metadata of a checkpoint and `DeployTasks`. A change of parallelism changes the chains of a
//! job too, so snapshots are found by operator: keyed state goes to whoever owns its key groups, what a source or sink remembers stays
//! with its subtask, or goes to all others, which divide it, when there is another number of them; a list that is united always goes to all. Pure. Invariants: each key group of an
//! operator is in a snapshot that its new owner gets; a subtask gets no snapshot twice.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thalweg_common::graph::{Edge, JobGraph, Operator, StateKind, Vertex};
use thalweg_common::id::{OperatorId, SubtaskId};
use thalweg_common::key_group::{KeyGroupRange, groups_of};

/// A graph as far as the snapshots of its subtasks depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Of the whole graph.
    pub fingerprint: u64,
    /// Of what all its operators declare to remember, whatever the parallelism.
    pub states: u64,
    /// Of its chains and of what is sent between them, whatever the parallelism.
    pub topology: u64,
    /// In the order of the graph.
    pub vertices: Vec<VertexShape>,
}

/// A vertex of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VertexShape {
    /// How many subtasks it had.
    pub parallelism: u32,
    /// The number of key groups.
    pub max_parallelism: u32,
    /// Its chain.
    pub operators: Vec<OperatorId>,
}

impl Shape {
    /// Of a graph.
    #[must_use]
    pub fn of(graph: &JobGraph) -> Self {
        let vertex = |vertex: &Vertex| VertexShape {
            parallelism: vertex.parallelism,
            max_parallelism: vertex.max_parallelism,
            operators: vertex.operators.iter().map(|operator| operator.id).collect(),
        };
        Self {
            fingerprint: graph.fingerprint(),
            states: states(graph),
            topology: topology(graph),
            vertices: graph.vertices.iter().map(vertex).collect(),
        }
    }

    /// All subtasks.
    pub fn subtasks(&self) -> impl Iterator<Item = SubtaskId> + '_ {
        let vertices = (0u32..).zip(&self.vertices);
        vertices
            .flat_map(|(vertex, shape)| (0..shape.parallelism).map(move |index| SubtaskId { vertex, index }))
    }

    /// The subtasks of this shape whose snapshots hold what `subtask` of `graph`, which has this fingerprint, continues: its state, and
    /// with `in_flight` records on their way.
    #[must_use]
    pub fn needed_by(
        &self,
        graph: &JobGraph,
        fingerprint: u64,
        subtask: SubtaskId,
        in_flight: bool,
    ) -> BTreeSet<SubtaskId> {
        let Some(target) = graph.vertices.get(subtask.vertex as usize) else { return BTreeSet::new() };
        let mut needed = BTreeSet::new();
        if self.fingerprint == fingerprint {
            needed.insert(subtask);
            if !target.operators.iter().any(unites) {
                return needed;
            }
        }
        if in_flight {
            needed.extend(self.sharers(target, subtask));
        }
        for operator in target.operators.iter().filter(|operator| !operator.states.is_empty()) {
            for (vertex, source) in (0u32..).zip(&self.vertices) {
                if source.operators.contains(&operator.id) {
                    let holds = |index: &u32| source.holds(*index, operator, target, subtask.index);
                    let indices = (0..source.parallelism).filter(holds);
                    needed.extend(indices.map(|index| SubtaskId { vertex, index }));
                }
            }
        }
        needed
    }

    /// The subtasks that share key groups with `subtask` of `target`: what was on its way to them, or from them, is divided by those,
    /// also where there is no state. Whoever lets the checkpoint be restored sees to it that the vertex is the same.
    fn sharers(&self, target: &Vertex, subtask: SubtaskId) -> impl Iterator<Item = SubtaskId> + use<> {
        let groups = groups_of(subtask.index, target.parallelism, target.max_parallelism);
        let same = self.vertices.get(subtask.vertex as usize).cloned();
        let indices = same.into_iter().flat_map(move |same| {
            let there = move |index: &u32| groups_of(*index, same.parallelism, same.max_parallelism);
            (0..same.parallelism).filter(move |index| overlap(there(index), groups))
        });
        indices.map(move |index| SubtaskId { vertex: subtask.vertex, index })
    }
}

impl VertexShape {
    /// Whether the snapshot of subtask `index` holds something of `operator` that subtask `wanted` of `target` continues.
    fn holds(&self, index: u32, operator: &Operator, target: &Vertex, wanted: u32) -> bool {
        if operator.states.iter().any(|state| state.kind.is_keyed()) {
            let there = groups_of(index, self.parallelism, self.max_parallelism);
            return overlap(there, groups_of(wanted, target.parallelism, target.max_parallelism));
        }
        if unites(operator) {
            return true;
        }
        // Parts are dealt by every subtask for itself, and it has to know all for that. What has none keeps its parallelism: see
        // `scheduler::rescale::check`.
        index == wanted || (operator.has_parts() && self.parallelism != target.parallelism)
    }
}

/// Whether each of its subtasks restores something of all.
fn unites(operator: &Operator) -> bool {
    operator.states.iter().any(|state| state.kind == StateKind::UnionList)
}

fn overlap(one: KeyGroupRange, other: KeyGroupRange) -> bool {
    one.start.max(other.start) < one.end.min(other.end)
}

/// A number that differs when other operators are chained, have other key groups, or send something else to somebody else. How records
/// find their channel may change with the parallelism.
fn topology(graph: &JobGraph) -> u64 {
    let chain = |vertex: &Vertex| {
        let ids: Vec<OperatorId> = vertex.operators.iter().map(|operator| operator.id).collect();
        (vertex.max_parallelism, ids)
    };
    let chains: Vec<_> = graph.vertices.iter().map(chain).collect();
    let edge = |edge: &Edge| {
        (edge.source, edge.source_operator, edge.tag.clone(), edge.target, edge.schema_fingerprint)
    };
    let edges: Vec<_> = graph.edges.iter().map(edge).collect();
    xxhash_rust::xxh3::xxh3_64(&serde_json::to_vec(&(chains, edges)).unwrap_or_default())
}

/// A number that differs when operators remember something else. Chains and parallelism do not count.
fn states(graph: &JobGraph) -> u64 {
    let operators = graph.vertices.iter().flat_map(|vertex| {
        let with_state = vertex.operators.iter().filter(|operator| !operator.states.is_empty());
        with_state.map(|operator| {
            let is_keyed = operator.states.iter().any(|state| state.kind.is_keyed());
            let groups = if is_keyed { vertex.max_parallelism } else { 0 };
            (operator.id, groups, &operator.states, &operator.key_schema)
        })
    });
    let mut operators: Vec<_> = operators.collect();
    operators.sort_by_key(|(id, ..)| *id);
    // JSON of structs without maps: the same states always give the same text.
    xxhash_rust::xxh3::xxh3_64(&serde_json::to_vec(&operators).unwrap_or_default())
}
