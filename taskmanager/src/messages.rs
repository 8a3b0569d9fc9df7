//! The border of the task manager: what the leader and the workers say, checked, with only what decisions need in it.
//!
//! What is merely passed on (a deployment, an acknowledgement) stays the message it was, in a field named `relay`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, JobId, RegionId, SubtaskId, Term, WorkerId};
use thalweg_common::properties::RuntimeProperties;
use thalweg_common::status::TaskStatus;
use thalweg_proto::blob::BlobHash;
use thalweg_proto::convert::{
    Malformed, WireId, failure, properties_from_wire, required, subtask, task_status,
};
use thalweg_proto::v1;
use thalweg_proto::v1::job_manager_message::Message as FromLeader;
use thalweg_proto::v1::task_manager_message::Message as ToLeader;
use thalweg_proto::v1::worker_command::Message as Command;
use thalweg_proto::v1::worker_message::Message as FromWorker;

/// How long a worker may take to stop its tasks when the leader does not say, as in Flink.
const DEFAULT_CANCELLATION_TIMEOUT: Duration = Duration::from_secs(180);

/// A message of a job manager that claims to lead in `term`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LeaderMessage {
    pub(crate) term: Term,
    pub(crate) order: Order,
}

/// What the leader wants.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Order {
    /// This task manager is a member now.
    Registered,
    /// It is alive.
    HeartbeatAnswer,
    /// A worker of the job shall be ready for the attempt.
    StartWorker(StartRequest),
    /// A worker with this binary may be wanted soon.
    Prefetch { binary: BlobHash, size_bytes: u64 },
    /// These tasks shall run.
    Deploy { job: JobId, attempt: Attempt, tasks: BTreeMap<SubtaskId, RegionId>, relay: v1::DeployTasks },
    /// The tasks of this attempt and of all before it shall end in these regions, or in all if there are none.
    Cancel { job: JobId, attempt: Attempt, regions: BTreeSet<RegionId> },
    /// Something about a checkpoint, for the worker.
    Checkpoint { job: JobId, attempt: Attempt, relay: Command },
    /// Something about time, for the worker, if it is there.
    Time { job: JobId, attempt: Attempt, relay: Command },
    /// The job has ended.
    StopWorker { job: JobId },
    /// The ends of the job's logs are wanted.
    Logs { request_id: u64, job: JobId, tail_bytes: u64 },
}

/// The worker that the leader wants.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StartRequest {
    pub(crate) job: JobId,
    pub(crate) attempt: Attempt,
    pub(crate) program: WorkerProgram,
    pub(crate) cancellation_timeout: Duration,
}

/// What a worker runs. A worker can be reused for exactly the same program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkerProgram {
    /// Absent when the launcher needs no binary.
    pub(crate) binary: Option<(BlobHash, u64)>,
    pub(crate) arguments: Vec<String>,
    pub(crate) configuration: BTreeMap<String, String>,
    pub(crate) properties: RuntimeProperties,
    pub(crate) plan_fingerprint: u64,
}

impl TryFrom<v1::JobManagerMessage> for LeaderMessage {
    type Error = Malformed;

    fn try_from(message: v1::JobManagerMessage) -> Result<Self, Malformed> {
        let order = match required("message", message.message)? {
            FromLeader::Registered(_) => Order::Registered,
            FromLeader::HeartbeatAnswer(_) => Order::HeartbeatAnswer,
            FromLeader::StartWorker(start) => Order::StartWorker(start.try_into()?),
            FromLeader::PrefetchBinary(prefetch) => Order::Prefetch {
                binary: BlobHash::from_wire("prefetch_binary.sha256", &prefetch.sha256)?,
                size_bytes: prefetch.size_bytes,
            },
            FromLeader::DeployTasks(relay) => deploy(relay)?,
            FromLeader::CancelTasks(cancel) => Order::Cancel {
                job: JobId::from_wire("cancel_tasks.job_id", &cancel.job_id)?,
                attempt: cancel.attempt,
                regions: cancel.regions.into_iter().collect(),
            },
            FromLeader::TriggerCheckpoint(relay) => Order::Checkpoint {
                job: JobId::from_wire("trigger_checkpoint.job_id", &relay.job_id)?,
                attempt: relay.attempt,
                relay: Command::TriggerCheckpoint(relay),
            },
            FromLeader::EndInput(relay) => Order::Checkpoint {
                job: JobId::from_wire("end_input.job_id", &relay.job_id)?,
                attempt: relay.attempt,
                relay: Command::EndInput(relay),
            },
            FromLeader::CheckpointCompleted(relay) => Order::Checkpoint {
                job: JobId::from_wire("checkpoint_completed.job_id", &relay.job_id)?,
                attempt: relay.attempt,
                relay: Command::CheckpointCompleted(relay),
            },
            FromLeader::CheckpointAborted(relay) => Order::Checkpoint {
                job: JobId::from_wire("checkpoint_aborted.job_id", &relay.job_id)?,
                attempt: relay.attempt,
                relay: Command::CheckpointAborted(relay),
            },
            FromLeader::GroupWatermarks(relay) => Order::Time {
                job: JobId::from_wire("group_watermarks.job_id", &relay.job_id)?,
                attempt: relay.attempt,
                relay: Command::GroupWatermarks(relay),
            },
            FromLeader::TimeRequest(relay) => Order::Time {
                job: JobId::from_wire("time_request.job_id", &relay.job_id)?,
                attempt: relay.attempt,
                relay: Command::TimeRequest(relay),
            },
            FromLeader::StopWorker(stop) => {
                Order::StopWorker { job: JobId::from_wire("stop_worker.job_id", &stop.job_id)? }
            }
            FromLeader::LogsRequest(logs) => Order::Logs {
                request_id: logs.request_id,
                job: JobId::from_wire("logs_request.job_id", &logs.job_id)?,
                tail_bytes: logs.tail_bytes,
            },
        };
        Ok(Self { term: message.term, order })
    }
}

fn deploy(relay: v1::DeployTasks) -> Result<Order, Malformed> {
    let job = JobId::from_wire("deploy_tasks.job_id", &relay.job_id)?;
    let tasks = relay
        .tasks
        .iter()
        .map(|task| Ok((subtask("deploy_tasks.tasks.subtask", task.subtask)?, task.region)))
        .collect::<Result<_, Malformed>>()?;
    Ok(Order::Deploy { job, attempt: relay.attempt, tasks, relay })
}

impl TryFrom<v1::StartWorker> for StartRequest {
    type Error = Malformed;

    fn try_from(start: v1::StartWorker) -> Result<Self, Malformed> {
        let binary = if start.sha256.is_empty() {
            None
        } else {
            Some((BlobHash::from_wire("start_worker.sha256", &start.sha256)?, start.size_bytes))
        };
        let cancellation_timeout = match start.cancellation_timeout_ms {
            0 => DEFAULT_CANCELLATION_TIMEOUT,
            timeout_ms => Duration::from_millis(timeout_ms),
        };
        Ok(Self {
            job: JobId::from_wire("start_worker.job_id", &start.job_id)?,
            attempt: start.attempt,
            program: WorkerProgram {
                binary,
                arguments: start.arguments,
                configuration: start.configuration,
                properties: properties_from_wire(start.properties)
                    .map_err(|error| Malformed::new("start_worker.properties", error.to_string()))?,
                plan_fingerprint: start.plan_fingerprint,
            },
            cancellation_timeout,
        })
    }
}

/// What a worker says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Report {
    /// A task is in another state.
    Status { attempt: Attempt, subtask: SubtaskId, status: TaskStatus, relay: v1::TaskStatusChanged },
    /// Something about a checkpoint, for the leader.
    Checkpoint { attempt: Attempt, relay: ToLeader },
    /// Something about time, for the leader.
    Time { attempt: Attempt, relay: ToLeader },
    /// All tasks of this attempt and of all before it have ended in these regions, or in all if there are none.
    Stopped { attempt: Attempt, regions: BTreeSet<RegionId> },
    /// What its tasks have done so far.
    Counters { attempt: Attempt, job_name: String, tasks: BTreeMap<SubtaskId, v1::TaskCounters> },
    /// It cannot go on and exits.
    Failed(Failure),
}

impl TryFrom<v1::WorkerMessage> for Report {
    type Error = Malformed;

    fn try_from(message: v1::WorkerMessage) -> Result<Self, Malformed> {
        Ok(match required("message", message.message)? {
            FromWorker::Hello(_) => return Err(Malformed::new("hello", "came twice")),
            FromWorker::TaskStatusChanged(relay) => Self::Status {
                attempt: relay.attempt,
                subtask: subtask("task_status_changed.subtask", relay.subtask)?,
                status: task_status("task_status_changed.status", relay.status)?,
                relay,
            },
            FromWorker::CheckpointAcknowledged(relay) => {
                Self::Checkpoint { attempt: relay.attempt, relay: ToLeader::CheckpointAcknowledged(relay) }
            }
            FromWorker::CheckpointDeclined(relay) => {
                Self::Checkpoint { attempt: relay.attempt, relay: ToLeader::CheckpointDeclined(relay) }
            }
            FromWorker::SourceWatermarks(relay) => {
                Self::Time { attempt: relay.attempt, relay: ToLeader::SourceWatermarks(relay) }
            }
            FromWorker::TaskTime(relay) => {
                Self::Time { attempt: relay.attempt, relay: ToLeader::TaskTime(relay) }
            }
            FromWorker::TasksStopped(stopped) => {
                Self::Stopped { attempt: stopped.attempt, regions: stopped.regions.into_iter().collect() }
            }
            FromWorker::Counters(counters) => {
                let tasks = counters
                    .tasks
                    .into_iter()
                    .map(|task| Ok((subtask("counters.tasks.subtask", task.subtask)?, task)))
                    .collect::<Result<_, Malformed>>()?;
                Self::Counters { attempt: counters.attempt, job_name: counters.job_name, tasks }
            }
            FromWorker::Failed(relay) => Self::Failed(failure("failed", Some(relay))?),
        })
    }
}

/// A worker that asks to be attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) job: JobId,
    pub(crate) worker: WorkerId,
    pub(crate) token: Token,
    pub(crate) process_id: u32,
    pub(crate) data_port: u16,
    pub(crate) plan_fingerprint: u64,
}

impl TryFrom<v1::WorkerHello> for Hello {
    type Error = Malformed;

    fn try_from(hello: v1::WorkerHello) -> Result<Self, Malformed> {
        let port = u16::try_from(hello.data_port).ok().filter(|port| *port != 0);
        Ok(Self {
            job: JobId::from_wire("hello.job_id", &hello.job_id)?,
            worker: WorkerId::from_wire("hello.worker_id", &hello.worker_id)?,
            token: Token::from_wire("hello.token", &hello.token)?,
            process_id: hello.process_id,
            data_port: port.ok_or_else(|| {
                Malformed::new("hello.data_port", format!("is {}, which is no port", hello.data_port))
            })?,
            plan_fingerprint: hello.plan_fingerprint,
        })
    }
}

/// The secret by which a worker proves that it is the one that was started. Never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// A new secret.
    ///
    /// # Errors
    /// Fails only when the operating system gives no random bytes.
    pub fn random() -> std::io::Result<Self> {
        // Ids are 128 random bits each; two make a secret.
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&WorkerId::random()?.0.to_be_bytes());
        bytes[16..].copy_from_slice(&WorkerId::random()?.0.to_be_bytes());
        Ok(Self(bytes))
    }

    /// The bytes which the worker sends back.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Hexadecimal digits, as the worker is given it.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The secret with these hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() || !text.is_ascii() {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }

    fn from_wire(field: &'static str, bytes: &[u8]) -> Result<Self, Malformed> {
        let problem = |_| Malformed::new(field, format!("is {} bytes long instead of 32", bytes.len()));
        bytes.try_into().map(Self).map_err(problem)
    }

    /// Compares in a time that does not depend on how many bytes agree.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |difference, (ours, theirs)| difference | (ours ^ theirs)) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> Vec<u8> {
        let mut bytes = vec![0; 15];
        bytes.push(number);
        bytes
    }

    #[test]
    fn malformed_orders_name_the_field() {
        let order = |message| LeaderMessage::try_from(v1::JobManagerMessage { term: 1, message });
        let no_task = v1::DeployTasks {
            job_id: id(1).into(),
            tasks: vec![v1::TaskDeployment::default()],
            ..Default::default()
        };
        let short_hash =
            v1::StartWorker { job_id: id(1).into(), sha256: vec![1].into(), ..Default::default() };
        for (message, field) in [
            (None, "message"),
            (Some(FromLeader::CancelTasks(v1::CancelTasks::default())), "cancel_tasks.job_id"),
            (Some(FromLeader::DeployTasks(no_task)), "deploy_tasks.tasks.subtask"),
            (Some(FromLeader::StartWorker(short_hash)), "start_worker.sha256"),
        ] {
            assert_eq!(order(message).map_err(|error| error.field), Err(field));
        }
    }

    #[test]
    fn malformed_reports_name_the_field() {
        let report = |message| Report::try_from(v1::WorkerMessage { message });
        for (message, field) in [
            (None, "message"),
            (Some(FromWorker::Hello(v1::WorkerHello::default())), "hello"),
            (
                Some(FromWorker::TaskStatusChanged(v1::TaskStatusChanged::default())),
                "task_status_changed.subtask",
            ),
            (Some(FromWorker::Failed(v1::Failure::default())), "failure.fault"),
        ] {
            assert_eq!(report(message).map_err(|error| error.field), Err(field));
        }
    }

    #[test]
    fn a_hello_needs_a_port_and_a_token() {
        let token = Token::random().expect("random bytes");
        let good = v1::WorkerHello {
            job_id: id(1).into(),
            worker_id: id(2).into(),
            token: token.as_bytes().to_vec().into(),
            process_id: 7,
            data_port: 6000,
            plan_fingerprint: 9,
        };
        let hello = Hello::try_from(good.clone()).expect("is right");
        assert!(hello.token.matches(&token) && !hello.token.matches(&Token::random().expect("random bytes")));
        let field = |hello: v1::WorkerHello| Hello::try_from(hello).map_err(|error| error.field);
        for data_port in [0, 65_536] {
            assert_eq!(field(v1::WorkerHello { data_port, ..good.clone() }), Err("hello.data_port"));
        }
        assert_eq!(Token::from_hex(&token.to_hex()).as_ref(), Some(&token));
        assert_eq!((Token::from_hex(""), Token::from_hex(&"x".repeat(64))), (None, None));
        assert_eq!(field(v1::WorkerHello { token: vec![1].into(), ..good.clone() }), Err("hello.token"));
        assert!(!format!("{hello:?}").contains(&token.to_hex()), "a token is never printed");
    }

    #[test]
    fn a_start_without_a_timeout_uses_flinks() {
        let start = v1::StartWorker { job_id: id(1).into(), ..Default::default() };
        let request = StartRequest::try_from(start).expect("is right");
        assert_eq!((request.cancellation_timeout.as_secs(), request.program.binary), (180, None));
    }
}
