//! Copies of checkpoints that workers keep on this machine, for the end of their jobs.
//!
//! Workers make and remove copies themselves while their job lives; they are meant to outlive workers and task managers. So who
//! removes the last ones is whoever asks the leader which jobs live: every task manager does, when it has registered, when a
//! worker has ended, and now and then. Invariant: only directories named after jobs that the leader does not call alive are removed,
//! and only such as were there before it was asked.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::id::JobId;
use thalweg_common::task_scope::{TaskScope, blocking};
use thalweg_proto::client::{ClientError, JobClient};
use thalweg_proto::transport::Dialer;
use tokio::sync::{Notify, watch};

/// The longest time between two looks.
const INTERVAL: Duration = Duration::from_secs(60);

/// How long the leader is looked for.
const DEADLINE: Duration = Duration::from_secs(10);

/// The directories of copies. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct LocalState {
    directories: Arc<[PathBuf]>,
    worker_ended: Arc<Notify>,
}

impl LocalState {
    pub(crate) fn new(directories: Vec<PathBuf>) -> Self {
        Self { directories: directories.into(), worker_ended: Arc::default() }
    }

    /// The setting of workers that says where copies are kept.
    pub(crate) fn setting(&self) -> String {
        let directories: Vec<_> = self.directories.iter().map(|path| path.display().to_string()).collect();
        directories.join(",")
    }

    /// Perhaps its job has ended, too.
    pub(crate) fn worker_ended(&self) {
        self.worker_ended.notify_one();
    }

    /// Removes the copies of jobs that are gone, as long as `scope` lives.
    pub(crate) fn tidy_up(
        &self,
        job_managers: watch::Receiver<Vec<String>>,
        dialer: Dialer,
        mut registered: watch::Receiver<bool>,
        scope: &TaskScope,
    ) {
        let (state, token) = (self.clone(), scope.token());
        scope.spawn("local state", async move {
            let tidy = async {
                if registered.wait_for(|registered| *registered).await.is_err() {
                    return;
                }
                loop {
                    let addresses = job_managers.borrow().clone();
                    if let Err(reason) = state.remove_ended(&dialer, addresses).await {
                        tracing::warn!(
                            "cannot remove local copies of checkpoints of jobs that have ended: {reason}"
                        );
                    }
                    // Whichever comes first.
                    let _ = tokio::time::timeout(INTERVAL, state.worker_ended.notified()).await;
                }
            };
            token.run_until_cancelled(tidy).await;
        });
    }

    async fn remove_ended(&self, dialer: &Dialer, addresses: Vec<String>) -> Result<(), String> {
        let there = self.clone();
        let found = blocking("list local copies", move || there.jobs()).await;
        let found = found.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        if found.is_empty() {
            return Ok(());
        }
        let living = living(dialer, addresses).await.map_err(|error| error.to_string())?;
        for job in found.difference(&living).copied() {
            let there = self.clone();
            let removed = blocking("remove local copies", move || there.remove(job)).await;
            removed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            tracing::info!("removed the local copies of checkpoints of job {job}, which has ended");
        }
        Ok(())
    }

    /// The jobs of which there are copies.
    fn jobs(&self) -> io::Result<BTreeSet<JobId>> {
        let mut jobs = BTreeSet::new();
        for directory in self.directories.iter() {
            let entries = match std::fs::read_dir(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                jobs.extend(entry?.file_name().to_str().and_then(|name| name.parse::<JobId>().ok()));
            }
        }
        Ok(jobs)
    }

    fn remove(&self, job: JobId) -> io::Result<()> {
        self.directories.iter().try_for_each(|directory| {
            match std::fs::remove_dir_all(directory.join(job.to_string())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        })
    }
}

/// The jobs that have not ended.
async fn living(dialer: &Dialer, addresses: Vec<String>) -> Result<BTreeSet<JobId>, ClientError> {
    let jobs = JobClient::connect_with(dialer.clone(), addresses, DEADLINE).await?.list().await?;
    Ok(jobs.into_iter().filter(|job| !job.status.is_terminal()).map(|job| job.job_id).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_directories_of_jobs_count_and_all_of_a_job_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let paths = ["a", "b", "missing"].map(|name| root.path().join(name));
        let job = |number: u128| JobId(number);
        for path in [
            paths[0].join(job(1).to_string()),
            paths[1].join(job(1).to_string()),
            paths[1].join(job(2).to_string()),
            paths[1].join("lost+found"),
        ] {
            std::fs::create_dir_all(path.join("0-0")).unwrap();
            std::fs::write(path.join("0-0/chk-1-0-0-a1"), "state").unwrap();
        }
        let state = LocalState::new(paths.to_vec());
        assert_eq!(Vec::from_iter(state.jobs().unwrap()), [job(1), job(2)]);
        state.remove(job(1)).unwrap();
        state.remove(job(1)).unwrap();
        assert_eq!(Vec::from_iter(state.jobs().unwrap()), [job(2)]);
        assert!(paths[1].join("lost+found").exists());
        assert_eq!(state.setting().split(',').count(), 3);
    }
}
