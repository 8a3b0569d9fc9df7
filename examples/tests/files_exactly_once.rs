//! Word count from files to files, with failures on the way: every update is written exactly once, in order.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use thalweg::testing::LocalCluster;
use thalweg_connectors::{TextFileSink, TextFileSource};

const WORDS: [&str; 5] = ["rain", "river", "sea", "cloud", "Ärmel"];

/// Words in lines of different lengths; the total of each word.
fn write_input(directory: &Path) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for file in 0..3_usize {
        let mut text = String::new();
        for line in 0..2000_usize {
            for word in 0..(line * 7 + file) % 6 {
                let word = WORDS[(line + word * 3) % WORDS.len()];
                text.push_str(word);
                text.push(' ');
                *counts.entry(word.to_string()).or_default() += 1;
            }
            text.push('\n');
        }
        fs::write(directory.join(format!("{file}.txt")), text).unwrap();
    }
    counts
}

/// The updates of each word in the order of the parts, and the names of files that are not visible.
fn read_output(directory: &Path) -> (BTreeMap<String, Vec<u64>>, Vec<String>) {
    let names =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let (hidden, visible): (Vec<String>, Vec<String>) = names.partition(|name| name.starts_with('.'));
    let mut parts: Vec<(u32, u64, String)> = visible
        .into_iter()
        .map(|name| {
            let [_, subtask, checkpoint, _] = name.split('-').collect::<Vec<_>>()[..] else {
                panic!("{name}")
            };
            (subtask.parse().unwrap(), checkpoint.parse().unwrap(), name.clone())
        })
        .collect();
    parts.sort();
    let mut updates: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (_, _, name) in parts {
        for line in fs::read_to_string(directory.join(name)).unwrap().lines() {
            let (word, count) = line.split_once(' ').unwrap();
            updates.entry(word.to_string()).or_default().push(count.parse().unwrap());
        }
    }
    (updates, hidden)
}

fn count_words(parallelism: u32, failures: u32) {
    let (input, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = write_input(input.path());
    let total: u64 = expected.values().sum();
    let seen = Arc::new(AtomicU32::new(0));
    let failed = Arc::new(AtomicU32::new(0));
    let cluster = LocalCluster::new()
        .configure("parallelism.default", parallelism)
        .configure("execution.checkpointing.interval", "10 ms")
        .configure("restart-strategy.type", "fixed-delay")
        .configure("restart-strategy.fixed-delay.attempts", failures)
        .configure("restart-strategy.fixed-delay.delay", "1 ms");
    let run = cluster.run(|env| {
        let failed = Arc::clone(&failed);
        env.source("lines", TextFileSource::lines(input.path()).split_bytes(1000).repeat(3))
            .flat_map(|line| line.split_whitespace().map(String::from).collect::<Vec<_>>())
            .map(move |word| {
                // Spread over the run: at every so many words there is a failure, as long as some are left.
                let every = 2 * total as u32 / (failures + 1);
                if seen.fetch_add(1, Ordering::Relaxed) % every == every - 1
                    && failed
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                            (count < failures).then_some(count + 1)
                        })
                        .is_ok()
                {
                    panic!("a failure on purpose");
                }
                word
            })
            .key_by(|word| word.clone())
            .count()
            .uid("count")
            .map(|(word, count)| format!("{word} {count}"))
            .sink("counts", TextFileSink::directory(output.path()));
        Ok(())
    });
    run.unwrap();
    assert_eq!(failed.load(Ordering::Relaxed), failures);
    let (updates, hidden) = read_output(output.path());
    assert_eq!(hidden, [""; 0], "nothing is left behind");
    let expected: BTreeMap<String, Vec<u64>> =
        expected.into_iter().map(|(word, count)| (word, (1..=3 * count).collect())).collect();
    assert_eq!(updates, expected);
}

#[test]
fn without_failures() {
    count_words(1, 0);
    count_words(4, 0);
}

#[test]
fn over_five_failures() {
    count_words(1, 5);
    count_words(3, 5);
}
