//! What is behind a tested operator: it takes whatever comes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;

use crate::batch::Batch;
use crate::event::{Barrier, Event, WatermarkStatus};
use crate::link::{Flushed, Link};
use crate::snapshot::SnapshotBuilder;

/// The link behind the tested operator.
pub(crate) struct Captured<T> {
    shared: Arc<Mutex<Shared<T>>>,
}

struct Shared<T> {
    records: Batch<T>,
    events: Vec<Event>,
    is_blocked: bool,
}

impl<T> Captured<T> {
    /// Takes out what has come.
    pub(crate) fn take(&self) -> Batch<T> {
        std::mem::take(&mut self.lock().records)
    }

    /// The events that have come.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    /// Whether it takes no more.
    pub(crate) fn set_blocked(&self, is_blocked: bool) {
        self.lock().is_blocked = is_blocked;
    }

    fn lock(&self) -> MutexGuard<'_, Shared<T>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Captured<T> {
    fn default() -> Self {
        let shared = Shared { records: Batch::default(), events: Vec::new(), is_blocked: false };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }
}

impl<T> Clone for Captured<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T: Send> Link<T> for Captured<T> {
    fn process(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        self.lock().records.append(batch);
        Ok(())
    }

    fn watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure> {
        self.lock().events.push(Event::Watermark(timestamp));
        Ok(())
    }

    fn watermark_status(&mut self, status: WatermarkStatus) -> Result<(), Failure> {
        self.lock().events.push(Event::Status(status));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.lock().events.push(Event::EndOfInput);
        Ok(())
    }

    fn snapshot(&mut self, barrier: Barrier, _snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        self.lock().events.push(Event::Barrier(barrier));
        Ok(())
    }

    fn completed(&mut self, _checkpoint: CheckpointId) -> Result<(), Failure> {
        Ok(())
    }

    fn aborted(&mut self, _checkpoint: CheckpointId) -> Result<(), Failure> {
        Ok(())
    }

    fn flush(&mut self, _partial: bool) -> Result<Flushed, Failure> {
        Ok(if self.lock().is_blocked { Flushed::Blocked } else { Flushed::All })
    }
}
