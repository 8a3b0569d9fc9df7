//! Channels inside a process: batches move as they are, nothing is encoded.
//!
//! On a record's way this joins the output of one task to the gate of another one in the same worker. Invariants: at
//! most [`LOCAL_CHANNEL_BATCHES`] batches wait; a batch costs one short lock at each end; a sender that was refused is
//! woken once half of the room is free, so that the two tasks do not wake each other for every batch.

use std::sync::{Arc, Mutex, OnceLock};

use thalweg_common::failure::Failure;
use thalweg_common::id::ChannelId;
use thalweg_common::limits::LOCAL_CHANNEL_BATCHES;

use super::channel::{closed_without_end, receiver_gone};
use super::lock;
use super::queue::{Message, MessageQueue};
use super::ready::ReadySignal;
use super::waker::TaskWaker;
use crate::batch::Batch;
use crate::event::Event;

struct Shared<T> {
    id: ChannelId,
    state: Mutex<State<T>>,
    signal: OnceLock<ReadySignal>,
}

struct State<T> {
    queue: MessageQueue<Batch<T>>,
    /// The end of input was sent.
    ended: bool,
    sender_closed: bool,
    receiver_gone: bool,
    sender: Option<TaskWaker>,
    /// The sender was refused and waits for room.
    sender_waits: bool,
}

/// The sending end.
pub(super) struct LocalSender<T> {
    shared: Arc<Shared<T>>,
}

/// The receiving end.
pub(super) struct LocalReceiver<T> {
    shared: Arc<Shared<T>>,
}

/// A channel inside this process.
pub(super) fn channel<T>(id: ChannelId) -> (LocalSender<T>, LocalReceiver<T>) {
    let state = State {
        queue: MessageQueue::new(),
        ended: false,
        sender_closed: false,
        receiver_gone: false,
        sender: None,
        sender_waits: false,
    };
    let shared = Arc::new(Shared { id, state: Mutex::new(state), signal: OnceLock::new() });
    (LocalSender { shared: Arc::clone(&shared) }, LocalReceiver { shared })
}

impl<T> LocalSender<T> {
    pub(super) fn set_waker(&mut self, waker: TaskWaker) {
        lock(&self.shared.state).sender = Some(waker);
    }

    /// Appends a batch, or gives it back if there is no room.
    pub(super) fn try_send(&mut self, batch: Batch<T>) -> Result<Option<Batch<T>>, Failure> {
        {
            let mut state = lock(&self.shared.state);
            if state.receiver_gone {
                return Err(receiver_gone(self.shared.id));
            }
            if state.queue.batches() >= LOCAL_CHANNEL_BATCHES {
                state.sender_waits = true;
                return Ok(Some(batch));
            }
            state.queue.push_batch(batch);
        }
        self.raise();
        Ok(None)
    }

    /// Appends an event, whether there is room or not.
    pub(super) fn send_event(&mut self, event: Event) -> Result<(), Failure> {
        {
            let mut state = lock(&self.shared.state);
            if state.receiver_gone {
                return Err(receiver_gone(self.shared.id));
            }
            state.ended |= event == Event::EndOfInput;
            state.queue.push_event(event);
        }
        self.raise();
        Ok(())
    }

    /// Sends nothing more. What was sent still arrives.
    pub(super) fn close(&mut self) {
        let failed = {
            let mut state = lock(&self.shared.state);
            state.sender_closed = true;
            !state.ended && !state.receiver_gone
        };
        if failed && let Some(signal) = self.shared.signal.get() {
            signal.fail();
        }
    }

    fn raise(&self) {
        // Without a gate yet: it looks at every channel once it is there, and then finds the message.
        if let Some(signal) = self.shared.signal.get() {
            signal.raise();
        }
    }
}

impl<T> Drop for LocalSender<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> LocalReceiver<T> {
    pub(super) fn id(&self) -> ChannelId {
        self.shared.id
    }

    /// Tells the sending end whom to wake. Must be called before the first poll; a second call has no effect.
    pub(super) fn attach(&self, signal: ReadySignal) {
        // A gate takes a receiver by value, so there is never a second one.
        let _ = self.shared.signal.set(signal);
    }

    /// Takes the oldest message.
    pub(super) fn poll(&mut self) -> Result<Option<Message<Batch<T>>>, Failure> {
        let mut state = lock(&self.shared.state);
        state.check(self.shared.id)?;
        let message = state.queue.pop();
        if state.sender_waits && state.queue.batches() <= LOCAL_CHANNEL_BATCHES / 2 {
            state.sender_waits = false;
            let sender = state.sender.clone();
            drop(state);
            if let Some(sender) = sender {
                sender.wake();
            }
        }
        Ok(message)
    }

    /// Fails if the channel has failed.
    pub(super) fn check(&self) -> Result<(), Failure> {
        lock(&self.shared.state).check(self.shared.id)
    }
}

impl<T> Drop for LocalReceiver<T> {
    fn drop(&mut self) {
        let (sender, queue) = {
            let mut state = lock(&self.shared.state);
            state.receiver_gone = true;
            (state.sender.take(), std::mem::replace(&mut state.queue, MessageQueue::new()))
        };
        drop(queue);
        // It may wait for room that never comes.
        if let Some(sender) = sender {
            sender.wake();
        }
    }
}

impl<T> State<T> {
    fn check(&self, id: ChannelId) -> Result<(), Failure> {
        if self.sender_closed && !self.ended { Err(closed_without_end(id)) } else { Ok(()) }
    }
}
