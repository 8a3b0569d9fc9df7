//! Timestamps beside the records: every operator gives what comes of a record the timestamp of that record.

use std::convert::Infallible;

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_runtime::batch::{Batch, NO_TIMESTAMP};
use thalweg_runtime::operator::{
    Context, KeyedProcess, MergeAggregate, Sink, SinkContext, Source, SourceContext, SourceStatus,
};
use thalweg_runtime::operators::{self, CombinePolicy, MergedReduce};
use thalweg_runtime::program::{OperatorFactory, Polled};
use thalweg_runtime::testing::{OperatorHarness, Setup, SourceHarness};
use thalweg_state::{State, ValueState};

/// What an operator makes of a batch with these timestamps: each output with its own.
fn run<In: 'static, Out: Record>(
    operator: &dyn OperatorFactory,
    records: Vec<In>,
    timestamps: &[Timestamp],
) -> Vec<(Out, Option<Timestamp>)> {
    let mut harness = OperatorHarness::<In, Out>::open(operator, Setup::default()).unwrap();
    harness.push_batch(Batch::from_parts(records, timestamps.to_vec())).unwrap();
    harness.flush().unwrap();
    harness.output_batch().drain_with_timestamps().collect()
}

#[test]
fn stateless_operators_keep_the_timestamp_of_their_input() {
    let numbers = || vec![1_u64, 2, 3, 4];
    let stamps = [10, NO_TIMESTAMP, 30];
    let mapped = vec![(2_u64, Some(10)), (3, None), (4, Some(30)), (5, None)];
    assert_eq!(run(operators::map(|n: u64| n + 1).as_ref(), numbers(), &stamps), mapped);
    let try_map = operators::try_map(|n: u64| Ok::<_, Infallible>(n + 1));
    assert_eq!(run(try_map.as_ref(), numbers(), &stamps), mapped);

    let kept = vec![(2_u64, None), (3, Some(30))];
    let is_kept = |n: &u64| (2..4).contains(n);
    assert_eq!(run(operators::filter(is_kept).as_ref(), numbers(), &stamps), kept);
    let try_filter = operators::try_filter(move |n: &u64| Ok::<_, Infallible>(is_kept(n)));
    assert_eq!(run(try_filter.as_ref(), numbers(), &stamps), kept);

    let many = vec![(0_u64, None), (1, None), (0, Some(30)), (1, Some(30)), (2, Some(30))];
    let range = |n: u64| 0..if n == 1 || n == 4 { 0 } else { n };
    assert_eq!(run(operators::flat_map(range).as_ref(), numbers(), &stamps), many);
    let try_flat_map = operators::try_flat_map(move |n: u64| Ok::<_, Infallible>(range(n)));
    assert_eq!(run(try_flat_map.as_ref(), numbers(), &stamps), many);
}

#[test]
fn what_becomes_many_batches_keeps_its_timestamp_in_each() {
    let many: Vec<(u64, _)> = run(operators::flat_map(|n: u64| 0..n).as_ref(), vec![5_000_u64], &[7]);
    assert_eq!(many.len(), 5_000);
    assert!(many.iter().all(|(_, timestamp)| *timestamp == Some(7)));
}

#[test]
fn without_timestamps_there_are_none_behind_those_with_some() {
    let mut harness =
        OperatorHarness::<u64, u64>::open(operators::map(|n: u64| n).as_ref(), Setup::default()).unwrap();
    harness.push_batch(Batch::from_parts(vec![1], vec![5])).unwrap();
    harness.push(vec![2]).unwrap();
    assert_eq!(harness.output_batch(), Batch::from_parts(vec![1, 2], vec![5, NO_TIMESTAMP]));
    harness.push(vec![3]).unwrap();
    assert_eq!(harness.output_batch(), Batch::from(vec![3]));
}

/// Emits the timestamp that it is told, beside what it has seen of the key, and says so at the end.
#[derive(State, Clone, Default)]
#[state(crate = crate::krate)]
struct Tell {
    seen: ValueState<u64>,
}

impl KeyedProcess<u64, u64> for Tell {
    type Out = (u64, Option<Timestamp>);

    fn on_record(&mut self, n: u64, context: &mut Context<'_, u64, Self::Out>) -> Result<(), Failure> {
        self.seen.set(context, n);
        for _ in 0..2 {
            context.emit((n, context.timestamp()));
        }
        Ok(())
    }

    fn on_end(&mut self, context: &mut Context<'_, u64, Self::Out>) -> Result<(), Failure> {
        context.emit((*context.key(), context.timestamp()));
        Ok(())
    }
}

#[test]
fn functions_on_keys_see_the_timestamp_and_pass_it_on() {
    let tell = operators::keyed_process(|n: &u64| n % 2, Tell::default());
    let mut harness = OperatorHarness::open(tell.as_ref(), Setup::default()).unwrap();
    // More than one lookup ahead, with and without timestamps.
    let records: Vec<u64> = (0..200).collect();
    let stamps: Vec<Timestamp> = (0..150).map(|n| if n % 3 == 0 { NO_TIMESTAMP } else { n * 10 }).collect();
    let expected = |n: u64| (n < 150 && !n.is_multiple_of(3)).then_some(n as Timestamp * 10);
    harness.push_batch(Batch::from_parts(records, stamps)).unwrap();
    let told: Vec<((u64, _), _)> = harness.output_batch().drain_with_timestamps().collect();
    let twice = (0..200).flat_map(|n| [((n, expected(n)), expected(n)); 2]);
    assert_eq!(told, twice.collect::<Vec<_>>());
    harness.end().unwrap();
    let mut told: Vec<((u64, _), _)> = harness.output_batch().drain_with_timestamps().collect();
    told.sort_unstable();
    assert_eq!(told, [((0, None), None), ((1, None), None)], "the end has no time");
}

/// Adds up.
#[derive(Clone)]
struct Sum;

impl MergeAggregate<u64> for Sum {
    type Accumulator = u64;
    type Out = u64;

    fn create(&self) -> u64 {
        0
    }

    fn add(&self, sum: &mut u64, n: u64) {
        *sum += n;
    }

    fn merge(&self, sum: &mut u64, later: u64) {
        *sum += later;
    }

    fn result(&self, sum: &u64) -> u64 {
        *sum
    }
}

#[test]
fn aggregates_keep_timestamps_in_one_stage_and_the_latest_in_two() {
    let records = || vec![2_u64, 3, 4, 5];
    let stamps = [10, NO_TIMESTAMP, 5];
    let sums = vec![(2_u64, Some(10)), (3, None), (6, Some(5)), (8, None)];
    let parity = |n: &u64| n % 2;
    assert_eq!(run(operators::reduce(parity, |a: u64, b| a + b).as_ref(), records(), &stamps), sums);

    let always = CombinePolicy::Always;
    let latest = vec![((0_u64, 6_u64), Some(10)), ((1, 8), None)];
    assert_eq!(run(operators::combine_aggregate(parity, Sum, always).as_ref(), records(), &stamps), latest);
    let combine = operators::combine_reduce(parity, |a: u64, b| a + b, always);
    assert_eq!(run(combine.as_ref(), records(), &stamps), latest);
    let merge = operators::keyed_process(|pair: &(u64, u64)| pair.0, MergedReduce::new(|a: u64, b| a + b));
    let merged: Vec<(u64, _)> = run(merge.as_ref(), vec![(0_u64, 6_u64), (1, 8)], &[10]);
    assert_eq!(merged, [(6, Some(10)), (8, None)]);
}

#[test]
fn a_combiner_that_passes_records_on_keeps_their_timestamps() {
    let combine =
        operators::combine_reduce(|n: &u64| *n, |a: u64, b: u64| a.max(b), CombinePolicy::WhilePaying);
    let mut harness = OperatorHarness::<u64, (u64, u64)>::open(combine.as_ref(), Setup::default()).unwrap();
    // No key comes twice: it gives up on the way.
    for first in (0..200_000_u64).step_by(1_000) {
        let records: Vec<u64> = (first..first + 1_000).collect();
        let stamps = records.iter().map(|n| *n as Timestamp).collect();
        harness.push_batch(Batch::from_parts(records, stamps)).unwrap();
    }
    harness.flush().unwrap();
    let mut output = harness.output_batch();
    assert_eq!(output.len(), 200_000);
    assert!(output.drain_with_timestamps().all(|((n, _), timestamp)| timestamp == Some(n as Timestamp)));
}

/// Gives every other record a timestamp.
#[derive(Clone, Default)]
struct EveryOther {
    next: u64,
}

impl Source for EveryOther {
    type Out = u64;

    fn open(&mut self, _: &SourceContext, _: Option<&[u8]>) -> Result<(), Failure> {
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<u64>, max: usize) -> Result<SourceStatus, Failure> {
        for _ in 0..max.min(10) {
            match self.next % 2 {
                0 => out.push(self.next),
                _ => out.push_with_timestamp(self.next, self.next as Timestamp),
            }
            self.next += 1;
        }
        Ok(if self.next < 100 { SourceStatus::Ready } else { SourceStatus::Finished })
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, Failure> {
        Ok(Vec::new())
    }
}

#[test]
fn sources_give_timestamps() {
    let source = operators::source(EveryOther::default());
    let mut harness = SourceHarness::<u64>::open(source.as_ref(), Setup::default()).unwrap();
    assert_eq!(harness.poll_all(), Ok(Polled::EndOfInput));
    let seen: Vec<_> = harness.output_batch().drain_with_timestamps().collect();
    let expected = |n: u64| (n, (n % 2 == 1).then_some(n as Timestamp));
    assert_eq!(seen, (0..seen.len() as u64).map(expected).collect::<Vec<_>>());
    assert!(seen.len() >= 100);
}

/// Takes only records that are told their own value as their time.
#[derive(Clone)]
struct Strict;

impl Sink<i64> for Strict {
    type Committable = ();

    fn open(&mut self, _: &SinkContext) -> Result<(), Failure> {
        Ok(())
    }

    fn write(&mut self, batch: &mut Batch<i64>) -> Result<(), Failure> {
        let is_right = batch.drain_with_timestamps().all(|(n, timestamp)| timestamp == Some(n));
        if is_right { Ok(()) } else { Err(Failure::user("wrong timestamp")) }
    }
}

#[test]
fn sinks_see_timestamps() {
    let sink = operators::sink(Strict);
    let mut harness = OperatorHarness::<i64>::open_sink(sink.as_ref(), Setup::default()).unwrap();
    assert_eq!(harness.push_batch(Batch::from_parts(vec![1, 2], vec![1, 2])), Ok(()));
    assert!(harness.push_batch(Batch::from_parts(vec![1, 2], vec![1, 3])).is_err());
    assert!(harness.push(vec![1]).is_err());
}
