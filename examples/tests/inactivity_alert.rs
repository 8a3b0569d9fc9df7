//! The function of the job `inactivity_alert`, without a job: which alerts come when.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../inactivity_alert.rs"]
#[allow(dead_code)]
mod job;

use job::{Activity, Alert, Inactivity};
use thalweg::prelude::*;
use thalweg::testing::{OperatorHarness, Setup};

type Harness = OperatorHarness<Activity, Alert>;

const MINUTE: Timestamp = 60_000;

fn open(setup: Setup) -> Harness {
    Harness::keyed(|event: &Activity| event.user.clone(), Inactivity::after(minutes(5)), setup).unwrap()
}

/// `user` does something now.
fn acts(harness: &mut Harness, user: &str) {
    harness.push(vec![Activity { user: user.into(), is_farewell: false }]).unwrap();
}

/// The alerts since the last look, with their times.
fn alerts(harness: &mut Harness) -> Vec<(Timestamp, Alert)> {
    let batch = harness.output_batch();
    let times: Vec<_> = (0..batch.len()).filter_map(|index| batch.timestamp(index)).collect();
    times.into_iter().zip(batch.into_parts().0).collect()
}

fn inactive(at: Timestamp, user: &str) -> (Timestamp, Alert) {
    (at, Alert { user: user.into(), kind: "inactive-5m".into() })
}

#[test]
fn acceptance_ds_26_one_alert_five_minutes_after_the_last_event() {
    let mut harness = open(Setup::default());
    acts(&mut harness, "ann");
    harness.processing_time(3 * MINUTE).unwrap();
    acts(&mut harness, "ann");
    // The timer of 5:00 was deleted.
    harness.processing_time(8 * MINUTE - 1).unwrap();
    assert_eq!(alerts(&mut harness), []);
    harness.processing_time(8 * MINUTE).unwrap();
    assert_eq!(alerts(&mut harness), [inactive(8 * MINUTE, "ann")]);
    harness.processing_time(60 * MINUTE).unwrap();
    assert_eq!(alerts(&mut harness), []);
}

#[test]
fn acceptance_ds_26_a_deleted_timer_does_not_fire() {
    let mut harness = open(Setup::default());
    acts(&mut harness, "ann");
    acts(&mut harness, "bob");
    harness.processing_time(MINUTE).unwrap();
    harness.push(vec![Activity { user: "bob".into(), is_farewell: true }]).unwrap();
    harness.processing_time(10 * MINUTE).unwrap();
    assert_eq!(alerts(&mut harness), [inactive(5 * MINUTE, "ann")]);
}

#[test]
fn acceptance_ds_26_timers_survive_a_restore_and_overdue_ones_fire_at_once() {
    let mut harness = open(Setup::default());
    acts(&mut harness, "ann");
    harness.processing_time(4 * MINUTE).unwrap();
    acts(&mut harness, "bob");
    let snapshot = harness.barrier(1).unwrap();

    // Restored at another parallelism at 6:00: the timer of ann, of 5:00, is overdue.
    let mut told = Vec::new();
    for subtask in 0..3 {
        let mut restored = open(Setup::default().subtask(subtask, 3).restoring(snapshot.clone()));
        restored.processing_time(6 * MINUTE).unwrap();
        told.extend(alerts(&mut restored).into_iter().map(|alert| (6, alert)));
        restored.processing_time(9 * MINUTE).unwrap();
        told.extend(alerts(&mut restored).into_iter().map(|alert| (9, alert)));
    }
    told.sort_by_key(|(looked, _)| *looked);
    assert_eq!(told, [(6, inactive(5 * MINUTE, "ann")), (9, inactive(9 * MINUTE, "bob"))]);
}
