//! Job managers come and go: one at a time, through the log itself.
//!
//! Invariants: a new member catches up before it votes, so adding one never makes a majority harder to reach than it was;
//! the last voter stays; asking twice changes nothing the second time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::error::{CheckIsLeaderError, RaftError};
use openraft::{ChangeMembers, Membership, ServerState};
use thalweg_common::limits;

use super::network::check_address;
use super::proposals::{no_majority, not_leader, refusal, unavailable};
use super::types::Raft;
use crate::consensus::{Node, NodeId, ProposeError};

/// Longest wait for a new member to get everything it lacks.
const CATCH_UP: Duration = Duration::from_millis(limits::RAFT_CATCH_UP_TIMEOUT_MS);

/// Longest wait for a majority to accept a change.
const CHANGE: Duration = Duration::from_millis(limits::RAFT_PROPOSE_TIMEOUT_MS);

/// Adds a member; see [`Consensus::add_member`](crate::consensus::Consensus::add_member).
pub(crate) async fn add(raft: &Raft, id: NodeId, node: Node) -> Result<(), ProposeError> {
    let members = current(raft).await?;
    if votes(&members, id, &node)? {
        return Ok(());
    }
    let address = node.address.clone();
    let caught_up = tokio::time::timeout(CATCH_UP, raft.add_learner(id, node, true)).await;
    caught_up.map_err(|_| still_behind(id, &address))?.map_err(refusal)?;
    change(raft, ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await
}

/// Removes a member; see [`Consensus::remove_member`](crate::consensus::Consensus::remove_member).
pub(crate) async fn remove(raft: &Raft, id: NodeId) -> Result<(), ProposeError> {
    let members = current(raft).await?;
    match removal(&members, id)? {
        Some(removal) => change(raft, removal).await,
        None => Ok(()),
    }
}

/// Makes the cluster know this node by the address at which it has just been started.
///
/// A cluster of one just notes a new address. In a larger one the others would go on looking at the old one.
pub(crate) async fn settle_address(raft: &Raft, id: NodeId, node: Node) -> Result<(), String> {
    let members = raft.with_raft_state(|state| state.membership_state.effective().membership().clone()).await;
    let members = members.map_err(|fatal| fatal.to_string())?;
    let Some(known) = members.get_node(&id).filter(|known| known.address != node.address) else {
        return Ok(());
    };
    if members.voter_ids().any(|voter| voter != id) {
        return Err(format!(
            "the other job managers know job manager {id} at {}, but it was started at {}; start it at the old address, \
             or remove it from the cluster and add it with a new id and an empty data directory",
            known.address, node.address
        ));
    }
    let elected = raft.wait(Some(CHANGE)).state(ServerState::Leader, "the only voter elects itself").await;
    elected.map_err(|error| error.to_string())?;
    let moved = change(raft, ChangeMembers::SetNodes(BTreeMap::from([(id, node)]))).await;
    moved.map_err(|error| error.to_string())
}

/// Where the members know job manager `id`, if it says that it is somewhere else and cannot be there.
///
/// Only an only voter moves, see [`settle_address`]. Who is not known here may have become a member since.
pub(crate) fn known_elsewhere<'members>(
    members: &'members Membership<NodeId, Node>,
    id: NodeId,
    address: &str,
) -> Option<&'members str> {
    let known = members.get_node(&id).filter(|known| known.address != address)?;
    members.voter_ids().any(|voter| voter != id).then_some(known.address.as_str())
}

/// The members as the leader knows them: a follower's knowledge may be old.
async fn current(raft: &Raft) -> Result<Membership<NodeId, Node>, ProposeError> {
    let confirmed = tokio::time::timeout(CHANGE, raft.ensure_linearizable()).await;
    match confirmed.map_err(|_| no_majority(CHANGE))? {
        Ok(_) => Ok(raft.metrics().borrow().membership_config.membership().clone()),
        Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward))) => Err(not_leader(forward)),
        Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => Err(no_majority(CHANGE)),
        Err(RaftError::Fatal(fatal)) => {
            Err(unavailable(&format!("this job manager's log has stopped: {fatal}")))
        }
    }
}

async fn change(raft: &Raft, change: ChangeMembers<NodeId, Node>) -> Result<(), ProposeError> {
    let changed = tokio::time::timeout(CHANGE, raft.change_membership(change, false)).await;
    changed.map_err(|_| no_majority(CHANGE))?.map(drop).map_err(refusal)
}

fn still_behind(id: NodeId, address: &str) -> ProposeError {
    unavailable(&format!(
        "job manager {id} at {address} has not caught up within {} s; check that it runs with --join and that the others \
         reach it, then add it again",
        CATCH_UP.as_secs()
    ))
}

/// Whether the node to be added votes already; refused if it cannot become a member as it is described.
fn votes(members: &Membership<NodeId, Node>, id: NodeId, node: &Node) -> Result<bool, ProposeError> {
    let refused = |reason| Err(ProposeError::Refused { reason });
    if let Err(reason) = check_address(&node.address) {
        return refused(reason);
    }
    let nodes: BTreeMap<NodeId, &Node> = members.nodes().map(|(id, node)| (*id, node)).collect();
    if let Some(known) = nodes.get(&id).filter(|known| known.address != node.address) {
        return refused(format!(
            "job manager {id} is already a member, at {}; remove it first or choose another id",
            known.address
        ));
    }
    if let Some((other, _)) =
        nodes.iter().find(|&(&other, known)| other != id && known.address == node.address)
    {
        return refused(format!("{} is already the address of job manager {other}", node.address));
    }
    if !nodes.contains_key(&id) && nodes.len() >= limits::MAX_JOB_MANAGERS {
        return refused(format!("a cluster has at most {} job managers", limits::MAX_JOB_MANAGERS));
    }
    Ok(members.voter_ids().any(|voter| voter == id))
}

/// What removes the node; nothing if it is no member.
fn removal(
    members: &Membership<NodeId, Node>,
    id: NodeId,
) -> Result<Option<ChangeMembers<NodeId, Node>>, ProposeError> {
    let voters: BTreeSet<_> = members.voter_ids().collect();
    let node = BTreeSet::from([id]);
    if voters == node {
        let reason =
            format!("job manager {id} is the only one that votes; add another one first, or just stop it");
        return Err(ProposeError::Refused { reason });
    }
    Ok(if voters.contains(&id) {
        Some(ChangeMembers::RemoveVoters(node))
    } else if members.get_node(&id).is_some() {
        Some(ChangeMembers::RemoveNodes(node))
    } else {
        None
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn node(id: NodeId) -> Node {
        Node { address: format!("host{id}:1") }
    }

    /// Voters 1 to `voters`, and a learner after them.
    fn members(voters: NodeId) -> Membership<NodeId, Node> {
        let nodes: BTreeMap<_, _> = (1..=voters + 1).map(|id| (id, node(id))).collect();
        Membership::new(vec![(1..=voters).collect()], nodes)
    }

    #[test]
    fn who_votes_need_not_be_added_and_a_learner_must() {
        assert_eq!(votes(&members(3), 2, &node(2)), Ok(true));
        assert_eq!(votes(&members(3), 4, &node(4)), Ok(false));
        assert_eq!(votes(&members(3), 5, &node(5)), Ok(false));
    }

    #[test]
    fn a_node_that_cannot_be_added_is_refused_with_the_reason() {
        let cases = [
            (2, "elsewhere:1", "already a member, at host2:1"),
            (9, "host2:1", "address of job manager 2"),
            (9, "nonsense", "host:port"),
        ];
        for (id, address, wanted) in cases {
            let error = votes(&members(3), id, &Node { address: address.into() }).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
        let full = members(limits::MAX_JOB_MANAGERS as u64 - 1);
        assert!(votes(&full, 99, &node(99)).unwrap_err().to_string().contains("at most"));
        assert_eq!(votes(&full, 2, &node(2)), Ok(true));
    }

    #[test]
    fn a_member_is_where_it_is_known_unless_it_votes_alone() {
        let cases = [
            (3, 2, "host2:1", None),
            (3, 2, "elsewhere:1", Some("host2:1")),
            (3, 4, "elsewhere:1", Some("host4:1")),
            (3, 9, "elsewhere:1", None),
            (1, 1, "elsewhere:1", None),
            (1, 2, "elsewhere:1", Some("host2:1")),
        ];
        for (voters, id, address, wanted) in cases {
            assert_eq!(
                known_elsewhere(&members(voters), id, address),
                wanted,
                "{voters} voters: {id} at {address}"
            );
        }
        assert_eq!(known_elsewhere(&Membership::default(), 1, "host1:1"), None);
    }

    #[test]
    fn voters_and_learners_can_be_removed_but_not_the_last_voter() {
        assert_eq!(removal(&members(3), 2), Ok(Some(ChangeMembers::RemoveVoters(BTreeSet::from([2])))));
        assert_eq!(removal(&members(3), 4), Ok(Some(ChangeMembers::RemoveNodes(BTreeSet::from([4])))));
        assert_eq!(removal(&members(3), 7), Ok(None));
        assert!(removal(&members(1), 1).unwrap_err().to_string().contains("only one"));
    }
}
