//! What a job is to begin with, a savepoint or another job's checkpoint: read and compared with the job before anything of it starts.
//!
//! On a command's way this stands between the job's plan and `SubmitJob`. Invariants: what does not fit is refused here, with operator, field
//! and cure; what one job owns no other one begins with or owns.

use std::collections::BTreeMap;

use thalweg_common::config::keys;
use thalweg_common::failure::Failure;
use thalweg_common::graph::{JobGraph, Vertex};
use thalweg_common::manifest::{OperatorReport, Report, StateManifest, check};
use thalweg_common::storage::StorageFactory;
use thalweg_proto::v1;
use thalweg_savepoint::{Metadata, Savepoint};

use crate::checkpoint::CheckpointMetadata;
use crate::checkpoint::foreign;
use crate::checkpoint::metadata::checkpoint_path;
use crate::cluster::{Base, BaseKind, JobRecord};

/// What a job is to begin with.
#[derive(Debug, Clone)]
pub(super) struct Beginning {
    found: Found,
    /// Its address, as every job manager writes it.
    uri: String,
    restore: v1::SavepointRestore,
}

#[derive(Debug, Clone)]
enum Found {
    Savepoint(Savepoint),
    Checkpoint(Box<CheckpointMetadata>),
}

impl Beginning {
    /// Reads what there is at the address.
    pub(super) async fn open(
        storages: &StorageFactory,
        restore: v1::SavepointRestore,
    ) -> Result<Self, Failure> {
        let refused = |reason: String| Failure::user(reason).permanent();
        let checkpoint = CheckpointMetadata::find(&restore.path, |uri| storages.open(uri)).await;
        if let Some((storage, metadata)) = checkpoint.map_err(|error| refused(error.to_string()))? {
            let complete = foreign::complete(&*storage, &metadata).await;
            complete.map_err(|reason| {
                refused(format!("the checkpoint {} cannot be restored: {reason}", restore.path))
            })?;
            let directory = storage.uri().trim_end_matches('/');
            let uri = format!("{directory}/{}", checkpoint_path(metadata.checkpoint_id));
            return Ok(Self { found: Found::Checkpoint(Box::new(metadata)), uri, restore });
        }
        let storage = storages.open(&restore.path).map_err(|error| Failure::from(&error))?;
        let savepoint = Savepoint::open(storage).await.map_err(|error| refused(error.to_string()))?;
        let uri = savepoint.uri().to_string();
        Ok(Self { found: Found::Savepoint(savepoint), uri, restore })
    }

    fn manifest(&self) -> &StateManifest {
        match &self.found {
            Found::Savepoint(savepoint) => &savepoint.metadata().manifest,
            Found::Checkpoint(metadata) => &metadata.manifest,
        }
    }

    /// What becomes of the state in a job with this graph.
    pub(super) fn compare(&self, graph: &JobGraph) -> Report {
        check(self.manifest(), &StateManifest::of(graph), self.restore.allow_non_restored_state)
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
        let (kind, id) = match &self.found {
            Found::Savepoint(savepoint) => {
                refuse_misfits(report)?;
                check_max_parallelism(report)?;
                check_parts(savepoint.metadata(), graph)?;
                (BaseKind::Savepoint, savepoint.metadata().savepoint_id)
            }
            Found::Checkpoint(metadata) => {
                let allow = self.restore.allow_non_restored_state;
                metadata.check_foreign(graph, allow).map_err(|reason| {
                    Failure::user(format!("the checkpoint {} does not fit the job: {reason}", self.uri))
                        .permanent()
                })?;
                (BaseKind::Checkpoint, metadata.checkpoint_id)
            }
        };
        Ok(Base {
            id,
            path: self.uri.clone(),
            kind,
            allow_non_restored_state: self.restore.allow_non_restored_state,
            is_claimed: self.restore.claim,
        })
    }

    /// Refuses what another job owns, or still writes. Gives what whoever submits should know.
    pub(super) fn check_owners<'a>(
        &self,
        jobs: impl Iterator<Item = &'a JobRecord>,
    ) -> Result<Option<String>, Failure> {
        let mut warning = None;
        for job in jobs.filter(|job| !job.status.is_terminal()) {
            let began_with_it = job.base.as_ref().filter(|base| base.path == self.uri);
            if began_with_it.is_some_and(|base| base.is_claimed || self.restore.claim) {
                return Err(Failure::user(format!(
                    "job {} ({}) began with {} too, and one of the two jobs would delete it while the other one may need it; wait until \
                     that job has completed checkpoints of its own",
                    job.name, job.id, self.uri
                ))
                .permanent());
            }
            let Found::Checkpoint(metadata) = &self.found else { continue };
            if metadata.job_id != job.id {
                continue;
            }
            if self.restore.claim {
                return Err(Failure::user(format!(
                    "job {} ({}), which took this checkpoint, is {}, and it owns it; cancel that job first, or leave the checkpoint to it \
                     with --restore-mode no-claim",
                    job.name, job.id, job.status
                ))
                .permanent());
            }
            warning = Some(format!(
                "job {} ({}), which took the checkpoint {}, is {} and deletes it when newer ones replace it, perhaps before this job has \
                 completed one of its own; a savepoint stays",
                job.name, job.id, self.uri, job.status
            ));
        }
        Ok(warning)
    }
}

/// Operators keep the number of key groups of their state.
fn check_max_parallelism(report: &Report) -> Result<(), Failure> {
    let kept =
        report.operators.iter().find_map(|operator| Some((operator, operator.max_parallelism.as_ref()?)));
    let Some((operator, kept)) = kept else { return Ok(()) };
    Err(Failure::user(format!(
        "the state of `{}` has max parallelism {}, and the job sets {}; set it to {} in the program",
        operator.name, kept.restored, kept.declared, kept.restored
    ))
    .permanent())
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
