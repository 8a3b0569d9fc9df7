//! Thalweg's node agent: the slots of one machine, and the workers that run in them.
//!
//! A command's way: the leader's message comes over the `connection`, the `actor` asks the `core` what it means, and the
//! [launcher] or a worker's stream (`worker_service`) gets to know. A report goes the same way back. The task manager
//! restarts nothing by itself; it owns processes, fences stale orders, and tells the leader what became of them.

mod actor;
mod blobs;
mod connection;
mod core;
pub mod exec_worker;
pub mod launcher;
mod local_state;
mod log_rotation;
mod log_tail;
mod logs;
mod messages;
#[cfg(feature = "prometheus")]
mod metrics;
mod outbox;
pub mod process;
mod worker_service;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use thalweg_common::clock::SystemClock;
use thalweg_common::config::{Configuration, managed_memory_bytes};
use thalweg_common::failure::Failure;
use thalweg_common::id::TaskManagerId;
use thalweg_common::limits::{ACTOR_MAILBOX, MAX_TASK_SLOTS};
use thalweg_common::security::Security;
use thalweg_common::task_scope::TaskScope;
use thalweg_metrics::process::ProcessSampler;
use thalweg_proto::transport::{Dialer, Incoming, check_address};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::actor::{Actor, Environment, Mail};
use crate::blobs::BlobCache;
use crate::core::{Core, Identity, Patience};
use crate::launcher::WorkerLauncher;
use crate::local_state::LocalState;

pub use crate::log_rotation::LogLimits;
pub use crate::log_tail::LogForwarding;

/// How a task manager is set up.
#[derive(Debug, Clone)]
pub struct TaskManagerOptions {
    /// Its name, unique in the cluster.
    pub id: TaskManagerId,
    /// The host under which other machines reach its workers.
    pub host: String,
    /// How many slots it offers.
    pub slots: u32,
    /// What its operator says about it.
    pub labels: Vec<String>,
    /// Settings of its workers' exchange (`taskmanager.network...`) that jobs do not choose themselves.
    pub worker_configuration: BTreeMap<String, String>,
    /// Memory for state on disk, all slots together, in bytes.
    pub managed_bytes: u64,
    /// Where to look for the leading job manager: `host:port` each; one that is up is enough.
    pub job_managers: Vec<String>,
    /// Where workers keep copies of their newest checkpoint: several task managers of a machine may share these directories.
    pub local_state_directories: Vec<PathBuf>,
    /// Where job binaries and logs are kept. No two task managers may share it.
    pub data_directory: PathBuf,
    /// What it shows to others and asks of its workers. What these need of it is in their configuration.
    pub security: Security,
    /// How much of the logs of workers is kept.
    pub log_limits: LogLimits,
    /// Where the lines of workers are sent, if they are.
    pub log_forwarding: Option<LogForwarding>,
    /// Host and ports at which Prometheus reads its metrics, if it does.
    #[cfg(feature = "prometheus")]
    pub prometheus: Option<(String, String)>,
    /// How long a worker may take from its start until it attaches.
    pub attach_timeout: Duration,
    /// How long a worker may take to exit when it was told to, or has closed its stream.
    pub exit_timeout: Duration,
}

impl TaskManagerOptions {
    /// One slot on the loopback interface; everything else as the program has it by default.
    #[must_use]
    pub fn new(id: TaskManagerId, job_managers: Vec<String>, data_directory: PathBuf) -> Self {
        Self {
            id,
            host: "127.0.0.1".into(),
            slots: 1,
            labels: Vec::new(),
            worker_configuration: BTreeMap::new(),
            managed_bytes: managed_memory_bytes(&Configuration::new()),
            job_managers,
            local_state_directories: vec![data_directory.join("local-state")],
            data_directory,
            security: Security::default(),
            log_limits: LogLimits::default(),
            log_forwarding: None,
            #[cfg(feature = "prometheus")]
            prometheus: None,
            attach_timeout: Duration::from_secs(10),
            exit_timeout: Duration::from_secs(1),
        }
    }

    fn check(&self) -> Result<(), Failure> {
        let wrong = |message: String| Err(Failure::user(message).permanent());
        if self.slots == 0 || self.slots > MAX_TASK_SLOTS {
            return wrong(format!("a task manager has from 1 to {MAX_TASK_SLOTS} slots, not {}", self.slots));
        }
        if self.job_managers.is_empty() {
            return wrong(
                "no job manager is named; give at least one address, as in --jobmanagers 127.0.0.1:6123"
                    .into(),
            );
        }
        self.job_managers
            .iter()
            .try_for_each(|address| check_address(address))
            .or_else(|error| wrong(error.to_string()))
    }
}

/// A node agent.
#[derive(Debug)]
pub struct TaskManager;

impl TaskManager {
    /// Starts a task manager inside `scope`: it looks for the leader, registers, and runs workers through `launcher` until
    /// it is [stopped](TaskManagerHandle::stop) or the scope is cancelled.
    ///
    /// # Errors
    /// When an option is wrong, the data directory cannot be used, or no port is free.
    pub async fn start(
        options: TaskManagerOptions,
        launcher: Arc<dyn WorkerLauncher>,
        scope: &TaskScope,
    ) -> Result<TaskManagerHandle, Failure> {
        options.check()?;
        let lock = lock(&options.data_directory)?;
        let unusable = |error| unusable(&options.data_directory, &error);
        let (known, job_managers) = watch::channel(options.job_managers.clone());
        let dialer = Dialer::new(options.security.clone());
        let state = options.data_directory.join("state");
        remove_all(&state).map_err(unusable)?;
        let blobs =
            BlobCache::open(options.data_directory.join("blobs"), job_managers.clone(), dialer.clone());
        let blobs = blobs.map_err(unusable)?;
        let absolute = options.local_state_directories.iter().map(std::path::absolute);
        let local_state = LocalState::new(absolute.collect::<Result<_, _>>().map_err(unusable)?);
        let no_port = |error| Failure::external(format!("cannot listen on 127.0.0.1 for workers: {error}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(no_port)?;
        let environment = Environment {
            launcher,
            blobs,
            logs: options.data_directory.join("logs"),
            state,
            local_state: local_state.clone(),
            managed_bytes_per_slot: options.managed_bytes / u64::from(options.slots),
            managed_bytes: options.managed_bytes,
            sampler: Arc::new(Mutex::new(ProcessSampler::new(
                options.data_directory.clone(),
                SystemClock::shared(),
            ))),
            data_host: options.host.clone(),
            worker_configuration: options.worker_configuration,
            worker_service: listener.local_addr().map_err(no_port)?.to_string(),
        };
        let id = options.id.clone();
        #[cfg(feature = "prometheus")]
        let host = options.host.clone();
        let identity =
            Identity { id: id.clone(), host: options.host, slots: options.slots, labels: options.labels };
        let patience = Patience { attach: options.attach_timeout, exit: options.exit_timeout };

        let scope = scope.child(format!("taskmanager {id}"));
        let (mailbox, mail) = mpsc::channel(ACTOR_MAILBOX);
        let (registration, registered) = watch::channel(false);
        let core = Core::new(identity, patience);
        let tasks = scope.child("tasks");
        let actor = Actor::new(core, environment, mailbox.clone(), registration, tasks.clone());
        let token = scope.token();
        scope.spawn("actor", async move {
            actor.run(mail, token).await;
            // The data directory is this task manager's until its actor has ended.
            drop(lock);
        });
        log_rotation::start(options.data_directory.join("logs"), options.log_limits, &scope);
        if let Some(forwarding) = options.log_forwarding {
            log_tail::start(options.data_directory.join("logs"), forwarding, &scope);
        }
        local_state.tidy_up(job_managers, dialer.clone(), registered.clone(), &scope);
        worker_service::serve(Incoming::new(listener, options.security.tls), mailbox.clone(), &scope);
        connection::start(options.job_managers, known, mailbox.clone(), dialer, &scope);
        #[cfg(feature = "prometheus")]
        if let Some(at) = &options.prometheus {
            metrics::serve(at, &id, host, mailbox.clone(), &scope).await?;
        }
        Ok(TaskManagerHandle { id, scope, tasks, mailbox, registered })
    }
}

/// Removes what workers of an earlier process have left: a task manager that was killed could not.
fn remove_all(directory: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A running task manager. Dropping it cancels everything, without giving workers time.
#[derive(Debug)]
pub struct TaskManagerHandle {
    id: TaskManagerId,
    scope: TaskScope,
    /// Below `scope`; a failure there ends everything too.
    tasks: TaskScope,
    mailbox: mpsc::Sender<Mail>,
    registered: watch::Receiver<bool>,
}

impl TaskManagerHandle {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &TaskManagerId {
        &self.id
    }

    /// Waits until a leader has registered it for the first time. Cancel-safe.
    pub async fn registered(&self) {
        // The actor that would tell goes only with the scope.
        if self.registered.clone().wait_for(|registered| *registered).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until a part of it fails, which it does not survive, and says why. Cancel-safe.
    pub async fn failed(&self) -> String {
        tokio::select! {
            biased;
            failure = self.scope.failure() => failure,
            failure = self.tasks.failure() => failure,
        }
    }

    /// Tells the leader to give it no more tasks, and waits until none runs here. Whether that was reached in `patience`.
    pub async fn drain(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.ask(Mail::Drain)).await.is_ok()
    }

    /// Ends all workers, asking them first, and then the task manager.
    pub async fn stop(self) {
        self.ask(Mail::Stop).await;
        self.scope.cancel();
        self.scope.drained().await;
    }

    async fn ask(&self, mail: impl FnOnce(oneshot::Sender<()>) -> Mail) {
        let (done, answer) = oneshot::channel();
        // An actor that has ended has neither tasks nor workers.
        if self.mailbox.send(mail(done)).await.is_ok() {
            let _ = answer.await;
        }
    }
}

/// Makes the data directory this task manager's own for as long as the result lives.
fn lock(directory: &Path) -> Result<File, Failure> {
    let unusable = |error| unusable(directory, &error);
    std::fs::create_dir_all(directory).map_err(unusable)?;
    let file = File::create(directory.join("taskmanager.lock")).map_err(unusable)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        Failure::user(format!(
            "{} is used by another task manager; give each its own --data-dir",
            directory.display()
        ))
        .permanent()
    })?;
    Ok(file)
}

fn unusable(directory: &Path, error: &std::io::Error) -> Failure {
    Failure::external(format!(
        "cannot use the data directory {}: {error}; check its permissions",
        directory.display()
    ))
}
