//! The file sink in a directory: what failures leave, what restores need, and what a reader sees.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/kills.rs"]
mod kills;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kills::{Kills, visible};
use thalweg_common::clock::ManualClock;
use thalweg_common::failure::Failure;
use thalweg_common::storage::{self, StorageFactory};
use thalweg_connectors::files::{FileSink, RollingPolicy, Rows};
use thalweg_connectors::formats::Text;
use thalweg_runtime::operators;
use thalweg_runtime::snapshot::OperatorSnapshot;
use thalweg_runtime::testing::{OperatorHarness, Setup};

type TextSink = FileSink<String, Rows<Text>>;

fn sink(directory: &Path) -> TextSink {
    FileSink::rows(directory.to_str().unwrap(), Text).without_buckets()
}

fn open(
    sink: &TextSink,
    attempt: u32,
    restored: Vec<OperatorSnapshot>,
) -> Result<OperatorHarness<String>, Failure> {
    OperatorHarness::open_sink(
        operators::sink(sink.clone()).as_ref(),
        Setup { attempt, restored, ..Setup::default() },
    )
}

fn write(harness: &mut OperatorHarness<String>, lines: &[&str]) {
    harness.push(lines.iter().map(ToString::to_string).collect()).unwrap();
}

/// The names in a directory, sorted.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn hidden(directory: &Path) -> Vec<String> {
    names(&directory.join(".inprogress"))
}

fn text(directory: &Path) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let storage = storage::open(directory.to_str().unwrap()).unwrap();
    runtime.block_on(visible(storage.as_ref()))
}

#[test]
fn a_part_in_progress_goes_on_over_checkpoints_and_is_finished_as_it_was_at_a_restore() {
    let directory = tempfile::tempdir().unwrap();
    let sink = sink(directory.path());
    let mut first = open(&sink, 1, Vec::new()).unwrap();
    write(&mut first, &["a"]);
    first.barrier(1).unwrap();
    first.completed(1).unwrap();
    write(&mut first, &["b"]);
    let snapshot = first.barrier(2).unwrap();
    first.completed(2).unwrap();
    write(&mut first, &["lost: no checkpoint covers it"]);
    assert_eq!((text(directory.path()).as_str(), hidden(directory.path()).len()), ("", 1));
    std::mem::forget(first);

    // Opening twice is what happens if the first recovery fails behind its half.
    for attempt in 2..4 {
        let second = open(&sink, attempt, vec![snapshot.clone()]).unwrap();
        assert_eq!((text(directory.path()).as_str(), hidden(directory.path()).len()), ("a\nb\n", 0));
        std::mem::forget(second);
    }
    assert_eq!(names(directory.path()), [".inprogress", "part-0-1-0-00000000"]);
}

#[test]
fn whoever_was_taken_for_dead_cannot_change_a_finished_file() {
    let directory = tempfile::tempdir().unwrap();
    let sink = sink(directory.path());
    let mut zombie = open(&sink, 1, Vec::new()).unwrap();
    write(&mut zombie, &["a"]);
    let snapshot = zombie.barrier(1).unwrap();
    let _second = open(&sink, 2, vec![snapshot]).unwrap();
    write(&mut zombie, &["b"]);
    zombie.barrier(2).unwrap();
    assert_eq!(text(directory.path()), "a\n");
}

#[test]
fn a_part_that_is_missing_is_named_with_its_checkpoint_and_the_cure() {
    let directory = tempfile::tempdir().unwrap();
    let sink = sink(directory.path());
    let mut first = open(&sink, 1, Vec::new()).unwrap();
    write(&mut first, &["a"]);
    let snapshot = first.barrier(7).unwrap();
    let [name] = &hidden(directory.path())[..] else { panic!("one part") };
    let path = directory.path().join(".inprogress").join(name);
    for (content, words) in [(None, "is gone"), (Some(""), "has 0 bytes instead of 2")] {
        match content {
            None => fs::remove_file(&path).unwrap(),
            Some(content) => fs::write(&path, content).unwrap(),
        }
        let failure = open(&sink, 2, vec![snapshot.clone()]).err().unwrap();
        assert!(!failure.retryable);
        let message = failure.message;
        assert!(message.contains("the output of checkpoint 7 cannot be restored"), "{message}");
        assert!(message.contains(name) && message.contains(words), "{message}");
        assert!(message.contains("Restore the newest checkpoint or savepoint"), "{message}");
    }
}

#[test]
fn what_failed_attempts_left_is_removed_and_what_is_not_theirs_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let sink = sink(directory.path()).rolling(RollingPolicy::on_checkpoint());
    let mut first = open(&sink, 1, Vec::new()).unwrap();
    write(&mut first, &["a"]);
    let snapshot = first.barrier(1).unwrap();
    write(&mut first, &["b"]);
    first.barrier(2).unwrap();
    write(&mut first, &["c"]);
    std::mem::forget(first);
    let foreign = directory.path().join(format!(".inprogress/part-0-1-9.{:032x}", 99));
    fs::write(&foreign, "another job's").unwrap();
    assert_eq!(hidden(directory.path()).len(), 4);
    let second = open(&sink, 2, vec![snapshot]).unwrap();
    assert_eq!(hidden(directory.path()), [foreign.file_name().unwrap().to_str().unwrap()]);
    assert_eq!(text(directory.path()), "a\n");
    drop(second);
    // A task that ends removes what no checkpoint may name.
    let mut third = open(&sink, 3, Vec::new()).unwrap();
    write(&mut third, &["d"]);
    assert_eq!(hidden(directory.path()).len(), 2);
    drop(third);
    assert_eq!(hidden(directory.path()).len(), 1);
}

#[test]
fn large_parts_are_rolled_by_their_size_and_visible_with_the_next_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let sink = sink(directory.path())
        .rolling(RollingPolicy::default().max_part_bytes(10))
        .part_prefix("log")
        .part_suffix(".txt");
    let mut harness = open(&sink, 1, Vec::new()).unwrap();
    write(&mut harness, &["12345678", "2", "3"]);
    harness.barrier(1).unwrap();
    harness.completed(1).unwrap();
    assert_eq!(names(directory.path()), [".inprogress", "log-0-1-0-00000000.txt"]);
    assert_eq!(text(directory.path()), "12345678\n2\n");
    harness.end().unwrap();
    harness.barrier(2).unwrap();
    harness.completed(2).unwrap();
    assert_eq!(text(directory.path()), "12345678\n2\n3\n");
}

#[test]
fn a_bucket_is_marked_when_its_time_is_over_also_behind_a_restore() {
    let directory = tempfile::tempdir().unwrap();
    let sink = FileSink::rows(directory.path().to_str().unwrap(), Text)
        .bucket_by(|line: &String, _| line[..1].to_owned())
        .rolling(RollingPolicy::on_checkpoint())
        .success_files(Duration::from_secs(60));
    let clock = Arc::new(ManualClock::new(0));
    let open = |attempt, restored| {
        let setup = Setup { attempt, restored, clock: clock.clone(), ..Setup::default() };
        OperatorHarness::open_sink(operators::sink(sink.clone()).as_ref(), setup).unwrap()
    };
    let mut first = open(1, Vec::new());
    write(&mut first, &["a1"]);
    clock.advance(Duration::from_secs(60));
    write(&mut first, &["b1"]);
    let snapshot = first.barrier(1).unwrap();
    drop(first);
    let mut second = open(2, vec![snapshot]);
    assert_eq!(
        names(&directory.path().join("a")),
        ["part-0-1-0-00000000"],
        "not yet: it is not older than a minute"
    );
    clock.advance(Duration::from_secs(1));
    second.barrier(2).unwrap();
    second.completed(2).unwrap();
    assert_eq!(names(&directory.path().join("a")), ["_SUCCESS", "part-0-1-0-00000000"]);
    assert_eq!(names(&directory.path().join("b")), ["part-0-1-1-00000000"]);

    let parallel = Setup::default().subtask(1, 2);
    let failure =
        OperatorHarness::<String>::open_sink(operators::sink(sink).as_ref(), parallel).err().unwrap();
    assert!(failure.message.contains("set parallelism(1) on the sink"), "{failure}");
}

#[test]
fn settings_that_cannot_work_are_refused() {
    for wrong in [
        FileSink::rows("gopher://x", Text),
        FileSink::rows("/tmp", Text).part_prefix("a/b"),
        FileSink::rows("/tmp", Text).part_prefix("_hidden"),
        FileSink::rows("/tmp", Text).success_name("a/b"),
    ] {
        let failure = open(&wrong, 1, Vec::new()).err().unwrap();
        assert!(!failure.retryable, "{failure}");
    }
    let directory = tempfile::tempdir().unwrap();
    let outside = sink(directory.path()).bucket_by(|_, _| "../elsewhere".to_owned());
    let failure = open(&outside, 1, Vec::new()).unwrap().push(vec!["a".to_owned()]).unwrap_err();
    assert!(failure.message.contains("`../elsewhere` is no bucket"), "{failure}");
}

#[test]
fn a_reader_sees_exactly_the_committed_records_whatever_is_killed() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for seed in 1..6 {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_str().unwrap().to_owned();
        Kills { runtime: &runtime, storages: &StorageFactory::default, place, seed }.run();
    }
}
