//! The job under test: counts numbers by key, writes every update to files, and can be told to misbehave once.
//!
//! `chaos_job --count 100000 --output DIR --fault panic --after 5000 --marker FILE`. The fault strikes when the number
//! `--after` passes, and only while the marker file does not exist, so that the job recovers from it.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use thalweg::prelude::*;
use thalweg_connectors::TextFileSink;

#[derive(Parser, Clone)]
#[command(name = "chaos_job", no_binary_name = true)]
struct Options {
    /// How many numbers; endless when absent.
    #[arg(long)]
    count: Option<u64>,
    /// Numbers a second over all subtasks; as fast as possible when absent.
    #[arg(long)]
    rate: Option<f64>,
    /// How many keys the numbers fall into.
    #[arg(long, default_value_t = 97)]
    keys: u64,
    /// How long each update takes before it is written, in microseconds.
    #[arg(long, default_value_t = 0)]
    slow_us: u64,
    /// Where the updates go.
    #[arg(long)]
    output: PathBuf,
    /// How the job misbehaves.
    #[arg(long, value_enum, default_value_t = Fault::None)]
    fault: Fault,
    /// The number at which it does.
    #[arg(long, default_value_t = 0)]
    after: u64,
    /// Exists once the fault has struck.
    #[arg(long)]
    marker: Option<PathBuf>,
    /// A cgroup's `tasks` file that the process joins before it takes too much memory.
    #[arg(long)]
    cgroup: Option<PathBuf>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq)]
enum Fault {
    None,
    Panic,
    Error,
    Abort,
    Exit,
    Memory,
    Hang,
}

impl Options {
    /// Whether the fault strikes now; leaves the marker.
    fn strikes(&self, number: u64) -> bool {
        self.fault != Fault::None
            && number == self.after
            && self
                .marker
                .as_ref()
                .is_some_and(|marker| OpenOptions::new().write(true).create_new(true).open(marker).is_ok())
    }

    #[expect(clippy::panic, clippy::disallowed_methods, reason = "misbehaving is what this job is for")]
    fn strike(&self) -> Result<(), Failure> {
        match self.fault {
            Fault::None => Ok(()),
            Fault::Panic => panic!("the job under test panics as told"),
            Fault::Error => Err(Failure::user("the job under test fails as told")),
            Fault::Abort => std::process::abort(),
            Fault::Exit => std::process::exit(3),
            Fault::Hang => loop {
                std::thread::sleep(Duration::from_secs(3600)); // not a wait: it hangs as told
            },
            Fault::Memory => {
                if let Some(cgroup) = &self.cgroup {
                    std::fs::write(cgroup, std::process::id().to_string())
                        .map_err(|error| Failure::external(format!("cannot join the cgroup: {error}")))?;
                }
                let mut hoard = Vec::new();
                loop {
                    hoard.push(vec![1u8; 1 << 20]);
                }
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "being slow is what this job is for")]
fn dawdle(microseconds: u64) {
    if microseconds > 0 {
        std::thread::sleep(Duration::from_micros(microseconds)); // not a wait: it is slow as told
    }
}

fn main() -> thalweg::Result<()> {
    thalweg::run(|env| {
        let options = Options::parse_from(env.args());
        let (faults, keys, slow_us) = (options.clone(), options.keys, options.slow_us);
        env.generate(options.rate, options.count, |number| number)
            .name("numbers")
            .uid("numbers")
            .try_map(move |number| {
                if faults.strikes(number) {
                    faults.strike()?;
                }
                Ok::<_, Failure>(number)
            })
            .name("faults")
            .key_by(move |number| number % keys)
            .count()
            .name("count")
            .uid("count")
            .map(move |(key, count)| {
                dawdle(slow_us);
                format!("{key} {count}")
            })
            .sink("updates", TextFileSink::directory(&options.output))
            .uid("updates");
        Ok(())
    })
}
