//! Side outputs: what an operator emits beside its main output, found by tags, as in Flink.
//!
//! On a record's way: from a function's context into a batch of its tag, and from there, whenever the operator hands on what it
//! has emitted, to the chained operators and the edges behind that side output. Invariants: a record for a tag that nobody reads
//! is dropped at once; an event passes all outputs behind everything that was emitted before it; a tag whose records are of
//! another type than those of its reader fails the task.

use std::any::{Any, type_name};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError};

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;

use crate::batch::{Batch, NO_TIMESTAMP};
use crate::event::{Barrier, WatermarkStatus};
use crate::link::{Flushed, Link};
use crate::snapshot::SnapshotBuilder;
use crate::testing::Captured;

/// Names a side output and says what records it has: Flink's `OutputTag`.
///
/// A function emits to it with [`Context::output`](crate::operator::Context::output); whoever reads the side output uses a tag of
/// the same name and type. Tags are small values that can be constants:
///
/// ```
/// use thalweg_runtime::side_output::OutputTag;
///
/// const LATE: OutputTag<u64> = OutputTag::new("late-data");
///
/// assert_eq!(LATE.name(), "late-data");
/// ```
pub struct OutputTag<T> {
    name: &'static str,
    location: &'static Location<'static>,
    records: PhantomData<fn() -> T>,
}

impl<T> OutputTag<T> {
    /// The tag with this name, which the tags of one operator do not share unless they are of one type.
    #[track_caller]
    pub const fn new(name: &'static str) -> Self {
        Self { name, location: Location::caller(), records: PhantomData }
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Its name, type and place.
    pub(crate) fn described(&self) -> TagDescription {
        TagDescription { name: self.name, records: type_name::<T>(), location: self.location }
    }
}

impl<T> Clone for OutputTag<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for OutputTag<T> {}

impl<T> fmt::Debug for OutputTag<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutputTag({:?})", self.described())
    }
}

/// What messages say of a tag.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TagDescription {
    pub(crate) name: &'static str,
    pub(crate) records: &'static str,
    location: &'static Location<'static>,
}

impl TagDescription {
    /// Two types cannot have one name.
    pub(crate) fn conflict(&self, other: &Self) -> Failure {
        Failure::user(format!(
            "the side output `{}` has records of `{}` at {} and of `{}` at {}: give the tags different names, or the same type",
            self.name, self.records, self.location, other.records, other.location
        ))
        .permanent()
    }
}

impl fmt::Debug for TagDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` of `{}` at {}", self.name, self.records, self.location)
    }
}

/// One side output of an operator: a batch and the link behind it, of a type that only its tag knows.
pub(crate) trait SideOutput: Send {
    fn tag(&self) -> TagDescription;
    fn as_any(&mut self) -> &mut dyn Any;
    fn hand_on(&mut self) -> Result<(), Failure>;
    fn watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure>;
    fn watermark_status(&mut self, status: WatermarkStatus) -> Result<(), Failure>;
    fn finish(&mut self) -> Result<(), Failure>;
    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure>;
    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure>;
    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure>;
    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure>;
}

/// A side output of records of `T`.
pub(crate) struct TypedSideOutput<T> {
    tag: TagDescription,
    batch: Batch<T>,
    link: Box<dyn Link<T>>,
}

impl<T> TypedSideOutput<T> {
    pub(crate) fn new(tag: TagDescription, link: Box<dyn Link<T>>) -> Self {
        Self { tag, batch: Batch::default(), link }
    }
}

impl<T: Send + 'static> SideOutput for TypedSideOutput<T> {
    fn tag(&self) -> TagDescription {
        self.tag
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn hand_on(&mut self) -> Result<(), Failure> {
        hand_on(&mut self.batch, self.link.as_mut())
    }

    fn watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure> {
        self.link.watermark(timestamp)
    }

    fn watermark_status(&mut self, status: WatermarkStatus) -> Result<(), Failure> {
        self.link.watermark_status(status)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.link.finish()
    }

    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        self.link.snapshot(barrier, snapshot)
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.link.completed(checkpoint)
    }

    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.link.aborted(checkpoint)
    }

    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure> {
        self.link.flush(partial)
    }
}

/// The side outputs of one operator.
#[derive(Default)]
pub(crate) struct SideOutputs {
    /// Those that somebody reads.
    outputs: Vec<Box<dyn SideOutput>>,
    /// In a harness: whatever else is emitted.
    captured: Option<CapturedSides>,
    /// Whether one of them has a full batch.
    is_full: bool,
    conflict: Option<Failure>,
}

impl SideOutputs {
    pub(crate) fn new(outputs: Vec<Box<dyn SideOutput>>) -> Self {
        Self { outputs, ..Self::default() }
    }

    /// All of them, whatever their tags, into the hands of a test.
    pub(crate) fn captured(captured: CapturedSides) -> Self {
        Self { captured: Some(captured), ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    #[inline]
    fn push<T: Send + 'static>(&mut self, tag: &OutputTag<T>, record: T, timestamp: Timestamp) {
        if self.outputs.is_empty() && self.captured.is_none() {
            return;
        }
        if let Some(captured) = &self.captured
            && !self.outputs.iter().any(|output| output.tag().name == tag.name)
        {
            self.outputs.push(captured.open(tag));
        }
        let Some(output) = self.outputs.iter_mut().find(|output| output.tag().name == tag.name) else {
            return;
        };
        let reader = output.tag();
        match output.as_any().downcast_mut::<TypedSideOutput<T>>() {
            Some(output) => {
                output.batch.push_with_timestamp(record, timestamp);
                self.is_full |= output.batch.len() >= Batch::<T>::FULL_RECORDS;
            }
            None => {
                self.conflict.get_or_insert_with(|| reader.conflict(&tag.described()));
            }
        }
    }

    fn hand_on(&mut self) -> Result<(), Failure> {
        if let Some(conflict) = self.conflict.take() {
            return Err(conflict);
        }
        self.is_full = false;
        self.outputs.iter_mut().try_for_each(|output| output.hand_on())
    }
}

/// Where a source emits what is not for its main output.
pub struct Aside<'a> {
    sides: &'a mut SideOutputs,
}

impl<'a> Aside<'a> {
    pub(crate) fn new(sides: &'a mut SideOutputs) -> Self {
        Self { sides }
    }

    /// Emits to a side output.
    pub fn output<T: Send + 'static>(&mut self, tag: &OutputTag<T>, record: T) {
        self.sides.push(tag, record, NO_TIMESTAMP);
    }
}

/// Everything that an operator emits: its main output and its side outputs. Events go to all of them.
pub(crate) struct Outputs<Out> {
    main: Batch<Out>,
    next: Box<dyn Link<Out>>,
    sides: SideOutputs,
}

impl<Out> Outputs<Out> {
    pub(crate) fn new(next: Box<dyn Link<Out>>, sides: SideOutputs) -> Self {
        Self { main: Batch::default(), next, sides }
    }

    /// The batch of the main output.
    pub(crate) fn main_mut(&mut self) -> &mut Batch<Out> {
        &mut self.main
    }

    /// The side outputs.
    pub(crate) fn sides_mut(&mut self) -> &mut SideOutputs {
        &mut self.sides
    }

    /// Emits to the main output.
    #[inline]
    pub(crate) fn emit(&mut self, record: Out, timestamp: Timestamp) {
        self.main.push_with_timestamp(record, timestamp);
    }

    /// Emits to a side output.
    #[inline]
    pub(crate) fn emit_aside<T: Send + 'static>(
        &mut self,
        tag: &OutputTag<T>,
        record: T,
        timestamp: Timestamp,
    ) {
        self.sides.push(tag, record, timestamp);
    }

    /// Whether so much was emitted that it has to be handed on.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.main.len() >= Batch::<Out>::FULL_RECORDS || self.sides.is_full || self.sides.conflict.is_some()
    }

    /// Hands on what was emitted, if anything.
    pub(crate) fn hand_on(&mut self) -> Result<(), Failure> {
        hand_on(&mut self.main, self.next.as_mut())?;
        self.sides.hand_on()
    }

    pub(crate) fn watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure> {
        self.next.watermark(timestamp)?;
        self.sides.outputs.iter_mut().try_for_each(|output| output.watermark(timestamp))
    }

    pub(crate) fn watermark_status(&mut self, status: WatermarkStatus) -> Result<(), Failure> {
        self.next.watermark_status(status)?;
        self.sides.outputs.iter_mut().try_for_each(|output| output.watermark_status(status))
    }

    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        self.next.finish()?;
        self.sides.outputs.iter_mut().try_for_each(|output| output.finish())
    }

    pub(crate) fn snapshot(
        &mut self,
        barrier: Barrier,
        snapshot: &mut SnapshotBuilder,
    ) -> Result<(), Failure> {
        self.next.snapshot(barrier, snapshot)?;
        self.sides.outputs.iter_mut().try_for_each(|output| output.snapshot(barrier, snapshot))
    }

    pub(crate) fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.next.completed(checkpoint)?;
        self.sides.outputs.iter_mut().try_for_each(|output| output.completed(checkpoint))
    }

    pub(crate) fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.next.aborted(checkpoint)?;
        self.sides.outputs.iter_mut().try_for_each(|output| output.aborted(checkpoint))
    }

    pub(crate) fn flush(&mut self, partial: bool) -> Result<Flushed, Failure> {
        let flushed = self.next.flush(partial)?;
        // Every output is flushed, also behind one that is blocked.
        self.sides
            .outputs
            .iter_mut()
            .try_fold(flushed, |flushed, output| Ok(flushed.and(output.flush(partial)?)))
    }
}

/// Hands on what is in `output`, if anything.
pub(crate) fn hand_on<T>(output: &mut Batch<T>, next: &mut dyn Link<T>) -> Result<(), Failure> {
    if output.is_empty() {
        return Ok(());
    }
    let result = next.process(output);
    // A link drains its input; a record that it left must not be seen twice.
    output.clear();
    result
}

/// The side outputs of an operator in a harness, opened by whatever is emitted. Clones are the same ones.
#[derive(Clone, Default)]
pub(crate) struct CapturedSides {
    sides: Arc<Mutex<BTreeMap<&'static str, Box<dyn Any + Send>>>>,
}

impl CapturedSides {
    fn open<T: Send + 'static>(&self, tag: &OutputTag<T>) -> Box<dyn SideOutput> {
        let captured = Captured::<T>::default();
        let link = Box::new(captured.clone());
        self.sides.lock().unwrap_or_else(PoisonError::into_inner).insert(tag.name, Box::new(captured));
        Box::new(TypedSideOutput::new(tag.described(), link))
    }

    /// Takes out what has been emitted to a tag.
    pub(crate) fn take<T: Send + 'static>(&self, tag: &OutputTag<T>) -> Batch<T> {
        let sides = self.sides.lock().unwrap_or_else(PoisonError::into_inner);
        let captured = sides.get(tag.name).and_then(|side| side.downcast_ref::<Captured<T>>());
        captured.map(Captured::take).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "side_output_tests.rs"]
mod tests;
