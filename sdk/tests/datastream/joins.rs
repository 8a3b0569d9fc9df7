//! Joins without windows, through whole jobs.

use thalweg::prelude::*;
use thalweg::testing::{LocalCluster, run_local};

fn sorted<T: Ord>(mut records: Vec<T>) -> Vec<T> {
    records.sort();
    records
}

/// Ticker and time.
type Event = (String, Timestamp);

fn events(env: &Environment, times: &[Timestamp]) -> DataStream<Event> {
    let events: Vec<Event> = times.iter().map(|at| ("AMZN".to_string(), *at)).collect();
    env.from_iter(events).watermarks(monotonous_timestamps().timestamps(|event: &Event| event.1))
}

#[test]
fn acceptance_ds_28_interval_join_in_a_job() {
    // Both bounds are inclusive unless it is said otherwise.
    let table: [(bool, bool, &[Timestamp]); 3] = [
        (false, false, &[90_000, 100_000, 130_000]),
        (true, false, &[100_000, 130_000]),
        (false, true, &[90_000, 100_000]),
    ];
    for (without_lower, without_upper, expected) in table {
        let joined = LocalCluster::new()
            .configure("parallelism.default", 2)
            .run(|env| {
                let left = events(env, &[100_000]);
                let right = events(env, &[89_999, 90_000, 100_000, 130_000, 130_001]);
                let key = |event: &Event| event.0.clone();
                let mut join = left.key_by(key).interval_join(&right.key_by(key), -10_000, 30_000);
                if without_lower {
                    join = join.lower_bound_exclusive();
                }
                if without_upper {
                    join = join.upper_bound_exclusive();
                }
                Ok(join.process(WithTimes).uid("joined").collect())
            })
            .unwrap();
        let expected: Vec<_> = expected.iter().map(|right| (100_000, *right, 100_000.max(*right))).collect();
        assert_eq!(sorted(joined.take()), expected);
    }
}

/// The times of a pair.
#[derive(Clone)]
struct WithTimes;

impl ProcessJoin<Event, Event> for WithTimes {
    type Out = (Timestamp, Timestamp, Timestamp);

    fn on_pair(
        &mut self,
        left: &Event,
        right: &Event,
        context: &mut JoinContext<'_, Self::Out>,
    ) -> Result<(), Failure> {
        assert_eq!((left.1, right.1), (context.left_timestamp(), context.right_timestamp()));
        context.emit((left.1, right.1, context.timestamp()));
        Ok(())
    }
}

#[test]
fn bounds_between_which_nothing_lies_are_refused() {
    let error = run_local(|env| {
        let key = |event: &Event| event.0.clone();
        let (left, right) = (events(env, &[1]).key_by(key), events(env, &[1]).key_by(key));
        left.interval_join(&right, 5, 5).upper_bound_exclusive().map(|left, _| left.1).print();
        Ok(())
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("joins.rs:") && error.contains("nothing lies between 5 and 4 ms"), "{error}");
}

#[test]
fn the_changes_of_a_regular_join_come_to_its_result() {
    let cluster = LocalCluster::new().configure("parallelism.default", 2);
    let (pairs, changes) = cluster
        .run(|env| {
            let orders = env.from_iter((0..30_u64).map(|order| (order % 10, format!("order {order}"))));
            let payers =
                env.from_iter([(1_u64, "Ann".to_string()), (2, "Bob".to_string()), (77, "Cy".to_string())]);
            let orders = orders.key_by(|order| order.0);
            let join = orders.regular_join(&payers.key_by(|payer| payer.0), minutes(60));
            Ok((join.inner().uid("pairs").collect(), join.full_outer().uid("changes").collect()))
        })
        .unwrap();
    let order = |order: u64| (order % 10, format!("order {order}"));
    let expected: Vec<_> = [(1, "Ann"), (2, "Bob")]
        .into_iter()
        .flat_map(|(key, name)| [0, 10, 20].map(|ten| (order(ten + key), (key, name.to_string()))))
        .collect();
    assert_eq!(sorted(pairs.take()), sorted(expected.clone()));

    let mut rows = Vec::new();
    for change in changes.take() {
        match change {
            Change::Insert(row) => rows.push(row),
            Change::Delete(row) => {
                let place = rows.iter().position(|other| *other == row);
                rows.swap_remove(place.expect("what is deleted was there"));
            }
        }
    }
    let mut result: Vec<_> = expected.into_iter().map(|(order, payer)| (Some(order), Some(payer))).collect();
    result.extend(
        (0..30).filter(|number| ![1, 2].contains(&(number % 10))).map(|number| (Some(order(number)), None)),
    );
    result.push((None, Some((77, "Cy".to_string()))));
    assert_eq!(sorted(rows), sorted(result));
}
