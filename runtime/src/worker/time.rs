//! What a worker does about event time: it carries how far aligned sources are to the leader, brings them what that answers, and lets tasks tell
//! how they keep time.
//!
//! Invariant: sources go by what the leader said last for as long as [`Lease`] says, and by nothing behind that: a leader that is lost holds
//! none of them for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::graph::JobGraph;
use thalweg_common::id::{Attempt, SubtaskId};
use thalweg_common::limits::{ALIGNMENT_LEASE_INTERVALS, ALIGNMENT_LEASE_MS, MIN_ALIGNMENT_INTERVAL_MS};
use tokio::time::{Interval, MissedTickBehavior};
use tracing::{info, warn};

use super::Worker;
use super::messages::{self, GroupWatermark, SourceWatermark};
use crate::time::MAX_WATERMARK;
use crate::time::alignment::Alignment;

/// How long what the leader says of aligned sources holds. Pure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    /// How often it is asked; nothing if no source of the job is aligned.
    interval: Option<Duration>,
    /// When it answered last, if that still holds.
    heard: Option<Duration>,
}

impl Lease {
    /// For the sources of this job, which are all looked at as often as the most impatient one wants.
    pub(super) fn of(graph: &JobGraph) -> Self {
        let operators = graph.vertices.iter().flat_map(|vertex| &vertex.operators);
        let alignments = operators.filter_map(|operator| operator.time.as_ref()?.alignment.as_ref());
        let interval_ms = alignments.map(|alignment| alignment.update_interval_ms).min();
        let interval = interval_ms.map(|ms| Duration::from_millis(ms.max(MIN_ALIGNMENT_INTERVAL_MS)));
        Self { interval, heard: None }
    }

    /// When to tell how far sources are, if there is anything to tell.
    pub(super) fn ticks(&self) -> Option<Interval> {
        let mut ticks = tokio::time::interval(self.interval?);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(ticks)
    }

    /// The leader has answered.
    fn heard(&mut self, now: Duration) {
        self.heard = Some(now);
    }

    /// Whether what it said holds no more. Said once.
    fn has_ended(&mut self, now: Duration) -> bool {
        let intervals = self.interval.unwrap_or_default() * ALIGNMENT_LEASE_INTERVALS;
        let length = intervals.max(Duration::from_millis(ALIGNMENT_LEASE_MS));
        self.heard.take_if(|heard| now.saturating_sub(*heard) >= length).is_some()
    }
}

/// The next tick; never, without any.
pub(super) async fn tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => drop(ticks.tick().await),
        None => std::future::pending().await,
    }
}

impl Worker {
    /// Tells how far the aligned sources are. If the leader is silent for too long, they are free.
    pub(super) fn report_alignment(&mut self) {
        let mut attempts = BTreeMap::<Attempt, Vec<SourceWatermark>>::new();
        for (attempt, subtask, alignment) in self.alignments() {
            let (group, watermark) = (alignment.group().to_string(), alignment.reported());
            attempts.entry(attempt).or_default().push(SourceWatermark { subtask, group, watermark });
        }
        for (attempt, sources) in attempts {
            // A task manager that does not keep up gets the next ones.
            self.outgoing.try_send(messages::source_watermarks(self.job_id, attempt, sources));
        }
        if self.lease.has_ended(self.deployer.clock.monotonic()) {
            warn!("no job manager answers: sources are not aligned until one does");
            for (_, subtask, alignment) in self.alignments() {
                self.announce(subtask, &alignment, MAX_WATERMARK);
            }
        }
    }

    /// The leader says how far the groups are.
    pub(super) fn align(&mut self, attempt: Attempt, groups: &[GroupWatermark]) {
        self.lease.heard(self.deployer.clock.monotonic());
        for (_, subtask, alignment) in self.alignments().into_iter().filter(|(of, ..)| *of == attempt) {
            let said = groups.iter().find(|said| said.group == alignment.group());
            if let Some(watermark) = said.and_then(|said| said.watermark) {
                self.announce(subtask, &alignment, watermark);
            }
        }
    }

    fn announce(&self, subtask: SubtaskId, alignment: &Alignment, least: Timestamp) {
        let was_ahead = alignment.is_ahead();
        if !alignment.announce(least) {
            return;
        }
        if was_ahead != alignment.is_ahead() {
            let what = if was_ahead { "goes on" } else { "waits for other sources" };
            info!("task {subtask} {what} (watermark alignment of group `{}`)", alignment.group());
        }
        // Single splits may go on, too.
        if let Some(task) = self.task(subtask) {
            task.mailbox.wake();
        }
    }

    /// The aligned sources that are here, each with the attempt of its task.
    fn alignments(&self) -> Vec<(Attempt, SubtaskId, Alignment)> {
        let alignment = |(attempt, subtask, _)| {
            self.task(subtask)?.counters.alignment().map(|alignment| (attempt, subtask, alignment))
        };
        self.core.statuses().filter_map(alignment).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_the_leader_said_holds_for_a_while_and_its_end_is_said_once() {
        for (interval_ms, length_ms) in [(1_000, ALIGNMENT_LEASE_MS), (60_000, 180_000), (10, 5_000)] {
            let mut lease = Lease { interval: Some(at(interval_ms)), heard: None };
            assert!(!lease.has_ended(at(1_000_000)), "nothing was said");
            lease.heard(at(1_000));
            assert!(!lease.has_ended(at(1_000 + length_ms - 1)));
            assert!(lease.has_ended(at(1_000 + length_ms)), "{interval_ms}");
            assert!(!lease.has_ended(at(2_000_000)));
            lease.heard(at(2_000_000));
            lease.heard(at(2_000_000 + length_ms));
            assert!(!lease.has_ended(at(2_000_000 + length_ms)));
        }
    }
}
