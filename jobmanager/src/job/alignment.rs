//! Groups of aligned sources: the least watermark of each. Pure.
//!
//! Task managers report what their sources say, and are answered with this. Invariants: nothing is said of a group before all of its
//! subtasks have been heard of, since this leader leads; what a subtask said last counts until a later attempt of it says something, so
//! that the others wait for one that is restarted; a word of an older attempt is none.

use std::collections::BTreeMap;

use thalweg_common::Timestamp;
use thalweg_common::graph::JobGraph;
use thalweg_common::id::{Attempt, SubtaskId};

/// Holds nobody back: idle, or at its end.
const NOBODY: Timestamp = Timestamp::MAX;

/// The aligned sources of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AlignmentGroups {
    /// The plan whose sources these are.
    fingerprint: u64,
    groups: BTreeMap<String, BTreeMap<SubtaskId, Option<Word>>>,
}

/// What a subtask said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word {
    attempt: Attempt,
    watermark: Timestamp,
}

impl AlignmentGroups {
    /// The groups of a plan, of which nothing is known.
    fn of(graph: &JobGraph, fingerprint: u64) -> Self {
        let mut groups = BTreeMap::<_, BTreeMap<_, _>>::new();
        for (vertex, data) in (0u32..).zip(&graph.vertices) {
            let times = data.operators.iter().filter_map(|operator| operator.time.as_ref());
            for alignment in times.filter_map(|time| time.alignment.as_ref()) {
                let subtasks = (0..data.parallelism).map(|index| (SubtaskId { vertex, index }, None));
                groups.entry(alignment.group.clone()).or_default().extend(subtasks);
            }
        }
        Self { fingerprint, groups }
    }

    /// Follows the plan: with another one everything begins anew.
    pub(crate) fn follow(&mut self, graph: &JobGraph, fingerprint: u64) {
        if self.fingerprint != fingerprint {
            *self = Self::of(graph, fingerprint);
        }
    }

    /// A subtask says how far it is.
    pub(crate) fn heard(&mut self, group: &str, subtask: SubtaskId, attempt: Attempt, watermark: Timestamp) {
        let known = self.groups.get_mut(group).and_then(|group| group.get_mut(&subtask));
        let Some(word) = known else { return };
        if word.is_none_or(|word| word.attempt <= attempt) {
            *word = Some(Word { attempt, watermark });
        }
    }

    /// The least watermark of a group, the smallest number if one has none yet, the largest if nobody is to be waited for. Nothing while
    /// one of its subtasks was not heard of.
    pub(crate) fn least(&self, group: &str) -> Option<Timestamp> {
        let words = self.groups.get(group)?.values();
        words.copied().try_fold(NOBODY, |least, word| word.map(|word| word.watermark.min(least)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use thalweg_common::graph::{AlignmentDescriptor, TimeDescriptor};

    use super::*;
    use crate::testing::{graph_of, vertex};

    const NONE: Timestamp = Timestamp::MIN;

    /// Two vertices of a subtask each, both in group `g`, and one that is in none.
    fn graph() -> JobGraph {
        let mut graph = graph_of(["a", "b", "c"].map(|name| vertex(name, 1, "default")).into());
        let alignment =
            AlignmentDescriptor { group: "g".into(), max_drift_ms: 10, update_interval_ms: 1_000 };
        for vertex in &mut graph.vertices[..2] {
            let time = TimeDescriptor { alignment: Some(alignment.clone()), ..TimeDescriptor::default() };
            vertex.operators[0].time = Some(time);
        }
        graph
    }

    fn groups() -> AlignmentGroups {
        let mut groups = AlignmentGroups::default();
        groups.follow(&graph(), 1);
        groups
    }

    fn subtask(vertex: u32, index: u32) -> SubtaskId {
        SubtaskId { vertex, index }
    }

    #[test]
    fn a_group_goes_by_the_one_that_is_furthest_behind() {
        // What the subtasks of the first vertex and of the second say, and what comes of it.
        let table = [
            ([None, Some(5)], None),
            ([Some(7), Some(5)], Some(5)),
            ([Some(7), Some(NONE)], Some(NONE)),
            ([Some(7), Some(NOBODY)], Some(7)),
            ([Some(NOBODY), Some(NOBODY)], Some(NOBODY)),
            ([None, Some(NOBODY)], None),
        ];
        for (said, expected) in table {
            let mut groups = groups();
            for (vertex, watermark) in (0..).zip(said) {
                watermark
                    .into_iter()
                    .for_each(|watermark| groups.heard("g", subtask(vertex, 0), 1, watermark));
            }
            assert_eq!(groups.least("g"), expected, "{said:?}");
        }
    }

    #[test]
    fn a_restarted_subtask_is_waited_for_where_it_was_and_old_words_are_none() {
        let mut groups = groups();
        groups.heard("g", subtask(0, 0), 1, 7);
        groups.heard("g", subtask(1, 0), 1, 9);
        groups.heard("g", subtask(0, 0), 2, NONE);
        assert_eq!(groups.least("g"), Some(NONE));
        groups.heard("g", subtask(0, 0), 1, 8);
        assert_eq!(groups.least("g"), Some(NONE), "of the attempt before");
        groups.heard("g", subtask(0, 0), 2, 3);
        assert_eq!(groups.least("g"), Some(3));
        // Who is not in the group has no say in it.
        groups.heard("g", subtask(5, 0), 2, 1);
        groups.heard("h", subtask(0, 0), 2, 1);
        assert_eq!((groups.least("g"), groups.least("h")), (Some(3), None));
    }

    #[test]
    fn another_plan_begins_anew() {
        let mut groups = groups();
        groups.heard("g", subtask(0, 0), 1, 7);
        groups.heard("g", subtask(1, 0), 1, 9);
        let same = groups.clone();
        groups.follow(&graph(), 1);
        assert_eq!(groups, same);
        groups.follow(&graph(), 2);
        assert_eq!(groups.least("g"), None);
    }

    proptest! {
        /// Two subtasks and a leader that fails now and then: whoever obeys what was said is never further ahead than drift and one step.
        #[test]
        fn who_obeys_stays_within_the_drift(
            drift in 0i64..20,
            step in 1i64..6,
            happens in proptest::collection::vec((0u32..2, 0u8..8), 1..300),
        ) {
            let mut groups = groups();
            let mut own = [NONE, NONE];
            let mut least = [NOBODY, NOBODY];
            for (who, what) in happens {
                let (me, other) = (who as usize, 1 - who as usize);
                match what {
                    0..=3 if own[me] > least[me].saturating_add(drift) => {}
                    0..=3 if own[me] == NONE => own[me] = 0,
                    0..=3 => {
                        own[me] += step;
                        let is_within = own[me] <= own[other].saturating_add(drift + step);
                        prop_assert!(least[me] == NOBODY || is_within, "{own:?} {least:?}");
                    }
                    // Another leader, which knows nothing.
                    4 => groups = self::groups(),
                    _ => {
                        groups.heard("g", subtask(who, 0), 1, own[me]);
                        least[me] = groups.least("g").unwrap_or(least[me]);
                    }
                }
            }
        }
    }
}
