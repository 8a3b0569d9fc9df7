//! The figures that a user meets first: words counted per second, time to the first record, time to cancel, idle memory.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use tempfile::TempDir;
use thalweg_benches::measurement::Measurement;
use thalweg_benches::usage;
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::process::{ProcessId, binary};
use thalweg_chaos_tests::wait;
use thalweg_common::clock::{SharedClock, Stopwatch, SystemClock};
use thalweg_common::status::JobStatus;

/// Measures what a user meets first.
#[derive(Parser)]
struct Options {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// How often each case is run.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// The text of the word count in MiB.
    #[arg(long, default_value_t = 32)]
    text_mib: usize,
}

/// Words per second and CPU seconds per million words of one run.
struct Throughput {
    per_second: f64,
    cpu_per_million: f64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let bench = Bench::prepare(&options)?;
    let baseline = bench.repeat(async || bench.plain()).await?;
    let local = bench.repeat(async || bench.local()).await?;
    let one = bench.repeat(async || bench.cluster(1, 2).await).await?;
    let two = bench.repeat(async || bench.cluster(2, 1).await).await?;
    let plain = [median(&baseline, |run| run.per_second), median(&baseline, |run| run.cpu_per_million)];
    for (name, runs) in [("local", local), ("one_worker", one), ("two_workers", two)] {
        let rates: Vec<f64> = runs.iter().map(|run| run.per_second).collect();
        let costs: Vec<f64> = runs.iter().map(|run| run.cpu_per_million).collect();
        bench.report(&format!("word_count_{name}"), "records/s", &rates, Some(plain[0]))?;
        bench.report(&format!("word_count_{name}_cpu"), "s/M records", &costs, Some(plain[1]))?;
    }
    bench.latencies().await
}

fn median(runs: &[Throughput], figure: impl Fn(&Throughput) -> f64) -> f64 {
    Measurement::median("", "", "", &runs.iter().map(figure).collect::<Vec<_>>()).value
}

/// What all cases share.
struct Bench {
    json: bool,
    runs: usize,
    clock: SharedClock,
    folder: TempDir,
    text: PathBuf,
    words: u64,
}

impl Bench {
    /// Writes the text: words of a skewed vocabulary, as in a natural language.
    fn prepare(options: &Options) -> Result<Self> {
        let folder = TempDir::new()?;
        let text = folder.path().join("text.txt");
        let mut file = std::io::BufWriter::new(fs::File::create(&text)?);
        let (mut bytes, mut words, mut seed) = (0, 0, 1u64);
        while bytes < options.text_mib << 20 {
            let mut line = String::new();
            for _ in 0..10 {
                // A linear congruential generator; squaring its fraction makes small numbers common.
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let fraction = (seed >> 40) as f64 / (1u64 << 24) as f64;
                let word = (fraction * fraction * fraction * 10_000.0) as u64;
                line.push_str(&format!("w{word} "));
            }
            line.push('\n');
            file.write_all(line.as_bytes())?;
            bytes += line.len();
            words += 10;
        }
        file.flush()?;
        Ok(Self {
            json: options.json,
            runs: options.runs.max(1),
            clock: SystemClock::shared(),
            folder,
            text,
            words,
        })
    }

    async fn repeat(&self, mut run: impl AsyncFnMut() -> Result<Throughput>) -> Result<Vec<Throughput>> {
        let mut runs = Vec::new();
        for _ in 0..self.runs {
            runs.push(run().await?);
        }
        Ok(runs)
    }

    fn throughput(&self, elapsed: Duration, cpu_seconds: f64) -> Throughput {
        let words = self.words as f64;
        Throughput { per_second: words / elapsed.as_secs_f64(), cpu_per_million: cpu_seconds / words * 1e6 }
    }

    fn report(&self, case: &str, unit: &'static str, samples: &[f64], baseline: Option<f64>) -> Result<()> {
        let measurement = Measurement::median("smoke", case, unit, samples);
        baseline.map_or(measurement.clone(), |baseline| measurement.against(baseline)).print(self.json)
    }

    /// The same count as a plain loop that writes the same lines: what the machine can do with one thread.
    fn plain(&self) -> Result<Throughput> {
        let watch = Stopwatch::start(&self.clock);
        let cpu = usage::cpu_seconds(ProcessId(std::process::id()))?;
        let mut counts: HashMap<String, u64, foldhash::fast::FixedState> = HashMap::default();
        let mut out = std::io::BufWriter::new(fs::File::create(self.folder.path().join("plain"))?);
        for line in fs::read_to_string(&self.text)?.lines() {
            for word in
                line.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty())
            {
                let word = word.to_lowercase();
                let count = match counts.get_mut(&word) {
                    Some(count) => count,
                    None => counts.entry(word.clone()).or_default(),
                };
                *count += 1;
                writeln!(out, "{word} {count}")?;
            }
        }
        out.flush()?;
        let cpu = usage::cpu_seconds(ProcessId(std::process::id()))? - cpu;
        Ok(self.throughput(watch.elapsed(), cpu))
    }

    /// The job in one process, without a cluster.
    fn local(&self) -> Result<Throughput> {
        let output = TempDir::new_in(self.folder.path())?;
        let watch = Stopwatch::start(&self.clock);
        let cpu = usage::cpu_seconds_of_children()?;
        let status = Command::new(binary("word_count")?)
            .arg("--input")
            .arg(&self.text)
            .arg("--output")
            .arg(output.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if !status.success() {
            bail!("word_count ended with {status}");
        }
        Ok(self.throughput(watch.elapsed(), usage::cpu_seconds_of_children()? - cpu))
    }

    /// The job submitted to a cluster; all processes' CPU time counts.
    async fn cluster(&self, task_managers: u32, slots: u32) -> Result<Throughput> {
        let mut cluster =
            Cluster::start(ClusterOptions { task_managers, slots, ..ClusterOptions::default() }).await?;
        let processes = processes(&mut cluster)?;
        let used = |processes: &[ProcessId]| {
            processes.iter().map(|process| usage::cpu_seconds(*process)).sum::<Result<f64>>()
        };
        let before = used(&processes)?;
        let watch = Stopwatch::start(&self.clock);
        let output = cluster.folder().join("output");
        let arguments = ["--input", path(&self.text)?, "--output", path(&output)?];
        let job = cluster.submit(binary("word_count")?, &arguments, &[("parallelism.default", "2")]).await?;
        cluster.reaches(job, JobStatus::Finished).await?;
        let elapsed = watch.elapsed();
        // A worker's time is counted once it has ended and its task manager has waited for it.
        wait::until("the workers to end", async || {
            let workers = processes.iter().map(|process| process.children()).collect::<Result<Vec<_>>>()?;
            Ok(workers.iter().all(Vec::is_empty).then_some(()))
        })
        .await?;
        Ok(self.throughput(elapsed, used(&processes)? - before))
    }

    /// Times from a submission to its first record, to cancel, and memory of idle processes.
    async fn latencies(&self) -> Result<()> {
        let mut cluster = Cluster::start(ClusterOptions::default()).await?;
        let [manager, worker_host] = processes(&mut cluster)?[..] else { bail!("one process of each kind") };
        self.report("job_manager_idle_resident", "MiB", &[usage::resident_mib(manager)?], None)?;
        self.report("task_manager_idle_resident", "MiB", &[usage::resident_mib(worker_host)?], None)?;
        let (mut known, mut new, mut cancel) = (Vec::new(), Vec::new(), Vec::new());
        let original = binary("unbounded_counter")?;
        // The cluster knows the binary from here on.
        self.first_record(&mut cluster, &original).await?;
        for run in 0..self.runs {
            let (first, stop) = self.first_record(&mut cluster, &original).await?;
            known.push(first);
            cancel.push(stop);
            new.push(self.first_record(&mut cluster, &padded(&original, self.folder.path(), run)?).await?.0);
        }
        self.report("submit_known_to_first_record", "ms", &known, None)?;
        self.report("submit_new_20_mb_to_first_record", "ms", &new, None)?;
        self.report("cancel", "ms", &cancel, None)?;
        self.report("job_manager_resident_after_jobs", "MiB", &[usage::resident_mib(manager)?], None)?;
        self.report("task_manager_resident_after_jobs", "MiB", &[usage::resident_mib(worker_host)?], None)
    }

    /// Milliseconds from submitting an endless job to its first line of output, and from cancelling it to its end.
    async fn first_record(&self, cluster: &mut Cluster, job: &Path) -> Result<(f64, f64)> {
        let logs = cluster
            .task_manager_folder(*cluster.task_managers().first().context("no task manager")?)
            .join("logs");
        let before = printed_bytes(&logs);
        let watch = Stopwatch::start(&self.clock);
        let id = cluster.submit(job.to_path_buf(), &["--rate", "1000"], &[]).await?;
        while printed_bytes(&logs) == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let first = watch.elapsed();
        let watch = Stopwatch::start(&self.clock);
        cluster.client().await?.cancel(id).await?;
        cluster.reaches(id, JobStatus::Canceled).await?;
        Ok((first.as_secs_f64() * 1000.0, watch.elapsed().as_secs_f64() * 1000.0))
    }
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

/// The job managers' processes, then the task managers'.
fn processes(cluster: &mut Cluster) -> Result<Vec<ProcessId>> {
    let mut processes = vec![cluster.job_manager(1)?.id()];
    for number in cluster.task_managers() {
        processes.push(cluster.task_manager(number)?.id());
    }
    Ok(processes)
}

/// Bytes that workers have printed to their standard output.
fn printed_bytes(logs: &Path) -> u64 {
    let mut bytes = 0;
    for job in fs::read_dir(logs).into_iter().flatten().flatten() {
        for log in fs::read_dir(job.path()).into_iter().flatten().flatten() {
            if log.path().extension().is_some_and(|extension| extension == "out") {
                bytes += log.metadata().map_or(0, |data| data.len());
            }
        }
    }
    bytes
}

/// A copy of the binary that the cluster does not know, of at least 20 MB.
fn padded(original: &Path, folder: &Path, run: usize) -> Result<PathBuf> {
    let mut bytes = fs::read(original)?;
    bytes.resize(bytes.len().max(20_000_000), 0);
    bytes.extend_from_slice(&run.to_le_bytes());
    let copy = folder.join(format!("new-{run}"));
    fs::write(&copy, bytes)?;
    fs::set_permissions(&copy, fs::metadata(original)?.permissions())?;
    Ok(copy)
}
