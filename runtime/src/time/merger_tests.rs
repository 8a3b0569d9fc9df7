//! Tests of watermark merging: Flink's cases, those of idle shards, and random ones against a plain model.

use proptest::prelude::*;

use super::*;
use WatermarkStatus::{Active, Idle};

/// What an input says.
#[derive(Debug, Clone, Copy)]
enum Say {
    W(Timestamp),
    S(WatermarkStatus),
    End,
}

use Say::{End, S, W};

impl WatermarkMerger {
    fn say(&mut self, input: usize, say: Say) -> Merged {
        match say {
            W(watermark) => self.on_watermark(input, watermark),
            S(status) => self.on_status(input, status),
            End => self.on_end(input),
        }
    }
}

fn nothing() -> Merged {
    Merged::default()
}

fn rises(watermark: Timestamp) -> Merged {
    Merged { watermark: Some(watermark), status: None }
}

fn is(status: WatermarkStatus) -> Merged {
    Merged { watermark: None, status: Some(status) }
}

fn both(watermark: Timestamp, status: WatermarkStatus) -> Merged {
    Merged { watermark: Some(watermark), status: Some(status) }
}

fn check(inputs: usize, steps: &[(usize, Say, Merged)]) {
    let mut merger = WatermarkMerger::new(inputs);
    for (number, (input, say, merged)) in steps.iter().enumerate() {
        assert_eq!(merger.say(*input, *say), *merged, "step {number}: {say:?} of {input}");
    }
}

#[test]
fn the_minimum_counts_and_never_falls() {
    check(
        3,
        &[
            (0, W(5), nothing()),
            (1, W(7), nothing()),
            (2, W(6), rises(5)),
            (0, W(4), nothing()),
            (0, W(9), rises(6)),
            (2, W(6), nothing()),
            (2, W(20), rises(7)),
        ],
    );
    check(
        1,
        &[(0, W(1), rises(1)), (0, W(1), nothing()), (0, W(2), rises(2)), (0, End, rises(MAX_WATERMARK))],
    );
}

#[test]
fn the_idle_hold_nobody_back() {
    check(
        3,
        &[
            (0, W(5), nothing()),
            (1, S(Idle), nothing()),
            (1, S(Idle), nothing()),
            (2, W(8), rises(5)),
            (0, S(Idle), rises(8)),
            (2, S(Idle), is(Idle)),
            (0, S(Active), is(Active)),
            (0, W(7), nothing()),
            (0, W(9), rises(9)),
        ],
    );
}

#[test]
fn when_all_are_idle_time_is_the_latest_of_all() {
    check(
        3,
        &[
            (0, W(100), nothing()),
            (1, W(10), nothing()),
            (2, W(50), rises(10)),
            (0, S(Idle), nothing()),
            (2, S(Idle), nothing()),
            (1, S(Idle), both(100, Idle)),
            // Older than what was passed on: it catches up first, and holds nobody back until then.
            (1, S(Active), is(Active)),
            (1, W(60), nothing()),
            (0, S(Active), nothing()),
            (0, W(120), rises(120)),
            (1, W(119), nothing()),
            (0, W(140), rises(140)),
            (1, W(150), nothing()),
            (0, W(160), rises(150)),
        ],
    );
}

#[test]
fn the_ended_hold_nobody_back_and_make_time_end_only_together() {
    check(
        2,
        &[
            (0, W(5), nothing()),
            (0, W(MAX_WATERMARK), nothing()),
            (0, End, nothing()),
            (1, W(3), rises(3)),
            // What it has had counts when nobody is active.
            (1, S(Idle), both(5, Idle)),
            (1, S(Active), is(Active)),
            (1, W(9), rises(9)),
            (1, S(Idle), is(Idle)),
            (1, End, both(MAX_WATERMARK, Active)),
        ],
    );
}

#[test]
fn without_any_watermark_the_idle_are_idle() {
    check(
        2,
        &[
            (0, S(Idle), nothing()),
            (1, S(Idle), is(Idle)),
            (1, End, nothing()),
            (0, End, both(MAX_WATERMARK, Active)),
        ],
    );
}

/// The shards of the example with idle subtasks: what each subtask has at the end, and how time goes on as they become idle.
#[test]
fn idle_shard_example_rises_from_minimum_to_minimum_and_ends_at_the_latest() {
    const SIX: Timestamp = 1_648_030_809_281;
    const TWO: Timestamp = 1_648_030_810_870;
    const SEVEN: Timestamp = 1_648_030_834_104;
    const ZERO: Timestamp = 1_648_030_887_170;
    check(
        8,
        &[
            (0, W(1_648_030_822_427), nothing()),
            (6, W(SIX), nothing()),
            (2, W(1_648_030_797_696), nothing()),
            (2, W(TWO), nothing()),
            (7, W(SEVEN), nothing()),
            (0, W(ZERO), nothing()),
            // They never had an event: idle since they started.
            (1, S(Idle), nothing()),
            (3, S(Idle), nothing()),
            (4, S(Idle), nothing()),
            (5, S(Idle), rises(SIX)),
            (6, S(Idle), rises(TWO)),
            (2, S(Idle), rises(SEVEN)),
            (7, S(Idle), rises(ZERO)),
            (0, S(Idle), is(Idle)),
            // Event 9, 10,001 ms after event 8.
            (0, S(Active), is(Active)),
            (0, W(ZERO + 10_001), rises(1_648_030_897_171)),
        ],
    );
}

#[test]
fn idle_shard_example_without_idleness_never_rises() {
    let said = [
        (0, W(1_648_030_887_170)),
        (2, W(1_648_030_810_870)),
        (6, W(1_648_030_809_281)),
        (7, W(1_648_030_834_104)),
    ];
    check(8, &said.map(|(input, say)| (input, say, nothing())));
}

#[test]
fn idle_shard_example_with_all_idle_from_the_start_has_no_watermark() {
    let mut steps: Vec<_> = (0..7).map(|input| (input, S(Idle), nothing())).collect();
    steps.push((7, S(Idle), is(Idle)));
    check(8, &steps);
}

/// The rules said plainly, over all that was ever said.
fn model(inputs: usize, said: &[(usize, Say)]) -> Vec<(Timestamp, WatermarkStatus)> {
    let mut passed_on = Vec::new();
    let mut time = NO_WATERMARK;
    for count in 1..=said.len() {
        let of =
            |input: usize| said[..count].iter().filter(move |(from, _)| *from == input).map(|(_, say)| *say);
        let latest = |input: usize| {
            let before_end = of(input).take_while(|say| !matches!(say, End | W(MAX_WATERMARK)));
            before_end.filter_map(|say| if let W(time) = say { Some(time) } else { None }).max()
        };
        let has_ended = |input: &usize| of(*input).any(|say| matches!(say, End | W(MAX_WATERMARK)));
        let is_active = |input: &usize| {
            let last = of(*input)
                .filter_map(|say| if let S(status) = say { Some(status) } else { None })
                .next_back();
            last != Some(Idle)
        };
        let open: Vec<usize> = (0..inputs).filter(|input| !has_ended(input)).collect();
        let active: Vec<usize> = open.iter().copied().filter(is_active).collect();
        let times = |of: &[usize]| -> Vec<Timestamp> {
            of.iter().map(|input| latest(*input).unwrap_or(NO_WATERMARK)).collect()
        };
        let reached = if open.is_empty() {
            Some(MAX_WATERMARK)
        } else if active.is_empty() {
            times(&(0..inputs).collect::<Vec<_>>()).into_iter().max()
        } else {
            times(&active).into_iter().filter(|of_input| *of_input >= time).min()
        };
        time = reached.map_or(time, |reached| reached.max(time));
        let status = if open.is_empty() || !active.is_empty() { Active } else { Idle };
        passed_on.push((time, status));
    }
    passed_on
}

proptest! {
    #[test]
    fn it_does_as_the_model(
        inputs in 1usize..5,
        said in proptest::collection::vec((0usize..5, prop_oneof![
            8 => (-20i64..50).prop_map(W),
            2 => Just(S(Idle)),
            2 => Just(S(Active)),
            1 => Just(End),
        ]), 0..60),
    ) {
        let said: Vec<_> = said.into_iter().map(|(input, say)| (input % inputs, say)).collect();
        let mut merger = WatermarkMerger::new(inputs);
        let (mut time, mut status) = (NO_WATERMARK, Active);
        for ((input, say), expected) in said.iter().zip(model(inputs, &said)) {
            let merged = merger.say(*input, *say);
            prop_assert!(merged.watermark.is_none_or(|watermark| watermark > time), "it rises");
            prop_assert!(merged.status.is_none_or(|new| new != status), "it changes");
            time = merged.watermark.unwrap_or(time);
            status = merged.status.unwrap_or(status);
            prop_assert_eq!((time, status), expected);
            prop_assert_eq!(merger.watermark(), time);
        }
    }
}
