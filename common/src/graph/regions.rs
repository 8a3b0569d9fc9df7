//! Pipelined regions of a job graph: what has to be restarted together.
//!
//! As in Flink (FLIP-1): a region is all subtasks that channels connect, directly or by others. When a task fails, those that it
//! exchanges records with have lost records or got some twice, and nobody else has. Pure; the same graph always gives the
//! same numbers, so that every leader means the same by them.

use std::collections::{BTreeMap, BTreeSet};

use super::{JobGraph, Partitioning, share_of};
use crate::id::{RegionId, SubtaskId};

/// The regions of a job graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regions {
    by_subtask: BTreeMap<SubtaskId, RegionId>,
    count: u32,
}

impl Regions {
    /// Those of a graph. They are numbered from 0, in the order of their first subtasks.
    #[must_use]
    pub fn of(graph: &JobGraph) -> Self {
        let mut sets = Sets::new(graph);
        for edge in &graph.edges {
            let (from, to) = (sets.subtasks(edge.source), sets.subtasks(edge.target));
            let (sources, targets) = (from.len() as u32, to.len() as u32);
            // Without going through all pairs of subtasks.
            let mut join = |(source, target): (u32, u32)| {
                sets.join(from.start + source as usize, to.start + target as usize);
            };
            match edge.partitioning {
                Partitioning::Forward => (0..sources.min(targets)).for_each(|index| join((index, index))),
                Partitioning::Rescale if sources <= targets => {
                    (0..targets).for_each(|target| join((share_of(target, targets, sources), target)));
                }
                Partitioning::Rescale => {
                    (0..sources).for_each(|source| join((source, share_of(source, sources, targets))));
                }
                // Everybody with everybody.
                _ if sources > 0 && targets > 0 => {
                    (0..sources).for_each(|source| join((source, 0)));
                    (0..targets).for_each(|target| join((0, target)));
                }
                _ => {}
            }
        }
        let mut numbers = BTreeMap::new();
        let mut by_subtask = BTreeMap::new();
        for (place, subtask) in graph.subtasks().enumerate() {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            by_subtask.insert(subtask, *numbers.entry(sets.root(place)).or_insert(next));
        }
        Self { by_subtask, count: u32::try_from(numbers.len()).unwrap_or(u32::MAX) }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> BTreeSet<RegionId> {
        (0..self.count).collect()
    }

    /// That of a subtask; the first one for a subtask that the graph does not have.
    #[must_use]
    pub fn region(&self, subtask: SubtaskId) -> RegionId {
        self.by_subtask.get(&subtask).copied().unwrap_or_default()
    }

    /// Those of some subtasks.
    pub fn regions(&self, subtasks: impl IntoIterator<Item = SubtaskId>) -> BTreeSet<RegionId> {
        subtasks.into_iter().map(|subtask| self.region(subtask)).collect()
    }
}

/// Disjoint sets of subtasks, each known by its place among all of them.
struct Sets {
    parents: Vec<usize>,
    /// The place of each vertex's first subtask, and behind all the end.
    begins: Vec<usize>,
}

impl Sets {
    fn new(graph: &JobGraph) -> Self {
        let mut begins = vec![0];
        for vertex in &graph.vertices {
            begins.push(begins.last().copied().unwrap_or_default() + vertex.parallelism as usize);
        }
        Self { parents: (0..begins.last().copied().unwrap_or_default()).collect(), begins }
    }

    fn subtasks(&self, vertex: u32) -> std::ops::Range<usize> {
        let at = |vertex: usize| self.begins.get(vertex).copied().unwrap_or_default();
        at(vertex as usize)..at(vertex as usize + 1)
    }

    fn root(&mut self, mut place: usize) -> usize {
        while let Some(parent) = self.parents.get(place).copied().filter(|parent| *parent != place) {
            // Halves the way for the next one.
            let grandparent = self.parents.get(parent).copied().unwrap_or(parent);
            self.parents[place] = grandparent;
            place = grandparent;
        }
        place
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        if let Some(parent) = self.parents.get_mut(one.max(other)) {
            *parent = one.min(other);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::super::{Edge, PROTOCOL_VERSION, Vertex};
    use super::*;
    use crate::config::{CheckpointConfig, RestartStrategy};
    use Partitioning::{Broadcast, Forward, Hash, Rebalance, Rescale};

    fn graph(parallelisms: &[u32], edges: &[(u32, u32, Partitioning)]) -> JobGraph {
        let vertex = |parallelism: &u32| Vertex {
            name: "vertex".into(),
            parallelism: *parallelism,
            max_parallelism: 128,
            slot_sharing_group: "default".into(),
            operators: vec![],
        };
        let edge = |(source, target, partitioning): &(u32, u32, Partitioning)| Edge {
            source: *source,
            source_operator: 0,
            target: *target,
            partitioning: *partitioning,
            tag: None,
            schema_fingerprint: 0,
        };
        JobGraph {
            protocol_version: PROTOCOL_VERSION,
            name: "test".into(),
            vertices: parallelisms.iter().map(vertex).collect(),
            edges: edges.iter().map(edge).collect(),
            checkpointing: CheckpointConfig::default(),
            restart_strategy: RestartStrategy::None,
            warnings: vec![],
        }
    }

    /// The region of each subtask, in their order.
    fn numbers(graph: &JobGraph) -> Vec<u32> {
        let regions = Regions::of(graph);
        graph.subtasks().map(|subtask| regions.region(subtask)).collect()
    }

    #[test]
    fn a_region_is_what_channels_connect() {
        type Row<'a> = (&'a [u32], &'a [(u32, u32, Partitioning)], &'a [u32]);
        let table: [Row<'_>; 10] = [
            (&[1], &[], &[0]),
            (&[3], &[], &[0, 1, 2]),
            // source -> map -> sink, one after the other.
            (&[4, 4, 4], &[(0, 1, Forward), (1, 2, Forward)], &[0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]),
            (&[2, 2], &[(0, 1, Hash)], &[0; 4]),
            (&[2, 3], &[(0, 1, Rebalance)], &[0; 5]),
            (&[1, 3], &[(0, 1, Broadcast)], &[0; 4]),
            (&[2, 4], &[(0, 1, Rescale)], &[0, 1, 0, 0, 1, 1]),
            (&[4, 2], &[(0, 1, Rescale)], &[0, 0, 1, 1, 0, 1]),
            // Two pipelines that have nothing to do with each other.
            (&[2, 2, 1, 1], &[(0, 2, Hash), (1, 3, Hash)], &[0, 0, 1, 1, 0, 1]),
            // One shuffle at the end connects everything in front of it.
            (&[2, 2, 1], &[(0, 1, Forward), (1, 2, Hash)], &[0; 5]),
        ];
        for (parallelisms, edges, expected) in table {
            assert_eq!(numbers(&graph(parallelisms, edges)), expected, "{parallelisms:?} {edges:?}");
        }
        let regions = Regions::of(&graph(&[2, 2], &[(0, 1, Forward)]));
        assert_eq!((regions.count(), regions.all()), (2, BTreeSet::from([0, 1])));
        let on = [SubtaskId { vertex: 1, index: 1 }, SubtaskId { vertex: 0, index: 1 }];
        assert_eq!(regions.regions(on), BTreeSet::from([1]));
    }

    #[test]
    fn wide_edges_cost_no_pairs() {
        for (how, regions) in [(Hash, 1), (Forward, 30_000), (Rescale, 30_000)] {
            assert_eq!(Regions::of(&graph(&[30_000, 30_000], &[(0, 1, how)])).count(), regions, "{how:?}");
        }
    }

    fn any_graph() -> impl Strategy<Value = JobGraph> {
        let partitioning = prop_oneof![
            4 => Just(Forward), 2 => Just(Rescale), 1 => Just(Hash), 1 => Just(Rebalance), 1 => Just(Broadcast)
        ];
        let edges = proptest::collection::vec((0u32..6, 0u32..6, partitioning), 0..7);
        (proptest::collection::vec(1u32..6, 1..7), edges).prop_map(|(parallelisms, edges)| {
            let last = parallelisms.len() as u32 - 1;
            let edges = edges.into_iter().map(|(one, other, how)| (one.min(last), other.min(last), how));
            let edges = edges.filter(|(one, other, _)| one != other);
            let edges: Vec<_> =
                edges.map(|(one, other, how)| (one.min(other), one.max(other), how)).collect();
            graph(&parallelisms, &edges)
        })
    }

    proptest! {
        /// Whoever shares a channel shares a region, and a region cannot be divided further.
        #[test]
        fn regions_are_the_connected_components_of_the_channels(graph in any_graph()) {
            let regions = Regions::of(&graph);
            let mut ends = Vec::new();
            for (number, edge) in (0..).zip(&graph.edges) {
                for channel in graph.channels(number) {
                    let from = SubtaskId { vertex: edge.source, index: channel.from };
                    let to = SubtaskId { vertex: edge.target, index: channel.to };
                    prop_assert_eq!(regions.region(from), regions.region(to));
                    ends.push((from, to));
                }
            }
            let subtasks: Vec<_> = graph.subtasks().collect();
            let mut seen = BTreeSet::new();
            for region in regions.all() {
                let members: BTreeSet<_> =
                    subtasks.iter().copied().filter(|subtask| regions.region(*subtask) == region).collect();
                let mut reached = BTreeSet::from([*members.first().unwrap()]);
                while let Some((from, to)) = ends.iter().find(|(from, to)| reached.contains(from) != reached.contains(to)) {
                    reached.extend([*from, *to]);
                }
                prop_assert_eq!(&reached, &members);
                seen.extend(members);
            }
            prop_assert_eq!(seen.len(), subtasks.len());
            // In the order of their first subtasks.
            let mut next = 0;
            for subtask in &subtasks {
                let region = regions.region(*subtask);
                prop_assert!(region <= next);
                next = next.max(region + 1);
            }
        }
    }
}
