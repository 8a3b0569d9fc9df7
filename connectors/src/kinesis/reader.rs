//! Reads the shards of one subtask: all at the same time, each at its pace.
//!
//! On a record's way this is its beginning. Invariants: the position of a shard is behind the last record that was given out; a shard is asked
//! again only when everything of its last read was given out, so that what a subtask holds is bounded, and a task that is held up reads
//! nothing; a shard is at its end when all of its records were given out.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::Record as AwsRecord;
use bytes::Bytes;
use thalweg_common::failure::Failure;
use thalweg_common::limits::KINESIS_BUFFER_BYTES;
use thalweg_common::record::Record;
use thalweg_common::{Timestamp, clock::SharedClock};
use thalweg_runtime::batch::Batch;
use thalweg_runtime::io::BoxedRequests;
use thalweg_runtime::operator::{SourceContext, SourceStatus};
use thalweg_runtime::split::{SourceReader, SourceSplit};
use thalweg_runtime::time::SplitReport;
use tracing::{debug, info, warn};

use super::deaggregate;
use super::options::Options;
use super::polling::{Ask, Brought, Polling, Verdict};
use super::position::Position;
use super::service::{Page, Service};
use super::shard::ShardSplit;
use super::source::{Deserialize, KinesisRecord};
use crate::aws::{Kind, Problem, random};

/// How long to sleep while requests are under way: their answers wake the task.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// What a shard's request has brought.
enum Answer {
    Iterator(Result<String, Problem>),
    Records(Result<Page, Problem>),
}

/// Reads the shards of a subtask of a [`KinesisSource`](super::KinesisSource).
pub struct ShardReader<T> {
    service: Arc<Service>,
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
    subtask: u32,
    /// Consumers that were begun, as Flink counts them.
    consumers: u64,
    clock: SharedClock,
}

/// A shard that is read.
struct OpenShard {
    split: ShardSplit,
    hash_keys: RangeInclusive<u128>,
    polling: Polling,
    /// Behind the last record that was read.
    fetched: Position,
    /// What was read and not given out.
    buffered: VecDeque<Buffered>,
}

/// Milliseconds since the epoch, to the nearest: the service writes seconds as floats, which are a little too small as often as too large.
fn millis(time: &DateTime) -> Timestamp {
    time.secs() * 1_000 + i64::from((time.subsec_nanos() + 500_000) / 1_000_000)
}

/// A record that waits to be given out.
struct Buffered {
    sequence_number: Arc<str>,
    /// Its place in an aggregated record.
    user_record: Option<u64>,
    partition_key: String,
    arrival_ms: Timestamp,
    data: Bytes,
}

impl<T: Record> ShardReader<T> {
    pub(super) fn new(
        service: Arc<Service>,
        options: Arc<Options>,
        deserialize: Deserialize<T>,
        context: &SourceContext,
    ) -> Self {
        Self {
            service,
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
            subtask: context.subtask_index,
            consumers: 0,
            clock: Arc::clone(&context.clock),
        }
    }

    /// Takes the answers that have come.
    fn take_answers(&mut self, now: Duration) -> Result<(), Failure> {
        while let Some((number, answer)) = self.requests.answer() {
            let Some(open) = self.shards.get_mut(&number) else { continue };
            let problem = match answer {
                Answer::Iterator(Ok(iterator)) => {
                    open.polling.on_iterator(iterator);
                    continue;
                }
                Answer::Records(Ok(page)) => {
                    self.buffered_bytes += open.take(page, now);
                    continue;
                }
                Answer::Iterator(Err(problem)) | Answer::Records(Err(problem)) => problem,
            };
            open.trouble(&problem, now)?;
        }
        Ok(())
    }

    /// Begins the requests that are due.
    fn ask(&mut self, now: Duration) {
        for (number, open) in &mut self.shards {
            if !open.buffered.is_empty() {
                continue;
            }
            if self.buffered_bytes >= KINESIS_BUFFER_BYTES {
                return;
            }
            let Some(ask) = open.polling.ask(now, &open.fetched) else { continue };
            let (number, service) = (*number, Arc::clone(&self.service));
            let shard = open.split.shard.clone();
            self.requests.begin(|| match ask {
                Ask::Iterator(position) => {
                    Box::pin(
                        async move { (number, Answer::Iterator(service.iterator(&shard, &position).await)) },
                    )
                }
                Ask::Records { iterator, limit } => {
                    Box::pin(async move { (number, Answer::Records(service.records(iterator, limit).await)) })
                }
            });
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
            if open.polling.has_ended() && open.buffered.is_empty() {
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
        let ShardSplit { shard, position, is_discovered } = split;
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

impl OpenShard {
    /// Takes what a read has brought; gives its bytes.
    fn take(&mut self, page: Page, now: Duration) -> u64 {
        let bytes = page.records.iter().map(|record| record.data().as_ref().len() as u64).sum();
        let brought = Brought { records: page.records.len() as u64, bytes };
        self.polling.on_records(page.next, brought, now);
        for record in page.records {
            self.buffer(record);
        }
        if self.buffered.is_empty() {
            // Nothing of it is for anybody.
            self.split.position = self.fetched.clone();
        }
        self.buffered.iter().map(|record| record.data.len() as u64).sum()
    }

    /// Takes a record apart, if it is several.
    fn buffer(&mut self, record: AwsRecord) {
        let arrived = record.approximate_arrival_timestamp().map(millis);
        let (arrival_ms, partition_key) =
            (arrived.unwrap_or_default(), record.partition_key.unwrap_or_default());
        let sequence_number: Arc<str> = record.sequence_number.into();
        let data: Bytes = record.data.into_inner().into();
        // Behind a restore the first record may be one of which some was given out before.
        let read_until = match &self.fetched {
            Position::Within { sequence_number: of, user_record } if **of == *sequence_number => {
                Some(*user_record)
            }
            _ => None,
        };
        self.fetched = Position::After { sequence_number: sequence_number.to_string() };
        let Some(records) = deaggregate::user_records(&data, &self.hash_keys) else {
            let user_record = None;
            self.buffered.push_back(Buffered {
                sequence_number,
                user_record,
                partition_key,
                arrival_ms,
                data,
            });
            return;
        };
        let rest = records.into_iter().filter(|record| read_until.is_none_or(|read| record.number > read));
        self.buffered.extend(rest.map(|record| Buffered {
            sequence_number: Arc::clone(&sequence_number),
            user_record: Some(record.number),
            partition_key: record.partition_key,
            arrival_ms,
            data: record.data,
        }));
    }

    /// Gives out records until there are `max`; gives their bytes.
    fn give<T: Record>(
        &mut self,
        out: &mut Batch<T>,
        max: usize,
        deserialize: &Deserialize<T>,
    ) -> Result<u64, Failure> {
        let mut bytes = 0;
        let mut last: Option<(Arc<str>, Option<u64>)> = None;
        while out.len() < max
            && let Some(record) = self.buffered.pop_front()
        {
            bytes += record.data.len() as u64;
            let shown = KinesisRecord {
                stream: &self.split.shard.stream,
                shard_id: &self.split.shard.id,
                sequence_number: &record.sequence_number,
                user_record: record.user_record,
                partition_key: &record.partition_key,
                arrival_ms: record.arrival_ms,
                data: &record.data,
            };
            let deserialized = deserialize(&shown).map_err(|failure| {
                failure.context(format_args!(
                    "the record {} of {} cannot be read",
                    record.sequence_number,
                    self.split.split_id()
                ))
            })?;
            if let Some(value) = deserialized {
                out.push_with_timestamp(value, record.arrival_ms);
            }
            last = Some((record.sequence_number, record.user_record));
        }
        if self.buffered.is_empty() {
            self.split.position = self.fetched.clone();
        } else if let Some((sequence_number, user_record)) = last {
            let sequence_number = sequence_number.to_string();
            self.split.position = match user_record {
                Some(user_record) => Position::Within { sequence_number, user_record },
                None => Position::After { sequence_number },
            };
        }
        Ok(bytes)
    }

    /// A request was refused, or not answered.
    fn trouble(&mut self, problem: &Problem, now: Duration) -> Result<(), Failure> {
        let (id, shard) = (self.split.split_id(), &self.split.shard);
        // Not the stream, but the shard: its records are older than the stream keeps any.
        if problem.kind == Kind::NotFound && problem.text.contains(&shard.id) {
            warn!(
                shard = id,
                "The stream has deleted this shard, with records that were not read: {problem}"
            );
            self.polling.end();
            return Ok(());
        }
        match self.polling.on_trouble(problem.kind, now, random()) {
            Verdict::Again => {
                debug!(shard = id, "It will be asked again: {problem}");
                Ok(())
            }
            Verdict::GiveUp => Err(problem
                .failure("read", format_args!("the shard {} of the stream {}", shard.id, shard.stream))),
        }
    }
}

impl<T: Record> SourceReader for ShardReader<T> {
    type Out = T;
    type Split = ShardSplit;

    const TELLS_SPLITS: bool = true;

    fn add_splits(&mut self, splits: Vec<ShardSplit>) -> Result<(), Failure> {
        let now = self.clock.monotonic();
        for split in splits {
            self.announce(&split);
            let open = OpenShard {
                hash_keys: split.shard.hash_keys(),
                polling: Polling::new(&self.options, now),
                fetched: split.position.clone(),
                buffered: VecDeque::new(),
                split,
            };
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
        let is_ready = |open: &OpenShard| !open.buffered.is_empty() || open.polling.has_ended();
        if self.shards.values().any(is_ready) {
            return Ok(SourceStatus::Ready);
        }
        let due = self.shards.values().filter_map(|open| open.polling.due_at()).min();
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

    fn snapshot(&mut self) -> Result<Vec<ShardSplit>, Failure> {
        Ok(self.shards.values().map(|open| open.split.clone()).collect())
    }

    fn take_finished(&mut self) -> Vec<String> {
        std::mem::take(&mut self.finished)
    }
}
