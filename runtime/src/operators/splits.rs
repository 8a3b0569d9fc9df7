//! Reads the splits of one subtask of a [`SplitSource`], and keeps them in its snapshots.
//!
//! Invariant: the splits of a source that is restored come from its snapshot alone.

use std::collections::BTreeSet;

use thalweg_common::failure::Failure;
use thalweg_common::record::Record;

use super::source::Reading;
use crate::batch::Batch;
use crate::operator::SourceStatus;
use crate::parts::{Part, Parts};
use crate::program::OperatorContext;
use crate::side_output::Aside;
use crate::snapshot::OperatorSnapshot;
use crate::split::{SourceReader, SourceSplit, SplitSource};
use crate::time::SplitReport;

/// A reader and whose it is.
pub(super) struct SplitReading<R> {
    reader: R,
    subtask: u32,
    parallelism: u32,
}

impl<R: SourceReader> SplitReading<R> {
    pub(super) fn open<S>(source: &S, context: &OperatorContext) -> Result<Self, Failure>
    where
        S: SplitSource<Out = R::Out, Split = R::Split, Reader = R>,
    {
        let (subtask, parallelism) = (context.open.subtask_index, context.open.parallelism);
        let splits = match context.restored_parts()? {
            Some(parts) => restored(parts)?,
            None => source.splits(&context.open)?,
        };
        if R::TELLS_SPLITS
            && let Some(shared) = &context.splits
        {
            shared.lock().added::<R>(&splits);
        }
        let mut reader = source.reader(&context.open)?;
        reader.add_splits(splits)?;
        Ok(Self { reader, subtask, parallelism })
    }
}

impl<R: SourceReader> Reading for SplitReading<R> {
    type Out = R::Out;

    fn poll(&mut self, out: &mut Batch<R::Out>, max: usize) -> Result<SourceStatus, Failure> {
        self.reader.poll(out, max)
    }

    fn tell_splits(&mut self, report: &mut SplitReport) {
        self.reader.tell_splits(report);
    }

    const PAUSES_SPLITS: bool = R::PAUSES_SPLITS;

    fn pause_splits(&mut self, paused: &BTreeSet<String>) {
        self.reader.pause_splits(paused);
    }

    fn emit_aside(&mut self, aside: &mut Aside<'_>) {
        self.reader.emit_aside(aside);
    }

    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot) -> Result<(), Failure> {
        let (subtask, parallelism) = (self.subtask, self.parallelism);
        let began = (subtask == 0).then_some(Part::Began);
        let splits = self.reader.snapshot()?;
        let list = began.into_iter().chain(splits.iter().map(part)).collect();
        snapshot.parts = Some(Parts { subtask, parallelism, list });
        Ok(())
    }
}

pub(super) fn part<S: SourceSplit>(split: &S) -> Part {
    let mut bytes = Vec::new();
    split.encode(&mut bytes);
    let id = split.split_id();
    match split.pin() {
        Some(pin) => Part::Pinned { id, split: bytes, pin },
        None => Part::Split { id, split: bytes },
    }
}

/// The splits among what is restored.
pub(super) fn restored<S: Record>(parts: Vec<Part>) -> Result<Vec<S>, Failure> {
    let mut splits = Vec::new();
    for part in parts {
        match part {
            Part::Began | Part::Finished { .. } => {}
            Part::Split { id, split } | Part::Pinned { id, split, .. } => splits.push(decoded(&split, &id)?),
            Part::Whole(split) => splits.push(decoded(&split, "of an earlier version")?),
            Part::Transactions { .. } | Part::List { .. } | Part::Broadcast { .. } => {
                return Err(Failure::internal(
                    "the state of a sink or function is to be restored in a source",
                ));
            }
        }
    }
    Ok(splits)
}

pub(super) fn decoded<S: Record>(mut bytes: &[u8], id: &str) -> Result<S, Failure> {
    match S::decode(&mut bytes) {
        Ok(split) if bytes.is_empty() => Ok(split),
        _ => Err(Failure::user(format!(
            "the split `{id}` in the restored state cannot be read: it was written by another version of the source; run that version, \
             or give the operator another uid, so that it begins anew"
        ))
        .permanent()),
    }
}
