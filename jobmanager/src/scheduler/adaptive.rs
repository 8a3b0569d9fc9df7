//! The adaptive scheduler: at which parallelism a job runs with the slots that are there. Pure; times come as inputs.
//!
//! On a command's way this stands between the offered slots and their allocation ([`place`](super::place)). A job that finds all the slots
//! it wants starts at once. Otherwise it waits until the number of slots has not changed for a while, and runs at the highest parallelism
//! that fits; once it runs, it is scaled up when more slots have stayed for that long. How many slots a parallelism takes only the plan of
//! the program says, because operators may set their own: plans are asked for one at a time, from the highest that may fit downwards.
//!
//! Invariants: no operator ever has a higher parallelism than it is wanted to have; a job is scaled up at most once in the least interval.

use std::collections::BTreeMap;

use thalweg_common::graph::JobGraph;
use thalweg_common::limits::MAX_KNOWN_LAYOUTS;

use super::place::slots_needed;
use super::rescale;
use crate::cluster::Layout;

/// How patient it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdaptiveSettings {
    /// For slots to run at all, before that counts as a failure.
    pub resource_wait_ms: u64,
    /// For more slots, when there are fewer than wanted: so long their number must not have changed.
    pub stabilization_ms: u64,
    /// From the moment a job runs to the moment it is scaled up.
    pub scaling_interval_ms: u64,
}

/// What to do with the slots that are there.
#[derive(Debug, Clone, PartialEq)]
pub enum Advice {
    /// Run in this layout now.
    Run(Layout),
    /// Find out what the program plans at this parallelism.
    Plan(u32),
    /// Nothing yet. Why smaller layouts cannot be used, if they cannot.
    Wait(Option<String>),
}

/// What a job has and is to have.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// What it runs in, or ran in last.
    pub present: &'a Layout,
    /// What it is to run in.
    pub wanted: &'a Layout,
    /// All that it could have, those that it holds among them.
    pub slots: usize,
    /// Whether all its tasks run.
    pub is_running: bool,
}

/// What the adaptive scheduler knows of one job.
#[derive(Debug, Clone, PartialEq)]
pub struct Adaptive {
    settings: AdaptiveSettings,
    /// What the program plans, by parallelism, or why that cannot be used.
    plans: BTreeMap<u32, Result<Layout, String>>,
    /// The parallelism whose plan is being made.
    asked: Option<u32>,
    /// As last offered, and since when, in monotonic milliseconds.
    slots: (usize, u64),
    /// Since when the job waits, or runs.
    since_ms: u64,
    /// When slots are to be offered again.
    due_ms: Option<u64>,
}

impl Adaptive {
    /// For a job of which nothing but its present layout is known.
    #[must_use]
    pub fn new(settings: AdaptiveSettings) -> Self {
        Self { settings, plans: BTreeMap::new(), asked: None, slots: (0, 0), since_ms: 0, due_ms: None }
    }

    /// How patient it is.
    #[must_use]
    pub fn settings(&self) -> AdaptiveSettings {
        self.settings
    }

    /// The job waits or runs from now on. What could not be planned is tried again.
    pub fn began(&mut self, now_ms: u64) {
        self.plans.retain(|_, plan| plan.is_ok());
        (self.since_ms, self.due_ms) = (now_ms, None);
    }

    /// The job is to have another layout: what was known is of no use.
    pub fn forget(&mut self) {
        self.plans.clear();
    }

    /// What the program plans at this parallelism, or why that is not known.
    pub fn planned(&mut self, parallelism: u32, wanted: &Layout, planned: Result<Layout, String>) {
        self.asked.take_if(|asked| *asked == parallelism);
        if self.plans.len() >= MAX_KNOWN_LAYOUTS {
            self.plans.clear();
        }
        let checked = planned.and_then(|layout| match rescale::check(&wanted.graph, &layout.graph) {
            Ok(()) => Ok(layout),
            Err(misfit) => Err(misfit.to_string()),
        });
        self.plans.insert(parallelism, checked);
    }

    /// When slots are to be offered again, in monotonic milliseconds.
    #[must_use]
    pub fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// Whether that moment has come; it comes once.
    pub fn is_due(&mut self, now_ms: u64) -> bool {
        self.due_ms.take_if(|due_ms| *due_ms <= now_ms).is_some()
    }

    /// A rescaling has failed: the next one is tried after the interval.
    pub fn failed(&mut self, now_ms: u64) {
        self.since_ms = now_ms;
        self.due_ms = Some(now_ms.saturating_add(self.settings.scaling_interval_ms));
    }

    /// Decides.
    pub fn advise(&mut self, situation: Situation<'_>, now_ms: u64) -> Advice {
        let Situation { present, wanted, slots, is_running } = situation;
        if self.slots.0 != slots {
            self.slots = (slots, now_ms);
        }
        self.due_ms = None;
        let layout = match self.choose(wanted, slots) {
            Choice::Plan(_) if self.asked.is_some() => return Advice::Wait(None),
            Choice::Plan(parallelism) => {
                self.asked = Some(parallelism);
                return Advice::Plan(parallelism);
            }
            Choice::Nothing(reason) => return Advice::Wait(reason),
            Choice::Run(layout) => layout,
        };
        let is_stable_ms = self.slots.1.saturating_add(self.settings.stabilization_ms);
        let due_ms = if is_running {
            if tasks(&layout.graph) <= tasks(&present.graph) {
                return Advice::Wait(None);
            }
            is_stable_ms.max(self.since_ms.saturating_add(self.settings.scaling_interval_ms))
        } else if layout == *wanted {
            now_ms
        } else {
            is_stable_ms.min(self.since_ms.saturating_add(self.settings.resource_wait_ms))
        };
        if due_ms <= now_ms {
            return Advice::Run(layout);
        }
        self.due_ms = Some(due_ms);
        Advice::Wait(None)
    }

    /// The layout with the highest parallelism that fits into `slots`.
    fn choose(&self, wanted: &Layout, slots: usize) -> Choice {
        if slots_needed(&wanted.graph) <= slots {
            return Choice::Run(wanted.clone());
        }
        let widest = wanted.graph.vertices.iter().map(|vertex| vertex.parallelism).max().unwrap_or(0);
        let slots_u32 = u32::try_from(slots).unwrap_or(u32::MAX);
        let mut parallelism = widest.saturating_sub(1).min(slots_u32);
        while parallelism > 0 {
            let layout = match self.plans.get(&parallelism) {
                None => return Choice::Plan(parallelism),
                Some(Err(reason)) => return Choice::Nothing(Some(reason.clone())),
                Some(Ok(layout)) => layout,
            };
            let excess = slots_needed(&layout.graph).saturating_sub(slots);
            parallelism = match raised(&wanted.graph, &layout.graph) {
                Some(wanted) => wanted.min(parallelism - 1),
                None if excess == 0 => return Choice::Run(layout.clone()),
                // Each group takes at most one slot less for every one that the parallelism is lowered by.
                None => {
                    let steps = excess.div_ceil(groups(&layout.graph).max(1));
                    parallelism.saturating_sub(u32::try_from(steps).unwrap_or(u32::MAX))
                }
            };
        }
        Choice::Nothing(None)
    }
}

/// A layout for some number of slots.
enum Choice {
    Run(Layout),
    /// That depends on this plan.
    Plan(u32),
    /// There is none; why smaller ones cannot be used.
    Nothing(Option<String>),
}

fn tasks(graph: &JobGraph) -> usize {
    graph.subtasks().count()
}

fn groups(graph: &JobGraph) -> usize {
    let names: std::collections::BTreeSet<_> =
        graph.vertices.iter().map(|vertex| vertex.slot_sharing_group.as_str()).collect();
    names.len()
}

/// The wanted parallelism of an operator that would have a higher one than that: a plan that was asked for above the parallelism which the
/// program sets by itself.
fn raised(wanted: &JobGraph, planned: &JobGraph) -> Option<u32> {
    let of = |graph: &JobGraph| -> BTreeMap<_, _> {
        let vertices = graph.vertices.iter();
        let operators =
            vertices.flat_map(|vertex| vertex.operators.iter().map(|one| (one.id, vertex.parallelism)));
        operators.collect()
    };
    let wanted = of(wanted);
    let raised = of(planned)
        .into_iter()
        .filter_map(|(id, planned)| wanted.get(&id).copied().filter(|wanted| *wanted < planned));
    raised.min()
}

#[cfg(test)]
#[path = "adaptive_tests.rs"]
mod tests;
