//! The windows of the example applications: exact results, by a clock and by watermarks that stand still until they are moved.

use thalweg_common::Timestamp;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operator::{Key, MergeAggregate};
use thalweg_runtime::side_output::OutputTag;
use thalweg_runtime::testing::{OperatorHarness, Setup};
use thalweg_runtime::windows::{
    DynamicSessionWindows, Lateness, Mapped, Merged, Plain, Reduced, SlidingWindows, TimeWindow,
    TumblingWindows, WindowAggregate, WindowAssigner,
};

const SECOND: Timestamp = 1_000;
const MINUTE: Timestamp = 60 * SECOND;

fn secs(seconds: u64) -> std::time::Duration {
    std::time::Duration::from_secs(seconds)
}

/// Counts.
#[derive(Clone)]
struct Count;

impl<T> MergeAggregate<T> for Count {
    type Accumulator = u64;
    type Out = u64;

    fn create(&self) -> u64 {
        0
    }

    fn add(&self, count: &mut u64, _: T) {
        *count += 1;
    }

    fn merge(&self, count: &mut u64, later: u64) {
        *count += later;
    }

    fn subtract(&self, count: &mut u64, earlier: &u64) -> bool {
        *count -= earlier;
        true
    }

    fn result(&self, count: &u64) -> u64 {
        *count
    }
}

/// An aggregation over windows in a harness: key, end of the window, result.
fn aggregated<K, T, W, A>(
    key: impl Fn(&T) -> K + Clone + Send + Sync + 'static,
    windows: W,
    aggregate: A,
    lateness: Lateness<T>,
) -> OperatorHarness<T, (K, Timestamp, A::Out)>
where
    K: Key,
    T: thalweg_common::record::Record,
    W: WindowAssigner<T>,
    A: WindowAggregate<T, Out: thalweg_common::record::Record>,
{
    let output = Mapped(|key: &K, window: TimeWindow, result| [(key.clone(), window.end, result)]);
    OperatorHarness::keyed(key, windows.aggregated(aggregate, output, lateness), Setup::default()).unwrap()
}

/// What has come out, in the order of keys.
fn take<T, O: thalweg_common::record::Record + PartialOrd>(harness: &mut OperatorHarness<T, O>) -> Vec<O> {
    let mut output = harness.output();
    output.sort_by(|one, other| one.partial_cmp(other).unwrap());
    output
}

/// The tokenizer of the examples: lower case, split where no letter, digit or underscore of ASCII is.
fn tokens(text: &str) -> Vec<String> {
    let is_split = |letter: char| !(letter.is_ascii_alphanumeric() || letter == '_');
    text.to_lowercase().split(is_split).filter(|token| !token.is_empty()).map(String::from).collect()
}

#[test]
fn acceptance_ds_05_reduce_keeps_the_first_record_with_the_sum() {
    type Trade = (String, f64, u64);
    let trade = |ticker: &str, price: f64, id: u64| -> Trade { (ticker.into(), price, id) };
    let sum = |first: Trade, next: Trade| (first.0, first.1 + next.1, first.2);
    let windows = TumblingWindows::of(secs(5)).processing_time();
    let process = windows.aggregated(Reduced(sum), Plain, Lateness::default());
    let mut harness: OperatorHarness<Trade, Trade> =
        OperatorHarness::keyed(|trade: &Trade| trade.0.clone(), process, Setup::default()).unwrap();
    harness.push(vec![trade("A", 10.0, 1), trade("A", 5.5, 2)]).unwrap();
    harness.processing_time(4_998).unwrap();
    assert!(harness.output().is_empty());
    harness.processing_time(4_999).unwrap();
    assert_eq!(harness.output(), [trade("A", 15.5, 1)]);
}

#[test]
fn acceptance_ds_06_tumbling_word_count() {
    let windows = TumblingWindows::of(secs(5)).processing_time();
    let mut harness =
        aggregated(|word: &String| word.clone(), windows, Merged::new::<String>(Count), Lateness::default());
    let record = r#"{"event_time": "2024-01-01T12:00:00.123456", "ticker": "AAPL", "price": 47.3}"#;
    harness.push(tokens(record)).unwrap();
    harness.processing_time(5 * SECOND).unwrap();
    let lines: Vec<String> =
        take(&mut harness).iter().map(|(word, _, count)| format!("{word},{count}\n")).collect();
    let expected = [
        "00,2\n",
        "01,1\n",
        "01t12,1\n",
        "123456,1\n",
        "2024,1\n",
        "3,1\n",
        "47,1\n",
        "aapl,1\n",
        "event_time,1\n",
        "price,1\n",
        "ticker,1\n",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn acceptance_ds_06_and_13_counts_of_ten_seconds_keep_the_quotes() {
    for (tickers, expected) in [
        (vec!["AAPL", "AMZN", "AAPL"], vec!["\"AAPL\",2\n", "\"AMZN\",1\n"]),
        (vec!["AAPL", "AAPL", "AAPL"], vec!["\"AAPL\",3\n"]),
    ] {
        let windows = TumblingWindows::of(secs(10)).processing_time();
        let mut harness = aggregated(
            |word: &String| word.clone(),
            windows,
            Merged::new::<String>(Count),
            Lateness::default(),
        );
        harness.push(tickers.iter().map(|ticker| format!("\"{ticker}\"")).collect()).unwrap();
        harness.processing_time(9_999).unwrap();
        let lines: Vec<String> =
            take(&mut harness).iter().map(|(word, _, count)| format!("{word},{count}\n")).collect();
        assert_eq!(lines, expected);
    }
}

#[test]
fn acceptance_ds_07_and_14_sliding_minimum() {
    type Price = (String, f64);
    let lowest = |one: Price, other: Price| if other.1 < one.1 { other } else { one };
    let windows = SlidingWindows::of(secs(10), secs(5)).processing_time();
    let mut harness =
        aggregated(|price: &Price| price.0.clone(), windows, Reduced(lowest), Lateness::default());
    let mut lines = Vec::new();
    for (at, price) in [
        (1, Some(10.0)),
        (5, None),
        (6, Some(7.5)),
        (10, None),
        (12, Some(9.25)),
        (15, None),
        (20, None),
        (60, None),
    ] {
        harness.processing_time(at * SECOND).unwrap();
        for (_, end, (ticker, price)) in take(&mut harness) {
            lines.push((
                end / SECOND,
                format!("\"{ticker}\",{price:.2}\n"),
                format!("\"{ticker}\":{price:.2}\n"),
            ));
        }
        harness.push(price.map(|price| ("AAPL".to_string(), price)).into_iter().collect()).unwrap();
    }
    let expected = [(5, "10.00"), (10, "7.50"), (15, "7.50"), (20, "9.25")];
    let expected =
        expected.map(|(end, price)| (end, format!("\"AAPL\",{price}\n"), format!("\"AAPL\":{price}\n")));
    assert_eq!(lines, expected);
}

#[test]
fn acceptance_ds_20_sliding_word_count() {
    let windows = SlidingWindows::of(secs(15), secs(5)).processing_time();
    let mut harness =
        aggregated(|word: &String| word.clone(), windows, Merged::new::<String>(Count), Lateness::default());
    let counted = |harness: &mut OperatorHarness<String, (String, Timestamp, u64)>| -> Vec<(String, u64)> {
        take(harness).into_iter().map(|(word, _, count)| (word, count)).collect()
    };
    let pair = |word: &str, count: u64| (word.to_string(), count);
    harness.processing_time(2 * SECOND).unwrap();
    harness.push(tokens("hello world")).unwrap();
    harness.processing_time(5 * SECOND).unwrap();
    assert_eq!(counted(&mut harness), [pair("hello", 1), pair("world", 1)]);
    harness.processing_time(7 * SECOND).unwrap();
    harness.push(tokens("hello")).unwrap();
    for end in [10, 15] {
        harness.processing_time(end * SECOND).unwrap();
        assert_eq!(counted(&mut harness), [pair("hello", 2), pair("world", 1)], "at {end} s");
    }
    harness.processing_time(20 * SECOND).unwrap();
    assert_eq!(counted(&mut harness), [pair("hello", 1)]);
    harness.processing_time(100 * SECOND).unwrap();
    assert_eq!(counted(&mut harness), []);
    assert_eq!(tokens("안녕하세요 Rust2024"), ["rust2024"]);
}

const LATE: OutputTag<(String, i64)> = OutputTag::new("late");

#[test]
fn acceptance_ds_23_late_data() {
    for has_output in [true, false] {
        type Spend = (String, i64);
        let lateness = Lateness::default().allowed(30 * SECOND);
        let lateness = if has_output { lateness.output(LATE) } else { lateness };
        let sum = |one: Spend, other: Spend| (one.0, one.1 + other.1);
        let windows = TumblingWindows::of(secs(60));
        let mut harness = aggregated(|spend: &Spend| spend.0.clone(), windows, Reduced(sum), lateness);
        let mut found = Vec::new();
        let mut latest = Timestamp::MIN;
        for (at, value) in
            [(5_000, 1), (50_000, 2), (72_000, 4), (30_000, 8), (102_000, 16), (40_000, 32), (119_999, 64)]
        {
            harness.push_batch(Batch::from_parts(vec![("u".to_string(), value)], vec![at])).unwrap();
            found.extend(harness.output().into_iter().map(|(_, end, (_, sum))| (at, end, sum)));
            latest = latest.max(at);
            harness.watermark(latest - 10_001).unwrap();
            found.extend(harness.output().into_iter().map(|(_, end, (_, sum))| (at, end, sum)));
        }
        harness.watermark(Timestamp::MAX).unwrap();
        found.extend(harness.output().into_iter().map(|(_, end, (_, sum))| (Timestamp::MAX, end, sum)));
        let expected = [(72_000, MINUTE, 3), (30_000, MINUTE, 11), (Timestamp::MAX, 2 * MINUTE, 84)];
        assert_eq!(found, expected);
        let late = harness.side_output(&LATE).into_parts().0;
        let (expected, dropped) = if has_output { (vec![("u".to_string(), 32)], 0) } else { (vec![], 1) };
        assert_eq!((late, harness.take_late_records()), (expected, dropped));
    }
}

#[test]
fn acceptance_ds_24_dynamic_session() {
    type Click = (String, u64);
    let windows = DynamicSessionWindows::with_gap(|click: &Click| std::time::Duration::from_millis(click.1));
    let output = Mapped(|_: &String, window: TimeWindow, clicks: Vec<Click>| {
        [(window.start, window.end, clicks.len() as u64)]
    });
    let process = windows.listed(output, Lateness::default());
    let mut harness: OperatorHarness<Click, (i64, i64, u64)> =
        OperatorHarness::keyed(|click: &Click| click.0.clone(), process, Setup::default()).unwrap();
    let clicks = [(0, 10_000), (9_000, 5_000), (14_000, 5_000), (19_001, 10_000)];
    let (times, records) = clicks.iter().map(|(at, gap)| (*at, ("u".to_string(), *gap))).unzip();
    harness.push_batch(Batch::from_parts(records, times)).unwrap();
    harness.watermark(Timestamp::MAX).unwrap();
    assert_eq!(harness.output(), [(0, 19_000, 3), (19_001, 29_001, 1)]);
}

#[test]
fn acceptance_ds_30_high_spend() {
    for (last, alerts) in [(150.0, vec![("u".to_string(), 5 * MINUTE)]), (100.0, vec![])] {
        type Spend = (String, f64);
        let sum = |one: Spend, other: Spend| (one.0, one.1 + other.1);
        let windows = SlidingWindows::of(secs(300), secs(60));
        let mut harness =
            aggregated(|spend: &Spend| spend.0.clone(), windows, Reduced(sum), Lateness::default());
        let spends = [(30 * SECOND, 400.0), (130 * SECOND, 500.0), (290 * SECOND, last)];
        let (times, records) = spends.iter().map(|(at, spend)| (*at, ("u".to_string(), *spend))).unzip();
        harness.push_batch(Batch::from_parts(records, times)).unwrap();
        harness.watermark(Timestamp::MAX).unwrap();
        let sums = harness.output();
        if last == 150.0 {
            let found: Vec<f64> = sums.iter().map(|(_, _, (_, sum))| *sum).collect();
            assert_eq!(found, [400.0, 400.0, 900.0, 900.0, 1050.0, 650.0, 650.0, 150.0, 150.0]);
            let ends: Vec<i64> = sums.iter().map(|(_, end, _)| end / MINUTE).collect();
            assert_eq!(ends, (1..10).collect::<Vec<i64>>());
        }
        let found: Vec<(String, i64)> = sums
            .into_iter()
            .filter(|(_, _, (_, sum))| *sum > 1000.0)
            .map(|(user, end, _)| (user, end))
            .collect();
        assert_eq!(found, alerts);
    }
}

#[test]
fn acceptance_ds_31_login_failed() {
    let windows = SlidingWindows::of(secs(600), secs(60));
    let mut harness =
        aggregated(|user: &String| user.clone(), windows, Merged::new::<String>(Count), Lateness::default());
    let times = [10, 130, 250, 370, 490].map(|at| at * SECOND);
    harness.push_batch(Batch::from_parts(vec!["u".to_string(); 5], times.to_vec())).unwrap();
    harness.watermark(Timestamp::MAX).unwrap();
    let counts = harness.output();
    let found: Vec<u64> = counts.iter().map(|(_, _, count)| *count).collect();
    assert_eq!(found, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1]);
    let alerts: Vec<_> = counts.into_iter().filter(|(_, _, count)| *count >= 5).collect();
    assert_eq!(alerts, [("u".to_string(), 9 * MINUTE, 5), ("u".to_string(), 10 * MINUTE, 5)]);
}

#[test]
fn acceptance_ds_34_country_and_action() {
    type Event = (String, String);
    let windows = SlidingWindows::of(secs(300), secs(60));
    let key = |event: &Event| format!("{}#{}", event.0, event.1);
    let mut harness = aggregated(key, windows, Merged::new::<Event>(Count), Lateness::default());
    let ten: Timestamp = 10 * 60 * MINUTE;
    let event = ("KR".to_string(), "click".to_string());
    let times = vec![ten + 10 * SECOND, ten + 50 * SECOND];
    harness.push_batch(Batch::from_parts(vec![event.clone(), event], times)).unwrap();
    harness.watermark(Timestamp::MAX).unwrap();
    let expected: Vec<_> = (1..=5).map(|minute| ("KR#click".to_string(), ten + minute * MINUTE, 2)).collect();
    assert_eq!(harness.output(), expected);
}

#[test]
fn behind_a_restore_late_records_open_no_window_again() {
    let windows = SlidingWindows::of(secs(10), secs(5));
    let open = |setup| -> OperatorHarness<String, (Timestamp, u64)> {
        let output = Mapped(|_: &String, window: TimeWindow, count| [(window.end / SECOND, count)]);
        let process = windows.aggregated(Merged::new::<String>(Count), output, Lateness::default());
        OperatorHarness::keyed(|word: &String| word.clone(), process, setup).unwrap()
    };
    let push = |harness: &mut OperatorHarness<String, (Timestamp, u64)>, at: Timestamp| {
        harness.push_batch(Batch::from_parts(vec!["a".to_string()], vec![at * SECOND])).unwrap();
    };
    let mut harness = open(Setup::default());
    push(&mut harness, 1);
    push(&mut harness, 7);
    harness.watermark(12 * SECOND).unwrap();
    assert_eq!(harness.output(), [(5, 1), (10, 2)]);
    let snapshot = harness.barrier(1).unwrap();

    let mut harness = open(Setup::default().restoring(snapshot));
    // No watermark has come yet, but both windows of this one had fired,
    push(&mut harness, 3);
    assert_eq!(harness.take_late_records(), 1);
    // and one of the two of this one.
    push(&mut harness, 8);
    harness.watermark(13 * SECOND).unwrap();
    assert_eq!(harness.output(), []);
    harness.watermark(14_999).unwrap();
    assert_eq!(harness.output(), [(15, 2)]);
}
