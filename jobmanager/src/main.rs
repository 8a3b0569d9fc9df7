//! The `jobmanager` program: settings, signals, and the hidden step in which a child becomes a job's binary in plan mode.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use clap::{Args, Parser, Subcommand};
use thalweg_common::clock::SystemClock;
use thalweg_common::config::{ConfigKey, Configuration, Settings, keys};
use thalweg_common::security::{Role, Security, Tls, check_exposure};
use thalweg_common::task_scope::TaskScope;
use thalweg_common::telemetry;
use thalweg_jobmanager::consensus::raft::{RaftLog, RaftOptions};
use thalweg_jobmanager::consensus::{Consensus, Node, NodeId};
use thalweg_jobmanager::{JobManager, JobManagerOptions, RestListener};
use thalweg_metrics::cloudwatch::logs::shipping::LogShipping;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tonic::service::Routes;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long everything may take to end after a signal.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Threads of the runtime: a job manager decides and passes on, it computes little.
const WORKER_THREADS: usize = 2;

/// Runs a job manager of a Thalweg cluster.
///
/// Keeps the cluster's jobs in a replicated log, checks submitted jobs, assigns them to task managers and coordinates their
/// checkpoints. A cluster has 1, 3 or 5 job managers; one of them leads, and another takes over within moments.
#[derive(Parser)]
#[command(name = "jobmanager", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Hidden>,
    #[command(flatten)]
    options: Options,
}

const EXAMPLES: &str = "Examples:
  jobmanager --data-dir /var/lib/thalweg/jobmanager
  jobmanager --id 2 --listen 0.0.0.0:6123 --data-dir data --peers 1=jm-1:6123,2=jm-2:6123,3=jm-3:6123
  jobmanager --id 4 --listen 0.0.0.0:6123 --advertise jm-4:6123 --data-dir data --join
    (then: thalweg cluster add 4 jm-4:6123)";

#[derive(Args)]
struct Options {
    /// Its number in the cluster, from 1, never used by another one [setting: jobmanager.id] [default: 1]
    #[arg(long, value_name = "N")]
    id: Option<NodeId>,
    /// Where it listens; port 0 takes a free one [settings: jobmanager.bind-host, jobmanager.rpc.port] [default: 127.0.0.1:6123]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Where its log, job binaries and checkpoints are kept [setting: jobmanager.data-dir]
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Where others reach it, if not where it listens
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// All job managers of a new cluster, the same list for each of them; without it this one is a cluster of its own [setting: jobmanager.peers]
    #[arg(long, value_name = "N=HOST:PORT,...", value_delimiter = ',', value_parser = parse_peer)]
    peers: Vec<(NodeId, String)>,
    /// Join a running cluster: wait until its leader is told to add this one
    #[arg(long, conflicts_with = "peers")]
    join: bool,
    /// A file of settings in YAML; flags win [default: config.yaml in $THALWEG_CONF_DIR, if that is set]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A single setting, which wins over the file
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

#[derive(Subcommand)]
enum Hidden {
    /// Becomes a job's binary within limits, to print its plan.
    #[command(hide = true)]
    ExecPlan {
        #[arg(long)]
        memory_bytes: u64,
        #[arg(long)]
        cpu_seconds: u64,
        #[arg(last = true, required = true, num_args = 1..)]
        command: Vec<OsString>,
    },
}

fn parse_peer(text: &str) -> Result<(NodeId, String), String> {
    let parsed = text.split_once('=').and_then(|(id, address)| Some((id.parse().ok()?, address)));
    match parsed {
        Some((id, address)) if id > 0 => Ok((id, address.to_string())),
        _ => Err("write number=host:port, as in 1=jm-1:6123".to_string()),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Hidden::ExecPlan { memory_bytes, cpu_seconds, command }) = cli.command {
        return become_plan(memory_bytes, cpu_seconds, &command);
    }
    telemetry::init("jobmanager");
    let result = start(cli.options);
    telemetry::flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("jobmanager: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn become_plan(memory_bytes: u64, cpu_seconds: u64, command: &[OsString]) -> ExitCode {
    let Some((binary, arguments)) = command.split_first() else { return ExitCode::FAILURE };
    let Err(error) = thalweg_jobmanager::exec_plan(memory_bytes, cpu_seconds, binary.as_ref(), arguments);
    eprintln!("the binary cannot be executed: {error}");
    // As a shell does for a command that cannot be executed.
    ExitCode::from(126)
}

fn start(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run(options))
}

async fn run(options: Options) -> anyhow::Result<()> {
    let settings = Settings::load(options.config.as_deref(), &options.settings)?;
    settings.log();
    let configuration = settings.into_configuration();
    let shipping = LogShipping::of_process(&configuration).await;
    let ended = serve(options, configuration).await;
    if let Some(shipping) = shipping {
        shipping.finish().await;
    }
    ended
}

async fn serve(options: Options, configuration: Configuration) -> anyhow::Result<()> {
    let options = options.with(&configuration)?;
    let id = options.id(&configuration)?;
    let clock = SystemClock::shared();
    let variable = |name: &str| std::env::var(name).ok();
    let security = Security::load(&configuration, variable, Role::JobManager, &clock)?;
    let listener = options.bind(&configuration).await?;
    let here = listener.local_addr().context("cannot tell where it listens")?.ip();
    let (has_tls, has_token) = (security.tls.is_some(), security.token.is_some());
    check_exposure(&configuration, here, keys::SSL_INTERNAL_ENABLED.name, has_tls, has_token)?;
    let address = options.address(id, &listener)?;
    security.check_address(&address)?;
    let data_directory = options.data_directory(&configuration)?;
    let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
    let rest_tls = Tls::of_rest(&configuration, &clock)?;
    let rest = RestListener::bind(&configuration, host).await?.with_tls(rest_tls.clone());
    let here = rest.ip().context("cannot tell where REST listens")?;
    check_exposure(&configuration, here, keys::SSL_REST_ENABLED.name, rest_tls.is_some(), has_token)?;
    let rest_url = rest.url().to_string();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;

    let scope = TaskScope::new("jobmanager");
    security.watch(&scope);
    if let Some(tls) = rest_tls {
        tls.watch_within(&scope);
    }
    let raft = options.raft(id, &address, &data_directory, &configuration);
    let raft = RaftOptions { security: security.clone(), ..raft };
    let log = Arc::new(RaftLog::open(raft, &scope).await?);
    let options = JobManagerOptions {
        id,
        listener,
        address: address.clone(),
        configuration,
        data_directory,
        plan_program: Some(std::env::current_exe().context("cannot find this program's own file")?),
        clock,
        security,
        routes: Routes::new(log.raft_server()),
        rest: Some(rest),
    };
    let manager = JobManager::start(options, log.clone(), &scope).await?;
    // Whoever started it may not read what it says.
    let _ = writeln!(std::io::stdout(), "jobmanager ready {address}\njobmanager rest {rest_url}");
    tracing::info!("job manager {id} serves at {address}");

    let failure = tokio::select! {
        biased;
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        reason = log.fatal() => Some(format!("the replicated log cannot go on: {reason}")),
        reason = manager.failure() => Some(format!("a part of the job manager failed: {reason}")),
    };
    tracing::info!("job manager {id} stops");
    drop(manager);
    scope.cancel();
    log.shutdown().await;
    let ended = scope.shutdown(SHUTDOWN_TIMEOUT).await;
    if let Some(failure) = failure {
        bail!("{failure}");
    }
    ended?;
    tracing::info!("job manager {id} has stopped");
    Ok(())
}

impl Options {
    /// What no flag says, from the settings.
    fn with(mut self, configuration: &Configuration) -> anyhow::Result<Self> {
        if self.peers.is_empty() && !self.join {
            let listed = configuration.text(&keys::JOB_MANAGER_PEERS).unwrap_or_default();
            let listed = listed.split(',').map(str::trim).filter(|peer| !peer.is_empty());
            let peers: Result<_, _> = listed.map(parse_peer).collect();
            self.peers = peers.map_err(|cure| anyhow!("`{}`: {cure}", keys::JOB_MANAGER_PEERS.name))?;
        }
        Ok(self)
    }

    fn id(&self, configuration: &Configuration) -> anyhow::Result<NodeId> {
        let configured =
            configuration.integer(&keys::JOB_MANAGER_ID).and_then(|id| NodeId::try_from(id).ok());
        let id = self.id.or(configured).unwrap_or(1);
        ensure!(id > 0, "--id is a number from 1");
        ensure!(
            self.peers.is_empty() || self.peers.iter().any(|(peer, _)| *peer == id),
            "--peers does not list job manager {id}, which this one is; give all of them the same list"
        );
        let distinct: BTreeMap<_, _> = self.peers.iter().cloned().collect();
        ensure!(distinct.len() == self.peers.len(), "--peers lists a number twice");
        Ok(id)
    }

    async fn bind(&self, configuration: &Configuration) -> anyhow::Result<TcpListener> {
        let address = match &self.listen {
            Some(listen) => listen.clone(),
            None => {
                let host = configuration.text(&keys::JOB_MANAGER_BIND_HOST).unwrap_or_default();
                format!("{host}:{}", configuration.integer(&keys::JOB_MANAGER_PORT).unwrap_or_default())
            }
        };
        TcpListener::bind(&address).await.with_context(|| {
            format!("cannot listen at {address}; is another process there? choose another --listen")
        })
    }

    /// Where others reach this job manager.
    fn address(&self, id: NodeId, listener: &TcpListener) -> anyhow::Result<String> {
        let listed = self.peers.iter().find(|(peer, _)| *peer == id).map(|(_, address)| address);
        if let Some(address) = self.advertise.as_ref().or(listed) {
            return Ok(address.clone());
        }
        let local = listener.local_addr().context("cannot tell where it listens")?;
        ensure!(
            !local.ip().is_unspecified(),
            "it listens at every address of this machine; say by --advertise HOST:PORT where others reach it"
        );
        Ok(local.to_string())
    }

    fn data_directory(&self, configuration: &Configuration) -> anyhow::Result<PathBuf> {
        let configured = configuration.text(&keys::JOB_MANAGER_DATA_DIRECTORY).map(PathBuf::from);
        let directory = self.data_dir.clone().or(configured);
        let directory = directory.context(
            "no data directory: give --data-dir DIRECTORY, on a local disk and not shared with another one",
        )?;
        std::fs::create_dir_all(&directory)
            .and_then(|()| directory.canonicalize())
            .with_context(|| format!("cannot use the data directory {}", directory.display()))
    }

    fn raft(
        &self,
        id: NodeId,
        address: &str,
        data_directory: &std::path::Path,
        configuration: &Configuration,
    ) -> RaftOptions {
        let base = RaftOptions::new(id, address, data_directory);
        let ms = |key: &ConfigKey, default| {
            configuration.duration(key).map_or(default, |duration| duration.as_millis() as u64)
        };
        let peer = |(id, address): &(NodeId, String)| (*id, Node { address: address.clone() });
        RaftOptions {
            // What this one is reached at may have been overridden by --advertise.
            peers: self.peers.iter().filter(|(peer, _)| *peer != id).map(peer).collect(),
            join: self.join,
            heartbeat_ms: ms(&keys::LEADER_HEARTBEAT_INTERVAL, base.heartbeat_ms),
            election_min_ms: ms(&keys::ELECTION_TIMEOUT_MIN, base.election_min_ms),
            election_max_ms: ms(&keys::ELECTION_TIMEOUT_MAX, base.election_max_ms),
            ..base
        }
    }
}
