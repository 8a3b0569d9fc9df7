//! JSON lines on S3 become Parquet on S3: bytes per CPU second of the job's process.
//!
//! The store is a process of its own, whose CPU time does not count. The job, `lines -> parse -> Parquet`, runs in a child of this program, which
//! finds the store and its credentials in its environment and settings, as jobs of users do; exactly once, with checkpoints. Beside it a loop
//! parses the same lines and writes the same Parquet in memory: what the job costs more is fetching, handing on, sending and checkpoints. Each is
//! measured after a run in the same process that warms it up.
//! With `--flink` Apache Flink does the same, in files of this machine in place of S3, which its packages here cannot reach.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Error, Result, bail, ensure};
use bytes::Bytes;
use clap::Parser;
use serde::{Deserialize, Serialize};
use thalweg::prelude::Record;
use thalweg::testing::LocalCluster;
use thalweg_benches::flink;
use thalweg_benches::measurement::Measurement;
use thalweg_benches::nexmark::text::splitmix;
use thalweg_benches::usage::own_cpu_seconds;
use thalweg_common::limits::FREED_MEMORY_KEPT_MS;
use thalweg_common::storage::StorageFactory;
use thalweg_connectors::files::{FileSink, FileSource};
use thalweg_connectors::formats::{BulkFormat, BulkWriter, Decoder as _, Json, Parquet};
use thalweg_test_support::S3Peer;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The group of cases.
const BENCH: &str = "s3_json_to_parquet";

const BUCKET: &str = "thalweg-bench";

/// How Flink reads the lines: by its own JSON format, and into objects by Jackson.
const FLINK: [&str; 2] = ["rows", "objects"];

/// Bytes of a file of the input.
const FILE_BYTES: usize = 64 << 20;

/// Measures how JSON lines on S3 become Parquet.
#[derive(Parser)]
struct Options {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// How often it is run; the median is reported.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Megabytes of JSON.
    #[arg(long, default_value_t = 1_000)]
    megabytes: usize,
    /// Subtasks of the source and of the sink.
    #[arg(long, default_value_t = 1)]
    parallelism: u32,
    /// How often a checkpoint is taken.
    #[arg(long, default_value_t = 10_000)]
    interval_ms: u64,
    /// Measures Apache Flink as well.
    #[arg(long)]
    flink: bool,
    /// The directory of the peers, with Flink's scripts in `flink`.
    #[arg(long, env = "THALWEG_PEERS", default_value = "../shared/peers")]
    peers: PathBuf,
    /// Runs the job in this process: where the store is, and where the output goes.
    #[arg(long, hide = true, num_args = 2)]
    job: Option<Vec<String>>,
    /// Runs the loop over the lines of this file in this process.
    #[arg(long, hide = true)]
    plain: Option<PathBuf>,
}

/// An event as many applications have it.
#[derive(Record, Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Click {
    event_time: String,
    user_id: String,
    url: String,
    device: Option<String>,
    country: String,
    duration_ms: u64,
    spend: f64,
    is_buyer: bool,
}

fn click(number: u64) -> Click {
    let random = splitmix(number);
    Click {
        event_time: format!(
            "2025-11-10T02:{:02}:{:02}.{:06}",
            number / 60 % 60,
            number % 60,
            random % 1_000_000
        ),
        user_id: format!("u-{}", random % 100_000),
        url: format!("/products/{}/{}", random % 977, random >> 40),
        device: (!random.is_multiple_of(4))
            .then(|| ["mobile", "desktop", "tablet"].map(str::to_owned)[random as usize % 3].clone()),
        country: ["KR", "US", "JP", "DE"].map(str::to_owned)[random as usize % 4].clone(),
        duration_ms: random % 60_000,
        spend: (random % 100_000) as f64 / 100.0,
        is_buyer: random.is_multiple_of(10),
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(job) = &options.job {
        let [endpoint, output] = &job[..] else { bail!("--job has two values") };
        return warm(|run| run_job(&options, endpoint, format!("{output}/{run}")));
    }
    if let Some(lines) = &options.plain {
        let lines = fs::read(lines)?;
        return warm(|_| plain(&lines));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let peer = runtime.block_on(S3Peer::start())?;
    runtime.block_on(peer.create_bucket(BUCKET))?;
    let folder = tempfile::tempdir()?;
    let files = folder.path().join("input");
    fs::create_dir(&files)?;
    let storage = StorageFactory::new(peer.settings()).open(&format!("s3://{BUCKET}/input"))?;
    let (mut number, mut input_bytes, first) = (0, 0, folder.path().join("first.json"));
    while input_bytes < options.megabytes << 20 {
        let mut file = Vec::with_capacity(FILE_BYTES + 1_024);
        while file.len() < FILE_BYTES.min((options.megabytes << 20) - input_bytes) {
            serde_json::to_writer(&mut file, &click(number))?;
            file.push(b'\n');
            number += 1;
        }
        input_bytes += file.len();
        if options.flink {
            fs::write(files.join(format!("{input_bytes:015}.json")), &file)?;
        }
        if !first.is_file() {
            fs::write(&first, &file)?;
        }
        runtime.block_on(storage.put(&format!("{input_bytes:015}.json"), Bytes::from(file)))?;
    }

    let (mut jobs, mut loops) = (Vec::new(), Vec::new());
    let mut flinks = FLINK.map(|how| (how, Vec::new()));
    for run in 0..options.runs {
        jobs.push(megabytes(input_bytes) / job(&options, &peer, &format!("s3://{BUCKET}/output-{run}"))?);
        let first_bytes = usize::try_from(fs::metadata(&first)?.len())?;
        loops.push(megabytes(first_bytes) / child(this_program()?.arg("--plain").arg(&first))?);
        for (how, rates) in flinks.iter_mut().filter(|_| options.flink) {
            let output = folder.path().join("output");
            let figure = flink::json_to_parquet(&options.peers, &files, &output, how)?;
            ensure!(figure.events == input_bytes as u64, "Flink has read {} bytes", figure.events);
            rates.push(figure.events_per_cpu_second / 1e6);
            fs::remove_dir_all(output)?;
        }
    }
    let baseline = Measurement::median(BENCH, "plain_loop", "MB/CPU s", &loops);
    baseline.print(options.json)?;
    let of_job = |case: &str| Measurement::median(BENCH, case, "MB/CPU s", &jobs);
    of_job("job").against(baseline.value).print(options.json)?;
    for (how, rates) in flinks.iter().filter(|_| options.flink) {
        let theirs = Measurement::median(BENCH, "", "", rates).value;
        of_job(&format!("job_beside_flink_{how}")).against(theirs).print(options.json)?;
    }
    Ok(())
}

fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

/// This program as a process of its own. It keeps freed memory for a while, as workers of a task manager do and a JVM does. Huge pages are off, as they
/// are in a JVM unless it is told otherwise: where free memory goes back to the host of a virtual machine, the first touch of a huge page fetches and
/// clears all of it, which was a fifth of the time of the job.
fn this_program() -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env("MIMALLOC_PURGE_DELAY", FREED_MEMORY_KEPT_MS.to_string());
    command.env("MIMALLOC_ALLOW_THP", "0").stderr(Stdio::inherit());
    Ok(command)
}

/// The job in a process of its own, and the CPU seconds that it says.
fn job(options: &Options, peer: &S3Peer, output: &str) -> Result<f64> {
    let mut command = this_program()?;
    command
        .env("AWS_SHARED_CREDENTIALS_FILE", peer.credentials_file())
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_PROFILE")
        .args(["--parallelism", &options.parallelism.to_string()])
        .args(["--interval-ms", &options.interval_ms.to_string()])
        .args(["--job", &format!("http://{}", peer.address()), output]);
    child(&mut command)
}

/// Waits for a child of this program, which says its CPU seconds at the end.
fn child(command: &mut Command) -> Result<f64> {
    let child = command.output()?;
    ensure!(child.status.success(), "the child ended with {}", child.status);
    let text = String::from_utf8(child.stdout)?;
    let seconds = text.lines().last().context("the child has said nothing")?;
    seconds.parse().with_context(|| format!("the child has said `{seconds}`"))
}

/// Does work twice, and says the CPU seconds of the second time: the first one warms the process up, as it does with Flink.
fn warm(mut work: impl FnMut(&str) -> Result<()>) -> Result<()> {
    work("warm-up")?;
    let begin = own_cpu_seconds();
    work("measured")?;
    println!("{}", own_cpu_seconds() - begin);
    Ok(())
}

fn run_job(options: &Options, endpoint: &str, output: String) -> Result<()> {
    let cluster = LocalCluster::new()
        .configure("parallelism.default", options.parallelism)
        .configure("execution.checkpointing.interval", format!("{} ms", options.interval_ms))
        .configure("s3.endpoint", endpoint);
    let run = cluster.run(move |env| {
        env.source("clicks", FileSource::new(format!("s3://{BUCKET}/input"), Json::<Click>::new()))
            .uid("clicks")
            .sink("parquet", FileSink::bulk(output, Parquet::<Click>::new()));
        Ok(())
    });
    run.map(drop).map_err(|error| Error::from_boxed(error.into()))
}

/// The same without a job: lines in memory become Parquet in memory.
fn plain(lines: &[u8]) -> Result<()> {
    let (mut json, mut batch) = (Json::<Click>::new(), thalweg_runtime::batch::Batch::default());
    let (mut writer, mut file) = (Parquet::<Click>::new().begin()?, Vec::new());
    for line in std::str::from_utf8(lines)?.lines() {
        json.decode(line.as_bytes(), &mut batch)?;
        for click in batch.drain() {
            writer.write(&click, &mut file)?;
        }
    }
    BulkWriter::<Click>::finish(writer, &mut file)?;
    ensure!(file.ends_with(b"PAR1"), "the loop has written no Parquet");
    Ok(())
}
