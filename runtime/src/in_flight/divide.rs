//! Records on their way, divided among the subtasks of another parallelism.
//!
//! Beside a record's way: between the snapshots that a subtask is given and the channels that it has now. Each subtask decides alone
//! what it takes, by the same rules. Invariants: of all subtasks that are given a snapshot whose key groups they have a part of,
//! exactly one takes each record; of a broadcast edge every subtask takes those of one former one; records of a key, and those
//! of a forward edge, keep their order.

use std::collections::BTreeMap;

use thalweg_common::failure::Failure;
use thalweg_common::graph::{Partitioning, Vertex};
use thalweg_common::id::{ChannelId, EdgeId, SubtaskId};
use thalweg_common::key_group::{groups_of, subtask_of};

use super::InFlight;
use crate::exchange::StoredBatch;
use crate::program::Program;

/// What one subtask restores.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Restored {
    /// On their way to it, each channel's in order.
    pub(crate) inputs: Vec<(ChannelId, StoredBatch)>,
    /// To be sent by it, by edge and in order.
    pub(crate) outputs: BTreeMap<EdgeId, Vec<(Route, StoredBatch)>>,
}

/// How a restored batch leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Over this channel, for which it was meant.
    Channel(ChannelId),
    /// Each record takes a channel as if it were new.
    Anew,
}

/// The subtasks of a vertex, as they share its key groups.
#[derive(Debug, Clone, Copy)]
struct Subtasks {
    parallelism: u32,
    max_parallelism: u32,
}

impl Subtasks {
    fn of(vertex: &Vertex) -> Self {
        Self { parallelism: vertex.parallelism, max_parallelism: vertex.max_parallelism }
    }

    /// The subtask that has the first key group of subtask `index` of `others`.
    fn keeper(self, index: u32, others: u32) -> u32 {
        let first = groups_of(index, others, self.max_parallelism).start;
        subtask_of(first, self.parallelism, self.max_parallelism)
    }

    /// Those that have key groups of subtask `index` of `others`.
    fn sharers(self, index: u32, others: u32) -> std::ops::RangeInclusive<u32> {
        let last = groups_of(index, others, self.max_parallelism).end.saturating_sub(1);
        self.keeper(index, others)..=subtask_of(last, self.parallelism, self.max_parallelism)
    }
}

/// Takes what belongs to a subtask from the snapshots that it was given.
///
/// # Errors
/// When the job has no such edges, or records cannot be decoded.
pub(crate) fn divide(
    program: &Program,
    subtask: SubtaskId,
    found: impl Iterator<Item = InFlight>,
) -> Result<Restored, Failure> {
    let Some(vertex) = program.graph.vertices.get(subtask.vertex as usize) else {
        return Ok(Restored::default());
    };
    let mut taker = Taker { program, subtask, vertex, taken: Restored::default() };
    for in_flight in found.filter(|in_flight| !in_flight.is_empty()) {
        taker.take(in_flight)?;
    }
    Ok(taker.taken)
}

struct Taker<'a> {
    program: &'a Program,
    subtask: SubtaskId,
    vertex: &'a Vertex,
    taken: Restored,
}

impl Taker<'_> {
    fn take(&mut self, in_flight: InFlight) -> Result<(), Failure> {
        let InFlight { parallelism, inputs, outputs, receivers } = in_flight;
        // Batches of each edge, counted to be shared evenly.
        let mut turns: BTreeMap<EdgeId, u32> = BTreeMap::new();
        for (channel, batches) in inputs {
            let turn = turns.entry(channel.edge).or_default();
            self.take_input(channel, batches, parallelism, turn)?;
        }
        for (channel, batches) in outputs {
            let receivers = receivers.get(&channel.edge).copied().unwrap_or_default();
            self.take_output(channel, batches, parallelism, receivers)?;
        }
        Ok(())
    }

    fn take_input(
        &mut self,
        channel: ChannelId,
        batches: Vec<StoredBatch>,
        parallelism: u32,
        turn: &mut u32,
    ) -> Result<(), Failure> {
        let code = self.program.edges.get(channel.edge as usize).ok_or_else(|| unknown(channel))?;
        let (own, index) = (Subtasks::of(self.vertex), self.subtask.index);
        let place = self.input_channel(channel)?;
        for batch in batches {
            let batch = match code.partitioning {
                // What others of as many subtasks had is theirs; their snapshots may be given for other reasons.
                _ if parallelism == own.parallelism => (channel.to == index).then_some(batch),
                Partitioning::Hash => code.owned_part(&batch, index, own.parallelism, own.max_parallelism)?,
                Partitioning::Broadcast => {
                    let former = Subtasks { parallelism, ..own }.keeper(index, own.parallelism);
                    (former == channel.to).then_some(batch)
                }
                Partitioning::Forward => (own.keeper(channel.to, parallelism) == index).then_some(batch),
                // Any reader can read any split.
                Partitioning::Rebalance | Partitioning::Rescale | Partitioning::Splits => {
                    let sharers = own.sharers(channel.to, parallelism);
                    let count = sharers.end() - sharers.start() + 1;
                    let sharer = sharers.start() + *turn % count;
                    *turn = turn.wrapping_add(1);
                    (sharer == index).then_some(batch)
                }
            };
            self.taken.inputs.extend(batch.map(|batch| (place, batch)));
        }
        Ok(())
    }

    /// The channel in which records come that had been in `channel`: if that is no more, any other one of its edge.
    fn input_channel(&self, channel: ChannelId) -> Result<ChannelId, Failure> {
        let channels = self.program.graph.channels_to(channel.edge, self.subtask.index);
        if channels.contains(&channel) {
            return Ok(channel);
        }
        let number = channel.from as usize % channels.len().max(1);
        channels.get(number).copied().ok_or_else(|| unknown(channel))
    }

    fn take_output(
        &mut self,
        channel: ChannelId,
        batches: Vec<StoredBatch>,
        parallelism: u32,
        receivers: u32,
    ) -> Result<(), Failure> {
        let edge = self.program.graph.edges.get(channel.edge as usize).ok_or_else(|| unknown(channel))?;
        let target = self.program.graph.vertices.get(edge.target as usize).ok_or_else(|| unknown(channel))?;
        let (own, index) = (Subtasks::of(self.vertex), self.subtask.index);
        if own.keeper(channel.from, parallelism) != index {
            return Ok(());
        }
        let channels = self.program.graph.channels_from(channel.edge, index);
        let is_same = parallelism == own.parallelism && receivers as usize == channels.len();
        let routes: Vec<Route> = if is_same && channels.contains(&channel) {
            vec![Route::Channel(channel)]
        } else if edge.partitioning == Partitioning::Broadcast {
            let former = Subtasks { parallelism: receivers, max_parallelism: target.max_parallelism };
            let inherits = |to: u32| former.keeper(to, target.parallelism) == channel.to;
            channels.into_iter().filter(|channel| inherits(channel.to)).map(Route::Channel).collect()
        } else {
            vec![Route::Anew]
        };
        let outputs = self.taken.outputs.entry(channel.edge).or_default();
        for batch in batches {
            outputs.extend(routes.iter().map(|route| (*route, batch.clone())));
        }
        Ok(())
    }
}

fn unknown(channel: ChannelId) -> Failure {
    let message =
        format!("the checkpoint holds records on their way over {channel}, where the job has no channel");
    Failure::internal(message).permanent()
}

#[cfg(test)]
#[path = "divide_tests.rs"]
mod tests;
