//! Asynchronous I/O: a request to the outside for each record, many of them at the same time.
//!
//! On a record's way this stands in the chain like every operator. Its requests are futures, which the task polls itself between its
//! batches, on the thread of its slot, so that user code hurts nobody else; whoever completes one wakes the task. Sockets and timers of
//! tokio work in them. Follows Flink's `AsyncWaitOperator`. Invariants: no more requests at a time than the capacity, beyond that the task
//! reads no more; a record whose result has not left is part of every snapshot, and its request is made again at a restore; a request
//! that never ends meets its timeout, so that neither the input's end nor back pressure waits for ever.

mod async_wait;
mod lookup;
mod lookup_cache;
mod queue;
mod requests;
mod retry;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::graph::{StateDescriptor, StateKind};
use thalweg_common::record::Record;
use thalweg_common::task_scope::BoxError;

use self::async_wait::{AsyncWait, Functions, KeyHash, OnTimeout, Request};
pub use self::lookup::Lookup;
pub use self::lookup_cache::LookupCache;
pub use self::retry::AsyncRetry;
use super::factory;
use crate::operator::{Key, OpenContext, user_failure};
use crate::program::OperatorFactory;

/// The name of the state in which records are whose results have not left.
const STATE: &str = "in_flight";

/// In which order results leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AsyncOrder {
    /// As their records came: Flink's `orderedWait`. A slow request holds up the results of those behind it.
    #[default]
    Ordered,
    /// As they come: Flink's `unorderedWait`. Watermarks keep their place all the same: no result passes one.
    Unordered,
}

/// How asynchronous requests are made.
#[derive(Debug, Clone)]
pub struct AsyncOptions {
    order: AsyncOrder,
    capacity: usize,
    timeout: Duration,
    retry: AsyncRetry,
}

impl AsyncOptions {
    /// Results leave in the order of their records.
    #[must_use]
    pub fn ordered() -> Self {
        let (capacity, timeout) = (100, Duration::from_secs(180));
        Self { order: AsyncOrder::Ordered, capacity, timeout, retry: AsyncRetry::none() }
    }

    /// Results leave as they come.
    #[must_use]
    pub fn unordered() -> Self {
        Self { order: AsyncOrder::Unordered, ..Self::ordered() }
    }

    /// How many records of a subtask may wait for their results at the same time: 100 unless set, as in Flink. At least 1.
    #[must_use]
    pub fn capacity(mut self, records: usize) -> Self {
        self.capacity = records.max(1);
        self
    }

    /// How long a record may wait for its result, with all tries: 3 minutes unless set. Then the task fails, unless there is a function
    /// for that.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Whether and when a request that failed is repeated: not unless set.
    #[must_use]
    pub fn retry(mut self, retry: AsyncRetry) -> Self {
        self.retry = retry;
        self
    }
}

/// Makes the function of a subtask that makes its requests.
type OpenRequest<In, Out> = Arc<dyn Fn(&OpenContext) -> Request<In, Out> + Send + Sync>;

/// An asynchronous operator that is being declared: `In` to any number of `Out`.
pub struct AsyncIo<In, Out> {
    options: AsyncOptions,
    open: OpenRequest<In, Out>,
    on_timeout: Option<OnTimeout<In, Out>>,
    key: Option<KeyHash<In>>,
}

impl<In, Out> Clone for AsyncIo<In, Out> {
    fn clone(&self) -> Self {
        let Self { options, open, on_timeout, key } = self;
        Self {
            options: options.clone(),
            open: Arc::clone(open),
            on_timeout: on_timeout.clone(),
            key: key.clone(),
        }
    }
}

impl<In, Out> fmt::Debug for AsyncIo<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.options, f)
    }
}

impl<In: Record, Out: Record> AsyncIo<In, Out> {
    /// Makes a request of each record; what it answers is emitted with the record's timestamp.
    pub fn new<F, Answer, I, E>(options: AsyncOptions, request: F) -> Self
    where
        F: Fn(In) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Result<I, E>> + Send + 'static,
        I: IntoIterator<Item = Out>,
        E: Into<BoxError>,
    {
        let request: Request<In, Out> = Arc::new(move |record: In| {
            let answer = request(record);
            Box::pin(async move {
                match answer.await {
                    Ok(results) => Ok(results.into_iter().collect()),
                    Err(error) => Err(user_failure(error)),
                }
            })
        });
        Self::opening(options, move |_| Arc::clone(&request))
    }

    /// The same with requests that each subtask makes in its own way.
    fn opening(
        options: AsyncOptions,
        open: impl Fn(&OpenContext) -> Request<In, Out> + Send + Sync + 'static,
    ) -> Self {
        Self { options, open: Arc::new(open), on_timeout: None, key: None }
    }

    /// The same for requests with one result each.
    pub fn single<F, Answer, E>(options: AsyncOptions, request: F) -> Self
    where
        F: Fn(In) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Result<Out, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self::new(options, move |record| {
            let answer = request(record);
            async move { answer.await.map(|result| [result]) }
        })
    }

    /// Gives the results of a record that has waited for longer than the timeout, where the task would fail otherwise.
    #[must_use]
    pub fn on_timeout<I, E>(mut self, function: impl Fn(In) -> Result<I, E> + Send + Sync + 'static) -> Self
    where
        I: IntoIterator<Item = Out>,
        E: Into<BoxError>,
    {
        let results = move |record| match function(record) {
            Ok(results) => Ok(results.into_iter().collect()),
            Err(error) => Err(user_failure(error)),
        };
        self.on_timeout = Some(Arc::new(results));
        self
    }

    /// Requests of records with the same key are made one after the other, each when the one before has its result.
    #[must_use]
    pub fn by_key<K: Key>(mut self, key: impl Fn(&In) -> K + Send + Sync + 'static) -> Self {
        self.key = Some(Arc::new(move |record: &In, scratch: &mut Vec<u8>| key(record).key_hash(scratch)));
        self
    }

    /// The state that the operator declares.
    #[must_use]
    pub fn state(&self) -> StateDescriptor {
        let kind = if self.key.is_some() { StateKind::UnionList } else { StateKind::SplitList };
        StateDescriptor::new(STATE, kind, In::schema())
    }

    /// What makes the operator.
    #[must_use]
    pub fn factory(self) -> Arc<dyn OperatorFactory> {
        let Self { options, open, on_timeout, key } = self;
        factory::operator::<In, Out>(move |context, next| {
            let name = context.open.operator_name.clone();
            let request = open(&context.open);
            let functions = Functions { request, on_timeout: on_timeout.clone(), key: key.clone() };
            let link = AsyncWait::open(options.clone(), functions, context, next);
            Ok(Box::new(link.map_err(|failure| failure.context(name))?))
        })
    }
}
