//! Barriers that overtake, as a gate sees them: found in a queue before their turn, and what is in front of them recorded.
//!
//! On a barrier's way this is the end of a channel. The gate is told of a barrier when it comes into a queue. When it overtakes
//! (at once, or some time after its trigger), the task takes its snapshot although there is more to read in front of it.
//! Then each channel is open until its barrier is in its queue: what is read of an open channel is recorded, and when the barrier is
//! seen, so is what waits in front of it, where it is. The barrier keeps its place in the queue and means nothing there.
//!
//! Invariants: a batch is recorded once or not at all; it is recorded if and only if it was sent before the barrier and is read
//! behind the snapshot; who reads is never held up.

use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::id::{ChannelId, CheckpointId};
use thalweg_common::record::Record;

use super::{Input, InputGate};
use crate::batch::Batch;
use crate::event::{Barrier, Event};
use crate::exchange::aligner::Alignment;
use crate::exchange::channel::{Receiver, Waiting};
use crate::exchange::ready::ChannelSet;
use crate::exchange::stored::StoredBatch;
use crate::in_flight::{Overtakes, Part};
use crate::snapshot::SnapshotBuilder;

/// The state of a gate in whose channels barriers overtake.
pub(super) struct Overtaking {
    overtakes: Overtakes,
    /// Channels in which a barrier may be that was not looked at.
    unseen: ChannelSet,
    /// The newest barrier that was seen, until it overtakes or its checkpoint is aligned or dead.
    announced: Option<Barrier>,
    /// The last checkpoint whose barrier has overtaken.
    current: Option<(CheckpointId, Stage)>,
}

/// How far a checkpoint is whose barrier has overtaken.
enum Stage {
    /// The task is to take its snapshot. These channels had delivered the barrier in its place.
    Due { arrived: ChannelSet },
    /// In these channels the barrier is still to come.
    Recording { open: ChannelSet, part: Part },
    /// It will never complete.
    Dead,
}

impl Overtaking {
    fn new(overtakes: Overtakes, channels: usize) -> Self {
        // What came before the gate has announced nothing.
        Self { overtakes, unseen: ChannelSet::all(channels), announced: None, current: None }
    }

    /// A barrier was seen.
    fn announce(&mut self, barrier: Barrier) {
        if barrier.may_overtake() && self.announced.is_none_or(|announced| announced.id < barrier.id) {
            self.announced = Some(barrier);
        }
    }

    /// The barrier that is to overtake now.
    fn take_due(&mut self) -> Option<Barrier> {
        self.announced.take_if(|announced| self.overtakes.due_in(announced).is_zero())
    }

    /// Whether the barrier of the checkpoint that is recorded is still to come in `channel`.
    fn is_open(&self, channel: usize) -> Option<(CheckpointId, &Part)> {
        match &self.current {
            Some((id, Stage::Recording { open, part })) if open.contains(channel) => Some((*id, part)),
            _ => None,
        }
    }

    /// The barrier has come in `channel`.
    fn close(&mut self, channel: usize) {
        let Some((_, Stage::Recording { open, .. })) = &mut self.current else { return };
        open.remove(channel);
        if open.len() == 0
            && let Some((_, Stage::Recording { part, .. })) = self.current.take()
        {
            part.done();
        }
    }

    /// A batch is read.
    pub(super) fn on_batch<T: Record>(&self, channel: usize, id: ChannelId, batch: &Batch<T>) {
        if let Some((_, part)) = self.is_open(channel) {
            part.input(id, StoredBatch::of(batch));
        }
    }

    /// A barrier comes in its turn.
    pub(super) fn on_barrier(&mut self, channel: usize, barrier: Barrier, alignment: Alignment) {
        match self.is_open(channel).map(|(id, _)| id) {
            Some(id) if id == barrier.id => self.close(channel),
            // Its own barrier was left out, because its checkpoint is dead.
            Some(id) if id < barrier.id => self.abort(id),
            _ => {}
        }
        match alignment {
            Alignment::Started | Alignment::Continued => self.announce(barrier),
            Alignment::Completed(_) => {
                self.announced.take_if(|announced| announced.id <= barrier.id);
            }
            Alignment::Ignored => {}
        }
    }

    /// The checkpoint will never complete.
    pub(super) fn abort(&mut self, checkpoint: CheckpointId) {
        self.announced.take_if(|announced| announced.id == checkpoint);
        if let Some((id, stage)) = &mut self.current
            && *id == checkpoint
        {
            *stage = Stage::Dead;
        }
    }
}

impl<T: Record> InputGate<T> {
    /// Lets barriers overtake.
    #[must_use]
    pub(crate) fn overtaking(mut self, overtakes: Overtakes) -> Self {
        self.overtaking = Some(Box::new(Overtaking::new(overtakes, self.receivers.len())));
        self
    }

    /// Gives these batches out before everything else, each as if it had come in its channel.
    ///
    /// # Errors
    /// When there is no such channel.
    pub(crate) fn restoring(mut self, batches: Vec<(ChannelId, StoredBatch)>) -> Result<Self, Failure> {
        for (id, batch) in batches {
            let channel = self.receivers.iter().position(|receiver| receiver.id() == id);
            let channel = channel.ok_or_else(|| no_such_channel(id))?;
            self.restored.push_back((channel, batch));
        }
        Ok(self)
    }

    /// For a task that cannot read: what it has to know all the same.
    ///
    /// # Errors
    /// When a channel has failed.
    pub(crate) fn look(&mut self) -> Result<Option<Input<T>>, Failure> {
        self.attend()
    }

    /// When a barrier that was seen will overtake, if nothing else happens before.
    pub(crate) fn overtakes_in(&self) -> Option<Duration> {
        let overtaking = self.overtaking.as_ref()?;
        overtaking.announced.as_ref().map(|barrier| overtaking.overtakes.due_in(barrier))
    }

    /// The task takes its snapshot at `barrier`: if that has overtaken, records what is in front of it.
    pub(crate) fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) {
        let Some(overtaking) = &mut self.overtaking else { return };
        let Some((id, stage)) = overtaking.current.take_if(|(id, _)| *id == barrier.id) else { return };
        let part = snapshot.part();
        // Otherwise it is dropped, because the checkpoint is dead.
        let Stage::Due { arrived } = stage else { return };
        for (channel, batch) in &self.restored {
            part.input(self.receivers[*channel].id(), batch.clone());
        }
        let mut open = ChannelSet::new(self.receivers.len());
        for (channel, receiver) in self.receivers.iter_mut().enumerate() {
            if !arrived.contains(channel) && !record_in_front(receiver, id, &part) {
                open.insert(channel);
            }
        }
        if open.len() == 0 {
            part.done();
        } else {
            overtaking.current = Some((id, Stage::Recording { open, part }));
        }
    }

    /// Looks at barriers that have come, and returns the one that overtakes now.
    pub(super) fn attend_to_barriers(&mut self, has_come: bool) -> Option<Input<T>> {
        let overtaking = self.overtaking.as_mut()?;
        if has_come {
            self.arrivals.take_barriers(&mut overtaking.unseen);
        }
        while let Some(channel) = overtaking.unseen.first() {
            overtaking.unseen.remove(channel);
            let receiver = &mut self.receivers[channel];
            receiver.look(|waiting| {
                if let Waiting::Event(Event::Barrier(barrier)) = waiting {
                    overtaking.announce(barrier);
                }
                true
            });
            if let Some((id, part)) = overtaking.is_open(channel)
                && record_in_front(receiver, id, part)
            {
                overtaking.close(channel);
            }
        }
        let barrier = overtaking.take_due()?;
        let arrived = self.aligner.overtake(barrier)?;
        overtaking.current = Some((barrier.id, Stage::Due { arrived }));
        let alignment = self.end_alignment();
        Some(Input::Barrier { barrier, alignment })
    }
}

/// Records what waits in front of the barrier of this checkpoint, if that is in the queue.
fn record_in_front<T: Record>(receiver: &mut Receiver<T>, checkpoint: CheckpointId, part: &Part) -> bool {
    let is_it = |waiting: &Waiting<'_, T>| matches!(waiting, Waiting::Event(Event::Barrier(barrier)) if barrier.id == checkpoint);
    let mut has_come = false;
    receiver.look(|waiting| {
        has_come = is_it(&waiting);
        !has_come
    });
    if !has_come {
        return false;
    }
    let id = receiver.id();
    receiver.look(|waiting| {
        match &waiting {
            Waiting::Batch(batch) => part.input(id, StoredBatch::of(batch)),
            Waiting::Frame(payload) => part.input(id, StoredBatch::of_frame(payload)),
            Waiting::Event(_) => {}
        }
        !is_it(&waiting)
    });
    true
}

fn no_such_channel(id: ChannelId) -> Failure {
    let message = format!("the checkpoint holds records on their way over {id}, where there is no channel");
    Failure::internal(message).permanent()
}

#[cfg(test)]
#[path = "overtaking_tests.rs"]
mod tests;
