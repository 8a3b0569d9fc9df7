//! Which operators run together in one task: Flink's rules. Pure.
//!
//! Operators of a chain call each other directly, without a channel between them. An operator joins the chain of the
//! one before it if nothing has to be sent elsewhere (forward, same parallelism, a single input) and nobody objects
//! (chaining enabled, same slot sharing group).

use thalweg_common::graph::Partitioning;

use super::{Chaining, NodeSpec};

/// What was decided for an operator before chains are formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) parallelism: u32,
    pub(super) max_parallelism: u32,
    pub(super) slot_sharing_group: String,
    /// Parallel to the operator's inputs.
    pub(super) partitionings: Vec<Partitioning>,
}

/// For each operator the chain it belongs to, as the number of the chain's head. Heads belong to themselves.
pub(super) fn heads(nodes: &[NodeSpec], resolved: &[Resolved], enabled: bool) -> Vec<usize> {
    let mut heads: Vec<usize> = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let head = match node.inputs.as_slice() {
            [input] if enabled && joins(nodes, resolved, input.from, index) => heads.get(input.from).copied(),
            _ => None,
        };
        heads.push(head.unwrap_or(index));
    }
    heads
}

fn joins(nodes: &[NodeSpec], resolved: &[Resolved], from: usize, to: usize) -> bool {
    let (Some(upstream), Some(downstream)) = (nodes.get(from), nodes.get(to)) else { return false };
    let (Some(before), Some(after)) = (resolved.get(from), resolved.get(to)) else { return false };
    after.partitionings == [Partitioning::Forward]
        && before.parallelism == after.parallelism
        // A task has one number of key groups.
        && before.max_parallelism == after.max_parallelism
        && before.slot_sharing_group == after.slot_sharing_group
        && upstream.chaining != Chaining::Never
        && downstream.chaining == Chaining::Always
}
