//! Asynchronous requests: their order, capacity, timeouts, retries, and what becomes of those that are under way at a barrier.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::key_group::groups_of;
use thalweg_common::key_group::key_group;
use thalweg_common::record::Record as _;
use tokio::sync::oneshot;

use super::*;
use crate::batch::Batch;
use crate::event::Event;
use crate::link::Flushed;
use crate::snapshot::OperatorSnapshot;
use crate::testing::{OperatorHarness, Setup};

type Answer = Result<Vec<u64>, String>;
type Harness = OperatorHarness<u64, u64>;

/// The other side: answers the requests of records when it is told to.
#[derive(Clone, Default)]
struct Peer {
    asked: Arc<Mutex<Vec<u64>>>,
    open: Arc<Mutex<BTreeMap<u64, oneshot::Sender<Answer>>>>,
}

impl Peer {
    fn operator(&self, options: AsyncOptions) -> AsyncIo<u64, u64> {
        let peer = self.clone();
        AsyncIo::new(options, move |record: u64| {
            let (sender, receiver) = oneshot::channel();
            peer.asked.lock().unwrap().push(record);
            peer.open.lock().unwrap().insert(record, sender);
            async move { receiver.await.map_err(|_| "the peer is gone".to_string())? }
        })
    }

    fn answer(&self, record: u64) {
        self.reply(record, Ok(vec![record * 10]));
    }

    fn reply(&self, record: u64, answer: Answer) {
        // Whoever has timed out does not listen any more.
        let _ = self.open.lock().unwrap().remove(&record).unwrap().send(answer);
    }

    /// The records whose requests were made since the last time.
    fn asked(&self) -> Vec<u64> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn open(operator: AsyncIo<u64, u64>, setup: Setup) -> Harness {
    Harness::open(operator.factory().as_ref(), setup).unwrap()
}

/// The elements in a snapshot.
fn in_flight(snapshot: &OperatorSnapshot) -> Vec<u64> {
    let parts = snapshot.parts.as_ref().unwrap();
    let [crate::parts::Part::List { elements, .. }] = parts.list.as_slice() else {
        unreachable!("{parts:?}")
    };
    elements.iter().map(|element| <(i64, u64)>::decode(&mut element.as_slice()).unwrap().1).collect()
}

const MS: Duration = Duration::from_millis(1);
const NONE: [u64; 0] = [];

#[test]
fn results_leave_in_order_or_as_they_come_but_never_past_a_watermark() {
    for (options, expected) in [
        (AsyncOptions::ordered(), [vec![], vec![10, 20], vec![30, 40]]),
        (AsyncOptions::unordered(), [vec![20], vec![10, 40], vec![30]]),
    ] {
        let peer = Peer::default();
        let mut harness = open(peer.operator(options), Setup::default());
        let mut batch = Batch::default();
        batch.push_with_timestamp(1, 101);
        batch.push_with_timestamp(2, 102);
        harness.push_batch(batch).unwrap();
        harness.watermark(7).unwrap();
        harness.push(vec![3, 4]).unwrap();
        assert_eq!(harness.flush().unwrap(), Flushed::All);
        assert_eq!(peer.asked(), [1, 2, 3, 4], "all at the same time");
        for ((answers, watermarks), expected) in
            [([4, 2], 0), ([1, 1], 1), ([3, 3], 1)].into_iter().zip(expected)
        {
            for record in answers {
                if peer.open.lock().unwrap().contains_key(&record) {
                    peer.answer(record);
                }
            }
            harness.flush().unwrap();
            let output = harness.output_batch();
            let stamped = |timestamp: i64| {
                output
                    .records()
                    .iter()
                    .position(|r| *r == timestamp as u64 * 10)
                    .map(|at| output.timestamp(at))
            };
            assert!(stamped(2).is_none_or(|timestamp| timestamp == Some(102)), "the record's timestamp");
            assert_eq!(output.records(), expected);
            let passed = harness.events().iter().filter(|event| **event == Event::Watermark(7)).count();
            assert_eq!(passed, watermarks);
        }
    }
}

#[test]
fn no_more_is_asked_or_read_than_the_capacity() {
    let peer = Peer::default();
    let mut harness = open(peer.operator(AsyncOptions::ordered().capacity(2)), Setup::default());
    harness.push(vec![1, 2, 3, 4]).unwrap();
    assert_eq!(harness.flush().unwrap(), Flushed::Blocked);
    assert_eq!(peer.asked(), [1, 2]);
    peer.answer(2);
    assert_eq!(harness.flush().unwrap(), Flushed::Blocked);
    assert_eq!(peer.asked(), NONE, "the result of 2 has not left");
    peer.answer(1);
    assert_eq!(harness.flush().unwrap(), Flushed::All);
    assert_eq!((harness.output(), peer.asked()), (vec![10, 20], vec![3, 4]));
    // While the channel behind is full, results stay, and so does the room they take.
    harness.set_blocked(true);
    peer.answer(3);
    harness.push(vec![5]).unwrap();
    assert_eq!(harness.flush().unwrap(), Flushed::Blocked);
    assert_eq!((harness.output(), peer.asked()), (vec![], vec![]));
    harness.set_blocked(false);
    assert_eq!(harness.flush().unwrap(), Flushed::All);
    assert_eq!((harness.output(), peer.asked()), (vec![30], vec![5]));
}

#[test]
fn a_request_that_never_ends_meets_its_timeout() {
    let peer = Peer::default();
    let options = AsyncOptions::unordered().timeout(100 * MS);
    let mut harness = open(peer.operator(options.clone()), Setup::default());
    harness.push(vec![1]).unwrap();
    harness.flush().unwrap();
    harness.processing_time(99).unwrap();
    let failure = harness.processing_time(100).unwrap_err();
    assert!(failure.message.contains("has not been answered within 100 ms"), "{failure}");

    let operator = peer.operator(options).on_timeout(|record| Ok::<_, Failure>([record]));
    let mut harness = open(operator, Setup::default());
    harness.push(vec![2, 3]).unwrap();
    harness.flush().unwrap();
    harness.processing_time(50).unwrap();
    peer.answer(3);
    harness.push(vec![4]).unwrap();
    harness.flush().unwrap();
    harness.processing_time(100).unwrap();
    assert_eq!(harness.output(), [30, 2]);
    peer.answer(2);
    harness.processing_time(149).unwrap();
    assert_eq!(harness.output(), NONE, "it is too late");
    harness.processing_time(150).unwrap();
    assert_eq!(harness.output(), [4]);
}

#[test]
fn failed_requests_are_repeated_after_a_pause() {
    let peer = Peer::default();
    let fails = || Err("no answer".to_string());
    let retry = AsyncRetry::exponential_backoff(3, 10 * MS, 100 * MS, 2.0);
    let mut harness = open(peer.operator(AsyncOptions::ordered().retry(retry)), Setup::default());
    harness.push(vec![1]).unwrap();
    harness.flush().unwrap();
    for (pause_over, reply) in [(10, fails()), (30, Ok(vec![7]))] {
        peer.asked();
        peer.reply(1, fails());
        harness.flush().unwrap();
        harness.processing_time(pause_over - 1).unwrap();
        assert_eq!(peer.asked(), NONE);
        harness.processing_time(pause_over).unwrap();
        assert_eq!(peer.asked(), [1]);
        if reply.is_ok() {
            peer.reply(1, reply);
            harness.flush().unwrap();
        }
    }
    assert_eq!(harness.output(), [7]);
    // The last try decides.
    harness.push(vec![2]).unwrap();
    harness.flush().unwrap();
    for time in [100, 200] {
        peer.reply(2, fails());
        harness.processing_time(time - 50).unwrap();
        harness.processing_time(time).unwrap();
    }
    peer.reply(2, fails());
    let failure = harness.flush().unwrap_err();
    assert!(failure.message.contains("after 3 tries") && failure.message.contains("no answer"), "{failure}");
}

#[test]
fn requests_of_a_key_are_made_one_after_the_other() {
    let peer = Peer::default();
    let operator = peer.operator(AsyncOptions::unordered()).by_key(|record| record % 2);
    let mut harness = open(operator, Setup::default());
    harness.push(vec![1, 2, 3, 5]).unwrap();
    harness.flush().unwrap();
    assert_eq!(peer.asked(), [1, 2]);
    for (record, next) in [(1, vec![3]), (2, vec![]), (3, vec![5]), (5, vec![])] {
        peer.answer(record);
        harness.flush().unwrap();
        assert_eq!((harness.output(), peer.asked()), (vec![record * 10], next));
    }
    harness.push(vec![7]).unwrap();
    harness.flush().unwrap();
    assert_eq!(peer.asked(), [7], "nothing is left of the key");
}

#[test]
fn what_has_not_left_is_asked_again_by_exactly_one_subtask() {
    let peer = Peer::default();
    let mut harness = open(peer.operator(AsyncOptions::ordered().capacity(4)), Setup::default());
    harness.push((1..=6).collect()).unwrap();
    harness.flush().unwrap();
    peer.answer(1);
    peer.answer(3);
    harness.flush().unwrap();
    assert_eq!(harness.output(), [10]);
    let snapshot = harness.barrier(1).unwrap();
    assert_eq!(in_flight(&snapshot), [2, 3, 4, 5, 6], "also what is answered and what was not asked yet");

    let plain = |peer: &Peer| peer.operator(AsyncOptions::unordered().capacity(9));
    let by_key = |peer: &Peer| plain(peer).by_key(|record| *record);
    let mut keyed = open(by_key(&peer), Setup::default());
    keyed.push((2..=6).collect()).unwrap();
    let keyed = keyed.barrier(1).unwrap();
    for (snapshot, is_keyed) in [(snapshot, false), (keyed, true)] {
        for parallelism in [1, 2, 3] {
            let mut all = Vec::new();
            for index in 0..parallelism {
                let peer = Peer::default();
                let operator = if is_keyed { by_key(&peer) } else { plain(&peer) };
                let setup = Setup::default().subtask(index, parallelism).restoring(snapshot.clone());
                open(operator, setup).flush().unwrap();
                let mine = peer.asked();
                let owned = groups_of(index, parallelism, 128);
                let is_owner = |key: &u64| owned.contains(key_group(key.key_hash(&mut Vec::new()), 128));
                assert!(!is_keyed || mine.iter().all(is_owner), "{mine:?} of subtask {index}");
                all.extend(mine);
            }
            all.sort_unstable();
            assert_eq!(all, [2, 3, 4, 5, 6], "parallelism {parallelism}, by key: {is_keyed}");
        }
    }
}

#[test]
fn the_end_comes_behind_the_last_result() {
    let peer = Peer::default();
    let mut harness = open(peer.operator(AsyncOptions::unordered()), Setup::default());
    harness.push(vec![1, 2]).unwrap();
    harness.end().unwrap();
    assert_eq!(harness.flush().unwrap(), Flushed::Blocked);
    peer.answer(2);
    assert_eq!(harness.flush().unwrap(), Flushed::Blocked);
    assert!(!harness.events().contains(&Event::EndOfInput));
    peer.answer(1);
    assert_eq!(harness.flush().unwrap(), Flushed::All);
    assert_eq!(harness.output(), [20, 10]);
    assert!(harness.events().contains(&Event::EndOfInput));
}

#[test]
fn records_of_another_type_are_refused_with_what_to_do() {
    let peer = Peer::default();
    let mut harness = open(peer.operator(AsyncOptions::ordered()), Setup::default());
    harness.push(vec![1]).unwrap();
    let snapshot = harness.barrier(1).unwrap();
    let other = AsyncIo::new(AsyncOptions::ordered(), |text: String| async move { Ok::<_, Failure>([text]) });
    let factory = other.factory();
    let opened =
        OperatorHarness::<String, String>::open(factory.as_ref(), Setup::default().restoring(snapshot));
    let failure = opened.err().unwrap();
    assert!(failure.message.contains("give the operator another uid"), "{failure}");
}
