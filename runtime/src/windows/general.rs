//! Windows with a trigger, an evictor, or a function of their own: each window has its own contents.
//!
//! What is kept of a key: a pane for each window (contents and the trigger's state), which windows wait for which timer, and, of windows
//! that merge, their list. Timers are registered by key and time only; the list of those who wait says whose they are.
//!
//! Invariant: a window that has a pane is in the list of whoever waits for its clean-up, unless it is never forgotten.

use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_common::{Record, Timestamp};
use thalweg_state::{Declarations, Declare, MapState, State, StateKey, ValueState};

use super::assigner::{WindowAssigner, WindowTime};
use super::contents::Contents;
use super::late::{Lateness, times};
use super::output::WindowOutput;
use super::time_window::TimeWindow;
use super::trigger::{TimerAction, Trigger, TriggerContext, TriggerResult};
use crate::operator::{Context, Key, KeyedProcess, TimeDomain};

/// What is kept of a window.
#[derive(Debug, Clone, PartialEq, Record)]
#[record(crate = thalweg_common)]
pub struct Pane<C, S> {
    /// Nothing when it was purged.
    contents: Option<C>,
    trigger: S,
}

/// A timer that windows wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Record)]
#[record(crate = thalweg_common)]
struct Timer {
    is_event_time: bool,
    at: Timestamp,
}

impl Timer {
    fn new(time: WindowTime, at: Timestamp) -> Self {
        Self { is_event_time: time == WindowTime::Event, at }
    }
}

/// Runs windows of any kind with any trigger.
#[derive(Clone)]
pub struct GeneralWindows<In, W, G: Trigger<In>, C: Contents<In>, O> {
    panes: MapState<TimeWindow, Pane<C::Stored, G::State>>,
    waiting: MapState<Timer, Vec<TimeWindow>>,
    sessions: ValueState<Vec<TimeWindow>>,
    assigner: W,
    trigger: G,
    contents: C,
    output: O,
    lateness: Lateness<In>,
    kept_ms: i64,
    /// Empty between two calls.
    assigned: Vec<TimeWindow>,
    /// Empty between two calls.
    actions: Vec<TimerAction>,
}

impl<In, W, G, C, O> GeneralWindows<In, W, G, C, O>
where
    In: Record,
    W: WindowAssigner<In>,
    G: Trigger<In>,
    C: Contents<In>,
{
    /// Windows of `assigner`, whose `contents` are shown when `trigger` says so.
    pub fn new(assigner: W, trigger: G, contents: C, output: O, lateness: Lateness<In>) -> Self {
        let kept_ms = lateness.kept_ms(assigner.time());
        Self {
            panes: MapState::default(),
            waiting: MapState::default(),
            sessions: ValueState::default(),
            assigner,
            trigger,
            contents,
            output,
            lateness,
            kept_ms,
            assigned: Vec::new(),
            actions: Vec::new(),
        }
    }

    /// When a window is forgotten, if it ever is.
    fn cleanup_time(&self, window: TimeWindow) -> Option<Timestamp> {
        Some(window.cleanup_time(self.kept_ms)).filter(|at| *at != Timestamp::MAX)
    }

    /// Asks the trigger something about a window, and does with timers what it wants.
    fn ask<K: Key, Out, R>(
        &mut self,
        window: TimeWindow,
        context: &mut Context<'_, K, Out>,
        question: impl FnOnce(&G, &mut TriggerContext<'_>) -> R,
    ) -> R {
        let mut actions = std::mem::take(&mut self.actions);
        let (watermark, processing_time) = (context.current_watermark(), context.current_processing_time());
        let answer = question(
            &self.trigger,
            &mut TriggerContext::new(window, watermark, processing_time, &mut actions),
        );
        for action in actions.drain(..) {
            match action {
                TimerAction::Register(time, at) => self.wait(window, Timer::new(time, at), context),
                TimerAction::Delete(time, at) => self.wait_no_more(window, Timer::new(time, at), context),
            }
        }
        self.actions = actions;
        answer
    }

    fn wait<K: Key, Out>(&self, window: TimeWindow, timer: Timer, context: &mut Context<'_, K, Out>) {
        match self.waiting.get_mut(context, &timer) {
            Some(windows) if windows.contains(&window) => return,
            Some(windows) => windows.push(window),
            None => {
                self.waiting.insert(context, timer, vec![window]);
            }
        }
        if timer.is_event_time {
            context.register_event_time_timer(timer.at);
        } else {
            context.register_processing_time_timer(timer.at);
        }
    }

    fn wait_no_more<K: Key, Out>(&self, window: TimeWindow, timer: Timer, context: &mut Context<'_, K, Out>) {
        let Some(windows) = self.waiting.get_mut(context, &timer) else { return };
        windows.retain(|waiting| *waiting != window);
        if !windows.is_empty() {
            return;
        }
        self.waiting.remove(context, &timer);
        if timer.is_event_time {
            context.delete_event_time_timer(timer.at);
        } else {
            context.delete_processing_time_timer(timer.at);
        }
    }

    /// Adds a record to a window that is not late.
    fn add<K>(
        &mut self,
        window: TimeWindow,
        record: In,
        timestamp: Timestamp,
        context: &mut Context<'_, K, O::Out>,
    ) -> Result<(), Failure>
    where
        K: Key,
        O: WindowOutput<K, C::Result>,
    {
        let before = self.panes.remove(context, &window);
        let is_new = before.is_none();
        let mut pane = before.unwrap_or_else(|| Pane { contents: None, trigger: G::State::default() });
        let own_timestamp = context.timestamp().unwrap_or(crate::batch::NO_TIMESTAMP);
        let result = self.ask(window, context, |trigger, asked| {
            trigger.on_element(&mut pane.trigger, &record, timestamp, asked)
        });
        self.contents.add(&mut pane.contents, record, own_timestamp);
        if is_new && let Some(at) = self.cleanup_time(window) {
            self.wait(window, Timer::new(self.assigner.time(), at), context);
        }
        self.act(window, &mut pane, result, !result.is_purge(), context)?;
        self.panes.insert(context, window, pane);
        Ok(())
    }

    /// Shows and drops the contents of a window as its trigger wants it.
    fn act<K>(
        &mut self,
        window: TimeWindow,
        pane: &mut Pane<C::Stored, G::State>,
        result: TriggerResult,
        keeps: bool,
        context: &mut Context<'_, K, O::Out>,
    ) -> Result<(), Failure>
    where
        K: Key,
        O: WindowOutput<K, C::Result>,
    {
        if result.is_fire()
            && pane.contents.is_some()
            && let Some(shown) = self.contents.fire(&mut pane.contents, keeps, window)
        {
            self.output.emit(window, shown, context)?;
        }
        if result.is_purge() {
            pane.contents = None;
        }
        Ok(())
    }

    /// The session that a record with this window belongs to, into which those are merged that it joins. Nothing if it is late.
    fn session<K: Key, Out>(
        &mut self,
        own: TimeWindow,
        now: Timestamp,
        context: &mut Context<'_, K, Out>,
    ) -> Result<Option<TimeWindow>, Failure> {
        let sessions = self.sessions.get(context).map_or(&[] as &[TimeWindow], Vec::as_slice);
        let first = sessions.partition_point(|session| session.end < own.start);
        let behind = sessions.partition_point(|session| session.start <= own.end);
        let joined = sessions[first..behind.max(first)].to_vec();
        let cover = joined.iter().fold(own, |cover, session| cover.cover(session));
        if joined.is_empty() && own.cleanup_time(self.kept_ms) <= now {
            return Ok(None);
        }
        if joined != [cover] {
            let all = self.sessions.get_or_insert_with(context, Vec::new);
            all.splice(first..first + joined.len(), [cover]);
            self.merge(&joined, cover, context)?;
        }
        Ok(Some(cover))
    }

    /// Makes one window of several, none of which it equals.
    fn merge<K: Key, Out>(
        &mut self,
        joined: &[TimeWindow],
        cover: TimeWindow,
        context: &mut Context<'_, K, Out>,
    ) -> Result<(), Failure> {
        let (mut contents, mut states) = (None, Vec::new());
        for window in joined {
            let Some(mut pane) = self.panes.remove(context, window) else { continue };
            if let Some(later) = pane.contents.take() {
                self.contents.merge(&mut contents, later)?;
            }
            states.push(pane.trigger.clone());
            self.ask(*window, context, |trigger, asked| trigger.clear(&mut pane.trigger, asked));
            if let Some(at) = self.cleanup_time(*window) {
                self.wait_no_more(*window, Timer::new(self.assigner.time(), at), context);
            }
        }
        if states.is_empty() {
            return Ok(());
        }
        let trigger = self.ask(cover, context, |trigger, asked| trigger.merge(states, asked));
        if let Some(at) = self.cleanup_time(cover) {
            self.wait(cover, Timer::new(self.assigner.time(), at), context);
        }
        self.panes.insert(context, cover, Pane { contents, trigger });
        Ok(())
    }

    /// A timer of a window fires.
    fn on_window_timer<K>(
        &mut self,
        window: TimeWindow,
        time: WindowTime,
        at: Timestamp,
        context: &mut Context<'_, K, O::Out>,
    ) -> Result<(), Failure>
    where
        K: Key,
        O: WindowOutput<K, C::Result>,
    {
        // One that was merged into another one meanwhile.
        let Some(mut pane) = self.panes.remove(context, &window) else { return Ok(()) };
        let result = self.ask(window, context, |trigger, asked| match time {
            WindowTime::Event => trigger.on_event_time(&mut pane.trigger, at, asked),
            WindowTime::Processing => trigger.on_processing_time(&mut pane.trigger, at, asked),
        });
        let is_over = time == self.assigner.time() && self.cleanup_time(window) == Some(at);
        self.act(window, &mut pane, result, !is_over && !result.is_purge(), context)?;
        if !is_over {
            self.panes.insert(context, window, pane);
            return Ok(());
        }
        self.ask(window, context, |trigger, asked| trigger.clear(&mut pane.trigger, asked));
        if self.assigner.is_merging() {
            self.sessions.update(context, |sessions| {
                let mut sessions = sessions?;
                sessions.retain(|session| *session != window);
                (!sessions.is_empty()).then_some(sessions)
            });
        }
        Ok(())
    }
}

impl<In, W, G: Trigger<In>, C: Contents<In>, O> State for GeneralWindows<In, W, G, C, O> {
    fn declare<K: StateKey>(&mut self, declarations: &mut Declarations<K>) {
        self.panes.declare("windows", declarations);
        self.waiting.declare("waiting", declarations);
        self.sessions.declare("sessions", declarations);
    }
}

impl<K, In, W, G, C, O> KeyedProcess<K, In> for GeneralWindows<In, W, G, C, O>
where
    K: Key,
    In: Record,
    W: WindowAssigner<In>,
    G: Trigger<In>,
    C: Contents<In>,
    O: WindowOutput<K, C::Result>,
{
    type Out = O::Out;

    fn on_record(&mut self, record: In, context: &mut Context<'_, K, O::Out>) -> Result<(), Failure> {
        let (timestamp, now) = times(self.assigner.time(), context)?;
        let mut assigned = std::mem::take(&mut self.assigned);
        assigned.clear();
        self.assigner.assign(&record, timestamp, &mut assigned)?;
        if self.assigner.is_merging() {
            let mut sessions = Vec::new();
            for own in assigned.drain(..) {
                sessions.extend(self.session(own, now, context)?);
            }
            assigned = sessions;
        } else {
            let kept_ms = self.kept_ms;
            assigned.retain(|window| window.cleanup_time(kept_ms) > now || window.end == Timestamp::MAX);
        }
        let Some(last) = assigned.pop() else {
            self.assigned = assigned;
            if timestamp.saturating_add(self.kept_ms) <= now {
                self.lateness.refuse(record, context);
            }
            return Ok(());
        };
        for window in assigned.drain(..) {
            self.add(window, record.clone(), timestamp, context)?;
        }
        self.assigned = assigned;
        self.add(last, record, timestamp, context)
    }

    fn on_timer(&mut self, at: Timestamp, context: &mut Context<'_, K, O::Out>) -> Result<(), Failure> {
        let time = match context.time_domain() {
            Some(TimeDomain::ProcessingTime) => WindowTime::Processing,
            Some(TimeDomain::EventTime) | None => WindowTime::Event,
        };
        for window in self.waiting.remove(context, &Timer::new(time, at)).unwrap_or_default() {
            self.on_window_timer(window, time, at, context)?;
        }
        Ok(())
    }
}
