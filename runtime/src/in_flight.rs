//! Records on their way at an unaligned barrier: what one task adds to a checkpoint of what the barrier has overtaken.
//!
//! On a record's way a barrier overtakes in two places. Leaving a task, it passes what the output keeps because the channel is full:
//! the sender's snapshot has these records. Arriving at a task, it counts as soon as it is seen in its channel's queue, and not when
//! its turn comes: the receiver's snapshot has what is in front of it there. In between, in the channel itself, nothing changes
//! its place.
//!
//! Invariants: every record that was sent before the barrier is, at the barrier, either behind its receiver or in exactly one of
//! these two places; a snapshot is complete only if all who had to record something have said that they are through.

mod divide;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thalweg_common::clock::SharedClock;
use thalweg_common::id::{ChannelId, EdgeId};
use tokio::sync::oneshot;

use crate::event::Barrier;
use crate::exchange::StoredBatch;

pub(crate) use divide::{Restored, Route, divide};

/// The records of a task's channels that a barrier has overtaken, in the order of each channel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct InFlight {
    /// How many subtasks the task's vertex had.
    pub parallelism: u32,
    /// On their way to the task: sent, and not read.
    pub inputs: BTreeMap<ChannelId, Vec<StoredBatch>>,
    /// Not sent yet, because the channel was full.
    pub outputs: BTreeMap<ChannelId, Vec<StoredBatch>>,
    /// How many channels led from the task over each edge on which something was not sent.
    pub receivers: BTreeMap<EdgeId, u32>,
}

impl InFlight {
    /// Whether nothing was overtaken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.outputs.is_empty()
    }

    /// Its size, encoded.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let batches = self.inputs.values().chain(self.outputs.values()).flatten();
        batches.map(|batch| batch.bytes() as u64).sum()
    }
}

/// When barriers overtake.
#[derive(Debug, Clone)]
pub(crate) struct Overtakes {
    /// Time since the trigger in which they keep their place.
    pub(crate) after: Duration,
    pub(crate) clock: SharedClock,
}

impl Overtakes {
    /// In how much time the barrier overtakes; now, if that is zero.
    pub(crate) fn due_in(&self, barrier: &Barrier) -> Duration {
        if self.after.is_zero() {
            return Duration::ZERO;
        }
        let since_trigger_ms = self.clock.now_ms().saturating_sub(barrier.timestamp_ms);
        self.after.saturating_sub(Duration::from_millis(u64::try_from(since_trigger_ms).unwrap_or(0)))
    }
}

/// What is being recorded for one snapshot of one task.
#[derive(Debug)]
struct Recording {
    in_flight: InFlight,
    /// Parts that are not through.
    open: usize,
    /// Absent once it was given up.
    done: Option<oneshot::Sender<InFlight>>,
}

/// One who has something to record: the gate of a task, or one of its outputs. Dropping it gives the snapshot up.
#[derive(Debug)]
pub(crate) struct Part {
    /// Absent once it is through.
    recording: Option<Arc<Mutex<Recording>>>,
}

/// Begins to record. The snapshot is complete when this part and all others that come of it are done.
pub(crate) fn record(parallelism: u32) -> (Part, Recorded) {
    let (done, recorded) = oneshot::channel();
    let in_flight = InFlight { parallelism, ..InFlight::default() };
    let recording = Recording { in_flight, open: 1, done: Some(done) };
    (Part { recording: Some(Arc::new(Mutex::new(recording))) }, Recorded(recorded))
}

impl Part {
    /// Another part of the same snapshot.
    pub(crate) fn another(&self) -> Self {
        if let Some(mut recording) = self.recording() {
            recording.open += 1;
        }
        Self { recording: self.recording.clone() }
    }

    /// This batch is on its way to the task.
    pub(crate) fn input(&self, channel: ChannelId, batch: StoredBatch) {
        if let Some(mut recording) = self.recording() {
            recording.in_flight.inputs.entry(channel).or_default().push(batch);
        }
    }

    /// This batch has not been sent yet, on one of so many channels.
    pub(crate) fn output(&self, channel: ChannelId, channels: usize, batch: StoredBatch) {
        if let Some(mut recording) = self.recording() {
            let receivers = u32::try_from(channels).unwrap_or(u32::MAX);
            recording.in_flight.receivers.insert(channel.edge, receivers);
            recording.in_flight.outputs.entry(channel).or_default().push(batch);
        }
    }

    /// Nothing is to be added any more.
    pub(crate) fn done(mut self) {
        let Some(recording) = self.recording.take() else { return };
        let mut recording = lock(&recording);
        recording.open -= 1;
        if recording.open == 0
            && let Some(done) = recording.done.take()
        {
            // Nobody waits for it any more if the worker ends.
            let _ = done.send(std::mem::take(&mut recording.in_flight));
        }
    }

    fn recording(&self) -> Option<MutexGuard<'_, Recording>> {
        self.recording.as_deref().map(lock)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(recording) = self.recording.take() {
            let mut recording = lock(&recording);
            recording.done = None;
            recording.in_flight = InFlight::default();
        }
    }
}

/// It is whole whenever it is unlocked, so a panic elsewhere does not spoil it.
fn lock(recording: &Mutex<Recording>) -> MutexGuard<'_, Recording> {
    recording.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What will have been recorded.
pub(crate) struct Recorded(oneshot::Receiver<InFlight>);

/// The checkpoint was given up before all was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint was given up, or the task ended, before the records on their way were recorded")]
pub(crate) struct NotRecorded;

impl Recorded {
    /// Waits until all is recorded.
    pub(crate) async fn wait(self) -> Result<InFlight, NotRecorded> {
        self.0.await.map_err(|_| NotRecorded)
    }

    /// What was recorded, if all was.
    #[cfg(test)]
    pub(crate) fn try_take(&mut self) -> Result<Option<InFlight>, NotRecorded> {
        match self.0.try_recv() {
            Ok(in_flight) => Ok(Some(in_flight)),
            Err(oneshot::error::TryRecvError::Empty) => Ok(None),
            Err(oneshot::error::TryRecvError::Closed) => Err(NotRecorded),
        }
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Recorded")
    }
}

impl PartialEq for Recorded {
    /// Each is one of a kind.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::batch::Batch;

    const CHANNEL: ChannelId = ChannelId { edge: 1, from: 2, to: 3 };

    fn batch(record: u64) -> StoredBatch {
        StoredBatch::of(&Batch::from(vec![record]))
    }

    #[test]
    fn a_snapshot_is_complete_when_all_parts_are() {
        let (first, mut recorded) = record(7);
        let second = first.another();
        first.input(CHANNEL, batch(1));
        first.done();
        assert_eq!(recorded.try_take(), Ok(None));
        second.output(CHANNEL, 4, batch(2));
        let third = second.another();
        second.done();
        assert_eq!(recorded.try_take(), Ok(None));
        third.done();
        let in_flight = recorded.try_take().unwrap().unwrap();
        assert_eq!(in_flight.bytes(), 2 * batch(1).bytes() as u64);
        assert_eq!((in_flight.parallelism, in_flight.receivers), (7, [(CHANNEL.edge, 4)].into()));
        assert_eq!(in_flight.inputs[&CHANNEL], [batch(1)]);
        assert_eq!(in_flight.outputs[&CHANNEL], [batch(2)]);
    }

    #[test]
    fn a_part_that_is_dropped_gives_the_snapshot_up() {
        let (first, mut recorded) = record(1);
        drop(first.another());
        first.input(CHANNEL, batch(1));
        first.done();
        assert_eq!(recorded.try_take(), Err(NotRecorded));
    }

    #[test]
    fn a_barrier_overtakes_after_its_time() {
        let clock = std::sync::Arc::new(thalweg_common::clock::ManualClock::new(1_000));
        let barrier = Barrier { id: 1, timestamp_ms: 990, is_final: false, is_savepoint: false };
        let overtakes = |after_ms| Overtakes { after: Duration::from_millis(after_ms), clock: clock.clone() };
        assert_eq!(overtakes(0).due_in(&barrier), Duration::ZERO);
        assert_eq!(overtakes(10).due_in(&barrier), Duration::ZERO);
        assert_eq!(overtakes(15).due_in(&barrier), Duration::from_millis(5));
        let later = Barrier { timestamp_ms: 2_000, ..barrier };
        assert_eq!(overtakes(15).due_in(&later), Duration::from_millis(15), "its clock is ahead of ours");
    }
}
