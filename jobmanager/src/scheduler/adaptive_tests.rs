//! Tables of what is decided, and a property: whatever the slots, the job never gets more than it wants or is there.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::testing::{at, checkpointed_graph};

const SETTINGS: AdaptiveSettings =
    AdaptiveSettings { resource_wait_ms: 60_000, stabilization_ms: 1_000, scaling_interval_ms: 30_000 };

/// A source that keeps its parallelism, and a count at the default.
fn layout(source: u32, count: u32) -> Layout {
    Layout { graph: Arc::new(at(&checkpointed_graph(), &[source, count])), configuration: BTreeMap::new() }
}

/// Asks until no plan is wanted; the program's source has this parallelism. Gives the plans that were made.
fn decide(adaptive: &mut Adaptive, source: u32, situation: Situation<'_>, now_ms: u64) -> (Advice, Vec<u32>) {
    let mut made = vec![];
    loop {
        match adaptive.advise(situation, now_ms) {
            Advice::Plan(parallelism) => {
                assert_eq!(adaptive.advise(situation, now_ms), Advice::Wait(None), "one plan at a time");
                made.push(parallelism);
                adaptive.planned(parallelism, situation.wanted, Ok(layout(source, parallelism)));
            }
            advice => return (advice, made),
        }
    }
}

#[test]
fn a_job_that_waits_runs_with_what_has_been_there_for_a_while() {
    // Parallelism of the source, wanted parallelism, slots, and at which parallelism it runs after which plans.
    type Row<'a> = (u32, u32, usize, Option<u32>, &'a [u32]);
    let table: [Row<'_>; 8] = [
        (2, 4, 4, Some(4), &[]),
        (2, 4, 9, Some(4), &[]),
        (2, 4, 3, Some(3), &[3]),
        (2, 4, 2, Some(2), &[2]),
        (1, 4, 1, Some(1), &[1]),
        // The source alone needs two slots.
        (2, 4, 1, None, &[1]),
        (2, 4, 0, None, &[]),
        // The source is wider than all others: no plan asks for more than those have.
        (6, 2, 5, None, &[5, 2, 1]),
    ];
    for (source, wanted, slots, expected, plans) in table {
        let wanted = layout(source, wanted);
        let mut adaptive = Adaptive::new(SETTINGS);
        adaptive.began(10_000);
        let situation = Situation { present: &wanted, wanted: &wanted, slots, is_running: false };
        let (first, made) = decide(&mut adaptive, source, situation, 10_000);
        assert_eq!(made, plans, "{situation:?}");
        let expected = expected.map(|count| Advice::Run(layout(source, count)));
        if expected == Some(Advice::Run(wanted.clone())) {
            assert_eq!(Some(first), expected, "all that is wanted is there: at once");
            continue;
        }
        assert_eq!(first, Advice::Wait(None));
        let Some(expected) = expected else {
            assert_eq!(adaptive.due_ms(), None);
            continue;
        };
        assert_eq!(adaptive.due_ms(), Some(11_000));
        assert!(!adaptive.is_due(10_999) && adaptive.is_due(11_000) && !adaptive.is_due(11_000));
        assert_eq!(decide(&mut adaptive, source, situation, 11_000), (expected, vec![]));
    }
}

#[test]
fn slots_that_come_and_go_put_it_off_no_longer_than_the_job_waits_at_all() {
    let wanted = layout(1, 4);
    let mut adaptive = Adaptive::new(AdaptiveSettings { resource_wait_ms: 3_000, ..SETTINGS });
    adaptive.began(0);
    let situation = |slots| Situation { present: &wanted, wanted: &wanted, slots, is_running: false };
    for (now_ms, slots) in [(0, 1), (900, 2), (1_800, 1), (2_700, 2)] {
        assert_eq!(decide(&mut adaptive, 1, situation(slots), now_ms).0, Advice::Wait(None), "{now_ms}");
    }
    assert_eq!(adaptive.due_ms(), Some(3_000));
    assert_eq!(decide(&mut adaptive, 1, situation(3), 3_000).0, Advice::Run(layout(1, 3)));
}

#[test]
fn a_job_that_runs_is_scaled_up_and_never_down() {
    let (wanted, present) = (layout(2, 4), layout(2, 2));
    let mut adaptive = Adaptive::new(SETTINGS);
    adaptive.began(0);
    let situation = |slots| Situation { present: &present, wanted: &wanted, slots, is_running: true };
    for slots in [2, 1] {
        assert_eq!(decide(&mut adaptive, 2, situation(slots), 100_000).0, Advice::Wait(None));
        assert_eq!(adaptive.due_ms(), None, "nothing to wait for");
    }
    // More slots, and they stay.
    assert_eq!(decide(&mut adaptive, 2, situation(4), 100_000).0, Advice::Wait(None));
    assert_eq!(adaptive.due_ms(), Some(101_000));
    assert_eq!(decide(&mut adaptive, 2, situation(3), 100_900).0, Advice::Wait(None));
    assert_eq!(decide(&mut adaptive, 2, situation(3), 101_900).0, Advice::Run(layout(2, 3)));
    // It did not work: not again at once.
    adaptive.failed(102_000);
    assert_eq!(decide(&mut adaptive, 2, situation(4), 110_000).0, Advice::Wait(None));
    assert_eq!(adaptive.due_ms(), Some(132_000));
    assert_eq!(decide(&mut adaptive, 2, situation(4), 132_000).0, Advice::Run(wanted.clone()));
}

#[test]
fn a_plan_that_cannot_be_used_is_told_and_tried_again_later() {
    let wanted = layout(4, 4);
    let mut adaptive = Adaptive::new(SETTINGS);
    let situation = Situation { present: &wanted, wanted: &wanted, slots: 2, is_running: false };
    assert_eq!(adaptive.advise(situation, 0), Advice::Plan(2));
    // The program lets its source follow the default.
    adaptive.planned(2, &wanted, Ok(layout(2, 2)));
    let Advice::Wait(Some(reason)) = adaptive.advise(situation, 0) else { panic!("it can be used") };
    assert!(reason.contains("set_parallelism(4)"), "{reason}");
    adaptive.began(1);
    assert_eq!(adaptive.advise(situation, 1), Advice::Plan(2));
    adaptive.planned(2, &wanted, Err("no such binary".into()));
    assert_eq!(adaptive.advise(situation, 1), Advice::Wait(Some("no such binary".into())));
}

proptest! {
    #[test]
    fn what_is_chosen_fits_and_is_the_most_that_does(
        source in 1u32..9, default in 1u32..40, group in any::<bool>(), slots in 0usize..60,
    ) {
        let plan = |count| {
            let mut graph = at(&checkpointed_graph(), &[source, count]);
            if group {
                graph.vertices[1].slot_sharing_group = "heavy".into();
            }
            Layout { graph: Arc::new(graph), configuration: BTreeMap::new() }
        };
        let wanted = plan(default);
        let mut adaptive = Adaptive::new(AdaptiveSettings { stabilization_ms: 0, ..SETTINGS });
        let situation = Situation { present: &wanted, wanted: &wanted, slots, is_running: false };
        let mut plans = 0;
        let found = loop {
            match adaptive.advise(situation, 0) {
                Advice::Plan(parallelism) => {
                    plans += 1;
                    adaptive.planned(parallelism, &wanted, Ok(plan(parallelism)));
                }
                Advice::Run(layout) => break Some(layout),
                Advice::Wait(reason) => {
                    prop_assert_eq!(reason, None);
                    break None;
                }
            }
        };
        let best = (1..=default).rev().map(plan).find(|layout| slots_needed(&layout.graph) <= slots);
        prop_assert_eq!(found, best);
        prop_assert!(plans <= 8, "{} plans", plans);
    }
}
