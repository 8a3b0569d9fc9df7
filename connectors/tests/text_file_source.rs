//! The text file source gives every line exactly once: any text, splits, parallelism, and interruption.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use support::{context, with_clock};
use thalweg_common::clock::ManualClock;
use thalweg_common::failure::Failure;
use thalweg_connectors::files::{Lane, TextFileReader, TextFileSource};
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operator::{OpenContext, SourceStatus};
use thalweg_runtime::split::{SourceReader, SplitSource};

/// A reader of a subtask that begins, or goes on with these lanes.
fn start(
    source: &TextFileSource,
    context: &OpenContext,
    lanes: Option<Vec<Lane>>,
) -> Result<TextFileReader, Failure> {
    let mut reader = source.reader(context)?;
    let lanes = match lanes {
        Some(lanes) => lanes,
        None => source.splits(context)?,
    };
    reader.add_splits(lanes)?;
    Ok(reader)
}

/// Reads a subtask to its end.
fn read_all(source: &TextFileSource, subtask: u32, parallelism: u32) -> Result<Vec<String>, Failure> {
    let mut reader = start(source, &context(subtask, parallelism), None)?;
    let mut batch = Batch::default();
    while reader.poll(&mut batch, 100)? != SourceStatus::Finished {}
    Ok(batch.into_parts().0)
}

fn read_file(content: &[u8]) -> Result<Vec<String>, Failure> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("input");
    fs::write(&path, content).unwrap();
    read_all(&TextFileSource::lines(path), 0, 1)
}

/// Reads a subtask in polls of the given sizes; after each one the task fails and is restored from a snapshot that was
/// taken before the poll (the records are then discarded) or after it.
fn read_interrupted(
    source: &TextFileSource,
    subtask: u32,
    parallelism: u32,
    polls: &[(usize, bool)],
) -> Vec<String> {
    let mut lines = Vec::new();
    let mut snapshot: Option<Vec<Lane>> = None;
    let mut polls = polls.iter().cycle();
    loop {
        let (max, lost) = polls.next().unwrap();
        let mut attempt = start(source, &context(subtask, parallelism), snapshot.clone()).unwrap();
        let mut batch = Batch::default();
        let status = attempt.poll(&mut batch, *max).unwrap();
        assert!(batch.len() <= *max);
        if status == SourceStatus::Finished {
            assert!(batch.is_empty());
            return lines;
        }
        if !lost {
            snapshot = Some(attempt.snapshot().unwrap());
            lines.extend(batch.drain());
        }
    }
}

/// Lines with all kinds of ends, also none, and characters of several bytes.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![Just("\n".to_string()), Just("\r\n".to_string()), "[a-zäß漢𝄞 \r]{0,6}"];
    proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

fn expected_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.split('\n').map(str::to_string).collect();
    let last = lines.pop().unwrap();
    for line in &mut lines {
        if line.ends_with('\r') {
            line.pop();
        }
    }
    lines.extend(Some(last).filter(|last| !last.is_empty()));
    lines
}

proptest! {
    #[test]
    fn every_line_is_read_exactly_once(
        texts in proptest::collection::vec(any_text(), 1..4),
        split_bytes in 1u64..20,
        parallelism in 1u32..5,
        rounds in 0u64..3,
        polls in proptest::collection::vec((1usize..5, any::<bool>()), 1..8),
    ) {
        // At least one poll of each cycle must count, or the reading never ends.
        let polls: Vec<_> = polls.into_iter().chain([(3, false)]).collect();
        let directory = tempfile::tempdir().unwrap();
        for (index, text) in texts.iter().enumerate() {
            fs::write(directory.path().join(format!("{index}.txt")), text).unwrap();
        }
        let source = TextFileSource::lines(directory.path()).split_bytes(split_bytes).repeat(rounds);
        let mut lines: Vec<String> =
            (0..parallelism).flat_map(|subtask| read_interrupted(&source, subtask, parallelism, &polls)).collect();
        lines.sort();
        let mut expected: Vec<String> = (0..rounds).flat_map(|_| texts.iter().flat_map(|text| expected_lines(text))).collect();
        expected.sort();
        prop_assert_eq!(lines, expected);
    }
}

#[test]
fn lines_of_one_subtask_keep_their_order() {
    let text: String = (0..1000).map(|number| format!("{number}\n")).collect();
    let expected: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    assert_eq!(read_file(text.as_bytes()).unwrap(), expected);
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_text() {
    assert_eq!(read_file(b"\xEF\xBB\xBFa\nb").unwrap(), ["a", "b"]);
}

#[test]
fn bytes_that_are_not_utf8_are_named_with_file_and_offset() {
    let failure = read_file(b"good\nbad \xFF\xFE\r\n").unwrap_err();
    assert!(failure.message.contains("input is not UTF-8 text: byte 9 "), "{failure}");
    assert!(!failure.retryable, "the same bytes fail again");
    let failure = read_file(b"\xEF\xBB\xBFa\xFF\n").unwrap_err();
    assert!(failure.message.contains("byte 4 "), "{failure}");
}

#[test]
fn a_line_without_an_end_is_refused_before_it_fills_the_memory() {
    let failure = read_file(&vec![b'x'; 9 * 1024 * 1024]).unwrap_err();
    assert!(failure.message.contains("the line that starts at byte 0"), "{failure}");
    let longest = vec![b'x'; 8 * 1024 * 1024];
    assert_eq!(read_file(&longest).unwrap()[0].len(), longest.len());
}

#[test]
fn a_missing_input_fails_for_good_and_says_where_it_was_looked_for() {
    let failure = read_all(&TextFileSource::lines("no/such/input"), 0, 1).unwrap_err();
    assert!(failure.message.contains("/no/such/input: No such file"), "{failure}");
    assert!(!failure.retryable);
}

#[test]
fn a_file_that_became_shorter_is_a_failure_and_not_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("input");
    fs::write(&path, "one\ntwo\nthree\n").unwrap();
    let source = TextFileSource::lines(&path);
    let mut first = start(&source, &context(0, 1), None).unwrap();
    let mut batch = Batch::default();
    first.poll(&mut batch, 1).unwrap();
    let snapshot = first.snapshot().unwrap();
    fs::write(&path, "one\n").unwrap();
    let mut second = start(&source, &context(0, 1), Some(snapshot)).unwrap();
    let failure = second.poll(&mut batch, 10).unwrap_err();
    assert!(failure.message.contains("became shorter"), "{failure}");
}

#[test]
fn a_restored_job_goes_on_with_any_parallelism_and_finds_new_files_once() {
    let directory = tempfile::tempdir().unwrap();
    let interval = Duration::from_secs(10);
    let clock = Arc::new(ManualClock::new(0));
    let source = TextFileSource::lines(directory.path()).split_bytes(7).watching(interval);
    let (mut expected, mut read) = (Vec::new(), Vec::new());
    let mut lanes: Option<Vec<Lane>> = None;
    for (step, parallelism) in [2, 3, 1, 6, 8].into_iter().enumerate() {
        let mut left = Vec::new();
        for subtask in 0..parallelism {
            // In the midst of the start and of the reading, so that subtasks see different lists.
            let lines: Vec<String> = (0..9).map(|line| format!("{step}-{subtask}-{line}")).collect();
            write_new(directory.path(), &format!("file-{step}-{subtask}"), &lines.join("\n"));
            expected.extend(lines);
            let context = with_clock(subtask, parallelism, clock.clone());
            let mine = lanes.as_ref().map(|lanes| context.share_of(lanes.clone()).collect());
            let mut reader = start(&source, &context, mine).unwrap();
            clock.advance(interval);
            let mut batch = Batch::default();
            for _ in 0..=2 * subtask {
                reader.poll(&mut batch, 4).unwrap();
            }
            if step == 4 {
                clock.advance(interval);
                while reader.poll(&mut batch, 100).unwrap() == SourceStatus::Ready {}
            }
            left.extend(reader.snapshot().unwrap());
            read.extend(batch.into_parts().0);
        }
        lanes = Some(left);
    }
    // Those of the last step that were written behind a reader's last look.
    let mut last = start(&source, &with_clock(0, 1, clock.clone()), lanes).unwrap();
    clock.advance(interval);
    let mut batch = Batch::default();
    while last.poll(&mut batch, 100).unwrap() == SourceStatus::Ready {}
    read.extend(batch.into_parts().0);
    read.sort();
    expected.sort();
    assert_eq!(read, expected);
}

fn write_new(directory: &Path, name: &str, content: &str) {
    let hidden = directory.join(format!(".{name}"));
    fs::write(&hidden, content).unwrap();
    fs::rename(hidden, directory.join(name)).unwrap();
}

#[test]
fn a_watching_source_finds_new_files_and_never_reads_one_again() {
    let directory = tempfile::tempdir().unwrap();
    let interval = Duration::from_secs(10);
    let clock = Arc::new(ManualClock::new(0));
    let prototype = TextFileSource::lines(directory.path()).watching(interval);
    let mut source = start(&prototype, &with_clock(0, 1, clock.clone()), None).unwrap();
    let mut batch = Batch::default();
    assert_eq!(source.poll(&mut batch, 10).unwrap(), SourceStatus::Idle { retry_after: interval });

    write_new(directory.path(), "a", "1\n2\n");
    clock.advance(Duration::from_secs(4));
    let status = source.poll(&mut batch, 10).unwrap();
    assert_eq!(status, SourceStatus::Idle { retry_after: Duration::from_secs(6) }, "too early to look");
    clock.advance(Duration::from_secs(6));
    assert_eq!(source.poll(&mut batch, 10).unwrap(), SourceStatus::Ready);
    source.poll(&mut batch, 10).unwrap();
    assert_eq!(batch.records(), ["1", "2"]);

    // Restored, it knows what it has read, also when the file has changed since.
    let snapshot = source.snapshot().unwrap();
    write_new(directory.path(), "a", "changed\n");
    write_new(directory.path(), "b", "3\n");
    let mut source = start(&prototype, &with_clock(0, 1, clock.clone()), Some(snapshot)).unwrap();
    clock.advance(interval);
    let mut batch = Batch::default();
    while source.poll(&mut batch, 10).unwrap() == SourceStatus::Ready {}
    assert_eq!(batch.records(), ["3"]);
}

#[test]
fn watching_and_repeating_contradict_each_other() {
    let source = TextFileSource::lines(".").watching(Duration::from_secs(1)).repeat(2);
    let failure = source.reader(&context(0, 1)).unwrap_err();
    assert!(failure.message.contains("remove watching() or repeat()"), "{failure}");
}
