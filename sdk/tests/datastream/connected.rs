//! Operators with two inputs through whole jobs, with barriers that overtake and with failures.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use thalweg::prelude::*;
use thalweg::testing::{LocalCluster, run_local};

fn sorted<T: Ord>(mut records: Vec<T>) -> Vec<T> {
    records.sort();
    records
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

#[test]
fn two_types_become_one() {
    let (mapped, flat) = run_local(|env| {
        // The first input is itself a union.
        let numbers = env.from_iter([1_u64, 2]).union(&env.from_iter([3_u64]));
        let letters = env.from_iter(['a', 'b']);
        let both = numbers.connect(&letters);
        let flat = both.flat_map(
            |number| vec![number.to_string(); number as usize],
            |letter| if letter == 'a' { Vec::new() } else { vec![letter.to_string()] },
        );
        Ok((both.map(|number| number.to_string(), |letter| letter.to_string()).collect(), flat.collect()))
    })
    .unwrap();
    assert_eq!(sorted(mapped.take()), texts(&["1", "2", "3", "a", "b"]));
    assert_eq!(sorted(flat.take()), texts(&["1", "2", "2", "3", "3", "3", "b"]));
}

/// Says which of both a record comes from, with its time.
#[derive(Clone)]
struct Sides;

impl CoProcess<u64, String> for Sides {
    type Out = (u8, String);

    fn on_first(&mut self, number: u64, context: &mut ProcessContext<'_, Self::Out>) -> Result<(), Failure> {
        context.emit((1, number.to_string()));
        Ok(())
    }

    fn on_second(
        &mut self,
        text: String,
        context: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<(), Failure> {
        context.emit((2, text));
        Ok(())
    }
}

#[test]
fn a_stream_may_be_connected_with_itself_and_over_any_partitioning() {
    let cluster = LocalCluster::new().configure("parallelism.default", 3);
    let (itself, broadcast) = cluster
        .run(|env| {
            let numbers = env.from_iter(0..5_u64);
            let texts = numbers.map(|number| number.to_string());
            let itself = numbers.rebalance().connect(&texts.rebalance()).process(Sides).collect();
            let broadcast = numbers.rebalance().connect(&texts.broadcast()).process(Sides).collect();
            Ok((itself, broadcast))
        })
        .unwrap();
    let side = |side: u8, times: usize| (0..5).flat_map(move |n| vec![(side, n.to_string()); times]);
    assert_eq!(sorted(itself.take()), side(1, 1).chain(side(2, 1)).collect::<Vec<_>>());
    assert_eq!(sorted(broadcast.take()), side(1, 1).chain(side(2, 3)).collect::<Vec<_>>());
}

/// Counts the records of a key from both sides.
#[derive(State, Clone, Default)]
struct BothCounts {
    counts: ValueState<(u64, u64)>,
}

impl BothCounts {
    fn count(&self, add: (u64, u64), context: &mut Context<'_, u64, (u64, u64, u64)>) {
        let counts = self.counts.get_or_insert_with(context, || (0, 0));
        *counts = (counts.0 + add.0, counts.1 + add.1);
        let (first, second) = *counts;
        let key = *context.key();
        context.emit((key, first, second));
    }
}

impl KeyedCoProcess<u64, u64, (u64, String)> for BothCounts {
    type Out = (u64, u64, u64);

    fn on_first(&mut self, _: u64, context: &mut Context<'_, u64, Self::Out>) -> Result<(), Failure> {
        self.count((1, 0), context);
        Ok(())
    }

    fn on_second(
        &mut self,
        _: (u64, String),
        context: &mut Context<'_, u64, Self::Out>,
    ) -> Result<(), Failure> {
        self.count((0, 1), context);
        Ok(())
    }
}

#[test]
fn both_inputs_are_exactly_once_with_barriers_that_overtake() {
    const RECORDS: u64 = 20_000;
    const KEYS: u64 = 10;
    let results: Arc<OnceLock<Collected<(u64, u64, u64)>>> = Arc::default();
    let failures = Arc::new(AtomicU32::new(0));
    let cluster = LocalCluster::new()
        .configure("parallelism.default", 2)
        .configure("restart-strategy.type", "fixed-delay")
        .configure("restart-strategy.fixed-delay.attempts", 2)
        .configure("restart-strategy.fixed-delay.delay", "1 ms")
        .configure("execution.checkpointing.interval", "5 ms")
        .configure("execution.checkpointing.unaligned", true);
    let collected = cluster
        .run(|env| {
            let (so_far, failures) = (Arc::clone(&results), Arc::clone(&failures));
            let numbers = env.generate(Some(20_000.0), Some(RECORDS), |number| number).map(move |number| {
                let committed = so_far.get().map_or(0, Collected::len);
                if committed > 0 && failures.fetch_add(1, Ordering::Relaxed) == 0 {
                    panic!("{committed} records are committed");
                }
                number
            });
            let named =
                env.generate(Some(40_000.0), Some(2 * RECORDS), |number| (number % KEYS, "x".to_string()));
            let counts = numbers
                .key_by(|number| number % KEYS)
                .connect(&named.key_by(|named| named.0))
                .process(BothCounts::default())
                .uid("both");
            let collected = counts.collect();
            Ok(results.get_or_init(|| collected).clone())
        })
        .unwrap();
    assert!(failures.load(Ordering::Relaxed) > 1, "it has failed and gone on");
    let collected = collected.take();
    assert_eq!(collected.len() as u64, 3 * RECORDS, "a result for each record, once");
    let mut last: Vec<_> = (0..KEYS)
        .map(|key| collected.iter().filter(|counts| counts.0 == key).max_by_key(|counts| counts.1 + counts.2))
        .map(|counts| *counts.unwrap())
        .collect();
    last.sort_unstable();
    let expected: Vec<_> = (0..KEYS).map(|key| (key, RECORDS / KEYS, 2 * RECORDS / KEYS)).collect();
    assert_eq!(last, expected);
}

/// Emits each rule with the subtask that was told it, and each word with the state of its key.
#[derive(State, Clone, Default)]
struct Ruled {
    count: ValueState<u64>,
}

impl KeyedBroadcastProcess<String, String, u64> for Ruled {
    type Key = u64;
    type Value = u32;
    type Out = (String, u64);

    fn on_record(
        &mut self,
        word: String,
        _: &BroadcastState<u64, u32>,
        context: &mut Context<'_, String, Self::Out>,
    ) -> Result<(), Failure> {
        let count = self.count.get_or_insert_with(context, || 0);
        *count += 1;
        let count = *count;
        context.emit((word, count));
        Ok(())
    }

    fn on_broadcast(
        &mut self,
        rule: u64,
        rules: &mut BroadcastState<u64, u32>,
        context: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<(), Failure> {
        let subtask = context.open_context().subtask_index;
        if rules.insert(rule, subtask).is_none() {
            context.emit((format!("subtask {subtask}"), rule));
        }
        Ok(())
    }
}

#[test]
fn what_is_broadcast_reaches_every_subtask_and_the_rest_its_key() {
    let cluster = LocalCluster::new()
        .configure("parallelism.default", 3)
        .configure("execution.checkpointing.interval", "5 ms")
        .configure("execution.checkpointing.unaligned", true);
    let ruled = cluster
        .run(|env| {
            let words = env.generate(Some(50_000.0), Some(5_000), |number| format!("word {}", number % 5));
            let rules = env.from_iter([7_u64, 8, 7]);
            let words = words.key_by(|word| word.clone()).connect_broadcast(&rules);
            Ok(words.process(Ruled::default()).uid("ruled").collect())
        })
        .unwrap();
    let rules = (0..3).flat_map(|subtask| [7, 8].map(|rule| (format!("subtask {subtask}"), rule)));
    let words = (0..5).flat_map(|word| (1..=1_000).map(move |count| (format!("word {word}"), count)));
    assert_eq!(sorted(ruled.take()), rules.chain(words).collect::<Vec<_>>());
}

/// Keeps every record, and says who its subtask was; emits aside what it is given of that after a restart.
#[derive(Clone, Default)]
struct Kept {
    records: Vec<u64>,
    subtasks: Vec<u32>,
    restored: Vec<u32>,
}

const RESTORED: OutputTag<Vec<u32>> = OutputTag::new("restored");

impl Process<u64> for Kept {
    /// The subtask, and how many records it has.
    type Out = (u32, u64);

    fn open(&mut self, context: &OpenContext) -> Result<(), Failure> {
        self.restored = std::mem::replace(&mut self.subtasks, vec![context.subtask_index]);
        Ok(())
    }

    fn operator_state(&mut self, states: &mut OperatorStates<'_>) {
        states.split_list("records", &mut self.records);
        states.union_list("subtasks", &mut self.subtasks);
    }

    fn on_record(&mut self, record: u64, context: &mut ProcessContext<'_, Self::Out>) -> Result<(), Failure> {
        if !self.restored.is_empty() {
            context.output(&RESTORED, std::mem::take(&mut self.restored));
        }
        self.records.push(record);
        context.emit((context.open_context().subtask_index, self.records.len() as u64));
        Ok(())
    }
}

#[test]
fn what_subtasks_remember_survives_a_failure_by_itself_or_united() {
    const RECORDS: u64 = 20_000;
    let results: Arc<OnceLock<Collected<(u32, u64)>>> = Arc::default();
    let failures = Arc::new(AtomicU32::new(0));
    let cluster = LocalCluster::new()
        .configure("parallelism.default", 2)
        // Both subtasks, which no channel connects.
        .configure("jobmanager.execution.failover-strategy", "full")
        .configure("restart-strategy.type", "fixed-delay")
        .configure("restart-strategy.fixed-delay.attempts", 4)
        .configure("restart-strategy.fixed-delay.delay", "1 ms")
        .configure("execution.checkpointing.interval", "5 ms");
    let (kept, restored) = cluster
        .run(|env| {
            let (so_far, failures) = (Arc::clone(&results), Arc::clone(&failures));
            let numbers = env.generate(Some(20_000.0), Some(RECORDS), |number| number).map(move |number| {
                let committed = so_far.get().map_or(0, Collected::len);
                if committed > 0 && failures.fetch_add(1, Ordering::Relaxed) == 0 {
                    panic!("{committed} records are committed");
                }
                number
            });
            let kept = numbers.process(Kept::default()).uid("kept");
            let collected = kept.collect();
            Ok((results.get_or_init(|| collected).clone(), kept.side_output(&RESTORED).collect()))
        })
        .unwrap();
    assert!(failures.load(Ordering::Relaxed) > 1, "it has failed and gone on");
    assert_eq!(restored.take(), vec![vec![0, 1]; 2], "each subtask was given the lists of both");
    let kept = sorted(kept.take());
    assert_eq!(kept.len() as u64, RECORDS);
    for subtask in [0, 1] {
        let counts: Vec<u64> = kept.iter().filter(|kept| kept.0 == subtask).map(|kept| kept.1).collect();
        assert_eq!(counts, (1..=counts.len() as u64).collect::<Vec<_>>());
    }
}
