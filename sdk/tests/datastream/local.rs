//! Jobs that run in this process, through a real job manager, task manager and worker.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use thalweg::prelude::*;
use thalweg::testing::{LocalCluster, run_local};

fn sorted<T: Ord>(mut records: Vec<T>) -> Vec<T> {
    records.sort();
    records
}

/// Runs at parallelism 1 and 4 and gives both results.
fn at_1_and_4<T: thalweg::Record + Ord>(topology: fn(&mut Environment) -> Collected<T>) -> Vec<Vec<T>> {
    let run = |parallelism: u32| {
        let cluster = LocalCluster::new().configure("parallelism.default", parallelism);
        sorted(cluster.run(|env| Ok(topology(env))).unwrap().take())
    };
    vec![run(1), run(4)]
}

#[test]
fn stateless_operators() {
    let results = at_1_and_4(|env| {
        env.from_iter(0..100_u64)
            .rebalance()
            .map(|number| number * 2)
            .filter(|number| number % 3 == 0)
            .flat_map(|number| [number, number + 1])
            .collect()
    });
    let expected: Vec<u64> = (0..100)
        .map(|number| number * 2)
        .filter(|number| number % 3 == 0)
        .flat_map(|number| [number, number + 1])
        .collect();
    assert_eq!(results, [expected.clone(), expected]);
}

#[test]
fn the_order_of_a_single_subtask_is_kept() {
    let collected =
        run_local(|env| Ok(env.from_iter(0..10_000_u64).map(|number| number + 1).collect())).unwrap();
    assert_eq!(collected.take(), (1..=10_000).collect::<Vec<u64>>());
}

#[test]
fn counts_sums_and_reductions_by_key() {
    let counts = at_1_and_4(|env| {
        env.from_iter(0..1000_u64).key_by(|number| number % 7).count().uid("count").collect()
    });
    let expected = sorted((0..1000_u64).map(|number| (number % 7, number / 7 + 1)).collect());
    assert_eq!(counts, [expected.clone(), expected]);

    let sums = at_1_and_4(|env| {
        env.from_iter(1..=4_u64).key_by(|_| 0_u8).sum_by(|number| *number).uid("sum").collect()
    });
    let expected = vec![(0, 1), (0, 3), (0, 6), (0, 10)];
    assert_eq!(sums, [expected.clone(), expected]);

    let maxima = at_1_and_4(|env| {
        env.from_iter([3_u64, 9, 4, 8]).key_by(|number| number % 2).reduce(u64::max).uid("max").collect()
    });
    assert_eq!(maxima, [vec![3, 4, 8, 9], vec![3, 4, 8, 9]]);
}

/// The mean of the numbers so far.
#[derive(Clone)]
struct Mean;

impl Aggregate<u64> for Mean {
    type Accumulator = (u64, u64);
    type Out = u64;

    fn create(&self) -> (u64, u64) {
        (0, 0)
    }

    fn add(&self, accumulator: &mut (u64, u64), number: u64) {
        accumulator.0 += number;
        accumulator.1 += 1;
    }

    fn result(&self, accumulator: &(u64, u64)) -> u64 {
        accumulator.0 / accumulator.1
    }
}

#[test]
fn aggregates_of_the_authors_own() {
    let means = at_1_and_4(|env| {
        env.from_iter([10_u64, 20, 60]).key_by(|_| String::from("all")).aggregate(Mean).uid("mean").collect()
    });
    let expected = vec![("all".to_string(), 10), ("all".to_string(), 15), ("all".to_string(), 30)];
    assert_eq!(means, [expected.clone(), expected]);
}

/// Emits a word when it comes for the first time after another one.
#[derive(State, Clone, Default)]
struct Changes {
    last: ValueState<String>,
    seen: MapState<String, u64>,
}

impl KeyedProcess<u8, String> for Changes {
    type Out = (String, u64);

    fn on_record(&mut self, word: String, context: &mut Context<'_, u8, Self::Out>) -> Result<(), Failure> {
        if self.last.get(context) != Some(&word) {
            self.last.set(context, word.clone());
            self.seen.update(context, word.clone(), |times| Some(times.unwrap_or(0) + 1));
            let times = self.seen.get(context, &word).copied().or_failure("the word was just counted")?;
            context.emit((word, times));
        }
        Ok(())
    }
}

#[test]
fn a_function_with_value_and_map_state() {
    let results = at_1_and_4(|env| {
        let words = ["a", "a", "b", "a", "b", "b"].map(String::from);
        env.from_iter(words).key_by(|_| 0_u8).process(Changes::default()).uid("changes").collect()
    });
    let expected = sorted(
        [("a", 1), ("b", 1), ("a", 2), ("b", 2)].map(|(word, times)| (word.to_string(), times)).into(),
    );
    assert_eq!(results, [expected.clone(), expected]);
}

#[test]
fn union_of_streams_and_one_stream_read_twice() {
    let results = at_1_and_4(|env| {
        let (low, high) = (env.from_iter(0..10_u64), env.from_iter(100..110_u64));
        let all = low.union(&high).map(|number| number);
        all.map(|number| number + 1).union(&all).collect()
    });
    let all = (0..10_u64).chain(100..110);
    let expected = sorted(all.clone().chain(all.map(|number| number + 1)).collect());
    assert_eq!(results, [expected.clone(), expected]);
}

/// How many records each subtask gets, by a map that remembers nothing but adds the thread it ran in.
fn distribution(topology: fn(DataStream<u64>) -> DataStream<u64>) -> BTreeMap<u64, usize> {
    let cluster = LocalCluster::new().configure("parallelism.default", 4);
    let collected =
        cluster.run(|env| Ok(topology(env.from_iter(0..4000_u64).set_parallelism(2)).collect())).unwrap();
    collected.take().into_iter().fold(BTreeMap::new(), |mut counts, number| {
        *counts.entry(number).or_default() += 1;
        counts
    })
}

#[test]
fn rebalance_rescale_and_broadcast_reach_the_right_number_of_subtasks() {
    let once: BTreeMap<u64, usize> = (0..4000).map(|number| (number, 1)).collect();
    let four_times: BTreeMap<u64, usize> = (0..4000).map(|number| (number, 4)).collect();
    assert_eq!(distribution(|numbers| numbers.rebalance().map(|number| number)), once);
    assert_eq!(distribution(|numbers| numbers.rescale().map(|number| number)), once);
    assert_eq!(distribution(|numbers| numbers.broadcast().map(|number| number)), four_times);
}

#[test]
fn chaining_changes_nothing_but_the_tasks() {
    for chaining in ["true", "false"] {
        let cluster = LocalCluster::new().configure("pipeline.operator-chaining.enabled", chaining);
        let collected =
            cluster.run(|env| Ok(env.from_iter(0..5_u64).map(|n| n + 1).map(|n| n * 2).collect())).unwrap();
        assert_eq!(collected.take(), [2, 4, 6, 8, 10], "chaining {chaining}");
    }
}

#[test]
fn slots_of_their_own_are_there_for_other_groups() {
    let collected = run_local(|env| {
        env.set_parallelism(2);
        let numbers = env.from_iter(0..100_u64).slot_sharing_group("input").map(|number| number);
        Ok(numbers.slot_sharing_group("work").collect())
    });
    assert_eq!(collected.unwrap().take().len(), 100);
}

#[test]
fn a_generator_makes_each_number_once() {
    let results = at_1_and_4(|env| env.generate(None, Some(5000), |number| number).collect());
    let expected: Vec<u64> = (0..5000).collect();
    assert_eq!(results, [expected.clone(), expected]);
}

#[test]
fn a_topology_without_records_ends() {
    let collected =
        run_local(|env| Ok(env.from_iter(Vec::<u64>::new()).key_by(|n| *n).count().collect())).unwrap();
    assert!(collected.is_empty());
}

#[test]
fn an_output_that_nobody_reads_runs_all_the_same() {
    let seen = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&seen);
    run_local(|env| {
        let numbers = env.from_iter(0..10_u64);
        let _unread = numbers.map(move |number| {
            counter.fetch_add(1, Ordering::Relaxed);
            number
        });
        Ok(numbers.collect())
    })
    .unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 10);
}

#[test]
fn a_panic_in_user_code_is_the_jobs_error() {
    let error = run_local(|env| {
        env.from_iter(0..10_u64)
            .map(|number| if number == 5 { panic!("five is too much") } else { number })
            .collect();
        Ok(())
    })
    .unwrap_err();
    assert!(error.to_string().contains("five is too much"), "{error}");
}

#[test]
fn an_error_in_user_code_is_the_jobs_error_with_the_operators_name() {
    let error = run_local(|env| {
        let texts = env.from_iter(["1", "two"].map(String::from));
        texts.try_map(|text| text.parse::<u64>()).name("numbers").collect();
        Ok(())
    })
    .unwrap_err();
    assert!(error.to_string().contains("numbers: invalid digit found in string"), "{error}");
}

fn with_three_restarts() -> LocalCluster {
    LocalCluster::new()
        .configure("restart-strategy.type", "fixed-delay")
        .configure("restart-strategy.fixed-delay.attempts", 3)
        .configure("restart-strategy.fixed-delay.delay", "1 ms")
}

#[test]
fn without_checkpoints_a_restart_begins_anew_and_nothing_is_doubled() {
    let failures = Arc::new(AtomicU32::new(0));
    let collected = with_three_restarts()
        .configure("parallelism.default", 2)
        .run(|env| {
            let failures = Arc::clone(&failures);
            let numbers = env.generate(None, Some(4000), |number| number).map(move |number| {
                let failed = failures.load(Ordering::Relaxed);
                if number == u64::from(failed + 1) * 1000 && failed < 3 {
                    failures.fetch_add(1, Ordering::Relaxed);
                    panic!("failure {failed} at {number}");
                }
                number
            });
            Ok(numbers.key_by(|number| number % 10).count().uid("count").collect())
        })
        .unwrap();
    assert_eq!(failures.load(Ordering::Relaxed), 3);
    let expected = sorted((0..4000_u64).map(|number| (number % 10, number / 10 + 1)).collect());
    assert_eq!(sorted(collected.take()), expected);
}

#[test]
fn with_checkpoints_a_restart_goes_on_from_the_last_one() {
    const RECORDS: u64 = 30_000;
    let results: Arc<OnceLock<Collected<(u64, u64)>>> = Arc::default();
    let processed = Arc::new(AtomicU64::new(0));
    // At each failure, how many records had been read and how many of them were committed.
    let failures: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
    let cluster = with_three_restarts().configure("execution.checkpointing.interval", "5 ms");
    let collected = cluster
        .run(|env| {
            let (results_so_far, processed) = (Arc::clone(&results), Arc::clone(&processed));
            let failures = Arc::clone(&failures);
            // Slow enough for many checkpoints; fails as soon as another one was committed.
            let numbers = env.generate(Some(20_000.0), Some(RECORDS), |number| number).map(move |number| {
                processed.fetch_add(1, Ordering::Relaxed);
                let committed = results_so_far.get().map_or(0, |results| results.len() as u64);
                let mut failures = failures.lock().unwrap();
                let known = failures.last().map_or(0, |(_, committed)| *committed);
                if failures.len() < 3 && committed > known {
                    failures.push((number + 1, committed));
                    drop(failures);
                    panic!("{committed} of {} records are committed", number + 1);
                }
                number
            });
            let collected = numbers.key_by(|number| number % 10).count().uid("count").collect();
            Ok(results.get_or_init(|| collected).clone())
        })
        .unwrap();
    let expected = sorted((0..RECORDS).map(|number| (number % 10, number / 10 + 1)).collect());
    assert_eq!(sorted(collected.take()), expected);
    let failures = failures.lock().unwrap();
    assert_eq!(failures.len(), 3);
    let uncommitted: u64 = failures.iter().map(|(read, committed)| read - committed).sum();
    let again = processed.load(Ordering::Relaxed) - RECORDS;
    assert!(again <= uncommitted, "{again} records were read again, {uncommitted} were not committed");
}

#[test]
fn arguments_reach_the_topology() {
    let cluster = LocalCluster::new().arguments(["--count", "3"]);
    let collected = cluster
        .run(|env| {
            let count: u64 = env.args()[1].parse()?;
            Ok(env.from_iter(0..count).collect())
        })
        .unwrap();
    assert_eq!(collected.take(), [0, 1, 2]);
}

#[test]
fn mistakes_in_a_topology_name_file_and_line() {
    let no_sink = run_local(|env| {
        env.from_iter(0..3_u64);
        Ok(())
    });
    assert!(no_sink.unwrap_err().to_string().contains("add .print() or .sink(..)"));

    let misplaced = run_local(|env| {
        env.from_iter(0..3_u64).rebalance().uid("numbers").collect();
        Ok(())
    });
    let error = misplaced.unwrap_err().to_string();
    assert!(error.starts_with("sdk/tests/datastream/local.rs:"), "{error}");
    assert!(error.contains("uid() is for the operator right before it"), "{error}");

    let unknown = run_local(|env| {
        env.configure("paralelism.default", 4);
        env.from_iter(0..3_u64).collect();
        Ok(())
    });
    let error = unknown.unwrap_err().to_string();
    assert!(
        error.starts_with("sdk/tests/datastream/local.rs:")
            && error.contains("did you mean `parallelism.default`?"),
        "{error}"
    );
}
