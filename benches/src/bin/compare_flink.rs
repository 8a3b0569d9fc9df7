//! The same work on Apache Flink and on Thalweg, in turn on the same machine: events per CPU second of each.
//!
//! Flink's side is what its scripts measure (see [`thalweg_benches::flink`]): parallelism 1, object reuse, state on the
//! heap or in RocksDB, a virtual machine that is warm, CPU time of its process between the first record and the last. Ours is a job in
//! this process at parallelism 1, CPU time of the whole process from its start to its end. Both make the same
//! distribution of events by number as fast as they can, and both sinks only count.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use thalweg::Environment;
use thalweg::testing::LocalCluster;
use thalweg_benches::contest::{measured, run_job_with};
use thalweg_benches::flink::{Case, Figure, Flink, Lacking};
use thalweg_benches::measurement::Measurement;
use thalweg_benches::nexmark::generator::Generator;
use thalweg_benches::nexmark::queries::Query;
use thalweg_benches::nexmark::text::{Text, splitmix};
use thalweg_benches::table::{self, Row};
use thalweg_benches::tally::Tallies;
use thalweg_chaos_tests::process::binary;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The group of cases.
const BENCH: &str = "compare_flink";

const UNIT: &str = "events/cpu s";

/// With guarantees there is a checkpoint this often, on both sides.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// What the name of a case with guarantees ends with.
const EXACTLY_ONCE: &str = "_exactly_once";

/// What the name of a case with state in RocksDB ends with, before that.
const ROCKSDB: &str = "_rocksdb";

/// How many different words and numbers are counted.
const KEYS: u64 = 10_000;

/// When the machine lacks what a measurement needs.
const LACKING: u8 = 3;

/// By how much the share of records that reach the sink may differ between both sides.
const RESULTS_TOLERANCE: f64 = 0.1;

/// Measures the same work on Apache Flink (the baseline) and on Thalweg.
#[derive(Parser)]
struct Options {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// How often each side of each case is run, in turn; the medians are reported.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Multiplies the number of events of our side; Flink runs for three seconds after four of warming up, or as the
    /// environment variables SECS and WARM say.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// The cases, with commas between them; also with `_rocksdb`, `_exactly_once` or both behind them, but for the shuffles.
    #[arg(long, value_delimiter = ',', default_values = ALL)]
    cases: Vec<String>,
    /// The directory of the peers, with Flink's scripts in `flink`.
    #[arg(long, env = "THALWEG_PEERS", default_value = "../shared/peers")]
    peers: PathBuf,
}

/// The cases of a run that names none.
const ALL: [&str; 19] = [
    "q0",
    "q1",
    "q2",
    "q3",
    "q4",
    "q5",
    "q7",
    "q8",
    "q11",
    "q12",
    "word_count",
    "keyed_count",
    "word_count_exactly_once",
    "keyed_count_exactly_once",
    "word_count_rocksdb",
    "word_count_rocksdb_exactly_once",
    "shuffle_100b",
    "shuffle_strings",
    "shuffle_1000b",
];

/// A shuffle by our name, by Flink's, and as the measurement `exchange` calls it.
const SHUFFLES: [(&str, &str, &str); 3] = [
    ("shuffle_100b", "shuffle.all.bytes100", "100b"),
    ("shuffle_strings", "shuffle.all.str100", "100_char_strings"),
    ("shuffle_1000b", "shuffle.all.bytes1000", "1000b"),
];

/// What both sides do within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Query(Query),
    WordCount,
    KeyedCount,
}

/// A case that runs within a process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Contest {
    name: String,
    work: Work,
    is_in_rocksdb: bool,
    checkpoint_interval: Option<Duration>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Lacking>() => {
            eprintln!("nothing was compared: {error}");
            ExitCode::from(LACKING)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    ensure!(options.scale > 0.0, "--scale multiplies the number of events; give a number above 0");
    let is_shuffle = |name: &&String| SHUFFLES.iter().any(|(shuffle, ..)| shuffle == name);
    let (shuffles, others): (Vec<&String>, Vec<&String>) = options.cases.iter().partition(is_shuffle);
    let contests = others.into_iter().map(|name| Contest::named(name)).collect::<Result<Vec<_>>>()?;
    let cases: Vec<Case> = contests.iter().map(Contest::on_flink).collect();
    let flink = Flink::prepare(&options.peers, &cases)?;
    for contest in &contests {
        contest.run(options, &flink).with_context(|| format!("the case {} failed", contest.name))?;
    }
    if shuffles.is_empty() { Ok(()) } else { compare_shuffles(options, &flink, &shuffles) }
}

impl Contest {
    fn named(name: &str) -> Result<Self> {
        let (work, interval) = match name.strip_suffix(EXACTLY_ONCE) {
            Some(work) => (work, Some(CHECKPOINT_INTERVAL)),
            None => (name, None),
        };
        let (work, is_in_rocksdb) = match work.strip_suffix(ROCKSDB) {
            Some(work) => (work, true),
            None => (work, false),
        };
        let work = match work {
            "word_count" => Work::WordCount,
            "keyed_count" => Work::KeyedCount,
            query => {
                let known = ["q0", "q1", "q2", "q3", "q4", "q5", "q7", "q8", "q11", "q12"].contains(&query);
                ensure!(known, "there is no case `{name}`; there are {}", ALL.join(", "));
                Work::Query(query.parse().map_err(anyhow::Error::msg)?)
            }
        };
        Ok(Self { name: name.to_string(), work, is_in_rocksdb, checkpoint_interval: interval })
    }

    fn on_flink(&self) -> Case {
        let case = match self.work {
            Work::Query(query) => query.name(),
            Work::WordCount => "wordcount",
            Work::KeyedCount => "longcount",
        };
        let checkpoints = self.checkpoint_interval.map(|interval| format!(" ckpt={}", interval.as_millis()));
        let store = if self.is_in_rocksdb { " backend=rocksdb" } else { "" };
        let arguments = format!("case={case} par=1 keys={KEYS}{store}{}", checkpoints.unwrap_or_default());
        Case { group: format!("compare-{}", self.name), arguments }
    }

    /// Enough for two CPU seconds or more.
    fn events(&self, scale: f64) -> u64 {
        let events = match self.work {
            Work::Query(_) => 60_000_000.0,
            Work::WordCount => 15_000_000.0,
            Work::KeyedCount => 30_000_000.0,
        };
        (events * scale).max(1.0) as u64
    }

    fn run(&self, options: &Options, flink: &Flink) -> Result<()> {
        let events = self.events(options.scale);
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..options.runs.max(1) {
            let figure = flink.measure(&self.on_flink().group)?;
            let store = if self.is_in_rocksdb { "rocksdb" } else { "hashmap" };
            let cluster = LocalCluster::new().configure("state.backend.type", store);
            let job =
                || run_job_with(cluster, 1, self.checkpoint_interval, |env| self.work.topology(env, events));
            let (tally, cost) = measured(job)?;
            self.check(tally.count as f64 / events as f64, &figure)?;
            theirs.push(figure.events_per_cpu_second);
            ours.push(events as f64 / cost.cpu_seconds);
        }
        let baseline = Measurement::median(BENCH, "", UNIT, &theirs).value;
        Measurement::median(BENCH, &self.name, UNIT, &ours).against(baseline).print(options.json)
    }

    /// Fails when a different share of the events has reached the sink: then the work was not the same.
    fn check(&self, our_share: f64, theirs: &Figure) -> Result<()> {
        let is_other = match self.work {
            // They come at the ends of windows, of which Flink's run has a handful and does not see the last one.
            Work::Query(Query::Q5 | Query::Q7 | Query::Q8 | Query::Q12) => true,
            _ => false,
        };
        let (Some(results), false) = (theirs.results, is_other) else { return Ok(()) };
        let their_share = results as f64 / theirs.events as f64;
        ensure!(
            (our_share / their_share - 1.0).abs() <= RESULTS_TOLERANCE,
            "{our_share:.5} results an event here, {their_share:.5} in Flink: both do not do the same"
        );
        Ok(())
    }
}

impl Work {
    fn topology(self, env: &Environment, events: u64) -> Tallies {
        let tallies = Tallies::default();
        let sink = tallies.sink().counting_only();
        match self {
            Self::Query(query) => query.topology(env, Generator::default(), events, sink),
            Self::WordCount => {
                let words: Arc<[String]> = (0..KEYS).map(word).collect();
                let words =
                    env.generate(None, Some(events), move |event| words[key_of(event) as usize].clone());
                words.key_by(String::clone).count().uid("count").sink("counts", sink);
            }
            Self::KeyedCount => {
                let numbers = env.generate(None, Some(events), key_of);
                numbers.key_by(|number| *number).count().uid("count").sink("counts", sink);
            }
        }
        tallies
    }
}

/// Evenly spread over the keys.
#[inline]
fn key_of(event: u64) -> u64 {
    ((u128::from(splitmix(event)) * u128::from(KEYS)) >> 64) as u64
}

/// Four to ten letters, as Flink's words have.
fn word(number: u64) -> String {
    let bits = splitmix(number);
    Text::filling(bits, 4 + (bits >> 32) % 7).as_str().to_string()
}

/// Shuffles between two processes: Flink's script, then the measurement `exchange`, which is a program beside this one.
fn compare_shuffles(options: &Options, flink: &Flink, names: &[&String]) -> Result<()> {
    let exchange = binary("exchange")?;
    let wanted: Vec<_> = SHUFFLES.into_iter().filter(|(name, ..)| names.iter().any(|n| n == name)).collect();
    let theirs = flink.measure_shuffles()?;
    let cases: Vec<&str> = wanted.iter().map(|(.., case)| *case).collect();
    let output = Command::new(exchange)
        .args(["--json", "--runs", &options.runs.to_string(), "--cases", &cases.join(",")])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the measurement exchange")?;
    ensure!(output.status.success(), "the measurement exchange failed ({})", output.status);
    let rows = table::read(&String::from_utf8(output.stdout)?)?;
    for (name, on_flink, case) in wanted {
        let figure = theirs.get(on_flink);
        let figure = figure.with_context(|| format!("Flink gave no figure for {on_flink}"))?;
        let ours = rows.iter().find(|row| row.case == format!("two_workers_{case}_records"));
        let Row { value, runs, spread, .. } =
            ours.with_context(|| format!("exchange gave no figure for {case}"))?.clone();
        let measurement =
            Measurement { runs, spread, ..Measurement::median(BENCH, name, "records/cpu s", &[value]) };
        measurement.against(figure.events_per_cpu_second).print(options.json)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_known_on_both_sides() {
        let on_flink = |name: &str| Contest::named(name).map(|contest| contest.on_flink());
        let case = on_flink("q3").expect("a case");
        assert_eq!(
            (case.group.as_str(), case.arguments.as_str()),
            ("compare-q3", "case=q3 par=1 keys=10000")
        );
        let case = on_flink("word_count_exactly_once").expect("a case");
        assert_eq!(case.arguments, "case=wordcount par=1 keys=10000 ckpt=1000");
        let case = on_flink("word_count_rocksdb_exactly_once").expect("a case");
        assert_eq!(case.arguments, "case=wordcount par=1 keys=10000 backend=rocksdb ckpt=1000");
        for name in ALL.into_iter().filter(|name| !name.starts_with("shuffle")) {
            assert!(on_flink(name).is_ok(), "{name}");
        }
        for name in ["q9", "q12_count", "shuffle_100b_exactly_once"] {
            let error = on_flink(name).expect_err("Flink's side does something else").to_string();
            assert!(error.contains("there are q0, q1"), "{error}");
        }
    }

    #[test]
    fn the_jobs_count_every_event_and_words_are_words() {
        for work in [Work::WordCount, Work::KeyedCount] {
            let job = |env: &Environment| work.topology(env, 1_000);
            let tally = run_job_with(LocalCluster::new(), 1, None, job).expect("the job ends");
            assert_eq!(tally.count, 1_000, "{work:?}");
        }
        for number in 0..KEYS {
            let word = word(number);
            assert!((4..=10).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase()));
        }
    }

    #[test]
    fn another_share_of_results_is_other_work() {
        let figure = |results| Figure {
            case: "q2".into(),
            events: 1_000_000,
            events_per_cpu_second: 1.0,
            results: Some(results),
        };
        let q2 = Contest::named("q2").expect("a case");
        assert!(q2.check(0.0075, &figure(7_400)).is_ok());
        assert!(q2.check(0.0075, &figure(6_000)).is_err());
        let q8 = Contest::named("q8").expect("a case");
        assert!(q8.check(0.002, &figure(7_400)).is_ok(), "there are few windows in a run");
    }
}
