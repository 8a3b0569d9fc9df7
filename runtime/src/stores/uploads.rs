//! Which shared files a task may name in its next checkpoint. Pure.
//!
//! Invariant: beside what it uploads for the checkpoint at hand, a task names only files of the newest checkpoint of which it was
//! told that it is complete: the job manager keeps those, and no others.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_common::id::{CheckpointId, OperatorId};
use thalweg_proto::convert::SharedFile;

/// A file of a store: whose it is, its name there, its size and its checksum.
pub(crate) type FileId = (OperatorId, String, u64, u64);

/// Files, and where they were uploaded to.
pub(crate) type Files = BTreeMap<FileId, SharedFile>;

/// What a task has uploaded.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    /// Of the newest checkpoint that is known to be complete.
    completed: Files,
    in_progress: BTreeMap<CheckpointId, Files>,
    /// Nothing older can become complete.
    newest: CheckpointId,
    aborted: BTreeSet<CheckpointId>,
}

impl Uploads {
    /// These files were restored.
    #[cfg(any(test, feature = "rocksdb"))]
    pub(crate) fn restored(&mut self, files: Files) {
        self.completed.extend(files);
    }

    /// Where a file is that need not be uploaded again.
    pub(crate) fn known(&self, file: &FileId) -> Option<&SharedFile> {
        self.completed.get(file)
    }

    /// A checkpoint has these files of one store.
    pub(crate) fn stored(&mut self, checkpoint: CheckpointId, files: Files) {
        if !self.is_dead(checkpoint) {
            self.in_progress.entry(checkpoint).or_default().extend(files);
        }
    }

    /// A checkpoint is complete.
    pub(crate) fn completed(&mut self, checkpoint: CheckpointId) {
        if checkpoint <= self.newest {
            return;
        }
        self.newest = checkpoint;
        self.completed = self.in_progress.remove(&checkpoint).unwrap_or_default();
        self.in_progress.retain(|other, _| *other > checkpoint);
        self.aborted.retain(|other| *other > checkpoint);
    }

    /// A checkpoint will never be complete.
    pub(crate) fn aborted(&mut self, checkpoint: CheckpointId) {
        self.in_progress.remove(&checkpoint);
        if checkpoint > self.newest {
            self.aborted.insert(checkpoint);
        }
    }

    /// Whether a checkpoint can't become complete any more.
    pub(crate) fn is_dead(&self, checkpoint: CheckpointId) -> bool {
        checkpoint <= self.newest || self.aborted.contains(&checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> FileId {
        (OperatorId(1), name.into(), 7, 8)
    }

    fn files(checkpoint: CheckpointId, names: &[&str]) -> Files {
        let file = |name: &&str| {
            let path = format!("shared/a1-c{checkpoint}-0-0-{name}");
            (id(name), SharedFile { path, size_bytes: 7, checksum: 8 })
        };
        names.iter().map(file).collect()
    }

    fn is_known(uploads: &Uploads, name: &str) -> bool {
        uploads.known(&id(name)).is_some()
    }

    #[test]
    fn only_files_of_the_newest_complete_checkpoint_are_named_again() {
        let mut uploads = Uploads::default();
        uploads.restored(files(1, &["a", "b"]));
        assert!(is_known(&uploads, "a") && is_known(&uploads, "b"));
        uploads.stored(2, files(1, &["a"]));
        uploads.stored(2, files(2, &["c"]));
        assert!(!is_known(&uploads, "c"), "not complete yet");
        uploads.completed(2);
        assert!(is_known(&uploads, "a") && is_known(&uploads, "c") && !is_known(&uploads, "b"));
        assert!(uploads.known(&(OperatorId(1), "a".into(), 7, 9)).is_none(), "another content");
        uploads.completed(2);
        assert!(is_known(&uploads, "c"), "told twice");
    }

    #[test]
    fn aborted_and_overtaken_checkpoints_are_forgotten() {
        let mut uploads = Uploads::default();
        uploads.stored(1, files(1, &["a"]));
        uploads.stored(2, files(2, &["b"]));
        uploads.stored(3, files(3, &["c"]));
        uploads.aborted(2);
        assert!(uploads.is_dead(2) && !uploads.is_dead(3));
        uploads.completed(3);
        assert!(uploads.is_dead(1) && uploads.is_dead(3));
        uploads.stored(1, files(1, &["a"]));
        uploads.completed(1);
        assert!(is_known(&uploads, "c") && !is_known(&uploads, "a"));
    }
}
