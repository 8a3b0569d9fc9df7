//! A checkpoint that somebody asks for: the first one that begins behind the request is theirs, and it begins at once if one may.
//!
//! It is a checkpoint like any other: it replaces the one before, sinks commit with it, and the next one follows it by the interval.
//! Invariants: one request at a time; whoever asked gets exactly one last answer, and hears of completion when it is in the log.

use thalweg_common::id::CheckpointId;

use super::message::{Action, Now};
use super::{JobCore, Phase};
use crate::checkpoint::Event;

/// A checkpoint that somebody waits for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Requested {
    /// Who.
    request: u64,
    /// Once it has begun.
    id: Option<CheckpointId>,
}

/// What somebody who waits for a checkpoint is told. The last two are the end.
#[derive(Debug, Clone, PartialEq)]
pub enum CheckpointNews {
    /// It is being taken.
    Progress,
    /// It is in the log.
    Completed(CheckpointId),
    /// It is not taken.
    Failed(String),
}

impl JobCore {
    pub(super) fn checkpoint_asked(&mut self, request: u64, now: Now, out: &mut Vec<Action>) {
        if let Err(reason) = self.may_take_checkpoint() {
            out.push(Action::Requested { request, news: CheckpointNews::Failed(reason) });
            return;
        }
        self.requested = Some(Requested { request, id: None });
        self.coordinate(Event::Wanted, now, out);
    }

    fn may_take_checkpoint(&self) -> Result<(), String> {
        self.may_take("checkpoint")?;
        if self.requested.is_some() {
            return Err("a checkpoint that was asked for is being taken already; wait until it is complete"
                .to_string());
        }
        if !self.spec.graph.checkpointing.is_enabled() {
            return Err("the job takes no checkpoints, and has no place for one; set `execution.checkpointing.interval` when you submit \
                        it, or take a savepoint"
                .to_string());
        }
        Ok(())
    }

    /// Whether a checkpoint or savepoint may be asked for.
    pub(super) fn may_take(&self, what: &str) -> Result<(), String> {
        if self.rescaling.is_some() {
            return Err("the job is being rescaled; ask again when it is RUNNING".to_string());
        }
        if self.asked.is_some() {
            return Err(
                "a savepoint of the job is being taken already; wait until it is complete".to_string()
            );
        }
        if self.phase != Phase::Running || self.coordinator.is_none() {
            let status = self.status;
            return Err(format!(
                "the job is {status}; a {what} can be taken while all its tasks run: ask again when it is RUNNING"
            ));
        }
        if self.may_finish() {
            return Err(format!("the job is about to finish; it needs no {what} any more"));
        }
        Ok(())
    }

    /// A checkpoint was triggered.
    pub(super) fn request_triggered(&mut self, id: CheckpointId) {
        if let Some(requested) = &mut self.requested {
            requested.id.get_or_insert(id);
        }
    }

    /// A checkpoint is in the log.
    pub(super) fn request_completed(&mut self, id: CheckpointId, out: &mut Vec<Action>) {
        self.answer_request(|requested| requested.id == Some(id), CheckpointNews::Completed(id), out);
    }

    /// A checkpoint never completes.
    pub(super) fn request_aborted(&mut self, id: CheckpointId, reason: &str, out: &mut Vec<Action>) {
        let news = CheckpointNews::Failed(format!("checkpoint {id} failed: {reason}"));
        self.answer_request(|requested| requested.id == Some(id), news, out);
    }

    /// None begins any more. One that is in the log's hands is decided there.
    pub(super) fn request_interrupted(&mut self, out: &mut Vec<Action>) {
        let reason = "no checkpoint was taken: the job has failed, was cancelled or has finished meanwhile";
        let is_undecided = self.requested.as_ref().and_then(|requested| requested.id);
        if !is_undecided.is_some_and(|id| self.committing.contains_key(&id)) {
            self.answer_request(|_| true, CheckpointNews::Failed(reason.to_string()), out);
        }
    }

    fn answer_request(
        &mut self,
        is_it: impl FnOnce(&mut Requested) -> bool,
        news: CheckpointNews,
        out: &mut Vec<Action>,
    ) {
        let requested = self.requested.take_if(is_it);
        out.extend(requested.map(|Requested { request, .. }| Action::Requested { request, news }));
    }
}
