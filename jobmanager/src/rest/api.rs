//! What handlers work with, and the start of the server.

use std::sync::Arc;

use axum::Router;
use thalweg_common::clock::SharedClock;
use thalweg_common::config::Configuration;
use thalweg_common::security::Security;
use thalweg_common::task_scope::{ErrorPolicy, TaskScope};
use thalweg_metrics::process::ProcessSampler;
use thalweg_proto::transport::Dialer;
use tokio::sync::Mutex;

use super::error::RestError;
use super::operations::Operations;
use super::{ids, server};
use crate::cluster::JobRecord;
use crate::leader::{Leader, LiveJob};
use crate::metrics::{Collector, LastHour};
use crate::rest_listener::RestListener;
use crate::service::{JobServer, Submitter};

/// What handlers work with. Clones share it.
#[derive(Clone)]
pub(crate) struct Rest {
    pub(super) jobs: JobServer,
    pub(super) leader: Leader,
    pub(super) submitter: Arc<Submitter>,
    /// Where this is served.
    pub(super) url: String,
    pub(super) clock: SharedClock,
    /// The cluster's.
    pub(super) configuration: Arc<Configuration>,
    /// Makes connections to the leader.
    pub(super) dialer: Dialer,
    pub(super) last_hour: LastHour,
    pub(super) operations: Arc<Operations>,
    /// Where operations run.
    pub(super) scope: TaskScope,
    pub(super) collector: Arc<Mutex<Collector>>,
    /// Measures this process.
    pub(super) process: Arc<Mutex<ProcessSampler>>,
}

impl Rest {
    /// The job that a path names: what is replicated of it, and what the leader knows beside that.
    pub(super) async fn job(&self, id: &str) -> Result<(JobRecord, Option<LiveJob>), RestError> {
        let job_id = ids::job(id)?;
        let mut live = self.jobs.live(Some(job_id)).await?;
        Ok((self.jobs.record(job_id)?, live.remove(&job_id)))
    }
}

/// Serves REST as long as `scope` lives. What it returns is for the cluster's own port: what other job managers pass on.
pub(crate) fn start(
    listener: RestListener,
    jobs: JobServer,
    leader: Leader,
    submitter: Arc<Submitter>,
    last_hour: LastHour,
    security: &Security,
    scope: &TaskScope,
) -> Router {
    let clock = Arc::clone(&submitter.clock);
    let collector = Collector::new(Arc::clone(&submitter.consensus), leader.clone(), Arc::clone(&clock));
    let process = ProcessSampler::new(submitter.data_directory.clone(), Arc::clone(&clock));
    let rest = Rest {
        jobs,
        leader,
        clock,
        url: listener.url().to_string(),
        configuration: Arc::new(submitter.configuration.clone()),
        submitter,
        dialer: Dialer::new(security.clone()),
        last_hour,
        operations: Arc::default(),
        scope: scope.child_with_policy("rest", ErrorPolicy::LogOnly),
        collector: Arc::new(Mutex::new(collector)),
        process: Arc::new(Mutex::new(process)),
    };
    server::start(listener, &rest, security.token.clone(), scope)
}
