//! Savepoints as clients ask for them: taking, listing, deleting; and the check of a job that is to begin with one, before anything of
//! it starts.

use std::collections::BTreeMap;

use thalweg_common::config::{Configuration, keys};
use thalweg_common::failure::Failure;
use thalweg_common::graph::{JobGraph, Vertex};
use thalweg_common::manifest::{OperatorReport, Report, StateManifest, check};
use thalweg_common::storage::StorageFactory;
use thalweg_proto::model::SavepointMode;
use thalweg_proto::v1;
use thalweg_proto::v1::savepoint_event::Message;
use thalweg_savepoint::{Metadata, Savepoint};
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
        let metadata = self.savepoint.metadata();
        check_parts(metadata, graph)?;
        Ok(Base {
            id: metadata.savepoint_id,
            path: self.savepoint.uri().to_string(),
            allow_non_restored_state: self.restore.allow_non_restored_state,
            is_claimed: self.restore.claim,
        })
    }
}

/// Sources and sinks whose state has no parts keep their parallelism.
fn check_parts(metadata: &Metadata, graph: &JobGraph) -> Result<(), Failure> {
    for operator in metadata.manifest.operators.iter().filter(|operator| !operator.is_keyed()) {
        let is_whole =
            metadata.files_of(operator.id).any(|file| file.item_bytes > 0 && file.items > file.parts);
        let has_it = |vertex: &&Vertex| vertex.operators.iter().any(|candidate| candidate.id == operator.id);
        let declared = graph.vertices.iter().find(has_it);
        let Some(vertex) = declared.filter(|vertex| is_whole && vertex.parallelism != operator.parallelism)
        else {
            continue;
        };
        return Err(Failure::user(format!(
            "{} had parallelism {} when the savepoint was taken and would have {}: its state has no parts that could be divided; \
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

/// The report as a refusal, if it is one.
pub(super) fn refuse_misfits(report: &Report) -> Result<(), Failure> {
    let refusals = report.refusals();
    if refusals.is_empty() {
        return Ok(());
    }
    let text = format!("the state does not fit the job:\n{}", refusals.join("\n"));
    Err(Failure::user(text).permanent())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use thalweg_common::graph::{StateDescriptor, StateKind};
    use thalweg_common::id::{JobId, OperatorId};
    use thalweg_common::schema::Schema;
    use thalweg_savepoint::DataFile;

    use super::*;
    use crate::testing::{graph_of, vertex};

    #[test]
    fn what_has_parts_may_change_its_parallelism_and_what_has_none_may_not() {
        let graph = |parallelism| {
            let mut source = vertex("numbers", parallelism, "default");
            let position = StateDescriptor::new("position", StateKind::Source, Schema::primitive("bytes"));
            source.operators[0].states.push(position);
            graph_of(vec![source])
        };
        let check = |items, parts, item_bytes, parallelism| {
            let file = DataFile {
                operator: OperatorId(1),
                path: "1/0-a1-0".into(),
                subtask: Some(0),
                size_bytes: 10,
                checksum: 0,
                groups: None,
                states: BTreeMap::new(),
                items,
                item_bytes,
                parts,
            };
            let metadata = Metadata::new(JobId(1), 4, 0, StateManifest::of(&graph(2)), vec![file]);
            check_parts(&metadata, &graph(parallelism))
        };
        assert_eq!(check(3, 3, 60, 5), Ok(()));
        assert_eq!(check(1, 0, 8, 2), Ok(()), "nothing changes");
        assert_eq!(check(1, 0, 0, 5), Ok(()), "it remembers nothing");
        for parts in [0, 2] {
            let refused = check(3, parts, 60, 5).unwrap_err();
            assert!(refused.message.contains("keep its parallelism with `set_parallelism(2)`"), "{refused}");
        }
    }
}
