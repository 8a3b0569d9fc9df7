//! The function on a keyed stream that finds a pattern: events wait until the watermark has passed them, and are matched in their order.
//!
//! On a record's way it stands behind `key_by`, as any function with state. Invariants: a key has a timer for the earliest event that
//! waits, and one for the end of the window of its oldest partial match, so that neither needs a further event; a key without waiting
//! events and partial matches has no state.

use std::cmp::Ordering;
use std::sync::Arc;

use thalweg_cep::{Found, Match, Matcher, Nfa, PartialMatches};
use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_common::{Record, Timestamp};
use thalweg_runtime::operator::{Context, Key, KeyedProcess, OpenContext};
use thalweg_runtime::side_output::OutputTag;
use thalweg_state::{Declarations, Declare, State, StateKey, ValueState};

/// A function on the matches of a pattern: Flink's `PatternProcessFunction`, and `TimedOutPartialMatchHandler`.
///
/// ```
/// use thalweg::cep::{Match, PatternContext, PatternProcess};
/// use thalweg::prelude::*;
///
/// const SLOW: OutputTag<String> = OutputTag::new("slow");
///
/// /// How long each order has waited, in milliseconds; slow ones also aside.
/// #[derive(Clone)]
/// struct Waited;
///
/// impl PatternProcess<String, u64> for Waited {
///     type Out = i64;
///
///     fn on_match(&mut self, found: &Match<'_, u64>, context: &mut PatternContext<'_, '_, String, i64>) -> Result<(), Failure> {
///         let waited_ms = found.end() - found.start();
///         if waited_ms > 60_000 {
///             context.output(&SLOW, context.key().clone());
///         }
///         context.emit(waited_ms);
///         Ok(())
///     }
/// }
/// ```
pub trait PatternProcess<K: Key, T>: Clone + Send + Sync + 'static {
    /// What it emits.
    type Out: Record;

    /// Whether it wants to be told of partial matches whose time is over. Looking for them costs something.
    const TIMED_OUT: bool = false;

    /// Called once before the first match.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn open(&mut self, context: &OpenContext) -> Result<(), Failure> {
        let _ = context;
        Ok(())
    }

    /// A match.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn on_match(
        &mut self,
        found: &Match<'_, T>,
        context: &mut PatternContext<'_, '_, K, Self::Out>,
    ) -> Result<(), Failure>;

    /// A partial match whose time is over, if the function [wants](Self::TIMED_OUT) it.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn on_timed_out(
        &mut self,
        found: &Match<'_, T>,
        context: &mut PatternContext<'_, '_, K, Self::Out>,
    ) -> Result<(), Failure> {
        let _ = (found, context);
        Ok(())
    }
}

/// What a function on matches works with.
pub struct PatternContext<'a, 'c, K: Key, Out> {
    context: &'a mut Context<'c, K, Out>,
    timestamp: Timestamp,
}

impl<K: Key, Out: Record> PatternContext<'_, '_, K, Out> {
    /// The key of the match.
    pub fn key(&self) -> &K {
        self.context.key()
    }

    /// The [time](Match::timestamp) of the match, in milliseconds since the epoch: that of what is emitted.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// Emits a record with the time of the match.
    pub fn emit(&mut self, record: Out) {
        self.context.emit_with_timestamp(record, self.timestamp);
    }

    /// Emits a record to a side output, with the time of the match.
    pub fn output<S: Record>(&mut self, tag: &OutputTag<S>, record: S) {
        self.context.output_with_timestamp(tag, record, self.timestamp);
    }

    /// The time of the machine, in milliseconds since the epoch.
    pub fn current_processing_time(&self) -> Timestamp {
        self.context.current_processing_time()
    }

    /// Where the function runs.
    pub fn open_context(&self) -> &OpenContext {
        self.context.open_context()
    }
}

/// A closure on matches as a function.
#[derive(Clone)]
pub(super) struct Select<G>(pub(super) G);

impl<K, T, G, I> PatternProcess<K, T> for Select<G>
where
    K: Key,
    T: Record,
    G: Fn(&Match<'_, T>) -> I + Clone + Send + Sync + 'static,
    I: IntoIterator<Item: Record> + 'static,
{
    type Out = I::Item;

    fn on_match(
        &mut self,
        found: &Match<'_, T>,
        context: &mut PatternContext<'_, '_, K, Self::Out>,
    ) -> Result<(), Failure> {
        (self.0)(found).into_iter().for_each(|record| context.emit(record));
        Ok(())
    }
}

/// The order of events with the same timestamp.
pub(super) type Compare<T> = Arc<dyn Fn(&T, &T) -> Ordering + Send + Sync>;

/// By which time events are matched.
pub(super) enum Time<T> {
    Event(EventTime<T>),
    Processing,
}

pub(super) struct EventTime<T> {
    pub(super) compare: Option<Compare<T>>,
    pub(super) late_data: Option<OutputTag<T>>,
}

impl<T> Clone for Time<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Event(EventTime { compare, late_data }) => {
                Self::Event(EventTime { compare: compare.clone(), late_data: *late_data })
            }
            Self::Processing => Self::Processing,
        }
    }
}

/// What becomes of partial matches whose time is over, beside what the function on matches does.
pub trait OnTimedOut<T>: Clone + Send + Sync + 'static {
    /// Whether it wants to know them.
    const TELLS: bool;

    /// One of them.
    fn tell<K: Key, Out: Record>(&self, found: &Match<'_, T>, context: &mut PatternContext<'_, '_, K, Out>);
}

/// Nothing.
#[derive(Debug, Clone)]
pub struct Untold;

impl<T> OnTimedOut<T> for Untold {
    const TELLS: bool = false;

    fn tell<K: Key, Out: Record>(&self, _: &Match<'_, T>, _: &mut PatternContext<'_, '_, K, Out>) {}
}

/// What a function makes of them goes to a side output.
pub struct Told<L, G> {
    pub(super) tag: OutputTag<L>,
    pub(super) function: G,
}

impl<L, G: Clone> Clone for Told<L, G> {
    fn clone(&self) -> Self {
        Self { tag: self.tag, function: self.function.clone() }
    }
}

impl<T, L, G> OnTimedOut<T> for Told<L, G>
where
    L: Record,
    G: Fn(&Match<'_, T>) -> L + Clone + Send + Sync + 'static,
{
    const TELLS: bool = true;

    fn tell<K: Key, Out: Record>(&self, found: &Match<'_, T>, context: &mut PatternContext<'_, '_, K, Out>) {
        context.output(&self.tag, (self.function)(found));
    }
}

/// Events of a key that wait until the watermark has passed them.
#[derive(Record, Clone)]
#[record(crate = thalweg_common)]
pub(super) struct Waiting<T> {
    events: Vec<(Timestamp, T)>,
    /// The lowest timestamp of them.
    earliest: Timestamp,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { events: Vec::new(), earliest: Timestamp::MAX }
    }
}

impl<T> Waiting<T> {
    /// Adds an event, and says whether it is the earliest one.
    fn push(&mut self, timestamp: Timestamp, event: T) -> bool {
        let is_earliest = self.events.is_empty() || timestamp < self.earliest;
        self.earliest = self.earliest.min(timestamp);
        self.events.push((timestamp, event));
        is_earliest
    }

    /// Takes out the events up to a time, in their order.
    fn take_until(
        &mut self,
        time: Timestamp,
        compare: Option<&Compare<T>>,
    ) -> std::vec::IntoIter<(Timestamp, T)> {
        self.events.sort_by(|(one_time, one), (other_time, other)| {
            let by_event = || compare.map_or(Ordering::Equal, |compare| compare(one, other));
            one_time.cmp(other_time).then_with(by_event)
        });
        let left = self.events.split_off(self.events.partition_point(|(timestamp, _)| *timestamp <= time));
        self.earliest = left.first().map_or(Timestamp::MAX, |(timestamp, _)| *timestamp);
        std::mem::replace(&mut self.events, left).into_iter()
    }
}

/// The function behind [`pattern`](super::pattern).
pub(super) struct CepFunction<T, P, H> {
    matcher: Matcher<T>,
    fingerprint: u64,
    time: Time<T>,
    on_timed_out: H,
    process: P,
    waiting: ValueState<Waiting<T>>,
    partial: ValueState<PartialMatches<T>>,
}

impl<T, P: Clone, H: Clone> Clone for CepFunction<T, P, H> {
    fn clone(&self) -> Self {
        Self {
            matcher: self.matcher.clone(),
            fingerprint: self.fingerprint,
            time: self.time.clone(),
            on_timed_out: self.on_timed_out.clone(),
            process: self.process.clone(),
            waiting: self.waiting.clone(),
            partial: self.partial.clone(),
        }
    }
}

impl<T: Record, P, H> State for CepFunction<T, P, H> {
    fn declare<K: StateKey>(&mut self, declarations: &mut Declarations<K>) {
        if let Time::Event(_) = self.time {
            self.waiting.declare("events", declarations);
        }
        // The partial matches of another pattern are another state.
        self.partial.declare(&format!("partial matches of {:016x}", self.fingerprint), declarations);
    }
}

impl<T: Record, P, H: OnTimedOut<T>> CepFunction<T, P, H> {
    pub(super) fn new<K: Key>(nfa: Arc<Nfa<T>>, time: Time<T>, on_timed_out: H, process: P) -> Self
    where
        P: PatternProcess<K, T>,
    {
        let fingerprint = nfa.fingerprint();
        let matcher = Matcher::new(nfa, P::TIMED_OUT || H::TELLS);
        let (waiting, partial) = (ValueState::default(), ValueState::default());
        Self { matcher, fingerprint, time, on_timed_out, process, waiting, partial }
    }

    /// Takes events of the key at hand in their order; then time is `now`.
    fn step<K: Key>(
        &mut self,
        events: impl Iterator<Item = (Timestamp, T)>,
        now: Timestamp,
        context: &mut Context<'_, K, P::Out>,
    ) -> Result<(), Failure>
    where
        P: PatternProcess<K, T>,
    {
        let mut partial = self.partial.take(context).unwrap_or_default();
        let Self { matcher, on_timed_out, process, .. } = self;
        let mut result = Ok(());
        let mut tell = |found: Found<'_, '_, T>| {
            if result.is_ok() {
                result = told(process, on_timed_out, &found, context);
            }
        };
        for (timestamp, event) in events {
            matcher.advance(&mut partial, timestamp, &mut tell);
            if !partial.is_empty() || matcher.begins(&event) {
                matcher.process(&mut partial, event, timestamp, &mut tell);
            }
        }
        matcher.advance(&mut partial, now, &mut tell);
        result?;
        if !partial.is_empty() {
            let end = partial.earliest_start().and_then(|start| matcher.nfa().end_of(start));
            match (end, &self.time) {
                (Some(end), Time::Event(_)) => context.register_event_time_timer(end),
                (Some(end), Time::Processing) => context.register_processing_time_timer(end),
                (None, _) => {}
            }
            self.partial.set(context, partial);
        }
        Ok(())
    }
}

/// Tells the function what was found.
fn told<K, T, P, H>(
    process: &mut P,
    on_timed_out: &H,
    found: &Found<'_, '_, T>,
    context: &mut Context<'_, K, P::Out>,
) -> Result<(), Failure>
where
    K: Key,
    P: PatternProcess<K, T>,
    H: OnTimedOut<T>,
{
    match found {
        Found::Complete(found) => {
            process.on_match(found, &mut PatternContext { timestamp: found.timestamp(), context })
        }
        Found::TimedOut(found) => {
            let mut context = PatternContext { timestamp: found.timestamp(), context };
            on_timed_out.tell(found, &mut context);
            process.on_timed_out(found, &mut context)
        }
    }
}

impl<K, T, P, H> KeyedProcess<K, T> for CepFunction<T, P, H>
where
    K: Key,
    T: Record,
    P: PatternProcess<K, T>,
    H: OnTimedOut<T>,
{
    type Out = P::Out;

    fn open(&mut self, context: &OpenContext) -> Result<(), Failure> {
        self.process.open(context)
    }

    fn on_record(&mut self, event: T, context: &mut Context<'_, K, P::Out>) -> Result<(), Failure> {
        let Time::Event(EventTime { late_data, .. }) = &self.time else {
            let has_partial = self.partial.get(context).is_some();
            let counts = if has_partial { self.matcher.matters(&event) } else { self.matcher.begins(&event) };
            if !counts {
                return Ok(());
            }
            let now = context.current_processing_time();
            return self.step(std::iter::once((now, event)), now, context);
        };
        let Some(timestamp) = context.timestamp() else {
            return Err(Failure::user(
                "a pattern in event time has come upon a record without a timestamp; give the stream a watermark strategy that \
                 assigns timestamps, or look for the pattern in_processing_time()",
            ));
        };
        if timestamp <= context.current_watermark() {
            match late_data {
                Some(tag) => context.output(tag, event),
                None => context.open_context().metrics.count_late_record(),
            }
        } else if self.matcher.matters(&event) {
            let waiting = self.waiting.get_or_insert_with(context, Waiting::default);
            if waiting.push(timestamp, event) {
                context.register_event_time_timer(timestamp);
            }
        }
        Ok(())
    }

    fn on_timer(&mut self, at: Timestamp, context: &mut Context<'_, K, P::Out>) -> Result<(), Failure> {
        let Time::Event(EventTime { compare, .. }) = &self.time else {
            let now = context.current_processing_time().max(at);
            return self.step(std::iter::empty(), now, context);
        };
        let now = context.current_watermark().max(at);
        let mut events = Vec::new().into_iter();
        self.waiting.update(context, |waiting| {
            let mut waiting = waiting?;
            events = waiting.take_until(now, compare.as_ref());
            (!waiting.events.is_empty()).then_some(waiting)
        });
        if let Some(earliest) = self.waiting.get(context).map(|waiting| waiting.earliest) {
            context.register_event_time_timer(earliest);
        }
        self.step(events, now, context)
    }
}
