//! Parts in a directory: a hidden file that grows, and is renamed when it is finished.
//!
//! Invariants: what a checkpoint tells of a file is on disk before the checkpoint is; what is restored is exactly as long as it was at the
//! barrier; a visible file is complete and never changes.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;

use super::names::{HIDDEN, PartId};
use super::part::Part;
use crate::files::error::{absolute, failed};

/// The directory of a sink.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    root: PathBuf,
}

/// The file of a part that is not finished.
#[derive(Debug)]
pub(super) struct HiddenFile {
    path: PathBuf,
    file: File,
    /// Whether a checkpoint may name it.
    is_told: bool,
}

impl Directory {
    /// Makes it and what is hidden in it.
    pub(super) fn open(root: &Path) -> Result<Self, Failure> {
        let hidden = root.join(HIDDEN);
        fs::create_dir_all(&hidden).map_err(|error| failed("create", &hidden, &error))?;
        let directory = Self { root: root.to_owned() };
        directory.sync(root)?;
        Ok(directory)
    }

    pub(super) fn begin(&self, id: &PartId) -> Result<HiddenFile, Failure> {
        let path = self.root.join(id.hidden());
        let file = File::create_new(&path).map_err(|error| failed("create", &path, &error))?;
        Ok(HiddenFile { path, file, is_told: false })
    }

    /// Makes what a part was at a restored checkpoint visible. It is copied, and not cut off and renamed: whoever was taken for dead may
    /// still write to the file that it has open.
    pub(super) fn finish(&self, part: &Part, checkpoint: CheckpointId) -> Result<(), Failure> {
        let (hidden, visible) = (self.root.join(part.id.hidden()), self.root.join(&part.path));
        if length(&visible)? == Some(part.bytes) {
            return Ok(());
        }
        let found = length(&hidden)?;
        if found.is_none_or(|found| found < part.bytes) {
            return Err(gone(&absolute(&hidden).display().to_string(), checkpoint, found, part.bytes));
        }
        let copy = hidden.with_extension("restored");
        let copied = || {
            let mut prefix = File::open(&hidden)?.take(part.bytes);
            let mut file = File::create(&copy)?;
            io::copy(&mut prefix, &mut file)?;
            file.sync_all()
        };
        copied().map_err(|error| failed("restore", &hidden, &error))?;
        self.show(&copy, &visible)?;
        fs::remove_file(&hidden).map_err(|error| failed("remove", &hidden, &error))
    }

    /// Gives a complete file its visible name.
    fn show(&self, hidden: &Path, visible: &Path) -> Result<(), Failure> {
        let directory = visible.parent().unwrap_or(&self.root);
        self.make(directory)?;
        if length(visible)?.is_some() {
            return Err(taken(visible));
        }
        fs::rename(hidden, visible).map_err(|error| failed("commit", hidden, &error))?;
        self.sync(directory)
    }

    /// Forces the names of hidden files to the disk.
    pub(super) fn persist_names(&self) -> Result<(), Failure> {
        self.sync(&self.root.join(HIDDEN))
    }

    /// Makes a part visible, unless it is.
    pub(super) fn commit(&self, part: &Part, checkpoint: CheckpointId) -> Result<(), Failure> {
        let (hidden, visible) = (self.root.join(part.id.hidden()), self.root.join(&part.path));
        match (length(&hidden)?, length(&visible)?) {
            (Some(bytes), None) if bytes == part.bytes => self.show(&hidden, &visible),
            // Committed before, by this attempt or by the one that failed afterwards.
            (None, Some(bytes)) if bytes == part.bytes => Ok(()),
            (Some(_), Some(_)) => Err(taken(&visible)),
            (hidden_bytes, visible_bytes) => Err(gone(
                &absolute(&visible).display().to_string(),
                checkpoint,
                hidden_bytes.or(visible_bytes),
                part.bytes,
            )),
        }
    }

    /// Writes an empty file.
    pub(super) fn mark(&self, path: &str) -> Result<(), Failure> {
        let path = self.root.join(path);
        let directory = path.parent().unwrap_or(&self.root);
        self.make(directory)?;
        File::create(&path).map_err(|error| failed("create", &path, &error))?;
        self.sync(directory)
    }

    /// Removes hidden files that are left over.
    pub(super) fn clean_up(&self, is_left_over: impl Fn(&PartId) -> bool) -> Result<(), Failure> {
        let hidden = self.root.join(HIDDEN);
        let list = |error| failed("list", &hidden, &error);
        for entry in fs::read_dir(&hidden).map_err(list)? {
            let name = entry.map_err(list)?.file_name();
            if name.to_str().and_then(PartId::of_hidden).is_some_and(|id| is_left_over(&id)) {
                let path = hidden.join(name);
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed("remove the left-over", &path, &error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Makes a directory and those above it, so that they survive a crash of the machine.
    fn make(&self, directory: &Path) -> Result<(), Failure> {
        if directory.is_dir() {
            return Ok(());
        }
        if let Some(parent) = directory.parent() {
            self.make(parent)?;
            match fs::create_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed("create", directory, &error));
                }
                _ => self.sync(parent)?,
            }
        }
        Ok(())
    }

    /// A rename is on disk only when its directory is.
    fn sync(&self, directory: &Path) -> Result<(), Failure> {
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| failed("write to", directory, &error))
    }
}

impl HiddenFile {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| failed("write to", &self.path, &error))
    }

    /// Forces what was written to the disk.
    pub(super) fn persist(&mut self) -> Result<(), Failure> {
        self.is_told = true;
        self.file.sync_data().map_err(|error| failed("write to", &self.path, &error))
    }
}

fn taken(visible: &Path) -> Failure {
    Failure::user(format!(
        "{} already exists: something else writes to the same directory; give each job a directory of its own",
        absolute(visible).display()
    ))
    .permanent()
}

impl Drop for HiddenFile {
    /// Records that no checkpoint covers are read again by whoever restarts: a task that ends leaves nothing of them behind.
    fn drop(&mut self) {
        if !self.is_told {
            // A file that stays is removed by the next attempt.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A part that cannot be restored or committed.
pub(super) fn gone(place: &str, checkpoint: CheckpointId, found: Option<u64>, wanted: u64) -> Failure {
    let is = match found {
        Some(found) => format!("has {found} bytes instead of {wanted}"),
        None => "is gone".to_owned(),
    };
    Failure::external(format!(
        "the output of checkpoint {checkpoint} cannot be restored: its part {place} {is}; it was deleted or changed, or committed since by a \
         run that went on from there. Restore the newest checkpoint or savepoint, bring the part back, or give the sink another uid and \
         allow state that is not restored, which gives up the unfinished output"
    ))
    .permanent()
}

/// A file's length, or nothing when it does not exist.
fn length(path: &Path) -> Result<Option<u64>, Failure> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path, &error)),
    }
}
