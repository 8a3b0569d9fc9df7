//! `cargo xtask bench`: builds what is measured, in release, and runs one of the measurements in `benches/src/bin`.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::Cargo;
use crate::clock::{Stopwatch, seconds};
use crate::exit::{MachineLacks, Usage};
use crate::program::Built;
use crate::setup;
use crate::workspace::Workspace;

const HELP: &str = "\
Builds what is measured, in release, and measures. Close other programs: the figures are this machine's.

Usage: cargo xtask bench <NAME> [OPTIONS]

Measurements:
  smoke      words counted per second and CPU seconds per million (in one process, one worker, two
             workers), time to the first record and to cancel, memory of idle processes
  failover   how long output pauses when the leading job manager is killed, and how soon another
             one accepts a job
  recovery   how long records stay away from the sinks when a task manager is killed, and where that
             time goes: 100 MB of state in memory and in RocksDB, 1 GB in RocksDB, with and without
             local recovery
  checkpoint how long checkpoints of 1 GB in RocksDB take, for how long the job pauses and the sink
             is silent, what is uploaded, what it costs in throughput
  local      events per CPU second of running counts by key, beside plain loops over a hash map; what
             a second subtask brings when one key is hot
  exchange   bytes per CPU second between two workers, beside bare tonic and raw TCP between two
             processes
  latency    time from an event to the sink, inside one worker and between two, with CPU seconds and
             memory; CPU of a job that has nothing to do
  backpressure
             what a slow sink does to memory, to the pipeline beside it and to checkpoints
  s3-json-to-parquet
             JSON lines on an S3 of this machine become Parquet files: bytes per CPU second, beside a plain loop
  timers     ten million timers of a million keys in RocksDB: how many are registered and fired per CPU
             second, how long checkpoints of them take, the memory of all of it
  nexmark    events per CPU second and memory of Nexmark queries, beside the same queries as plain
             loops, and with state in RocksDB beside Flink's SQL; cost of the event generator
  metrics    what full metrics cost a job, beside the same job on a cluster that reports nothing
  windows    what a sliding window of 60 s every second costs beside a tumbling one of 60 s
  compare-flink
             events per CPU second of the same work on Apache Flink, in turn with ours; needs a JDK and
             the directory of the peers (--peers, THALWEG_PEERS, or ../shared/peers)
  tables     no measurement: makes Markdown tables of files with JSON lines; `--into BENCHMARKS.md`
             puts them there

Options:
      --json      one JSON object a line
      --runs <N>  how often each case is measured; the median is reported
  -h, --help      print this help
Other options go to the measurement; `cargo xtask bench <NAME> --help` lists them.

Examples:
  cargo xtask bench smoke
  cargo xtask bench smoke --json --runs 9 > smoke.jsonl
  cargo xtask bench failover
  cargo xtask bench nexmark --json > nexmark.jsonl && cargo xtask bench tables nexmark.jsonl

Exit codes: 0 measured, 1 failed, 2 bad arguments, 3 the machine lacks something.
";

/// Measurements of jobs in one process whose work is done in libraries: what they cost depends on what is inlined from there.
const PRODUCTION: [&str; 1] = ["s3_json_to_parquet"];

/// The exit code of a measurement that the machine lacks something for.
const LACKING: i32 = 3;

/// `cargo xtask bench`.
pub fn run(arguments: &mut lexopt::Parser) -> Result<()> {
    let name = match arguments.next()? {
        Some(lexopt::Arg::Long("help") | lexopt::Arg::Short('h')) => {
            print!("{HELP}");
            return Ok(());
        }
        Some(lexopt::Arg::Value(name)) => name.to_string_lossy().into_owned(),
        Some(other) => return Err(other.unexpected().into()),
        None => return Err(Usage("name a measurement; `cargo xtask bench --help` lists them".into()).into()),
    };
    let rest: Vec<OsString> = arguments.raw_args()?.collect();
    let workspace = Workspace::find()?;
    let known = measurements(&workspace.root.join("benches/src/bin"))?;
    if !known.contains(&name) {
        return Err(Usage(format!("there is no measurement `{name}`; there are {}", known.join(", "))).into());
    }
    let program = name.replace('-', "_");
    let cargo = Cargo::new(&workspace, setup::prepare(&workspace, &[])?);
    let built = if PRODUCTION.contains(&program.as_str()) {
        Built::production_bench(&cargo, &program)?
    } else {
        Built::benches(&cargo)?
    };
    eprintln!("==> bench {name}");
    let stopwatch = Stopwatch::start();
    let status = Command::new(built.find(&program)?)
        .args(rest)
        .current_dir(&workspace.root)
        .status()
        .with_context(|| format!("cannot start the measurement `{name}`"))?;
    if status.code() == Some(LACKING) {
        return Err(MachineLacks(format!(
            "the machine lacks what the measurement `{name}` needs, see above"
        ))
        .into());
    }
    if !status.success() {
        bail!("the measurement `{name}` failed ({status}) after {}", seconds(stopwatch.elapsed()));
    }
    eprintln!("    measured in {}", seconds(stopwatch.elapsed()));
    Ok(())
}

/// What the programs in this directory measure, sorted: their names, with dashes as commands have them.
fn measurements(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut names: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.replace('_', "-")))
        .collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_describes_every_measurement_there_is() {
        let workspace = Workspace::find().expect("the tests run inside the workspace");
        let names = measurements(&workspace.root.join("benches/src/bin")).expect("readable");
        assert!(names.contains(&"smoke".to_owned()), "{names:?}");
        assert!(PRODUCTION.iter().all(|name| names.contains(&name.replace('_', "-"))), "{names:?}");
        for name in names {
            let described = [format!("\n  {name} "), format!("\n  {name}\n")];
            assert!(described.iter().any(|line| HELP.contains(line)), "{name} is not described");
        }
    }

    #[test]
    fn a_measurement_must_be_named() {
        let error = run(&mut lexopt::Parser::from_args(Vec::<OsString>::new())).expect_err("no name");
        assert!(error.is::<Usage>());
        let error = run(&mut lexopt::Parser::from_args(["swiftness"])).expect_err("no such measurement");
        assert!(error.to_string().contains("smoke"), "{error}");
    }
}
