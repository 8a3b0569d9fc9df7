//! Writing objects: small ones in one request, large ones in parts that travel side by side.
//!
//! Invariants: parts under way are limited for the whole process, and so is the memory they take; an upload that fails, or
//! that nobody waits for any more, is aborted, so that nothing of it is kept (or paid for); the outcome that is reported is
//! the one that the store has, even if its answer was lost.

use aws_sdk_s3::types::CompletedPart;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::SemaphorePermit;
use tracing::warn;
use xxhash_rust::xxh3::xxh3_64;

use super::super::{RemoteCause, StorageError, UploadedFile};
use super::S3Storage;
use super::problem::{Answer, Problem};
use super::source::{Parts, Source};

/// How often a write begins anew when others delete or write the same object meanwhile.
const ROUNDS: usize = 5;

/// When an object is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Always,
    IfAbsent,
}

impl Condition {
    /// The header of that name.
    pub(super) fn if_none_match(self) -> Option<String> {
        (self == Self::IfAbsent).then(|| "*".to_owned())
    }
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Yes,
    /// Another one had written the object first.
    OtherWasFirst,
}

/// What one round of a write came to.
enum Round {
    Over(Written, UploadedFile),
    /// The object changed under its hands.
    Again,
}

impl S3Storage {
    /// Writes an object.
    pub(super) async fn write(
        &self,
        path: &str,
        source: Source<'_>,
        condition: Condition,
    ) -> Result<(Written, UploadedFile), StorageError> {
        let part_bytes = self.access.settings.part_bytes_of(source.size());
        let in_parts = source.size() > 2 * part_bytes;
        for _ in 0..ROUNDS {
            // A new mark in each round: what a given up round left behind is not mistaken for this one's.
            let writer = self.mark(path)?;
            let round = if in_parts {
                self.write_in_parts(path, source.parts(part_bytes).await?, &writer, condition).await?
            } else {
                self.write_at_once(path, source, &writer, condition).await?
            };
            if let Round::Over(written, uploaded) = round {
                return Ok((written, uploaded));
            }
        }
        let changing =
            Problem::fault(RemoteCause::Changing, format!("others changed it in each of {ROUNDS} tries"));
        Err(self.error("write", path, changing))
    }

    async fn write_at_once(
        &self,
        path: &str,
        source: Source<'_>,
        writer: &str,
        condition: Condition,
    ) -> Result<Round, StorageError> {
        let _place = self.place().await;
        let bytes = match source {
            Source::Memory(bytes) => bytes.clone(),
            Source::File { size, .. } => source.parts(size.max(1)).await?.next().await?.unwrap_or_default(),
        };
        let uploaded = UploadedFile { size: bytes.len() as u64, checksum: xxh3_64(&bytes) };
        match self.put_object(path, &bytes, writer, condition).await {
            Ok(()) => Ok(Round::Over(Written::Yes, uploaded)),
            Err(Problem::Answer(Answer::ConditionFailed)) => self
                .who_won(path, writer, uploaded)
                .await
                .map_err(|problem| self.error("write", path, problem)),
            Err(problem) => Err(self.error("write", path, problem)),
        }
    }

    async fn write_in_parts(
        &self,
        path: &str,
        mut parts: Parts<'_>,
        writer: &str,
        condition: Condition,
    ) -> Result<Round, StorageError> {
        let failed = |problem| self.error("write", path, problem);
        let (id, others_may_be) = self.create_upload(path, writer).await.map_err(failed)?;
        let unfinished = Unfinished { storage: self, key: self.key(path), id: Some(id.clone()) };
        if others_may_be {
            // A rival's upload of the same object may be among them: it notices, and begins anew.
            self.abort_uploads(&self.key(path), |key, other| key == self.key(path) && other != id).await;
        }
        let sent = match self.send_parts(path, &id, &mut parts).await {
            Ok(sent) => sent,
            Err(problem) => {
                unfinished.abort().await;
                return match problem {
                    SendError::Local(error) => Err(error),
                    // Aborted by somebody who deleted everything below the prefix.
                    SendError::Remote(Problem::Answer(Answer::NoSuchUpload)) => Ok(Round::Again),
                    SendError::Remote(problem) => Err(failed(problem)),
                };
            }
        };
        let uploaded = parts.so_far().unwrap_or(UploadedFile { size: sent.bytes, checksum: 0 });
        let round = match self.complete_upload(path, &id, sent.parts, condition).await {
            Ok(()) => Ok(Round::Over(Written::Yes, uploaded)),
            // After a lost answer the upload is gone, because it was completed; the object then has this writer's mark.
            Err(Problem::Answer(Answer::ConditionFailed | Answer::Conflict | Answer::NoSuchUpload)) => {
                match self.who_won(path, writer, uploaded).await {
                    Ok(Round::Over(Written::OtherWasFirst, _)) if condition == Condition::Always => {
                        Ok(Round::Again)
                    }
                    round => round,
                }
            }
            Err(problem) => Err(problem),
        };
        match round {
            Ok(Round::Over(Written::Yes, uploaded)) => {
                unfinished.completed();
                Ok(Round::Over(Written::Yes, uploaded))
            }
            other => {
                unfinished.abort().await;
                other.map_err(failed)
            }
        }
    }

    /// Whose the object is that is there although this writer was to write it.
    async fn who_won(&self, path: &str, writer: &str, uploaded: UploadedFile) -> Result<Round, Problem> {
        match self.head(path).await {
            Ok(head) if head.writer.as_deref() == Some(writer) => Ok(Round::Over(Written::Yes, uploaded)),
            Ok(_) => Ok(Round::Over(Written::OtherWasFirst, uploaded)),
            Err(Problem::Answer(Answer::NotFound)) => Ok(Round::Again),
            Err(problem) => Err(problem),
        }
    }

    /// Sends all parts, some of them side by side.
    async fn send_parts(&self, path: &str, id: &str, parts: &mut Parts<'_>) -> Result<Sent, SendError> {
        let mut under_way = FuturesUnordered::new();
        let mut sent = Sent { parts: Vec::new(), bytes: 0 };
        let mut next_number = 1;
        loop {
            // Who has parts under way takes what is free, and otherwise goes on with them: nobody waits and holds.
            let place = match self.access.places.try_acquire() {
                Ok(place) => place,
                Err(_) => match under_way.next().await {
                    Some(part) => {
                        sent.parts.push(part?);
                        continue;
                    }
                    None => self.place_for_part().await?,
                },
            };
            let Some(bytes) = parts.next().await? else { break };
            sent.bytes += bytes.len() as u64;
            under_way.push(self.send_part(path, id, next_number, bytes, place));
            next_number += 1;
        }
        while let Some(part) = under_way.next().await {
            sent.parts.push(part?);
        }
        sent.parts.sort_by_key(CompletedPart::part_number);
        Ok(sent)
    }

    async fn send_part(
        &self,
        path: &str,
        id: &str,
        number: i32,
        bytes: Bytes,
        _place: SemaphorePermit<'_>,
    ) -> Result<CompletedPart, SendError> {
        self.upload_part(path, id, number, &bytes).await.map_err(SendError::Remote)
    }

    /// Waits for a place for a part. Must not be called by someone who holds one.
    pub(super) async fn place(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed, so there is always one.
        self.access.places.acquire().await.ok()
    }

    pub(super) async fn place_for_part(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.place().await.ok_or_else(|| Problem::fault(RemoteCause::Refused, "this process ends"))
    }

    /// A mark that no other write has.
    fn mark(&self, path: &str) -> Result<String, StorageError> {
        let random =
            || getrandom::u64().map(|high| getrandom::u64().map(|low| format!("{high:016x}{low:016x}")));
        match random() {
            Ok(Ok(mark)) => Ok(mark),
            Ok(Err(error)) | Err(error) => {
                let reason = format!("this machine has no random numbers: {error}");
                Err(self.error("write", path, Problem::fault(RemoteCause::Refused, reason)))
            }
        }
    }

    /// Aborts those uploads below a prefix of the bucket that `is_left_over` names, by key and id.
    pub(super) async fn abort_uploads(&self, prefix: &str, is_left_over: impl Fn(&str, &str) -> bool) {
        let aborted = async {
            for (key, id) in self.unfinished_uploads(prefix).await? {
                if is_left_over(&key, &id) {
                    self.abort_upload(&key, &id).await?;
                }
            }
            Ok::<_, Problem>(())
        };
        if let Err(problem) = aborted.await {
            let (_, reason) = problem.into_fault();
            warn!(
                "Incomplete uploads below {prefix} of {} may remain: {reason}; a lifecycle rule of the bucket \
                 (AbortIncompleteMultipartUpload) removes them.",
                self.bucket
            );
        }
    }
}

/// The parts of an object that the store has.
struct Sent {
    parts: Vec<CompletedPart>,
    bytes: u64,
}

/// Why not all parts could be sent.
enum SendError {
    Local(StorageError),
    Remote(Problem),
}

impl From<StorageError> for SendError {
    fn from(error: StorageError) -> Self {
        Self::Local(error)
    }
}

impl From<Problem> for SendError {
    fn from(problem: Problem) -> Self {
        Self::Remote(problem)
    }
}

/// An upload that was begun. Unless it is completed or aborted, dropping it has it aborted in the background.
struct Unfinished<'a> {
    storage: &'a S3Storage,
    key: String,
    id: Option<String>,
}

impl Unfinished<'_> {
    fn completed(mut self) {
        self.id = None;
    }

    async fn abort(mut self) {
        if let Some(id) = &self.id {
            abort(self.storage, &self.key, id).await;
        }
        self.id = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        // When the runtime ends, the process does: what remains is removed with its prefix, or by the bucket's rules.
        if tokio::runtime::Handle::try_current().is_ok() {
            let (storage, key) = (self.storage.clone(), std::mem::take(&mut self.key));
            let scope = self.storage.access.scope.clone();
            scope.spawn("abort upload", async move { abort(&storage, &key, &id).await });
        }
    }
}

async fn abort(storage: &S3Storage, key: &str, id: &str) {
    if let Err(problem) = storage.abort_upload(key, id).await {
        let (_, reason) = problem.into_fault();
        warn!(
            "The incomplete upload {id} of {key} in {} remains: {reason}; a lifecycle rule of the bucket \
             (AbortIncompleteMultipartUpload) removes it.",
            storage.bucket
        );
    }
}
