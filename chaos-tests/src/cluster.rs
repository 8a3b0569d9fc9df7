//! A cluster of real processes on loopback: job managers, task managers, and a client that follows the leader.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use thalweg_common::id::{JobId, SubmissionId};
use thalweg_common::security::Security;
use thalweg_common::status::JobStatus;
use thalweg_proto::client::{DEFAULT_DEADLINE, JobClient, SubmitOptions};
use thalweg_proto::model::JobDetails;
use thalweg_proto::transport::Dialer;
use tokio::sync::OnceCell;

use crate::process::{Process, binary};
use crate::wait;

/// How large a cluster is and how it is set.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// 1, 3 or 5.
    pub job_managers: u64,
    /// How many at the start.
    pub task_managers: u32,
    /// Of each task manager.
    pub slots: u32,
    /// Flink-named settings for all of its programs.
    pub configuration: BTreeMap<String, String>,
    /// Added to the environment of all of its programs.
    pub environment: BTreeMap<String, String>,
    /// What the test shows as a client.
    pub security: Security,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            job_managers: 1,
            task_managers: 1,
            slots: 2,
            configuration: BTreeMap::new(),
            environment: BTreeMap::new(),
            security: Security::default(),
        }
    }
}

impl ClusterOptions {
    /// The same with a setting.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.configuration.insert(key.to_string(), value.to_string());
        self
    }
}

/// A running cluster. Dropping it kills every process and removes its data.
pub struct Cluster {
    options: ClusterOptions,
    job_managers: BTreeMap<u64, Process>,
    task_managers: BTreeMap<u32, Process>,
    addresses: BTreeMap<u64, String>,
    /// One for all questions: to connect costs more than to ask.
    client: OnceCell<Arc<JobClient>>,
    started: u32,
    folder: TempDir,
}

impl Cluster {
    /// Starts the processes and waits until every task manager is registered.
    ///
    /// # Errors
    /// When a program is not built, ends, or is not ready in time.
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        let addresses = (1..=options.job_managers)
            .map(|id| Ok((id, format!("127.0.0.1:{}", free_port()?))))
            .collect::<Result<BTreeMap<_, _>>>()?;
        let mut cluster = Self {
            job_managers: BTreeMap::new(),
            task_managers: BTreeMap::new(),
            addresses,
            client: OnceCell::new(),
            started: 0,
            folder: TempDir::new()?,
            options,
        };
        for id in 1..=cluster.options.job_managers {
            cluster.start_job_manager(id)?;
        }
        for id in 1..=cluster.options.job_managers {
            cluster.job_manager_ready(id).await?;
        }
        for _ in 0..cluster.options.task_managers {
            cluster.start_task_manager().await?;
        }
        Ok(cluster)
    }

    /// A folder that lives as long as the cluster, for inputs and outputs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves the folder, with all logs, where it is when the cluster ends.
    pub fn keep_folder(&mut self) {
        self.folder.disable_cleanup(true);
    }

    /// The addresses of all job managers, for a client.
    pub fn addresses(&self) -> Vec<String> {
        self.addresses.values().cloned().collect()
    }

    /// A client that follows the leader.
    ///
    /// # Errors
    /// When an address is not one, or no job manager can be reached.
    pub async fn client(&self) -> Result<Arc<JobClient>> {
        let connect = async || {
            let dialer = Dialer::new(self.options.security.clone());
            anyhow::Ok(Arc::new(JobClient::connect_with(dialer, self.addresses(), DEFAULT_DEADLINE).await?))
        };
        Ok(Arc::clone(self.client.get_or_try_init(connect).await?))
    }

    /// Starts job manager `id`, for the first time or again.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start_job_manager(&mut self, id: u64) -> Result<()> {
        let address = self.addresses.get(&id).context("no such job manager")?;
        let peers: Vec<_> = self.addresses.iter().map(|(id, address)| format!("{id}={address}")).collect();
        let mut command = Command::new(binary("jobmanager")?);
        command.args(["--id", &id.to_string(), "--listen", address, "--peers", &peers.join(",")]);
        command.arg("--data-dir").arg(self.folder.path().join(format!("jobmanager-{id}")));
        // Several of them share this machine.
        command.args(["-D", "rest.port=0"]);
        self.configure(&mut command);
        self.started += 1;
        let name = format!("jobmanager-{id}-{}", self.started);
        self.job_managers.insert(id, Process::start(&name, &mut command, &self.logs())?);
        Ok(())
    }

    /// Waits until job manager `id` serves.
    ///
    /// # Errors
    /// When it ends or the deadline passes.
    pub async fn job_manager_ready(&mut self, id: u64) -> Result<()> {
        self.job_managers.get_mut(&id).context("no such job manager")?.ready("jobmanager ready").await?;
        Ok(())
    }

    /// Starts one more task manager and waits until it is registered. Returns its number.
    ///
    /// # Errors
    /// When it ends or the deadline passes.
    pub async fn start_task_manager(&mut self) -> Result<u32> {
        let number = self.started + 1;
        self.restart_task_manager(number)?;
        self.task_manager_ready(number).await?;
        Ok(number)
    }

    /// Starts a task manager with this number, its name and data those of an earlier one with the same number.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn restart_task_manager(&mut self, number: u32) -> Result<()> {
        self.started += 1;
        let name = format!("taskmanager-{number}");
        let mut command = Command::new(binary("taskmanager")?);
        command.args([
            "--jobmanagers",
            &self.addresses().join(","),
            "--slots",
            &self.options.slots.to_string(),
        ]);
        command.args(["--id", &name]).arg("--data-dir").arg(self.folder.path().join(&name));
        self.configure(&mut command);
        let log = if self.started == number { name } else { format!("{name}-{}", self.started) };
        self.task_managers.insert(number, Process::start(&log, &mut command, &self.logs())?);
        Ok(())
    }

    /// Waits until a task manager is registered.
    ///
    /// # Errors
    /// When it ends or the deadline passes.
    pub async fn task_manager_ready(&mut self, number: u32) -> Result<()> {
        self.task_manager(number)?.ready("taskmanager ready").await?;
        Ok(())
    }

    /// The numbers of the task managers that were started and not killed, oldest first.
    pub fn task_managers(&self) -> Vec<u32> {
        self.task_managers.keys().copied().collect()
    }

    /// Where a task manager keeps its data, its workers' logs among them.
    pub fn task_manager_folder(&self, number: u32) -> PathBuf {
        self.folder.path().join(format!("taskmanager-{number}"))
    }

    /// The process of a task manager.
    ///
    /// # Errors
    /// When there is no such task manager.
    pub fn task_manager(&mut self, number: u32) -> Result<&mut Process> {
        self.task_managers.get_mut(&number).context("no such task manager")
    }

    /// Kills a task manager with SIGKILL.
    ///
    /// # Errors
    /// When there is no such task manager.
    pub fn kill_task_manager(&mut self, number: u32) -> Result<()> {
        self.task_managers.remove(&number).context("no such task manager")?.kill()
    }

    /// The process of a job manager.
    ///
    /// # Errors
    /// When there is no such job manager.
    pub fn job_manager(&mut self, id: u64) -> Result<&mut Process> {
        self.job_managers.get_mut(&id).context("no such job manager")
    }

    /// Where a job manager serves REST, as `http://127.0.0.1:8081`.
    ///
    /// # Errors
    /// When it ends or the deadline passes.
    pub async fn rest_url(&mut self, id: u64) -> Result<String> {
        self.job_manager(id)?.ready("jobmanager rest ").await
    }

    /// Kills a job manager with SIGKILL.
    ///
    /// # Errors
    /// When there is no such job manager.
    pub fn kill_job_manager(&mut self, id: u64) -> Result<()> {
        self.job_managers.remove(&id).context("no such job manager")?.kill()
    }

    /// The id of the job manager that leads.
    ///
    /// # Errors
    /// When none is elected in time.
    pub async fn leader(&self) -> Result<u64> {
        let client = self.client().await?;
        wait::until("a leader", async || {
            let answer = client.job_managers().await?;
            Ok(answer.job_managers.iter().find(|manager| manager.leader).map(|manager| manager.id))
        })
        .await
    }

    /// Submits a binary and returns the job's id.
    ///
    /// # Errors
    /// When the cluster refuses it.
    pub async fn submit(
        &self,
        binary: PathBuf,
        arguments: &[&str],
        configuration: &[(&str, &str)],
    ) -> Result<JobId> {
        let options = SubmitOptions {
            properties: Default::default(),
            binary,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            configuration: configuration
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            submission_id: SubmissionId::random()?,
        };
        Ok(self.client().await?.submit(options, |_| ()).await?.job_id)
    }

    /// What the cluster tells of a job.
    ///
    /// # Errors
    /// When the cluster does not know it.
    pub async fn describe(&self, job: JobId) -> Result<JobDetails> {
        Ok(self.client().await?.describe(job).await?)
    }

    /// The job's state.
    ///
    /// # Errors
    /// When the cluster does not know the job.
    pub async fn status(&self, job: JobId) -> Result<JobStatus> {
        Ok(self.describe(job).await?.summary.status)
    }

    /// Waits until the job is in this state.
    ///
    /// # Errors
    /// When the deadline passes, or the job ends in another state.
    pub async fn reaches(&self, job: JobId, status: JobStatus) -> Result<()> {
        let client = self.client().await?;
        let found = wait::until(&format!("job {job} to be {status}"), async || {
            let found = client.describe(job).await?.summary.status;
            Ok((found == status || found.is_terminal()).then_some(found))
        })
        .await?;
        if found != status {
            bail!("job {job} is {found}, not {status}: {:#?}", self.describe(job).await?.failures);
        }
        Ok(())
    }

    fn logs(&self) -> PathBuf {
        self.folder.path().join("logs")
    }

    fn configure(&self, command: &mut Command) {
        for (key, value) in &self.options.configuration {
            command.arg("-D").arg(format!("{key}={value}"));
        }
        command.envs(&self.options.environment);
    }
}

/// A port that nothing listens on at the moment.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
