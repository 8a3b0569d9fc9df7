//! What a seed decides before a run: the graph, the sizes of everything that is bounded, who is slow, and what happens to the job.
//!
//! Invariant: a scenario is a function of its seed alone, and every scenario is a job that must end.

use std::fmt;
use std::time::Duration;

use thalweg_common::config::CheckpointMode;
use thalweg_common::graph::Partitioning;

use super::random::{Random, mix};
use crate::exchange::{Compression, ExchangeSettings};

/// How many keys there are. Few, so that some tasks get nothing and others most.
pub(super) const KEYS: u64 = 12;

/// Records that all tasks together read in the largest run, about.
const MOST_DELIVERIES: u64 = 4_000;

/// A job and its fate.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) vertices: Vec<Vertex>,
    pub(super) edges: Vec<Edge>,
    pub(super) mode: CheckpointMode,
    pub(super) workers: u32,
    pub(super) local: LocalRoom,
    pub(super) exchange: ExchangeSettings,
    /// Frames of a channel that are on the wire at once.
    pub(super) wire_frames: usize,
    pub(super) weight: Weight,
    /// In how many of 10,000 steps a checkpoint is triggered, if none is under way.
    pub(super) trigger_chance: u64,
    /// In how many of 10,000 steps the one that is under way is given up.
    pub(super) abort_chance: u64,
    /// The step in which the attempt is cancelled.
    pub(super) cancel_at: Option<u64>,
    /// Whether barriers overtake, and how long after their trigger.
    pub(super) overtakes_after: Option<Duration>,
    /// In how many of 10,000 steps all tasks are lost, and the job goes on from its last checkpoint.
    pub(super) crash_chance: u64,
}

/// How large a record is in memory, which decides how many make a full batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// 1,024 records.
    Light,
    /// About 200.
    Medium,
    /// 64.
    Heavy,
}

/// The room of local channels.
#[derive(Debug, Clone, Copy)]
pub(super) struct LocalRoom {
    pub(super) batches: usize,
    pub(super) events: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Vertex {
    pub(super) parallelism: u32,
    /// Vertices of the same group share their slots.
    pub(super) sharing_group: u32,
    /// What a record costs a task of it, in time.
    pub(super) record_cost: Duration,
    /// In how many of 100 cases in which it could have a turn its slot gets one.
    pub(super) speed: u64,
    pub(super) source: Option<Source>,
}

/// What a source vertex reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    /// Records of each subtask.
    pub(super) records: u64,
    /// Most records at once.
    pub(super) chunk: u64,
    /// In how many of 100 polls there is nothing to read.
    pub(super) pauses: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Edge {
    pub(super) source: u32,
    pub(super) target: u32,
    pub(super) partitioning: Partitioning,
    pub(super) salt: u64,
    pub(super) filters: bool,
    /// Most records that one becomes; 0 for an edge without a flat map.
    pub(super) copies: u64,
    pub(super) combines: bool,
}

impl Edge {
    /// Whether records of this key pass.
    pub(super) fn keeps(&self, key: u64) -> bool {
        !self.filters || !mix(self.salt, key).is_multiple_of(3)
    }

    /// What a record of this key becomes: a factor for the digest of each copy.
    pub(super) fn factors(&self, key: u64) -> impl Iterator<Item = u64> + use<> {
        let salt = self.salt;
        let copies = if self.copies == 0 { 1 } else { mix(salt, !key) % (self.copies + 1) };
        // Odd factors: no digest is lost in the product.
        (0..copies).map(move |copy| mix(salt, copy) | 1)
    }
}

impl Scenario {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut vertices = vertices(&mut random);
        let edges = edges(&mut random, &vertices);
        limit(&mut vertices, &edges);
        let own = random.magnitude(64..=65_536);
        let exchange = ExchangeSettings {
            channel_credit_bytes: own,
            floating_credit_bytes: if random.chance(50) { 0 } else { random.magnitude(256..=131_072) },
            debloat_target: random
                .chance(50)
                .then(|| Duration::from_micros(random.magnitude(10..=1_000_000))),
            frame_target_bytes: random.magnitude(16..=65_536) as usize,
            compression: random.pick(&[Compression::None, Compression::None, Compression::Lz4]),
        };
        Self {
            seed,
            mode: if random.chance(85) { CheckpointMode::ExactlyOnce } else { CheckpointMode::AtLeastOnce },
            workers: random.within(1..=3) as u32,
            local: LocalRoom {
                batches: random.magnitude(1..=8) as usize,
                events: random.within(1..=4) as usize,
            },
            exchange,
            wire_frames: random.magnitude(1..=16) as usize,
            weight: random.pick(&[Weight::Light, Weight::Medium, Weight::Heavy]),
            trigger_chance: random.pick(&[0, 10, 100, 1_000, 10_000]),
            abort_chance: random.pick(&[0, 1, 10, 100, 1_000]),
            cancel_at: random.chance(30).then(|| random.magnitude(1..=8_192)),
            overtakes_after: match random.within(0..=9) {
                0..4 => None,
                4..7 => Some(Duration::ZERO),
                _ => Some(Duration::from_millis(random.magnitude(1..=1_024))),
            },
            crash_chance: random.pick(&[0, 1, 10, 100]),
            vertices,
            edges,
        }
    }

    /// The edges out of a vertex, with their numbers.
    pub(super) fn outputs(&self, vertex: u32) -> impl Iterator<Item = (usize, &Edge)> {
        self.edges.iter().enumerate().filter(move |(_, edge)| edge.source == vertex)
    }

    /// Whether nothing leaves the vertex.
    pub(super) fn is_sink(&self, vertex: u32) -> bool {
        self.outputs(vertex).next().is_none()
    }
}

fn vertices(random: &mut Random) -> Vec<Vertex> {
    let count = random.within(2..=8) as u32;
    let same_parallelism = random.chance(40).then(|| random.within(1..=4) as u32);
    let groups = random.pick(&[1, 1, 2, 8]);
    (0..count)
        .map(|vertex| {
            // The first vertex is a source and the last one is none.
            let is_source = vertex == 0 || (vertex + 1 < count && random.chance(25));
            let chunk = random.magnitude(1..=1_024);
            let source = Source {
                records: (random.magnitude(1..=2_048) - 1).min(chunk * 48),
                chunk,
                pauses: random.pick(&[0, 0, 10, 60]),
            };
            Vertex {
                parallelism: same_parallelism.unwrap_or_else(|| random.within(1..=4) as u32),
                sharing_group: random.within(0..=groups - 1) as u32,
                record_cost: Duration::from_nanos(random.pick(&[0, 100, 1_000, 100_000, 5_000_000])),
                speed: random.pick(&[100, 100, 100, 30, 3]),
                source: is_source.then_some(source),
            }
        })
        .collect()
}

fn edges(random: &mut Random, vertices: &[Vertex]) -> Vec<Edge> {
    let mut pairs = Vec::new();
    let count = vertices.len() as u32;
    for target in (1..count).filter(|vertex| vertices[*vertex as usize].source.is_none()) {
        for _ in 0..random.pick(&[1, 1, 2, 3]) {
            pairs.push((random.within(0..=u64::from(target) - 1) as u32, target));
        }
    }
    for source in (0..count).filter(|vertex| vertices[*vertex as usize].source.is_some()) {
        if !pairs.iter().any(|(from, _)| *from == source) {
            let targets: Vec<u32> =
                (source + 1..count).filter(|vertex| vertices[*vertex as usize].source.is_none()).collect();
            pairs.push((source, random.pick(&targets)));
        }
    }
    pairs
        .into_iter()
        .map(|(source, target)| {
            let parallelism = |vertex: u32| vertices[vertex as usize].parallelism;
            let first = if parallelism(source) == parallelism(target) {
                Partitioning::Forward
            } else {
                Partitioning::Rescale
            };
            let partitioning = random.pick(&[
                first,
                Partitioning::Hash,
                Partitioning::Hash,
                Partitioning::Rebalance,
                Partitioning::Broadcast,
            ]);
            Edge {
                source,
                target,
                partitioning,
                salt: random.next(),
                filters: random.chance(25),
                copies: random.pick(&[0, 0, 1, 2, 3]),
                combines: random.chance(20),
            }
        })
        .collect()
}

/// Takes records from the sources until the run is of a bounded size.
fn limit(vertices: &mut [Vertex], edges: &[Edge]) {
    for at in 0..vertices.len() {
        let Some(mut source) = vertices[at].source else { continue };
        let per_record: u64 = (0..KEYS)
            .map(|key| {
                let reached = super::expectation::reach(vertices, edges, at, key);
                reached.iter().map(|reached| reached.count).sum::<u64>()
            })
            .sum::<u64>()
            / KEYS;
        let subtasks = u64::from(vertices[at].parallelism);
        source.records = source.records.min(MOST_DELIVERIES / per_record.max(1) / subtasks);
        vertices[at].source = Some(source);
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "seed {}: {:?}, {} workers, {:?}, {} frames on a wire, {:?} records, cancelled at step {:?}, barriers overtake after {:?}",
            self.seed,
            self.mode,
            self.workers,
            self.local,
            self.wire_frames,
            self.weight,
            self.cancel_at,
            self.overtakes_after
        )?;
        writeln!(formatter, "{:?}", self.exchange)?;
        for (number, vertex) in self.vertices.iter().enumerate() {
            writeln!(formatter, "vertex {number}: {vertex:?}")?;
        }
        for (number, edge) in self.edges.iter().enumerate() {
            writeln!(formatter, "edge {number}: {edge:?}")?;
        }
        Ok(())
    }
}
