//! Savepoints as clients ask for them: taking, listing, deleting.

use thalweg_common::config::{Configuration, keys};
use thalweg_common::storage::StorageFactory;
use thalweg_proto::model::SavepointMode;
use thalweg_proto::v1;
use thalweg_proto::v1::savepoint_event::Message;
use thalweg_savepoint::Savepoint;
use tonic::Status;

use crate::cluster::{CompletedCheckpoint, JobRecord};
use crate::job::SavepointNews;

/// Where a savepoint of the job goes: what was asked for, the job's own setting, or the cluster's.
pub(super) fn directory(
    asked: &str,
    job: &JobRecord,
    cluster: &Configuration,
    storages: &StorageFactory,
) -> Result<String, Status> {
    let own = job.graph.checkpointing.savepoint_directory.as_deref();
    let configured = || own.or_else(|| cluster.text(&keys::SAVEPOINT_DIRECTORY));
    let directory = Some(asked).filter(|asked| !asked.is_empty()).or_else(configured);
    let Some(directory) = directory else {
        return Err(Status::invalid_argument(format!(
            "no directory for savepoints is configured; name one with --dir, or set `{}`",
            keys::SAVEPOINT_DIRECTORY.name
        )));
    };
    match storages.open(directory) {
        Ok(storage) => Ok(storage.uri().to_string()),
        Err(error) => {
            Err(Status::invalid_argument(format!("the directory for savepoints is wrong: {error}")))
        }
    }
}

/// What a client wants to become of the job.
pub(super) fn mode(mode: v1::SavepointMode) -> Result<SavepointMode, Status> {
    match mode {
        v1::SavepointMode::Continue => Ok(SavepointMode::Continue),
        v1::SavepointMode::Stop => Ok(SavepointMode::Stop),
        v1::SavepointMode::Drain => Ok(SavepointMode::Drain),
        v1::SavepointMode::Unspecified => {
            Err(Status::invalid_argument("the request does not say what becomes of the job (mode)"))
        }
    }
}

pub(super) fn event(news: SavepointNews) -> Result<v1::SavepointEvent, Status> {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let message = match news {
        SavepointNews::Progress { id, acknowledged, subtasks } => Message::Progress(v1::SavepointProgress {
            savepoint_id: id.unwrap_or(0),
            acknowledged: count(acknowledged),
            subtasks: count(subtasks),
        }),
        SavepointNews::Completed(savepoint) => Message::Completed(summary(&savepoint)),
        SavepointNews::Failed(reason) => return Err(Status::aborted(reason)),
    };
    Ok(v1::SavepointEvent { message: Some(message) })
}

pub(super) fn summary(savepoint: &CompletedCheckpoint) -> v1::SavepointSummary {
    v1::SavepointSummary {
        savepoint_id: savepoint.id,
        path: savepoint.path.clone().unwrap_or_default(),
        triggered_ms: savepoint.triggered_ms,
        completed_ms: savepoint.completed_ms,
        size_bytes: savepoint.size_bytes,
        r#final: savepoint.is_final,
    }
}

/// Deletes a savepoint. What is no savepoint is not touched.
pub(super) async fn dispose<'a>(
    path: &str,
    storages: &StorageFactory,
    mut jobs: impl Iterator<Item = &'a JobRecord>,
) -> Result<(), Status> {
    let storage = storages.open(path).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let uri = storage.uri().to_string();
    let needs = |job: &&JobRecord| {
        let base = job.base.as_ref().map(|base| base.path.as_str());
        !job.status.is_terminal() && base.is_some_and(|base| base == path || base == uri)
    };
    if let Some(job) = jobs.find(needs) {
        return Err(Status::aborted(format!(
            "job {} ({}) would restore this savepoint if it failed now; delete it when newer checkpoints have replaced it",
            job.name, job.id
        )));
    }
    match Savepoint::open(storage.clone()).await {
        Ok(_) => {}
        Err(thalweg_savepoint::SavepointError::Missing { .. }) => {
            let left = storage.list("").await.map_err(|error| Status::unavailable(error.to_string()))?;
            return match left.is_empty() {
                true => Ok(()),
                false => Err(Status::invalid_argument(format!(
                    "{uri} has files but no savepoint, so nothing was deleted; check the path"
                ))),
            };
        }
        Err(error) => return Err(Status::aborted(error.to_string())),
    }
    storage.delete_prefix("").await.map_err(|error| Status::unavailable(error.to_string()))
}
