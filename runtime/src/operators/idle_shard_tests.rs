//! The example with idle shards, from the operators of eight subtasks to one gate: how time goes on as one subtask after the other becomes
//! idle.

use super::*;
use crate::exchange::{Forward, Input, InputGate, Output, TaskParker, local_channel};
use thalweg_common::config::CheckpointMode;
use thalweg_common::id::ChannelId;

type Subtasks = Vec<Box<dyn Link<Happening>>>;

/// The operators of eight subtasks, one gate behind them.
fn shards<A>(
    strategy: &WatermarkStrategy<BoundedOutOfOrderness, A>,
) -> (Arc<ManualClock>, Subtasks, InputGate<Happening>)
where
    A: TimestampAssigner<Happening>,
{
    let clock = Arc::new(ManualClock::new(0));
    let mut receivers = Vec::new();
    let subtasks = (0..8).map(|from| {
        let (sender, receiver) = local_channel::<Happening>(ChannelId { edge: 0, from, to: 0 });
        receivers.push(receiver);
        let next = AnyLink::new::<Happening>(Box::new(Output::new(Box::new(Forward), vec![sender])));
        let setup = Setup { clock: clock.clone(), ..Setup::default() }.subtask(from, 8);
        let factory = watermarks::<Happening, _, A>(strategy.clone());
        factory.build(&mut setup.operator_context(), Some(next)).unwrap().typed().unwrap()
    });
    let subtasks = subtasks.collect();
    (clock, subtasks, InputGate::new(receivers, CheckpointMode::ExactlyOnce, TaskParker::new().waker()))
}

/// The eight events in the order in which they are read, with their subtasks.
const READ: [(usize, Happening); 8] = [
    (0, ('6', 1_648_030_822_428)),
    (6, ('4', 1_648_030_809_282)),
    (2, ('3', 1_648_030_797_697)),
    (2, ('5', 1_648_030_810_871)),
    (7, ('7', 1_648_030_834_105)),
    (0, ('1', 1_648_030_794_441)),
    (0, ('2', 1_648_030_796_122)),
    (0, ('8', 1_648_030_887_171)),
];

/// Reads an event in each of the first seconds, then nothing. What the gate tells of time, and in which second.
fn run_shards<A>(
    strategy: &WatermarkStrategy<BoundedOutOfOrderness, A>,
    more: &[(u64, usize, Happening)],
) -> Vec<(u64, Merged)>
where
    A: TimestampAssigner<Happening>,
{
    let (clock, mut subtasks, mut gate) = shards(strategy);
    let first = READ.iter().enumerate().map(|(second, (subtask, event))| (second as u64, *subtask, *event));
    let events: Vec<_> = first.chain(more.iter().copied()).collect();
    let mut told = Vec::new();
    for second in 0..60 {
        for (_, subtask, event) in events.iter().filter(|(at, ..)| *at == second) {
            subtasks[*subtask].process(&mut Batch::from(vec![*event])).unwrap();
        }
        subtasks.iter_mut().for_each(|subtask| assert_eq!(subtask.flush(true), Ok(Flushed::All)));
        loop {
            match gate.poll().unwrap() {
                Input::Batch(_) => {}
                Input::Time(merged) => told.push((second, merged)),
                Input::Idle => break,
                other => panic!("{other:?}"),
            }
        }
        clock.advance(Duration::from_secs(1));
    }
    told
}

fn idle_after_15_s<G>(
    strategy: WatermarkStrategy<G>,
) -> WatermarkStrategy<G, impl TimestampAssigner<Happening>> {
    timed(strategy).with_idleness(Duration::from_secs(15))
}

fn rises(watermark: i64) -> Merged {
    Merged { watermark: Some(watermark), status: None }
}

fn is(status: WatermarkStatus) -> Merged {
    Merged { watermark: None, status: Some(status) }
}

#[test]
fn idle_shard_example_rises_as_its_subtasks_become_idle() {
    let expected = [
        // Subtasks 1, 3, 4 and 5 never had an event.
        (15, rises(1_648_030_809_281)),
        (16, rises(1_648_030_810_870)),
        (18, rises(1_648_030_834_104)),
        (19, rises(1_648_030_887_170)),
        (22, is(Idle)),
    ];
    let strategy = idle_after_15_s(WatermarkStrategy::for_monotonous_timestamps());
    assert_eq!(run_shards(&strategy, &[]), expected);
    // Event 9 closes the last session.
    let told = run_shards(&strategy, &[(30, 0, ('9', 1_648_030_897_172))]);
    assert_eq!(told[..5], expected);
    assert_eq!(told[5..], [(30, is(Active)), (30, rises(1_648_030_897_171)), (45, is(Idle))]);
}

#[test]
fn idle_shard_example_with_bounded_out_of_orderness_ends_30_s_earlier() {
    let strategy = WatermarkStrategy::for_bounded_out_of_orderness(Duration::from_secs(30));
    let told = run_shards(&idle_after_15_s(strategy), &[]);
    let last = told.iter().filter_map(|(_, merged)| merged.watermark).next_back();
    assert_eq!(last, Some(1_648_030_857_170));
}

#[test]
fn idle_shard_example_without_idleness_has_no_watermark() {
    let told = run_shards(&timed(WatermarkStrategy::for_monotonous_timestamps()), &[]);
    assert_eq!(told, []);
}
