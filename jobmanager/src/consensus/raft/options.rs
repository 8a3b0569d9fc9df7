//! What a node of the replicated log is told when it starts, checked before anything is touched.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use thalweg_common::limits;
use thalweg_common::security::Security;

use super::ConsensusError;
use super::network::check_address;
use crate::consensus::{Members, Node, NodeId};

/// How to start a node of the replicated log.
#[derive(Debug, Clone)]
pub struct RaftOptions {
    /// This job manager's number, never used by another one before.
    pub id: NodeId,
    /// `host:port` at which the others reach it.
    pub address: String,
    /// Where the job manager keeps its data; the log gets a directory of its own inside.
    pub data_dir: PathBuf,
    /// The members of a new cluster, the same on each of them; this node may be left out. Ignored once the node has a log.
    pub peers: BTreeMap<NodeId, Node>,
    /// Do not found a cluster: wait until the leader of a running one is told to add this node.
    pub join: bool,
    /// How the others are reached.
    pub security: Security,
    /// Interval of the leader's heartbeats, in milliseconds.
    pub heartbeat_ms: u64,
    /// Shortest random wait of a follower for a leader before it stands for election, in milliseconds.
    pub election_min_ms: u64,
    /// Longest such wait, and time for which followers stay loyal to a silent leader, in milliseconds.
    pub election_max_ms: u64,
    /// The log is compacted to a snapshot after this many entries.
    pub snapshot_after_entries: u64,
    /// Longest wait for a majority to accept a command, in milliseconds.
    pub propose_timeout_ms: u64,
}

impl RaftOptions {
    /// A new cluster of this node alone, with the default times.
    #[must_use]
    pub fn new(id: NodeId, address: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            id,
            address: address.into(),
            data_dir: data_dir.into(),
            peers: BTreeMap::new(),
            join: false,
            security: Security::default(),
            heartbeat_ms: 50,
            election_min_ms: 150,
            election_max_ms: 300,
            snapshot_after_entries: 5_000,
            propose_timeout_ms: limits::RAFT_PROPOSE_TIMEOUT_MS,
        }
    }

    /// The members that found the cluster: the peers and this node.
    pub(super) fn founders(&self) -> Members {
        let mut founders = self.peers.clone();
        founders.insert(self.id, Node { address: self.address.clone() });
        founders
    }

    /// A leader that has not heard from a majority for this long stops calling itself one: its followers have elected
    /// another one by then.
    pub(super) fn quorum_lease(&self) -> Duration {
        Duration::from_millis(4 * self.election_max_ms)
    }

    pub(super) fn check(&self) -> Result<(), ConsensusError> {
        let wrong = |reason: String| Err(ConsensusError::Options { reason });
        if let Some(listed) = self.peers.get(&self.id).filter(|listed| listed.address != self.address) {
            return wrong(format!(
                "the peers list job manager {} at {}, but this one is reached at {}; give both the same address",
                self.id, listed.address, self.address
            ));
        }
        if self.founders().len() > limits::MAX_JOB_MANAGERS {
            return wrong(format!("a cluster has at most {} job managers", limits::MAX_JOB_MANAGERS));
        }
        for node in self.founders().values() {
            check_address(&node.address).or_else(wrong)?;
        }
        if self.heartbeat_ms == 0
            || self.heartbeat_ms >= self.election_min_ms
            || self.election_min_ms >= self.election_max_ms
        {
            return wrong(format!(
                "heartbeat {} ms, election {} to {} ms: they must be in this order, each shorter than the next",
                self.heartbeat_ms, self.election_min_ms, self.election_max_ms
            ));
        }
        if self.snapshot_after_entries == 0 {
            return wrong("the number of entries between snapshots must be at least 1".to_string());
        }
        Ok(())
    }

    pub(super) fn raft_config(&self) -> openraft::Config {
        openraft::Config {
            cluster_name: "thalweg".to_string(),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: self.election_min_ms,
            election_timeout_max: self.election_max_ms,
            max_payload_entries: limits::RAFT_APPEND_ENTRIES,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_after_entries),
            // A follower that was away for a moment catches up from the log ...
            max_in_snapshot_log_to_keep: self.snapshot_after_entries / 5,
            // ... and one that is further behind than two snapshots are apart gets the snapshot.
            replication_lag_threshold: self.snapshot_after_entries.saturating_mul(2),
            ..openraft::Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn options() -> RaftOptions {
        RaftOptions::new(1, "host1:1", "/nowhere")
    }

    #[test]
    fn the_defaults_are_valid_for_us_and_for_openraft() {
        options().check().unwrap();
        options().raft_config().validate().unwrap();
    }

    #[test]
    fn founders_include_the_node_itself() {
        let peers = BTreeMap::from([(2, Node { address: "host2:1".into() })]);
        let founders = RaftOptions { peers, ..options() }.founders();
        assert_eq!(founders.keys().copied().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(founders[&1].address, "host1:1");
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_reason() {
        let elsewhere = BTreeMap::from([(1, Node { address: "elsewhere:1".into() })]);
        let no_port = BTreeMap::from([(2, Node { address: "host2".into() })]);
        let many = (1..=100).map(|id| (id, Node { address: format!("host{id}:1") })).collect();
        let cases = [
            (RaftOptions { peers: elsewhere, ..options() }, "same address"),
            (RaftOptions { peers: no_port, ..options() }, "host:port"),
            (RaftOptions { peers: many, ..options() }, "at most"),
            (RaftOptions { address: "host1".into(), ..options() }, "host:port"),
            (RaftOptions { heartbeat_ms: 150, ..options() }, "in this order"),
            (RaftOptions { heartbeat_ms: 0, ..options() }, "in this order"),
            (RaftOptions { election_min_ms: 300, ..options() }, "in this order"),
            (RaftOptions { snapshot_after_entries: 0, ..options() }, "at least 1"),
        ];
        for (options, wanted) in cases {
            let error = options.check().unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
