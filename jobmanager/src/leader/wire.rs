//! Between the messages of task managers and those of the job cores.

use std::collections::BTreeMap;

use bytes::Bytes;
use thalweg_common::id::{Attempt, JobId, Term, WorkerId};
use thalweg_proto::convert::{
    Malformed, WireId, failure, properties_to_wire, required, snapshot, subtask, task_status,
};
use thalweg_proto::v1;
use thalweg_proto::v1::job_manager_message::Message as ToTaskManager;
use thalweg_proto::v1::task_manager_message::Message as FromTaskManager;

use crate::checkpoint::metadata;
use crate::cluster::{BaseKind, Binary};
use crate::job::{Deployment, JobSpec, Message, News, Report, Worker};

/// What a task manager says.
pub(super) enum Said {
    /// It lives.
    Heartbeat(v1::Heartbeat),
    /// Something about a job's attempt.
    News { job_id: JobId, attempt: Attempt, news: News },
    /// A task is in another state; perhaps what it has counted comes with it.
    TaskChanged { counters: Option<v1::JobCounters>, job_id: JobId, attempt: Attempt, news: News },
    /// Logs that were asked for.
    Logs(v1::Logs),
    /// How far aligned sources are.
    SourceWatermarks(v1::SourceWatermarks),
    /// How a task keeps time, as was asked.
    TaskTime(v1::TaskTime),
    /// It was told to stop.
    Draining,
}

/// Reads a message.
pub(super) fn read(message: v1::TaskManagerMessage) -> Result<Said, Malformed> {
    let news = |job_id: Bytes, attempt, news| {
        Ok(Said::News { job_id: JobId::from_wire("job_id", &job_id)?, attempt, news })
    };
    match required("message", message.message)? {
        FromTaskManager::Register(_) => Err(Malformed::new("register", "came twice")),
        FromTaskManager::Heartbeat(heartbeat) => Ok(Said::Heartbeat(heartbeat)),
        FromTaskManager::WorkerReady(ready) => {
            let worker = worker(&ready.worker_id, ready.data_address)?;
            news(ready.job_id, ready.attempt, News::WorkerReady(worker))
        }
        FromTaskManager::WorkerLost(lost) => {
            let failure = failure("worker_lost.failure", lost.failure)?;
            let id = WorkerId::from_wire("worker_lost.worker_id", &lost.worker_id)?;
            news(lost.job_id, lost.attempt, News::WorkerLost { id, failure })
        }
        FromTaskManager::TaskStatusChanged(changed) => {
            let task = News::Task {
                subtask: subtask("task_status_changed.subtask", changed.subtask)?,
                status: task_status("task_status_changed.status", changed.status)?,
                failure: changed.failure.map(TryInto::try_into).transpose()?,
            };
            let job_id = JobId::from_wire("job_id", &changed.job_id)?;
            let counters = changed.counters.map(|counters| v1::JobCounters {
                job_id: changed.job_id,
                attempt: changed.attempt,
                tasks: vec![*counters],
                job_name: String::new(),
            });
            Ok(Said::TaskChanged { counters, job_id, attempt: changed.attempt, news: task })
        }
        FromTaskManager::CheckpointAcknowledged(acknowledged) => {
            let acknowledgement = News::Acknowledged {
                checkpoint_id: acknowledged.checkpoint_id,
                subtask: subtask("checkpoint_acknowledged.subtask", acknowledged.subtask)?,
                snapshot: snapshot("checkpoint_acknowledged.snapshot", acknowledged.snapshot)?,
                phases: acknowledged.phases.unwrap_or_default().into(),
            };
            news(acknowledged.job_id, acknowledged.attempt, acknowledgement)
        }
        FromTaskManager::CheckpointDeclined(declined) => {
            let decline = News::Declined {
                checkpoint_id: declined.checkpoint_id,
                subtask: subtask("checkpoint_declined.subtask", declined.subtask)?,
                failure: failure("checkpoint_declined.failure", declined.failure)?,
            };
            news(declined.job_id, declined.attempt, decline)
        }
        FromTaskManager::TasksStopped(stopped) => {
            let regions = stopped.regions.into_iter().collect();
            news(stopped.job_id, stopped.attempt, News::TasksStopped(regions))
        }
        FromTaskManager::Logs(logs) => Ok(Said::Logs(logs)),
        FromTaskManager::SourceWatermarks(watermarks) => Ok(Said::SourceWatermarks(watermarks)),
        FromTaskManager::TaskTime(time) => Ok(Said::TaskTime(time)),
        FromTaskManager::Draining(v1::Draining {}) => Ok(Said::Draining),
    }
}

fn worker(id: &[u8], data_address: String) -> Result<Worker, Malformed> {
    Ok(Worker { id: WorkerId::from_wire("worker_id", id)?, data_address })
}

/// Reads what a task manager runs when it registers: of each job its tasks of all attempts.
pub(super) fn reports(running: Vec<v1::RunningTasks>) -> Result<BTreeMap<JobId, Report>, Malformed> {
    let mut reports = BTreeMap::new();
    for running in running {
        let job_id = JobId::from_wire("running.job_id", &running.job_id)?;
        let worker = worker(&running.worker_id, running.data_address)?;
        let report = reports.entry(job_id).or_insert_with(|| Report { worker, tasks: BTreeMap::new() });
        for counters in running.tasks {
            let subtask = subtask("running.tasks.subtask", counters.subtask)?;
            let status = task_status("running.tasks.status", counters.status)?;
            report.tasks.insert(subtask, (running.attempt, status));
        }
    }
    Ok(reports)
}

/// Writes a message about a job.
pub(super) fn write(term: Term, spec: &JobSpec, message: Message) -> v1::JobManagerMessage {
    let job_id = spec.job_id.to_wire();
    envelope(
        term,
        match message {
            Message::StartWorker { attempt } => ToTaskManager::StartWorker(start_worker(spec, attempt)),
            Message::DeployTasks(deployment) => ToTaskManager::DeployTasks(deploy_tasks(spec, deployment)),
            Message::CancelTasks { attempt, regions } => {
                let regions = regions.into_iter().collect();
                ToTaskManager::CancelTasks(v1::CancelTasks { job_id, attempt, regions })
            }
            Message::TriggerCheckpoint { attempt, checkpoint_id, timestamp_ms, is_final } => {
                ToTaskManager::TriggerCheckpoint(v1::TriggerCheckpoint {
                    job_id,
                    attempt,
                    checkpoint_id,
                    timestamp_ms,
                    r#final: is_final,
                    savepoint_directory: String::new(),
                })
            }
            Message::TriggerSavepoint { attempt, checkpoint_id, timestamp_ms, is_final, directory } => {
                ToTaskManager::TriggerCheckpoint(v1::TriggerCheckpoint {
                    job_id,
                    attempt,
                    checkpoint_id,
                    timestamp_ms,
                    r#final: is_final,
                    savepoint_directory: directory,
                })
            }
            Message::EndInput { attempt } => ToTaskManager::EndInput(v1::EndInput { job_id, attempt }),
            Message::CheckpointCompleted { attempt, checkpoint_id, is_final } => {
                let completed = v1::CheckpointCompleted { job_id, attempt, checkpoint_id, r#final: is_final };
                ToTaskManager::CheckpointCompleted(completed)
            }
            Message::CheckpointAborted { attempt, checkpoint_id } => {
                ToTaskManager::CheckpointAborted(v1::CheckpointAborted { job_id, attempt, checkpoint_id })
            }
            Message::StopWorker => return stop_worker(term, spec.job_id),
        },
    )
}

/// A message in a term.
pub(super) fn envelope(term: Term, message: ToTaskManager) -> v1::JobManagerMessage {
    v1::JobManagerMessage { term, message: Some(message) }
}

/// The worker of a job that is not known or has ended is not needed.
pub(super) fn stop_worker(term: Term, job_id: JobId) -> v1::JobManagerMessage {
    envelope(term, ToTaskManager::StopWorker(v1::StopWorker { job_id: job_id.to_wire() }))
}

/// A worker with this binary may be wanted soon.
pub(super) fn prefetch(term: Term, binary: Binary) -> v1::JobManagerMessage {
    let Binary { sha256, size_bytes } = binary;
    envelope(term, ToTaskManager::PrefetchBinary(v1::PrefetchBinary { sha256: sha256.to_wire(), size_bytes }))
}

fn start_worker(spec: &JobSpec, attempt: Attempt) -> v1::StartWorker {
    v1::StartWorker {
        job_id: spec.job_id.to_wire(),
        attempt,
        sha256: spec.binary.map(|binary| binary.sha256.to_wire()).unwrap_or_default(),
        size_bytes: spec.binary.map_or(0, |binary| binary.size_bytes),
        arguments: spec.arguments.clone(),
        configuration: spec.configuration.clone().into_iter().collect(),
        properties: properties_to_wire(&spec.properties),
        plan_fingerprint: spec.fingerprint,
        cancellation_timeout_ms: spec.patience.cancellation_ms,
    }
}

fn deploy_tasks(spec: &JobSpec, deployment: Deployment) -> v1::DeployTasks {
    let location = |(subtask, worker): &(_, Worker)| v1::TaskLocation {
        subtask: Some(v1::SubtaskId::from(*subtask)),
        worker_id: worker.id.to_wire(),
        data_address: worker.data_address.clone(),
    };
    let of = |kind| deployment.base.as_ref().filter(|base| base.kind == kind);
    let savepoint = of(BaseKind::Savepoint).map(|base| v1::RestoredSavepoint {
        path: base.path.clone(),
        allow_non_restored_state: base.allow_non_restored_state,
    });
    let foreign = of(BaseKind::Checkpoint).and_then(|base| metadata::place(&base.path));
    v1::DeployTasks {
        restore_directory: foreign.map(|(directory, _)| directory.to_string()).unwrap_or_default(),
        job_id: spec.job_id.to_wire(),
        attempt: deployment.attempt,
        plan_fingerprint: spec.fingerprint,
        tasks: deployment
            .tasks
            .into_iter()
            .map(|(subtask, snapshots)| v1::TaskDeployment {
                region: spec.regions.region(subtask),
                subtask: Some(subtask.into()),
                snapshots: snapshots.into_iter().map(Into::into).collect(),
            })
            .collect(),
        locations: deployment.locations.iter().map(location).collect(),
        checkpoint_directory: spec.checkpoint_directory.clone().unwrap_or_default(),
        restored_checkpoint_id: deployment.restored.unwrap_or(0),
        savepoint,
    }
}
