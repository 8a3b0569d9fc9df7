//! Tumbling, sliding and cumulate aggregations: each record is added once, to its slice.
//!
//! A key has one value, its [`Slices`], and knows of one timer: for the next of its windows that is to fire, or of its slices that is to
//! be forgotten. When that comes, the following one is registered. A record of a slice that is there already touches no timer.

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_state::{Declarations, Declare, State, StateKey, ValueState};

use super::aggregate::WindowAggregate;
use super::assigner::WindowTime;
use super::late::{Lateness, times};
use super::output::WindowOutput;
use super::slices::Slices;
use super::slicing::{Slicing, Span};
use crate::operator::{Context, Key, KeyedProcess};

/// The name of the state, as the plan shows it.
const STATE: &str = "slices";

/// Aggregates over windows that are aligned to the clock.
#[derive(Clone)]
pub(crate) struct SlicedWindows<In, A: WindowAggregate<In>, O> {
    slices: ValueState<Slices<A::Accumulator>>,
    slicing: Slicing,
    time: WindowTime,
    aggregate: A,
    output: O,
    lateness: Lateness<In>,
    kept_ms: i64,
    /// The slice of the last record: that of the next one, too, most of the time.
    span: Span,
}

impl<In: Record, A: WindowAggregate<In>, O> SlicedWindows<In, A, O> {
    pub(crate) fn new(
        slicing: Slicing,
        time: WindowTime,
        aggregate: A,
        output: O,
        lateness: Lateness<In>,
    ) -> Self {
        let kept_ms = lateness.kept_ms(time);
        let slices = ValueState::default();
        Self { slices, slicing, time, aggregate, output, lateness, kept_ms, span: Span::NONE }
    }

    /// When a slice is forgotten: with the last of its windows.
    #[inline]
    fn cleanup_time(&self, last_end: Timestamp) -> Timestamp {
        last_end.saturating_sub(1).saturating_add(self.kept_ms)
    }

    /// When the first window over a slice fires of which the time is behind `now`; if all have fired, when the slice is forgotten.
    fn due(&self, start: Timestamp, now: Timestamp) -> Timestamp {
        let last_end = self.slicing.last_end(start);
        let end = self.slicing.next_end(start.max(now.saturating_add(1)));
        if end <= last_end { end.saturating_sub(1) } else { self.cleanup_time(last_end) }
    }

    /// What is due next for a key behind `now`.
    fn next(&self, slices: &Slices<A::Accumulator>, now: Timestamp) -> Timestamp {
        let first = slices.first();
        let due = self.due(first, now);
        if self.kept_ms == 0 || self.slicing.last_end(first).saturating_sub(1) > now {
            return due;
        }
        // All windows over the first slice have fired, and wait for late records. Those over later ones may be due sooner.
        let open = slices.first_from(self.slicing.first_open(now.saturating_add(1)));
        open.map_or(due, |start| due.min(self.due(start, now)))
    }

    /// A late record: the windows over its slice that have fired do so again, the latest first.
    #[cold]
    fn fire_again<K>(
        &mut self,
        span: Span,
        now: Timestamp,
        context: &mut Context<'_, K, O::Out>,
    ) -> Result<(), Failure>
    where
        K: Key,
        O: WindowOutput<K, A::Out>,
    {
        for end in self.slicing.ends(&span) {
            if end.saturating_sub(1) > now || self.cleanup_time(end) <= now {
                continue;
            }
            let Some(window) = self.slicing.window_ending(end) else { continue };
            let Some(slices) = self.slices.get_mut(context) else { return Ok(()) };
            if let Some(accumulator) = slices.combine(window, &self.aggregate)? {
                self.output.emit(window, self.aggregate.result(accumulator), context)?;
            }
        }
        Ok(())
    }

    fn register<K: Key>(&self, at: Timestamp, context: &mut Context<'_, K, O::Out>)
    where
        O: WindowOutput<K, A::Out>,
    {
        match self.time {
            WindowTime::Event => context.register_event_time_timer(at),
            WindowTime::Processing => context.register_processing_time_timer(at),
        }
    }
}

impl<In, A: WindowAggregate<In>, O> State for SlicedWindows<In, A, O> {
    fn declare<K: StateKey>(&mut self, declarations: &mut Declarations<K>) {
        self.slices.declare(STATE, declarations);
    }
}

impl<K, In, A, O> KeyedProcess<K, In> for SlicedWindows<In, A, O>
where
    K: Key,
    In: Record,
    A: WindowAggregate<In>,
    O: WindowOutput<K, A::Out>,
{
    type Out = O::Out;

    fn on_record(&mut self, record: In, context: &mut Context<'_, K, O::Out>) -> Result<(), Failure> {
        let (timestamp, now) = times(self.time, context)?;
        if !self.span.contains(timestamp) {
            self.span = self.slicing.span(timestamp);
        }
        let span = self.span;
        if !span.has_windows() {
            // Between two windows. It is late only if its own time is.
            if timestamp.saturating_add(self.kept_ms) <= now {
                self.lateness.refuse(record, context);
            }
            return Ok(());
        }
        let (first_time, cleanup_time) = (span.first_end.saturating_sub(1), self.cleanup_time(span.last_end));
        let Some(slices) = self.slices.get_mut(context) else {
            if cleanup_time <= now {
                self.lateness.refuse(record, context);
                return Ok(());
            }
            let due = self.due(span.start, now);
            self.slices.set(context, Slices::new(span.start, self.aggregate.first(record), due));
            self.register(due, context);
            return if first_time <= now { self.fire_again(span, now, context) } else { Ok(()) };
        };
        let now = self.time.latest(now, slices.fired);
        if cleanup_time <= now {
            self.lateness.refuse(record, context);
            return Ok(());
        }
        slices.add(span.start, record, &self.aggregate);
        // A slice that is not new is due no sooner than what is awaited.
        let is_late = first_time <= now;
        let due = if is_late { self.due(span.start, now) } else { first_time };
        if due < slices.wake {
            slices.wake = due;
            self.register(due, context);
        }
        if is_late { self.fire_again(span, now, context) } else { Ok(()) }
    }

    fn on_timer(&mut self, at: Timestamp, context: &mut Context<'_, K, O::Out>) -> Result<(), Failure> {
        let Some(slices) = self.slices.get_mut(context) else { return Ok(()) };
        slices.fired = slices.fired.max(at);
        let window = self.slicing.window_ending(at.saturating_add(1));
        let mut result = None;
        if let Some(window) = window {
            if self.slicing.is_single() && self.kept_ms == 0 {
                // Nobody needs the slice any more: no copy.
                if slices.is_only(window.start) {
                    let last = self.slices.take(context).map(Slices::into_newest);
                    let Some(accumulator) = last else { return Ok(()) };
                    return self.output.emit(window, self.aggregate.result(accumulator), context);
                }
                result = slices.take_first(window.start);
            } else {
                result = slices.combine(window, &self.aggregate)?;
            }
        }
        let (slicing, kept_ms) = (self.slicing, self.kept_ms);
        let is_over =
            |start: Timestamp| slicing.last_end(start).saturating_sub(1).saturating_add(kept_ms) <= at;
        if slices.forget(&self.aggregate, is_over) {
            let wake = self.next(slices, at);
            slices.wake = wake;
            self.register(wake, context);
        } else {
            self.slices.clear(context);
        }
        match (window, result) {
            (Some(window), Some(accumulator)) => {
                self.output.emit(window, self.aggregate.result(accumulator), context)
            }
            _ => Ok(()),
        }
    }
}
