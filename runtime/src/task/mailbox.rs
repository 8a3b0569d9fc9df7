//! The control mail of a task: bounded, never blocking its sender, and read before input.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use thalweg_common::id::CheckpointId;
use thalweg_common::limits::ACTOR_MAILBOX;

use crate::event::Barrier;
use crate::exchange::TaskWaker;

/// A message to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mail {
    /// To a source: take a snapshot and emit the barrier.
    Trigger(Barrier),
    /// The checkpoint is durable.
    Completed { checkpoint: CheckpointId, is_final: bool },
    /// The checkpoint will never complete.
    Aborted { checkpoint: CheckpointId },
}

/// The task does not read its mail: it hangs in user code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the task has left {ACTOR_MAILBOX} messages unread; its code must return from each call in reasonable time")]
pub(crate) struct MailboxFull;

/// The worker's end.
#[derive(Clone)]
pub(crate) struct Mailbox {
    sender: SyncSender<Mail>,
    cancelled: Arc<AtomicBool>,
    waker: TaskWaker,
}

/// The task's end.
pub(crate) struct Inbox {
    receiver: Receiver<Mail>,
    cancelled: Arc<AtomicBool>,
}

/// A mailbox for the task that `waker` wakes.
pub(crate) fn mailbox(waker: TaskWaker) -> (Mailbox, Inbox) {
    let (sender, receiver) = sync_channel(ACTOR_MAILBOX);
    let cancelled = Arc::new(AtomicBool::new(false));
    (Mailbox { sender, cancelled: Arc::clone(&cancelled), waker }, Inbox { receiver, cancelled })
}

impl Mailbox {
    /// Sends a message. One to a task that has ended is no error.
    pub(crate) fn send(&self, mail: Mail) -> Result<(), MailboxFull> {
        use std::sync::mpsc::TrySendError;
        match self.sender.try_send(mail) {
            Err(TrySendError::Full(_)) => return Err(MailboxFull),
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
        }
        self.waker.wake();
        Ok(())
    }

    /// Asks the task to end. Always arrives, however full the mailbox is.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl Inbox {
    /// The oldest message, if there is one.
    pub(crate) fn next(&mut self) -> Option<Mail> {
        // Without a sender left there is no more mail, and the task goes on.
        self.receiver.try_recv().ok()
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }
}
