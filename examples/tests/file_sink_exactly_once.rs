//! Numbers from files to files in buckets, with failures on the way: each is in the output once, and what is no number goes aside.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use thalweg::prelude::OutputTag;
use thalweg::testing::LocalCluster;
use thalweg_connectors::files::RollingPolicy;
use thalweg_connectors::formats::{BadRecord, BadRecords, Decoder, Malformed, Text};
use thalweg_connectors::{FileSink, FileSource};

const UNREADABLE: OutputTag<BadRecord> = OutputTag::new("unreadable");

/// How many numbers there are; every hundredth line is none.
const NUMBERS: u64 = 30_000;

/// A number in each line.
#[derive(Clone)]
struct Numbers;

impl Decoder for Numbers {
    type Out = u64;

    fn decode(&mut self, line: &[u8], out: &mut thalweg::batch::Batch<u64>) -> Result<(), Malformed> {
        let number = std::str::from_utf8(line).map_err(Malformed::new)?;
        out.push(number.parse().map_err(Malformed::new)?);
        Ok(())
    }
}

fn write_input(directory: &Path) {
    for file in 0..3 {
        let lines = (file * NUMBERS / 3..(file + 1) * NUMBERS / 3).map(|number| {
            if number % 100 == 99 { format!("no number {number}\n") } else { format!("{number}\n") }
        });
        fs::write(directory.join(format!("{file}.txt")), lines.collect::<String>()).unwrap();
    }
}

/// All lines of finished files below a directory, sorted.
fn lines(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with(".inprogress") {
            found.extend(lines(&path));
        } else if path.is_file() {
            found.extend(fs::read_to_string(&path).unwrap().lines().map(str::to_owned));
        }
    }
    found.sort();
    found
}

fn copy_numbers(parallelism: u32, failures: u32, policy: RollingPolicy) {
    let (input, output, aside) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_input(input.path());
    let (seen, failed) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let cluster = LocalCluster::new()
        .configure("parallelism.default", parallelism)
        .configure("execution.checkpointing.interval", "10 ms")
        .configure("restart-strategy.type", "fixed-delay")
        .configure("restart-strategy.fixed-delay.attempts", failures)
        .configure("restart-strategy.fixed-delay.delay", "1 ms");
    let place = |directory: &tempfile::TempDir| directory.path().to_str().unwrap().to_owned();
    let run = cluster.run(|env| {
        let failed = Arc::clone(&failed);
        let source = FileSource::new(place(&input), Numbers)
            .split_bytes(5_000)
            .bad_records(BadRecords::DeadLetter(UNREADABLE));
        let numbers = env.source("numbers", source);
        let bad = numbers.side_output(&UNREADABLE);
        bad.map(|bad| String::from_utf8(bad.bytes).unwrap())
            .sink("unreadable", FileSink::rows(place(&aside), Text).without_buckets().rolling(policy));
        numbers
            .map(move |number| {
                let every = NUMBERS as u32 / (failures + 1);
                let is_turn = seen.fetch_add(1, Ordering::Relaxed) % every == every - 1;
                let take = |count| (count < failures).then_some(count + 1);
                if is_turn && failed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                    panic!("a failure on purpose");
                }
                number
            })
            .rebalance()
            .sink("even and odd", {
                let sink = FileSink::rows(place(&output), Text).rolling(policy);
                sink.bucket_by(
                    |number: &u64, _| if number.is_multiple_of(2) { "even".into() } else { "odd".into() },
                )
            });
        Ok(())
    });
    run.unwrap();
    assert_eq!(failed.load(Ordering::Relaxed), failures);
    let is_number = |number: &u64| number % 100 < 99;
    let mut expected: Vec<String> = (0..NUMBERS).filter(is_number).map(|number| number.to_string()).collect();
    expected.sort();
    assert_eq!(lines(output.path()), expected);
    let odd = lines(&output.path().join("odd"));
    assert!(odd.iter().all(|number| number.parse::<u64>().unwrap() % 2 == 1) && odd.len() > 10_000);
    let none = (0..NUMBERS).filter(|number| !is_number(number)).map(|number| format!("no number {number}"));
    let mut expected: Vec<String> = none.collect();
    expected.sort();
    assert_eq!(lines(aside.path()), expected);
    for directory in [&output, &aside] {
        let hidden = fs::read_dir(directory.path().join(".inprogress")).unwrap().count();
        assert_eq!(hidden, 0, "nothing is left behind");
    }
}

/// Parts go on over checkpoints, and are rolled by a clock that is much faster than in life.
fn fast() -> RollingPolicy {
    let interval = Duration::from_millis(25);
    RollingPolicy::default().rollover(interval).inactivity(interval).check_interval(interval)
}

#[test]
fn without_failures() {
    copy_numbers(1, 0, RollingPolicy::default());
    copy_numbers(3, 0, fast());
}

#[test]
fn over_three_failures() {
    copy_numbers(1, 3, RollingPolicy::on_checkpoint());
    copy_numbers(2, 3, fast());
}
