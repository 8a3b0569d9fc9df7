//! Splits of the numbers 0, 1, 2, ...: every `step`th from `next` on. Pure.
//!
//! Such a split can be halved, again and again, so that there is always work for more subtasks; and halves that are as far as each other
//! become one again. Invariant: halving and joining change neither which numbers are left nor how often each of them is.
//!
//! Sources over numbers keep time per subtask, not per split, as those of Flink do that make numbers: a subtask takes the numbers of all of
//! its splits in ascending order, so none of them is ahead of the others.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::iter::StepBy;
use std::ops::Range;

use thalweg_common::Record;
use thalweg_common::limits::NUMBER_SPLITS;

use crate::split::SourceSplit;

/// The numbers `next`, `next + step`, `next + 2 * step`, ...
#[derive(Record, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[record(crate = thalweg_common)]
pub struct NumberSplit {
    next: u64,
    step: u64,
}

impl SourceSplit for NumberSplit {
    fn split_id(&self) -> String {
        let step = self.step.max(1);
        format!("{}/{step}", self.next % step)
    }
}

impl NumberSplit {
    /// All numbers, dealt to this many subtasks and to more if there are more one day.
    pub(super) fn all(parallelism: u32) -> Vec<Self> {
        let splits = u64::from(parallelism.max(1)) * NUMBER_SPLITS as u64;
        (0..splits).map(|next| Self { next, step: splits }).collect()
    }

    fn halves(self) -> [Self; 2] {
        let Self { next, step } = self;
        [Self { next, step: 2 * step }, Self { next: next + step, step: 2 * step }]
    }

    /// How many of its numbers are below `end`.
    fn left(self, end: u64) -> u64 {
        end.saturating_sub(self.next).div_ceil(self.step.max(1))
    }
}

/// The numbers of one subtask, which it takes in ascending order.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    splits: BinaryHeap<Reverse<NumberSplit>>,
}

impl Numbers {
    pub(super) fn add(&mut self, splits: Vec<NumberSplit>) {
        let all = self.splits.drain().map(|Reverse(split)| split).chain(splits).collect();
        self.splits = joined(all).into_iter().map(Reverse).collect();
    }

    /// How many of the next `max` numbers are below `end`.
    pub(super) fn left(&self, end: u64, max: u64) -> u64 {
        let each = self.splits.iter().map(|Reverse(split)| split.left(end));
        each.fold(0, u64::saturating_add).min(max)
    }

    /// Takes the next `count` numbers, which must be there, run by run.
    pub(super) fn take(&mut self, count: u64, mut use_run: impl FnMut(StepBy<Range<u64>>)) {
        // Usually everything that this subtask has is one split.
        let run = if self.splits.len() == 1 { count } else { 1 };
        let mut left = count;
        while left > 0 {
            let Some(mut first) = self.splits.peek_mut() else { return };
            let NumberSplit { next, step } = first.0;
            let end = next + run * step;
            use_run((next..end).step_by(step as usize));
            first.0.next = end;
            left -= run;
        }
    }

    /// The splits with numbers below `end`, halved until there are enough.
    pub(super) fn snapshot(&self, end: u64) -> Vec<NumberSplit> {
        let mut splits: Vec<NumberSplit> = self.splits.iter().map(|Reverse(split)| *split).collect();
        splits.retain(|split| split.left(end) > 0);
        while !splits.is_empty() && splits.len() < NUMBER_SPLITS {
            splits = splits.into_iter().flat_map(NumberSplit::halves).collect();
        }
        // Halves that were just made may lie behind the end.
        splits.retain(|split| split.left(end) > 0);
        splits.sort_unstable();
        splits
    }
}

/// Undoes halving where both halves are there and as far as each other.
fn joined(splits: Vec<NumberSplit>) -> BTreeSet<NumberSplit> {
    let mut joined: BTreeSet<NumberSplit> = splits.into_iter().collect();
    let mut open: Vec<NumberSplit> = joined.iter().copied().collect();
    while let Some(split) = open.pop() {
        let NumberSplit { next, step } = split;
        let half = step / 2;
        if !step.is_multiple_of(2) || half == 0 || !joined.contains(&split) {
            continue;
        }
        let below = next.checked_sub(half).map(|next| NumberSplit { next, step });
        let pairs =
            [Some((split, NumberSplit { next: next + half, step })), below.map(|below| (below, split))];
        let pair =
            pairs.into_iter().flatten().find(|(low, high)| joined.contains(low) && joined.contains(high));
        if let Some((low, high)) = pair {
            joined.remove(&low);
            joined.remove(&high);
            let both = NumberSplit { next: low.next, step: half };
            joined.insert(both);
            open.push(both);
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dealt(all: &[NumberSplit], parallelism: usize) -> Vec<Numbers> {
        (0..parallelism)
            .map(|index| {
                let mut numbers = Numbers::default();
                numbers.add(all.iter().copied().skip(index).step_by(parallelism).collect());
                numbers
            })
            .collect()
    }

    #[test]
    fn a_subtask_that_begins_has_one_split_and_takes_every_nth_number() {
        for parallelism in [1, 2, 3, 7] {
            for (index, numbers) in
                dealt(&NumberSplit::all(parallelism), parallelism as usize).iter_mut().enumerate()
            {
                assert_eq!(numbers.splits.len(), 1, "subtask {index} of {parallelism}");
                let mut taken = Vec::new();
                numbers.take(3, |run| taken.extend(run));
                let expected = [0, 1, 2].map(|round| index as u64 + round * u64::from(parallelism));
                assert_eq!(taken, expected);
            }
        }
    }

    #[test]
    fn a_snapshot_has_a_split_for_each_of_many_subtasks_unless_there_are_fewer_numbers() {
        let numbers = dealt(&NumberSplit::all(1), 1).remove(0);
        assert_eq!(numbers.snapshot(u64::MAX).len(), NUMBER_SPLITS);
        assert_eq!(numbers.snapshot(3).len(), 3);
        assert_eq!(numbers.snapshot(0), []);
        assert_eq!(numbers.snapshot(7)[6].split_id(), "6/16");
    }

    proptest! {
        #[test]
        fn each_number_is_taken_once_and_in_order_over_any_changes_of_parallelism(
            end in 0u64..2_000,
            changes in proptest::collection::vec((1usize..9, proptest::collection::vec(0u64..300, 8)), 1..6),
        ) {
            let mut all = NumberSplit::all(changes[0].0 as u32);
            let mut taken = Vec::new();
            for (parallelism, counts) in changes.into_iter().chain([(3, vec![u64::MAX; 8])]) {
                let mut subtasks = dealt(&all, parallelism);
                all.clear();
                for (numbers, count) in subtasks.iter_mut().zip(counts) {
                    let left = numbers.left(end, count);
                    let from = taken.len();
                    numbers.take(left, |run| taken.extend(run));
                    prop_assert!(taken[from..].is_sorted());
                    prop_assert_eq!((taken.len() - from) as u64, left);
                    all.extend(numbers.snapshot(end));
                }
                let ids: BTreeSet<String> = all.iter().map(SourceSplit::split_id).collect();
                prop_assert_eq!(ids.len(), all.len());
            }
            taken.sort_unstable();
            prop_assert_eq!(taken, (0..end).collect::<Vec<_>>());
        }
    }
}
