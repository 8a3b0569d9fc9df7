//! `TextFileSink`: one line per record, visible exactly when the checkpoint that contains it is complete.
//!
//! Each subtask writes its own part files; a part spans the records between two checkpoints. At the barrier the part
//! is written to disk, becomes *pending* and is named in the snapshot; on completion it gets its visible name.
//!
//! Invariants: a visible file is complete and never changes; a pending file is made visible if and only if a completed
//! checkpoint names it; counters only grow, so that no name is used twice.

use std::fmt::Display;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thalweg_common::codec;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operator::{Sink, SinkContext};

use super::error::{absolute, failed};
use super::part::{Stage, Writer, committed_name, counter_of};

/// Bytes that are written to the disk at once.
const BUFFER_BYTES: usize = 128 * 1024;

/// Writes records as lines of text files, each exactly once.
///
/// A record is written as its [`Display`] form and a `\n`. The files are called `part-<subtask>-<counter>`, as in Flink;
/// files whose names start with a dot are not complete and must be ignored, which Flink, Spark, Hive and
/// [`TextFileSource`](super::TextFileSource) do. Output appears at every completed checkpoint and at the end of a bounded
/// job: a job that never ends and takes no checkpoints shows nothing.
///
/// Use a directory of its own for each job. With a cluster it must be the same on all machines, or each machine keeps the
/// parts of the subtasks that it ran.
#[derive(Debug)]
pub struct TextFileSink {
    directory: PathBuf,
    opened: Option<Parts>,
}

/// A subtask at work.
#[derive(Debug)]
struct Parts {
    directory: PathBuf,
    writer: Writer,
    next_counter: u64,
    open: Option<OpenPart>,
    prepared: Vec<PreparedPart>,
}

/// A part that records are written to.
#[derive(Debug)]
struct OpenPart {
    counter: u64,
    path: PathBuf,
    file: BufWriter<fs::File>,
}

/// A pending part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PreparedPart {
    checkpoint: CheckpointId,
    counter: u64,
    pending_name: String,
    bytes: u64,
}

/// What a snapshot holds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Snapshot {
    subtask: u32,
    next_counter: u64,
    prepared: Vec<PreparedPart>,
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
        Self { directory: path.into(), opened: None }
    }

    fn parts(&mut self) -> Result<&mut Parts, Failure> {
        self.opened
            .as_mut()
            .ok_or_else(|| Failure::internal("the text file sink was used before it was opened"))
    }
}

impl<T: Display + Send> Sink<T> for TextFileSink {
    fn open(&mut self, context: &SinkContext, restored: Option<&[u8]>) -> Result<(), Failure> {
        let writer = Writer { subtask: context.subtask_index, job: context.job_id, attempt: context.attempt };
        let snapshot = restored.map(codec::from_bytes::<Snapshot>).transpose()?;
        self.opened = Some(Parts::open(&self.directory, writer, snapshot)?);
        Ok(())
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

    fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<u8>, Failure> {
        self.parts()?.prepare(checkpoint)
    }

    fn commit(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.parts()?.commit(checkpoint)
    }

    /// The pending part stays and is committed with the next checkpoint.
    fn abort(&mut self, _checkpoint: CheckpointId) -> Result<(), Failure> {
        Ok(())
    }
}

impl Parts {
    /// Recovers: commits what the restored checkpoint prepared, removes what earlier attempts left behind.
    fn open(directory: &Path, writer: Writer, restored: Option<Snapshot>) -> Result<Self, Failure> {
        let snapshot =
            restored.unwrap_or_else(|| Snapshot { subtask: writer.subtask, ..Snapshot::default() });
        if snapshot.subtask != writer.subtask {
            return Err(Failure::internal(format!(
                "subtask {} of the text file sink was given the state of subtask {}",
                writer.subtask, snapshot.subtask
            )));
        }
        fs::create_dir_all(directory).map_err(|error| failed("create", directory, &error))?;
        let mut parts = Self {
            directory: directory.to_path_buf(),
            writer,
            next_counter: snapshot.next_counter,
            open: None,
            prepared: snapshot.prepared,
        };
        parts.commit(CheckpointId::MAX)?;
        parts.clean_up()?;
        Ok(parts)
    }

    /// Removes files of earlier attempts, and moves the counter behind all names that are taken.
    fn clean_up(&mut self) -> Result<(), Failure> {
        let list = |error| failed("list", &self.directory, &error);
        for entry in fs::read_dir(&self.directory).map_err(list)? {
            let name = entry.map_err(list)?.file_name();
            let Some(name) = name.to_str() else { continue };
            if self.writer.is_left_over(name) {
                let path = self.directory.join(name);
                fs::remove_file(&path).map_err(|error| failed("remove the left-over", &path, &error))?;
            } else if let Some(counter) = counter_of(name, self.writer.subtask) {
                self.next_counter = self.next_counter.max(counter + 1);
            }
        }
        Ok(())
    }

    fn open_part(&mut self) -> Result<&mut OpenPart, Failure> {
        let part = match self.open.take() {
            Some(part) => part,
            None => {
                let counter = self.next_counter;
                let path = self.directory.join(self.writer.hidden_name(counter, Stage::InProgress));
                let file = fs::File::create_new(&path).map_err(|error| failed("create", &path, &error))?;
                self.next_counter += 1;
                OpenPart { counter, path, file: BufWriter::with_capacity(BUFFER_BYTES, file) }
            }
        };
        Ok(self.open.insert(part))
    }

    fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<u8>, Failure> {
        if let Some(part) = self.open.take() {
            let pending_name = self.writer.hidden_name(part.counter, Stage::Pending);
            let counter = part.counter;
            let bytes = part.close(&self.directory.join(&pending_name))?;
            self.sync_directory()?;
            self.prepared.push(PreparedPart { checkpoint, counter, pending_name, bytes });
        }
        let snapshot = Snapshot {
            subtask: self.writer.subtask,
            next_counter: self.next_counter,
            prepared: self.prepared.clone(),
        };
        Ok(codec::to_bytes(&snapshot)?)
    }

    /// Makes visible what was prepared at or before `checkpoint`.
    fn commit(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        let due = self.prepared.iter().filter(|part| part.checkpoint <= checkpoint);
        let due: Vec<PreparedPart> = due.cloned().collect();
        if due.is_empty() {
            return Ok(());
        }
        for part in &due {
            self.commit_part(part)?;
        }
        self.sync_directory()?;
        self.prepared.retain(|part| part.checkpoint > checkpoint);
        Ok(())
    }

    fn commit_part(&self, part: &PreparedPart) -> Result<(), Failure> {
        let pending = self.directory.join(&part.pending_name);
        let visible = self.directory.join(committed_name(self.writer.subtask, part.counter));
        match (length(&pending)?, length(&visible)?) {
            (Some(bytes), None) if bytes == part.bytes => {
                fs::rename(&pending, &visible).map_err(|error| failed("commit", &pending, &error))
            }
            // Committed before, by this attempt or by the one that failed afterwards.
            (None, Some(bytes)) if bytes == part.bytes => Ok(()),
            (Some(_), Some(_)) => Err(Failure::user(format!(
                "{} already exists: another job writes to the same directory; give each job a directory of its own",
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
