//! A checkpoint read without its job: written as a savepoint, whose form every tool reads.
//!
//! Behind `thalweg state` on a checkpoint. A task's snapshot is read as the task would restore it; stores on disk are opened one at a time
//! and read key group by key group. Invariants: nothing of the checkpoint is changed; what had expired when it was triggered is left out,
//! whenever it is read; records on their way are no state, and only their bytes are told.

use std::path::Path;
use std::sync::Arc;

use thalweg_common::failure::Failure;
use thalweg_common::id::{OperatorId, SubtaskId};
use thalweg_common::storage::Storage;
use thalweg_proto::checkpoint::CheckpointMetadata;
use thalweg_proto::convert::SnapshotHandle;
use thalweg_savepoint::{DataFile, Metadata, OperatorWriter, Savepoint, SavepointError};

#[cfg(feature = "rocksdb")]
use {
    thalweg_common::key_group::KeyGroupRange,
    thalweg_common::limits::{MAX_PARALLELISM, STATE_TOOL_MEMORY_BYTES},
    thalweg_state::{StateSnapshot, StoreDescription, stored_entries},
};

use crate::snapshot::{OperatorSnapshot, StoreManifest, TaskSnapshot};
use crate::stores::TaskStores;
use crate::task::savepoint::{is_empty, write_operator};
use crate::task::upload;

/// A checkpoint whose state was written as a savepoint.
#[derive(Debug)]
pub struct Converted {
    /// What can be read now.
    pub savepoint: Savepoint,
    /// Bytes of records that the checkpoint's barriers have overtaken. They are not in the savepoint, so that a job that began with it
    /// would lack them.
    pub in_flight_bytes: u64,
}

/// Writes the state of a checkpoint as a savepoint to `into`. `directory` is that of the checkpoint's job. Stores on disk are opened below
/// `scratch`, one subtask's at a time.
///
/// # Errors
/// When a file is missing or damaged, there is no room, or the state is in RocksDB and this program was built without it.
pub async fn to_savepoint(
    directory: &Arc<dyn Storage>,
    checkpoint: &CheckpointMetadata,
    into: Arc<dyn Storage>,
    scratch: &Path,
) -> Result<Converted, Failure> {
    let (mut files, mut in_flight_bytes) = (Vec::new(), 0);
    for (subtask, handle) in &checkpoint.snapshots {
        let reading = Reading { directory, checkpoint, into: &into, scratch, subtask: *subtask };
        let read = reading.read(handle, &mut files).await;
        in_flight_bytes += read.map_err(|failure| failure.context(format_args!("subtask {subtask}")))?;
    }
    let CheckpointMetadata { job_id, checkpoint_id, triggered_ms, manifest, .. } = checkpoint;
    let metadata = Metadata::new(*job_id, *checkpoint_id, *triggered_ms, manifest.clone(), files);
    metadata.write(&*into).await.map_err(|error| failed(&error))?;
    let savepoint = Savepoint::open(into).await.map_err(|error| failed(&error))?;
    Ok(Converted { savepoint, in_flight_bytes })
}

/// One subtask's part.
struct Reading<'a> {
    directory: &'a Arc<dyn Storage>,
    checkpoint: &'a CheckpointMetadata,
    into: &'a Arc<dyn Storage>,
    scratch: &'a Path,
    subtask: SubtaskId,
}

impl Reading<'_> {
    /// Adds its data files, and returns the bytes of records on their way.
    async fn read(&self, handle: &SnapshotHandle, files: &mut Vec<DataFile>) -> Result<u64, Failure> {
        let directory = Some(Arc::clone(self.directory));
        let (bytes, _) = upload::fetch(handle, &directory, &TaskStores::default()).await?;
        let snapshots = upload::decode(&[bytes])?;
        let stores = self.fetch_stores(&snapshots).await?;
        let mut in_flight_bytes = 0;
        for snapshot in &snapshots {
            in_flight_bytes += snapshot.in_flight.bytes();
            for (id, operator) in &snapshot.operators {
                files.extend(self.operator(*id, operator, &stores).await?);
            }
        }
        if stores.is_on_disk() {
            crate::task::files::remove(self.stores_directory()).await;
        }
        Ok(in_flight_bytes)
    }

    async fn operator(
        &self,
        id: OperatorId,
        operator: &OperatorSnapshot,
        stores: &TaskStores,
    ) -> Result<Vec<DataFile>, Failure> {
        // What has nothing to remember is not declared as state either.
        if is_empty(operator) && operator.store.is_none() {
            return Ok(Vec::new());
        }
        let SubtaskId { vertex, index } = self.subtask;
        let part = format!("{vertex}-{index}-a{}", self.checkpoint.attempt);
        let writer = OperatorWriter::new(Arc::clone(self.into), id, &part);
        let mut writer = writer.of_subtask(index);
        write_operator(&mut writer, operator).await?;
        if let Some(store) = &operator.store {
            self.store(id, store, stores, &mut writer).await?;
        }
        writer.finish().await.map_err(|error| failed(&error))
    }

    fn stores_directory(&self) -> std::path::PathBuf {
        self.scratch.join(self.subtask.to_string().replace('/', "-"))
    }
}

#[cfg(feature = "rocksdb")]
impl Reading<'_> {
    /// Brings the files of its stores here, if it has some.
    async fn fetch_stores(&self, snapshots: &[TaskSnapshot]) -> Result<TaskStores, Failure> {
        let mut operators = snapshots.iter().flat_map(|snapshot| snapshot.operators.values());
        if operators.all(|operator| operator.store.is_none()) {
            return Ok(TaskStores::default());
        }
        let stores = TaskStores::on_disk(&self.stores_directory(), STATE_TOOL_MEMORY_BYTES);
        let all = KeyGroupRange { start: 0, end: MAX_PARALLELISM };
        crate::task::files::fetch(snapshots, all, &Some(Arc::clone(self.directory)), &stores).await?;
        Ok(stores)
    }

    async fn store(
        &self,
        id: OperatorId,
        manifest: &StoreManifest,
        stores: &TaskStores,
        writer: &mut OperatorWriter,
    ) -> Result<(), Failure> {
        let StoreDescription { descriptors, key_schema, groups, .. } = &manifest.description;
        let (now_ms, name) = (self.checkpoint.triggered_ms, id.to_string());
        let store = stores.open_fetched(id, manifest, now_ms)?;
        for (number, descriptor) in descriptors.iter().enumerate() {
            for group in groups.start..groups.end {
                let entries = stored_entries(&store, &manifest.description, number, group, now_ms, &name)?;
                let (descriptor, key_schema) = (descriptor.clone(), key_schema.clone());
                let groups = [(group, entries)].into();
                let state = StateSnapshot { descriptor, key_schema, groups };
                let keyed_state = [(state.descriptor.name.clone(), state)].into();
                let piece = OperatorSnapshot { keyed_state, ..OperatorSnapshot::default() };
                write_operator(writer, &piece).await?;
            }
        }
        Ok(())
    }
}

#[cfg(not(feature = "rocksdb"))]
impl Reading<'_> {
    async fn fetch_stores(&self, _snapshots: &[TaskSnapshot]) -> Result<TaskStores, Failure> {
        Ok(TaskStores::default())
    }

    async fn store(
        &self,
        _id: OperatorId,
        _manifest: &StoreManifest,
        _stores: &TaskStores,
        _writer: &mut OperatorWriter,
    ) -> Result<(), Failure> {
        Err(Failure::user(
            "the checkpoint holds state as files of RocksDB, and this program was built without it: build it with its feature \
             `rocksdb` (`cargo build --release -p thalweg-cli --features rocksdb`), or take a savepoint, which needs no store",
        )
        .permanent())
    }
}

fn failed(error: &SavepointError) -> Failure {
    Failure::external(error.to_string())
}

#[cfg(test)]
#[path = "offline_tests.rs"]
mod tests;
