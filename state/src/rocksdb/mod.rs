//! RocksDB behind the cache: a column family per state, key groups in front of the keys.
//!
//! Invariants: nothing goes through a write-ahead log, because what is not in a checkpoint is read again from the sources; a
//! file that a checkpoint has linked never changes; every column family says in the `default` one how its entries are
//! written, so that a later format is refused or read, never mistaken.

mod checkpoint;
mod expiry;
mod metrics;
mod options;
mod restore;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ::rocksdb::{
    ColumnFamily, DB, Direction, ErrorKind, IngestExternalFileOptions, IteratorMode, Options, ReadOptions,
    SstFileWriter, WriteBatch, WriteOptions,
};
use thalweg_common::clock::SharedClock;
use thalweg_common::graph::StateDescriptor;

use self::expiry::ExpiryFilters;
use crate::backend::{Backend, OnEntry, OnFound, OnStateEntry, StoreFile};
use crate::cache::batch::EntryBatch;
use crate::error::StoreError;

pub use options::{CompactionStyle, MemoryShares, PredefinedOptions, RocksDbMemory, RocksDbSettings};

/// In front of the name of a state, so that none is called as RocksDB's own column family.
const STATE_PREFIX: &str = "state.";

/// RocksDB's own column family, which says how the others are written.
const HEADER_FAMILY: &str = "default";

/// Bytes that are read at once from a file that is read from its beginning to its end.
const READ_AHEAD_BYTES: usize = 1 << 20;

/// How entries are written: the version, and flags.
type Format = [u8; 2];

/// The version.
const VERSION: u8 = 1;

/// The flag of states in front of whose values lies the time from which they live.
const EXPIRING: u8 = 1;

fn format_of(state: &StateDescriptor) -> Format {
    [VERSION, if state.ttl.is_some() { EXPIRING } else { 0 }]
}

/// What a store on disk is opened with.
#[derive(Clone)]
pub struct RocksDbOptions {
    /// The operator's name, for messages.
    pub operator: String,
    /// A directory of its own, which does not exist yet.
    pub directory: PathBuf,
    /// The declared states, in order.
    pub descriptors: Vec<StateDescriptor>,
    /// How it is tuned.
    pub settings: RocksDbSettings,
    /// The memory that it shares with the other stores of its process.
    pub memory: Arc<RocksDbMemory>,
    /// The clock by which compactions drop what has expired: that of the tables over it.
    pub clock: SharedClock,
}

/// The state of one subtask of an operator, on a local disk.
pub struct RocksDb {
    db: DB,
    families: Vec<String>,
    family_options: Options,
    operator: String,
    directory: PathBuf,
    /// Size and checksum of the files of the last checkpoint.
    known_files: Mutex<HashMap<String, StoreFile>>,
    size_bytes: AtomicU64,
    is_new: bool,
    /// Files that were written to be ingested.
    ingested: AtomicU64,
    _memory: Arc<RocksDbMemory>,
}

impl RocksDb {
    /// Opens an empty store.
    ///
    /// # Errors
    /// When the directory cannot be made or written.
    pub fn create(options: &RocksDbOptions) -> Result<Self, StoreError> {
        let fault = Fault::at(options, "create");
        std::fs::create_dir_all(&options.directory).map_err(|error| fault.io(&error))?;
        Self::open(options, true)
    }

    fn open(options: &RocksDbOptions, is_new: bool) -> Result<Self, StoreError> {
        let fault = Fault::at(options, "open");
        let (database, family) =
            (options.settings.database(&options.memory), options.settings.family(&options.memory));
        let families: Vec<String> =
            options.descriptors.iter().map(|state| format!("{STATE_PREFIX}{}", state.name)).collect();
        let mut opened: Vec<String> = families.clone();
        opened.push(HEADER_FAMILY.to_string());
        if !is_new {
            // A state that the program has no longer was refused before; it is opened because RocksDB insists.
            let there = DB::list_cf(&database, &options.directory).map_err(|error| fault.of(&error))?;
            opened.extend(there.into_iter().filter(|name| !families.contains(name) && name != HEADER_FAMILY));
        }
        let opened = opened.iter().enumerate().map(|(number, name)| {
            // The states of the program come first.
            (name.as_str(), filtered(&family, options, options.descriptors.get(number)))
        });
        let db =
            DB::open_cf_with_opts(&database, &options.directory, opened).map_err(|error| fault.of(&error))?;
        let store = Self {
            db,
            families,
            family_options: family,
            operator: options.operator.clone(),
            directory: options.directory.clone(),
            known_files: Mutex::default(),
            size_bytes: AtomicU64::new(0),
            is_new,
            ingested: AtomicU64::new(0),
            _memory: options.memory.clone(),
        };
        store.check_format(&options.descriptors)?;
        Ok(store)
    }

    /// Checks how the states are written, and says it of new ones.
    fn check_format(&self, states: &[StateDescriptor]) -> Result<(), StoreError> {
        let fault = self.fault("open");
        let header = self.family_named(HEADER_FAMILY)?;
        let mut new = WriteBatch::default();
        for (name, state) in self.families.iter().zip(states) {
            let expected = format_of(state);
            match self.db.get_cf(header, name).map_err(|error| fault.of(&error))? {
                None => new.put_cf(header, name, expected),
                Some(format) if format == expected => {}
                Some(format) => {
                    let reason = if format.first() == Some(&VERSION) {
                        "it was written with another answer to whether its values expire; take it along in a savepoint".into()
                    } else {
                        format!(
                            "it was written in format {format:?} by another version, this one writes {expected:?}"
                        )
                    };
                    let (operator, state) = (self.operator.clone(), state.name.clone());
                    return Err(StoreError::Damaged { operator, state, reason });
                }
            }
        }
        self.db.write_opt(new, &unlogged()).map_err(|error| fault.of(&error))
    }

    /// Merges all files of each state, and drops what has expired: what happens by itself over time.
    ///
    /// # Errors
    /// When a state has no files.
    pub fn compact(&self) -> Result<(), StoreError> {
        for state in 0..self.families.len() {
            self.db.compact_range_cf(self.family(state)?, None::<&[u8]>, None::<&[u8]>);
        }
        Ok(())
    }

    fn family(&self, state: usize) -> Result<&ColumnFamily, StoreError> {
        match self.families.get(state) {
            Some(name) => self.family_named(name),
            None => Err(self.fault("read").reason(format!("there is no state {state}"))),
        }
    }

    fn family_named(&self, name: &str) -> Result<&ColumnFamily, StoreError> {
        self.db
            .cf_handle(name)
            .ok_or_else(|| self.fault("read").reason(format!("it has no column family `{name}`")))
    }

    fn fault(&self, action: &'static str) -> Fault<'_> {
        Fault { action, operator: &self.operator, state: None, directory: &self.directory }
    }

    /// Of one of the states.
    fn fault_of(&self, action: &'static str, state: usize) -> Fault<'_> {
        let family = self.families.get(state).and_then(|family| family.strip_prefix(STATE_PREFIX));
        Fault { state: family, ..self.fault(action) }
    }

    /// The entries of a batch as RocksDB takes them.
    fn gathered(&self, batch: &EntryBatch) -> Result<WriteBatch, StoreError> {
        let mut write = WriteBatch::with_capacity_bytes(batch.size_bytes());
        let mut family = (usize::MAX, None);
        for (state, key, value) in batch.iter() {
            if family.0 != state {
                family = (state, Some(self.family(state)?));
            }
            let Some(family) = family.1 else { continue };
            match value {
                Some(value) => write.put_cf(family, key, value),
                None => write.delete_cf(family, key),
            }
        }
        Ok(write)
    }

    /// Writes sorted entries of one state into files and takes these in.
    fn ingest_sorted<'a>(
        &self,
        state: usize,
        entries: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> Result<(), StoreError> {
        let fault = self.fault_of("write", state);
        let number = self.ingested.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("ingest-{number}"));
        let mut writer = SstFileWriter::create(&self.family_options);
        writer.open(&path).map_err(|error| fault.of(&error))?;
        for (key, value) in entries {
            let added = match value {
                Some(value) => writer.put(key, value),
                None => writer.delete(key),
            };
            added.map_err(|error| fault.of(&error))?;
        }
        writer.finish().map_err(|error| fault.of(&error))?;
        self.ingest_file(state, path)
    }

    fn ingest_file(&self, state: usize, path: PathBuf) -> Result<(), StoreError> {
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        let ingested = self.db.ingest_external_file_cf_opts(self.family(state)?, &options, vec![path]);
        ingested.map_err(|error| self.fault_of("write", state).of(&error))
    }
}

impl Backend for RocksDb {
    fn get(&self, state: usize, keys: &[&[u8]], found: &mut OnFound<'_>) -> Result<(), StoreError> {
        let family = self.family(state)?;
        let fault = self.fault_of("read", state);
        if let [key] = keys {
            let value = self.db.get_pinned_cf(family, key).map_err(|error| fault.of(&error))?;
            return value.map_or(Ok(()), |value| found(0, &value));
        }
        let values = self.db.batched_multi_get_cf(family, keys.iter().copied(), true);
        for (index, value) in values.into_iter().enumerate() {
            if let Some(value) = value.map_err(|error| fault.of(&error))? {
                found(index, &value)?;
            }
        }
        Ok(())
    }

    fn scan(&self, state: usize, prefix: &[u8], entry: &mut OnEntry<'_>) -> Result<(), StoreError> {
        let bounds = (prefix, behind(prefix));
        scan(&self.db, self.family(state)?, bounds, usize::MAX, &self.fault_of("read", state), entry)
    }

    fn range(
        &self,
        state: usize,
        from: &[u8],
        to: &[u8],
        limit: usize,
        entry: &mut OnEntry<'_>,
    ) -> Result<(), StoreError> {
        let bounds = (from, Some(to.to_vec()));
        scan(&self.db, self.family(state)?, bounds, limit, &self.fault_of("read", state), entry)
    }

    fn read_all(&self, begun: &mut dyn FnMut(), entry: &mut OnStateEntry<'_>) -> Result<(), StoreError> {
        let snapshot = self.db.snapshot();
        begun();
        for state in 0..self.families.len() {
            let mut options = ReadOptions::default();
            // What is read once shall not take the place of what the task reads.
            options.fill_cache(false);
            options.set_readahead_size(READ_AHEAD_BYTES);
            let mut entries = snapshot.raw_iterator_cf_opt(self.family(state)?, options);
            entries.seek_to_first();
            while let Some((key, value)) = entries.item() {
                if entry(state, key, value).is_break() {
                    return Ok(());
                }
                entries.next();
            }
            entries.status().map_err(|error| self.fault_of("read", state).of(&error))?;
        }
        Ok(())
    }

    fn write(&self, batch: &mut EntryBatch) -> Result<(), StoreError> {
        // Neighbours in a memtable are found from each other.
        batch.sort();
        let mut options = unlogged();
        options.set_memtable_insert_hint_per_batch(true);
        // RocksDB holds up writers while buffers are flushed, and goes on to do so when that fails on a full disk: it hopes for room.
        // A flush waits as long, and says what is wrong.
        options.set_no_slowdown(true);
        let mut written = self.db.write_opt(self.gathered(batch)?, &options);
        if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::Incomplete) {
            for state in 0..self.families.len() {
                let flushed = self.db.flush_cf(self.family(state)?);
                flushed.map_err(|error| self.fault_of("write", state).of(&error))?;
            }
            options.set_no_slowdown(false);
            written = self.db.write_opt(self.gathered(batch)?, &options);
        }
        written.map_err(|error| self.fault("write").of(&error))
    }

    fn ingest(&self, mut batch: EntryBatch) -> Result<(), StoreError> {
        // Sorted files are written about five times as fast as the same entries go through a memtable and its flush.
        batch.sort();
        let mut entries = batch.iter().peekable();
        while let Some(state) = entries.peek().map(|(state, ..)| *state) {
            let of_state = std::iter::from_fn(|| entries.next_if(|entry| entry.0 == state));
            self.ingest_sorted(state, of_state.map(|(_, key, value)| (key, value)))?;
        }
        Ok(())
    }

    fn checkpoint(&self, directory: &Path) -> Result<Vec<StoreFile>, StoreError> {
        self.link_checkpoint(directory)
    }

    fn is_empty(&self) -> bool {
        self.is_new
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Relaxed)
    }
}

/// The options of a state's column family: with a filter, if its values expire.
fn filtered(family: &Options, options: &RocksDbOptions, state: Option<&StateDescriptor>) -> Options {
    let mut family = family.clone();
    if let Some(ttl) = state.and_then(|state| state.ttl).filter(|_| options.settings.ttl_compaction_filter) {
        family.set_compaction_filter_factory(ExpiryFilters { ttl, clock: options.clock.clone() });
    }
    family
}

/// Reads the entries between two stored keys, in order, so many at the most.
fn scan(
    db: &DB,
    family: &ColumnFamily,
    (from, to): (&[u8], Option<Vec<u8>>),
    limit: usize,
    fault: &Fault<'_>,
    entry: &mut OnEntry<'_>,
) -> Result<(), StoreError> {
    let mut options = ReadOptions::default();
    if let Some(to) = to {
        options.set_iterate_upper_bound(to);
    }
    let mode =
        if from.is_empty() { IteratorMode::Start } else { IteratorMode::From(from, Direction::Forward) };
    let mut entries = db.raw_iterator_cf_opt(family, options);
    match mode {
        IteratorMode::From(from, _) => entries.seek(from),
        _ => entries.seek_to_first(),
    }
    let mut left = limit;
    while left > 0
        && let Some((key, value)) = entries.item()
    {
        entry(key, value)?;
        entries.next();
        left -= 1;
    }
    entries.status().map_err(|error| fault.of(&error))
}

/// The first key behind all that begin with `prefix`.
fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut behind = prefix[..=last].to_vec();
    behind[last] += 1;
    Some(behind)
}

/// Nothing goes through the write-ahead log.
fn unlogged() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

/// Says what went wrong where.
struct Fault<'a> {
    action: &'static str,
    operator: &'a str,
    state: Option<&'a str>,
    directory: &'a Path,
}

impl<'a> Fault<'a> {
    fn at(options: &'a RocksDbOptions, action: &'static str) -> Self {
        Self { action, operator: &options.operator, state: None, directory: &options.directory }
    }

    fn of(&self, error: &rocksdb::Error) -> StoreError {
        let reason = error.to_string();
        let cure = match error.kind() {
            ErrorKind::Corruption => "a file is damaged: check the disk, and restore from another checkpoint",
            _ => cure(&reason),
        };
        self.fault(reason, cure)
    }

    fn io(&self, error: &std::io::Error) -> StoreError {
        let reason = error.to_string();
        let cure = cure(&reason);
        self.fault(reason, cure)
    }

    fn reason(&self, reason: impl Into<String>) -> StoreError {
        self.fault(reason.into(), "restore from another checkpoint")
    }

    fn fault(&self, reason: String, cure: &'static str) -> StoreError {
        let subject = match self.state {
            Some(state) => format!("state `{state}` of `{}`", self.operator),
            None => format!("the state of `{}`", self.operator),
        };
        StoreError::Disk {
            action: self.action,
            subject,
            directory: self.directory.to_path_buf(),
            reason,
            cure,
        }
    }
}

/// What helps against an error of the system. RocksDB passes on its text.
fn cure(reason: &str) -> &'static str {
    const CURES: [(&str, &str); 5] = [
        ("No space left", "free space on this disk, or keep the state on a larger one"),
        ("Disk quota exceeded", "raise the quota, or keep the state on another disk"),
        ("Read-only file system", "make the disk writable, or keep the state on another one"),
        ("Permission denied", "let the worker's user read and write this directory"),
        (
            "No such file",
            "a file is missing: check what else deletes files there, and restore from another checkpoint",
        ),
    ];
    let known = CURES.iter().find(|(text, _)| reason.contains(text));
    known.map_or("check the disk, and restore from another checkpoint", |(_, cure)| cure)
}

#[cfg(test)]
mod tests {
    use super::behind;

    #[test]
    fn what_is_behind_a_prefix() {
        for (prefix, expected) in [
            (&[0, 1][..], Some(vec![0, 2])),
            (&[0, 255], Some(vec![1])),
            (&[7, 255, 255], Some(vec![8])),
            (&[255, 255], None),
            (&[], None),
        ] {
            assert_eq!(behind(prefix), expected);
        }
    }
}
