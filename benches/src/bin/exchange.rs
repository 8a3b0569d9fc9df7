//! Bytes per CPU second between two workers, beside bare tonic and raw TCP between two processes.
//!
//! The job is `source -> key_by -> count -> sink` with everything behind `key_by` in the other worker, so that every
//! record crosses. What counts is a record's encoding: the key (8 bytes), the payload's length (8) and the payload. CPU
//! seconds are those of the job manager, both task managers and both workers, while the job runs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use thalweg::prelude::Environment;
use thalweg::{DataStream, Record};
use thalweg_benches::byte_stream::{self, Transport};
use thalweg_benches::measurement::Measurement;
use thalweg_benches::nexmark::text::splitmix;
use thalweg_benches::progress::CountingSink;
use thalweg_benches::schedule::KEYS;
use thalweg_benches::submitted::{self, Submitted};
use thalweg_chaos_tests::cluster::ClusterOptions;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The group of cases.
const BENCH: &str = "exchange";

/// How long a job runs before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// The file to which the job's sink writes how far it is.
const PROGRESS: &str = "progress";

/// How many different payloads there are, which the records share, as those of Flink's program do; powers of two, so that choosing one costs nothing.
const PAYLOADS: u64 = 64;
const STRINGS: u64 = 1_024;

const MB: f64 = 1e6;

/// Measures bytes per CPU second from one process to another.
#[derive(Parser)]
struct Options {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// How often each case is run; the median is reported.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// For how long each run is measured.
    #[arg(long, default_value_t = 4.0, value_parser = submitted::seconds)]
    seconds: f64,
    /// The cases, with commas between them; bare tonic and raw TCP are always measured.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Payload::value_variants().to_vec())]
    cases: Vec<Payload>,
    /// A setting of the job, as in `-D taskmanager.memory.segment-size=32kb`.
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    settings: Vec<String>,
    #[command(flatten)]
    end: byte_stream::End,
}

/// What a record carries beside its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Payload {
    /// 100 bytes.
    #[value(name = "100b")]
    Bytes100,
    /// 1,000 bytes.
    #[value(name = "1000b")]
    Bytes1000,
    /// A string of 100 characters.
    #[value(name = "100_char_strings")]
    Strings,
}

/// What the job is told.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct JobOptions {
    #[arg(long, value_enum)]
    payload: Payload,
    #[arg(long)]
    progress: String,
}

fn main() -> Result<()> {
    if submitted::is_job() {
        return submitted::run_job(topology);
    }
    let options = Options::parse();
    if options.end.run()? {
        return Ok(());
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(&options))
}

fn topology(env: &mut Environment) -> thalweg::Result<()> {
    let options = JobOptions::parse_from(env.args());
    let sink = CountingSink::new(options.progress);
    match options.payload {
        Payload::Bytes100 => cross(&source(env, byte_payloads(100)), sink),
        Payload::Bytes1000 => cross(&source(env, byte_payloads(1_000)), sink),
        Payload::Strings => cross(&source(env, string_payloads()), sink),
    }
    Ok(())
}

/// Records with evenly spread keys and payloads that take turns.
fn source<P: Record>(env: &Environment, payloads: Vec<P>) -> DataStream<(u64, P)> {
    let payloads: std::sync::Arc<[P]> = payloads.into();
    let count = payloads.len() as u64;
    env.generate(None, None, move |number| {
        (splitmix(number) % KEYS, payloads[(number % count) as usize].clone())
    })
    .uid("records")
    .slot_sharing_group("sender")
}

/// Counts the records by key in the other worker: its slot sharing group is another, and a task manager has one slot.
fn cross<P: Record>(records: &DataStream<(u64, P)>, sink: CountingSink) {
    let counts = records.key_by(|record| record.0).count().uid("counts").slot_sharing_group("receiver");
    counts.sink("counted", sink);
}

fn byte_payloads(bytes: u64) -> Vec<Bytes> {
    let payload = |number| (0..bytes).map(|at| splitmix(number * bytes + at) as u8).collect();
    (0..PAYLOADS).map(payload).collect()
}

fn string_payloads() -> Vec<String> {
    let text =
        |number| (0..100).map(|at| char::from(b'a' + (splitmix(number * 100 + at) % 26) as u8)).collect();
    (0..STRINGS).map(text).collect()
}

/// The size of a record's encoding.
fn encoded_bytes(payload: Payload) -> usize {
    let mut bytes = Vec::new();
    match payload {
        Payload::Bytes100 => (0_u64, vec![0_u8; 100]).encode(&mut bytes),
        Payload::Bytes1000 => (0_u64, vec![0_u8; 1_000]).encode(&mut bytes),
        Payload::Strings => (0_u64, "x".repeat(100)).encode(&mut bytes),
    }
    bytes.len()
}

async fn measure(options: &Options) -> Result<()> {
    let measured = Duration::from_secs_f64(options.seconds);
    let settings = options
        .settings
        .iter()
        .map(|setting| setting.split_once('=').with_context(|| format!("-D {setting}: write KEY=VALUE")));
    let settings: Vec<_> = settings.collect::<Result<_>>()?;
    let (mut tcp, mut tonic) = (Vec::new(), Vec::new());
    let mut jobs = vec![Vec::new(); options.cases.len()];
    for _ in 0..options.runs.max(1) {
        tcp.push(byte_stream::bytes_per_cpu_second(Transport::Tcp, measured).await? / MB);
        tonic.push(byte_stream::bytes_per_cpu_second(Transport::Tonic, measured).await? / MB);
        for (payload, rates) in options.cases.iter().zip(&mut jobs) {
            rates.push(records_per_cpu_second(*payload, measured, &settings).await?);
        }
    }
    let bare = Measurement::median(BENCH, "bare_tonic", "MB/cpu s", &tonic);
    Measurement::median(BENCH, "raw_tcp", "MB/cpu s", &tcp).against(bare.value).print(options.json)?;
    bare.print(options.json)?;
    for (payload, rates) in options.cases.iter().zip(&jobs) {
        let Some(name) = payload.to_possible_value() else { continue };
        let name = format!("two_workers_{}", name.get_name());
        let megabytes: Vec<f64> =
            rates.iter().map(|rate| rate * encoded_bytes(*payload) as f64 / MB).collect();
        Measurement::median(BENCH, &name, "MB/cpu s", &megabytes).against(bare.value).print(options.json)?;
        Measurement::median(BENCH, format!("{name}_records"), "records/cpu s", rates).print(options.json)?;
    }
    Ok(())
}

/// Runs the job in two workers and says how many records cross in a CPU second of all processes.
async fn records_per_cpu_second(
    payload: Payload,
    measured: Duration,
    settings: &[(&str, &str)],
) -> Result<f64> {
    let cluster = ClusterOptions { task_managers: 2, slots: 1, ..ClusterOptions::default() };
    let name = payload.to_possible_value().map(|name| name.get_name().to_string()).unwrap_or_default();
    let arguments = |folder: &str| {
        ["--payload", &name, "--progress", &format!("{folder}/{PROGRESS}")].map(String::from).to_vec()
    };
    let job = Submitted::start(cluster, arguments, settings).await?;
    let workers = job.workers().len();
    ensure!(workers == 2, "the job runs in {workers} workers and not in 2, so its records need not cross");
    job.sample(PROGRESS).await?;
    tokio::time::sleep(WARM_UP).await;
    let before = job.sample(PROGRESS).await?;
    tokio::time::sleep(measured).await;
    Ok(job.sample(PROGRESS).await?.per_cpu_second_since(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_have_their_size_and_are_not_all_the_same() {
        for bytes in [100, 1_000] {
            let payloads = byte_payloads(bytes);
            assert!(payloads.iter().all(|payload| payload.len() == bytes as usize));
            assert_ne!(payloads[0], payloads[1]);
        }
        let strings = string_payloads();
        assert!(strings.iter().all(|text| text.len() == 100 && text.is_ascii()));
        assert_ne!(strings[0], strings[1]);
    }

    #[test]
    fn a_record_crosses_with_key_and_length() {
        let table = [(Payload::Bytes100, 116), (Payload::Bytes1000, 1_016), (Payload::Strings, 116)];
        for (payload, bytes) in table {
            assert_eq!(encoded_bytes(payload), bytes, "{payload:?}");
        }
    }
}
