//! Savepoints of a running job: one at a time, for somebody who waits for the answer; and what a job is restored from when that is a
//! savepoint.
//!
//! The coordinator decides when one begins and what follows a part's acknowledgement; here its wishes become messages, files and
//! answers. Invariants: whoever asked gets exactly one last answer; a savepoint that does not complete leaves no files, as far as they
//! can be deleted; sinks commit only with one that ends the job, and only when it is in the log.

use std::collections::VecDeque;
use std::sync::Arc;

use thalweg_common::Timestamp;
use thalweg_common::id::{CheckpointId, JobId};
use thalweg_common::manifest::StateManifest;
use thalweg_proto::convert::SnapshotLocation;
use thalweg_proto::model::SavepointMode;
use thalweg_savepoint::{DataFile, Metadata, directory_name};

use super::message::{Action, Message, Now};
use super::{JobCore, Restore};
use crate::checkpoint::coordinator::Pending;
use crate::checkpoint::{Coordinator, Event};
use crate::cluster::{self, Base, BaseKind, CompletedCheckpoint};

/// A savepoint that somebody waits for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    /// Who.
    request: u64,
    /// Where its own directory is made.
    directory: String,
    /// Once it has begun.
    id: Option<CheckpointId>,
}

/// What somebody who waits for a savepoint is told. The last two are the end.
#[derive(Debug, Clone, PartialEq)]
pub enum SavepointNews {
    /// It is being taken.
    Progress {
        /// Absent while it has not begun.
        id: Option<CheckpointId>,
        /// Subtasks whose part is written.
        acknowledged: usize,
        /// All subtasks.
        subtasks: usize,
    },
    /// It is in the log.
    Completed(CompletedCheckpoint),
    /// It is not taken.
    Failed(String),
}

impl JobCore {
    pub(super) fn savepoint_asked(
        &mut self,
        request: u64,
        directory: String,
        mode: SavepointMode,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if let Err(reason) = self.may_take("savepoint") {
            out.push(Action::Savepoint { request, news: SavepointNews::Failed(reason) });
            return;
        }
        self.asked = Some(Asked { request, directory, id: None });
        self.is_told_to_end = mode != SavepointMode::Continue;
        self.tell_progress(0, out);
        if mode == SavepointMode::Drain {
            let message = Message::EndInput { attempt: self.execution.attempt };
            // To all: readers whose splits an enumerator assigns are in no vertex that is a source.
            self.send_to_all(&message, out);
        }
        self.coordinate(Event::Savepoint(mode), now, out);
    }

    /// The savepoint has its number: all workers are told where it goes, and sources to begin.
    pub(super) fn trigger_savepoint(
        &mut self,
        checkpoint_id: CheckpointId,
        is_final: bool,
        timestamp_ms: Timestamp,
        out: &mut Vec<Action>,
    ) {
        let Some(asked) = &mut self.asked else { return };
        asked.id = Some(checkpoint_id);
        let directory = own_directory(asked, self.spec.job_id, checkpoint_id);
        let attempt = self.execution.attempt;
        let message = Message::TriggerSavepoint { attempt, checkpoint_id, timestamp_ms, is_final, directory };
        self.send_to_all(&message, out);
        self.tell_progress(0, out);
    }

    /// A part of it is written.
    pub(super) fn savepoint_progressed(&self, checkpoint_id: CheckpointId, out: &mut Vec<Action>) {
        if self.asked.as_ref().is_some_and(|asked| asked.id == Some(checkpoint_id)) {
            let mut in_progress = self.coordinator.iter().flat_map(Coordinator::in_progress);
            let pending = in_progress.find(|pending| pending.checkpoint_id == checkpoint_id);
            self.tell_progress(pending.map_or(0, |pending| pending.parts.len()), out);
        }
    }

    fn tell_progress(&self, acknowledged: usize, out: &mut Vec<Action>) {
        if let Some(Asked { request, id, .. }) = &self.asked {
            let subtasks = self.spec.subtasks.len();
            let news = SavepointNews::Progress { id: *id, acknowledged, subtasks };
            out.push(Action::Savepoint { request: *request, news });
        }
    }

    /// All parts are written: what makes them a savepoint is written last.
    pub(super) fn write_savepoint(&mut self, pending: Pending, now: Now, out: &mut Vec<Action>) {
        let checkpoint_id = pending.checkpoint_id;
        let Some(directory) = self.savepoint_directory(checkpoint_id) else { return };
        let mut files = Vec::new();
        for (subtask, part) in &pending.parts {
            let listed = match &part.snapshot.location {
                SnapshotLocation::DataFiles(list) => {
                    DataFile::decode_list(list).map_err(|error| error.to_string())
                }
                SnapshotLocation::Inline(_) | SnapshotLocation::File(_) => {
                    Err("it wrote a checkpoint's snapshot; its worker is of another version".to_string())
                }
            };
            match listed {
                Ok(part) => files.extend(part),
                Err(reason) => {
                    let task = self.spec.task_name(*subtask, self.execution.attempt_of(*subtask));
                    let reason = format!("the part of {task} cannot be used: {reason}");
                    return self.coordinate(Event::Written(checkpoint_id, Err(reason)), now, out);
                }
            }
        }
        let (job_id, manifest) = (self.spec.job_id, self.manifest());
        let metadata = Metadata::new(job_id, checkpoint_id, pending.triggered_ms, manifest, files);
        let (attempt, metadata) = (self.execution.attempt, Arc::new(metadata));
        out.push(Action::WriteSavepoint { attempt, directory, metadata });
    }

    /// The states of the job.
    pub(super) fn manifest(&self) -> StateManifest {
        StateManifest { job_name: self.spec.name.clone(), ..StateManifest::of(&self.spec.graph) }
    }

    /// It is in the log.
    pub(super) fn savepoint_completed(&mut self, savepoint: CompletedCheckpoint, out: &mut Vec<Action>) {
        cluster::remember(&mut self.savepoints, savepoint.clone());
        self.base = savepoint.as_base().or(self.base.take());
        if let Some(asked) = self.asked.take() {
            let news = SavepointNews::Completed(savepoint);
            out.push(Action::Savepoint { request: asked.request, news });
        }
    }

    /// It will never complete: its files go.
    pub(super) fn savepoint_failed(&mut self, reason: &str, out: &mut Vec<Action>) {
        let Some(asked) = self.asked.take() else { return };
        if let Some(id) = asked.id {
            out.push(Action::DeleteSavepoint(own_directory(&asked, self.spec.job_id, id)));
        }
        let reason = format!("no savepoint was taken: {reason}");
        out.push(Action::Savepoint { request: asked.request, news: SavepointNews::Failed(reason) });
    }

    /// The attempt has ended. A savepoint that is in the log's hands is decided there.
    pub(super) fn savepoint_interrupted(&mut self, out: &mut Vec<Action>) {
        let id = self.asked.as_ref().and_then(|asked| asked.id);
        if !id.is_some_and(|id| self.committing.contains_key(&id)) {
            self.savepoint_failed(
                "the job failed or was cancelled meanwhile; ask again when it is RUNNING",
                out,
            );
        }
    }

    /// Whether this attempt ended with a savepoint that is in the log.
    pub(super) fn stopped_with_savepoint(&self) -> Option<CheckpointId> {
        let last = self.savepoints.back()?;
        (last.is_final && last.attempt == self.execution.attempt).then_some(last.id)
    }

    fn savepoint_directory(&self, checkpoint_id: CheckpointId) -> Option<String> {
        let asked = self.asked.as_ref().filter(|asked| asked.id == Some(checkpoint_id))?;
        Some(own_directory(asked, self.spec.job_id, checkpoint_id))
    }

    /// What can be restored, in the order in which it is tried: checkpoints up to the last that is newer than the base and sound, then
    /// that, then the rest.
    pub(super) fn candidates(&self) -> VecDeque<CheckpointId> {
        let mut candidates = cluster::candidates(&self.retained);
        if let Some(base) = &self.base {
            let is_sound =
                |id: &CheckpointId| self.retained.iter().any(|one| one.id == *id && one.unreadable.is_none());
            let newer =
                candidates.iter().rposition(|id| *id > base.id && is_sound(id)).map_or(0, |last| last + 1);
            candidates.insert(newer, base.id);
        }
        candidates.into()
    }

    /// The savepoint, or checkpoint of another job, that the present attempt restores, if it restores one.
    pub(super) fn restored_base(&self) -> Option<&Base> {
        self.base.as_ref().filter(|base| self.execution.restored == Some(base.id))
    }

    /// Begins to restore one of the candidates. Tasks read a savepoint themselves.
    pub(super) fn restore(&self, older: VecDeque<CheckpointId>, out: &mut Vec<Action>) -> Restore {
        match self.execution.restored {
            Some(id) if self.restored_base().is_none_or(|base| base.kind == BaseKind::Checkpoint) => {
                out.push(self.read_metadata(id));
                Restore::Reading { older }
            }
            _ => Restore::Ready(None),
        }
    }

    /// What the cluster owns of what the job began with is not needed any more.
    pub(super) fn release_base(&mut self, out: &mut Vec<Action>) {
        let keep = self.spec.graph.checkpointing.keeps();
        if let Some(base) = cluster::release(&mut self.base, &self.retained, keep) {
            out.push(match base.kind {
                BaseKind::Savepoint => Action::DeleteSavepoint(base.path),
                BaseKind::Checkpoint => Action::DeleteForeign(base),
            });
        }
    }

    /// How people call what was restored.
    pub(super) fn restored_text(&self, id: CheckpointId) -> String {
        match self.restored_base() {
            Some(Base { kind: BaseKind::Savepoint, path, .. }) => format!("restored from savepoint {path}"),
            Some(Base { kind: BaseKind::Checkpoint, path, .. }) => format!("restored from checkpoint {path}"),
            None => format!("restored from checkpoint {id}"),
        }
    }
}

fn own_directory(asked: &Asked, job_id: JobId, id: CheckpointId) -> String {
    format!("{}/{}", asked.directory.trim_end_matches('/'), directory_name(job_id, id))
}
