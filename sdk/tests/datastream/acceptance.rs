//! Examples of the reference that are about the shape of a job more than about an operator.

use thalweg::prelude::*;
use thalweg::testing::{JobHarness, JobSetup, scripted};

/// Adds a word to a field of JSON.
#[test]
fn acceptance_ds_04_a_field_of_json_is_changed() {
    let topology = |env: &mut Environment| {
        let records = env.source("input", scripted::<String>());
        let company = |record: String| -> Result<String, Failure> {
            let mut json: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(&record).or_failure("no JSON object")?;
            let ticker = json.get("TICKER").and_then(|ticker| ticker.as_str()).or_failure("no ticker")?;
            let changed = format!("{ticker} Company");
            json.insert("TICKER".to_string(), changed.into());
            serde_json::to_string(&json).or_failure("cannot be written")
        };
        records.try_map(company).print().name("output");
        Ok(())
    };
    let mut job = JobHarness::open(topology, JobSetup::default()).unwrap();
    job.feed("input", [r#"{"TICKER":"AAPL","PRICE":1}"#.to_string()]).unwrap();
    let output = job.output::<String>("output").unwrap();
    let json: Vec<serde_json::Value> =
        output.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json, [serde_json::json!({ "TICKER": "AAPL Company", "PRICE": 1 })]);
}

/// Two shards for eight subtasks: the other six have nothing to read, and a rebalance gives all eight work all the same.
#[test]
fn acceptance_ds_35_few_shards_for_many_subtasks() {
    let topology = |env: &mut Environment| {
        let bytes = env.source("shards", scripted::<Vec<u8>>()).set_parallelism(env.parallelism());
        let parsed =
            bytes.rebalance().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).name("parse");
        parsed.discard();
        Ok(())
    };
    let mut job = JobHarness::open(topology, JobSetup::default().parallelism(8)).unwrap();
    for shard in 0..2 {
        job.feed_subtask("shards", shard, (0..40_u8).map(|byte| vec![byte])).unwrap();
    }
    assert_eq!(job.records_read("shards").unwrap(), [40, 40, 0, 0, 0, 0, 0, 0]);
    assert_eq!(job.records_read("parse").unwrap(), [10; 8]);
}

/// The parallelism of an operator is a part of the job's, which a property says: no other program is needed to change it.
#[test]
fn acceptance_ds_36_the_parallelism_of_an_operator_by_a_ratio() {
    let topology = |env: &mut Environment| {
        let ratio: u32 = env.args().first().map_or(Ok(1), |ratio| ratio.parse())?;
        let numbers = env.from_iter(0..100_u64).rebalance();
        let mine = numbers.map(|number| number + 1).name("mine").set_parallelism(env.parallelism() / ratio);
        mine.rebalance().map(|number| number + 1).name("others").discard();
        Ok(())
    };
    for (parallelism, ratio, expected) in [(8, "1", 8), (8, "2", 4), (8, "4", 2), (4, "2", 2), (1, "1", 1)] {
        let setup = JobSetup::default().parallelism(parallelism).arguments([ratio]);
        let job = JobHarness::open(topology, setup).unwrap();
        assert_eq!(job.records_read("mine").unwrap().len(), expected, "{parallelism} / {ratio}");
        assert_eq!(job.records_read("others").unwrap().len(), parallelism as usize);
    }
}

/// A generator, work, and a sink that drops everything, at several parallelisms; without a sink the job is refused.
#[test]
fn acceptance_ds_37_a_job_needs_a_sink() {
    let topology = |env: &mut Environment| {
        let numbers = env.generate(None, Some(10_000), |number| number).rebalance();
        numbers.map(|number| number * number).name("work").discard();
        Ok(())
    };
    for parallelism in [1, 2, 4] {
        let job = JobHarness::open(topology, JobSetup::default().parallelism(parallelism)).unwrap();
        assert!(job.is_finished());
        let each = 10_000 / u64::from(parallelism);
        assert_eq!(job.records_read("work").unwrap(), vec![each; parallelism as usize]);
    }
    let without_sink = |env: &mut Environment| {
        env.generate(None, Some(10_000), |number| number).map(|number| number * number);
        Ok(())
    };
    let error = JobHarness::open(without_sink, JobSetup::default()).unwrap_err().to_string();
    assert!(error.contains("the job has no sink, so it would do nothing"), "{error}");
}

/// A hot key: one subtask reads and remembers nearly all, and a checkpoint is as large as what that one has.
#[test]
fn acceptance_ds_38_a_hot_key_makes_subtasks_uneven() {
    /// Keeps all records of a key.
    #[derive(State, Clone, Default)]
    struct Keep {
        all: ListState<u64>,
    }

    impl KeyedProcess<u64, u64> for Keep {
        type Out = u64;

        fn on_record(&mut self, number: u64, context: &mut Context<'_, u64, u64>) -> Result<(), Failure> {
            self.all.add(context, number);
            Ok(())
        }
    }

    let topology = |env: &mut Environment| {
        let numbers = env.source("numbers", scripted::<u64>());
        let key = |number: &u64| if number.is_multiple_of(10) { *number } else { 7 };
        numbers.key_by(key).process(Keep::default()).uid("keep").discard();
        Ok(())
    };
    let mut job = JobHarness::open(topology, JobSetup::default().parallelism(4)).unwrap();
    job.feed("numbers", 0..10_000_u64).unwrap();
    let read = job.records_read("keep").unwrap();
    let sizes = job.snapshot().unwrap().sizes("keep");
    let hot = read.iter().position(|read| *read >= 9_000).unwrap();
    for (subtask, (read, size)) in read.iter().zip(&sizes).enumerate() {
        let is_even = (150..=400).contains(read) && *size < 30_000;
        assert!(subtask == hot || is_even, "subtask {subtask}: {read} records, {size} bytes");
    }
    // Eight bytes a number, and little else.
    assert!(sizes[hot] >= 9_000 * 8 && sizes[hot] * 2 > sizes.iter().sum(), "{sizes:?}");
    assert_eq!(read.iter().sum::<u64>(), 10_000);
}

/// State of an operator that is not there any more is a reason to refuse.
#[test]
fn acceptance_ds_41_a_removed_operator_is_refused() {
    let topology = |has_count: bool| {
        move |env: &mut Environment| {
            let words = env.source("words", scripted::<String>());
            words.key_by(|word| word.clone()).reduce(|first, _| first).uid("first").print().name("firsts");
            if has_count {
                words.key_by(|word| word.clone()).count().uid("count").print_debug().name("counts");
            }
            Ok(())
        }
    };
    let mut job = JobHarness::open(topology(true), JobSetup::default()).unwrap();
    job.feed("words", ["a".to_string()]).unwrap();
    let snapshot = job.snapshot().unwrap();
    let restored =
        |has_count| JobHarness::open(topology(has_count), JobSetup::default().restoring(&snapshot));
    let error = restored(false).unwrap_err().to_string();
    assert!(error.contains("count") && error.contains("is not in the job any more"), "{error}");
    assert!(restored(true).is_ok());
}

/// A bounded job ends by itself; checkpoints go on when some of its tasks have finished.
#[test]
fn acceptance_ds_45_checkpoints_go_on_when_some_tasks_have_finished() {
    let topology = |env: &mut Environment| {
        let bounded = env.from_iter((1..=3_u64).map(|number| ("bounded".to_string(), number)));
        let other = env.source("other", scripted::<(String, u64)>());
        let sums =
            bounded.union(&other).key_by(|(name, _)| name.clone()).sum_by(|(_, number)| *number).uid("sums");
        sums.print_debug().name("sums");
        Ok(())
    };
    let sums = |job: &mut JobHarness| job.output::<(String, u64)>("sums").unwrap();
    let of = |name: &str, sum| (name.to_string(), sum);
    let mut job = JobHarness::open(topology, JobSetup::default()).unwrap();
    assert_eq!(sums(&mut job), [of("bounded", 1), of("bounded", 3), of("bounded", 6)]);
    job.feed("other", [of("other", 1)]).unwrap();
    let snapshot = job.snapshot().unwrap();
    job.feed("other", [of("other", 1)]).unwrap();
    assert_eq!(sums(&mut job), [of("other", 1), of("other", 2)]);
    job.snapshot().unwrap();
    job.end_input().unwrap();
    assert!(job.is_finished());

    // What has been read to its end is not read again.
    let mut job =
        JobHarness::open(topology, JobSetup::default().parallelism(2).restoring(&snapshot)).unwrap();
    assert_eq!(sums(&mut job), []);
    job.feed("other", [of("other", 5), of("bounded", 4)]).unwrap();
    let mut found = sums(&mut job);
    found.sort();
    assert_eq!(found, [of("bounded", 10), of("other", 6)]);
    job.end_input().unwrap();
    assert!(job.is_finished());
}
