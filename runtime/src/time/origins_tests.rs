//! Tests of origins: splits that come and go, idleness, and what is told of it.

use super::*;
use crate::time::{BoundedOutOfOrderness, WatermarkStrategy};
use WatermarkStatus::{Active, Idle};

const IDLENESS: Duration = Duration::from_secs(15);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn origins(idleness: Option<Duration>) -> Origins<BoundedOutOfOrderness> {
    let strategy = WatermarkStrategy::for_monotonous_timestamps();
    Origins::single(strategy.generator, idleness, at(0))
}

/// Splits that are there, with none to come.
fn only(splits: &[String]) -> OpenSplits<'_> {
    OpenSplits { splits, is_expecting: false }
}

fn record(
    origins: &mut Origins<BoundedOutOfOrderness>,
    origin: usize,
    timestamp: i64,
    now: Duration,
) -> Option<WatermarkStatus> {
    let touched = origins.touch(origin, now);
    let generator = origins.generator(origin).expect("it is there");
    WatermarkGenerator::<()>::on_event(generator, &(), timestamp, &mut WatermarkOutput::default());
    touched.status
}

fn said(changes: Changes) -> Vec<(Option<i64>, Option<WatermarkStatus>)> {
    changes.into_iter().map(|merged| (merged.watermark, merged.status)).collect()
}

#[test]
fn one_origin_rises_with_its_records_and_becomes_idle_behind_what_it_had_to_say() {
    let mut origins = origins(Some(IDLENESS));
    assert_eq!(said(origins.emit::<()>()), [], "there was no record yet");
    assert_eq!(origins.times_out_at(), Some(at(15)));
    assert_eq!(record(&mut origins, 0, 1_000, at(3)), None);
    assert_eq!(said(origins.emit::<()>()), [(Some(999), None)]);
    assert_eq!(said(origins.emit::<()>()), []);
    assert_eq!(record(&mut origins, 0, 2_000, at(4)), None);
    assert_eq!(said(origins.time_out::<()>(at(18))), []);
    assert_eq!(said(origins.time_out::<()>(at(19))), [(Some(1_999), None), (None, Some(Idle))]);
    assert_eq!((origins.times_out_at(), said(origins.time_out::<()>(at(99)))), (None, vec![]));
    assert_eq!(record(&mut origins, 0, 3_000, at(100)), Some(Active));
    assert_eq!(said(origins.emit::<()>()), [(Some(2_999), None)]);
}

#[test]
fn time_in_which_nothing_could_come_makes_nobody_idle() {
    let mut origins = origins(Some(IDLENESS));
    origins.excuse(at(60));
    assert_eq!((origins.times_out_at(), said(origins.time_out::<()>(at(74)))), (Some(at(75)), vec![]));
    assert_eq!(said(origins.time_out::<()>(at(75))), [(None, Some(Idle))]);
}

#[test]
fn a_split_that_is_behind_holds_the_others_back_until_it_is_idle_or_gone() {
    let mut origins = origins(Some(IDLENESS));
    let splits = ["a", "b", "c"].map(String::from);
    assert_eq!(said(origins.set_splits::<()>(only(&splits), at(0))), []);
    let [a, b, c] = ["a", "b", "c"].map(|split| origins.of_split(split, at(0)));
    record(&mut origins, a, 5_000, at(1));
    record(&mut origins, b, 2_000, at(2));
    assert_eq!(said(origins.emit::<()>()), [], "nothing is known of the third");
    assert_eq!(said(origins.time_out::<()>(at(15))), [(Some(1_999), None)]);
    record(&mut origins, c, 1_000, at(15));
    record(&mut origins, b, 4_000, at(15));
    assert_eq!(said(origins.emit::<()>()), [(Some(3_999), None)], "who comes back late holds nobody back");
    let left = ["a", "c"].map(String::from);
    assert_eq!(said(origins.set_splits::<()>(only(&left), at(15))), [(Some(4_999), None)]);
    // The place of the one that is gone is taken by a new one.
    let more = ["a", "c", "d"].map(String::from);
    assert_eq!(said(origins.set_splits::<()>(only(&more), at(15))), []);
    let d = origins.of_split("d", at(15));
    assert!(d < 4 && d != a && d != c);
    record(&mut origins, d, 9_000, at(15));
    assert_eq!(said(origins.emit::<()>()), []);
}

#[test]
fn idle_shard_example_of_a_subtask_without_any_split_is_idle_at_once() {
    let mut origins = origins(None);
    assert_eq!(said(origins.set_splits::<()>(only(&[]), at(0))), [(None, Some(Idle))]);
    assert_eq!(origins.status(), Idle);
    assert_eq!(said(origins.set_splits::<()>(only(&["a".into()]), at(1))), [(None, Some(Active))]);
    let a = origins.of_split("a", at(1));
    record(&mut origins, a, 7, at(1));
    // What it had to say when it ended.
    assert_eq!(said(origins.set_splits::<()>(only(&[]), at(2))), [(Some(6), None), (None, Some(Idle))]);
}

#[test]
fn a_subtask_that_expects_splits_is_not_idle_without_any() {
    let mut origins = origins(None);
    let expecting = OpenSplits { splits: &[], is_expecting: true };
    assert_eq!(said(origins.set_splits::<()>(expecting, at(0))), []);
    let split = ["a".to_string()];
    assert_eq!(said(origins.set_splits::<()>(OpenSplits { splits: &split, ..expecting }, at(1))), []);
    let a = origins.of_split("a", at(1));
    record(&mut origins, a, 7, at(1));
    assert_eq!(
        said(origins.set_splits::<()>(expecting, at(2))),
        [(Some(6), None)],
        "the next may be on its way"
    );
    assert_eq!(origins.status(), Active);
    assert_eq!(said(origins.set_splits::<()>(only(&[]), at(3))), [(None, Some(Idle))], "there is none");
    assert_eq!(said(origins.set_splits::<()>(only(&["b".into()]), at(4))), [(None, Some(Active))]);
}
