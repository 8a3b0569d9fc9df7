//! The sessions of a key: what its row holds of windows that end when nothing came for a while.
//!
//! Invariants: sessions are sorted and neither overlap nor touch; the newest lies in the key's row itself, because nearly all records go
//! there. Two sessions that are joined by a record have their accumulators merged; no record is looked at again.

use std::collections::VecDeque;

use thalweg_common::failure::Failure;
use thalweg_common::record::{DecodeError, Record};
use thalweg_common::schema::{Field, Schema};
use thalweg_common::{Record, Timestamp};

use super::aggregate::WindowAggregate;
use super::time_window::TimeWindow;

#[derive(Debug, Clone, PartialEq, Record)]
#[record(crate = thalweg_common)]
struct Session<A> {
    window: TimeWindow,
    accumulator: A,
}

/// All sessions of a key that are not forgotten.
#[derive(Debug, Clone, PartialEq)]
pub struct Sessions<A> {
    /// For when the earliest timer is registered of which this key knows.
    pub(crate) wake: Timestamp,
    /// The sessions that end up to here have fired. It is kept because watermarks are not: behind a restart a late record is still
    /// known to be one.
    pub(crate) fired: Timestamp,
    newest: Session<A>,
    #[expect(clippy::box_collection, reason = "the row of a key stays small")]
    earlier: Option<Box<VecDeque<Session<A>>>>,
}

impl<A: Record> Sessions<A> {
    /// With the first session.
    pub fn new(window: TimeWindow, accumulator: A, wake: Timestamp) -> Self {
        Self { wake, fired: Timestamp::MIN, newest: Session { window, accumulator }, earlier: None }
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        1 + self.earlier.as_ref().map_or(0, |earlier| earlier.len())
    }

    /// Whether a record with this window would join or extend a session.
    #[inline]
    pub fn touches(&self, window: &TimeWindow) -> bool {
        self.newest.window.touches(window) || self.earlier_touching(window).is_some()
    }

    fn earlier_touching(&self, window: &TimeWindow) -> Option<usize> {
        let earlier = self.earlier.as_ref()?;
        let first = earlier.partition_point(|session| session.window.end < window.start);
        earlier.get(first).filter(|session| session.window.touches(window)).map(|_| first)
    }

    /// Adds a record whose own window this is, and says which session it is part of now.
    ///
    /// # Errors
    /// If the aggregate cannot be merged and the record joins two sessions.
    #[inline]
    pub fn add<In, G>(&mut self, window: TimeWindow, record: In, aggregate: &G) -> Result<TimeWindow, Failure>
    where
        G: WindowAggregate<In, Accumulator = A>,
    {
        if window.start > self.newest.window.end {
            let newest = Session { window, accumulator: aggregate.first(record) };
            let before = std::mem::replace(&mut self.newest, newest);
            self.earlier.get_or_insert_default().push_back(before);
            return Ok(window);
        }
        if window.end < self.newest.window.start {
            return self.add_earlier(window, record, aggregate);
        }
        self.newest.window = self.newest.window.cover(&window);
        if let Some(earlier) = &mut self.earlier {
            while let Some(before) = earlier.pop_back_if(|last| last.window.touches(&self.newest.window)) {
                self.newest.put_behind(before, aggregate)?;
            }
        }
        aggregate.add(&mut self.newest.accumulator, record);
        Ok(self.newest.window)
    }

    #[cold]
    fn add_earlier<In, G>(
        &mut self,
        window: TimeWindow,
        record: In,
        aggregate: &G,
    ) -> Result<TimeWindow, Failure>
    where
        G: WindowAggregate<In, Accumulator = A>,
    {
        let touching = self.earlier_touching(&window);
        let earlier = self.earlier.get_or_insert_default();
        let Some(first) = touching else {
            let at = earlier.partition_point(|session| session.window.end < window.start);
            earlier.insert(at, Session { window, accumulator: aggregate.first(record) });
            return Ok(window);
        };
        let behind = earlier.partition_point(|session| session.window.start <= window.end);
        let mut joined = earlier.drain(first + 1..behind).collect::<Vec<_>>().into_iter().rev();
        let Some(session) = earlier.get_mut(first) else { return Ok(window) };
        session.window = session.window.cover(&window);
        if let Some(mut last) = joined.next() {
            for before in joined {
                last.put_behind(before, aggregate)?;
            }
            session.window = session.window.cover(&last.window);
            aggregate.merge(&mut session.accumulator, last.accumulator)?;
        }
        aggregate.add(&mut session.accumulator, record);
        Ok(session.window)
    }

    /// The session that ends at `end`.
    pub fn ending(&self, end: Timestamp) -> Option<(TimeWindow, &A)> {
        if self.newest.window.end == end {
            return Some((self.newest.window, &self.newest.accumulator));
        }
        let earlier = self.earlier.as_ref()?;
        let at = earlier.partition_point(|session| session.window.end < end);
        earlier
            .get(at)
            .filter(|session| session.window.end == end)
            .map(|session| (session.window, &session.accumulator))
    }

    /// Forgets the sessions before the first for which `is_over` does not hold. Says whether any is left; if none is, the value is
    /// to be dropped.
    pub fn forget(&mut self, is_over: impl Fn(TimeWindow) -> bool) -> bool {
        if let Some(earlier) = &mut self.earlier {
            while earlier.pop_front_if(|session| is_over(session.window)).is_some() {}
            if !earlier.is_empty() {
                return true;
            }
            self.earlier = None;
        }
        !is_over(self.newest.window)
    }

    /// The first session.
    pub fn first(&self) -> TimeWindow {
        let first = self.earlier.as_ref().and_then(|earlier| earlier.front());
        first.unwrap_or(&self.newest).window
    }

    /// The first session that ends behind `time`.
    pub fn first_ending_behind(&self, time: Timestamp) -> Option<TimeWindow> {
        let earlier = self
            .earlier
            .as_ref()
            .and_then(|earlier| earlier.get(earlier.partition_point(|session| session.window.end <= time)));
        let newest = (self.newest.window.end > time).then_some(&self.newest);
        earlier.or(newest).map(|session| session.window)
    }
}

impl<A: Record> Session<A> {
    /// Joins with the session before it.
    fn put_behind<In, G>(&mut self, before: Self, aggregate: &G) -> Result<(), Failure>
    where
        G: WindowAggregate<In, Accumulator = A>,
    {
        self.window = self.window.cover(&before.window);
        let later = std::mem::replace(&mut self.accumulator, before.accumulator);
        aggregate.merge(&mut self.accumulator, later)
    }
}

/// The two times, then a list of all sessions in their order.
impl<A: Record> Record for Sessions<A> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.wake.encode(out);
        self.fired.encode(out);
        (self.len() as u64).encode(out);
        for session in self.earlier.iter().flat_map(|earlier| earlier.iter()) {
            session.encode(out);
        }
        self.newest.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        let (wake, fired) = <(Timestamp, Timestamp)>::decode(bytes)?;
        let mut sessions = VecDeque::<Session<A>>::decode(bytes)?;
        let newest = sessions.pop_back().ok_or_else(|| DecodeError::new::<Self>("it has no session"))?;
        let earlier = (!sessions.is_empty()).then(|| Box::new(sessions));
        Ok(Self { wake, fired, newest, earlier })
    }

    fn schema() -> Schema {
        let sessions = Schema::List(Box::new(Session::<A>::schema()));
        let times = ["wake", "fired"].map(|name| Field::new(name, Timestamp::schema()));
        let fields = times.into_iter().chain([Field::new("sessions", sessions)]).collect();
        Schema::Struct { name: "Sessions".into(), fields }
    }
}
