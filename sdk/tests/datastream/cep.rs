//! Patterns in whole jobs: time-outs and late data on side outputs over edges, and mistakes before anything runs.

use thalweg::cep::{self, Pattern, SkipStrategy};
use thalweg::prelude::*;
use thalweg::testing::{LocalCluster, run_local};

/// An order's number, what happened to it, and when.
type Event = (u64, String, i64);

const UNPAID: OutputTag<(u64, i64)> = OutputTag::new("unpaid");

fn event(order: u64, what: &str, seconds: i64) -> Event {
    (order, what.to_string(), seconds * 1_000)
}

fn is(what: &'static str) -> impl Fn(&Event) -> bool + Send + Sync + 'static {
    move |event| event.1 == what
}

fn paid() -> Pattern<Event> {
    Pattern::begin("order")
        .where_(is("order"))
        .followed_by("payment")
        .where_(is("payment"))
        .within(minutes(15))
}

#[test]
fn orders_are_paid_or_time_out() {
    const ORDERS: u64 = 300;
    let mut events: Vec<Event> = (0..ORDERS)
        .flat_map(|order| {
            let at = order as i64;
            let seen = event(order, "seen", at + 5);
            // Every third one is not paid, every third one too late.
            let payment = [at + 899, at + 900, -1][order as usize % 3];
            [
                Some(event(order, "order", at)),
                Some(seen),
                (payment >= 0).then(|| event(order, "payment", payment)),
            ]
        })
        .flatten()
        .collect();
    events.sort_by_key(|event| event.2);
    let cluster = LocalCluster::new()
        .configure("parallelism.default", 2)
        .configure("execution.checkpointing.interval", "20 ms");
    let (paid, unpaid) = cluster
        .run(|env| {
            let events = env
                .from_iter(events)
                .watermarks(bounded_out_of_orderness(secs(5)).timestamps(|event: &Event| event.2))
                .key_by(|event| event.0);
            let paid = cep::pattern(&events, paid())
                .timed_out(&UNPAID, |order| (order["order"].0, order.timestamp() - order.start()))
                .select(|order| (order["order"].0, order.end() - order.start()))
                .uid("paid");
            Ok((paid.collect(), paid.side_output(&UNPAID).rebalance().collect()))
        })
        .unwrap();
    let sorted = |mut orders: Vec<(u64, i64)>| {
        orders.sort_unstable();
        orders
    };
    let expected = |is_paid: bool, time: i64| {
        let orders = (0..ORDERS).filter(|order| (order % 3 == 0) == is_paid);
        orders.map(|order| (order, time)).collect::<Vec<_>>()
    };
    assert_eq!(sorted(paid.take()), expected(true, 899_000));
    assert_eq!(sorted(unpaid.take()), expected(false, 900_000));
}

#[test]
fn a_mistake_in_a_pattern_is_told_with_its_line() {
    let line = std::sync::atomic::AtomicU32::new(0);
    let result = run_local(|env| {
        let events = env.from_iter([event(1, "order", 0)]).key_by(|event| event.0);
        let pattern = paid().after_match(SkipStrategy::skip_to_first("payed"));
        line.store(line!() + 1, std::sync::atomic::Ordering::Relaxed);
        cep::pattern(&events, pattern).select(|order| order["order"].0).print();
        Ok(())
    });
    let message = result.unwrap_err().to_string();
    let place = format!("cep.rs:{}: ", line.into_inner());
    assert!(message.contains(&place) && message.contains("names the pattern `payed`"), "{message}");
}

#[test]
fn what_is_about_event_time_does_not_go_with_processing_time() {
    let result = run_local(|env| {
        let events = env.from_iter([event(1, "order", 0)]).key_by(|event| event.0);
        let orders =
            cep::pattern(&events, paid()).in_processing_time().ordered_by(|one, other| one.2.cmp(&other.2));
        orders.select(|order| order["order"].0).print();
        Ok(())
    });
    assert!(result.unwrap_err().to_string().contains("ordered_by(..) is about event time"));
}
