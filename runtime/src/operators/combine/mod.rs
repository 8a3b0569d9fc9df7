//! The combiner: the local stage of a two-stage aggregation, chained before the edge that sends records to their keys.
//!
//! On a record's way it is the last operator before a hash edge. It puts the records of a key together and sends an
//! accumulator in place of them, which the global stage ([`merge`](super::merge)) adds to the key's state. So a hot key
//! costs that one subtask a record per table, and not one per record.
//!
//! Invariants: it has no state of its own in a checkpoint, because its table is emptied before a barrier passes; the
//! accumulators of a key leave in the order of their records, each with the latest timestamp of its records; the keys of one table leave in the order in which they
//! were first seen, so that the same input gives the same output. Its table is emptied when it holds [`COMBINER_KEYS`]
//! keys, and behind a batch with which it has [`COMBINER_RECORDS`] records or [`COMBINER_LATENCY_MS`] have passed; when
//! the input has nothing more to read; at its end.

mod table;
mod worth;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::clock::SharedClock;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_common::limits::{BATCH_RECORDS, COMBINER_KEYS, COMBINER_LATENCY_MS, COMBINER_RECORDS};
use thalweg_common::record::Record;

use self::table::Table;
use self::worth::Worth;
use super::aggregate::reduce_into;
use super::factory;
use crate::batch::Batch;
use crate::event::{Barrier, WatermarkStatus};
use crate::link::{Flushed, Link};
use crate::operator::{Key, MergeAggregate};
use crate::program::OperatorFactory;
use crate::snapshot::SnapshotBuilder;

/// Whether a combiner may give up where it does not pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CombinePolicy {
    /// It passes records on as they are for a while when hardly any of them share their keys.
    WhilePaying,
    /// It always combines.
    Always,
}

/// Aggregates the records of each key until they are sent; emits the key with its accumulator.
pub fn combine_aggregate<K, In, A, F>(key: F, aggregate: A, policy: CombinePolicy) -> Arc<dyn OperatorFactory>
where
    K: Key,
    In: Send + 'static,
    A: MergeAggregate<In>,
    F: Fn(&In) -> K + Clone + Send + Sync + 'static,
{
    combine(key, Aggregating(aggregate), policy)
}

/// Combines the records of each key by an associative function until they are sent; emits the key with the value so far.
pub fn combine_reduce<K, T, F, C>(key: F, function: C, policy: CombinePolicy) -> Arc<dyn OperatorFactory>
where
    K: Key,
    T: Record,
    F: Fn(&T) -> K + Clone + Send + Sync + 'static,
    C: Fn(T, T) -> T + Clone + Send + Sync + 'static,
{
    combine(key, Reducing(function), policy)
}

fn combine<K, In, F, C>(key: F, combiner: C, policy: CombinePolicy) -> Arc<dyn OperatorFactory>
where
    K: Key,
    In: Send + 'static,
    F: Fn(&In) -> K + Clone + Send + Sync + 'static,
    C: Combiner<In>,
{
    factory::operator(move |context, next| {
        Ok(Box::new(Combine {
            key: key.clone(),
            combiner: combiner.clone(),
            table: Table::default(),
            records: 0,
            since: Duration::ZERO,
            worth: Worth::new(policy),
            clock: Arc::clone(&context.open.clock),
            output: Batch::default(),
            next,
            input: PhantomData::<fn(In)>,
        }))
    })
}

/// How the records of one key are put together.
trait Combiner<In>: Clone + Send + Sync + 'static {
    /// What the table holds of a key.
    type Slot: Send;
    /// What is sent.
    type Accumulator: Record;

    /// The slot of a key's first record.
    fn first(&self, record: In) -> Self::Slot;

    /// Adds another record.
    fn add(&self, slot: &mut Self::Slot, record: In);

    /// What is sent for a slot. There is none only where `add` was left by a panic, and then the task has failed.
    fn accumulator(slot: Self::Slot) -> Option<Self::Accumulator>;
}

#[derive(Clone)]
struct Aggregating<A>(A);

impl<In, A: MergeAggregate<In>> Combiner<In> for Aggregating<A> {
    type Slot = A::Accumulator;
    type Accumulator = A::Accumulator;

    #[inline]
    fn first(&self, record: In) -> A::Accumulator {
        let mut accumulator = self.0.create();
        self.0.add(&mut accumulator, record);
        accumulator
    }

    #[inline]
    fn add(&self, slot: &mut A::Accumulator, record: In) {
        self.0.add(slot, record);
    }

    #[inline]
    fn accumulator(slot: A::Accumulator) -> Option<A::Accumulator> {
        Some(slot)
    }
}

#[derive(Clone)]
struct Reducing<C>(C);

impl<T: Record, C> Combiner<T> for Reducing<C>
where
    C: Fn(T, T) -> T + Clone + Send + Sync + 'static,
{
    type Slot = Option<T>;
    type Accumulator = T;

    #[inline]
    fn first(&self, record: T) -> Option<T> {
        Some(record)
    }

    #[inline]
    fn add(&self, slot: &mut Option<T>, record: T) {
        reduce_into(slot, record, &self.0);
    }

    #[inline]
    fn accumulator(slot: Option<T>) -> Option<T> {
        slot
    }
}

struct Combine<In, K, F, C: Combiner<In>> {
    key: F,
    combiner: C,
    table: Table<K, C::Slot>,
    /// How many records are in the table.
    records: usize,
    /// When the first of them came.
    since: Duration,
    worth: Worth,
    clock: SharedClock,
    output: Batch<(K, C::Accumulator)>,
    next: Box<dyn Link<(K, C::Accumulator)>>,
    input: PhantomData<fn(In)>,
}

impl<In, K, F, C> Combine<In, K, F, C>
where
    K: Key,
    F: Fn(&In) -> K,
    C: Combiner<In>,
{
    /// Puts the batch into the table, which may become full meanwhile.
    fn combine(&mut self, batch: &mut Batch<In>) -> Result<(), Failure> {
        let now = self.clock.monotonic();
        if self.table.is_empty() {
            self.since = now;
        }
        let (records, mut keys) = (batch.len(), 0);
        let (batch, mut timestamps) = batch.drain_parts();
        for record in batch {
            let key = (self.key)(&record);
            self.records += 1;
            if self.table.add(&self.combiner, key, record, timestamps.next()) {
                keys += 1;
                if self.table.len() >= COMBINER_KEYS {
                    self.send_table()?;
                    self.since = now;
                }
            }
        }
        self.worth.combined(records, keys);
        let latency = Duration::from_millis(COMBINER_LATENCY_MS);
        let is_due = self.records >= COMBINER_RECORDS || now.saturating_sub(self.since) >= latency;
        // What is passed on next must not overtake what was combined before it.
        if is_due || !self.worth.combines() { self.send_table() } else { Ok(()) }
    }

    /// Sends each record on its own, in the form of those that were combined.
    fn pass_on(&mut self, batch: &mut Batch<In>) -> Result<(), Failure> {
        self.worth.passed_on(batch.len());
        let (key, combiner) = (&self.key, &self.combiner);
        let (records, mut timestamps) = batch.drain_parts();
        for record in records {
            let (key, timestamp) = (key(&record), timestamps.next());
            if let Some(accumulator) = C::accumulator(combiner.first(record)) {
                self.output.push_with_timestamp((key, accumulator), timestamp);
            }
        }
        hand_on(&mut self.output, self.next.as_mut())
    }

    /// Sends what is in the table, in batches of the usual size.
    fn send_table(&mut self) -> Result<(), Failure> {
        self.records = 0;
        let (mut entries, mut timestamps) = self.table.drain();
        while entries.len() > 0 {
            for (key, slot) in entries.by_ref().take(BATCH_RECORDS) {
                let timestamp = timestamps.next();
                if let Some(value) = C::accumulator(slot) {
                    self.output.push_with_timestamp((key, value), timestamp);
                }
            }
            hand_on(&mut self.output, self.next.as_mut())?;
        }
        Ok(())
    }
}

fn hand_on<T>(output: &mut Batch<T>, next: &mut dyn Link<T>) -> Result<(), Failure> {
    if output.is_empty() {
        return Ok(());
    }
    let result = next.process(output);
    output.clear();
    result
}

impl<In, K, F, C> Link<In> for Combine<In, K, F, C>
where
    K: Key,
    F: Fn(&In) -> K + Send,
    C: Combiner<In>,
{
    fn process(&mut self, batch: &mut Batch<In>) -> Result<(), Failure> {
        if self.worth.combines() { self.combine(batch) } else { self.pass_on(batch) }
    }

    fn watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure> {
        self.send_table()?;
        self.next.watermark(timestamp)
    }

    fn watermark_status(&mut self, status: WatermarkStatus) -> Result<(), Failure> {
        self.send_table()?;
        self.next.watermark_status(status)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.send_table()?;
        self.next.finish()
    }

    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        self.send_table()?;
        self.next.snapshot(barrier, snapshot)
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.next.completed(checkpoint)
    }

    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.next.aborted(checkpoint)
    }

    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure> {
        if partial {
            self.send_table()?;
        }
        self.next.flush(partial)
    }
}

#[cfg(test)]
mod tests;
