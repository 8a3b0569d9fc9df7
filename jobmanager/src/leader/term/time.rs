//! What the leader does about event time: it aligns sources, and asks tasks how they keep it.
//!
//! Both are answers between task managers and the job's tasks that no log remembers: a new leader hears of all sources within their
//! interval, and who has asked an old one asks again.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_common::id::{JobId, SubtaskId, TaskManagerId};
use thalweg_common::status::TaskStatus;
use thalweg_proto::convert::{WireId, subtask};
use thalweg_proto::v1;
use thalweg_proto::v1::job_manager_message::Message as ToTaskManager;
use tokio::sync::mpsc;

use super::Term;
use crate::leader::wire;

impl Term {
    /// Sources say how far they are, and are told how far the group is.
    pub(super) fn align(&mut self, name: &TaskManagerId, told: v1::SourceWatermarks) {
        let Ok(job_id) = JobId::from_wire("source_watermarks.job_id", &told.job_id) else { return };
        let Some(job) = self.jobs.get_mut(&job_id) else { return };
        let spec = job.core.spec();
        job.alignment.follow(&spec.graph, spec.fingerprint);
        let mut groups = BTreeSet::new();
        for source in told.sources {
            if let Ok(id) = subtask("source_watermarks.sources.subtask", source.subtask)
                && job.core.task_attempt(id) == Some(told.attempt)
            {
                job.alignment.heard(&source.group, id, told.attempt, source.watermark);
                groups.insert(source.group);
            }
        }
        // Also where nothing is known: by the answer workers know that there is a leader.
        let watermark = |group: String| v1::GroupWatermark { watermark: job.alignment.least(&group), group };
        let groups = groups.into_iter().map(watermark).collect();
        let answer = v1::GroupWatermarks { job_id: told.job_id, attempt: told.attempt, groups };
        self.send(name, wire::envelope(self.number, ToTaskManager::GroupWatermarks(answer)));
        self.settle();
    }

    /// Asks the tasks of a job how they keep time. Their answers come into the sink; says whose are to be awaited.
    pub(in crate::leader) fn ask_time(
        &mut self,
        job_id: JobId,
        sink: mpsc::Sender<v1::TaskTime>,
    ) -> BTreeSet<SubtaskId> {
        self.take_new_jobs();
        let Some(job) = self.jobs.get(&job_id) else { return BTreeSet::new() };
        let runs = |status| matches!(status, TaskStatus::Running | TaskStatus::Drained);
        let mut by_task_manager = BTreeMap::<_, BTreeSet<_>>::new();
        for (subtask, task_manager, status) in job.core.tasks() {
            if runs(status) {
                by_task_manager.entry(task_manager.clone()).or_default().insert(subtask);
            }
        }
        let attempt = job.core.attempt();
        let awaited: BTreeSet<_> = by_task_manager.values().flatten().copied().collect();
        let request_id = self.times.begin(job_id, awaited.clone(), sink);
        for name in by_task_manager.into_keys() {
            let request = v1::TimeRequest { request_id, job_id: job_id.to_wire(), attempt };
            self.send(&name, wire::envelope(self.number, ToTaskManager::TimeRequest(request)));
        }
        self.settle();
        awaited
    }

    /// A task has answered.
    pub(super) fn time_told(&mut self, told: v1::TaskTime) {
        let Ok(job_id) = JobId::from_wire("task_time.job_id", &told.job_id) else { return };
        let Ok(id) = subtask("task_time.subtask", told.subtask) else { return };
        let attempt = self.jobs.get(&job_id).and_then(|job| job.core.task_attempt(id));
        if attempt == Some(told.attempt) {
            self.times.arrived(job_id, id, told);
        }
    }
}
