//! Ready-made aggregates for [`KeyedStream::aggregate`](crate::KeyedStream::aggregate). All of them are combined before
//! records are sent to their keys.
//!
//! ```
//! use thalweg::aggregates::{Count, sum_of};
//! use thalweg::prelude::*;
//!
//! # fn topology(env: &Environment) {
//! let words = env.from_iter(["to", "be", "or"].map(String::from)).key_by(String::clone);
//! words.aggregate(Count).uid("count").print_debug();
//! words.aggregate(sum_of(|word: &String| word.len() as u64)).uid("letters").print_debug();
//! # }
//! ```

use std::marker::PhantomData;
use std::ops::AddAssign;

use thalweg_common::record::Record;
use thalweg_runtime::operator::MergeAggregate;

/// The number of records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count;

impl<T> MergeAggregate<T> for Count {
    type Accumulator = u64;
    type Out = u64;

    #[inline]
    fn create(&self) -> u64 {
        0
    }

    #[inline]
    fn add(&self, accumulator: &mut u64, _: T) {
        *accumulator += 1;
    }

    #[inline]
    fn merge(&self, accumulator: &mut u64, later: u64) {
        *accumulator += later;
    }

    #[inline]
    fn subtract(&self, accumulator: &mut u64, earlier: &u64) -> bool {
        *accumulator -= earlier;
        true
    }

    #[inline]
    fn result(&self, accumulator: &u64) -> u64 {
        *accumulator
    }
}

/// The sum of a number of each record. Floating-point numbers are rounded at each step, so that their sum depends a
/// little on which records were added up together.
pub fn sum_of<T, N, F>(number: F) -> Sum<F, N>
where
    F: Fn(&T) -> N + Clone + Send + Sync + 'static,
    N: Record + AddAssign + Default,
{
    Sum { number, sum: PhantomData }
}

/// What [`sum_of`] makes.
#[derive(Debug, Clone)]
pub struct Sum<F, N> {
    number: F,
    sum: PhantomData<fn() -> N>,
}

impl<T, F, N> MergeAggregate<T> for Sum<F, N>
where
    F: Fn(&T) -> N + Clone + Send + Sync + 'static,
    N: Record + AddAssign + Default,
{
    type Accumulator = N;
    type Out = N;

    #[inline]
    fn create(&self) -> N {
        N::default()
    }

    #[inline]
    fn add(&self, accumulator: &mut N, record: T) {
        *accumulator += (self.number)(&record);
    }

    #[inline]
    fn merge(&self, accumulator: &mut N, later: N) {
        *accumulator += later;
    }

    #[inline]
    fn result(&self, accumulator: &N) -> N {
        accumulator.clone()
    }
}
