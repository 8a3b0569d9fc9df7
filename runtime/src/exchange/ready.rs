//! Which channels of a gate may have something: a bit per channel, set by the sending side, taken by the gate.
//!
//! Stands between a channel's queue and the gate, so that a gate of a thousand channels looks at sixteen words instead of a
//! thousand queues, and a task is woken once for many messages. Invariants: a bit is set after the message is in its
//! queue and taken before the queue is read, so nothing stays behind unseen; the task is woken by whoever sets a bit that
//! was clear.

use std::sync::Arc;

use super::memory::{AtomicU64, Ordering};
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

    /// Whether a channel is in it.
    pub(super) fn contains(&self, channel: usize) -> bool {
        self.words[channel / WORD_BITS] & (1 << (channel % WORD_BITS)) != 0
    }

    /// Takes all out.
    pub(super) fn clear(&mut self) {
        self.words.fill(0);
    }

    /// How many are in it. Counted, not kept: it is asked for at barriers and ends only.
    pub(super) fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The first channel in it.
    pub(super) fn first(&self) -> Option<usize> {
        let index = self.words.iter().position(|word| *word != 0)?;
        Some(index * WORD_BITS + self.words[index].trailing_zeros() as usize)
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

/// What a gate looks at before it reads: a channel has failed.
const FAILED: u64 = 1;

/// There is a barrier in a queue.
const BARRIER: u64 = 2;

/// The bits of one gate, shared with the sending sides of its channels.
pub(super) struct ReadySet {
    words: Box<[AtomicU64]>,
    /// Channels in whose queues a barrier may be that the gate has not seen.
    barriers: Box<[AtomicU64]>,
    /// What has happened since the gate asked.
    alarms: AtomicU64,
    /// How many records a batch for this gate may hold.
    batch_records: AtomicU64,
    waker: TaskWaker,
}

impl ReadySet {
    /// The bits of a gate with this many channels, all clear.
    pub(super) fn new(channels: usize, waker: TaskWaker) -> Arc<Self> {
        let zeros = || (0..channels.div_ceil(WORD_BITS)).map(|_| AtomicU64::new(0)).collect();
        let (alarms, batch_records) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        Arc::new(Self { words: zeros(), barriers: zeros(), alarms, batch_records, waker })
    }

    /// What the sending side of `channel` holds.
    pub(super) fn signal(self: &Arc<Self>, channel: usize) -> ReadySignal {
        ReadySignal { set: Arc::clone(self), channel }
    }

    /// Moves the bits of all channels but those in `except` into `ready`. The bits of the others stay set, so that nobody is
    /// woken for them again and again. So do the bits of channels that are in `ready` already: whoever finds such a channel
    /// empty takes it out of `ready` and calls this again.
    pub(super) fn take(&self, ready: &mut ChannelSet, except: &ChannelSet) {
        for (index, word) in self.words.iter().enumerate() {
            let wanted = word.load(Ordering::Relaxed) & !except.words[index] & !ready.words[index];
            if wanted != 0 {
                // Acquire pairs with the release of `raise`: the queue is read after its bit was taken.
                word.fetch_and(!wanted, Ordering::Acquire);
                ready.words[index] |= wanted;
            }
        }
    }

    /// Says how many records a batch for this gate may hold from now on. Without it a batch may be full.
    pub(super) fn set_batch_records(&self, records: usize) {
        // A hint: nothing is ordered by it.
        self.batch_records.store(records as u64, Ordering::Relaxed);
    }

    /// What has happened since the last call that must not wait behind batches.
    pub(super) fn take_alarms(&self) -> Alarms {
        // Nothing, nearly always.
        let is_calm = self.alarms.load(Ordering::Relaxed) == 0;
        Alarms(if is_calm { 0 } else { self.alarms.swap(0, Ordering::Acquire) })
    }

    /// Adds the channels in which a barrier has come to `barriers`. Behind [`take_alarms`](Self::take_alarms).
    pub(super) fn take_barriers(&self, barriers: &mut ChannelSet) {
        for (index, word) in self.barriers.iter().enumerate() {
            if word.load(Ordering::Relaxed) != 0 {
                // Acquire pairs with the release of `announce`: the queue is looked at after its bit was taken.
                barriers.words[index] |= word.swap(0, Ordering::Acquire);
            }
        }
    }
}

/// What a gate looks at before it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alarms(u64);

impl Alarms {
    /// Whether a channel has failed.
    pub(super) fn has_failure(self) -> bool {
        self.0 & FAILED != 0
    }

    /// Whether a barrier has come into a queue.
    pub(super) fn has_barrier(self) -> bool {
        self.0 & BARRIER != 0
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

    /// How many records a batch for the gate may hold.
    pub(super) fn batch_records(&self) -> usize {
        usize::try_from(self.set.batch_records.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// The channel has failed: the gate looks at it even if it is blocked by an alignment.
    pub(super) fn fail(&self) {
        self.set.alarms.fetch_or(FAILED, Ordering::Release);
        self.set.waker.wake();
    }

    /// There is a barrier in the queue: the gate may look at it before it has read what is in front. Its task is woken also if it
    /// had more to read already, because that may not be what it waits for.
    pub(super) fn announce(&self) {
        let bit = 1 << (self.channel % WORD_BITS);
        self.set.barriers[self.channel / WORD_BITS].fetch_or(bit, Ordering::Release);
        self.set.alarms.fetch_or(BARRIER, Ordering::Release);
        self.set.waker.wake();
    }
}
