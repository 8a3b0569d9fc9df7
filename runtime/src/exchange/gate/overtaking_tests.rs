//! Tests of barriers that overtake at a gate: what is recorded, when, and what is left of it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use thalweg_common::clock::ManualClock;
use thalweg_common::config::CheckpointMode;

use super::*;
use crate::exchange::channel::{Sender, local_channel_with_room};
use crate::exchange::waker::TaskParker;
use crate::in_flight::{InFlight, NotRecorded, Recorded};

/// A gate of local channels, and their senders.
struct Bench {
    senders: Vec<Sender<char>>,
    gate: InputGate<char>,
    parker: TaskParker,
    clock: Arc<ManualClock>,
}

impl Bench {
    fn new(channels: u32, after_ms: u64) -> Self {
        Self::restored(channels, after_ms, Vec::new())
    }

    fn restored(channels: u32, after_ms: u64, restored: Vec<(ChannelId, StoredBatch)>) -> Self {
        let (parker, clock) = (TaskParker::new(), Arc::new(ManualClock::new(1_000)));
        let (senders, receivers) = (0..channels).map(|from| local_channel_with_room(id(from), 4, 1)).unzip();
        let overtakes = Overtakes { after: Duration::from_millis(after_ms), clock: clock.clone() };
        let mode = CheckpointMode::ExactlyOnce;
        let gate = InputGate::with_clock(receivers, mode, parker.waker(), clock.clone());
        let gate = gate.restoring(restored).unwrap().overtaking(overtakes);
        Self { senders, gate, parker, clock }
    }

    fn send(&mut self, channel: usize, records: &str) {
        for record in records.chars() {
            let sent = self.senders[channel].try_send(Batch::from(vec![record])).unwrap();
            assert_eq!(sent, crate::exchange::Sent::Done);
        }
    }

    fn send_barrier(&mut self, channel: usize, id: CheckpointId) {
        self.senders[channel].send_event(Event::Barrier(barrier(id))).unwrap();
    }

    fn poll(&mut self) -> Input<char> {
        self.gate.poll().unwrap()
    }

    /// The task takes its snapshot.
    fn snapshot(&mut self, id: CheckpointId) -> Recorded {
        let mut builder = SnapshotBuilder::of(1);
        // Something else in the chain may record too.
        builder.part().done();
        self.gate.snapshot(barrier(id), &mut builder);
        builder.take_recorded().unwrap()
    }

    /// All records that are there, behind each other.
    fn read(&mut self) -> String {
        let mut read = String::new();
        loop {
            match self.poll() {
                Input::Batch(mut batch) => read.extend(batch.drain()),
                Input::Idle => return read,
                other => panic!("{other:?} behind {read}"),
            }
        }
    }
}

fn id(from: u32) -> ChannelId {
    ChannelId { edge: 0, from, to: 0 }
}

fn barrier(id: CheckpointId) -> Barrier {
    Barrier { id, timestamp_ms: 1_000, is_final: false, is_savepoint: false }
}

fn is_barrier(input: &Input<char>, id: CheckpointId) -> bool {
    matches!(input, Input::Barrier { barrier, .. } if barrier.id == id)
}

/// What was recorded of each channel.
fn records(in_flight: &InFlight) -> Vec<(u32, String)> {
    let text = |batches: &Vec<StoredBatch>| {
        batches.iter().flat_map(|batch| batch.decode::<char>().unwrap().into_parts().0).collect()
    };
    in_flight.inputs.iter().map(|(channel, batches)| (channel.from, text(batches))).collect()
}

#[test]
fn what_a_barrier_has_overtaken_is_recorded_where_it_waits_or_when_it_is_read() {
    let mut bench = Bench::new(3, 0);
    assert_eq!(bench.poll(), Input::Idle);
    bench.send(0, "ab");
    bench.send(1, "mn");
    // An older one, whose checkpoint is dead.
    bench.send_barrier(2, 1);
    bench.send_barrier(0, 2);
    bench.send(0, "c");
    assert!(bench.parker.park(Duration::ZERO));
    assert!(is_barrier(&bench.poll(), 2), "in front of everything");
    let mut recorded = bench.snapshot(2);
    assert_eq!(recorded.try_take(), Ok(None));
    // Channel 1 is open: this was sent before its barrier.
    let read = bench.read();
    assert_eq!(read.chars().filter(|record| "abc".contains(*record)).collect::<String>(), "abc");
    assert_eq!(read.len(), 5);
    bench.send(1, "op");
    bench.send_barrier(1, 2);
    bench.send(1, "q");
    // Seen in its queue, also by a task that does not read.
    assert_eq!(bench.gate.look(), Ok(None));
    assert_eq!(recorded.try_take(), Ok(None), "channel 2 is open");
    assert_eq!(bench.read(), "opq");
    bench.send(2, "x");
    bench.send_barrier(2, 2);
    assert_eq!(bench.read(), "x");
    let in_flight = recorded.try_take().unwrap().unwrap();
    assert_eq!(records(&in_flight), [(0, "ab".into()), (1, "mnop".into()), (2, "x".into())]);
    // Everything goes on.
    (0..3).for_each(|channel| bench.send_barrier(channel, 3));
    assert!(is_barrier(&bench.poll(), 3));
    assert_eq!(bench.snapshot(3).try_take().unwrap().unwrap().bytes(), 0);
    assert_eq!(bench.read(), "");
}

#[test]
fn barriers_keep_their_place_until_their_time_has_come() {
    let mut bench = Bench::new(2, 50);
    bench.send(0, "a");
    bench.send_barrier(0, 1);
    bench.send(0, "b");
    bench.send(1, "m");
    let mut read: Vec<char> = bench.read().chars().collect();
    read.sort_unstable();
    assert_eq!(read, ['a', 'm'], "channel 0 waits for the other one");
    assert_eq!(bench.gate.overtakes_in(), Some(Duration::from_millis(50)));
    bench.clock.advance(Duration::from_millis(20));
    bench.send_barrier(1, 1);
    let Input::Barrier { alignment, .. } = bench.poll() else { panic!("it is aligned") };
    assert_eq!(alignment.duration, Duration::from_millis(20));
    assert_eq!(bench.snapshot(1).try_take(), Ok(Some(InFlight { parallelism: 1, ..InFlight::default() })));
    assert_eq!((bench.gate.overtakes_in(), bench.read()), (None, "b".into()));

    bench.send(0, "c");
    bench.send_barrier(0, 2);
    bench.send(0, "d");
    bench.send(1, "n");
    assert_eq!(bench.gate.look(), Ok(None));
    bench.clock.advance(Duration::from_millis(30));
    assert!(is_barrier(&bench.gate.look().unwrap().unwrap(), 2), "50 ms after the trigger");
    let mut recorded = bench.snapshot(2);
    bench.send(1, "o");
    bench.send_barrier(1, 2);
    assert_eq!(bench.read().len(), 4);
    assert_eq!(records(&recorded.try_take().unwrap().unwrap()), [(0, "c".into()), (1, "no".into())]);
}

#[test]
fn a_channel_that_had_delivered_the_barrier_goes_on_and_has_nothing_on_its_way() {
    let mut bench = Bench::new(2, 50);
    bench.send_barrier(0, 1);
    bench.send(0, "b");
    assert_eq!(bench.read(), "", "it waits");
    bench.clock.advance(Duration::from_millis(50));
    let Input::Barrier { alignment, .. } = bench.poll() else { panic!("its time has come") };
    assert_eq!(alignment.duration, Duration::from_millis(50));
    let mut recorded = bench.snapshot(1);
    assert_eq!(bench.read(), "b");
    bench.send(1, "m");
    bench.send_barrier(1, 1);
    assert_eq!(bench.read(), "m");
    assert_eq!(records(&recorded.try_take().unwrap().unwrap()), [(1, "m".into())]);
}

#[test]
fn savepoints_and_the_final_checkpoint_overtake_nothing() {
    for (is_savepoint, is_final) in [(true, false), (false, true)] {
        let mut bench = Bench::new(1, 0);
        bench.send(0, "a");
        let barrier = Barrier { is_savepoint, is_final, ..barrier(1) };
        bench.senders[0].send_event(Event::Barrier(barrier)).unwrap();
        assert!(matches!(bench.poll(), Input::Batch(_)));
        assert!(is_barrier(&bench.poll(), 1));
    }
}

#[test]
fn a_checkpoint_that_dies_is_given_up_whole() {
    // Before the snapshot, and while it is recorded: by the job manager, by a newer barrier that is seen, and by one that is read.
    let mut bench = Bench::new(2, 0);
    bench.send_barrier(0, 1);
    assert!(is_barrier(&bench.poll(), 1));
    bench.gate.abort(1);
    assert_eq!(bench.snapshot(1).try_take(), Err(NotRecorded));

    for how in 0..3 {
        let mut bench = Bench::new(2, 0);
        bench.send_barrier(0, 1);
        assert!(is_barrier(&bench.poll(), 1));
        let mut recorded = bench.snapshot(1);
        match how {
            0 => bench.gate.abort(1),
            1 => {
                bench.send_barrier(0, 2);
                assert!(is_barrier(&bench.poll(), 2));
                let mut second = bench.snapshot(2);
                bench.send_barrier(1, 2);
                assert_eq!(bench.read(), "");
                assert!(second.try_take().unwrap().is_some());
            }
            _ => {
                let savepoint = Barrier { is_savepoint: true, ..barrier(2) };
                bench.senders[1].send_event(Event::Barrier(savepoint)).unwrap();
                assert_eq!(bench.read(), "");
            }
        }
        assert_eq!(recorded.try_take(), Err(NotRecorded), "{how}");
        // Its barrier means nothing any more.
        bench.send(1, "m");
        if how != 2 {
            bench.send_barrier(1, 1);
            assert_eq!(bench.read(), "m");
        }
    }
}

#[test]
fn what_is_restored_comes_first_and_is_on_its_way_again() {
    let restored = |from, record| (id(from), StoredBatch::of(&Batch::from(vec![record])));
    let mut bench = Bench::restored(2, 0, vec![restored(0, 'a'), restored(0, 'b'), restored(1, 'm')]);
    bench.send(0, "c");
    assert_eq!(bench.poll(), Input::Batch(Batch::from(vec!['a'])));
    (0..2).for_each(|channel| bench.send_barrier(channel, 1));
    assert!(is_barrier(&bench.poll(), 1));
    let in_flight = bench.snapshot(1).try_take().unwrap().unwrap();
    assert_eq!(records(&in_flight), [(0, "bc".into()), (1, "m".into())]);
    assert_eq!(bench.read(), "bmc");

    let strange = InputGate::<char>::new(Vec::new(), CheckpointMode::ExactlyOnce, TaskParker::new().waker());
    let failure = strange.restoring(vec![restored(7, 'a')]).err().unwrap();
    assert!(failure.message.contains("from subtask 7"), "{failure}");
}
