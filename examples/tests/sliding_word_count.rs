//! The job `sliding_word_count` on words at given times: what each firing shows.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../sliding_word_count.rs"]
#[allow(dead_code)]
mod job;

use thalweg::prelude::*;
use thalweg::testing::{JobHarness, JobSetup};

const SECOND: Timestamp = 1_000;

/// The counts since the last look, in the order of words.
fn counts(job: &mut JobHarness) -> Vec<(String, u64)> {
    let mut counts = job.output("word-counts").unwrap();
    counts.sort();
    counts
}

fn expected(counts: &[(&str, u64)]) -> Vec<(String, u64)> {
    counts.iter().map(|(word, count)| (word.to_string(), *count)).collect()
}

#[test]
fn acceptance_ds_20_words_of_fifteen_seconds_every_five() {
    for parallelism in [1, 3] {
        let setup = JobSetup::default().parallelism(parallelism);
        let mut job = JobHarness::open(job::topology, setup).unwrap();
        job.advance_to(2 * SECOND).unwrap();
        job.feed("lines", ["hello world".to_string()]).unwrap();
        job.advance_to(5 * SECOND).unwrap();
        assert_eq!(counts(&mut job), expected(&[("hello", 1), ("world", 1)]));
        job.advance_to(7 * SECOND).unwrap();
        job.feed("lines", ["hello".to_string()]).unwrap();
        job.advance_to(10 * SECOND).unwrap();
        assert_eq!(counts(&mut job), expected(&[("hello", 2), ("world", 1)]));
        job.advance_to(15 * SECOND).unwrap();
        assert_eq!(counts(&mut job), expected(&[("hello", 2), ("world", 1)]));
        job.advance_to(20 * SECOND).unwrap();
        assert_eq!(counts(&mut job), expected(&[("hello", 1)]));
        job.advance_to(60 * SECOND).unwrap();
        assert_eq!(counts(&mut job), expected(&[]));
    }
}

#[test]
fn acceptance_ds_20_only_letters_of_ascii_make_words() {
    let mut job = JobHarness::open(job::topology, JobSetup::default()).unwrap();
    job.feed("lines", ["안녕하세요 Rust2024".to_string()]).unwrap();
    job.advance_to(5 * SECOND).unwrap();
    assert_eq!(counts(&mut job), expected(&[("rust2024", 1)]));
}
