//! Timers in both stores against a plain set: registered, deleted and fired, with memory far too small, over frozen epochs, checkpoints,
//! failures, savepoints, and restores into other key groups and into the other store.

use std::collections::{BTreeMap, BTreeSet};

use crate::function::{Expected, MAX_PARALLELISM, Operation, Single, Subject, cases, owner};
use crate::job::{Kind, Turn, turn};
use crate::subtask::Subtask;
use proptest::prelude::*;
use thalweg_common::key_group::KeyGroupRange;
use thalweg_state::{AtKey, Declarations, TimeDomain};

const KEYS: u16 = 60;

/// The function with one value, and timers.
#[derive(Default)]
struct Timed(Single);

impl Subject for Timed {
    fn declared(&mut self) -> Declarations<u16> {
        let mut declarations = self.0.declared();
        declarations.add_timers();
        declarations
    }

    fn apply(&self, at: &mut AtKey<'_, u16>, operation: &Operation) {
        self.0.apply(at, operation);
    }

    fn read(&self, at: &AtKey<'_, u16>) -> Expected {
        self.0.read(at)
    }

    fn part(expected: &Expected) -> Expected {
        Single::part(expected)
    }
}

/// What there should be: the timers, and how many have fired of each key.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    timers: BTreeSet<(TimeDomain, i64, u16)>,
    fired: BTreeMap<u16, u64>,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Register,
    Delete,
}

#[derive(Debug, Clone)]
enum Step {
    Change(Vec<(Change, TimeDomain, i64, u16)>),
    /// Fires what is due, or so many of each subtask.
    Fire(TimeDomain, i64, usize),
    Turn(Turn),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let domain = || prop_oneof![Just(TimeDomain::EventTime), Just(TimeDomain::ProcessingTime)];
    let change = prop_oneof![5 => Just(Change::Register), 1 => Just(Change::Delete)];
    let change = (change, domain(), -10i64..50, 0..KEYS);
    let fire = (domain(), -10i64..60, prop_oneof![4 => Just(usize::MAX), 1 => 0usize..6]);
    let step = prop_oneof![
        20 => prop::collection::vec(change, 1..40).prop_map(Step::Change),
        6 => fire.prop_map(|(domain, until, limit)| Step::Fire(domain, until, limit)),
        14 => turn(400).prop_map(Step::Turn),
    ];
    prop::collection::vec(step, 0..100)
}

/// What the function does when a timer fires: now and then it registers others, sooner, at once or later, or deletes one.
fn reactions(at: i64, key: u16) -> Vec<(Change, i64)> {
    match (at + i64::from(key)).rem_euclid(7) {
        0 => vec![(Change::Register, at + 1)],
        1 => vec![(Change::Delete, at + 2), (Change::Register, at + 20)],
        2 if at > 10 => vec![(Change::Register, at - 30)],
        _ => Vec::new(),
    }
}

type Job = crate::job::Job<Timed, Model>;

impl Job {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Change(changes) => self.change(changes),
            Step::Fire(domain, until, limit) => self.fire(*domain, *until, *limit),
            Step::Turn(turn) => self.turn(turn),
        }
    }

    fn change(&mut self, changes: &[(Change, TimeDomain, i64, u16)]) {
        let parallelism = self.subtasks.len();
        for (index, subtask) in self.subtasks.iter_mut().enumerate() {
            let mine: Vec<_> =
                changes.iter().filter(|change| owner(change.3, parallelism) == index).collect();
            let keys: Vec<u16> = mine.iter().map(|change| change.3).collect();
            subtask.patiently(|_, store| Ok(store.look_up(&keys)?));
            for (place, (change, domain, at, key)) in mine.into_iter().enumerate() {
                let mut state = subtask.store.select_next(place, *key).unwrap();
                apply(&mut state, &mut self.model, *change, *domain, *at, *key);
            }
        }
    }

    fn fire(&mut self, domain: TimeDomain, until: i64, limit: usize) {
        let parallelism = self.subtasks.len();
        for (index, subtask) in self.subtasks.iter_mut().enumerate() {
            let mut left = limit;
            while left > 0 && subtask.store.earliest_timer(domain).is_some_and(|at| at <= until) {
                subtask.patiently(|_, store| Ok(store.prepare_timers(domain, until)?));
                while left > 0
                    && let Some((at, mut state)) = subtask.store.fire_next(domain).unwrap()
                {
                    left -= 1;
                    let key = *state.key();
                    let mine = |timer: &&(TimeDomain, i64, u16)| {
                        timer.0 == domain && owner(timer.2, parallelism) == index
                    };
                    let earliest = self.model.timers.iter().find(mine).map(|timer| timer.1);
                    assert_eq!(earliest, Some(at), "{key}");
                    assert!(self.model.timers.remove(&(domain, at, key)), "{at} {key}");
                    subtask.function.0.apply(&mut state, &Operation::AddToCount(1));
                    *self.model.fired.entry(key).or_default() += 1;
                    for (change, at) in reactions(at, key) {
                        apply(&mut state, &mut self.model, change, domain, at, key);
                    }
                }
            }
            let is_due = |timer: &&(TimeDomain, i64, u16)| {
                timer.0 == domain && timer.1 <= until && owner(timer.2, parallelism) == index
            };
            assert!(left == 0 || !self.model.timers.iter().any(|timer| is_due(&timer)));
        }
    }

    /// All timers, and then each of them once more, as it fires.
    fn check(&mut self) {
        let mut all = BTreeSet::new();
        for subtask in &mut self.subtasks {
            let states = subtask.patiently(|_, store| Ok(store.snapshot()?));
            for domain in TimeDomain::ALL {
                for entries in states[domain.state_name()].groups.values() {
                    // A key of two bytes, and a time of eight.
                    assert_eq!(entries.0.len() % 10, 0);
                    all.extend(entries.0.chunks(10).map(|entry| {
                        let (key, at) = entry.split_at(2);
                        let key = u16::from_le_bytes(key.try_into().unwrap());
                        (domain, i64::from_le_bytes(at.try_into().unwrap()), key)
                    }));
                }
            }
        }
        assert_eq!(all, self.model.timers);
        for domain in TimeDomain::ALL {
            self.fire(domain, 40, usize::MAX);
        }
        for key in 0..KEYS {
            let owner = owner(key, self.subtasks.len());
            let count = self.subtasks[owner].read(key).count;
            assert_eq!(count, self.model.fired.get(&key).copied(), "{key}");
        }
    }
}

fn apply(
    state: &mut AtKey<'_, u16>,
    model: &mut Model,
    change: Change,
    domain: TimeDomain,
    at: i64,
    key: u16,
) {
    match change {
        Change::Register => {
            state.register_timer(domain, at);
            model.timers.insert((domain, at, key));
        }
        Change::Delete => {
            state.delete_timer(domain, at);
            model.timers.remove(&(domain, at, key));
        }
    }
}

fn run(mut job: Job, steps: &[Step]) {
    steps.iter().for_each(|step| job.step(step));
    job.check();
    // What the last checkpoint holds, in other key groups, too.
    if job.has_checkpoint() {
        job.turn(&Turn::Fail(3));
        job.check();
    }
}

proptest! {
    #![proptest_config(cases(6))]

    #[test]
    fn timers_are_a_set_on_disk(parallelism in 1u32..=3, budget in 30_000u64..80_000, steps in steps()) {
        run(Job::on_disk(parallelism, budget, |states| states), &steps);
    }

}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn timers_are_a_set_in_memory(parallelism in 1u32..=3, steps in steps()) {
        let in_memory = |step| match step {
            Step::Turn(Turn::Savepoint(parallelism, _) | Turn::Fail(parallelism)) => {
                Step::Turn(Turn::Savepoint(parallelism, Kind::Memory))
            }
            step => step,
        };
        let job = Job::in_memory(parallelism, |states| states);
        run(job, &steps.into_iter().map(in_memory).collect::<Vec<_>>());
    }
}

const ALL: KeyGroupRange = KeyGroupRange { start: 0, end: MAX_PARALLELISM };

#[test]
fn a_timer_that_fires_between_two_checkpoints_never_comes_to_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let mut subtask = Subtask::<Timed>::rocksdb(
        ALL,
        crate::subtask::create::<Timed>(directory.path().join("store")),
        1 << 20,
    );
    for key in 0..1_000 {
        let mut at = subtask.store.select(key).unwrap();
        at.register_timer(TimeDomain::EventTime, i64::from(key));
        at.register_timer(TimeDomain::EventTime, 5_000);
        at.delete_timer(TimeDomain::EventTime, 5_000);
    }
    let mut fired = Vec::new();
    while subtask.store.earliest_timer(TimeDomain::EventTime).is_some_and(|at| at < 999) {
        subtask.store.prepare_timers(TimeDomain::EventTime, 998).unwrap();
        while let Some((at, _)) = subtask.store.fire_next(TimeDomain::EventTime).unwrap() {
            fired.push(at);
        }
    }
    assert_eq!(fired, (0..999).collect::<Vec<_>>());
    subtask.epochs.extend(subtask.store.freeze(1).unwrap());
    subtask.finish(|epoch| {
        epoch.give_up().unwrap();
        None
    });
    let mut stored = 0;
    let backend = subtask.backend.as_ref().unwrap();
    let mut count = |_: &[u8], value: &[u8]| {
        assert!(value.is_empty());
        stored += 1;
        Ok(())
    };
    thalweg_state::Backend::scan(backend.as_ref(), 1, &[], &mut count).unwrap();
    assert_eq!(stored, 1);
}

#[test]
fn a_state_cannot_have_the_name_of_those_of_timers() {
    use thalweg_state::Declare as _;
    let mut declarations = Declarations::<u16>::default();
    thalweg_state::ValueState::<u64>::default().declare("_timer_state/event_time", &mut declarations);
    assert_eq!(declarations.descriptors().unwrap().len(), 1);
    declarations.add_timers();
    assert!(declarations.descriptors().unwrap_err().to_string().contains("_timer_state/event_time"));
}
