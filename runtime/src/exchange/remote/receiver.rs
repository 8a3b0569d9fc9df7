//! The receiving end of a remote channel: checks frames as they come, queues them, decodes them when the task reads them.
//!
//! On a record's way this stands between the gRPC stream and the gate. Invariants: the stream is always read, so a
//! channel whose task is slow holds up no other channel of its connection; what waits here costs at most the
//! credit that was granted and one frame; a frame out of sequence, without credit, of no known kind, or behind the end of
//! input fails this channel and no other one; a stream that ends before the end of input is a failure.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use futures_util::Stream;
use thalweg_common::clock::SharedClock;
use thalweg_common::failure::{Failure, Fault};
use thalweg_common::id::ChannelId;
use thalweg_common::record::{DecodeError, Record};
use thalweg_proto::v1::{self, frame};
use tonic::Status;

use super::frame::{Payload, PayloadError, decode_event};
use super::{Compression, failure_of, register};
use crate::batch::Batch;
use crate::event::Event;
use crate::exchange::channel::closed_without_end;
use crate::exchange::credit::{CreditViolation, frame_cost};
use crate::exchange::lock;
use crate::exchange::queue::{Message, MessageQueue};
use crate::exchange::ready::ReadySignal;
use crate::exchange::traffic::Queue;
use crate::exchange::window::{Window, WindowPolicy};

/// A sender did what no sender may do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Violation {
    #[error("frame {found} came where frame {due} was due")]
    Sequence { due: u64, found: u64 },
    #[error(transparent)]
    Credit(#[from] CreditViolation),
    #[error(transparent)]
    Payload(#[from] PayloadError),
    #[error("{0} came after the end of its input")]
    AfterEnd(&'static str),
    #[error("it was opened a second time")]
    OpenedTwice,
    #[error("a frame of an unknown kind came")]
    UnknownFrame,
    #[error(transparent)]
    Event(#[from] DecodeError),
}

/// What the task and the connection share.
pub(super) struct Inbound {
    id: ChannelId,
    state: Mutex<State>,
    signal: OnceLock<ReadySignal>,
    clock: SharedClock,
}

struct State {
    queue: MessageQueue<Payload>,
    window: Window,
    /// Granted by the task, not yet sent.
    grant: u64,
    /// For the sender, not yet sent.
    note: Option<Bytes>,
    next_sequence: u64,
    /// The end of input has come.
    ended: bool,
    failure: Option<Failure>,
    receiver_gone: bool,
    /// The connection, when it has had nothing to answer.
    connection: Option<Waker>,
}

impl Inbound {
    /// A channel that waits for its sender. `clock` tells how fast its task consumes.
    pub(super) fn new(id: ChannelId, policy: WindowPolicy, clock: SharedClock) -> Arc<Self> {
        let window = Window::new(policy);
        let state = State {
            queue: MessageQueue::new(),
            grant: window.bytes(),
            note: None,
            window,
            // Frame 0 is the one that opens the channel.
            next_sequence: 1,
            ended: false,
            failure: None,
            receiver_gone: false,
            connection: None,
        };
        Arc::new(Self { id, state: Mutex::new(state), signal: OnceLock::new(), clock })
    }

    /// A channel whose window does not move.
    #[cfg(test)]
    pub(super) fn for_test(id: ChannelId, window_bytes: u64) -> Arc<Self> {
        use crate::exchange::credit::FloatingCredit;
        let floating = Arc::new(Mutex::new(FloatingCredit::new(0)));
        let policy = WindowPolicy { own: window_bytes, debloat_target: None, floating };
        Self::new(id, policy, thalweg_common::clock::SystemClock::shared())
    }

    /// Checks a frame and queues it for the task.
    fn accept(&self, frame: v1::Frame) -> Result<(), Violation> {
        let accepted = {
            let mut state = lock(&self.state);
            if state.receiver_gone {
                return Ok(());
            }
            state.accept(frame)?
        };
        // Without a gate yet: it looks at every channel once it is there, and then finds the message.
        if let Some(signal) = self.signal.get() {
            signal.raise();
            if matches!(accepted, Some(Event::Barrier(_))) {
                signal.announce();
            }
        }
        Ok(())
    }

    /// The sender or the connection is gone. After the end of input that is no failure.
    pub(super) fn lose(&self, failure: Failure) {
        if !lock(&self.state).ended {
            self.fail(failure);
        }
    }

    /// The channel is broken. The first failure counts.
    fn fail(&self, failure: Failure) {
        let connection = {
            let mut state = lock(&self.state);
            state.failure.get_or_insert(failure);
            state.connection.take()
        };
        if let Some(signal) = self.signal.get() {
            signal.fail();
        }
        if let Some(connection) = connection {
            connection.wake();
        }
    }

    /// What is to be sent to the sender: a grant, a note, an error, or the end.
    fn poll_answer(&self, context: &mut Context<'_>) -> Poll<Option<Result<v1::CreditGrant, Status>>> {
        let mut state = lock(&self.state);
        if let Some(failure) = &state.failure {
            let is_internal = failure.fault == Fault::Internal;
            let status = if is_internal { Status::internal } else { Status::aborted };
            return Poll::Ready(Some(Err(status(failure.message.clone()))));
        }
        if state.receiver_gone {
            let gone = "the receiving task has failed or was stopped; look at that task's failure";
            return Poll::Ready(if state.ended { None } else { Some(Err(Status::aborted(gone))) });
        }
        match (std::mem::take(&mut state.grant), state.note.take()) {
            (0, None) => {
                register(&mut state.connection, context);
                Poll::Pending
            }
            (bytes, note) => {
                let (window, note) = (state.window.bytes(), note.unwrap_or_default());
                Poll::Ready(Some(Ok(v1::CreditGrant { bytes, window, note })))
            }
        }
    }
}

impl Queue for Inbound {
    fn len(&self) -> u64 {
        lock(&self.state).queue.len() as u64
    }
}

impl State {
    /// Queues what is in a frame. Returns the event, if it is one.
    fn accept(&mut self, frame: v1::Frame) -> Result<Option<Event>, Violation> {
        if frame.sequence != self.next_sequence {
            return Err(Violation::Sequence { due: self.next_sequence, found: frame.sequence });
        }
        self.next_sequence += 1;
        match frame.message {
            Some(frame::Message::Data(bytes)) => {
                self.accept_batch(bytes, Compression::None, frame.backlog).map(|()| None)
            }
            Some(frame::Message::Lz4Data(bytes)) => {
                self.accept_batch(bytes, Compression::Lz4, frame.backlog).map(|()| None)
            }
            Some(frame::Message::Event(payload)) => {
                let event = decode_event(&payload)?;
                if event == Event::EndOfInput && std::mem::replace(&mut self.ended, true) {
                    return Err(Violation::AfterEnd("another end"));
                }
                self.queue.push_event(event);
                Ok(Some(event))
            }
            Some(frame::Message::Open(_)) => Err(Violation::OpenedTwice),
            None => Err(Violation::UnknownFrame),
        }
    }

    fn accept_batch(
        &mut self,
        bytes: Bytes,
        compression: Compression,
        backlog: u64,
    ) -> Result<(), Violation> {
        if self.ended {
            return Err(Violation::AfterEnd("a batch"));
        }
        let payload = Payload::received(bytes, compression)?;
        self.window.receive(frame_cost(payload.bytes.len()), backlog)?;
        self.queue.push_batch(payload);
        Ok(())
    }
}

/// One open channel on the connection: reads the frames, answers with grants. Both in one place, so that a channel is
/// exactly one task of the connection; dropping it is how a lost connection is noticed.
pub(super) struct InboundStream<S> {
    inbound: Arc<Inbound>,
    peer: String,
    frames: S,
}

impl<S> InboundStream<S> {
    /// The channel of a sender at `peer`, whose frames behind the first one come from `frames`.
    pub(super) fn new(inbound: Arc<Inbound>, peer: String, frames: S) -> Self {
        Self { inbound, peer, frames }
    }
}

impl<S: Stream<Item = Result<v1::Frame, Status>> + Unpin> Stream for InboundStream<S> {
    type Item = Result<v1::CreditGrant, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Poll::Ready(answer) = this.inbound.poll_answer(context) {
                return Poll::Ready(answer);
            }
            let id = this.inbound.id;
            match ready!(Pin::new(&mut this.frames).poll_next(context)) {
                Some(Ok(frame)) => {
                    if let Err(violation) = this.inbound.accept(frame) {
                        let message = format!("the channel of {id} broke the protocol: {violation}");
                        this.inbound.fail(Failure::internal(message));
                    }
                }
                Some(Err(status)) => {
                    this.inbound.lose(failure_of(id, &this.peer, &status));
                    return Poll::Ready(None);
                }
                None => {
                    this.inbound.lose(closed_without_end(id));
                    return Poll::Ready(None);
                }
            }
        }
    }
}

impl<S> Drop for InboundStream<S> {
    fn drop(&mut self) {
        let status = Status::unavailable(format!(
            "Connection unexpectedly closed by remote task manager '{}': the sending worker or its machine is gone",
            self.peer
        ));
        self.inbound.lose(failure_of(self.inbound.id, &self.peer, &status));
    }
}

/// The receiving end as the gate sees it.
pub(in crate::exchange) struct RemoteReceiver<T> {
    inbound: Arc<Inbound>,
    /// What was compressed, for a moment.
    scratch: Vec<u8>,
    types: PhantomData<fn() -> T>,
}

impl<T> RemoteReceiver<T> {
    pub(super) fn new(inbound: Arc<Inbound>) -> Self {
        Self { inbound, scratch: Vec::new(), types: PhantomData }
    }

    pub(in crate::exchange) fn id(&self) -> ChannelId {
        self.inbound.id
    }

    /// Where others can read how much waits.
    pub(in crate::exchange) fn queue(&self) -> Arc<dyn Queue> {
        Arc::clone(&self.inbound) as Arc<dyn Queue>
    }

    /// Tells the connection whom to wake. Must be called before the first poll; a second call has no effect.
    pub(in crate::exchange) fn attach(&self, signal: ReadySignal) {
        // A gate takes a receiver by value, so there is never a second one.
        let _ = self.inbound.signal.set(signal);
    }

    /// Leaves a note for the sender.
    pub(in crate::exchange) fn write_note(&self, note: Bytes) {
        let connection = {
            let mut state = lock(&self.inbound.state);
            state.note = Some(note);
            state.connection.take()
        };
        if let Some(connection) = connection {
            connection.wake();
        }
    }

    /// Looks at what waits, oldest first, as long as `look` wants to see more.
    pub(in crate::exchange) fn look(&self, look: impl FnMut(&Message<Payload>) -> bool) {
        lock(&self.inbound.state).queue.iter().all(look);
    }

    /// Fails if the channel has failed.
    pub(in crate::exchange) fn check(&self) -> Result<(), Failure> {
        lock(&self.inbound.state).failure.clone().map_or(Ok(()), Err)
    }

    /// Takes the oldest frame and gives its credit back. The next call may take the frame after it.
    fn pop(&mut self) -> Result<Option<Message<Payload>>, Failure> {
        let mut state = lock(&self.inbound.state);
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let message = state.queue.pop();
        if let Some(Message::Batch(payload)) = &message {
            let now = self.inbound.clock.monotonic();
            let more = !state.queue.is_empty();
            let grant = state.window.hand_over(frame_cost(payload.bytes.len()), more, now);
            state.grant += grant;
            if grant > 0
                && let Some(connection) = state.connection.take()
            {
                drop(state);
                connection.wake();
            }
        }
        Ok(message)
    }
}

impl<T: Record> RemoteReceiver<T> {
    /// Takes and decodes the oldest message, into `spare` if it has room already.
    pub(in crate::exchange) fn poll(
        &mut self,
        spare: &mut Batch<T>,
        bytes: &mut u64,
    ) -> Result<Option<Message<Batch<T>>>, Failure> {
        let payload = match self.pop()? {
            None => return Ok(None),
            Some(Message::Event(event)) => return Ok(Some(Message::Event(event))),
            Some(Message::Batch(payload)) => payload,
        };
        let mut batch = std::mem::take(spare);
        payload.decode(&mut self.scratch, &mut batch).map_err(|error| {
            let id = self.inbound.id;
            Failure::internal(format!("the channel of {id} delivered a damaged frame: {error}"))
        })?;
        *bytes += payload.bytes.len() as u64;
        Ok(Some(Message::Batch(batch)))
    }
}

impl<T> Drop for RemoteReceiver<T> {
    fn drop(&mut self) {
        let (connection, queue) = {
            let mut state = lock(&self.inbound.state);
            state.receiver_gone = true;
            (state.connection.take(), std::mem::replace(&mut state.queue, MessageQueue::new()))
        };
        drop(queue);
        if let Some(connection) = connection {
            connection.wake();
        }
    }
}

#[cfg(test)]
#[path = "receiver_tests.rs"]
mod tests;
