//! Which records of a shard were read before, by the ids that the sink of another job has given them. Pure.
//!
//! Stands in a shard's reader, where records are given out, and is part of the shard's split: so what is remembered is what is behind its
//! position. Invariants: an id is remembered for the window from its last arrival, by the time of arrivals and not by a clock, and of all ids
//! the newest [`KINESIS_REMEMBERED_IDS`] at the most.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::limits::KINESIS_REMEMBERED_IDS;

use super::deaggregate::hash_key;

/// An id, as the number that it hashes to, and when it arrived.
pub(super) type Remembered = (Timestamp, u128);

/// Ids that were read.
#[derive(Debug, Default)]
pub(super) struct Seen {
    window_ms: i64,
    /// In the order in which they were read.
    order: VecDeque<Remembered>,
    /// When each arrived last.
    arrived: HashMap<u128, Timestamp>,
}

/// The number that stands for an id.
pub(super) fn number_of(id: &str) -> u128 {
    hash_key(id)
}

impl Seen {
    pub(super) fn new(window: Duration, remembered: impl IntoIterator<Item = Remembered>) -> Self {
        let window_ms = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        let mut seen = Self { window_ms, ..Self::default() };
        seen.remember(remembered);
        seen
    }

    /// Whether a record with this id is new. It is not from now on.
    pub(super) fn is_new(&mut self, id: &str, arrival_ms: Timestamp) -> bool {
        let number = number_of(id);
        let oldest_ms = arrival_ms.saturating_sub(self.window_ms);
        let is_new = self.arrived.get(&number).is_none_or(|at_ms| *at_ms < oldest_ms);
        self.remember([(arrival_ms, number)]);
        is_new
    }

    /// Remembers these too, the oldest first.
    pub(super) fn remember(&mut self, ids: impl IntoIterator<Item = Remembered>) {
        for (arrival_ms, number) in ids {
            self.order.push_back((arrival_ms, number));
            self.arrived.insert(number, arrival_ms);
            let oldest_ms = arrival_ms.saturating_sub(self.window_ms);
            while let Some((at_ms, number)) = self.order.front().copied()
                && (at_ms < oldest_ms || self.order.len() > KINESIS_REMEMBERED_IDS)
            {
                self.order.pop_front();
                // One that has come again is remembered from then on.
                if self.arrived.get(&number) == Some(&at_ms) {
                    self.arrived.remove(&number);
                }
            }
        }
    }

    /// What is part of checkpoints.
    pub(super) fn remembered(&self) -> Vec<Remembered> {
        self.order.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once_within_the_window_and_also_behind_a_restore() {
        let window = Duration::from_millis(100);
        let mut seen = Seen::new(window, []);
        assert!(seen.is_new("a", 0) && seen.is_new("b", 10));
        assert!(!seen.is_new("a", 60), "again");
        let mut seen = Seen::new(window, seen.remembered());
        assert!(!seen.is_new("b", 70));
        // From its last arrival on.
        assert!(!seen.is_new("a", 160));
        assert!(seen.is_new("b", 171), "its window is over");
        assert!(seen.remembered().len() <= 3, "{seen:?}");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seen = Seen::new(Duration::MAX, []);
        for number in 0..KINESIS_REMEMBERED_IDS + 5 {
            assert!(seen.is_new(&number.to_string(), 0));
        }
        assert_eq!((seen.order.len(), seen.arrived.len()), (KINESIS_REMEMBERED_IDS, KINESIS_REMEMBERED_IDS));
        assert!(seen.is_new("0", 0) && !seen.is_new("100", 0), "the oldest are forgotten");
    }
}
