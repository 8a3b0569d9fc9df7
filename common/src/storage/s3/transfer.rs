//! Reading objects: small ones in one request, large ones in parts that travel side by side and are put in order here.
//!
//! Invariants: all parts are of the same version of the object; as for uploads, parts under way are limited for the whole
//! process.

use std::ops::Range;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::SemaphorePermit;

use super::super::local::IncomingFile;
use super::super::{RemoteCause, StorageError, UploadedFile, check_content};
use super::S3Storage;
use super::problem::{Answer, Problem};
use super::requests::Head;
use super::source::local;

/// How often reading begins anew when the object is replaced meanwhile.
const ROUNDS: usize = 5;

impl S3Storage {
    /// Reads an object.
    pub(super) async fn read_whole(&self, path: &str) -> Result<Bytes, Problem> {
        let at_once = 2 * self.access.settings.part_bytes;
        for _ in 0..ROUNDS {
            let found = {
                let _place = self.place().await;
                self.get_small(path, at_once).await?
            };
            let head = match found {
                Ok(bytes) => return Ok(bytes),
                Err(head) => head,
            };
            match self.read_parts(path, 0..head.size, head.tag.as_deref()).await {
                Err(Problem::Answer(Answer::ConditionFailed | Answer::BadRange)) => {}
                outcome => return outcome,
            }
        }
        Err(replaced())
    }

    /// Reads a part of an object, however large.
    pub(super) async fn read_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, Problem> {
        if range.start >= range.end {
            let head = self.head(path).await?;
            let is_inside = range.start == range.end && range.end <= head.size;
            return if is_inside { Ok(Bytes::new()) } else { Err(Problem::Answer(Answer::BadRange)) };
        }
        if range.end - range.start <= 2 * self.access.settings.part_bytes {
            let _place = self.place().await;
            return self.get_part(path, range, None).await;
        }
        for _ in 0..ROUNDS {
            let head = self.head(path).await?;
            if range.end > head.size {
                return Err(Problem::Answer(Answer::BadRange));
            }
            match self.read_parts(path, range.clone(), head.tag.as_deref()).await {
                Err(Problem::Answer(Answer::ConditionFailed)) => {}
                outcome => return outcome,
            }
        }
        Err(replaced())
    }

    async fn read_parts(&self, path: &str, range: Range<u64>, tag: Option<&str>) -> Result<Bytes, Problem> {
        let mut whole = BytesMut::with_capacity(usize::try_from(range.end - range.start).unwrap_or_default());
        let mut parts = Incoming::new(self, path, range, tag);
        while let Some(part) = parts.next().await? {
            whole.extend_from_slice(&part);
        }
        Ok(whole.freeze())
    }

    /// Copies an object to a file.
    pub(super) async fn download(
        &self,
        path: &str,
        target: &Path,
        expected: Option<UploadedFile>,
    ) -> Result<UploadedFile, StorageError> {
        for _ in 0..ROUNDS {
            let head = self.head(path).await.map_err(|problem| self.error("read", path, problem))?;
            if let Some(expected) = expected.filter(|expected| expected.size != head.size) {
                let reason = format!("it has {} bytes instead of {}", head.size, expected.size);
                return Err(StorageError::Damaged {
                    path: path.to_owned(),
                    storage: self.uri.to_string(),
                    reason,
                });
            }
            match self.download_version(path, &head, target).await {
                Ok(file) => {
                    check_content(file.so_far(), expected, path, &self.uri)?;
                    return local("write", target, move || file.publish()).await;
                }
                Err(DownloadError::Local(error)) => return Err(error),
                Err(DownloadError::Remote(Problem::Answer(Answer::ConditionFailed | Answer::BadRange))) => {}
                Err(DownloadError::Remote(problem)) => return Err(self.error("read", path, problem)),
            }
        }
        Err(self.error("read", path, replaced()))
    }

    async fn download_version(
        &self,
        path: &str,
        head: &Head,
        target: &Path,
    ) -> Result<IncomingFile, DownloadError> {
        let begin = target.to_owned();
        let mut file = local("write", target, move || IncomingFile::begin(&begin)).await?;
        let mut parts = Incoming::new(self, path, 0..head.size, head.tag.as_deref());
        while let Some(part) = parts.next().await? {
            file = local("write", target, move || {
                file.append(&part)?;
                Ok(file)
            })
            .await?;
        }
        Ok(file)
    }

    async fn fetch<'a>(
        &'a self,
        path: &str,
        range: Range<u64>,
        tag: Option<&str>,
        place: SemaphorePermit<'a>,
    ) -> Result<(Bytes, SemaphorePermit<'a>), Problem> {
        Ok((self.get_part(path, range, tag).await?, place))
    }
}

/// The parts of a range, in their order.
struct Incoming<'a> {
    storage: &'a S3Storage,
    path: &'a str,
    tag: Option<&'a str>,
    rest: Range<u64>,
    part_bytes: u64,
    under_way: FuturesOrdered<BoxedPart<'a>>,
}

type BoxedPart<'a> =
    std::pin::Pin<Box<dyn Future<Output = Result<(Bytes, SemaphorePermit<'a>), Problem>> + Send + 'a>>;

impl<'a> Incoming<'a> {
    fn new(storage: &'a S3Storage, path: &'a str, range: Range<u64>, tag: Option<&'a str>) -> Self {
        let part_bytes = storage.access.settings.part_bytes;
        Self { storage, path, tag, rest: range, part_bytes, under_way: FuturesOrdered::new() }
    }

    /// The next part; nothing after the last one.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        while !self.rest.is_empty() {
            // As in an upload: nobody waits for a place and holds one.
            let place = match self.storage.access.places.try_acquire() {
                Ok(place) => place,
                Err(_) if !self.under_way.is_empty() => break,
                Err(_) => self.storage.place_for_part().await?,
            };
            let end = (self.rest.start + self.part_bytes).min(self.rest.end);
            let part = self.rest.start..end;
            self.rest.start = end;
            self.under_way.push_back(Box::pin(self.storage.fetch(self.path, part, self.tag, place)));
        }
        match self.under_way.next().await {
            // The place is free again before the part is used: at most one more is in memory.
            Some(part) => part.map(|(bytes, _place)| Some(bytes)),
            None => Ok(None),
        }
    }
}

/// Why an object could not be copied to a file.
enum DownloadError {
    Local(StorageError),
    Remote(Problem),
}

impl From<StorageError> for DownloadError {
    fn from(error: StorageError) -> Self {
        Self::Local(error)
    }
}

impl From<Problem> for DownloadError {
    fn from(problem: Problem) -> Self {
        Self::Remote(problem)
    }
}

fn replaced() -> Problem {
    Problem::fault(RemoteCause::Changing, format!("it was replaced in each of {ROUNDS} tries to read it"))
}
