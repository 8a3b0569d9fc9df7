//! The replicated log: openraft with RocksDB below and gRPC between the nodes.
//!
//! A command's way through it:
//! ```text
//! propose -> proposals   commands that arrive together share an entry
//!         -> openraft    the leader's log, the followers' logs (network -> service), a majority
//!         -> log_store   each log on disk before it counts (store: RocksDB, synced)
//!         -> state_machine   applied to the shared state, in order; now and then a snapshot, and the log is purged
//! leadership             who leads, read off openraft's metrics
//! loyalty                when a node may stand for election
//! ```
//! Invariants: those of [`Consensus`]; in addition, of one term there is at most one leader, and it is one run of its
//! process, so the term fences; a node whose disk fails stops taking part and says so through [`RaftLog::fatal`].

mod leadership;
mod log_store;
mod loyalty;
mod members;
mod network;
mod options;
mod proposals;
mod service;
mod state_machine;
mod store;
mod store_error;
mod store_options;
mod types;

#[cfg(test)]
mod store_tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use openraft::error::{InitializeError, RaftError};
use thalweg_common::clock::SystemClock;
use thalweg_common::task_scope::TaskScope;
use thalweg_common::{codec, limits};
use thalweg_proto::transport::Dialer;
use tokio::sync::{Mutex, mpsc, oneshot, watch};

pub use self::options::RaftOptions;
pub use self::service::{RaftEndpoint, RaftServer};
pub use self::store_error::StoreError;

use self::leadership::Observer;
use self::log_store::LogStore;
use self::loyalty::{Guard, Heard, Loyalty};
use self::network::Network;
use self::proposals::{Proposal, Proposer, no_majority, unavailable};
use self::state_machine::StateMachine;
use self::store::{Closed, Store, store_path};
use self::types::{Raft, RaftMetrics};
use super::{Consensus, Leadership, Members, Node, NodeId, ProposeError, SharedState};
use crate::cluster::{Command, Outcome};

/// How long the log's tasks and files may take to come to an end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// Why a node of the replicated log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    /// The options contradict each other or the system.
    #[error("the job manager's options cannot work: {reason}")]
    Options {
        /// Which ones, and what to change.
        reason: String,
    },
    /// The log's files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Raft found the log unusable.
    #[error("the replicated log cannot start from {}: {reason}", path.display())]
    Start {
        /// The directory of the log.
        path: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// How far the log of a node is. For people, metrics and tests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogStatus {
    /// The node's term.
    pub term: u64,
    /// Index of the last entry on disk.
    pub last_index: Option<u64>,
    /// Index of the last entry that was applied.
    pub applied_index: Option<u64>,
    /// Index up to which the last snapshot reaches.
    pub snapshot_index: Option<u64>,
    /// Index up to which the log was purged.
    pub purged_index: Option<u64>,
    /// Members that vote.
    pub voters: Vec<NodeId>,
    /// Members that are catching up and do not vote yet.
    pub learners: Vec<NodeId>,
}

/// One node of the replicated log.
pub struct RaftLog {
    id: NodeId,
    raft: Raft,
    heard: Heard,
    state: SharedState,
    proposals: mpsc::Sender<Proposal>,
    propose_timeout: Duration,
    leadership: watch::Receiver<Leadership>,
    fatal: watch::Receiver<Option<String>>,
    scope: TaskScope,
    /// Taken by the first shutdown.
    closed: Mutex<Option<Closed>>,
}

impl RaftLog {
    /// Starts the node: from its disk if it has been a member before; else as a founder of a new cluster, or waiting to
    /// be added if `join`. Its tasks run in a child of `parent`.
    ///
    /// It takes part once the gRPC server with [`RaftLog::raft_server`] listens at the given address.
    ///
    /// # Errors
    /// See [`ConsensusError`].
    pub async fn open(options: RaftOptions, parent: &TaskScope) -> Result<Self, ConsensusError> {
        options.check()?;
        let path = store_path(&options.data_dir);
        let (store, closed) = Store::open(path.clone(), options.id).await?;
        store.relinquish_leadership(options.id).await?;
        let state = SharedState::default();
        let state_machine = StateMachine::recover(store.clone(), state.clone()).await?;
        let start = |reason: String| ConsensusError::Start { path: path.clone(), reason };
        let raft = Raft::new(
            options.id,
            Arc::new(options.raft_config()),
            Network::new(options.id, options.address.clone(), Dialer::new(options.security.clone())),
            LogStore::new(store),
            state_machine,
        )
        .await
        .map_err(|fatal| start(fatal.to_string()))?;
        if let Err(reason) = enter(&raft, &options).await {
            close(&raft, closed).await;
            return Err(start(reason));
        }
        Ok(Self::run(options, raft, state, closed, parent.child("raft")))
    }

    fn run(options: RaftOptions, raft: Raft, state: SharedState, closed: Closed, scope: TaskScope) -> Self {
        let propose_timeout = Duration::from_millis(options.propose_timeout_ms);
        let (leadership_sender, leadership) = watch::channel(Leadership::default());
        let (fatal_sender, fatal) = watch::channel(None);
        let (proposals, queue) = mpsc::channel(limits::ACTOR_MAILBOX);
        let observer = Observer {
            metrics: raft.metrics(),
            quorum_lease: options.quorum_lease(),
            leadership: leadership_sender,
            fatal: fatal_sender,
        };
        let proposer = Proposer {
            raft: raft.clone(),
            proposals: queue,
            leadership: leadership.clone(),
            limit: propose_timeout,
        };
        let heard = Heard::new(SystemClock::shared());
        let loyalty = Loyalty::new(options.heartbeat_ms, options.election_min_ms);
        let guard = Guard { raft: raft.clone(), heard: heard.clone(), loyalty };
        scope.spawn("loyalty", guard.run(scope.token()));
        scope.spawn("leadership", observer.run(scope.token()));
        scope.spawn("proposals", proposer.run(scope.token()));
        let closed = Mutex::new(Some(closed));
        Self {
            id: options.id,
            raft,
            heard,
            state,
            proposals,
            propose_timeout,
            leadership,
            fatal,
            scope,
            closed,
        }
    }

    /// The service that the other job managers talk to; to be added to this job manager's gRPC server.
    ///
    /// The server has to set `TCP_NODELAY` on the connections that it accepts: without it answers may wait for 40 ms, which
    /// is nearly a heartbeat's interval.
    #[must_use]
    pub fn raft_server(&self) -> RaftServer {
        RaftEndpoint::server(self.id, self.raft.clone(), self.heard.clone())
    }

    /// Waits until the node has stopped because it cannot go on, such as after an error of its disk, and returns the
    /// reason; the program should exit with it. Never returns otherwise. Cancel-safe.
    pub async fn fatal(&self) -> String {
        let mut fatal = self.fatal.clone();
        let reason = fatal.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }

    /// How far the log is.
    #[must_use]
    pub fn status(&self) -> LogStatus {
        status(&self.raft.metrics().borrow())
    }

    /// Waits until the log is as far as `reached` wants and returns how far it is then; `None` if the node stops before.
    /// Cancel-safe.
    pub async fn when(&self, reached: impl Fn(&LogStatus) -> bool) -> Option<LogStatus> {
        let mut metrics = self.raft.metrics();
        loop {
            let now = status(&metrics.borrow_and_update());
            if reached(&now) {
                return Some(now);
            }
            metrics.changed().await.ok()?;
        }
    }
}

fn status(metrics: &RaftMetrics) -> LogStatus {
    let membership = metrics.membership_config.membership();
    LogStatus {
        term: metrics.current_term,
        last_index: metrics.last_log_index,
        applied_index: metrics.last_applied.map(|id| id.index),
        snapshot_index: metrics.snapshot.map(|id| id.index),
        purged_index: metrics.purged.map(|id| id.index),
        voters: membership.voter_ids().collect(),
        learners: membership.learner_ids().collect(),
    }
}

/// Founds the cluster, unless the node is to join one. Every founder does so with the same members, and whoever is
/// already part of it leaves it at that.
async fn enter(raft: &Raft, options: &RaftOptions) -> Result<(), String> {
    if !options.join {
        match raft.initialize(options.founders()).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    members::settle_address(raft, options.id, Node { address: options.address.clone() }).await
}

/// Stops Raft and waits until its files are closed, so that the node can be started again in the same process.
async fn close(raft: &Raft, closed: Closed) {
    if let Err(error) = raft.shutdown().await {
        tracing::warn!(%error, "the replicated log did not stop cleanly");
    }
    // The sender goes with the last user of the files, so what arrives is always an error.
    if tokio::time::timeout(SHUTDOWN_GRACE, closed).await.is_err() {
        tracing::warn!("the replicated log's files are still in use after {SHUTDOWN_GRACE:?}");
    }
}

#[async_trait]
impl Consensus for RaftLog {
    async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        let bytes = match codec::to_bytes(&command) {
            Ok(bytes) => bytes.len(),
            Err(error) => return Err(ProposeError::Refused { reason: error.to_string() }),
        };
        if bytes > limits::RAFT_MAX_COMMAND_BYTES {
            return Err(ProposeError::Refused {
                reason: format!(
                    "the command has {bytes} bytes, but the replicated log takes at most {}; make the job's plan, its \
                     arguments or its configuration smaller",
                    limits::RAFT_MAX_COMMAND_BYTES
                ),
            });
        }
        let (reply, answer) = oneshot::channel();
        let proposal = Proposal { command, bytes, reply };
        let proposed = async {
            let stopped = || unavailable("the job manager is shutting down");
            self.proposals.send(proposal).await.map_err(|_| stopped())?;
            answer.await.map_err(|_| stopped())?
        };
        tokio::time::timeout(self.propose_timeout, proposed)
            .await
            .unwrap_or_else(|_| Err(no_majority(self.propose_timeout)))
    }

    fn state(&self) -> &SharedState {
        &self.state
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    fn members(&self) -> Members {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.membership_config.nodes().map(|(id, node)| (*id, node.clone())).collect()
    }

    fn is_voter(&self, id: NodeId) -> bool {
        self.raft.metrics().borrow().membership_config.membership().voter_ids().any(|voter| voter == id)
    }

    async fn add_member(&self, id: NodeId, node: Node) -> Result<(), ProposeError> {
        members::add(&self.raft, id, node).await
    }

    async fn remove_member(&self, id: NodeId) -> Result<(), ProposeError> {
        members::remove(&self.raft, id).await
    }

    async fn shutdown(&self) {
        if let Err(error) = self.scope.shutdown(SHUTDOWN_GRACE).await {
            tracing::warn!(%error, "the replicated log's tasks are still running");
        }
        if let Some(closed) = self.closed.lock().await.take() {
            close(&self.raft, closed).await;
        }
    }
}
