//! The snapshot of a tested operator, of which a part may have to be written yet.

use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_state::StoreFile;

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
    Ok(Frozen { snapshot: builder.build().operators.remove(&OPERATOR).unwrap_or_default(), stores })
}

/// A snapshot of which a part may have to be written yet.
#[derive(Debug)]
pub struct Frozen {
    pub(super) snapshot: OperatorSnapshot,
    pub(super) stores: Vec<FrozenStore>,
}

impl Frozen {
    /// The snapshot without what is yet to be written, and that.
    #[cfg(test)]
    pub(crate) fn into_parts(self) -> (OperatorSnapshot, Vec<FrozenStore>) {
        (self.snapshot, self.stores)
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
        for FrozenStore { epoch, directory, .. } in self.stores {
            // Not scoped: if the operator fails, the epoch has no end, and its writer waits until the operator is dropped.
            #[expect(clippy::disallowed_methods, reason = "stands for the blocking thread of a worker")]
            let writer = std::thread::spawn(move || epoch.finish(&directory));
            while !encode()? {
                std::thread::yield_now();
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
