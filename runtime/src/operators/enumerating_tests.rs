//! How an enumerator is called, and what is told of it.

use std::sync::{Arc, Mutex};

use super::*;
use crate::exchange::TaskParker;
use crate::fixtures::Pair;
use crate::operator::SourceContext;
use crate::split::fixtures::{Range, Ranges, Reader, SPLIT_RECORDS};
use crate::testing::{OPERATOR, Setup};

/// Finds ranges, but only when the test lets it, and not if the test says so.
#[derive(Clone)]
struct Slow {
    ranges: Ranges,
    may_look: Arc<Mutex<Receiver<bool>>>,
    is_closed: Arc<Mutex<bool>>,
}

struct SlowEnumerator {
    enumerator: crate::split::fixtures::Enumerator,
    may_look: Arc<Mutex<Receiver<bool>>>,
    is_closed: Arc<Mutex<bool>>,
}

/// One that finds a split.
fn slow(may_look: Receiver<bool>) -> Slow {
    Slow { ranges: splits(1), may_look: Arc::new(Mutex::new(may_look)), is_closed: Arc::default() }
}

impl EnumeratedSource for Slow {
    type Out = Pair;
    type Split = Range;
    type Reader = Reader;
    type Enumerator = SlowEnumerator;

    fn enumerator(&self, context: &SourceContext, restored: Option<u64>) -> Result<SlowEnumerator, Failure> {
        let enumerator = self.ranges.enumerator(context, restored)?;
        let (may_look, is_closed) = (Arc::clone(&self.may_look), Arc::clone(&self.is_closed));
        Ok(SlowEnumerator { enumerator, may_look, is_closed })
    }

    fn reader(&self, context: &SourceContext) -> Result<Reader, Failure> {
        self.ranges.reader(context)
    }
}

impl SplitEnumerator for SlowEnumerator {
    type Split = Range;
    type State = u64;

    const CLOSES: bool = true;

    fn discover(&mut self) -> Result<Discovery<Range>, Failure> {
        let may_look = self.may_look.lock().expect("no test panics").recv().expect("the test goes on");
        assert!(may_look, "nobody may look");
        self.enumerator.discover()
    }

    fn state(&self) -> u64 {
        self.enumerator.state()
    }

    fn close(&mut self) -> Result<(), Failure> {
        *self.is_closed.lock().expect("no test panics") = true;
        Ok(())
    }
}

fn context() -> OperatorContext {
    let mut context = Setup::default().operator_context();
    context.wires.notes = vec![Note::default(), Note::default()];
    context
}

fn splits(count: u64) -> Ranges {
    Ranges { count: count * SPLIT_RECORDS, in_turn: false }
}

/// Of so many splits, which it finds at once, one with every poll.
fn called_in_turn(count: u64) -> (OperatorContext, Enumerating<crate::split::fixtures::Enumerator>) {
    let mut context = context();
    context.wires.calls = Calls::InTurn;
    let enumerating = Enumerating::open(&splits(count), &context).expect("opens");
    (context, enumerating)
}

#[test]
fn splits_that_nobody_has_are_counted() {
    let (context, mut enumerating) = called_in_turn(3);
    let mut out = Batch::default();
    let unassigned = || context.counters.read().unassigned_splits;
    assert_eq!(unassigned(), Some(0));
    for found in 1..=3 {
        enumerating.poll(&mut out, 10).expect("finds one at a time");
        assert_eq!((unassigned(), out.len()), (Some(found), 0), "no reader has said what it has");
    }
    context.wires.notes.iter().for_each(|note| note.write(Word::default().to_note()));
    enumerating.poll(&mut out, 10).expect("deals");
    assert_eq!(unassigned(), Some(0));
    assert_eq!(out.len(), 5, "three splits, and to both readers that there are no more");
}

#[test]
fn an_enumerator_that_has_found_all_sleeps_until_a_reader_says_something() {
    let (_context, mut enumerating) = called_in_turn(1);
    let mut out = Batch::default();
    while !enumerating.dealer.is_complete() {
        enumerating.poll(&mut out, 10).expect("finds one at a time");
    }
    let polled = enumerating.poll(&mut out, 10);
    assert_eq!(polled, Ok(SourceStatus::Idle { retry_after: LONGEST_SLEEP }), "the readers have its splits");
}

#[test]
fn a_call_that_waits_holds_up_neither_polls_nor_snapshots_and_its_end_wakes_the_task() {
    let (let_look, may_look) = sync_channel(1);
    let source = slow(may_look);
    let mut parker = TaskParker::new();
    let mut context = context();
    context.wires.waker = parker.waker();
    let mut enumerating = Enumerating::<SlowEnumerator>::open(&source, &context).expect("opens");
    let mut out = Batch::default();
    assert_eq!(
        enumerating.poll(&mut out, 10),
        Ok(SourceStatus::Idle { retry_after: LONGEST_SLEEP }),
        "the call is under way"
    );
    let mut before = OperatorSnapshot::default();
    enumerating.snapshot(&mut before).expect("does not wait");
    let_look.send(true).expect("somebody waits");
    assert!(parker.park(Duration::from_secs(30)), "the task is woken");
    enumerating.poll(&mut out, 10).expect("takes the answer");
    assert_eq!(context.counters.read().unassigned_splits, Some(1));
    let mut behind = OperatorSnapshot::default();
    enumerating.snapshot(&mut behind).expect("does not wait");
    assert_ne!(before, behind);

    // From before the answer it is found again, from behind it is there.
    for (snapshot, waiting) in [(before, 0), (behind, 1)] {
        let mut context = self::context();
        context.restored = vec![snapshot];
        let enumerating = Enumerating::<SlowEnumerator>::open(&source, &context).expect("opens");
        assert_eq!(enumerating.dealer.waiting(), waiting);
    }
}

#[test]
fn what_an_enumerator_holds_is_given_up_behind_the_call_at_hand() {
    let (let_look, may_look) = sync_channel(1);
    let source = slow(may_look);
    let mut enumerating = Enumerating::<SlowEnumerator>::open(&source, &context()).expect("opens");
    enumerating.poll(&mut Batch::default(), 10).expect("calls");
    let_look.send(true).expect("somebody waits");
    assert!(!*source.is_closed.lock().expect("no test panics"));
    enumerating.close();
    assert!(*source.is_closed.lock().expect("no test panics"), "it was waited for");
}

#[test]
fn an_enumerator_that_panics_is_a_failure_with_its_words() {
    let (let_look, may_look) = sync_channel(1);
    let source = slow(may_look);
    let mut parker = TaskParker::new();
    let mut context = context();
    context.wires.waker = parker.waker();
    let mut enumerating = Enumerating::<SlowEnumerator>::open(&source, &context).expect("opens");
    enumerating.poll(&mut Batch::default(), 10).expect("calls");
    let_look.send(false).expect("somebody waits");
    assert!(parker.park(Duration::from_secs(30)));
    let failure = enumerating.poll(&mut Batch::default(), 10).expect_err("it has panicked");
    assert!(failure.message.contains("nobody may look"), "{failure}");
}

#[test]
fn state_of_another_version_is_refused_with_a_cure() {
    let mut context = context();
    let snapshot = OperatorSnapshot { operator_state: vec![vec![1, 2, 3]], ..OperatorSnapshot::default() };
    context.restored = vec![snapshot];
    assert_eq!(context.open.operator_id, OPERATOR);
    let failure = Enumerating::<crate::split::fixtures::Enumerator>::open(&splits(1), &context).err();
    let failure = failure.expect("three bytes are no state");
    assert!(failure.message.contains("another uid") && !failure.retryable, "{failure}");
}
