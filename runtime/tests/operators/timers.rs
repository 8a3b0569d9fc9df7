//! Timers of a keyed operator, without a runtime: when they fire, what they emit, what snapshots have of them, and a full output.

use std::sync::Arc;

use thalweg_common::Timestamp;
use thalweg_common::clock::ManualClock;
use thalweg_common::failure::Failure;
use thalweg_common::key_group::{key_group, key_hash, subtask_of};
use thalweg_common::limits::TIMERS_PER_TURN;
use thalweg_runtime::event::{Event, WatermarkStatus};
use thalweg_runtime::link::Flushed;
use thalweg_runtime::operator::{Context, KeyedProcess, TimeDomain};
use thalweg_runtime::operators;
use thalweg_runtime::snapshot::OperatorSnapshot;
use thalweg_runtime::testing::{OperatorHarness, Setup};
use thalweg_runtime::time::{MAX_WATERMARK, NO_WATERMARK};
use thalweg_state::{State, ValueState};

/// What to do with a timer.
#[derive(Clone, Copy)]
enum Wish {
    Event,
    NoEvent,
    Clock,
    NoClock,
    /// A timer of event time which registers the next one when it fires, ten later, until 100.
    Chain,
}
use Wish::{Chain, Clock, Event as EventTime, NoClock, NoEvent};

/// Key, wish and time.
type In = (u64, Wish, Timestamp);
/// Key, time, domain, watermark, and how many timers of the key have fired.
type Out = (u64, Timestamp, bool, Timestamp, u64);
type Harness = OperatorHarness<In, Out>;

#[derive(State, Clone, Default)]
#[state(crate = crate::krate)]
struct Tell {
    fired: ValueState<u64>,
    chain: ValueState<bool>,
}

impl KeyedProcess<u64, In> for Tell {
    type Out = Out;

    fn on_record(&mut self, (_, wish, at): In, context: &mut Context<'_, u64, Out>) -> Result<(), Failure> {
        assert_eq!(context.time_domain(), None);
        match wish {
            EventTime => context.register_event_time_timer(at),
            NoEvent => context.delete_event_time_timer(at),
            Clock => context.register_processing_time_timer(at),
            NoClock => context.delete_processing_time_timer(at),
            Chain => {
                self.chain.set(context, true);
                context.register_event_time_timer(at);
            }
        }
        Ok(())
    }

    fn on_timer(&mut self, at: Timestamp, context: &mut Context<'_, u64, Out>) -> Result<(), Failure> {
        assert_eq!(context.timestamp(), Some(at));
        self.fired.update(context, |fired| Some(fired.unwrap_or(0) + 1));
        let fired = self.fired.get(context).copied().unwrap_or(0);
        if self.chain.get(context).is_some() && at < 100 {
            context.register_event_time_timer(at + 10);
        }
        let is_event = context.time_domain() == Some(TimeDomain::EventTime);
        let told = (*context.key(), at, is_event, context.current_watermark(), fired);
        if is_event {
            context.emit(told);
        } else {
            context.emit_with_timestamp(told, context.current_processing_time());
        }
        Ok(())
    }

    fn on_end(&mut self, context: &mut Context<'_, u64, Out>) -> Result<(), Failure> {
        let fired = self.fired.take(context).unwrap_or(0);
        let told = (*context.key(), -1, false, context.current_watermark(), fired);
        context.emit(told);
        Ok(())
    }
}

fn open(setup: Setup) -> Harness {
    Harness::open(operators::keyed_process(|record: &In| record.0, Tell::default()).as_ref(), setup).unwrap()
}

/// The times at which timers have fired, with their keys.
fn told(harness: &mut Harness) -> Vec<(Timestamp, u64)> {
    harness.output().into_iter().map(|(key, at, ..)| (at, key)).collect()
}

fn watermarks(harness: &Harness) -> Vec<Timestamp> {
    let watermark = |event| match event {
        Event::Watermark(at) => Some(at),
        _ => None,
    };
    harness.events().into_iter().filter_map(watermark).collect()
}

#[test]
fn timers_of_event_time_fire_in_order_before_their_watermark_goes_on() {
    let mut harness = open(Setup::default());
    // The same one twice, one that is deleted, one that is deleted and was never there.
    harness
        .push(vec![(1, EventTime, 30), (2, EventTime, 10), (1, EventTime, 20), (1, EventTime, 30)])
        .unwrap();
    harness.push(vec![(2, EventTime, 15), (2, NoEvent, 15), (2, NoEvent, 16), (1, NoEvent, 10)]).unwrap();
    harness.watermark(9).unwrap();
    assert_eq!((told(&mut harness), watermarks(&harness)), (vec![], vec![9]));
    harness.watermark(20).unwrap();
    assert_eq!(watermarks(&harness), [9, 20]);
    let batch = harness.output_batch();
    let times: Vec<_> = (0..batch.len()).map(|index| batch.timestamp(index)).collect();
    assert_eq!(times, [Some(10), Some(20)]);
    assert_eq!(batch.into_parts().0, [(2, 10, true, 20, 1), (1, 20, true, 20, 1)]);
    // One that is too late fires with the next watermark.
    harness.push(vec![(3, EventTime, 5)]).unwrap();
    assert_eq!(told(&mut harness), []);
    harness.watermark(29).unwrap();
    assert_eq!(told(&mut harness), [(5, 3)]);
    harness.watermark(30).unwrap();
    assert_eq!(harness.output(), [(1, 30, true, 30, 2)]);
}

#[test]
fn a_timer_that_is_registered_while_others_fire_has_its_place_among_them() {
    let mut harness = open(Setup::default());
    harness.push(vec![(1, Chain, 5), (2, EventTime, 12), (3, EventTime, 16), (4, EventTime, 90)]).unwrap();
    harness.watermark(50).unwrap();
    assert_eq!(told(&mut harness), [(5, 1), (12, 2), (15, 1), (16, 3), (25, 1), (35, 1), (45, 1)]);
}

#[test]
fn timers_of_processing_time_fire_by_the_clock() {
    let mut harness = open(Setup::default());
    harness.push(vec![(1, Clock, 1_000), (2, Clock, 500), (3, Clock, 700), (3, NoClock, 700)]).unwrap();
    harness.watermark(5_000).unwrap();
    harness.processing_time(499).unwrap();
    assert_eq!(told(&mut harness), []);
    harness.processing_time(600).unwrap();
    let batch = harness.output_batch();
    assert_eq!(batch.timestamp(0), Some(600));
    assert_eq!(batch.into_parts().0, [(2, 500, false, 5_000, 1)]);
    // Overdue: with the next flush.
    harness.push(vec![(4, Clock, 100)]).unwrap();
    harness.flush().unwrap();
    assert_eq!(told(&mut harness), [(100, 4)]);
    harness.processing_time(1_000).unwrap();
    assert_eq!(told(&mut harness), [(1_000, 1)]);
}

#[test]
fn the_last_watermark_fires_all_of_event_time_and_the_end_none_of_the_clock() {
    let mut harness = open(Setup::default());
    harness.push(vec![(1, EventTime, MAX_WATERMARK), (1, EventTime, 7), (1, Clock, 100)]).unwrap();
    harness.watermark(MAX_WATERMARK).unwrap();
    harness.end().unwrap();
    harness.processing_time(1_000).unwrap();
    let expected = [(7, 1), (MAX_WATERMARK, 1), (-1, 1)];
    assert_eq!(told(&mut harness), expected);
    assert_eq!(harness.events(), [Event::Watermark(MAX_WATERMARK), Event::EndOfInput]);
}

#[test]
fn behind_the_barrier_with_which_a_job_stops_the_clock_fires_nothing() {
    let mut harness = open(Setup::default());
    harness.push(vec![(1, Clock, 100)]).unwrap();
    harness.stop(1).unwrap();
    harness.processing_time(100).unwrap();
    assert_eq!(told(&mut harness), []);
    // It does not stop after all.
    harness.aborted(1).unwrap();
    harness.fire().unwrap();
    assert_eq!(told(&mut harness), [(100, 1)]);
}

#[test]
fn a_full_output_holds_up_timers_and_watermark() {
    let mut harness = open(Setup::default());
    let keys = 3 * TIMERS_PER_TURN as u64;
    harness.push((0..keys).map(|key| (key, EventTime, 10)).collect()).unwrap();
    harness.set_blocked(true);
    harness.watermark(20).unwrap();
    assert_eq!(harness.fire(), Ok(Flushed::Blocked));
    assert_eq!((told(&mut harness), watermarks(&harness)), (vec![], vec![]));
    // A barrier overtakes: what has not fired is in the snapshot.
    let snapshot = harness.barrier(1).unwrap();
    harness.set_blocked(false);
    assert_eq!(harness.fire(), Ok(Flushed::All));
    assert_eq!((told(&mut harness).len() as u64, watermarks(&harness)), (keys, vec![20]));

    let mut restored = open(Setup::default().restoring(snapshot));
    assert_eq!(told(&mut restored), []);
    restored.watermark(15).unwrap();
    assert_eq!(told(&mut restored).len() as u64, keys);
}

#[test]
fn what_comes_behind_a_watermark_does_not_overtake_its_timers() {
    let mut harness = open(Setup::default());
    harness.push(vec![(1, EventTime, 10), (2, EventTime, 10)]).unwrap();
    harness.set_blocked(true);
    harness.watermark(10).unwrap();
    // A link in front of it that does not ask whether there is room.
    harness.push(vec![(1, NoEvent, 10), (2, NoEvent, 10), (3, EventTime, 11)]).unwrap();
    assert_eq!((told(&mut harness).len(), watermarks(&harness)), (2, vec![10]));
    harness.watermark(11).unwrap();
    harness.watermark_status(WatermarkStatus::Idle).unwrap();
    assert_eq!(told(&mut harness), [(11, 3)]);
    let idle = Event::Status(WatermarkStatus::Idle);
    assert_eq!(harness.events(), [Event::Watermark(10), Event::Watermark(11), idle]);
    // And not the end either.
    harness.push(vec![(4, EventTime, 12)]).unwrap();
    harness.watermark(MAX_WATERMARK).unwrap();
    harness.end().unwrap();
    assert_eq!(told(&mut harness), []);
    harness.set_blocked(false);
    harness.fire().unwrap();
    let told = told(&mut harness);
    assert_eq!((told[0], told.len()), ((12, 4), 5));
    assert_eq!(harness.events()[3..], [Event::Watermark(MAX_WATERMARK), Event::EndOfInput]);
}

/// Two subtasks with a timer of each kind for each key, one of which has fired; then one, and then three.
fn moves_with_its_key(setup: impl Fn(&str) -> Setup) {
    let owner =
        |key: u64, parallelism| subtask_of(key_group(key_hash(&key, &mut Vec::new()), 128), parallelism, 128);
    let of = |subtask, parallelism| (0..100).filter(move |key| owner(*key, parallelism) == subtask);
    let restoring = |name: &str, subtask, parallelism, snapshots: &[OperatorSnapshot]| {
        snapshots.iter().cloned().fold(setup(name).subtask(subtask, parallelism), Setup::restoring)
    };
    let mut snapshots = Vec::new();
    for subtask in 0..2 {
        let mut harness = open(setup(&format!("two-{subtask}")).subtask(subtask, 2));
        harness.push(of(subtask, 2).map(|key| (key, EventTime, key as i64)).collect()).unwrap();
        harness.push(of(subtask, 2).map(|key| (key, Clock, 1_000 + key as i64)).collect()).unwrap();
        harness.watermark(9).unwrap();
        assert_eq!(told(&mut harness).len(), of(subtask, 2).filter(|key| *key < 10).count());
        snapshots.push(harness.barrier(1).unwrap());
    }
    let mut harness = open(restoring("one", 0, 1, &snapshots));
    harness.watermark(19).unwrap();
    assert_eq!(told(&mut harness), (10..20).map(|key| (key as i64, key)).collect::<Vec<_>>());
    let snapshot = harness.barrier(2).unwrap();
    for subtask in 0..3 {
        let mut harness =
            open(restoring(&format!("three-{subtask}"), subtask, 3, std::slice::from_ref(&snapshot)));
        // The clock was never there: overdue timers fire at once.
        harness.flush().unwrap();
        assert_eq!(told(&mut harness), []);
        harness.processing_time(1_049).unwrap();
        let expected = |from, until, at: i64| {
            of(subtask, 3)
                .filter(move |key| (from..until).contains(key))
                .map(move |key| (at + key as i64, key))
        };
        assert_eq!(told(&mut harness), expected(0, 50, 1_000).collect::<Vec<_>>());
        harness.watermark(MAX_WATERMARK).unwrap();
        assert_eq!(told(&mut harness), expected(20, 100, 0).collect::<Vec<_>>());
    }
}

#[test]
fn timers_move_with_their_key_groups() {
    moves_with_its_key(|_| Setup::default());
}

#[cfg(feature = "rocksdb")]
#[test]
fn timers_on_disk_move_with_their_key_groups() {
    let directory = tempfile::tempdir().unwrap();
    moves_with_its_key(|name| Setup::default().on_disk(&directory.path().join(name), 1 << 20));
}

#[test]
fn overdue_timers_fire_at_once_after_a_restore() {
    let mut harness = open(Setup::default());
    harness.push(vec![(1, Clock, 1_000), (2, Clock, 2_000)]).unwrap();
    let snapshot = harness.barrier(1).unwrap();
    let clock = Arc::new(ManualClock::new(1_500));
    let mut restored = open(Setup { clock, ..Setup::default() }.restoring(snapshot));
    restored.flush().unwrap();
    assert_eq!(restored.output(), [(1, 1_000, false, NO_WATERMARK, 1)]);
}

/// A function that says it has no timers.
#[derive(State, Clone, Default)]
#[state(crate = crate::krate)]
struct Plain {
    last: ValueState<u64>,
}

impl KeyedProcess<u64, u64> for Plain {
    type Out = u64;

    const TIMERS: bool = false;

    fn on_record(&mut self, record: u64, context: &mut Context<'_, u64, u64>) -> Result<(), Failure> {
        self.last.set(context, record);
        if record == 13 {
            context.register_event_time_timer(1);
        }
        Ok(())
    }
}

#[test]
fn a_function_without_timers_has_no_states_for_them() {
    let open = |setup| {
        let plain = operators::keyed_process(|record: &u64| *record, Plain::default());
        OperatorHarness::<u64, u64>::open(plain.as_ref(), setup).unwrap()
    };
    let mut harness = open(Setup::default());
    harness.push(vec![1, 2]).unwrap();
    harness.watermark(10).unwrap();
    let snapshot = harness.barrier(1).unwrap();
    assert_eq!(snapshot.keyed_state.keys().collect::<Vec<_>>(), ["last"]);
    // What was written without them is read by a function that has them.
    let mut with_timers = snapshot.clone();
    with_timers.keyed_state.clear();
    with_timers.keyed_state.extend(open_tell_states());
    assert_eq!(with_timers.keyed_state.len(), 4);
    let mut old = with_timers.clone();
    old.keyed_state.retain(|name, _| !name.starts_with("_timer_state/"));
    let mut harness = self::open(Setup::default().restoring(old));
    harness.watermark(MAX_WATERMARK).unwrap();
    assert_eq!(told(&mut harness), []);
    // The other way round they would be lost.
    let plain = operators::keyed_process(|record: &u64| *record, Plain::default());
    let timers = with_timers.keyed_state.split_off("_timer_state/event_time");
    let mut snapshot = snapshot;
    snapshot.keyed_state.extend(timers.into_iter().filter(|(name, _)| name.starts_with("_timer_state/")));
    let failure = OperatorHarness::<u64, u64>::open(plain.as_ref(), Setup::default().restoring(snapshot));
    assert!(failure.err().unwrap().message.contains("_timer_state/event_time"));
}

/// The states of a function with a timer.
fn open_tell_states() -> std::collections::BTreeMap<String, thalweg_state::StateSnapshot> {
    let mut harness = open(Setup::default());
    harness.push(vec![(1, EventTime, 1)]).unwrap();
    harness.barrier(1).unwrap().keyed_state
}

#[test]
#[should_panic(expected = "says it has none")]
fn a_function_without_timers_must_not_use_them() {
    let plain = operators::keyed_process(|record: &u64| *record, Plain::default());
    let mut harness = OperatorHarness::<u64, u64>::open(plain.as_ref(), Setup::default()).unwrap();
    harness.push(vec![13]).unwrap();
}
