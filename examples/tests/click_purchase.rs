//! The job `click_purchase` on clicks and purchases that are known, in this process.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../click_purchase.rs"]
#[allow(dead_code)]
mod job;

use job::{Click, HALF_AN_HOUR_MS, LATE, Purchase, Sale, sales};
use thalweg::prelude::*;
use thalweg::testing::LocalCluster;

const MINUTE: Timestamp = 60_000;

#[test]
fn a_purchase_is_that_of_all_clicks_of_half_an_hour_before() {
    let click = |user: &str, page: &str, at| Click { user: user.into(), page: page.into(), at };
    let purchase = |user: &str, price, at| Purchase { user: user.into(), price, at };
    let clicks = vec![
        click("ann", "/old", 0),
        click("ann", "/shoes", 10 * MINUTE),
        click("bob", "/hats", 20 * MINUTE),
        click("ann", "/hats", 30 * MINUTE),
        click("ann", "/later", 41 * MINUTE),
    ];
    let purchases = vec![
        // Ann's first click is a millisecond too far back, and the one at ten minutes exactly half an hour.
        purchase("ann", 70, HALF_AN_HOUR_MS + 1),
        purchase("ann", 30, 40 * MINUTE),
        purchase("cy", 99, 41 * MINUTE),
        purchase("bob", 5, 60 * MINUTE),
    ];
    let (sold, late) = LocalCluster::new()
        .configure("parallelism.default", 2)
        .run(|env| {
            let sales = sales(&env.from_iter(clicks), &env.from_iter(purchases));
            Ok((sales.collect(), sales.side_output(&LATE).collect()))
        })
        .unwrap();
    let sale = |page: &str, price, after_ms| Sale { page: page.into(), price, after_ms };
    let mut sold = sold.take();
    sold.sort();
    let expected = [
        sale("/hats", 30, 10 * MINUTE),
        sale("/hats", 70, 1),
        sale("/shoes", 30, HALF_AN_HOUR_MS),
        sale("/shoes", 70, 20 * MINUTE + 1),
    ];
    assert_eq!(sold, expected);
    assert!(late.is_empty(), "what is in time for both streams is not late");
}
