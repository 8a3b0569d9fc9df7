//! How sources and sinks ask the outside without making their task wait: requests that the task polls.
//!
//! Beside a record's way: [`OpenContext`](crate::operator::OpenContext) carries an [`Io`]. Requests are polled on the thread of their slot, with
//! the worker's runtime for sockets and timers only, so that what it costs to decode an answer counts as time in which the task is busy, a
//! panic is the task's, and neither heartbeats nor other tasks wait for it. Whatever completes a request wakes the task. Invariants: nothing
//! that is under way outlives its [`Requests`]; a request makes progress only while its task polls.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use thalweg_common::failure::Failure;
use tokio::runtime::Handle;

use crate::exchange::TaskWaker;

/// What a source or sink needs to ask the outside.
///
/// ```
/// use std::time::Duration;
///
/// use thalweg_runtime::io::{BoxedRequests, Io};
///
/// let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
/// let io = Io::on(runtime.handle().clone());
/// let mut requests: BoxedRequests<u32> = io.requests();
/// requests.begin(|| Box::pin(async { 7 }));
/// assert_eq!((requests.answer(), requests.len()), (Some(7), 0));
/// ```
#[derive(Clone, Default)]
pub struct Io {
    waker: Option<TaskWaker>,
    /// None in a test of an operator that asks nobody.
    runtime: Option<Handle>,
}

impl Io {
    pub(crate) fn new(waker: TaskWaker, runtime: Option<Handle>) -> Self {
        Self { waker: Some(waker), runtime }
    }

    /// On this runtime, without a task that is woken: for tests.
    #[must_use]
    pub fn on(runtime: Handle) -> Self {
        Self { waker: None, runtime: Some(runtime) }
    }

    /// Room for requests of one kind.
    #[must_use]
    pub fn requests<F: Future>(&self) -> Requests<F> {
        let waker = match &self.waker {
            Some(waker) => Waker::from(Arc::new(WakeTask(waker.clone()))),
            None => Waker::noop().clone(),
        };
        Requests { under_way: Mutex::default(), count: 0, waker, runtime: self.runtime.clone() }
    }

    /// Waits for an answer, where that is allowed: in a [`SplitEnumerator`](crate::split::SplitEnumerator), which has a thread of its own.
    ///
    /// # Errors
    /// When there is no runtime, as in a test without one.
    pub fn wait_for<F: Future>(&self, request: F) -> Result<F::Output, Failure> {
        let missing = || Failure::internal("whoever asks the outside needs a runtime, and there is none");
        Ok(self.runtime.as_ref().ok_or_else(missing)?.block_on(request))
    }
}

impl fmt::Debug for Io {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Io").field("has_runtime", &self.runtime.is_some()).finish_non_exhaustive()
    }
}

struct WakeTask(TaskWaker);

impl Wake for WakeTask {
    fn wake(self: Arc<Self>) {
        self.0.wake();
    }
}

/// A request of any type.
pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Requests of any types, whose answers have one.
pub type BoxedRequests<T> = Requests<Boxed<T>>;

/// Requests under way. What is not answered ends when this is dropped.
pub struct Requests<F: Future> {
    /// Never locked: with it those who have requests may be shared, as prototypes are.
    under_way: Mutex<FuturesUnordered<F>>,
    count: usize,
    waker: Waker,
    runtime: Option<Handle>,
}

impl<F: Future> Requests<F> {
    /// Begins a request. It is polled by [`answer`](Self::answer).
    pub fn begin(&mut self, request: impl FnOnce() -> F) {
        let _entered = self.runtime.as_ref().map(Handle::enter);
        let request = request();
        self.under_way.get_mut().unwrap_or_else(PoisonError::into_inner).push(request);
        self.count += 1;
    }

    /// The next answer that is there. Polls what is under way, so a task calls it at each turn until there is none.
    pub fn answer(&mut self) -> Option<F::Output> {
        let _entered = self.runtime.as_ref().map(Handle::enter);
        let under_way = self.under_way.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Poll::Ready(answer) = under_way.poll_next_unpin(&mut Context::from_waker(&self.waker)) else {
            return None;
        };
        self.count -= usize::from(answer.is_some());
        answer
    }

    /// Waits for the next answer on the thread of the slot, where a task must not go on without it: at a barrier. None if nothing is under
    /// way, and when there is no runtime.
    pub fn wait(&mut self) -> Option<F::Output> {
        let runtime = self.runtime.clone()?;
        let under_way = self.under_way.get_mut().unwrap_or_else(PoisonError::into_inner);
        let answer = runtime.block_on(under_way.next());
        self.count -= usize::from(answer.is_some());
        answer
    }

    /// How many are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<F: Future> Drop for Requests<F> {
    fn drop(&mut self) {
        // What was begun may want the runtime when it is dropped.
        let _entered = self.runtime.as_ref().map(Handle::enter);
        self.under_way.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl<F: Future> fmt::Debug for Requests<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Requests").field("under_way", &self.count).finish_non_exhaustive()
    }
}
