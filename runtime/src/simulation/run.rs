//! Runs a scenario step by step: a turn of a slot, a move on a connection, a letter that arrives, a decision of the manager.
//!
//! Invariants: only what can happen happens; a task or an end of a connection that waits goes on only if it is called or its
//! time has come, so a call that is lost leaves something still for ever, which is found as a deadlock; time passes only
//! while tasks work and when nothing else can happen.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use thalweg_common::clock::Clock;
use thalweg_common::id::SubtaskId;

use super::expectation;
use super::job::{Job, Snapshots};
use super::manager::{Finding, Manager, Order};
use super::random::{Random, mix};
use super::scenario::Scenario;
use crate::exchange::Move;
use crate::slot::Step;
use crate::task::mailbox::Mail;

/// More steps than any scenario needs by far: a job that takes them runs in circles.
const MOST_STEPS: u64 = 4_000_000;

/// After so many choices of something that cannot happen now, something that can is looked for.
const MOST_IN_VAIN: u32 = 32;

/// So many steps lie between two looks at the bounds.
const STEPS_PER_LOOK: u64 = 64;

/// What a run was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Outcome {
    pub(super) steps: u64,
    pub(super) checkpoints: u64,
    pub(super) was_cancelled: bool,
    /// The fullest that the way to a vertex was, in percent of its bound.
    pub(super) fullest_percent: u64,
    /// Whether a channel was full.
    pub(super) was_back_pressured: bool,
    /// Checkpoints whose barriers had overtaken records, and how many batches that were.
    pub(super) overtaken: u64,
    pub(super) overtaken_batches: u64,
    /// How often the job went on from a checkpoint.
    pub(super) crashes: u64,
    /// Watermarks that came to a task of the last attempt.
    pub(super) watermarks: u64,
    /// Of everything that happened, in order.
    pub(super) digest: u64,
}

/// A letter on its way to a task, or the word to its worker that the attempt is cancelled.
#[derive(Debug, Clone, Copy)]
enum Letter {
    Mail(SubtaskId, Mail),
    Cancel(usize),
}

struct Run<'a> {
    scenario: &'a Scenario,
    random: Random,
    job: Job,
    manager: Manager<'a>,
    /// By worker: letters keep their order on the way to one.
    letters: Vec<VecDeque<Letter>>,
    bounds: Vec<u64>,
    outcome: Outcome,
}

/// Runs a scenario to its end.
pub(super) fn run(scenario: &Scenario) -> Result<Outcome, Finding> {
    let job = Job::deploy(scenario, &Snapshots::new());
    let mut run = Run {
        scenario,
        random: Random::new(mix(scenario.seed, 0xD1CE)),
        manager: Manager::new(scenario, job.tasks.keys().copied()),
        letters: job.workers.iter().map(|_| VecDeque::new()).collect(),
        bounds: expectation::bounds(scenario, job.full_records),
        outcome: Outcome::default(),
        job,
    };
    let ended = run.go_to_the_end();
    ended.map_err(|finding| format!("{finding}\n{}", run.describe()))?;
    let Run { job, mut outcome, manager, .. } = run;
    outcome.checkpoints = manager.completed;
    (outcome.overtaken, outcome.overtaken_batches) = (manager.overtaken, manager.overtaken_batches);
    outcome.crashes = manager.crashes;
    outcome.watermarks = job.ledger.watermarks.load(Ordering::Relaxed);
    end(job)?;
    Ok(outcome)
}

/// Nothing is left of an attempt.
fn end(job: Job) -> Result<(), Finding> {
    let Job { slots, tasks, connections, workers, .. } = job;
    // Whoever counts for a task keeps its channels.
    drop((slots, tasks, connections));
    if !workers.iter().all(super::SimulatedWorker::has_lent_nothing) {
        return Err("floating credit was not given back".to_owned());
    }
    Ok(())
}

impl Run<'_> {
    fn go_to_the_end(&mut self) -> Result<(), Finding> {
        let mut in_vain = 0;
        while !self.job.slots.iter().all(|slot| slot.has_ended) {
            self.outcome.steps += 1;
            if self.outcome.steps > MOST_STEPS {
                return Err(format!("the job has not ended after {MOST_STEPS} steps"));
            }
            if self.outcome.steps.is_multiple_of(STEPS_PER_LOOK) {
                self.check_bounds()?;
            }
            self.decide()?;
            in_vain = if self.happen()? { 0 } else { in_vain + 1 };
            if in_vain > MOST_IN_VAIN {
                in_vain = 0;
                self.go_on()?;
            }
        }
        self.manager.check_end()
    }

    /// What the manager does of its own accord.
    fn decide(&mut self) -> Result<(), Finding> {
        if self.scenario.cancel_at == Some(self.outcome.steps) {
            self.manager.is_cancelled = true;
            self.outcome.was_cancelled = true;
            for (worker, letters) in self.letters.iter_mut().enumerate() {
                letters.push_back(Letter::Cancel(worker));
            }
        }
        if self.manager.may_crash() && self.random.next() % 10_000 < self.scenario.crash_chance {
            self.crash()?;
        }
        let now_ms = self.job.ledger.clock.now_ms();
        let (trigger, abort) = (self.scenario.trigger_chance, self.scenario.abort_chance);
        let is_quiet = self.letters.iter().all(VecDeque::is_empty);
        let order = if is_quiet && self.manager.pending.is_none() && self.random.next() % 10_000 < trigger {
            self.manager.trigger(now_ms)
        } else if self.manager.pending.is_some() && self.random.next() % 10_000 < abort {
            self.manager.abort()
        } else {
            None
        };
        order.into_iter().for_each(|order| self.post(order));
        self.manager.finish(now_ms).into_iter().for_each(|order| self.post(order));
        self.manager.complete()?.into_iter().for_each(|order| self.post(order));
        Ok(())
    }

    /// All tasks are gone, and new ones go on from the last checkpoint.
    fn crash(&mut self) -> Result<(), Finding> {
        let Some(restored) = self.manager.crash() else { return Ok(()) };
        let job = Job::deploy(self.scenario, restored);
        self.letters.iter_mut().for_each(VecDeque::clear);
        self.note(5, 0, 0);
        end(std::mem::replace(&mut self.job, job))
    }

    fn post(&mut self, order: Order) {
        let (mail, to_all) = match order {
            Order::All(mail) => (mail, true),
            Order::Sources(mail) => (mail, false),
        };
        for (subtask, task) in &self.job.tasks {
            if to_all || self.scenario.vertices[subtask.vertex as usize].source.is_some() {
                self.letters[task.worker].push_back(Letter::Mail(*subtask, mail));
            }
        }
    }

    /// Lets something happen, at random. False if what was chosen cannot happen now.
    fn happen(&mut self) -> Result<bool, Finding> {
        match self.random.within(0..=99) {
            0..60 => {
                let slot = self.choose(self.job.slots.len());
                let speed = self.speed(slot);
                if self.random.chance(speed) { self.step(slot) } else { Ok(false) }
            }
            60..95 if !self.job.connections.is_empty() => {
                let connection = self.choose(self.job.connections.len());
                let what = self.random.pick(&Move::ALL);
                // A burst, so that what waits at one end arrives together now and then.
                let times = self.random.pick(&[1, 1, 2, 8]);
                Ok((0..times).filter(|_| self.make(connection, what)).count() > 0)
            }
            _ => {
                let worker = self.choose(self.letters.len());
                self.deliver(worker)
            }
        }
    }

    fn choose(&mut self, count: usize) -> usize {
        (self.random.next() % count as u64) as usize
    }

    /// A slot is as slow as its slowest task.
    fn speed(&self, slot: usize) -> u64 {
        let seats = self.job.slots[slot].seats.iter();
        seats.map(|subtask| self.scenario.vertices[subtask.vertex as usize].speed).min().unwrap_or(100)
    }

    /// Gives a slot a turn.
    fn step(&mut self, number: usize) -> Result<bool, Finding> {
        let slot = &mut self.job.slots[number];
        if slot.has_ended {
            return Ok(false);
        }
        match slot.slot.simulated_next() {
            Step::Rest(_) => return Ok(false),
            Step::End => slot.has_ended = true,
            Step::Turn(seat) => {
                slot.slot.simulate_turn(seat);
                self.note(1, number, seat);
            }
        }
        while let Ok(report) = self.job.reports.try_recv() {
            self.manager.on_report(report)?;
        }
        Ok(true)
    }

    fn make(&mut self, number: usize, what: Move) -> bool {
        let connection = &mut self.job.connections[number];
        let can = connection.can(what);
        if can {
            connection.make(what);
            self.note(2, number, what as usize);
        }
        can
    }

    fn deliver(&mut self, worker: usize) -> Result<bool, Finding> {
        let Some(letter) = self.letters[worker].pop_front() else { return Ok(false) };
        self.note(3, worker, 0);
        match letter {
            Letter::Mail(subtask, mail) => {
                let sent = self.job.tasks[&subtask].mailbox.send(mail);
                sent.map_err(|full| format!("task {subtask}: {full}"))?;
            }
            Letter::Cancel(worker) => {
                self.job.cancellations[worker].cancel();
                let tasks = self.job.tasks.values().filter(|task| task.worker == worker);
                tasks.for_each(|task| task.mailbox.wake());
            }
        }
        Ok(true)
    }

    /// Lets the first thing happen that can, from a random place on. If nothing can, time passes until something can.
    fn go_on(&mut self) -> Result<(), Finding> {
        let (slots, connections) = (self.job.slots.len(), self.job.connections.len());
        let all = slots + connections + self.letters.len();
        let start = self.choose(all);
        for place in (start..all).chain(0..start) {
            let has_happened = if place < slots {
                self.step(place)?
            } else if place < slots + connections {
                Move::ALL.into_iter().any(|what| self.make(place - slots, what))
            } else {
                self.deliver(place - slots - connections)?
            };
            if has_happened {
                return Ok(());
            }
        }
        let mut earliest: Option<Duration> = None;
        for slot in self.job.slots.iter_mut().filter(|slot| !slot.has_ended) {
            match slot.slot.simulated_next() {
                Step::Rest(until) => earliest = [earliest, until].into_iter().flatten().min(),
                _ => return Err("a slot was called by nobody".to_owned()),
            }
        }
        let Some(earliest) = earliest else { return Err("deadlock: nothing can happen any more".to_owned()) };
        let now = self.job.ledger.clock.monotonic();
        self.job.ledger.clock.advance(earliest.saturating_sub(now));
        self.note(4, 0, 0);
        Ok(())
    }

    /// What is on its way is bounded.
    fn check_bounds(&mut self) -> Result<(), Finding> {
        if !self.outcome.was_back_pressured {
            let mut tasks = self.job.tasks.values();
            self.outcome.was_back_pressured = tasks.any(|task| task.counters.read().output_queue_length > 0);
        }
        let scenario = self.scenario;
        for (vertex, bound) in self.bounds.iter().enumerate() {
            let ledger = &self.job.ledger;
            let departed = |(number, edge): (usize, &super::scenario::Edge)| {
                let target = &scenario.vertices[edge.target as usize];
                let is_broadcast = edge.partitioning == thalweg_common::graph::Partitioning::Broadcast;
                let receivers = if is_broadcast { u64::from(target.parallelism) } else { 1 };
                ledger.departed[number].load(Ordering::Relaxed) * receivers
            };
            let edges = scenario.edges.iter().enumerate();
            let inputs = edges.filter(|(_, edge)| edge.target as usize == vertex);
            let sent: u64 = inputs.map(departed).sum();
            let under_way = sent.saturating_sub(ledger.arrived[vertex].load(Ordering::Relaxed));
            if under_way > *bound {
                return Err(format!(
                    "{under_way} records are on their way to vertex {vertex}, more than {bound}"
                ));
            }
            let percent = under_way * 100 / (*bound).max(1);
            self.outcome.fullest_percent = self.outcome.fullest_percent.max(percent);
        }
        Ok(())
    }

    fn note(&mut self, what: u64, who: usize, how: usize) {
        let now = self.job.ledger.clock.monotonic().as_nanos() as u64;
        let event = what | (who as u64) << 8 | (how as u64) << 24;
        self.outcome.digest = mix(mix(self.outcome.digest, event), now);
    }

    /// Who waits for what.
    fn describe(&self) -> String {
        let mut lines = vec![
            format!("step {}, {:?}", self.outcome.steps, self.job.ledger.clock.monotonic()),
            self.manager.describe(),
        ];
        for (subtask, task) in &self.job.tasks {
            let counted = task.counters.read();
            lines.push(format!(
                "task {subtask} (worker {}, slot {}): {}, {}; {} messages to read, {} held back, {} bytes of credit",
                task.worker,
                task.slot,
                self.manager.statuses[subtask],
                self.job.slots[task.slot].slot.describe(task.seat),
                counted.input_queue_length,
                counted.output_queue_length,
                counted.available_credit_bytes,
            ));
        }
        lines.extend(self.job.connections.iter().map(|connection| connection.describe()));
        lines.extend(self.letters.iter().flatten().map(|letter| format!("{letter:?}")));
        lines.join("\n")
    }
}
