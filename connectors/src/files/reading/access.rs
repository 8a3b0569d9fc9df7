//! Bytes of input files, asked for beforehand and taken when they have come.
//!
//! A file of this machine is read when its bytes are taken, which costs about a copy; those of S3 travel while the task does something else,
//! and wake it. Invariant: what was asked for first comes first.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use thalweg_common::failure::Failure;
use thalweg_common::storage::{Storage, StorageError};
use thalweg_runtime::io::BoxedRequests;
use thalweg_runtime::operator::SourceContext;

use super::super::error::failed;

/// An open file.
#[derive(Debug)]
pub(super) enum Access {
    Local {
        path: PathBuf,
        file: File,
        asked: VecDeque<Range<u64>>,
    },
    Remote {
        storage: Arc<dyn Storage>,
        key: String,
        requests: BoxedRequests<(u64, Result<Bytes, StorageError>)>,
        asked: VecDeque<Slot>,
    },
}

/// A range that was asked for, by its start.
#[derive(Debug)]
pub(super) struct Slot {
    start: u64,
    bytes: Option<Bytes>,
}

impl Access {
    /// Opens a file by its path, or an object by its address.
    pub(super) fn open(path: &str, context: &SourceContext) -> Result<Self, Failure> {
        let Some((bucket, key)) = bucket_and_key(path) else {
            let path = PathBuf::from(path);
            let file = File::open(&path).map_err(|error| failed("read", &path, &error))?;
            return Ok(Self::Local { path, file, asked: VecDeque::new() });
        };
        let storage = context.storages.open(bucket).map_err(|error| Failure::from(&error).permanent())?;
        Ok(Self::Remote {
            storage,
            key: key.to_owned(),
            requests: context.io.requests(),
            asked: VecDeque::new(),
        })
    }

    /// Whether it pays to ask beforehand.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self, Self::Remote { .. })
    }

    /// Asks for a range, which is not empty and inside of the file.
    pub(super) fn ask(&mut self, range: Range<u64>) {
        match self {
            Self::Local { asked, .. } => asked.push_back(range),
            Self::Remote { storage, key, requests, asked } => {
                let (storage, key, start) = (Arc::clone(storage), key.clone(), range.start);
                requests.begin(|| Box::pin(async move { (start, storage.get_range(&key, range).await) }));
                asked.push_back(Slot { start, bytes: None });
            }
        }
    }

    /// How many ranges were asked for that were not taken.
    pub(super) fn asked(&self) -> usize {
        match self {
            Self::Local { asked, .. } => asked.len(),
            Self::Remote { asked, .. } => asked.len(),
        }
    }

    /// The range that was asked for first, if it has come.
    pub(super) fn take(&mut self) -> Result<Option<Bytes>, Failure> {
        match self {
            Self::Local { path, file, asked } => {
                let Some(range) = asked.pop_front() else { return Ok(None) };
                read(path, file, &range).map(Some)
            }
            Self::Remote { requests, asked, .. } => {
                while let Some((start, bytes)) = requests.answer() {
                    let bytes = bytes.map_err(|error| Failure::from(&error))?;
                    if let Some(slot) = asked.iter_mut().find(|slot| slot.start == start) {
                        slot.bytes = Some(bytes);
                    }
                }
                match asked.front_mut().and_then(|slot| slot.bytes.take()) {
                    Some(bytes) => {
                        asked.pop_front();
                        Ok(Some(bytes))
                    }
                    None => Ok(None),
                }
            }
        }
    }
}

fn read(path: &Path, file: &File, range: &Range<u64>) -> Result<Bytes, Failure> {
    let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length];
    match file.read_exact_at(&mut bytes, range.start) {
        Ok(()) => Ok(bytes.into()),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(Failure::external(format!(
            "{} became shorter while it was read ({} bytes were expected); write new data to new files",
            path.display(),
            range.end
        ))
        .permanent()),
        Err(error) => Err(failed("read", path, &error)),
    }
}

/// The address of the bucket and the key in it, of an object.
pub(super) fn bucket_and_key(path: &str) -> Option<(&str, &str)> {
    let place = path.strip_prefix("s3://")?;
    let slash = place.find('/')? + "s3://".len();
    Some((path.get(..slash)?, path.get(slash + 1..)?))
}
