//! The operator behind `key_by`: a stateful function with the state of its key groups.
//!
//! Invariants: a record is processed with the state of its own key; the snapshot at a barrier is the state after exactly the
//! records before it; the end of the input is told to the function once, also over restarts, and once more only if the input
//! goes on behind it.

use std::sync::Arc;

use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_common::limits::EPOCH_SLICE_BYTES;
use thalweg_state::{Declarations, KeyedStore};

use super::factory;
use crate::batch::{Batch, NO_TIMESTAMP};
use crate::event::Barrier;
use crate::link::{Flushed, Link};
use crate::operator::{Context, Key, KeyedProcess, OpenContext};
use crate::program::{OperatorContext, OperatorFactory};
use crate::snapshot::SnapshotBuilder;
use crate::stores::{Draining, FrozenStore, TaskStores};
use crate::task::counters::Gauge;

/// The operator state of a subtask whose function was told the end of the input.
const ENDED: &[u8] = &[1];

/// How many keys are looked up together: enough that the ways to memory overlap, few enough that everything that was fetched is
/// still in the nearest cache when its record comes.
const KEYS_AHEAD: usize = 64;

/// A stateful function on a stream keyed by `key`.
pub fn keyed_process<K, In, P, F>(key: F, process: P) -> Arc<dyn OperatorFactory>
where
    K: Key,
    In: Send + 'static,
    P: KeyedProcess<K, In>,
    F: Fn(&In) -> K + Clone + Send + Sync + 'static,
{
    factory::operator(move |context, next| {
        Ok(Box::new(Keyed::open(key.clone(), process.clone(), context, next)?))
    })
}

struct Keyed<K: Key, F, P, Out> {
    key: F,
    /// The keys of the next records.
    keys: Vec<K>,
    process: P,
    store: KeyedStore<K>,
    stores: TaskStores,
    draining: Draining,
    open: OpenContext,
    state_bytes: Gauge,
    end: End<K>,
    output: Batch<Out>,
    next: Box<dyn Link<Out>>,
}

/// How far the end of the input is.
enum End<K> {
    /// More may come.
    Open,
    /// The function is being told, key by key, as fast as the output takes what it emits.
    Telling(std::vec::IntoIter<K>),
    /// The function knows.
    Told,
}

impl<K, F, P, Out> Keyed<K, F, P, Out>
where
    K: Key,
    Out: 'static,
{
    fn open<In>(
        key: F,
        mut process: P,
        context: &mut OperatorContext,
        next: Box<dyn Link<Out>>,
    ) -> Result<Self, Failure>
    where
        P: KeyedProcess<K, In, Out = Out>,
    {
        let name = &context.open.operator_name;
        let declare = |declarations: &mut Declarations<K>| process.declare(declarations);
        let store = context.stores.open(context, declare)?;
        // After a change of parallelism the input has ended here only if it had ended everywhere.
        let mut told = !context.restored.is_empty();
        for snapshot in &context.restored {
            told &= snapshot.operator_state.iter().any(|state| state == ENDED);
        }
        process.open(&context.open).map_err(|failure| failure.context(name))?;
        let state_bytes = context.state_gauge();
        state_bytes.set(store.size_bytes());
        let end = if told { End::Told } else { End::Open };
        Ok(Self {
            key,
            keys: Vec::with_capacity(KEYS_AHEAD),
            process,
            store,
            stores: context.stores.clone(),
            draining: context.stores.draining(),
            open: context.open.clone(),
            state_bytes,
            end,
            output: Batch::default(),
            next,
        })
    }

    fn hand_on(&mut self) -> Result<(), Failure> {
        if self.output.is_empty() {
            return Ok(());
        }
        let result = self.next.process(&mut self.output);
        self.output.clear();
        result
    }

    /// Tells the function the end of the input for the keys that are left, until the output is full.
    fn tell_end<In>(&mut self) -> Result<Flushed, Failure>
    where
        P: KeyedProcess<K, In, Out = Out>,
    {
        while let End::Telling(keys) = &mut self.end {
            if self.next.flush(false)? == Flushed::Blocked {
                return Ok(Flushed::Blocked);
            }
            for key in keys.by_ref().take(Batch::<Out>::FULL_RECORDS) {
                let state = self.store.select(key)?;
                let mut context = Context::new(state, NO_TIMESTAMP, &mut self.output, &self.open);
                let result = self.process.on_end(&mut context);
                result.map_err(|failure| failure.context(&self.open.operator_name))?;
            }
            let is_last = keys.as_slice().is_empty();
            self.hand_on()?;
            if is_last {
                self.end = End::Told;
                self.state_bytes.set(self.store.size_bytes());
                self.next.finish()?;
            }
        }
        Ok(Flushed::All)
    }
}

impl<K, In, F, P> Link<In> for Keyed<K, F, P, P::Out>
where
    K: Key,
    F: Fn(&In) -> K + Send,
    P: KeyedProcess<K, In>,
{
    fn process(&mut self, batch: &mut Batch<In>) -> Result<(), Failure> {
        if let End::Told = self.end {
            // Restored from the savepoint of a job that was drained, and the sources go on: there will be another end.
            self.end = End::Open;
        }
        let mut keys = std::mem::take(&mut self.keys);
        let (mut records, mut timestamps) = batch.drain_parts();
        while !records.as_slice().is_empty() {
            keys.extend(records.as_slice().iter().take(KEYS_AHEAD).map(&self.key));
            self.store.look_up(&keys)?;
            for (index, (key, record)) in keys.drain(..).zip(&mut records).enumerate() {
                let state = self.store.select_next(index, key)?;
                let mut context = Context::new(state, timestamps.next(), &mut self.output, &self.open);
                let result = self.process.on_record(record, &mut context);
                result.map_err(|failure| failure.context(&self.open.operator_name))?;
                if self.output.len() >= Batch::<P::Out>::FULL_RECORDS {
                    self.hand_on()?;
                }
            }
        }
        self.keys = keys;
        self.state_bytes.set(self.store.size_bytes());
        self.hand_on()
    }

    fn finish(&mut self) -> Result<(), Failure> {
        match self.end {
            End::Open => {
                let keys = self.store.keys()?;
                self.end = End::Telling(keys.into_iter());
                self.tell_end().map(|_| ())
            }
            End::Telling(_) => Ok(()),
            // Restored behind the end.
            End::Told => self.next.finish(),
        }
    }

    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        let operator = self.open.operator_id;
        // The epoch is written beside the processing; the barrier goes on at once.
        let frozen = self.store.freeze(barrier.id)?;
        let entry = snapshot.operator(operator);
        if frozen.is_none() {
            entry.keyed_state = self.store.snapshot()?;
        }
        match self.end {
            End::Open => {}
            End::Told => entry.operator_state.push(ENDED.to_vec()),
            End::Telling(_) => {
                let message = format!("`{}` was asked for a snapshot while it ends", self.open.operator_name);
                return Err(Failure::internal(message));
            }
        }
        if let Some(epoch) = frozen {
            let directory = self.stores.linked(operator, barrier.id);
            snapshot.freeze(FrozenStore { operator, epoch, directory });
        }
        self.state_bytes.set(self.store.size_bytes());
        self.next.snapshot(barrier, snapshot)
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.next.completed(checkpoint)
    }

    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.next.aborted(checkpoint)
    }

    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure> {
        self.draining.add(self.store.drain(EPOCH_SLICE_BYTES)?);
        let told = self.tell_end()?;
        Ok(told.and(self.next.flush(partial)?))
    }
}
