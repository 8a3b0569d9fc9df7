//! Triggers: what decides when a window shows its contents.

use thalweg_common::Timestamp;
use thalweg_common::record::Record;

use super::assigner::WindowTime;
use super::time_window::TimeWindow;

/// What becomes of a window: Flink's `TriggerResult`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TriggerResult {
    /// Nothing.
    Continue,
    /// Its contents are processed and stay.
    Fire,
    /// Its contents are dropped.
    Purge,
    /// Its contents are processed and dropped.
    FireAndPurge,
}

impl TriggerResult {
    /// Whether the contents are processed.
    pub fn is_fire(self) -> bool {
        matches!(self, Self::Fire | Self::FireAndPurge)
    }

    /// Whether the contents are dropped.
    pub fn is_purge(self) -> bool {
        matches!(self, Self::Purge | Self::FireAndPurge)
    }
}

/// Decides when a window shows its contents, from its records and from timers: Flink's `Trigger`.
///
/// The trigger itself is the same for all windows; what it remembers of one is its `State`, which is part of checkpoints.
///
/// ```
/// use thalweg_common::Timestamp;
/// use thalweg_runtime::windows::{Trigger, TriggerContext, TriggerResult};
///
/// /// Fires early when a record is urgent, and at the end of the window.
/// #[derive(Clone)]
/// struct Urgent;
///
/// impl Trigger<(String, bool)> for Urgent {
///     type State = ();
///
///     fn on_element(&self, (): &mut (), record: &(String, bool), _: Timestamp, context: &mut TriggerContext<'_>) -> TriggerResult {
///         context.register_event_time_timer(context.window().max_timestamp());
///         if record.1 { TriggerResult::Fire } else { TriggerResult::Continue }
///     }
///
///     fn on_event_time(&self, (): &mut (), at: Timestamp, context: &mut TriggerContext<'_>) -> TriggerResult {
///         if at == context.window().max_timestamp() { TriggerResult::Fire } else { TriggerResult::Continue }
///     }
///
///     fn clear(&self, (): &mut (), context: &mut TriggerContext<'_>) {
///         context.delete_event_time_timer(context.window().max_timestamp());
///     }
/// }
/// ```
pub trait Trigger<T>: Clone + Send + Sync + 'static {
    /// What is remembered of each window.
    type State: Record + Default;

    /// A record was added to the window. Its `timestamp` is the time by which its windows were found.
    fn on_element(
        &self,
        state: &mut Self::State,
        record: &T,
        timestamp: Timestamp,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult;

    /// An event-time timer of the window fires, also that of its end.
    fn on_event_time(
        &self,
        state: &mut Self::State,
        at: Timestamp,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        let _ = (state, at, context);
        TriggerResult::Continue
    }

    /// A processing-time timer of the window fires.
    fn on_processing_time(
        &self,
        state: &mut Self::State,
        at: Timestamp,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        let _ = (state, at, context);
        TriggerResult::Continue
    }

    /// Whether [`merge`](Self::merge) works. Sessions need that.
    fn can_merge(&self) -> bool {
        false
    }

    /// Several windows have become one, that of the context: its state, and the timers that it needs.
    fn merge(&self, states: Vec<Self::State>, context: &mut TriggerContext<'_>) -> Self::State {
        let _ = (states, context);
        Self::State::default()
    }

    /// The window is forgotten, or has become part of another one: timers that it still has are to be deleted.
    fn clear(&self, state: &mut Self::State, context: &mut TriggerContext<'_>) {
        let _ = (state, context);
    }
}

/// A timer of a window, registered or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerAction {
    /// It is to fire.
    Register(WindowTime, Timestamp),
    /// It is not.
    Delete(WindowTime, Timestamp),
}

/// What a trigger works with: the window, the time, and timers.
#[derive(Debug)]
pub struct TriggerContext<'a> {
    window: TimeWindow,
    watermark: Timestamp,
    processing_time: Timestamp,
    actions: &'a mut Vec<TimerAction>,
}

impl<'a> TriggerContext<'a> {
    /// For a window at these times; `actions` takes what the trigger does with timers.
    pub fn new(
        window: TimeWindow,
        watermark: Timestamp,
        processing_time: Timestamp,
        actions: &'a mut Vec<TimerAction>,
    ) -> Self {
        Self { window, watermark, processing_time, actions }
    }

    /// The window.
    pub fn window(&self) -> TimeWindow {
        self.window
    }

    /// Up to where event time has come; [`Timestamp::MIN`] before the first watermark.
    pub fn current_watermark(&self) -> Timestamp {
        self.watermark
    }

    /// The time of the clock, in milliseconds since the epoch.
    pub fn current_processing_time(&self) -> Timestamp {
        self.processing_time
    }

    /// Registers a timer of the window.
    pub(super) fn register(&mut self, by: WindowTime, at: Timestamp) {
        self.actions.push(TimerAction::Register(by, at));
    }

    /// Deletes a timer of the window.
    pub(super) fn delete(&mut self, by: WindowTime, at: Timestamp) {
        self.actions.push(TimerAction::Delete(by, at));
    }

    /// The window is told when the watermark has come to `at`. The same timer twice is one.
    pub fn register_event_time_timer(&mut self, at: Timestamp) {
        self.register(WindowTime::Event, at);
    }

    /// The window is told when the clock has come to `at`. The same timer twice is one.
    pub fn register_processing_time_timer(&mut self, at: Timestamp) {
        self.register(WindowTime::Processing, at);
    }

    /// Deletes a timer, if there is one.
    pub fn delete_event_time_timer(&mut self, at: Timestamp) {
        self.delete(WindowTime::Event, at);
    }

    /// Deletes a timer, if there is one.
    pub fn delete_processing_time_timer(&mut self, at: Timestamp) {
        self.delete(WindowTime::Processing, at);
    }
}
