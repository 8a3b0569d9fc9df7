//! The job `user_sessions` on the clicks of the example.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../user_sessions.rs"]
#[allow(dead_code)]
mod job;

use job::{Click, Session, sessions};
use thalweg::prelude::*;
use thalweg::testing::run_local;

#[test]
fn acceptance_ds_24_each_click_has_its_gap() {
    let clicks = [(0, 10_000), (9_000, 5_000), (14_000, 5_000), (19_001, 10_000)];
    let found = run_local(|env| {
        let clicks = clicks.map(|(at, gap_ms)| Click { user: "u".into(), at, gap_ms });
        let strategy = monotonous_timestamps().timestamps(|click: &Click| click.at);
        Ok(sessions(&env.from_iter(clicks).watermarks(strategy)).collect())
    })
    .unwrap();
    let session = |start, end, clicks: &[Timestamp]| Session {
        user: "u".into(),
        window: TimeWindow::new(start, end),
        clicks: clicks.to_vec(),
    };
    // 14,000 touches the end of the session of 9,000.
    let expected = [session(0, 19_000, &[0, 9_000, 14_000]), session(19_001, 29_001, &[19_001])];
    assert_eq!(found.take(), expected);
}
