//! The records of a simulation, and the sources, stations and sinks that they pass.
//!
//! A record carries what it takes to check its way: the route over tasks and edges that it took, and its rank among those
//! with the same route, which grows from each record to the next as long as every channel keeps its order. Its key tells its
//! timestamp, which must be beside it at every vertex. Watermarks go by a time of its own, its number at its source: no record may
//! come behind a watermark that says that its time is over, and everyone must hear of the end of time before the end of the input.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::clock::ManualClock;
use thalweg_common::failure::Failure;
use thalweg_common::graph::Partitioning;
use thalweg_common::id::CheckpointId;
use thalweg_common::key_group::{key_group, key_hash, subtask_of};
use thalweg_common::record::{DecodeError, Record};
use thalweg_common::schema::Schema;

use super::expectation::{Tally, identity};
use super::random::{Random, mix};
use super::scenario;
use crate::batch::{Batch, NO_TIMESTAMP, known};
use crate::event::{Barrier, WatermarkStatus};
use crate::link::{Flushed, Link};
use crate::operator::{Sink, SinkContext, Source, SourceContext, SourceStatus};
use crate::program::{AnyLink, OperatorContext, OperatorFactory};
use crate::snapshot::SnapshotBuilder;
use crate::time::{MAX_WATERMARK, NO_WATERMARK, WatermarkGenerator, WatermarkOutput};

/// The key groups of all vertices.
pub(super) const MAX_PARALLELISM: u32 = 128;

/// What a record takes on the wire.
pub(super) const RECORD_BYTES: u64 = 56;

/// The rank of records that a combiner has put together: they have none.
const MERGED: u64 = u64::MAX;

/// Records that one record may become on one edge.
const MOST_COPIES: u64 = 4;

/// A record. The padding makes it heavy in memory; it does not travel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<const PADDING: usize> {
    pub(super) key: u64,
    pub(super) tally: Tally,
    route: u64,
    rank: u64,
    edge: u64,
    /// Grows from each record of a source's subtask to the next. The least one, of those that were put together.
    time: i64,
    _padding: [u64; PADDING],
}

impl<const PADDING: usize> Item<PADDING> {
    /// What becomes of it on an edge, before it is partitioned.
    pub(super) fn copies(self, factors: impl Iterator<Item = u64>) -> impl Iterator<Item = Self> {
        factors.zip(0..).map(move |(factor, copy)| {
            let digest = self.tally.digest.wrapping_mul(factor);
            let rank = if self.rank == MERGED { MERGED } else { self.rank * MOST_COPIES + copy };
            Self { tally: Tally { digest, ..self.tally }, rank, ..self }
        })
    }

    pub(super) fn merged(mut self, other: Self) -> Self {
        self.tally.add(other.tally);
        self.rank = MERGED;
        self.time = self.time.min(other.time);
        self
    }

    /// It leaves over this edge.
    pub(super) fn departing(self, edge: usize) -> Self {
        let edge = edge as u64;
        Self { route: mix(self.route, edge), edge, ..self }
    }
}

impl<const PADDING: usize> Record for Item<PADDING> {
    fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.key, self.tally.count, self.tally.digest, self.route, self.rank, self.edge] {
            number.encode(out);
        }
        self.time.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        let mut next = || u64::decode(bytes);
        Ok(Self {
            key: next()?,
            tally: Tally { count: next()?, digest: next()? },
            route: next()?,
            rank: next()?,
            edge: next()?,
            time: i64::decode(bytes)?,
            _padding: [0; PADDING],
        })
    }

    fn schema() -> Schema {
        u64::schema()
    }
}

/// What the tasks of a run have in common.
pub(super) struct Ledger {
    pub(super) clock: Arc<ManualClock>,
    /// Records that were given to the outputs of an edge.
    pub(super) departed: Vec<AtomicU64>,
    /// Records that were read at a vertex.
    pub(super) arrived: Vec<AtomicU64>,
    /// Watermarks that came to all stations.
    pub(super) watermarks: AtomicU64,
}

impl Ledger {
    pub(super) fn new(scenario: &scenario::Scenario) -> Arc<Self> {
        let zeros = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self {
            clock: Arc::new(ManualClock::new(0)),
            departed: zeros(scenario.edges.len()),
            arrived: zeros(scenario.vertices.len()),
            watermarks: AtomicU64::new(0),
        })
    }
}

/// A source that reads what its seed says, in chunks and with pauses.
#[derive(Clone)]
pub(super) struct Reader<const PADDING: usize> {
    pub(super) seed: u64,
    pub(super) vertex: u32,
    pub(super) plan: scenario::Source,
    pub(super) random: Random,
    pub(super) subtask: u32,
    pub(super) next: u64,
}

impl<const PADDING: usize> Source for Reader<PADDING> {
    type Out = Item<PADDING>;

    fn open(&mut self, context: &SourceContext, restored: Option<&[u8]>) -> Result<(), Failure> {
        if let Some(mut position) = restored {
            self.next = u64::decode(&mut position).map_err(|error| Failure::internal(error.to_string()))?;
        }
        self.subtask = context.subtask_index;
        self.random = Random::new(mix(self.seed, u64::from(self.vertex * 100 + self.subtask)));
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<Item<PADDING>>, max: usize) -> Result<SourceStatus, Failure> {
        let left = self.plan.records - self.next;
        if left > 0 && self.random.chance(self.plan.pauses) {
            let retry_after = Duration::from_micros(self.random.magnitude(1..=10_000));
            return Ok(SourceStatus::Idle { retry_after });
        }
        let records = self.random.within(1..=self.plan.chunk).min(left).min(max as u64);
        for number in self.next..self.next + records {
            let (key, digest) = identity(self.seed, self.vertex, self.subtask, number);
            let route = mix(u64::from(self.vertex), u64::from(self.subtask));
            let tally = Tally { count: 1, digest };
            let time = number as i64;
            let item = Item { key, tally, route, rank: number, edge: 0, time, _padding: [0; PADDING] };
            out.push_with_timestamp(item, timestamp_of(self.seed, key));
        }
        self.next += records;
        Ok(if self.next == self.plan.records { SourceStatus::Finished } else { SourceStatus::Ready })
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, Failure> {
        let mut position = Vec::new();
        self.next.encode(&mut position);
        Ok(position)
    }
}

/// Says behind every few records that their time is over.
#[derive(Clone)]
pub(super) struct Punctual {
    pub(super) seed: u64,
}

impl<const PADDING: usize> WatermarkGenerator<Item<PADDING>> for Punctual {
    fn on_event(&mut self, item: &Item<PADDING>, _: Timestamp, output: &mut WatermarkOutput) {
        // From one watermark in a few records to one in many of them.
        if mix(self.seed, item.time as u64).is_multiple_of(2 << (self.seed % 8)) {
            output.emit_watermark(item.time);
        }
    }

    fn on_periodic_emit(&mut self, _: &mut WatermarkOutput) {}
}

/// The timestamp of all records of a key: some jobs have them, some have none, and in some every other key has.
fn timestamp_of(seed: u64, key: u64) -> Timestamp {
    let has_one = match seed % 3 {
        0 => false,
        1 => true,
        _ => key.is_multiple_of(2),
    };
    if has_one { mix(seed, key) as Timestamp } else { NO_TIMESTAMP }
}

/// The head of every vertex that reads channels: checks what comes and takes its time.
pub(super) struct Station {
    pub(super) seed: u64,
    pub(super) ledger: Arc<Ledger>,
    pub(super) vertex: u32,
    pub(super) record_cost: Duration,
    /// How each edge of the job finds its channel.
    pub(super) partitionings: Arc<[Partitioning]>,
}

/// A station that accepts records of one weight.
pub(super) struct StationFactory<const PADDING: usize>(pub(super) Arc<Station>);

impl<const PADDING: usize> OperatorFactory for StationFactory<PADDING> {
    fn build(&self, context: &mut OperatorContext, next: Option<AnyLink>) -> Result<AnyLink, Failure> {
        let next = next.ok_or_else(|| Failure::internal("a station has something behind it"))?;
        Ok(AnyLink::new::<Item<PADDING>>(Box::new(Visit {
            station: Arc::clone(&self.0),
            subtask: context.open.subtask_index,
            parallelism: context.open.parallelism,
            last_ranks: HashMap::new(),
            watermark: NO_WATERMARK,
            next: next.typed()?,
        })))
    }
}

struct Visit<const PADDING: usize> {
    station: Arc<Station>,
    subtask: u32,
    parallelism: u32,
    /// The rank of the last record on each route.
    last_ranks: HashMap<u64, u64>,
    /// The last one that has come.
    watermark: Timestamp,
    next: Box<dyn Link<Item<PADDING>>>,
}

impl<const PADDING: usize> Visit<PADDING> {
    fn check(&mut self, item: &Item<PADDING>, timestamp: Option<Timestamp>) -> Result<(), Failure> {
        let Station { seed, vertex, partitionings, .. } = &*self.station;
        let (edge, subtask) = (item.edge, self.subtask);
        let expected = known(timestamp_of(*seed, item.key));
        if timestamp != expected {
            let key = item.key;
            return Err(Failure::internal(format!(
                "edge {edge} brought key {key} with the timestamp {timestamp:?} in place of {expected:?} to vertex {vertex}"
            )));
        }
        if partitionings[edge as usize] == Partitioning::Hash {
            let group = key_group(key_hash(&item.key, &mut Vec::new()), MAX_PARALLELISM);
            let owner = subtask_of(group, self.parallelism, MAX_PARALLELISM);
            if owner != subtask {
                let key = item.key;
                return Err(Failure::internal(format!(
                    "edge {edge} brought key {key} of subtask {owner} to subtask {subtask} of vertex {vertex}"
                )));
            }
        }
        if item.time <= self.watermark {
            let (time, watermark) = (item.time, self.watermark);
            return Err(Failure::internal(format!(
                "edge {edge} brought a record of time {time} behind the watermark {watermark} to subtask {subtask} of vertex {vertex}"
            )));
        }
        if item.rank != MERGED
            && let Some(last) = self.last_ranks.insert(item.route, item.rank)
            && last >= item.rank
        {
            return Err(Failure::internal(format!(
                "edge {edge} brought record {} of its route behind record {last} to subtask {subtask} of vertex {vertex}",
                item.rank
            )));
        }
        Ok(())
    }
}

impl<const PADDING: usize> Link<Item<PADDING>> for Visit<PADDING> {
    fn process(&mut self, batch: &mut Batch<Item<PADDING>>) -> Result<(), Failure> {
        let records = batch.len() as u64;
        for at in 0..batch.len() {
            let item = batch.records()[at];
            self.check(&item, batch.timestamp(at))?;
            batch.records_mut()[at].route =
                mix(item.route, u64::from(self.station.vertex) << 32 | u64::from(self.subtask));
        }
        let Station { ledger, vertex, record_cost, .. } = &*self.station;
        ledger.arrived[*vertex as usize].fetch_add(records, Ordering::Relaxed);
        ledger.clock.advance(record_cost.saturating_mul(records as u32));
        self.next.process(batch)
    }

    fn watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure> {
        if timestamp <= self.watermark {
            let message = format!("the watermark {timestamp} came behind {}", self.watermark);
            return Err(Failure::internal(message));
        }
        self.watermark = timestamp;
        self.station.ledger.watermarks.fetch_add(1, Ordering::Relaxed);
        self.next.watermark(timestamp)
    }

    fn watermark_status(&mut self, status: WatermarkStatus) -> Result<(), Failure> {
        self.next.watermark_status(status)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        if self.watermark != MAX_WATERMARK {
            let message = format!("the input ended at the watermark {}", self.watermark);
            return Err(Failure::internal(message));
        }
        self.next.finish()
    }

    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        self.next.snapshot(barrier, snapshot)
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.next.completed(checkpoint)
    }

    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.next.aborted(checkpoint)
    }

    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure> {
        self.next.flush(partial)
    }
}

/// A sink that counts. What it has counted is its transaction.
#[derive(Clone, Default)]
pub(super) struct Counter {
    tally: Tally,
}

impl<const PADDING: usize> Sink<Item<PADDING>> for Counter {
    type Committable = (u64, u64);

    fn open(&mut self, _: &SinkContext) -> Result<(), Failure> {
        Ok(())
    }

    fn recover(&mut self, prepared: &[(u64, u64)]) -> Result<(), Failure> {
        if let Some(&(count, digest)) = prepared.last() {
            self.tally = Tally { count, digest };
        }
        Ok(())
    }

    fn write(&mut self, batch: &mut Batch<Item<PADDING>>) -> Result<(), Failure> {
        batch.drain().for_each(|item| self.tally.add(item.tally));
        Ok(())
    }

    fn prepare(&mut self, _: CheckpointId) -> Result<Vec<(u64, u64)>, Failure> {
        Ok(vec![(self.tally.count, self.tally.digest)])
    }
}
