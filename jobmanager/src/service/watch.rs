//! Following one job: its present state, then every change until it has ended.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use thalweg_common::failure::Failure;
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;
use tokio::sync::watch;

use crate::cluster::{JobRecord, StatusChange};
use crate::consensus::SharedState;

/// A job as a watcher sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobEvent {
    /// Its state.
    pub status: JobStatus,
    /// Its execution attempt; 0 before the first.
    pub attempt: u32,
    /// Why it is in its state, as `waiting for 2 of 4 slots: ...`. May be empty.
    pub reason: String,
    /// The change that led to it; absent in the first event and when only the reason is new.
    pub change: Option<StatusChange>,
    /// The failure that led to this state, if one did.
    pub failure: Option<Failure>,
}

/// Follows one job.
pub struct JobWatch {
    job_id: JobId,
    state: SharedState,
    changes: watch::Receiver<u64>,
    reasons: watch::Receiver<Arc<BTreeMap<JobId, String>>>,
    /// Number of the last change that was told; absent before the first event.
    seen: Option<u64>,
    /// What the job waited for when that was last told.
    waits_for: String,
    events: VecDeque<JobEvent>,
    has_ended: bool,
}

impl JobWatch {
    pub(crate) fn new(
        job_id: JobId,
        state: SharedState,
        reasons: watch::Receiver<Arc<BTreeMap<JobId, String>>>,
    ) -> Self {
        let changes = state.changes();
        Self {
            job_id,
            state,
            changes,
            reasons,
            seen: None,
            waits_for: String::new(),
            events: VecDeque::new(),
            has_ended: false,
        }
    }

    /// The present state first, then every change; `None` after the job's last state, or when there is no such job (any
    /// more). Cancel-safe.
    pub async fn next(&mut self) -> Option<JobEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.has_ended {
                return None;
            }
            self.look();
            if self.events.is_empty() && !self.has_ended {
                tokio::select! {
                    biased;
                    changed = self.changes.changed() => changed.ok()?,
                    changed = self.reasons.changed() => changed.ok()?,
                }
            }
        }
    }

    /// Collects what is new.
    fn look(&mut self) {
        self.changes.mark_unchanged();
        let waits_for = self.reasons.borrow_and_update().get(&self.job_id).cloned().unwrap_or_default();
        let state = self.state.read();
        let Some(job) = state.job(self.job_id) else {
            self.has_ended = true;
            return;
        };
        self.has_ended = job.status.is_terminal();
        match self.seen {
            None => self.events.push_back(present(job, &waits_for)),
            Some(seen) => {
                let told = self.events.len();
                self.events.extend(job.changes_after(seen).map(|change| JobEvent {
                    status: change.to,
                    attempt: change.attempt,
                    reason: change.reason.clone(),
                    change: Some(change.clone()),
                    failure: change.failure.clone(),
                }));
                if self.events.len() == told && waits_for != self.waits_for {
                    self.events.push_back(present(job, &waits_for));
                }
            }
        }
        self.seen = Some(job.status_changes);
        self.waits_for = waits_for;
    }
}

/// The job as it is now.
fn present(job: &JobRecord, waits_for: &str) -> JobEvent {
    let failure = match job.status {
        JobStatus::Restarting | JobStatus::Failing | JobStatus::Failed => job.failures.back(),
        _ => None,
    };
    JobEvent {
        status: job.status,
        attempt: job.attempt,
        reason: if waits_for.is_empty() { job.reason.clone() } else { waits_for.to_string() },
        change: None,
        failure: failure.map(|record| record.failure.clone()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use crate::cluster::{ClusterState, Command, StatusChanged};
    use crate::testing::{checkpointed_graph, submission};

    const JOB: JobId = JobId(1);

    fn change(to: JobStatus) -> Command {
        Command::ChangeJobStatus(StatusChanged {
            job_id: JOB,
            attempt: 0,
            to,
            reason: "because".into(),
            failure: None,
            going_on: std::collections::BTreeSet::new(),
            restarts: None,
            time_ms: 3,
        })
    }

    #[tokio::test]
    async fn every_change_is_told_once_and_the_last_one_ends_the_watch() {
        let mut state = ClusterState::default();
        state.apply(Command::SubmitJob(submission(1, checkpointed_graph())));
        let shared = SharedState::new(state);
        let (reason, reasons) = watch::channel(Arc::new(BTreeMap::new()));
        let mut watch = JobWatch::new(JOB, shared.clone(), reasons);
        let first = watch.next().await.unwrap();
        assert_eq!((first.status, first.change), (JobStatus::Created, None));

        reason.send_replace(Arc::new(BTreeMap::from([(JOB, "waiting for slots".to_string())])));
        let waiting = watch.next().await.unwrap();
        assert_eq!((waiting.status, waiting.reason.as_str()), (JobStatus::Created, "waiting for slots"));

        // Several changes at once are told one by one.
        for to in [JobStatus::Restarting, JobStatus::Restarting, JobStatus::Cancelling, JobStatus::Canceled] {
            shared.apply(change(to));
        }
        let mut told = Vec::new();
        while let Some(event) = watch.next().await {
            told.push((event.change.unwrap().number, event.status));
        }
        let expected = [
            (1, JobStatus::Restarting),
            (2, JobStatus::Restarting),
            (3, JobStatus::Cancelling),
            (4, JobStatus::Canceled),
        ];
        assert_eq!(told, expected);
        assert_eq!(watch.next().await, None);
    }

    #[tokio::test]
    async fn a_job_that_has_ended_is_told_once_and_an_unknown_one_not_at_all() {
        let mut state = ClusterState::default();
        state.apply(Command::SubmitJob(submission(1, checkpointed_graph())));
        state.apply(change(JobStatus::Cancelling));
        state.apply(change(JobStatus::Canceled));
        let shared = SharedState::new(state);
        let (_reason, reasons) = watch::channel(Arc::default());
        let mut watch = JobWatch::new(JOB, shared.clone(), reasons.clone());
        assert_eq!(watch.next().await.unwrap().status, JobStatus::Canceled);
        assert_eq!(watch.next().await, None);
        assert_eq!(JobWatch::new(JobId(2), shared, reasons).next().await, None);
    }
}
