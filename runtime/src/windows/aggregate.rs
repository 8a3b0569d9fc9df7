//! What windows do with aggregates: one interface over those that can be merged, those that cannot, reduce functions, and lists.

use thalweg_common::failure::Failure;
use thalweg_common::record::Record;

use crate::operator::{Aggregate, MergeAggregate};
use crate::operators::reduce_into;

/// How records become the result of a window.
pub trait WindowAggregate<In>: Clone + Send + Sync + 'static {
    /// What is kept of the records.
    type Accumulator: Record;
    /// What comes of it.
    type Out;

    /// The accumulator of one record.
    fn first(&self, record: In) -> Self::Accumulator;

    /// Adds a record.
    fn add(&self, accumulator: &mut Self::Accumulator, record: In);

    /// Adds the records of `later`, which come behind those of `accumulator`.
    ///
    /// # Errors
    /// If accumulators cannot be merged; the types of the windows that are used then keep this from happening.
    fn merge(&self, accumulator: &mut Self::Accumulator, later: Self::Accumulator) -> Result<(), Failure>;

    /// Whether [`subtract`](Self::subtract) works.
    fn is_invertible(&self) -> bool {
        false
    }

    /// Takes the records of `earlier` out again.
    fn subtract(&self, accumulator: &mut Self::Accumulator, earlier: &Self::Accumulator) {
        let _ = (accumulator, earlier);
    }

    /// The result.
    fn result(&self, accumulator: Self::Accumulator) -> Self::Out;
}

/// An aggregate whose accumulators can be merged.
#[derive(Debug, Clone)]
pub struct Merged<A> {
    aggregate: A,
    is_invertible: bool,
}

impl<A> Merged<A> {
    /// Of this aggregate.
    pub fn new<In>(aggregate: A) -> Self
    where
        A: MergeAggregate<In>,
    {
        let is_invertible = aggregate.subtract(&mut aggregate.create(), &aggregate.create());
        Self { aggregate, is_invertible }
    }
}

impl<In, A: MergeAggregate<In>> WindowAggregate<In> for Merged<A> {
    type Accumulator = A::Accumulator;
    type Out = A::Out;

    #[inline]
    fn first(&self, record: In) -> A::Accumulator {
        let mut accumulator = self.aggregate.create();
        self.aggregate.add(&mut accumulator, record);
        accumulator
    }

    #[inline]
    fn add(&self, accumulator: &mut A::Accumulator, record: In) {
        self.aggregate.add(accumulator, record);
    }

    #[inline]
    fn merge(&self, accumulator: &mut A::Accumulator, later: A::Accumulator) -> Result<(), Failure> {
        self.aggregate.merge(accumulator, later);
        Ok(())
    }

    #[inline]
    fn is_invertible(&self) -> bool {
        self.is_invertible
    }

    #[inline]
    fn subtract(&self, accumulator: &mut A::Accumulator, earlier: &A::Accumulator) {
        self.aggregate.subtract(accumulator, earlier);
    }

    #[inline]
    fn result(&self, accumulator: A::Accumulator) -> A::Out {
        self.aggregate.result(&accumulator)
    }
}

/// An aggregate for windows that share nothing and never become one.
#[derive(Debug, Clone)]
pub struct Alone<A>(pub A);

impl<In, A: Aggregate<In>> WindowAggregate<In> for Alone<A> {
    type Accumulator = A::Accumulator;
    type Out = A::Out;

    #[inline]
    fn first(&self, record: In) -> A::Accumulator {
        let mut accumulator = self.0.create();
        self.0.add(&mut accumulator, record);
        accumulator
    }

    #[inline]
    fn add(&self, accumulator: &mut A::Accumulator, record: In) {
        self.0.add(accumulator, record);
    }

    fn merge(&self, _: &mut A::Accumulator, _: A::Accumulator) -> Result<(), Failure> {
        Err(Failure::internal("windows of an aggregate without `merge` were to be merged"))
    }

    #[inline]
    fn result(&self, accumulator: A::Accumulator) -> A::Out {
        self.0.result(&accumulator)
    }
}

/// A function that makes one value of two: `function(value so far, record)`. As in Flink it must be associative.
#[derive(Debug, Clone)]
pub struct Reduced<F>(pub F);

impl<T, F> WindowAggregate<T> for Reduced<F>
where
    T: Record,
    F: Fn(T, T) -> T + Clone + Send + Sync + 'static,
{
    /// There is always a value, except while the function has it.
    type Accumulator = Option<T>;
    type Out = T;

    #[inline]
    fn first(&self, record: T) -> Option<T> {
        Some(record)
    }

    #[inline]
    fn add(&self, value: &mut Option<T>, record: T) {
        reduce_into(value, record, &self.0);
    }

    #[inline]
    fn merge(&self, value: &mut Option<T>, later: Option<T>) -> Result<(), Failure> {
        if let Some(later) = later {
            self.add(value, later);
        }
        Ok(())
    }

    #[inline]
    fn result(&self, value: Option<T>) -> T {
        value.expect("a window begins with a record")
    }
}

/// All records, in the order in which they came.
#[derive(Debug, Clone)]
pub(crate) struct Elements;

impl<In: Record> WindowAggregate<In> for Elements {
    type Accumulator = Vec<In>;
    type Out = Vec<In>;

    #[inline]
    fn first(&self, record: In) -> Vec<In> {
        vec![record]
    }

    #[inline]
    fn add(&self, elements: &mut Vec<In>, record: In) {
        elements.push(record);
    }

    fn merge(&self, elements: &mut Vec<In>, later: Vec<In>) -> Result<(), Failure> {
        elements.extend(later);
        Ok(())
    }

    #[inline]
    fn result(&self, elements: Vec<In>) -> Vec<In> {
        elements
    }
}
