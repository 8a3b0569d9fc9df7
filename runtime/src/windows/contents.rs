//! What is kept of a window whose trigger or function is its own: an accumulator, or all elements.

use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_common::{Record, Timestamp};

use super::aggregate::WindowAggregate;
use super::evictor::Evictor;
use super::time_window::TimeWindow;

/// A record in a window, and when it happened.
#[derive(Debug, Clone, PartialEq, Record)]
#[record(crate = thalweg_common)]
pub struct Element<T> {
    /// The smallest number if its source did not say so.
    pub timestamp: Timestamp,
    /// The record.
    pub record: T,
}

/// How the records of a window are kept, and what it shows when it fires.
pub trait Contents<In>: Clone + Send + Sync + 'static {
    /// What is kept.
    type Stored: Record;
    /// What it shows.
    type Result;

    /// Adds a record.
    fn add(&self, stored: &mut Option<Self::Stored>, record: In, timestamp: Timestamp);

    /// Adds what another window has, which has become part of this one.
    ///
    /// # Errors
    /// If the aggregate cannot be merged.
    fn merge(&self, stored: &mut Option<Self::Stored>, later: Self::Stored) -> Result<(), Failure>;

    /// What the window shows. With `keeps` it stays what it is, as far as an evictor leaves it.
    fn fire(
        &self,
        stored: &mut Option<Self::Stored>,
        keeps: bool,
        window: TimeWindow,
    ) -> Option<Self::Result>;
}

/// An accumulator.
#[derive(Debug, Clone)]
pub struct Accumulated<A>(pub A);

impl<In, A: WindowAggregate<In>> Contents<In> for Accumulated<A> {
    type Stored = A::Accumulator;
    type Result = A::Out;

    fn add(&self, stored: &mut Option<A::Accumulator>, record: In, _: Timestamp) {
        match stored {
            Some(accumulator) => self.0.add(accumulator, record),
            None => *stored = Some(self.0.first(record)),
        }
    }

    fn merge(&self, stored: &mut Option<A::Accumulator>, later: A::Accumulator) -> Result<(), Failure> {
        match stored {
            Some(accumulator) => self.0.merge(accumulator, later),
            None => {
                *stored = Some(later);
                Ok(())
            }
        }
    }

    fn fire(&self, stored: &mut Option<A::Accumulator>, keeps: bool, _: TimeWindow) -> Option<A::Out> {
        let accumulator = if keeps { stored.clone() } else { stored.take() };
        accumulator.map(|accumulator| self.0.result(accumulator))
    }
}

/// All elements, for a function that sees them all.
#[derive(Debug, Clone)]
pub struct Listed;

impl<In: Record> Contents<In> for Listed {
    type Stored = Vec<Element<In>>;
    type Result = Vec<In>;

    fn add(&self, stored: &mut Option<Vec<Element<In>>>, record: In, timestamp: Timestamp) {
        stored.get_or_insert_default().push(Element { timestamp, record });
    }

    fn merge(&self, stored: &mut Option<Vec<Element<In>>>, later: Vec<Element<In>>) -> Result<(), Failure> {
        stored.get_or_insert_default().extend(later);
        Ok(())
    }

    fn fire(&self, stored: &mut Option<Vec<Element<In>>>, keeps: bool, _: TimeWindow) -> Option<Vec<In>> {
        if keeps {
            let elements = stored.as_ref()?;
            return Some(elements.iter().map(|element| element.record.clone()).collect());
        }
        Some(stored.take()?.into_iter().map(|element| element.record).collect())
    }
}

/// All elements, of which an evictor takes some out.
#[derive(Debug, Clone)]
pub struct Evicted<E>(pub E);

impl<In: Record, E: Evictor<In>> Contents<In> for Evicted<E> {
    type Stored = Vec<Element<In>>;
    type Result = Vec<In>;

    fn add(&self, stored: &mut Option<Vec<Element<In>>>, record: In, timestamp: Timestamp) {
        Listed.add(stored, record, timestamp);
    }

    fn merge(&self, stored: &mut Option<Vec<Element<In>>>, later: Vec<Element<In>>) -> Result<(), Failure> {
        Listed.merge(stored, later)
    }

    fn fire(
        &self,
        stored: &mut Option<Vec<Element<In>>>,
        keeps: bool,
        window: TimeWindow,
    ) -> Option<Vec<In>> {
        let elements = stored.as_mut()?;
        self.0.evict_before(elements, window);
        let result = Listed.fire(stored, keeps, window);
        if let Some(elements) = stored {
            self.0.evict_after(elements, window);
            if elements.is_empty() {
                *stored = None;
            }
        }
        result
    }
}

/// All elements, of which an evictor takes some out, and the others are aggregated. If none is left, the window shows nothing.
#[derive(Debug, Clone)]
pub struct EvictedAggregate<E, A> {
    /// Takes out.
    pub evictor: E,
    /// Aggregates.
    pub aggregate: A,
}

impl<In, E, A> Contents<In> for EvictedAggregate<E, A>
where
    In: Record,
    E: Evictor<In>,
    A: WindowAggregate<In>,
{
    type Stored = Vec<Element<In>>;
    type Result = A::Out;

    fn add(&self, stored: &mut Option<Vec<Element<In>>>, record: In, timestamp: Timestamp) {
        Listed.add(stored, record, timestamp);
    }

    fn merge(&self, stored: &mut Option<Vec<Element<In>>>, later: Vec<Element<In>>) -> Result<(), Failure> {
        Listed.merge(stored, later)
    }

    fn fire(&self, stored: &mut Option<Vec<Element<In>>>, keeps: bool, window: TimeWindow) -> Option<A::Out> {
        let mut records = Evicted(self.evictor.clone()).fire(stored, keeps, window)?.into_iter();
        let mut accumulator = self.aggregate.first(records.next()?);
        for record in records {
            self.aggregate.add(&mut accumulator, record);
        }
        Some(self.aggregate.result(accumulator))
    }
}
