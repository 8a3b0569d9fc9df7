//! A shard that is read: what is asked for it, what was read of it and not given out, and where it stands.
//!
//! Invariants: its position is behind the last record that was given out; it is asked again only when everything of its last read was given
//! out; it is at its end when all of its records were.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::Record as AwsRecord;
use bytes::Bytes;
use thalweg_common::Timestamp;
use thalweg_common::clock::SharedClock;
use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::metrics::{MetricGroup, PartGauge};
use thalweg_runtime::split::SourceSplit;
use tracing::{debug, warn};

use super::ancestors::Looking;
use super::deaggregate;
use super::fan_out::{Event, Events, Step, Subscription};
use super::options::Options;
use super::polling::{Ask, Brought, Polling, Verdict};
use super::position::Position;
use super::request::{Answer, Request};
use super::seen::Seen;
use super::service::Page;
use super::shard::ShardSplit;
use super::source::{Deserialize, KinesisRecord};
use crate::aws::{Kind, Problem, random};

/// A shard that is read.
pub(super) struct OpenShard {
    pub(super) split: ShardSplit,
    hash_keys: RangeInclusive<u128>,
    publisher: Publisher,
    /// Behind the last record that was read.
    fetched: Position,
    /// What was read and not given out.
    buffered: VecDeque<Buffered>,
    /// Whether nothing of it is to be read for now.
    is_paused: bool,
    /// The ids that were read, where each is to be read once.
    seen: Option<Seen>,
    /// What it must know of the shards before it, before it gives anything out.
    ancestors: Ancestors,
    /// `millisBehindLatest`, and `bytesRequestedPerFetch` where it is asked.
    behind: PartGauge,
    requested: PartGauge,
}

/// Flink's word for how records come: somebody asks for them, or they are pushed.
enum Publisher {
    Polling(Polling),
    FanOut { subscription: Subscription, events: Option<Events> },
}

/// Whether it is known what the shards before a new one have.
#[derive(Debug, Clone, Copy)]
enum Ancestors {
    Unknown(Looking),
    Asked,
    Known,
}

/// A record that waits to be given out.
struct Buffered {
    sequence_number: Arc<str>,
    id: Option<String>,
    /// Its place in an aggregated record.
    user_record: Option<u64>,
    partition_key: String,
    arrival_ms: Timestamp,
    data: Bytes,
}

/// Milliseconds since the epoch, to the nearest: the service writes seconds as floats, which are a little too small as often as too large.
pub(super) fn millis(time: &DateTime) -> Timestamp {
    time.secs() * 1_000 + i64::from((time.subsec_nanos() + 500_000) / 1_000_000)
}

impl OpenShard {
    /// `metrics` is the group of the connector.
    pub(super) fn new(split: ShardSplit, options: &Options, metrics: &MetricGroup, now: Duration) -> Self {
        let metrics =
            metrics.add_group(("stream", &split.shard.stream)).add_group(("shardId", &split.shard.id));
        // Names that are too long for metrics are read like others.
        let gauge = |name: &str, value| metrics.part_gauge(name, value).unwrap_or_default();
        Self {
            behind: gauge("millisBehindLatest", -1.0),
            requested: match options.fan_out {
                None => gauge("bytesRequestedPerFetch", 0.0),
                Some(_) => PartGauge::default(),
            },
            hash_keys: split.shard.hash_keys(),
            publisher: match &options.fan_out {
                None => Publisher::Polling(Polling::new(options, now)),
                Some(options) => {
                    Publisher::FanOut { subscription: Subscription::new(options, now), events: None }
                }
            },
            seen: options
                .deduplication
                .map(|window| Seen::new(window, split.seen.clone().unwrap_or_default())),
            ancestors: match options.deduplication {
                // Who begins with a shard reads nothing that was before it, unless it begins with the oldest record.
                Some(window)
                    if split.seen.is_none()
                        && split.position == Position::TrimHorizon
                        && !split.shard.parents.is_empty() =>
                {
                    let (backoff, interval) = (options.reading, options.read_interval);
                    Ancestors::Unknown(Looking { window, backoff, interval, now_ms: 0 })
                }
                _ => Ancestors::Known,
            },
            fetched: split.position.clone(),
            buffered: VecDeque::new(),
            is_paused: false,
            split,
        }
    }

    /// Begins the request that is due.
    pub(super) fn ask(&mut self, now: Duration, clock: &SharedClock) -> Option<Request> {
        if self.is_paused || !self.buffered.is_empty() {
            return None;
        }
        let shard = || self.split.shard.clone();
        match self.ancestors {
            Ancestors::Known => {}
            Ancestors::Asked => return None,
            Ancestors::Unknown(how) => {
                self.ancestors = Ancestors::Asked;
                return Some(Request::Ancestors(shard(), Looking { now_ms: clock.now_ms(), ..how }));
            }
        }
        match &mut self.publisher {
            Publisher::Polling(polling) => Some(match polling.ask(now, &self.fetched)? {
                Ask::Iterator(position) => Request::Iterator(shard(), position),
                Ask::Records { iterator, limit } => {
                    self.requested.set(polling.bytes_to_ask() as f64);
                    Request::Records { iterator, limit }
                }
            }),
            Publisher::FanOut { subscription, events } => match subscription.ask(now)? {
                Step::Subscribe => Some(Request::Subscribe(shard(), self.fetched.clone())),
                Step::Listen => events.take().map(Request::Listen),
            },
        }
    }

    /// When there will be something to ask; nothing while a request is under way, and while nothing is to be read.
    pub(super) fn due_at(&self) -> Option<Duration> {
        match &self.publisher {
            _ if self.is_paused || matches!(self.ancestors, Ancestors::Asked) => None,
            Publisher::Polling(polling) => polling.due_at(),
            Publisher::FanOut { subscription, .. } => subscription.due_at(),
        }
    }

    /// Whether everything was read and given out.
    pub(super) fn has_ended(&self) -> bool {
        self.buffered.is_empty()
            && match &self.publisher {
                Publisher::Polling(polling) => polling.has_ended(),
                Publisher::FanOut { subscription, .. } => subscription.has_ended(),
            }
    }

    /// Whether there is something to give out.
    pub(super) fn is_ready(&self) -> bool {
        (!self.is_paused && !self.buffered.is_empty()) || self.has_ended()
    }

    /// Bytes that were read and not given out.
    pub(super) fn buffered_bytes(&self) -> u64 {
        self.buffered.iter().map(|record| record.data.len() as u64).sum()
    }

    /// Takes what a request has brought; gives its bytes.
    pub(super) fn take(&mut self, answer: Answer, now: Duration) -> Result<u64, Failure> {
        let bytes = match (answer, &mut self.publisher) {
            (Answer::Iterator(Ok(iterator)), Publisher::Polling(polling)) => {
                polling.on_iterator(iterator);
                0
            }
            (Answer::Records(Ok(page)), Publisher::Polling(_)) => self.take_page(page, now),
            (Answer::Subscribed(Ok(new)), Publisher::FanOut { subscription, events }) => {
                subscription.on_subscribed();
                *events = Some(new);
                0
            }
            (Answer::Heard(Ok(Some((event, behind)))), Publisher::FanOut { events, .. }) => {
                *events = Some(behind);
                self.take_event(event)
            }
            (Answer::Heard(Ok(None)), Publisher::FanOut { subscription, .. }) => {
                if subscription.on_end(now, random()) == Verdict::GiveUp {
                    let text = "subscriptions end before they have said anything";
                    return Err(self.given_up(&Problem::new(Kind::Passing, "Ended", text)));
                }
                0
            }
            (Answer::Ancestors(Ok(ids)), _) => {
                self.ancestors = Ancestors::Known;
                if let Some(seen) = &mut self.seen {
                    seen.remember(ids);
                }
                0
            }
            (Answer::Ancestors(Err(problem)), _) => return Err(self.given_up(&problem)),
            (
                Answer::Iterator(Err(problem))
                | Answer::Records(Err(problem))
                | Answer::Subscribed(Err(problem))
                | Answer::Heard(Err(problem)),
                _,
            ) => {
                self.trouble(problem, now)?;
                0
            }
            _ => return Err(Failure::internal("a shard got the answer to what another one has asked")),
        };
        if self.is_paused {
            self.close();
        }
        Ok(bytes)
    }

    fn take_page(&mut self, page: Page, now: Duration) -> u64 {
        let bytes = page.records.iter().map(|record| record.data().as_ref().len() as u64).sum();
        let brought = Brought { records: page.records.len() as u64, bytes };
        if let Publisher::Polling(polling) = &mut self.publisher {
            polling.on_records(page.next, brought, now);
        }
        if let Some(behind_ms) = page.behind_ms {
            self.behind.set(behind_ms as f64);
        }
        self.buffer(page.records)
    }

    fn take_event(&mut self, event: Event) -> u64 {
        if let Publisher::FanOut { subscription, events } = &mut self.publisher {
            subscription.on_event(event.is_last);
            if event.is_last {
                *events = None;
            }
        }
        self.behind.set(event.behind_ms as f64);
        self.buffer(event.records)
    }

    fn buffer(&mut self, records: Vec<AwsRecord>) -> u64 {
        for record in records {
            self.buffer_one(record);
        }
        if self.buffered.is_empty() {
            // Nothing of it is for anybody.
            self.split.position = self.fetched.clone();
        }
        self.buffered_bytes()
    }

    /// Takes a record apart, if it is several.
    fn buffer_one(&mut self, record: AwsRecord) {
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
                id: None,
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
            id: record.id,
            user_record: Some(record.number),
            partition_key: record.partition_key,
            arrival_ms,
            data: record.data,
        }));
    }

    /// Gives out records until there are `max`; gives their bytes.
    pub(super) fn give<T: Record>(
        &mut self,
        out: &mut Batch<T>,
        max: usize,
        deserialize: &Deserialize<T>,
    ) -> Result<u64, Failure> {
        let mut bytes = 0;
        let mut last: Option<(Arc<str>, Option<u64>)> = None;
        while out.len() < max
            && !self.is_paused
            && let Some(record) = self.buffered.pop_front()
        {
            bytes += record.data.len() as u64;
            if let (Some(seen), Some(id)) = (&mut self.seen, &record.id)
                && !seen.is_new(id, record.arrival_ms)
            {
                last = Some((record.sequence_number, record.user_record));
                continue;
            }
            let shown = KinesisRecord {
                stream: &self.split.shard.stream,
                shard_id: &self.split.shard.id,
                sequence_number: &record.sequence_number,
                user_record: record.user_record,
                record_id: record.id.as_deref(),
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

    /// What is part of a checkpoint.
    pub(super) fn snapshot(&self) -> ShardSplit {
        let seen = match (&self.seen, self.ancestors) {
            (Some(seen), Ancestors::Known) => Some(seen.remembered()),
            // Asked again behind a restore.
            (Some(_), _) => None,
            // What an earlier version of the job remembered is kept for a later one.
            (None, _) => self.split.seen.clone(),
        };
        ShardSplit { seen, ..self.split.clone() }
    }

    /// Reads nothing from now on, or goes on.
    pub(super) fn pause(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
        if is_paused {
            self.close();
        }
    }

    /// Keeps no subscription that nobody listens to: what it pushes would hold up others on its connection.
    fn close(&mut self) {
        if let Publisher::FanOut { subscription, events } = &mut self.publisher {
            subscription.close();
            *events = None;
        }
    }

    /// Drops what was read while nothing is to be given out, so that others have room for what they read; gives its bytes. It is read again.
    pub(super) fn forget(&mut self) -> u64 {
        if !self.is_paused || self.buffered.is_empty() {
            return 0;
        }
        let bytes = self.buffered_bytes();
        self.buffered.clear();
        self.fetched = self.split.position.clone();
        match &mut self.publisher {
            Publisher::Polling(polling) => polling.restart(),
            Publisher::FanOut { subscription, .. } => subscription.restart(),
        }
        bytes
    }

    /// A request was refused, or not answered.
    fn trouble(&mut self, problem: Problem, now: Duration) -> Result<(), Failure> {
        let shard = &self.split.shard;
        // Not the stream, but the shard: its records are older than the stream keeps any.
        if problem.kind == Kind::NotFound && problem.text.contains(&shard.id) {
            warn!(
                shard = self.split.split_id(),
                "The stream has deleted this shard, with records that were not read: {problem}"
            );
            match &mut self.publisher {
                Publisher::Polling(polling) => polling.end(),
                Publisher::FanOut { subscription, .. } => subscription.end(),
            }
            return Ok(());
        }
        let verdict = match &mut self.publisher {
            Publisher::Polling(polling) => polling.on_trouble(problem.kind, now, random()),
            Publisher::FanOut { subscription, .. } => {
                subscription.on_trouble(problem.kind, problem.is_in_use(), now, random())
            }
        };
        if verdict == Verdict::GiveUp {
            return Err(self.given_up(&problem));
        }
        debug!(shard = self.split.split_id(), "It will be asked again: {problem}");
        Ok(())
    }

    fn given_up(&self, problem: &Problem) -> Failure {
        let shard = &self.split.shard;
        let which = format!("the shard {} of the stream {}", shard.id, shard.stream);
        if problem.is_in_use() {
            return Failure::external(format!(
                "another reader has subscribed to {which} with the same consumer: {problem}; give each application a consumer of its own, \
                 with `flink.stream.efo.consumername`"
            ));
        }
        problem.failure("read", which)
    }
}
