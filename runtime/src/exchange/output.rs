//! The output of a chain to one edge: partitions batches over channels, keeps what a full channel does not take.
//!
//! On a record's way this is the last step of a task. Invariants: records and events of one channel leave in the order
//! in which they came; no record is ever dropped; a barrier is behind every record that was processed before it, or those in front
//! of which it has left are recorded in the snapshot (see `in_flight`). What is kept is bounded by its caller, who reads no more input while [`flush`](Link::flush) says `Blocked`.

use std::sync::Arc;

use thalweg_common::Timestamp;
use thalweg_common::clock::{Deadline, deadline_in};
use thalweg_common::failure::Failure;
use thalweg_common::id::{ChannelId, CheckpointId};
use thalweg_common::record::Record;

use super::MAX_SPARE_RECORDS;
use super::channel::{Sender, Sent};
use super::note::Note;
use super::partitioner::Partitioner;
use super::queue::{Message, MessageQueue};
use super::stored::StoredBatch;
use super::traffic::Traffic;
use super::waker::TaskWaker;
use crate::batch::Batch;
use crate::event::{Barrier, Event, WatermarkStatus};
use crate::in_flight::{Overtakes, Part, Route};
use crate::link::{Flushed, Link};
use crate::snapshot::SnapshotBuilder;

/// The output to one edge.
pub struct Output<T> {
    routing: Routing<T>,
    channels: Vec<Channel<T>>,
    /// Records that do not fill a batch yet, by channel. Apart from the channels, because this is where each record is put.
    buffers: Vec<Batch<T>>,
    /// Scratch of the partitioner.
    targets: Vec<u32>,
    traffic: Arc<Traffic>,
    /// Where barriers overtake.
    overtakes: Option<Overtakes>,
    /// A barrier that waits behind records in some channels, and will overtake them if that takes long.
    held: Option<Held>,
}

/// A barrier that is not in all channels yet.
struct Held {
    barrier: Barrier,
    overtakes_at: Deadline,
    part: Part,
}

enum Routing<T> {
    /// Each record takes one channel.
    Partitioned(Box<dyn Partitioner<T>>),
    /// Each record takes all channels.
    Broadcast,
}

struct Channel<T> {
    sender: Sender<T>,
    /// What the sender did not take, oldest first. The channel's buffer comes behind it.
    pending: MessageQueue<Batch<T>>,
    /// Size of the last batch: how much room the next buffer gets.
    last_records: usize,
}

impl<T: Record> Output<T> {
    /// An output whose partitioner chooses among these channels. The partitioner's channel `i` is `senders[i]`; for a hash
    /// edge these are the receiving subtasks in their order. With one channel the partitioner is not asked.
    #[must_use]
    pub fn new(partitioner: Box<dyn Partitioner<T>>, senders: Vec<Sender<T>>) -> Self {
        Self::build(Routing::Partitioned(partitioner), senders)
    }

    /// An output that sends every record on all of these channels.
    #[must_use]
    pub fn broadcast(senders: Vec<Sender<T>>) -> Self {
        Self::build(Routing::Broadcast, senders)
    }

    fn build(routing: Routing<T>, senders: Vec<Sender<T>>) -> Self {
        Self {
            routing,
            buffers: senders.iter().map(|_| Batch::default()).collect(),
            channels: senders.into_iter().map(Channel::new).collect(),
            targets: Vec::new(),
            traffic: Arc::default(),
            overtakes: None,
            held: None,
        }
    }

    /// Says which task to wake when a channel that was full has room again.
    pub fn set_waker(&mut self, waker: &TaskWaker) {
        for channel in &mut self.channels {
            channel.sender.set_waker(waker.clone());
        }
    }

    /// What has gone into this output (records) and left for other processes (bytes), readable from other threads.
    #[must_use]
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// Where the notes of the receivers are, by channel.
    pub(crate) fn notes(&self) -> Vec<Note> {
        self.channels.iter().map(|channel| channel.sender.note()).collect()
    }

    /// Lets barriers overtake what is kept here.
    #[must_use]
    pub(crate) fn overtaking(mut self, overtakes: Option<Overtakes>) -> Self {
        self.overtakes = overtakes;
        self
    }

    /// Sends this batch before everything else. Called in order, before the first record.
    ///
    /// # Errors
    /// When there is no such channel, or the batch has records of another type.
    pub(crate) fn restore(&mut self, route: Route, batch: &StoredBatch) -> Result<(), Failure> {
        let Route::Channel(id) = route else { return self.process(&mut batch.decode()?) };
        let Some(channel) = self.channels.iter_mut().find(|channel| channel.sender.id() == id) else {
            return Err(no_such_channel(id));
        };
        channel.pending.push_batch(batch.decode()?);
        Ok(())
    }

    /// Passes a barrier on that may overtake: at once, or in its place until its time has come.
    fn send_overtaking(
        &mut self,
        overtakes: &Overtakes,
        barrier: Barrier,
        snapshot: &mut SnapshotBuilder,
    ) -> Result<(), Failure> {
        let due_in = overtakes.due_in(&barrier);
        if !due_in.is_zero() {
            self.send_event(Event::Barrier(barrier))?;
            if self.channels.iter().all(|channel| !channel.pending.has_barrier_of(barrier.id)) {
                return Ok(());
            }
            snapshot.overtakes_in(due_in);
            let overtakes_at = deadline_in(&overtakes.clock, due_in);
            self.held = Some(Held { barrier, overtakes_at, part: snapshot.part() });
            return Ok(());
        }
        self.send_all_buffers()?;
        let part = snapshot.part();
        let channels = self.channels.len();
        self.channels.iter_mut().try_for_each(|channel| channel.overtake(barrier, channels, &part))?;
        part.done();
        self.count(0);
        Ok(())
    }

    /// Lets the barrier that is held overtake if its time has come.
    fn settle_held(&mut self) -> Result<(), Failure> {
        let Some(held) = self.held.take() else { return Ok(()) };
        let (id, channels) = (held.barrier.id, self.channels.len());
        let mut waiting: Vec<_> =
            self.channels.iter_mut().filter(|channel| channel.pending.has_barrier_of(id)).collect();
        if !waiting.is_empty() && !held.overtakes_at.is_over() {
            self.held = Some(held);
            return Ok(());
        }
        let Held { barrier, part, .. } = held;
        waiting.iter_mut().try_for_each(|channel| channel.overtake(barrier, channels, &part))?;
        part.done();
        Ok(())
    }

    /// Puts each record into the buffer of its channel and sends the buffers that are full.
    fn partition(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        if let Routing::Partitioned(partitioner) = &mut self.routing {
            self.targets.clear();
            partitioner.select(batch.records(), self.channels.len(), &mut self.targets);
        }
        let channels = self.channels.len();
        let is_valid = self.targets.iter().all(|target| (*target as usize) < channels);
        if self.targets.len() != batch.len() || !is_valid {
            let records = batch.len();
            return Err(Failure::user(format!(
                "a partitioner did not choose one of {channels} channels for each of {records} records; it must append \
                 one number below {channels} per record"
            )));
        }
        for (channel, buffer) in self.channels.iter_mut().zip(&mut self.buffers) {
            channel.prepare(buffer);
        }
        batch.scatter(&self.targets, &mut self.buffers);
        self.send_full_buffers()
    }

    /// Sends the buffers that make a full batch, of whatever size that is for their channel.
    fn send_full_buffers(&mut self) -> Result<(), Failure> {
        self.send_buffers(|channel| channel.full_records())
    }

    /// Sends all records that wait.
    fn send_all_buffers(&mut self) -> Result<(), Failure> {
        self.send_buffers(|_| 1)
    }

    /// Sends the buffers that hold at least as many records as their channel says.
    fn send_buffers(&mut self, at_least: impl Fn(&Channel<T>) -> usize) -> Result<(), Failure> {
        for (channel, buffer) in self.channels.iter_mut().zip(&mut self.buffers) {
            if buffer.len() >= at_least(channel) {
                channel.send_buffer(buffer)?;
            }
        }
        Ok(())
    }

    /// Sends an event on all channels, behind all records that were processed.
    fn send_event(&mut self, event: Event) -> Result<(), Failure> {
        self.send_all_buffers()?;
        self.channels.iter_mut().try_for_each(|channel| channel.send_event(event))?;
        self.count(0);
        Ok(())
    }

    fn count(&mut self, records: u64) {
        let (mut bytes, mut credit, mut held_back) = (0, 0, 0);
        for channel in &mut self.channels {
            bytes += channel.sender.take_bytes();
            credit += channel.sender.credit();
            held_back += channel.pending.len();
        }
        self.traffic.add(records, bytes);
        self.traffic.set_credit(credit);
        self.traffic.set_held_back(held_back);
    }
}

impl<T: Record> Link<T> for Output<T> {
    fn process(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        if batch.is_empty() {
            return Ok(());
        }
        let records = batch.len() as u64;
        let Some((first, others)) = self.channels.split_first_mut() else {
            return Err(Failure::internal("an output has no channel to send its records on"));
        };
        if !others.is_empty() && matches!(self.routing, Routing::Partitioned(_)) {
            self.partition(batch)?;
        } else {
            for (channel, buffer) in others.iter_mut().zip(&mut self.buffers[1..]) {
                channel.prepare(buffer);
                buffer.append_copy(batch);
            }
            first.append(&mut self.buffers[0], batch);
            self.send_full_buffers()?;
        }
        self.count(records);
        Ok(())
    }

    fn watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure> {
        self.send_event(Event::Watermark(timestamp))
    }

    fn watermark_status(&mut self, status: WatermarkStatus) -> Result<(), Failure> {
        self.send_event(Event::Status(status))
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.send_event(Event::EndOfInput)
    }

    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        // The checkpoint of one that is still held is dead, and so is its snapshot.
        self.held = None;
        match self.overtakes.clone().filter(|_| barrier.may_overtake()) {
            Some(overtakes) => self.send_overtaking(&overtakes, barrier, snapshot),
            None => self.send_event(Event::Barrier(barrier)),
        }
    }

    fn completed(&mut self, _checkpoint: CheckpointId) -> Result<(), Failure> {
        Ok(())
    }

    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.held.take_if(|held| held.barrier.id == checkpoint);
        Ok(())
    }

    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure> {
        for channel in self.channels.iter_mut().filter(|channel| channel.is_blocked()) {
            channel.retry()?;
        }
        if self.held.is_some() {
            self.settle_held()?;
        }
        if partial {
            self.send_all_buffers()?;
        }
        self.count(0);
        let is_blocked = self.channels.iter().any(Channel::is_blocked);
        Ok(if is_blocked { Flushed::Blocked } else { Flushed::All })
    }
}

impl<T: Record> Channel<T> {
    fn new(sender: Sender<T>) -> Self {
        Self { sender, pending: MessageQueue::new(), last_records: 0 }
    }

    fn is_blocked(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Gives room to a buffer that has none: that of a batch which has come back, or as much as the last batch needed.
    fn prepare(&mut self, buffer: &mut Batch<T>) {
        if buffer.capacity() == 0 {
            let spare = self.sender.take_spare();
            *buffer = spare.unwrap_or_else(|| Batch::with_capacity(self.last_records.min(MAX_SPARE_RECORDS)));
        }
    }

    /// Takes a whole batch; without a copy if nothing waits before it.
    fn append(&mut self, buffer: &mut Batch<T>, batch: &mut Batch<T>) {
        if buffer.is_empty() {
            // The caller gets an empty buffer in exchange and fills it next time.
            self.prepare(buffer);
            std::mem::swap(buffer, batch);
        } else {
            buffer.append(batch);
        }
    }

    /// Records in a full batch for the receiver at the moment.
    fn full_records(&self) -> usize {
        Batch::<T>::FULL_RECORDS.min(self.sender.batch_records())
    }

    fn send_buffer(&mut self, buffer: &mut Batch<T>) -> Result<(), Failure> {
        self.last_records = buffer.len();
        let batch = std::mem::take(buffer);
        let full = self.full_records();
        if batch.len() < 2 * full || full == Batch::<T>::FULL_RECORDS {
            return self.send_batch(batch);
        }
        // A slow receiver gets in pieces what was read before that was known.
        batch.into_pieces(full).try_for_each(|piece| self.send_batch(piece))
    }

    fn send_batch(&mut self, batch: Batch<T>) -> Result<(), Failure> {
        if self.is_blocked() {
            self.pending.push_batch(batch);
            return Ok(());
        }
        if let Sent::Full(rest) = self.sender.try_send(batch)? {
            self.pending.push_batch(rest);
        }
        Ok(())
    }

    fn send_event(&mut self, event: Event) -> Result<(), Failure> {
        if self.is_blocked() {
            self.pending.push_event(event);
            return Ok(());
        }
        self.sender.send_event(event)
    }

    /// Sends the barrier in front of what is pending, which is recorded as far as the barrier had been behind it.
    /// `channels` is how many there are beside this one, and this one.
    fn overtake(&mut self, barrier: Barrier, channels: usize, part: &Part) -> Result<(), Failure> {
        let id = self.sender.id();
        for batch in self.pending.in_front_of(barrier.id) {
            part.output(id, channels, StoredBatch::of(batch));
        }
        self.pending.remove_barrier_of(barrier.id);
        self.sender.send_event(Event::Barrier(barrier))
    }

    /// Sends what is pending, as far as there is room.
    fn retry(&mut self) -> Result<(), Failure> {
        while let Some(message) = self.pending.pop() {
            match message {
                Message::Event(event) => self.sender.send_event(event)?,
                Message::Batch(batch) => {
                    if let Sent::Full(rest) = self.sender.try_send(batch)? {
                        self.pending.return_batch(rest);
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

fn no_such_channel(id: ChannelId) -> Failure {
    let message =
        format!("the checkpoint holds records that were to be sent over {id}, where there is no channel");
    Failure::internal(message).permanent()
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
