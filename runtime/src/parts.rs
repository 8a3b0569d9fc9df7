//! What sources, sinks and subtasks of functions remember, in parts that can go to other subtasks; and which subtask gets which. Pure.
//!
//! Stands between the snapshots of the subtasks that wrote and the operators that restore. Invariants: over all subtasks, each part goes to exactly
//! one, unless it is for all; who asks twice is told the same; with the parallelism they were written with all parts stay where they are.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thalweg_common::codec;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_savepoint::part;

/// One part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// Says that the source has made its splits: one that has read all of them must not begin again.
    Began,
    /// A part of a source's input with its position.
    Split {
        /// Its id.
        id: String,
        /// Its encoding.
        split: Vec<u8>,
    },
    /// The prepared transactions of a subtask of a sink for one checkpoint.
    Transactions {
        /// The subtask that made them.
        writer: u32,
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Their encodings.
        committables: Vec<Vec<u8>>,
    },
    /// Elements of a list of a function.
    List {
        /// The name of the state.
        state: String,
        /// The fingerprint of the type of its elements.
        schema: u64,
        /// Who gets them.
        how: Redistribution,
        /// Their encodings.
        elements: Vec<Vec<u8>>,
    },
    /// The broadcast state of a function, of which every subtask writes a copy.
    Broadcast {
        /// The name of the state.
        state: String,
        /// The fingerprint of its type.
        schema: u64,
        /// The encodings of its keys and values.
        entries: Vec<(Vec<u8>, Vec<u8>)>,
    },
    /// All that a subtask remembered before there were parts. Never written, and only restored with the same parallelism.
    Whole(Vec<u8>),
    /// A split at its end, of which the enumerator of its source may not know that.
    Finished {
        /// Its id.
        id: String,
    },
    /// A part of a source's input that one subtask must have.
    Pinned {
        /// Its id.
        id: String,
        /// Its encoding.
        split: Vec<u8>,
        /// Modulo the parallelism this is the subtask.
        pin: u32,
    },
}

/// Who gets the elements of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Redistribution {
    /// Each goes to exactly one subtask.
    Split,
    /// All go to every subtask.
    Union,
}

/// The parts of one subtask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// The subtask.
    pub subtask: u32,
    /// How many subtasks there were.
    pub parallelism: u32,
    /// Its parts.
    pub list: Vec<Part>,
}

impl Part {
    /// Whether every subtask takes all of them, also if it is the one that wrote some.
    fn is_united(&self) -> bool {
        matches!(self, Self::List { how: Redistribution::Union, .. })
    }

    /// As an item of a savepoint.
    ///
    /// # Errors
    /// When it is larger than anything may be.
    pub(crate) fn to_item(&self) -> Result<Vec<u8>, Failure> {
        let mut item = part::MARK.to_vec();
        codec::append(self, &mut item)?;
        Ok(item)
    }

    /// From an item of a savepoint; nothing if the item is a position that cannot be divided.
    ///
    /// # Errors
    /// When it is damaged.
    pub(crate) fn from_item(item: &[u8]) -> Result<Option<Self>, Failure> {
        item.strip_prefix(part::MARK).map(codec::from_bytes).transpose().map_err(Failure::from)
    }
}

/// The parts for subtask `index` of `parallelism`, of those that subtasks of `all` left.
///
/// Splits are dealt like cards, in the order of the subtasks that had them, so that nobody gets two more than another, but for those that are
/// pinned; transactions go to
/// the number of the subtask that made them, modulo the parallelism; elements of lists are dealt like splits, or go to all; of broadcast
/// state each takes one former subtask's.
///
/// # Errors
/// When the parallelism has changed and parts of a subtask are missing, or a split is there twice.
pub fn share(all: &[Parts], index: u32, parallelism: u32) -> Result<Vec<Part>, Failure> {
    let mut all: Vec<&Parts> = all.iter().collect();
    all.sort_by_key(|parts| parts.subtask);
    if all.iter().all(|parts| parts.parallelism == parallelism) {
        let is_mine = |parts: &Parts, part: &Part| parts.subtask == index || part.is_united();
        let mine = all.iter().flat_map(|parts| parts.list.iter().filter(|part| is_mine(parts, part)));
        return Ok(mine.cloned().collect());
    }
    let parts = || all.iter().flat_map(|parts| &parts.list);
    if parts().next().is_some() && parts().all(|part| matches!(part, Part::Broadcast { .. })) {
        // Whoever is there will do.
        return deal(parts(), index, parallelism);
    }
    let is_complete = all
        .iter()
        .enumerate()
        .all(|(number, parts)| parts.subtask as usize == number && parts.parallelism as usize == all.len());
    if !is_complete {
        return Err(Failure::internal(
            "what subtasks remember is restored with another parallelism, and not from all subtasks that there were",
        ));
    }
    deal(parts(), index, parallelism)
}

/// The same of a list of all parts, in the order of the subtasks that had them.
///
/// # Errors
/// When a split is there twice.
fn deal<'a>(
    parts: impl IntoIterator<Item = &'a Part>,
    index: u32,
    parallelism: u32,
) -> Result<Vec<Part>, Failure> {
    let (mut seen, mut next) = (BTreeSet::new(), 0);
    let mut mine = Vec::new();
    let mut broadcast: BTreeMap<&str, Vec<&Part>> = BTreeMap::new();
    let mut turn = || {
        next += 1;
        (next - 1) % parallelism
    };
    for part in parts {
        let to = match part {
            Part::Broadcast { state, .. } => {
                broadcast.entry(state).or_default().push(part);
                continue;
            }
            Part::List { how: Redistribution::Union, .. } => index,
            Part::List { state, schema, how, elements } => {
                let elements: Vec<_> = elements.iter().filter(|_| turn() == index).cloned().collect();
                mine.push(Part::List { state: state.clone(), schema: *schema, how: *how, elements });
                continue;
            }
            Part::Began | Part::Finished { .. } => 0,
            Part::Whole(_) => {
                return Err(Failure::internal(
                    "what a subtask remembers as a whole is to be dealt like parts",
                ));
            }
            Part::Transactions { writer, .. } => writer % parallelism,
            Part::Split { id, .. } | Part::Pinned { id, .. } => {
                if !seen.insert(id) {
                    return Err(Failure::internal(format!("the split `{id}` is there twice")));
                }
                if let Part::Pinned { pin, .. } = part { pin % parallelism } else { turn() }
            }
        };
        if to == index {
            mine.push(part.clone());
        }
    }
    mine.extend(broadcast.into_values().map(|copies| copies[index as usize % copies.len()].clone()));
    Ok(mine)
}

/// The parts for subtask `index` of `parallelism`, of the items of a savepoint by the subtask that wrote them, of `written_by` ones. Nothing
/// if the items are no parts.
///
/// # Errors
/// When an item is damaged, or a split is there twice.
pub(crate) fn of_items(
    items: &BTreeMap<u32, Vec<Vec<u8>>>,
    written_by: u32,
    index: u32,
    parallelism: u32,
) -> Result<Option<Parts>, Failure> {
    let mut all = Vec::new();
    for (subtask, items) in items {
        let list: Result<Option<Vec<Part>>, Failure> =
            items.iter().map(|item| Part::from_item(item)).collect();
        let Some(list) = list? else { return Ok(None) };
        all.push(Parts { subtask: *subtask, parallelism: written_by, list });
    }
    let Some(last) = all.last() else { return Ok(None) };
    // Items of a savepoint that was built by a tool are those of nobody, and numbered one by one.
    let list = if written_by == parallelism && last.subtask < parallelism {
        share(&all, index, parallelism)
    } else {
        deal(all.iter().flat_map(|parts| &parts.list), index, parallelism)
    };
    Ok(Some(Parts { subtask: index, parallelism, list: list? }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn split(id: impl ToString) -> Part {
        Part::Split { id: id.to_string(), split: vec![7] }
    }

    fn transactions(writer: u32, checkpoint: u64) -> Part {
        Part::Transactions { writer, checkpoint, committables: vec![vec![1]] }
    }

    fn written(lists: &[&[Part]]) -> Vec<Parts> {
        let parallelism = lists.len() as u32;
        let parts = |(subtask, list): (usize, &&[Part])| Parts {
            subtask: subtask as u32,
            parallelism,
            list: list.to_vec(),
        };
        lists.iter().enumerate().map(parts).collect()
    }

    #[test]
    fn a_pinned_split_goes_to_its_subtask_at_any_parallelism_also_from_a_savepoint() {
        let pinned = |id: &str, pin| Part::Pinned { id: id.into(), split: vec![7], pin };
        let lists: [&[Part]; 2] = [&[pinned("a", 5)], &[pinned("b", 4), split("c")]];
        let all = written(&lists);
        let items = |list: &[Part]| list.iter().map(|part| part.to_item().unwrap()).collect();
        let items: BTreeMap<u32, Vec<Vec<u8>>> = (0..).zip(lists.map(items)).collect();
        for (index, expected) in [(0, [split("c")]), (1, [pinned("b", 4)]), (2, [pinned("a", 5)])] {
            assert_eq!(share(&all, index, 3).unwrap(), expected);
            assert_eq!(of_items(&items, 2, index, 3).unwrap().unwrap().list, expected);
        }
        assert_eq!(share(&all, 0, 2).unwrap(), lists[0], "with the same parallelism all stay");
    }

    fn ids(parts: &[Part]) -> String {
        let id = |part: &Part| match part {
            Part::Began => "began".to_string(),
            Part::Whole(_) => "whole".to_string(),
            Part::Finished { id } => format!("-{id}"),
            Part::Split { id, .. } => id.clone(),
            Part::Pinned { id, .. } => format!("!{id}"),
            Part::List { state, how, elements, .. } => {
                let elements: Vec<String> = elements.iter().map(|element| element[0].to_string()).collect();
                format!(
                    "{state}{}{}",
                    if *how == Redistribution::Split { ":" } else { "=" },
                    elements.join(".")
                )
            }
            Part::Broadcast { state, entries, .. } => format!("{state}*{}", entries.len()),
            Part::Transactions { writer, checkpoint, .. } => format!("{writer}@{checkpoint}"),
        };
        parts.iter().map(id).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn parts_go_to_exactly_these_subtasks() {
        let uneven = written(&[&[Part::Began, split("a"), split("b"), split("c")], &[], &[split("d")]]);
        let sinks = written(&[&[transactions(0, 4), transactions(4, 3)], &[transactions(1, 4)], &[]]);
        let read = written(&[&[split("a")], &[Part::Finished { id: "b".into() }, split("c")]]);
        let table: [(&str, &[Parts], &[&str]); 8] = [
            ("a split at its end is told by the first", &read, &["a -b", "c", ""]),
            ("nothing restored", &[], &["", ""]),
            ("as they were", &uneven, &["began a b c", "", "d"]),
            ("one takes all", &uneven, &["began a b c d"]),
            ("dealt to fewer", &uneven, &["began a c", "b d"]),
            ("dealt to more", &uneven, &["began a", "b", "c", "d", ""]),
            ("transactions of who made them", &sinks, &["0@4 4@3", "1@4"]),
            ("also of one that was gone before", &sinks, &["0@4", "1@4", "", "", "4@3"]),
        ];
        for (name, all, expected) in table {
            let parallelism = expected.len() as u32;
            let found: Vec<String> =
                (0..parallelism).map(|index| ids(&share(all, index, parallelism).unwrap())).collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    fn list(how: Redistribution, elements: &[u8]) -> Part {
        let elements = elements.iter().map(|element| vec![*element]).collect();
        Part::List { state: "l".into(), schema: 1, how, elements }
    }

    /// A copy with so many entries, by which it is known.
    fn broadcast(entries: usize) -> Part {
        Part::Broadcast { state: "b".into(), schema: 1, entries: vec![(vec![1], vec![2]); entries] }
    }

    #[test]
    fn elements_of_lists_are_dealt_or_united_and_of_broadcast_state_one_copy_is_taken() {
        use Redistribution::{Split, Union};
        let dealt = written(&[&[list(Split, &[1, 2, 3])], &[list(Split, &[])], &[list(Split, &[4])]]);
        let united =
            written(&[&[list(Union, &[1, 2]), list(Split, &[7])], &[list(Union, &[3]), list(Split, &[8])]]);
        let copies = written(&[&[broadcast(1)], &[broadcast(2)]]);
        let table: [(&str, &[Parts], &[&str]); 8] = [
            ("dealt, as they were", &dealt, &["l:1.2.3", "l:", "l:4"]),
            ("dealt to fewer", &dealt, &["l:1.3 l: l:", "l:2 l: l:4"]),
            ("dealt to more", &dealt, &["l:1 l: l:", "l:2 l: l:", "l:3 l: l:", "l: l: l:4", "l: l: l:"]),
            ("united, as they were", &united, &["l=1.2 l:7 l=3", "l=1.2 l=3 l:8"]),
            ("united by more", &united, &["l=1.2 l:7 l=3 l:", "l=1.2 l: l=3 l:8", "l=1.2 l: l=3 l:"]),
            ("each its own copy", &copies, &["b*1", "b*2"]),
            ("copies for more", &copies, &["b*1", "b*2", "b*1"]),
            ("a copy of those that are there", &copies[1..], &["b*2", "b*2", "b*2"]),
        ];
        for (name, all, expected) in table {
            let parallelism = expected.len() as u32;
            let found: Vec<String> =
                (0..parallelism).map(|index| ids(&share(all, index, parallelism).unwrap())).collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn what_would_lose_or_double_a_part_is_refused() {
        let mut all = written(&[&[split("a")], &[split("b")], &[]]);
        all.remove(1);
        assert!(share(&all, 0, 2).unwrap_err().message.contains("not from all subtasks"));
        let twice = written(&[&[split("a")], &[split("a")]]);
        assert!(share(&twice, 0, 1).unwrap_err().message.contains("`a` is there twice"));
    }

    #[test]
    fn items_of_a_savepoint_are_parts_or_positions() {
        for part in [Part::Began, split("a"), transactions(3, 9), Part::Finished { id: "b".into() }] {
            assert_eq!(Part::from_item(&part.to_item().unwrap()), Ok(Some(part)));
        }
        for position in [&[][..], &[0, 0xff], &[1; 8]] {
            assert_eq!(Part::from_item(position), Ok(None));
        }
        let mut damaged = Part::Began.to_item().unwrap();
        damaged.push(1);
        assert!(Part::from_item(&damaged).is_err());
    }

    #[test]
    fn items_go_where_their_parts_go_also_those_that_a_tool_has_written() {
        let item = |part: Part| part.to_item().unwrap();
        let of_two = BTreeMap::from([
            (0, vec![item(Part::Began), item(split("a")), item(split("b"))]),
            (1, vec![item(split("c"))]),
        ]);
        let of_nobody =
            of_two.values().flatten().enumerate().map(|(n, item)| (n as u32, vec![item.clone()])).collect();
        let lists = |items: &BTreeMap<u32, Vec<Vec<u8>>>, parallelism: u32| -> Vec<String> {
            let parts = |index| of_items(items, 2, index, parallelism).unwrap().unwrap();
            (0..parallelism).map(|index| ids(&parts(index).list)).collect()
        };
        assert_eq!(lists(&of_two, 2), ["began a b", "c"]);
        assert_eq!(lists(&of_two, 3), ["began a", "b", "c"]);
        assert_eq!(lists(&of_nobody, 2), ["began a c", "b"]);
        assert_eq!(of_items(&BTreeMap::new(), 2, 0, 2), Ok(None));
        assert_eq!(of_items(&BTreeMap::from([(0, vec![vec![1]])]), 2, 0, 2), Ok(None));
    }

    proptest! {
        #[test]
        fn over_any_changes_of_parallelism_each_part_stays_in_exactly_one_subtask(
            counts in proptest::collection::vec(0usize..9, 1..5),
            changes in proptest::collection::vec(1u32..7, 1..5),
        ) {
            let mut next = 0;
            let lists: Vec<Vec<Part>> = counts.iter().enumerate().map(|(writer, count)| {
                let splits = (0..*count).map(|_| { next += 1; split(next) });
                splits.chain([transactions(writer as u32, 1)]).collect()
            }).collect();
            let mut all = written(&lists.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let sorted = |all: &[Parts]| {
                let mut ids: Vec<String> = all.iter().flat_map(|parts| &parts.list).map(|part| ids(std::slice::from_ref(part))).collect();
                ids.sort();
                ids
            };
            let expected = sorted(&all);
            for parallelism in changes {
                let lists: Vec<Vec<Part>> = (0..parallelism).map(|index| share(&all, index, parallelism).unwrap()).collect();
                if all.len() != lists.len() {
                    let splits = |list: &Vec<Part>| list.iter().filter(|part| matches!(part, Part::Split { .. })).count();
                    let (least, most) = (lists.iter().map(splits).min(), lists.iter().map(splits).max());
                    prop_assert!(most.unwrap() <= least.unwrap() + 1);
                }
                all = written(&lists.iter().map(Vec::as_slice).collect::<Vec<_>>());
                prop_assert_eq!(sorted(&all), expected.clone());
            }
        }
    }
}
