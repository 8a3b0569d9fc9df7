//! What checkpoints of large state cost: pauses, duration, bytes, throughput.
//!
//! The job, `numbers -> key_by -> payload by key -> sink`, keeps its state in RocksDB. First each key gets a payload that cannot
//! be compressed; then the job changes payloads, of keys among which it moves on so that about one per cent of them changes from
//! one checkpoint to the next: with the records where their rate is limited, so that a pause brings no more new keys than there are records
//! in it, and with the clock where it is not. The sink notes down when records come and for how long none do; the rest is what the API tells of each
//! checkpoint. Throughput during checkpoints is compared with that of the same job between them.
//!
//! It runs at a limited rate and then (`full_rate`) as fast as it can, which keeps a CPU busy. There the baseline of the throughput
//! during checkpoints is that between them while a thread of this program spins: what any work beside the job costs on this machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use thalweg::State;
use thalweg::operator::{Context, KeyedProcess};
use thalweg::prelude::{Environment, Failure, ValueState};
use thalweg_benches::flow::{self, Flow, FlowSink};
use thalweg_benches::measurement::Measurement;
use thalweg_benches::monotonic::now_ns;
use thalweg_benches::nexmark::text::splitmix;
use thalweg_benches::payload::payload;
use thalweg_benches::submitted::{self, Submitted};
use thalweg_chaos_tests::cluster::ClusterOptions;
use thalweg_chaos_tests::wait;
use thalweg_common::clock::{Clock, SystemClock};
use thalweg_common::task_scope::TaskScope;
use thalweg_proto::convert::CheckpointPhases;
use thalweg_proto::model::{CheckpointStatistics, CheckpointStatus};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The group of cases.
const BENCH: &str = "checkpoint";

/// Bytes of state of a key, without the key.
const PAYLOAD_BYTES: usize = 1_000;

/// What a changed key takes in a file: the payload, its length, the key and its group.
const ENTRY_BYTES: usize = PAYLOAD_BYTES + 12;

/// Which part of all keys changes between two checkpoints.
const CHANGED_PART: u64 = 100;

/// Keys among which the job changes payloads at any moment.
const WINDOW: u64 = 512;

/// Checkpoints that complete with all the state before the measured ones: compactions are in their rhythm by then.
const WARM_UP: usize = 30;

/// Checkpoints during which a thread spins.
const SPINNING: usize = 6;

/// How many numbers share a look at the clock: no multiple of any parallelism.
const CLOCK_STEP: u64 = 61;

/// The file of the sink, in a folder of its own.
const FLOW: &str = "flow";

/// The pause between two looks at the checkpoints: much shorter than the time in which the leader forgets one.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Measures what checkpoints of large state cost.
#[derive(Parser)]
struct Options {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// How often the job is run; the median is reported.
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Checkpoints that are measured in each run. All of the state is compacted about once in 150 of them: fewer tell little of
    /// what is uploaded.
    #[arg(long, default_value_t = 200)]
    checkpoints: usize,
    /// Megabytes of state.
    #[arg(long, default_value_t = 1_000)]
    state_mb: u64,
    /// How often a checkpoint is taken.
    #[arg(long, default_value_t = 1_000)]
    interval_ms: u64,
    /// Memory of each task manager for state.
    #[arg(long, default_value = "512 mb")]
    managed_memory: String,
    /// How many subtasks everything has, each in a task manager of its own.
    #[arg(long, default_value_t = 1)]
    parallelism: u32,
    /// Records a second at the limited rate.
    #[arg(long, default_value_t = 1_000_000)]
    rate: u64,
    /// Settings of the job: KEY=VALUE.
    #[arg(short = 'D', value_parser = submitted::setting)]
    set: Vec<(String, String)>,
}

/// What the job is told.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct JobOptions {
    /// The file for what the sink reports.
    #[arg(long)]
    flow: PathBuf,
    /// How many keys there are.
    #[arg(long)]
    keys: u64,
    /// Nanoseconds in which the job moves on by a key, by the clock or by the records of that time.
    #[arg(long)]
    key_ns: u64,
    /// Records a second, if that is limited.
    #[arg(long)]
    rate: Option<u64>,
}

fn main() -> Result<()> {
    submitted::main(topology, measure)
}

/// Keeps a payload for each key, and changes a letter of it with every record.
#[derive(State, Clone, Default)]
struct Keep {
    payload: ValueState<String>,
}

impl KeyedProcess<u64, (u64, u64)> for Keep {
    type Out = u64;

    fn on_record(
        &mut self,
        (key, number): (u64, u64),
        context: &mut Context<'_, u64, u64>,
    ) -> Result<(), Failure> {
        let kept = self.payload.get_or_insert_with(context, || payload(key, PAYLOAD_BYTES));
        kept.replace_range(..1, if number.is_multiple_of(2) { "-" } else { "_" });
        context.emit(number);
        Ok(())
    }
}

fn topology(env: &mut Environment) -> thalweg::Result<()> {
    let options = JobOptions::parse_from(env.args());
    let position = Arc::new(AtomicU64::new(0));
    let JobOptions { keys, key_ns, .. } = options;
    let records_per_key = options.rate.map(|rate| (rate * key_ns / 1_000_000_000).max(1));
    let record = move |number: u64| {
        if number < keys {
            return (number, number);
        }
        let position = match records_per_key {
            Some(records) => number / records,
            None => {
                if number.is_multiple_of(CLOCK_STEP) {
                    position.store(now_ns() / key_ns, Ordering::Relaxed);
                }
                position.load(Ordering::Relaxed)
            }
        };
        ((position + splitmix(number) % WINDOW) % keys, number)
    };
    let numbers = env.generate(options.rate.map(|rate| rate as f64), None, record).uid("numbers");
    let kept = numbers.key_by(|record| record.0).process(Keep::default());
    kept.uid("keep").sink("flow", FlowSink::new(options.flow));
    Ok(())
}

/// What a run has shown.
#[derive(Debug, Clone, Copy)]
struct Run {
    sync_p99_ms: f64,
    start_delay_p50_ms: f64,
    alignment_p50_ms: f64,
    async_p50_ms: f64,
    duration_p50_ms: f64,
    duration_p90_ms: f64,
    duration_max_ms: f64,
    sink_silence_ms: f64,
    uploaded_per_changed: f64,
    records_per_second: f64,
    /// Records per second between checkpoints.
    between: f64,
    throughput_ratio: f64,
    /// Throughput between checkpoints beside a thread that spins, by that without one.
    beside_spinning: Option<f64>,
    state_mb: f64,
}

async fn measure(options: &Options) -> Result<()> {
    ensure!(
        options.state_mb >= 1 && options.checkpoints >= 1,
        "give at least 1 MB of state and 1 checkpoint"
    );
    for (prefix, rate) in [("", Some(options.rate)), ("full_rate_", None)] {
        let mut runs = Vec::new();
        for _ in 0..options.runs.max(1) {
            runs.push(run(options, rate).await?);
        }
        report(options, prefix, &runs)?;
    }
    Ok(())
}

fn report(options: &Options, prefix: &str, runs: &[Run]) -> Result<()> {
    let median = |case: &str, unit, figure: fn(&Run) -> f64| {
        let figures: Vec<_> = runs.iter().map(figure).collect();
        Measurement::median(BENCH, format!("{prefix}{case}"), unit, &figures)
    };
    let report = |case: &str, unit, figure| median(case, unit, figure).print(options.json);
    report("sync_p99_ms", "ms", |run| run.sync_p99_ms)?;
    report("sink_silence_ms", "ms", |run| run.sink_silence_ms)?;
    report("duration_p50_ms", "ms", |run| run.duration_p50_ms)?;
    report("duration_p90_ms", "ms", |run| run.duration_p90_ms)?;
    report("duration_max_ms", "ms", |run| run.duration_max_ms)?;
    report("uploaded_per_changed", "ratio", |run| run.uploaded_per_changed)?;
    let ratio = median("throughput_ratio", "ratio", |run| run.throughput_ratio);
    let is_measured = runs.iter().all(|run| run.beside_spinning.is_some());
    let beside = median("", "", |run| run.beside_spinning.unwrap_or(f64::NAN)).value;
    if is_measured { ratio.against(beside) } else { ratio }.print(options.json)?;
    report("start_delay_p50_ms", "ms", |run| run.start_delay_p50_ms)?;
    report("alignment_p50_ms", "ms", |run| run.alignment_p50_ms)?;
    report("async_p50_ms", "ms", |run| run.async_p50_ms)?;
    report("records_per_second", "records/s", |run| run.records_per_second)?;
    report("state_mb", "MB", |run| run.state_mb)
}

async fn run(options: &Options, rate: Option<u64>) -> Result<Run> {
    let keys = options.state_mb * 1_000_000 / PAYLOAD_BYTES as u64;
    let key_ns = (options.interval_ms * 1_000_000 * CHANGED_PART / keys).max(1);
    let cluster =
        ClusterOptions { task_managers: options.parallelism, slots: 1, ..ClusterOptions::default() };
    let cluster = cluster.set("taskmanager.memory.managed.size", &options.managed_memory);
    let checkpoints = tempfile::tempdir().context("cannot make a directory for checkpoints")?;
    let directory = format!("file://{}", checkpoints.path().display());
    let (interval, parallelism) = (format!("{} ms", options.interval_ms), options.parallelism.to_string());
    let mut configuration = vec![
        ("state.backend.type", "rocksdb"),
        ("parallelism.default", parallelism.as_str()),
        ("execution.checkpointing.interval", interval.as_str()),
        ("execution.checkpointing.dir", directory.as_str()),
    ];
    configuration.extend(options.set.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let notes = flow::folder()?;
    let path = notes.path().join(FLOW);
    let arguments = |_: &str| {
        let flow = format!("--flow={}", path.display());
        let mut arguments = vec![flow, format!("--keys={keys}"), format!("--key-ns={key_ns}")];
        arguments.extend(rate.map(|rate| format!("--rate={rate}")));
        arguments
    };
    let job = Submitted::start(cluster, arguments, &configuration).await?;
    let flows = || {
        let read = |subtask| Flow::read(&path, subtask);
        (0..options.parallelism).map(read).collect::<Result<Vec<_>>>()
    };
    let is_full = async || {
        job.running().await?;
        Ok((flows()?.iter().map(Flow::count).sum::<u64>() >= keys).then_some(()))
    };
    wait::until("all keys to have state", is_full).await?;
    let full_ms = SystemClock::new().now_ms();
    let wanted = WARM_UP + options.checkpoints;
    let mut found = Vec::from_iter(completed(&job, full_ms, wanted).await?.into_values());
    let measured = found.split_off(WARM_UP - 1);
    let mut run = evaluate(&measured, &flows()?, key_ns);
    if rate.is_none() {
        let spinning = spinning();
        let checkpoints = completed(&job, SystemClock::new().now_ms(), SPINNING).await?;
        drop(spinning);
        let beside = evaluate(&Vec::from_iter(checkpoints.into_values()), &flows()?, key_ns);
        run.beside_spinning = Some(beside.between / run.between);
    }
    Ok(run)
}

/// A thread that spins until this is dropped.
fn spinning() -> TaskScope {
    let scope = TaskScope::new("spinning");
    let token = scope.token();
    scope.spawn_thread("spinning", move || {
        while !token.is_cancelled() {
            std::hint::black_box((0..1_000).fold(0, |sum, number| sum ^ splitmix(number)));
        }
    });
    scope
}

/// The first checkpoints that were triggered after a moment and have completed, by id.
async fn completed(
    job: &Submitted,
    since_ms: i64,
    wanted: usize,
) -> Result<BTreeMap<u64, CheckpointStatistics>> {
    let mut found = BTreeMap::new();
    while found.len() < wanted {
        job.running().await?;
        let history = job.checkpoints().await?.history.into_iter();
        let completed = history.filter(|one| one.status == CheckpointStatus::Completed);
        found.extend(completed.filter(|one| one.triggered_ms >= since_ms).map(|one| (one.id, one)));
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(found)
}

/// What checkpoints have cost; the first one only says when the second one's changes began.
fn evaluate(checkpoints: &[CheckpointStatistics], flows: &[Flow], key_ns: u64) -> Run {
    // Between the wall clock, by which checkpoints are triggered, and the monotonic one, by which records come.
    let offset_ns = now_ns() as i64 - SystemClock::new().now_ms() * 1_000_000;
    let at_ns = |ms: i64| (ms * 1_000_000 + offset_ns) as u64;
    let spans: Vec<(u64, u64)> = checkpoints
        .iter()
        .map(|one| (at_ns(one.triggered_ms), at_ns(one.triggered_ms + one.duration_ms as i64)))
        .collect();
    let came = |from, to| flows.iter().map(|flow| flow.between(from, to)).sum::<f64>();
    let rate = |spans: &mut dyn Iterator<Item = (u64, u64)>| {
        let (records, ns) =
            spans.fold((0.0, 0), |(records, ns), (from, to)| (records + came(from, to), ns + (to - from)));
        records / (ns as f64 / 1e9)
    };
    let begin = spans.first().map_or(0, |span| span.1);
    let end = spans.last().map_or(0, |span| span.1);
    let during = rate(&mut spans.iter().skip(1).copied());
    let between = rate(&mut spans.windows(2).map(|pair| (pair[0].1, pair[1].0.max(pair[0].1))));
    let silence_ns = flows.iter().map(|flow| flow.longest_silence_ns(begin, end)).max().unwrap_or(0);

    let measured = checkpoints.get(1..).unwrap_or_default();
    let changed_ns: u64 = spans.windows(2).map(|pair| pair[1].0 - pair[0].0).sum();
    let changed_keys = changed_ns / key_ns + WINDOW * measured.len() as u64;
    let uploaded: u64 = measured.iter().map(CheckpointStatistics::incremental_bytes).sum();
    let phase = |quantile, figure: fn(&CheckpointPhases) -> u64| {
        let parts = measured.iter().flat_map(|one| &one.subtasks);
        at_quantile(parts.map(|part| figure(&part.phases) as f64 / 1e3).collect(), quantile)
    };
    // What belongs to a whole checkpoint is what its slowest subtask took.
    let slowest = |figure: fn(&CheckpointPhases) -> u64| {
        let of = |one: &CheckpointStatistics| one.subtasks.iter().map(|part| figure(&part.phases)).max();
        at_quantile(measured.iter().filter_map(of).map(|us| us as f64 / 1e3).collect(), 0.5)
    };
    let durations: Vec<f64> = measured.iter().map(|one| one.duration_ms as f64).collect();
    Run {
        sync_p99_ms: phase(0.99, |phases| phases.sync_us),
        start_delay_p50_ms: slowest(|phases| phases.start_delay_us),
        alignment_p50_ms: slowest(|phases| phases.alignment_us),
        async_p50_ms: slowest(|phases| phases.async_us),
        duration_p50_ms: at_quantile(durations.clone(), 0.5),
        duration_p90_ms: at_quantile(durations.clone(), 0.9),
        duration_max_ms: at_quantile(durations, 1.0),
        sink_silence_ms: silence_ns as f64 / 1e6,
        uploaded_per_changed: uploaded as f64 / (changed_keys as f64 * ENTRY_BYTES as f64),
        records_per_second: rate(&mut std::iter::once((begin, end))),
        between,
        throughput_ratio: during / between,
        beside_spinning: None,
        state_mb: measured.last().map_or(0.0, |one| one.state_bytes() as f64 / 1e6),
    }
}

/// The value that this share of all figures does not exceed.
fn at_quantile(mut figures: Vec<f64>, quantile: f64) -> f64 {
    figures.sort_by(f64::total_cmp);
    let at = (figures.len() as f64 * quantile).ceil() as usize;
    figures.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::at_quantile;

    #[test]
    fn quantiles_are_figures_that_were_there() {
        let figures = || vec![4.0, 1.0, 3.0, 2.0];
        assert_eq!(
            [0.0, 0.5, 0.75, 0.99, 1.0].map(|at| at_quantile(figures(), at)),
            [1.0, 2.0, 3.0, 4.0, 4.0]
        );
        assert!(at_quantile(Vec::new(), 0.5).is_nan());
    }
}
