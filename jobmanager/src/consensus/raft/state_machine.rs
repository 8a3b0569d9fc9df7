//! The step "log -> apply": committed entries change the [`SharedState`], and the state becomes a snapshot.
//!
//! The state lives in memory; its durable form is the last snapshot plus the log after it. Invariants: entries are applied
//! in order and each once; a snapshot is on disk before the log that it replaces is purged, and before an installed one
//! becomes visible; a snapshot is taken from one moment, with the position and membership of that moment.

use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::{AnyError, OptionalSend, RaftSnapshotBuilder};
use thalweg_common::codec;
use thalweg_common::task_scope::blocking;

use super::store::Store;
use super::store_error::StoreError;
use super::types::{
    Entry, EntryPayload, LogId, Snapshot, SnapshotMeta, StorageError, StorageIOError, StoredMembership,
    TypeConfig,
};
use crate::cluster::{ClusterState, Outcome};
use crate::consensus::SharedState;

/// Applies committed entries.
pub(crate) struct StateMachine {
    store: Store,
    state: SharedState,
    position: Position,
}

/// How far the state is, and who was a member then.
#[derive(Debug, Clone, Default, PartialEq)]
struct Position {
    last_applied: Option<LogId>,
    membership: StoredMembership,
}

impl StateMachine {
    /// Brings `state` to the stored snapshot, if there is one; openraft then applies the committed log after it.
    pub(crate) async fn recover(store: Store, state: SharedState) -> Result<Self, StoreError> {
        let mut position = Position::default();
        if let Some((meta, data)) = store.snapshot().await? {
            let recovered = decode(data)
                .await
                .map_err(|reason| store.damaged(&format!("the snapshot is unreadable: {reason}")))?;
            state.replace(recovered);
            position = Position { last_applied: meta.last_log_id, membership: meta.last_membership };
        }
        Ok(Self { store, state, position })
    }

    fn apply_entry(&mut self, entry: Entry) -> Vec<Outcome> {
        self.position.last_applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Vec::new(),
            EntryPayload::Normal(commands) => {
                commands.into_iter().map(|command| self.state.apply(command)).collect()
            }
            EntryPayload::Membership(membership) => {
                self.position.membership = StoredMembership::new(Some(entry.log_id), membership);
                Vec::new()
            }
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.position.last_applied, self.position.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Vec<Outcome>>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        Ok(entries.into_iter().map(|entry| self.apply_entry(entry)).collect())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        // Nothing is applied while this runs, so state and position are of the same moment.
        SnapshotBuilder {
            store: self.store.clone(),
            state: Arc::new(self.state.read().clone()),
            position: self.position.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Bytes>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Box<Bytes>) -> Result<(), StorageError> {
        let failed = |error: AnyError| StorageIOError::write_snapshot(None, error);
        let installed = decode((*data).clone()).await.map_err(|reason| failed(AnyError::error(reason)))?;
        self.store
            .save_snapshot(meta.clone(), *data)
            .await
            .map_err(|error| failed(AnyError::error(&error)))?;
        self.state.replace(installed);
        self.position = Position { last_applied: meta.last_log_id, membership: meta.last_membership.clone() };
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let stored = self.store.snapshot().await;
        let stored = stored.map_err(|error| StorageIOError::read_snapshot(None, AnyError::error(&error)))?;
        Ok(stored.map(|(meta, data)| Snapshot { meta, snapshot: Box::new(data) }))
    }
}

/// Turns the state of one moment into a snapshot while commands go on being applied.
pub(crate) struct SnapshotBuilder {
    store: Store,
    state: Arc<ClusterState>,
    position: Position,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let failed = |error: AnyError| StorageIOError::write_snapshot(None, error);
        let data = encode(Arc::clone(&self.state)).await.map_err(|reason| failed(AnyError::error(reason)))?;
        let meta = SnapshotMeta {
            last_log_id: self.position.last_applied,
            last_membership: self.position.membership.clone(),
            snapshot_id: snapshot_id(self.position.last_applied),
        };
        self.store
            .save_snapshot(meta.clone(), data.clone())
            .await
            .map_err(|error| failed(AnyError::error(&error)))?;
        Ok(Snapshot { meta, snapshot: Box::new(data) })
    }
}

/// The state is deterministic, so its position names it.
fn snapshot_id(last_applied: Option<LogId>) -> String {
    last_applied.map_or_else(|| "empty".to_string(), |id| format!("{}-{}", id.leader_id.term, id.index))
}

/// Encodes a state, which may be large, beside the async threads.
async fn encode(state: Arc<ClusterState>) -> Result<Bytes, String> {
    let encoded = blocking("encode a snapshot", move || codec::to_bytes(state.as_ref())).await;
    let encoded = encoded.map_err(|error| error.to_string())?;
    encoded.map(Bytes::from).map_err(|error| error.to_string())
}

/// Decodes a state beside the async threads.
async fn decode(data: Bytes) -> Result<ClusterState, String> {
    let decoded = blocking("decode a snapshot", move || codec::from_bytes(&data)).await;
    decoded.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}
