//! A log of one node in memory: local mode and tests.
//!
//! On a command's way it stands where `raft::RaftLog` stands in a cluster, without disk and network: proposing is
//! applying. Invariants: the node leads in term 1 from its creation to its shutdown; nothing is applied afterwards.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Consensus, Leadership, Members, Node, NodeId, ProposeError, SharedState};
use crate::cluster::{Command, Outcome};

/// The number of the only node.
const LOCAL_ID: NodeId = 1;

/// The term in which it leads.
const LOCAL_TERM: u64 = 1;

/// The log of a cluster of one job manager that forgets everything when the process ends.
pub struct LocalLog {
    node: Node,
    state: SharedState,
    leadership: watch::Sender<Leadership>,
    closed: AtomicBool,
}

impl LocalLog {
    /// A log whose node is reached at `address` (`host:port`), leading at once.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        let node = Node { address: address.into() };
        let leadership =
            Leadership { term: LOCAL_TERM, is_leader: true, leader: Some((LOCAL_ID, node.clone())) };
        Self {
            node,
            state: SharedState::default(),
            leadership: watch::Sender::new(leadership),
            closed: AtomicBool::new(false),
        }
    }
}

#[async_trait]
impl Consensus for LocalLog {
    async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(ProposeError::Unavailable { reason: "the job manager is shutting down".to_string() });
        }
        Ok(self.state.apply(command))
    }

    fn state(&self) -> &SharedState {
        &self.state
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn members(&self) -> Members {
        Members::from([(LOCAL_ID, self.node.clone())])
    }

    async fn add_member(&self, id: NodeId, _node: Node) -> Result<(), ProposeError> {
        Err(ProposeError::Refused {
            reason: format!(
                "job manager {id} cannot be added to local mode, which has one job manager inside the job's own \
                 process; start a cluster with the jobmanager program instead"
            ),
        })
    }

    async fn remove_member(&self, id: NodeId) -> Result<(), ProposeError> {
        if id != LOCAL_ID {
            return Ok(());
        }
        Err(ProposeError::Refused { reason: "local mode cannot remove its only job manager".to_string() })
    }

    async fn shutdown(&self) {
        self.closed.store(true, Ordering::Release);
        self.leadership.send_replace(Leadership { term: LOCAL_TERM, ..Leadership::default() });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[tokio::test]
    async fn it_leads_from_the_start_and_applies_at_once() {
        let log = LocalLog::new("localhost:1");
        let leadership = log.leadership().borrow().clone();
        assert!(leadership.is_leader);
        assert_eq!((leadership.term, leadership.leader.unwrap().0), (LOCAL_TERM, LOCAL_ID));

        let changes = log.state().changes();
        log.propose(Command::Noop).await.unwrap();
        log.propose(Command::Noop).await.unwrap();
        assert_eq!(*changes.borrow(), 2);
    }

    #[tokio::test]
    async fn it_takes_nothing_after_its_shutdown() {
        let log = LocalLog::new("localhost:1");
        log.shutdown().await;
        assert!(!log.leadership().borrow().is_leader);
        let error = log.propose(Command::Noop).await.unwrap_err();
        assert!(matches!(error, ProposeError::Unavailable { .. }), "{error}");
        assert_eq!(*log.state().changes().borrow(), 0);
    }

    #[tokio::test]
    async fn its_only_member_stays() {
        let log = LocalLog::new("localhost:1");
        assert!(matches!(log.add_member(2, Node::default()).await, Err(ProposeError::Refused { .. })));
        assert!(matches!(log.remove_member(LOCAL_ID).await, Err(ProposeError::Refused { .. })));
        assert_eq!(log.remove_member(7).await, Ok(()));
        assert_eq!(log.members().len(), 1);
    }
}
