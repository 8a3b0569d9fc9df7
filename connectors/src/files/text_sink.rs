//! `TextFileSink`: one line per record, visible exactly when the checkpoint that contains it is complete.
//!
//! Each subtask writes its own part files; a part spans the records between two checkpoints. At the barrier the part
//! is written to disk, becomes *pending* and is named in the snapshot; on completion it gets its visible name.
//!
//! Invariants: a visible file is complete and never changes; a pending file is made visible if and only if a completed
//! checkpoint names it; no name is used twice (see [`super::part`]).

use std::fmt::Display;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use thalweg_common::Record;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operator::{Sink, SinkContext};

use super::error::{absolute, failed};
use super::part::{Stage, Writer};

/// Bytes that are written to the disk at once.
const BUFFER_BYTES: usize = 128 * 1024;

/// Writes records as lines of text files, each exactly once.
///
/// A record is written as its [`Display`] form and a `\n`. The files are called `part-<subtask>-<checkpoint>-<job>`;
/// files whose names start with a dot are not complete and must be ignored, which Flink, Spark, Hive and
/// [`TextFileSource`](super::TextFileSource) do. Output appears at every completed checkpoint and at the end of a bounded
/// job: a job that never ends and takes no checkpoints shows nothing.
///
/// Use a directory of its own for each job. With a cluster it must be the same on all machines, or each machine keeps the
/// parts of the subtasks that it ran.
#[derive(Debug)]
pub struct TextFileSink {
    directory: PathBuf,
    parallelism: u32,
    opened: Option<Parts>,
}

/// A subtask at work.
#[derive(Debug)]
struct Parts {
    directory: PathBuf,
    writer: Writer,
    /// Parts that were begun.
    begun: u64,
    open: Option<OpenPart>,
}

/// A part that records are written to.
#[derive(Debug)]
struct OpenPart {
    path: PathBuf,
    file: BufWriter<fs::File>,
}

/// A pending part.
#[derive(Record, Debug, Clone, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub struct PendingPart {
    checkpoint: CheckpointId,
    pending_name: String,
    visible_name: String,
    bytes: u64,
}

impl Clone for TextFileSink {
    /// The same sink, not yet opened.
    fn clone(&self) -> Self {
        Self::directory(&self.directory)
    }
}

impl TextFileSink {
    /// Writes part files into this directory, which is created if it is not there.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self { directory: path.into(), parallelism: 1, opened: None }
    }

    fn parts(&mut self) -> Result<&mut Parts, Failure> {
        self.opened
            .as_mut()
            .ok_or_else(|| Failure::internal("the text file sink was used before it was opened"))
    }
}

impl<T: Display + Send> Sink<T> for TextFileSink {
    type Committable = PendingPart;

    fn open(&mut self, context: &SinkContext) -> Result<(), Failure> {
        let writer = Writer { subtask: context.subtask_index, job: context.job_id, attempt: context.attempt };
        fs::create_dir_all(&self.directory).map_err(|error| failed("create", &self.directory, &error))?;
        self.parallelism = context.parallelism;
        self.opened = Some(Parts { directory: self.directory.clone(), writer, begun: 0, open: None });
        Ok(())
    }

    fn recover(&mut self, prepared: &[PendingPart]) -> Result<(), Failure> {
        let parallelism = self.parallelism;
        self.parts()?.clean_up(prepared, parallelism)
    }

    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        if batch.is_empty() {
            return Ok(());
        }
        let part = self.parts()?.open_part()?;
        let written = batch.drain().try_for_each(|record| writeln!(part.file, "{record}"));
        written.map_err(|error| failed("write to", &part.path, &error))
    }

    /// Nothing of a part is visible before its checkpoint, so nothing has to be written early.
    fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<PendingPart>, Failure> {
        self.parts()?.prepare(checkpoint)
    }

    fn commit(&mut self, prepared: &[PendingPart]) -> Result<(), Failure> {
        let parts = self.parts()?;
        for part in prepared {
            parts.commit(part)?;
        }
        parts.sync_directory()
    }
}

impl Parts {
    /// Removes files that no checkpoint names.
    fn clean_up(&self, prepared: &[PendingPart], parallelism: u32) -> Result<(), Failure> {
        let list = |error| failed("list", &self.directory, &error);
        for entry in fs::read_dir(&self.directory).map_err(list)? {
            let name = entry.map_err(list)?.file_name();
            let Some(name) = name.to_str() else { continue };
            let is_named = || prepared.iter().any(|part| part.pending_name == name);
            if self.writer.is_left_over(name, parallelism) && !is_named() {
                let path = self.directory.join(name);
                fs::remove_file(&path).map_err(|error| failed("remove the left-over", &path, &error))?;
            }
        }
        Ok(())
    }

    fn open_part(&mut self) -> Result<&mut OpenPart, Failure> {
        let part = match self.open.take() {
            Some(part) => part,
            None => {
                let path = self.directory.join(self.writer.hidden_name(self.begun, Stage::InProgress));
                let file = fs::File::create_new(&path).map_err(|error| failed("create", &path, &error))?;
                self.begun += 1;
                OpenPart { path, file: BufWriter::with_capacity(BUFFER_BYTES, file) }
            }
        };
        Ok(self.open.insert(part))
    }

    fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<PendingPart>, Failure> {
        let Some(part) = self.open.take() else { return Ok(Vec::new()) };
        let pending_name = self.writer.hidden_name(checkpoint, Stage::Pending);
        let visible_name = self.writer.committed_name(checkpoint);
        let bytes = part.close(&self.directory.join(&pending_name))?;
        self.sync_directory()?;
        Ok(vec![PendingPart { checkpoint, pending_name, visible_name, bytes }])
    }

    /// Makes a part visible.
    fn commit(&self, part: &PendingPart) -> Result<(), Failure> {
        let pending = self.directory.join(&part.pending_name);
        let visible = self.directory.join(&part.visible_name);
        match (length(&pending)?, length(&visible)?) {
            (Some(bytes), None) if bytes == part.bytes => {
                fs::rename(&pending, &visible).map_err(|error| failed("commit", &pending, &error))
            }
            // Committed before, by this attempt or by the one that failed afterwards.
            (None, Some(bytes)) if bytes == part.bytes => Ok(()),
            (Some(_), Some(_)) => Err(Failure::user(format!(
                "{} already exists: something else writes to the same directory; give each job a directory of its own",
                absolute(&visible).display()
            ))
            .permanent()),
            (pending_bytes, visible_bytes) => Err(Failure::external(format!(
                "output of checkpoint {} is damaged: {} should have {} bytes but {}; restore the file, or start the job \
                 anew with another directory",
                part.checkpoint,
                absolute(&visible).display(),
                part.bytes,
                match pending_bytes.or(visible_bytes) {
                    Some(bytes) => format!("has {bytes}"),
                    None => "is gone".to_string(),
                }
            ))),
        }
    }

    /// A rename is on disk only when its directory is.
    fn sync_directory(&self) -> Result<(), Failure> {
        fs::File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| failed("write to", &self.directory, &error))
    }
}

impl OpenPart {
    /// Writes everything to disk, renames the file and gives its length.
    fn close(mut self, pending: &Path) -> Result<u64, Failure> {
        let length = self.file.flush().and_then(|()| {
            let file = self.file.get_ref();
            file.sync_all()?;
            file.metadata()
        });
        let length = length.map_err(|error| failed("write to", &self.path, &error))?.len();
        fs::rename(&self.path, pending).map_err(|error| failed("rename", &self.path, &error))?;
        Ok(length)
    }
}

impl Drop for OpenPart {
    /// Records that no checkpoint covers are read again by whoever restarts: a task that ends leaves nothing behind.
    fn drop(&mut self) {
        // After `close` the name is gone already; a file that stays is removed by the next attempt.
        let _ = fs::remove_file(&self.path);
    }
}

/// A file's length, or nothing when it does not exist.
fn length(path: &Path) -> Result<Option<u64>, Failure> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path, &error)),
    }
}
