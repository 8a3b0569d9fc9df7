//! The files of a job's checkpoints: which are kept, which are deleted, and when.
//!
//! On a command's way this comes behind `CompleteCheckpoint`: only when the log has a newer checkpoint are the files of those
//! that it replaces deleted. What a checkpoint that failed has uploaded is needed by none and goes then. Files that nobody knows of
//! (a leader, an attempt or a task ended before it told of them) are found by listing the job's directory behind the first
//! checkpoint that completes in each attempt and term, and after a failed one: whatever belongs to an older one that is neither
//! kept nor in progress. Their names carry attempt and checkpoint, so no clock is asked.

use std::collections::BTreeSet;

use thalweg_common::id::CheckpointId;
use thalweg_common::status::JobStatus;

use super::JobCore;
use super::message::Action;
use crate::checkpoint::{Coordinator, metadata};
use crate::cluster::{self, CompletedCheckpoint};

/// Most given up checkpoints whose files are remembered for deletion; the listing finds what is beyond.
const MAX_GARBAGE: usize = 64;

impl JobCore {
    /// A checkpoint is in the log: what it replaces is deleted.
    pub(super) fn retain(&mut self, checkpoint: CompletedCheckpoint, out: &mut Vec<Action>) {
        let checkpoint_id = checkpoint.id;
        let has_file = checkpoint.path.is_some();
        let keep = self.spec.graph.checkpointing.keeps();
        let dropped = cluster::retain(&mut self.retained, checkpoint, keep);
        self.release_base(out);
        let ids: Vec<_> = dropped.iter().map(|dropped| dropped.id).collect();
        let with_file = dropped.iter().filter(|dropped| dropped.path.is_some());
        out.extend(with_file.map(|dropped| Action::DeleteCheckpoint(dropped.id)));
        if !has_file {
            return;
        }
        self.shared.completed(checkpoint_id, &ids);
        // Whatever was given up before this one is not written to any more.
        let newer = self.garbage.split_off(&checkpoint_id);
        out.extend(std::mem::replace(&mut self.garbage, newer).into_iter().map(Action::DeleteCheckpoint));
        out.extend(self.shared.unknown().map(Action::ReadShared));
        if std::mem::take(&mut self.may_have_orphans) {
            out.push(Action::ListFiles);
        }
        self.delete_shared(out);
    }

    /// A checkpoint never completes. What its tasks have announced goes at once, so that it does not take the room that the next
    /// one needs; the files of its own, which late tasks may still write, go with the next that fails, and again when one completes.
    pub(super) fn discard(&mut self, checkpoint_id: CheckpointId, out: &mut Vec<Action>) {
        self.shared.aborted(checkpoint_id);
        self.delete_shared(out);
        out.extend(self.garbage.range(..checkpoint_id).next_back().map(|id| Action::DeleteCheckpoint(*id)));
        self.add_garbage(checkpoint_id);
        // Of tasks that have uploaded files and not told of them.
        self.may_have_orphans = true;
    }

    /// Remembers a checkpoint whose files have to go, once late tasks cannot write them any more.
    pub(super) fn add_garbage(&mut self, checkpoint_id: CheckpointId) {
        if self.spec.checkpoint_directory.is_some() {
            self.garbage.insert(checkpoint_id);
        }
        while self.garbage.len() > MAX_GARBAGE {
            self.garbage.pop_first();
            self.may_have_orphans = true;
        }
    }

    /// It is known which shared files a retained checkpoint names, or it is not.
    pub(super) fn shared_read(
        &mut self,
        checkpoint_id: CheckpointId,
        result: Result<BTreeSet<String>, String>,
        out: &mut Vec<Action>,
    ) {
        match result {
            Ok(files) => self.shared.known(checkpoint_id, files),
            Err(reason) => out.push(Action::Warn(format!(
                "The metadata of checkpoint {checkpoint_id} of job {} cannot be read; until it can be, or the checkpoint is \
                 replaced, no shared files are deleted: {reason}.",
                self.spec.job_id
            ))),
        }
    }

    /// These are all files in the job's directory.
    pub(super) fn listed(&mut self, paths: Vec<String>, out: &mut Vec<Action>) {
        let Some(newest) = self.retained.back().map(|newest| newest.id) else { return };
        let in_progress = self.coordinator.iter().flat_map(Coordinator::in_progress);
        let needed: BTreeSet<_> = in_progress
            .map(|pending| pending.checkpoint_id)
            .chain(self.retained.iter().map(|retained| retained.id))
            .chain(self.committing.keys().copied())
            .collect();
        let found: BTreeSet<_> = paths.iter().filter_map(|path| metadata::checkpoint_of_path(path)).collect();
        let orphans = found.difference(&needed).copied().filter(|checkpoint_id| *checkpoint_id < newest);
        out.extend(orphans.map(Action::DeleteCheckpoint));
        self.shared.found(paths.into_iter(), newest);
        self.delete_shared(out);
    }

    fn delete_shared(&mut self, out: &mut Vec<Action>) {
        let paths = self.shared.condemn();
        if !paths.is_empty() {
            out.push(Action::DeleteShared(paths));
        }
    }

    /// The job has ended in this state and nothing of it writes any more.
    pub(super) fn clear_files(&mut self, ended: JobStatus, out: &mut Vec<Action>) {
        if self.spec.checkpoint_directory.is_none() {
            return;
        }
        if self.spec.graph.checkpointing.retention.keeps(ended) {
            let garbage = std::mem::take(&mut self.garbage).into_iter();
            out.extend(garbage.map(Action::DeleteCheckpoint));
            self.delete_shared(out);
        } else {
            out.push(Action::DeleteAllCheckpoints);
        }
    }
}
