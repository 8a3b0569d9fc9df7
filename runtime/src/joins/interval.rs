//! The interval join: pairs of records whose times lie near each other.
//!
//! Semantics are those of Flink's `IntervalJoinOperator`. Invariants: a pair is emitted once, when its second record comes; a record is kept
//! exactly until a watermark says that no partner can come any more.

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_state::{Accessor, Declarations, Declare, MapState, State, StateKey};

use crate::co_process::KeyedCoProcess;
use crate::operator::{Context, Key, OpenContext};
use crate::side_output::{OutputTag, Outputs};
use crate::time::NO_WATERMARK;

/// How far the time of the right record may lie from that of the left one, in milliseconds, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntervalBounds {
    /// The least difference; below zero for right records that are earlier.
    pub lower_ms: i64,
    /// The greatest one.
    pub upper_ms: i64,
}

impl IntervalBounds {
    /// Whether these two make a pair.
    fn contain(self, left: Timestamp, right: Timestamp) -> bool {
        (left.saturating_add(self.lower_ms)..=left.saturating_add(self.upper_ms)).contains(&right)
    }

    /// Until when a left record may find partners.
    fn end_of_left(self, at: Timestamp) -> Timestamp {
        at.saturating_add(self.upper_ms.max(0))
    }

    /// Until when a right record may find partners.
    fn end_of_right(self, at: Timestamp) -> Timestamp {
        at.saturating_sub(self.lower_ms.min(0))
    }
}

/// What is made of the pairs of an interval join: Flink's `ProcessJoinFunction`.
pub trait ProcessJoin<L, R>: Clone + Send + Sync + 'static {
    /// What it emits to its main output.
    type Out: Record;

    /// Called once before the first pair.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn open(&mut self, context: &OpenContext) -> Result<(), Failure> {
        let _ = context;
        Ok(())
    }

    /// Processes one pair.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn on_pair(
        &mut self,
        left: &L,
        right: &R,
        context: &mut JoinContext<'_, Self::Out>,
    ) -> Result<(), Failure>;
}

/// A closure that makes one record of each pair.
#[derive(Debug, Clone)]
pub struct PairMap<F>(pub F);

impl<L, R, Out, F> ProcessJoin<L, R> for PairMap<F>
where
    Out: Record,
    F: Fn(&L, &R) -> Out + Clone + Send + Sync + 'static,
{
    type Out = Out;

    fn on_pair(&mut self, left: &L, right: &R, context: &mut JoinContext<'_, Out>) -> Result<(), Failure> {
        context.emit((self.0)(left, right));
        Ok(())
    }
}

/// What a function on pairs works with.
pub struct JoinContext<'a, Out> {
    left: Timestamp,
    right: Timestamp,
    outputs: &'a mut Outputs<Out>,
}

impl<Out> JoinContext<'_, Out> {
    /// When the left record happened, in milliseconds since the epoch.
    #[inline]
    pub fn left_timestamp(&self) -> Timestamp {
        self.left
    }

    /// When the right record happened.
    #[inline]
    pub fn right_timestamp(&self) -> Timestamp {
        self.right
    }

    /// When the pair happened: when the later one of both did.
    #[inline]
    pub fn timestamp(&self) -> Timestamp {
        self.left.max(self.right)
    }

    /// Emits a record with the [timestamp](Self::timestamp) of the pair.
    #[inline]
    pub fn emit(&mut self, record: Out) {
        self.outputs.emit(record, self.left.max(self.right));
    }

    /// Emits a record to a side output, with the [timestamp](Self::timestamp) of the pair.
    #[inline]
    pub fn output<T: Record>(&mut self, tag: &OutputTag<T>, record: T) {
        self.outputs.emit_aside(tag, record, self.left.max(self.right));
    }
}

/// The function that joins: each record is kept, by its time, until it can find no partner any more.
#[derive(Clone)]
pub struct IntervalJoin<L, R, P> {
    left: MapState<Timestamp, Vec<L>>,
    right: MapState<Timestamp, Vec<R>>,
    bounds: IntervalBounds,
    late_left: Option<OutputTag<L>>,
    late_right: Option<OutputTag<R>>,
    process: P,
}

impl<L, R, P> IntervalJoin<L, R, P> {
    /// Joins within these bounds. Records that come too late are dropped, unless there is a tag for them.
    pub fn new(
        bounds: IntervalBounds,
        late_left: Option<OutputTag<L>>,
        late_right: Option<OutputTag<R>>,
        process: P,
    ) -> Self {
        Self { left: MapState::default(), right: MapState::default(), bounds, late_left, late_right, process }
    }
}

impl<L: Record, R: Record, P> State for IntervalJoin<L, R, P> {
    fn declare<K: StateKey>(&mut self, declarations: &mut Declarations<K>) {
        self.left.declare("left", declarations);
        self.right.declare("right", declarations);
    }
}

impl<K, L, R, P> KeyedCoProcess<K, L, R> for IntervalJoin<L, R, P>
where
    K: Key,
    L: Record,
    R: Record,
    P: ProcessJoin<L, R>,
{
    type Out = P::Out;

    fn open(&mut self, context: &OpenContext) -> Result<(), Failure> {
        self.process.open(context)
    }

    fn on_first(&mut self, record: L, context: &mut Context<'_, K, P::Out>) -> Result<(), Failure> {
        let at = time_of(context)?;
        if is_late(at, context) {
            return late(self.late_left.as_ref(), record, context);
        }
        let (state, outputs) = context.parts();
        for (right_at, others) in partners(&self.right, state, |other| self.bounds.contain(at, other)) {
            let mut pair = JoinContext { left: at, right: right_at, outputs: &mut *outputs };
            others.iter().try_for_each(|other| self.process.on_pair(&record, other, &mut pair))?;
        }
        keep(&self.left, at, record, context);
        context.register_event_time_timer(self.bounds.end_of_left(at));
        Ok(())
    }

    fn on_second(&mut self, record: R, context: &mut Context<'_, K, P::Out>) -> Result<(), Failure> {
        let at = time_of(context)?;
        if is_late(at, context) {
            return late(self.late_right.as_ref(), record, context);
        }
        let (state, outputs) = context.parts();
        for (left_at, others) in partners(&self.left, state, |other| self.bounds.contain(other, at)) {
            let mut pair = JoinContext { left: left_at, right: at, outputs: &mut *outputs };
            others.iter().try_for_each(|other| self.process.on_pair(other, &record, &mut pair))?;
        }
        keep(&self.right, at, record, context);
        context.register_event_time_timer(self.bounds.end_of_right(at));
        Ok(())
    }

    fn on_timer(&mut self, at: Timestamp, context: &mut Context<'_, K, P::Out>) -> Result<(), Failure> {
        // Whoever has registered it: what ends at this time ends on both sides.
        let IntervalBounds { lower_ms, upper_ms } = self.bounds;
        self.left.remove(context, &at.saturating_sub(upper_ms.max(0)));
        self.right.remove(context, &at.saturating_add(lower_ms.min(0)));
        Ok(())
    }
}

/// The records of the other side that make a pair, by their times.
fn partners<'a, T: Record>(
    side: &MapState<Timestamp, Vec<T>>,
    state: &'a impl Accessor,
    is_near: impl Fn(Timestamp) -> bool,
) -> Vec<(Timestamp, &'a Vec<T>)> {
    let near = side.iter(state).filter(|(at, _)| is_near(**at));
    let mut near: Vec<_> = near.map(|(at, records)| (*at, records)).collect();
    near.sort_unstable_by_key(|(at, _)| *at);
    near
}

fn keep<T: Record>(
    side: &MapState<Timestamp, Vec<T>>,
    at: Timestamp,
    record: T,
    context: &mut impl Accessor,
) {
    side.update(context, at, |records| {
        let mut records = records.unwrap_or_default();
        records.push(record);
        Some(records)
    });
}

fn time_of<K: Key, Out>(context: &Context<'_, K, Out>) -> Result<Timestamp, Failure> {
    context.timestamp().ok_or_else(|| {
        Failure::user(
            "an interval join needs the times of its records, and one has none: give its source timestamps and watermarks",
        )
        .permanent()
    })
}

/// Whether its partners may be gone.
fn is_late<K: Key, Out>(at: Timestamp, context: &Context<'_, K, Out>) -> bool {
    context.current_watermark() != NO_WATERMARK && at < context.current_watermark()
}

fn late<K: Key, T: Record, Out>(
    tag: Option<&OutputTag<T>>,
    record: T,
    context: &mut Context<'_, K, Out>,
) -> Result<(), Failure> {
    if let Some(tag) = tag {
        context.output(tag, record);
    }
    Ok(())
}
