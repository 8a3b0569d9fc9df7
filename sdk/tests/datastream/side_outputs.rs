//! Side outputs through whole jobs: chained and over edges, of functions with state and without.

use thalweg::prelude::*;
use thalweg::testing::{LocalCluster, run_local};

const RECORDS: u64 = 10_000;

const ODD: OutputTag<u64> = OutputTag::new("odd");
const NAMES: OutputTag<String> = OutputTag::new("names");

/// Odd numbers aside.
#[derive(Clone)]
struct Sort;

impl Process<u64> for Sort {
    type Out = u64;

    fn on_record(&mut self, number: u64, context: &mut ProcessContext<'_, u64>) -> Result<(), Failure> {
        if number.is_multiple_of(2) {
            context.emit(number);
        } else {
            context.output(&ODD, number);
        }
        Ok(())
    }
}

/// Numbers each record of a key, and names every hundredth.
#[derive(State, Clone, Default)]
struct Numbered {
    count: ValueState<u64>,
}

impl KeyedProcess<u64, u64> for Numbered {
    type Out = (u64, u64);

    fn on_record(&mut self, number: u64, context: &mut Context<'_, u64, Self::Out>) -> Result<(), Failure> {
        let count = self.count.get_or_insert_with(context, || 0);
        *count += 1;
        let count = *count;
        if count.is_multiple_of(100) {
            context.output(&NAMES, format!("{} of {}", count, context.key()));
        }
        context.emit((number, count));
        Ok(())
    }
}

fn sorted<T: Ord>(mut records: Vec<T>) -> Vec<T> {
    records.sort();
    records
}

#[test]
fn every_reader_gets_what_its_tag_says_chained_or_not() {
    for chaining in [true, false] {
        let cluster = LocalCluster::new()
            .configure("parallelism.default", 2)
            .configure("pipeline.operator-chaining.enabled", chaining)
            .configure("execution.checkpointing.interval", "50 ms");
        let (even, odd, again, names, counted) = cluster
            .run(|env| {
                let sorted = env.from_iter(0..RECORDS).rebalance().process(Sort);
                let odd = sorted.side_output(&ODD);
                let numbered = odd.key_by(|number| number % 10).process(Numbered::default()).uid("numbered");
                let names = numbered.side_output(&NAMES).collect();
                // A stream of a tag that is declared, and that nobody reads.
                let _unread = numbered.side_output(&OutputTag::<u64>::new("unread"));
                Ok((sorted.collect(), odd.collect(), odd.rebalance().collect(), names, numbered.collect()))
            })
            .unwrap();
        let numbers = |rest| (0..RECORDS).filter(|number| number % 2 == rest).collect::<Vec<_>>();
        assert_eq!(sorted(even.take()), numbers(0));
        assert_eq!(sorted(odd.take()), numbers(1));
        assert_eq!(sorted(again.take()), numbers(1));
        assert_eq!(counted.take().len() as u64, RECORDS / 2);
        let keys = [1, 3, 5, 7, 9];
        let expected =
            keys.iter().flat_map(|key| (1..=10).map(move |hundred| format!("{} of {key}", hundred * 100)));
        assert_eq!(sorted(names.take()), sorted(expected.collect()));
    }
}

#[test]
fn a_side_output_may_be_united_keyed_and_distributed() {
    let counts = run_local(|env| {
        let sorted = env.from_iter(0..100_u64).process(Sort);
        let both = sorted.side_output(&ODD).union(&sorted);
        Ok(both.key_by(|number| number % 4).count().uid("count").collect())
    })
    .unwrap();
    let finals = counts.take().into_iter().filter(|(_, count)| *count == 25).map(|(key, _)| key);
    assert_eq!(sorted(finals.collect::<Vec<_>>()), [0, 1, 2, 3]);
}

#[test]
fn what_cannot_be_read_is_refused_with_its_place() {
    let refused = |topology: &dyn Fn(&mut Environment)| {
        let error = run_local(|env| {
            topology(env);
            Ok(())
        });
        error.unwrap_err().to_string()
    };
    let two_types = refused(&|env| {
        let sorted = env.from_iter(0..10_u64).process(Sort);
        sorted.side_output(&ODD).print();
        sorted.side_output(&OutputTag::<String>::new("odd")).print();
    });
    assert!(two_types.contains("the side output `odd` has records of `u64` at "), "{two_types}");
    // The place of the second reader, and those of both tags.
    assert_eq!(two_types.matches("side_outputs.rs:").count(), 3, "{two_types}");

    let none = refused(&|env| {
        env.from_iter(0..10_u64).map(|number| number).side_output(&ODD).print();
    });
    assert!(none.contains("side_outputs.rs:") && none.contains("Map emits to no side outputs"), "{none}");

    let twice = refused(&|env| {
        env.from_iter(0..10_u64).process(Sort).side_output(&ODD).side_output(&ODD).print();
    });
    assert!(twice.contains("side_output() is for the operator right before it"), "{twice}");

    // What the function emits is only known when it does.
    let emitted = refused(&|env| {
        env.from_iter(0..10_u64).process(Sort).side_output(&OutputTag::<String>::new("odd")).print();
    });
    assert!(emitted.contains("`u64`") && emitted.contains("give the tags different names"), "{emitted}");
}
