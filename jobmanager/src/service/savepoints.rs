//! Savepoints as clients ask for them: taking, listing, deleting; and the check of a job that is to begin with one, before anything of
//! it starts.

use std::collections::BTreeMap;

use thalweg_common::config::{Configuration, keys};
use thalweg_common::failure::Failure;
use thalweg_common::graph::JobGraph;
use thalweg_common::manifest::{OperatorReport, Report, StateManifest, check};
use thalweg_common::storage::StorageFactory;
use thalweg_proto::model::SavepointMode;
use thalweg_proto::v1;
use thalweg_proto::v1::savepoint_event::Message;
use thalweg_savepoint::Savepoint;
use tokio::sync::{mpsc, watch};
use tonic::Status;

use crate::cluster::{Base, CompletedCheckpoint, JobRecord};
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

/// Tells a client the news of a savepoint, to the last.
pub(super) async fn tell(
    mut news: watch::Receiver<SavepointNews>,
    events: mpsc::Sender<Result<v1::SavepointEvent, Status>>,
) {
    loop {
        let now = news.borrow_and_update().clone();
        let is_last = !matches!(now, SavepointNews::Progress { .. });
        if events.send(event(now)).await.is_err() || is_last {
            return;
        }
        if news.changed().await.is_err() {
            // The last news may have come just before the end.
            let now = news.borrow().clone();
            let last = match now {
                SavepointNews::Progress { .. } => Err(Status::unavailable(
                    "another job manager leads now; it knows nothing of the savepoint",
                )),
                now => event(now),
            };
            // The client may have gone.
            let _ = events.send(last).await;
            return;
        }
    }
}

fn event(news: SavepointNews) -> Result<v1::SavepointEvent, Status> {
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

/// A savepoint that a job is to begin with.
#[derive(Debug, Clone)]
pub(super) struct Beginning {
    savepoint: Savepoint,
    restore: v1::SavepointRestore,
}

impl Beginning {
    pub(super) async fn open(
        storages: &StorageFactory,
        restore: v1::SavepointRestore,
    ) -> Result<Self, Failure> {
        let storage = storages.open(&restore.path).map_err(|error| Failure::from(&error))?;
        let savepoint =
            Savepoint::open(storage).await.map_err(|error| Failure::user(error.to_string()).permanent())?;
        Ok(Self { savepoint, restore })
    }

    /// What becomes of the state in a job with this graph.
    pub(super) fn compare(&self, graph: &JobGraph) -> Report {
        let found = &self.savepoint.metadata().manifest;
        check(found, &StateManifest::of(graph), self.restore.allow_non_restored_state)
    }

    /// The setting that lets operators keep the number of key groups of their state, if they differ from it.
    pub(super) fn kept_max_parallelism(
        report: &Report,
        configuration: &mut BTreeMap<String, String>,
    ) -> bool {
        let kept = |operator: &OperatorReport| Some(operator.max_parallelism.as_ref()?.restored);
        let Some(restored) = report.operators.iter().find_map(kept) else { return false };
        configuration.insert(keys::PIPELINE_MAX_PARALLELISM.name.to_string(), restored.to_string());
        true
    }

    /// Refuses what does not fit.
    pub(super) fn accept(&self, graph: &JobGraph, report: &Report) -> Result<Base, Failure> {
        refuse_misfits(report)?;
        let kept =
            report.operators.iter().find_map(|operator| Some((operator, operator.max_parallelism.as_ref()?)));
        if let Some((operator, kept)) = kept {
            return Err(Failure::user(format!(
                "the state of `{}` has max parallelism {}, and the job sets {}; set it to {} in the program",
                operator.name, kept.restored, kept.declared, kept.restored
            ))
            .permanent());
        }
        self.check_items(graph)?;
        let metadata = self.savepoint.metadata();
        Ok(Base {
            id: metadata.savepoint_id,
            path: self.savepoint.uri().to_string(),
            allow_non_restored_state: self.restore.allow_non_restored_state,
            is_claimed: self.restore.claim,
        })
    }

    /// What sources and sinks remember cannot be divided: they keep their parallelism.
    fn check_items(&self, graph: &JobGraph) -> Result<(), Failure> {
        let metadata = self.savepoint.metadata();
        for operator in metadata.manifest.operators.iter().filter(|operator| !operator.is_keyed()) {
            let has_items = metadata.files_of(operator.id).any(|file| file.item_bytes > 0);
            let declared = graph
                .vertices
                .iter()
                .find(|vertex| vertex.operators.iter().any(|candidate| candidate.id == operator.id));
            let Some(vertex) =
                declared.filter(|vertex| has_items && vertex.parallelism != operator.parallelism)
            else {
                continue;
            };
            return Err(Failure::user(format!(
                "{} had parallelism {} when the savepoint was taken and would have {}: its positions or transactions cannot be divided; \
                 keep its parallelism with `set_parallelism({})`, and change that of the other operators",
                operator.label(),
                operator.parallelism,
                vertex.parallelism,
                operator.parallelism
            ))
            .permanent());
        }
        Ok(())
    }
}

/// The report as a refusal, if it is one.
pub(super) fn refuse_misfits(report: &Report) -> Result<(), Failure> {
    let refusals = report.refusals();
    if refusals.is_empty() {
        return Ok(());
    }
    let text = format!("the state does not fit the job:\n{}", refusals.join("\n"));
    Err(Failure::user(text).permanent())
}
