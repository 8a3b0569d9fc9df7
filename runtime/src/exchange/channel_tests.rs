//! Channels inside a process, with both ends in one thread.

use super::*;
use crate::event::Barrier;
use crate::exchange::ready::{ChannelSet, ReadySet};
use crate::exchange::waker::TaskParker;
use std::time::Duration;

const ID: ChannelId = ChannelId { edge: 3, from: 1, to: 2 };

fn poll(receiver: &mut Receiver<u64>) -> Result<Option<Message<Batch<u64>>>, Failure> {
    receiver.poll(&mut Batch::default(), &mut 0)
}

fn batch(records: &[u64]) -> Batch<u64> {
    Batch::from(records.to_vec())
}

fn barrier(id: u64) -> Event {
    Event::Barrier(Barrier { id, timestamp_ms: 0, is_final: false, is_savepoint: false })
}

#[test]
fn a_full_channel_gives_back_and_wakes_at_half() {
    let (mut sender, mut receiver) = local_channel(ID);
    let mut parker = TaskParker::new();
    sender.set_waker(parker.waker());
    for number in 0..LOCAL_CHANNEL_BATCHES as u64 {
        assert_eq!(sender.try_send(batch(&[number])), Ok(Sent::Done));
    }
    assert_eq!(sender.try_send(batch(&[99])), Ok(Sent::Full(batch(&[99]))));
    sender.send_event(barrier(1)).expect("an event needs no room");

    for number in 0..LOCAL_CHANNEL_BATCHES as u64 {
        assert_eq!(poll(&mut receiver), Ok(Some(Message::Batch(batch(&[number])))));
        // The barrier takes the place of a batch.
        let is_half = number as usize == LOCAL_CHANNEL_BATCHES / 2;
        assert_eq!(parker.park(Duration::ZERO), is_half, "after {number}");
    }
    assert_eq!(poll(&mut receiver), Ok(Some(Message::Event(barrier(1)))));
    assert_eq!(poll(&mut receiver), Ok(None));
}

#[test]
fn events_are_never_refused_and_overtake_nothing() {
    let (mut sender, mut receiver) = local_channel(ID);
    let mut parker = TaskParker::new();
    sender.set_waker(parker.waker());
    let (batches, events) = (LOCAL_CHANNEL_BATCHES as u64, LOCAL_CHANNEL_EVENTS as u64);
    for number in 0..batches {
        assert_eq!(sender.try_send(batch(&[number])), Ok(Sent::Done));
    }
    // One more than fit into the ring are late, and of late barriers in a row the last one counts.
    for id in 1..=events + 2 {
        sender.send_event(barrier(id)).expect("an event needs no room");
    }
    for number in 0..batches {
        assert_eq!(poll(&mut receiver), Ok(Some(Message::Batch(batch(&[number])))));
    }
    assert_eq!(sender.try_send(batch(&[99])), Ok(Sent::Full(batch(&[99]))), "it would overtake");
    sender.send_event(barrier(events + 3)).expect("behind the others");
    for id in (1..=events).chain([events + 3]) {
        assert!(!parker.park(Duration::ZERO), "before {id}");
        assert_eq!(poll(&mut receiver), Ok(Some(Message::Event(barrier(id)))));
    }
    assert!(parker.park(Duration::ZERO), "no event is late any more");
    assert_eq!(sender.try_send(batch(&[99])), Ok(Sent::Done));
    assert_eq!(poll(&mut receiver), Ok(Some(Message::Batch(batch(&[99])))));
    assert_eq!(poll(&mut receiver), Ok(None));
}

#[test]
fn buffers_come_back_to_the_sender() {
    let (mut sender, mut receiver) = local_channel::<u64>(ID);
    assert!(sender.take_spare().is_none());
    let buffer = Batch::with_capacity(7);
    let address = buffer.records().as_ptr();
    assert_eq!(receiver.recycle(buffer), None);
    assert_eq!(sender.take_spare().map(|spare| spare.records().as_ptr()), Some(address));
    for _ in 0..1_000 {
        assert_eq!(receiver.recycle(batch(&[0; 10])), None);
    }
    let kept = std::iter::from_fn(|| sender.take_spare()).count();
    assert!(kept < 2 * LOCAL_CHANNEL_BATCHES, "{kept} buffers are kept");
}

#[test]
fn what_the_receiver_leaves_behind_is_freed_while_the_sender_lives() {
    let (mut sender, receiver) = local_channel(ID);
    let counted = Arc::new(());
    #[derive(Clone)]
    struct Counted {
        _count: Arc<()>,
    }
    impl Record for Counted {
        fn encode(&self, _: &mut Vec<u8>) {}
        fn decode(_: &mut &[u8]) -> Result<Self, thalweg_common::record::DecodeError> {
            Ok(Self { _count: Arc::default() })
        }
        fn schema() -> thalweg_common::schema::Schema {
            u64::schema()
        }
    }
    let batch = Batch::from(vec![Counted { _count: Arc::clone(&counted) }]);
    assert!(matches!(sender.try_send(batch), Ok(Sent::Done)));
    drop(receiver);
    assert_eq!(Arc::strong_count(&counted), 1);
}

#[test]
fn closing_without_an_end_fails_the_receiver() {
    for close in [Sender::close, |sender: &mut Sender<u64>| *sender = local_channel(ID).0] {
        let (mut sender, mut receiver) = local_channel::<u64>(ID);
        let mut parker = TaskParker::new();
        let ready = ReadySet::new(1, parker.waker());
        receiver.attach(ready.signal(0));
        assert_eq!(sender.try_send(batch(&[1])), Ok(Sent::Done));
        ready.take(&mut ChannelSet::new(1), &ChannelSet::new(1));
        assert!(parker.park(Duration::ZERO));

        close(&mut sender);
        assert!(parker.park(Duration::ZERO), "the receiver hears of it at once");
        assert!(ready.take_alarms().has_failure());
        let failure = poll(&mut receiver).expect_err("the channel has failed");
        assert_eq!(receiver.check(), Err(failure.clone()));
        assert!(failure.message.contains("edge 3 from subtask 1 to subtask 2"), "{failure}");
        assert!(failure.message.contains("closed without an end marker"), "{failure}");
    }
}

#[test]
fn after_the_end_barriers_pass_and_nobody_fails() {
    let (mut sender, mut receiver) = local_channel(ID);
    sender.send_event(Event::EndOfInput).expect("first end");
    sender.send_event(barrier(1)).expect("barriers still pass");
    assert!(sender.try_send(batch(&[1])).is_err());
    assert!(sender.send_event(Event::EndOfInput).is_err());
    drop(sender);
    assert_eq!(poll(&mut receiver), Ok(Some(Message::Event(Event::EndOfInput))));
    assert_eq!(poll(&mut receiver), Ok(Some(Message::Event(barrier(1)))));
    assert_eq!(poll(&mut receiver), Ok(None));
}

#[test]
fn a_vanished_receiver_fails_the_sender_until_the_end_was_sent() {
    let (mut sender, receiver) = local_channel::<u64>(ID);
    let mut parker = TaskParker::new();
    sender.set_waker(parker.waker());
    drop(receiver);
    assert!(parker.park(Duration::ZERO), "a sender that waits for room hears of it");
    let failure = sender.try_send(batch(&[1])).expect_err("nobody receives");
    assert!(failure.message.contains("edge 3 from subtask 1 to subtask 2"), "{failure}");
    assert!(sender.send_event(barrier(1)).is_err());
    assert!(sender.send_event(Event::EndOfInput).is_err());

    let (mut sender, receiver) = local_channel::<u64>(ID);
    sender.send_event(Event::EndOfInput).expect("sent");
    drop(receiver);
    assert_eq!(sender.send_event(barrier(2)), Ok(()));
}
