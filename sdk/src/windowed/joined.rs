//! Two keyed streams in the same windows: Flink's `join` and `coGroup`.
//!
//! A window of both holds records of either, so that assigners, lateness, state and timers are those of all windows; what is made of one that fires tells
//! them apart.

use std::fmt;
use std::time::Duration;

use thalweg_common::record::Record;
use thalweg_runtime::co_process::Either;
use thalweg_runtime::operator::Key;
use thalweg_runtime::windows::{Lateness, Mapped, TimeWindow, WindowAssigner};

use super::allowed;
use crate::connected::KeyedConnectedStreams;
use crate::graph::Place;
use crate::keyed::KeyOf;
use crate::stream::DataStream;

/// Two keyed streams cut into the same windows; made by [`KeyedConnectedStreams::window`].
///
/// All records of a window are kept until it fires, once for each window that they are in.
pub struct WindowedStreams<K, L, R, F, G, W> {
    connected: KeyedConnectedStreams<K, L, R, F, G>,
    windows: W,
    lateness: Lateness<Either<L, R>>,
}

impl<K, L, R, F, G, W: fmt::Debug> fmt::Debug for WindowedStreams<K, L, R, F, G, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in {:?}", self.connected, self.windows)
    }
}

impl<K, L, R, F, G> KeyedConnectedStreams<K, L, R, F, G>
where
    K: Key,
    L: Record,
    R: Record,
    F: KeyOf<L, K>,
    G: KeyOf<R, K>,
{
    /// Cuts the records of each key of both streams into the same windows.
    ///
    /// ```
    /// use thalweg::prelude::*;
    ///
    /// # fn topology(orders: DataStream<(u64, String)>, payments: DataStream<(u64, u64)>) {
    /// let both = orders.key_by(|order| order.0).connect(&payments.key_by(|payment| payment.0));
    /// // Each order with each payment of the same minute.
    /// both.window(tumbling(minutes(1))).join(|order, payment| (order.1.clone(), payment.1)).uid("paid").print_debug();
    /// // Orders that nobody has paid in their minute.
    /// both.window(tumbling(minutes(1)))
    ///     .co_group(|_, _, orders, payments| if payments.is_empty() { orders } else { Vec::new() })
    ///     .uid("unpaid")
    ///     .print_debug();
    /// # }
    /// ```
    #[track_caller]
    pub fn window<W: WindowAssigner<Either<L, R>>>(&self, windows: W) -> WindowedStreams<K, L, R, F, G, W> {
        if let Err(error) = windows.check() {
            self.environment().fail(Place::caller(), error);
        }
        WindowedStreams { connected: self.clone(), windows, lateness: Lateness::default() }
    }
}

impl<K, L, R, F, G, W> WindowedStreams<K, L, R, F, G, W>
where
    K: Key,
    L: Record,
    R: Record,
    F: KeyOf<L, K>,
    G: KeyOf<R, K>,
    W: WindowAssigner<Either<L, R>>,
{
    /// Keeps windows over event time for this long behind their end. Until then every late record fires its windows again, with all records
    /// so far. What is later still is dropped and counted.
    #[must_use]
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.lateness = allowed(self.lateness, lateness);
        self
    }

    /// Makes a record of each pair of a window: Flink's `join`, an inner one. Pairs have the window's last millisecond as timestamp.
    #[track_caller]
    pub fn join<Out: Record>(
        &self,
        function: impl Fn(&L, &R) -> Out + Clone + Send + Sync + 'static,
    ) -> DataStream<Out> {
        self.grouped("Window Join", move |_, _, lefts: Vec<L>, rights: Vec<R>| {
            let pairs = lefts.iter().flat_map(|left| rights.iter().map(move |right| (left, right)));
            pairs.map(|(left, right)| function(left, right)).collect::<Vec<_>>()
        })
    }

    /// The same, and a left record without a partner in its window stands alone.
    #[track_caller]
    pub fn left_outer_join<Out: Record>(
        &self,
        function: impl Fn(&L, Option<&R>) -> Out + Clone + Send + Sync + 'static,
    ) -> DataStream<Out> {
        self.full("Left Outer Window Join", move |left, right| left.map(|left| function(left, right)))
    }

    /// The same, and a right record without a partner in its window stands alone.
    #[track_caller]
    pub fn right_outer_join<Out: Record>(
        &self,
        function: impl Fn(Option<&L>, &R) -> Out + Clone + Send + Sync + 'static,
    ) -> DataStream<Out> {
        self.full("Right Outer Window Join", move |left, right| right.map(|right| function(left, right)))
    }

    /// The same, and every record without a partner in its window stands alone: at least one of both is there.
    #[track_caller]
    pub fn full_outer_join<Out: Record>(
        &self,
        function: impl Fn(Option<&L>, Option<&R>) -> Out + Clone + Send + Sync + 'static,
    ) -> DataStream<Out> {
        self.full("Full Outer Window Join", move |left, right| Some(function(left, right)))
    }

    /// Makes any number of records of key, window and all records of both streams in it, those of each in the order in which they came: Flink's
    /// `coGroup`. Called for every window with a record of either stream.
    #[track_caller]
    pub fn co_group<I>(
        &self,
        function: impl Fn(&K, TimeWindow, Vec<L>, Vec<R>) -> I + Clone + Send + Sync + 'static,
    ) -> DataStream<I::Item>
    where
        I: IntoIterator<Item: Record> + 'static,
    {
        self.grouped("Co-Group", function)
    }

    /// What an outer join makes of pairs and of records that stand alone.
    #[track_caller]
    fn full<Out: Record>(
        &self,
        name: &'static str,
        function: impl Fn(Option<&L>, Option<&R>) -> Option<Out> + Clone + Send + Sync + 'static,
    ) -> DataStream<Out> {
        self.grouped(name, move |_, _, lefts: Vec<L>, rights: Vec<R>| {
            let (function, alone) = (&function, |length: usize| usize::from(length == 0));
            let lefts = || lefts.iter().map(Some).chain(std::iter::repeat_n(None, alone(lefts.len())));
            let rights = || rights.iter().map(Some).chain(std::iter::repeat_n(None, alone(rights.len())));
            lefts()
                .flat_map(|left| rights().filter_map(move |right| function(left, right)))
                .collect::<Vec<_>>()
        })
    }

    #[track_caller]
    fn grouped<I>(
        &self,
        name: &'static str,
        function: impl Fn(&K, TimeWindow, Vec<L>, Vec<R>) -> I + Clone + Send + Sync + 'static,
    ) -> DataStream<I::Item>
    where
        I: IntoIterator<Item: Record> + 'static,
    {
        let told_apart = move |key: &K, window: TimeWindow, both: Vec<Either<L, R>>| {
            let (mut lefts, mut rights) = (Vec::new(), Vec::new());
            for record in both {
                record.map(|left| lefts.push(left), |right| rights.push(right));
            }
            function(key, window, lefts, rights)
        };
        let windows = self.windows.clone().listed(Mapped(told_apart), self.lateness.clone());
        self.connected.either("window_join", name, windows)
    }
}
