//! A bounded source over records that the program holds: for tests and small inputs.

use std::sync::Arc;

use thalweg_common::failure::Failure;
use thalweg_common::record::Record;

use super::numbers::{NumberSplit, Numbers};
use crate::batch::Batch;
use crate::operator::{SourceContext, SourceStatus};
use crate::split::{SourceReader, SplitSource};

/// Reads a collection. Subtask i of p reads the records i, i + p, i + 2p, ..., until the job is restored with another parallelism:
/// then each reads a share of what was left.
#[derive(Debug, Clone)]
pub struct CollectionSource<T> {
    records: Arc<[T]>,
}

impl<T: Record> CollectionSource<T> {
    /// Over all records of `records`.
    pub fn new(records: impl IntoIterator<Item = T>) -> Self {
        Self { records: records.into_iter().collect() }
    }
}

impl<T: Record> SplitSource for CollectionSource<T> {
    type Out = T;
    type Split = NumberSplit;
    type Reader = CollectionReader<T>;

    fn splits(&self, context: &SourceContext) -> Result<Vec<NumberSplit>, Failure> {
        Ok(context.share_of(NumberSplit::all(context.parallelism)).collect())
    }

    fn reader(&self, _context: &SourceContext) -> Result<CollectionReader<T>, Failure> {
        Ok(CollectionReader { records: Arc::clone(&self.records), numbers: Numbers::default() })
    }
}

/// Reads the records of one subtask.
#[derive(Debug)]
pub struct CollectionReader<T> {
    records: Arc<[T]>,
    /// Which records are left.
    numbers: Numbers,
}

impl<T: Record> SourceReader for CollectionReader<T> {
    type Out = T;
    type Split = NumberSplit;

    fn add_splits(&mut self, splits: Vec<NumberSplit>) -> Result<(), Failure> {
        self.numbers.add(splits);
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<T>, max: usize) -> Result<SourceStatus, Failure> {
        let end = self.records.len() as u64;
        let records = self.numbers.left(end, max as u64);
        self.numbers.take(records, |run| out.extend(run.map(|number| self.records[number as usize].clone())));
        Ok(if self.numbers.left(end, 1) > 0 { SourceStatus::Ready } else { SourceStatus::Finished })
    }

    fn snapshot(&mut self) -> Result<Vec<NumberSplit>, Failure> {
        Ok(self.numbers.snapshot(self.records.len() as u64))
    }
}
