//! The queue at the ends of a channel: batches and events in the order in which they were sent.
//!
//! On a record's way this is where a batch waits: in an output whose channel is full, and twice in a remote channel (for the
//! network, then for the receiving task). Invariant: its memory is bounded by its batches, which their owner charges; of the
//! events between two batches at most one barrier before and one behind an end of input are kept, because a later
//! barrier means that the checkpoint of the earlier one is dead.

use std::collections::VecDeque;

use crate::event::Event;

/// What a channel carries. `B` is a typed batch, or the payload of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message<B> {
    /// Records.
    Batch(B),
    /// Something that keeps its place among them.
    Event(Event),
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

    /// Appends an event. A barrier takes the place of an older one directly in front of it.
    pub(super) fn push_event(&mut self, event: Event) {
        match (event, self.messages.back_mut()) {
            (Event::Barrier(barrier), Some(Message::Event(Event::Barrier(last)))) => {
                if barrier.id > last.id {
                    *last = barrier;
                }
            }
            _ => self.messages.push_back(Message::Event(event)),
        }
    }

    /// Takes the oldest message.
    pub(super) fn pop(&mut self) -> Option<Message<B>> {
        self.messages.pop_front()
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
}
