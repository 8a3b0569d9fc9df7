//! Reads the shards of one subtask: all at the same time, each at its pace.
//!
//! On a record's way this is its beginning. Invariants: a shard is asked again only when everything of its last read was given out, so that what
//! a subtask holds is bounded, and a task that is held up reads nothing; shards that wait for other sources do not keep the rest from
//! reading.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::clock::SharedClock;
use thalweg_common::failure::Failure;
use thalweg_common::limits::KINESIS_BUFFER_BYTES;
use thalweg_common::record::Record;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::io::BoxedRequests;
use thalweg_runtime::metrics::MetricGroup;
use thalweg_runtime::operator::{SourceContext, SourceStatus};
use thalweg_runtime::split::{SourceReader, SourceSplit};
use thalweg_runtime::time::SplitReport;
use tracing::{debug, info};

use super::fan_out::Subscriber;
use super::open_shard::OpenShard;
use super::options::Options;
use super::request::{Answer, Connections};
use super::service::Service;
use super::shard::ShardSplit;
use super::source::Deserialize;

/// How long to sleep while requests are under way: their answers wake the task.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Reads the shards of a subtask of a [`KinesisSource`](super::KinesisSource).
pub struct ShardReader<T> {
    connections: Arc<Connections>,
    options: Arc<Options>,
    deserialize: Deserialize<T>,
    shards: BTreeMap<u64, OpenShard>,
    /// The number of the next shard, under which its answers come.
    next_number: u64,
    /// The shard that is first to give records next.
    first: u64,
    requests: BoxedRequests<(u64, Answer)>,
    /// Bytes that were read and not given out.
    buffered_bytes: u64,
    /// Of the last poll.
    told: Vec<(String, usize)>,
    told_finished: Vec<String>,
    finished: Vec<String>,
    /// Splits that wait for other sources.
    paused: BTreeSet<String>,
    subtask: u32,
    /// Consumers that were begun, as Flink counts them.
    consumers: u64,
    metrics: MetricGroup,
    clock: SharedClock,
}

impl<T: Record> ShardReader<T> {
    pub(super) fn new(
        service: Arc<Service>,
        options: Arc<Options>,
        deserialize: Deserialize<T>,
        context: &SourceContext,
    ) -> Self {
        let subscriber =
            options.fan_out.clone().map(|options| Subscriber::new(Arc::clone(&service), options));
        Self {
            connections: Arc::new(Connections { service, subscriber }),
            options,
            deserialize,
            shards: BTreeMap::new(),
            next_number: 0,
            first: 0,
            requests: context.io.requests(),
            buffered_bytes: 0,
            told: Vec::new(),
            told_finished: Vec::new(),
            finished: Vec::new(),
            paused: BTreeSet::new(),
            subtask: context.subtask_index,
            consumers: 0,
            metrics: context.metric_group().add_group("KinesisConsumer"),
            clock: Arc::clone(&context.clock),
        }
    }

    /// Takes the answers that have come.
    fn take_answers(&mut self, now: Duration) -> Result<(), Failure> {
        while let Some((number, answer)) = self.requests.answer() {
            if let Some(open) = self.shards.get_mut(&number) {
                self.buffered_bytes += open.take(answer, now)?;
            }
        }
        Ok(())
    }

    /// Begins the requests that are due.
    fn ask(&mut self, now: Duration) {
        for (number, open) in &mut self.shards {
            if self.buffered_bytes >= KINESIS_BUFFER_BYTES {
                break;
            }
            let Some(request) = open.ask(now, &self.clock) else { continue };
            let (number, connections) = (*number, Arc::clone(&self.connections));
            self.requests.begin(|| Box::pin(async move { (number, request.send(&connections).await) }));
        }
        if self.buffered_bytes >= KINESIS_BUFFER_BYTES {
            let forgotten: u64 = self.shards.values_mut().map(OpenShard::forget).sum();
            self.buffered_bytes -= forgotten;
        }
    }

    /// Gives out what was read, each time beginning with another shard.
    fn give(&mut self, out: &mut Batch<T>, max: usize) -> Result<(), Failure> {
        let (deserialize, first) = (Arc::clone(&self.deserialize), self.first);
        let behind = self.shards.range(first..).map(|(number, _)| *number);
        let numbers: Vec<u64> = behind.chain(self.shards.range(..first).map(|(number, _)| *number)).collect();
        for number in numbers {
            let Some(open) = self.shards.get_mut(&number) else { continue };
            let before = out.len();
            self.buffered_bytes -= open.give(out, max, &deserialize)?;
            if out.len() > before {
                self.told.push((open.split.split_id(), out.len() - before));
                self.first = number + 1;
            }
            if open.has_ended() {
                let id = open.split.split_id();
                debug!(subtask = self.subtask, shard = id, "The shard is read to its end.");
                self.told_finished.push(id.clone());
                self.finished.push(id);
                self.shards.remove(&number);
            }
            if out.len() >= max {
                break;
            }
        }
        Ok(())
    }

    /// The life-cycle lines of Flink's consumer, which people search logs for.
    fn announce(&self, split: &ShardSplit) {
        let (subtask, consumer) = (self.subtask, self.consumers);
        let ShardSplit { shard, position, is_discovered, .. } = split;
        if *is_discovered {
            info!(
                "Subtask {subtask} has discovered a new shard {shard} due to resharding, and will start consuming the shard from sequence \
                 number {position} with ShardConsumer {consumer}"
            );
            return;
        }
        info!(
            "Subtask {subtask} will be seeded with initial shard {shard}, starting state set as sequence number {position}"
        );
        info!(
            "Subtask {subtask} will start consuming seeded shard {shard} from sequence number {position} with ShardConsumer {consumer}"
        );
    }
}

impl<T: Record> SourceReader for ShardReader<T> {
    type Out = T;
    type Split = ShardSplit;

    const TELLS_SPLITS: bool = true;
    const PAUSES_SPLITS: bool = true;

    fn add_splits(&mut self, splits: Vec<ShardSplit>) -> Result<(), Failure> {
        let now = self.clock.monotonic();
        for split in splits {
            self.announce(&split);
            let is_paused = self.paused.contains(&split.split_id());
            let mut open = OpenShard::new(split, &self.options, &self.metrics, now);
            open.pause(is_paused);
            self.shards.insert(self.next_number, open);
            self.next_number += 1;
            self.consumers += 1;
        }
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<T>, max: usize) -> Result<SourceStatus, Failure> {
        let now = self.clock.monotonic();
        self.told.clear();
        self.take_answers(now)?;
        self.give(out, max)?;
        self.ask(now);
        // What was asked goes on its way only when it is polled.
        self.take_answers(now)?;
        if !out.is_empty() {
            return Ok(SourceStatus::Ready);
        }
        if self.shards.is_empty() {
            return Ok(SourceStatus::Finished);
        }
        if self.shards.values().any(OpenShard::is_ready) {
            return Ok(SourceStatus::Ready);
        }
        let due = self.shards.values().filter_map(|open| open.due_at()).min();
        let retry_after = due.map_or(LONGEST_SLEEP, |at| at.saturating_sub(now).min(LONGEST_SLEEP));
        Ok(SourceStatus::Idle { retry_after })
    }

    fn tell_splits(&mut self, report: &mut SplitReport) {
        for (id, records) in self.told.drain(..) {
            report.records(&id, records);
        }
        for id in self.told_finished.drain(..) {
            report.finished(&id);
        }
    }

    fn pause_splits(&mut self, paused: &BTreeSet<String>) {
        self.paused.clone_from(paused);
        for open in self.shards.values_mut() {
            open.pause(self.paused.contains(&open.split.split_id()));
        }
    }

    fn snapshot(&mut self) -> Result<Vec<ShardSplit>, Failure> {
        Ok(self.shards.values().map(OpenShard::snapshot).collect())
    }

    fn take_finished(&mut self) -> Vec<String> {
        std::mem::take(&mut self.finished)
    }
}
