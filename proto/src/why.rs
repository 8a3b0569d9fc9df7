//! Why a window has not fired: for each operator with timers how far away the earliest is, and who holds its time back. Pure.
//!
//! The way goes upstream, against the watermarks: at each task the input that is waited for is the active one with the least watermark; it
//! ends where watermarks are made, at a split or a subtask of a source. Nothing here is certain to be of one moment: each task told its part
//! between two of its own turns.

use std::collections::BTreeMap;

use serde::Serialize;
use thalweg_common::Timestamp;
use thalweg_common::graph::{Operator, Vertex};
use thalweg_common::id::{EdgeId, SubtaskId};

use crate::model::time::{InputTime, JobTime, OriginTime, TaskTime};

/// An operator in one subtask, and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// The operator's name.
    pub operator: String,
    /// Its task.
    pub subtask: SubtaskId,
    /// The operator's watermark; nothing before the first.
    pub watermark_ms: Option<Timestamp>,
    /// Its earliest timer of event time that has not fired. A window that ends at `t` fires with a timer at `t - 1`.
    pub earliest_timer_ms: Option<Timestamp>,
    /// How much event time is missing until that fires; nothing without a watermark or a timer.
    pub missing_ms: Option<u64>,
    /// Who holds its time back, from the nearest to the source. Empty if it has no timers.
    pub held_back_by: Vec<Holder>,
}

/// One step of the way upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// The task.
    pub subtask: SubtaskId,
    /// The name of the operator whose output is waited for.
    pub operator: String,
    /// How far it is.
    pub watermark_ms: Option<Timestamp>,
    /// What is so with it.
    #[serde(flatten)]
    pub cause: Cause,
}

/// Why a task is no further.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Cause {
    /// It has the least watermark of the inputs, and waits itself for the next one of the list.
    Upstream,
    /// All inputs are idle: time goes on with the next record. The latest is followed.
    AllIdle {
        /// Since when the last of them is.
        since_ms: Option<Timestamp>,
    },
    /// All inputs have ended: the last watermark is on its way.
    Ended,
    /// Watermarks are made here.
    Origin {
        /// The split; nothing where time is kept for all of the subtask.
        split: Option<String>,
        /// When its last record came, or when it began.
        last_record_ms: Timestamp,
        /// How long ago that was.
        silent_ms: u64,
        /// Whether it is idle, so that time stands still until a record comes.
        idle: bool,
        /// Behind which time without records it is idle, if ever.
        idleness_ms: Option<u64>,
        /// Whether it is not read because it is ahead of the sources that it is aligned with.
        waits_for_others: bool,
    },
    /// There is no split, so no watermark.
    NoSplits,
    /// There is no watermark strategy on the way: nothing fires before the end of the input.
    NoStrategy,
    /// The task has not answered.
    NoAnswer,
}

/// What every operator with timers waits for, in the order of the plan.
#[must_use]
pub fn why(time: &JobTime) -> Vec<Waiting> {
    let tasks = time.tasks.iter().map(|task| (task.subtask, task)).collect();
    let search = Search { time, tasks };
    time.tasks.iter().flat_map(|task| search.of_task(task)).collect()
}

struct Search<'a> {
    time: &'a JobTime,
    tasks: BTreeMap<SubtaskId, &'a TaskTime>,
}

impl<'a> Search<'a> {
    fn of_task(&self, task: &TaskTime) -> Vec<Waiting> {
        let mut waiting = Vec::new();
        for (position, operator) in self.operators(task.subtask).iter().enumerate() {
            let told = task.operators.iter().find(|told| told.operator_id == operator.id);
            let Some(told) = told else { continue };
            // What the operator itself hears is what those in front of it in the chain have told.
            let watermark_ms = match self.strategy_before(task.subtask, position) {
                Some(strategy) => merged(&origins_of(task, strategy)),
                None => task.watermark,
            };
            let missing = |(timer, watermark): (Timestamp, Timestamp)| {
                u64::try_from(timer.saturating_sub(watermark)).unwrap_or(0)
            };
            let mut held_back_by = Vec::new();
            if told.earliest_timer_ms.is_some() {
                self.follow(task.subtask, position, &mut held_back_by);
            }
            waiting.push(Waiting {
                operator: operator.name.clone(),
                subtask: task.subtask,
                watermark_ms,
                earliest_timer_ms: told.earliest_timer_ms,
                missing_ms: told.earliest_timer_ms.zip(watermark_ms).map(missing),
                held_back_by,
            });
        }
        waiting
    }

    /// Adds who holds back the time of the operator at this position of a task's chain.
    fn follow(&self, subtask: SubtaskId, position: usize, way: &mut Vec<Holder>) {
        let name = |position: usize| {
            self.operators(subtask).get(position).map_or_else(String::new, |operator| operator.name.clone())
        };
        let Some(task) = self.tasks.get(&subtask) else {
            let (operator, cause) = (name(position), Cause::NoAnswer);
            return way.push(Holder { subtask, operator, watermark_ms: None, cause });
        };
        if let Some(strategy) = self.strategy_before(subtask, position) {
            return way.push(self.origin(task, strategy));
        }
        if task.inputs.is_empty() || self.is_source(subtask) {
            let (operator, cause) = (name(0), Cause::NoStrategy);
            return way.push(Holder { subtask, operator, watermark_ms: None, cause });
        }
        let (input, cause) = waited_for(&task.inputs);
        let sender = self.sending(input.edge);
        way.push(Holder {
            subtask: input.sender,
            operator: sender.1,
            watermark_ms: input.watermark,
            cause: cause.clone(),
        });
        // An edge leads from a lower vertex to a higher one, so this comes to an end.
        if cause != Cause::Ended && input.sender.vertex < subtask.vertex {
            let position = sender.0;
            let (before, has_strategy) = (way.len(), self.strategy_before(input.sender, position).is_some());
            self.follow(input.sender, position, way);
            // What is said of a source's subtask stands for the step to it.
            if has_strategy && cause == Cause::Upstream && way.len() > before {
                way.remove(before - 1);
            }
        }
    }

    /// What the operator that makes watermarks waits for.
    fn origin(&self, task: &TaskTime, strategy: &Operator) -> Holder {
        let origins = origins_of(task, strategy);
        let (subtask, operator) = (task.subtask, strategy.name.clone());
        let active = origins.iter().filter(|origin| !origin.idle);
        let holder = active.min_by_key(|origin| origin.watermark);
        // All are idle: the one from which a record came last.
        let holder = holder.or_else(|| origins.iter().max_by_key(|origin| origin.last_record_ms));
        let Some(origin) = holder else {
            return Holder { subtask, operator, watermark_ms: None, cause: Cause::NoSplits };
        };
        let silent_ms = u64::try_from(task.now_ms.saturating_sub(origin.last_record_ms)).unwrap_or(0);
        let cause = Cause::Origin {
            split: origin.split.clone(),
            last_record_ms: origin.last_record_ms,
            silent_ms,
            idle: origin.idle,
            idleness_ms: origin.idleness_ms,
            waits_for_others: origin.waits_for_others,
        };
        Holder { subtask, operator, watermark_ms: origin.watermark, cause }
    }

    fn vertex(&self, subtask: SubtaskId) -> Option<&'a Vertex> {
        self.time.graph.vertices.get(subtask.vertex as usize)
    }

    fn operators(&self, subtask: SubtaskId) -> &'a [Operator] {
        self.vertex(subtask).map_or(&[], |vertex| vertex.operators.as_slice())
    }

    /// The operator at this position of the chain or in front of it that makes the watermarks which come there.
    fn strategy_before(&self, subtask: SubtaskId, position: usize) -> Option<&'a Operator> {
        let operators = self.operators(subtask);
        let mut operator = operators.get(position)?;
        loop {
            if operator.makes_watermarks() {
                return Some(operator);
            }
            operator = operators.get(*operator.inputs.first()? as usize)?;
        }
    }

    /// Whether the task reads from outside, perhaps by splits that it is assigned.
    fn is_source(&self, subtask: SubtaskId) -> bool {
        self.operators(subtask).first().is_some_and(|head| head.kind == "source")
    }

    /// The operator that sends over an edge: its position and its name.
    fn sending(&self, edge: EdgeId) -> (usize, String) {
        let Some(edge) = self.time.graph.edges.get(edge as usize) else { return (0, String::new()) };
        let position = edge.source_operator as usize;
        let operators = self.operators(SubtaskId { vertex: edge.source, index: 0 });
        (position, operators.get(position).map_or_else(String::new, |operator| operator.name.clone()))
    }
}

fn origins_of<'a>(task: &'a TaskTime, strategy: &Operator) -> Vec<&'a OriginTime> {
    task.origins.iter().filter(|origin| origin.operator_id == strategy.id).collect()
}

/// The watermark of all of them: the least of the active ones, or else the latest.
fn merged(origins: &[&OriginTime]) -> Option<Timestamp> {
    let active = origins.iter().filter(|origin| !origin.idle).map(|origin| origin.watermark);
    active.min().unwrap_or_else(|| origins.iter().map(|origin| origin.watermark).max().flatten())
}

/// The input that is waited for. There is at least one.
fn waited_for(inputs: &[InputTime]) -> (InputTime, Cause) {
    let active = inputs.iter().filter(|input| !input.idle && !input.ended);
    if let Some(holder) = active.min_by_key(|input| input.watermark) {
        return (*holder, Cause::Upstream);
    }
    let idle = || inputs.iter().filter(|input| input.idle);
    match idle().max_by_key(|input| input.watermark) {
        Some(latest) => {
            (*latest, Cause::AllIdle { since_ms: idle().filter_map(|input| input.idle_since_ms).max() })
        }
        None => (inputs[0], Cause::Ended),
    }
}

#[cfg(test)]
#[path = "why_tests.rs"]
mod tests;
