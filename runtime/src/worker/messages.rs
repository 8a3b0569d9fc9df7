//! What the worker and its task manager tell each other, in types of ours. Protobuf names stay in this file.

use std::collections::BTreeMap;
use std::sync::Arc;

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::graph::JobGraph;
use thalweg_common::id::{Attempt, CheckpointId, JobId, RegionId, SubtaskId, WorkerId};
use thalweg_common::status::TaskStatus;
use thalweg_proto::convert::{self, CheckpointPhases, Malformed, SnapshotHandle, WireId};
use thalweg_proto::v1::{self, worker_command, worker_message};

use crate::event::Barrier;
use crate::task::counters::Counted;
use crate::task::savepoint::RestoredSavepoint;
use crate::time::inquiry::{InputTime, OperatorTime, OriginTime, TaskTime};

/// What the task manager orders.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    /// Tasks of this plan, in one deployment for each region.
    Deploy {
        plan_fingerprint: u64,
        deployments: Vec<Deployment>,
    },
    /// In these regions; in all if there are none.
    Cancel {
        attempt: Attempt,
        regions: Vec<RegionId>,
    },
    Trigger {
        attempt: Attempt,
        barrier: Barrier,
        savepoint_directory: Option<String>,
    },
    EndInput {
        attempt: Attempt,
    },
    Completed {
        attempt: Attempt,
        checkpoint: CheckpointId,
        is_final: bool,
    },
    Aborted {
        attempt: Attempt,
        checkpoint: CheckpointId,
    },
    /// How far the groups of aligned sources are.
    Align {
        attempt: Attempt,
        groups: Vec<GroupWatermark>,
    },
    /// Somebody wants to know how tasks keep time.
    TellTime {
        attempt: Attempt,
        request_id: u64,
    },
    Shutdown,
}

/// The least watermark of a group of aligned sources, if the leader knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupWatermark {
    pub(crate) group: String,
    pub(crate) watermark: Option<Timestamp>,
}

/// How far a subtask of an aligned source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceWatermark {
    pub(crate) subtask: SubtaskId,
    pub(crate) group: String,
    pub(crate) watermark: Timestamp,
}

/// Tasks of one region to run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Deployment {
    pub(crate) region: RegionId,
    pub(crate) attempt: Attempt,
    /// The subtasks of this worker, with what each restores.
    pub(crate) tasks: BTreeMap<SubtaskId, Vec<SnapshotHandle>>,
    /// Where the exchanges of all subtasks of other workers listen.
    pub(crate) remote: Arc<BTreeMap<SubtaskId, String>>,
    /// Where the job's checkpoints are, if it takes any.
    pub(crate) checkpoint_directory: Option<String>,
    /// Where the files of the snapshots are, if another job's checkpoint is restored.
    pub(crate) restore_directory: Option<String>,
    /// The savepoint that is restored, in place of snapshots.
    pub(crate) savepoint: Option<RestoredSavepoint>,
}

impl Command {
    /// Reads a command for the worker `worker` of the job `job`.
    pub(crate) fn read(job: JobId, worker: WorkerId, command: v1::WorkerCommand) -> Result<Self, Malformed> {
        use worker_command::Message;
        let ours = |field: &'static str, id: &[u8]| match JobId::from_wire(field, id)? {
            id if id == job => Ok(()),
            other => Err(Malformed::new(field, format!("is {other}, but this worker is of job {job}"))),
        };
        match convert::required("worker_command.message", command.message)? {
            Message::DeployTasks(deploy) => {
                ours("deploy_tasks.job_id", &deploy.job_id)?;
                let plan_fingerprint = deploy.plan_fingerprint;
                Ok(Self::Deploy { plan_fingerprint, deployments: Deployment::read(worker, deploy)? })
            }
            Message::CancelTasks(cancel) => {
                ours("cancel_tasks.job_id", &cancel.job_id)?;
                Ok(Self::Cancel { attempt: cancel.attempt, regions: cancel.regions })
            }
            Message::TriggerCheckpoint(trigger) => {
                ours("trigger_checkpoint.job_id", &trigger.job_id)?;
                let (id, timestamp_ms) = (trigger.checkpoint_id, trigger.timestamp_ms);
                let savepoint_directory =
                    Some(trigger.savepoint_directory).filter(|directory| !directory.is_empty());
                let (is_final, is_savepoint) = (trigger.r#final, savepoint_directory.is_some());
                let barrier = Barrier { id, timestamp_ms, is_final, is_savepoint };
                Ok(Self::Trigger { attempt: trigger.attempt, barrier, savepoint_directory })
            }
            Message::EndInput(end) => {
                ours("end_input.job_id", &end.job_id)?;
                Ok(Self::EndInput { attempt: end.attempt })
            }
            Message::CheckpointCompleted(completed) => {
                ours("checkpoint_completed.job_id", &completed.job_id)?;
                let (attempt, checkpoint) = (completed.attempt, completed.checkpoint_id);
                Ok(Self::Completed { attempt, checkpoint, is_final: completed.r#final })
            }
            Message::CheckpointAborted(aborted) => {
                ours("checkpoint_aborted.job_id", &aborted.job_id)?;
                Ok(Self::Aborted { attempt: aborted.attempt, checkpoint: aborted.checkpoint_id })
            }
            Message::GroupWatermarks(said) => {
                ours("group_watermarks.job_id", &said.job_id)?;
                let groups = said.groups.into_iter();
                let groups =
                    groups.map(|said| GroupWatermark { group: said.group, watermark: said.watermark });
                Ok(Self::Align { attempt: said.attempt, groups: groups.collect() })
            }
            Message::TimeRequest(request) => {
                ours("time_request.job_id", &request.job_id)?;
                Ok(Self::TellTime { attempt: request.attempt, request_id: request.request_id })
            }
            Message::Shutdown(v1::Shutdown {}) => Ok(Self::Shutdown),
        }
    }
}

impl Deployment {
    /// Those of all regions.
    fn read(worker: WorkerId, deploy: v1::DeployTasks) -> Result<Vec<Self>, Malformed> {
        let mut tasks = BTreeMap::<_, BTreeMap<_, _>>::new();
        for task in deploy.tasks {
            let subtask = convert::subtask("deploy_tasks.tasks.subtask", task.subtask)?;
            let snapshots =
                task.snapshots.into_iter().map(SnapshotHandle::try_from).collect::<Result<_, _>>()?;
            if tasks.entry(task.region).or_default().insert(subtask, snapshots).is_some() {
                return Err(Malformed::new(
                    "deploy_tasks.tasks",
                    format!("names the subtask {subtask} twice"),
                ));
            }
        }
        let mut remote = BTreeMap::new();
        for location in deploy.locations {
            let subtask = convert::subtask("deploy_tasks.locations.subtask", location.subtask)?;
            if WorkerId::from_wire("deploy_tasks.locations.worker_id", &location.worker_id)? != worker {
                remote.insert(subtask, location.data_address);
            }
        }
        let checkpoint_directory =
            Some(deploy.checkpoint_directory).filter(|directory| !directory.is_empty());
        let restore_directory = Some(deploy.restore_directory).filter(|directory| !directory.is_empty());
        let savepoint = deploy.savepoint.map(|savepoint| RestoredSavepoint {
            path: savepoint.path,
            allow_non_restored_state: savepoint.allow_non_restored_state,
        });
        let remote = Arc::new(remote);
        let of_region = |(region, tasks)| Self {
            region,
            attempt: deploy.attempt,
            tasks,
            remote: Arc::clone(&remote),
            checkpoint_directory: checkpoint_directory.clone(),
            restore_directory: restore_directory.clone(),
            savepoint: savepoint.clone(),
        };
        Ok(tasks.into_iter().map(of_region).collect())
    }
}

/// Who sends: the beginning of most messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) job_id: JobId,
    pub(crate) attempt: Attempt,
    pub(crate) subtask: SubtaskId,
}

/// The snapshot of a task is stored.
pub(crate) struct Acknowledgement {
    pub(crate) checkpoint: CheckpointId,
    pub(crate) snapshot: SnapshotHandle,
    pub(crate) phases: CheckpointPhases,
}

pub(crate) fn status_changed(
    origin: Origin,
    status: TaskStatus,
    failure: Option<Failure>,
    counters: Option<v1::TaskCounters>,
) -> v1::WorkerMessage {
    message(worker_message::Message::TaskStatusChanged(v1::TaskStatusChanged {
        job_id: origin.job_id.to_wire(),
        attempt: origin.attempt,
        subtask: Some(origin.subtask.into()),
        status: v1::TaskStatus::from(status).into(),
        failure: failure.map(Into::into),
        counters: counters.map(Box::new),
    }))
}

pub(crate) fn acknowledged(origin: Origin, acknowledgement: Acknowledgement) -> v1::WorkerMessage {
    message(worker_message::Message::CheckpointAcknowledged(v1::CheckpointAcknowledged {
        job_id: origin.job_id.to_wire(),
        attempt: origin.attempt,
        checkpoint_id: acknowledgement.checkpoint,
        subtask: Some(origin.subtask.into()),
        snapshot: Some(acknowledgement.snapshot.into()),
        phases: Some(acknowledgement.phases.into()),
    }))
}

pub(crate) fn declined(origin: Origin, checkpoint: CheckpointId, failure: Failure) -> v1::WorkerMessage {
    message(worker_message::Message::CheckpointDeclined(v1::CheckpointDeclined {
        job_id: origin.job_id.to_wire(),
        attempt: origin.attempt,
        checkpoint_id: checkpoint,
        subtask: Some(origin.subtask.into()),
        failure: Some(failure.into()),
    }))
}

/// How far the aligned sources of an attempt are.
pub(crate) fn source_watermarks(
    job_id: JobId,
    attempt: Attempt,
    sources: Vec<SourceWatermark>,
) -> v1::WorkerMessage {
    let source = |source: SourceWatermark| v1::SourceWatermark {
        subtask: Some(source.subtask.into()),
        group: source.group,
        watermark: source.watermark,
    };
    let sources = sources.into_iter().map(source).collect();
    let told = v1::SourceWatermarks { job_id: job_id.to_wire(), attempt, sources };
    message(worker_message::Message::SourceWatermarks(told))
}

/// How a task keeps time: an answer to each question.
pub(crate) fn task_time(
    origin: Origin,
    graph: &JobGraph,
    now_ms: Timestamp,
    told: &TaskTime,
) -> Vec<v1::WorkerMessage> {
    let input = |input: &InputTime| {
        let edge = graph.edges.get(input.channel.edge as usize);
        let sender = edge.map(|edge| SubtaskId { vertex: edge.source, index: input.channel.from });
        v1::InputTime {
            sender: sender.map(Into::into),
            watermark: input.watermark,
            idle: input.is_idle,
            ended: input.has_ended,
            idle_since_ms: input.idle_since_ms,
            edge: input.channel.edge,
        }
    };
    let origin_time = |origin: &OriginTime| v1::OriginTime {
        operator_id: origin.operator_id.0,
        split: origin.split.clone().unwrap_or_default(),
        watermark: origin.watermark,
        idle: origin.is_idle,
        last_record_ms: origin.last_record_ms,
        idleness_ms: origin.idleness_ms,
        aligned_wait: origin.waits_for_others,
    };
    let operator = |operator: &OperatorTime| v1::OperatorTime {
        operator_id: operator.operator_id.0,
        earliest_timer_ms: operator.earliest_timer,
    };
    let answer = |request_id: &u64| v1::TaskTime {
        request_id: *request_id,
        job_id: origin.job_id.to_wire(),
        attempt: origin.attempt,
        subtask: Some(origin.subtask.into()),
        now_ms,
        watermark: told.watermark,
        inputs: told.inputs.iter().map(input).collect(),
        origins: told.origins.iter().map(origin_time).collect(),
        operators: told.operators.iter().map(operator).collect(),
    };
    let answers = told.request_ids.iter().map(answer);
    answers.map(|answer| message(worker_message::Message::TaskTime(answer))).collect()
}

pub(crate) fn stopped(job_id: JobId, attempt: Attempt, regions: Vec<RegionId>) -> v1::WorkerMessage {
    let job_id = job_id.to_wire();
    message(worker_message::Message::TasksStopped(v1::TasksStopped { job_id, attempt, regions }))
}

pub(crate) fn failed(failure: Failure) -> v1::WorkerMessage {
    message(worker_message::Message::Failed(failure.into()))
}

/// What all tasks of an attempt have done so far.
pub(crate) fn counters(
    job_id: JobId,
    job_name: &str,
    attempt: Attempt,
    tasks: Vec<v1::TaskCounters>,
) -> v1::WorkerMessage {
    let (job_id, job_name) = (job_id.to_wire(), job_name.to_string());
    message(worker_message::Message::Counters(v1::JobCounters { job_id, attempt, tasks, job_name }))
}

/// What one of them has done, which is a subtask of the vertex `name`.
pub(crate) fn task_counters(
    subtask: SubtaskId,
    name: &str,
    status: TaskStatus,
    counted: Counted,
) -> v1::TaskCounters {
    v1::TaskCounters {
        name: name.to_string(),
        subtask: Some(subtask.into()),
        status: v1::TaskStatus::from(status).into(),
        records_in: counted.records_in,
        records_out: counted.records_out,
        bytes_in: counted.bytes_in,
        bytes_out: counted.bytes_out,
        late_records_dropped: counted.late_records_dropped,
        records_in_errors: counted.records_in_errors,
        state_bytes: counted.state_bytes,
        unassigned_splits: counted.unassigned_splits,
        restored_local_bytes: counted.restored_local_bytes,
        restored_remote_bytes: counted.restored_remote_bytes,
        busy_ns: counted.busy_ns,
        idle_ns: counted.idle_ns,
        back_pressured_ns: counted.back_pressured_ns,
        input_queue_length: counted.input_queue_length,
        output_queue_length: counted.output_queue_length,
        available_credit_bytes: counted.available_credit_bytes,
        current_input_watermark: counted.input_watermark,
        current_output_watermark: counted.output_watermark,
        watermark_alignment_drift_ms: counted.watermark_alignment_drift_ms,
        operators: counted.operators.into_iter().map(Into::into).collect(),
    }
}

pub(crate) fn message(message: worker_message::Message) -> v1::WorkerMessage {
    v1::WorkerMessage { message: Some(message) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_proto::model::{MetricValue, OperatorCounters, TaskCounters, UserMetric};

    #[test]
    fn counters_are_told_as_they_were_read() {
        let subtask = SubtaskId { vertex: 3, index: 4 };
        let metric = UserMetric { scope: Vec::new(), name: "words".into(), value: MetricValue::Counter(12) };
        let operator = OperatorCounters { records_in: 12, metrics: vec![metric], ..Default::default() };
        let counted = Counted {
            records_in: 1,
            records_out: 2,
            bytes_in: 3,
            bytes_out: 4,
            late_records_dropped: 11,
            records_in_errors: 14,
            state_bytes: 5,
            unassigned_splits: Some(11),
            restored_local_bytes: 12,
            restored_remote_bytes: 13,
            busy_ns: 6,
            idle_ns: 7,
            back_pressured_ns: u64::MAX,
            input_queue_length: 8,
            output_queue_length: 9,
            available_credit_bytes: 10,
            input_watermark: Some(-11),
            output_watermark: None,
            watermark_alignment_drift_ms: Some(12),
            operators: vec![operator.clone()],
        };
        let counted = task_counters(subtask, "words", TaskStatus::Running, counted);
        let sent = counters(JobId(7), "job", 2, vec![counted]);
        let Some(worker_message::Message::Counters(told)) = sent.message else { panic!("{sent:?}") };
        assert_eq!(
            (told.job_id.clone(), told.attempt, told.job_name.as_str()),
            (JobId(7).to_wire(), 2, "job")
        );
        let expected = TaskCounters {
            subtask,
            status: TaskStatus::Running,
            records_in: 1,
            records_out: 2,
            bytes_in: 3,
            bytes_out: 4,
            late_records_dropped: 11,
            records_in_errors: 14,
            state_bytes: 5,
            unassigned_splits: Some(11),
            restored_local_bytes: 12,
            restored_remote_bytes: 13,
            busy_ns: 6,
            idle_ns: 7,
            back_pressured_ns: u64::MAX,
            input_queue_length: 8,
            output_queue_length: 9,
            available_credit_bytes: 10,
            current_input_watermark: Some(-11),
            current_output_watermark: None,
            watermark_alignment_drift_ms: Some(12),
            operators: vec![operator],
            name: "words".into(),
        };
        let [told] = &told.tasks[..] else { panic!("{told:?}") };
        assert_eq!(TaskCounters::try_from(told.clone()), Ok(expected));
    }
}
