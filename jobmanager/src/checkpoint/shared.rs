//! Which shared files are needed, and which may be deleted: references per checkpoint. Pure.
//!
//! On a command's way it stands beside the coordinator: acknowledgements announce files, `CompleteCheckpoint` in the log
//! makes a checkpoint's references lasting and ends those of the checkpoints that it drops, and only then something is
//! deleted. It lives in the leader and is rebuilt by the next one from the metadata of the retained checkpoints.
//!
//! Invariants: a file that a retained checkpoint or one in progress names is never deleted; while the files of one
//! retained checkpoint are not known (its metadata is not read yet, or cannot be read), nothing is deleted at all; a
//! checkpoint that names a file which is being deleted does not complete.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_common::id::CheckpointId;
use thalweg_proto::convert::SharedFile;

/// Most files that are remembered because nobody may need them any more; a sweep finds what is beyond.
const MAX_UNNEEDED: usize = 1_000_000;

/// The shared files of one job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedFiles {
    /// Of the checkpoints in the log; `None` while they are not known.
    retained: BTreeMap<CheckpointId, Option<BTreeSet<String>>>,
    /// What those in progress have announced.
    pending: BTreeMap<CheckpointId, BTreeSet<String>>,
    /// What lost a reference, and perhaps its last one.
    unneeded: BTreeSet<String>,
    /// What is being deleted, and whether at the moment; what could not be deleted is tried again.
    condemned: BTreeMap<String, bool>,
}

/// A checkpoint names a file that is being deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "it names the shared file `{path}`, which belonged to a checkpoint that is gone; the next one uploads it again"
)]
pub struct Condemned {
    /// The file.
    pub path: String,
}

impl SharedFiles {
    /// Those of a job with these retained checkpoints, none of them known yet.
    pub fn of(retained: impl Iterator<Item = CheckpointId>) -> Self {
        Self { retained: retained.map(|id| (id, None)).collect(), ..Self::default() }
    }

    /// The retained checkpoints whose files are not known.
    pub fn unknown(&self) -> impl Iterator<Item = CheckpointId> {
        self.retained.iter().filter(|(_, files)| files.is_none()).map(|(id, _)| *id)
    }

    /// The metadata of a retained checkpoint names these files.
    pub fn known(&mut self, checkpoint: CheckpointId, files: BTreeSet<String>) {
        if let Some(entry @ None) = self.retained.get_mut(&checkpoint) {
            *entry = Some(files);
        }
    }

    /// A checkpoint in progress needs these files.
    ///
    /// # Errors
    /// When one of them is being deleted: then the checkpoint must be given up.
    pub fn announce<'a>(
        &mut self,
        checkpoint: CheckpointId,
        files: impl Iterator<Item = &'a SharedFile> + Clone,
    ) -> Result<(), Condemned> {
        if let Some(file) = files.clone().find(|file| self.condemned.contains_key(&file.path)) {
            return Err(Condemned { path: file.path.clone() });
        }
        let mut files = files.peekable();
        if files.peek().is_some() {
            self.pending.entry(checkpoint).or_default().extend(files.map(|file| file.path.clone()));
        }
        Ok(())
    }

    /// These files were uploaded for a checkpoint that is not in progress any more.
    pub fn late<'a>(&mut self, files: impl Iterator<Item = &'a SharedFile>) {
        self.unneeded.extend(files.map(|file| file.path.clone()));
        self.bound();
    }

    /// A checkpoint is in the log and has replaced these.
    pub fn completed(&mut self, checkpoint: CheckpointId, dropped: &[CheckpointId]) {
        let files = self.pending.remove(&checkpoint).unwrap_or_default();
        self.retained.insert(checkpoint, Some(files));
        for dropped in dropped {
            self.unneeded.extend(self.retained.remove(dropped).flatten().unwrap_or_default());
        }
        self.bound();
    }

    /// A checkpoint never completes.
    pub fn aborted(&mut self, checkpoint: CheckpointId) {
        self.unneeded.extend(self.pending.remove(&checkpoint).unwrap_or_default());
        self.bound();
    }

    /// Whether a retained checkpoint names the file, so that it was verified and is not deleted.
    #[must_use]
    pub fn is_retained(&self, path: &str) -> bool {
        self.retained.values().flatten().any(|files| files.contains(path))
    }

    /// What is to be deleted now: nobody needs it any more. To be asked only when the log has all that was
    /// [`completed`](Self::completed).
    pub fn condemn(&mut self) -> Vec<String> {
        if self.unknown().next().is_some() {
            return Vec::new();
        }
        let unneeded = std::mem::take(&mut self.unneeded);
        let orphans: Vec<_> = unneeded.into_iter().filter(|path| !self.is_needed(path)).collect();
        self.condemned.extend(orphans.into_iter().map(|path| (path, false)));
        let idle = self.condemned.iter_mut().filter(|(_, in_progress)| !**in_progress);
        idle.map(|(path, in_progress)| {
            *in_progress = true;
            path.clone()
        })
        .collect()
    }

    /// These files exist. Those that were uploaded for a checkpoint older than `newest`, the newest in the log, and that
    /// nobody names are orphans: [`condemn`](Self::condemn) gives them next. What has another kind of name is left alone.
    pub fn found(&mut self, paths: impl Iterator<Item = String>, newest: CheckpointId) {
        let orphans = paths
            .filter(|path| SharedFile::uploaded_by(path).is_some_and(|(_, checkpoint)| checkpoint < newest));
        self.unneeded.extend(orphans);
        self.bound();
    }

    /// What was condemned is gone, or could not be deleted.
    pub fn deleted(&mut self, paths: &[String], are_gone: bool) {
        for path in paths {
            if are_gone {
                self.condemned.remove(path);
            } else if let Some(in_progress) = self.condemned.get_mut(path) {
                *in_progress = false;
            }
        }
    }

    fn is_needed(&self, path: &str) -> bool {
        self.is_retained(path) || self.pending.values().any(|files| files.contains(path))
    }

    fn bound(&mut self) {
        while self.unneeded.len() > MAX_UNNEEDED {
            self.unneeded.pop_last();
        }
    }
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
