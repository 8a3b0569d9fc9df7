//! The triggers that there are, each as Flink's of the same name.

use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::record::Record;

use super::assigner::{WindowTime, milliseconds};
use super::time_window::floor;
use super::trigger::{Trigger, TriggerContext, TriggerResult};

/// Fires when the watermark passes the end of the window, and from then on for each late record.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventTimeTrigger;

/// What windows over event time do with a record: fire if they are due already, otherwise wait.
fn fire_or_wait(context: &mut TriggerContext<'_>) -> TriggerResult {
    let end = context.window().max_timestamp();
    if end <= context.current_watermark() {
        return TriggerResult::Fire;
    }
    context.register_event_time_timer(end);
    TriggerResult::Continue
}

fn fire_at_end(at: Timestamp, context: &TriggerContext<'_>) -> TriggerResult {
    if at == context.window().max_timestamp() { TriggerResult::Fire } else { TriggerResult::Continue }
}

impl<T> Trigger<T> for EventTimeTrigger {
    type State = ();

    fn on_element(
        &self,
        (): &mut (),
        _: &T,
        _: Timestamp,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        fire_or_wait(context)
    }

    fn on_event_time(&self, (): &mut (), at: Timestamp, context: &mut TriggerContext<'_>) -> TriggerResult {
        fire_at_end(at, context)
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn merge(&self, _: Vec<()>, context: &mut TriggerContext<'_>) {
        let end = context.window().max_timestamp();
        if end > context.current_watermark() {
            context.register_event_time_timer(end);
        }
    }

    fn clear(&self, (): &mut (), context: &mut TriggerContext<'_>) {
        context.delete_event_time_timer(context.window().max_timestamp());
    }
}

/// Fires when the clock passes the end of the window.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessingTimeTrigger;

impl<T> Trigger<T> for ProcessingTimeTrigger {
    type State = ();

    fn on_element(
        &self,
        (): &mut (),
        _: &T,
        _: Timestamp,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        context.register_processing_time_timer(context.window().max_timestamp());
        TriggerResult::Continue
    }

    fn on_processing_time(&self, (): &mut (), _: Timestamp, _: &mut TriggerContext<'_>) -> TriggerResult {
        TriggerResult::Fire
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn merge(&self, _: Vec<()>, context: &mut TriggerContext<'_>) {
        let end = context.window().max_timestamp();
        if end > context.current_processing_time() {
            context.register_processing_time_timer(end);
        }
    }

    fn clear(&self, (): &mut (), context: &mut TriggerContext<'_>) {
        context.delete_processing_time_timer(context.window().max_timestamp());
    }
}

/// The trigger that windows have if they are given none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultTrigger {
    /// That of [`EventTimeTrigger`].
    EventTime,
    /// That of [`ProcessingTimeTrigger`].
    ProcessingTime,
    /// Never fires: that of the global window.
    Never,
}

impl<T> Trigger<T> for DefaultTrigger {
    type State = ();

    fn on_element(
        &self,
        state: &mut (),
        record: &T,
        timestamp: Timestamp,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        match self {
            Self::EventTime => EventTimeTrigger.on_element(state, record, timestamp, context),
            Self::ProcessingTime => ProcessingTimeTrigger.on_element(state, record, timestamp, context),
            Self::Never => TriggerResult::Continue,
        }
    }

    fn on_event_time(&self, (): &mut (), at: Timestamp, context: &mut TriggerContext<'_>) -> TriggerResult {
        if *self == Self::EventTime { fire_at_end(at, context) } else { TriggerResult::Continue }
    }

    fn on_processing_time(&self, (): &mut (), _: Timestamp, _: &mut TriggerContext<'_>) -> TriggerResult {
        if *self == Self::ProcessingTime { TriggerResult::Fire } else { TriggerResult::Continue }
    }

    fn can_merge(&self) -> bool {
        *self != Self::Never
    }

    fn merge(&self, states: Vec<()>, context: &mut TriggerContext<'_>) {
        match self {
            Self::EventTime => Trigger::<T>::merge(&EventTimeTrigger, states, context),
            Self::ProcessingTime => Trigger::<T>::merge(&ProcessingTimeTrigger, states, context),
            Self::Never => {}
        }
    }

    fn clear(&self, state: &mut (), context: &mut TriggerContext<'_>) {
        match self {
            Self::EventTime => Trigger::<T>::clear(&EventTimeTrigger, state, context),
            Self::ProcessingTime => Trigger::<T>::clear(&ProcessingTimeTrigger, state, context),
            Self::Never => {}
        }
    }
}

/// Fires whenever so many records have been added.
#[derive(Debug, Clone, Copy)]
pub struct CountTrigger {
    records: u64,
}

impl CountTrigger {
    /// After every `records` records.
    pub fn of(records: u64) -> Self {
        Self { records }
    }
}

impl<T> Trigger<T> for CountTrigger {
    type State = u64;

    fn on_element(&self, count: &mut u64, _: &T, _: Timestamp, _: &mut TriggerContext<'_>) -> TriggerResult {
        *count += 1;
        if *count < self.records {
            return TriggerResult::Continue;
        }
        *count = 0;
        TriggerResult::Fire
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn merge(&self, counts: Vec<u64>, _: &mut TriggerContext<'_>) -> u64 {
        counts.into_iter().sum()
    }
}

/// The next time of a continuous trigger, if it has one: the state of such a trigger.
type NextFire = Option<Timestamp>;

fn next_fire(after: Timestamp, interval_ms: i64, context: &TriggerContext<'_>) -> Timestamp {
    if context.window().max_timestamp() == Timestamp::MAX && context.current_watermark() == Timestamp::MAX {
        // The last watermark in a window that never ends: once more, and not for ever.
        return Timestamp::MAX;
    }
    after.saturating_add(interval_ms).min(context.window().max_timestamp())
}

/// A continuous trigger fires next at this time.
fn set_next(next: &mut NextFire, by: WindowTime, at: Timestamp, context: &mut TriggerContext<'_>) {
    *next = Some(at);
    context.register(by, at);
}

/// The earliest of several windows that have become one.
fn merged_next(states: Vec<NextFire>, by: WindowTime, context: &mut TriggerContext<'_>) -> NextFire {
    let next = states.into_iter().flatten().min();
    if let Some(at) = next {
        context.register(by, at);
    }
    next
}

fn clear_next(next: &mut NextFire, by: WindowTime, context: &mut TriggerContext<'_>) {
    if let Some(at) = next.take() {
        context.delete(by, at);
    }
}

/// Fires again and again while the watermark goes through the window, and at its end.
#[derive(Debug, Clone, Copy)]
pub struct ContinuousEventTimeTrigger {
    interval_ms: i64,
}

impl ContinuousEventTimeTrigger {
    /// At all multiples of the interval, which is at least a millisecond.
    pub fn every(interval: Duration) -> Self {
        Self { interval_ms: milliseconds(interval).max(1) }
    }
}

impl<T> Trigger<T> for ContinuousEventTimeTrigger {
    type State = NextFire;

    fn on_element(
        &self,
        next: &mut NextFire,
        _: &T,
        timestamp: Timestamp,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        if fire_or_wait(context) == TriggerResult::Fire {
            return TriggerResult::Fire;
        }
        if next.is_none() {
            let at = next_fire(floor(timestamp, 0, self.interval_ms), self.interval_ms, context);
            set_next(next, WindowTime::Event, at, context);
        }
        TriggerResult::Continue
    }

    fn on_event_time(
        &self,
        next: &mut NextFire,
        at: Timestamp,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        if at == context.window().max_timestamp() {
            return TriggerResult::Fire;
        }
        if *next != Some(at) {
            return TriggerResult::Continue;
        }
        let following = next_fire(at, self.interval_ms, context);
        set_next(next, WindowTime::Event, following, context);
        TriggerResult::Fire
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn merge(&self, states: Vec<NextFire>, context: &mut TriggerContext<'_>) -> NextFire {
        merged_next(states, WindowTime::Event, context)
    }

    fn clear(&self, next: &mut NextFire, context: &mut TriggerContext<'_>) {
        context.delete_event_time_timer(context.window().max_timestamp());
        clear_next(next, WindowTime::Event, context);
    }
}

/// Fires again and again while the clock goes on, at the latest at the end of the window.
#[derive(Debug, Clone, Copy)]
pub struct ContinuousProcessingTimeTrigger {
    interval_ms: i64,
}

impl ContinuousProcessingTimeTrigger {
    /// At all multiples of the interval, which is at least a millisecond.
    pub fn every(interval: Duration) -> Self {
        Self { interval_ms: milliseconds(interval).max(1) }
    }
}

impl<T> Trigger<T> for ContinuousProcessingTimeTrigger {
    type State = NextFire;

    fn on_element(
        &self,
        next: &mut NextFire,
        _: &T,
        _: Timestamp,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        if next.is_none() {
            let now = floor(context.current_processing_time(), 0, self.interval_ms);
            let at = next_fire(now, self.interval_ms, context);
            set_next(next, WindowTime::Processing, at, context);
        }
        TriggerResult::Continue
    }

    fn on_processing_time(
        &self,
        next: &mut NextFire,
        at: Timestamp,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        if *next != Some(at) {
            return TriggerResult::Continue;
        }
        // At the end of its window it has fired for the last time.
        *next = None;
        if at < context.window().max_timestamp() {
            let following = next_fire(at, self.interval_ms, context);
            set_next(next, WindowTime::Processing, following, context);
        }
        TriggerResult::Fire
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn merge(&self, states: Vec<NextFire>, context: &mut TriggerContext<'_>) -> NextFire {
        merged_next(states, WindowTime::Processing, context)
    }

    fn clear(&self, next: &mut NextFire, context: &mut TriggerContext<'_>) {
        clear_next(next, WindowTime::Processing, context);
    }
}

/// Drops the contents of the window whenever another trigger fires it.
#[derive(Debug, Clone, Copy)]
pub struct PurgingTrigger<G>(G);

impl<G> PurgingTrigger<G> {
    /// Around this trigger.
    pub fn of(trigger: G) -> Self {
        Self(trigger)
    }
}

fn purging(result: TriggerResult) -> TriggerResult {
    if result.is_fire() { TriggerResult::FireAndPurge } else { result }
}

impl<T, G: Trigger<T>> Trigger<T> for PurgingTrigger<G> {
    type State = G::State;

    fn on_element(
        &self,
        state: &mut G::State,
        record: &T,
        timestamp: Timestamp,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        purging(self.0.on_element(state, record, timestamp, context))
    }

    fn on_event_time(
        &self,
        state: &mut G::State,
        at: Timestamp,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        purging(self.0.on_event_time(state, at, context))
    }

    fn on_processing_time(
        &self,
        state: &mut G::State,
        at: Timestamp,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        purging(self.0.on_processing_time(state, at, context))
    }

    fn can_merge(&self) -> bool {
        self.0.can_merge()
    }

    fn merge(&self, states: Vec<G::State>, context: &mut TriggerContext<'_>) -> G::State {
        self.0.merge(states, context)
    }

    fn clear(&self, state: &mut G::State, context: &mut TriggerContext<'_>) {
        self.0.clear(state, context);
    }
}

/// Fires when a record is far from the one at which it fired last, or from the first one.
#[derive(Debug, Clone)]
pub struct DeltaTrigger<F> {
    threshold: f64,
    delta: F,
}

impl<F> DeltaTrigger<F> {
    /// When `delta(last, record)` is greater than `threshold`.
    pub fn new<T>(threshold: f64, delta: F) -> Self
    where
        F: Fn(&T, &T) -> f64 + Clone + Send + Sync + 'static,
    {
        Self { threshold, delta }
    }
}

impl<T, F> Trigger<T> for DeltaTrigger<F>
where
    T: Record,
    F: Fn(&T, &T) -> f64 + Clone + Send + Sync + 'static,
{
    type State = Option<T>;

    fn on_element(
        &self,
        last: &mut Option<T>,
        record: &T,
        _: Timestamp,
        _: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        match last {
            Some(before) if (self.delta)(before, record) <= self.threshold => TriggerResult::Continue,
            Some(before) => {
                *before = record.clone();
                TriggerResult::Fire
            }
            None => {
                *last = Some(record.clone());
                TriggerResult::Continue
            }
        }
    }
}

impl WindowTime {
    /// The trigger of windows over this time.
    pub(crate) fn trigger(self) -> DefaultTrigger {
        match self {
            Self::Event => DefaultTrigger::EventTime,
            Self::Processing => DefaultTrigger::ProcessingTime,
        }
    }
}
