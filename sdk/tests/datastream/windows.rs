//! Windows in whole jobs, and what is said about windows that cannot be.

use thalweg::Result;
use thalweg::aggregates::{Count, sum_of};
use thalweg::prelude::*;
use thalweg::testing::{LocalCluster, run_local};
use thalweg::windows::{CountEvictor, CountTrigger, DeltaTrigger, PurgingTrigger};

/// User, time, number.
type Event = (String, i64, i64);

fn event(user: &str, at: i64, number: i64) -> Event {
    (user.into(), at, number)
}

/// By one subtask: between two of them records of a key have no order, and neither have count windows.
fn events(env: &Environment, events: &[Event]) -> DataStream<Event> {
    let strategy = monotonous_timestamps().timestamps(|event: &Event| event.1);
    env.from_iter(events.to_vec()).watermarks(strategy).set_parallelism(1)
}

fn sorted<T: thalweg::record::Record + Ord>(collected: &Collected<T>) -> Vec<T> {
    let mut all = collected.take();
    all.sort();
    all
}

#[test]
fn windows_of_each_kind_in_a_job() -> Result<()> {
    let cluster = LocalCluster::new().configure("parallelism.default", 2);
    let input = [event("a", 1, 1), event("b", 2, 2), event("a", 7, 3), event("a", 12, 4), event("b", 31, 5)];
    let (sums, sliding_counts, sessions, steps, counted, reduced) = cluster.run(|env| {
        let users = events(env, &input).key_by(|event| event.0.clone());
        let sum = sum_of(|event: &Event| event.2);
        let with_end = |user: &String, window: TimeWindow, sum: i64| [(user.clone(), window.end, sum)];
        Ok((
            users.window(tumbling(millis(10))).aggregate(sum.clone()).uid("tumbling").collect(),
            users
                .window(sliding(millis(10), millis(5)))
                .aggregate_with(Count, |user, window, count| {
                    [(user.clone(), window.start, window.end, count)]
                })
                .uid("sliding")
                .collect(),
            users
                .window(session(millis(6)))
                .apply(|user, window, events| [(user.clone(), window.start, window.end, events.len() as u64)])
                .uid("sessions")
                .collect(),
            users
                .window(cumulate(millis(20), millis(10)))
                .aggregate_with(sum, with_end)
                .uid("cumulate")
                .collect(),
            users.count_window(2).apply(|_, _, events| [events[0].2 + events[1].2]).uid("count").collect(),
            users
                .window(tumbling(millis(10)).offset(millis(5)))
                .reduce(|one, other| (one.0, one.1, one.2 + other.2))
                .uid("reduce")
                .collect(),
        ))
    })?;
    let named = |user: &str| user.to_string();
    assert_eq!(sorted(&sums), [(named("a"), 4), (named("a"), 4), (named("b"), 2), (named("b"), 5)]);
    let expected = [
        (named("a"), -5, 5, 1),
        (named("a"), 0, 10, 2),
        (named("a"), 5, 15, 2),
        (named("a"), 10, 20, 1),
        (named("b"), -5, 5, 1),
        (named("b"), 0, 10, 1),
        (named("b"), 25, 35, 1),
        (named("b"), 30, 40, 1),
    ];
    assert_eq!(sorted(&sliding_counts), expected);
    // 7 touches the end of the session of 1.
    let expected = [(named("a"), 1, 18, 3), (named("b"), 2, 8, 1), (named("b"), 31, 37, 1)];
    assert_eq!(sorted(&sessions), expected);
    let expected = [
        (named("a"), 10, 4),
        (named("a"), 20, 8),
        (named("b"), 10, 2),
        (named("b"), 20, 2),
        (named("b"), 40, 5),
    ];
    assert_eq!(sorted(&steps), expected);
    assert_eq!(sorted(&counted), [4, 7]);
    assert_eq!(sorted(&reduced), [event("a", 1, 1), event("a", 7, 7), event("b", 2, 2), event("b", 31, 5)]);
    Ok(())
}

#[test]
fn one_subtask_sees_all_records_of_a_stream_without_keys() -> Result<()> {
    let cluster = LocalCluster::new().configure("parallelism.default", 4);
    let input: Vec<Event> = (0..1_000).map(|number| event("x", number, number)).collect();
    let (counts, sums) = cluster.run(|env| {
        let all = events(env, &input);
        let counts: DataStream<u64> = all.window_all(tumbling(millis(300))).aggregate(Count);
        let sums = all.window_all(global()).trigger(PurgingTrigger::of(CountTrigger::of(500)));
        let sums = sums.aggregate(sum_of(|event: &Event| event.2));
        Ok((counts.uid("counts").collect(), sums.uid("sums").collect()))
    })?;
    assert_eq!(sorted(&counts), [100, 300, 300, 300]);
    let expected: i64 = (0..1_000).sum();
    assert_eq!(sums.take().iter().sum::<i64>(), expected);
    Ok(())
}

/// Emits the window of its elements, or of the result of an aggregation.
#[derive(Clone)]
struct Described;

impl<T: std::fmt::Debug + Clone + Send + Sync + 'static> ProcessWindowFunction<String, T> for Described {
    type Out = String;

    fn process(
        &mut self,
        elements: Vec<T>,
        context: &mut WindowContext<'_, '_, String, String>,
    ) -> Result<(), Failure> {
        let text = format!("{} {} {:?}", context.key(), context.window(), elements);
        context.emit(text);
        Ok(())
    }
}

#[test]
fn functions_see_the_key_and_the_window() -> Result<()> {
    let input = [event("a", 1, 1), event("a", 2, 2), event("a", 3, 3)];
    let (elements, results) = run_local(|env| {
        let users = events(env, &input).key_by(|event| event.0.clone());
        let windows = users.window(tumbling(millis(10)));
        Ok((
            users
                .window(tumbling(millis(10)))
                .evictor(CountEvictor::of(1))
                .process(Described)
                .uid("elements")
                .collect(),
            windows.aggregate_and_process(Count, Described).uid("results").collect(),
        ))
    })?;
    assert_eq!(elements.take(), [r#"a [0, 10) [("a", 3, 3)]"#]);
    assert_eq!(results.take(), ["a [0, 10) [3]"]);
    Ok(())
}

const LATE: OutputTag<Event> = OutputTag::new("late");

/// A watermark behind every record.
#[derive(Clone)]
struct BehindEach;

impl WatermarkGenerator<Event> for BehindEach {
    fn on_event(&mut self, _: &Event, timestamp: Timestamp, output: &mut WatermarkOutput) {
        output.emit_watermark(timestamp - 1);
    }

    fn on_periodic_emit(&mut self, _: &mut WatermarkOutput) {}
}

#[test]
fn late_records_leave_through_a_side_output() -> Result<()> {
    let input = [event("a", 1, 1), event("a", 50, 2), event("a", 2, 3), event("a", 51, 4)];
    let (counts, late) = run_local(|env| {
        let strategy = WatermarkStrategy::for_generator(BehindEach).timestamps(|event: &Event| event.1);
        let users = env.from_iter(input.clone()).watermarks(strategy).key_by(|event| event.0.clone());
        let counts =
            users.window(tumbling(millis(10))).side_output_late_data(&LATE).aggregate(Count).uid("counts");
        Ok((counts.collect(), counts.side_output(&LATE).collect()))
    })?;
    assert_eq!(counts.take(), [("a".to_string(), 1), ("a".to_string(), 2)]);
    assert_eq!(late.take(), [event("a", 2, 3)]);
    Ok(())
}

type Numbers = KeyedStream<u64, u64, fn(&u64) -> u64>;

#[test]
fn windows_that_cannot_be_are_refused_with_their_line() {
    let refused = |topology: fn(&Numbers)| {
        let error = run_local(|env| {
            let key: fn(&u64) -> u64 = |number| *number;
            topology(&env.from_iter(0..3_u64).key_by(key));
            Ok(())
        });
        error.unwrap_err().to_string()
    };
    for (found, expected) in [
        (refused(|keyed| drop(keyed.window(tumbling(secs(0))).aggregate(Count).collect())), "1 ms at least"),
        (
            refused(|keyed| {
                drop(keyed.window(sliding(secs(2), secs(1)).offset(secs(1))).aggregate(Count).collect())
            }),
            "less than that",
        ),
        (
            refused(|keyed| drop(keyed.window(cumulate(secs(3), secs(2))).aggregate(Count).collect())),
            "multiple of the step",
        ),
        (refused(|keyed| drop(keyed.window(session(secs(0))).aggregate(Count).collect())), "1 ms at least"),
        (refused(|keyed| drop(keyed.count_window(0).aggregate(Count).collect())), "1 at least"),
        (
            refused(|keyed| {
                let far = DeltaTrigger::new(1.0, |from: &u64, to: &u64| *to as f64 - *from as f64);
                drop(keyed.window(session(secs(1))).trigger(far).aggregate(Count).collect());
            }),
            "their trigger cannot",
        ),
    ] {
        assert!(found.contains(expected) && found.contains("windows.rs:"), "{found}");
    }
}

#[test]
fn a_record_without_a_timestamp_says_what_to_do() {
    let error = run_local(|env| {
        let users = env.from_iter(["a"].map(String::from)).key_by(String::clone);
        users.window(tumbling(secs(1))).aggregate(Count).uid("counts").print_debug();
        Ok(())
    });
    let message = error.unwrap_err().to_string();
    assert!(message.contains("without a timestamp") && message.contains("assign timestamps"), "{message}");
}

/// A name and a time.
type Named = (String, i64);

/// Two streams of such records.
fn two_streams(
    env: &Environment,
    lefts: &[(&str, i64)],
    rights: &[(&str, i64)],
) -> (DataStream<Named>, DataStream<Named>) {
    let stream = |records: &[(&str, i64)]| {
        let records: Vec<_> = records.iter().map(|(name, at)| ((*name).to_string(), *at)).collect();
        let strategy = monotonous_timestamps().timestamps(|record: &Named| record.1);
        env.from_iter(records).watermarks(strategy)
    };
    (stream(lefts), stream(rights))
}

/// Puts the timestamp beside each record.
#[derive(Clone)]
struct Stamped;

impl Process<String> for Stamped {
    type Out = (String, Option<i64>);

    fn on_record(
        &mut self,
        record: String,
        context: &mut ProcessContext<'_, Self::Out>,
    ) -> std::result::Result<(), Failure> {
        let timestamp = context.timestamp();
        context.emit((record, timestamp));
        Ok(())
    }
}

#[test]
fn acceptance_ds_27_records_of_the_same_window_are_paired() -> Result<()> {
    let pairs = run_local(|env| {
        let (lefts, rights) =
            two_streams(env, &[("A1", 60_000), ("A2", 299_999)], &[("B1", 120_000), ("B2", 300_000)]);
        let both = lefts.key_by(|_| 0_u64).connect(&rights.key_by(|_| 0_u64));
        let pairs = both.window(tumbling(minutes(5))).join(|left, right| format!("{} {}", left.0, right.0));
        Ok(pairs.uid("pairs").process(Stamped).collect())
    })?;
    let expected = ["A1 B1", "A2 B1"].map(|pair| (pair.to_string(), Some(299_999)));
    assert_eq!(sorted(&pairs), expected);
    Ok(())
}

#[test]
fn outer_joins_and_groups_of_two_streams_in_windows() -> Result<()> {
    let cluster = LocalCluster::new().configure("parallelism.default", 2);
    let (left, right, full, groups) = cluster.run(|env| {
        // By the first letter: a on both sides, b on the left one, c on the right one; in the second window the other way round.
        let (lefts, rights) = two_streams(
            env,
            &[("a1", 1), ("a2", 2), ("b", 3), ("c", 12)],
            &[("a", 1), ("c", 2), ("b1", 13), ("b2", 14)],
        );
        let key = |record: &Named| record.0[..1].to_string();
        let windows = lefts.key_by(key).connect(&rights.key_by(key)).window(tumbling(millis(10)));
        let name = |record: Option<&Named>| record.map_or("-".to_string(), |record| record.0.clone());
        Ok((
            windows.left_outer_join(move |left, right| format!("{} {}", left.0, name(right))).collect(),
            windows.right_outer_join(move |left, right| format!("{} {}", name(left), right.0)).collect(),
            windows.full_outer_join(move |left, right| format!("{} {}", name(left), name(right))).collect(),
            windows
                .co_group(|key, window, lefts, rights| {
                    [format!("{key}@{}: {}+{}", window.start, lefts.len(), rights.len())]
                })
                .collect(),
        ))
    })?;
    assert_eq!(sorted(&left), ["a1 a", "a2 a", "b -", "c -"]);
    assert_eq!(sorted(&right), ["- b1", "- b2", "- c", "a1 a", "a2 a"]);
    assert_eq!(sorted(&full), ["- b1", "- b2", "- c", "a1 a", "a2 a", "b -", "c -"]);
    assert_eq!(sorted(&groups), ["a@0: 2+1", "b@0: 1+0", "b@10: 0+2", "c@0: 0+1", "c@10: 1+0"]);
    Ok(())
}
