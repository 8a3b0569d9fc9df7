//! Slot allocation: which slot each subtask of a job runs in.
//!
//! On a command's way this is the step between a job that waits and `StartAttempt`. Rules, as in Flink with evenly spread
//! slots: subtask i of every vertex of a slot sharing group shares the group's slot i, so a group needs as many slots as
//! its widest vertex. A subtask returns to the slot that it had in the last attempt, if that is free: its worker lives there
//! and perhaps a copy of its state. The others take slots one by one from the task manager that is used least. All or nothing: a job never
//! holds some slots while it waits for others, so two waiting jobs cannot block each other. (A job of which some regions run
//! holds theirs: those do not wait.)

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use thalweg_common::graph::JobGraph;
use thalweg_common::id::{SubtaskId, TaskManagerId};

use crate::cluster::{Placement, Slot};

/// What one registered task manager has to offer to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Who offers.
    pub task_manager: TaskManagerId,
    /// All its slots.
    pub slots_total: u32,
    /// Those that no other job holds.
    pub free: BTreeSet<u32>,
    /// Whether it was told to stop: it gets no more tasks.
    pub draining: bool,
}

/// Not enough slots. Its text is what users see while a job waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// What the job needs beside the slots in which some of its regions run.
    pub needed: usize,
    /// Slots in which some of its regions run.
    pub held: usize,
    /// What is free.
    pub free: usize,
    /// Registered slots of task managers that take tasks.
    pub registered: usize,
    /// Task managers that take tasks.
    pub task_managers: usize,
    /// Task managers that were told to stop.
    pub draining: usize,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waiting for {} of {}: ", self.needed - self.free, count(self.needed, "slot"))?;
        let verb = if self.task_managers == 1 { "is" } else { "are" };
        match self.task_managers {
            0 => f.write_str("no task manager is registered")?,
            some => write!(
                f,
                "{} with {} {verb} registered",
                count(some, "task manager"),
                count(self.registered, "slot")
            )?,
        }
        let taken = self.registered.saturating_sub(self.free + self.held);
        if taken > 0 {
            write!(f, ", {taken} of them taken by other jobs")?;
        }
        if self.draining > 0 {
            write!(f, ", {} stopping", count(self.draining, "task manager"))?;
        }
        f.write_str("; start more task managers or lower --parallelism")
    }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// How many slots the job needs: the widest vertex of each slot sharing group.
#[must_use]
pub fn slots_needed(graph: &JobGraph) -> usize {
    group_widths(graph).values().map(|width| *width as usize).sum()
}

fn group_widths(graph: &JobGraph) -> BTreeMap<&str, u32> {
    let mut widths = BTreeMap::new();
    for vertex in &graph.vertices {
        let width = widths.entry(vertex.slot_sharing_group.as_str()).or_insert(0);
        *width = vertex.parallelism.max(*width);
    }
    widths
}

/// Places every subtask of `graph`, where it was in `last` if possible. Those in `kept` run and stay where they are.
///
/// # Errors
/// When fewer slots are free than the job needs; nothing is placed then.
pub fn place(
    graph: &JobGraph,
    offers: &[Offer],
    last: &Placement,
    kept: &Placement,
) -> Result<Placement, Shortage> {
    let open: Vec<&Offer> = offers.iter().filter(|offer| !offer.draining).collect();
    let mut slots = BTreeMap::new();
    for (subtask, slot) in kept {
        if let Some(vertex) = graph.vertices.get(subtask.vertex as usize) {
            slots.insert((vertex.slot_sharing_group.as_str(), subtask.index), slot.clone());
        }
    }
    let held: BTreeSet<Slot> = slots.values().cloned().collect();
    let is_held = |offer: &Offer, number: u32| {
        held.contains(&Slot { task_manager: offer.task_manager.clone(), number })
    };
    let needed = slots_needed(graph).saturating_sub(slots.len());
    let free_of = |offer: &&Offer| offer.free.iter().filter(|number| !is_held(offer, **number)).count();
    let free = open.iter().map(free_of).sum();
    if needed > free {
        return Err(Shortage {
            needed,
            held: held.len(),
            free,
            registered: open.iter().map(|offer| offer.slots_total as usize).sum(),
            task_managers: open.len(),
            draining: offers.len() - open.len(),
        });
    }
    returning(graph, &open, last, &mut slots);
    let taken: BTreeSet<Slot> = slots.values().cloned().collect();
    let mut others = spread(&open, &taken, needed + held.len() - taken.len()).into_iter();
    for (group, width) in group_widths(graph) {
        for index in 0..width {
            if let Entry::Vacant(vacant) = slots.entry((group, index))
                && let Some(slot) = others.next()
            {
                vacant.insert(slot);
            }
        }
    }
    let mut placement = Placement::new();
    for (vertex, data) in (0u32..).zip(&graph.vertices) {
        for index in 0..data.parallelism {
            if let Some(slot) = slots.get(&(data.slot_sharing_group.as_str(), index)) {
                placement.insert(SubtaskId { vertex, index }, slot.clone());
            }
        }
    }
    Ok(placement)
}

/// Adds the slot of each group's `i`th subtasks that they had before and that is free again. No slot is given twice, whatever
/// `last` says: it may be of a graph with other groups.
fn returning<'a>(
    graph: &'a JobGraph,
    offers: &[&Offer],
    last: &Placement,
    slots: &mut BTreeMap<(&'a str, u32), Slot>,
) {
    let is_free = |slot: &Slot| {
        let offer = offers.iter().find(|offer| offer.task_manager == slot.task_manager);
        offer.is_some_and(|offer| offer.free.contains(&slot.number))
    };
    let mut taken: BTreeSet<Slot> = slots.values().cloned().collect();
    for (subtask, slot) in last {
        let Some(vertex) = graph.vertices.get(subtask.vertex as usize) else { continue };
        if subtask.index < vertex.parallelism
            && let Entry::Vacant(vacant) = slots.entry((vertex.slot_sharing_group.as_str(), subtask.index))
            && is_free(slot)
            && taken.insert(slot.clone())
        {
            vacant.insert(slot.clone());
        }
    }
}

/// Takes `needed` free slots beside those that are `taken`, each from the task manager with the lowest share of taken slots
/// at that moment.
fn spread(offers: &[&Offer], taken: &BTreeSet<Slot>, needed: usize) -> Vec<Slot> {
    struct Candidate<'a> {
        offer: &'a Offer,
        free: Vec<u32>,
        given: usize,
    }
    let mut candidates: Vec<Candidate<'_>> = offers
        .iter()
        .map(|offer| {
            let is_taken = |number: &u32| {
                taken.contains(&Slot { task_manager: offer.task_manager.clone(), number: *number })
            };
            let free: Vec<u32> =
                offer.free.iter().rev().copied().filter(|number| !is_taken(number)).collect();
            Candidate { offer, given: offer.free.len() - free.len(), free }
        })
        .collect();
    candidates.sort_by(|left, right| left.offer.task_manager.cmp(&right.offer.task_manager));
    let mut slots = Vec::with_capacity(needed);
    while slots.len() < needed {
        let least_used =
            candidates.iter_mut().filter(|candidate| !candidate.free.is_empty()).min_by(|a, b| {
                // taken/total compared without division.
                let taken =
                    |c: &Candidate<'_>| (c.offer.slots_total as usize).saturating_sub(c.free.len()) as u64;
                let left = taken(a) * u64::from(b.offer.slots_total);
                let right = taken(b) * u64::from(a.offer.slots_total);
                left.cmp(&right).then(a.given.cmp(&b.given))
            });
        let Some(candidate) = least_used else { break };
        let Some(number) = candidate.free.pop() else { break };
        candidate.given += 1;
        slots.push(Slot { task_manager: candidate.offer.task_manager.clone(), number });
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{graph_of, vertex};
    use proptest::prelude::*;

    fn offer(name: &str, total: u32, free: impl IntoIterator<Item = u32>) -> Offer {
        let free = free.into_iter().collect();
        Offer { task_manager: TaskManagerId(name.into()), slots_total: total, free, draining: false }
    }

    fn slots_by_task_manager(placement: &Placement) -> BTreeMap<String, usize> {
        let slots: BTreeSet<&Slot> = placement.values().collect();
        slots.into_iter().fold(BTreeMap::new(), |mut counts, slot| {
            *counts.entry(slot.task_manager.to_string()).or_insert(0) += 1;
            counts
        })
    }

    #[test]
    fn subtasks_of_a_group_share_slots() {
        let graph = graph_of(vec![vertex("source", 2, "default"), vertex("count", 4, "default")]);
        let placement =
            place(&graph, &[offer("a", 2, 0..2), offer("b", 2, 0..2)], &Placement::new(), &Placement::new())
                .expect("there is room");
        assert_eq!(placement.len(), 6);
        for index in 0..2 {
            let of = |vertex| &placement[&SubtaskId { vertex, index }];
            assert_eq!(of(0), of(1), "subtask {index}");
        }
        assert_eq!(slots_by_task_manager(&placement), BTreeMap::from([("a".into(), 2), ("b".into(), 2)]));
    }

    #[test]
    fn subtasks_return_to_their_slots_and_only_the_others_move() {
        let graph = graph_of(vec![vertex("source", 2, "default"), vertex("count", 3, "default")]);
        let all = || [offer("a", 1, 0..1), offer("b", 1, 0..1), offer("c", 1, 0..1), offer("d", 1, 0..1)];
        let last = place(&graph, &all(), &Placement::new(), &Placement::new()).expect("there is room");
        let without_a = &all()[1..];
        let placement = place(&graph, without_a, &last, &Placement::new()).expect("there is room");
        for (subtask, slot) in &last {
            let expected = if slot.task_manager.0 == "a" { "d" } else { slot.task_manager.0.as_str() };
            assert_eq!(placement[subtask].task_manager.0, expected, "{subtask}");
        }
    }

    #[test]
    fn who_runs_stays_and_the_others_take_what_is_left() {
        // Two pipelines in the same slots; the second one is placed anew.
        let graph = graph_of(vec![vertex("one", 2, "default"), vertex("other", 3, "default")]);
        let all = [offer("a", 2, 0..2), offer("b", 2, 0..2)];
        let last = place(&graph, &all, &Placement::new(), &Placement::new()).expect("there is room");
        let mut kept = last.clone();
        kept.retain(|subtask, _| subtask.vertex == 0);
        let again = place(&graph, &all, &last, &kept).expect("its slots are free");
        assert_eq!(again, last, "the same slots are shared again");
        // Without any other place its third subtask finds none, though both slots are offered.
        let held = |name: &str| kept.values().filter(|slot| slot.task_manager.0 == name).count();
        let full = [offer("a", 2, 0..held("a") as u32), offer("b", 2, 0..held("b") as u32)];
        let shortage = place(&graph, &full, &last, &kept).expect_err("no third slot");
        assert_eq!((shortage.needed, shortage.free, shortage.held), (1, 0, 2));
        assert!(shortage.to_string().contains("waiting for 1 of 1 slot:"), "{shortage}");
        assert!(shortage.to_string().contains("2 of them taken by other jobs"), "{shortage}");
    }

    #[test]
    fn groups_do_not_share_slots() {
        let graph = graph_of(vec![vertex("source", 1, "in"), vertex("count", 2, "default")]);
        assert_eq!(slots_needed(&graph), 3);
        let placement = place(&graph, &[offer("a", 3, 0..3)], &Placement::new(), &Placement::new())
            .expect("there is room");
        let slots: BTreeSet<_> = placement.values().collect();
        assert_eq!(slots.len(), 3);
    }

    #[test]
    fn slots_are_spread_by_use() {
        type Slots<'a> = &'a [(&'a str, usize)];
        let table: [(u32, Vec<Offer>, Slots<'_>); 4] = [
            (2, vec![offer("a", 4, 0..4), offer("b", 4, 0..4)], &[("a", 1), ("b", 1)]),
            (2, vec![offer("a", 4, 2..4), offer("b", 4, 0..4)], &[("b", 2)]),
            (3, vec![offer("a", 2, 0..2), offer("b", 4, 0..4)], &[("a", 1), ("b", 2)]),
            (4, vec![offer("a", 1, 0..1), offer("b", 3, 0..3)], &[("a", 1), ("b", 3)]),
        ];
        for (parallelism, offers, expected) in table {
            let placement = place(
                &graph_of(vec![vertex("v", parallelism, "default")]),
                &offers,
                &Placement::new(),
                &Placement::new(),
            )
            .expect("room");
            let expected = expected.iter().map(|(name, slots)| (name.to_string(), *slots)).collect();
            assert_eq!(slots_by_task_manager(&placement), expected, "{offers:?}");
        }
    }

    #[test]
    fn a_shortage_says_what_is_missing_and_what_to_do() {
        let graph = graph_of(vec![vertex("v", 4, "default")]);
        let mut stopping = offer("c", 8, 0..8);
        stopping.draining = true;
        let table = [
            (
                vec![],
                "waiting for 4 of 4 slots: no task manager is registered; start more task managers or lower --parallelism",
            ),
            (
                vec![offer("a", 2, 0..2)],
                "waiting for 2 of 4 slots: 1 task manager with 2 slots is registered; start more task managers or lower --parallelism",
            ),
            (
                vec![offer("a", 2, 0..1), offer("b", 2, 0..2), stopping],
                "waiting for 1 of 4 slots: 2 task managers with 4 slots are registered, 1 of them taken by other jobs, 1 task manager stopping; start more task managers or lower --parallelism",
            ),
        ];
        for (offers, expected) in table {
            assert_eq!(
                place(&graph, &offers, &Placement::new(), &Placement::new())
                    .expect_err("no room")
                    .to_string(),
                expected
            );
        }
    }

    fn any_offers() -> impl Strategy<Value = Vec<Offer>> {
        let one = (1u32..6, any::<u8>(), any::<bool>());
        proptest::collection::vec(one, 0..6).prop_map(|all| {
            all.into_iter()
                .enumerate()
                .map(|(index, (total, taken, draining))| {
                    let free = (0..total).filter(|slot| taken >> slot & 1 == 0);
                    Offer { draining, ..offer(&format!("tm-{index}"), total, free) }
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn a_placement_uses_only_what_is_offered(
            offers in any_offers(),
            vertices in proptest::collection::vec((1u32..6, 0u32..3), 1..5),
            before in any_offers(),
        ) {
            let vertices = vertices.iter().map(|(p, group)| vertex("v", *p, &format!("g{group}"))).collect();
            let graph = graph_of(vertices);
            let needed = slots_needed(&graph);
            let free: usize = offers.iter().filter(|offer| !offer.draining).map(|offer| offer.free.len()).sum();
            let last = place(&graph, &before, &Placement::new(), &Placement::new()).unwrap_or_default();
            match place(&graph, &offers, &last, &Placement::new()) {
                Err(shortage) => prop_assert!(needed > free && shortage.needed - shortage.free == needed - free),
                Ok(placement) => {
                    prop_assert_eq!(placement.keys().copied().collect::<Vec<_>>(), graph.subtasks().collect::<Vec<_>>());
                    let used: BTreeSet<&Slot> = placement.values().collect();
                    prop_assert_eq!(used.len(), needed);
                    // Who can return does.
                    for (subtask, slot) in &last {
                        let is_free = offers.iter().any(|offer| {
                            !offer.draining && offer.task_manager == slot.task_manager && offer.free.contains(&slot.number)
                        });
                        prop_assert!(!is_free || placement.get(subtask) == Some(slot));
                    }
                    for slot in used {
                        let offer = offers.iter().find(|offer| offer.task_manager == slot.task_manager);
                        prop_assert!(offer.is_some_and(|offer| !offer.draining && offer.free.contains(&slot.number)));
                    }
                    // One slot never runs two subtasks of one vertex, nor vertices of two groups.
                    for (one, slot) in &placement {
                        for (other, _) in placement.iter().filter(|(id, other)| *id != one && *other == slot) {
                            prop_assert!(one.vertex != other.vertex);
                            let group = |id: &SubtaskId| &graph.vertices[id.vertex as usize].slot_sharing_group;
                            prop_assert_eq!(group(one), group(other));
                        }
                    }
                }
            }
        }
    }
}
