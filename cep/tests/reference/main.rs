//! The automaton against a plain matcher, on random patterns and events. README.md beside this folder has the command for many cases.
#![allow(clippy::unwrap_used)]

mod model;
mod spec;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use model::{Assigned, after_skipping, expected};
use proptest::prelude::*;
use spec::{Event, Spec, build, events, skip, spec};
use support::Run;

fn cases() -> u32 {
    std::env::var("THALWEG_CEP_CASES").ok().map_or(300, |cases| cases.parse().unwrap())
}

/// When, and what.
type Found = Vec<(i64, Assigned)>;

/// What the automaton finds, with positions in place of events.
fn actual(spec: &Spec, events: &[(i64, Event)], restore_at: usize) -> (Found, Found) {
    let mut pattern = build(&spec.elements, "p").after_match(skip(spec));
    if let Some(window) = spec.window {
        pattern = pattern.within(Duration::from_millis(window as u64));
    }
    let mut run = Run::new(pattern.compile().unwrap());
    for (index, (timestamp, event)) in events.iter().enumerate() {
        if index == restore_at {
            run.restore();
        }
        run.push(*timestamp, *event);
    }
    run.advance(i64::MAX - 1);
    let positions = |found: Vec<(i64, support::Named<Event>)>| {
        let assigned = |events: support::Named<Event>| {
            events.into_iter().map(|(name, event)| (name, event.1 as usize)).collect()
        };
        found.into_iter().map(|(timestamp, events)| (timestamp, assigned(events))).collect()
    };
    (positions(run.results.matches), positions(run.results.timed_out))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_automaton_finds_what_the_plain_matcher_finds(spec in spec(), events in events(), restore_at in 0..9_usize) {
        let expected = expected(&spec, &events);
        let (mut matches, mut timed_out) = actual(&spec, &events, restore_at);
        let mut left = after_skipping(&spec, &expected);
        if spec.skip.0 == 0 {
            left.sort();
            matches.sort();
            timed_out.sort();
            let expected: Vec<_> = expected.timed_out.into_iter().collect();
            prop_assert_eq!(timed_out, expected, "timed out");
        }
        prop_assert_eq!(matches, left);
    }
}
