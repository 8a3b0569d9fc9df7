//! A bounded source over records that the program holds: for tests and small inputs.

use std::sync::Arc;

use thalweg_common::failure::Failure;
use thalweg_common::record::Record;

use crate::batch::Batch;
use crate::operator::{Source, SourceContext, SourceStatus};

/// Reads a collection. Subtask i of p reads the records i, i + p, i + 2p, ...
#[derive(Clone)]
pub struct CollectionSource<T> {
    records: Arc<[T]>,
    next: usize,
    step: usize,
}

impl<T: Record> CollectionSource<T> {
    /// Over all records of `records`.
    pub fn new(records: impl IntoIterator<Item = T>) -> Self {
        Self { records: records.into_iter().collect(), next: 0, step: 1 }
    }
}

impl<T: Record> Source for CollectionSource<T> {
    type Out = T;

    fn open(&mut self, context: &SourceContext, restored: Option<&[u8]>) -> Result<(), Failure> {
        self.step = context.parallelism as usize;
        self.next = match restored {
            Some(mut position) => usize::decode(&mut position)?,
            None => context.subtask_index as usize,
        };
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<T>, max: usize) -> Result<SourceStatus, Failure> {
        let rest = self.records.get(self.next..).unwrap_or_default();
        let before = out.len();
        out.extend(rest.iter().step_by(self.step).take(max).cloned());
        self.next += (out.len() - before) * self.step;
        Ok(if self.next < self.records.len() { SourceStatus::Ready } else { SourceStatus::Finished })
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, Failure> {
        let mut position = Vec::new();
        self.next.encode(&mut position);
        Ok(position)
    }
}
