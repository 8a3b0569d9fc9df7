//! Accepting a job: what is checked before it is proposed, with a binary or, in local mode, with a graph alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::clock::SharedClock;
use thalweg_common::config::{Configuration, keys};
use thalweg_common::failure::Failure;
use thalweg_common::graph::{JobGraph, UNNAMED_JOB};
use thalweg_common::id::{JobId, SubmissionId};
use thalweg_common::limits::{
    MAX_BINARY_BYTES, MAX_CONCURRENT_SUBMISSIONS, MAX_JOB_ARGUMENTS_BYTES, MAX_JOB_CONFIGURATION_BYTES,
    MAX_JOB_NAME_BYTES, MAX_OPERATOR_NAME_BYTES, MAX_OPERATORS,
};
use thalweg_common::manifest::{self, Report, StateManifest};
use thalweg_common::properties::RuntimeProperties;
use thalweg_common::storage::StorageFactory;
use thalweg_proto::blob::BlobHash;
use thalweg_proto::convert::{Malformed, WireId, properties_from_wire};
use thalweg_proto::v1;
use thalweg_proto::v1::submit_job_request::Message as Request;
use thalweg_proto::v1::submit_job_response::Message as Response;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tonic::{Status, Streaming};
use tracing::{info, warn};

use super::beginning::{Beginning, refuse_misfits};
use super::{failure_status, propose_status, reachable};
use crate::cluster::{Base, Binary, Command, Outcome, Refusal, SubmitJob};
use crate::consensus::{Consensus, ProposeError};
use crate::submission::{BlobError, BlobStore, PlanRequest, PlanRunner, Planner, Replicator, check, tidy};

/// How long a client may take to send its next chunk.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(60);

/// Progress of an upload is told after so many bytes.
const PROGRESS_BYTES: u64 = 4 * 1024 * 1024;

/// Where responses to a submission go.
pub(crate) type Responses = mpsc::Sender<Result<v1::SubmitJobResponse, Status>>;

/// A job that is to be accepted.
pub(crate) struct Submitting {
    pub(crate) submission_id: SubmissionId,
    pub(crate) binary: Option<Binary>,
    /// The job's name if its graph has none.
    pub(crate) binary_name: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) configuration: BTreeMap<String, String>,
    pub(crate) properties: RuntimeProperties,
    pub(crate) graph: JobGraph,
    /// What it begins with, checked.
    pub(crate) base: Option<Base>,
    /// For the author, beside the plan's.
    pub(crate) warnings: Vec<String>,
}

/// A job that was accepted.
pub(crate) struct Accepted {
    pub(crate) job_id: JobId,
    pub(crate) name: String,
    pub(crate) repeated: bool,
    pub(crate) warnings: Vec<String>,
}

/// Why a job was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    #[error(transparent)]
    Failure(#[from] Failure),
    #[error(transparent)]
    Propose(#[from] ProposeError),
    #[error("{0}")]
    Refused(Refusal),
}

impl From<SubmitError> for Status {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Failure(failure) => failure_status(&failure),
            SubmitError::Propose(error) => propose_status(error),
            SubmitError::Refused(reason) => Self::resource_exhausted(reason.to_string()),
        }
    }
}

/// Accepts jobs on the leader.
pub(crate) struct Submitter {
    pub(crate) consensus: Arc<dyn Consensus>,
    pub(crate) clock: SharedClock,
    pub(crate) blobs: BlobStore,
    pub(crate) replicator: Replicator,
    /// Absent in local mode: only graphs are accepted.
    pub(crate) runner: Option<PlanRunner>,
    /// Present where `runner` is: for jobs that run already.
    pub(crate) planner: Option<Planner>,
    /// The cluster's.
    pub(crate) configuration: Configuration,
    /// Opens where checkpoints are stored.
    pub(crate) storages: StorageFactory,
    pub(crate) data_directory: PathBuf,
    pub(crate) permits: Semaphore,
}

impl Submitter {
    /// So many submissions at the same time.
    pub(crate) fn permits() -> Semaphore {
        Semaphore::new(MAX_CONCURRENT_SUBMISSIONS)
    }

    /// A whole submission by a client: header, upload if need be, checks, acceptance.
    pub(crate) async fn submit(
        &self,
        mut requests: Streaming<v1::SubmitJobRequest>,
        responses: &Responses,
    ) -> Result<v1::SubmitResult, Status> {
        let first = next_request(&mut requests).await?;
        let Some(Request::Header(header)) = first else {
            return Err(Malformed::new("header", "must come first").into());
        };
        let submission_id = SubmissionId::from_wire("header.submission_id", &header.submission_id)?;
        if let Some(accepted) = self.known(submission_id) {
            return Ok(accepted.into());
        }
        let (binary, properties) = (check_header(&header)?, self.properties(&header)?);
        let _permit = self.permit().await?;
        if !self.blobs.contains(binary.sha256).await {
            self.upload(binary, &mut requests, responses).await?;
        }
        self.check_and_accept(submission_id, (binary, properties), header, Some(responses)).await
    }

    /// The same for a binary that is here already.
    #[cfg(feature = "rest")]
    pub(crate) async fn submit_uploaded(&self, header: v1::SubmitHeader) -> Result<v1::SubmitResult, Status> {
        let submission_id = SubmissionId::from_wire("header.submission_id", &header.submission_id)?;
        let checked = (check_header(&header)?, self.properties(&header)?);
        let _permit = self.permit().await?;
        self.check_and_accept(submission_id, checked, header, None).await
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>, Status> {
        self.permits.acquire().await.map_err(|_| Status::unavailable("the job manager is stopping"))
    }

    /// What follows when the binary is here: plan, replication, what the job begins with, acceptance.
    async fn check_and_accept(
        &self,
        submission_id: SubmissionId,
        (binary, properties): (Binary, RuntimeProperties),
        header: v1::SubmitHeader,
        responses: Option<&Responses>,
    ) -> Result<v1::SubmitResult, Status> {
        let Some(runner) = &self.runner else {
            return Err(Status::failed_precondition(
                "this job manager is part of a job in local mode and takes no binaries; start the jobmanager program",
            ));
        };
        tell(responses, "checking the job's plan", binary.size_bytes).await?;
        let mut request = PlanRequest {
            arguments: header.arguments,
            configuration: header.configuration.into_iter().collect(),
            properties,
        };
        let path = self.blobs.path(binary.sha256);
        let members = self.consensus.members();
        let (mut graph, ()) = tokio::try_join!(
            check(&path, runner, request.clone()),
            self.replicator.replicate(binary.sha256, binary.size_bytes, &members)
        )
        .map_err(|failure| failure_status(&failure))?;
        if !header.check_against.is_empty() {
            return self.compare(&header.check_against, header.check_allow_non_restored_state, &graph);
        }
        let (mut beginning, mut warnings) = (None, Vec::new());
        if let Some(restore) = header.savepoint {
            tell(responses, "checking what the job begins with", binary.size_bytes).await?;
            let begun = self.begin(restore, (path.as_path(), runner), &mut graph, &mut request).await;
            let (base, report, warning) = begun.map_err(|failure| failure_status(&failure))?;
            beginning = Some((base, report));
            warnings.extend(warning);
        }
        let (base, report) = beginning.unzip();
        tidy(&self.blobs, self.consensus.state(), binary.sha256, self.clock.now_ms()).await;
        let job = Submitting {
            submission_id,
            binary: Some(binary),
            binary_name: header.binary_name,
            arguments: request.arguments,
            configuration: request.configuration,
            properties: request.properties,
            graph,
            base,
            warnings,
        };
        let result = v1::SubmitResult::from(self.accept(job).await?);
        Ok(v1::SubmitResult {
            report: report.as_ref().map(report_text).transpose()?.unwrap_or_default(),
            ..result
        })
    }

    /// Checks what a job is to begin with against its plan, which is made again if operators keep the max parallelism of their state. Gives a
    /// warning, too, if there is one.
    async fn begin(
        &self,
        restore: v1::SavepointRestore,
        (path, runner): (&Path, &PlanRunner),
        graph: &mut JobGraph,
        request: &mut PlanRequest,
    ) -> Result<(Base, Report, Option<String>), Failure> {
        let from = Beginning::open(&self.storages, restore).await?;
        let mut report = from.compare(graph);
        if Beginning::kept_max_parallelism(&report, &mut request.configuration) {
            *graph = check(path, runner, request.clone()).await?;
            report = from.compare(graph);
        }
        let base = from.accept(graph, &report)?;
        let warning = from.check_owners(self.consensus.state().read().jobs())?;
        Ok((base, report, warning))
    }

    /// The runtime properties of a submission: its own, or those of a job that is known.
    fn properties(&self, header: &v1::SubmitHeader) -> Result<RuntimeProperties, Status> {
        if header.properties_of.is_empty() {
            let given = properties_from_wire(header.properties.clone());
            return given.map_err(|error| Status::invalid_argument(error.to_string()));
        }
        let job_id = JobId::from_wire("header.properties_of", &header.properties_of)?;
        let state = self.consensus.state().read();
        let job = state.job(job_id);
        let unknown = || Status::not_found(Refusal::UnknownJob { job_id }.to_string());
        Ok(job.ok_or_else(unknown)?.properties.clone())
    }

    /// What would become of the state of a running job in one with this graph. Changes nothing.
    fn compare(&self, against: &[u8], allow: bool, graph: &JobGraph) -> Result<v1::SubmitResult, Status> {
        let job_id = JobId::from_wire("header.check_against", against)?;
        let state = self.consensus.state().read();
        let job = state.job(job_id);
        let job = job.ok_or_else(|| Status::not_found(Refusal::UnknownJob { job_id }.to_string()))?;
        let report = manifest::check(&StateManifest::of(&job.graph), &StateManifest::of(graph), allow);
        refuse_misfits(&report).map_err(|failure| failure_status(&failure))?;
        Ok(v1::SubmitResult {
            job_id: job_id.to_wire(),
            name: job.name.clone(),
            repeated: false,
            warnings: graph.warnings.clone(),
            report: report_text(&report)?,
        })
    }

    async fn upload(
        &self,
        binary: Binary,
        requests: &mut Streaming<v1::SubmitJobRequest>,
        responses: &Responses,
    ) -> Result<(), Status> {
        let wanted = Response::UploadWanted(v1::UploadWanted { from_byte: 0 });
        respond(responses, wanted).await?;
        let mut writer = self.blobs.receive(binary.sha256, binary.size_bytes).await.map_err(blob_status)?;
        let mut told = 0;
        while writer.received() < binary.size_bytes {
            let Some(Request::Chunk(chunk)) = next_request(requests).await? else {
                return Err(Malformed::new("chunk", "was expected").into());
            };
            writer.write(chunk).await.map_err(blob_status)?;
            if writer.received() >= told + PROGRESS_BYTES {
                told = writer.received();
                let mebibytes = |bytes: u64| bytes.div_ceil(1024 * 1024);
                let step = format!("uploaded {} of {} MiB", mebibytes(told), mebibytes(binary.size_bytes));
                tell(Some(responses), &step, told).await?;
            }
        }
        writer.finish().await.map_err(blob_status)?;
        Ok(())
    }

    /// The job that a submission made before.
    fn known(&self, submission_id: SubmissionId) -> Option<Accepted> {
        let state = self.consensus.state().read();
        let job = state.job_of_submission(submission_id)?;
        Some(Accepted {
            job_id: job.id,
            name: job.name.clone(),
            repeated: true,
            warnings: job.warnings.clone(),
        })
    }

    /// Puts a checked job into the log.
    pub(crate) async fn accept(&self, job: Submitting) -> Result<Accepted, SubmitError> {
        let graph = job.graph;
        graph.validate().map_err(|error| Failure::user(error.to_string()).permanent())?;
        check_limits(&graph)?;
        check_configuration(&job.configuration)?;
        let mut warnings = [graph.warnings.clone(), job.warnings].concat();
        let checkpoint_directory = self.checkpoint_directory(&graph, &mut warnings)?;
        if let Some(directory) = &checkpoint_directory {
            let storage = self.storages.open(directory).map_err(|error| Failure::from(&error))?;
            warnings.extend(reachable::check(storage.as_ref()).await?);
        }
        let job_id = JobId::random()
            .map_err(|error| Failure::external(format!("the system gives no random bytes: {error}")))?;
        let name = match job.binary_name {
            name if graph.name == UNNAMED_JOB && !name.is_empty() => name,
            _ => graph.name.clone(),
        };
        let outcome = self
            .consensus
            .propose(Command::SubmitJob(SubmitJob {
                job_id,
                submission_id: job.submission_id,
                name: name.clone(),
                binary: job.binary,
                arguments: job.arguments,
                configuration: job.configuration,
                properties: job.properties,
                graph: Arc::new(graph),
                checkpoint_directory,
                base: job.base,
                warnings: warnings.clone(),
                time_ms: self.clock.now_ms(),
            }))
            .await?;
        match outcome {
            Outcome::Submitted { job_id, repeated } => {
                if !repeated {
                    info!("Received job {name} ({job_id}).");
                }
                Ok(Accepted { job_id, name, repeated, warnings })
            }
            Outcome::Refused { reason } => Err(SubmitError::Refused(reason)),
            Outcome::Ok | Outcome::CheckpointBegun { .. } => {
                Err(Failure::internal("the log answered a submission with something else").into())
            }
        }
    }

    /// Where the job's checkpoints go; decided once, so that every later leader finds them.
    fn checkpoint_directory(
        &self,
        graph: &JobGraph,
        warnings: &mut Vec<String>,
    ) -> Result<Option<String>, Failure> {
        if !graph.checkpointing.is_enabled() {
            return Ok(None);
        }
        let configured = graph.checkpointing.directory.as_deref();
        let configured = configured.or_else(|| self.configuration.text(&keys::CHECKPOINTING_DIRECTORY));
        let directory = match configured {
            Some(directory) => directory.to_string(),
            None => {
                let directory = self.data_directory.join("checkpoints").display().to_string();
                if self.runner.is_some() {
                    let warning = format!(
                        "checkpoints are stored in {directory} on this job manager's disk, where other machines do not find \
                         them; set `{}` to a directory that all machines share",
                        keys::CHECKPOINTING_DIRECTORY.name
                    );
                    warn!("Job {}: {warning}.", graph.name);
                    warnings.push(warning);
                }
                directory
            }
        };
        match self.storages.open(&directory) {
            Ok(_) => Ok(Some(directory)),
            Err(error) => {
                Err(Failure::user(format!("the checkpoint directory is wrong: {error}")).permanent())
            }
        }
    }
}

impl From<Accepted> for v1::SubmitResult {
    fn from(accepted: Accepted) -> Self {
        let Accepted { job_id, name, repeated, warnings } = accepted;
        Self { job_id: job_id.to_wire(), name, repeated, warnings, report: String::new() }
    }
}

fn report_text(report: &Report) -> Result<String, Status> {
    serde_json::to_string(report)
        .map_err(|error| Status::internal(format!("the report cannot be written: {error}")))
}

async fn next_request(requests: &mut Streaming<v1::SubmitJobRequest>) -> Result<Option<Request>, Status> {
    let next = tokio::time::timeout(CHUNK_TIMEOUT, requests.message()).await;
    let next = next.map_err(|_| {
        Status::deadline_exceeded(format!("nothing was sent for {} s; submit again", CHUNK_TIMEOUT.as_secs()))
    })??;
    Ok(next.and_then(|request| request.message))
}

async fn respond(responses: &Responses, message: Response) -> Result<(), Status> {
    let response = v1::SubmitJobResponse { message: Some(message) };
    responses.send(Ok(response)).await.map_err(|_| Status::cancelled("the client went away"))
}

/// Tells a client that waits for it how far its submission is.
async fn tell(responses: Option<&Responses>, step: &str, received_bytes: u64) -> Result<(), Status> {
    let Some(responses) = responses else { return Ok(()) };
    let progress = v1::SubmitProgress { step: step.to_string(), received_bytes };
    respond(responses, Response::Progress(progress)).await
}

fn blob_status(error: BlobError) -> Status {
    match error {
        BlobError::TooLarge { .. } => Status::invalid_argument(error.to_string()),
        BlobError::Mismatch { .. } => Status::data_loss(error.to_string()),
        BlobError::Disk { .. } => Status::unavailable(error.to_string()),
    }
}

fn check_header(header: &v1::SubmitHeader) -> Result<Binary, Status> {
    let sha256 = BlobHash::from_wire("header.sha256", &header.sha256)?;
    if header.size_bytes > MAX_BINARY_BYTES {
        return Err(blob_status(BlobError::TooLarge { size_bytes: header.size_bytes }));
    }
    if header.size_bytes == 0 {
        return Err(Status::invalid_argument(
            "the binary is empty; submit the program that `cargo build` made",
        ));
    }
    let bytes: usize = header.arguments.iter().map(String::len).sum();
    if bytes > MAX_JOB_ARGUMENTS_BYTES {
        return Err(Status::invalid_argument(format!(
            "the job's arguments have {bytes} bytes, at most {MAX_JOB_ARGUMENTS_BYTES} are allowed; put them into a file"
        )));
    }
    let configuration =
        header.configuration.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    check_configuration(&configuration).map_err(|failure| failure_status(&failure))?;
    Ok(Binary { sha256, size_bytes: header.size_bytes })
}

fn check_configuration(configuration: &BTreeMap<String, String>) -> Result<(), Failure> {
    let bytes: usize = configuration.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAX_JOB_CONFIGURATION_BYTES {
        return Err(Failure::user(format!(
            "the job's settings have {bytes} bytes, at most {MAX_JOB_CONFIGURATION_BYTES} are allowed"
        ))
        .permanent());
    }
    let mut checked = Configuration::new();
    configuration
        .iter()
        .try_for_each(|(key, value)| checked.set(key, value))
        .map_err(|error| Failure::user(error.to_string()).permanent())?;
    match keys::SECURITY.iter().find(|key| checked.is_set(key)) {
        None => Ok(()),
        Some(key) => Err(Failure::user(format!(
            "`{}` is a setting of nodes and of clients, not of a job; whoever submits has it in config.yaml in $THALWEG_CONF_DIR or \
             in $THALWEG_PROPERTIES",
            key.name
        ))
        .permanent()),
    }
}

fn check_limits(graph: &JobGraph) -> Result<(), Failure> {
    let refuse = |reason: String| Err(Failure::user(reason).permanent());
    if graph.name.is_empty() || graph.name.len() > MAX_JOB_NAME_BYTES {
        return refuse(format!("the job's name must have from 1 to {MAX_JOB_NAME_BYTES} bytes; set --name"));
    }
    let operators = graph.vertices.iter().flat_map(|vertex| &vertex.operators);
    if operators.clone().count() > MAX_OPERATORS {
        return refuse(format!(
            "the job has more than {MAX_OPERATORS} operators; split it into several jobs"
        ));
    }
    for operator in operators {
        if operator.name.len() > MAX_OPERATOR_NAME_BYTES {
            return refuse(format!(
                "the name of the operator at {} has more than {MAX_OPERATOR_NAME_BYTES} bytes; shorten it",
                operator.location
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_job_says_whom_the_cluster_trusts() {
        let with = |key: &str| check_configuration(&[(key.to_string(), "true".to_string())].into());
        for key in ["security.ssl.internal.enabled", "security.allow-insecure", "security.token-file"] {
            let failure = with(key).expect_err(key);
            assert!(failure.message.contains(key) && failure.message.contains("not of a job"), "{failure}");
        }
        assert_eq!(with("pipeline.operator-chaining"), Ok(()));
    }
}
