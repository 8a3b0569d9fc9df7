//! Whole jobs, simulated: random topologies of real tasks, slots and channels on one thread, which must never deadlock.
//!
//! A seed decides the job (vertices, edges, operators, parallelism), its bounds (credit, windows, rooms, batch sizes), who is slow,
//! in which order things happen, which checkpoints are taken and given up, whether barriers overtake and when, when all tasks are
//! lost and the job goes on from its last checkpoint, and whether the attempt is cancelled. What is
//! real: everything that a worker runs from the slot's thread down ([`slot`](crate::slot), [`task`](crate::task), chains,
//! [`exchange`](crate::exchange)). What is simulated: the thread of a slot, which takes a step when it is told to; the
//! network, which moves one frame or grant at a time; the clock; the job manager.
//!
//! What is checked: something can happen until the job has ended, and it ends; no channel changes the order of its
//! records or lets one come behind a watermark that was in front of it; at every aligned checkpoint each sink has read exactly what the sources had sent before their barriers; a job that was
//! restored, also with records on their way, ends with each record counted once; what is on its way is bounded; borrowed credit is given back. A finding prints its seed. To run one seed, or many:
//! `cargo xtask chaos topologies --from SEED --seeds 1`.

mod expectation;
mod job;
mod manager;
mod random;
mod records;
mod run;
mod scenario;

use std::panic::{AssertUnwindSafe, catch_unwind};

use self::run::Outcome;
use self::scenario::Scenario;
use crate::exchange::SimulatedWorker;

/// How many seeds every test run tries.
const SEEDS: u64 = 150;

/// Runs one seed. Panics with everything one needs to know if it finds something.
fn try_seed(seed: u64) -> Outcome {
    let scenario = Scenario::new(seed);
    let found = match catch_unwind(AssertUnwindSafe(|| run::run(&scenario))) {
        Ok(Ok(outcome)) => return outcome,
        Ok(Err(finding)) => finding,
        Err(_) => "it panicked; the message is above".to_owned(),
    };
    panic!("`cargo xtask chaos topologies --from {seed} --seeds 1` finds: {found}\n{scenario}");
}

/// The number in an environment variable.
fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name);
    text.map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text}"))
    })
}

#[test]
fn random_topologies_never_deadlock() {
    let from = number("THALWEG_TOPOLOGIES_FROM", 0);
    let seeds = number("THALWEG_TOPOLOGIES", SEEDS);
    let outcomes: Vec<Outcome> = (from..from + seeds).map(try_seed).collect();
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let most = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).max().unwrap_or(0);
    let cancelled = sum(|outcome| u64::from(outcome.was_cancelled));
    let back_pressured = sum(|outcome| u64::from(outcome.was_back_pressured));
    let checkpoints = sum(|outcome| outcome.checkpoints);
    let watermarks = sum(|outcome| outcome.watermarks);
    let (overtaken, crashes) = (sum(|outcome| outcome.overtaken), sum(|outcome| outcome.crashes));
    println!(
        "{crashes} times restored, {overtaken} checkpoints with {} batches on their way",
        sum(|outcome| outcome.overtaken_batches)
    );
    println!(
        "{seeds} topologies from seed {from}: {} steps (at most {} in one), {checkpoints} checkpoints, {cancelled} \
         cancelled, {back_pressured} with full channels, {watermarks} watermarks, at most {} % of what may be on its way was",
        sum(|outcome| outcome.steps),
        most(|outcome| outcome.steps),
        most(|outcome| outcome.fullest_percent),
    );
    // A simulation in which nothing happens would find nothing.
    if seeds >= SEEDS {
        assert!(checkpoints > seeds, "{checkpoints} checkpoints");
        assert!(overtaken > seeds && crashes > seeds / 2, "{overtaken} overtaken, {crashes} crashes");
        assert!(back_pressured > seeds / 4, "{back_pressured} with full channels");
        assert!(watermarks > 50 * seeds, "{watermarks} watermarks");
        assert!(cancelled > seeds / 20 && cancelled < seeds / 2, "{cancelled} cancelled");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..40 {
        assert_eq!(try_seed(seed), try_seed(seed), "seed {seed}");
    }
}
