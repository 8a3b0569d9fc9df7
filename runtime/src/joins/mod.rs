//! Joins of two keyed streams that need no windows: functions with two inputs, whose state and timers are those of every keyed function.

mod interval;
mod regular;

pub use interval::{IntervalBounds, IntervalJoin, JoinContext, PairMap, ProcessJoin};
pub use regular::{Change, JoinKind, Pair, RegularJoin};
