//! What a command of `thalweg state` reads: a savepoint, or a checkpoint.
//!
//! A checkpoint's state is written as a savepoint into a temporary directory first, so that everything behind knows one form.

use anyhow::Context;
use serde::Serialize;
use tempfile::TempDir;
use thalweg_common::storage;
use thalweg_proto::checkpoint::CheckpointMetadata;
use thalweg_runtime::offline;
use thalweg_savepoint::Savepoint;

/// Something that can be read.
pub(super) struct Source {
    pub(super) savepoint: Savepoint,
    /// What is said of a checkpoint beside its state.
    pub(super) checkpoint: Option<Checkpoint>,
    /// Removed with this.
    _directory: Option<TempDir>,
}

/// A checkpoint as it was stored.
#[derive(Debug, Serialize)]
pub(super) struct Checkpoint {
    /// Where it is.
    pub(super) uri: String,
    /// Bytes of its snapshots and of the files that they share with other checkpoints.
    pub(super) stored_bytes: u64,
    /// How many of these files there are.
    pub(super) shared_files: usize,
    /// Bytes of records that its barriers have overtaken, which are no state.
    pub(super) in_flight_bytes: u64,
}

impl Source {
    /// Opens the savepoint or checkpoint at this address.
    pub(super) async fn open(address: &str) -> anyhow::Result<Self> {
        let Some((directory, metadata)) = CheckpointMetadata::find(address, storage::open).await? else {
            let savepoint = Savepoint::open_uri(address).await?;
            return Ok(Self { savepoint, checkpoint: None, _directory: None });
        };
        let temporary = tempfile::Builder::new()
            .prefix("thalweg-state-")
            .tempdir()
            .context("cannot create a temporary directory; set TMPDIR to one that can be written")?;
        let into = storage::open(&temporary.path().join("savepoint").display().to_string())?;
        let scratch = temporary.path().join("stores");
        let converted = offline::to_savepoint(&directory, &metadata, into, &scratch).await;
        let converted = converted.with_context(|| format!("cannot read the checkpoint {address}"))?;
        let checkpoint = Checkpoint {
            uri: format!("{}/chk-{}", directory.uri().trim_end_matches('/'), metadata.checkpoint_id),
            stored_bytes: metadata.stored_bytes(),
            shared_files: metadata.shared_files().len(),
            in_flight_bytes: converted.in_flight_bytes,
        };
        let savepoint = converted.savepoint;
        Ok(Self { savepoint, checkpoint: Some(checkpoint), _directory: Some(temporary) })
    }
}
