//! What a run must come to, by a plain computation: no channels, no batches, no order.
//!
//! Every operator treats a record by its key alone and is linear in the record's count and digest. So what one record of a
//! source contributes to a vertex is a factor per key, and what a vertex has read when the sources are at some
//! positions is a sum. This holds for every graph, also with combiners, and at every barrier.
//! Here are also the bounds of what may be on its way.

use thalweg_common::graph::Partitioning;

use super::random::mix;
use super::records::RECORD_BYTES;
use super::scenario::{Edge, KEYS, Scenario, Vertex};
use crate::exchange::Compression;

/// Records that were read: how many, and the sum of what identifies them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub(super) count: u64,
    pub(super) digest: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.count = self.count.wrapping_add(other.count);
        self.digest = self.digest.wrapping_add(other.digest);
    }
}

/// The key and the digest of a source's record.
pub(super) fn identity(seed: u64, vertex: u32, subtask: u32, number: u64) -> (u64, u64) {
    let digest = mix(mix(seed, u64::from(vertex) << 32 | u64::from(subtask)), number);
    // A hot key: a third of all.
    let key = if digest.is_multiple_of(3) { 0 } else { mix(digest, 7) % KEYS };
    (key, digest)
}

/// What becomes of one record of this key from the source `from`, at each vertex.
pub(super) fn reach(vertices: &[Vertex], edges: &[Edge], from: usize, key: u64) -> Vec<Tally> {
    let mut reached = vec![Tally::default(); vertices.len()];
    reached[from] = Tally { count: 1, digest: 1 };
    for at in from..vertices.len() {
        for edge in edges.iter().filter(|edge| edge.source as usize == at && edge.keeps(key)) {
            let sent = reached[at];
            let receivers = match edge.partitioning {
                Partitioning::Broadcast => u64::from(vertices[edge.target as usize].parallelism),
                _ => 1,
            };
            for factor in edge.factors(key) {
                reached[edge.target as usize].add(Tally {
                    count: sent.count.wrapping_mul(receivers),
                    digest: sent.digest.wrapping_mul(factor).wrapping_mul(receivers),
                });
            }
        }
    }
    reached
}

/// The factors of a scenario.
pub(super) struct Expectation {
    seed: u64,
    /// By source vertex and key: what one record contributes to each vertex.
    factors: Vec<Option<Vec<Vec<Tally>>>>,
}

impl Expectation {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let of_key = |vertex: usize| move |key| reach(&scenario.vertices, &scenario.edges, vertex, key);
        let factors = scenario.vertices.iter().enumerate();
        let factors =
            factors.map(|(at, vertex)| vertex.source.map(|_| (0..KEYS).map(of_key(at)).collect())).collect();
        Self { seed: scenario.seed, factors }
    }

    /// What each vertex has read of the first `records` records of a source's subtask.
    pub(super) fn add(&self, vertex: u32, subtask: u32, records: u64, tallies: &mut [Tally]) {
        let Some(factors) = &self.factors[vertex as usize] else { return };
        for number in 0..records {
            let (key, digest) = identity(self.seed, vertex, subtask, number);
            for (tally, factor) in tallies.iter_mut().zip(&factors[key as usize]) {
                tally.add(Tally { count: factor.count, digest: factor.digest.wrapping_mul(digest) });
            }
        }
    }
}

/// How many records may be on their way to each vertex: sent to one of its channels and not read yet.
pub(super) fn bounds(scenario: &Scenario, full_records: u64) -> Vec<u64> {
    // The largest batch that a vertex reads, and what may be on its way to it.
    let mut largest: Vec<u64> = vec![full_records; scenario.vertices.len()];
    let mut bounds = vec![0; scenario.vertices.len()];
    for at in 0..scenario.vertices.len() {
        for (_, edge) in scenario.outputs(at as u32) {
            let (source, target) = (at, edge.target as usize);
            // A flat map hands on full batches; everything else what it gets.
            let handed_on = if edge.copies > 0 { full_records } else { largest[source] } + KEYS;
            // A buffer that is not full yet, and the batch behind it.
            let batch = full_records + handed_on;
            largest[target] = largest[target].max(batch);
            // A turn reads one batch; what becomes of it is kept if the channel is full.
            let kept = full_records + edge.copies.max(1) * largest[source] + KEYS;
            let local = scenario.local.batches as u64 * batch;
            let channel = kept + local.max(remote(scenario));
            let channels = scenario.vertices[source].parallelism * scenario.vertices[target].parallelism;
            bounds[target] += channel * u64::from(channels);
        }
    }
    bounds
}

/// How many records a remote channel takes in: what its largest window pays for.
fn remote(scenario: &Scenario) -> u64 {
    let exchange = &scenario.exchange;
    let window = exchange.channel_credit_bytes + exchange.floating_credit_bytes;
    let frame = exchange.frame_target_bytes as u64 + RECORD_BYTES;
    match exchange.compression {
        Compression::None => (window + frame) / RECORD_BYTES + 1,
        // A frame that is compressed to nothing still costs its overhead.
        Compression::Lz4 => {
            (window / thalweg_common::limits::FRAME_OVERHEAD_BYTES as u64 + 2) * (frame / RECORD_BYTES + 1)
        }
    }
}
