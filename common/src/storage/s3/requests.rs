//! The single requests to S3, each with its retries.
//!
//! Invariant: whatever is returned as success was acknowledged by the store, and content that was read has the length that
//! the store announced.

use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier, ServerSideEncryption,
};
use bytes::{Bytes, BytesMut};

use super::super::{Encryption, RemoteCause};
use super::S3Storage;
use super::multipart::Condition;
use super::problem::{self, Answer, Problem};

/// Name of the mark that a writer leaves in an object's metadata.
const WRITER: &str = "thalweg-writer";

/// What a store knows about an object.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) size: u64,
    /// Changes with the content.
    pub(super) tag: Option<String>,
    /// The mark of who wrote it.
    pub(super) writer: Option<String>,
}

/// A part of a listing.
#[derive(Debug)]
pub(super) struct Page {
    /// Keys in the bucket with their sizes.
    pub(super) objects: Vec<(String, u64)>,
    /// Where the listing goes on.
    pub(super) next: Option<String>,
}

impl S3Storage {
    /// Runs a request whose answer must begin soon.
    async fn answered<T, F>(&self, request: &str, mut attempt: impl FnMut() -> F) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, Problem>>,
    {
        let limit = self.access.settings.socket_timeout;
        self.access.retries.run(request, || soon(limit, attempt())).await
    }

    pub(super) async fn put_object(
        &self,
        path: &str,
        bytes: &Bytes,
        writer: &str,
        condition: Condition,
    ) -> Result<(), Problem> {
        let (client, key) = (self.access.client().await, self.key(path));
        let (encryption, kms_key) = self.encryption();
        let attempt = || async {
            let request = client
                .put_object()
                .bucket(&*self.bucket)
                .key(&key)
                .body(ByteStream::from(bytes.clone()))
                .metadata(WRITER, writer)
                .set_if_none_match(condition.if_none_match())
                .set_server_side_encryption(encryption.clone())
                .set_ssekms_key_id(kms_key.clone());
            match request.send().await.map_err(|error| problem::of(&error)) {
                Ok(_) => Ok(()),
                Err(Problem::Answer(Answer::Conflict)) => Err(conflict()),
                Err(problem) => Err(problem),
            }
        };
        self.access.retries.run("PutObject", attempt).await
    }

    pub(super) async fn head(&self, path: &str) -> Result<Head, Problem> {
        let (client, key) = (self.access.client().await, self.key(path));
        let attempt = || async {
            let request = client.head_object().bucket(&*self.bucket).key(&key);
            let output = request.send().await.map_err(|error| problem::of(&error))?;
            Ok(Head {
                size: output.content_length().and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
                tag: output.e_tag().map(str::to_owned),
                writer: output.metadata().and_then(|metadata| metadata.get(WRITER)).cloned(),
            })
        };
        self.answered("HeadObject", attempt).await
    }

    /// Reads an object that is no larger than `at_most`; of a larger one only what it is.
    pub(super) async fn get_small(&self, path: &str, at_most: u64) -> Result<Result<Bytes, Head>, Problem> {
        let (client, key) = (self.access.client().await, self.key(path));
        let limit = self.access.settings.socket_timeout;
        let attempt = || async {
            let request = client.get_object().bucket(&*self.bucket).key(&key);
            let send = async { request.send().await.map_err(|error| problem::of(&error)) };
            let output = soon(limit, send).await?;
            let size = output.content_length().and_then(|size| u64::try_from(size).ok());
            match size {
                Some(size) if size > at_most => {
                    let tag = output.e_tag().map(str::to_owned);
                    Ok(Err(Head { size, tag, writer: None }))
                }
                _ => self.content(output, size).await.map(Ok),
            }
        };
        self.access.retries.run("GetObject", attempt).await
    }

    /// Reads a part of an object, which must still be the one with this tag.
    pub(super) async fn get_part(
        &self,
        path: &str,
        range: Range<u64>,
        tag: Option<&str>,
    ) -> Result<Bytes, Problem> {
        let (client, key) = (self.access.client().await, self.key(path));
        let limit = self.access.settings.socket_timeout;
        let wanted = range.end - range.start;
        let attempt = || async {
            let request = client
                .get_object()
                .bucket(&*self.bucket)
                .key(&key)
                .range(format!("bytes={}-{}", range.start, range.end - 1))
                .set_if_match(tag.map(str::to_owned));
            let send = async { request.send().await.map_err(|error| problem::of(&error)) };
            let output = soon(limit, send).await?;
            match output.content_length().and_then(|size| u64::try_from(size).ok()) {
                Some(size) if size < wanted => Err(Problem::Answer(Answer::BadRange)),
                Some(size) if size > wanted => Err(Problem::fault(
                    RemoteCause::NotImplemented,
                    "the store ignores which part is asked for",
                )),
                size => self.content(output, size.or(Some(wanted))).await,
            }
        };
        self.access.retries.run("GetObject", attempt).await
    }

    /// Reads what follows the begin of an answer.
    async fn content(&self, output: GetObjectOutput, size: Option<u64>) -> Result<Bytes, Problem> {
        let mut stream = output.body;
        let announced = size.and_then(|size| usize::try_from(size).ok());
        let mut content = BytesMut::with_capacity(announced.unwrap_or_default());
        let piece = |stream: ByteStream| async move {
            let mut stream = stream;
            (stream.next().await, stream)
        };
        loop {
            let limit = self.access.settings.socket_timeout;
            let (next, rest) = tokio::time::timeout(limit, piece(stream)).await.map_err(|_| {
                Problem::fault(
                    RemoteCause::Timeout,
                    format!("nothing more of the answer came within {limit:.1?}"),
                )
            })?;
            stream = rest;
            match next {
                Some(Ok(bytes)) => content.extend_from_slice(&bytes),
                Some(Err(error)) => return Err(problem::of_content(&error)),
                None => break,
            }
        }
        match announced {
            Some(announced) if announced != content.len() => Err(Problem::fault(
                RemoteCause::Unreachable,
                format!("the answer broke off after {} of {announced} bytes", content.len()),
            )),
            _ => Ok(content.freeze()),
        }
    }

    /// Lists a part of what begins with `prefix` in the bucket.
    pub(super) async fn list_page(&self, prefix: &str, from: Option<String>) -> Result<Page, Problem> {
        let client = self.access.client().await;
        let attempt = || async {
            let request = client
                .list_objects_v2()
                .bucket(&*self.bucket)
                .prefix(prefix)
                .set_continuation_token(from.clone());
            let output = request.send().await.map_err(|error| problem::of(&error))?;
            let objects = output.contents().iter().filter_map(|object| {
                let size = object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
                Some((object.key()?.to_owned(), size))
            });
            let next = output.next_continuation_token().filter(|_| output.is_truncated().unwrap_or_default());
            Ok(Page { objects: objects.collect(), next: next.map(str::to_owned) })
        };
        self.answered("ListObjectsV2", attempt).await
    }

    pub(super) async fn delete_one(&self, path: &str) -> Result<(), Problem> {
        let (client, key) = (self.access.client().await, self.key(path));
        let attempt = || async {
            let request = client.delete_object().bucket(&*self.bucket).key(&key);
            match request.send().await.map_err(|error| problem::of(&error)) {
                Ok(_) | Err(Problem::Answer(Answer::NotFound)) => Ok(()),
                Err(problem) => Err(problem),
            }
        };
        self.answered("DeleteObject", attempt).await
    }

    /// Deletes keys of the bucket in one request, and answers those that it refused. Only these are tried again.
    pub(super) async fn delete_batch(&self, keys: &[String]) -> Result<Vec<(String, Problem)>, Problem> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let client = self.access.client().await;
        let outcome = Mutex::new((keys.to_vec(), Vec::new()));
        let locked = || outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = || async {
            let left = locked().0.clone();
            let delete = delete_request(&left)?;
            let request = client.delete_objects().bucket(&*self.bucket).delete(delete);
            let output = request.send().await.map_err(|error| problem::of(&error))?;
            let (mut again, mut last) = (Vec::new(), None);
            let mut outcome = locked();
            for error in output.errors() {
                let key = error.key().unwrap_or_default().to_owned();
                match problem::of_one(error.code(), error.message()) {
                    Problem::Answer(Answer::NotFound) => {}
                    Problem::Fault { cause, reason } if cause.retryable() => {
                        again.push(key);
                        last = Some(Problem::Fault { cause, reason });
                    }
                    problem => outcome.1.push((key, problem)),
                }
            }
            outcome.0 = again;
            last.map_or(Ok(()), Err)
        };
        let given_up = self.answered("DeleteObjects", attempt).await.err();
        let (left, mut refused) = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
        match given_up {
            // The request as a whole was refused.
            Some(problem) if left.len() == keys.len() => Err(problem),
            Some(problem) => {
                refused.extend(left.into_iter().map(|key| (key, problem.clone())));
                Ok(refused)
            }
            None => Ok(refused),
        }
    }

    /// Begins a multipart upload. Answers its id, and whether others may have been begun whose ids were lost on the way.
    pub(super) async fn create_upload(&self, path: &str, writer: &str) -> Result<(String, bool), Problem> {
        let (client, key) = (self.access.client().await, self.key(path));
        let (encryption, kms_key) = self.encryption();
        let tries = AtomicU32::new(0);
        let attempt = || async {
            tries.fetch_add(1, Ordering::Relaxed);
            let request = client
                .create_multipart_upload()
                .bucket(&*self.bucket)
                .key(&key)
                .metadata(WRITER, writer)
                .set_server_side_encryption(encryption.clone())
                .set_ssekms_key_id(kms_key.clone());
            let output = request.send().await.map_err(|error| problem::of(&error))?;
            let id = output.upload_id().map(str::to_owned);
            id.ok_or_else(|| {
                Problem::fault(RemoteCause::NotImplemented, "the store begins no multipart upload")
            })
        };
        let id = self.answered("CreateMultipartUpload", attempt).await?;
        Ok((id, tries.load(Ordering::Relaxed) > 1))
    }

    /// Uploads a part, counted from 1.
    pub(super) async fn upload_part(
        &self,
        path: &str,
        upload: &str,
        number: i32,
        bytes: &Bytes,
    ) -> Result<CompletedPart, Problem> {
        let (client, key) = (self.access.client().await, self.key(path));
        let attempt = || async {
            let request = client
                .upload_part()
                .bucket(&*self.bucket)
                .key(&key)
                .upload_id(upload)
                .part_number(number)
                .body(ByteStream::from(bytes.clone()));
            let output = request.send().await.map_err(|error| problem::of(&error))?;
            Ok(CompletedPart::builder()
                .part_number(number)
                .set_e_tag(output.e_tag().map(str::to_owned))
                .build())
        };
        self.access.retries.run("UploadPart", attempt).await
    }

    /// Makes an object of the parts.
    pub(super) async fn complete_upload(
        &self,
        path: &str,
        upload: &str,
        parts: Vec<CompletedPart>,
        condition: Condition,
    ) -> Result<(), Problem> {
        let (client, key) = (self.access.client().await, self.key(path));
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let attempt = || async {
            let request = client
                .complete_multipart_upload()
                .bucket(&*self.bucket)
                .key(&key)
                .upload_id(upload)
                .multipart_upload(parts.clone())
                .set_if_none_match(condition.if_none_match());
            request.send().await.map(drop).map_err(|error| problem::of(&error))
        };
        // Putting a large object together takes its time.
        self.access.retries.run("CompleteMultipartUpload", attempt).await
    }

    /// Gives an upload up, and what was sent of it.
    pub(super) async fn abort_upload(&self, key: &str, upload: &str) -> Result<(), Problem> {
        let client = self.access.client().await;
        let attempt = || async {
            let request = client.abort_multipart_upload().bucket(&*self.bucket).key(key).upload_id(upload);
            match request.send().await.map_err(|error| problem::of(&error)) {
                Ok(_) | Err(Problem::Answer(Answer::NoSuchUpload | Answer::NotFound)) => Ok(()),
                Err(problem) => Err(problem),
            }
        };
        self.answered("AbortMultipartUpload", attempt).await
    }

    /// Uploads below a prefix of the bucket that were neither completed nor aborted: keys and ids.
    pub(super) async fn unfinished_uploads(&self, prefix: &str) -> Result<Vec<(String, String)>, Problem> {
        let client = self.access.client().await;
        let mut all = Vec::new();
        let (mut key, mut id) = (None, None);
        loop {
            let attempt = || async {
                let request = client.list_multipart_uploads().bucket(&*self.bucket).prefix(prefix);
                let request = request.set_key_marker(key.clone()).set_upload_id_marker(id.clone());
                request.send().await.map_err(|error| problem::of(&error))
            };
            let page = self.answered("ListMultipartUploads", attempt).await?;
            let uploads = page.uploads().iter();
            let named =
                uploads.filter_map(|upload| Some((upload.key()?.to_owned(), upload.upload_id()?.to_owned())));
            all.extend(named.filter(|(key, _)| key.starts_with(prefix)));
            let next = page
                .next_key_marker()
                .map(str::to_owned)
                .filter(|next| page.is_truncated() == Some(true) && !next.is_empty());
            if next.is_none() || next == key && page.next_upload_id_marker() == id.as_deref() {
                return Ok(all);
            }
            (key, id) = (next, page.next_upload_id_marker().map(str::to_owned));
        }
    }

    fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        match &self.access.settings.encryption {
            Encryption::OfTheBucket => (None, None),
            Encryption::S3 => (Some(ServerSideEncryption::Aes256), None),
            Encryption::Kms { key_id } => (Some(ServerSideEncryption::AwsKms), key_id.clone()),
        }
    }
}

/// Another conditional write was under way at the same moment: who wins is decided by then.
fn conflict() -> Problem {
    let (cause, reason) = Problem::Answer(Answer::Conflict).into_fault();
    Problem::Fault { cause, reason }
}

fn delete_request(keys: &[String]) -> Result<Delete, Problem> {
    let refused = |error: &dyn std::error::Error| Problem::fault(RemoteCause::Refused, error.to_string());
    let identifier = |key: &String| ObjectIdentifier::builder().key(key).build();
    let objects: Result<Vec<_>, _> = keys.iter().map(identifier).collect();
    let objects = objects.map_err(|error| refused(&error))?;
    Delete::builder().set_objects(Some(objects)).quiet(true).build().map_err(|error| refused(&error))
}

/// Gives an answer this long to begin.
async fn soon<T>(
    limit: std::time::Duration,
    answer: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
        Err(Problem::fault(RemoteCause::Timeout, format!("no answer within {limit:.1?}")))
    })
}
