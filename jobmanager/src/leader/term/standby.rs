//! Task managers that have no tasks of a job and its binary: where it moves when it has to.
//!
//! Stands beside a job's life: chosen when all its tasks run, and made up for as task managers register. Invariant: at most
//! [`STANDBY_TASK_MANAGERS`] for each job, none of which has tasks of it.

use std::collections::BTreeSet;

use thalweg_common::id::{JobId, TaskManagerId};
use thalweg_common::limits::STANDBY_TASK_MANAGERS;

use super::{Term, wire};

impl Term {
    /// All tasks of the job run: it has its standby.
    pub(super) fn choose_standby(&mut self, job_id: JobId) {
        let with_room = self.connections.with_room(&self.held_slots());
        self.stand_by(job_id, with_room);
    }

    /// A task manager has registered: jobs that run may be short of standby.
    pub(super) fn stand_by_for_all(&mut self, name: &TaskManagerId) {
        let running = self.jobs.iter().filter(|(_, job)| job.core.is_running()).map(|(job_id, _)| *job_id);
        for job_id in running.collect::<Vec<_>>() {
            self.stand_by(job_id, vec![name.clone()]);
        }
    }

    /// Lets task managers to which the job could move have its binary, until there are enough of them.
    fn stand_by(&mut self, job_id: JobId, candidates: Vec<TaskManagerId>) {
        let Some(job) = self.jobs.get_mut(&job_id) else { return };
        let Some(binary) = job.core.spec().binary else { return };
        let members: BTreeSet<_> = job.core.slots().map(|slot| &slot.task_manager).collect();
        job.standby.retain(|name| !members.contains(name));
        let mut chosen = Vec::new();
        for candidate in candidates.into_iter().filter(|candidate| !members.contains(candidate)) {
            if job.standby.len() >= STANDBY_TASK_MANAGERS {
                break;
            }
            if job.standby.insert(candidate.clone()) {
                chosen.push(candidate);
            }
        }
        for task_manager in chosen {
            self.send(&task_manager, wire::prefetch(self.number, binary));
        }
    }
}
