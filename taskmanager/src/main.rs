//! The `taskmanager` program: settings, signals, and the hidden step in which a child becomes a job's worker.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use thalweg_common::clock::SystemClock;
use thalweg_common::config::{Configuration, Settings, keys, managed_memory_bytes};
use thalweg_common::id::{TaskManagerId, WorkerId};
use thalweg_common::security::{Role, Security, check_exposure};
use thalweg_common::task_scope::TaskScope;
use thalweg_common::telemetry;
use thalweg_metrics::cloudwatch::logs::shipping::{LogShipping, line_of_file};
use thalweg_taskmanager::exec_worker;
use thalweg_taskmanager::process::{OWN_PROGRAM, ProcessLauncher};
use thalweg_taskmanager::{LogForwarding, TaskManager, TaskManagerHandle, TaskManagerOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long a task manager that is told to stop waits for its tasks to move away.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How long its own tasks may take to end after its workers have.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the workers of Thalweg jobs on this machine.
///
/// Registers with the leading job manager, offers task slots and starts a worker process for each job that has tasks
/// here. On SIGTERM it drains: its tasks move to other task managers, then it exits. A second SIGTERM, or SIGINT, stops it
/// at once.
#[derive(Parser)]
#[command(name = "taskmanager", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Hidden>,
    #[command(flatten)]
    options: Options,
}

const EXAMPLES: &str = "Examples:
  taskmanager --jobmanagers 127.0.0.1:6123 --data-dir /var/lib/thalweg/taskmanager --slots 4
  taskmanager --jobmanagers jm-1:6123,jm-2:6123,jm-3:6123 --data-dir data --host 10.0.0.7 --labels zone-a,ssd";

#[derive(Args)]
struct Options {
    /// Addresses of the job managers; one that is up is enough [setting: jobmanager.rpc.address]
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',')]
    jobmanagers: Vec<String>,
    /// Where job binaries and logs are kept; not shared with another task manager [setting: taskmanager.data-dir]
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// How many slots it offers [setting: taskmanager.numberOfTaskSlots]
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    /// The host under which other machines reach its workers [setting: taskmanager.host]
    #[arg(long)]
    host: Option<String>,
    /// Its name, unique in the cluster; made up when absent
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// What is special about it [setting: taskmanager.labels]
    #[arg(long, value_name = "LABEL,...", value_delimiter = ',')]
    labels: Vec<String>,
    /// A file of settings in YAML; flags win [default: config.yaml in $THALWEG_CONF_DIR, if that is set]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A single setting, which wins over the file
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

#[derive(Subcommand)]
enum Hidden {
    /// Becomes a job's binary that dies with its task manager.
    #[command(hide = true)]
    ExecWorker {
        #[arg(long)]
        parent: i32,
        #[arg(last = true, required = true, num_args = 1..)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Hidden::ExecWorker { parent, command }) = cli.command {
        return become_worker(parent, &command);
    }
    telemetry::init("taskmanager");
    let result = run(cli.options);
    telemetry::flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("taskmanager: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn become_worker(parent: i32, command: &[OsString]) -> ExitCode {
    let Some((binary, arguments)) = command.split_first() else { return ExitCode::FAILURE };
    let Err(error) = exec_worker::exec(parent, binary.as_ref(), arguments);
    eprintln!("thalweg-worker: {error}");
    // As a shell does for a command that cannot be executed.
    ExitCode::from(126)
}

/// One thread is enough: the task manager passes messages on, and workers are processes of their own.
#[tokio::main(flavor = "current_thread")]
async fn run(options: Options) -> anyhow::Result<()> {
    let settings = Settings::load(options.config.as_deref(), &options.settings)?;
    settings.log();
    let mut options = options.resolve(settings.configuration())?;
    options.security = security(settings.configuration(), &options.host).await?;
    let id = options.id.clone();
    let shipping = LogShipping::of_process(settings.configuration()).await;
    options.log_forwarding =
        shipping.as_ref().map(|shipping| LogForwarding { copies: shipping.copies(), line: line_of_file });
    let ended = serve(options, id).await;
    if let Some(shipping) = shipping {
        shipping.finish().await;
    }
    ended
}

async fn serve(options: TaskManagerOptions, id: TaskManagerId) -> anyhow::Result<()> {
    let scope = TaskScope::new("taskmanager");
    options.security.watch(&scope);
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let launcher =
        ProcessLauncher::start(OWN_PROGRAM, &scope).with_json_logs(options.log_forwarding.is_some());
    let manager = TaskManager::start(options, Arc::new(launcher), &scope).await?;
    tracing::info!("task manager {id} looks for the leading job manager");
    tokio::select! {
        biased;
        _ = interrupt.recv() => tracing::info!("interrupted: stops at once"),
        _ = terminate.recv() => drain(&manager, &mut terminate, &mut interrupt).await,
        failure = manager.failed() => anyhow::bail!("a part of the task manager failed and ended it: {failure}"),
        () = announce(&manager) => {}
    }
    manager.stop().await;
    scope.shutdown(SHUTDOWN_TIMEOUT).await?;
    tracing::info!("task manager {id} has stopped");
    Ok(())
}

/// What the settings say of TLS and the token, if that is enough for where the workers will listen.
async fn security(configuration: &Configuration, host: &str) -> anyhow::Result<Security> {
    let variable = |name: &str| std::env::var(name).ok();
    let security = Security::load(configuration, variable, Role::TaskManager, &SystemClock::shared())?;
    let addresses = tokio::net::lookup_host((host, 0)).await;
    let addresses = addresses.with_context(|| {
        format!("`{host}` is no address of this machine; set `{}` to one", keys::TASK_MANAGER_HOST.name)
    })?;
    let (has_tls, has_token) = (security.tls.is_some(), security.token.is_some());
    for address in addresses {
        check_exposure(configuration, address.ip(), keys::SSL_INTERNAL_ENABLED.name, has_tls, has_token)?;
    }
    security.tls.as_ref().map_or(Ok(()), |tls| tls.check_name(host))?;
    Ok(security)
}

/// Says once that the cluster counts on this task manager. Never returns.
async fn announce(manager: &TaskManagerHandle) {
    manager.registered().await;
    // Whoever started it may not read what it says.
    let _ = writeln!(std::io::stdout(), "taskmanager ready {}", manager.id());
    std::future::pending::<()>().await;
}

async fn drain(manager: &TaskManagerHandle, terminate: &mut Signal, interrupt: &mut Signal) {
    tracing::info!("told to stop: waits until its tasks have moved away; a second signal stops it at once");
    tokio::select! {
        biased;
        _ = terminate.recv() => tracing::info!("told to stop twice: stops at once"),
        _ = interrupt.recv() => tracing::info!("interrupted: stops at once"),
        drained = manager.drain(DRAIN_TIMEOUT) => {
            if !drained {
                tracing::warn!("tasks still run here after {} s: they are stopped", DRAIN_TIMEOUT.as_secs());
            }
        }
    }
}

impl Options {
    /// The task manager's options: what flags say, and otherwise the settings.
    fn resolve(self, configuration: &Configuration) -> anyhow::Result<TaskManagerOptions> {
        let text = |key| configuration.text(key).map(str::to_string);
        let job_managers = if self.jobmanagers.is_empty() {
            let port = configuration.integer(&keys::JOB_MANAGER_PORT).unwrap_or_default();
            list(text(&keys::JOB_MANAGER_ADDRESS))
                .into_iter()
                .map(|address| if address.contains(':') { address } else { format!("{address}:{port}") })
                .collect()
        } else {
            self.jobmanagers
        };
        let id = match self.id {
            Some(id) => id,
            None => made_up_id()?,
        };
        let data_directory = self.data_dir.or(text(&keys::TASK_MANAGER_DATA_DIRECTORY).map(PathBuf::from));
        let data_directory = data_directory.context(
            "no data directory: give --data-dir DIRECTORY, on a local disk and not shared with another task manager",
        )?;
        let mut options = TaskManagerOptions::new(TaskManagerId(id), job_managers, data_directory);
        let slots = configuration.integer(&keys::TASK_SLOTS).and_then(|slots| u32::try_from(slots).ok());
        options.slots = self.slots.or(slots).unwrap_or(options.slots);
        options.host = self.host.or(text(&keys::TASK_MANAGER_HOST)).unwrap_or(options.host);
        options.labels =
            if self.labels.is_empty() { list(text(&keys::TASK_MANAGER_LABELS)) } else { self.labels };
        let of_workers =
            keys::EXCHANGE.iter().chain(keys::STORAGE).chain(keys::ROCKSDB).chain(keys::ROCKSDB_METRICS);
        let of_workers = of_workers.chain(keys::LOCAL_STATE).chain(keys::SSL_INTERNAL);
        let of_workers = of_workers.filter_map(|key| {
            let value = configuration.is_set(key).then(|| configuration.text(key))??;
            Some((key.name.to_string(), value.to_string()))
        });
        options.worker_configuration = of_workers.collect();
        options.managed_bytes = managed_memory_bytes(configuration);
        let max_bytes = configuration.memory_size(&keys::LOG_MAX_SIZE);
        let old_files =
            configuration.integer(&keys::LOG_MAX_FILES).and_then(|files| u32::try_from(files).ok());
        options.log_limits.max_bytes = max_bytes.unwrap_or(options.log_limits.max_bytes);
        options.log_limits.old_files = old_files.unwrap_or(options.log_limits.old_files);
        #[cfg(feature = "prometheus")]
        {
            options.prometheus = text(&keys::PROMETHEUS_HOST).zip(text(&keys::PROMETHEUS_PORT));
        }
        let local = list(text(&keys::LOCAL_STATE_DIRECTORIES));
        if !local.is_empty() {
            options.local_state_directories = local.into_iter().map(PathBuf::from).collect();
        }
        Ok(options)
    }
}

/// The parts of a text that are separated by commas.
fn list(text: Option<String>) -> Vec<String> {
    let text = text.unwrap_or_default();
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_string).collect()
}

/// The machine's name, for people, and a random part.
fn made_up_id() -> anyhow::Result<String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let unique = WorkerId::random().context("no random bytes for a name")?.to_string();
    Ok(format!("{host}-{}", &unique[..8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(arguments: &[&str]) -> anyhow::Result<TaskManagerOptions> {
        let arguments = ["taskmanager", "--data-dir", "/data"].iter().chain(arguments);
        let options = Cli::try_parse_from(arguments).expect("arguments are right").options;
        let settings = Settings::layered(options.config.as_deref(), |_| None, &options.settings)?;
        options.resolve(settings.configuration())
    }

    #[test]
    fn flags_win_over_settings_which_win_over_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("config.yaml");
        std::fs::write(
            &file,
            "taskmanager.numberOfTaskSlots: 2\ntaskmanager.host: from-file\njobmanager.rpc.address: a, b:1",
        )
        .expect("writes");
        let file = file.to_str().expect("a path");
        let options =
            resolve(&["--config", file, "-D", "taskmanager.numberOfTaskSlots=3"]).expect("is right");
        assert_eq!((options.slots, options.host.as_str()), (3, "from-file"));
        assert_eq!(options.job_managers, ["a:6123", "b:1"]);
        let flags =
            ["--config", file, "--slots", "4", "--host", "h", "--jobmanagers", "c:1,d:2", "--labels", "x,y"];
        let options = resolve(&flags).expect("is right");
        assert_eq!((options.slots, options.host.as_str()), (4, "h"));
        assert_eq!(
            (options.job_managers, options.labels),
            (vec!["c:1".into(), "d:2".into()], vec!["x".to_string(), "y".into()])
        );
    }

    #[test]
    fn defaults_and_made_up_names() {
        let options = resolve(&[]).expect("is right");
        assert_eq!((options.slots, options.host.as_str()), (1, "127.0.0.1"));
        assert_eq!(options.local_state_directories, [PathBuf::from("/data/local-state")]);
        let shared = resolve(&[
            "-D",
            "taskmanager.state.local.root-dirs=/a, /b",
            "-D",
            "state.backend.local-recovery=false",
        ]);
        let shared = shared.expect("is right");
        assert_eq!(shared.local_state_directories, ["/a", "/b"].map(PathBuf::from));
        assert_eq!(
            shared.worker_configuration.get("execution.state-recovery.from-local"),
            Some(&"false".to_string())
        );
        assert_ne!(options.id, resolve(&[]).expect("is right").id);
    }

    #[test]
    fn wrong_settings_are_named() {
        let error = resolve(&["-D", "taskmanager.numberOfSlots=3"]).expect_err("no such key");
        assert!(error.to_string().contains("taskmanager.numberOf"), "{error}");
    }

    #[test]
    fn the_hidden_step_needs_a_parent_and_a_binary() {
        let cli =
            Cli::try_parse_from(["taskmanager", "exec-worker", "--parent", "7", "--", "job", "--slots", "x"]);
        let Some(Hidden::ExecWorker { parent, command }) = cli.expect("is right").command else {
            unreachable!("another command")
        };
        assert_eq!((parent, command.len()), (7, 3));
    }
}
