//! Asks the log and the leader what there is to report.

use std::sync::Arc;

use thalweg_common::clock::SharedClock;
#[cfg(any(feature = "prometheus", feature = "rest"))]
use thalweg_common::status::JobStatus;
#[cfg(any(feature = "prometheus", feature = "rest"))]
use thalweg_metrics::scope::{Labels, Sample};
use thalweg_metrics::sight::JobSight;

use super::sight::{self, Windows};
use crate::consensus::Consensus;
#[cfg(any(feature = "prometheus", feature = "rest"))]
use crate::leader::TaskManagerView;
use crate::leader::{Leader, Mail, NotLeading};

/// What the cluster is like at one moment.
pub(crate) struct Collected {
    pub(crate) jobs: Vec<JobSight>,
    #[cfg(any(feature = "prometheus", feature = "rest"))]
    pub(crate) task_managers: Vec<TaskManagerView>,
    pub(crate) now_ms: i64,
}

#[cfg(any(feature = "prometheus", feature = "rest"))]
impl Collected {
    /// The cluster as a whole, under the names that Flink's job manager has for it.
    pub(crate) fn cluster(&self, labels: &Labels) -> Vec<Sample> {
        let slots = |of: fn(&TaskManagerView) -> u32| {
            self.task_managers.iter().map(|manager| f64::from(of(manager))).sum()
        };
        let running = self.jobs.iter().filter(|job| job.status == JobStatus::Running).count();
        let gauges: [(&str, &'static str, f64); 4] = [
            ("numRegisteredTaskManagers", "Task managers", self.task_managers.len() as f64),
            ("numRunningJobs", "Jobs that run", running as f64),
            ("taskSlotsAvailable", "Slots that are free", slots(|manager| manager.slots_free)),
            ("taskSlotsTotal", "Slots of all task managers", slots(|manager| manager.slots_total)),
        ];
        let gauge =
            |(name, help, value)| Sample::gauge(format!("flink_jobmanager_{name}"), help, labels, value);
        gauges.map(gauge).to_vec()
    }
}

/// Asks whenever a reporter wants to know. Each reporter has its own, because rates are those between its own questions.
pub(crate) struct Collector {
    consensus: Arc<dyn Consensus>,
    leader: Leader,
    clock: SharedClock,
    windows: Windows,
}

impl Collector {
    pub(crate) fn new(consensus: Arc<dyn Consensus>, leader: Leader, clock: SharedClock) -> Self {
        Self { consensus, leader, clock, windows: Windows::default() }
    }

    /// All jobs and task managers.
    ///
    /// # Errors
    /// When this node does not lead: then there is nothing to report here.
    pub(crate) async fn collect(&mut self) -> Result<Collected, NotLeading> {
        let live = self.leader.ask(|reply| Mail::View { job_id: None, reply }).await?;
        let task_managers = self.leader.ask(|reply| Mail::TaskManagers { reply }).await?;
        let now_ms = self.clock.now_ms();
        let state = self.consensus.state().read();
        let reported = state.jobs().filter(|job| sight::is_reported(job, now_ms));
        let jobs: Vec<_> = reported
            .filter_map(|job| Some(sight::of(job, live.get(&job.id)?, &task_managers, &mut self.windows)))
            .collect();
        drop(state);
        self.windows.retain(&jobs);
        Ok(Collected {
            jobs,
            #[cfg(any(feature = "prometheus", feature = "rest"))]
            task_managers,
            now_ms,
        })
    }
}
