//! What [`WindowedStream::aggregate`](super::WindowedStream::aggregate) takes: aggregates of either kind, as far as the windows allow.

use thalweg_common::record::Record;
use thalweg_runtime::operator::{Aggregate, MergeAggregate};
use thalweg_runtime::windows::{Alone, Merged, NoMerging, WindowAggregate};

use crate::aggregation::{Combined, RecordByRecord};

/// An aggregate of records of `T` over windows `W`: any [`MergeAggregate`], or an [`Aggregate`] where windows share nothing and never
/// become one.
///
/// `Kind` tells which of them. The compiler finds it, nobody has to write it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot aggregate `{T}` over `{W}`",
    note = "implement `MergeAggregate<{T}>`; for tumbling, global and count windows `Aggregate<{T}>` will do"
)]
pub trait WindowAggregation<T, W, Kind>: Sized {
    /// The result of a window.
    type Out: Record;

    #[doc(hidden)]
    type Windowed: WindowAggregate<T, Out = Self::Out>;

    #[doc(hidden)]
    fn windowed(self) -> Self::Windowed;
}

impl<T, W, A: MergeAggregate<T>> WindowAggregation<T, W, Combined> for A {
    type Out = A::Out;
    type Windowed = Merged<A>;

    fn windowed(self) -> Merged<A> {
        Merged::new(self)
    }
}

impl<T, W: NoMerging, A: Aggregate<T>> WindowAggregation<T, W, RecordByRecord> for A {
    type Out = A::Out;
    type Windowed = Alone<A>;

    fn windowed(self) -> Alone<A> {
        Alone(self)
    }
}
