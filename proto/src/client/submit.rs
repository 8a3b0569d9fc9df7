//! Submitting a job: the header, the binary if the cluster lacks it, progress, the result.
//!
//! Invariant: however often the connection breaks and whoever leads, one submission id makes one job; every attempt sends
//! the same header, and the cluster answers a repeated one with the job that it has made.

use std::collections::BTreeMap;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::pin::pin;

use bytes::BytesMut;
use thalweg_common::id::{JobId, SubmissionId};
use thalweg_common::limits::{MAX_BINARY_BYTES, UPLOAD_CHUNK_BYTES};
use thalweg_common::properties::RuntimeProperties;
use thalweg_common::task_scope::blocking;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Attempt, ClientError, JobClient, Search, Service};
use crate::blob::BlobHash;
use crate::convert::{Malformed, WireId, properties_to_wire};
use crate::model::SubmitResult;
use crate::v1;
use crate::v1::submit_job_request::Message as Request;
use crate::v1::submit_job_response::Message as Response;

/// Chunks that are read from the file but not sent yet.
const CHUNKS_AHEAD: usize = 2;

/// A job to submit.
#[derive(Debug, Clone)]
pub struct SubmitOptions {
    /// The job's executable.
    pub binary: PathBuf,
    /// What the executable is given in the cluster.
    pub arguments: Vec<String>,
    /// Flink-named settings that win over those in the program.
    pub configuration: BTreeMap<String, String>,
    /// What the program reads as its runtime properties.
    pub properties: GivenProperties,
    /// Names this wish to submit: with the same id the same job is made only once, even by another process.
    pub submission_id: SubmissionId,
}

/// The runtime properties of a job that is submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenProperties {
    /// These.
    These(RuntimeProperties),
    /// Those of another job, which the cluster remembers. It tells them to nobody, because there may be secrets among them.
    Of(JobId),
}

impl Default for GivenProperties {
    fn default() -> Self {
        Self::These(RuntimeProperties::default())
    }
}

impl GivenProperties {
    fn put(self, header: &mut v1::SubmitHeader) {
        match self {
            Self::These(properties) => header.properties = properties_to_wire(&properties),
            Self::Of(job_id) => header.properties_of = job_id.to_wire(),
        }
    }
}

/// What a job begins with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Begin {
    /// Nothing.
    #[default]
    Fresh,
    /// The state of a savepoint, or of a checkpoint of another job.
    Savepoint {
        /// The URI of its directory.
        path: String,
        /// Whether state that the job does not declare is dropped.
        allow_non_restored_state: bool,
        /// Whether the cluster owns it from now on, and deletes it when newer checkpoints have replaced it.
        claim: bool,
    },
    /// It does not: its declared state is compared with that of a running job, and the report is all that comes of it.
    Check {
        /// The running job.
        against: JobId,
        /// Whether state that is not declared any more is no reason to refuse.
        allow_non_restored_state: bool,
    },
}

/// A binary that the cluster has from an earlier submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownBinary {
    /// Its SHA-256.
    pub sha256: BlobHash,
    /// Its size.
    pub size_bytes: u64,
}

impl JobClient {
    /// Submits a job and returns when the cluster has accepted it. `progress` is told each step, for people.
    ///
    /// The deadline counts from the last answer of a leader, so a slow upload is no failure.
    ///
    /// # Errors
    /// When the binary cannot be read, the cluster refuses it, or nobody leads.
    pub async fn submit(
        &self,
        options: SubmitOptions,
        progress: impl FnMut(&str) + Send,
    ) -> Result<SubmitResult, ClientError> {
        self.submit_with(options, Begin::Fresh, progress).await
    }

    /// The same for a job that begins with a savepoint, or is only checked.
    ///
    /// # Errors
    /// As [`submit`](Self::submit), or when the state does not fit: the message is the report then.
    pub async fn submit_with(
        &self,
        options: SubmitOptions,
        begin: Begin,
        mut progress: impl FnMut(&str) + Send,
    ) -> Result<SubmitResult, ClientError> {
        progress("reading the binary");
        let (sha256, size_bytes) = examine(&options.binary).await?;
        let mut header = header(KnownBinary { sha256, size_bytes }, begin, options.submission_id);
        header.arguments = options.arguments;
        header.configuration = options.configuration;
        options.properties.put(&mut header);
        header.binary_name = options.binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.send(header, Some(&options.binary), progress).await
    }

    /// Submits a binary again that the cluster has from an earlier submission, without sending it.
    ///
    /// # Errors
    /// As [`submit_with`](Self::submit_with), or when the cluster does not have the binary any more.
    pub async fn resubmit(
        &self,
        binary: KnownBinary,
        begin: Begin,
        name: String,
        (arguments, configuration, properties): (Vec<String>, BTreeMap<String, String>, GivenProperties),
        submission_id: SubmissionId,
    ) -> Result<SubmitResult, ClientError> {
        let mut header = header(binary, begin, submission_id);
        properties.put(&mut header);
        (header.arguments, header.configuration, header.binary_name) = (arguments, configuration, name);
        self.send(header, None, |_| ()).await
    }

    async fn send(
        &self,
        header: v1::SubmitHeader,
        binary: Option<&Path>,
        mut progress: impl FnMut(&str) + Send,
    ) -> Result<SubmitResult, ClientError> {
        self.learn_members().await?;
        let mut search = Search::start(self);
        loop {
            let service = search.service().await?;
            let outcome = submit_once(service, header.clone(), binary, &mut progress).await;
            if let Some(result) = search.settle(outcome)? {
                return Ok(result);
            }
        }
    }
}

fn header(binary: KnownBinary, begin: Begin, submission_id: SubmissionId) -> v1::SubmitHeader {
    let header = v1::SubmitHeader {
        submission_id: submission_id.to_wire(),
        sha256: binary.sha256.to_wire(),
        size_bytes: binary.size_bytes,
        ..v1::SubmitHeader::default()
    };
    match begin {
        Begin::Fresh => header,
        Begin::Savepoint { path, allow_non_restored_state, claim } => v1::SubmitHeader {
            savepoint: Some(v1::SavepointRestore { path, allow_non_restored_state, claim }),
            ..header
        },
        Begin::Check { against, allow_non_restored_state } => v1::SubmitHeader {
            check_against: against.to_wire(),
            check_allow_non_restored_state: allow_non_restored_state,
            ..header
        },
    }
}

/// The hash and size of a binary that may be submitted.
async fn examine(binary: &Path) -> Result<(BlobHash, u64), ClientError> {
    let error = |problem: String| ClientError::Binary { path: binary.to_path_buf(), problem };
    let metadata =
        tokio::fs::metadata(binary).await.map_err(|cause| error(format!("{cause}; check the path")))?;
    if !metadata.is_file() {
        return Err(error(
            "it is not a file; name the job's executable, as in target/release/word_count".into(),
        ));
    }
    if metadata.len() > MAX_BINARY_BYTES {
        return Err(error(format!(
            "it has {} MiB, at most {} MiB are allowed; build it in release mode and strip it",
            metadata.len() / (1024 * 1024),
            MAX_BINARY_BYTES / (1024 * 1024)
        )));
    }
    let path = binary.to_path_buf();
    let hashed = blocking("hash a binary", move || BlobHash::of_file(&path)).await;
    match hashed {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(cause)) => Err(error(format!("{cause}; check its permissions"))),
        Err(cause) => Err(error(cause.to_string())),
    }
}

/// One attempt at one job manager.
async fn submit_once(
    mut service: Service,
    header: v1::SubmitHeader,
    binary: Option<&Path>,
    progress: &mut (impl FnMut(&str) + Send),
) -> Attempt<SubmitResult> {
    let size_bytes = header.size_bytes;
    let (requests, queue) = mpsc::channel(CHUNKS_AHEAD);
    if requests.try_send(v1::SubmitJobRequest { message: Some(Request::Header(header)) }).is_err() {
        return Attempt::Again { status: Status::internal("the request queue is closed"), answered: false };
    }
    let mut responses = match service.submit_job(ReceiverStream::new(queue)).await {
        Ok(responses) => responses.into_inner(),
        Err(status) => return Attempt::from(Err(status)),
    };
    let mut sender = Some(requests);
    let mut upload = pin!(None);
    let mut answered = false;
    loop {
        let response = tokio::select! {
            biased;
            response = responses.message() => response,
            outcome = finish(upload.as_mut().as_pin_mut()), if upload.is_some() => {
                upload.set(None);
                match outcome {
                    Ok(()) => continue,
                    Err(error) => return Attempt::Refused(error),
                }
            }
        };
        match response {
            Ok(Some(v1::SubmitJobResponse { message: Some(Response::UploadWanted(wanted)) })) => {
                answered = true;
                let Some(sender) = sender.take() else {
                    return Attempt::Refused(Malformed::new("upload_wanted", "came twice").into());
                };
                let Some(binary) = binary else {
                    let problem = "the cluster does not have it any more; submit the file".to_string();
                    return Attempt::Refused(ClientError::Binary {
                        path: "the earlier binary".into(),
                        problem,
                    });
                };
                upload.set(Some(send_file(binary, wanted.from_byte, size_bytes, sender)));
            }
            Ok(Some(v1::SubmitJobResponse { message: Some(Response::Progress(step)) })) => {
                answered = true;
                progress(&step.step);
            }
            Ok(Some(v1::SubmitJobResponse { message: Some(Response::Result(result)) })) => {
                return match result.try_into() {
                    Ok(result) => Attempt::Done(result),
                    Err(malformed) => Attempt::Refused(ClientError::Malformed(malformed)),
                };
            }
            Ok(Some(v1::SubmitJobResponse { message: None })) => {
                return Attempt::Refused(Malformed::missing("message").into());
            }
            Ok(None) => {
                let status =
                    Status::unavailable("the job manager closed the connection before the job was accepted");
                return Attempt::Again { status, answered };
            }
            Err(status) => {
                return match Attempt::from(Err(status)) {
                    Attempt::Again { status, .. } => Attempt::Again { status, answered },
                    other => other,
                };
            }
        }
    }
}

/// Drives the upload if there is one.
async fn finish<F: Future<Output = Result<(), ClientError>>>(
    upload: Option<std::pin::Pin<&mut F>>,
) -> F::Output {
    match upload {
        Some(upload) => upload.await,
        None => std::future::pending().await,
    }
}

/// Sends the file from a position on. A receiver that is gone has said, or will say, why on the other stream.
async fn send_file(
    binary: &Path,
    from_byte: u64,
    size_bytes: u64,
    sender: mpsc::Sender<v1::SubmitJobRequest>,
) -> Result<(), ClientError> {
    let error = |problem: String| ClientError::Binary { path: binary.to_path_buf(), problem };
    let read_error =
        |cause: std::io::Error| error(format!("{cause}; it must stay readable until it is uploaded"));
    let mut file = File::open(binary).await.map_err(read_error)?;
    file.seek(SeekFrom::Start(from_byte)).await.map_err(read_error)?;
    let mut left = size_bytes.saturating_sub(from_byte);
    while left > 0 {
        let mut chunk = BytesMut::with_capacity(UPLOAD_CHUNK_BYTES);
        let mut part = (&mut file).take(left.min(UPLOAD_CHUNK_BYTES as u64));
        if part.read_buf(&mut chunk).await.map_err(read_error)? == 0 {
            return Err(error(
                "it became shorter while it was uploaded; wait until it is built and submit again".into(),
            ));
        }
        left -= chunk.len() as u64;
        let request = v1::SubmitJobRequest { message: Some(Request::Chunk(chunk.freeze())) };
        if sender.send(request).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
