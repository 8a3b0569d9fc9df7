//! What a killed task manager costs: the time until records flow again at the sinks, and where it goes.
//!
//! State is in memory or in RocksDB, restored from copies that the spare task manager finds on its machine or from the directory of
//! checkpoints: the cases. `file_1000mb` is 1 GB in RocksDB from that directory.
//!
//! Three task managers have a slot each, and the job, `numbers -> key_by -> payload by key -> sink`, needs two of them: one
//! is spare. When its state is complete and a checkpoint has it, one of the two that work is killed with SIGKILL. The time
//! ends with the first record of the next attempt at the last of its sinks. Where it goes is read from the logs of the
//! leader and the task managers, whose lines have the time of the same machine.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use thalweg::State;
use thalweg::operator::{Context, KeyedProcess};
use thalweg::prelude::{Environment, Failure, ValueState};
use thalweg_benches::arrivals::{Arrival, ArrivalSink};
use thalweg_benches::measurement::Measurement;
use thalweg_benches::monotonic::now_ns;
use thalweg_benches::payload::payload;
use thalweg_benches::submitted;
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::wait;
use thalweg_common::clock::{Clock, SystemClock};
use thalweg_common::id::JobId;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The group of cases.
const BENCH: &str = "recovery";

/// Bytes of state of a key, without the key.
const PAYLOAD_BYTES: usize = 500;

/// Records a second, at least.
const RATE: usize = 50_000;

/// In how many seconds all keys get their state.
const FILL_SECONDS: usize = 20;

/// How many subtasks everything has.
const PARALLELISM: u32 = 2;

/// How long the job runs with all its state before the kill: longer than after which a restart has no delay.
const SETTLED: Duration = Duration::from_secs(11);

/// Measures what a killed task manager costs.
#[derive(Parser)]
struct Options {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// How often a task manager is killed, each time in a new cluster.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Which cases, with commas between them.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Case::MemoryLocal, Case::MemoryFile, Case::Local, Case::File])]
    cases: Vec<Case>,
    /// Megabytes of state, with commas between them: all cases with the first, those of RocksDB with the others, too.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000])]
    state_mb: Vec<usize>,
    /// Settings of the job: KEY=VALUE.
    #[arg(short = 'D', value_parser = submitted::setting)]
    set: Vec<(String, String)>,
}

/// Where state is, and where it is restored from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Case {
    /// In memory; from copies on the machine.
    MemoryLocal,
    /// In memory; from the directory of checkpoints.
    MemoryFile,
    /// In RocksDB; from copies on the machine.
    Local,
    /// In RocksDB; from the directory of checkpoints.
    File,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::MemoryLocal => "memory_local",
            Self::MemoryFile => "memory_file",
            Self::Local => "local",
            Self::File => "file",
        }
    }

    fn is_in_memory(self) -> bool {
        matches!(self, Self::MemoryLocal | Self::MemoryFile)
    }

    fn settings(self) -> [(&'static str, &'static str); 2] {
        let backend = if self.is_in_memory() { "hashmap" } else { "rocksdb" };
        let from_local = if matches!(self, Self::MemoryLocal | Self::Local) { "true" } else { "false" };
        [("state.backend.type", backend), ("execution.state-recovery.from-local", from_local)]
    }
}

/// What the job is told.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct JobOptions {
    /// The folder for what the sinks report.
    #[arg(long)]
    folder: String,
    /// How many keys there are.
    #[arg(long)]
    keys: u64,
    /// Records a second.
    #[arg(long)]
    rate: f64,
}

fn main() -> Result<()> {
    submitted::main(topology, measure)
}

/// Keeps the last payload of each key.
#[derive(State, Clone, Default)]
struct Keep {
    payload: ValueState<String>,
}

impl KeyedProcess<u64, u64> for Keep {
    type Out = u64;

    fn on_record(&mut self, number: u64, context: &mut Context<'_, u64, u64>) -> Result<(), Failure> {
        let key = *context.key();
        self.payload.get_or_insert_with(context, || payload(key, PAYLOAD_BYTES));
        context.emit(number);
        Ok(())
    }
}

fn topology(env: &mut Environment) -> thalweg::Result<()> {
    let options = JobOptions::parse_from(env.args());
    let numbers = env.generate(Some(options.rate), None, |number| number).uid("numbers");
    let kept = numbers.key_by(move |number| number % options.keys).process(Keep::default());
    kept.uid("keep").sink("arrivals", ArrivalSink::new(&options.folder));
    Ok(())
}

/// Milliseconds since the kill at which something had happened.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// The leader knows.
    detected: f64,
    /// The spare task manager's worker is ready; zero if it was so before.
    worker: f64,
    /// The tasks of the next attempt are sent to their workers.
    deployed: f64,
    /// All sinks are open, state is restored.
    opened: f64,
    /// A record has come to one of the sinks.
    first: f64,
    /// A record has come to each of the sinks.
    all: f64,
}

async fn measure(options: &Options) -> Result<()> {
    for (number, state_mb) in options.state_mb.iter().enumerate() {
        for case in options.cases.iter().filter(|case| number == 0 || !case.is_in_memory()) {
            let mut runs = Vec::new();
            for _ in 0..options.runs.max(1) {
                runs.push(run(options, *case, *state_mb).await?);
            }
            report(options, &format!("{}_{state_mb}mb", case.name()), &runs)?;
        }
    }
    Ok(())
}

fn report(options: &Options, case: &str, runs: &[Run]) -> Result<()> {
    let report = |what: &str, figure: fn(&Run) -> f64| {
        let figures: Vec<_> = runs.iter().map(figure).collect();
        Measurement::median(BENCH, format!("{case}_{what}"), "ms", &figures).print(options.json)
    };
    report("records_at_all_sinks", |run| run.all)?;
    report("records_at_a_sink", |run| run.first)?;
    report("until_detected", |run| run.detected)?;
    report("until_worker_ready", |run| run.worker)?;
    report("until_deployed", |run| run.deployed)?;
    report("until_restored", |run| run.opened)
}

async fn run(options: &Options, case: Case, state_mb: usize) -> Result<Run> {
    let machine = tempfile::tempdir().context("cannot make a directory for copies")?;
    let slots = ClusterOptions { task_managers: 3, slots: 1, ..ClusterOptions::default() };
    let copies = machine.path().display().to_string();
    let mut cluster = Cluster::start(slots.set("taskmanager.state.local.root-dirs", &copies)).await?;
    let (arrivals, checkpoints) = (cluster.folder().join("arrivals"), cluster.folder().join("checkpoints"));
    std::fs::create_dir(&arrivals)?;
    let keys = state_mb * 1_000_000 / PAYLOAD_BYTES;
    let (keys, rate) = (keys.to_string(), RATE.max(keys / FILL_SECONDS).to_string());
    let folder = arrivals.to_str().context("a path that is not UTF-8")?;
    let (parallelism, directory) = (PARALLELISM.to_string(), checkpoints.display().to_string());
    let mut configuration = vec![
        ("parallelism.default", parallelism.as_str()),
        ("execution.checkpointing.interval", "1 s"),
        ("execution.checkpointing.dir", directory.as_str()),
    ];
    configuration.extend(case.settings());
    configuration.extend(options.set.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let arguments = ["--folder", folder, "--keys", &keys, "--rate", &rate];
    let job = cluster.submit(std::env::current_exe()?, &arguments, &configuration).await?;
    full(&cluster, job, state_mb).await?;

    let victim = working(&mut cluster)?;
    let wall = SystemClock::new();
    let (killed_ns, killed_ms) = (now_ns(), wall.now_ms());
    cluster.kill_task_manager(victim)?;
    let sinks = wait::until("records at all sinks", async || {
        (0..PARALLELISM)
            .map(|subtask| Arrival::read(&arrivals, 2, subtask))
            .collect::<Result<Option<Vec<_>>>>()
    })
    .await?;

    let since = |at_ns: u64| (at_ns as f64 - killed_ns as f64) / 1e6;
    let latest = |at: fn(&Arrival) -> u64| sinks.iter().map(at).max().unwrap_or(0);
    let leader = cluster.job_manager(1)?.stderr();
    let others = cluster.task_managers().into_iter().map(|number| Ok(cluster.task_manager(number)?.stderr()));
    let others = others.collect::<Result<Vec<_>>>()?.concat();
    let last = |log: &str, text: &str| {
        log.lines().rev().find(|line| line.contains(text)).and_then(time_of_day_ms).unwrap_or(f64::NAN)
    };
    let killed_of_day = (killed_ms % 86_400_000) as f64;
    Ok(Run {
        detected: last(&leader, "Lost task manager") - killed_of_day,
        worker: (last(&others, " is ready (process") - killed_of_day).max(0.0),
        deployed: last(&leader, "Deploying ") - killed_of_day,
        opened: since(latest(|sink| sink.opened_ns)),
        first: since(sinks.iter().map(|sink| sink.first_ns).min().unwrap_or(0)),
        all: since(latest(|sink| sink.first_ns)),
    })
}

/// Waits until a checkpoint has all the state and the job has run for a while with it: no state tells of that.
async fn full(cluster: &Cluster, job: JobId, state_mb: usize) -> Result<()> {
    let client = cluster.client().await?;
    let is_full = async || {
        let details = client.describe(job).await?;
        ensure!(details.failures.is_empty(), "the job has failed: {:#?}", details.failures);
        let latest = details.checkpoints.latest.map_or(0, |checkpoint| checkpoint.bytes);
        Ok((latest >= (state_mb * 1_000_000) as u64).then_some(()))
    };
    wait::until("a checkpoint of all state", is_full).await?;
    tokio::time::sleep(SETTLED).await;
    Ok(())
}

/// A task manager with a worker whose tasks run.
fn working(cluster: &mut Cluster) -> Result<u32> {
    let log = cluster.job_manager(1)?.stderr();
    let is_used = |number: &u32| {
        log.lines()
            .any(|line| line.contains("Deploying ") && line.ends_with(&format!("taskmanager-{number}")))
    };
    cluster.task_managers().into_iter().find(is_used).context("no task manager has tasks")
}

/// The time at the beginning of a log's line, in milliseconds since midnight.
fn time_of_day_ms(line: &str) -> Option<f64> {
    let (_, time) = line.split_once('T')?;
    let (time, _) = time.split_once('Z')?;
    let mut parts = time.split(':').map(str::parse::<f64>);
    let mut next = || parts.next()?.ok();
    Some(((next()? * 60.0 + next()?) * 60.0 + next()?) * 1_000.0)
}
