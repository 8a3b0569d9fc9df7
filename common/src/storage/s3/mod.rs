//! Blob storage on S3, or on whatever speaks its protocol.
//!
//! An object is an object below the prefix of the storage. S3 itself makes sure that it appears whole or not at all, and that
//! of several conditional writes one wins. What is added here, from the outside to the inside: large objects travel in
//! parts ([`multipart`], [`transfer`]); each request ([`requests`]) is tried again where that helps ([`retry`]), with an
//! understanding of what an answer means ([`problem`]); what is costly is shared by all storages ([`access`]).
//!
//! The answer to a write may be lost although it was done, and the next try then finds the own object. Hence each
//! conditional write carries a random mark in the object's metadata: whoever finds its mark has won.

mod access;
mod growing;
mod multipart;
mod problem;
mod requests;
mod retry;
mod source;
mod transfer;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use self::multipart::{Condition, Written};
use self::problem::{Answer, Problem};
use self::source::Source;
use super::path::{check_path, check_prefix};
use super::{GrowingObjects, NotDeleted, ObjectInfo, Storage, StorageError, UploadedFile};
use crate::limits::S3_DELETE_OBJECTS;

pub(super) use self::access::Access;

/// Objects below a prefix of a bucket.
#[derive(Debug, Clone)]
pub(super) struct S3Storage {
    access: Arc<Access>,
    bucket: Arc<str>,
    /// Ends in a slash unless it is empty.
    prefix: Arc<str>,
    uri: Arc<str>,
}

impl S3Storage {
    /// The storage below `prefix`, which has no slashes around it.
    pub(super) fn new(access: Arc<Access>, bucket: &str, prefix: &str) -> Self {
        let (prefix, uri) = match prefix {
            "" => (String::new(), format!("s3://{bucket}")),
            prefix => (format!("{prefix}/"), format!("s3://{bucket}/{prefix}")),
        };
        Self { access, bucket: bucket.into(), prefix: prefix.into(), uri: uri.into() }
    }

    /// The key of an object in the bucket.
    fn key(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// The error of an operation on an object.
    fn error(&self, operation: &'static str, path: &str, problem: Problem) -> StorageError {
        let (path, storage) = (path.to_owned(), self.uri.to_string());
        if problem == Problem::Answer(Answer::NotFound) {
            return StorageError::NotFound { path, storage };
        }
        let (cause, reason) = problem.into_fault();
        StorageError::Remote { operation, path, storage, cause, reason }
    }

    /// Deletes these keys of the bucket, as many at once as S3 takes. What could not be deleted is an error at the end.
    async fn delete_keys(&self, keys: Vec<String>) -> Result<(), StorageError> {
        let total = keys.len();
        let (mut failed, mut cause) = (Vec::new(), None);
        for batch in keys.chunks(S3_DELETE_OBJECTS) {
            let refused = self
                .delete_batch(batch)
                .await
                .map_err(|problem| self.error("delete", self.relative(batch.first()), problem))?;
            for (key, problem) in refused {
                let (of_this, reason) = problem.into_fault();
                cause = cause.or(Some(of_this));
                failed.push(NotDeleted { path: self.relative(Some(&key)).to_owned(), reason });
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        Err(StorageError::NotDeleted { storage: self.uri.to_string(), total, failed, cause })
    }

    /// The path of an object in this storage.
    fn relative<'a>(&self, key: Option<&'a String>) -> &'a str {
        let key = key.map_or("", String::as_str);
        key.strip_prefix(&*self.prefix).unwrap_or(key)
    }

    /// What is at a prefix itself, as opposed to below it.
    async fn object_at(&self, prefix: &str) -> Result<Option<ObjectInfo>, Problem> {
        if prefix.is_empty() {
            return Ok(None);
        }
        match self.head(prefix).await {
            Ok(head) => Ok(Some(ObjectInfo { path: prefix.to_owned(), size: head.size })),
            Err(Problem::Answer(Answer::NotFound)) => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    async fn list_all(&self, prefix: &str) -> Result<Vec<ObjectInfo>, Problem> {
        let (mut found, mut from) = (Vec::new(), None);
        loop {
            let page = self.list_page(&self.below(prefix), from).await?;
            for (key, size) in page.objects {
                let path = self.relative(Some(&key));
                // Keys that end in a slash are how consoles show empty folders; none of ours looks like that.
                if check_path(path).is_ok() {
                    found.push(ObjectInfo { path: path.to_owned(), size });
                }
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        // Behind the pages: an answer to HEAD has no words that say why it is refused.
        found.extend(self.object_at(prefix).await?);
        found.sort_unstable();
        Ok(found)
    }

    /// The begin of all keys below a prefix of this storage.
    fn below(&self, prefix: &str) -> String {
        if prefix.is_empty() { self.prefix.to_string() } else { format!("{}{prefix}/", self.prefix) }
    }
}

#[async_trait]
impl Storage for S3Storage {
    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), StorageError> {
        check_path(path)?;
        self.write(path, Source::Memory(&bytes), Condition::Always).await.map(drop)
    }

    async fn put_if_absent(&self, path: &str, bytes: Bytes) -> Result<bool, StorageError> {
        check_path(path)?;
        let (written, _) = self.write(path, Source::Memory(&bytes), Condition::IfAbsent).await?;
        Ok(written == Written::Yes)
    }

    async fn get(&self, path: &str) -> Result<Bytes, StorageError> {
        check_path(path)?;
        self.read_whole(path).await.map_err(|problem| self.error("read", path, problem))
    }

    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        check_path(path)?;
        self.read_range(path, range.clone()).await.map_err(|problem| match problem {
            Problem::Answer(Answer::BadRange) => StorageError::OutOfRange {
                path: path.to_owned(),
                storage: self.uri.to_string(),
                start: range.start,
                end: range.end,
            },
            problem => self.error("read", path, problem),
        })
    }

    async fn upload_file(
        &self,
        local: &Path,
        path: &str,
        _: Option<UploadedFile>,
    ) -> Result<UploadedFile, StorageError> {
        check_path(path)?;
        let (_, uploaded) = self.write(path, Source::file(local).await?, Condition::Always).await?;
        Ok(uploaded)
    }

    async fn download_file(
        &self,
        path: &str,
        local: &Path,
        expected: Option<UploadedFile>,
    ) -> Result<UploadedFile, StorageError> {
        check_path(path)?;
        self.download(path, local, expected).await
    }

    async fn exists(&self, path: &str) -> Result<bool, StorageError> {
        check_path(path)?;
        match self.object_at(path).await {
            Ok(found) => Ok(found.is_some()),
            Err(problem) => Err(self.error("look for", path, problem)),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        let prefix = check_prefix(prefix)?;
        self.list_all(prefix).await.map_err(|problem| self.error("list", prefix, problem))
    }

    async fn delete(&self, path: &str) -> Result<(), StorageError> {
        check_path(path)?;
        self.delete_one(path).await.map_err(|problem| self.error("delete", path, problem))
    }

    async fn delete_many(&self, paths: &[String]) -> Result<(), StorageError> {
        for path in paths {
            check_path(path)?;
        }
        self.delete_keys(paths.iter().map(|path| self.key(path)).collect()).await
    }

    async fn delete_prefix(&self, prefix: &str) -> Result<(), StorageError> {
        let prefix = check_prefix(prefix)?;
        if !prefix.is_empty() {
            self.delete(prefix).await?;
        }
        let below = self.below(prefix);
        let mut from = None;
        loop {
            let page = self.list_page(&below, from).await;
            let page = page.map_err(|problem| self.error("list", prefix, problem))?;
            self.delete_keys(page.objects.into_iter().map(|(key, _)| key).collect()).await?;
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        // What a crash left behind.
        self.abort_uploads(&below, |_, _| true).await;
        Ok(())
    }

    fn growing(&self) -> Option<Arc<dyn GrowingObjects>> {
        Some(Arc::new(self.clone()))
    }

    fn uri(&self) -> &str {
        &self.uri
    }
}
