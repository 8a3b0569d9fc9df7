//! When a shard is asked for records, for how many, and what to do when it refuses. Pure: the caller says what time it is.
//!
//! Stands between a shard's reader and the service. Invariants: at most one request of a shard is under way; reads begin at least the interval
//! apart, and behind a large one so much later that a shard's quota of bytes suffices; throttling is never given up, other trouble after as
//! many tries in a row as the settings say; a new iterator begins where the last read ended.

use std::time::Duration;

use thalweg_common::limits::{KINESIS_MAX_BYTES_PER_READ, KINESIS_READ_BYTES_PER_SECOND};

use super::options::Options;
use super::position::Position;
use crate::aws::{Backoff, Kind};

/// Fewest records that throttling lets a read ask for.
const FEWEST_RECORDS: u32 = 100;

/// What to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    /// An iterator at this position.
    Iterator(Position),
    /// Records at the iterator, at most so many.
    Records { iterator: String, limit: u32 },
}

/// What a read has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Brought {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// What comes of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is tried again.
    Again,
    /// It was tried often enough, or trying does not help.
    GiveUp,
}

/// The pace at which one shard is read.
#[derive(Debug)]
pub(super) struct Polling {
    most_records: u32,
    interval: Duration,
    is_adaptive: bool,
    reading: Backoff,
    iterators: Backoff,
    stage: Stage,
    iterator: Option<String>,
    /// When the next request may begin.
    next_at: Duration,
    /// How many reads failed in a row, how many requests for an iterator, and how many of either because too much was asked.
    failed_reads: u32,
    failed_iterators: u32,
    throttled: u32,
    /// Most records of the next read, lower than the settings' after throttling.
    limit: u32,
    /// Bytes of a record on average.
    mean_bytes: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing is under way.
    Quiet,
    /// A request is, since then.
    Asking { since: Duration },
    /// The shard has nothing more.
    Ended,
}

impl Polling {
    pub(super) fn new(options: &Options, now: Duration) -> Self {
        Self {
            most_records: options.records_per_read,
            interval: options.read_interval,
            is_adaptive: options.adaptive_reads,
            reading: options.reading,
            iterators: options.iterators,
            stage: Stage::Quiet,
            iterator: None,
            next_at: now,
            failed_reads: 0,
            failed_iterators: 0,
            throttled: 0,
            limit: options.records_per_read,
            mean_bytes: None,
        }
    }

    /// Whether everything was read.
    pub(super) fn has_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// When there will be something to ask; nothing while a request is under way.
    pub(super) fn due_at(&self) -> Option<Duration> {
        (self.stage == Stage::Quiet).then_some(self.next_at)
    }

    /// Begins the request that is due. `position` is behind the last record that was read.
    pub(super) fn ask(&mut self, now: Duration, position: &Position) -> Option<Ask> {
        if self.stage != Stage::Quiet || now < self.next_at {
            return None;
        }
        self.stage = Stage::Asking { since: now };
        Some(match &self.iterator {
            None => Ask::Iterator(position.clone()),
            Some(iterator) => Ask::Records { iterator: iterator.clone(), limit: self.records_to_ask() },
        })
    }

    fn records_to_ask(&self) -> u32 {
        let fitting = self.mean_bytes.filter(|_| self.is_adaptive).map_or(f64::INFINITY, |mean| {
            KINESIS_READ_BYTES_PER_SECOND as f64 * self.interval.as_secs_f64() / mean.max(1.0)
        });
        // Casts of floats saturate.
        (fitting as u32).clamp(1, self.limit)
    }

    /// Bytes that the next read asks for, by the mean size of the records so far; nothing before that is known.
    pub(super) fn bytes_to_ask(&self) -> u64 {
        let bytes = self.mean_bytes.map_or(0.0, |mean| mean * f64::from(self.records_to_ask()));
        (bytes as u64).min(KINESIS_MAX_BYTES_PER_READ)
    }

    /// There is an iterator: the read may follow at once.
    pub(super) fn on_iterator(&mut self, iterator: String) {
        self.iterator = Some(iterator);
        self.stage = Stage::Quiet;
        self.failed_iterators = 0;
    }

    /// A read has brought records; without a next iterator the shard is at its end.
    pub(super) fn on_records(&mut self, next: Option<String>, brought: Brought, now: Duration) {
        let Stage::Asking { since } = self.stage else { return };
        let by_bytes = Duration::from_secs_f64(brought.bytes as f64 / KINESIS_READ_BYTES_PER_SECOND as f64);
        self.next_at = since.saturating_add(self.interval.max(by_bytes)).max(now);
        if brought.records > 0 {
            let mean = brought.bytes as f64 / brought.records as f64;
            self.mean_bytes = Some(self.mean_bytes.map_or(mean, |before| (before + mean) / 2.0));
        }
        (self.failed_reads, self.throttled) = (0, 0);
        self.limit = self.limit.saturating_mul(2).min(self.most_records);
        self.stage = if next.is_some() { Stage::Quiet } else { Stage::Ended };
        self.iterator = next;
    }

    /// A request was refused, or not answered.
    pub(super) fn on_trouble(&mut self, kind: Kind, now: Duration, random: u64) -> Verdict {
        self.stage = Stage::Quiet;
        match kind {
            Kind::Throttled => {
                self.limit = (self.limit / 2).max(FEWEST_RECORDS).min(self.most_records);
                let backoff = if self.iterator.is_some() { self.reading } else { self.iterators };
                // At least the base: with no pause at all nothing becomes better.
                let pause = backoff.base.max(backoff.pause(self.throttled, random)).max(self.interval);
                self.next_at = now.saturating_add(pause);
                self.throttled = self.throttled.saturating_add(1);
                Verdict::Again
            }
            Kind::ExpiredIterator | Kind::Passing | Kind::UnknownHost => {
                let (backoff, failed) = match self.iterator {
                    Some(_) => (self.reading, &mut self.failed_reads),
                    None => (self.iterators, &mut self.failed_iterators),
                };
                if *failed >= backoff.max_retries {
                    return Verdict::GiveUp;
                }
                self.next_at = now.saturating_add(backoff.pause(*failed, random));
                *failed += 1;
                if kind == Kind::ExpiredIterator {
                    self.iterator = None;
                }
                Verdict::Again
            }
            Kind::NotFound | Kind::Denied | Kind::BadCredentials | Kind::Refused => Verdict::GiveUp,
        }
    }

    /// What was read is forgotten: it is read anew, even if the shard was at its end.
    pub(super) fn restart(&mut self) {
        (self.stage, self.iterator) = (Stage::Quiet, None);
    }

    /// The shard is gone, so there is nothing more to read.
    pub(super) fn end(&mut self) {
        self.stage = Stage::Ended;
    }
}

#[cfg(test)]
#[path = "polling_tests.rs"]
mod tests;
