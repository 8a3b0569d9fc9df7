//! Where a chain branches or ends without a sink: one output to several links, or to none.

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;

use crate::batch::Batch;
use crate::event::{Barrier, WatermarkStatus};
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
            batch.clear();
            return Ok(());
        };
        for link in others {
            self.copy.clear();
            self.copy.append_copy(batch);
            link.process(&mut self.copy)?;
        }
        last.process(batch)
    }

    fn watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure> {
        self.links.iter_mut().try_for_each(|link| link.watermark(timestamp))
    }

    fn watermark_status(&mut self, status: WatermarkStatus) -> Result<(), Failure> {
        self.links.iter_mut().try_for_each(|link| link.watermark_status(status))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Captured;

    #[test]
    fn every_link_gets_all_records_with_their_timestamps() {
        let captured: [Captured<char>; 3] = Default::default();
        let mut fan_out = FanOut::new(captured.iter().map(|link| Box::new(link.clone()) as _).collect());
        for mut batch in [Batch::from_parts(vec!['a', 'b'], vec![1, 2]), Batch::from(vec!['c'])] {
            fan_out.process(&mut batch).expect("captures");
            assert!(batch.is_empty());
        }
        let expected = Batch::from_parts(vec!['a', 'b', 'c'], vec![1, 2]);
        assert!(captured.iter().all(|link| link.take() == expected));
    }

    #[test]
    fn without_a_link_records_vanish() {
        let mut batch = Batch::from_parts(vec!['a'], vec![1]);
        FanOut::new(Vec::new()).process(&mut batch).expect("nothing can fail");
        assert!(batch.is_empty());
    }
}
