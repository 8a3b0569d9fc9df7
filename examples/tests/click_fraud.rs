//! The job `click_fraud` on given actions: who is found, and who is not.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../click_fraud.rs"]
#[allow(dead_code)]
mod job;

use job::{Action, Fraud, frauds};
use thalweg::testing::LocalCluster;

const MINUTE: i64 = 60_000;

fn action(user: &str, kind: &str, timestamp_ms: i64) -> Action {
    Action::parse(&format!("{user},{kind},{timestamp_ms}")).unwrap()
}

/// What a user does when, and whether that is fraud.
type Row<'a> = (&'a [(&'a str, i64)], bool);

/// A user for each row of the table; all of them at once, by two subtasks.
#[test]
fn acceptance_ds_29_click_then_purchase_fraud() {
    let table: [Row<'_>; 7] = [
        (&[("click", 0), ("purchase", 5 * MINUTE)], true),
        (&[("click", 0), ("view", MINUTE), ("purchase", 2 * MINUTE)], false),
        (&[("click", 0), ("click", MINUTE), ("purchase", 2 * MINUTE)], true),
        (&[("click", 0), ("purchase", 10 * MINUTE)], false),
        (&[("click", 0), ("purchase", 10 * MINUTE - 1)], true),
        (&[("click", 0), ("purchase", MINUTE), ("purchase", 2 * MINUTE)], true),
        (&[("purchase", 0), ("click", MINUTE)], false),
    ];
    let user = |row: usize| format!("u-{row}");
    let actions_of = |(row, (actions, _)): (usize, &Row<'_>)| {
        actions.iter().map(|(kind, time)| action(&user(row), kind, *time)).collect::<Vec<_>>()
    };
    let mut actions: Vec<Action> = table.iter().enumerate().flat_map(actions_of).collect();
    actions.sort_by_key(|action| action.timestamp_ms);

    let cluster = LocalCluster::new()
        .configure("parallelism.default", 2)
        .configure("execution.checkpointing.interval", "50 ms");
    let found = cluster.run(|env| Ok(frauds(&env.from_iter(actions)).collect())).unwrap();
    let mut found = found.take();
    found.sort_by(|one, other| one.user.cmp(&other.user));
    let expected = table.iter().enumerate().filter(|(_, (_, is_fraud))| *is_fraud);
    let fraud = |(row, _)| Fraud { user: user(row), rule: "click->purchase".to_string() };
    assert_eq!(found, expected.map(fraud).collect::<Vec<_>>());
}

#[test]
fn a_line_that_is_no_action_is_told() {
    let error = Action::parse("u-7,click,noon").unwrap_err();
    assert_eq!(error.message, "`noon` in `u-7,click,noon` is no time: invalid digit found in string");
    assert!(Action::parse("u-7,click").is_err());
    assert_eq!(Fraud { user: "u-7".into(), rule: "x".into() }.to_string(), "u-7,x");
}
