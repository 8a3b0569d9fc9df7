//! The job manager of a simulation: which checkpoint is under way, what its snapshots hold, how each task ended.
//!
//! Pure: it is told the reports, and says what mail is to be sent. Invariant: as soon as all tasks are drained the final
//! checkpoint is taken, and nothing but a cancellation keeps the job from its end.

use std::collections::BTreeMap;

use thalweg_common::Timestamp;
use thalweg_common::codec;
use thalweg_common::config::CheckpointMode;
use thalweg_common::failure::Fault;
use thalweg_common::id::{CheckpointId, SubtaskId};
use thalweg_common::record::Record;
use thalweg_common::status::TaskStatus;

use super::expectation::{Expectation, Tally};
use super::job::Snapshots;
use super::scenario::Scenario;
use crate::event::Barrier;
use crate::in_flight::InFlight;
use crate::parts::Part;
use crate::snapshot::OperatorSnapshot;
use crate::task::mailbox::Mail;
use crate::task::{News, Report, TakenSnapshot};

/// Checkpoints that are triggered at random in one run: whoever takes them faster than barriers travel gets nowhere.
const MOST_CHECKPOINTS: CheckpointId = 100;

/// How often all tasks are lost in one run.
const MOST_CRASHES: u64 = 4;

/// What went wrong, in words.
pub(super) type Finding = String;

/// The state of the job, as its tasks report it.
pub(super) struct Manager<'a> {
    scenario: &'a Scenario,
    expectation: Expectation,
    pub(super) statuses: BTreeMap<SubtaskId, TaskStatus>,
    pub(super) pending: Option<Pending>,
    next_checkpoint: CheckpointId,
    pub(super) is_cancelled: bool,
    /// The checkpoints that completed.
    pub(super) completed: u64,
    /// Those among them whose barriers had overtaken records, and how many batches that were.
    pub(super) overtaken: u64,
    pub(super) overtaken_batches: u64,
    /// The snapshots of the last one that completed.
    pub(super) restorable: Option<Snapshots>,
    /// How often all tasks were lost.
    pub(super) crashes: u64,
    /// The final checkpoint was triggered.
    is_finishing: bool,
}

/// A checkpoint that is under way.
pub(super) struct Pending {
    barrier: Barrier,
    snapshots: BTreeMap<SubtaskId, TakenSnapshot>,
}

/// How many batches are on their way.
fn batches(in_flight: &InFlight) -> u64 {
    in_flight.inputs.values().chain(in_flight.outputs.values()).map(|batches| batches.len() as u64).sum()
}

/// Mail, and who gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Sources(Mail),
    All(Mail),
}

impl<'a> Manager<'a> {
    pub(super) fn new(scenario: &'a Scenario, tasks: impl Iterator<Item = SubtaskId>) -> Self {
        Self {
            scenario,
            expectation: Expectation::new(scenario),
            statuses: tasks.map(|task| (task, TaskStatus::Deploying)).collect(),
            pending: None,
            next_checkpoint: 1,
            is_cancelled: false,
            completed: 0,
            overtaken: 0,
            overtaken_batches: 0,
            restorable: None,
            crashes: 0,
            is_finishing: false,
        }
    }

    /// Takes a report.
    pub(super) fn on_report(&mut self, report: Report) -> Result<(), Finding> {
        let Report { subtask, news, .. } = report;
        match news {
            News::Status(status) => {
                self.statuses.insert(subtask, status);
            }
            // A channel may close before the cancellation of the other worker has come.
            News::Failed(failure) if self.is_cancelled && failure.fault != Fault::Internal => {
                self.statuses.insert(subtask, TaskStatus::Failed);
            }
            News::Failed(failure) => return Err(format!("task {subtask} failed: {failure}")),
            News::Snapshot(taken) => self.on_snapshot(subtask, taken)?,
            News::Time(_) | News::Gone => {}
        }
        Ok(())
    }

    /// All tasks are lost: the job begins again with what it can restore, which it is given.
    pub(super) fn crash(&mut self) -> Option<&Snapshots> {
        self.pending = None;
        self.is_finishing = false;
        self.crashes += 1;
        self.statuses.values_mut().for_each(|status| *status = TaskStatus::Deploying);
        self.restorable.as_ref()
    }

    /// Whether tasks may be lost now.
    pub(super) fn may_crash(&self) -> bool {
        let has_ended = |status: &TaskStatus| *status == TaskStatus::Finished;
        !self.is_cancelled
            && self.restorable.is_some()
            && self.crashes < MOST_CRASHES
            && !self.statuses.values().any(has_ended)
    }

    /// Triggers a checkpoint if none is under way and all tasks run.
    pub(super) fn trigger(&mut self, now_ms: Timestamp) -> Option<Order> {
        let runs = |status: &TaskStatus| matches!(status, TaskStatus::Running | TaskStatus::Drained);
        let is_free = self.pending.is_none() && !self.is_cancelled && !self.is_finishing;
        let may = is_free && self.next_checkpoint <= MOST_CHECKPOINTS && self.statuses.values().all(runs);
        may.then(|| self.begin(false, now_ms))
    }

    /// Gives the checkpoint that is under way up, unless it is the final one.
    pub(super) fn abort(&mut self) -> Option<Order> {
        let checkpoint = self.pending.as_ref().filter(|pending| !pending.barrier.is_final)?.barrier.id;
        self.pending = None;
        Some(Order::All(Mail::Aborted { checkpoint }))
    }

    fn begin(&mut self, is_final: bool, timestamp_ms: Timestamp) -> Order {
        let barrier = Barrier { id: self.next_checkpoint, timestamp_ms, is_final, is_savepoint: false };
        self.next_checkpoint += 1;
        self.is_finishing |= is_final;
        self.pending = Some(Pending { barrier, snapshots: BTreeMap::new() });
        Order::Sources(Mail::Trigger(barrier))
    }

    /// Begins the final checkpoint when everything is drained.
    pub(super) fn finish(&mut self, now_ms: Timestamp) -> Option<Order> {
        let may = self.pending.is_none()
            && !self.is_cancelled
            && !self.is_finishing
            && self.statuses.values().all(|status| *status == TaskStatus::Drained);
        may.then(|| self.begin(true, now_ms))
    }

    fn on_snapshot(&mut self, subtask: SubtaskId, taken: TakenSnapshot) -> Result<(), Finding> {
        let Some(pending) = &mut self.pending else { return Ok(()) };
        if taken.barrier.id < pending.barrier.id {
            return Ok(());
        }
        if taken.barrier != pending.barrier {
            return Err(format!("task {subtask} took {:?}, not {:?}", taken.barrier, pending.barrier));
        }
        if pending.snapshots.insert(subtask, taken).is_some() {
            return Err(format!("task {subtask} took checkpoint {} twice", pending.barrier.id));
        }
        Ok(())
    }

    /// Completes the checkpoint that is under way, if all tasks have taken it and recorded what it has overtaken.
    pub(super) fn complete(&mut self) -> Result<Option<Order>, Finding> {
        let Some(pending) = &mut self.pending else { return Ok(None) };
        if pending.snapshots.len() < self.statuses.len() || self.is_cancelled {
            return Ok(None);
        }
        for (subtask, taken) in &mut pending.snapshots {
            let Some(recorded) = &mut taken.in_flight else { continue };
            match recorded.try_take() {
                Ok(None) => return Ok(None),
                Ok(Some(in_flight)) => taken.snapshot.in_flight = in_flight,
                Err(error) => {
                    return Err(format!("task {subtask} gave checkpoint {} up: {error}", pending.barrier.id));
                }
            }
            taken.in_flight = None;
        }
        let Some(Pending { barrier, snapshots }) = self.pending.take() else { return Ok(None) };
        self.check(barrier, &snapshots)?;
        self.completed += 1;
        let batches: u64 = snapshots.values().map(|taken| batches(&taken.snapshot.in_flight)).sum();
        self.overtaken += u64::from(batches > 0);
        self.overtaken_batches += batches;
        let stored = snapshots.iter().map(|(subtask, taken)| {
            let bytes = codec::to_bytes(&taken.snapshot).map_err(|error| error.to_string())?;
            Ok((*subtask, bytes.into()))
        });
        self.restorable = Some(stored.collect::<Result<_, Finding>>()?);
        Ok(Some(Order::All(Mail::Completed { checkpoint: barrier.id, is_final: barrier.is_final })))
    }

    /// What the sinks have at a barrier is what the sources had sent before it; where it overtakes, no more than that, and the rest
    /// is on its way, which is seen when the job goes on from there.
    fn check(&self, barrier: Barrier, snapshots: &BTreeMap<SubtaskId, TakenSnapshot>) -> Result<(), Finding> {
        let vertices = &self.scenario.vertices;
        let mut expected = vec![Tally::default(); vertices.len()];
        let mut found = expected.clone();
        for (subtask, taken) in snapshots {
            // At most one operator of a chain has a state: its source or its sink.
            let state = taken.snapshot.operators.values().filter_map(newest_state).next();
            let (source, vertex) = (vertices[subtask.vertex as usize].source, subtask.vertex as usize);
            let Some(mut state) = state else { continue };
            let damaged = |_| format!("task {subtask} wrote a snapshot that cannot be read");
            if let Some(source) = source {
                let position = u64::decode(&mut state).map_err(damaged)?;
                if barrier.is_final && position != source.records {
                    return Err(format!("task {subtask} finished at {position} of {}", source.records));
                }
                self.expectation.add(subtask.vertex, subtask.index, position, &mut expected);
            } else {
                let (count, digest) = <(u64, u64)>::decode(&mut state).map_err(damaged)?;
                found[vertex].add(Tally { count, digest });
            }
        }
        for (vertex, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let is_exactly_once = self.scenario.mode == CheckpointMode::ExactlyOnce;
            let is_right = if is_exactly_once && self.scenario.overtakes_after.is_some() && !barrier.is_final
            {
                found.count <= expected.count
            } else if is_exactly_once || (barrier.is_final && self.crashes == 0) {
                found == expected
            } else {
                found.count >= expected.count
            };
            if self.scenario.is_sink(vertex as u32) && !is_right {
                return Err(format!("vertex {vertex} has {found:?} at {barrier:?}, expected {expected:?}"));
            }
        }
        Ok(())
    }

    /// How the tasks have to have ended.
    pub(super) fn check_end(&self) -> Result<(), Finding> {
        for (subtask, status) in &self.statuses {
            let is_right = match status {
                TaskStatus::Finished => true,
                TaskStatus::Canceled | TaskStatus::Failed => self.is_cancelled,
                _ => false,
            };
            if !is_right {
                return Err(format!("task {subtask} ended as {status}"));
            }
        }
        Ok(())
    }

    /// Who has not taken the checkpoint that is under way.
    pub(super) fn describe(&self) -> String {
        match &self.pending {
            None => "no checkpoint is under way".to_owned(),
            Some(Pending { barrier, snapshots }) => {
                let missing: Vec<String> = self
                    .statuses
                    .keys()
                    .filter(|subtask| !snapshots.contains_key(subtask))
                    .map(ToString::to_string)
                    .collect();
                format!(
                    "checkpoint {} (final: {}) waits for {}",
                    barrier.id,
                    barrier.is_final,
                    missing.join(", ")
                )
            }
        }
    }
}

/// A source's position, or what a sink has prepared at the last barrier.
fn newest_state(operator: &OperatorSnapshot) -> Option<&[u8]> {
    let last = operator.parts.as_ref().and_then(|parts| parts.list.last());
    match last {
        Some(Part::Transactions { committables, .. }) => committables.last().map(Vec::as_slice),
        _ => operator.operator_state.first().map(Vec::as_slice),
    }
}
