//! Whether the storage of a job's checkpoints takes this job manager's requests, asked before the job is accepted: a bucket that is not there,
//! wrong credentials or a wrong region are told to whoever submits, and not by the first checkpoint.

use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::limits::STORAGE_CHECK_TIMEOUT_MS;
use thalweg_common::storage::Storage;

/// What there is not: only whether the question is answered matters.
const NOTHING: &str = "is-this-storage-reachable";

/// Asks the storage. Gives a warning if it cannot be reached at the moment.
///
/// # Errors
/// When it refuses and will refuse again.
pub(super) async fn check(storage: &dyn Storage) -> Result<Option<String>, Failure> {
    if storage.directory().is_some() {
        return Ok(None);
    }
    let timeout = Duration::from_millis(STORAGE_CHECK_TIMEOUT_MS);
    let trouble = match tokio::time::timeout(timeout, storage.get(NOTHING)).await {
        Ok(Ok(_)) => return Ok(None),
        Ok(Err(error)) if error.is_not_found() => return Ok(None),
        Ok(Err(error)) if !error.retryable() => {
            let message = format!("the checkpoint directory {} cannot be used: {error}", storage.uri());
            return Err(Failure::user(message).permanent());
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it has not answered within {} s", timeout.as_secs()),
    };
    Ok(Some(format!(
        "the checkpoint directory {} cannot be reached at the moment, and checkpoints fail until it can: {trouble}",
        storage.uri()
    )))
}
