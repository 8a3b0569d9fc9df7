//! The replicated log of commands, as the rest of the job manager sees it.
//!
//! On a command's way this is the step "Raft log -> apply". Everything that a new leader must know goes through
//! [`Consensus::propose`]; the outcome is what [`ClusterState::apply`] answered on this node. There are two logs:
//! [`local::LocalLog`] (one node, in memory: local mode and tests) and `raft::RaftLog` (openraft on RocksDB).
//!
//! Invariants: a command is applied exactly once on every node and in the same order; `propose` returns `Ok` only for
//! a command that a majority has on disk; state that a reader sees never goes back.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::cluster::{ClusterState, Command, Outcome};

pub mod local;
#[cfg(feature = "raft")]
pub mod raft;

/// A job manager's number in the cluster, chosen by the operator (`jobmanager.id`), never reused.
pub type NodeId = u64;

/// A job manager as the others reach it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Node {
    /// `host:port` of its gRPC server (Raft, jobs and task managers share the port).
    pub address: String,
}

/// Who leads, as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The Raft term. Messages to task managers carry it; lower terms are refused there.
    pub term: u64,
    /// Whether this node is the leader and has applied every command of earlier terms.
    pub is_leader: bool,
    /// The leader as far as known.
    pub leader: Option<(NodeId, Node)>,
}

/// Why a proposal was not accepted.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum ProposeError {
    /// Ask the leader instead.
    #[error("this job manager is not the leader; {}", match leader { Some(address) => format!("the leader is {address}"), None => "no leader is elected at the moment, retry shortly".to_string() })]
    NotLeader {
        /// The leader's address, when known.
        leader: Option<String>,
    },
    /// The log cannot take commands: shutting down, no majority, or its storage failed. The command may still be
    /// committed later if it was on its way, so whoever retries must be able to tell that it was done already.
    #[error("the replicated log is unavailable: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
    /// This can never be done as it was asked; nothing was changed and retrying is of no use.
    #[error("refused: {reason}")]
    Refused {
        /// What is wrong with it and what to do instead.
        reason: String,
    },
}

/// The members of the cluster: voters and learners with their addresses.
pub type Members = BTreeMap<NodeId, Node>;

/// The applied state, shared with readers. The version grows with every applied command.
#[derive(Clone)]
pub struct SharedState {
    state: Arc<RwLock<ClusterState>>,
    version: Arc<watch::Sender<u64>>,
}

impl Default for SharedState {
    fn default() -> Self {
        Self::new(ClusterState::default())
    }
}

impl SharedState {
    /// Shares `state`.
    pub fn new(state: ClusterState) -> Self {
        Self { state: Arc::new(RwLock::new(state)), version: Arc::new(watch::Sender::new(0)) }
    }

    /// A read lock on the state. Hold it briefly and never across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, ClusterState> {
        self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Tells of every change after this call.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Applies one command. Only the log implementations call this.
    pub(crate) fn apply(&self, command: Command) -> Outcome {
        let outcome = self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner).apply(command);
        self.version.send_modify(|version| *version += 1);
        outcome
    }

    /// Replaces the whole state by a snapshot's. Only the log implementations call this.
    #[cfg(feature = "raft")]
    pub(crate) fn replace(&self, state: ClusterState) {
        *self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner) = state;
        self.version.send_modify(|version| *version += 1);
    }
}

/// A replicated log of [`Command`]s over [`ClusterState`].
#[async_trait]
pub trait Consensus: Send + Sync + 'static {
    /// Appends `command`, waits until it is committed and applied here, and returns what `apply` answered.
    ///
    /// # Errors
    /// See [`ProposeError`]. After `NotLeader` nothing was changed here; after `Unavailable` the outcome is unknown.
    async fn propose(&self, command: Command) -> Result<Outcome, ProposeError>;

    /// The state as applied on this node.
    fn state(&self) -> &SharedState;

    /// Who leads; changes are signalled. `is_leader` turns true only after the state holds all earlier commands.
    fn leadership(&self) -> watch::Receiver<Leadership>;

    /// The members of the cluster.
    fn members(&self) -> Members;

    /// Whether a member votes; one that does not is still catching up.
    fn is_voter(&self, id: NodeId) -> bool {
        self.members().contains_key(&id)
    }

    /// Adds a job manager: it first catches up as a learner, then votes. Adding a member again changes nothing.
    ///
    /// # Errors
    /// See [`ProposeError`]; a member that does not catch up in time remains a learner and can be added again.
    async fn add_member(&self, id: NodeId, node: Node) -> Result<(), ProposeError>;

    /// Removes a job manager. Removing one that is not a member changes nothing.
    ///
    /// # Errors
    /// See [`ProposeError`].
    async fn remove_member(&self, id: NodeId) -> Result<(), ProposeError>;

    /// Stops taking part, flushes and closes the storage.
    async fn shutdown(&self);
}
