//! Where the content of an object comes from: memory, or a local file that is read part by part.
//!
//! Stands before an upload. Invariants: a file is never in memory as a whole unless it is one part; its checksum covers what
//! was really sent, and a file that changed its size meanwhile is refused.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use bytes::Bytes;

use super::super::local::Content;
use super::super::{StorageError, UploadedFile};
use crate::task_scope;

/// The content of an object.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    Memory(&'a Bytes),
    File { path: &'a Path, size: u64 },
}

impl<'a> Source<'a> {
    /// The file at `path`.
    pub(super) async fn file(path: &'a Path) -> Result<Self, StorageError> {
        let size_of = |file: &Path| {
            let metadata = std::fs::metadata(file)?;
            if metadata.is_file() { Ok(metadata.len()) } else { Err(ErrorKind::IsADirectory.into()) }
        };
        let file = path.to_owned();
        let size = local("read", path, move || size_of(&file)).await?;
        Ok(Self::File { path, size })
    }

    pub(super) fn size(self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { size, .. } => size,
        }
    }

    /// Begins to read it.
    pub(super) async fn parts(self, part_bytes: u64) -> Result<Parts<'a>, StorageError> {
        let part_bytes = usize::try_from(part_bytes).unwrap_or(usize::MAX);
        let rest = match self {
            Self::Memory(bytes) => Rest::Memory(bytes.clone()),
            Self::File { path, size } => {
                let owned = path.to_owned();
                let file = local("read", path, move || File::open(owned)).await?;
                Rest::File { path, size, reader: Some((file, Content::default())) }
            }
        };
        Ok(Parts { rest, part_bytes })
    }
}

/// The parts that were not read yet.
pub(super) struct Parts<'a> {
    rest: Rest<'a>,
    part_bytes: usize,
}

enum Rest<'a> {
    Memory(Bytes),
    File { path: &'a Path, size: u64, reader: Option<(File, Content)> },
}

impl Parts<'_> {
    /// The next part; nothing after the last one.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        let part_bytes = self.part_bytes;
        match &mut self.rest {
            Rest::Memory(bytes) => {
                let part = bytes.split_to(part_bytes.min(bytes.len()));
                Ok(Some(part).filter(|part| !part.is_empty()))
            }
            Rest::File { path, size, reader } => {
                let Some((mut file, mut content)) = reader.take() else { return Ok(None) };
                let left = usize::try_from(*size - content.so_far().size).unwrap_or(usize::MAX);
                let length = part_bytes.min(left);
                let (part, file, content) = local("read", path, move || {
                    let mut part = vec![0; length];
                    file.read_exact(&mut part)?;
                    content.add(&part);
                    // At the end nothing may follow.
                    if length == left && file.read(&mut [0])? > 0 {
                        return Err(io::Error::other("it has grown while it was read"));
                    }
                    Ok((Bytes::from(part), file, content))
                })
                .await?;
                *reader = Some((file, content));
                Ok(Some(part).filter(|part| !part.is_empty()))
            }
        }
    }

    /// Size and checksum of what was read of a file; of content from memory only its caller knows them.
    pub(super) fn so_far(&self) -> Option<UploadedFile> {
        match &self.rest {
            Rest::File { reader: Some((_, content)), .. } => Some(content.so_far()),
            Rest::File { reader: None, .. } | Rest::Memory(_) => None,
        }
    }
}

/// Does something with a local file where it may block.
pub(super) async fn local<T: Send + 'static>(
    operation: &'static str,
    file: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StorageError> {
    let failed = |reason| StorageError::LocalFile { operation, file: file.to_owned(), reason };
    match task_scope::blocking(operation, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(reason)) => Err(failed(reason)),
        Err(error) => Err(failed(io::Error::other(error))),
    }
}
