//! A savepoint that version 0.1 of Thalweg wrote: every later version must read it.
//!
//! Never write it anew to make this test pass: a change of the format gets a new version number, and a fixture beside this one.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thalweg_common::manifest::check;
use thalweg_common::storage::{self, Storage};
use thalweg_savepoint::{Metadata, Savepoint, Selection, inspect};

use support::*;

const KEYS: u32 = 40;

fn fixture() -> PathBuf {
    PathBuf::from("tests/fixtures/savepoint-v1")
}

fn open(path: &Path) -> Arc<dyn Storage> {
    storage::open(path.to_str().unwrap()).unwrap()
}

#[tokio::test]
async fn the_savepoint_of_version_1_is_read() {
    let savepoint = Savepoint::open(open(&fixture())).await.unwrap();
    savepoint.verify().await.unwrap();
    let metadata = savepoint.metadata();
    assert_eq!((metadata.job_id, metadata.savepoint_id, metadata.triggered_ms), (JOB, 12, 1_700_000_000_000));
    assert_eq!(metadata.manifest, manifest::<first::Total>());
    // The keys are still where this version looks for them, and the entries what it would write.
    let (_directory, storage) = temporary();
    write(&storage, KEYS).await;
    let fresh = Savepoint::open(storage).await.unwrap();
    let all = Selection::default();
    assert_eq!(lines(&savepoint, &all).await, lines(&fresh, &all).await);
    let counts = inspect(&savepoint, true).await.unwrap().operators[1].states[0].counts.clone().unwrap();
    assert_eq!(counts.keys, u64::from(KEYS));
}

#[tokio::test]
async fn a_newer_version_of_its_job_can_be_restored_from_it() {
    let savepoint = Savepoint::open(open(&fixture())).await.unwrap();
    let report = check(&savepoint.metadata().manifest, &manifest::<second::Total>(), false);
    assert!(report.is_accepted() && report.needs_migration(), "{report}");
}

/// How the fixture was made. Not part of any run: `cargo test -p thalweg-savepoint --test fixture -- --ignored`.
#[tokio::test]
#[ignore = "writes the fixture, which exists"]
async fn write_the_fixture() {
    let directory = open(&fixture());
    let metadata = write_files(&directory, KEYS).await;
    Metadata { written_by: "thalweg 0.1.0".into(), ..metadata }.write(&*directory).await.unwrap();
}
