//! The job `failed_logins` on a user who fails every two minutes.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../failed_logins.rs"]
#[allow(dead_code)]
mod job;

use job::{Alert, Event};
use thalweg::prelude::*;
use thalweg::testing::{JobHarness, JobSetup};

const MINUTE: Timestamp = 60_000;

fn event(action: &str, at: Timestamp) -> Event {
    Event { user: "ann".into(), action: action.into(), at }
}

#[test]
fn acceptance_ds_31_five_failed_logins_in_ten_minutes() {
    let failures = [10, 130, 250, 370, 490].map(|second| event("login_failed", 1_000 * second));
    let alert = |minute| Alert { user: "ann".into(), count: 5, window_end: minute * MINUTE };
    // With a checkpoint and another parallelism after each number of failures.
    for first in 0..=failures.len() {
        let mut job = JobHarness::open(job::topology, JobSetup::default()).unwrap();
        job.feed("events", failures[..first].to_vec()).unwrap();
        let restored = JobSetup::default().parallelism(4).restoring(&job.snapshot().unwrap());
        let mut job = JobHarness::open(job::topology, restored).unwrap();
        job.feed("events", failures[first..].to_vec()).unwrap();
        job.feed("events", [event("login", 500_000)]).unwrap();
        job.end_input().unwrap();
        assert_eq!(job.output::<Alert>("alerts").unwrap(), [alert(9), alert(10)], "behind {first} failures");
    }
    assert_eq!(alert(9).to_string(), r#"{"count":5,"user":"ann","windowEnd":540000}"#);
}
