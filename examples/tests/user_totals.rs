//! The job `user_totals` over more than seven days, and what its snapshots hold then.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../user_totals.rs"]
#[allow(dead_code)]
mod job;

use job::{Purchase, Totals};
use thalweg::prelude::*;
use thalweg::testing::{JobHarness, JobSetup, OperatorHarness, Setup};

const DAY: Timestamp = 24 * 3_600_000;

fn purchase(price: i64) -> Purchase {
    Purchase { user: "ann".into(), price }
}

fn sums(job: &mut JobHarness, prices: impl IntoIterator<Item = i64>) -> Vec<i64> {
    job.feed("purchases", prices.into_iter().map(purchase)).unwrap();
    job.output::<(String, i64)>("sums").unwrap().into_iter().map(|(_, sum)| sum).collect()
}

#[test]
fn acceptance_ds_25_sums_are_forgotten_after_seven_days() {
    let mut job = JobHarness::open(job::topology, JobSetup::default()).unwrap();
    assert_eq!(sums(&mut job, [1, 2, 4]), [1, 3, 7]);
    job.advance_to(7 * DAY).unwrap();
    assert_eq!(sums(&mut job, [8]), [8]);

    // Every purchase begins the seven days anew, and a restore does not.
    job.advance_to(14 * DAY - 1).unwrap();
    assert_eq!(sums(&mut job, [1]), [9]);
    job.advance_to(20 * DAY).unwrap();
    let setup = JobSetup::default().parallelism(2).restoring(&job.snapshot().unwrap());
    let mut job = JobHarness::open(job::topology, setup).unwrap();
    assert_eq!(job.now_ms(), 20 * DAY);
    assert_eq!(sums(&mut job, [1]), [10]);
    job.advance_to(27 * DAY).unwrap();
    assert_eq!(sums(&mut job, [3]), [3]);
}

#[test]
fn acceptance_ds_25_a_snapshot_has_no_sum_that_is_forgotten() {
    let by_user = |purchase: &Purchase| purchase.user.clone();
    let mut harness = OperatorHarness::keyed(by_user, Totals::default(), Setup::default()).unwrap();
    harness.push(vec![purchase(1)]).unwrap();
    harness.processing_time(7 * DAY - 1).unwrap();
    assert_eq!(harness.barrier(1).unwrap().keyed_state["sum"].groups.len(), 1);
    harness.processing_time(7 * DAY).unwrap();
    assert!(harness.barrier(2).unwrap().keyed_state["sum"].groups.is_empty());
}
