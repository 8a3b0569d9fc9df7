//! Millions of timers in RocksDB: what registering and firing them costs, what a checkpoint of them takes, and how much memory all of it.
//!
//! One keyed operator is driven directly, without a job around it. Each key has several timers of event time, whose times are spread over an
//! hour; they are registered in no particular order, a checkpoint is taken, watermarks go through the hour in small steps, and half
//! way there is another checkpoint. The function counts in its state how many timers of a key have fired.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use anyhow::{Result, ensure};
use clap::Parser;
use thalweg::State;
use thalweg::operator::{Context, KeyedProcess};
use thalweg::prelude::{Failure, Timestamp, ValueState};
use thalweg::testing::{OperatorHarness, Setup};
use thalweg_benches::measurement::Measurement;
use thalweg_benches::nexmark::text::splitmix;
use thalweg_benches::usage;
use thalweg_common::clock::{SharedClock, Stopwatch, SystemClock};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The group of cases.
const BENCH: &str = "timers";

/// The times of the timers are below this, in milliseconds.
const HOUR: u64 = 3_600_000;

/// Watermarks in that hour.
const STEPS: u64 = 1_000;

/// Records that the operator is given at once.
const BATCH: u64 = 1_024;

/// Measures timers in RocksDB.
#[derive(Parser)]
struct Options {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// How often all of it is done; the median is reported.
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// How many timers.
    #[arg(long, default_value_t = 10_000_000)]
    timers: u64,
    /// Of how many keys.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Memory for caches and RocksDB.
    #[arg(long, default_value_t = 512)]
    managed_mib: u64,
}

/// The key, and when it wants to be called.
type Wish = (u64, Timestamp);

/// Registers what it is told, and counts what fires.
#[derive(State, Clone, Default)]
struct Wishes {
    fired: ValueState<u64>,
    /// Of all keys.
    #[state(skip)]
    all: Arc<AtomicU64>,
    #[state(skip)]
    last: Arc<AtomicI64>,
}

impl KeyedProcess<u64, Wish> for Wishes {
    type Out = ();

    fn on_record(&mut self, (_, at): Wish, context: &mut Context<'_, u64, ()>) -> Result<(), Failure> {
        context.register_event_time_timer(at);
        Ok(())
    }

    fn on_timer(&mut self, at: Timestamp, context: &mut Context<'_, u64, ()>) -> Result<(), Failure> {
        self.fired.update(context, |fired| Some(fired.unwrap_or(0) + 1));
        self.all.fetch_add(1, Ordering::Relaxed);
        if self.last.swap(at, Ordering::Relaxed) > at {
            return Err(Failure::internal(format!("a timer of {at} has fired behind a later one")));
        }
        Ok(())
    }
}

/// What one run has taken.
struct Run {
    registered_per_cpu_second: f64,
    fired_per_cpu_second: f64,
    checkpoint_s: f64,
    /// With half of the timers gone, and the others behind.
    second_checkpoint_s: f64,
    peak_mib: f64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(
        options.keys > 0 && options.timers >= options.keys,
        "give at least one key, and a timer for each"
    );
    let runs = (0..options.runs.max(1)).map(|_| run(&options)).collect::<Result<Vec<_>>>()?;
    let report = |case: &str, unit, figure: fn(&Run) -> f64| {
        let samples: Vec<f64> = runs.iter().map(figure).collect();
        Measurement::median(BENCH, case, unit, &samples).print(options.json)
    };
    report("registered_per_cpu_second", "timers/cpu-s", |run| run.registered_per_cpu_second)?;
    report("fired_per_cpu_second", "timers/cpu-s", |run| run.fired_per_cpu_second)?;
    report("checkpoint_s", "s", |run| run.checkpoint_s)?;
    report("second_checkpoint_s", "s", |run| run.second_checkpoint_s)?;
    report("peak_mib", "MiB", |run| run.peak_mib)
}

fn run(options: &Options) -> Result<Run> {
    // Not allowed everywhere; then it is the peak of all runs so far.
    let _ = usage::reset_own_peak();
    let directory = tempfile::tempdir()?;
    let setup = Setup::default().on_disk(&directory.path().join("store"), options.managed_mib << 20);
    let wishes = Wishes { last: Arc::new(AtomicI64::new(Timestamp::MIN)), ..Wishes::default() };
    let mut operator = OperatorHarness::keyed(|wish: &Wish| wish.0, wishes.clone(), setup)?;

    let begin = usage::own_cpu_seconds();
    // Spread over keys and times. The same time of a key twice is one timer, which hardly ever happens.
    let wish = |number: u64| (splitmix(number) % options.keys, (splitmix(!number) % HOUR) as Timestamp);
    let mut number = 0;
    while number < options.timers {
        let end = (number + BATCH).min(options.timers);
        operator.push((number..end).map(wish).collect())?;
        number = end;
    }
    let registered = usage::own_cpu_seconds() - begin;
    let checkpoint_s = checkpoint(&mut operator, 1)?;

    let begin = usage::own_cpu_seconds();
    let mut during_checkpoint = (0.0, 0.0);
    for step in 1..=STEPS {
        operator.watermark((HOUR * step / STEPS) as Timestamp)?;
        if step == STEPS / 2 {
            let begin = usage::own_cpu_seconds();
            during_checkpoint.0 = checkpoint(&mut operator, 2)?;
            during_checkpoint.1 = usage::own_cpu_seconds() - begin;
        }
    }
    let fired = usage::own_cpu_seconds() - begin - during_checkpoint.1;
    let all = wishes.all.load(Ordering::Relaxed);
    // What met another timer of its key: one in 3,600 for ten timers of each key.
    ensure!(all <= options.timers && all >= options.timers * 99 / 100, "{all} of {} fired", options.timers);
    Ok(Run {
        registered_per_cpu_second: options.timers as f64 / registered,
        fired_per_cpu_second: all as f64 / fired,
        checkpoint_s,
        second_checkpoint_s: during_checkpoint.0,
        peak_mib: usage::own_peak_mib()?,
    })
}

/// Takes a checkpoint to its end, and says how long that has taken.
fn checkpoint(operator: &mut OperatorHarness<Wish, ()>, id: u64) -> Result<f64> {
    let clock: SharedClock = SystemClock::shared();
    let stopwatch = Stopwatch::start(&clock);
    operator.barrier(id)?;
    Ok(stopwatch.elapsed().as_secs_f64())
}
