//! Which channels of a gate may have something: a bit per channel, set by the sending side, taken by the gate.
//!
//! Stands between a channel's queue and the gate, so that a gate of a thousand channels looks at sixteen words instead of a
//! thousand queues, and a task is woken once for many messages. Invariants: a bit is set after the message is in its
//! queue and taken before the queue is read, so nothing stays behind unseen; the task is woken by whoever sets a bit that
//! was clear.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::waker::TaskWaker;

const WORD_BITS: usize = u64::BITS as usize;

/// A set of channel numbers below a bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChannelSet {
    words: Vec<u64>,
}

impl ChannelSet {
    /// The empty set of channels below `channels`.
    pub(super) fn new(channels: usize) -> Self {
        Self { words: vec![0; channels.div_ceil(WORD_BITS)] }
    }

    /// The set of all channels below `channels`.
    pub(super) fn all(channels: usize) -> Self {
        let mut set = Self::new(channels);
        for channel in 0..channels {
            set.insert(channel);
        }
        set
    }

    /// Adds a channel. False if it was there already.
    pub(super) fn insert(&mut self, channel: usize) -> bool {
        let word = &mut self.words[channel / WORD_BITS];
        let bit = 1 << (channel % WORD_BITS);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Takes a channel out.
    pub(super) fn remove(&mut self, channel: usize) {
        let word = &mut self.words[channel / WORD_BITS];
        let bit = 1 << (channel % WORD_BITS);
        *word &= !bit;
    }

    /// Takes all out.
    pub(super) fn clear(&mut self) {
        self.words.fill(0);
    }

    /// How many are in it. Counted, not kept: it is asked for at barriers and ends only.
    pub(super) fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The first channel at or behind `start`, then from the beginning, that is in this set and not in `without`.
    pub(super) fn next_from(&self, start: usize, without: &Self) -> Option<usize> {
        let count = self.words.len();
        let first = start / WORD_BITS;
        let below_start = (1u64 << (start % WORD_BITS)) - 1;
        // The word of `start` is looked at twice: first its upper part, at the end its lower part.
        for step in 0..=count {
            let index = (first + step) % count.max(1);
            let mut word = *self.words.get(index)? & !without.words[index];
            if step == 0 && first < count {
                word &= !below_start;
            }
            if word != 0 {
                return Some(index * WORD_BITS + word.trailing_zeros() as usize);
            }
        }
        None
    }
}

/// The bits of one gate, shared with the sending sides of its channels.
pub(super) struct ReadySet {
    words: Box<[AtomicU64]>,
    failed: AtomicBool,
    waker: TaskWaker,
}

impl ReadySet {
    /// The bits of a gate with this many channels, all clear.
    pub(super) fn new(channels: usize, waker: TaskWaker) -> Arc<Self> {
        let words = (0..channels.div_ceil(WORD_BITS)).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { words, failed: AtomicBool::new(false), waker })
    }

    /// What the sending side of `channel` holds.
    pub(super) fn signal(self: &Arc<Self>, channel: usize) -> ReadySignal {
        ReadySignal { set: Arc::clone(self), channel }
    }

    /// Moves the bits of all channels but those in `except` into `ready`. The bits of the others stay set, so that nobody is
    /// woken for them again and again.
    pub(super) fn take(&self, ready: &mut ChannelSet, except: &ChannelSet) {
        for (index, word) in self.words.iter().enumerate() {
            let wanted = word.load(Ordering::Relaxed) & !except.words[index];
            if wanted != 0 {
                // Acquire pairs with the release of `raise`: the queue is read after its bit was taken.
                word.fetch_and(!wanted, Ordering::Acquire);
                ready.words[index] |= wanted;
            }
        }
    }

    /// Whether a channel has failed since the last call.
    pub(super) fn take_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed) && self.failed.swap(false, Ordering::Acquire)
    }
}

/// Tells a gate about one channel.
pub(super) struct ReadySignal {
    set: Arc<ReadySet>,
    channel: usize,
}

impl ReadySignal {
    /// There is a message in the queue.
    pub(super) fn raise(&self) {
        let bit = 1 << (self.channel % WORD_BITS);
        if self.set.words[self.channel / WORD_BITS].fetch_or(bit, Ordering::Release) & bit == 0 {
            self.set.waker.wake();
        }
    }

    /// The channel has failed: the gate looks at it even if it is blocked by an alignment.
    pub(super) fn fail(&self) {
        self.set.failed.store(true, Ordering::Release);
        self.set.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::waker::TaskParker;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    #[test]
    fn a_bit_wakes_once_until_it_is_taken() {
        let mut parker = TaskParker::new();
        let set = ReadySet::new(70, parker.waker());
        let (none, mut ready) = (ChannelSet::new(70), ChannelSet::new(70));
        let signal = set.signal(69);
        signal.raise();
        signal.raise();
        assert!(parker.park(Duration::ZERO));
        signal.raise();
        assert!(!parker.park(Duration::ZERO), "the bit is still set: nobody needs to wake the task");

        let mut blocked = ChannelSet::new(70);
        blocked.insert(69);
        set.take(&mut ready, &blocked);
        assert_eq!(ready.next_from(0, &none), None, "a blocked channel's bit stays where it is");
        set.take(&mut ready, &none);
        assert_eq!(ready.next_from(0, &none), Some(69));
        signal.raise();
        assert!(parker.park(Duration::ZERO));
    }

    #[test]
    fn a_failure_wakes_even_if_the_bit_is_set() {
        let mut parker = TaskParker::new();
        let set = ReadySet::new(1, parker.waker());
        set.signal(0).raise();
        assert!(parker.park(Duration::ZERO));
        set.signal(0).fail();
        assert!(parker.park(Duration::ZERO));
        assert!(set.take_failed());
        assert!(!set.take_failed());
    }

    proptest! {
        #[test]
        fn the_set_is_a_set(
            channels in 0usize..200,
            members in proptest::collection::btree_set(0usize..200, 0..50),
            without in proptest::collection::btree_set(0usize..200, 0..50),
            start in 0usize..200,
        ) {
            let members: BTreeSet<_> = members.into_iter().filter(|channel| *channel < channels).collect();
            let without: BTreeSet<_> = without.into_iter().filter(|channel| *channel < channels).collect();
            let start = if channels == 0 { 0 } else { start % channels };
            let (mut set, mut other) = (ChannelSet::all(channels), ChannelSet::new(channels));
            (0..channels).filter(|channel| !members.contains(channel)).for_each(|channel| set.remove(channel));
            without.iter().for_each(|channel| assert!(other.insert(*channel)));
            prop_assert_eq!(set.len(), members.len());
            let left: Vec<_> = members.difference(&without).copied().collect();
            let expected = left.iter().find(|channel| **channel >= start).or(left.first()).copied();
            prop_assert_eq!(set.next_from(start, &other), expected);
        }
    }
}
