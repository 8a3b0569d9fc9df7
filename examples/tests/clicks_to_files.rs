//! The job `clicks_to_files` over several checkpoints: which files are there, and what is in them.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../clicks_to_files.rs"]
#[allow(dead_code)]
mod job;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use job::Click;
use thalweg::testing::{JobHarness, JobSetup};

fn click(number: i64) -> Click {
    Click { user: "ann".into(), url: "/buy".into(), at: number, spend: 0.5 }
}

/// The lines of the finished files, by subtask and checkpoint.
fn finished(directory: &Path) -> BTreeMap<(u32, u64), Vec<String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if let Some(name) = name.strip_prefix("part-") {
            let mut parts = name.split('-').map(|part| part.parse::<u64>());
            let (subtask, checkpoint) = (parts.next().unwrap().unwrap(), parts.next().unwrap().unwrap());
            let lines = fs::read_to_string(&path).unwrap().lines().map(String::from).collect();
            assert!(files.insert((subtask as u32, checkpoint), lines).is_none(), "two files for {name}");
        }
    }
    files
}

#[test]
fn acceptance_ds_32_a_finished_file_for_each_checkpoint_and_subtask() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().to_str().unwrap().to_string();
    let setup = |parallelism| {
        JobSetup::default()
            .arguments(["--output".to_string(), output.clone()])
            .parallelism(parallelism)
            .keeping("data-lake")
    };
    let lines = |numbers: &[i64]| -> Vec<String> {
        numbers.iter().map(|number| format!("ann,/buy,{number},0.5")).collect()
    };
    let mut job = JobHarness::open(job::topology, setup(2)).unwrap();
    job.feed("clicks", (0..4).map(click)).unwrap();
    assert!(finished(directory.path()).is_empty(), "nothing is final before a checkpoint");
    job.snapshot().unwrap();
    let mut expected = BTreeMap::from([((0, 1), lines(&[0, 2])), ((1, 1), lines(&[1, 3]))]);
    assert_eq!(finished(directory.path()), expected);

    // Only one subtask has written something since.
    job.feed("clicks", [click(4)]).unwrap();
    let snapshot = job.snapshot().unwrap();
    expected.insert((0, 2), lines(&[4]));
    assert_eq!(finished(directory.path()), expected);

    // What was written behind the checkpoint with which the job goes on is lost with its attempt, and what is read again is written once.
    job.feed("clicks", [click(5)]).unwrap();
    drop(job);
    let mut job = JobHarness::open(job::topology, setup(1).restoring(&snapshot)).unwrap();
    job.feed("clicks", [click(5), click(6)]).unwrap();
    job.end_input().unwrap();
    expected.insert((0, 3), lines(&[5, 6]));
    assert_eq!(finished(directory.path()), expected);
    let left = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, expected.len(), "nothing unfinished is left behind");
}
