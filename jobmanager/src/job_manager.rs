//! One job manager: its server, its leader actor and its stores, started and stopped together.
//!
//! Used by the `jobmanager` program and by local mode, which runs one inside the job's own process. The replicated log is
//! handed in: the program opens it first because the server must serve Raft too.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::clock::SharedClock;
use thalweg_common::config::{ConfigError, Configuration, keys};
use thalweg_common::graph::JobGraph;
use thalweg_common::id::{JobId, SubmissionId};
use thalweg_common::limits::GRPC_MAX_MESSAGE_BYTES;
use thalweg_common::properties::RuntimeProperties;
use thalweg_common::security::Security;
use thalweg_common::storage::{Storage, StorageError, StorageFactory, StorageSettings};
use thalweg_common::task_scope::{ErrorPolicy, TaskScope};
use thalweg_proto::model::JobDetails;
use thalweg_proto::transport::{Admission, Dialer, Incoming, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT};
use thalweg_proto::v1::blob_service_server::BlobServiceServer;
use thalweg_proto::v1::job_service_server::JobServiceServer;
use thalweg_proto::v1::task_manager_service_server::TaskManagerServiceServer;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::consensus::{Consensus, NodeId};
use crate::leader::{Context, Leader, Settings};
use crate::metrics::Reporters;
use crate::rest_listener::RestListener;
use crate::service::{JobServer, JobWatch, SubmitError, Submitter, Submitting, TaskManagerServer};
use crate::submission::{BlobError, BlobServer, BlobStore, PlanRunner, Planner, Replicator};

/// What a job manager needs to start.
pub struct JobManagerOptions {
    /// Its number in the cluster; 1 in local mode.
    pub id: NodeId,
    /// Where it serves; bound already, so that its port is known.
    pub listener: TcpListener,
    /// `host:port` under which others reach it.
    pub address: String,
    /// Settings of the cluster.
    pub configuration: Configuration,
    /// Job binaries are kept here, and checkpoints of jobs that name no directory. Created if it does not exist.
    pub data_directory: PathBuf,
    /// The `jobmanager` program, which runs a binary's plan by `exec-plan`. Without it only embedded jobs are accepted.
    pub plan_program: Option<PathBuf>,
    /// The time.
    pub clock: SharedClock,
    /// What it shows to others and asks of them.
    pub security: Security,
    /// More services for the same port, as Raft's.
    pub routes: Routes,
    /// Where it serves REST; nowhere without it, or without the feature `rest`.
    pub rest: Option<RestListener>,
}

/// A job manager could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("cannot use the data directory: {reason}")]
    DataDirectory {
        /// Which file, what the system says and what to check.
        reason: String,
    },
    /// `blob.storage.directory` cannot be used.
    #[error("`blob.storage.directory` is wrong: {0}")]
    BlobDirectory(#[from] StorageError),
    /// The settings of a storage cannot be used.
    #[error("a setting is wrong: {0}")]
    Settings(#[from] ConfigError),
    /// Metrics cannot be reported as the settings say.
    #[error("metrics cannot be reported: {0}")]
    Metrics(String),
}

/// Why an embedded job was not accepted or cancelled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct EmbeddedError {
    /// Cause and cure.
    pub reason: String,
}

impl From<SubmitError> for EmbeddedError {
    fn from(error: SubmitError) -> Self {
        Self { reason: error.to_string() }
    }
}

/// Starts job managers.
pub struct JobManager;

impl JobManager {
    /// Starts to serve. Its tasks run in a child of `scope` and end when that is cancelled. If the server fails, the child
    /// is cancelled and [`JobManagerHandle::failure`] tells why.
    ///
    /// # Errors
    /// When a directory cannot be used.
    pub async fn start(
        options: JobManagerOptions,
        consensus: Arc<dyn Consensus>,
        scope: &TaskScope,
    ) -> Result<JobManagerHandle, StartError> {
        let JobManagerOptions {
            id,
            listener,
            address,
            configuration,
            data_directory,
            plan_program,
            clock,
            security,
            routes,
            rest,
        } = options;
        let scope = scope.child("jobmanager");
        let blobs = BlobStore::open(&data_directory).map_err(data_directory_error)?;
        let storages = StorageFactory::new(StorageSettings::from_configuration(&configuration)?);
        let shared: Option<Arc<dyn Storage>> = match configuration.text(&keys::BLOB_DIRECTORY) {
            Some(uri) => Some(storages.open(uri)?),
            None => None,
        };
        let replicator = Replicator::new(blobs.clone(), id, shared, Dialer::new(security.clone()));
        let runner = plan_program.map(|program| plan_runner(program, &configuration));
        let planner = runner.clone().map(|runner| Planner::new(runner, blobs.clone(), replicator.clone()));
        let context = Context {
            consensus: Arc::clone(&consensus),
            clock: Arc::clone(&clock),
            settings: Settings::new(&configuration),
            replicator: replicator.clone(),
            planner: planner.clone(),
            storages: storages.clone(),
        };
        let blob_server = BlobServer::new(blobs.clone(), consensus.state().clone(), Arc::clone(&clock));
        let leader = Leader::start(context, &scope);
        let reporters = Reporters {
            consensus: Arc::clone(&consensus),
            leader: leader.clone(),
            clock: Arc::clone(&clock),
            #[cfg(feature = "prometheus")]
            data_directory: data_directory.clone(),
        };
        reporters.start(&configuration, &scope).await?;
        #[cfg(feature = "rest")]
        let last_hour = reporters.note_last_hour(&scope);
        let submitter = Arc::new(Submitter {
            consensus: Arc::clone(&consensus),
            clock,
            blobs,
            replicator,
            runner,
            planner,
            configuration,
            storages,
            data_directory,
            permits: Submitter::permits(),
        });
        // A broken connection is no reason to end the others.
        let connections = scope.child_with_policy("connections", ErrorPolicy::LogOnly);
        let rest_url = rest.as_ref().map(|rest| rest.url().to_string()).unwrap_or_default();
        let submitting = Arc::clone(&submitter);
        let jobs = JobServer::new(consensus, leader.clone(), submitting, connections.clone());
        #[cfg(feature = "rest")]
        let routes = match rest {
            Some(listener) => {
                let (jobs, leader) = (jobs.clone(), leader.clone());
                let submitter = Arc::clone(&submitter);
                let passed_on =
                    crate::rest::start(listener, jobs, leader, submitter, last_hour, &security, &scope);
                Routes::from(routes.into_axum_router().merge(passed_on))
            }
            None => routes,
        };
        let task_managers = TaskManagerServer::new(leader, connections);
        let stopped = scope.token();
        let services = routes
            .add_service(limited_jobs(jobs.clone()))
            .add_service(limited_task_managers(task_managers))
            .add_service(limited_blobs(blob_server));
        let serving = Server::builder()
            .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
            .serve_with_incoming_shutdown(
                Admission::new(&security, services.prepare()),
                Incoming::new(listener, security.tls.clone()),
                stopped.cancelled_owned(),
            );
        scope.spawn_fallible("server", serving);
        Ok(JobManagerHandle { address, rest_url, jobs, submitter, scope })
    }
}

fn data_directory_error(error: BlobError) -> StartError {
    StartError::DataDirectory { reason: error.to_string() }
}

fn plan_runner(program: PathBuf, configuration: &Configuration) -> PlanRunner {
    let timeout = configuration.duration(&keys::PLAN_TIMEOUT).unwrap_or(Duration::from_secs(10));
    let memory_bytes = configuration.memory_size(&keys::PLAN_MEMORY).unwrap_or(1 << 30);
    PlanRunner::new(program, timeout, memory_bytes)
}

fn limited_jobs(server: JobServer) -> JobServiceServer<JobServer> {
    JobServiceServer::new(server)
        .max_decoding_message_size(GRPC_MAX_MESSAGE_BYTES)
        .max_encoding_message_size(GRPC_MAX_MESSAGE_BYTES)
}

fn limited_task_managers(server: TaskManagerServer) -> TaskManagerServiceServer<TaskManagerServer> {
    TaskManagerServiceServer::new(server)
        .max_decoding_message_size(GRPC_MAX_MESSAGE_BYTES)
        .max_encoding_message_size(GRPC_MAX_MESSAGE_BYTES)
}

fn limited_blobs(server: BlobServer) -> BlobServiceServer<BlobServer> {
    BlobServiceServer::new(server)
        .max_decoding_message_size(GRPC_MAX_MESSAGE_BYTES)
        .max_encoding_message_size(GRPC_MAX_MESSAGE_BYTES)
}

/// A running job manager. Clones are handles of the same one; when the last one goes it stops.
#[derive(Clone)]
pub struct JobManagerHandle {
    /// `host:port` under which others reach it.
    pub address: String,
    /// Where it serves REST, as `http://host:port`; empty if it does not.
    pub rest_url: String,
    jobs: JobServer,
    submitter: Arc<Submitter>,
    scope: TaskScope,
}

impl JobManagerHandle {
    /// Submits a job whose workers run in this process: no binary, no plan process.
    ///
    /// # Errors
    /// When the graph or the settings cannot run; the message says why.
    pub async fn submit_embedded(
        &self,
        graph: JobGraph,
        (arguments, properties): (Vec<String>, RuntimeProperties),
        configuration: BTreeMap<String, String>,
    ) -> Result<JobId, EmbeddedError> {
        let submission_id = SubmissionId::random().map_err(|error| EmbeddedError {
            reason: format!("the system gives no random bytes: {error}"),
        })?;
        let job = Submitting {
            submission_id,
            binary: None,
            binary_name: String::new(),
            arguments,
            configuration,
            properties,
            graph,
            base: None,
            warnings: Vec::new(),
        };
        Ok(self.submitter.accept(job).await?.job_id)
    }

    /// Cancels a job: returns when that is in the log. A job that has ended stays as it is.
    ///
    /// # Errors
    /// When there is no such job or this job manager does not lead.
    pub async fn cancel(&self, job_id: JobId) -> Result<(), EmbeddedError> {
        self.jobs
            .cancel(job_id)
            .await
            .map_err(|status| EmbeddedError { reason: status.message().to_string() })
    }

    /// What is known of a job, while it runs and behind its end.
    ///
    /// # Errors
    /// When there is no such job or this job manager does not lead.
    pub async fn describe(&self, job_id: JobId) -> Result<JobDetails, EmbeddedError> {
        let described = self.jobs.describe(job_id).await;
        let described = described.map_err(|status| EmbeddedError { reason: status.message().to_string() })?;
        JobDetails::try_from(described).map_err(|malformed| EmbeddedError { reason: malformed.to_string() })
    }

    /// Follows a job.
    #[must_use]
    pub fn watch(&self, job_id: JobId) -> JobWatch {
        self.jobs.watch(job_id)
    }

    /// Waits until the job manager has failed and returns the reason. Never returns otherwise. Cancel-safe.
    pub async fn failure(&self) -> String {
        self.scope.failure().await
    }
}
