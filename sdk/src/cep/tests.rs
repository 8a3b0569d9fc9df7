//! Patterns in a keyed stream, on one operator: time, late events, side outputs, snapshots, and another parallelism.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use thalweg_common::Timestamp;
use thalweg_common::clock::ManualClock;
use thalweg_common::failure::Failure;
use thalweg_common::key_group::{key_group, key_hash, subtask_of};
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operators::keyed_process;
use thalweg_runtime::side_output::OutputTag;
use thalweg_runtime::testing::{OperatorHarness, Setup};

use super::function::{CepFunction, EventTime, Select, Time, Told, Untold};
use super::{Match, Pattern, PatternContext, PatternProcess, SkipStrategy};

/// A user and what happened.
type Event = (String, String);

/// A user and the events of a match.
type Found = (String, String);

const LATE: OutputTag<Event> = OutputTag::new("late");
const TIMED_OUT: OutputTag<Found> = OutputTag::new("timed-out");

fn is(what: &'static str) -> impl Fn(&Event) -> bool + Send + Sync + 'static {
    move |event| event.1.starts_with(what)
}

fn click_then_purchase() -> Pattern<Event> {
    Pattern::begin("click")
        .where_(is("click"))
        .next("purchase")
        .where_(is("purchase"))
        .within(Duration::from_secs(600))
}

fn text(found: &Match<'_, Event>) -> Found {
    let events: Vec<&str> = found.iter().map(|(_, event)| event.1.as_str()).collect();
    let user = found.iter().next().map(|(_, event)| event.0.clone());
    (user.unwrap(), events.join(" "))
}

fn event_time() -> Time<Event> {
    Time::Event(EventTime { compare: None, late_data: None })
}

/// An operator with what comes of it.
struct Tested {
    harness: OperatorHarness<Event, Found>,
}

impl Tested {
    fn open(pattern: Pattern<Event>, time: Time<Event>, setup: Setup) -> Self {
        let told = Told { tag: TIMED_OUT, function: text };
        let select = Select(|found: &Match<'_, Event>| Some(text(found)));
        let function = CepFunction::new::<String>(Arc::new(pattern.compile().unwrap()), time, told, select);
        let factory = keyed_process(|event: &Event| event.0.clone(), function);
        Self { harness: OperatorHarness::open(factory.as_ref(), setup).unwrap() }
    }

    fn push(&mut self, user: &str, what: &str, timestamp: Timestamp) {
        let batch = Batch::from_parts(vec![(user.to_string(), what.to_string())], vec![timestamp]);
        self.harness.push_batch(batch).unwrap();
    }

    fn matches(&mut self) -> Vec<(String, Option<Timestamp>)> {
        let found = self.harness.output_batch();
        found.into_parts_with(|(_, events), timestamp| (events, timestamp))
    }

    fn timed_out(&mut self) -> Vec<(String, Option<Timestamp>)> {
        let found = self.harness.side_output(&TIMED_OUT);
        found.into_parts_with(|(_, events), timestamp| (events, timestamp))
    }
}

trait Parts<T> {
    fn into_parts_with<U>(self, each: impl FnMut(T, Option<Timestamp>) -> U) -> Vec<U>;
}

impl<T> Parts<T> for Batch<T> {
    fn into_parts_with<U>(mut self, mut each: impl FnMut(T, Option<Timestamp>) -> U) -> Vec<U> {
        self.drain_with_timestamps().map(|(record, timestamp)| each(record, timestamp)).collect()
    }
}

const MINUTE: Timestamp = 60_000;

/// What happens when, and what is found.
type Row<'a> = (&'a [(&'a str, Timestamp)], &'a [&'a str]);

/// The seven rows of the acceptance examples, with events that come in their order and in the opposite one.
#[test]
fn acceptance_ds_29_click_then_purchase() {
    let table: [Row<'_>; 7] = [
        (&[("click", 0), ("purchase", 5 * MINUTE)], &["click purchase"]),
        (&[("click", 0), ("view", MINUTE), ("purchase", 2 * MINUTE)], &[]),
        (&[("click1", 0), ("click2", MINUTE), ("purchase", 2 * MINUTE)], &["click2 purchase"]),
        (&[("click", 0), ("purchase", 10 * MINUTE)], &[]),
        (&[("click", 0), ("purchase", 10 * MINUTE - 1)], &["click purchase"]),
        (&[("click", 0), ("purchase1", MINUTE), ("purchase2", 2 * MINUTE)], &["click purchase1"]),
        (&[("purchase", 0), ("click", MINUTE)], &[]),
    ];
    for (events, expected) in table {
        for is_reversed in [false, true] {
            let mut tested = Tested::open(click_then_purchase(), event_time(), Setup::default());
            let mut events = events.to_vec();
            if is_reversed {
                events.reverse();
            }
            for (what, timestamp) in &events {
                tested.push("u", what, *timestamp);
            }
            assert_eq!(tested.matches(), [], "nothing before the watermark");
            tested.harness.watermark(60 * MINUTE).unwrap();
            let found: Vec<String> = tested.matches().into_iter().map(|(events, _)| events).collect();
            assert_eq!(found, expected, "{events:?}");
        }
    }
}

#[test]
fn users_do_not_mix_and_matches_have_the_time_of_their_last_event() {
    let mut tested = Tested::open(click_then_purchase(), event_time(), Setup::default());
    tested.push("a", "click a", 1_000);
    tested.push("b", "click b", 2_000);
    tested.push("b", "purchase b", 4_000);
    tested.push("a", "purchase a", 3_000);
    tested.harness.watermark(3_500).unwrap();
    assert_eq!(tested.matches(), [("click a purchase a".to_string(), Some(3_000))]);
    tested.harness.watermark(4_000).unwrap();
    assert_eq!(tested.matches(), [("click b purchase b".to_string(), Some(4_000))]);
}

#[test]
fn late_events_are_dropped_and_counted_or_go_aside() {
    for late_data in [None, Some(LATE)] {
        let time = Time::Event(EventTime { compare: None, late_data });
        let mut tested = Tested::open(click_then_purchase(), time, Setup::default());
        tested.push("u", "purchase", 2_000);
        tested.harness.watermark(1_000).unwrap();
        tested.push("u", "click", 1_000);
        tested.harness.watermark(9_000).unwrap();
        assert_eq!(tested.matches(), []);
        let late = tested.harness.side_output(&LATE).into_parts_with(|event, timestamp| (event.1, timestamp));
        let counted = tested.harness.take_late_records();
        if late_data.is_some() {
            assert_eq!((late, counted), (vec![("click".to_string(), Some(1_000))], 0));
        } else {
            assert_eq!((late, counted), (vec![], 1));
        }
    }
}

#[test]
fn events_of_one_time_come_in_their_order_or_as_they_are_compared() {
    let one = |compare| {
        let pattern = Pattern::begin("a").where_(is("a")).next("b").where_(is("b"));
        let mut tested =
            Tested::open(pattern, Time::Event(EventTime { compare, late_data: None }), Setup::default());
        tested.push("u", "b", 7);
        tested.push("u", "a", 7);
        tested.harness.watermark(7).unwrap();
        tested.matches().len()
    };
    assert_eq!(one(None), 0);
    assert_eq!(one(Some(Arc::new(|one: &Event, other: &Event| one.1.cmp(&other.1)))), 1);
    assert_eq!(one(Some(Arc::new(|one: &Event, other: &Event| Reverse(&one.1).cmp(&Reverse(&other.1))))), 0);
}

#[test]
fn partial_matches_time_out_without_further_events() {
    let mut tested = Tested::open(click_then_purchase(), event_time(), Setup::default());
    tested.push("u", "click", 5);
    tested.harness.watermark(10 * MINUTE + 4).unwrap();
    assert_eq!(tested.timed_out(), []);
    tested.harness.watermark(10 * MINUTE + 5).unwrap();
    assert_eq!(tested.timed_out(), [("click".to_string(), Some(10 * MINUTE + 5))]);
    assert_stateless(&mut tested);
}

/// Neither waiting events, nor partial matches, nor timers.
#[track_caller]
fn assert_stateless(tested: &mut Tested) {
    let snapshot = tested.harness.barrier(1).unwrap();
    assert!(snapshot.keyed_state.values().all(|state| state.groups.is_empty()), "{snapshot:?}");
}

#[test]
fn events_that_make_no_difference_leave_no_state() {
    let relaxed = Pattern::begin("a").where_(is("a")).followed_by("b").where_(is("b"));
    let mut tested = Tested::open(relaxed, event_time(), Setup::default());
    tested.push("u", "view", 5);
    assert_stateless(&mut tested);

    // It may come between an event that is yet to come and its next one, until the watermark has passed it.
    let mut tested = Tested::open(click_then_purchase(), event_time(), Setup::default());
    tested.push("u", "view", 5);
    tested.harness.watermark(5).unwrap();
    assert_stateless(&mut tested);

    let mut tested = Tested::open(click_then_purchase(), Time::Processing, Setup::default());
    tested.push("u", "view", 5);
    assert_stateless(&mut tested);
}

#[test]
fn what_must_not_come_is_a_match_when_the_window_is_over() {
    let pattern = || click_then_purchase_missing().within(Duration::from_secs(10));
    let mut tested = Tested::open(pattern(), event_time(), Setup::default());
    tested.push("a", "click a", 1_000);
    tested.push("b", "click b", 2_000);
    tested.push("b", "purchase b", 3_000);
    tested.harness.watermark(60_000).unwrap();
    assert_eq!(tested.matches(), [("click a".to_string(), Some(11_000))]);
    assert_eq!(tested.timed_out(), []);
}

fn click_then_purchase_missing() -> Pattern<Event> {
    Pattern::begin("click").where_(is("click")).not_followed_by("purchase").where_(is("purchase"))
}

#[test]
fn processing_time_takes_events_as_they_come() {
    let clock = Arc::new(ManualClock::new(1_000));
    let setup = Setup { clock, ..Setup::default() };
    let mut tested = Tested::open(click_then_purchase(), Time::Processing, setup);
    // Their own time does not matter.
    tested.push("u", "click", 90 * MINUTE);
    tested.push("u", "purchase", 0);
    assert_eq!(tested.matches(), [("click purchase".to_string(), Some(1_000))]);
    tested.push("u", "click again", 0);
    tested.harness.processing_time(1_000 + 10 * MINUTE).unwrap();
    assert_eq!(tested.timed_out(), [("click again".to_string(), Some(1_000 + 10 * MINUTE))]);
    tested.push("u", "purchase", 0);
    assert_eq!(tested.matches(), []);
}

#[test]
fn a_record_without_a_timestamp_is_told() {
    let mut tested = Tested::open(click_then_purchase(), event_time(), Setup::default());
    let failure = tested.harness.push(vec![("u".to_string(), "click".to_string())]).unwrap_err();
    assert!(failure.message.contains("watermark strategy"), "{failure}");
}

/// Numbers the matches of all keys, and fails at the third.
#[derive(Clone, Default)]
struct Numbered {
    count: u64,
    is_open: bool,
}

impl PatternProcess<String, Event> for Numbered {
    type Out = Found;
    const TIMED_OUT: bool = true;

    fn open(&mut self, _: &thalweg_runtime::operator::OpenContext) -> Result<(), Failure> {
        self.is_open = true;
        Ok(())
    }

    fn on_match(
        &mut self,
        found: &Match<'_, Event>,
        context: &mut PatternContext<'_, '_, String, Found>,
    ) -> Result<(), Failure> {
        self.count += 1;
        if self.count == 3 || !self.is_open {
            return Err(Failure::user("the third one"));
        }
        let number = format!("{} at {}", self.count, context.timestamp());
        let user = context.key().clone();
        context.emit((user, format!("{number}: {}", text(found).1)));
        Ok(())
    }

    fn on_timed_out(
        &mut self,
        found: &Match<'_, Event>,
        context: &mut PatternContext<'_, '_, String, Found>,
    ) -> Result<(), Failure> {
        context.output(&TIMED_OUT, text(found));
        Ok(())
    }
}

#[test]
fn a_function_on_matches_has_its_own_errors_and_side_outputs() {
    let nfa = Arc::new(click_then_purchase().compile().unwrap());
    let function = CepFunction::new::<String>(nfa, event_time(), Untold, Numbered::default());
    let factory = keyed_process(|event: &Event| event.0.clone(), function);
    let mut tested = Tested { harness: OperatorHarness::open(factory.as_ref(), Setup::default()).unwrap() };
    for (what, timestamp) in
        [("click", 1), ("purchase", 2), ("click", 3), ("view", 4), ("click", 5), ("purchase", 6)]
    {
        tested.push("u", what, timestamp);
    }
    tested.push("u", "click", 7);
    tested.harness.watermark(8).unwrap();
    let found = tested.matches();
    assert_eq!(
        found,
        [("1 at 2: click purchase".to_string(), Some(2)), ("2 at 6: click purchase".to_string(), Some(6))]
    );
    tested.harness.watermark(10 * MINUTE + 7).unwrap();
    assert_eq!(tested.timed_out(), [("click".to_string(), Some(10 * MINUTE + 7))]);
    tested.push("u", "click", 20 * MINUTE);
    tested.push("u", "purchase", 20 * MINUTE + 1);
    let failure = tested.harness.watermark(21 * MINUTE).unwrap_err();
    assert!(failure.message.contains("the third one"), "{failure}");
}

/// The state of another pattern is not restored as that of this one, and the plan sees it.
#[test]
fn a_changed_pattern_has_another_state() {
    let mut tested = Tested::open(click_then_purchase(), event_time(), Setup::default());
    tested.push("u", "click", 1);
    tested.harness.watermark(1).unwrap();
    tested.push("u", "view", 3);
    let snapshot = tested.harness.barrier(1).unwrap();
    let names: Vec<&str> = snapshot.keyed_state.keys().map(String::as_str).collect();
    let partial =
        format!("partial matches of {:016x}", click_then_purchase().compile().unwrap().fingerprint());
    assert!(names.contains(&"events") && names.contains(&partial.as_str()), "{names:?}");

    let setup = Setup::default().restoring(snapshot);
    let function = CepFunction::new::<String>(
        Arc::new(click_then_purchase().followed_by("more").compile().unwrap()),
        event_time(),
        Untold,
        Select(|found: &Match<'_, Event>| Some(text(found))),
    );
    let factory = keyed_process(|event: &Event| event.0.clone(), function);
    let refused = OperatorHarness::<Event, Found>::open(factory.as_ref(), setup).map(|_| ()).unwrap_err();
    assert!(refused.message.contains("partial matches of"), "{refused}");
}

// ---- Any order, any watermarks, restores and other parallelisms --------------------------------------------------

fn patterns() -> [Pattern<Event>; 4] {
    let window = Duration::from_millis(30);
    let loops = || {
        let pattern = Pattern::begin("a").where_(is("a")).followed_by("b").where_(is("b")).one_or_more();
        pattern.followed_by("c").where_(is("c")).within(window)
    };
    [
        loops(),
        loops().after_match(SkipStrategy::SkipPastLastEvent),
        Pattern::begin("a").where_(is("a")).next("b").where_(is("b")).within(window),
        Pattern::begin("a").where_(is("a")).not_followed_by("b").where_(is("b")).within(window),
    ]
}

/// What becomes of the sorted events of one user.
fn expected(pattern: Pattern<Event>, events: &[(Timestamp, Event)]) -> Vec<(Timestamp, Found, bool)> {
    let mut matcher = thalweg_cep::Matcher::new(Arc::new(pattern.compile().unwrap()), true);
    let (mut partial, mut all) = (thalweg_cep::PartialMatches::default(), Vec::new());
    let mut tell = |found: thalweg_cep::Found<'_, '_, Event>| {
        all.push(match found {
            thalweg_cep::Found::Complete(found) => (found.timestamp(), text(found), true),
            thalweg_cep::Found::TimedOut(found) => (found.timestamp(), text(found), false),
        });
    };
    for (timestamp, event) in events {
        matcher.advance(&mut partial, *timestamp, &mut tell);
        matcher.process(&mut partial, event.clone(), *timestamp, &mut tell);
    }
    matcher.advance(&mut partial, Timestamp::MAX - 1, &mut tell);
    all
}

/// The subtasks of an operator.
struct Subtasks(Vec<Tested>);

impl Subtasks {
    fn owner(&mut self, user: &String) -> &mut Tested {
        let group = key_group(key_hash(user, &mut Vec::new()), 128);
        let subtask = subtask_of(group, self.0.len() as u32, 128);
        &mut self.0[subtask as usize]
    }

    fn all(&mut self) -> Vec<(Timestamp, Found, bool)> {
        let mut all = Vec::new();
        for tested in &mut self.0 {
            let matches = tested.harness.output_batch();
            all.extend(matches.into_parts_with(|found, timestamp| (timestamp.unwrap(), found, true)));
            let timed_out = tested.harness.side_output(&TIMED_OUT);
            all.extend(timed_out.into_parts_with(|found, timestamp| (timestamp.unwrap(), found, false)));
        }
        all
    }
}

fn cases() -> u32 {
    std::env::var("THALWEG_CEP_CASES").ok().map_or(100, |cases| cases.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// Events come out of order by less than 10 ms, with the watermark that this allows now and then.
    #[test]
    fn any_order_and_any_parallelism_find_the_same(
        which in 0..4_usize,
        steps in proptest::collection::vec((0..8_i64, 0..10_i64, 0..3_usize, 0..4_usize, any::<bool>()), 0..60),
        parallelisms in (0..3_u32, 0..3_u32),
        restore_at in 0..60_usize,
    ) {
        let pattern = || patterns().into_iter().nth(which).unwrap();
        let open = |parallelism: u32, snapshots: &[_]| {
            let one = |subtask| {
                let setup = Setup::default().subtask(subtask, parallelism);
                let setup = snapshots.iter().cloned().fold(setup, Setup::restoring);
                Tested::open(pattern(), event_time(), setup)
            };
            Subtasks((0..parallelism).map(one).collect())
        };
        let (before, after) = (1 << parallelisms.0, 1 << parallelisms.1);
        let mut subtasks = open(before, &[]);
        let mut users = BTreeMap::<String, Vec<(Timestamp, Event)>>::new();
        let (mut found, mut latest) = (Vec::new(), 0);
        for (index, (step, disorder, user, what, has_watermark)) in steps.into_iter().enumerate() {
            if index == restore_at {
                let snapshots: Vec<_> =
                    subtasks.0.iter_mut().map(|tested| tested.harness.barrier(1).unwrap()).collect();
                found.extend(subtasks.all());
                subtasks = open(after, &snapshots);
            }
            latest += step;
            let timestamp = latest - disorder;
            let user = format!("user {user}");
            let what = format!("{}{index}", ["a", "b", "c", "d"][what]);
            subtasks.owner(&user).push(&user, &what, timestamp);
            users.entry(user.clone()).or_default().push((timestamp, (user, what)));
            if has_watermark {
                for tested in &mut subtasks.0 {
                    tested.harness.watermark(latest - 10).unwrap();
                }
            }
        }
        for tested in &mut subtasks.0 {
            tested.harness.watermark(Timestamp::MAX).unwrap();
        }
        found.extend(subtasks.all());
        let mut all = Vec::new();
        for events in users.values_mut() {
            events.sort_by_key(|(timestamp, _)| *timestamp);
            all.extend(expected(pattern(), events));
        }
        found.sort();
        all.sort();
        prop_assert_eq!(found, all);
    }
}
