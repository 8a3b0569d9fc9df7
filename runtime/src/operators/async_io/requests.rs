//! The requests of a subtask that are under way: polled together, each at most until its deadline.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{AbortHandle, Abortable};
use futures_util::stream::FuturesUnordered;
use thalweg_common::failure::Failure;
use tokio::runtime::Handle;

use super::queue::Number;
use crate::exchange::TaskWaker;

/// What a request will have answered.
pub(super) type Answer<Out> = Pin<Box<dyn Future<Output = Result<Vec<Out>, Failure>> + Send>>;

/// Says which record an answer is for.
type Numbered<Out> = Pin<Box<dyn Future<Output = (Number, Result<Vec<Out>, Failure>)> + Send>>;

/// What has happened to the request of a record.
pub(super) enum Outcome<Out> {
    Answered(Number, Result<Vec<Out>, Failure>),
    /// It is time for another try.
    Again(Number),
    /// It has taken too long, with this many tries.
    TimedOut(Number, u32),
}

/// How far the request of a record is.
struct Request {
    tries: u32,
    /// Of the try that is under way.
    abort: Option<AbortHandle>,
}

/// Requests under way.
pub(super) struct Requests<Out> {
    under_way: FuturesUnordered<Abortable<Numbered<Out>>>,
    /// Of records that have no results yet.
    open: HashMap<Number, Request>,
    /// In the order in which they began, which is that of their deadlines.
    deadlines: VecDeque<(Duration, Number)>,
    pauses: BinaryHeap<Reverse<(Duration, Number)>>,
    timeout: Duration,
    waker: Waker,
    /// The runtime whose sockets and timers the requests use; none in a test of the operator alone.
    runtime: Option<Handle>,
}

struct WakeTask(TaskWaker);

impl Wake for WakeTask {
    fn wake(self: Arc<Self>) {
        self.0.wake();
    }
}

impl<Out> Drop for Requests<Out> {
    fn drop(&mut self) {
        // What user code has begun may want the runtime when it is dropped.
        let _entered = self.runtime.as_ref().map(Handle::enter);
        self.under_way.clear();
    }
}

impl<Out: Send + 'static> Requests<Out> {
    pub(super) fn new(timeout: Duration, waker: TaskWaker, runtime: Option<Handle>) -> Self {
        let waker = Waker::from(Arc::new(WakeTask(waker)));
        let (under_way, open, deadlines, pauses) = Default::default();
        Self { under_way, open, deadlines, pauses, timeout, waker, runtime }
    }

    /// Makes the first request of a record, or another one.
    pub(super) fn begin(&mut self, number: Number, now: Duration, request: impl FnOnce() -> Answer<Out>) {
        let answer = {
            let _entered = self.runtime.as_ref().map(Handle::enter);
            request()
        };
        let (abort, registration) = AbortHandle::new_pair();
        let numbered: Numbered<Out> = Box::pin(async move { (number, answer.await) });
        self.under_way.push(Abortable::new(numbered, registration));
        let deadlines = &mut self.deadlines;
        let request = self.open.entry(number).or_insert_with(|| {
            deadlines.push_back((now.saturating_add(self.timeout), number));
            Request { tries: 0, abort: None }
        });
        request.tries = request.tries.saturating_add(1);
        request.abort = Some(abort);
    }

    /// How often the request of a record was made.
    pub(super) fn tries(&self, number: Number) -> u32 {
        self.open.get(&number).map_or(0, |request| request.tries)
    }

    /// The request is made again behind a pause.
    pub(super) fn pause(&mut self, number: Number, until: Duration) {
        self.pauses.push(Reverse((until, number)));
    }

    /// The record has its results.
    pub(super) fn end(&mut self, number: Number) {
        if let Some(abort) = self.open.remove(&number).and_then(|request| request.abort) {
            abort.abort();
        }
    }

    /// What has happened next until `now`. An answer counts before a deadline that has passed meanwhile.
    pub(super) fn poll(&mut self, now: Duration) -> Option<Outcome<Out>> {
        if let Some((number, answer)) = self.answered() {
            return Some(Outcome::Answered(number, answer));
        }
        while let Some(Reverse((_, number))) = self.due(now) {
            if self.open.contains_key(&number) {
                return Some(Outcome::Again(number));
            }
        }
        self.timed_out(now).map(|(number, tries)| Outcome::TimedOut(number, tries))
    }

    fn answered(&mut self) -> Option<(Number, Result<Vec<Out>, Failure>)> {
        let _entered = self.runtime.as_ref().map(Handle::enter);
        let mut context = Context::from_waker(&self.waker);
        loop {
            match self.under_way.poll_next_unpin(&mut context) {
                Poll::Ready(Some(Ok(answered))) => return Some(answered),
                // It has timed out.
                Poll::Ready(Some(Err(_))) => {}
                Poll::Ready(None) | Poll::Pending => return None,
            }
        }
    }

    fn due(&mut self, now: Duration) -> Option<Reverse<(Duration, Number)>> {
        self.pauses.peek().is_some_and(|Reverse((at, _))| *at <= now).then(|| self.pauses.pop()).flatten()
    }

    fn timed_out(&mut self, now: Duration) -> Option<(Number, u32)> {
        while let Some((at, number)) = self.deadlines.front().copied() {
            match self.open.get(&number) {
                Some(_) if at > now => return None,
                Some(request) => {
                    self.deadlines.pop_front();
                    return Some((number, request.tries));
                }
                None => self.deadlines.pop_front(),
            };
        }
        None
    }

    /// When something happens at the latest although nobody answers.
    pub(super) fn alarm(&self) -> Option<Duration> {
        let pause = self.pauses.peek().map(|Reverse((at, _))| *at);
        let deadline = self.deadlines.front().map(|(at, _)| *at);
        pause.into_iter().chain(deadline).min()
    }
}
