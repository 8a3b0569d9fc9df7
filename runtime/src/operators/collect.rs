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
        CollectSink { collected: self.clone(), subtask: 0, open: Vec::new() }
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
    /// Written since the last barrier.
    open: Vec<T>,
}

impl<T> Clone for CollectSink<T> {
    fn clone(&self) -> Self {
        self.collected.sink()
    }
}

impl<T> Shared<T> {
    /// Commits the prepared transactions of a subtask that `ready` names, in their order. One that is not there was committed
    /// before.
    fn commit(&mut self, subtask: u32, ready: impl Fn(CheckpointId) -> bool) {
        let names = (subtask, CheckpointId::MIN)..=(subtask, CheckpointId::MAX);
        let ready: Vec<_> =
            self.prepared.range(names).map(|(name, _)| *name).filter(|(_, id)| ready(*id)).collect();
        for name in ready {
            self.committed.extend(self.prepared.remove(&name).unwrap_or_default());
        }
    }
}

impl<T: Record> Sink<T> for CollectSink<T> {
    fn open(&mut self, context: &SinkContext, restored: Option<&[u8]>) -> Result<(), Failure> {
        self.subtask = context.subtask_index;
        let named = match restored {
            Some(mut bytes) => Vec::<CheckpointId>::decode(&mut bytes)?,
            None => Vec::new(),
        };
        let mut shared = self.collected.lock();
        shared.commit(self.subtask, |checkpoint| named.contains(&checkpoint));
        // The sources will produce everything behind the restored checkpoint again.
        shared.prepared.retain(|(subtask, _), _| *subtask != self.subtask);
        Ok(())
    }

    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        self.open.extend(batch.drain());
        Ok(())
    }

    fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<u8>, Failure> {
        let mut shared = self.collected.lock();
        shared.prepared.insert((self.subtask, checkpoint), std::mem::take(&mut self.open));
        let names = shared.prepared.keys().filter(|(subtask, _)| *subtask == self.subtask);
        let named: Vec<CheckpointId> = names.map(|(_, checkpoint)| *checkpoint).collect();
        let mut bytes = Vec::new();
        named.encode(&mut bytes);
        Ok(bytes)
    }

    fn commit(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.collected.lock().commit(self.subtask, |prepared| prepared <= checkpoint);
        Ok(())
    }
}
