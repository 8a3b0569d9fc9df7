//! The file source on this machine: formats, compression, ranges, bad records, and what a restore reads.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use thalweg::testing::LocalCluster;
use thalweg_common::record::Record;
use thalweg_connectors::files::{FileSource, ReadFormat};
use thalweg_connectors::formats::{BadRecord, BadRecords, Decoder, Decoding, Text};
use thalweg_runtime::side_output::OutputTag;
use thalweg_runtime::testing::EnumeratedHarness;

fn lines(range: std::ops::Range<u64>) -> String {
    range.map(|number| format!("{number}{}\n", "x".repeat(number as usize % 17))).collect()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort_by_key(|line| line.trim_end_matches('x').parse::<u64>().unwrap());
    lines
}

fn expected(range: std::ops::Range<u64>) -> Vec<String> {
    lines(range).lines().map(str::to_owned).collect()
}

fn place(directory: &Path) -> String {
    format!("file://{}", directory.display())
}

fn read_all<F: ReadFormat>(source: FileSource<F>, readers: u32) -> Vec<F::Out>
where
    F::Out: Record,
{
    let mut harness = EnumeratedHarness::open(source, readers, None).unwrap();
    harness.read_all().unwrap();
    harness.output()
}

#[test]
fn each_line_is_read_once_however_files_are_cut_and_compressed() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("sub")).unwrap();
    fs::write(directory.path().join("a"), lines(0..500)).unwrap();
    fs::write(directory.path().join("sub/b.txt"), lines(500..700).replace('\n', "\r\n").trim_end()).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(lines(700..800).as_bytes()).unwrap();
    let mut members = gzip.finish().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(lines(800..1_000).as_bytes()).unwrap();
    members.extend(gzip.finish().unwrap());
    fs::write(directory.path().join("c.gz"), members).unwrap();
    fs::write(directory.path().join("d.zst"), zstd::encode_all(lines(1_000..1_200).as_bytes(), 0).unwrap())
        .unwrap();
    fs::write(directory.path().join("_hidden"), "not read").unwrap();
    for (split_bytes, readers) in [(7, 3), (100, 1), (1 << 20, 2)] {
        let source = FileSource::new(place(directory.path()), Text).split_bytes(split_bytes);
        assert_eq!(sorted(read_all(source, readers)), expected(0..1_200), "{split_bytes}");
    }
}

#[test]
fn a_restore_goes_on_with_the_next_line_also_in_compressed_files() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a"), lines(0..5_000)).unwrap();
    fs::write(directory.path().join("b.zst"), zstd::encode_all(lines(5_000..10_000).as_bytes(), 0).unwrap())
        .unwrap();
    let source = FileSource::new(place(directory.path()), Text).split_bytes(9_000);
    let (mut read, mut restored, mut checkpoint) = (Vec::new(), None, 0);
    loop {
        let mut harness =
            EnumeratedHarness::open(source.clone(), 1 + checkpoint % 3, restored.as_ref()).unwrap();
        for _ in 0..2 {
            harness.enumerate().unwrap();
            for reader in 0..1 + checkpoint % 3 {
                harness.read(reader as usize).unwrap();
            }
        }
        read.extend(harness.output());
        if read.len() >= 10_000 {
            break;
        }
        checkpoint += 1;
        assert!(checkpoint < 1_000, "{} lines", read.len());
        restored = Some(harness.checkpoint(u64::from(checkpoint)).unwrap());
        assert!(harness.output().is_empty());
    }
    assert!(checkpoint > 2);
    assert_eq!(sorted(read), expected(0..10_000));
}

#[test]
fn files_are_chosen_by_pattern_and_new_ones_are_found() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["dt=1/a.txt", "dt=1/a.log", "dt=2/b.txt"] {
        fs::create_dir_all(directory.path().join(name).parent().unwrap()).unwrap();
        fs::write(directory.path().join(name), name).unwrap();
    }
    let source = FileSource::new(place(directory.path()), Text).matching("dt=*/*.txt");
    let mut harness =
        EnumeratedHarness::open(source.monitor_continuously(Duration::from_secs(10)), 1, None).unwrap();
    harness.settle().unwrap();
    assert_eq!(harness.output(), ["dt=1/a.txt", "dt=2/b.txt"]);
    fs::write(directory.path().join("dt=2/c.txt"), "new").unwrap();
    fs::write(directory.path().join("dt=2/c.log"), "new").unwrap();
    harness.settle().unwrap();
    assert!(harness.output().is_empty(), "it is not looked for yet");
    harness.advance(Duration::from_secs(10));
    harness.settle().unwrap();
    assert_eq!(harness.output(), ["new"]);
    assert!(!harness.has_ended());
}

/// Numbers, one in a line.
#[derive(Clone)]
struct Numbers;

impl Decoder for Numbers {
    type Out = u64;

    fn decode(
        &mut self,
        message: &[u8],
        out: &mut thalweg_runtime::batch::Batch<u64>,
    ) -> Result<(), thalweg_connectors::formats::Malformed> {
        let text = String::from_utf8_lossy(message);
        out.push(text.parse().map_err(thalweg_connectors::formats::Malformed::new)?);
        Ok(())
    }
}

#[test]
fn bad_records_fail_are_left_out_or_go_aside_with_their_place_and_reason() {
    const UNREADABLE: OutputTag<BadRecord> = OutputTag::new("unreadable");
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("in"), "1\n\n2\nthree\n4\n").unwrap();
    let source = FileSource::new(place(directory.path()), Numbers);

    let mut harness = EnumeratedHarness::open(source.clone(), 1, None).unwrap();
    let failure = harness.read_all().unwrap_err();
    let file = directory.path().join("in").display().to_string();
    assert!(
        failure
            .message
            .contains(&format!("a record in {file} at byte 5 cannot be read: invalid digit found in string")),
        "{failure}"
    );
    assert!(failure.message.ends_with("The record: three") && !failure.retryable, "{failure}");

    assert_eq!(read_all(source.clone().bad_records(BadRecords::Skip), 1), [1, 2, 4]);

    let aside = source.bad_records(BadRecords::DeadLetter(UNREADABLE));
    let mut harness = EnumeratedHarness::open(aside, 1, None).unwrap();
    harness.read_all().unwrap();
    assert_eq!(harness.output(), [1, 2, 4]);
    let bad = BadRecord {
        bytes: b"three".to_vec(),
        origin: file,
        position: "byte 5".into(),
        reason: "invalid digit found in string".into(),
    };
    assert_eq!(harness.side_output(&UNREADABLE), [bad]);
}

#[test]
fn a_job_counts_what_it_cannot_read_in_the_source_and_in_the_operator_that_decodes() {
    const UNREADABLE: OutputTag<BadRecord> = OutputTag::new("unreadable");
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("in"), b"1\ntwo\n\xff\n3\n\xfe\nfour\nfive\n").unwrap();
    let ((numbers, unreadable), job) = LocalCluster::new()
        .run_described(|env| {
            let lines = FileSource::new(place(directory.path()), Text).bad_records(BadRecords::Skip);
            let lines = env.source("lines", lines);
            let decode = Decoding::new(Numbers).bad_records(BadRecords::DeadLetter(UNREADABLE));
            let numbers = lines.process(decode).name("decode");
            Ok((numbers.collect(), numbers.side_output(&UNREADABLE).map(|bad| bad.bytes).collect()))
        })
        .unwrap();
    assert_eq!(numbers.take(), [1, 3]);
    assert_eq!(unreadable.take(), [&b"two"[..], b"four", b"five"]);
    let tasks = job.vertices.iter().flat_map(|vertex| &vertex.subtasks);
    let operators = tasks.clone().flat_map(|task| &task.counters.operators);
    let found: Vec<_> = operators
        .filter(|operator| operator.records_in_errors > 0)
        .map(|operator| (operator.name.as_str(), operator.records_in_errors))
        .collect();
    assert_eq!(found, [("lines", 2), ("decode", 3)]);
    let told: Vec<_> = tasks.map(|task| task.metrics.num_records_in_errors).collect();
    assert_eq!(told.iter().sum::<u64>(), 5, "{told:?}");
}

#[test]
fn a_damaged_or_missing_input_is_named() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.gz"), "this is no gzip").unwrap();
    let mut harness =
        EnumeratedHarness::open(FileSource::new(place(directory.path()), Text), 1, None).unwrap();
    let failure = harness.read_all().unwrap_err();
    assert!(failure.message.contains("a.gz cannot be decompressed") && !failure.retryable, "{failure}");
    let missing = FileSource::new(place(&directory.path().join("nothing")), Text);
    let failure = EnumeratedHarness::open(missing, 1, None).unwrap().read_all().unwrap_err();
    assert!(failure.message.contains("nothing") && !failure.retryable, "{failure}");
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_is_read_by_row_groups_and_goes_on_within_them() {
    use thalweg_connectors::formats::{BulkFormat, BulkWriter, Parquet};

    let directory = tempfile::tempdir().unwrap();
    let format = Parquet::<u64>::new().uncompressed().row_group_bytes(20_000);
    let (mut writer, mut file) = (format.begin().unwrap(), Vec::new());
    for number in 0..30_000_u64 {
        writer.write(&number, &mut file).unwrap();
    }
    BulkWriter::<u64>::finish(writer, &mut file).unwrap();
    fs::write(directory.path().join("a.parquet"), file).unwrap();
    let source = FileSource::parquet(place(directory.path()), Parquet::<u64>::new()).split_bytes(50_000);
    let mut harness = EnumeratedHarness::open(source.clone(), 2, None).unwrap();
    for _ in 0..5 {
        harness.enumerate().unwrap();
        harness.read(0).unwrap();
        harness.read(1).unwrap();
    }
    let mut read = harness.output();
    assert!(read.len() > 1_000 && read.len() < 30_000);
    let snapshot = harness.checkpoint(1).unwrap();
    let mut restored = EnumeratedHarness::open(source.clone(), 3, Some(&snapshot)).unwrap();
    restored.read_all().unwrap();
    read.extend(restored.output());
    read.sort_unstable();
    assert!(read.into_iter().eq(0..30_000));

    fs::write(directory.path().join("b.parquet"), "PAR1 not").unwrap();
    let mut harness = EnumeratedHarness::open(source.clone(), 1, None).unwrap();
    let failure = harness.read_all().unwrap_err();
    assert!(
        failure.message.contains("b.parquet at row 0") && failure.message.contains("it is no Parquet file"),
        "{failure}"
    );
    assert_eq!(read_all(source.bad_records(BadRecords::Skip), 1).len(), 30_000);
}

#[cfg(feature = "avro")]
#[test]
fn avro_files_are_read_as_a_whole() {
    use thalweg_connectors::formats::{AvroFile, BulkFormat, BulkWriter};

    let directory = tempfile::tempdir().unwrap();
    let format = AvroFile::<i64>::new(r#""long""#).unwrap();
    let (mut writer, mut file) = (BulkFormat::<i64>::begin(&format).unwrap(), Vec::new());
    for number in 0..5_000_i64 {
        writer.write(&number, &mut file).unwrap();
    }
    BulkWriter::<i64>::finish(writer, &mut file).unwrap();
    fs::write(directory.path().join("a.avro"), file).unwrap();
    let source = FileSource::avro(place(directory.path()), format).split_bytes(100);
    let mut harness = EnumeratedHarness::open(source.clone(), 1, None).unwrap();
    harness.enumerate().unwrap();
    harness.read(0).unwrap();
    harness.enumerate().unwrap();
    harness.read(0).unwrap();
    let mut read = harness.output();
    let snapshot = harness.checkpoint(1).unwrap();
    let mut restored = EnumeratedHarness::open(source, 1, Some(&snapshot)).unwrap();
    restored.read_all().unwrap();
    read.extend(restored.output());
    assert!(read.into_iter().eq(0..5_000));
}
