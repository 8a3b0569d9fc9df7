//! The snapshot of a tested operator, of which a part may have to be written yet.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_state::{StoreError, StoreFile, StoreFiles};

use super::OPERATOR;
use crate::event::Barrier;
use crate::snapshot::{FilePlace, ManifestFile, OperatorSnapshot, SnapshotBuilder, StoreManifest};
use crate::stores::FrozenStore;

/// The barrier of a checkpoint.
pub(super) fn aligned(checkpoint: CheckpointId) -> Barrier {
    Barrier { id: checkpoint, timestamp_ms: 0, is_final: false, is_savepoint: false }
}

pub(super) fn take_snapshot(
    barrier: Barrier,
    snapshot: impl FnOnce(Barrier, &mut SnapshotBuilder) -> Result<(), Failure>,
) -> Result<Frozen, Failure> {
    let mut builder = SnapshotBuilder::default();
    snapshot(barrier, &mut builder)?;
    let stores = builder.take_frozen();
    Ok(Frozen {
        snapshot: builder.build().operators.remove(&OPERATOR).unwrap_or_default(),
        stores,
        left: Left::default(),
    })
}

/// A snapshot of which a part may have to be written yet.
#[derive(Debug)]
pub struct Frozen {
    pub(super) snapshot: OperatorSnapshot,
    pub(super) stores: Vec<FrozenStore>,
    left: Left,
}

type Writer = JoinHandle<Result<StoreFiles, StoreError>>;

/// Writers whose epochs have no end: they wait until the operator is dropped, and then close its store.
type Left = Arc<Mutex<Vec<Writer>>>;

/// Waits, when it is dropped, for the writers that were left. Whoever drops the operator before knows that its store is closed then:
/// RocksDB must not be in use when the process ends.
#[derive(Debug, Default)]
pub(super) struct Writers(Left);

impl Drop for Writers {
    fn drop(&mut self) {
        for writer in self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // The operator's failure is told already; what became of its last epoch is of no use to anybody.
            let _ = writer.join();
        }
    }
}

impl Frozen {
    /// The snapshot without what is yet to be written, and that.
    #[cfg(test)]
    pub(crate) fn into_parts(self) -> (OperatorSnapshot, Vec<FrozenStore>) {
        (self.snapshot, self.stores)
    }

    /// Leaves to `writers` those whose epochs have no end.
    pub(super) fn leaving_to(self, writers: &Writers) -> Self {
        Self { left: Arc::clone(&writers.0), ..self }
    }

    /// Writes what is left of it on a thread of its own. Meanwhile `encode` lets the operator encode a slice, until it says that
    /// this was all.
    ///
    /// # Errors
    /// What `encode` fails with, and what cannot be written.
    pub fn finish(
        mut self,
        mut encode: impl FnMut() -> Result<bool, Failure>,
    ) -> Result<OperatorSnapshot, Failure> {
        for FrozenStore { epoch, directory, .. } in std::mem::take(&mut self.stores) {
            // Not scoped: if the operator fails, the epoch has no end, and its writer waits until the operator is dropped.
            #[expect(clippy::disallowed_methods, reason = "stands for the blocking thread of a worker")]
            let writer = std::thread::spawn(move || epoch.finish(&directory));
            loop {
                match encode() {
                    Ok(true) => break,
                    Ok(false) => std::thread::yield_now(),
                    Err(failure) => {
                        self.left.lock().unwrap_or_else(PoisonError::into_inner).push(writer);
                        return Err(failure);
                    }
                }
            }
            let files = writer.join().map_err(|_| Failure::internal("the writer of an epoch panicked"))??;
            let description = files.description;
            let files: Result<Vec<_>, Failure> = files.files.into_iter().map(manifest_file).collect();
            self.snapshot.store = Some(StoreManifest { description, files: files? });
        }
        Ok(self.snapshot)
    }
}

/// A file where it was linked.
fn manifest_file(file: StoreFile) -> Result<ManifestFile, Failure> {
    let place = if file.is_shared {
        // Found there: what is absolute stays so when it is joined to a directory.
        FilePlace::Shared(file.path.display().to_string())
    } else {
        let bytes = std::fs::read(&file.path).map_err(|error| Failure::external(error.to_string()))?;
        FilePlace::Here(bytes)
    };
    Ok(ManifestFile { name: file.name, size_bytes: file.size_bytes, checksum: file.checksum, place })
}
