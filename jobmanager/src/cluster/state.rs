//! `apply`: the one place where the cluster state changes.
//!
//! Invariants: a job's state follows `JobStatus::can_become`; its attempts grow by one; its checkpoint ids grow and only
//! one in progress can complete, which ends all older ones; a submission has exactly one job. A command that was applied and is applied again
//! (its first answer was lost) changes nothing or is refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thalweg_common::Timestamp;
use thalweg_common::id::{Attempt, CheckpointId, JobId, SubmissionId};
use thalweg_common::limits::MAX_REMEMBERED_JOBS;
use thalweg_common::status::JobStatus;

use super::command::{Command, Outcome, StatusChanged, SubmitJob};
use super::job::{CompletedCheckpoint, JobRecord, Placement, RestartRecord, StatusChange};
use super::layout::OtherLayouts;
use super::refusal::{Operation, Refusal};

/// What every job manager knows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterState {
    jobs: BTreeMap<JobId, JobRecord>,
    submissions: BTreeMap<SubmissionId, JobId>,
    submitted: u64,
}

impl ClusterState {
    /// Applies a command: pure, the same on every node.
    pub fn apply(&mut self, command: Command) -> Outcome {
        let result = match command {
            Command::Noop => Ok(Outcome::Ok),
            Command::SubmitJob(job) => self.submit(job),
            Command::StartAttempt { job_id, attempt, placement, restored, time_ms: _ } => {
                self.start_attempt(job_id, attempt, placement, restored)
            }
            Command::ChangeJobStatus(change) => self.change_status(change),
            Command::BeginCheckpoint { job_id, attempt, time_ms: _ } => {
                self.begin_checkpoint(job_id, attempt)
            }
            Command::CompleteCheckpoint { job_id, attempt, checkpoint } => {
                self.complete_checkpoint(job_id, attempt, checkpoint)
            }
            Command::AbortCheckpoint { job_id, attempt, checkpoint_id } => {
                self.abort_checkpoint(job_id, attempt, checkpoint_id)
            }
            Command::SkipCheckpoints { job_id, attempt, restored, skipped } => {
                self.skip_checkpoints(job_id, attempt, restored, skipped)
            }
            Command::CompleteSavepoint { job_id, attempt, savepoint } => {
                self.complete_savepoint(job_id, attempt, savepoint)
            }
            Command::Rescale(rescale) => self.rescale(rescale),
            Command::ForgetSavepoint { path } => {
                self.forget_savepoint(&path);
                Ok(Outcome::Ok)
            }
        };
        result.unwrap_or_else(|reason| Outcome::Refused { reason })
    }

    /// All jobs that are remembered, by id.
    pub fn jobs(&self) -> impl Iterator<Item = &JobRecord> {
        self.jobs.values()
    }

    /// One job.
    #[must_use]
    pub fn job(&self, job_id: JobId) -> Option<&JobRecord> {
        self.jobs.get(&job_id)
    }

    /// The job that a submission made.
    #[must_use]
    pub fn job_of_submission(&self, submission_id: SubmissionId) -> Option<&JobRecord> {
        self.submissions.get(&submission_id).and_then(|job_id| self.jobs.get(job_id))
    }

    /// How many jobs were ever accepted: grows with each, so that a reader notices new ones cheaply.
    #[must_use]
    pub fn submitted(&self) -> u64 {
        self.submitted
    }

    fn submit(&mut self, submit: SubmitJob) -> Result<Outcome, Refusal> {
        if let Some(job_id) = self.submissions.get(&submit.submission_id) {
            return Ok(Outcome::Submitted { job_id: *job_id, repeated: true });
        }
        let job_id = submit.job_id;
        if self.jobs.contains_key(&job_id) {
            return Err(Refusal::JobIdTaken { job_id });
        }
        self.forget_until_there_is_room()?;
        self.submissions.insert(submit.submission_id, job_id);
        self.jobs.insert(job_id, new_job(submit));
        self.submitted += 1;
        Ok(Outcome::Submitted { job_id, repeated: false })
    }

    /// Forgets the job that ended first, when as many are remembered as may be.
    fn forget_until_there_is_room(&mut self) -> Result<(), Refusal> {
        while self.jobs.len() >= MAX_REMEMBERED_JOBS {
            let ended = self.jobs.values().filter_map(|job| Some((job.ended_ms?, job.id, job.submission_id)));
            let Some((_, job_id, submission_id)) = ended.min_by_key(|(ended_ms, id, _)| (*ended_ms, *id))
            else {
                return Err(Refusal::TooManyJobs { jobs: self.jobs.len() as u64 });
            };
            self.jobs.remove(&job_id);
            self.submissions.remove(&submission_id);
        }
        Ok(())
    }

    fn start_attempt(
        &mut self,
        job_id: JobId,
        attempt: Attempt,
        placement: Placement,
        restored: Option<CheckpointId>,
    ) -> Result<Outcome, Refusal> {
        let job = self.job_mut(job_id)?;
        if !matches!(job.status, JobStatus::Created | JobStatus::Restarting) {
            return Err(Refusal::NotNow { job_id, status: job.status, operation: Operation::StartAttempt });
        }
        if attempt == job.attempt && restored == job.restored && job.was_started(attempt, &placement) {
            return Ok(Outcome::Ok);
        }
        if Some(attempt) != job.attempt.checked_add(1) {
            return Err(Refusal::StaleAttempt { job_id, given: attempt, present: job.attempt });
        }
        job.drop_checkpoints_in_progress();
        job.start(attempt, placement, restored);
        Ok(Outcome::Ok)
    }

    fn change_status(&mut self, change: StatusChanged) -> Result<Outcome, Refusal> {
        let StatusChanged { job_id, attempt, to, reason, failure, going_on, restarts, time_ms } = change;
        let job = self.job_of_attempt(job_id, attempt)?;
        if job.status == to && !job.status.can_become(to) {
            return Ok(Outcome::Ok);
        }
        if !job.status.can_become(to) {
            return Err(Refusal::Transition { job_id, status: job.status, wanted: to });
        }
        if to != JobStatus::Running {
            job.drop_checkpoints_in_progress();
        }
        job.add_change(StatusChange {
            number: 0,
            time_ms,
            from: job.status,
            to,
            attempt,
            reason: reason.clone(),
            failure: failure.as_ref().map(|record| record.failure.clone()),
        });
        if let Some(failure) = failure {
            job.add_failure(failure);
        }
        if let Some(restarts) = restarts {
            job.restarts = restarts;
        }
        if to == JobStatus::Running {
            job.layouts.previous = None;
        }
        job.status = to;
        job.going_on = going_on;
        job.reason = reason;
        if to.is_terminal() {
            job.ended_ms = Some(time_ms);
        }
        Ok(Outcome::Ok)
    }

    fn begin_checkpoint(&mut self, job_id: JobId, attempt: Attempt) -> Result<Outcome, Refusal> {
        let job = self.job_of_attempt(job_id, attempt)?;
        if job.status != JobStatus::Running {
            return Err(Refusal::NotNow {
                job_id,
                status: job.status,
                operation: Operation::BeginCheckpoint,
            });
        }
        Ok(Outcome::CheckpointBegun { checkpoint_id: job.begin_checkpoint() })
    }

    fn complete_checkpoint(
        &mut self,
        job_id: JobId,
        attempt: Attempt,
        checkpoint: CompletedCheckpoint,
    ) -> Result<Outcome, Refusal> {
        let job = self.job_of_attempt(job_id, attempt)?;
        if job.checkpoints.contains(&checkpoint) {
            return Ok(Outcome::Ok);
        }
        if job.status != JobStatus::Running {
            let operation = Operation::CompleteCheckpoint;
            return Err(Refusal::NotNow { job_id, status: job.status, operation });
        }
        if !job.checkpoints_in_progress.contains(&checkpoint.id) {
            let in_progress = job.checkpoints_in_progress.last().copied();
            return Err(Refusal::StaleCheckpoint { job_id, given: checkpoint.id, in_progress });
        }
        if let Some(base) = job.add_checkpoint(checkpoint) {
            self.forget_savepoint(&base.path);
        }
        Ok(Outcome::Ok)
    }

    fn complete_savepoint(
        &mut self,
        job_id: JobId,
        attempt: Attempt,
        savepoint: CompletedCheckpoint,
    ) -> Result<Outcome, Refusal> {
        let job = self.job_of_attempt(job_id, attempt)?;
        if job.savepoints.contains(&savepoint) {
            return Ok(Outcome::Ok);
        }
        if job.status != JobStatus::Running {
            let operation = Operation::CompleteSavepoint;
            return Err(Refusal::NotNow { job_id, status: job.status, operation });
        }
        if !job.checkpoints_in_progress.contains(&savepoint.id) {
            let in_progress = job.checkpoints_in_progress.last().copied();
            return Err(Refusal::StaleCheckpoint { job_id, given: savepoint.id, in_progress });
        }
        job.add_savepoint(savepoint);
        Ok(Outcome::Ok)
    }

    fn forget_savepoint(&mut self, path: &str) {
        for job in self.jobs.values_mut() {
            job.savepoints.retain(|savepoint| savepoint.path.as_deref() != Some(path));
        }
    }

    fn abort_checkpoint(
        &mut self,
        job_id: JobId,
        attempt: Attempt,
        checkpoint_id: CheckpointId,
    ) -> Result<Outcome, Refusal> {
        self.job_of_attempt(job_id, attempt)?.abort_checkpoint(checkpoint_id);
        Ok(Outcome::Ok)
    }

    fn skip_checkpoints(
        &mut self,
        job_id: JobId,
        attempt: Attempt,
        restored: CheckpointId,
        skipped: Vec<(CheckpointId, String)>,
    ) -> Result<Outcome, Refusal> {
        let job = self.job_of_attempt(job_id, attempt)?;
        if job.status.is_terminal() {
            return Err(Refusal::NotNow {
                job_id,
                status: job.status,
                operation: Operation::SkipCheckpoints,
            });
        }
        job.skip_checkpoints(restored, skipped);
        Ok(Outcome::Ok)
    }

    fn job_mut(&mut self, job_id: JobId) -> Result<&mut JobRecord, Refusal> {
        self.jobs.get_mut(&job_id).ok_or(Refusal::UnknownJob { job_id })
    }

    pub(super) fn job_of_attempt(
        &mut self,
        job_id: JobId,
        attempt: Attempt,
    ) -> Result<&mut JobRecord, Refusal> {
        let job = self.job_mut(job_id)?;
        if attempt == job.attempt {
            Ok(job)
        } else {
            Err(Refusal::StaleAttempt { job_id, given: attempt, present: job.attempt })
        }
    }
}

/// A job at its beginning.
fn new_job(submit: SubmitJob) -> JobRecord {
    let submitted_ms: Timestamp = submit.time_ms;
    JobRecord {
        id: submit.job_id,
        submission_id: submit.submission_id,
        name: submit.name,
        binary: submit.binary,
        arguments: submit.arguments,
        configuration: submit.configuration,
        properties: submit.properties,
        graph: submit.graph,
        layouts: OtherLayouts::default(),
        checkpoint_directory: submit.checkpoint_directory,
        warnings: submit.warnings,
        submitted_ms,
        ended_ms: None,
        status: JobStatus::Created,
        reason: String::new(),
        attempt: 0,
        placement: Placement::new(),
        attempts: BTreeMap::new(),
        going_on: std::collections::BTreeSet::new(),
        restored: None,
        restarts: RestartRecord::default(),
        last_checkpoint_id: submit.base.as_ref().map_or(0, |base| base.id),
        checkpoints_in_progress: std::collections::BTreeSet::new(),
        checkpoints: std::collections::VecDeque::new(),
        base: submit.base,
        savepoints: std::collections::VecDeque::new(),
        checkpoints_completed: 0,
        checkpoints_failed: 0,
        failures: std::collections::VecDeque::new(),
        history: std::collections::VecDeque::new(),
        status_changes: 0,
        full_restarts: 0,
    }
}
