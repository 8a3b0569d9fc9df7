//! Messages for the leader that it has not taken yet.
//!
//! A checkpoint makes all tasks speak at once, and a leader may be busy for a moment: what does not fit into the stream's
//! queue waits here, in order, bounded in bytes. Invariant: nothing overtakes what waits.

use std::collections::VecDeque;

use prost::Message;
use thalweg_proto::v1::TaskManagerMessage;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Most bytes that wait for a leader before it counts as gone.
const MAX_WAITING_BYTES: usize = 128 * 1024 * 1024;

/// Room for one message in the stream's queue.
pub(crate) type Permit = mpsc::OwnedPermit<TaskManagerMessage>;

/// Why a message was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsent {
    /// The stream has ended.
    #[error("its connection was closed")]
    Closed,
    /// Too much waits already.
    #[error("it does not read its messages: more than {} MiB wait", MAX_WAITING_BYTES / (1024 * 1024))]
    Full,
}

/// A stream's queue and what waits in front of it.
#[derive(Debug)]
pub(crate) struct Outbox {
    stream: mpsc::Sender<TaskManagerMessage>,
    waiting: VecDeque<TaskManagerMessage>,
    waiting_bytes: usize,
}

impl Outbox {
    pub(crate) fn new(stream: mpsc::Sender<TaskManagerMessage>) -> Self {
        Self { stream, waiting: VecDeque::new(), waiting_bytes: 0 }
    }

    /// Takes a message without waiting.
    ///
    /// # Errors
    /// When the stream has ended or too much waits.
    pub(crate) fn send(&mut self, message: TaskManagerMessage) -> Result<(), Unsent> {
        let message = if self.waiting.is_empty() {
            match self.stream.try_send(message) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed(_)) => return Err(Unsent::Closed),
                Err(TrySendError::Full(message)) => message,
            }
        } else {
            message
        };
        let bytes = message.encoded_len();
        if self.waiting_bytes + bytes > MAX_WAITING_BYTES {
            return Err(Unsent::Full);
        }
        self.waiting_bytes += bytes;
        self.waiting.push_back(message);
        Ok(())
    }

    /// The queue in which something waits for room; to be awaited with [`room`].
    pub(crate) fn wants_room(&self) -> Option<mpsc::Sender<TaskManagerMessage>> {
        (!self.waiting.is_empty()).then(|| self.stream.clone())
    }

    /// Uses the room for what has waited longest.
    pub(crate) fn flush(&mut self, permit: Permit) {
        if let Some(message) = self.waiting.pop_front() {
            self.waiting_bytes -= message.encoded_len();
            permit.send(message);
        }
    }

    /// The stream's queue itself, for what need not keep its place.
    pub(crate) fn sender(&self) -> mpsc::Sender<TaskManagerMessage> {
        self.stream.clone()
    }
}

/// Waits for room in a queue; without a queue, for ever. Nothing when the stream has ended. Cancel-safe.
pub(crate) async fn room(queue: Option<mpsc::Sender<TaskManagerMessage>>) -> Option<Permit> {
    match queue {
        Some(queue) => queue.reserve_owned().await.ok(),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use thalweg_proto::v1::task_manager_message::Message as Body;
    use thalweg_proto::v1::{LogPart, Logs};

    use super::*;

    fn message(request_id: u64, bytes: usize) -> TaskManagerMessage {
        let parts = vec![LogPart { source: String::new(), data: vec![0; bytes].into() }];
        TaskManagerMessage { message: Some(Body::Logs(Logs { request_id, parts })) }
    }

    fn number(message: Option<TaskManagerMessage>) -> Option<u64> {
        match message?.message? {
            Body::Logs(logs) => Some(logs.request_id),
            _ => None,
        }
    }

    #[tokio::test]
    async fn what_waits_keeps_its_order() {
        let (stream, mut taken) = mpsc::channel(2);
        let mut outbox = Outbox::new(stream);
        for request_id in 0..10 {
            assert_eq!(outbox.send(message(request_id, 10)), Ok(()));
        }
        for expected in 0..10 {
            assert_eq!(number(taken.recv().await), Some(expected));
            if let Some(queue) = outbox.wants_room() {
                outbox.flush(room(Some(queue)).await.expect("there is room"));
            }
        }
        assert_eq!((outbox.waiting_bytes, outbox.wants_room().is_none()), (0, true));
    }

    #[test]
    fn waiting_is_bounded_in_bytes() {
        let (stream, _taken) = mpsc::channel(1);
        let mut outbox = Outbox::new(stream);
        let quarter = MAX_WAITING_BYTES / 4;
        let sent =
            (0..10).take_while(|request_id| outbox.send(message(*request_id, quarter)).is_ok()).count();
        assert_eq!(
            sent, 4,
            "one in the queue and three that wait; the fourth does not fit with its envelope"
        );
        assert_eq!(outbox.send(message(9, quarter)), Err(Unsent::Full));
    }

    #[tokio::test]
    async fn a_stream_that_ended_is_noticed() {
        let (stream, taken) = mpsc::channel(1);
        let mut outbox = Outbox::new(stream);
        assert_eq!((outbox.send(message(1, 1)), outbox.send(message(2, 1))), (Ok(()), Ok(())));
        drop(taken);
        assert!(room(outbox.wants_room()).await.is_none());
        assert_eq!(Outbox::new(outbox.sender()).send(message(3, 1)), Err(Unsent::Closed));
    }
}
