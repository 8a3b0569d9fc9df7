//! Whole jobs in the thread of a test: what goes in by name comes out by name, time stands still until it is moved, and a snapshot goes on
//! with another parallelism.

use std::collections::BTreeMap;

use thalweg::aggregates::{Count, sum_of};
use thalweg::prelude::*;
use thalweg::testing::{JobHarness, JobSetup, scripted};

/// User, time and cents.
type Purchase = (String, Timestamp, u64);

const LATE: OutputTag<Purchase> = OutputTag::new("late");
const REFUSED: OutputTag<Purchase> = OutputTag::new("refused");

/// Lets purchases of more than nothing pass.
#[derive(Clone)]
struct Check;

impl Process<Purchase> for Check {
    type Out = Purchase;

    fn on_record(
        &mut self,
        purchase: Purchase,
        context: &mut ProcessContext<'_, Purchase>,
    ) -> Result<(), Failure> {
        match purchase.2 {
            0 => context.output(&REFUSED, purchase),
            _ => context.emit(purchase),
        }
        Ok(())
    }
}

/// What each user spends in ten seconds, and what all have spent so far.
fn spending(env: &mut Environment) -> thalweg::Result<()> {
    let strategy = monotonous_timestamps().timestamps(|purchase: &Purchase| purchase.1);
    let purchases =
        env.source("purchases", scripted::<Purchase>()).watermarks(strategy).process(Check).uid("check");
    let by_user = purchases.key_by(|purchase| purchase.0.clone());
    let spent = by_user
        .window(tumbling(secs(10)))
        .side_output_late_data(&LATE)
        .aggregate_with(sum_of(|purchase: &Purchase| purchase.2), |user, window, cents| {
            [(user.clone(), window.end, cents)]
        })
        .uid("spent");
    spent.print_debug().name("spent");
    spent.side_output(&LATE).print_debug().name("too-late");
    by_user.aggregate(Count).uid("count").print_debug().name("counts");
    Ok(())
}

fn purchase(user: &str, at: Timestamp, cents: u64) -> Purchase {
    (user.to_string(), at, cents)
}

fn sorted<T: Ord>(mut records: Vec<T>) -> Vec<T> {
    records.sort();
    records
}

fn spent(job: &mut JobHarness) -> Vec<Purchase> {
    sorted(job.output("spent").unwrap())
}

#[test]
fn windows_fire_when_the_watermark_passes_and_late_records_go_aside() {
    let setup = JobSetup::default().parallelism(2).reading_side_output("check", &REFUSED);
    let mut job = JobHarness::open(spending, setup).unwrap();
    job.feed("purchases", [purchase("ann", 1_000, 3), purchase("bob", 2_000, 5), purchase("bob", 3_000, 0)])
        .unwrap();
    assert_eq!(spent(&mut job), []);
    assert_eq!(job.watermark_at("spent").unwrap(), Some(2_999));
    job.feed("purchases", [purchase("ann", 9_000, 4)]).unwrap();
    job.feed("purchases", [purchase("cy", 10_000, 1)]).unwrap();
    assert_eq!(spent(&mut job), [purchase("ann", 10_000, 7), purchase("bob", 10_000, 5)]);
    job.feed("purchases", [purchase("ann", 5_000, 9)]).unwrap();
    assert_eq!(job.output::<Purchase>("too-late").unwrap(), [purchase("ann", 5_000, 9)]);
    assert_eq!(job.side_output("check", &REFUSED).unwrap(), [purchase("bob", 3_000, 0)]);
    assert_eq!(job.late_records_dropped(), 0, "what goes to a side output is not dropped");
    assert!(!job.is_finished());
    job.end_input().unwrap();
    let timestamped = job.output_timestamped::<Purchase>("spent").unwrap();
    assert_eq!(timestamped, [(purchase("cy", 20_000, 1), Some(19_999))]);
    assert!(job.is_finished());
    assert_eq!(job.watermark_at("spent").unwrap(), Some(MAX_WATERMARK));
    assert!(job.snapshot().unwrap_err().to_string().contains("is over"));
}

#[test]
fn the_same_calls_give_the_same_results_at_every_parallelism_and_over_every_restore() {
    let users = ["ann", "bob", "cy", "dan", "eve", "fay", "gus"];
    let all: Vec<Purchase> = (0..300_u64)
        .map(|number| {
            purchase(users[(number * number % 7) as usize], 150 * number as Timestamp, 1 + number % 9)
        })
        .collect();
    let mut expected = BTreeMap::<(String, Timestamp), u64>::new();
    for (user, at, cents) in &all {
        *expected.entry((user.clone(), at / 10_000 * 10_000 + 10_000)).or_default() += cents;
    }
    let expected: Vec<Purchase> =
        expected.into_iter().map(|((user, end), cents)| (user, end, cents)).collect();
    for parallelisms in [[1, 1, 1], [1, 4, 2], [3, 2, 5], [4, 1, 100]] {
        let (mut found, mut snapshot) = (Vec::new(), None);
        for (part, parallelism) in all.chunks(100).zip(parallelisms) {
            let mut setup = JobSetup::default().parallelism(parallelism);
            if let Some(snapshot) = &snapshot {
                setup = setup.restoring(snapshot);
            }
            let mut job = JobHarness::open(spending, setup).unwrap();
            for few in part.chunks(7) {
                job.feed("purchases", few.to_vec()).unwrap();
            }
            if part.last() == all.last() {
                job.end_input().unwrap();
            } else {
                snapshot = Some(job.snapshot().unwrap());
            }
            found.extend(job.output::<Purchase>("spent").unwrap());
        }
        assert_eq!(sorted(found), expected, "{parallelisms:?}");
    }
}

/// Fires a second behind each record, by the clock.
#[derive(State, Clone, Default)]
struct Later {
    count: ValueState<u64>,
}

impl KeyedProcess<u64, u64> for Later {
    type Out = (u64, Timestamp);

    fn on_record(&mut self, _: u64, context: &mut Context<'_, u64, Self::Out>) -> Result<(), Failure> {
        *self.count.get_or_insert_with(context, || 0) += 1;
        let at = context.current_processing_time() + 1_000;
        context.register_processing_time_timer(at);
        Ok(())
    }

    fn on_timer(&mut self, _: Timestamp, context: &mut Context<'_, u64, Self::Out>) -> Result<(), Failure> {
        let now = context.current_processing_time();
        let count = self.count.get(context).copied().unwrap_or_default();
        context.emit((count, now));
        Ok(())
    }
}

fn timers(env: &mut Environment) -> thalweg::Result<()> {
    let numbers = env.source("numbers", scripted::<u64>()).key_by(|number| *number);
    numbers.process(Later::default()).uid("later").print_debug().name("fired");
    Ok(())
}

#[test]
fn timers_of_the_clock_fire_each_at_its_time_and_survive_a_restore() {
    let mut job = JobHarness::open(timers, JobSetup::default().starting_at(10_000)).unwrap();
    job.feed("numbers", [1_u64]).unwrap();
    job.advance(millis(300)).unwrap();
    job.feed("numbers", [1_u64, 2]).unwrap();
    job.advance(millis(699)).unwrap();
    assert_eq!(job.output::<(u64, Timestamp)>("fired").unwrap(), []);
    // One move over several timers stops at each.
    let snapshot = job.snapshot().unwrap();
    job.advance(secs(60)).unwrap();
    let fired = sorted(job.output::<(u64, Timestamp)>("fired").unwrap());
    assert_eq!(fired, [(1, 11_300), (2, 11_000), (2, 11_300)]);
    // What is overdue fires at once.
    let setup = JobSetup::default().restoring(&snapshot).parallelism(3).starting_at(11_200);
    let mut job = JobHarness::open(timers, setup).unwrap();
    assert_eq!(job.output::<(u64, Timestamp)>("fired").unwrap(), [(2, 11_200)]);
    job.advance_to(12_000).unwrap();
    assert_eq!(sorted(job.output::<(u64, Timestamp)>("fired").unwrap()), [(1, 11_300), (2, 11_300)]);
}

#[test]
fn watermarks_may_be_fed_where_no_strategy_makes_them() {
    let topology = |env: &mut Environment| {
        let clicks = env.source("clicks", scripted::<String>()).set_parallelism(2);
        clicks
            .key_by(|click| click.clone())
            .window(tumbling(secs(1)))
            .aggregate(Count)
            .print_debug()
            .name("counts");
        Ok(())
    };
    let mut job = JobHarness::open(topology, JobSetup::default()).unwrap();
    let click = |at| ("a".to_string(), at);
    job.feed_timestamped("clicks", [click(1), click(2), click(999), click(1_000)]).unwrap();
    job.watermark("clicks", 998).unwrap();
    assert_eq!(job.output::<(String, u64)>("counts").unwrap(), []);
    job.watermark("clicks", 999).unwrap();
    assert_eq!(job.output::<(String, u64)>("counts").unwrap(), [("a".to_string(), 3)]);
    job.feed_timestamped("clicks", [click(5)]).unwrap();
    assert_eq!(job.late_records_dropped(), 1);
    assert!(job.watermark("clicks", 999).unwrap_err().to_string().contains("a later one before"));
    assert!(
        job.feed_subtask("clicks", 2, ["b".to_string()]).unwrap_err().to_string().contains("has 2 subtasks")
    );

    let mut job = JobHarness::open(spending, JobSetup::default()).unwrap();
    let error = job.watermark("purchases", 1).unwrap_err().to_string();
    assert!(error.contains("end at watermarks(..)"), "{error}");
}

#[test]
fn sources_in_the_text_of_the_job_run_as_they_are_unless_they_have_a_name() {
    let topology = |env: &mut Environment| {
        env.from_iter([1_u64, 2]).print().name("plain");
        env.from_iter([3_u64]).name("named").print().name("replaced");
        env.generate(Some(2.0), Some(4), |number| number).print().name("generated");
        Ok(())
    };
    let mut job = JobHarness::open(topology, JobSetup::default()).unwrap();
    assert_eq!(job.output::<u64>("plain").unwrap(), [1, 2]);
    assert_eq!(job.output::<u64>("replaced").unwrap(), [0_u64; 0]);
    job.feed("named", [7_u64]).unwrap();
    assert_eq!(job.output::<u64>("replaced").unwrap(), [7]);
    job.advance(secs(10)).unwrap();
    assert_eq!(job.output::<u64>("generated").unwrap(), [0, 1, 2, 3]);
    assert!(!job.is_finished(), "the source with a name has not ended");
    job.end_input().unwrap();
    assert!(job.is_finished());

    let mut job = JobHarness::open(topology, JobSetup::default().keeping("named")).unwrap();
    assert_eq!(job.output::<u64>("replaced").unwrap(), [3]);
    job.advance(secs(10)).unwrap();
    assert!(job.is_finished(), "all that it reads has an end");
}

#[test]
fn mistakes_name_what_there_is() {
    let mut job = JobHarness::open(spending, JobSetup::default()).unwrap();
    let error = job.feed("clicks", [1_u64]).unwrap_err().to_string();
    assert_eq!(error, "no source called `clicks` was replaced; there are: `purchases`");
    let error = job.feed("purchases", [1_u64]).unwrap_err().to_string();
    assert!(error.contains("and not of `u64`"), "{error}");
    let error = job.output::<u64>("results").unwrap_err().to_string();
    assert_eq!(error, "no sink called `results` was replaced; there are: `spent`, `too-late`, `counts`");
    let error =
        JobHarness::open(spending, JobSetup::default().configure("paralellism.default", 2)).unwrap_err();
    assert!(error.to_string().contains("parallelism.default"), "{error}");
    let error = JobHarness::open(|_| Ok(()), JobSetup::default()).unwrap_err().to_string();
    assert!(error.contains("no sink"), "{error}");
    let setup = JobSetup::default().reading_side_output("nobody", &REFUSED);
    let error = JobHarness::open(spending, setup).unwrap_err().to_string();
    assert_eq!(error, "no operator has the name or uid `nobody`");
    let endless = |env: &mut Environment| {
        env.generate(None, None, |number| number).discard();
        Ok(())
    };
    let error = JobHarness::open(endless, JobSetup::default()).unwrap_err().to_string();
    assert!(error.contains("has not come to rest"), "{error}");
}

#[test]
fn a_failure_is_what_user_code_says_and_stays() {
    let topology = |env: &mut Environment| {
        let texts = env.source("texts", scripted::<String>());
        texts
            .try_map(|text| text.parse::<u64>().or_failure(format_args!("`{text}`")))
            .print()
            .name("numbers");
        Ok(())
    };
    let mut job = JobHarness::open(topology, JobSetup::default()).unwrap();
    let error = job.feed("texts", ["1", "x"].map(String::from)).unwrap_err().to_string();
    assert!(error.contains("`x`: invalid digit"), "{error}");
    assert_eq!(job.advance(secs(1)).unwrap_err().to_string(), error);
}

#[test]
fn a_snapshot_that_does_not_fit_is_refused() {
    let mut job = JobHarness::open(spending, JobSetup::default()).unwrap();
    let snapshot = job.snapshot().unwrap();
    let error = JobHarness::open(timers, JobSetup::default().restoring(&snapshot)).unwrap_err().to_string();
    assert!(error.contains("cannot be restored") && error.contains("spent"), "{error}");
    let setup = JobSetup::default().restoring(&snapshot).parallelism(129);
    let error = JobHarness::open(spending, setup).unwrap_err().to_string();
    assert!(error.contains("its state was created with max parallelism 128"), "{error}");
}

#[tokio::test]
async fn inside_a_runtime_it_says_why_it_does_not_run() {
    let error = JobHarness::open(timers, JobSetup::default()).unwrap_err().to_string();
    assert!(error.contains("async runtime"), "{error}");
}
