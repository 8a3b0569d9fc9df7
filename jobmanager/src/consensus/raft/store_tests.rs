//! The log's disk, against openraft's own suite and against what disks do.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use openraft::testing::{StoreBuilder, Suite};
use openraft::{CommittedLeaderId, RaftLogReader};
use tempfile::TempDir;

use super::log_store::LogStore;
use super::state_machine::StateMachine;
use super::store::{Closed, Store};
use super::store_error::StoreError;
use super::types::{Entry, EntryPayload, LogId, SnapshotMeta, StorageError, TypeConfig, Vote};
use crate::cluster::Command;
use crate::consensus::SharedState;

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError> {
        let directory = TempDir::new().unwrap();
        let (store, _closed) = Store::open(directory.path().join("raft"), 0).await.unwrap();
        let state_machine = StateMachine::recover(store.clone(), SharedState::default()).await.unwrap();
        Ok((directory, LogStore::new(store), state_machine))
    }
}

#[test]
fn it_passes_openrafts_storage_suite() {
    Suite::test_all(Builder).unwrap();
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 0), index)
}

fn entries(range: std::ops::Range<u64>) -> Vec<Entry> {
    let payload = || EntryPayload::Normal(vec![Command::Noop; 50]);
    range.map(|index| Entry { log_id: log_id(1, index), payload: payload() }).collect()
}

async fn open(path: &Path) -> (Store, Closed) {
    Store::open(path.to_owned(), 7).await.unwrap()
}

/// Waits until the files are closed, as a restart in the same process has to.
async fn close(store: Store, closed: Closed) {
    drop(store);
    assert!(closed.await.is_err(), "nothing is ever sent");
}

fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.log_id.index).collect()
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let directory = TempDir::new().unwrap();
    let vote = Vote::new_committed(3, 7);
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(1, 4)),
        snapshot_id: "1-4".into(),
        ..SnapshotMeta::default()
    };

    let (store, closed) = open(directory.path()).await;
    store.append(entries(0..20)).await.unwrap();
    store.save_vote(vote).await.unwrap();
    store.truncate(15).await.unwrap();
    store.purge(log_id(1, 4)).await.unwrap();
    store.save_committed(Some(log_id(1, 9))).await.unwrap();
    store.save_snapshot(meta.clone(), Bytes::from_static(b"state")).await.unwrap();
    close(store, closed).await;

    let (store, closed) = open(directory.path()).await;
    assert_eq!(store.vote().await.unwrap(), Some(vote));
    assert_eq!(store.committed().await.unwrap(), Some(log_id(1, 9)));
    assert_eq!(store.snapshot().await.unwrap(), Some((meta, Bytes::from_static(b"state"))));
    let state = store.log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 4)), Some(log_id(1, 14))));
    let read = store.entries(0, u64::MAX, usize::MAX).await.unwrap();
    assert_eq!(indexes(&read), (5..15).collect::<Vec<_>>());
    assert_eq!(read[0].payload, entries(0..1)[0].payload);
    close(store, closed).await;
}

#[tokio::test]
async fn who_led_when_it_stopped_has_to_be_elected_anew() {
    let directory = TempDir::new().unwrap();
    let (store, closed) = open(directory.path()).await;
    for (stored, expected) in [
        (Vote::new_committed(3, 7), Vote::new(3, 7)),
        (Vote::new_committed(3, 8), Vote::new_committed(3, 8)),
        (Vote::new(4, 7), Vote::new(4, 7)),
    ] {
        store.save_vote(stored).await.unwrap();
        store.relinquish_leadership(7).await.unwrap();
        assert_eq!(store.vote().await.unwrap(), Some(expected));
    }
    close(store, closed).await;
}

#[tokio::test]
async fn replication_reads_a_bounded_number_of_bytes_but_always_something() {
    let directory = TempDir::new().unwrap();
    let (store, closed) = open(directory.path()).await;
    store.append(entries(0..10)).await.unwrap();
    assert_eq!(indexes(&store.entries(2, 9, 1).await.unwrap()), [2]);
    let size = thalweg_common::codec::to_bytes(&entries(0..1)[0]).unwrap().len();
    assert_eq!(indexes(&store.entries(2, 9, 3 * size).await.unwrap()), [2, 3, 4]);
    assert_eq!(indexes(&store.entries(2, 9, usize::MAX).await.unwrap()), [2, 3, 4, 5, 6, 7, 8]);
    close(store, closed).await;
}

#[tokio::test]
async fn an_entry_that_replaces_a_truncated_one_is_what_is_read() {
    let directory = TempDir::new().unwrap();
    let (store, closed) = open(directory.path()).await;
    store.append(entries(0..10)).await.unwrap();
    store.truncate(5).await.unwrap();
    let replacement = Entry { log_id: log_id(2, 5), payload: EntryPayload::Blank };
    store.append(vec![replacement]).await.unwrap();
    let mut log = LogStore::new(store.clone());
    let read = log.try_get_log_entries(4..).await.unwrap();
    assert_eq!(read.iter().map(|entry| entry.log_id).collect::<Vec<_>>(), [log_id(1, 4), log_id(2, 5)]);
    drop(log);
    close(store, closed).await;
}

#[tokio::test]
async fn an_older_snapshot_never_replaces_a_newer_one() {
    let directory = TempDir::new().unwrap();
    let (store, closed) = open(directory.path()).await;
    let meta = |index| SnapshotMeta { last_log_id: Some(log_id(1, index)), ..SnapshotMeta::default() };
    store.save_snapshot(meta(9), Bytes::from_static(b"newer")).await.unwrap();
    store.save_snapshot(meta(8), Bytes::from_static(b"older")).await.unwrap();
    assert_eq!(store.snapshot().await.unwrap().unwrap().1, Bytes::from_static(b"newer"));
    close(store, closed).await;
}

#[tokio::test]
async fn the_directory_of_another_job_manager_is_refused() {
    let directory = TempDir::new().unwrap();
    let (store, closed) = open(directory.path()).await;
    close(store, closed).await;
    let error = Store::open(directory.path().to_owned(), 8).await.map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { owner: 7, id: 8, .. }), "{error}");
    assert!(error.to_string().contains("start it with the id 7"), "{error}");
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let directory = TempDir::new().unwrap();
    let (store, closed) = open(directory.path()).await;
    let error = Store::open(directory.path().to_owned(), 7).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("another job manager uses this directory"), "{error}");
    close(store, closed).await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_created_is_named() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = Store::open(file.join("raft"), 7).await.map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Directory { .. }), "{error}");
}

/// The write-ahead log that holds everything that was written since the store was opened.
fn write_ahead_log(directory: &Path) -> PathBuf {
    let mut logs: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    logs.sort();
    logs.pop().unwrap()
}

/// A store with some entries, closed.
async fn filled() -> TempDir {
    let directory = TempDir::new().unwrap();
    let (store, closed) = open(directory.path()).await;
    for index in 0..20 {
        store.append(entries(index..index + 1)).await.unwrap();
    }
    close(store, closed).await;
    directory
}

#[tokio::test]
async fn a_torn_last_write_is_cut_off() {
    let directory = filled().await;
    let path = write_ahead_log(directory.path());
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 10]).unwrap();
    let (store, closed) = open(directory.path()).await;
    assert_eq!(store.log_state().await.unwrap().last_log_id, Some(log_id(1, 18)));
    close(store, closed).await;
}

#[tokio::test]
async fn damage_in_the_middle_is_an_error_and_not_a_shorter_log() {
    let directory = filled().await;
    let path = write_ahead_log(directory.path());
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&path, &bytes).unwrap();
    let error = Store::open(directory.path().to_owned(), 7).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("add it again with a new id"), "{error}");
}
