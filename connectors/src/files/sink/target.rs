//! Where parts go: to a directory or to S3, behind one set of operations.

use std::collections::HashMap;

use bytes::Bytes;
use thalweg_common::failure::Failure;
use thalweg_common::id::{CheckpointId, JobId};
use thalweg_runtime::operator::SinkContext;

use super::directory::{Directory, HiddenFile};
use super::names::{Affixes, PartId};
use super::objects::Objects;
use super::part::{Object, Part};

/// Bytes that are written to a disk at once.
const FILE_BUFFER_BYTES: usize = 128 * 1024;

/// The place of a sink.
#[derive(Debug)]
pub(super) enum Target {
    Directory { directory: Directory, files: HashMap<PartId, HiddenFile> },
    Objects(Objects),
}

impl Target {
    /// The place at `uri`.
    pub(super) fn open(uri: &str, context: &SinkContext) -> Result<Self, Failure> {
        let storage = context.storages.open(uri).map_err(|error| Failure::from(&error).permanent())?;
        if let Some(growing) = storage.growing() {
            return Ok(Self::Objects(Objects::open(storage, growing, context.io.clone())));
        }
        let root = storage.directory().ok_or_else(|| {
            Failure::user(format!("files cannot be written to {uri}; use a directory or s3://bucket/prefix"))
                .permanent()
        })?;
        Ok(Self::Directory { directory: Directory::open(root)?, files: HashMap::new() })
    }

    /// Begins a part.
    pub(super) fn begin(&mut self, id: PartId, path: &str) -> Result<(), Failure> {
        match self {
            Self::Directory { directory, files } => {
                files.insert(id, directory.begin(&id)?);
            }
            Self::Objects(objects) => objects.begin(id, path),
        }
        Ok(())
    }

    /// Takes the bytes of a part out of `buffer` if they are enough, and says how many it took.
    pub(super) fn take(&mut self, id: PartId, buffer: &mut Vec<u8>) -> Result<u64, Failure> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let enough = match self {
            Self::Directory { .. } => FILE_BUFFER_BYTES as u64,
            Self::Objects(objects) => objects.piece_bytes(),
        };
        if (buffer.len() as u64) < enough { Ok(0) } else { self.take_all(id, buffer) }
    }

    fn take_all(&mut self, id: PartId, buffer: &mut Vec<u8>) -> Result<u64, Failure> {
        let taken = buffer.len() as u64;
        match self {
            Self::Directory { files, .. } => {
                if let Some(file) = files.get_mut(&id) {
                    file.write(buffer)?;
                }
                buffer.clear();
            }
            Self::Objects(objects) if taken > 0 => objects.add(id, Bytes::from(std::mem::take(buffer))),
            Self::Objects(_) => {}
        }
        Ok(taken)
    }

    /// A part goes on behind the barrier: what it has so far must survive. Says how many bytes it took out of `buffer`.
    pub(super) fn carry(
        &mut self,
        id: PartId,
        buffer: &mut Vec<u8>,
        checkpoint: CheckpointId,
    ) -> Result<u64, Failure> {
        match self {
            Self::Directory { .. } => {
                let taken = self.take_all(id, buffer)?;
                if let Self::Directory { files, .. } = self
                    && let Some(file) = files.get_mut(&id)
                {
                    file.persist()?;
                }
                Ok(taken)
            }
            Self::Objects(objects) => {
                objects.store_tail(id, buffer, checkpoint);
                Ok(0)
            }
        }
    }

    /// A part is complete. Says how many bytes it took out of `buffer`.
    pub(super) fn close(&mut self, id: PartId, buffer: &mut Vec<u8>) -> Result<u64, Failure> {
        let taken = self.take_all(id, buffer)?;
        match self {
            Self::Directory { files, .. } => {
                if let Some(mut file) = files.remove(&id) {
                    file.persist()?;
                }
            }
            Self::Objects(objects) => objects.store_tail(id, &[], 0),
        }
        Ok(taken)
    }

    /// Waits until everything that a checkpoint tells of is safe.
    pub(super) fn settle(&mut self) -> Result<(), Failure> {
        match self {
            Self::Directory { directory, .. } => directory.persist_names(),
            Self::Objects(objects) => objects.settle(),
        }
    }

    /// Where the bytes of a part are, if its name does not say it.
    pub(super) fn told(&self, id: PartId) -> Option<Object> {
        match self {
            Self::Directory { .. } => None,
            Self::Objects(objects) => Some(objects.told(id)),
        }
    }

    /// Takes up what has come from outside, and says whether it is too busy for more.
    pub(super) fn take_up(&mut self) -> Result<bool, Failure> {
        match self {
            Self::Directory { .. } => Ok(false),
            Self::Objects(objects) => {
                objects.take_up()?;
                Ok(objects.is_full())
            }
        }
    }

    /// Makes parts visible.
    pub(super) fn commit(&mut self, parts: &[(&Part, CheckpointId)]) -> Result<(), Failure> {
        match self {
            Self::Directory { directory, .. } => {
                parts.iter().try_for_each(|(part, checkpoint)| directory.commit(part, *checkpoint))
            }
            Self::Objects(objects) => objects.commit(parts),
        }
    }

    /// Makes what a part was at a restored checkpoint visible.
    pub(super) fn finish(&mut self, part: &Part, checkpoint: CheckpointId) -> Result<(), Failure> {
        match self {
            Self::Directory { directory, .. } => directory.finish(part, checkpoint),
            Self::Objects(objects) => objects.finish(part, checkpoint),
        }
    }

    /// Removes what attempts of this job have left over, behind the parts that were finished: all but what is pending.
    pub(super) fn clean_up(
        &mut self,
        affixes: &Affixes,
        job: JobId,
        is_left_over: &dyn Fn(&PartId) -> bool,
        is_pending: &dyn Fn(&PartId) -> bool,
    ) -> Result<(), Failure> {
        match self {
            Self::Directory { directory, .. } => directory.clean_up(|id| is_left_over(id) && !is_pending(id)),
            Self::Objects(objects) => objects.clean_up(affixes, job, is_left_over, is_pending),
        }
    }

    /// Writes an empty file.
    pub(super) fn mark(&mut self, path: &str) -> Result<(), Failure> {
        match self {
            Self::Directory { directory, .. } => directory.mark(path),
            Self::Objects(objects) => objects.mark(path),
        }
    }
}
