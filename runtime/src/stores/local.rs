//! Copies of a task's checkpoints on its machine, so that a task which returns there need not fetch its state.
//!
//! They are in a directory for each job and subtask, which outlives worker and task manager; a file has the name of its object in
//! the checkpoint's storage. Which of them are kept is up to [`Uploads`](super::Uploads). Invariants: a copy is used only if it has the
//! size and checksum that the checkpoint says; whatever is wrong with copies, the storage has the file: nothing here fails a
//! checkpoint or a restore.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use thalweg_common::id::SubtaskId;
use thalweg_common::limits::STORAGE_COPY_BYTES;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The copies of one subtask.
#[derive(Debug, Clone)]
pub(crate) struct LocalCopies {
    /// The directory of its job.
    job: PathBuf,
    subtask: SubtaskId,
}

/// A file as a checkpoint names it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) path: &'a str,
    pub(crate) size_bytes: u64,
    pub(crate) checksum: u64,
}

/// Why there is no use of a copy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// There is none.
    Missing,
    /// It was removed: it is not what it should be. In which way.
    Damaged(String),
}

impl LocalCopies {
    /// Those of a subtask, in the directory of its job.
    pub(crate) fn new(job: PathBuf, subtask: SubtaskId) -> Self {
        Self { job, subtask }
    }

    fn directory(&self) -> PathBuf {
        let SubtaskId { vertex, index } = self.subtask;
        self.job.join(format!("{vertex}-{index}"))
    }

    /// Keeps a file that never changes: a second name for it, or a copy if it is on another disk.
    pub(crate) fn keep_file(&self, local: &Path, path: &str) -> io::Result<()> {
        let copy = self.directory().join(name(path));
        if copy.is_file() {
            return Ok(());
        }
        fs::create_dir_all(self.directory())?;
        link_or_copy(local, &copy)
    }

    /// Keeps some bytes.
    pub(crate) fn keep_bytes(&self, bytes: &[u8], path: &str) -> io::Result<()> {
        fs::create_dir_all(self.directory())?;
        let copy = self.directory().join(name(path));
        // Not into an old one, which may have other names by now.
        removed(fs::remove_file(&copy))?;
        // One that is not complete, because the process has ended, has not the right size.
        fs::write(copy, bytes)
    }

    /// Puts a copy to `target`, whose directory exists.
    pub(crate) fn place(&self, wanted: Wanted<'_>, target: &Path) -> Result<(), Unusable> {
        let copy = self.find(wanted.path).ok_or(Unusable::Missing)?;
        let content = content_of(&copy);
        checked(&copy, wanted, content)?;
        link_or_copy(&copy, target)
            .map_err(|error| Unusable::Damaged(format!("cannot link {}: {error}", copy.display())))
    }

    /// The bytes of a copy.
    pub(crate) fn read(&self, wanted: Wanted<'_>) -> Result<Vec<u8>, Unusable> {
        let copy = self.find(wanted.path).ok_or(Unusable::Missing)?;
        let bytes = fs::read(&copy);
        let content = match &bytes {
            Ok(bytes) => Ok((bytes.len() as u64, xxh3_64(bytes))),
            Err(error) => Err(io::Error::from(error.kind())),
        };
        checked(&copy, wanted, content)?;
        bytes.map_err(|error| Unusable::Damaged(error.to_string()))
    }

    /// Where the copy of a file is: with this subtask, or with another one of its vertex if their number has changed.
    fn find(&self, path: &str) -> Option<PathBuf> {
        let name = name(path);
        let own = self.directory().join(&name);
        if own.is_file() {
            return Some(own);
        }
        let prefix = format!("{}-", self.subtask.vertex);
        let others = fs::read_dir(&self.job).ok()?.flatten();
        let others = others.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
        others.map(|entry| entry.path().join(&name)).find(|copy| copy.is_file())
    }

    /// Removes all copies but those that `needed` names when it is asked, which is after they were listed: one that is being
    /// made meanwhile stays.
    pub(crate) fn prune(&self, needed: impl FnOnce() -> BTreeSet<String>) -> io::Result<()> {
        let entries = match fs::read_dir(self.directory()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let there = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        let needed: BTreeSet<String> = needed().iter().map(|path| name(path)).collect();
        for copy in there.iter().filter(|copy| !copy.to_str().is_some_and(|copy| needed.contains(copy))) {
            removed(fs::remove_file(self.directory().join(copy)))?;
        }
        Ok(())
    }
}

/// A file that is gone already is removed.
fn removed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The name of the copy of an object.
fn name(path: &str) -> String {
    path.replace('/', "-")
}

fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(_) => fs::copy(from, to).map(drop),
        Ok(()) => Ok(()),
    }
}

/// Removes a copy that has not the right content.
fn checked(copy: &Path, wanted: Wanted<'_>, content: io::Result<(u64, u64)>) -> Result<(), Unusable> {
    let reason = match content {
        Ok(content) if content == (wanted.size_bytes, wanted.checksum) => return Ok(()),
        Ok((size_bytes, checksum)) => format!(
            "{} has {size_bytes} bytes with checksum {checksum:x} instead of {} bytes with {:x}",
            copy.display(),
            wanted.size_bytes,
            wanted.checksum
        ),
        Err(error) => format!("{} cannot be read: {error}", copy.display()),
    };
    // What cannot be removed now is refused again, and goes when a newer checkpoint is complete.
    let _ = fs::remove_file(copy);
    Err(Unusable::Damaged(reason))
}

/// The size and checksum of a file.
fn content_of(path: &Path) -> io::Result<(u64, u64)> {
    let mut file = File::open(path)?;
    let (mut hash, mut size_bytes) = (Xxh3::new(), 0);
    let mut buffer = vec![0; STORAGE_COPY_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((size_bytes, hash.digest())),
            Ok(read) => {
                hash.update(buffer.get(..read).unwrap_or_default());
                size_bytes += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const PATH: &str = "shared/a1-c2-3-0-x";

    fn copies(root: &Path, index: u32) -> LocalCopies {
        LocalCopies::new(root.join("job"), SubtaskId { vertex: 3, index })
    }

    fn wanted(bytes: &[u8]) -> Wanted<'static> {
        Wanted { path: PATH, size_bytes: bytes.len() as u64, checksum: xxh3_64(bytes) }
    }

    #[test]
    fn copies_are_used_if_they_are_what_they_should_be_and_removed_if_not() {
        let root = tempfile::tempdir().unwrap();
        let (copies, target) = (copies(root.path(), 0), root.path().join("target"));
        assert_eq!(copies.read(wanted(b"state")), Err(Unusable::Missing));
        assert_eq!(copies.place(wanted(b"state"), &target), Err(Unusable::Missing));

        let file = root.path().join("file");
        fs::write(&file, b"state").unwrap();
        copies.keep_file(&file, PATH).unwrap();
        copies.keep_file(&file, PATH).unwrap();
        assert_eq!(copies.read(wanted(b"state")).unwrap(), b"state");
        copies.place(wanted(b"state"), &target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"state");

        for other in [&b"statE"[..], b"stat", b"states"] {
            copies.keep_bytes(b"state", PATH).unwrap();
            let damaged = copies.read(wanted(other)).unwrap_err();
            assert!(
                matches!(&damaged, Unusable::Damaged(reason) if reason.contains("instead of")),
                "{damaged:?}"
            );
            assert_eq!(copies.place(wanted(b"state"), &target), Err(Unusable::Missing), "it was removed");
        }
    }

    #[test]
    fn another_subtask_of_the_vertex_may_have_the_copy() {
        let root = tempfile::tempdir().unwrap();
        copies(root.path(), 1).keep_bytes(b"state", PATH).unwrap();
        assert_eq!(copies(root.path(), 0).read(wanted(b"state")).unwrap(), b"state");
        let stranger = LocalCopies::new(root.path().join("job"), SubtaskId { vertex: 4, index: 1 });
        assert_eq!(stranger.read(wanted(b"state")), Err(Unusable::Missing));
    }

    #[test]
    fn what_is_not_needed_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let (copies, other) = (copies(root.path(), 0), copies(root.path(), 1));
        copies.prune(BTreeSet::new).unwrap();
        for path in ["chk-1/3-0-a1", PATH, "shared/old"] {
            copies.keep_bytes(b"state", path).unwrap();
        }
        other.keep_bytes(b"state", "shared/old").unwrap();
        copies.prune(|| BTreeSet::from([PATH.to_string(), "chk-1/3-0-a1".to_string()])).unwrap();
        let names = |copies: &LocalCopies| {
            let entries = fs::read_dir(copies.directory()).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<BTreeSet<_>>()
        };
        assert_eq!(Vec::from_iter(names(&copies)), ["chk-1-3-0-a1", "shared-a1-c2-3-0-x"]);
        assert_eq!(names(&other).len(), 1, "each subtask keeps its own");
    }
}
