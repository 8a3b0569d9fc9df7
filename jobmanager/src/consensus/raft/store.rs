//! The disk of the replicated log: one RocksDB with the log's entries, Raft's few numbers and the last snapshot.
//!
//! Everything that a command waits for on its way is here: [`Store::append`] and [`Store::save_vote`] return when the
//! bytes are on disk (synced write-ahead log). Invariants: what was synced is either read back or opening fails, never
//! silently dropped (a torn tail that nobody was told about is cut off); the log has no hole; a snapshot is replaced in
//! one atomic write and only by a newer one; no async thread ever waits for the disk.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rocksdb::{ColumnFamily, DB, Direction, IteratorMode, ReadOptions, WriteBatch, WriteOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thalweg_common::codec;
use thalweg_common::task_scope::blocking;
use tokio::sync::oneshot;

use super::store_error::StoreError;
use super::store_options::{LOG, META, SNAPSHOT, column_families, database_options};
use super::types::{Entry, LogId, LogState, SnapshotMeta, Vote};
use crate::consensus::NodeId;

/// The layout of the keys and values below. Another number is refused.
const FORMAT: u32 = 1;

// Keys of the column family META.
const FORMAT_KEY: &[u8] = b"format";
const OWNER_KEY: &[u8] = b"node";
const VOTE_KEY: &[u8] = b"vote";
const COMMITTED_KEY: &[u8] = b"committed";
const PURGED_KEY: &[u8] = b"purged";

// Keys of the column family SNAPSHOT.
const SNAPSHOT_META_KEY: &[u8] = b"meta";
const SNAPSHOT_DATA_KEY: &[u8] = b"data";

/// The disk of one node. Cloning shares it; it is closed when the last clone is gone.
#[derive(Clone)]
pub(crate) struct Store {
    files: Arc<Files>,
}

/// Tells when the last clone of a [`Store`] is gone and its files are closed.
pub(crate) type Closed = oneshot::Receiver<()>;

struct Files {
    // Dropped in this order: whoever waits for `_closed` finds the database closed.
    database: DB,
    path: PathBuf,
    /// Orders the comparison with the stored snapshot and its replacement.
    snapshot_writes: Mutex<()>,
    _closed: oneshot::Sender<()>,
}

impl Store {
    /// Opens the files under `path` for job manager `id`, creating them on the first start.
    pub(crate) async fn open(path: PathBuf, id: NodeId) -> Result<(Self, Closed), StoreError> {
        let (sender, closed) = oneshot::channel();
        let files = blocking("open the log", move || Files::open(path, id, sender))
            .await
            .map_err(|error| StoreError::interrupted(&error))??;
        Ok((Self { files: Arc::new(files) }, closed))
    }

    /// What the log holds: the last entry and the last one that compaction took away.
    pub(crate) async fn log_state(&self) -> Result<LogState, StoreError> {
        self.blocking(|files| {
            let last_purged_log_id = files.get::<LogId>(META, PURGED_KEY)?;
            let last = files.last_entry()?.map(|entry| entry.log_id);
            Ok(LogState { last_purged_log_id, last_log_id: last.or(last_purged_log_id) })
        })
        .await
    }

    /// Reads the entries from `start` up to but without `end`: at least one if there is any, then as many as fit into
    /// `max_bytes`.
    pub(crate) async fn entries(
        &self,
        start: u64,
        end: u64,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.blocking(move |files| files.entries(start, end, max_bytes)).await
    }

    /// Appends entries; they are on disk when this returns.
    pub(crate) async fn append(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        self.blocking(move |files| {
            let log = files.family(LOG)?;
            let mut batch = WriteBatch::default();
            for entry in &entries {
                let bytes = codec::to_bytes(entry).map_err(|error| files.encoding("a log entry", &error))?;
                batch.put_cf(log, key(entry.log_id.index), bytes);
            }
            files.write("append to the log", batch, Durability::Synced)
        })
        .await
    }

    /// Removes the entries from `from` on: they conflict with the leader's.
    pub(crate) async fn truncate(&self, from: u64) -> Result<(), StoreError> {
        self.blocking(move |files| {
            let mut batch = WriteBatch::default();
            batch.delete_range_cf(files.family(LOG)?, key(from), key(u64::MAX));
            files.write("truncate the log", batch, Durability::Synced)
        })
        .await
    }

    /// Removes the entries up to and with `upto`: a snapshot holds what they did.
    pub(crate) async fn purge(&self, upto: LogId) -> Result<(), StoreError> {
        self.blocking(move |files| {
            let mut batch = WriteBatch::default();
            files.put(&mut batch, PURGED_KEY, &upto)?;
            batch.delete_range_cf(files.family(LOG)?, key(0), key(upto.index.saturating_add(1)));
            // Entries that come back after a crash are purged again, so this one need not wait for the disk.
            files.write("purge the log", batch, Durability::Buffered)
        })
        .await
    }

    /// Stores the vote; it is on disk when this returns.
    pub(crate) async fn save_vote(&self, vote: Vote) -> Result<(), StoreError> {
        self.blocking(move |files| files.put_one("store the vote", VOTE_KEY, &vote, Durability::Synced)).await
    }

    /// The vote that was stored last.
    pub(crate) async fn vote(&self) -> Result<Option<Vote>, StoreError> {
        self.blocking(|files| files.get(META, VOTE_KEY)).await
    }

    /// Turns the vote of a node that led when it stopped into that of a candidate, so that it has to be elected anew.
    ///
    /// openraft would let it lead on in its old term. But what it did in that term and kept in memory only is gone, and
    /// the term would not tell its old messages from its new ones.
    pub(crate) async fn relinquish_leadership(&self, id: NodeId) -> Result<(), StoreError> {
        match self.vote().await? {
            Some(vote) if vote.committed && vote.leader_id.voted_for() == Some(id) => {
                self.save_vote(Vote { committed: false, ..vote }).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Remembers how far the log is committed, so that a restart applies it at once instead of asking the leader first.
    pub(crate) async fn save_committed(&self, committed: Option<LogId>) -> Result<(), StoreError> {
        // Losing it in a crash costs nothing but that, so it does not wait for the disk.
        self.blocking(move |files| {
            files.put_one("store the commit index", COMMITTED_KEY, &committed, Durability::Buffered)
        })
        .await
    }

    /// What [`Store::save_committed`] stored.
    pub(crate) async fn committed(&self) -> Result<Option<LogId>, StoreError> {
        self.blocking(|files| Ok(files.get::<Option<LogId>>(META, COMMITTED_KEY)?.flatten())).await
    }

    /// Replaces the snapshot, unless the stored one is newer; it is on disk when this returns.
    pub(crate) async fn save_snapshot(&self, meta: SnapshotMeta, data: Bytes) -> Result<(), StoreError> {
        self.blocking(move |files| {
            let _ordered = files.snapshot_writes.lock().unwrap_or_else(PoisonError::into_inner);
            let stored = files.get::<SnapshotMeta>(SNAPSHOT, SNAPSHOT_META_KEY)?;
            if stored.is_some_and(|stored| stored.last_log_id > meta.last_log_id) {
                return Ok(());
            }
            let family = files.family(SNAPSHOT)?;
            let meta = codec::to_bytes(&meta).map_err(|error| files.encoding("a snapshot", &error))?;
            let mut batch = WriteBatch::default();
            batch.put_cf(family, SNAPSHOT_META_KEY, meta);
            batch.put_cf(family, SNAPSHOT_DATA_KEY, &data);
            files.write("store the snapshot", batch, Durability::Synced)
        })
        .await
    }

    /// The stored snapshot.
    pub(crate) async fn snapshot(&self) -> Result<Option<(SnapshotMeta, Bytes)>, StoreError> {
        self.blocking(|files| {
            let _ordered = files.snapshot_writes.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(meta) = files.get::<SnapshotMeta>(SNAPSHOT, SNAPSHOT_META_KEY)? else { return Ok(None) };
            match files.read(SNAPSHOT, SNAPSHOT_DATA_KEY)? {
                Some(data) => Ok(Some((meta, Bytes::from(data)))),
                None => Err(files.damaged("the snapshot has metadata but no data")),
            }
        })
        .await
    }

    /// An error for bytes of this store that nobody can read.
    pub(crate) fn damaged(&self, what: &str) -> StoreError {
        self.files.damaged(what)
    }

    /// Runs `work` where waiting for the disk holds up nobody.
    async fn blocking<T, Work>(&self, work: Work) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Work: FnOnce(&Files) -> Result<T, StoreError> + Send + 'static,
    {
        let files = Arc::clone(&self.files);
        blocking("access the log", move || work(&files))
            .await
            .map_err(|error| StoreError::interrupted(&error))?
    }
}

/// Whether a write has to be on disk when it returns.
#[derive(Clone, Copy)]
enum Durability {
    Synced,
    /// In the operating system's hands: survives the process, not the machine.
    Buffered,
}

/// Big-endian, so that the keys sort like the indexes.
fn key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

impl Files {
    fn open(path: PathBuf, id: NodeId, closed: oneshot::Sender<()>) -> Result<Self, StoreError> {
        std::fs::create_dir_all(&path).map_err(|error| StoreError::directory(&path, &error))?;
        let database = DB::open_cf_descriptors(&database_options(), &path, column_families())
            .map_err(|error| StoreError::database("open the log", &path, &error))?;
        let files = Self { database, path, snapshot_writes: Mutex::new(()), _closed: closed };
        files.check_format()?;
        files.check_owner(id)?;
        Ok(files)
    }

    fn check_format(&self) -> Result<(), StoreError> {
        match self.get::<u32>(META, FORMAT_KEY)? {
            None => self.put_one("create the log", FORMAT_KEY, &FORMAT, Durability::Synced),
            Some(FORMAT) => Ok(()),
            Some(found) => Err(StoreError::Version { path: self.path.clone(), found, supported: FORMAT }),
        }
    }

    /// Two numbers on one disk, or one number on two, would let a node vote twice.
    fn check_owner(&self, id: NodeId) -> Result<(), StoreError> {
        match self.get::<NodeId>(META, OWNER_KEY)? {
            None => self.put_one("create the log", OWNER_KEY, &id, Durability::Synced),
            Some(owner) if owner == id => Ok(()),
            Some(owner) => Err(StoreError::Foreign { path: self.path.clone(), owner, id }),
        }
    }

    fn last_entry(&self) -> Result<Option<Entry>, StoreError> {
        let mut newest_first = self.database.iterator_cf(self.family(LOG)?, IteratorMode::End);
        let Some(item) = newest_first.next() else { return Ok(None) };
        let (_, value) = item.map_err(|error| self.failed("read the log", &error))?;
        self.decode(&value).map(Some)
    }

    fn entries(&self, start: u64, end: u64, max_bytes: usize) -> Result<Vec<Entry>, StoreError> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(key(end));
        let from = key(start);
        let mode = IteratorMode::From(&from, Direction::Forward);
        let mut entries = Vec::new();
        let mut bytes = 0;
        for item in self.database.iterator_cf_opt(self.family(LOG)?, options, mode) {
            let (_, value) = item.map_err(|error| self.failed("read the log", &error))?;
            bytes += value.len();
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(self.decode(&value)?);
        }
        Ok(entries)
    }

    fn read(&self, family: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.database
            .get_cf(self.family(family)?, key)
            .map_err(|error| self.failed("read the log's files", &error))
    }

    fn get<T: DeserializeOwned>(&self, family: &str, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.read(family, key)?.map(|bytes| self.decode(&bytes)).transpose()
    }

    fn put<T: Serialize>(&self, batch: &mut WriteBatch, key: &[u8], value: &T) -> Result<(), StoreError> {
        let bytes = codec::to_bytes(value).map_err(|error| self.encoding("Raft's numbers", &error))?;
        batch.put_cf(self.family(META)?, key, bytes);
        Ok(())
    }

    fn put_one<T: Serialize>(
        &self,
        doing: &'static str,
        key: &[u8],
        value: &T,
        durability: Durability,
    ) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        self.put(&mut batch, key, value)?;
        self.write(doing, batch, durability)
    }

    fn write(
        &self,
        doing: &'static str,
        batch: WriteBatch,
        durability: Durability,
    ) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.set_sync(matches!(durability, Durability::Synced));
        self.database.write_opt(batch, &options).map_err(|error| self.failed(doing, &error))
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, StoreError> {
        codec::from_bytes(bytes).map_err(|error| self.damaged(&error.to_string()))
    }

    fn family(&self, name: &str) -> Result<&ColumnFamily, StoreError> {
        self.database
            .cf_handle(name)
            .ok_or_else(|| self.damaged(&format!("the column family {name} is missing")))
    }

    fn failed(&self, doing: &'static str, error: &rocksdb::Error) -> StoreError {
        StoreError::database(doing, &self.path, error)
    }

    fn encoding(&self, what: &'static str, error: &codec::CodecError) -> StoreError {
        StoreError::Encode { what, reason: error.to_string() }
    }

    fn damaged(&self, what: &str) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), reason: what.to_string() }
    }
}

/// Where the store of a job manager with this data directory is.
pub(crate) fn store_path(data_dir: &Path) -> PathBuf {
    data_dir.join("raft")
}
