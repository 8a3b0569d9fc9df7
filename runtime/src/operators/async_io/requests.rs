//! The requests of a subtask that are under way: polled together, each at most until its deadline.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use futures_util::future::{AbortHandle, Abortable};
use thalweg_common::failure::Failure;

use super::queue::Number;
use crate::io::{self, Boxed, Io};

/// What a request will have answered.
pub(super) type Answer<Out> = Boxed<Result<Vec<Out>, Failure>>;

/// Says which record an answer is for.
type Numbered<Out> = Boxed<(Number, Result<Vec<Out>, Failure>)>;

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
    under_way: io::Requests<Abortable<Numbered<Out>>>,
    /// Of records that have no results yet.
    open: HashMap<Number, Request>,
    /// In the order in which they began, which is that of their deadlines.
    deadlines: VecDeque<(Duration, Number)>,
    pauses: BinaryHeap<Reverse<(Duration, Number)>>,
    timeout: Duration,
}

impl<Out: Send + 'static> Requests<Out> {
    pub(super) fn new(timeout: Duration, io: &Io) -> Self {
        let (open, deadlines, pauses) = Default::default();
        Self { under_way: io.requests(), open, deadlines, pauses, timeout }
    }

    /// Makes the first request of a record, or another one.
    pub(super) fn begin(&mut self, number: Number, now: Duration, request: impl FnOnce() -> Answer<Out>) {
        let (abort, registration) = AbortHandle::new_pair();
        self.under_way.begin(|| {
            let answer = request();
            let numbered: Numbered<Out> = Box::pin(async move { (number, answer.await) });
            Abortable::new(numbered, registration)
        });
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
        loop {
            // Nothing but an error: it has timed out.
            if let Ok(answered) = self.under_way.answer()? {
                return Some(answered);
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
