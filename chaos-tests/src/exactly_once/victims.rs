//! The processes that a schedule hits, and their return.

use anyhow::{Context, Result};

use super::schedule::{Kill, Target};
use crate::cluster::Cluster;
use crate::process::ProcessId;
use crate::wait;

/// A manager that was killed and must come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Down {
    TaskManager(u32),
    JobManager(u64),
}

/// Kills what the schedule says. Answers the victim's name, and who has to be started again.
pub(crate) async fn strike(cluster: &mut Cluster, kill: &Kill) -> Result<(String, Option<Down>)> {
    match kill.target {
        Target::Worker => {
            let (number, worker) = wait::until("a worker to kill", async || {
                let mut workers = Vec::new();
                for number in cluster.task_managers() {
                    let own = cluster.task_manager(number)?.id().children()?;
                    workers.extend(own.into_iter().filter(|one| one.is_alive()).map(|one| (number, one)));
                }
                let Some((number, worker)) = chosen(&workers, kill.choice) else { return Ok(None) };
                worker.kill()?;
                Ok(Some((number, worker)))
            })
            .await?;
            let ProcessId(id) = worker;
            Ok((format!("worker {id} of taskmanager-{number}"), None))
        }
        Target::TaskManager => {
            let number = chosen(&cluster.task_managers(), kill.choice).context("no task manager runs")?;
            cluster.kill_task_manager(number)?;
            Ok((format!("taskmanager-{number}"), Some(Down::TaskManager(number))))
        }
        Target::LeadingJobManager => {
            let id = cluster.leader().await?;
            cluster.kill_job_manager(id)?;
            Ok((format!("jobmanager-{id}"), Some(Down::JobManager(id))))
        }
    }
}

/// Starts a manager again, with the name and the disk that it had, and waits until it serves.
pub(crate) async fn bring_back(cluster: &mut Cluster, down: Down) -> Result<()> {
    match down {
        Down::TaskManager(number) => {
            cluster.restart_task_manager(number)?;
            cluster.task_manager_ready(number).await
        }
        Down::JobManager(id) => {
            cluster.start_job_manager(id)?;
            cluster.job_manager_ready(id).await
        }
    }
}

fn chosen<T: Copy>(candidates: &[T], choice: u64) -> Option<T> {
    let place = choice.checked_rem(candidates.len() as u64)?;
    candidates.get(usize::try_from(place).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remainder_is_the_place() {
        assert_eq!(chosen(&[5, 6, 7], 7), Some(6));
        assert_eq!(chosen::<u32>(&[], 7), None);
    }
}
