//! The types that openraft is built from, and short names for its generic ones.
//!
//! A log entry carries a batch of commands, because an entry is what costs a round trip and an fsync on a majority; its
//! answer is the outcome of each command, in the same order. Entries of Raft's own (blank ones that start a term,
//! memberships) have no outcome. A snapshot is the encoded cluster state.

use bytes::Bytes;

use crate::cluster::{Command, Outcome};
use crate::consensus::{Node, NodeId};

openraft::declare_raft_types!(
    /// Raft over batches of cluster commands.
    pub(crate) TypeConfig:
        D = Vec<Command>,
        R = Vec<Outcome>,
        NodeId = NodeId,
        Node = Node,
        SnapshotData = Bytes,
);

pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type EntryPayload = openraft::EntryPayload<TypeConfig>;
pub(crate) type LogId = openraft::LogId<NodeId>;
pub(crate) type LogState = openraft::LogState<TypeConfig>;
pub(crate) type Raft = openraft::Raft<TypeConfig>;
pub(crate) type RaftMetrics = openraft::RaftMetrics<NodeId, Node>;
pub(crate) type Snapshot = openraft::Snapshot<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<NodeId, Node>;
pub(crate) type StorageError = openraft::StorageError<NodeId>;
pub(crate) type StorageIOError = openraft::StorageIOError<NodeId>;
pub(crate) type StoredMembership = openraft::StoredMembership<NodeId, Node>;
pub(crate) type Vote = openraft::Vote<NodeId>;
