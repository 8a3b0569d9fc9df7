//! Metrics of user code, and those of operators, through whole jobs: what `thalweg describe --output json` shows of them.

use thalweg::prelude::*;
use thalweg::testing::{JobDetails, LocalCluster, MetricValue, OperatorHarness, Setup, UserMetric};

/// Passes records on and shows how many it has seen.
#[derive(Clone, Default)]
struct NoOpMapper {
    seen: u64,
    filtered_records: Gauge,
}

impl Process<u64> for NoOpMapper {
    type Out = u64;

    fn open(&mut self, context: &OpenContext) -> Result<(), Failure> {
        let program = context.metric_group().add_group("KinesisAnalytics");
        let program = program.add_group(("Program", "RecordCountApplication"));
        self.filtered_records = program.add_group("NoOpMapperFunction").gauge("FilteredRecords")?;
        Ok(())
    }

    fn on_record(&mut self, record: u64, context: &mut ProcessContext<'_, u64>) -> Result<(), Failure> {
        self.seen += 1;
        self.filtered_records.set(self.seen as f64);
        context.emit(record);
        Ok(())
    }
}

/// Gives each word with a one.
#[derive(Clone, Default)]
struct Tokenizer {
    total_words: Counter,
}

impl Process<String> for Tokenizer {
    type Out = (String, u64);

    fn open(&mut self, context: &OpenContext) -> Result<(), Failure> {
        let service = context.metric_group().add_group("KinesisAnalytics");
        let service = service.add_group(("Service", "WordCountApplication"));
        self.total_words = service.add_group("Tokenizer").counter("TotalWords")?;
        Ok(())
    }

    fn on_record(
        &mut self,
        line: String,
        context: &mut ProcessContext<'_, (String, u64)>,
    ) -> Result<(), Failure> {
        for word in line.split(' ').filter(|word| !word.is_empty()) {
            self.total_words.inc();
            context.emit((word.to_string(), 1));
        }
        Ok(())
    }
}

/// The metrics of user code of all subtasks, each with what its operator has received.
fn user_metrics(job: &JobDetails) -> Vec<(u64, UserMetric)> {
    let subtasks = job.vertices.iter().flat_map(|vertex| &vertex.subtasks);
    let operators = subtasks.flat_map(|subtask| &subtask.counters.operators);
    let metrics =
        operators.flat_map(|operator| operator.metrics.iter().map(move |metric| (operator, metric)));
    metrics.map(|(operator, metric)| (operator.records_in, metric.clone())).collect()
}

#[test]
fn acceptance_ds_16_a_gauge_shows_the_records_seen() {
    let records = 2_345;
    let (collected, job) = LocalCluster::new()
        .run_described(|env| Ok(env.from_iter(0..records).process(NoOpMapper::default()).collect()))
        .unwrap();
    assert_eq!(collected.take(), (0..records).collect::<Vec<_>>());
    let metrics = user_metrics(&job);
    let [(records_in, gauge)] = &metrics[..] else { panic!("{metrics:?}") };
    assert_eq!((*records_in, gauge.value), (records, MetricValue::Gauge(records as f64)));
    assert!(gauge.is_exported());
    assert_eq!(gauge.exported_name(), "NoOpMapperFunction.FilteredRecords");
    assert_eq!(gauge.dimensions().collect::<Vec<_>>(), [("Program", "RecordCountApplication")]);
    let expected = serde_json::json!({
        "identifier": "KinesisAnalytics.Program.RecordCountApplication.NoOpMapperFunction.FilteredRecords",
        "name": "NoOpMapperFunction.FilteredRecords",
        "dimensions": {"Program": "RecordCountApplication"},
        "exported": true,
        "type": "gauge",
        "value": 2_345.0,
    });
    assert_eq!(serde_json::to_value(gauge).unwrap(), expected);
}

#[test]
fn acceptance_ds_17_a_counter_counts_the_words() {
    let (collected, job) = LocalCluster::new()
        .run_described(|env| {
            let lines = env.from_iter(["to be or not to be".to_string()]);
            let words = lines.process(Tokenizer::default()).key_by(|(word, _)| word.clone());
            let sums = words.reduce(|sum, (_, ones)| (sum.0, sum.1 + ones)).uid("sums");
            Ok(sums.map(|(word, sum)| format!("({word},{sum})")).collect())
        })
        .unwrap();
    assert_eq!(collected.take(), ["(to,1)", "(be,1)", "(or,1)", "(not,1)", "(to,2)", "(be,2)"]);
    let metrics = user_metrics(&job);
    let [(_, counter)] = &metrics[..] else { panic!("{metrics:?}") };
    assert_eq!(counter.to_string(), "KinesisAnalytics.Service.WordCountApplication.Tokenizer.TotalWords");
    assert_eq!(counter.value, MetricValue::Counter(6));
}

#[test]
fn every_subtask_has_its_own_metrics() {
    let (_, job) = LocalCluster::new()
        .configure("parallelism.default", 2)
        .run_described(|env| {
            env.from_iter(0_u64..1_000).rebalance().process(NoOpMapper::default()).collect();
            Ok(())
        })
        .unwrap();
    let metrics = user_metrics(&job);
    let seen: Vec<_> = metrics.iter().map(|(_, metric)| metric.value).collect();
    let [MetricValue::Gauge(first), MetricValue::Gauge(second)] = seen[..] else { panic!("{seen:?}") };
    assert_eq!(first + second, 1_000.0);
    assert!(
        metrics.iter().all(|(records_in, metric)| metric.value == MetricValue::Gauge(*records_in as f64))
    );
}

#[test]
fn operators_of_a_chain_count_what_they_get_and_give() {
    const ODD: OutputTag<u64> = OutputTag::new("odd");

    /// Halves even numbers and sorts out odd ones.
    #[derive(Clone)]
    struct Halve;

    impl Process<u64> for Halve {
        type Out = u64;

        fn on_record(&mut self, number: u64, context: &mut ProcessContext<'_, u64>) -> Result<(), Failure> {
            if number % 2 == 1 {
                context.output(&ODD, number);
            } else {
                context.emit(number / 2);
            }
            Ok(())
        }
    }

    let (_, job) = LocalCluster::new()
        .run_described(|env| {
            let numbers = env.from_iter(0_u64..100).name("numbers").watermarks(monotonous_timestamps());
            let halves = numbers.filter(|number| *number < 50).name("small").process(Halve).name("halve");
            halves.collect();
            halves.side_output(&ODD).flat_map(|odd| [odd; 3]).name("thrice").collect();
            Ok(())
        })
        .unwrap();
    assert_eq!(job.vertices.len(), 1, "all is chained");
    let task = &job.vertices[0].subtasks[0];
    let flows = |wanted: &str| {
        let operator = task.counters.operators.iter().find(|operator| operator.name == wanted).unwrap();
        (operator.records_in, operator.records_out)
    };
    assert_eq!(flows("numbers"), (100, 100));
    assert_eq!(flows("small"), (100, 50));
    assert_eq!(flows("halve"), (50, 50), "side outputs count");
    assert_eq!(flows("thrice"), (25, 75));
    let last = task.counters.operators.iter().map(|operator| operator.current_output_watermark);
    assert!(last.skip(1).all(|watermark| watermark == Some(MAX_WATERMARK)), "{:?}", task.counters.operators);
}

#[test]
fn a_wrong_name_fails_the_job_with_the_rule() {
    #[derive(Clone)]
    struct Wrong;

    impl Process<u64> for Wrong {
        type Out = u64;

        fn open(&mut self, context: &OpenContext) -> Result<(), Failure> {
            context.metric_group().counter("total words").map(drop)
        }

        fn on_record(&mut self, _: u64, _: &mut ProcessContext<'_, u64>) -> Result<(), Failure> {
            Ok(())
        }
    }

    let error = thalweg::testing::run_local(|env| {
        env.from_iter([1_u64]).process(Wrong).name("counts").collect();
        Ok(())
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("counts: the name `total words` of a metric is not right"), "{error}");
}

#[test]
fn functions_on_keys_have_metrics_too() {
    #[derive(Clone, Default, State)]
    struct Largest {
        largest: ValueState<u64>,
        #[state(skip)]
        records: Meter,
        #[state(skip)]
        values: Histogram,
    }

    impl KeyedProcess<u64, u64> for Largest {
        type Out = u64;

        fn open(&mut self, context: &OpenContext) -> Result<(), Failure> {
            self.records = context.metric_group().meter("Records")?;
            self.values = context.metric_group().histogram("Values")?;
            Ok(())
        }

        fn on_record(&mut self, number: u64, context: &mut Context<'_, u64, u64>) -> Result<(), Failure> {
            self.records.mark();
            self.values.update(number as f64);
            self.largest.update(context, |largest| Some(number.max(largest.unwrap_or(0))));
            Ok(())
        }
    }

    let mut harness =
        OperatorHarness::keyed(|number: &u64| number % 3, Largest::default(), Setup::default()).unwrap();
    harness.push((1..=10).collect()).unwrap();
    assert_eq!(harness.metric("Records"), Some(10.0));
    let metrics = harness.user_metrics();
    let MetricValue::Histogram(values) = metrics[1].value else { panic!("{metrics:?}") };
    assert_eq!((values.count, values.min, values.max, values.mean), (10, 1.0, 10.0, 5.5));
    assert!(!metrics.iter().any(UserMetric::is_exported));
}
