//! Asks the log and the leader what there is to report.

use std::sync::Arc;

use thalweg_common::clock::SharedClock;
use thalweg_metrics::sight::JobSight;

use super::sight::{self, Windows};
use crate::consensus::Consensus;
use crate::leader::{Leader, Mail, NotLeading};

/// What the cluster is like at one moment.
pub(crate) struct Collected {
    pub(crate) jobs: Vec<JobSight>,
    #[cfg(feature = "prometheus")]
    pub(crate) task_managers: Vec<crate::leader::TaskManagerView>,
    pub(crate) now_ms: i64,
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
            #[cfg(feature = "prometheus")]
            task_managers,
            now_ms,
        })
    }
}
