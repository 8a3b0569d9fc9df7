//! Counts what flows from one output of an operator to whatever is behind it: one link more, called once per batch.
//!
//! What leaves an operator is what those chained to it receive, so one count is the output of the one and the input of the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;

use crate::batch::Batch;
use crate::event::{Barrier, WatermarkStatus};
use crate::link::{Flushed, Link};
use crate::snapshot::SnapshotBuilder;
use crate::time::NO_WATERMARK;

/// What has flowed so far. Written by the task's thread alone.
#[derive(Debug)]
pub(crate) struct Flow {
    records: AtomicU64,
    watermark: AtomicI64,
}

impl Default for Flow {
    fn default() -> Self {
        Self { records: AtomicU64::new(0), watermark: AtomicI64::new(NO_WATERMARK) }
    }
}

impl Flow {
    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// The last watermark, if there was one.
    pub(crate) fn watermark(&self) -> Option<Timestamp> {
        Some(self.watermark.load(Ordering::Relaxed)).filter(|watermark| *watermark != NO_WATERMARK)
    }
}

/// The same link, counted.
pub(crate) fn counted<T: Send + 'static>(next: Box<dyn Link<T>>, flow: Arc<Flow>) -> Box<dyn Link<T>> {
    Box::new(Counted { next, flow })
}

struct Counted<T> {
    next: Box<dyn Link<T>>,
    flow: Arc<Flow>,
}

impl<T: Send> Link<T> for Counted<T> {
    fn process(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        let records = self.flow.records() + batch.len() as u64;
        self.flow.records.store(records, Ordering::Relaxed);
        self.next.process(batch)
    }

    fn watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure> {
        self.flow.watermark.store(timestamp, Ordering::Relaxed);
        self.next.watermark(timestamp)
    }

    fn watermark_status(&mut self, status: WatermarkStatus) -> Result<(), Failure> {
        self.next.watermark_status(status)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.next.finish()
    }

    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        self.next.snapshot(barrier, snapshot)
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.next.completed(checkpoint)
    }

    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.next.aborted(checkpoint)
    }

    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure> {
        self.next.flush(partial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Captured;

    #[test]
    fn records_and_watermarks_are_counted_on_their_way() {
        let (captured, flow) = (Captured::<u64>::default(), Arc::new(Flow::default()));
        let mut link = counted(Box::new(captured.clone()), Arc::clone(&flow));
        assert_eq!((flow.records(), flow.watermark()), (0, None));
        for records in [vec![1, 2], vec![], vec![3]] {
            link.process(&mut Batch::from(records)).expect("captures");
        }
        link.watermark(-7).expect("captures");
        assert_eq!((flow.records(), flow.watermark()), (3, Some(-7)));
        assert_eq!(captured.take(), Batch::from(vec![1, 2, 3]));
    }
}
