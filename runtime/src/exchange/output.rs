//! The output of a chain to one edge: partitions batches over channels, keeps what a full channel does not take.
//!
//! On a record's way this is the last step of a task. Invariants: records and events of one channel leave in the order
//! in which they came; no record is ever dropped; a barrier is behind every record that was processed before it.
//! What is kept is bounded by its caller, who reads no more input while [`flush`](Link::flush) says `Blocked`.

use std::sync::Arc;

use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_common::limits::BATCH_RECORDS;
use thalweg_common::record::Record;

use super::MAX_SPARE_RECORDS;
use super::channel::{Sender, Sent};
use super::partitioner::Partitioner;
use super::queue::{Message, MessageQueue};
use super::traffic::Traffic;
use super::waker::TaskWaker;
use crate::batch::Batch;
use crate::event::{Barrier, Event};
use crate::link::{Flushed, Link};
use crate::snapshot::SnapshotBuilder;

/// The output to one edge.
pub struct Output<T> {
    routing: Routing<T>,
    channels: Vec<Channel<T>>,
    /// How many channels have something pending.
    blocked: usize,
    /// Scratch of the partitioner.
    targets: Vec<u32>,
    traffic: Arc<Traffic>,
}

enum Routing<T> {
    /// Each record takes one channel.
    Partitioned(Box<dyn Partitioner<T>>),
    /// Each record takes all channels.
    Broadcast,
}

struct Channel<T> {
    sender: Sender<T>,
    /// Records that do not fill a batch yet.
    buffer: Vec<T>,
    /// What the sender did not take, oldest first. `buffer` comes behind it.
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
            channels: senders.into_iter().map(Channel::new).collect(),
            blocked: 0,
            targets: Vec::new(),
            traffic: Arc::default(),
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

    /// Puts each record into the buffer of its channel and sends the buffers that are full.
    fn partition(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        if let Routing::Partitioned(partitioner) = &mut self.routing {
            self.targets.clear();
            partitioner.select(&batch.records, self.channels.len(), &mut self.targets);
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
        for (record, target) in batch.records.drain(..).zip(&self.targets) {
            self.channels[*target as usize].push(record);
        }
        self.send_buffers(BATCH_RECORDS)
    }

    /// Sends the buffers that hold at least this many records.
    fn send_buffers(&mut self, at_least: usize) -> Result<(), Failure> {
        for channel in &mut self.channels {
            if channel.buffer.len() >= at_least {
                let was_blocked = channel.is_blocked();
                channel.send_buffer()?;
                self.blocked += usize::from(channel.is_blocked() && !was_blocked);
            }
        }
        Ok(())
    }

    /// Sends an event on all channels, behind all records that were processed.
    fn send_event(&mut self, event: Event) -> Result<(), Failure> {
        self.send_buffers(1)?;
        self.channels.iter_mut().try_for_each(|channel| channel.send_event(event))?;
        self.count(0);
        Ok(())
    }

    fn count(&mut self, records: u64) {
        let bytes = self.channels.iter_mut().map(|channel| channel.sender.take_bytes()).sum();
        self.traffic.add(records, bytes);
    }
}

impl<T: Record> Link<T> for Output<T> {
    fn process(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        if batch.is_empty() {
            return Ok(());
        }
        let records = batch.len() as u64;
        match (&self.routing, self.channels.as_mut_slice()) {
            (_, []) => return Err(Failure::internal("an output has no channel to send its records on")),
            (_, [channel]) => {
                channel.append(batch);
                self.send_buffers(BATCH_RECORDS)?;
            }
            (Routing::Broadcast, [first, others @ ..]) => {
                for channel in others {
                    channel.buffer.extend_from_slice(&batch.records);
                }
                first.append(batch);
                self.send_buffers(BATCH_RECORDS)?;
            }
            (Routing::Partitioned(_), _) => self.partition(batch)?,
        }
        self.count(records);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.send_event(Event::EndOfInput)
    }

    fn snapshot(&mut self, barrier: Barrier, _snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        self.send_event(Event::Barrier(barrier))
    }

    fn completed(&mut self, _checkpoint: CheckpointId) -> Result<(), Failure> {
        Ok(())
    }

    fn aborted(&mut self, _checkpoint: CheckpointId) -> Result<(), Failure> {
        Ok(())
    }

    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure> {
        if self.blocked > 0 {
            for channel in self.channels.iter_mut().filter(|channel| channel.is_blocked()) {
                channel.retry()?;
                self.blocked -= usize::from(!channel.is_blocked());
            }
        }
        if partial {
            self.send_buffers(1)?;
        }
        self.count(0);
        Ok(if self.blocked == 0 { Flushed::All } else { Flushed::Blocked })
    }
}

impl<T: Record> Channel<T> {
    fn new(sender: Sender<T>) -> Self {
        Self { sender, buffer: Vec::new(), pending: MessageQueue::new(), last_records: 0 }
    }

    fn is_blocked(&self) -> bool {
        !self.pending.is_empty()
    }

    fn push(&mut self, record: T) {
        if self.buffer.capacity() == 0 {
            let spare = self.sender.take_spare();
            self.buffer =
                spare.unwrap_or_else(|| Vec::with_capacity(self.last_records.min(MAX_SPARE_RECORDS)));
        }
        self.buffer.push(record);
    }

    /// Takes a whole batch; without a copy if nothing waits before it.
    fn append(&mut self, batch: &mut Batch<T>) {
        if self.buffer.is_empty() {
            // The caller gets an empty buffer in exchange and fills it next time.
            if let Some(spare) = self.sender.take_spare() {
                self.buffer = spare;
            }
            std::mem::swap(&mut self.buffer, &mut batch.records);
        } else {
            self.buffer.append(&mut batch.records);
        }
    }

    fn send_buffer(&mut self) -> Result<(), Failure> {
        self.last_records = self.buffer.len();
        let batch = Batch::from(std::mem::take(&mut self.buffer));
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

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
