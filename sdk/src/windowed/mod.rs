//! Windows: finite pieces of a keyed stream, and what is made of them.
//!
//! A stream never ends, so that sums and lists over it need a piece that does. [`KeyedStream::window`] cuts the records of each key into
//! windows, and the methods of [`WindowedStream`] say what comes of them. The kinds, over the times of the records of one key:
//!
//! ```text
//! records                   *  * *       *   **   *          *  *
//! tumbling(10)         |---------|---------|---------|---------|
//! sliding(15, 10)      |--------------|
//!                                |--------------|
//!                                          |--------------|
//! cumulate(20, 10)     |---------|         |---------|
//!                      |-------------------|-------------------|
//! session(5)                |---------| |-------------|      |-------|
//! ```
//!
//! A window `[start, end)` fires when the watermark reaches `end - 1`: then nothing more is to come, as far as the strategy for
//! watermarks knows. Its results have that time as timestamp. What comes later is late: it is dropped and counted
//! (`numLateRecordsDropped`), unless there is an [allowed lateness](WindowedStream::allowed_lateness) or a
//! [side output](WindowedStream::side_output_late_data). All of it is as in Flink, to the millisecond.
//!
//! ```
//! use thalweg::aggregates::Count;
//! use thalweg::prelude::*;
//!
//! # fn topology(env: &Environment) {
//! let clicks = env.from_iter([("u-1", 5_u64), ("u-2", 7)].map(|(user, at)| (user.to_string(), at)));
//! let by_user = clicks.key_by(|(user, _)| user.clone());
//!
//! // How many in each minute.
//! by_user.window(tumbling(minutes(1))).aggregate(Count).uid("per-minute").print_debug();
//! // The same for the last five minutes, every minute, with the window.
//! by_user
//!     .window(sliding(minutes(5), minutes(1)))
//!     .aggregate_with(Count, |user, window, clicks| [(user.clone(), window.end, clicks)])
//!     .uid("five-minutes")
//!     .print_debug();
//! // What a user did before a pause of ten minutes.
//! by_user.window(session(minutes(10))).apply(|user, _, clicks| [(user.clone(), clicks.len() as u64)]).uid("visits").print_debug();
//! # }
//! ```

mod aggregation;
mod custom;
mod joined;

use std::fmt;
use std::time::Duration;

use thalweg_common::record::Record;
use thalweg_runtime::operator::{Key, KeyedProcess};
use thalweg_runtime::side_output::OutputTag;
use thalweg_runtime::windows::{
    ByKey, CountWindows, CumulateWindows, DynamicSessionWindows, GlobalWindows, Lateness, Mapped, Plain,
    ProcessWindowFunction, Processed, ProcessedOne, Reduced, SessionWindows, SlidingCountWindows,
    SlidingWindows, TimeWindow, Trigger, TumblingWindows, WindowAggregate, WindowAssigner, WindowOutput,
};

pub use aggregation::WindowAggregation;
pub use custom::{CustomWindowedStream, Keeping, KeepsAll, WithEvictor};
pub use joined::WindowedStreams;

use crate::graph::Place;
use crate::keyed::{KeyOf, KeyedStream};
use crate::stream::DataStream;

/// Windows of one size, one behind the other, aligned to the epoch.
pub fn tumbling(size: Duration) -> TumblingWindows {
    TumblingWindows::of(size)
}

/// Windows of `size`, one every `slide`: each record is in `size / slide` of them. An aggregation adds it up once all the same.
pub fn sliding(size: Duration, slide: Duration) -> SlidingWindows {
    SlidingWindows::of(size, slide)
}

/// Windows that begin every `size` and grow by `step` until they are that long: `CUMULATE` of Flink's SQL.
pub fn cumulate(size: Duration, step: Duration) -> CumulateWindows {
    CumulateWindows::of(size, step)
}

/// Windows that end when a key had no record for `gap`. The window reaches from the first record to the last one plus the gap; windows
/// that touch become one.
pub fn session(gap: Duration) -> SessionWindows {
    SessionWindows::with_gap(gap)
}

/// Sessions where each record says how long it keeps its session open.
pub fn dynamic_session<T, G>(gap: G) -> DynamicSessionWindows<G>
where
    G: Fn(&T) -> Duration + Clone + Send + Sync + 'static,
{
    DynamicSessionWindows::with_gap(gap)
}

/// One window for all records of a key. It shows something only if it is given a [trigger](WindowedStream::trigger).
pub fn global() -> GlobalWindows {
    GlobalWindows
}

/// Lateness of this length.
fn allowed<T: Record>(lateness: Lateness<T>, length: Duration) -> Lateness<T> {
    lateness.allowed(i64::try_from(length.as_millis()).unwrap_or(i64::MAX))
}

impl<K, T, F> KeyedStream<K, T, F>
where
    K: Key,
    T: Record,
    F: KeyOf<T, K>,
{
    /// Cuts the records of each key into windows: [`tumbling`], [`sliding`], [`cumulate`], [`session`], [`dynamic_session`],
    /// [`global`], or any [`WindowAssigner`].
    ///
    /// Windows are over event time, so that the records need timestamps and watermarks, unless
    /// `tumbling(..).processing_time()` says otherwise.
    #[track_caller]
    pub fn window<W: WindowAssigner<T>>(&self, windows: W) -> WindowedStream<K, T, F, W> {
        WindowedStream::new(self, windows)
    }

    /// Windows over `records` records of a key. One that is not full at the end of the input shows nothing. As in Flink its results
    /// have the end of time as timestamp, and a trigger of its own makes it a [`global`] one.
    #[track_caller]
    pub fn count_window(&self, records: u64) -> WindowedStream<K, T, F, CountWindows> {
        self.window(CountWindows::of(records))
    }

    /// Windows over the last `records` records of a key, after every `slide` of them: the first ones are not full. Their
    /// results have the end of time as timestamp.
    #[track_caller]
    pub fn count_window_sliding(
        &self,
        records: u64,
        slide: u64,
    ) -> WindowedStream<K, T, F, SlidingCountWindows> {
        self.window(SlidingCountWindows::of(records, slide))
    }
}

impl<T: Record> DataStream<T> {
    /// Cuts all records of the stream into windows, without a key. One subtask does all of it. [`WindowedStream::aggregate`] emits the
    /// result by itself here.
    ///
    /// ```
    /// use thalweg::aggregates::Count;
    /// use thalweg::prelude::*;
    ///
    /// # fn topology(env: &Environment) {
    /// let numbers: DataStream<u64> = env.from_iter(0..100_u64).window_all(tumbling(secs(1)).processing_time()).aggregate(Count);
    /// # }
    /// ```
    #[track_caller]
    pub fn window_all<W: WindowAssigner<T>>(&self, windows: W) -> WindowedStream<(), T, fn(&T), W, Plain> {
        let keyed: KeyedStream<(), T, fn(&T)> = self.key_by(|_: &T| ());
        let WindowedStream { keyed, windows, lateness, .. } = WindowedStream::new(&keyed, windows);
        WindowedStream { keyed, windows, lateness, is_single: true, shows: Plain }
    }
}

/// A keyed stream cut into windows; made by [`KeyedStream::window`].
///
/// `Shows` tells what [`aggregate`](Self::aggregate) emits: the result with its key, or by itself.
pub struct WindowedStream<K, T, F, W, Shows = ByKey> {
    keyed: KeyedStream<K, T, F>,
    windows: W,
    lateness: Lateness<T>,
    /// Whether one subtask does it all.
    is_single: bool,
    shows: Shows,
}

impl<K, T, F, W: fmt::Debug, Shows> fmt::Debug for WindowedStream<K, T, F, W, Shows> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in {:?}", self.keyed, self.windows)
    }
}

impl<K, T, F, W> WindowedStream<K, T, F, W>
where
    K: Key,
    T: Record,
    F: KeyOf<T, K>,
    W: WindowAssigner<T>,
{
    #[track_caller]
    fn new(keyed: &KeyedStream<K, T, F>, windows: W) -> Self {
        if let Err(error) = windows.check() {
            keyed.fail(Place::caller(), error);
        }
        Self { keyed: keyed.clone(), windows, lateness: Lateness::default(), is_single: false, shows: ByKey }
    }
}

impl<K, T, F, W, Shows> WindowedStream<K, T, F, W, Shows>
where
    K: Key,
    T: Record,
    F: KeyOf<T, K>,
    W: WindowAssigner<T>,
{
    /// Keeps windows over event time for this long behind their end. Until then every late record fires its windows again, with all
    /// records so far.
    #[must_use]
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.lateness = allowed(self.lateness, lateness);
        self
    }

    /// Sends what is too late to a side output, where it is not counted as dropped.
    ///
    /// ```
    /// use thalweg::aggregates::Count;
    /// use thalweg::prelude::*;
    ///
    /// const LATE: OutputTag<String> = OutputTag::new("late");
    ///
    /// # fn topology(env: &Environment) {
    /// let words = env.from_iter(["to", "be"].map(String::from)).key_by(String::clone);
    /// let counts = words.window(tumbling(minutes(1))).side_output_late_data(&LATE).aggregate(Count).uid("count");
    /// counts.side_output(&LATE).print();
    /// # }
    /// ```
    #[must_use]
    pub fn side_output_late_data(mut self, tag: &OutputTag<T>) -> Self {
        self.lateness = self.lateness.output(*tag);
        self
    }

    /// Windows fire when this trigger says so, and not when their time is over. Each window then has an accumulator of its own.
    #[track_caller]
    pub fn trigger<G: Trigger<T>>(self, trigger: G) -> CustomWindowedStream<K, T, F, W, G, KeepsAll, Shows> {
        CustomWindowedStream::new(self, trigger, Place::caller())
    }

    /// An evictor takes records out of windows that fire. For that all records are kept, also behind an aggregation.
    #[track_caller]
    pub fn evictor<E>(
        self,
        evictor: E,
    ) -> CustomWindowedStream<K, T, F, W, thalweg_runtime::windows::DefaultTrigger, WithEvictor<E>, Shows>
    where
        E: thalweg_runtime::windows::Evictor<T>,
    {
        let trigger = self.windows.default_trigger();
        CustomWindowedStream::new(self, trigger, Place::caller()).evictor(evictor)
    }

    /// Combines the records of each window: `function(value so far, record)`. As in Flink the function must be associative. Emits a
    /// value for each window.
    #[track_caller]
    pub fn reduce(&self, function: impl Fn(T, T) -> T + Clone + Send + Sync + 'static) -> DataStream<T> {
        self.aggregated(Reduced(function), Plain)
    }

    /// The same, and a closure makes any number of records of key, window and value.
    #[track_caller]
    pub fn reduce_with<I>(
        &self,
        function: impl Fn(T, T) -> T + Clone + Send + Sync + 'static,
        emit: impl Fn(&K, TimeWindow, T) -> I + Clone + Send + Sync + 'static,
    ) -> DataStream<I::Item>
    where
        I: IntoIterator<Item: Record> + 'static,
    {
        self.aggregated(Reduced(function), Mapped(emit))
    }

    /// Aggregates the records of each window, and emits key and result; without a key the result.
    ///
    /// Sliding and cumulate windows share slices, in which each record is added up once, and sessions merge: both need a
    /// [`MergeAggregate`](crate::operator::MergeAggregate). For tumbling, global and count windows an
    /// [`Aggregate`](crate::operator::Aggregate) will do. The compiler tells:
    ///
    /// ```compile_fail,E0277
    /// use thalweg::prelude::*;
    ///
    /// /// Cannot be merged.
    /// #[derive(Clone)]
    /// struct Last;
    ///
    /// impl Aggregate<u64> for Last {
    ///     type Accumulator = u64;
    ///     type Out = u64;
    ///
    ///     fn create(&self) -> u64 { 0 }
    ///     fn add(&self, last: &mut u64, record: u64) { *last = record; }
    ///     fn result(&self, last: &u64) -> u64 { *last }
    /// }
    ///
    /// # fn topology(env: &Environment) {
    /// env.from_iter(0..9_u64).key_by(|number| number % 2).window(session(secs(1))).aggregate(Last);
    /// # }
    /// ```
    #[track_caller]
    pub fn aggregate<A, Kind>(&self, aggregate: A) -> DataStream<<Shows as WindowOutput<K, A::Out>>::Out>
    where
        A: WindowAggregation<T, W, Kind>,
        Shows: WindowOutput<K, A::Out>,
    {
        self.aggregated(aggregate.windowed(), self.shows.clone())
    }

    /// Aggregates, and a closure makes any number of records of key, window and result.
    #[track_caller]
    pub fn aggregate_with<A, Kind, I>(
        &self,
        aggregate: A,
        emit: impl Fn(&K, TimeWindow, A::Out) -> I + Clone + Send + Sync + 'static,
    ) -> DataStream<I::Item>
    where
        A: WindowAggregation<T, W, Kind>,
        I: IntoIterator<Item: Record> + 'static,
    {
        self.aggregated(aggregate.windowed(), Mapped(emit))
    }

    /// Aggregates, and a function sees the result as the only element of its window.
    #[track_caller]
    pub fn aggregate_and_process<A, Kind, P>(&self, aggregate: A, function: P) -> DataStream<P::Out>
    where
        A: WindowAggregation<T, W, Kind>,
        P: ProcessWindowFunction<K, A::Out>,
    {
        self.aggregated(aggregate.windowed(), ProcessedOne(function))
    }

    /// Runs a function on all elements of each window. They are all kept until then, once for each window that they are in: where an
    /// aggregation will do, it takes less.
    #[track_caller]
    pub fn process<P: ProcessWindowFunction<K, T>>(&self, function: P) -> DataStream<P::Out> {
        self.add(self.windows.clone().listed(Processed(function), self.lateness.clone()))
    }

    /// The same with a closure, which makes any number of records of key, window and elements.
    #[track_caller]
    pub fn apply<I>(
        &self,
        function: impl Fn(&K, TimeWindow, Vec<T>) -> I + Clone + Send + Sync + 'static,
    ) -> DataStream<I::Item>
    where
        I: IntoIterator<Item: Record> + 'static,
    {
        self.add(self.windows.clone().listed(Mapped(function), self.lateness.clone()))
    }

    #[track_caller]
    fn aggregated<A, O>(&self, aggregate: A, output: O) -> DataStream<O::Out>
    where
        A: WindowAggregate<T>,
        O: WindowOutput<K, A::Out>,
    {
        self.add(self.windows.clone().aggregated(aggregate, output, self.lateness.clone()))
    }

    #[track_caller]
    fn add<P: KeyedProcess<K, T>>(&self, process: P) -> DataStream<P::Out> {
        let words = WindowAssigner::<T>::describe(&self.windows);
        let stream = self.keyed.windows(self.windows.name(), words, process);
        if self.is_single { stream.set_parallelism(1) } else { stream }
    }
}
