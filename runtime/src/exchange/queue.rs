//! The queue at the ends of a channel: batches and events in the order in which they were sent.
//!
//! On a record's way this is where a batch waits: in an output whose channel is full, and twice in a remote channel (for the
//! network, then for the receiving task). Invariant: its memory is bounded by its batches, which their owner charges; of the
//! events between two batches at most one barrier before and one behind an end of input are kept, because a later
//! barrier means that the checkpoint of the earlier one is dead, and before and behind it the last watermark and the last status.

use std::collections::VecDeque;

use thalweg_common::id::CheckpointId;

use crate::event::Event;

/// What a channel carries. `B` is a typed batch, or the payload of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message<B> {
    /// Records.
    Batch(B),
    /// Something that keeps its place among them.
    Event(Event),
}

impl<B> Message<B> {
    /// Whether it is the barrier of this checkpoint.
    pub(super) fn is_barrier_of(&self, checkpoint: CheckpointId) -> bool {
        matches!(self, Self::Event(Event::Barrier(barrier)) if barrier.id == checkpoint)
    }
}

/// Messages in order.
#[derive(Debug)]
pub(super) struct MessageQueue<B> {
    messages: VecDeque<Message<B>>,
}

impl<B> MessageQueue<B> {
    /// An empty queue.
    pub(super) fn new() -> Self {
        Self { messages: VecDeque::new() }
    }

    /// Appends a batch.
    pub(super) fn push_batch(&mut self, batch: B) {
        self.messages.push_back(Message::Batch(batch));
    }

    /// Appends an event. It takes the place of one that it makes meaningless, if no batch and no end of input is between them: an
    /// older barrier, or an earlier watermark or status behind the last barrier.
    pub(super) fn push_event(&mut self, event: Event) {
        let mut at = self.messages.len();
        while at > 0 {
            at -= 1;
            match (event, &self.messages[at]) {
                (_, Message::Batch(_) | Message::Event(Event::EndOfInput)) => break,
                (Event::Barrier(barrier), Message::Event(Event::Barrier(last))) => {
                    if barrier.id > last.id {
                        self.drop_barrier(at);
                        break;
                    }
                    return;
                }
                (Event::Watermark(_) | Event::Status(_), Message::Event(Event::Barrier(_))) => break,
                (Event::Watermark(_), Message::Event(Event::Watermark(_)))
                | (Event::Status(_), Message::Event(Event::Status(_))) => {
                    self.messages.remove(at);
                    break;
                }
                _ => {}
            }
        }
        self.messages.push_back(Message::Event(event));
    }

    /// Takes the barrier at `at` out. What it had kept apart comes together.
    fn drop_barrier(&mut self, at: usize) {
        let behind = self.messages.split_off(at + 1);
        self.messages.pop_back();
        for message in behind {
            match message {
                Message::Event(event) => self.push_event(event),
                batch => self.messages.push_back(batch),
            }
        }
    }

    /// Takes the oldest message.
    pub(super) fn pop(&mut self) -> Option<Message<B>> {
        self.messages.pop_front()
    }

    /// What waits, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Message<B>> {
        self.messages.iter()
    }

    /// The batches in front of the barrier of this checkpoint; all of them if it is not here.
    pub(super) fn in_front_of(&self, checkpoint: CheckpointId) -> impl Iterator<Item = &B> {
        let messages = self.messages.iter().take_while(move |message| !message.is_barrier_of(checkpoint));
        messages.filter_map(|message| match message {
            Message::Batch(batch) => Some(batch),
            Message::Event(_) => None,
        })
    }

    /// Whether the barrier of this checkpoint is here.
    pub(super) fn has_barrier_of(&self, checkpoint: CheckpointId) -> bool {
        self.messages.iter().any(|message| message.is_barrier_of(checkpoint))
    }

    /// Takes the barrier of this checkpoint out, if it is here.
    pub(super) fn remove_barrier_of(&mut self, checkpoint: CheckpointId) {
        self.messages.retain(|message| !message.is_barrier_of(checkpoint));
    }

    /// Puts a batch, or what is left of it, back to where it was taken from.
    pub(super) fn return_batch(&mut self, batch: B) {
        self.messages.push_front(Message::Batch(batch));
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many messages wait.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Barrier;

    fn barrier(id: u64) -> Event {
        Event::Barrier(Barrier { id, timestamp_ms: 0, is_final: false, is_savepoint: false })
    }

    #[test]
    fn a_later_barrier_replaces_an_earlier_one_only_if_nothing_is_between() {
        let mut queue = MessageQueue::new();
        queue.push_event(barrier(1));
        queue.push_batch('a');
        queue.push_event(barrier(2));
        queue.push_event(barrier(3));
        queue.push_event(barrier(3));
        queue.push_event(barrier(2));
        queue.push_event(Event::EndOfInput);
        queue.push_event(barrier(4));
        assert_eq!(queue.len(), 5);
        assert_eq!(queue.in_front_of(1).count(), 0);
        assert_eq!(queue.in_front_of(3).collect::<Vec<_>>(), [&'a']);
        assert!(!queue.has_barrier_of(2) && queue.has_barrier_of(3));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        let expected = [
            Message::Event(barrier(1)),
            Message::Batch('a'),
            Message::Event(barrier(3)),
            Message::Event(Event::EndOfInput),
            Message::Event(barrier(4)),
        ];
        assert_eq!(order, expected);
        assert!(queue.is_empty());
    }

    #[test]
    fn of_watermarks_in_a_row_the_last_one_is_kept() {
        use crate::event::WatermarkStatus::{Active, Idle};
        let mut queue = MessageQueue::new();
        for time in [1, 2] {
            queue.push_event(Event::Watermark(time));
        }
        queue.push_batch('a');
        for event in
            [Event::Watermark(3), Event::Status(Idle), Event::Status(Active), Event::Watermark(4), barrier(1)]
        {
            queue.push_event(event);
        }
        queue.push_event(Event::Watermark(5));
        assert_eq!(queue.len(), 6);
        for round in 2..100 {
            queue.push_event(barrier(round));
            queue.push_event(Event::Watermark(round as i64 + 4));
            queue.push_event(Event::Status(Idle));
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        let expected = [
            Message::Event(Event::Watermark(2)),
            Message::Batch('a'),
            Message::Event(Event::Watermark(102)),
            Message::Event(Event::Status(Idle)),
            Message::Event(barrier(99)),
            Message::Event(Event::Watermark(103)),
            Message::Event(Event::Status(Idle)),
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn a_barrier_that_overtakes_is_taken_out_of_its_place() {
        let mut queue = MessageQueue::new();
        queue.push_batch('a');
        queue.push_event(barrier(1));
        queue.push_batch('b');
        queue.remove_barrier_of(2);
        queue.remove_barrier_of(1);
        assert_eq!(queue.iter().collect::<Vec<_>>(), [&Message::Batch('a'), &Message::Batch('b')]);
    }
}
