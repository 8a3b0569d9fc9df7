//! What the cores of the jobs ask for is done: at once, or as work beside the actor's mailbox.

use std::sync::Arc;

use thalweg_common::id::{JobId, TaskManagerId};
use thalweg_common::status::JobStatus;
use thalweg_proto::v1;
use tracing::{debug, info, warn};

use super::Term;
use crate::cluster::Command;
use crate::job::Action;
use crate::leader::wire;
use crate::leader::work::{self, JobFiles};

impl Term {
    /// Does what a core asks for.
    pub(super) fn execute(&mut self, job_id: JobId, actions: Vec<Action>) {
        for action in actions {
            let Some(job) = self.jobs.get_mut(&job_id) else { return };
            let spec = Arc::clone(job.core.spec());
            let files = JobFiles { spec: Arc::clone(&spec), storages: self.context.storages.clone() };
            match action {
                Action::Propose(command) => self.propose(job_id, command),
                Action::Send { task_manager, message } => {
                    self.send(&task_manager, wire::write(self.number, &spec, message));
                }
                Action::AllocateSlots => self.allocate = true,
                Action::WriteMetadata { metadata, known } => {
                    self.work.push(work::write_metadata(files, metadata, known));
                }
                Action::ReadMetadata { attempt, checkpoint_id, base, as_a_whole } => {
                    self.work.push(work::read_metadata(files, attempt, (checkpoint_id, base), as_a_whole));
                }
                Action::ReadShared(checkpoint_id) => self.work.push(work::read_shared(files, checkpoint_id)),
                Action::DeleteShared(paths) => self.work.push(work::delete_shared(files, paths)),
                Action::ListFiles => self.work.push(work::list_files(files)),
                Action::DeleteCheckpoint(checkpoint_id) => {
                    self.work.push(work::delete_checkpoints(files, Some(checkpoint_id)));
                }
                Action::WriteSavepoint { attempt, directory, metadata } => {
                    self.work.push(work::write_savepoint(files, attempt, directory, metadata));
                }
                Action::DeleteSavepoint(directory) => {
                    self.work.push(work::delete_savepoint(files, directory));
                }
                Action::DeleteForeign(base) => self.work.push(work::delete_foreign(files, base)),
                Action::Savepoint { request, news } => self.savepoints.tell(request, news),
                Action::Requested { request, news } => self.requested.tell(request, news),
                Action::Rescaled { request, news } => self.rescalings.tell(request, news),
                Action::Plan { parallelism } => {
                    self.work.push(work::plan(Arc::clone(&self.context), spec, parallelism));
                }
                Action::DeleteAllCheckpoints => self.work.push(work::delete_checkpoints(files, None)),
                Action::Disconnect { task_manager, reason } => self.lose(&task_manager, &reason),
                Action::RefuseStale { task_manager, attempt } => {
                    job.refused += 1;
                    let (present, count) = (job.core.attempt(), job.refused);
                    debug!(
                        "Refused a report of task manager {task_manager} about attempt {attempt} of job {job_id}, which \
                         is at attempt {present} ({count} so far)."
                    );
                }
                Action::Log(line) => info!("{line}"),
                Action::Warn(line) => warn!("{line}"),
            }
        }
    }

    /// Puts a command behind those of the job that are not in the log yet.
    fn propose(&mut self, job_id: JobId, command: Command) {
        let Some(job) = self.jobs.get_mut(&job_id) else { return };
        if let Command::StartAttempt { placement, .. } = &command {
            job.counters.retain(|subtask, _| !placement.contains_key(subtask));
            // Task managers ask this node first.
            if let Some(binary) = job.core.spec().binary {
                self.work.push(work::hold_binary(Arc::clone(&self.context), job_id, binary));
            }
        }
        let runs = matches!(&command, Command::ChangeJobStatus(change) if change.to == JobStatus::Running);
        job.proposals.push_back(command.clone());
        if job.proposals.len() == 1 {
            self.work.push(work::propose(Arc::clone(&self.context.consensus), job_id, command));
        }
        if runs {
            self.choose_standby(job_id);
        }
    }

    pub(super) fn send(&mut self, task_manager: &TaskManagerId, message: v1::JobManagerMessage) {
        if let Err(reason) = self.connections.send(task_manager, message) {
            self.lose(task_manager, reason);
        }
    }
}
