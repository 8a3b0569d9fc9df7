//! A job at a parallelism, and how it comes to another one.
//!
//! On a command's way `Rescale` stands between a checkpoint and the attempt that restores it at another parallelism. It changes the graph
//! and the state of the job in one entry of the log, so that no leader ever finds a new graph with tasks of the old one that count as running.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thalweg_common::Timestamp;
use thalweg_common::graph::JobGraph;
use thalweg_common::id::{Attempt, JobId};
use thalweg_common::status::JobStatus;

use super::command::Outcome;
use super::job::{JobRecord, StatusChange};
use super::refusal::{Operation, Refusal};
use super::state::ClusterState;

/// A job's graph at some parallelism, and the settings with which its program plans exactly that graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Layout {
    /// The plan.
    pub graph: Arc<JobGraph>,
    /// Settings of the submission; `parallelism.default` among them if the job was rescaled.
    pub configuration: BTreeMap<String, String>,
}

/// Why a job gets another layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RescaleKind {
    /// A user wants it. Until the job runs with it the old one is remembered.
    Asked,
    /// The one that a user wanted could not be brought to run: back to the one before.
    RolledBack,
    /// The adaptive scheduler goes by the slots that are there. What the job is to have is remembered.
    Adapted,
}

/// A job gets another layout; if it is RUNNING, it becomes RESTARTING by this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rescale {
    /// The job.
    pub job_id: JobId,
    /// The present attempt.
    pub attempt: Attempt,
    /// Why.
    pub kind: RescaleKind,
    /// The new layout.
    pub layout: Layout,
    /// For people.
    pub reason: String,
    /// Milliseconds since the epoch.
    pub time_ms: Timestamp,
}

/// The layouts of a job beside the present one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OtherLayouts {
    /// The one that comes back if the present one, which a user asked for, cannot be brought to run.
    pub previous: Option<Layout>,
    /// The one that the job gets when there are slots enough; absent when that is the present one.
    pub wanted: Option<Layout>,
}

impl OtherLayouts {
    /// What is remembered when `present` is replaced by `next`.
    pub(crate) fn replace(&mut self, kind: RescaleKind, present: Layout, next: &Layout) {
        *self = match kind {
            RescaleKind::Asked => Self { previous: Some(present), wanted: None },
            RescaleKind::RolledBack => Self::default(),
            RescaleKind::Adapted => {
                let wanted = self.wanted.take().unwrap_or(present);
                Self { previous: None, wanted: Some(wanted).filter(|wanted| wanted != next) }
            }
        };
    }
}

impl JobRecord {
    /// What it runs with at present.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout { graph: Arc::clone(&self.graph), configuration: self.configuration.clone() }
    }
}

impl ClusterState {
    pub(super) fn rescale(&mut self, rescale: Rescale) -> Result<Outcome, Refusal> {
        let Rescale { job_id, attempt, kind, layout, reason, time_ms } = rescale;
        let job = self.job_of_attempt(job_id, attempt)?;
        let waits = matches!(job.status, JobStatus::Created | JobStatus::Restarting);
        if waits && job.layout() == layout {
            return Ok(Outcome::Ok);
        }
        if job.status != JobStatus::Running && (!waits || kind == RescaleKind::Asked) {
            return Err(Refusal::NotNow { job_id, status: job.status, operation: Operation::Rescale });
        }
        let present = job.layout();
        job.layouts.replace(kind, present, &layout);
        job.graph = layout.graph;
        job.configuration = layout.configuration;
        // Their numbers are those of the graph before.
        job.going_on.clear();
        if job.status == JobStatus::Running {
            job.drop_checkpoints_in_progress();
            job.add_change(StatusChange {
                number: 0,
                time_ms,
                from: job.status,
                to: JobStatus::Restarting,
                attempt,
                reason: reason.clone(),
                failure: None,
            });
            job.status = JobStatus::Restarting;
            // A new leader waits for no delay of the restart strategy.
            job.restarts.resume_at_ms = time_ms;
        }
        job.reason = reason;
        Ok(Outcome::Ok)
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
