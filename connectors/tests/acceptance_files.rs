//! The examples that write files, with a clock in hand: DS-08, DS-15, DS-32 and DS-33 of the acceptance examples.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::Record;
use thalweg_common::clock::ManualClock;
use thalweg_connectors::files::{FileSink, PartFormat, RollingPolicy};
use thalweg_connectors::formats::Text;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operators;
use thalweg_runtime::testing::{OperatorHarness, Setup};

/// 2024-01-05 10:00:00 UTC.
const BEGIN_MS: i64 = 1_704_448_800_000;

/// A sink whose clock is in hand.
struct Run<T: 'static> {
    sink: OperatorHarness<T>,
    clock: Arc<ManualClock>,
    checkpoint: u64,
}

impl<T: Send + 'static> Run<T> {
    fn of<F: PartFormat<T>>(sink: FileSink<T, F>, subtask: u32, parallelism: u32) -> Self {
        let clock = Arc::new(ManualClock::new(BEGIN_MS));
        let setup = Setup { clock: clock.clone(), ..Setup::default() }.subtask(subtask, parallelism);
        let sink = OperatorHarness::open_sink(operators::sink(sink).as_ref(), setup).unwrap();
        Self { sink, clock, checkpoint: 0 }
    }

    fn write(&mut self, records: impl IntoIterator<Item = T>) {
        self.sink.push(records.into_iter().collect()).unwrap();
    }

    /// Lets time pass, second by second.
    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.clock.advance(Duration::from_secs(1));
            self.sink.fire().unwrap();
        }
    }

    fn checkpoint(&mut self) {
        self.checkpoint += 1;
        self.sink.barrier(self.checkpoint).unwrap();
        self.sink.completed(self.checkpoint).unwrap();
    }
}

/// The finished files, by their paths.
fn finished(directory: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, directory: &Path, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with('.') {
                continue;
            }
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(directory, directory, &mut found);
    found
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

#[test]
fn acceptance_ds_08_counts_in_hourly_buckets_are_final_after_a_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let policy = RollingPolicy::default().rollover(minutes(8)).inactivity(minutes(5)).max_part_bytes(1 << 30);
    let mut run = Run::of(FileSink::rows(directory.path().to_str().unwrap(), Text).rolling(policy), 0, 1);
    for count in [12, 7] {
        run.wait(60);
        run.write([format!("\"AAPL\" count: {count}\n"), format!("\"MSFT\" count: {count}\n")]);
    }
    run.wait(7 * 60);
    assert!(finished(directory.path()).is_empty(), "rolled after 5 minutes of silence, and not final");
    run.checkpoint();
    // The encoder adds a second newline, and with it an empty line per record.
    let text = "\"AAPL\" count: 12\n\n\"MSFT\" count: 12\n\n\"AAPL\" count: 7\n\n\"MSFT\" count: 7\n\n";
    let name = "2024-01-05--10/part-0-1-0-00000000".to_owned();
    assert_eq!(finished(directory.path()), BTreeMap::from([(name.clone(), text.to_owned())]));
    run.wait(51 * 60);
    run.write(["later".to_owned()]);
    run.sink.end().unwrap();
    run.checkpoint();
    let names: Vec<String> = finished(directory.path()).into_keys().collect();
    assert_eq!(names, [name, "2024-01-05--11/part-0-1-1-00000000".to_owned()]);
}

#[test]
fn acceptance_ds_15_minima_are_the_lines_of_finished_files() {
    let directory = tempfile::tempdir().unwrap();
    let mut run = Run::of(FileSink::rows(directory.path().to_str().unwrap(), Text), 0, 1);
    for minimum in ["10.00", "7.50", "7.50", "9.25"] {
        run.wait(5);
        run.write([format!("\"AAPL\",{minimum}")]);
        run.checkpoint();
    }
    assert!(finished(directory.path()).is_empty(), "the default policy does not roll at checkpoints");
    // The second look at the times of parts is two minutes after the first record.
    run.wait(100);
    run.checkpoint();
    let files = finished(directory.path());
    let lines: Vec<&str> = files.values().flat_map(|text| text.lines()).collect();
    assert_eq!(lines, ["\"AAPL\",10.00", "\"AAPL\",7.50", "\"AAPL\",7.50", "\"AAPL\",9.25"]);
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(crate = thalweg_common)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
struct Click {
    user_id: String,
    url: String,
    ts: i64,
    spend: f64,
}

fn click(number: i64) -> Click {
    Click {
        user_id: format!("u-{}", number % 3),
        url: "/buy".into(),
        ts: BEGIN_MS + number * 1_000,
        spend: 1.5,
    }
}

#[test]
fn acceptance_ds_32_each_checkpoint_finishes_a_file_in_each_bucket_and_subtask() {
    let directory = tempfile::tempdir().unwrap();
    let sink = FileSink::rows(directory.path().to_str().unwrap(), Text)
        .bucket_by(|click: &String, _| format!("user={}", &click[..3]))
        .rolling(RollingPolicy::on_checkpoint());
    let mut runs: Vec<Run<String>> = (0..2).map(|subtask| Run::of(sink.clone(), subtask, 2)).collect();
    for checkpoint in 0..3 {
        for run in &mut runs {
            let clicks = (0..6).map(|number| click(checkpoint * 6 + number));
            run.write(clicks.map(|click| format!("{},{},{}", click.user_id, click.url, click.ts)));
            run.wait(600);
            run.checkpoint();
        }
    }
    let files = finished(directory.path());
    assert_eq!(files.len(), 3 * 3 * 2, "checkpoints, buckets, subtasks: {:?}", files.keys());
    for (name, text) in &files {
        let user = name.strip_prefix("user=").and_then(|name| name.split('/').next()).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|line| line.starts_with(user)), "{name}: {text}");
    }
}

#[cfg(feature = "parquet")]
#[test]
fn acceptance_ds_32_as_parquet() {
    use thalweg_connectors::files::FileSource;
    use thalweg_connectors::formats::Parquet;
    use thalweg_runtime::testing::EnumeratedHarness;

    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    let sink = FileSink::bulk(place, Parquet::<Click>::new()).part_suffix(".parquet");
    let mut run = Run::of(sink, 0, 1);
    for checkpoint in 0..3 {
        run.write((checkpoint * 1_000..(checkpoint + 1) * 1_000).map(click));
        assert_eq!(finished(directory.path()).len() as i64, checkpoint);
        run.checkpoint();
    }
    let names: Vec<String> = finished(directory.path()).into_keys().collect();
    assert_eq!(names.len(), 3);
    assert!(
        names.iter().all(|name| name.starts_with("2024-01-05--10/part-0-1-") && name.ends_with(".parquet"))
    );
    let mut source =
        EnumeratedHarness::open(FileSource::parquet(place, Parquet::<Click>::new()), 2, None).unwrap();
    source.read_all().unwrap();
    let mut read: Vec<Click> = source.output();
    read.sort_by_key(|click| click.ts);
    assert!(read.into_iter().eq((0..3_000).map(click)));
}

#[cfg(feature = "json")]
#[test]
fn acceptance_ds_33_a_record_and_then_silence() {
    use thalweg_connectors::formats::Json;

    let directory = tempfile::tempdir().unwrap();
    let policy =
        RollingPolicy::default().rollover(minutes(5)).inactivity(minutes(1)).max_part_bytes(256 << 20);
    let sink = FileSink::rows(directory.path().to_str().unwrap(), Json::<Click>::new()).rolling(policy);
    let mut run = Run::of(sink, 0, 1);
    run.wait(10);
    run.write([click(0)]);
    // At the check after 60 s it was silent for 50 s; at the next one for 110 s.
    run.wait(109);
    run.checkpoint();
    assert!(finished(directory.path()).is_empty());
    run.wait(1);
    assert!(finished(directory.path()).is_empty(), "rolled, but no checkpoint covers it");
    run.checkpoint();
    let files = finished(directory.path());
    let text = format!(r#"{{"user_id":"u-0","url":"/buy","ts":{BEGIN_MS},"spend":1.5}}"#) + "\n";
    assert_eq!(files.into_values().collect::<Vec<_>>(), [text]);
}

#[test]
fn watermarks_and_timestamps_reach_the_bucket() {
    let directory = tempfile::tempdir().unwrap();
    let sink = FileSink::rows(directory.path().to_str().unwrap(), Text)
        .bucket_by(|_: &u8, context| {
            format!("{:?}-{:?}-{}", context.timestamp, context.watermark, context.processing_time - BEGIN_MS)
        })
        .rolling(RollingPolicy::on_checkpoint());
    let mut run = Run::of(sink, 0, 1);
    run.write([1]);
    run.wait(1);
    run.sink.watermark(7).unwrap();
    run.sink.push_batch(Batch::from_parts(vec![2], vec![9])).unwrap();
    run.checkpoint();
    let names: Vec<String> = finished(directory.path()).into_keys().collect();
    assert_eq!(names, ["None-None-0/part-0-1-0-00000000", "Some(9)-Some(7)-1000/part-0-1-1-00000000"]);
}
