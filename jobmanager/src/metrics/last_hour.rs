//! Notes the last hour while this job manager leads, for those who look at it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::id::JobId;
use thalweg_metrics::sight::TaskSight;
use thalweg_proto::model::TaskCounters;
use tokio::time::MissedTickBehavior;

use super::collector::Collector;
use super::hour::{self, Curves, Hours, JobFigures, STEP_MS};
use super::sight::{self, Windows};
use crate::cluster::JobRecord;
use crate::leader::{LiveJob, TaskManagerView};

/// The last hours of all jobs. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastHour {
    hours: Arc<Mutex<Hours>>,
}

impl LastHour {
    /// All curves of a job.
    pub(crate) fn curves(&self, job: JobId) -> Curves {
        self.hours().curves(job)
    }

    /// Records that a job's sources have read per second at the last `points` points, the oldest first.
    pub(crate) fn recent(&self, job: JobId, points: usize) -> Vec<Option<f32>> {
        self.hours().recent(job, points)
    }

    /// Looks at all jobs every ten seconds, without end.
    pub(super) async fn follow(self, mut collector: Collector) {
        let mut due = tokio::time::interval(Duration::from_millis(STEP_MS));
        // What was missed is a gap, and not made up for.
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            match collector.collect().await {
                Ok(collected) => self.hours().add(collected.now_ms, &collected.jobs),
                // What another leader notes is not known here: should this one lead again, its hour begins anew.
                Err(_) => self.hours().clear(),
            }
        }
    }

    fn hours(&self) -> MutexGuard<'_, Hours> {
        self.hours.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a job does at this moment; `earlier` is what a task told before its last report.
pub(crate) fn figures(
    now_ms: Timestamp,
    job: &JobRecord,
    live: &LiveJob,
    managers: &[TaskManagerView],
    earlier: impl Fn(&TaskSight) -> Option<TaskCounters>,
) -> JobFigures {
    hour::now(now_ms, &sight::of(job, live, managers, &mut Windows::default()), earlier)
}
