//! What every keyed operator has: the store with its state and timers, its outputs, and how far watermark, clock and end are.
//!
//! Invariants: the snapshot at a barrier is the state after exactly the records before it, with the timers that have not fired; a watermark is
//! passed on when all timers until its time have fired, and nothing is processed before that; between two timers
//! the output may be full, or the task's turn may be over: then the others fire with the next flush, and no input is read
//! meanwhile; the end of the input is told to the function once, also over restarts, and once more only if the input goes on behind it.

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_common::limits::{EPOCH_SLICE_BYTES, TIMERS_PER_TURN};
use thalweg_state::{Declarations, KeyedStore, TimeDomain};

use std::time::Duration;

use crate::batch::{Batch, NO_TIMESTAMP};
use crate::event::{Barrier, WatermarkStatus};
use crate::link::{Flushed, Link};
use crate::operator::{Context, Key, Moment, OpenContext};
use crate::process::ProcessContext;
use crate::program::OperatorContext;
use crate::side_output::Outputs;
use crate::snapshot::SnapshotBuilder;
use crate::stores::{Draining, FrozenStore, TaskStores};
use crate::task::counters::Gauge;
use crate::time::NO_WATERMARK;
use crate::time::inquiry::{Inquiry, OperatorTime};

/// The operator state of a subtask whose function was told the end of the input.
const ENDED: &[u8] = &[1];

/// How many keys are looked up together: enough that the ways to memory overlap, few enough that everything that was fetched is
/// still in the nearest cache when its record comes.
const KEYS_AHEAD: usize = 64;

/// What a keyed operator calls of its function beside the records.
pub(in crate::operators) trait KeyedFunction<K: Key, Out> {
    /// A timer of the key at hand has fired.
    fn on_timer(&mut self, at: Timestamp, context: &mut Context<'_, K, Out>) -> Result<(), Failure>;

    /// The input has ended.
    fn on_end(&mut self, context: &mut Context<'_, K, Out>) -> Result<(), Failure>;
}

/// A keyed operator without its function.
pub(in crate::operators) struct Body<K: Key, Out> {
    store: KeyedStore<K>,
    /// The keys of the next records.
    keys: Vec<K>,
    stores: TaskStores,
    draining: Draining,
    inquiry: Inquiry,
    open: OpenContext,
    state_bytes: Gauge,
    end: End<K>,
    /// The last one that has come.
    watermark: Timestamp,
    /// Whether it was not passed on yet, because timers are left that are due.
    is_held: bool,
    /// How long a timer waits behind its time of the clock.
    timer_delay_ms: i64,
    /// The barrier with which the job stops, if it is not known to have failed: no timer fires behind it.
    stops_with: Option<CheckpointId>,
    outputs: Outputs<Out>,
}

/// How far the end of the input is.
enum End<K> {
    /// More may come.
    Open,
    /// It has come; the last watermark is held.
    Held,
    /// The function is being told, key by key, as fast as the output takes what it emits.
    Telling(std::vec::IntoIter<K>),
    /// The function knows.
    Told,
}

/// How many timers fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// As many as the output takes, for one turn of the task.
    Turn,
    /// All of them: what comes next must not overtake.
    All,
}

impl<K: Key, Out: 'static> Body<K, Out> {
    pub(in crate::operators) fn open(
        context: &mut OperatorContext,
        declare: impl FnMut(&mut Declarations<K>),
        next: Box<dyn Link<Out>>,
    ) -> Result<Self, Failure> {
        let store = context.stores.open(context, declare)?;
        // After a change of parallelism the input has ended here only if it had ended everywhere.
        let mut told = !context.restored.is_empty();
        for snapshot in &context.restored {
            told &= snapshot.operator_state.iter().any(|state| state == ENDED);
        }
        let state_bytes = context.state_gauge();
        let body = Self {
            store,
            keys: Vec::with_capacity(KEYS_AHEAD),
            stores: context.stores.clone(),
            draining: context.stores.draining(),
            inquiry: context.counters.inquiry(),
            open: context.open.clone(),
            state_bytes,
            end: if told { End::Told } else { End::Open },
            watermark: NO_WATERMARK,
            is_held: false,
            timer_delay_ms: context.timer_delay_ms,
            stops_with: None,
            outputs: Outputs::new(next, std::mem::take(&mut context.side_outputs)),
        };
        body.measure();
        Ok(body)
    }

    /// Shows how large the state is, and what it takes of the memory.
    fn measure(&self) {
        self.state_bytes.set(self.store.size_bytes());
        if self.stores.is_on_disk() {
            let (stalls, stalled) = self.store.stalls();
            self.open.metrics.set_store(self.store.cache_bytes(), stalls, stalled);
        }
    }

    /// Calls `on_record` with each record at its key. A watermark that is held must have been [let pass](Self::let_pass).
    pub(in crate::operators) fn process<In>(
        &mut self,
        batch: &mut Batch<In>,
        key: impl Fn(&In) -> K,
        mut on_record: impl FnMut(In, &mut Context<'_, K, Out>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if let End::Told = self.end {
            // Restored from the savepoint of a job that was drained, and the sources go on: there will be another end.
            self.end = End::Open;
        }
        let mut keys = std::mem::take(&mut self.keys);
        let (mut records, mut timestamps) = batch.drain_parts();
        while !records.as_slice().is_empty() {
            keys.extend(records.as_slice().iter().take(KEYS_AHEAD).map(&key));
            self.store.look_up(&keys)?;
            for (index, (key, record)) in keys.drain(..).zip(&mut records).enumerate() {
                let state = self.store.select_next(index, key)?;
                let moment = Moment::of_record(timestamps.next(), self.watermark);
                let mut context = Context::new(state, moment, &mut self.outputs, &self.open);
                let result = on_record(record, &mut context);
                result.map_err(|failure| failure.context(&self.open.operator_name))?;
                if self.outputs.is_full() {
                    self.outputs.hand_on()?;
                }
            }
        }
        self.keys = keys;
        self.measure();
        self.outputs.hand_on()
    }

    /// Calls a function beside the keys, for a record with this timestamp. What it emits is handed on by the next
    /// [`process`](Self::process), which follows.
    pub(in crate::operators) fn beside(
        &mut self,
        timestamp: Timestamp,
        function: impl FnOnce(&mut ProcessContext<'_, Out>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if let End::Told = self.end {
            self.end = End::Open;
        }
        let mut context = ProcessContext::new(timestamp, self.watermark, &mut self.outputs, &self.open);
        function(&mut context).map_err(|failure| failure.context(&self.open.operator_name))
    }

    pub(in crate::operators) fn watermark(
        &mut self,
        timestamp: Timestamp,
        function: &mut impl KeyedFunction<K, Out>,
    ) -> Result<(), Failure> {
        self.let_pass(function)?;
        (self.watermark, self.is_held) = (timestamp, true);
        self.advance(Pace::Turn, function).map(drop)
    }

    pub(in crate::operators) fn watermark_status(
        &mut self,
        status: WatermarkStatus,
        function: &mut impl KeyedFunction<K, Out>,
    ) -> Result<(), Failure> {
        self.let_pass(function)?;
        self.outputs.watermark_status(status)
    }

    /// What comes next must not overtake a watermark: one that is held goes on, with all of its timers in front of it.
    pub(in crate::operators) fn let_pass(
        &mut self,
        function: &mut impl KeyedFunction<K, Out>,
    ) -> Result<(), Failure> {
        self.advance(Pace::All, function).map(drop)
    }

    /// Fires the timers that are due by the watermark, then passes it on.
    fn advance(&mut self, pace: Pace, function: &mut impl KeyedFunction<K, Out>) -> Result<Flushed, Failure> {
        if !self.is_held {
            return Ok(Flushed::All);
        }
        let fired = self.fire(TimeDomain::EventTime, self.watermark, pace, function)?;
        if fired == Flushed::All {
            self.is_held = false;
            self.outputs.watermark(self.watermark)?;
        }
        Ok(fired)
    }

    /// Fires the timers whose time on the clock has passed, and asks to be woken for the next one.
    fn fire_by_clock(&mut self, function: &mut impl KeyedFunction<K, Out>) -> Result<Flushed, Failure> {
        let domain = TimeDomain::ProcessingTime;
        if !matches!(self.end, End::Open) || self.store.earliest_timer(domain).is_none() {
            return Ok(Flushed::All);
        }
        let (now_ms, now) = (self.open.clock.now_ms(), self.open.clock.monotonic());
        let fired = self.fire(domain, now_ms.saturating_sub(self.timer_delay_ms), Pace::Turn, function)?;
        if let (Flushed::All, Some(at)) = (fired, self.store.earliest_timer(domain)) {
            let left_ms = at.saturating_add(self.timer_delay_ms).saturating_sub(now_ms);
            let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
            self.draining.flush_at(now.saturating_add(left));
        }
        Ok(fired)
    }

    /// Fires timers until a time, the earliest first, also those that are registered meanwhile.
    fn fire(
        &mut self,
        domain: TimeDomain,
        until: Timestamp,
        pace: Pace,
        function: &mut impl KeyedFunction<K, Out>,
    ) -> Result<Flushed, Failure> {
        let mut left = if pace == Pace::Turn { TIMERS_PER_TURN } else { usize::MAX };
        while self.store.earliest_timer(domain).is_some_and(|at| at <= until) {
            if pace == Pace::Turn && self.outputs.flush(false)? == Flushed::Blocked {
                return Ok(Flushed::Blocked);
            }
            if left == 0 {
                // The task looks at its mail, and goes on at once.
                self.draining.flush_at(self.open.clock.monotonic());
                return Ok(Flushed::Blocked);
            }
            self.store.prepare_timers(domain, until)?;
            while left > 0
                && !self.outputs.is_full()
                && let Some((at, state)) = self.store.fire_next(domain)?
            {
                left -= 1;
                let moment = Moment { timestamp: at, watermark: self.watermark, domain: Some(domain) };
                let mut context = Context::new(state, moment, &mut self.outputs, &self.open);
                let result = function.on_timer(at, &mut context);
                result.map_err(|failure| failure.context(&self.open.operator_name))?;
            }
            self.outputs.hand_on()?;
            self.measure();
        }
        Ok(Flushed::All)
    }

    pub(in crate::operators) fn finish(
        &mut self,
        function: &mut impl KeyedFunction<K, Out>,
    ) -> Result<(), Failure> {
        match self.end {
            End::Open => {
                self.end = End::Held;
                self.tell_end(function).map(drop)
            }
            End::Held | End::Telling(_) => Ok(()),
            // Restored behind the end.
            End::Told => {
                self.let_pass(function)?;
                self.outputs.finish()
            }
        }
    }

    /// Tells the function the end of the input for the keys that are left, until the output is full.
    fn tell_end(&mut self, function: &mut impl KeyedFunction<K, Out>) -> Result<Flushed, Failure> {
        if let End::Held = self.end
            && !self.is_held
        {
            self.end = End::Telling(self.store.keys()?.into_iter());
        }
        while let End::Telling(keys) = &mut self.end {
            if self.outputs.flush(false)? == Flushed::Blocked {
                return Ok(Flushed::Blocked);
            }
            for key in keys.by_ref().take(Batch::<Out>::FULL_RECORDS) {
                let state = self.store.select(key)?;
                let moment = Moment::of_record(NO_TIMESTAMP, self.watermark);
                let mut context = Context::new(state, moment, &mut self.outputs, &self.open);
                let result = function.on_end(&mut context);
                result.map_err(|failure| failure.context(&self.open.operator_name))?;
            }
            let is_last = keys.as_slice().is_empty();
            self.outputs.hand_on()?;
            if is_last {
                self.end = End::Told;
                self.measure();
                self.outputs.finish()?;
            }
        }
        Ok(Flushed::All)
    }

    pub(in crate::operators) fn snapshot(
        &mut self,
        barrier: Barrier,
        snapshot: &mut SnapshotBuilder,
    ) -> Result<(), Failure> {
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
            End::Held | End::Telling(_) => {
                let message = format!("`{}` was asked for a snapshot while it ends", self.open.operator_name);
                return Err(Failure::internal(message));
            }
        }
        if let Some(epoch) = frozen {
            let directory = self.stores.linked(operator, barrier.id);
            snapshot.freeze(FrozenStore { operator, epoch, directory });
        }
        if barrier.is_final {
            self.stops_with = Some(barrier.id);
        }
        self.measure();
        self.outputs.snapshot(barrier, snapshot)
    }

    pub(in crate::operators) fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.outputs.completed(checkpoint)
    }

    pub(in crate::operators) fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.stops_with = self.stops_with.filter(|stops_with| *stops_with != checkpoint);
        self.outputs.aborted(checkpoint)
    }

    pub(in crate::operators) fn flush(
        &mut self,
        partial: bool,
        function: &mut impl KeyedFunction<K, Out>,
    ) -> Result<Flushed, Failure> {
        self.draining.add(self.store.drain(EPOCH_SLICE_BYTES)?);
        self.inquiry.tell(|told| {
            told.operators.push(OperatorTime {
                operator_id: self.open.operator_id,
                earliest_timer: self.store.earliest_timer(TimeDomain::EventTime),
            });
        });
        let mut done = Flushed::All;
        if self.stops_with.is_none() {
            done = self.advance(Pace::Turn, function)?;
            if done == Flushed::All {
                done = self.tell_end(function)?;
            }
            if done == Flushed::All {
                done = self.fire_by_clock(function)?;
            }
        }
        Ok(done.and(self.outputs.flush(partial)?))
    }
}
