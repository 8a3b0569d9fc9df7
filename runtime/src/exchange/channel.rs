//! The two ends of a channel as outputs and gates see them, whether the other end is in this process or not.
//!
//! On a record's way the sender is the last step of one task and the receiver the first of the next. Invariants: sending
//! never blocks and never drops: what does not fit is given back; after the end of input only events follow; a channel
//! that is closed without an end of input is a failure of the receiving task, a receiver that vanishes before it is one
//! of the sending task.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use thalweg_common::failure::Failure;
use thalweg_common::id::ChannelId;
use thalweg_common::limits::{LOCAL_CHANNEL_BATCHES, LOCAL_CHANNEL_EVENTS};
use thalweg_common::record::Record;

use super::local::{self, LocalReceiver, LocalSender, Room};
use super::note::Note;
use super::queue::Message;
use super::ready::ReadySignal;
use super::remote::Payload;
use super::remote::receiver::RemoteReceiver;
use super::remote::sender::RemoteSender;
use super::traffic::Queue;
use super::waker::TaskWaker;
use crate::batch::Batch;
use crate::event::Event;

/// A channel between two tasks of this process, bounded by [`LOCAL_CHANNEL_BATCHES`].
#[must_use]
pub fn local_channel<T: Record>(id: ChannelId) -> (Sender<T>, Receiver<T>) {
    local_channel_in(id, Room { batches: LOCAL_CHANNEL_BATCHES, events: LOCAL_CHANNEL_EVENTS })
}

/// The same with room for so many batches and events.
#[cfg(test)]
pub(crate) fn local_channel_with_room<T: Record>(
    id: ChannelId,
    batches: usize,
    events: usize,
) -> (Sender<T>, Receiver<T>) {
    local_channel_in(id, Room { batches, events })
}

fn local_channel_in<T: Record>(id: ChannelId, room: Room) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = local::channel(id, room);
    (Sender::new(id, SendingEnd::Local(sender)), Receiver { end: ReceivingEnd::Local(receiver) })
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a batch that was given back must be sent later"]
pub enum Sent<T> {
    /// It is on its way.
    Done,
    /// There is no room: this part of it, at the end, was not taken. The task is woken when there is room again.
    Full(Batch<T>),
}

/// The sending end of a channel.
///
/// Dropping it is the same as [`close`](Self::close).
pub struct Sender<T> {
    id: ChannelId,
    progress: Progress,
    bytes: u64,
    end: SendingEnd<T>,
}

/// What a sender may still send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Batches and events.
    Open,
    /// Only barriers: the end of input was sent.
    Ended,
    /// Nothing.
    Closed,
}

enum SendingEnd<T> {
    Local(LocalSender<T>),
    Remote(RemoteSender<T>),
}

impl<T: Record> Sender<T> {
    fn new(id: ChannelId, end: SendingEnd<T>) -> Self {
        Self { id, progress: Progress::Open, bytes: 0, end }
    }

    pub(super) fn remote(id: ChannelId, sender: RemoteSender<T>) -> Self {
        Self::new(id, SendingEnd::Remote(sender))
    }

    /// The channel.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.id
    }

    /// Says which task to wake when there is room again after a batch was given back.
    pub fn set_waker(&mut self, waker: TaskWaker) {
        match &mut self.end {
            SendingEnd::Local(sender) => sender.set_waker(waker),
            SendingEnd::Remote(sender) => sender.set_waker(waker),
        }
    }

    /// Sends a batch, or as much of it as there is room for. Never blocks.
    ///
    /// # Errors
    /// When the receiver is gone, the connection is lost, a record is too large for a frame, or the end of input
    /// was sent before.
    pub fn try_send(&mut self, batch: Batch<T>) -> Result<Sent<T>, Failure> {
        if self.progress != Progress::Open {
            return Err(self.out_of_turn("a batch"));
        }
        let rest = match &mut self.end {
            SendingEnd::Local(sender) => sender.try_send(batch)?,
            SendingEnd::Remote(sender) => sender.try_send(batch, &mut self.bytes)?,
        };
        Ok(rest.map_or(Sent::Done, Sent::Full))
    }

    /// Sends an event behind everything that was sent before. Costs no credit, needs no room, never blocks.
    ///
    /// # Errors
    /// When the receiver vanished before the end of input was sent, or a second end of input is sent. What a receiver
    /// misses after the end of input is no error.
    pub fn send_event(&mut self, event: Event) -> Result<(), Failure> {
        let has_ended = match self.progress {
            Progress::Open => false,
            Progress::Ended if event != Event::EndOfInput => true,
            _ => return Err(self.out_of_turn("an event")),
        };
        let sent = match &mut self.end {
            SendingEnd::Local(sender) => sender.send_event(event),
            SendingEnd::Remote(sender) => sender.send_event(event),
        };
        if has_ended {
            return Ok(());
        }
        sent?;
        if event == Event::EndOfInput {
            self.progress = Progress::Ended;
        }
        Ok(())
    }

    /// Sends nothing more. Without a sent end of input the receiver takes this as a failure.
    pub fn close(&mut self) {
        if self.progress == Progress::Closed {
            return;
        }
        self.progress = Progress::Closed;
        match &mut self.end {
            SendingEnd::Local(sender) => sender.close(),
            SendingEnd::Remote(sender) => sender.close(),
        }
    }

    /// Where the receiver's notes are. The task that was named by [`set_waker`](Self::set_waker) is woken by each.
    pub(super) fn note(&self) -> Note {
        match &self.end {
            SendingEnd::Local(sender) => sender.note(),
            SendingEnd::Remote(sender) => sender.note(),
        }
    }

    /// How many records a batch may hold so that the receiver is soon through with it.
    pub(super) fn batch_records(&self) -> usize {
        match &self.end {
            SendingEnd::Local(sender) => sender.batch_records(),
            SendingEnd::Remote(sender) => sender.batch_records(),
        }
    }

    /// The empty buffer of a batch that was encoded, or that the receiver has processed, to be filled again.
    pub(super) fn take_spare(&mut self) -> Option<Batch<T>> {
        match &mut self.end {
            SendingEnd::Local(sender) => sender.take_spare(),
            SendingEnd::Remote(sender) => sender.take_spare(),
        }
    }

    /// Credit that the last batch left; none inside a process.
    pub(super) fn credit(&self) -> u64 {
        match &self.end {
            SendingEnd::Local(_) => 0,
            SendingEnd::Remote(sender) => sender.credit(),
        }
    }

    /// Bytes encoded since the last call; none inside a process.
    pub(super) fn take_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.bytes)
    }

    fn out_of_turn(&self, what: &str) -> Failure {
        let state = if self.progress == Progress::Closed { "it was closed" } else { "its end of input" };
        Failure::internal(format!("{what} was sent on the channel of {} after {state}", self.id))
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if matches!(self.end, SendingEnd::Local(_)) { "local" } else { "remote" };
        write!(formatter, "Sender({kind}, {}, {:?})", self.id, self.progress)
    }
}

/// The receiving end of a channel. Its [`InputGate`](super::gate::InputGate) polls it.
pub struct Receiver<T> {
    end: ReceivingEnd<T>,
}

/// Something that waits in a channel.
#[derive(Debug)]
pub(super) enum Waiting<'a, T> {
    /// Records of this process.
    Batch(&'a Batch<T>),
    /// Records of another one, not decoded yet.
    Frame(&'a Payload),
    /// An event.
    Event(Event),
}

enum ReceivingEnd<T> {
    Local(LocalReceiver<T>),
    Remote(RemoteReceiver<T>),
}

impl<T> Receiver<T> {
    pub(super) fn remote(receiver: RemoteReceiver<T>) -> Self {
        Self { end: ReceivingEnd::Remote(receiver) }
    }

    /// The channel.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        match &self.end {
            ReceivingEnd::Local(receiver) => receiver.id(),
            ReceivingEnd::Remote(receiver) => receiver.id(),
        }
    }

    pub(super) fn attach(&self, signal: ReadySignal) {
        match &self.end {
            ReceivingEnd::Local(receiver) => receiver.attach(signal),
            ReceivingEnd::Remote(receiver) => receiver.attach(signal),
        }
    }

    /// Leaves a note for the sender, which takes the place of one that was not read yet.
    pub(super) fn write_note(&self, note: Bytes) {
        match &self.end {
            ReceivingEnd::Local(receiver) => receiver.write_note(note),
            ReceivingEnd::Remote(receiver) => receiver.write_note(note),
        }
    }

    /// Where other threads can read how much waits.
    pub(super) fn queue(&self) -> Arc<dyn Queue> {
        match &self.end {
            ReceivingEnd::Local(receiver) => receiver.queue(),
            ReceivingEnd::Remote(receiver) => receiver.queue(),
        }
    }

    /// Looks at what waits, oldest first, as long as `look` wants to see more. Nothing is taken out, no credit given back.
    pub(super) fn look(&mut self, mut look: impl FnMut(Waiting<'_, T>) -> bool) {
        match &mut self.end {
            ReceivingEnd::Local(receiver) => receiver.look(|message| {
                look(match message {
                    Message::Batch(batch) => Waiting::Batch(batch),
                    Message::Event(event) => Waiting::Event(*event),
                })
            }),
            ReceivingEnd::Remote(receiver) => receiver.look(|message| {
                look(match message {
                    Message::Batch(payload) => Waiting::Frame(payload),
                    Message::Event(event) => Waiting::Event(*event),
                })
            }),
        }
    }

    /// Gives the empty buffer of a processed batch back to the sender. A remote sender has no use for it: then the caller
    /// gets it again, to decode into it.
    pub(super) fn recycle(&mut self, buffer: Batch<T>) -> Option<Batch<T>> {
        match &mut self.end {
            ReceivingEnd::Local(receiver) => {
                receiver.recycle(buffer);
                None
            }
            ReceivingEnd::Remote(_) => Some(buffer),
        }
    }

    /// Fails if the channel has failed, even while messages of it wait.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match &self.end {
            ReceivingEnd::Local(receiver) => receiver.check(),
            ReceivingEnd::Remote(receiver) => receiver.check(),
        }
    }
}

impl<T: Record> Receiver<T> {
    /// Takes the oldest message. `spare` is an old buffer to decode into; `bytes` counts what was decoded.
    pub(super) fn poll(
        &mut self,
        spare: &mut Batch<T>,
        bytes: &mut u64,
    ) -> Result<Option<Message<Batch<T>>>, Failure> {
        match &mut self.end {
            ReceivingEnd::Local(receiver) => receiver.poll(),
            ReceivingEnd::Remote(receiver) => receiver.poll(spare, bytes),
        }
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if matches!(self.end, ReceivingEnd::Local(_)) { "local" } else { "remote" };
        write!(formatter, "Receiver({kind}, {})", self.id())
    }
}

/// The sender of a channel is gone and its input has no end.
pub(super) fn closed_without_end(id: ChannelId) -> Failure {
    Failure::external(format!(
        "the channel of {id} was closed without an end marker: its sending task has failed or was stopped; \
         look at that task's failure"
    ))
    .consequence()
}

/// The receiver of a channel is gone before the end of input.
pub(super) fn receiver_gone(id: ChannelId) -> Failure {
    Failure::external(format!(
        "the channel of {id} has lost its receiver before the end of its input: the receiving task has failed or was \
         stopped; look at that task's failure"
    ))
    .consequence()
}

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;
