//! The input gate: all channels of a task as one input.
//!
//! On a record's way this is the first step of a task: it takes batches from its channels in turn, returns their credit,
//! and turns the barriers of many channels into one, and so their watermarks ([`WatermarkMerger`]). Where barriers overtake (`overtaking`), it looks for them in the queues too.
//! Invariants: no channel is served twice while another one that may be
//! read waits; in exactly-once mode the records delivered before [`Input::Barrier`] are exactly those before the barrier
//! on every channel, or in unaligned checkpoints together with those that are recorded; a channel that has failed fails the gate, even while it is blocked.

mod overtaking;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thalweg_common::Timestamp;
use thalweg_common::clock::{SharedClock, Stopwatch, SystemClock};
use thalweg_common::config::CheckpointMode;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_common::limits::{LOCAL_CHANNEL_BATCHES, WATERMARK_PAUSE_MS};
use thalweg_common::record::Record;

use self::overtaking::Overtaking;
use super::MAX_SPARE_RECORDS;
use super::aligner::{Aligner, Alignment, AlignmentViolation};
use super::channel::Receiver;
use super::pace::Pace;
use super::queue::Message;
use super::ready::{ChannelSet, ReadySet};
use super::stored::StoredBatch;
use super::traffic::Traffic;
use super::waker::TaskWaker;
use crate::batch::Batch;
use crate::event::{Aligned, Barrier, Event, WatermarkStatus};
use crate::time::inquiry::{InputTime, TaskTime};
use crate::time::{Merged, NO_WATERMARK, WatermarkMerger};

/// What a gate delivers.
#[derive(Debug, PartialEq, Eq)]
pub enum Input<T> {
    /// Records, at least one.
    Batch(Batch<T>),
    /// A barrier has arrived on all channels, or overtakes: the task takes its snapshot now.
    Barrier {
        /// The barrier, as it goes on.
        barrier: Barrier,
        /// What waiting for its arrival on the last channel took.
        alignment: Aligned,
    },
    /// The watermark or the status of all channels together has changed.
    Time(Merged),
    /// The input of all channels has ended. Barriers may still come.
    EndOfInput,
    /// Nothing to read at the moment. The task is woken when there is.
    Idle,
}

/// The input of one task.
pub struct InputGate<T> {
    receivers: Vec<Receiver<T>>,
    arrivals: Arc<ReadySet>,
    /// Channels that may have something, as far as this thread knows.
    ready: ChannelSet,
    /// The channel that is next in turn.
    next: usize,
    aligner: Aligner,
    watermarks: WatermarkMerger,
    /// Since when a channel is idle, if it is.
    idle_since_ms: Vec<Option<Timestamp>>,
    /// A watermark that was not delivered yet, because there are records to read and one was delivered not long ago.
    held: Merged,
    /// Until then one may be held.
    holds_until: Duration,
    /// The last watermark, if no sender has sent it before its end.
    end_of_time: Merged,
    /// Where barriers overtake.
    overtaking: Option<Box<Overtaking>>,
    /// What was on its way when the checkpoint was taken that is restored, by channel. It comes before everything else.
    restored: VecDeque<(usize, StoredBatch)>,
    clock: SharedClock,
    /// While an alignment is under way: its time, and the bytes that had come before it.
    alignment: Option<(Stopwatch, u64)>,
    /// How fast the task gets through its batches, where that bounds them.
    pace: Option<Pace>,
    /// The channel whose batch was delivered last.
    last: usize,
    /// An empty buffer, to decode a batch into.
    spare: Batch<T>,
    traffic: Arc<Traffic>,
}

impl<T: Record> InputGate<T> {
    /// A gate over these channels, whose task is woken by `waker`. Fails only when it is polled.
    #[must_use]
    pub fn new(receivers: Vec<Receiver<T>>, mode: CheckpointMode, waker: TaskWaker) -> Self {
        Self::with_clock(receivers, mode, waker, SystemClock::shared())
    }

    /// The same with a clock of the caller's, by which alignments are measured.
    #[must_use]
    pub fn with_clock(
        receivers: Vec<Receiver<T>>,
        mode: CheckpointMode,
        waker: TaskWaker,
        clock: SharedClock,
    ) -> Self {
        let channels = receivers.len();
        let arrivals = ReadySet::new(channels, waker);
        let queues = receivers.iter().map(Receiver::queue).collect();
        for (channel, receiver) in receivers.iter().enumerate() {
            receiver.attach(arrivals.signal(channel));
        }
        Self {
            receivers,
            arrivals,
            // What came before the gate raised no bit: every channel is looked at once.
            ready: ChannelSet::all(channels),
            next: 0,
            aligner: Aligner::new(channels, mode),
            watermarks: WatermarkMerger::new(channels),
            idle_since_ms: vec![None; channels],
            held: Merged::default(),
            holds_until: Duration::ZERO,
            end_of_time: Merged::default(),
            overtaking: None,
            restored: VecDeque::new(),
            clock,
            alignment: None,
            pace: None,
            last: 0,
            spare: Batch::default(),
            traffic: Arc::new(Traffic::behind(queues)),
        }
    }

    /// Bounds the batches of local channels, so that the task is through with all that can wait in them in half of `target`.
    /// The other half is for what its sender keeps back.
    #[must_use]
    pub fn debloated(mut self, target: Duration) -> Self {
        let batches = self.receivers.len().saturating_mul(LOCAL_CHANNEL_BATCHES).max(1);
        let batches = u32::try_from(batches).unwrap_or(u32::MAX);
        let pace = Pace::new(target / 2 / batches, Batch::<T>::FULL_RECORDS);
        self.arrivals.set_batch_records(pace.records());
        self.pace = Some(pace);
        self
    }

    /// The next input. Never blocks.
    ///
    /// # Errors
    /// When a channel has failed: closed without an end, its connection lost, or its sender broke the protocol.
    pub fn poll(&mut self) -> Result<Input<T>, Failure> {
        let batch_ended = self.end_batch();
        if let Some(barrier) = self.attend()? {
            return Ok(barrier);
        }
        if let Some((channel, batch)) = self.restored.pop_front() {
            return Ok(self.deliver(channel, batch.decode()?, 0, batch_ended));
        }
        if self.held.watermark.is_some() && self.holds_until <= self.clock.monotonic() {
            return Ok(self.take_held());
        }
        loop {
            self.arrivals.take(&mut self.ready, self.aligner.blocked());
            let Some(channel) = self.ready.next_from(self.next, self.aligner.blocked()) else {
                return Ok(if self.held.is_nothing() { Input::Idle } else { self.take_held() });
            };
            let mut bytes = 0;
            let message = self.receivers[channel].poll(&mut self.spare, &mut bytes)?;
            let Some(message) = message else {
                self.ready.remove(channel);
                continue;
            };
            self.next = if channel + 1 == self.receivers.len() { 0 } else { channel + 1 };
            match message {
                Message::Batch(batch) if batch.is_empty() => {}
                Message::Batch(batch) => {
                    if let Some(overtaking) = &self.overtaking {
                        overtaking.on_batch(channel, self.receivers[channel].id(), &batch);
                    }
                    return Ok(self.deliver(channel, batch, bytes, batch_ended));
                }
                Message::Event(Event::Barrier(barrier)) => {
                    if let Some(input) = self.on_barrier(channel, barrier)? {
                        return Ok(input);
                    }
                }
                Message::Event(Event::Watermark(timestamp)) => {
                    let merged = self.watermarks.on_watermark(channel, timestamp);
                    if let Some(input) = self.on_time(merged) {
                        return Ok(input);
                    }
                }
                Message::Event(Event::Status(status)) => {
                    let is_idle = status == WatermarkStatus::Idle;
                    self.idle_since_ms[channel] = is_idle.then(|| self.clock.now_ms());
                    let merged = self.watermarks.on_status(channel, status);
                    if let Some(input) = self.on_time(merged) {
                        return Ok(input);
                    }
                }
                Message::Event(Event::EndOfInput) => {
                    let merged = self.watermarks.on_end(channel);
                    if self.aligner.on_end(channel).map_err(|error| self.violation(channel, error))? {
                        self.end_of_time = std::mem::take(&mut self.held).and(merged);
                        return Ok(Input::EndOfInput);
                    }
                    if let Some(input) = self.on_time(merged) {
                        return Ok(input);
                    }
                }
            }
        }
    }

    fn deliver(
        &mut self,
        channel: usize,
        batch: Batch<T>,
        bytes: u64,
        batch_ended: Option<Duration>,
    ) -> Input<T> {
        self.last = channel;
        self.traffic.add(batch.len() as u64, bytes);
        if let Some(pace) = &mut self.pace {
            // Between two batches in a row one look at the clock is enough.
            let now = batch_ended.unwrap_or_else(|| self.clock.monotonic());
            pace.begin(batch.len(), now);
        }
        Input::Batch(batch)
    }

    /// What must not wait behind batches: channels that have failed, and barriers that overtake.
    fn attend(&mut self) -> Result<Option<Input<T>>, Failure> {
        let alarms = self.arrivals.take_alarms();
        if alarms.has_failure() {
            self.receivers.iter().try_for_each(Receiver::check)?;
        }
        if self.overtaking.is_none() {
            return Ok(None);
        }
        Ok(self.attend_to_barriers(alarms.has_barrier()))
    }

    /// The checkpoint will never complete: channels that wait for it go on.
    pub fn abort(&mut self, checkpoint: CheckpointId) {
        self.aligner.abort(checkpoint);
        if let Some(overtaking) = &mut self.overtaking {
            overtaking.abort(checkpoint);
        }
    }

    /// What the end of the input has changed about its time: the last watermark, unless it was delivered before.
    pub fn take_end_of_time(&mut self) -> Merged {
        std::mem::take(&mut self.end_of_time)
    }

    /// Delivers what has changed about the time, or holds it back for a moment. With one channel never, so that a watermark keeps its
    /// place among the records; with several it is as if the watermark had come a moment later on the last one of them.
    fn on_time(&mut self, merged: Merged) -> Option<Input<T>> {
        if merged.is_nothing() {
            return None;
        }
        let may_hold = self.receivers.len() > 1 && merged.status.is_none();
        self.held = self.held.and(merged);
        let is_held = may_hold && self.clock.monotonic() < self.holds_until;
        (!is_held).then(|| self.take_held())
    }

    fn take_held(&mut self) -> Input<T> {
        self.holds_until = self.clock.monotonic() + Duration::from_millis(WATERMARK_PAUSE_MS);
        Input::Time(std::mem::take(&mut self.held))
    }

    /// Takes back the buffer of the batch that was delivered last, or the one that the chain has given in exchange, once it
    /// was processed: the channel's sender fills it again, or a later batch is decoded into it.
    pub fn recycle(&mut self, mut batch: Batch<T>) {
        batch.clear();
        let capacity = batch.capacity();
        if capacity == 0 || capacity > MAX_SPARE_RECORDS {
            return;
        }
        let Some(receiver) = self.receivers.get_mut(self.last) else { return };
        if let Some(buffer) = receiver.recycle(batch)
            && capacity > self.spare.capacity()
        {
            self.spare = buffer;
        }
    }

    /// Leaves a note for the senders of all channels.
    pub(crate) fn write_note(&self, note: &Bytes) {
        self.receivers.iter().for_each(|receiver| receiver.write_note(note.clone()));
    }

    /// What has come through this gate, readable from other threads.
    #[must_use]
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// Tells how far its channels are.
    pub(crate) fn tell_time(&self, told: &mut TaskTime) {
        let known = |watermark| Some(watermark).filter(|watermark| *watermark != NO_WATERMARK);
        told.watermark = known(self.watermarks.watermark());
        for (channel, receiver) in self.receivers.iter().enumerate() {
            let (watermark, is_idle, has_ended) = self.watermarks.input(channel);
            let idle_since_ms = self.idle_since_ms[channel].filter(|_| is_idle);
            let (channel, watermark) = (receiver.id(), known(watermark));
            told.inputs.push(InputTime { channel, watermark, is_idle, has_ended, idle_since_ms });
        }
    }

    /// The task asks for more, so it is through with its last batch. Returns the time, if that is of interest.
    fn end_batch(&mut self) -> Option<Duration> {
        let pace = self.pace.as_mut().filter(|pace| pace.is_waiting())?;
        let (before, now) = (pace.records(), self.clock.monotonic());
        pace.end(now);
        if pace.records() != before {
            self.arrivals.set_batch_records(pace.records());
        }
        Some(now)
    }

    fn on_barrier(&mut self, channel: usize, barrier: Barrier) -> Result<Option<Input<T>>, Failure> {
        let alignment =
            self.aligner.on_barrier(channel, barrier).map_err(|error| self.violation(channel, error))?;
        if let Some(overtaking) = &mut self.overtaking {
            overtaking.on_barrier(channel, barrier, alignment);
        }
        match alignment {
            Alignment::Ignored | Alignment::Continued => Ok(None),
            Alignment::Started => {
                self.alignment = Some((Stopwatch::start(&self.clock), self.traffic.bytes()));
                Ok(None)
            }
            Alignment::Completed(barrier) => {
                let alignment = self.end_alignment();
                Ok(Some(Input::Barrier { barrier, alignment }))
            }
        }
    }

    fn end_alignment(&mut self) -> Aligned {
        let aligned = |(since, bytes): (Stopwatch, u64)| Aligned {
            duration: since.elapsed(),
            bytes: self.traffic.bytes() - bytes,
        };
        self.alignment.take().map(aligned).unwrap_or_default()
    }

    fn violation(&self, channel: usize, error: AlignmentViolation) -> Failure {
        let id = self.receivers[channel].id();
        Failure::internal(format!("the channel of {id} broke the protocol: {error}"))
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
