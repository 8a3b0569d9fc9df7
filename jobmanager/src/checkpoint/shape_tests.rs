//! Which snapshots a subtask gets, as tables and for random graphs.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use thalweg_common::graph::{JobGraph, StateKind};
use thalweg_common::id::{OperatorId, SubtaskId};
use thalweg_common::key_group::groups_of;
use thalweg_proto::checkpoint::Shape;

use crate::testing::{at, checkpointed_graph, graph_of, state, vertex};

fn subtask(vertex: u32, index: u32) -> SubtaskId {
    SubtaskId { vertex, index }
}

fn needed(old: &JobGraph, new: &JobGraph, wanted: SubtaskId) -> Vec<(u32, u32)> {
    needed_with(old, new, wanted, false)
}

fn needed_with(old: &JobGraph, new: &JobGraph, wanted: SubtaskId, in_flight: bool) -> Vec<(u32, u32)> {
    let needed = Shape::of(old).needed_by(new, new.fingerprint(), wanted, in_flight);
    needed.into_iter().map(|SubtaskId { vertex, index }| (vertex, index)).collect()
}

#[test]
fn keyed_state_goes_to_whoever_owns_its_groups_and_positions_stay() {
    let graph = checkpointed_graph();
    // Parallelism of `count` before and after, a subtask, and what it gets.
    type Row<'a> = (u32, u32, (u32, u32), &'a [(u32, u32)]);
    let table: [Row<'_>; 10] = [
        (2, 2, (1, 1), &[(1, 1)]),
        (2, 4, (1, 0), &[(1, 0)]),
        (2, 4, (1, 3), &[(1, 1)]),
        (2, 3, (1, 0), &[(1, 0)]),
        (2, 3, (1, 1), &[(1, 0), (1, 1)]),
        (4, 1, (1, 0), &[(1, 0), (1, 1), (1, 2), (1, 3)]),
        (4, 3, (1, 1), &[(1, 1), (1, 2)]),
        (1, 128, (1, 127), &[(1, 0)]),
        (2, 4, (0, 1), &[(0, 1)]),
        (4, 1, (0, 0), &[(0, 0)]),
    ];
    for (before, after, (vertex, index), expected) in table {
        let (old, new) = (at(&graph, &[2, before]), at(&graph, &[2, after]));
        assert_eq!(
            needed(&old, &new, subtask(vertex, index)),
            expected,
            "{before} -> {after}: {vertex}/{index}"
        );
    }
}

#[test]
fn parts_are_handed_to_all_when_their_number_changes() {
    for kind in [StateKind::Splits, StateKind::Sink] {
        let mut graph = checkpointed_graph();
        graph.vertices[0].operators[0].states = vec![state("parts", kind)];
        // Parallelisms of the operator with parts and of `count`, before and after; a subtask, and what it gets.
        type Row<'a> = ([u32; 2], [u32; 2], (u32, u32), &'a [(u32, u32)]);
        let table: [Row<'_>; 7] = [
            ([2, 2], [2, 2], (0, 1), &[(0, 1)]),
            ([2, 2], [2, 4], (0, 1), &[(0, 1)]),
            ([2, 2], [4, 2], (0, 0), &[(0, 0), (0, 1)]),
            ([2, 2], [4, 2], (0, 3), &[(0, 0), (0, 1)]),
            ([2, 2], [4, 2], (1, 1), &[(1, 1)]),
            ([4, 4], [1, 1], (0, 0), &[(0, 0), (0, 1), (0, 2), (0, 3)]),
            ([1, 1], [3, 3], (0, 2), &[(0, 0)]),
        ];
        for (before, after, (vertex, index), expected) in table {
            let (old, new) = (at(&graph, &before), at(&graph, &after));
            let found = needed(&old, &new, subtask(vertex, index));
            assert_eq!(found, expected, "{kind}: {before:?} -> {after:?}: {vertex}/{index}");
        }
    }
}

#[test]
fn lists_that_are_united_are_handed_to_all_whatever_has_changed() {
    let mut graph = checkpointed_graph();
    graph.vertices[0].operators[0].states = vec![state("list", StateKind::UnionList)];
    assert_eq!(needed(&graph, &graph, subtask(0, 1)), [(0, 0), (0, 1)]);
    assert_eq!(needed(&graph, &graph, subtask(1, 1)), [(1, 1)]);
    assert_eq!(needed(&graph, &at(&graph, &[3, 2]), subtask(0, 2)), [(0, 0), (0, 1)]);
    assert_eq!(needed(&graph, &at(&graph, &[2, 3]), subtask(0, 0)), [(0, 0), (0, 1)]);
}

#[test]
fn records_on_their_way_are_given_to_all_who_share_them_also_without_state() {
    let mut graph = checkpointed_graph();
    graph.vertices[1].operators[0].states.clear();
    let (old, new) = (at(&graph, &[2, 2]), at(&graph, &[2, 3]));
    assert_eq!(needed(&old, &new, subtask(1, 1)), []);
    assert_eq!(needed_with(&old, &new, subtask(1, 1), true), [(1, 0), (1, 1)]);
    assert_eq!(needed_with(&old, &new, subtask(0, 1), true), [(0, 1)]);
}

#[test]
fn operators_are_found_in_other_chains() {
    let apart = || {
        let mut graph = checkpointed_graph();
        let mut sink = vertex("sink", 1, "default");
        sink.operators[0].id = OperatorId(3);
        sink.operators[0].states = vec![state("transactions", StateKind::Sink)];
        graph.vertices.push(sink);
        at(&graph, &[2, 2, 1])
    };
    // At parallelism 1 the sink runs in the chain of `count`.
    let mut chained = apart();
    let sink = chained.vertices.pop().unwrap().operators.remove(0);
    chained.vertices[1].operators.push(sink);
    let chained = at(&chained, &[2, 1]);
    assert_eq!(needed(&apart(), &chained, subtask(1, 0)), [(1, 0), (1, 1), (2, 0)]);
    assert_eq!(needed(&chained, &apart(), subtask(1, 1)), [(1, 0)]);
    assert_eq!(needed(&chained, &apart(), subtask(2, 0)), [(1, 0)]);
    // What has keys needs its own part of the chain, the sink beside it all of them.
    let (old, new) = (at(&chained, &[2, 4]), at(&chained, &[2, 2]));
    assert_eq!(needed(&old, &new, subtask(1, 0)), [(1, 0), (1, 1), (1, 2), (1, 3)]);
    assert_eq!(needed(&old, &apart(), subtask(1, 0)), [(1, 0), (1, 1)]);
}

#[test]
fn a_task_without_state_gets_its_own_snapshot_of_the_same_graph_only() {
    let graph = graph_of(vec![vertex("source", 2, "default"), vertex("map", 2, "default")]);
    assert_eq!(needed(&graph, &graph, subtask(1, 1)), [(1, 1)]);
    assert_eq!(needed(&graph, &at(&graph, &[2, 3]), subtask(1, 1)), []);
}

#[test]
fn states_and_key_groups_make_a_job_another_one_and_chains_do_not() {
    let graph = checkpointed_graph();
    let states = |graph: &JobGraph| Shape::of(graph).states;
    assert_eq!(states(&graph), states(&at(&graph, &[2, 7])));
    let mut moved = graph.clone();
    moved.vertices.swap(0, 1);
    assert_eq!(states(&graph), states(&moved));
    type Change = fn(&mut JobGraph);
    let table: [(Change, bool); 4] = [
        (|graph| graph.vertices[1].max_parallelism = 256, false),
        // Sources have no key groups.
        (|graph| graph.vertices[0].max_parallelism = 256, true),
        (|graph| graph.vertices[1].operators[0].states[0].fingerprint += 1, false),
        (|graph| graph.vertices[1].operators[0].id = OperatorId(9), false),
    ];
    for (change, is_same) in table {
        let mut other = graph.clone();
        change(&mut other);
        assert_eq!(states(&graph) == states(&other), is_same);
    }
}

proptest! {
    /// Every key group comes from exactly one subtask that had it, and its new owner gets that one's snapshot.
    #[test]
    fn every_key_group_arrives_exactly_once(max in 1u32..300, before in 1u32..300, after in 1u32..300) {
        let graph = {
            let mut graph = checkpointed_graph();
            graph.vertices[1].max_parallelism = max;
            graph
        };
        let (old, new) = (at(&graph, &[2, before.min(max)]), at(&graph, &[2, after.min(max)]));
        let shape = Shape::of(&old);
        let mut arrived = BTreeMap::new();
        for index in 0..after.min(max) {
            let owned = groups_of(index, after.min(max), max);
            for from in shape.needed_by(&new, new.fingerprint(), subtask(1, index), false) {
                let there = groups_of(from.index, before.min(max), max);
                let taken = there.as_range().filter(|group| owned.contains(*group)).collect::<Vec<_>>();
                prop_assert!(!taken.is_empty(), "subtask {index} gets {from} for nothing");
                for group in taken {
                    *arrived.entry(group).or_insert(0) += 1;
                }
            }
        }
        prop_assert_eq!(arrived, (0..max).map(|group| (group, 1)).collect::<BTreeMap<_, _>>());
    }

    /// Whoever deals parts has those of all, or its own where none are dealt, also after several changes.
    #[test]
    fn parts_arrive_as_they_can_be_dealt(
        before in 1u32..20, after in 1u32..20, other in 1u32..20, is_sink in any::<bool>(),
    ) {
        let mut graph = checkpointed_graph();
        let kind = if is_sink { StateKind::Sink } else { StateKind::Splits };
        graph.vertices[0].operators[0].states = vec![state("parts", kind)];
        let (old, new) = (at(&graph, &[before, 2]), at(&graph, &[after, other]));
        for index in 0..after {
            let expected: Vec<(u32, u32)> = match before == after {
                true => vec![(0, index)],
                false => (0..before).map(|from| (0, from)).collect(),
            };
            prop_assert_eq!(needed(&old, &new, subtask(0, index)), expected);
        }
    }
}
