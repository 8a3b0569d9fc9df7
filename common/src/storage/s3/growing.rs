//! Objects that grow over checkpoints and attempts: multipart uploads that are not completed by whoever began them.

use async_trait::async_trait;
use aws_sdk_s3::types::CompletedPart;
use bytes::Bytes;

use super::super::path::{check_path, check_prefix};
use super::super::{GrowingObjects, Piece, StorageError};
use super::S3Storage;
use super::multipart::Condition;
use super::problem::{Answer, Problem};

impl S3Storage {
    /// An upload that is gone is like an object that is not there.
    fn growing_error(&self, operation: &'static str, path: &str, problem: Problem) -> StorageError {
        match problem {
            Problem::Answer(Answer::NoSuchUpload) => {
                StorageError::NotFound { path: path.to_owned(), storage: self.uri.to_string() }
            }
            problem => self.error(operation, path, problem),
        }
    }
}

#[async_trait]
impl GrowingObjects for S3Storage {
    fn piece_bytes(&self) -> u64 {
        self.access.settings.part_bytes
    }

    async fn begin(&self, path: &str) -> Result<String, StorageError> {
        check_path(path)?;
        let begun = self.create_upload(path, path).await;
        let (id, others_may_be) = begun.map_err(|problem| self.growing_error("begin", path, problem))?;
        if others_may_be {
            // Of a try whose answer was lost: nobody else writes to this path.
            let key = self.key(path);
            self.abort_uploads(&key, |found, other| found == key && other != id).await;
        }
        Ok(id)
    }

    async fn add(&self, path: &str, object: &str, number: u32, bytes: Bytes) -> Result<Piece, StorageError> {
        check_path(path)?;
        // Without a place: who adds bounds what is under way, and may poll its requests only now and then. One that has a place and is not
        // polled would hold up another one, for which the thread of both may be waiting.
        let part = i32::try_from(number).unwrap_or(i32::MAX);
        let sent = self.upload_part(path, object, part, &bytes).await;
        let sent = sent.map_err(|problem| self.growing_error("write to", path, problem))?;
        Ok(Piece { number, tag: sent.e_tag().unwrap_or_default().to_owned() })
    }

    async fn complete(
        &self,
        path: &str,
        object: &str,
        pieces: &[Piece],
        size: u64,
    ) -> Result<(), StorageError> {
        check_path(path)?;
        let part = |piece: &Piece| {
            let number = i32::try_from(piece.number).unwrap_or(i32::MAX);
            CompletedPart::builder().part_number(number).e_tag(&piece.tag).build()
        };
        let parts = pieces.iter().map(part).collect();
        match self.complete_upload(path, object, parts, Condition::IfAbsent).await {
            Ok(()) => return Ok(()),
            Err(Problem::Answer(
                Answer::ConditionFailed | Answer::Conflict | Answer::NoSuchUpload | Answer::NotFound,
            )) => {}
            Err(problem) => return Err(self.growing_error("complete", path, problem)),
        }
        // It was completed before, by this process or another one.
        let head = self.head(path).await.map_err(|problem| self.growing_error("look for", path, problem))?;
        if head.size == size {
            return Ok(());
        }
        let reason = format!("it has {} bytes instead of {size}: something else wrote it", head.size);
        Err(StorageError::Damaged { path: path.to_owned(), storage: self.uri.to_string(), reason })
    }

    async fn abort(&self, path: &str, object: &str) -> Result<(), StorageError> {
        check_path(path)?;
        let aborted = self.abort_upload(&self.key(path), object).await;
        aborted.map_err(|problem| self.growing_error("give up", path, problem))
    }

    async fn begun(&self, prefix: &str) -> Result<Vec<(String, String)>, StorageError> {
        let prefix = check_prefix(prefix)?;
        let found = self.unfinished_uploads(&self.below(prefix)).await;
        let found = found.map_err(|problem| self.growing_error("list", prefix, problem))?;
        Ok(found.into_iter().map(|(key, id)| (self.relative(Some(&key)).to_owned(), id)).collect())
    }
}
