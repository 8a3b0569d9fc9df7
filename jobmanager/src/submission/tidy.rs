//! Removes the job binaries that nobody needs any more, whenever one more has come.

use std::collections::BTreeSet;

use thalweg_common::Timestamp;
use thalweg_common::task_scope::blocking;
use thalweg_proto::blob::BlobHash;
use tracing::{debug, warn};

use super::BlobStore;
use crate::consensus::SharedState;

/// Notes that `used` was used at `now_ms`, and removes what no living job needs and nobody has used for long. A binary
/// that stays by accident does no harm.
pub(crate) async fn tidy(store: &BlobStore, state: &SharedState, used: BlobHash, now_ms: Timestamp) {
    let needed: BTreeSet<_> = {
        let state = state.read();
        let alive = state.jobs().filter(|job| !job.status.is_terminal());
        alive.filter_map(|job| Some(job.binary?.sha256)).chain([used]).collect()
    };
    if let Err(error) = store.touch(used, now_ms).await {
        warn!("The use of binary {used} cannot be noted: {error}.");
    }
    let spare = store.clone();
    match blocking("remove old binaries", move || spare.remove_unneeded(&needed)).await {
        Ok(Ok(0)) => {}
        Ok(Ok(removed)) => debug!("Removed {removed} binaries that no job needs."),
        Ok(Err(error)) => warn!("Old job binaries cannot be removed: {error}."),
        Err(error) => debug!("Old job binaries were not removed: {error}."),
    }
}
