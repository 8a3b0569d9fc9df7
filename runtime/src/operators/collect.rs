//! A transactional sink into the memory of this process: for tests and local runs.
//!
//! Transactions outlive their task, not the process; a checkpoint holds only their names.
//! Invariant: what [`Collected`] shows is exactly what completed checkpoints cover, however often the job restarted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_common::record::Record;

use crate::batch::Batch;
use crate::operator::{Sink, SinkContext};

/// The records that a [`CollectSink`] has committed. Clones show the same records.
pub struct Collected<T> {
    shared: Arc<Mutex<Shared<T>>>,
}

struct Shared<T> {
    committed: Vec<T>,
    /// By subtask and checkpoint.
    prepared: BTreeMap<(u32, CheckpointId), Vec<T>>,
}

impl<T> Collected<T> {
    /// The sink that fills it.
    pub fn sink(&self) -> CollectSink<T> {
        CollectSink { collected: self.clone(), subtask: 0, parallelism: 1, open: Vec::new() }
    }

    /// Takes out what was committed so far. Records of one subtask are in their order.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.lock().committed)
    }

    /// How many records are committed and not taken out.
    pub fn len(&self) -> usize {
        self.lock().committed.len()
    }

    /// Whether nothing was committed that is not taken out.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Shared<T>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Collected<T> {
    fn default() -> Self {
        Self { shared: Arc::new(Mutex::new(Shared { committed: Vec::new(), prepared: BTreeMap::new() })) }
    }
}

impl<T> Clone for Collected<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// Collects records in this process.
pub struct CollectSink<T> {
    collected: Collected<T>,
    subtask: u32,
    parallelism: u32,
    /// Written since the last barrier.
    open: Vec<T>,
}

impl<T> Clone for CollectSink<T> {
    fn clone(&self) -> Self {
        self.collected.sink()
    }
}

impl<T: Record> Sink<T> for CollectSink<T> {
    /// A transaction's name.
    type Committable = (u32, CheckpointId);

    fn open(&mut self, context: &SinkContext) -> Result<(), Failure> {
        (self.subtask, self.parallelism) = (context.subtask_index, context.parallelism);
        Ok(())
    }

    fn recover(&mut self, prepared: &[(u32, CheckpointId)]) -> Result<(), Failure> {
        // The sources will produce everything behind the restored checkpoint again.
        let is_mine = |subtask: u32| subtask % self.parallelism == self.subtask;
        self.collected.lock().prepared.retain(|name, _| !is_mine(name.0) || prepared.contains(name));
        Ok(())
    }

    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        self.open.extend(batch.drain());
        Ok(())
    }

    fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<(u32, CheckpointId)>, Failure> {
        if self.open.is_empty() {
            return Ok(Vec::new());
        }
        let name = (self.subtask, checkpoint);
        self.collected.lock().prepared.insert(name, std::mem::take(&mut self.open));
        Ok(vec![name])
    }

    fn commit(&mut self, prepared: &[(u32, CheckpointId)]) -> Result<(), Failure> {
        let mut shared = self.collected.lock();
        for name in prepared {
            // One that is not there was committed before.
            let records = shared.prepared.remove(name).unwrap_or_default();
            shared.committed.extend(records);
        }
        Ok(())
    }
}
