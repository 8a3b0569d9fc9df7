//! Aggregations over sessions with their default trigger.
//!
//! A key has one value, its [`Sessions`], and knows of one timer, which stays where it is while its session grows: when it comes too
//! early, the next one is registered. So a record of a session that is there already touches no timer.

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_state::{Declarations, Declare, State, StateKey, ValueState};

use super::aggregate::WindowAggregate;
use super::assigner::{Gap, WindowTime};
use super::late::{Lateness, times};
use super::output::WindowOutput;
use super::sessions::Sessions;
use super::time_window::TimeWindow;
use crate::operator::{Context, Key, KeyedProcess};

/// The name of the state, as the plan shows it.
const STATE: &str = "sessions";

/// Aggregates over sessions.
#[derive(Clone)]
pub(crate) struct SessionsByGap<In, G, A: WindowAggregate<In>, O> {
    sessions: ValueState<Sessions<A::Accumulator>>,
    gap: G,
    time: WindowTime,
    aggregate: A,
    output: O,
    lateness: Lateness<In>,
    kept_ms: i64,
}

impl<In: Record, G, A: WindowAggregate<In>, O> SessionsByGap<In, G, A, O> {
    pub(crate) fn new(gap: G, time: WindowTime, aggregate: A, output: O, lateness: Lateness<In>) -> Self {
        let kept_ms = lateness.kept_ms(time);
        Self { sessions: ValueState::default(), gap, time, aggregate, output, lateness, kept_ms }
    }

    /// When a session fires; if it has, when it is forgotten.
    fn due(&self, session: TimeWindow, now: Timestamp) -> Timestamp {
        let fires = session.max_timestamp();
        if fires > now { fires } else { session.cleanup_time(self.kept_ms) }
    }

    /// What is due next for a key behind `now`.
    fn next(&self, sessions: &Sessions<A::Accumulator>, now: Timestamp) -> Timestamp {
        let due = self.due(sessions.first(), now);
        let firing = sessions.first_ending_behind(now.saturating_add(1));
        firing.map_or(due, |session| due.min(session.max_timestamp()))
    }

    fn register<K: Key, Out>(&self, at: Timestamp, context: &mut Context<'_, K, Out>) {
        match self.time {
            WindowTime::Event => context.register_event_time_timer(at),
            WindowTime::Processing => context.register_processing_time_timer(at),
        }
    }
}

impl<In, G, A: WindowAggregate<In>, O> State for SessionsByGap<In, G, A, O> {
    fn declare<K: StateKey>(&mut self, declarations: &mut Declarations<K>) {
        self.sessions.declare(STATE, declarations);
    }
}

impl<K, In, G, A, O> KeyedProcess<K, In> for SessionsByGap<In, G, A, O>
where
    K: Key,
    In: Record,
    G: Gap<In>,
    A: WindowAggregate<In>,
    O: WindowOutput<K, A::Out>,
{
    type Out = O::Out;

    fn on_record(&mut self, record: In, context: &mut Context<'_, K, O::Out>) -> Result<(), Failure> {
        let (timestamp, now) = times(self.time, context)?;
        let own = self.gap.window(&record, timestamp)?;
        let Some(sessions) = self.sessions.get_mut(context) else {
            if own.cleanup_time(self.kept_ms) <= now {
                self.lateness.refuse(record, context);
                return Ok(());
            }
            let due = self.due(own, now);
            self.sessions.set(context, Sessions::new(own, self.aggregate.first(record), due));
            self.register(due, context);
            return self.fire_late(own, now, context);
        };
        let now = self.time.latest(now, sessions.fired);
        // A record that is too late by itself may still belong to a session that is not.
        if own.cleanup_time(self.kept_ms) <= now && !sessions.touches(&own) {
            self.lateness.refuse(record, context);
            return Ok(());
        }
        let session = sessions.add(own, record, &self.aggregate)?;
        let due = self.due(session, now);
        if due < sessions.wake {
            sessions.wake = due;
            self.register(due, context);
        }
        self.fire_late(session, now, context)
    }

    fn on_timer(&mut self, at: Timestamp, context: &mut Context<'_, K, O::Out>) -> Result<(), Failure> {
        let Some(sessions) = self.sessions.get_mut(context) else { return Ok(()) };
        sessions.fired = sessions.fired.max(at);
        let fires =
            sessions.ending(at.saturating_add(1)).map(|(window, accumulator)| (window, accumulator.clone()));
        let kept_ms = self.kept_ms;
        if sessions.forget(|session| session.cleanup_time(kept_ms) <= at) {
            let wake = self.next(sessions, at);
            sessions.wake = wake;
            self.register(wake, context);
        } else {
            self.sessions.clear(context);
        }
        match fires {
            Some((window, accumulator)) => {
                self.output.emit(window, self.aggregate.result(accumulator), context)
            }
            None => Ok(()),
        }
    }
}

impl<In: Record, G, A: WindowAggregate<In>, O> SessionsByGap<In, G, A, O> {
    /// A session that has fired, or would have, does so again with each late record.
    #[inline]
    fn fire_late<K>(
        &mut self,
        session: TimeWindow,
        now: Timestamp,
        context: &mut Context<'_, K, O::Out>,
    ) -> Result<(), Failure>
    where
        K: Key,
        O: WindowOutput<K, A::Out>,
    {
        if session.max_timestamp() > now {
            return Ok(());
        }
        let Some(sessions) = self.sessions.get(context) else { return Ok(()) };
        let Some((window, accumulator)) = sessions.ending(session.end) else { return Ok(()) };
        let result = self.aggregate.result(accumulator.clone());
        self.output.emit(window, result, context)
    }
}
