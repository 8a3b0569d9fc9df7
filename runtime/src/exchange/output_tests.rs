//! Tests of the output over local channels: order behind a full channel, barriers, routing.

use std::time::Duration;

use proptest::prelude::*;
use thalweg_common::config::CheckpointMode;
use thalweg_common::id::ChannelId;
use thalweg_common::limits::{BATCH_RECORDS, LOCAL_CHANNEL_BATCHES, LOCAL_CHANNEL_EVENTS};

use super::*;
use crate::exchange::channel::{Receiver, local_channel};
use crate::exchange::gate::{Input, InputGate};
use crate::exchange::partitioner::{Forward, RoundRobin, by_key};
use crate::exchange::waker::TaskParker;
use crate::time::Merged;

fn channels<T: Record>(count: u32) -> (Vec<Sender<T>>, Vec<InputGate<T>>) {
    let gate = |receiver: Receiver<T>| {
        InputGate::new(vec![receiver], CheckpointMode::ExactlyOnce, TaskParker::new().waker())
    };
    (0..count)
        .map(|to| local_channel(ChannelId { edge: 0, from: 0, to }))
        .map(|(sender, receiver)| (sender, gate(receiver)))
        .unzip()
}

fn process<T: Record>(output: &mut Output<T>, records: Vec<T>) {
    output.process(&mut Batch::from(records)).expect("no channel has failed");
}

fn snapshot<T: Record>(output: &mut Output<T>, id: CheckpointId) {
    let barrier = Barrier { id, timestamp_ms: 0, is_final: false, is_savepoint: false };
    output.snapshot(barrier, &mut SnapshotBuilder::default()).expect("no channel has failed");
}

/// What a receiver sees.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen<T> {
    Record(T),
    Barrier(CheckpointId),
    End,
    Time(Merged),
}

fn receive<T: Record>(gate: &mut InputGate<T>, inputs: usize, seen: &mut Vec<Seen<T>>) {
    for _ in 0..inputs {
        match gate.poll().expect("no channel has failed") {
            Input::Batch(mut batch) => seen.extend(batch.drain().map(Seen::Record)),
            Input::Barrier { barrier, .. } => seen.push(Seen::Barrier(barrier.id)),
            Input::Time(merged) => seen.push(Seen::Time(merged)),
            Input::EndOfInput => seen.push(Seen::End),
            Input::Idle => return,
        }
    }
}

fn receive_all<T: Record>(gate: &mut InputGate<T>) -> Vec<Seen<T>> {
    let mut seen = Vec::new();
    receive(gate, usize::MAX, &mut seen);
    seen
}

#[test]
fn a_watermark_is_behind_the_records_before_it_in_every_channel_also_in_a_full_one() {
    let (senders, mut gates) = channels::<u64>(2);
    let mut output = Output::new(Box::new(RoundRobin::starting_at(0)), senders);
    let rises = |watermark| Seen::Time(Merged { watermark: Some(watermark), status: None });
    process(&mut output, vec![0, 1]);
    output.watermark(7).expect("no channel has failed");
    for (number, gate) in (0..).zip(&mut gates) {
        assert_eq!(receive_all(gate), [Seen::Record(number), rises(7)]);
    }
    // More than fits into the channels.
    let rounds = LOCAL_CHANNEL_BATCHES as i64 + 3;
    for round in 0..rounds {
        process(&mut output, vec![2, 3]);
        output.watermark(round + 8).expect("no channel has failed");
    }
    output.watermark_status(WatermarkStatus::Idle).expect("no channel has failed");
    assert_eq!(output.flush(true), Ok(Flushed::Blocked));
    let mut seen = Vec::new();
    while output.flush(true) == Ok(Flushed::Blocked) {
        seen.extend(receive_all(&mut gates[0]));
        receive_all(&mut gates[1]);
    }
    seen.extend(receive_all(&mut gates[0]));
    let idle = Seen::Time(Merged { watermark: None, status: Some(WatermarkStatus::Idle) });
    let expected = (0..rounds).flat_map(|round| [Seen::Record(2), rises(round + 8)]).chain([idle]);
    assert_eq!(seen, expected.collect::<Vec<_>>());
}

#[test]
fn a_batch_leaves_when_it_is_full_or_asked_for() {
    let (senders, mut gates) = channels(2);
    let mut output = Output::new(Box::new(RoundRobin::default()), senders);
    process(&mut output, (0..2 * BATCH_RECORDS as u64 - 2).collect());
    assert_eq!(output.flush(false), Ok(Flushed::All));
    assert!(gates.iter_mut().all(|gate| receive_all(gate).is_empty()), "no batch is full");
    process(&mut output, vec![0, 1]);
    assert!(gates.iter_mut().all(|gate| receive_all(gate).len() == BATCH_RECORDS));
    process(&mut output, vec![7]);
    assert_eq!(output.flush(true), Ok(Flushed::All));
    assert_eq!(receive_all(&mut gates[0]), [Seen::Record(7)]);
    assert_eq!(output.traffic().records(), 2 * BATCH_RECORDS as u64 + 1);
}

#[test]
fn what_no_channel_takes_is_counted() {
    let (senders, mut gates) = channels(1);
    let mut output = Output::new(Box::new(Forward), senders);
    for _ in 0..LOCAL_CHANNEL_BATCHES + 2 {
        process(&mut output, vec![7_u64; BATCH_RECORDS]);
    }
    assert_eq!(output.traffic().queue_length(), 2);
    receive_all(&mut gates[0]);
    assert_eq!(output.flush(false), Ok(Flushed::All));
    assert_eq!((output.traffic().queue_length(), output.traffic().credit()), (0, 0));
}

#[test]
fn one_channel_gets_the_batch_itself() {
    let (senders, mut gates) = channels(1);
    let mut output = Output::new(Box::new(Forward), senders);
    let records: Vec<u64> = (0..BATCH_RECORDS as u64).collect();
    let address = records.as_ptr();
    process(&mut output, records);
    match gates[0].poll() {
        Ok(Input::Batch(batch)) => assert_eq!(batch.records().as_ptr(), address, "it was copied"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_batch_of_large_records_is_full_sooner() {
    type Large = [u8; 1_024];
    let (senders, mut gates) = channels::<(Large, u8)>(2);
    let mut output = Output::new(Box::new(RoundRobin::default()), senders);
    let full = Batch::<(Large, u8)>::FULL_RECORDS;
    assert!(full < BATCH_RECORDS / 10);
    process(&mut output, vec![([0; 1_024], 0); 2 * full - 1]);
    assert_eq!(receive_all(&mut gates[0]).len(), full);
    assert_eq!(receive_all(&mut gates[1]).len(), 0);
}

/// The buffers in which the batches of many rounds arrive, once warm: by address, from each channel.
fn buffers_in_use<T: Record>(
    output: &mut Output<T>,
    gates: &mut [InputGate<T>],
    records: &[T],
) -> Vec<usize> {
    let mut input = Batch::default();
    let mut addresses = std::collections::BTreeSet::new();
    for round in 0..100 {
        input.extend(records.iter().cloned());
        output.process(&mut input).expect("no channel has failed");
        assert_eq!(output.flush(true), Ok(Flushed::All));
        for gate in gates.iter_mut().filter(|_| round % 5 == 4) {
            while let Input::Batch(batch) = gate.poll().expect("no channel has failed") {
                if round > 20 {
                    addresses.insert(batch.records().as_ptr().addr());
                }
                gate.recycle(batch);
            }
        }
    }
    addresses.into_iter().collect()
}

#[test]
fn buffers_are_used_again() {
    // Five batches wait in a channel, one is being filled; a forwarding output's caller has one more.
    let records: Vec<u64> = (0..100).collect();
    let (senders, mut gates) = channels(1);
    let mut output = Output::new(Box::new(Forward), senders);
    let forward = buffers_in_use(&mut output, &mut gates, &records);
    let (senders, mut gates) = channels(3);
    let mut output = Output::new(Box::new(RoundRobin::default()), senders);
    let partitioned = buffers_in_use(&mut output, &mut gates, &records);
    let (senders, mut gates) = channels(3);
    let broadcast = buffers_in_use(&mut Output::broadcast(senders), &mut gates, &records);
    for (name, buffers, most) in
        [("forward", forward, 7), ("partitioned", partitioned, 18), ("broadcast", broadcast, 19)]
    {
        assert!(buffers.len() <= most, "{name}: {} buffers", buffers.len());
    }
}

#[test]
fn broadcast_sends_all_to_all() {
    let (senders, mut gates) = channels(3);
    let mut output = Output::broadcast(senders);
    process(&mut output, vec!["a".to_owned(), "b".to_owned()]);
    assert_eq!(output.flush(true), Ok(Flushed::All));
    for gate in &mut gates {
        assert_eq!(receive_all(gate), [Seen::Record("a".to_owned()), Seen::Record("b".to_owned())]);
    }
}

#[test]
fn a_key_stays_on_its_channel() {
    let (senders, mut gates) = channels(4);
    let mut output = Output::new(Box::new(by_key(|record: &u64| record % 50, 128)), senders);
    process(&mut output, (0..1_000).collect());
    assert_eq!(output.flush(true), Ok(Flushed::All));
    let mut owner = std::collections::HashMap::new();
    let mut count = 0;
    for (channel, gate) in gates.iter_mut().enumerate() {
        for seen in receive_all(gate) {
            let Seen::Record(record) = seen else { panic!("{seen:?}") };
            assert_eq!(*owner.entry(record % 50).or_insert(channel), channel);
            count += 1;
        }
    }
    assert_eq!(count, 1_000);
}

#[test]
fn a_full_channel_blocks_the_flush_and_wakes_the_task() {
    let (senders, mut gates) = channels(2);
    let mut output = Output::broadcast(senders);
    let mut parker = TaskParker::new();
    output.set_waker(&parker.waker());
    for number in 0..=LOCAL_CHANNEL_BATCHES as u64 {
        process(&mut output, vec![number]);
        receive_all(&mut gates[1]);
        let expected = if number < LOCAL_CHANNEL_BATCHES as u64 { Flushed::All } else { Flushed::Blocked };
        assert_eq!(output.flush(true), Ok(expected), "batch {number}");
    }
    snapshot(&mut output, 1);
    assert_eq!(
        receive_all(&mut gates[1]).last(),
        Some(&Seen::Barrier(1)),
        "the other channel is not held up"
    );
    assert_eq!(output.flush(true), Ok(Flushed::Blocked));
    assert!(!parker.park(Duration::ZERO));
    assert_eq!(output.traffic().queue_length(), 2, "a batch and the barrier behind it");
    assert_eq!(gates[0].traffic().queue_length(), LOCAL_CHANNEL_BATCHES as u64);

    let mut seen = receive_all(&mut gates[0]);
    assert!(parker.park(Duration::ZERO), "there is room again");
    assert_eq!(output.flush(false), Ok(Flushed::All));
    assert_eq!((output.traffic().queue_length(), gates[0].traffic().queue_length()), (0, 2));
    seen.extend(receive_all(&mut gates[0]));
    assert_eq!(gates[0].traffic().queue_length(), 0);
    let expected: Vec<_> =
        (0..=LOCAL_CHANNEL_BATCHES as u64).map(Seen::Record).chain([Seen::Barrier(1)]).collect();
    assert_eq!(seen, expected);
}

/// A source that has told its end parks without another flush: a barrier must not need one, however full the channel is.
#[test]
fn barriers_behind_the_end_need_no_flush() {
    let (senders, mut gates) = channels(1);
    let mut output = Output::new(Box::new(Forward), senders);
    for number in 0..LOCAL_CHANNEL_BATCHES as u64 {
        process(&mut output, vec![number]);
        assert_eq!(output.flush(true), Ok(Flushed::All));
    }
    output.finish().expect("no channel has failed");
    let checkpoints = 2 * LOCAL_CHANNEL_EVENTS as CheckpointId;
    (1..=checkpoints).for_each(|id| snapshot(&mut output, id));
    let seen = receive_all(&mut gates[0]);
    assert_eq!(seen[LOCAL_CHANNEL_BATCHES], Seen::End);
    assert_eq!(seen.last(), Some(&Seen::Barrier(checkpoints)));
}

#[test]
fn a_vanished_receiver_is_a_failure() {
    let (senders, gates) = channels(1);
    let mut output = Output::new(Box::new(Forward), senders);
    process(&mut output, vec![1]);
    drop(gates);
    let failure = output.flush(true).expect_err("nobody receives");
    assert!(failure.message.contains("edge 0 from subtask 0 to subtask 0"), "{failure}");
}

#[test]
fn a_partitioner_that_breaks_its_contract_is_found() {
    struct Broken(Vec<u32>);
    impl Partitioner<u64> for Broken {
        fn select(&mut self, _records: &[u64], _channels: usize, targets: &mut Vec<u32>) {
            targets.extend(&self.0);
        }
    }
    for targets in [vec![], vec![0, 1], vec![0, 2, 0], vec![0, 1, 1, 0]] {
        let (senders, _gates) = channels(2);
        let mut output = Output::new(Box::new(Broken(targets.clone())), senders);
        assert!(output.process(&mut Batch::from(vec![1, 2, 3])).is_err(), "{targets:?}");
    }
}

/// Of barriers with nothing between, the last one may stand for all.
fn without_replaced<T: Clone>(seen: &[Seen<T>]) -> Vec<Seen<T>> {
    let is_barrier = |seen: Option<&Seen<T>>| matches!(seen, Some(Seen::Barrier(_)));
    let is_replaced = |index: usize| is_barrier(seen.get(index)) && is_barrier(seen.get(index + 1));
    (0..seen.len()).filter(|index| !is_replaced(*index)).map(|index| seen[index].clone()).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Process(u16),
    Flush(bool),
    Snapshot,
    Receive(u8, u8),
}

proptest! {
    /// Whatever is full when: every channel sees its records and barriers once, in the order of their processing.
    #[test]
    fn order_is_kept_behind_full_channels(
        count in 1u32..4,
        steps in proptest::collection::vec(prop_oneof![
            4 => prop_oneof![0u16..4, 1_000u16..1_100].prop_map(Step::Process),
            4 => any::<bool>().prop_map(Step::Flush),
            1 => Just(Step::Snapshot),
            4 => (any::<u8>(), 0u8..6).prop_map(|(channel, inputs)| Step::Receive(channel, inputs)),
        ], 0..80),
    ) {
        let (senders, mut gates) = channels(count);
        let mut output = Output::new(Box::new(RoundRobin::default()), senders);
        let mut expected = vec![Vec::new(); gates.len()];
        let mut seen = expected.clone();
        let (mut next, mut checkpoints) = (0usize, 0);
        for step in steps {
            match step {
                Step::Process(records) => {
                    let records: Vec<_> = (next..next + usize::from(records)).collect();
                    next += records.len();
                    for record in &records {
                        expected[record % count as usize].push(Seen::Record(*record));
                    }
                    process(&mut output, records);
                }
                Step::Flush(partial) => {
                    prop_assert!(output.flush(partial).is_ok());
                }
                Step::Snapshot => {
                    checkpoints += 1;
                    expected.iter_mut().for_each(|expected| expected.push(Seen::Barrier(checkpoints)));
                    snapshot(&mut output, checkpoints);
                }
                Step::Receive(channel, inputs) => {
                    let channel = usize::from(channel) % gates.len();
                    receive(&mut gates[channel], usize::from(inputs), &mut seen[channel]);
                }
            }
        }
        output.finish().expect("no channel has failed");
        loop {
            for (gate, seen) in gates.iter_mut().zip(&mut seen) {
                receive(gate, usize::MAX, seen);
            }
            if output.flush(true) == Ok(Flushed::All) {
                break;
            }
        }
        for ((gate, mut seen), mut expected) in gates.iter_mut().zip(seen).zip(expected) {
            receive(gate, usize::MAX, &mut seen);
            expected.push(Seen::End);
            prop_assert_eq!(without_replaced(&seen), without_replaced(&expected));
        }
    }
}

/// Makes an output over channels.
type MakeOutput = fn(Vec<Sender<u64>>) -> Output<u64>;

/// A record and its timestamp.
type Pair = (u64, Option<i64>);

fn process_pairs(output: &mut Output<u64>, pairs: &[Pair]) {
    let mut batch = Batch::default();
    for (record, timestamp) in pairs {
        match timestamp {
            Some(timestamp) => batch.push_with_timestamp(*record, *timestamp),
            None => batch.push(*record),
        }
    }
    output.process(&mut batch).expect("no channel has failed");
    assert!(batch.is_empty());
}

/// All records that wait; their buffers go back to be used again.
fn receive_pairs(gate: &mut InputGate<u64>) -> Vec<Pair> {
    let mut pairs = Vec::new();
    while let Input::Batch(mut batch) = gate.poll().expect("no channel has failed") {
        pairs.extend(batch.drain_with_timestamps());
        gate.recycle(batch);
    }
    pairs
}

#[test]
fn timestamps_pass_local_channels_and_used_buffers() {
    let outputs: [MakeOutput; 3] = [
        |senders| Output::new(Box::new(RoundRobin::default()), senders),
        Output::broadcast,
        // One channel takes batches as they are.
        |senders| Output::new(Box::new(Forward), senders),
    ];
    for (kind, make) in outputs.into_iter().enumerate() {
        let (senders, mut gates) = channels(if kind == 2 { 1 } else { 3 });
        let mut output = make(senders);
        let mut next = 0;
        for round in 0..60_u64 {
            // Rounds without timestamps between those with them, and batches that are mixed.
            let pairs: Vec<Pair> = (next..next + 30 + round)
                .map(|number| (number, (number % 7 < round % 8).then_some(number as i64 - 100)))
                .collect();
            next += pairs.len() as u64;
            for part in pairs.chunks(11) {
                process_pairs(&mut output, part);
            }
            assert_eq!(output.flush(true), Ok(Flushed::All));
            let mut seen: Vec<Vec<Pair>> = gates.iter_mut().map(receive_pairs).collect();
            match kind {
                0 => {
                    let mut all = seen.concat();
                    all.sort_unstable();
                    assert_eq!(all, pairs);
                }
                1 => assert!(seen.iter().all(|seen| *seen == pairs)),
                _ => assert_eq!(seen.swap_remove(0), pairs),
            }
        }
    }
}

#[test]
fn timestamps_wait_with_their_records_behind_a_full_channel_and_pass_in_pieces() {
    let (senders, mut gates) = channels(1);
    let mut output = Output::new(Box::new(Forward), senders);
    let pairs: Vec<Pair> =
        (0..(LOCAL_CHANNEL_BATCHES as u64 + 2) * 50).map(|number| (number, Some(-(number as i64)))).collect();
    // The first batches of a channel are small, so each of these leaves in pieces.
    for part in pairs.chunks(50) {
        process_pairs(&mut output, part);
        output.flush(true).expect("no channel has failed");
    }
    assert!(output.traffic().queue_length() > 0, "the channel is full");
    let mut seen = Vec::new();
    while seen.len() < pairs.len() {
        seen.extend(receive_pairs(&mut gates[0]));
        output.flush(true).expect("no channel has failed");
    }
    assert_eq!(seen, pairs);
}

#[path = "output_overtaking_tests.rs"]
mod overtaking;
