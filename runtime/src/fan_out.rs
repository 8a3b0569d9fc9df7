//! Where a chain branches or ends without a sink: one output to several links, or to none.

use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;

use crate::batch::Batch;
use crate::event::Barrier;
use crate::link::{Flushed, Link};
use crate::snapshot::SnapshotBuilder;

/// Gives every batch to all of its links; without any, to nobody.
pub(crate) struct FanOut<T> {
    links: Vec<Box<dyn Link<T>>>,
    copy: Batch<T>,
}

impl<T> FanOut<T> {
    pub(crate) fn new(links: Vec<Box<dyn Link<T>>>) -> Self {
        Self { links, copy: Batch::default() }
    }
}

impl<T: Clone + Send> Link<T> for FanOut<T> {
    fn process(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        let Some((last, others)) = self.links.split_last_mut() else {
            batch.records.clear();
            return Ok(());
        };
        for link in others {
            self.copy.records.clear();
            self.copy.records.extend_from_slice(&batch.records);
            link.process(&mut self.copy)?;
        }
        last.process(batch)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.links.iter_mut().try_for_each(|link| link.finish())
    }

    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        self.links.iter_mut().try_for_each(|link| link.snapshot(barrier, snapshot))
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.links.iter_mut().try_for_each(|link| link.completed(checkpoint))
    }

    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.links.iter_mut().try_for_each(|link| link.aborted(checkpoint))
    }

    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure> {
        // Every link is flushed, also behind one that is blocked.
        self.links.iter_mut().try_fold(Flushed::All, |flushed, link| Ok(flushed.and(link.flush(partial)?)))
    }
}
