//! Rows of Parquet files: those of a range are the row groups that begin in it.
//!
//! First the end of the file is read, which says where the row groups are, then each of them as a whole. A place in a range is a number
//! of rows.

use std::collections::VecDeque;
use std::marker::PhantomData;

use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operator::SourceContext;

use super::super::split::FileRange;
use super::access::Access;
use super::{Bad, Progress, RangeReader, ReadFormat};
use crate::formats::parquet::{Piece, RowGroup, RowGroups, Rows};
use crate::formats::{BadRecord, Malformed};

/// What is read of the end of a file at first: as a rule all that tells of its row groups.
const END_BYTES: u64 = 64 * 1024;

/// Parquet files of records of `T`.
#[derive(Debug)]
pub struct ParquetFormat<T>(PhantomData<fn() -> T>);

impl<T> Default for ParquetFormat<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T> Clone for ParquetFormat<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T: Record> ReadFormat for ParquetFormat<T> {
    type Out = T;

    fn keeps_whole(_: &str) -> bool {
        false
    }

    fn open(&self, range: &FileRange, context: &SourceContext) -> Result<Box<dyn RangeReader<T>>, Failure> {
        let mut access = Access::open(&range.path, context)?;
        let end = range.length.saturating_sub(END_BYTES)..range.length;
        let start = end.start;
        access.ask(end);
        Ok(Box::new(ParquetRange {
            access,
            range: range.clone(),
            stage: Stage::End(start),
            groups: VecDeque::new(),
            records: VecDeque::new(),
            given: range.offset.unwrap_or(0),
            skip: range.offset.unwrap_or(0),
        }))
    }
}

/// The rows of a range.
struct ParquetRange<T> {
    access: Access,
    range: FileRange,
    stage: Stage,
    /// Row groups that were not begun.
    groups: VecDeque<RowGroup>,
    /// Records that were not given.
    records: VecDeque<T>,
    given: u64,
    /// Rows that were given before the attempt.
    skip: u64,
}

/// What comes next.
enum Stage {
    /// The end of the file, from there on.
    End(u64),
    /// The next row group.
    Group(RowGroups),
    /// The bytes of that one.
    Bytes(RowGroups, RowGroup),
    /// The rows of one.
    Rows(RowGroups, Rows),
    /// Nothing more.
    Over,
}

impl<T: Record> ParquetRange<T> {
    /// Goes on by a step. Nothing if it waits for bytes.
    fn step(&mut self) -> Result<Option<()>, Outcome> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Over => {}
            Stage::End(start) => {
                let Some(bytes) = self.access.take()? else {
                    self.stage = Stage::End(start);
                    return Ok(None);
                };
                let wanted = RowGroups::footer_bytes(&bytes)?.min(self.range.length);
                if wanted > bytes.len() as u64 {
                    let start = self.range.length - wanted;
                    self.access.ask(start..self.range.length);
                    self.stage = Stage::End(start);
                    return Ok(Some(()));
                }
                let groups = RowGroups::load::<T>(&Piece { start, bytes, file_bytes: self.range.length })?;
                self.groups = groups.within(&self.range.bytes())?.into();
                self.stage = Stage::Group(groups);
            }
            Stage::Group(groups) => {
                let Some(group) = self.groups.pop_front() else { return Ok(Some(())) };
                if self.skip >= group.rows {
                    self.skip -= group.rows;
                    self.stage = Stage::Group(groups);
                } else {
                    self.access.ask(group.bytes.clone());
                    self.stage = Stage::Bytes(groups, group);
                }
            }
            Stage::Bytes(groups, group) => {
                let Some(bytes) = self.access.take()? else {
                    self.stage = Stage::Bytes(groups, group);
                    return Ok(None);
                };
                let piece = Piece { start: group.bytes.start, bytes, file_bytes: self.range.length };
                let rows = groups.read(piece, group.number, std::mem::take(&mut self.skip))?;
                self.stage = Stage::Rows(groups, rows);
            }
            Stage::Rows(groups, mut rows) => {
                let has_more = rows.next(|record| self.records.push_back(record))?;
                self.stage = if has_more { Stage::Rows(groups, rows) } else { Stage::Group(groups) };
            }
        }
        Ok(Some(()))
    }
}

/// Why a step was not done.
enum Outcome {
    Failed(Failure),
    Malformed(Malformed),
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Malformed> for Outcome {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl<T: Record> RangeReader<T> for ParquetRange<T> {
    fn poll(&mut self, out: &mut Batch<T>, max: usize, bad: &mut Bad<'_>) -> Result<Progress, Failure> {
        loop {
            while out.len() < max
                && let Some(record) = self.records.pop_front()
            {
                out.push(record);
                self.given += 1;
            }
            if out.len() >= max {
                return Ok(Progress::Read);
            }
            if matches!(self.stage, Stage::Over) {
                return Ok(Progress::End);
            }
            match self.step() {
                Ok(Some(())) => {}
                Ok(None) => return Ok(Progress::Waiting),
                Err(Outcome::Failed(failure)) => return Err(failure),
                // The rest of the range cannot be read.
                Err(Outcome::Malformed(malformed)) => {
                    self.stage = Stage::Over;
                    bad.meet(&malformed, |reason| BadRecord {
                        bytes: Vec::new(),
                        origin: self.range.path.clone(),
                        position: format!("row {} of its range", self.given),
                        reason,
                    })?;
                }
            }
        }
    }

    fn offset(&self) -> Option<u64> {
        Some(self.given)
    }
}
