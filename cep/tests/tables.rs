//! What Flink's documentation and its tests say comes of patterns, as tables: events are named by a letter and a number, a pattern
//! takes those of its letter.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::Run;
use thalweg_cep::{Pattern, PatternError, SkipStrategy};

type P = Pattern<String>;

fn is(letter: &'static str) -> impl Fn(&String) -> bool + Send + Sync + 'static {
    move |event| event.contains(letter)
}

/// Begins with events of a letter, after which the pattern is called.
fn begin(letter: &'static str) -> P {
    P::begin(letter).where_(is(letter))
}

trait Letters {
    fn then(self, letter: &'static str) -> Self;
    fn strictly(self, letter: &'static str) -> Self;
    fn any(self, letter: &'static str) -> Self;
    fn not(self, letter: &'static str) -> Self;
    fn not_at_once(self, letter: &'static str) -> Self;
}

impl Letters for P {
    fn then(self, letter: &'static str) -> Self {
        self.followed_by(letter).where_(is(letter))
    }

    fn strictly(self, letter: &'static str) -> Self {
        self.next(letter).where_(is(letter))
    }

    fn any(self, letter: &'static str) -> Self {
        self.followed_by_any(letter).where_(is(letter))
    }

    fn not(self, letter: &'static str) -> Self {
        self.not_followed_by(letter).where_(is(letter))
    }

    fn not_at_once(self, letter: &'static str) -> Self {
        self.not_next(letter).where_(is(letter))
    }
}

/// The matches in the events, which are a millisecond apart.
fn found(pattern: P, events: &str) -> Vec<String> {
    let mut run = Run::new(pattern.compile().unwrap());
    for (timestamp, event) in (0..).zip(events.split_whitespace()) {
        run.push(timestamp, event.to_string());
        run.restore();
    }
    let text = |(_, events): &(i64, support::Named<String>)| {
        events.iter().map(|(_, event)| event.as_str()).collect::<Vec<_>>().join(" ")
    };
    run.results.matches.iter().map(text).collect()
}

/// Checks matches in any order.
#[track_caller]
fn check(pattern: P, events: &str, expected: &[&str]) {
    let (mut found, mut expected) = (found(pattern, events), expected.to_vec());
    found.sort();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

/// Checks matches in their order.
#[track_caller]
fn check_order(pattern: P, events: &str, expected: &[&str]) {
    assert_eq!(found(pattern, events), expected);
}

#[test]
fn contiguity_between_two_events() {
    let events = "a c b1 b2";
    check(begin("a").strictly("b"), events, &[]);
    check(begin("a").then("b"), events, &["a b1"]);
    check(begin("a").any("b"), events, &["a b1", "a b2"]);
    check(begin("a").strictly("b"), "a b1 b2", &["a b1"]);
}

#[test]
fn contiguity_within_a_loop() {
    let events = "a b1 d1 b2 d2 b3 c";
    let pattern = || begin("a").any("b").one_or_more();
    check(pattern().consecutive().strictly("c"), events, &["a b3 c"]);
    let relaxed = ["a b1 c", "a b1 b2 c", "a b1 b2 b3 c", "a b2 c", "a b2 b3 c", "a b3 c"];
    check(pattern().then("c"), events, &relaxed);
    let all = [&relaxed[..], &["a b1 b3 c"]].concat();
    check(pattern().allow_combinations().then("c"), events, &all);
}

#[test]
fn consecutive_and_combinations() {
    let events = "c d a1 a2 a3 d a4 b";
    let pattern = || begin("c").then("a").one_or_more();
    check(pattern().consecutive().then("b"), events, &["c a1 b", "c a1 a2 b", "c a1 a2 a3 b"]);
    check(pattern().then("b"), events, &["c a1 b", "c a1 a2 b", "c a1 a2 a3 b", "c a1 a2 a3 a4 b"]);
    let all =
        ["c a1 b", "c a1 a2 b", "c a1 a3 b", "c a1 a4 b", "c a1 a2 a3 b", "c a1 a2 a4 b", "c a1 a3 a4 b"];
    let all = [&all[..], &["c a1 a2 a3 a4 b"]].concat();
    check(pattern().allow_combinations().then("b"), events, &all);
    let any = ["c a2 b", "c a2 a3 b", "c a2 a4 b", "c a2 a3 a4 b", "c a3 b", "c a3 a4 b", "c a4 b"];
    let pattern = begin("c").any("a").one_or_more().allow_combinations().then("b");
    check(pattern, events, &[&all[..], &any[..]].concat());
}

#[test]
fn times_and_ranges() {
    check(begin("a").times(3), "a1 a2 a3 a4 a5 a6", &["a1 a2 a3", "a2 a3 a4", "a3 a4 a5", "a4 a5 a6"]);
    check(begin("c").then("a").times(2).then("b"), "c a1 a2 a3 b", &["c a1 a2 b"]);
    check(begin("c").strictly("a").times(2).consecutive().then("b"), "c a1 d a2 b", &[]);
    let ranges = ["c a1 b", "c a1 a2 b", "c a1 a2 a3 b"];
    check(begin("c").then("a").times_range(1..=3).then("b"), "c a1 a2 a3 a4 b", &ranges);
    let optional = [&ranges[..], &["c b"]].concat();
    check(begin("c").then("a").times_range(0..=3).then("b"), "c a1 a2 a3 b", &optional);
    check(begin("c").then("a").times(2).optional().then("b"), "c a1 a2 b", &["c b", "c a1 a2 b"]);
    check(begin("c").then("a").times_or_more(2).then("b"), "c a1 a2 a3 b", &["c a1 a2 b", "c a1 a2 a3 b"]);
    let combined = ["c a1 a2 b", "c a1 a3 b"];
    check(begin("c").then("a").times(2).allow_combinations().then("b"), "c a1 a2 a3 b", &combined);
}

#[test]
fn greedy_takes_all_that_fits() {
    let star = || begin("c").then("a").one_or_more().optional().greedy();
    check(star().then("d"), "c a1 a2 a3 d", &["c a1 a2 a3 d"]);
    check(star().then("d"), "c x a1 x a2 x a3 d", &["c a1 a2 a3 d"]);
    check(star().then("d"), "c x d", &["c d"]);
    check(
        star().then("d").optional(),
        "c a1 a2 a3 d",
        &["c", "c a1", "c a1 a2", "c a1 a2 a3", "c a1 a2 a3 d"],
    );
    check(star().then("d").optional().then("e"), "c a1 a2 x e", &["c a1 a2 e"]);
    check(star().then("d").optional().then("e"), "c a1 a2 d e", &["c a1 a2 e", "c a1 a2 d e"]);
    check(begin("c").then("a").one_or_more().greedy().then("d"), "c a1 a2 a3 d", &["c a1 a2 a3 d"]);
    check(begin("c").then("a").times_range(2..=5).greedy().then("d"), "c a1 a2 a3 d", &["c a1 a2 a3 d"]);
    // At the end nobody knows how many more will come.
    check(star(), "c a1 a2", &["c", "c a1", "c a1 a2"]);
    // Ours: an optional pattern behind it changes nothing.
    check(star().then("d").optional().then("e"), "c a1 x a2 e", &["c a1 a2 e"]);
}

#[test]
fn until_ends_a_loop() {
    check(begin("a").one_or_more().until(is("b")), "a1 c a2 b a3", &["a1", "a1 a2", "a2", "a3"]);
    let greedy = || begin("c").then("a").one_or_more().optional().greedy().until(is("u")).then("d");
    check(greedy(), "c a1 a2 a3 au d", &["c a1 a2 a3 d"]);
    check(greedy(), "c au a1 a2 a3 d", &["c d"]);
}

#[test]
fn what_must_not_come() {
    let at_once = || begin("a").not_at_once("b").any("c").then("d");
    check(at_once(), "a c1 b c2 d", &["a c1 d", "a c2 d"]);
    check(at_once(), "a b c1 c2 d", &[]);
    check(begin("a").any("c").any("d").not_at_once("b"), "a c1 c2 d b", &[]);
    check(begin("a").any("c").not_at_once("b"), "a c1 x c2 b", &["a c1"]);

    check(begin("a").not("b").any("c").then("d"), "a c1 b c2 d", &["a c1 d"]);
    check(begin("a").not("b").any("c").optional().then("d"), "a c1 b c2 d", &["a c1 d"]);
    check(begin("a").not("b").any("c").optional(), "a c1 b c2", &["a", "a c1"]);
    check(begin("a").not("b").any("c").times(2).optional().then("d"), "a c1 b c2 d", &["a c1 c2 d"]);
    check(begin("a").not("b").any("c").times(2).optional().then("d"), "a d1 e b c1 c2 d2", &["a d1"]);
    check(begin("a").any("b").times(2).not("c").then("d"), "a b1 c b2 d", &[]);
    check(begin("a").any("b").times(2).not("c").then("d"), "a d1 e b1 b2 c d2", &[]);
    check(begin("a").not("b").then("c").then("d"), "a1 b1 c1 a2 c2 d", &["a2 c2 d"]);
    // An event that must not come is not taken either.
    check(begin("a").not("b").then("c"), "a bc", &[]);
}

#[test]
fn what_must_not_come_within_the_window() {
    let pattern = || begin("a").then("b").not("c").within(Duration::from_millis(4));
    let run = |events: &[(i64, &str)], now| {
        let mut run = Run::new(pattern().compile().unwrap());
        events.iter().for_each(|(timestamp, event)| run.push(*timestamp, event.to_string()));
        run.advance(now);
        run.results.matches.iter().map(|(timestamp, events)| (*timestamp, events.len())).collect::<Vec<_>>()
    };
    assert_eq!(run(&[(0, "a"), (1, "b")], 3), []);
    assert_eq!(run(&[(0, "a"), (1, "b")], 4), [(4, 2)]);
    assert_eq!(run(&[(0, "a"), (1, "b"), (3, "c")], 10), []);
    assert_eq!(run(&[(0, "a"), (1, "b"), (4, "c")], 10), [(4, 2)]);
}

#[test]
fn conditions_are_combined_in_their_order() {
    let pattern = || P::begin("x").where_(is("a")).where_(is("1")).or(is("b"));
    check(pattern(), "a1 a2 b c1", &["a1", "b"]);
    check(P::begin("x").or(is("b")), "a b", &["b"]);
    check(P::begin("x"), "a b", &["a", "b"]);
}

#[test]
fn iterative_conditions_see_what_was_taken() {
    let number = |event: &String| event.trim_start_matches(char::is_alphabetic).parse::<u32>().unwrap_or(0);
    let rising = move || {
        begin("a")
            .any("b")
            .where_iterative(move |event, earlier| {
                earlier.of("b").last().is_none_or(|last| number(last) < number(event))
            })
            .one_or_more()
            .allow_combinations()
            .then("c")
    };
    let expected = ["a b2 c", "a b2 b3 c", "a b1 c", "a b1 b3 c", "a b3 c"];
    check(rising(), "a b2 b1 b3 c", &expected);
    let sum = begin("a").then("b").one_or_more().greedy().then("c").where_iterative(move |event, earlier| {
        earlier.of("b").map(number).sum::<u32>() == number(event) && earlier.iter().next().is_some()
    });
    check(sum, "a b2 b3 c4 c5", &["a b2 b3 c5"]);
}

#[test]
fn groups_are_taken_as_one() {
    let group = || P::begin("b").where_(is("b")).followed_by("c").where_(is("c"));
    check(begin("a").followed_by_pattern(group()).then("d"), "a b1 x c1 d", &["a b1 c1 d"]);
    let twice = || begin("a").followed_by_pattern(group()).times(2);
    check(twice().then("d"), "a b1 c1 b2 c2 b3 c3 d", &["a b1 c1 b2 c2 d"]);
    check(twice().consecutive().then("d"), "a b1 c1 x b2 c2 d", &[]);
    check(twice().consecutive().then("d"), "a b1 x c1 b2 c2 d", &["a b1 c1 b2 c2 d"]);
    check(twice().optional().then("d"), "a b1 c1 d", &["a d"]);
    let more = ["a b1 c1 d", "a b1 c1 b2 c2 d"];
    check(begin("a").followed_by_pattern(group()).one_or_more().then("d"), "a b1 c1 b2 c2 d", &more);
    check(begin("a").next_pattern(group()), "a x b c", &[]);
    let any = ["a b1 c", "a b2 c"];
    check(begin("a").followed_by_any_pattern(group()), "a b1 b2 c", &any);
    check(P::begin_with(group()).times(2), "b1 c1 b2 c2", &["b1 c1 b2 c2"]);
    check(
        begin("a").followed_by_pattern(group()).one_or_more().until(is("u")).then("d"),
        "a b1 c1 u b2 c2 d",
        &["a b1 c1 d"],
    );
}

#[test]
fn what_a_match_discards() {
    let two = |skip| begin("a").any("b").after_match(skip);
    check_order(two(SkipStrategy::NoSkip), "a1 b1 a2 b2", &["a1 b1", "a1 b2", "a2 b2"]);
    check_order(two(SkipStrategy::SkipToNext), "a1 b1 a2 b2", &["a1 b1", "a2 b2"]);
    let end = |skip| begin("a").strictly("b").one_or_more().after_match(skip);
    check_order(end(SkipStrategy::NoSkip), "a b1 b2 b3", &["a b1", "a b1 b2", "a b1 b2 b3"]);
    check_order(end(SkipStrategy::SkipToNext), "a b1 b2 b3", &["a b1"]);
    let three = begin("a").times(3).after_match(SkipStrategy::SkipPastLastEvent);
    check_order(three, "a1 a2 a3 a4 a5 a6", &["a1 a2 a3", "a4 a5 a6"]);
    let four = begin("a").any("b").any("c").then("d").after_match(SkipStrategy::SkipPastLastEvent);
    check_order(four, "a1 a2 b1 b2 c1 c2 d1 d2", &["a1 b1 c1 d1"]);

    let pairs = |skip| {
        P::begin("start").where_(is("a")).times(2).next("end").where_(is("b")).times(2).after_match(skip)
    };
    let events = "ab1 ab2 ab3 ab4 ab5 ab6";
    check_order(pairs(SkipStrategy::skip_to_first("end")), events, &["ab1 ab2 ab3 ab4", "ab3 ab4 ab5 ab6"]);
    let events = "ab1 ab2 ab3 ab4 ab5 ab6 ab7";
    check_order(pairs(SkipStrategy::skip_to_last("end")), events, &["ab1 ab2 ab3 ab4", "ab4 ab5 ab6 ab7"]);

    let strict = |skip| begin("b").one_or_more().consecutive().strictly("c").after_match(skip);
    let all = ["b1 b2 b3 c", "b2 b3 c", "b3 c"];
    for skip in [SkipStrategy::NoSkip, SkipStrategy::SkipToNext, SkipStrategy::skip_to_first("b")] {
        check(strict(skip), "b1 b2 b3 c", &all);
    }
    check_order(strict(SkipStrategy::SkipPastLastEvent), "b1 b2 b3 c", &["b1 b2 b3 c"]);
    check_order(strict(SkipStrategy::skip_to_last("b")), "b1 b2 b3 c", &["b1 b2 b3 c", "b3 c"]);

    let choice = |skip| {
        P::begin("x")
            .where_(is("a"))
            .or(is("b"))
            .or(is("c"))
            .next("y")
            .where_(is("b"))
            .or(is("c"))
            .next("z")
            .where_(is("c"))
            .one_or_more()
            .consecutive()
            .greedy()
            .next("d")
            .where_(is("d"))
            .after_match(skip)
    };
    let events = "a b c1 c2 c3 d";
    check(choice(SkipStrategy::NoSkip), events, &["a b c1 c2 c3 d", "b c1 c2 c3 d", "c1 c2 c3 d"]);
    check_order(choice(SkipStrategy::skip_to_first("z")), events, &["a b c1 c2 c3 d", "c1 c2 c3 d"]);
}

#[test]
fn a_match_waits_for_one_that_began_earlier() {
    let pattern = || {
        begin("a").then("c").after_match(SkipStrategy::SkipPastLastEvent).within(Duration::from_millis(10))
    };
    check_order(pattern(), "a1 a2 c", &["a1 c"]);
    // The one from a1 is still open when the one from b1 is complete.
    let either = P::begin("x")
        .where_(is("a"))
        .followed_by("y")
        .where_(is("c"))
        .times(2)
        .after_match(SkipStrategy::SkipToNext);
    check_order(either, "a1 c1 a2 c2 c3", &["a1 c1 c2", "a2 c2 c3"]);
}

#[test]
fn partial_matches_time_out_in_their_order() {
    let pattern = begin("a").then("b").one_or_more().then("c").within(Duration::from_millis(10));
    let mut run = Run::new(pattern.compile().unwrap());
    for (timestamp, event) in [(0, "a1"), (3, "b1"), (5, "a2"), (9, "b2"), (14, "c")] {
        run.push(timestamp, event.to_string());
        run.restore();
    }
    run.advance(100);
    let text = |(timestamp, events): &(i64, support::Named<String>)| {
        (*timestamp, events.iter().map(|(_, event)| event.as_str()).collect::<Vec<_>>().join(" "))
    };
    let mut timed_out: Vec<_> = run.results.timed_out.iter().map(text).collect();
    timed_out.sort();
    let expected = [(10, "a1 b1"), (10, "a1 b1 b2"), (15, "a2 b2")];
    // The match of a2 goes on with `a2 b2`, to which more could have come.
    let matched: Vec<_> = run.results.matches.iter().map(text).collect();
    assert_eq!(matched, [(14, "a2 b2 c".to_string())]);
    assert_eq!(timed_out, expected.map(|(timestamp, text)| (timestamp, text.to_string())));
}

#[test]
fn the_window_is_exclusive_at_its_end() {
    let count = |distance| {
        let pattern = begin("a").then("b").within(Duration::from_secs(600));
        let mut run = Run::new(pattern.compile().unwrap());
        run.push(0, "a".to_string());
        run.push(distance, "b".to_string());
        run.results.matches.len()
    };
    assert_eq!((count(599_999), count(600_000)), (1, 0));
}

#[test]
fn mistakes_are_told() {
    let table: [(P, &str); 17] = [
        (begin("a").then("a"), "two patterns are called `a`"),
        (P::begin(""), "empty name"),
        (begin("a").not("b").optional(), "`optional` has no meaning"),
        (begin("a").not("b").one_or_more(), "`one_or_more` has no meaning"),
        (begin("a").optional().not("b").then("c"), "behind an optional one"),
        (begin("a").not("b"), "say when with within(..)"),
        (begin("a").times(2).one_or_more(), "already says how often"),
        (begin("a").greedy(), "`greedy` of `a`"),
        (begin("a").one_or_more().allow_combinations().greedy(), "repeats or contradicts"),
        (begin("a").one_or_more().consecutive().allow_combinations(), "repeats or contradicts"),
        (begin("a").consecutive(), "about several events"),
        (begin("a").times(2).until(is("b")), "use it behind one_or_more()"),
        (begin("a").times(0), "occurs 0 to 0 times"),
        (begin("a").within(Duration::ZERO), "at least a millisecond"),
        (begin("a").after_match(SkipStrategy::skip_to_first("b")), "names the pattern `b`"),
        (P::begin_with(begin("a").not("b")).then("c"), "begins or ends with the NOT pattern"),
        (P::begin_with(begin("a")).times(2).greedy(), "a group cannot be greedy"),
    ];
    for (pattern, expected) in table {
        let error: PatternError = pattern.compile().map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error} should say: {expected}");
    }
    #[expect(clippy::reversed_empty_ranges, reason = "that is the mistake")]
    let reversed = begin("a").times_range(3..=2);
    assert!(matches!(reversed.compile(), Err(PatternError::Times { from: 3, to: 2, .. })));
}

#[test]
fn a_pattern_is_known_by_its_structure() {
    let of = |pattern: P| pattern.compile().unwrap().fingerprint();
    let pattern = || begin("a").then("b").one_or_more();
    assert_eq!(of(pattern()), of(pattern().within(Duration::from_secs(1))));
    let others = [
        pattern().greedy(),
        pattern().optional(),
        begin("a").any("b").one_or_more(),
        begin("a").then("c").one_or_more(),
    ];
    for other in others {
        assert_ne!(of(pattern()), of(other));
    }
    // Partial matches in savepoints are found by it: it must never change for a pattern that means the same.
    assert_eq!(of(pattern()), 0x9de2_2ae7_ee81_499d);
}

#[test]
fn memory_is_linear_in_events_and_not_in_partial_matches() {
    let events = 2_000_u32;
    let mut run = Run::new(begin("a").one_or_more().then("b").compile().unwrap());
    for number in 0..events {
        run.push(i64::from(number), format!("a{number}"));
    }
    // Two million partial matches.
    let (nodes, edges) = run.partial.size();
    assert_eq!((nodes, edges), (events as usize, 2 * events as usize - 1));

    // What can never be needed again goes, also without a window.
    let mut run = Run::new(begin("a").strictly("b").then("c").compile().unwrap());
    for number in 0..10_000_i64 {
        run.push(number, "a".to_string());
        assert!(run.partial.size().0 <= 64, "{:?}", run.partial.size());
    }
    let mut run =
        Run::new(begin("a").one_or_more().then("b").within(Duration::from_millis(100)).compile().unwrap());
    for number in 0..1_000_i64 {
        run.push(number, "a".to_string());
        run.results.timed_out.clear();
        assert!(run.partial.size().0 <= 202, "{:?}", run.partial.size());
    }
}
