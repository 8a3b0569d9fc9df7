//! Complex event processing: sequences of events that a [`Pattern`] describes, found in a keyed stream. Flink CEP.
//!
//! ```text
//! keyed stream ── events of a key, in the order of their time ── Pattern ──┬── matches ───────────► select, flat_select, process
//!        └── late events ──► late_data(tag)                               └── partial matches, whose time is over ──► timed_out(tag, ..)
//! ```
//!
//! ```
//! use thalweg::cep::{self, Pattern};
//! use thalweg::prelude::*;
//!
//! #[derive(Record, Clone)]
//! struct Click { user: String, action: String }
//!
//! # fn topology(env: &Environment, clicks: DataStream<Click>) {
//! let bought = Pattern::begin("click").where_(|click: &Click| click.action == "click")
//!     .next("purchase").where_(|click| click.action == "purchase")
//!     .within(minutes(10));
//! cep::pattern(&clicks.key_by(|click| click.user.clone()), bought)
//!     .select(|found| found["purchase"].user.clone())
//!     .uid("bought-at-once")
//!     .print();
//! # }
//! ```
//!
//! **Time.** In event time, which is the default, the events of a key are kept until the watermark has passed them, and then taken in the
//! order of their timestamps; those with the same timestamp in the order in which they have come, or as
//! [`ordered_by`](PatternStream::ordered_by) says. An event whose timestamp the watermark has passed is late: it is dropped and
//! counted (`numLateRecordsDropped`), or goes to [`late_data`](PatternStream::late_data). In
//! [processing time](PatternStream::in_processing_time) events are taken as they come, with the time of the machine.
//!
//! **Results** have the time of their match: that of its last event, or the end of the window where only time decides.
//!
//! **State.** Events that wait, and partial matches, are state of the operator and in checkpoints and savepoints. What partial matches mean
//! depends on the pattern, so that their state is named by its structure: a job whose pattern has changed is refused with the old
//! savepoint, unless it is allowed to drop that state (`--allow-non-restored-state`). Other conditions, another window and another skip
//! strategy are no other pattern. A pattern that can go on for ever ([`one_or_more`](Pattern::one_or_more), and all that waits for what never
//! comes) keeps its partial matches for ever, unless it says [`within`](Pattern::within).

mod function;

use std::any::type_name;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use thalweg_common::record::Record;
use thalweg_runtime::operator::Key;
use thalweg_runtime::side_output::OutputTag;

#[doc(hidden)]
pub use function::{OnTimedOut, Told, Untold};
pub use function::{PatternContext, PatternProcess};
pub use thalweg_cep::{Earlier, Match, Pattern, PatternError, SkipStrategy};

use crate::error::Error;
use crate::graph::Place;
use crate::keyed::{KeyOf, KeyedStream};
use crate::stream::DataStream;
use function::{CepFunction, Compare, EventTime, Select, Time};

/// Looks for a pattern in the events of each key.
///
/// A mistake in the pattern is a mistake in the topology: the job is not built, and its message has the line of this call.
#[track_caller]
pub fn pattern<K, T, F>(stream: &KeyedStream<K, T, F>, pattern: Pattern<T>) -> PatternStream<K, T, F>
where
    K: Key,
    T: Record,
    F: KeyOf<T, K>,
{
    let place = Place::caller();
    let nfa = pattern.compile().or_else(|error| {
        stream.fail(place, error);
        // The job will not be built; what follows may be declared all the same.
        Pattern::begin("nothing").compile()
    });
    let nfa = Arc::new(nfa.expect("a pattern of one event has no mistake"));
    let time = Time::Event(EventTime { compare: None, late_data: None });
    PatternStream { stream: stream.clone(), nfa, time, on_timed_out: Untold }
}

/// A keyed stream in which a pattern is looked for; made by [`pattern`].
pub struct PatternStream<K, T, F = fn(&T) -> K, H = Untold> {
    stream: KeyedStream<K, T, F>,
    nfa: Arc<thalweg_cep::Nfa<T>>,
    time: Time<T>,
    on_timed_out: H,
}

impl<K, T, F, H> fmt::Debug for PatternStream<K, T, F, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PatternStream<{}> of {:?}", type_name::<T>(), self.stream)
    }
}

impl<K, T, F, H> PatternStream<K, T, F, H>
where
    K: Key,
    T: Record,
    F: KeyOf<T, K>,
    H: OnTimedOut<T>,
{
    /// Takes events as they come, each with the time of the machine, in place of event time. There are no late events then.
    #[must_use]
    pub fn in_processing_time(mut self) -> Self {
        self.time = Time::Processing;
        self
    }

    /// The order of events with the same timestamp, in place of that in which they have come.
    #[track_caller]
    #[must_use]
    pub fn ordered_by(mut self, compare: impl Fn(&T, &T) -> Ordering + Send + Sync + 'static) -> Self {
        let compare: Compare<T> = Arc::new(compare);
        self.change_event_time(Place::caller(), "ordered_by", |time| time.compare = Some(compare));
        self
    }

    /// Late events go to this side output, and are not counted as dropped.
    #[track_caller]
    #[must_use]
    pub fn late_data(mut self, tag: &OutputTag<T>) -> Self {
        self.change_event_time(Place::caller(), "late_data", |time| time.late_data = Some(*tag));
        self
    }

    /// What the function makes of partial matches whose time is over goes to this side output. Each is told once, the
    /// moment its window is over, also if no event comes then; among them those that are matches already and could have gone on.
    ///
    /// ```
    /// use thalweg::cep::{self, Pattern};
    /// use thalweg::prelude::*;
    ///
    /// const ABANDONED: OutputTag<u64> = OutputTag::new("abandoned");
    ///
    /// # fn topology(env: &Environment, events: DataStream<(u64, bool)>) {
    /// let paid = Pattern::begin("order").where_(|event: &(u64, bool)| !event.1)
    ///     .followed_by("payment").where_(|event| event.1)
    ///     .within(minutes(15));
    /// let paid = cep::pattern(&events.key_by(|event| event.0), paid)
    ///     .timed_out(&ABANDONED, |order| order["order"].0)
    ///     .select(|order| order["payment"].0);
    /// paid.side_output(&ABANDONED).print();
    /// # }
    /// ```
    #[must_use]
    pub fn timed_out<L, G>(self, tag: &OutputTag<L>, function: G) -> PatternStream<K, T, F, Told<L, G>>
    where
        L: Record,
        G: Fn(&Match<'_, T>) -> L + Clone + Send + Sync + 'static,
    {
        let Self { stream, nfa, time, .. } = self;
        PatternStream { stream, nfa, time, on_timed_out: Told { tag: *tag, function } }
    }

    /// Turns each match into a record.
    #[track_caller]
    pub fn select<U: Record>(
        self,
        function: impl Fn(&Match<'_, T>) -> U + Clone + Send + Sync + 'static,
    ) -> DataStream<U> {
        self.process(Select(move |found: &Match<'_, T>| Some(function(found))))
    }

    /// Turns each match into any number of records.
    #[track_caller]
    pub fn flat_select<I>(
        self,
        function: impl Fn(&Match<'_, T>) -> I + Clone + Send + Sync + 'static,
    ) -> DataStream<I::Item>
    where
        I: IntoIterator<Item: Record> + 'static,
    {
        self.process(Select(function))
    }

    /// Runs a function on each match: Flink's `PatternProcessFunction`.
    #[track_caller]
    pub fn process<P: PatternProcess<K, T>>(self, process: P) -> DataStream<P::Out> {
        let function = CepFunction::new::<K>(self.nfa, self.time, self.on_timed_out, process);
        self.stream.operator("cep", "CEP", function)
    }

    fn change_event_time(&mut self, place: Place, what: &str, change: impl FnOnce(&mut EventTime<T>)) {
        match &mut self.time {
            Time::Event(time) => change(time),
            Time::Processing => {
                let message = format!("{what}(..) is about event time; leave it or in_processing_time() out");
                self.stream.fail(place, Error::new(message));
            }
        }
    }
}

#[cfg(test)]
mod tests;
