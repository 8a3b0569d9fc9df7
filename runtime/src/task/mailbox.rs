//! The control mail of a task: bounded, never blocking its sender, and read before input.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use thalweg_common::id::CheckpointId;
use thalweg_common::limits::ACTOR_MAILBOX;

use crate::event::Barrier;
use crate::exchange::TaskWaker;

/// A message to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mail {
    /// To a source: take a snapshot and emit the barrier.
    Trigger(Barrier),
    /// To a source: read no more, as if the input had ended.
    EndInput,
    /// The checkpoint is durable.
    Completed { checkpoint: CheckpointId, is_final: bool },
    /// The checkpoint will never complete.
    Aborted { checkpoint: CheckpointId },
    /// Tell how far event time is, when the chain is flushed next.
    TellTime { request_id: u64 },
}

/// The task does not read its mail: it hangs in user code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the task has left {ACTOR_MAILBOX} messages unread; its code must return from each call in reasonable time"
)]
pub(crate) struct MailboxFull;

/// Whether the tasks of an attempt are to end. One for all of them, so that a task which sees a channel closed by another
/// one that was cancelled knows that it is cancelled too. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Cancellation {
    is_cancelled: Arc<AtomicBool>,
}

impl Cancellation {
    /// Cancels all tasks. Those that sleep must be woken.
    pub(crate) fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Release);
    }
}

/// The worker's end.
#[derive(Clone)]
pub(crate) struct Mailbox {
    sender: SyncSender<Mail>,
    waker: TaskWaker,
}

/// The task's end.
pub(crate) struct Inbox {
    receiver: Receiver<Mail>,
    cancellation: Cancellation,
}

/// A mailbox for the task that `waker` wakes.
pub(crate) fn mailbox(waker: TaskWaker, cancellation: Cancellation) -> (Mailbox, Inbox) {
    let (sender, receiver) = sync_channel(ACTOR_MAILBOX);
    (Mailbox { sender, waker }, Inbox { receiver, cancellation })
}

impl Mailbox {
    /// Sends a message. One to a task that has ended is no error.
    pub(crate) fn send(&self, mail: Mail) -> Result<(), MailboxFull> {
        match self.sender.try_send(mail) {
            Err(TrySendError::Full(_)) => return Err(MailboxFull),
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
        }
        self.waker.wake();
        Ok(())
    }

    /// Wakes the task, so that it sees its cancellation.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }
}

impl Inbox {
    /// The oldest message, if there is one.
    pub(crate) fn next(&mut self) -> Option<Mail> {
        // Without a sender left there is no more mail, and the task goes on.
        self.receiver.try_recv().ok()
    }

    /// Takes all messages out, unread.
    pub(crate) fn discard(&mut self) {
        while self.next().is_some() {}
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancellation.is_cancelled.load(Ordering::Acquire)
    }
}
