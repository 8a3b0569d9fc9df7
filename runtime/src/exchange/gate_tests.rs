//! Tests of the gate over local channels: order, fairness, alignment, failures, and a property over all of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use thalweg_common::clock::{Clock, ManualClock};
use thalweg_common::id::ChannelId;

use super::*;
use crate::event::WatermarkStatus;
use crate::exchange::channel::{Sender, Sent, local_channel};
use crate::exchange::waker::TaskParker;
use crate::time::MAX_WATERMARK;

fn channels<T: Record>(count: u32) -> (Vec<Sender<T>>, Vec<Receiver<T>>) {
    (0..count).map(|from| local_channel(ChannelId { edge: 0, from, to: 0 })).unzip()
}

fn gate<T: Record>(receivers: Vec<Receiver<T>>, mode: CheckpointMode) -> (InputGate<T>, TaskParker) {
    let parker = TaskParker::new();
    let waker = parker.waker();
    (InputGate::new(receivers, mode, waker), parker)
}

fn barrier(id: CheckpointId) -> Barrier {
    Barrier { id, timestamp_ms: 5, is_final: false, is_savepoint: false }
}

fn send<T: Record + std::fmt::Debug>(sender: &mut Sender<T>, record: T) {
    let sent = sender.try_send(Batch::from(vec![record])).expect("the channel is whole");
    assert!(matches!(sent, Sent::Done), "{sent:?}");
}

fn send_barrier<T: Record>(sender: &mut Sender<T>, id: CheckpointId) {
    sender.send_event(Event::Barrier(barrier(id))).expect("the channel is whole");
}

/// The records of all batches until something else comes, and that.
fn drain<T: Record>(gate: &mut InputGate<T>) -> (Vec<T>, Input<T>) {
    let mut records = Vec::new();
    loop {
        match gate.poll().expect("no channel has failed") {
            Input::Batch(mut batch) => records.extend(batch.drain()),
            other => return (records, other),
        }
    }
}

#[test]
fn channels_are_served_in_turn() {
    let (mut senders, receivers) = channels(3);
    for (channel, sender) in senders.iter_mut().enumerate() {
        (0..3).for_each(|number| send(sender, (channel, number)));
    }
    let (mut gate, _parker) = gate(receivers, CheckpointMode::ExactlyOnce);
    let (records, last) = drain(&mut gate);
    let order: Vec<_> = records.iter().map(|record| record.0).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    assert_eq!(last, Input::Idle);
    assert_eq!(gate.traffic().records(), 9);
}

#[test]
fn what_waits_is_counted() {
    let (mut senders, receivers) = channels(2);
    for sender in &mut senders {
        (0..3).for_each(|number| send(sender, number));
    }
    let (mut gate, _parker) = gate(receivers, CheckpointMode::ExactlyOnce);
    let traffic = gate.traffic();
    let mut queued = Vec::new();
    while let Input::Batch(_) = gate.poll().expect("no channel has failed") {
        queued.push(traffic.queue_length());
    }
    assert_eq!(queued, [5, 4, 3, 2, 1, 0]);
    assert_eq!(traffic.queue_length(), 0);
}

#[test]
fn what_was_sent_before_the_gate_existed_is_delivered_and_later_input_wakes() {
    let (mut senders, receivers) = channels(2);
    send(&mut senders[1], 'a');
    let (mut gate, mut parker) = gate(receivers, CheckpointMode::ExactlyOnce);
    assert_eq!(drain(&mut gate), (vec!['a'], Input::Idle));
    assert!(!parker.park(Duration::ZERO));
    send(&mut senders[0], 'b');
    assert!(parker.park(Duration::ZERO));
    assert_eq!(drain(&mut gate), (vec!['b'], Input::Idle));
}

#[test]
fn a_buffer_goes_back_to_the_channel_it_came_from() {
    let (mut senders, receivers) = channels(2);
    let (mut gate, _parker) = gate(receivers, CheckpointMode::ExactlyOnce);
    for channel in [1, 0, 1] {
        let batch = Batch::from(vec![7u64; 50]);
        let address = batch.records().as_ptr();
        assert_eq!(senders[channel].try_send(batch), Ok(Sent::Done));
        let Ok(Input::Batch(batch)) = gate.poll() else { panic!("a batch was sent") };
        gate.recycle(batch);
        let spare = senders[channel].take_spare().expect("it has come back");
        assert_eq!((spare.len(), spare.records().as_ptr()), (0, address));
        assert!(senders[1 - channel].take_spare().is_none());
    }
    gate.recycle(Batch::default());
    gate.recycle(Batch::from(Vec::with_capacity(MAX_SPARE_RECORDS + 1)));
    assert!(senders[1].take_spare().is_none(), "neither no buffer nor a huge one is kept");
}

/// Counts how often it is looked at.
#[derive(Debug, Default)]
struct CountingClock {
    looks: AtomicU32,
}

impl Clock for CountingClock {
    fn now_ms(&self) -> i64 {
        0
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.looks.fetch_add(1, Ordering::Relaxed).into())
    }
}

#[test]
fn between_two_batches_a_gate_looks_at_the_clock_once() {
    let (mut senders, receivers) = channels(2);
    let clock = Arc::new(CountingClock::default());
    let waker = TaskParker::new().waker();
    let mut gate = InputGate::with_clock(receivers, CheckpointMode::ExactlyOnce, waker, clock.clone())
        .debloated(Duration::from_secs(1));
    let looks = || clock.looks.load(Ordering::Relaxed);
    for _ in 0..2 {
        senders.iter_mut().for_each(|sender| send(sender, 'a'));
        let before = looks();
        for batches in 1..=2 {
            assert!(matches!(gate.poll(), Ok(Input::Batch(_))));
            assert_eq!(looks(), before + batches);
        }
        // It is through with the last one; time without input is of no interest.
        for _ in 0..3 {
            assert_eq!(gate.poll(), Ok(Input::Idle));
            assert_eq!(looks(), before + 3);
        }
    }
}

#[test]
fn a_gate_without_channels_is_idle() {
    let (mut gate, _parker) = gate::<u64>(Vec::new(), CheckpointMode::ExactlyOnce);
    assert_eq!(gate.poll(), Ok(Input::Idle));
}

#[test]
fn empty_batches_are_no_input() {
    let (mut senders, receivers) = channels::<u64>(1);
    assert_eq!(senders[0].try_send(Batch::default()), Ok(Sent::Done));
    let (mut gate, _parker) = gate(receivers, CheckpointMode::ExactlyOnce);
    assert_eq!(gate.poll(), Ok(Input::Idle));
}

#[test]
fn exactly_once_holds_back_what_is_behind_a_barrier_and_measures_it() {
    let (mut senders, receivers) = channels(2);
    let (parker, clock) = (TaskParker::new(), Arc::new(ManualClock::new(0)));
    let mut gate =
        InputGate::with_clock(receivers, CheckpointMode::ExactlyOnce, parker.waker(), clock.clone());
    send(&mut senders[0], 'a');
    send_barrier(&mut senders[0], 1);
    send(&mut senders[0], 'c');
    send(&mut senders[1], 'b');
    assert_eq!(drain(&mut gate), (vec!['a', 'b'], Input::Idle));
    clock.advance(Duration::from_millis(30));
    send_barrier(&mut senders[1], 1);
    let alignment = Aligned { duration: Duration::from_millis(30), bytes: 0 };
    assert_eq!(drain(&mut gate), (vec![], Input::Barrier { barrier: barrier(1), alignment }));
    assert_eq!(drain(&mut gate), (vec!['c'], Input::Idle));
}

#[test]
fn at_least_once_holds_nothing_back() {
    let (mut senders, receivers) = channels(2);
    let (mut gate, _parker) = gate(receivers, CheckpointMode::AtLeastOnce);
    send_barrier(&mut senders[0], 1);
    send(&mut senders[0], 7);
    assert_eq!(drain(&mut gate), (vec![7], Input::Idle));
    send_barrier(&mut senders[1], 1);
    assert!(matches!(drain(&mut gate).1, Input::Barrier { .. }));
}

#[test]
fn an_abort_lets_blocked_channels_go_on() {
    let (mut senders, receivers) = channels(2);
    let (mut gate, _parker) = gate(receivers, CheckpointMode::ExactlyOnce);
    send_barrier(&mut senders[0], 1);
    send(&mut senders[0], 7);
    assert_eq!(drain(&mut gate), (vec![], Input::Idle));
    gate.abort(1);
    assert_eq!(drain(&mut gate), (vec![7], Input::Idle));
    send_barrier(&mut senders[1], 1);
    assert_eq!(drain(&mut gate), (vec![], Input::Idle), "the barrier of a dead checkpoint");
}

#[test]
fn the_end_comes_once_and_barriers_after_it() {
    let (mut senders, receivers) = channels::<u64>(2);
    let (mut gate, _parker) = gate(receivers, CheckpointMode::ExactlyOnce);
    senders[1].send_event(Event::EndOfInput).expect("sent");
    assert_eq!(gate.poll(), Ok(Input::Idle));
    send(&mut senders[0], 1);
    senders[0].send_event(Event::EndOfInput).expect("sent");
    assert_eq!(drain(&mut gate), (vec![1], Input::EndOfInput));
    assert_eq!(gate.poll(), Ok(Input::Idle));
    for sender in &mut senders {
        send_barrier(sender, 1);
    }
    assert!(matches!(gate.poll(), Ok(Input::Barrier { .. })));
    drop(senders);
    assert_eq!(gate.poll(), Ok(Input::Idle));
}

fn send_watermark<T: Record>(sender: &mut Sender<T>, watermark: i64) {
    sender.send_event(Event::Watermark(watermark)).expect("the channel is whole");
}

fn rises<T>(watermark: i64) -> Input<T> {
    Input::Time(Merged { watermark: Some(watermark), status: None })
}

#[test]
fn the_watermark_is_the_least_of_all_channels_and_behind_the_records_before_it() {
    let (mut senders, receivers) = channels(2);
    let (mut gate, _parker) = gate(receivers, CheckpointMode::ExactlyOnce);
    send(&mut senders[0], 'a');
    send_watermark(&mut senders[0], 5);
    send(&mut senders[1], 'b');
    send_watermark(&mut senders[1], 3);
    send(&mut senders[1], 'c');
    assert_eq!(drain(&mut gate), (vec!['a', 'b'], rises(3)));
    senders[1].send_event(Event::Status(WatermarkStatus::Idle)).expect("sent");
    assert_eq!(drain(&mut gate), (vec!['c'], rises(5)));
    senders[0].send_event(Event::EndOfInput).expect("sent");
    assert_eq!(
        drain(&mut gate).1,
        Input::Time(Merged { watermark: None, status: Some(WatermarkStatus::Idle) })
    );
    senders[1].send_event(Event::EndOfInput).expect("sent");
    assert_eq!((drain(&mut gate).1, gate.poll()), (Input::EndOfInput, Ok(Input::Idle)));
    let end = Merged { watermark: Some(MAX_WATERMARK), status: Some(WatermarkStatus::Active) };
    assert_eq!((gate.take_end_of_time(), gate.take_end_of_time()), (end, Merged::default()));
}

#[test]
fn while_there_are_records_watermarks_of_several_channels_are_told_now_and_then() {
    let clock = Arc::new(ManualClock::new(0));
    let (mut senders, receivers) = channels(2);
    let waker = TaskParker::new().waker();
    let mut gate = InputGate::with_clock(receivers, CheckpointMode::ExactlyOnce, waker, clock.clone());
    for (round, pause_ms) in [(1, 0), (2, 0), (3, WATERMARK_PAUSE_MS)] {
        clock.advance(Duration::from_millis(pause_ms));
        for sender in &mut senders {
            send_watermark(sender, round);
            send(sender, round);
        }
        // The first channel's next record comes before the second one's watermark.
        let (records, time) = drain(&mut gate);
        assert_eq!((records.len(), time), (if round == 2 { 2 } else { 0 }, rises(round)), "round {round}");
        while gate.poll().expect("no channel has failed") != Input::Idle {}
    }
}

#[test]
fn with_one_channel_every_watermark_keeps_its_place() {
    let (mut senders, receivers) = channels(1);
    let (mut gate, _parker) = gate(receivers, CheckpointMode::ExactlyOnce);
    for number in 0..3 {
        send(&mut senders[0], number);
        send_watermark(&mut senders[0], number);
    }
    for number in 0..3 {
        assert_eq!(drain(&mut gate), (vec![number], rises(number)));
    }
}

#[test]
fn a_blocked_channel_that_fails_fails_the_gate() {
    let (mut senders, receivers) = channels::<u64>(2);
    let (mut gate, mut parker) = gate(receivers, CheckpointMode::ExactlyOnce);
    send_barrier(&mut senders[0], 1);
    assert_eq!(gate.poll(), Ok(Input::Idle));
    assert!(parker.park(Duration::ZERO));
    senders.remove(0);
    assert!(parker.park(Duration::ZERO), "the task is woken for it");
    let failure = gate.poll().expect_err("channel 0 has failed");
    assert!(failure.message.contains("edge 0 from subtask 0 to subtask 0"), "{failure}");
}

#[test]
fn one_barrier_twice_is_a_broken_protocol() {
    let (mut senders, receivers) = channels(2);
    let (mut gate, _parker) = gate(receivers, CheckpointMode::AtLeastOnce);
    send_barrier(&mut senders[0], 1);
    // A record between them keeps the queue from merging them.
    send(&mut senders[0], 1);
    send_barrier(&mut senders[0], 1);
    assert!(matches!(gate.poll(), Ok(Input::Batch(_))));
    assert!(gate.poll().is_err());
}

/// Which channel, how many barriers were before it, and its number in the channel.
type Marked = (usize, CheckpointId, u32);

#[derive(Debug, Clone)]
enum Step {
    Records(u8),
    Barrier,
}

/// What one channel sends, and what it has sent.
struct Script {
    steps: VecDeque<Step>,
    barriers: CheckpointId,
    records: u32,
    /// How many records were before each barrier.
    cuts: Vec<u32>,
    ended: bool,
}

impl Script {
    /// Sends the next step, if the channel and the (simulated) job manager allow it: one checkpoint at a time.
    fn advance(&mut self, channel: usize, sender: &mut Sender<Marked>, completed: CheckpointId) {
        match self.steps.front() {
            Some(Step::Records(count)) => {
                let numbers = self.records..self.records + u32::from(*count);
                let batch: Vec<Marked> = numbers.map(|number| (channel, self.barriers, number)).collect();
                if sender.try_send(Batch::from(batch)) == Ok(Sent::Done) {
                    self.records += u32::from(*count);
                    self.steps.pop_front();
                }
            }
            Some(Step::Barrier) if completed == self.barriers => {
                self.barriers += 1;
                self.cuts.push(self.records);
                send_barrier(sender, self.barriers);
                self.steps.pop_front();
            }
            Some(Step::Barrier) => {}
            None if !self.ended => {
                sender.send_event(Event::EndOfInput).expect("sent");
                self.ended = true;
            }
            None => {}
        }
    }
}

fn scripts() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step = prop_oneof![4 => (0u8..5).prop_map(Step::Records), 1 => Just(Step::Barrier)];
    (1usize..5).prop_flat_map(move |channels| {
        proptest::collection::vec(proptest::collection::vec(step.clone(), 0..25), channels)
    })
}

fn check_delivery(
    mode: CheckpointMode,
    scripts: Vec<Vec<Step>>,
    schedule: &[(u8, bool)],
) -> Result<(), TestCaseError> {
    // Every channel gets as many barriers as the one that has most.
    let barriers_of = |steps: &[Step]| steps.iter().filter(|step| matches!(step, Step::Barrier)).count();
    let barriers = scripts.iter().map(|steps| barriers_of(steps)).max().unwrap_or(0);
    let mut scripts: Vec<_> = scripts
        .into_iter()
        .map(|mut steps| {
            steps.extend(std::iter::repeat_n(Step::Barrier, barriers - barriers_of(&steps)));
            Script { steps: steps.into(), barriers: 0, records: 0, cuts: Vec::new(), ended: false }
        })
        .collect();
    let count = scripts.len();
    let (mut senders, receivers) = channels::<Marked>(count as u32);
    let (mut gate, _parker) = gate(receivers, mode);

    let (mut completed, mut delivered, mut has_ended) = (0, vec![Vec::new(); count], false);
    let fallback = (0..=u8::MAX).map(|turn| (turn, true));
    for (channel, polls) in schedule.iter().copied().chain(fallback.cycle()) {
        let channel = usize::from(channel) % count;
        scripts[channel].advance(channel, &mut senders[channel], completed);
        if !polls {
            continue;
        }
        match gate.poll().expect("no channel has failed") {
            Input::Batch(batch) => {
                prop_assert!(!has_ended, "a batch after the end");
                for (from, epoch, number) in batch.into_parts().0 {
                    if mode == CheckpointMode::ExactlyOnce {
                        prop_assert_eq!(epoch, completed, "a record on the wrong side of a barrier");
                    }
                    delivered[from].push((epoch, number));
                }
            }
            Input::Barrier { barrier, .. } => {
                completed += 1;
                prop_assert_eq!(barrier.id, completed);
                for (script, delivered) in scripts.iter().zip(&delivered) {
                    let before = delivered.iter().filter(|(epoch, _)| *epoch < completed).count();
                    let cut = script.cuts.get(completed as usize - 1).copied();
                    prop_assert_eq!(Some(before as u32), cut, "all records before the barrier");
                }
            }
            Input::EndOfInput => has_ended = true,
            Input::Time(merged) => prop_assert!(false, "nobody has sent {merged:?}"),
            Input::Idle => {
                let all_sent = scripts.iter().all(|script| script.ended);
                if all_sent && has_ended && completed == barriers as CheckpointId {
                    break;
                }
            }
        }
    }
    for (script, delivered) in scripts.iter().zip(delivered) {
        let numbers: Vec<_> = delivered.iter().map(|(_, number)| *number).collect();
        let expected: Vec<_> = (0..script.records).collect();
        prop_assert_eq!(numbers, expected, "every record once, in order");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_record_is_delivered_once_and_barriers_cut_exactly(
        scripts in scripts(),
        schedule in proptest::collection::vec((any::<u8>(), any::<bool>()), 0..200),
    ) {
        check_delivery(CheckpointMode::ExactlyOnce, scripts.clone(), &schedule)?;
        check_delivery(CheckpointMode::AtLeastOnce, scripts, &schedule)?;
    }
}
