//! Who leads, read off Raft's metrics: a pure function and the task that publishes its changes.
//!
//! Invariants: `is_leader` is true only when an entry of the node's own term is applied here, and with it every command of
//! earlier terms; a leader that has not heard from a majority for a while no longer calls itself one (the terms it hands
//! out are refused anyway, but it should stop trying). Of one term there is at most one leader.

use std::time::Duration;

use openraft::ServerState;
use openraft::error::Fatal;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::types::RaftMetrics;
use crate::consensus::{Leadership, NodeId};

/// What `metrics` mean for everyone outside the log. A leader without an answer from a majority for longer than
/// `quorum_lease` does not count.
pub(crate) fn leadership(metrics: &RaftMetrics, quorum_lease: Duration) -> Leadership {
    let own_term_applied = metrics.last_applied.is_some_and(|id| id.leader_id.term == metrics.current_term);
    let in_touch =
        metrics.millis_since_quorum_ack.is_some_and(|millis| Duration::from_millis(millis) <= quorum_lease);
    let is_leader = metrics.state == ServerState::Leader && own_term_applied && in_touch;
    let members = metrics.membership_config.membership();
    let leader = metrics
        .current_leader
        .filter(|&id| id != metrics.id || in_touch)
        .and_then(|id| Some((id, members.get_node(&id)?.clone())));
    Leadership { term: metrics.current_term, is_leader, leader }
}

/// Why the node stopped by itself, if it did. Looked at only until it is told to stop.
pub(crate) fn failure(metrics: &RaftMetrics) -> Option<String> {
    match &metrics.running_state {
        Ok(()) => None,
        Err(Fatal::StorageError(error)) => Some(error.to_string()),
        Err(Fatal::Panicked | Fatal::Stopped) => Some(STOPPED.to_string()),
    }
}

/// The end of a log that nobody stopped.
const STOPPED: &str = "the replicated log stopped because of a fault of the job manager; restart it, and please report the \
                       panic in its log";

/// Publishes what the metrics say, until the node stops or `cancelled`.
pub(crate) struct Observer {
    pub(crate) metrics: watch::Receiver<RaftMetrics>,
    pub(crate) quorum_lease: Duration,
    pub(crate) leadership: watch::Sender<Leadership>,
    pub(crate) fatal: watch::Sender<Option<String>>,
}

impl Observer {
    pub(crate) async fn run(mut self, cancelled: CancellationToken) {
        loop {
            let (now, failure) = {
                let metrics = self.metrics.borrow_and_update();
                (leadership(&metrics, self.quorum_lease), failure(&metrics))
            };
            if let Some(reason) = failure {
                return self.fail(reason);
            }
            self.publish(now);
            let running = tokio::select! {
                biased;
                () = cancelled.cancelled() => return self.resign(),
                changed = self.metrics.changed() => changed.is_ok(),
            };
            if !running && self.metrics.borrow().running_state.is_ok() {
                // A panic takes Raft's core away without a last word.
                return self.fail(STOPPED.to_string());
            }
        }
    }

    fn fail(&self, reason: String) {
        self.resign();
        self.fatal.send_replace(Some(reason));
    }

    fn resign(&self) {
        let term = self.leadership.borrow().term;
        self.publish(Leadership { term, ..Leadership::default() });
    }

    fn publish(&self, now: Leadership) {
        self.leadership.send_if_modified(|published| {
            if *published == now {
                return false;
            }
            log_change(published, &now);
            *published = now;
            true
        });
    }
}

fn log_change(before: &Leadership, now: &Leadership) {
    let leader_id =
        |leadership: &Leadership| -> Option<NodeId> { leadership.leader.as_ref().map(|(id, _)| *id) };
    if now.is_leader && !before.is_leader {
        tracing::info!(term = now.term, "this job manager leads now");
    } else if before.is_leader && !now.is_leader {
        tracing::warn!(term = now.term, "this job manager no longer leads");
    } else if leader_id(before) != leader_id(now) {
        match &now.leader {
            Some((id, node)) => {
                tracing::info!(term = now.term, leader = id, address = %node.address, "leader known");
            }
            None => tracing::info!(term = now.term, "no leader known"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;
    use std::sync::Arc;

    use openraft::{CommittedLeaderId, Membership};

    use super::*;
    use crate::consensus::Node;
    use crate::consensus::raft::types::{LogId, StoredMembership};

    const LEASE: Duration = Duration::from_secs(1);

    fn log_id(term: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term, 0), index)
    }

    /// Metrics of node 1 of nodes 1 to 3, leading in term 5 with everything applied.
    fn leading() -> RaftMetrics {
        let nodes: BTreeMap<NodeId, Node> =
            (1..=3).map(|id| (id, Node { address: format!("host{id}:1") })).collect();
        let mut metrics = RaftMetrics::new_initial(1);
        metrics.state = ServerState::Leader;
        metrics.current_term = 5;
        metrics.current_leader = Some(1);
        metrics.last_applied = Some(log_id(5, 9));
        metrics.millis_since_quorum_ack = Some(20);
        metrics.membership_config =
            Arc::new(StoredMembership::new(Some(log_id(0, 0)), Membership::from(nodes)));
        metrics
    }

    #[test]
    fn a_leader_with_its_term_applied_and_a_majority_leads() {
        let leadership = leadership(&leading(), LEASE);
        assert!(leadership.is_leader);
        assert_eq!(leadership.term, 5);
        assert_eq!(leadership.leader.unwrap(), (1, Node { address: "host1:1".into() }));
    }

    #[test]
    fn it_does_not_lead_before_its_own_term_is_applied() {
        let metrics = RaftMetrics { last_applied: Some(log_id(4, 9)), ..leading() };
        let leadership = leadership(&metrics, LEASE);
        assert!(!leadership.is_leader);
        assert_eq!(leadership.leader.unwrap().0, 1, "it is the one to ask all the same");
    }

    #[test]
    fn it_does_not_lead_without_a_majority() {
        for millis_since_quorum_ack in [None, Some(1_001)] {
            let metrics = RaftMetrics { millis_since_quorum_ack, ..leading() };
            assert_eq!(leadership(&metrics, LEASE), Leadership { term: 5, is_leader: false, leader: None });
        }
    }

    #[test]
    fn a_follower_knows_the_leader_and_its_address() {
        let metrics = RaftMetrics {
            state: ServerState::Follower,
            current_leader: Some(2),
            millis_since_quorum_ack: None,
            ..leading()
        };
        let leadership = leadership(&metrics, LEASE);
        assert!(!leadership.is_leader);
        assert_eq!(leadership.leader.unwrap(), (2, Node { address: "host2:1".into() }));
    }

    #[test]
    fn a_leader_that_was_removed_from_the_cluster_is_nobody_to_ask() {
        let metrics = RaftMetrics { state: ServerState::Learner, current_leader: Some(4), ..leading() };
        assert_eq!(leadership(&metrics, LEASE).leader, None);
    }

    fn observer(
        metrics: watch::Receiver<RaftMetrics>,
    ) -> (Observer, watch::Receiver<Leadership>, watch::Receiver<Option<String>>) {
        let (leadership, published) = watch::channel(Leadership::default());
        let (fatal, failed) = watch::channel(None);
        (Observer { metrics, quorum_lease: LEASE, leadership, fatal }, published, failed)
    }

    #[tokio::test]
    async fn a_node_that_stops_by_itself_gives_the_reason_and_leads_no_more() {
        for error in [Fatal::Panicked, Fatal::Stopped] {
            let (metrics, receiver) = watch::channel(leading());
            let (observer, leadership, failed) = observer(receiver);
            metrics.send_replace(RaftMetrics { running_state: Err(error), ..leading() });
            observer.run(CancellationToken::new()).await;
            assert!(failed.borrow().as_ref().unwrap().contains("restart it"));
            assert!(!leadership.borrow().is_leader);
        }
    }

    #[tokio::test]
    async fn a_core_that_vanishes_is_a_failure() {
        let (metrics, receiver) = watch::channel(leading());
        let (observer, mut leadership, failed) = observer(receiver);
        let vanishing = async {
            leadership.wait_for(|now| now.is_leader).await.unwrap();
            drop(metrics);
        };
        tokio::join!(observer.run(CancellationToken::new()), vanishing);
        assert!(failed.borrow().is_some());
        assert!(!leadership.borrow().is_leader);
    }

    #[tokio::test]
    async fn a_node_that_is_told_to_stop_has_not_failed() {
        let (_metrics, receiver) = watch::channel(leading());
        let (observer, leadership, failed) = observer(receiver);
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        observer.run(cancelled).await;
        assert_eq!(*failed.borrow(), None);
        assert_eq!(*leadership.borrow(), Leadership { term: 5, ..Leadership::default() });
    }
}
