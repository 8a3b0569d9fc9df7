//! The job `high_spend` on a user who spends just enough.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../high_spend.rs"]
#[allow(dead_code)]
mod job;

use job::{Alert, Click};
use thalweg::prelude::*;
use thalweg::testing::{JobHarness, JobSetup};

/// The alerts when these are spent at these seconds.
fn alerts(spends: &[(Timestamp, f64)]) -> Vec<Alert> {
    let click = |(second, spend): &(Timestamp, f64)| Click {
        user: "ann".into(),
        url: "/buy".into(),
        at: 1_000 * second,
        spend: *spend,
    };
    let mut job = JobHarness::open(job::topology, JobSetup::default().parallelism(2)).unwrap();
    job.feed("clicks", spends.iter().map(click)).unwrap();
    job.end_input().unwrap();
    assert!(job.is_finished());
    job.output("alerts").unwrap()
}

#[test]
fn acceptance_ds_30_more_than_a_thousand_in_five_minutes() {
    let alert = Alert { user: "ann".into(), rule: "HIGH_SPEND_5M".into(), window_end: 300_000 };
    assert_eq!(alerts(&[(30, 400.0), (130, 500.0), (290, 150.0)]), [alert]);
    assert_eq!(alerts(&[(30, 400.0), (130, 500.0), (290, 100.0)]), [], "exactly a thousand is in order");
}
