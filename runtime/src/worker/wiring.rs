//! Connects the tasks of a deployment: which channel ends each of them gets.

use std::collections::BTreeMap;

use thalweg_common::failure::Failure;
use thalweg_common::graph::Edge;
use thalweg_common::id::{ChannelId, EdgeId, SubtaskId};

use super::deploy::Deployer;
use super::messages::Deployment;
use crate::erased::{AnyReceiver, AnySender};
use crate::exchange::OpenChannel;
use crate::program::EdgeCode;
use crate::record_type::Opening;

/// The channel ends of one task.
#[derive(Default)]
pub(super) struct Ends {
    /// By edge, then sender.
    pub(super) receivers: Vec<AnyReceiver>,
    /// By edge; in each by receiver.
    pub(super) outgoing: BTreeMap<EdgeId, Vec<Outgoing>>,
    /// Why some are missing.
    pub(super) defect: Option<Failure>,
}

/// A sending end, or what becomes one.
pub(super) enum Outgoing {
    Here(AnySender),
    Elsewhere(Opening),
}

/// The ends of all tasks of the deployment, by task.
pub(super) fn connect(deployer: &Deployer, deployment: &Deployment) -> BTreeMap<SubtaskId, Ends> {
    let ends = deployment.tasks.keys().map(|subtask| (*subtask, Ends::default())).collect();
    let mut wiring = Wiring { deployer, deployment, ends };
    let graph = &deployer.program.graph;
    for ((id, edge), code) in (0..).zip(&graph.edges).zip(&deployer.program.edges) {
        for channel in graph.channels(id) {
            wiring.connect(channel, edge, code);
        }
    }
    wiring.ends
}

/// No ends at all, for this reason.
pub(super) fn broken(deployment: &Deployment, failure: &Failure) -> BTreeMap<SubtaskId, Ends> {
    let broken = || Ends { defect: Some(failure.clone()), ..Ends::default() };
    deployment.tasks.keys().map(|subtask| (*subtask, broken())).collect()
}

struct Wiring<'a> {
    deployer: &'a Deployer,
    deployment: &'a Deployment,
    ends: BTreeMap<SubtaskId, Ends>,
}

impl Wiring<'_> {
    fn connect(&mut self, channel: ChannelId, edge: &Edge, code: &EdgeCode) {
        let from = SubtaskId { vertex: edge.source, index: channel.from };
        let to = SubtaskId { vertex: edge.target, index: channel.to };
        let operations = code.record_type.operations();
        match (self.ends.contains_key(&from), self.ends.contains_key(&to)) {
            (false, false) => {}
            (true, true) => {
                let (sender, receiver) = operations.local_channel(channel);
                self.send(from, channel, Ok(Outgoing::Here(sender)));
                self.receive(to, Ok(receiver));
            }
            (false, true) => {
                let receiver = operations.register(&self.deployer.server, self.deployment.region, channel);
                self.receive(to, receiver);
            }
            (true, false) => {
                let opening = self.address(to).map(|address| {
                    let Deployer { job_id, plan_fingerprint, client, .. } = self.deployer;
                    let (job_id, plan_fingerprint) = (*job_id, *plan_fingerprint);
                    let Deployment { region, attempt, .. } = *self.deployment;
                    let open = OpenChannel { job_id, region, attempt, channel, plan_fingerprint };
                    Outgoing::Elsewhere(operations.open(client.clone(), address, open))
                });
                self.send(from, channel, opening);
            }
        }
    }

    fn address(&self, subtask: SubtaskId) -> Result<String, Failure> {
        let address = self.deployment.remote.get(&subtask).cloned();
        address.ok_or_else(|| {
            Failure::internal(format!("the deployment does not say where task {subtask} runs"))
        })
    }

    fn send(&mut self, from: SubtaskId, channel: ChannelId, outgoing: Result<Outgoing, Failure>) {
        let Some(ends) = self.ends.get_mut(&from) else { return };
        match outgoing {
            Ok(outgoing) => ends.outgoing.entry(channel.edge).or_default().push(outgoing),
            Err(failure) => ends.defect = ends.defect.take().or(Some(failure)),
        }
    }

    fn receive(&mut self, to: SubtaskId, receiver: Result<AnyReceiver, Failure>) {
        let Some(ends) = self.ends.get_mut(&to) else { return };
        match receiver {
            Ok(receiver) => ends.receivers.push(receiver),
            Err(failure) => ends.defect = ends.defect.take().or(Some(failure)),
        }
    }
}
