//! A stream together with one that is broadcast: Flink's broadcast state pattern.

use std::fmt;

use thalweg_common::record::Record;
use thalweg_runtime::broadcast::{BroadcastProcess, Broadcasting, KeyedBroadcastProcess};
use thalweg_runtime::co_process::Either;
use thalweg_runtime::operator::Key;
use thalweg_runtime::operators;
use thalweg_runtime::program::EdgeCode;

use crate::connected::{attach_sides, attach_two};
use crate::environment::EdgeMaker;
use crate::graph::{NodeSpec, Place};
use crate::keyed::{KeyOf, KeyedStream, declared_states};
use crate::stream::{DataStream, unkeyed};

/// A stream, and another one that all subtasks get; made by [`DataStream::connect_broadcast`].
#[derive(Debug)]
pub struct BroadcastConnectedStreams<A, B> {
    stream: DataStream<A>,
    broadcast: DataStream<B>,
}

impl<A, B> Clone for BroadcastConnectedStreams<A, B> {
    fn clone(&self) -> Self {
        Self { stream: self.stream.clone(), broadcast: self.broadcast.clone() }
    }
}

impl<A: Record, B: Record> BroadcastConnectedStreams<A, B> {
    pub(crate) fn new(stream: DataStream<A>, broadcast: DataStream<B>) -> Self {
        Self { stream, broadcast }
    }

    /// Runs a function on the records of both, with the broadcast state: Flink's `BroadcastProcessFunction`.
    #[track_caller]
    pub fn process<P: BroadcastProcess<A, B>>(&self, process: P) -> DataStream<P::Out> {
        let mut spec = NodeSpec::new("broadcast_process", "Broadcast Process", Place::caller());
        spec.has_side_outputs = true;
        let mut broadcasting = Broadcasting::new(process);
        spec.remembers(|states| broadcasting.broadcast_state(states));
        let factory = operators::process::<Either<A, B>, _>(broadcasting);
        let edges = || -> EdgeMaker { Box::new(unkeyed::<Either<A, B>>) };
        attach_two(&self.stream, &self.broadcast, spec, factory, edges)
    }
}

/// A keyed stream, and another one that all subtasks get; made by [`KeyedStream::connect_broadcast`].
pub struct KeyedBroadcastConnectedStreams<K, A, B, F> {
    stream: KeyedStream<K, A, F>,
    broadcast: DataStream<B>,
}

impl<K, A, B, F: Clone> Clone for KeyedBroadcastConnectedStreams<K, A, B, F> {
    fn clone(&self) -> Self {
        Self { stream: self.stream.clone(), broadcast: self.broadcast.clone() }
    }
}

impl<K, A, B, F> fmt::Debug for KeyedBroadcastConnectedStreams<K, A, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} with {:?}", self.stream, self.broadcast)
    }
}

impl<K, A, B, F> KeyedBroadcastConnectedStreams<K, A, B, F>
where
    K: Key,
    A: Record,
    B: Record,
    F: KeyOf<A, K>,
{
    pub(crate) fn new(stream: KeyedStream<K, A, F>, broadcast: DataStream<B>) -> Self {
        Self { stream, broadcast }
    }

    /// Runs a function with keyed state on the records of the first stream, and with the broadcast state that those of the second one
    /// change: Flink's `KeyedBroadcastProcessFunction`.
    ///
    /// ```
    /// use thalweg::prelude::*;
    ///
    /// /// Emits a user whose failed logins since the last one that was right are as many as the rule for their country allows.
    /// #[derive(State, Clone, Default)]
    /// struct TooMany {
    ///     failures: ValueState<u64>,
    /// }
    ///
    /// /// User, country, and whether it was right.
    /// type Login = (String, String, bool);
    ///
    /// impl KeyedBroadcastProcess<String, Login, (String, u64)> for TooMany {
    ///     type Key = String;
    ///     type Value = u64;
    ///     type Out = String;
    ///
    ///     fn on_record(
    ///         &mut self,
    ///         (user, country, is_right): Login,
    ///         allowed: &BroadcastState<String, u64>,
    ///         context: &mut Context<'_, String, String>,
    ///     ) -> Result<(), Failure> {
    ///         if is_right {
    ///             self.failures.clear(context);
    ///             return Ok(());
    ///         }
    ///         let failures = self.failures.get_or_insert_with(context, || 0);
    ///         *failures += 1;
    ///         if allowed.get(&country).is_some_and(|allowed| failures == allowed) {
    ///             context.emit(user);
    ///         }
    ///         Ok(())
    ///     }
    ///
    ///     fn on_broadcast(
    ///         &mut self,
    ///         (country, failures): (String, u64),
    ///         allowed: &mut BroadcastState<String, u64>,
    ///         _: &mut ProcessContext<'_, String>,
    ///     ) -> Result<(), Failure> {
    ///         allowed.insert(country, failures);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # fn topology(logins: DataStream<Login>, rules: DataStream<(String, u64)>) {
    /// logins
    ///     .key_by(|login| login.0.clone())
    ///     .connect_broadcast(&rules)
    ///     .process(TooMany::default())
    ///     .uid("too-many-failures")
    ///     .print();
    /// # }
    /// ```
    #[track_caller]
    pub fn process<P: KeyedBroadcastProcess<K, A, B>>(&self, mut process: P) -> DataStream<P::Out> {
        let mut spec = NodeSpec::new("broadcast_process", "Broadcast Process", Place::caller());
        let stream = self.stream.stream();
        spec.states = declared_states::<K>(stream.environment(), &mut process, P::TIMERS, spec.place);
        spec.key_schema = Some(K::schema());
        spec.has_side_outputs = true;
        spec.remembers(|states| Broadcasting::<_, P::Key, P::Value>::new(()).broadcast_state(states));
        let key = self.stream.key().clone();
        let factory = operators::keyed_broadcast::<K, A, B, _, _>(key.clone(), process);
        let keyed = || -> EdgeMaker {
            let key = key.clone();
            Box::new(move |_| EdgeCode::hash_first::<A, B, K>(key))
        };
        let broadcast = || -> EdgeMaker { Box::new(unkeyed::<Either<A, B>>) };
        attach_sides(stream, &self.broadcast, spec, factory, &keyed, &broadcast)
    }
}
