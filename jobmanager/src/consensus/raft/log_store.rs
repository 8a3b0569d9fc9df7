//! The log as openraft uses it: a thin face over [`Store`].
//!
//! openraft has one write in flight at a time and waits for it, so a write is on disk and readable when `append` returns
//! and its callback is called right before. Many proposals still share one fsync: they travel in one entry
//! (see `proposals`).

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, OptionalSend, RaftLogReader};
use thalweg_common::limits;

use super::store::Store;
use super::store_error::StoreError;
use super::types::{Entry, LogId, LogState, StorageError, StorageIOError, TypeConfig, Vote};

/// Reads and writes the log of one node.
#[derive(Clone)]
pub(crate) struct LogStore {
    store: Store,
}

impl LogStore {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<Range: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: Range,
    ) -> Result<Vec<Entry>, StorageError> {
        let (start, end) = half_open(&range);
        self.store.entries(start, end, usize::MAX).await.map_err(|error| reading(&error))
    }

    /// What replication sends in one request: bounded in bytes, so that it is through long before the heartbeat's
    /// interval is over, which is all the time that openraft gives it.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.store.entries(start, end, limits::RAFT_APPEND_BYTES).await.map_err(|error| reading(&error))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState, StorageError> {
        self.store.log_state().await.map_err(|error| reading(&error))
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let saved = self.store.save_vote(*vote).await;
        saved.map_err(|error| StorageIOError::write_vote(AnyError::error(&error)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.store.vote().await.map_err(|error| StorageIOError::read_vote(AnyError::error(&error)).into())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.store.save_committed(committed).await.map_err(|error| writing(&error))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        self.store.committed().await.map_err(|error| reading(&error))
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        // On an error the callback is dropped; openraft stops at the error that is returned.
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.store.append(entries).await.map_err(|error| writing(&error))?;
        flushed.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId) -> Result<(), StorageError> {
        self.store.truncate(from.index).await.map_err(|error| writing(&error))
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        self.store.purge(upto).await.map_err(|error| writing(&error))
    }
}

/// `range` as first index and the index after the last.
fn half_open(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

fn reading(error: &StoreError) -> StorageError {
    StorageIOError::read_logs(AnyError::error(error)).into()
}

fn writing(error: &StoreError) -> StorageError {
    StorageIOError::write_logs(AnyError::error(error)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_become_half_open() {
        assert_eq!(half_open(&(3..7)), (3, 7));
        assert_eq!(half_open(&(3..=7)), (3, 8));
        assert_eq!(half_open(&(..)), (0, u64::MAX));
        assert_eq!(half_open(&(Bound::Excluded(3), Bound::Unbounded)), (4, u64::MAX));
        assert_eq!(half_open(&(u64::MAX..=u64::MAX)), (u64::MAX, u64::MAX));
    }
}
