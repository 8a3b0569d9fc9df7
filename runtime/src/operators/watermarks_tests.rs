//! Tests of the operator that makes watermarks: what goes where among the records, by the clock, per split.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Mutex;

use thalweg_common::clock::{Clock, ManualClock};

use super::*;
use crate::operator::{SourceContext, SourceStatus};
use crate::program::{AnyLink, Head, Polled, SourceFactory};
use crate::split::{SourceReader, SourceSplit, SplitSource};
use crate::testing::Setup;
use crate::time::{BoundedOutOfOrderness, SplitReport};
use Seen::{Record, Status, Watermark};
use WatermarkStatus::{Active, Idle};

/// A record: a name and when it happened.
type Happening = (char, i64);

/// What comes out, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Record(char, Option<i64>),
    Watermark(i64),
    Status(WatermarkStatus),
    End,
}

#[derive(Clone, Default)]
struct Log {
    seen: Arc<Mutex<Vec<Seen>>>,
    is_blocked: Arc<Mutex<bool>>,
}

impl Log {
    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    fn add(&self, seen: Seen) -> Result<(), Failure> {
        self.seen.lock().unwrap().push(seen);
        Ok(())
    }
}

impl Link<Happening> for Log {
    fn process(&mut self, batch: &mut Batch<Happening>) -> Result<(), Failure> {
        assert!(!batch.is_empty());
        batch.drain_with_timestamps().try_for_each(|((name, _), timestamp)| self.add(Record(name, timestamp)))
    }

    fn watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure> {
        self.add(Watermark(timestamp))
    }

    fn watermark_status(&mut self, status: WatermarkStatus) -> Result<(), Failure> {
        self.add(Status(status))
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.add(Seen::End)
    }

    fn snapshot(&mut self, _: Barrier, _: &mut SnapshotBuilder) -> Result<(), Failure> {
        Ok(())
    }

    fn completed(&mut self, _: CheckpointId) -> Result<(), Failure> {
        Ok(())
    }

    fn aborted(&mut self, _: CheckpointId) -> Result<(), Failure> {
        Ok(())
    }

    fn flush(&mut self, _: bool) -> Result<Flushed, Failure> {
        Ok(if *self.is_blocked.lock().unwrap() { Flushed::Blocked } else { Flushed::All })
    }
}

/// An operator under a clock that the test moves.
struct Bench {
    clock: Arc<ManualClock>,
    alarm: Draining,
    link: Box<dyn Link<Happening>>,
    log: Log,
}

impl Bench {
    fn new<G, A>(strategy: WatermarkStrategy<G, A>) -> Self
    where
        G: WatermarkGenerator<Happening>,
        A: TimestampAssigner<Happening>,
    {
        let (clock, log) = (Arc::new(ManualClock::new(50_000)), Log::default());
        let setup = Setup { clock: clock.clone(), ..Setup::default() };
        let alarm = setup.stores().draining();
        let factory = watermarks::<Happening, G, A>(strategy);
        let next = AnyLink::new::<Happening>(Box::new(log.clone()));
        let link = factory.build(&mut setup.operator_context(), Some(next)).unwrap().typed().unwrap();
        Self { clock, alarm, link, log }
    }

    fn push(&mut self, records: &[Happening]) {
        self.link.process(&mut Batch::from(records.to_vec())).unwrap();
    }

    /// Lets time pass as a task with nothing to read does: it sleeps until the operator wants to be flushed, then finds nothing.
    fn pass(&mut self, time: Duration) {
        let end = self.clock.monotonic() + time;
        loop {
            self.alarm.begin();
            self.link.flush(true).unwrap();
            let now = self.clock.monotonic();
            let wake = self.alarm.alarm().filter(|wake| *wake <= end);
            let Some(wake) = wake.filter(|_| now < end) else { break };
            self.clock.advance(wake.saturating_sub(now).max(Duration::from_micros(1)));
        }
        self.clock.advance(end - self.clock.monotonic());
    }
}

fn timed<G>(strategy: WatermarkStrategy<G>) -> WatermarkStrategy<G, impl TimestampAssigner<Happening>> {
    strategy.timestamps(|record: &Happening| record.1)
}

const INTERVAL: Duration = Duration::from_millis(200);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn a_watermark_comes_with_the_interval_and_only_if_it_has_risen() {
    let strategy = WatermarkStrategy::for_bounded_out_of_orderness(ms(30));
    let mut bench = Bench::new(timed(strategy));
    bench.push(&[('a', 1_000), ('b', 990)]);
    bench.pass(ms(199));
    assert_eq!(bench.log.take(), [Record('a', Some(1_000)), Record('b', Some(990))]);
    bench.pass(ms(1));
    bench.link.flush(false).unwrap();
    assert_eq!(bench.log.take(), [Watermark(969)]);
    bench.push(&[('c', 999)]);
    bench.pass(3 * INTERVAL);
    assert_eq!(bench.log.take(), [Record('c', Some(999))]);
    bench.push(&[('d', 2_000), ('e', 5_000)]);
    bench.pass(INTERVAL);
    bench.link.flush(false).unwrap();
    assert_eq!(bench.log.take()[2..], [Watermark(4_969)]);
}

#[test]
fn timestamps_of_the_source_are_kept_and_watermarks_from_before_end_here() {
    let mut bench = Bench::new(WatermarkStrategy::for_monotonous_timestamps());
    bench.link.process(&mut Batch::from_parts(vec![('a', 0)], vec![77])).unwrap();
    bench.link.watermark(1_000_000).unwrap();
    bench.link.watermark_status(Idle).unwrap();
    bench.pass(INTERVAL);
    bench.link.flush(false).unwrap();
    assert_eq!(bench.log.take(), [Record('a', Some(77)), Watermark(76)]);
    bench.link.watermark(MAX_WATERMARK).unwrap();
    bench.link.finish().unwrap();
    bench.pass(3 * INTERVAL);
    assert_eq!(
        bench.log.take(),
        [Watermark(MAX_WATERMARK), Seen::End],
        "the last one, and nothing behind it"
    );
}

#[test]
fn without_watermarks_only_the_end_is_told() {
    let mut bench = Bench::new(timed(WatermarkStrategy::no_watermarks()));
    bench.push(&[('a', 1)]);
    bench.pass(3 * INTERVAL);
    bench.link.watermark(MAX_WATERMARK).unwrap();
    assert_eq!(bench.log.take(), [Record('a', Some(1)), Watermark(MAX_WATERMARK)]);
}

/// Emits behind records with a capital name; idle behind `Z`.
#[derive(Clone)]
struct Punctuated;

impl WatermarkGenerator<Happening> for Punctuated {
    fn on_event(&mut self, record: &Happening, timestamp: Timestamp, output: &mut WatermarkOutput) {
        match record.0 {
            'Z' => output.mark_idle(),
            name if name.is_uppercase() => output.emit_watermark(timestamp),
            _ => {}
        }
    }

    fn on_periodic_emit(&mut self, _: &mut WatermarkOutput) {}
}

#[test]
fn a_punctuated_watermark_is_directly_behind_its_record() {
    let mut bench = Bench::new(timed(WatermarkStrategy::for_generator(Punctuated)));
    bench.push(&[
        ('a', 1),
        ('B', 2),
        ('c', 3),
        ('D', 1),
        ('E', 5),
        ('f', 6),
        ('Z', 7),
        ('g', 8),
        ('H', i64::MAX),
    ]);
    let record = |name, timestamp| Record(name, Some(timestamp));
    let expected = [
        record('a', 1),
        record('B', 2),
        Watermark(2),
        record('c', 3),
        record('D', 1),
        record('E', 5),
        Watermark(5),
        record('f', 6),
        record('Z', 7),
        Status(Idle),
        record('g', 8),
        record('H', i64::MAX),
        Status(Active),
        Watermark(MAX_WATERMARK - 1),
    ];
    assert_eq!(bench.log.take(), expected);
}

#[test]
fn who_is_silent_for_long_enough_is_idle_and_the_next_record_is_behind_its_return() {
    let strategy = WatermarkStrategy::for_monotonous_timestamps().with_idleness(ms(1_500));
    let mut bench = Bench::new(timed(strategy));
    bench.pass(ms(1_499));
    bench.clock.advance(ms(1));
    bench.link.flush(false).unwrap();
    assert_eq!(bench.log.take(), [], "there may be something to read");
    bench.link.flush(true).unwrap();
    assert_eq!(bench.log.take(), [Status(Idle)], "from the start on");
    bench.push(&[('a', 10)]);
    assert_eq!(bench.log.take(), [Status(Active), Record('a', Some(10))]);
    bench.pass(ms(1_499));
    assert_eq!(bench.log.take(), [Watermark(9)]);
    bench.push(&[('b', 20)]);
    bench.pass(ms(1_501));
    assert_eq!(bench.log.take(), [Record('b', Some(20)), Watermark(19), Status(Idle)]);
    bench.link.watermark(MAX_WATERMARK).unwrap();
    assert_eq!(bench.log.take(), [Status(Active), Watermark(MAX_WATERMARK)]);
}

#[test]
fn while_the_output_is_full_nothing_is_emitted_and_nobody_becomes_idle() {
    let strategy = WatermarkStrategy::for_monotonous_timestamps().with_idleness(ms(1_000));
    let mut bench = Bench::new(timed(strategy));
    bench.push(&[('a', 10)]);
    *bench.log.is_blocked.lock().unwrap() = true;
    bench.pass(ms(5_000));
    assert_eq!(bench.log.take(), [Record('a', Some(10))]);
    assert_eq!(bench.alarm.alarm(), None, "room wakes the task");
    *bench.log.is_blocked.lock().unwrap() = false;
    bench.pass(ms(999));
    assert_eq!(bench.log.take(), [Watermark(9)]);
    bench.pass(ms(2));
    assert_eq!(bench.log.take(), [Status(Idle)]);
}

#[test]
fn ingestion_time_is_the_clock_and_never_goes_back() {
    let mut bench = Bench::new(WatermarkStrategy::for_ingestion_time());
    bench.push(&[('a', 0)]);
    bench.pass(INTERVAL);
    bench.link.flush(true).unwrap();
    assert_eq!(bench.log.take(), [Record('a', Some(50_000)), Watermark(50_199)]);
    bench.clock.set_now_ms(40_000);
    bench.push(&[('b', 0)]);
    bench.pass(INTERVAL);
    bench.link.flush(true).unwrap();
    assert_eq!(bench.log.take(), [Record('b', Some(50_200))]);
}

/// Reads what the test says: in each poll records of some splits, and which of these are at their end.
#[derive(Clone, Default)]
struct Scripted {
    splits: Vec<&'static str>,
    polls: Arc<Mutex<Vec<Poll>>>,
    /// Does not tell what it promised to tell.
    forgets: bool,
}

type Poll = (Vec<(&'static str, Vec<Happening>)>, Vec<&'static str>);

struct ScriptedReader {
    script: Scripted,
    last: Poll,
}

#[derive(thalweg_common::Record, Clone)]
#[record(crate = thalweg_common)]
struct Named(String);

impl SourceSplit for Named {
    fn split_id(&self) -> String {
        self.0.clone()
    }
}

impl SplitSource for Scripted {
    type Out = Happening;
    type Split = Named;
    type Reader = ScriptedReader;

    fn splits(&self, _: &SourceContext) -> Result<Vec<Named>, Failure> {
        Ok(self.splits.iter().map(|name| Named((*name).into())).collect())
    }

    fn reader(&self, _: &SourceContext) -> Result<ScriptedReader, Failure> {
        Ok(ScriptedReader { script: self.clone(), last: Poll::default() })
    }
}

impl SourceReader for ScriptedReader {
    type Out = Happening;
    type Split = Named;

    const TELLS_SPLITS: bool = true;

    fn add_splits(&mut self, _: Vec<Named>) -> Result<(), Failure> {
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<Happening>, _: usize) -> Result<SourceStatus, Failure> {
        let mut polls = self.script.polls.lock().unwrap();
        self.last = if polls.is_empty() { Poll::default() } else { polls.remove(0) };
        out.extend(self.last.0.iter().flat_map(|(_, records)| records.iter().copied()));
        Ok(SourceStatus::Idle { retry_after: Duration::from_secs(1) })
    }

    fn tell_splits(&mut self, report: &mut SplitReport) {
        let told = self.last.0.iter().filter(|_| !self.script.forgets);
        told.for_each(|(split, records)| report.records(split, records.len()));
        self.last.1.iter().for_each(|split| report.finished(split));
    }

    fn snapshot(&mut self) -> Result<Vec<Named>, Failure> {
        Ok(Vec::new())
    }
}

/// A source with a strategy directly behind it.
struct SourceBench {
    clock: Arc<ManualClock>,
    head: Box<dyn Head>,
    script: Scripted,
    log: Log,
}

impl SourceBench {
    fn new<A>(splits: &[&'static str], strategy: WatermarkStrategy<BoundedOutOfOrderness, A>) -> Self
    where
        A: TimestampAssigner<Happening>,
    {
        Self::of(Scripted { splits: splits.to_vec(), ..Scripted::default() }, strategy)
    }

    fn of<A>(script: Scripted, strategy: WatermarkStrategy<BoundedOutOfOrderness, A>) -> Self
    where
        A: TimestampAssigner<Happening>,
    {
        let (clock, log) = (Arc::new(ManualClock::new(0)), Log::default());
        let mut context = Setup { clock: clock.clone(), ..Setup::default() }.operator_context();
        context.splits = Some(SharedSplits::default());
        let next = AnyLink::new::<Happening>(Box::new(log.clone()));
        let link = watermarks::<Happening, _, A>(strategy).build(&mut context, Some(next)).unwrap();
        let source: Arc<dyn SourceFactory> = super::super::source(script.clone());
        let head = source.build(&mut context, link).unwrap();
        Self { clock, head, script, log }
    }

    /// Reads this, then nothing, and lets a second pass.
    fn second(&mut self, poll: Poll) -> Vec<Seen> {
        self.script.polls.lock().unwrap().push(poll);
        while let Polled::Progress = self.head.poll().unwrap() {
            self.head.flush(false).unwrap();
        }
        self.head.flush(true).unwrap();
        self.clock.advance(Duration::from_secs(1));
        self.head.flush(true).unwrap();
        self.log.take()
    }
}

fn watermarks_of(seen: &[Seen]) -> Vec<Seen> {
    seen.iter().copied().filter(|seen| !matches!(seen, Record(..))).collect()
}

#[test]
fn behind_a_source_each_split_has_its_own_time() {
    let mut bench = SourceBench::new(&["a", "b"], timed(WatermarkStrategy::for_monotonous_timestamps()));
    let seen = bench.second((vec![("a", vec![('1', 500)])], vec![]));
    assert_eq!(seen, [Record('1', Some(500))], "nothing is known of the other split");
    let seen = bench.second((vec![("b", vec![('2', 100)]), ("a", vec![('3', 900)])], vec![]));
    assert_eq!(watermarks_of(&seen), [Watermark(99)]);
    let seen = bench.second((vec![("b", vec![('4', 300)])], vec!["b"]));
    assert_eq!(watermarks_of(&seen), [Watermark(899)], "a split at its end holds nobody back");
    let seen = bench.second((vec![("a", vec![('5', 1_000)])], vec!["a"]));
    assert_eq!(watermarks_of(&seen), [Watermark(999), Status(Idle)]);
    bench.head.finish().unwrap();
    assert_eq!(bench.log.take(), [Status(Active), Watermark(MAX_WATERMARK), Seen::End]);
}

#[test]
fn the_end_of_a_bounded_input_is_the_end_of_time_once_in_each_attempt() {
    let source = super::super::source(super::super::CollectionSource::new([('a', 1i64), ('b', 2)]));
    let mut restored = Vec::new();
    for expected in [vec![Record('a', None), Record('b', None)], vec![]] {
        let log = Log::default();
        let setup = Setup { restored: restored.clone(), ..Setup::default() };
        let next = AnyLink::new::<Happening>(Box::new(log.clone()));
        let mut head = source.build(&mut setup.operator_context(), next).unwrap();
        while head.poll().unwrap() != Polled::EndOfInput {}
        head.finish().unwrap();
        let end = [Watermark(MAX_WATERMARK), Seen::End];
        assert_eq!(log.take(), expected.into_iter().chain(end).collect::<Vec<_>>());
        // Behind the end, as that of the final checkpoint.
        let barrier = Barrier { id: 1, timestamp_ms: 0, is_final: true, is_savepoint: false };
        let mut snapshot = SnapshotBuilder::default();
        head.snapshot(barrier, &mut snapshot).unwrap();
        restored = snapshot.build().operators.into_values().collect();
        assert!(log.take().is_empty());
    }
}

#[test]
fn numbers_have_one_time_in_a_subtask_whatever_their_splits() {
    let source = super::super::source(super::super::CollectionSource::new((0i64..9).map(|time| ('x', time))));
    let (clock, log) = (Arc::new(ManualClock::new(0)), Log::default());
    let mut context = Setup { clock: clock.clone(), ..Setup::default() }.operator_context();
    context.splits = Some(SharedSplits::default());
    let strategy = timed(WatermarkStrategy::for_monotonous_timestamps());
    let next = AnyLink::new::<Happening>(Box::new(log.clone()));
    let link = watermarks::<Happening, _, _>(strategy).build(&mut context, Some(next)).unwrap();
    let mut head = source.build(&mut context, link).unwrap();
    head.poll().unwrap();
    clock.advance(Duration::from_secs(1));
    head.flush(true).unwrap();
    assert_eq!(
        watermarks_of(&log.take()),
        [Watermark(7)],
        "sixteen splits, read in the order of the numbers"
    );
}

#[test]
fn without_a_split_a_subtask_is_idle_at_once() {
    let mut bench = SourceBench::new(&[], timed(WatermarkStrategy::for_monotonous_timestamps()));
    assert_eq!(bench.second(Poll::default()), [Status(Idle)]);
}

#[test]
fn a_reader_that_does_not_tell_what_it_promised_is_at_fault() {
    let script = Scripted { splits: vec!["a"], forgets: true, ..Scripted::default() };
    let mut bench = SourceBench::of(script, timed(WatermarkStrategy::for_monotonous_timestamps()));
    bench.script.polls.lock().unwrap().push((vec![("a", vec![('1', 500)])], vec![]));
    let failure = bench.head.poll().unwrap_err();
    assert!(failure.message.contains("tell_splits"), "{failure}");
}

#[test]
fn idle_shard_example_with_time_per_shard() {
    let strategy = WatermarkStrategy::for_monotonous_timestamps().with_idleness(Duration::from_secs(15));
    let mut bench = SourceBench::new(&["1", "9", "12"], timed(strategy));
    // Events 6, then 1 and 2, then 8: the first is ahead in a shard of its own.
    bench.second((vec![("1", vec![('6', 1_648_030_822_428)])], vec![]));
    bench.second((vec![("12", vec![('1', 1_648_030_794_441), ('2', 1_648_030_796_122)])], vec![]));
    bench.second((vec![("12", vec![('8', 1_648_030_887_171)])], vec![]));
    assert_eq!(bench.log.take(), []);
    let mut told = Vec::new();
    for second in 4..=18 {
        told.extend(bench.second(Poll::default()).into_iter().map(|seen| (second, seen)));
    }
    // Shard 9 never had an event, shard 1 none since event 6.
    let expected = [(15, Watermark(1_648_030_887_170)), (17, Status(Idle))];
    assert_eq!(told, expected);
}

#[path = "idle_shard_tests.rs"]
mod idle_shards;

#[path = "alignment_tests.rs"]
mod alignment;
