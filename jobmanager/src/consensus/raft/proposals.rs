//! The way of a command into the log: proposals that arrive while an entry is on its way share the next one.
//!
//! Stands between [`Consensus::propose`](crate::consensus::Consensus::propose) and openraft. An entry costs a round trip
//! and an fsync on a majority; commands that share it share the cost, so many proposers at once wait for two entries at
//! most and not for one each. Invariants: commands enter the log in the order in which they were proposed; one entry is
//! in flight at a time; a proposal that nobody waits for any more is not sent; every wait is bounded.

use std::time::Duration;

use openraft::error::{ClientWriteError, ForwardToLeader, RaftError};
use thalweg_common::limits;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::types::Raft;
use crate::cluster::{Command, Outcome};
use crate::consensus::{Leadership, Node, NodeId, ProposeError};

/// One command on its way.
pub(crate) struct Proposal {
    pub(crate) command: Command,
    /// Its encoded size.
    pub(crate) bytes: usize,
    pub(crate) reply: oneshot::Sender<Result<Outcome, ProposeError>>,
}

/// Takes proposals, one entry's worth at a time, to Raft.
pub(crate) struct Proposer {
    pub(crate) raft: Raft,
    pub(crate) proposals: mpsc::Receiver<Proposal>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) limit: Duration,
}

impl Proposer {
    pub(crate) async fn run(mut self, cancelled: CancellationToken) {
        let mut carried = None;
        loop {
            let first = match carried.take() {
                Some(proposal) => proposal,
                None => tokio::select! {
                    biased;
                    () = cancelled.cancelled() => return,
                    received = self.proposals.recv() => match received {
                        Some(proposal) => proposal,
                        None => return,
                    },
                },
            };
            let (batch, next) = gather(first, || self.proposals.try_recv().ok());
            carried = next;
            self.send(batch, &cancelled).await;
        }
    }

    async fn send(&mut self, batch: Vec<Proposal>, cancelled: &CancellationToken) {
        let (commands, replies): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .filter(|proposal| !proposal.reply.is_closed())
            .map(|p| (p.command, p.reply))
            .unzip();
        if commands.is_empty() {
            return;
        }
        let written = tokio::select! {
            biased;
            () = cancelled.cancelled() => Err(unavailable("the job manager is shutting down")),
            written = self.raft.client_write(commands) => match written {
                Ok(response) => Ok(response.data),
                Err(error) => Err(refusal(error)),
            },
            () = lost(&mut self.leadership) => Err(unavailable(
                "this job manager lost the leadership while the command was on its way; it may have been accepted, so \
                 look before repeating it",
            )),
            () = tokio::time::sleep(self.limit) => Err(no_majority(self.limit)),
        };
        answer(replies, written);
    }
}

/// The batch that starts with `first`, and a proposal that did not fit into it.
fn gather(first: Proposal, mut next: impl FnMut() -> Option<Proposal>) -> (Vec<Proposal>, Option<Proposal>) {
    let mut bytes = first.bytes;
    let mut batch = vec![first];
    while batch.len() < limits::RAFT_ENTRY_COMMANDS {
        let Some(proposal) = next() else { break };
        bytes += proposal.bytes;
        if bytes > limits::RAFT_APPEND_BYTES {
            return (batch, Some(proposal));
        }
        batch.push(proposal);
    }
    (batch, None)
}

/// Completes when a node that led leads no more.
async fn lost(leadership: &mut watch::Receiver<Leadership>) {
    // An error means that nobody publishes any more: the node is shutting down, which ends the write by itself.
    let led = leadership.wait_for(|now| now.is_leader).await.is_ok();
    if !led || leadership.wait_for(|now| !now.is_leader).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn answer(
    replies: Vec<oneshot::Sender<Result<Outcome, ProposeError>>>,
    written: Result<Vec<Outcome>, ProposeError>,
) {
    // A proposer that went away in the meantime does not want its answer: that is no error.
    match written {
        Ok(outcomes) if outcomes.len() == replies.len() => {
            for (reply, outcome) in replies.into_iter().zip(outcomes) {
                let _ = reply.send(Ok(outcome));
            }
        }
        Ok(outcomes) => {
            let error = unavailable(&format!(
                "{} commands had {} outcomes, which is a fault of the job manager; please report it",
                replies.len(),
                outcomes.len()
            ));
            for reply in replies {
                let _ = reply.send(Err(error.clone()));
            }
        }
        Err(error) => {
            for reply in replies {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }
}

/// openraft's refusal of a write in our words.
pub(crate) fn refusal(error: RaftError<NodeId, ClientWriteError<NodeId, Node>>) -> ProposeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => not_leader(forward),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => unavailable(&format!(
            "the members cannot be changed now: {error}; retry when the change under way is done"
        )),
        RaftError::Fatal(fatal) => unavailable(&format!("this job manager's log has stopped: {fatal}")),
    }
}

pub(crate) fn not_leader(forward: ForwardToLeader<NodeId, Node>) -> ProposeError {
    ProposeError::NotLeader { leader: forward.leader_node.map(|node| node.address) }
}

pub(crate) fn unavailable(reason: &str) -> ProposeError {
    ProposeError::Unavailable { reason: reason.to_string() }
}

pub(crate) fn no_majority(limit: Duration) -> ProposeError {
    unavailable(&format!(
        "no majority of the job managers has confirmed the command within {} ms; check that they run and reach each \
         other",
        limit.as_millis()
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn proposals(sizes: &[usize]) -> std::vec::IntoIter<Proposal> {
        let proposal = |&bytes| Proposal { command: Command::Noop, bytes, reply: oneshot::channel().0 };
        sizes.iter().map(proposal).collect::<Vec<_>>().into_iter()
    }

    fn gathered(sizes: &[usize]) -> (Vec<usize>, Option<usize>) {
        let mut queue = proposals(sizes);
        let first = queue.next().unwrap();
        let (batch, carried) = gather(first, || queue.next());
        (batch.iter().map(|proposal| proposal.bytes).collect(), carried.map(|proposal| proposal.bytes))
    }

    #[test]
    fn what_waits_goes_together() {
        assert_eq!(gathered(&[1]), (vec![1], None));
        assert_eq!(gathered(&[1, 2, 3]), (vec![1, 2, 3], None));
    }

    #[test]
    fn an_entry_is_bounded_in_bytes_and_the_proposal_that_does_not_fit_is_not_lost() {
        let half = limits::RAFT_APPEND_BYTES / 2;
        assert_eq!(gathered(&[half, half, 7, 8]), (vec![half, half], Some(7)));
        let large = limits::RAFT_APPEND_BYTES + 1;
        assert_eq!(gathered(&[large]), (vec![large], None), "one that is too large alone goes alone");
        assert_eq!(gathered(&[large, 1]), (vec![large], Some(1)));
    }

    #[test]
    fn an_entry_is_bounded_in_commands() {
        let (batch, carried) = gathered(&vec![1; limits::RAFT_ENTRY_COMMANDS + 5]);
        assert_eq!((batch.len(), carried), (limits::RAFT_ENTRY_COMMANDS, None));
    }

    #[tokio::test]
    async fn losing_the_leadership_is_noticed_only_after_having_it() {
        let (sender, mut receiver) = watch::channel(Leadership::default());
        let mut waiting = std::pin::pin!(lost(&mut receiver));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        sender.send_replace(Leadership { is_leader: true, ..Leadership::default() });
        assert!(futures_util::poll!(&mut waiting).is_pending());
        sender.send_replace(Leadership::default());
        assert!(futures_util::poll!(&mut waiting).is_ready());
    }
}
