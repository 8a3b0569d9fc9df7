//! Which shared files a task may name in its next checkpoint, and of which files it keeps local copies. Pure.
//!
//! Invariants: beside what it uploads for the checkpoint at hand, a task names only files of the newest checkpoint of which it was
//! told that it is complete: the job manager keeps those, and no others. What is restored from another job's checkpoint belongs to that
//! job, so that the first checkpoint behind it has all files anew. Copies are kept of the files of that checkpoint, or of
//! the one that was restored, and of those in progress.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_common::id::{CheckpointId, OperatorId};
use thalweg_proto::convert::SharedFile;

/// A file of a store: whose it is, its name there, its size and its checksum.
pub(crate) type FileId = (OperatorId, String, u64, u64);

/// Files, and where they were uploaded to.
pub(crate) type Files = BTreeMap<FileId, SharedFile>;

/// What a checkpoint has of a task.
#[derive(Debug, Default)]
struct Parts {
    shared: Files,
    /// The paths of files that belong to it alone.
    own: BTreeSet<String>,
}

/// What a task has uploaded.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    /// Of the newest checkpoint that is known to be complete.
    completed: Parts,
    in_progress: BTreeMap<CheckpointId, Parts>,
    /// Nothing older can become complete.
    newest: CheckpointId,
    aborted: BTreeSet<CheckpointId>,
    /// What is restored belongs to another job.
    is_foreign: bool,
}

impl Uploads {
    /// What is restored is another job's: none of it is named.
    pub(crate) fn restores_foreign(&mut self) {
        self.is_foreign = true;
    }

    /// These files were restored.
    #[cfg(any(test, feature = "rocksdb"))]
    pub(crate) fn restored(&mut self, files: Files) {
        if !self.is_foreign {
            self.completed.shared.extend(files);
        }
    }

    /// A file of this path was restored that belongs to one checkpoint alone.
    pub(crate) fn restored_own(&mut self, path: &str) {
        self.completed.own.insert(path.to_string());
    }

    /// Where a file is that need not be uploaded again.
    pub(crate) fn known(&self, file: &FileId) -> Option<&SharedFile> {
        self.completed.shared.get(file)
    }

    /// A checkpoint has these files of one store.
    pub(crate) fn stored(&mut self, checkpoint: CheckpointId, files: Files) {
        if !self.is_dead(checkpoint) {
            self.in_progress.entry(checkpoint).or_default().shared.extend(files);
        }
    }

    /// A checkpoint has a file of this path, or will have it, and no other has.
    pub(crate) fn stored_own(&mut self, checkpoint: CheckpointId, path: &str) {
        if !self.is_dead(checkpoint) {
            self.in_progress.entry(checkpoint).or_default().own.insert(path.to_string());
        }
    }

    /// The paths of all files of which there shall be copies.
    pub(crate) fn needed(&self) -> BTreeSet<&str> {
        let parts = std::iter::once(&self.completed).chain(self.in_progress.values());
        let paths = parts.flat_map(|parts| {
            let shared = parts.shared.values().map(|file| file.path.as_str());
            shared.chain(parts.own.iter().map(String::as_str))
        });
        paths.collect()
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
    fn files_of_another_job_are_never_named() {
        let mut uploads = Uploads::default();
        uploads.restores_foreign();
        uploads.restored(files(1, &["a"]));
        assert!(!is_known(&uploads, "a") && uploads.needed().is_empty());
        uploads.stored(2, files(2, &["a"]));
        uploads.completed(2);
        assert!(is_known(&uploads, "a"), "its own are");
    }

    #[test]
    fn copies_are_needed_of_the_newest_complete_checkpoint_and_of_those_in_progress() {
        let own = |checkpoint| format!("chk-{checkpoint}/0-0-a1");
        let mut uploads = Uploads::default();
        uploads.restored(files(1, &["a"]));
        uploads.restored_own(&own(1));
        uploads.stored(2, files(1, &["a"]));
        uploads.stored(2, files(2, &["b"]));
        uploads.stored_own(3, &own(3));
        let first = ["chk-1/0-0-a1", "chk-3/0-0-a1", "shared/a1-c1-0-0-a", "shared/a1-c2-0-0-b"];
        assert_eq!(Vec::from_iter(uploads.needed()), first);
        uploads.completed(2);
        assert_eq!(
            Vec::from_iter(uploads.needed()),
            ["chk-3/0-0-a1", "shared/a1-c1-0-0-a", "shared/a1-c2-0-0-b"]
        );
        uploads.aborted(3);
        uploads.stored_own(3, &own(3));
        assert_eq!(Vec::from_iter(uploads.needed()), ["shared/a1-c1-0-0-a", "shared/a1-c2-0-0-b"]);
        // Without any file on disk: a task whose snapshot is part of the metadata.
        uploads.completed(4);
        assert!(uploads.needed().is_empty());
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
