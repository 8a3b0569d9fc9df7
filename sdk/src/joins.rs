//! Joins of two keyed streams that need no windows.

use std::fmt;
use std::time::Duration;

use thalweg_common::record::Record;
use thalweg_runtime::joins::{
    Change, IntervalBounds, IntervalJoin, JoinKind, Pair, PairMap, ProcessJoin, RegularJoin,
};
use thalweg_runtime::operator::Key;
use thalweg_runtime::side_output::OutputTag;
use thalweg_state::StateTtl;

use crate::connected::KeyedConnectedStreams;
use crate::error::Error;
use crate::graph::Place;
use crate::keyed::KeyOf;
use crate::stream::DataStream;

/// Two keyed streams whose records are paired if their times lie near each other; made by
/// [`KeyedStream::interval_join`](crate::KeyedStream::interval_join).
pub struct IntervalJoined<K, L, R, F, G> {
    connected: KeyedConnectedStreams<K, L, R, F, G>,
    bounds: IntervalBounds,
    late_left: Option<OutputTag<L>>,
    late_right: Option<OutputTag<R>>,
}

impl<K, L, R, F, G> fmt::Debug for IntervalJoined<K, L, R, F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} within {:?}", self.connected, self.bounds)
    }
}

impl<K, L, R, F, G> IntervalJoined<K, L, R, F, G>
where
    K: Key,
    L: Record,
    R: Record,
    F: KeyOf<L, K>,
    G: KeyOf<R, K>,
{
    #[track_caller]
    pub(crate) fn new(connected: KeyedConnectedStreams<K, L, R, F, G>, lower_ms: i64, upper_ms: i64) -> Self {
        let joined = Self {
            connected,
            bounds: IntervalBounds { lower_ms, upper_ms },
            late_left: None,
            late_right: None,
        };
        joined.checked()
    }

    /// The lower bound itself is outside.
    #[track_caller]
    #[must_use]
    pub fn lower_bound_exclusive(mut self) -> Self {
        self.bounds.lower_ms = self.bounds.lower_ms.saturating_add(1);
        self.checked()
    }

    /// The upper bound itself is outside.
    #[track_caller]
    #[must_use]
    pub fn upper_bound_exclusive(mut self) -> Self {
        self.bounds.upper_ms = self.bounds.upper_ms.saturating_sub(1);
        self.checked()
    }

    /// Left records that come behind a watermark later than their time go to this side output. Without it they are dropped.
    #[must_use]
    pub fn side_output_left_late_data(self, tag: OutputTag<L>) -> Self {
        Self { late_left: Some(tag), ..self }
    }

    /// Right records that come behind a watermark later than their time go to this side output. Without it they are dropped.
    #[must_use]
    pub fn side_output_right_late_data(self, tag: OutputTag<R>) -> Self {
        Self { late_right: Some(tag), ..self }
    }

    /// Makes a record of each pair, with the later time of both.
    #[track_caller]
    pub fn map<Out: Record>(
        &self,
        function: impl Fn(&L, &R) -> Out + Clone + Send + Sync + 'static,
    ) -> DataStream<Out> {
        self.process(PairMap(function))
    }

    /// Runs a function on each pair: Flink's `ProcessJoinFunction`.
    #[track_caller]
    pub fn process<P: ProcessJoin<L, R>>(&self, process: P) -> DataStream<P::Out> {
        let join = IntervalJoin::new(self.bounds, self.late_left, self.late_right, process);
        self.connected.operator("interval_join", "Interval Join", join)
    }

    #[track_caller]
    fn checked(self) -> Self {
        let IntervalBounds { lower_ms, upper_ms } = self.bounds;
        if lower_ms > upper_ms {
            let message = format!(
                "nothing lies between {lower_ms} and {upper_ms} ms; the lower bound of an interval join is below the upper one"
            );
            self.connected.environment().fail(Place::caller(), Error::new(message));
        }
        self
    }
}

/// Two keyed streams of which all records with the same key are paired; made by
/// [`KeyedStream::regular_join`](crate::KeyedStream::regular_join).
pub struct RegularJoined<K, L, R, F, G> {
    connected: KeyedConnectedStreams<K, L, R, F, G>,
    retained: StateTtl,
}

impl<K, L, R, F, G> fmt::Debug for RegularJoined<K, L, R, F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} by key", self.connected)
    }
}

impl<K, L, R, F, G> RegularJoined<K, L, R, F, G>
where
    K: Key,
    L: Record,
    R: Record,
    F: KeyOf<L, K>,
    G: KeyOf<R, K>,
{
    pub(crate) fn new(connected: KeyedConnectedStreams<K, L, R, F, G>, retained: Duration) -> Self {
        Self { connected, retained: StateTtl::new(retained) }
    }

    /// Emits each pair once.
    #[track_caller]
    pub fn inner(&self) -> DataStream<(L, R)> {
        self.connected.operator("join", "Inner Join", RegularJoin::inner(self.retained))
    }

    /// Emits changes of a result in which left records without a partner stand alone.
    #[track_caller]
    pub fn left_outer(&self) -> DataStream<Change<Pair<L, R>>> {
        let join = RegularJoin::changes(JoinKind::Left, self.retained);
        self.connected.operator("join", "Left Outer Join", join)
    }

    /// Emits changes of a result in which right records without a partner stand alone.
    #[track_caller]
    pub fn right_outer(&self) -> DataStream<Change<Pair<L, R>>> {
        let join = RegularJoin::changes(JoinKind::Right, self.retained);
        self.connected.operator("join", "Right Outer Join", join)
    }

    /// Emits changes of a result in which records of both streams stand alone without a partner.
    #[track_caller]
    pub fn full_outer(&self) -> DataStream<Change<Pair<L, R>>> {
        let join = RegularJoin::changes(JoinKind::Full, self.retained);
        self.connected.operator("join", "Full Outer Join", join)
    }
}
