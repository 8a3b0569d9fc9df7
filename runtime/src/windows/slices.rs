//! The slices of a key: what its row holds of windows that are aligned to the clock.
//!
//! A record is added once, to its slice. A window that fires merges its slices, and most of that is not done anew for each window: what
//! windows have in common is kept as a running total, out of which slices that leave are subtracted; or, where an aggregate cannot do
//! that, as two halves ("two stacks"): merged ends of the older slices, and a running total of the younger ones. Either way a window
//! costs about two merges, however many slices it has. That part is a cache and never stored.
//!
//! Invariants: slices are sorted, and none is empty; the newest lies in the key's row itself, because nearly all records go there.

use std::collections::VecDeque;
use std::ops::Range;

use thalweg_common::failure::Failure;
use thalweg_common::record::{DecodeError, Record};
use thalweg_common::schema::{Field, Schema};
use thalweg_common::{Record, Timestamp};

use super::aggregate::WindowAggregate;
use super::time_window::TimeWindow;

/// From how many slices on it pays to remember what windows have in common.
const MIN_SHARED_SLICES: usize = 4;

/// What was added up between two starts or ends of windows.
#[derive(Debug, Clone, PartialEq, Record)]
#[record(crate = thalweg_common)]
struct Slice<A> {
    start: Timestamp,
    accumulator: A,
}

/// All slices of a key that are part of windows which are not forgotten.
#[derive(Debug, Clone)]
pub struct Slices<A> {
    /// For when the earliest timer is registered of which this key knows.
    pub(crate) wake: Timestamp,
    /// The windows that end up to here have fired, those behind it have not. It is kept because watermarks are not: behind a restart a
    /// late record is still known to be one.
    pub(crate) fired: Timestamp,
    newest: Slice<A>,
    earlier: Option<Box<Earlier<A>>>,
}

#[derive(Debug, Clone)]
struct Earlier<A> {
    slices: VecDeque<Slice<A>>,
    shared: Option<Shared<A>>,
}

/// What the last window had in common with the next one.
#[derive(Debug, Clone)]
struct Shared<A> {
    /// The window that was merged last.
    window: TimeWindow,
    parts: Parts<A>,
}

#[derive(Debug, Clone)]
enum Parts<A> {
    /// All slices of the window, as far as they are still there.
    Total(A),
    Halves {
        /// Of each slice before `middle` all from there up to `middle`, the earliest slice last.
        ends: Vec<Slice<A>>,
        middle: Timestamp,
        /// All slices from `middle` on.
        rest: Option<A>,
    },
}

impl<A: Record> Slices<A> {
    /// With the first slice.
    pub fn new(start: Timestamp, accumulator: A, wake: Timestamp) -> Self {
        Self { wake, fired: Timestamp::MIN, newest: Slice { start, accumulator }, earlier: None }
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        1 + self.earlier.as_ref().map_or(0, |earlier| earlier.slices.len())
    }

    /// Adds a record to the slice that begins at `start`.
    #[inline]
    pub fn add<In, G>(&mut self, start: Timestamp, record: In, aggregate: &G)
    where
        G: WindowAggregate<In, Accumulator = A>,
    {
        if start <= self.fired {
            self.stop_sharing();
        }
        if start == self.newest.start {
            aggregate.add(&mut self.newest.accumulator, record);
        } else if start > self.newest.start {
            let newest = Slice { start, accumulator: aggregate.first(record) };
            let before = std::mem::replace(&mut self.newest, newest);
            self.earlier.get_or_insert_default().slices.push_back(before);
        } else {
            self.add_earlier(start, record, aggregate);
        }
    }

    #[cold]
    fn add_earlier<In, G>(&mut self, start: Timestamp, record: In, aggregate: &G)
    where
        G: WindowAggregate<In, Accumulator = A>,
    {
        let earlier = self.earlier.get_or_insert_default();
        let at = earlier.from(start);
        match earlier.slices.get_mut(at) {
            Some(slice) if slice.start == start => {
                aggregate.add(&mut slice.accumulator, record);
            }
            _ => earlier.slices.insert(at, Slice { start, accumulator: aggregate.first(record) }),
        }
    }

    /// A slice changes of which windows have fired: its record is late.
    #[cold]
    fn stop_sharing(&mut self) {
        if let Some(earlier) = &mut self.earlier {
            earlier.shared = None;
        }
    }

    /// The first slice that begins at `time` or later.
    pub(crate) fn first_from(&self, time: Timestamp) -> Option<Timestamp> {
        let earlier = self.earlier.as_ref();
        let slice = earlier.and_then(|earlier| earlier.slices.get(earlier.from(time)));
        slice.or((self.newest.start >= time).then_some(&self.newest)).map(|slice| slice.start)
    }

    /// The first slice.
    pub(crate) fn first(&self) -> Timestamp {
        let slice = self.earlier.as_ref().and_then(|earlier| earlier.slices.front());
        slice.unwrap_or(&self.newest).start
    }

    /// Forgets the slices before the first for which `is_over` does not hold. Says whether any is left; if none is, the value is to
    /// be dropped.
    pub fn forget<In, G>(&mut self, aggregate: &G, is_over: impl Fn(Timestamp) -> bool) -> bool
    where
        G: WindowAggregate<In, Accumulator = A>,
    {
        if let Some(earlier) = &mut self.earlier {
            while let Some(slice) = earlier.slices.pop_front_if(|slice| is_over(slice.start)) {
                earlier.leaves(&slice, aggregate);
            }
            if !earlier.slices.is_empty() {
                return true;
            }
        }
        !is_over(self.newest.start)
    }

    /// Takes the first slice out if it is the one that begins at `start` and others are left.
    pub(crate) fn take_first(&mut self, start: Timestamp) -> Option<A> {
        let slices = &mut self.earlier.as_mut()?.slices;
        slices.pop_front_if(|slice| slice.start == start).map(|slice| slice.accumulator)
    }

    /// Whether the slice that begins at `start` is the only one.
    pub(crate) fn is_only(&self, start: Timestamp) -> bool {
        self.newest.start == start && self.earlier.as_ref().is_none_or(|earlier| earlier.slices.is_empty())
    }

    /// The newest slice, where the others do not matter.
    pub(crate) fn into_newest(self) -> A {
        self.newest.accumulator
    }

    /// All records of a window that fires, if there are any.
    ///
    /// # Errors
    /// If the aggregate cannot be merged and the window has several slices.
    pub fn combine<In, G>(&mut self, window: TimeWindow, aggregate: &G) -> Result<Option<A>, Failure>
    where
        G: WindowAggregate<In, Accumulator = A>,
    {
        self.fired = self.fired.max(window.max_timestamp());
        let Some(earlier) = &mut self.earlier else {
            let is_inside = window.start <= self.newest.start && self.newest.start < window.end;
            return Ok(is_inside.then(|| self.newest.accumulator.clone()));
        };
        earlier.combine(&self.newest, window, aggregate)
    }
}

impl<A: Record> Earlier<A> {
    /// The place of the first slice that begins at `time` or later.
    fn from(&self, time: Timestamp) -> usize {
        match self.slices.back() {
            Some(last) if last.start < time => self.slices.len(),
            _ => self.slices.partition_point(|slice| slice.start < time),
        }
    }

    fn leaves<In, G: WindowAggregate<In, Accumulator = A>>(&mut self, slice: &Slice<A>, aggregate: &G) {
        if let Some(shared) = &mut self.shared
            && let Parts::Total(total) = &mut shared.parts
            && (shared.window.start..shared.window.end).contains(&slice.start)
        {
            aggregate.subtract(total, &slice.accumulator);
            shared.window.start = slice.start.saturating_add(1);
        }
    }

    fn combine<In, G>(
        &mut self,
        newest: &Slice<A>,
        window: TimeWindow,
        aggregate: &G,
    ) -> Result<Option<A>, Failure>
    where
        G: WindowAggregate<In, Accumulator = A>,
    {
        let range = self.from(window.start)..self.from(window.end);
        let last = (window.start <= newest.start && newest.start < window.end).then_some(newest);
        let slices = range.len() + usize::from(last.is_some());
        if slices == 0 {
            return Ok(None);
        }
        let is_next = self
            .shared
            .as_ref()
            .is_none_or(|shared| window.start >= shared.window.start && window.end >= shared.window.end);
        if slices < MIN_SHARED_SLICES || !is_next {
            // An older window that fires again changes nothing for the next ones.
            return fold(self.slices.range(range).chain(last), aggregate);
        }
        let shared = match self.shared.take() {
            Some(shared) if window.start < shared.window.end => {
                self.advance(shared, last, window, aggregate)?
            }
            _ => self.begin(range, last, window, aggregate)?,
        };
        let result = match &shared.parts {
            Parts::Total(total) => Some(total.clone()),
            Parts::Halves { ends, rest, .. } => {
                let mut result = ends.last().map(|slice| slice.accumulator.clone());
                merge_into(&mut result, rest.clone(), aggregate)?;
                result
            }
        };
        self.shared = Some(shared);
        Ok(result)
    }

    /// Begins anew with a window.
    fn begin<In, G>(
        &self,
        range: Range<usize>,
        last: Option<&Slice<A>>,
        window: TimeWindow,
        aggregate: &G,
    ) -> Result<Shared<A>, Failure>
    where
        G: WindowAggregate<In, Accumulator = A>,
    {
        let slices = self.slices.range(range).chain(last);
        if aggregate.is_invertible()
            && let Some(total) = fold(slices.clone(), aggregate)?
        {
            return Ok(Shared { window, parts: Parts::Total(total) });
        }
        let mut ends: Vec<Slice<A>> = Vec::new();
        for slice in slices.rev() {
            let mut accumulator = slice.accumulator.clone();
            if let Some(behind) = ends.last() {
                aggregate.merge(&mut accumulator, behind.accumulator.clone())?;
            }
            ends.push(Slice { start: slice.start, accumulator });
        }
        Ok(Shared { window, parts: Parts::Halves { ends, middle: window.end, rest: None } })
    }

    /// Goes on to a later window that has something in common with the last one.
    fn advance<In, G>(
        &self,
        mut shared: Shared<A>,
        last: Option<&Slice<A>>,
        window: TimeWindow,
        aggregate: &G,
    ) -> Result<Shared<A>, Failure>
    where
        G: WindowAggregate<In, Accumulator = A>,
    {
        let new = self.from(shared.window.end)..self.from(window.end);
        let new_last = last.filter(|slice| slice.start >= shared.window.end);
        match &mut shared.parts {
            Parts::Total(total) => {
                for slice in self.slices.range(self.from(shared.window.start)..self.from(window.start)) {
                    aggregate.subtract(total, &slice.accumulator);
                }
                for slice in self.slices.range(new).chain(new_last) {
                    aggregate.merge(total, slice.accumulator.clone())?;
                }
            }
            Parts::Halves { ends, middle, rest } => {
                if window.start >= *middle {
                    let range = self.from(window.start)..self.from(window.end);
                    return self.begin(range, last, window, aggregate);
                }
                while ends.pop_if(|slice| slice.start < window.start).is_some() {}
                for slice in self.slices.range(new).chain(new_last) {
                    merge_into(rest, Some(slice.accumulator.clone()), aggregate)?;
                }
            }
        }
        shared.window = window;
        Ok(shared)
    }
}

/// Merges slices in their order.
fn fold<'a, In, A, G>(slices: impl Iterator<Item = &'a Slice<A>>, aggregate: &G) -> Result<Option<A>, Failure>
where
    A: Record,
    G: WindowAggregate<In, Accumulator = A>,
{
    let mut result = None;
    for slice in slices {
        merge_into(&mut result, Some(slice.accumulator.clone()), aggregate)?;
    }
    Ok(result)
}

fn merge_into<In, A, G>(result: &mut Option<A>, later: Option<A>, aggregate: &G) -> Result<(), Failure>
where
    G: WindowAggregate<In, Accumulator = A>,
{
    match (result.as_mut(), later) {
        (Some(result), Some(later)) => aggregate.merge(result, later)?,
        (None, later) => *result = later,
        (Some(_), None) => {}
    }
    Ok(())
}

impl<A> Default for Earlier<A> {
    fn default() -> Self {
        Self { slices: VecDeque::new(), shared: None }
    }
}

/// The two times, then a list of all slices in their order.
impl<A: Record> Record for Slices<A> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.wake.encode(out);
        self.fired.encode(out);
        (self.len() as u64).encode(out);
        for slice in self.earlier.iter().flat_map(|earlier| &earlier.slices) {
            slice.encode(out);
        }
        self.newest.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        let (wake, fired) = <(Timestamp, Timestamp)>::decode(bytes)?;
        let mut slices = VecDeque::<Slice<A>>::decode(bytes)?;
        let newest = slices.pop_back().ok_or_else(|| DecodeError::new::<Self>("it has no slice"))?;
        let earlier = (!slices.is_empty()).then(|| Box::new(Earlier { slices, shared: None }));
        Ok(Self { wake, fired, newest, earlier })
    }

    fn schema() -> Schema {
        let slices = Schema::List(Box::new(Slice::<A>::schema()));
        let times = ["wake", "fired"].map(|name| Field::new(name, Timestamp::schema()));
        let fields = times.into_iter().chain([Field::new("slices", slices)]).collect();
        Schema::Struct { name: "Slices".into(), fields }
    }
}
