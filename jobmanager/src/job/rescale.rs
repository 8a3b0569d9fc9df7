//! A running job goes to another parallelism: checkpoint, `Rescale` in the log, and the next attempt restores at the new one.
//!
//! Asked for by a user or by the adaptive scheduler. Until the checkpoint is complete nothing has changed, and a failure leaves the job as it
//! is. From then on it restarts like after a failure, without one being counted. A layout that a user asked for and that cannot
//! be brought to run is rolled back: not enough slots in time, or any failure before all tasks run.
//!
//! Invariant: no attempt starts between the proposal of a layout and its answer.

use std::sync::Arc;

use thalweg_common::id::CheckpointId;
use thalweg_common::status::{JobStatus, TaskStatus};

use super::message::{Action, Now};
use super::{JobCore, Next, Phase};
use crate::checkpoint::Event;
use crate::cluster::{Command, Layout, Outcome, Placement, Rescale, RescaleKind};
use crate::scheduler::place::{Offer, place};
use crate::scheduler::rescale;

/// How long a job that was rescaled waits for slots, which were free when that was decided, before it goes back.
const SLOTS_MS: u64 = 10_000;

/// What somebody who waits for a rescaling is told. The last two are the end.
#[derive(Debug, Clone, PartialEq)]
pub enum RescaleNews {
    /// What is being done.
    Progress(String),
    /// All tasks run at the new parallelism.
    Running,
    /// The job has its old parallelism, or has ended.
    Failed(String),
}

/// A rescaling that is not in the log yet.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rescaling {
    /// Who waits for it.
    request: Option<u64>,
    kind: RescaleKind,
    layout: Layout,
    reason: String,
    /// The checkpoint that was triggered for it. Any that completes will do; if this one fails, so does the rescaling.
    checkpoint: Option<CheckpointId>,
    /// Whether it has been proposed; before that it waits for its checkpoint.
    is_proposed: bool,
}

impl JobCore {
    /// A user wants the job to run in this layout.
    pub(super) fn rescale_asked(
        &mut self,
        request: u64,
        layout: Layout,
        offers: &[Offer],
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if let Err(reason) = self.may_rescale(&layout, offers) {
            out.push(Action::Rescaled { request, news: RescaleNews::Failed(reason) });
            return;
        }
        let reason = format!("rescaled to {}", describe(&layout));
        self.checkpoint_and_rescale(Some(request), RescaleKind::Asked, layout, reason, now, out);
    }

    fn may_rescale(&self, layout: &Layout, offers: &[Offer]) -> Result<(), String> {
        if self.rescaling.is_some() || self.layouts.previous.is_some() {
            return Err("the job is being rescaled already; wait until it is RUNNING".to_string());
        }
        if matches!(self.phase, Phase::Adopting { .. }) {
            return Err("a new leader is taking the job over; ask again in a moment".to_string());
        }
        if self.phase != Phase::Running || self.coordinator.is_none() {
            let status = self.status;
            return Err(format!(
                "the job is {status}; it can be rescaled while all its tasks run: ask again when it is RUNNING"
            ));
        }
        if self.asked.is_some() {
            return Err("a savepoint of the job is being taken; ask again when it is complete".to_string());
        }
        let ends = |status| matches!(status, TaskStatus::Drained | TaskStatus::Finished);
        if self.may_finish() || self.execution.all_tasks(ends) {
            return Err("the job is about to finish".to_string());
        }
        if !self.spec.graph.checkpointing.is_enabled() {
            return Err("the job takes no checkpoints, so its state cannot go with it; set `execution.checkpointing.interval` \
                        when you submit it"
                .to_string());
        }
        if layout.graph == self.spec.graph {
            return Err("the job runs like that already: no operator would change its parallelism; those that set it in the \
                        program keep it"
                .to_string());
        }
        rescale::check(&self.spec.graph, &layout.graph).map_err(|misfit| misfit.to_string())?;
        let placed = place(&layout.graph, offers, &self.last_placement, &Placement::new());
        placed.map(|_| ()).map_err(|shortage| {
            format!(
                "it would need {} slots, and {} can be had, its own among them; start more task managers or ask for less",
                shortage.needed, shortage.free
            )
        })
    }

    /// Takes a checkpoint, with which the job restarts in `layout`.
    pub(super) fn checkpoint_and_rescale(
        &mut self,
        request: Option<u64>,
        kind: RescaleKind,
        layout: Layout,
        reason: String,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        self.rescaling =
            Some(Rescaling { request, kind, layout, reason, checkpoint: None, is_proposed: false });
        self.tell_rescale(RescaleNews::Progress("taking a checkpoint".to_string()), out);
        self.coordinate(Event::Wanted, now, out);
    }

    /// A checkpoint was triggered: the first one since a rescaling has waited for one is its own.
    pub(super) fn rescale_triggered(&mut self, id: CheckpointId) {
        if let Some(rescaling) = &mut self.rescaling {
            rescaling.checkpoint.get_or_insert(id);
        }
    }

    /// A checkpoint never completes.
    pub(super) fn rescale_aborted(
        &mut self,
        id: CheckpointId,
        reason: &str,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if self.rescaling.as_ref().is_some_and(|rescaling| rescaling.checkpoint == Some(id)) {
            self.rescale_failed(&format!("its checkpoint failed: {reason}"), now, out);
        }
    }

    /// A checkpoint is in the log: a rescaling that has waited for it goes on.
    pub(super) fn rescale_with(&mut self, id: CheckpointId, is_final: bool, now: Now, out: &mut Vec<Action>) {
        if self.phase != Phase::Running
            || self.rescaling.as_ref().is_none_or(|rescaling| rescaling.is_proposed)
        {
            return;
        }
        if is_final {
            return self.rescale_failed("the job is about to finish", now, out);
        }
        let step = format!("checkpoint {id} is complete; restarting with it");
        self.tell_rescale(RescaleNews::Progress(step), out);
        self.propose_rescale(now, out);
        // The log has it as RESTARTING by the same command.
        self.status = JobStatus::Restarting;
        self.restarts.resume_at_ms = now.wall_ms;
        self.running_since_ms = None;
        self.stop_tasks(Next::Restart { until_ms: now.elapsed_ms }, self.spec.regions.all(), now, out);
    }

    /// A job of which nothing runs gets another layout.
    pub(super) fn replace_layout(
        &mut self,
        kind: RescaleKind,
        layout: Layout,
        reason: String,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        self.rescaling =
            Some(Rescaling { request: None, kind, layout, reason, checkpoint: None, is_proposed: false });
        self.propose_rescale(now, out);
    }

    /// Back to the layout before, after this failure.
    pub(super) fn roll_back(&mut self, failure: &str, now: Now, out: &mut Vec<Action>) {
        let Some(previous) = self.layouts.previous.clone() else { return };
        let reason =
            format!("back to {}, because the job could not be rescaled: {failure}", describe(&previous));
        self.replace_layout(RescaleKind::RolledBack, previous, reason, now, out);
        let news = format!("the job goes back to its old parallelism: {failure}");
        self.tell_rescaled(RescaleNews::Failed(news), out);
    }

    fn propose_rescale(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(rescaling) = &mut self.rescaling else { return };
        rescaling.is_proposed = true;
        let Rescaling { kind, layout, reason, .. } = rescaling;
        out.push(Action::Log(format!("Job {} ({}): {reason}.", self.spec.name, self.spec.job_id)));
        out.extend(parallelism_line(&self.spec.name, layout).map(Action::Log));
        out.push(Action::Propose(Command::Rescale(Rescale {
            job_id: self.spec.job_id,
            attempt: self.execution.attempt,
            kind: *kind,
            layout: layout.clone(),
            reason: reason.clone(),
            time_ms: now.wall_ms,
        })));
    }

    /// The log has decided about a layout.
    pub(super) fn rescale_decided(&mut self, outcome: &Outcome, now: Now, out: &mut Vec<Action>) {
        let Some(Rescaling { request, kind, layout, .. }) = self.rescaling.take() else { return };
        if let Outcome::Refused { reason } = outcome {
            let news = RescaleNews::Failed(format!("the change was refused: {reason}"));
            out.extend(request.map(|request| Action::Rescaled { request, news }));
            // The job restarts as it is; the log may have it as RUNNING still.
            if self.status == JobStatus::Restarting {
                self.switch(JobStatus::Restarting, format!("not rescaled: {reason}"), None, now, out);
            }
        } else {
            self.layouts.replace(kind, self.spec.layout(), &layout);
            self.spec = Arc::new(self.spec.with_layout(&layout));
            self.restarting = self.spec.regions.all();
            if let Some(adaptive) = self.adaptive.as_mut().filter(|_| kind != RescaleKind::Adapted) {
                adaptive.forget();
            }
            if kind == RescaleKind::Adapted {
                let news =
                    "there are not enough slots any more; the job runs with those that are there".to_string();
                self.tell_rescaled(RescaleNews::Failed(news), out);
            }
            self.rescaled = request.or(self.rescaled.take());
            let step = format!("starting with {}", describe(&layout));
            self.tell_rescaled(RescaleNews::Progress(step), out);
        }
        out.push(Action::AllocateSlots);
    }

    /// The checkpoint of a rescaling does not come about: the job stays as it is.
    pub(super) fn rescale_failed(&mut self, reason: &str, now: Now, out: &mut Vec<Action>) {
        let Some(rescaling) = self.rescaling.take_if(|rescaling| !rescaling.is_proposed) else { return };
        if let Some(adaptive) = self.adaptive.as_mut().filter(|_| rescaling.kind == RescaleKind::Adapted) {
            adaptive.failed(now.elapsed_ms);
        }
        let news = RescaleNews::Failed(format!("the job keeps its parallelism: {reason}"));
        out.extend(rescaling.request.map(|request| Action::Rescaled { request, news }));
    }

    /// All tasks run, as far as the log knows, so that there is no way back.
    pub(super) fn rescale_succeeded(&mut self, out: &mut Vec<Action>) {
        self.layouts.previous = None;
        self.tell_rescaled(RescaleNews::Running, out);
    }

    /// The job ends.
    pub(super) fn rescale_ended(&mut self, out: &mut Vec<Action>) {
        let ended = || RescaleNews::Failed("the job was cancelled or has failed meanwhile".to_string());
        if let Some(request) = self.rescaling.as_mut().and_then(|rescaling| rescaling.request.take()) {
            out.push(Action::Rescaled { request, news: ended() });
        }
        self.tell_rescaled(ended(), out);
    }

    /// How long the job waits for slots.
    pub(super) fn slots_patience_ms(&self) -> u64 {
        match &self.adaptive {
            Some(adaptive) => adaptive.settings().resource_wait_ms,
            None if self.layouts.previous.is_some() => self.spec.patience.slot_request_ms.min(SLOTS_MS),
            None => self.spec.patience.slot_request_ms,
        }
    }

    fn tell_rescale(&self, news: RescaleNews, out: &mut Vec<Action>) {
        let request = self.rescaling.as_ref().and_then(|rescaling| rescaling.request);
        out.extend(request.map(|request| Action::Rescaled { request, news }));
    }

    /// Tells whoever waits for the layout that is in the log.
    fn tell_rescaled(&mut self, news: RescaleNews, out: &mut Vec<Action>) {
        let request = match news {
            RescaleNews::Progress(_) => self.rescaled,
            RescaleNews::Running | RescaleNews::Failed(_) => self.rescaled.take(),
        };
        out.extend(request.map(|request| Action::Rescaled { request, news }));
    }
}

/// What the log says of the parallelism of a layout, if that is set. Queries read the number from the end of the line.
pub(super) fn parallelism_line(job: &str, layout: &Layout) -> Option<String> {
    let key = thalweg_common::config::keys::PARALLELISM_DEFAULT.name;
    let parallelism = layout.configuration.get(key)?;
    Some(format!("Job {job} has the configuration property: {key}, {parallelism}"))
}

/// How people call a layout.
pub(super) fn describe(layout: &Layout) -> String {
    let vertices = layout.graph.vertices.iter();
    let widest = vertices.map(|vertex| vertex.parallelism).max().unwrap_or(0);
    let parallelism = thalweg_common::config::keys::PARALLELISM_DEFAULT.name;
    match layout.configuration.get(parallelism) {
        Some(parallelism) => format!("parallelism {parallelism}"),
        None => format!("its own parallelism, up to {widest}"),
    }
}
