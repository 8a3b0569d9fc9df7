//! The text file source gives every line exactly once: any text, splits, parallelism, and interruption.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use thalweg_common::failure::Failure;
use thalweg_connectors::files::TextFileSource;
use thalweg_runtime::event::{Event, WatermarkStatus};
use thalweg_runtime::operators;
use thalweg_runtime::testing::{EnumeratedHarness, EnumeratedSnapshot, Setup};
use thalweg_runtime::time::{MAX_WATERMARK, WatermarkGenerator, WatermarkOutput, WatermarkStrategy};

/// The source with so many readers, from its beginning.
fn open(source: &TextFileSource, readers: u32) -> EnumeratedHarness<String> {
    EnumeratedHarness::open(source.clone(), readers, None).unwrap()
}

/// Reads to the end.
fn read_all(source: &TextFileSource) -> Result<Vec<String>, Failure> {
    let mut harness = open(source, 1);
    harness.read_all()?;
    Ok(harness.output())
}

fn read_file(content: &[u8]) -> Result<Vec<String>, Failure> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("input");
    fs::write(&path, content).unwrap();
    read_all(&TextFileSource::lines(path))
}

/// What happens to a source that is being read.
#[derive(Debug, Clone)]
enum Step {
    Enumerate,
    Read(usize),
    Checkpoint,
    /// It goes on from the last checkpoint with so many readers.
    Fail(u32),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Enumerate),
        6 => (0usize..4).prop_map(Step::Read),
        2 => Just(Step::Checkpoint),
        1 => (1u32..5).prop_map(Step::Fail),
    ]
}

/// Reads through all that happens, and then to the end. What was read behind the last checkpoint before a failure does not count.
fn read_interrupted(source: &TextFileSource, readers: u32, steps: &[Step]) -> Vec<String> {
    let (mut harness, mut lines) = (open(source, readers), Vec::new());
    let mut snapshot: Option<EnumeratedSnapshot> = None;
    for (step, checkpoint) in steps.iter().zip(1..) {
        match step {
            Step::Enumerate => drop(harness.enumerate().unwrap()),
            Step::Read(reader) => drop(harness.read(*reader).unwrap()),
            Step::Checkpoint => {
                snapshot = Some(harness.checkpoint(checkpoint).unwrap());
                lines.extend(harness.output());
            }
            Step::Fail(readers) => {
                harness = EnumeratedHarness::open(source.clone(), *readers, snapshot.as_ref()).unwrap();
            }
        }
    }
    harness.read_all().unwrap();
    lines.extend(harness.output());
    lines
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
        readers in 1u32..5,
        rounds in 0u64..3,
        steps in proptest::collection::vec(any_step(), 0..60),
    ) {
        let directory = tempfile::tempdir().unwrap();
        for (index, text) in texts.iter().enumerate() {
            fs::write(directory.path().join(format!("{index}.txt")), text).unwrap();
        }
        let source = TextFileSource::lines(directory.path()).split_bytes(split_bytes).repeat(rounds);
        let mut lines = read_interrupted(&source, readers, &steps);
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
    let failure = read_all(&TextFileSource::lines("no/such/input")).unwrap_err();
    assert!(failure.message.contains("/no/such/input: No such file"), "{failure}");
    assert!(!failure.retryable);
}

#[test]
fn a_file_that_became_shorter_is_a_failure_and_not_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("input");
    fs::write(&path, "line\n".repeat(5_000)).unwrap();
    let source = TextFileSource::lines(&path);
    let mut first = open(&source, 1);
    while first.output().is_empty() {
        first.enumerate().unwrap();
        first.read(0).unwrap();
    }
    let snapshot = first.checkpoint(1).unwrap();
    fs::write(&path, "line\n").unwrap();
    let mut second = EnumeratedHarness::open(source, 1, Some(&snapshot)).unwrap();
    let failure = second.read_all().unwrap_err();
    assert!(failure.message.contains("became shorter"), "{failure}");
}

const INTERVAL: Duration = Duration::from_secs(10);

#[test]
fn a_restored_job_goes_on_with_any_parallelism_and_finds_new_files_once() {
    let directory = tempfile::tempdir().unwrap();
    let source = TextFileSource::lines(directory.path()).split_bytes(7).watching(INTERVAL);
    let (mut expected, mut read) = (Vec::new(), Vec::new());
    let mut snapshot: Option<EnumeratedSnapshot> = None;
    for (step, readers) in [2, 3, 1, 6, 8].into_iter().enumerate() {
        let mut harness = EnumeratedHarness::open(source.clone(), readers, snapshot.as_ref()).unwrap();
        for round in 0..5 {
            let lines: Vec<String> = (0..9).map(|line| format!("{step}-{round}-{line}")).collect();
            write_new(directory.path(), &format!("file-{step}-{round}"), &lines.join("\n"));
            expected.extend(lines);
            harness.advance(INTERVAL);
            harness.enumerate().unwrap();
            for reader in 0..=round {
                harness.read(reader).unwrap();
            }
        }
        snapshot = Some(harness.checkpoint(step as u64 + 1).unwrap());
        read.extend(harness.output());
        // Behind the checkpoint: read again by the next ones.
        harness.advance(INTERVAL);
        harness.settle().unwrap();
    }
    let mut last = EnumeratedHarness::open(source, 1, snapshot.as_ref()).unwrap();
    last.settle().unwrap();
    read.extend(last.output());
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
    let source = TextFileSource::lines(directory.path()).watching(INTERVAL);
    let mut harness = open(&source, 2);
    harness.settle().unwrap();
    write_new(directory.path(), "a", "1\n2\n");
    harness.advance(Duration::from_secs(4));
    harness.settle().unwrap();
    assert!(harness.output().is_empty(), "too early to look");
    harness.advance(Duration::from_secs(6));
    harness.settle().unwrap();
    assert_eq!(harness.output(), ["1", "2"]);
    assert!(!harness.has_ended());

    // Restored, it knows what it has read, also when the file has changed since.
    let snapshot = harness.checkpoint(1).unwrap();
    write_new(directory.path(), "a", "changed\n");
    write_new(directory.path(), "b", "3\n");
    let mut harness = EnumeratedHarness::open(source, 1, Some(&snapshot)).unwrap();
    harness.settle().unwrap();
    assert_eq!(harness.output(), ["3"]);
}

#[test]
fn a_reader_that_is_slow_leaves_more_to_the_others() {
    let directory = tempfile::tempdir().unwrap();
    for name in 0..20 {
        fs::write(directory.path().join(format!("{name:02}")), format!("{name:02}\n")).unwrap();
    }
    let mut harness = open(&TextFileSource::lines(directory.path()), 2);
    // Both say that they have nothing, and get two files each; then only the second one reads.
    harness.read(0).unwrap();
    for _ in 0..60 {
        harness.enumerate().unwrap();
        harness.read(1).unwrap();
    }
    assert_eq!(harness.output().len(), 18, "all but the two of the reader that stands still");
    harness.read_all().unwrap();
    assert_eq!(harness.output().len(), 2);
}

#[test]
fn watching_and_repeating_contradict_each_other() {
    let source = TextFileSource::lines(".").watching(Duration::from_secs(1)).repeat(2);
    let failure = EnumeratedHarness::open(source, 1, None).err().unwrap();
    assert!(failure.message.contains("remove watching() or repeat()"), "{failure}");
}

/// Says the first timestamp that it has seen, so that it shows how many there are of it.
#[derive(Clone, Default)]
struct First(Option<i64>);

impl WatermarkGenerator<String> for First {
    fn on_event(&mut self, _: &String, timestamp: i64, _: &mut WatermarkOutput) {
        self.0.get_or_insert(timestamp);
    }

    fn on_periodic_emit(&mut self, output: &mut WatermarkOutput) {
        self.0.into_iter().for_each(|first| output.emit_watermark(first));
    }
}

/// The source, a number in each line, which is when it happened.
fn open_timed(source: &TextFileSource, readers: u32) -> EnumeratedHarness<String> {
    let time = |line: &String| line.parse().unwrap();
    let strategy = WatermarkStrategy::for_generator(First::default()).timestamps(time);
    let watermarks = operators::watermarks::<String, _, _>(strategy);
    EnumeratedHarness::open_before(Setup::default(), source.clone(), readers, None, Some(watermarks.as_ref()))
        .unwrap()
}

/// Lets everybody do what there is to do, and the interval of watermarks pass.
fn pass(harness: &mut EnumeratedHarness<String>, readers: usize) {
    harness.settle().unwrap();
    (0..readers).for_each(|reader| harness.flush(reader).unwrap());
    harness.advance(Duration::from_millis(200));
    (0..readers).for_each(|reader| harness.flush(reader).unwrap());
}

#[test]
fn each_range_has_time_of_its_own_from_when_its_turn_comes() {
    let directory = tempfile::tempdir().unwrap();
    // More than is read at once.
    let long: String = (100..1_600).map(|time| format!("{time}\n")).collect();
    for (name, lines) in [("a", long.as_str()), ("b", "50\n60\n"), ("c", "400\n500\n")] {
        write_new(directory.path(), name, lines);
    }
    let mut harness = open_timed(&TextFileSource::lines(directory.path()), 1);
    while harness.output().is_empty() {
        harness.enumerate().unwrap();
        harness.read(0).unwrap();
    }
    harness.advance(Duration::from_millis(200));
    harness.flush(0).unwrap();
    assert_eq!(harness.events(0), [Event::Watermark(100)]);
    pass(&mut harness, 1);
    let told = harness.events(0);
    let watermarks: Vec<_> = told.iter().filter(|event| matches!(event, Event::Watermark(_))).collect();
    let expected = [100, 400, MAX_WATERMARK].map(Event::Watermark);
    assert!(
        watermarks.into_iter().eq(&expected),
        "a range that waits holds nobody back, no watermark falls: {told:?}"
    );
    assert_eq!(told.last(), Some(&Event::EndOfInput));
}

#[test]
fn a_reader_without_a_range_is_idle_only_when_there_is_nothing_for_it() {
    let directory = tempfile::tempdir().unwrap();
    write_new(directory.path(), "a", "100\n");
    let source = TextFileSource::lines(directory.path()).watching(Duration::from_secs(1));
    let mut harness = open_timed(&source, 2);
    for reader in 0..2 {
        harness.read(reader).unwrap();
    }
    (0..2).for_each(|reader| harness.flush(reader).unwrap());
    assert_eq!((harness.events(0), harness.events(1)), (vec![], vec![]), "nobody has looked yet");
    pass(&mut harness, 2);
    let idle = Event::Status(WatermarkStatus::Idle);
    assert_eq!(harness.events(1), [idle]);
    assert_eq!(harness.events(0), [Event::Watermark(100), idle], "the file was read to its end");

    write_new(directory.path(), "b", "300\n");
    harness.advance(Duration::from_secs(1));
    pass(&mut harness, 2);
    let active = Event::Status(WatermarkStatus::Active);
    let of_either: Vec<_> = (0..2).flat_map(|reader| harness.events(reader)).collect();
    assert_eq!(of_either.iter().filter(|event| **event == active).count(), 1, "one got the file");
    assert!(of_either.contains(&Event::Watermark(300)), "{of_either:?}");
}
