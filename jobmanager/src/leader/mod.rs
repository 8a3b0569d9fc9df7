//! The leader actor: everything that happens only on the leading job manager.
//!
//! On a command's way it stands between the replicated state and the task managers. It runs on every node and sleeps until
//! the node leads; then it owns, for that term, the connections of the task managers, the slots and one job core per
//! job that has not ended. It feeds the cores and executes what they ask for. When the leadership ends, all of that is
//! dropped: the state is in the log, the next leader starts from there.
//!
//! Invariants: no connection outlives its term and every message carries it; the actor never waits for a task manager, a
//! disk or the log (those are futures beside its mailbox); a task manager that does not read its messages is cut off.

mod actor;
mod connections;
mod logs;
mod requests;
mod samples;
mod term;
mod time_requests;
mod views;
mod wire;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thalweg_common::clock::SharedClock;
use thalweg_common::config::{ConfigKey, Configuration, keys};
use thalweg_common::id::{JobId, SubtaskId};
use thalweg_common::limits::ACTOR_MAILBOX;
use thalweg_common::storage::StorageFactory;
use thalweg_common::task_scope::TaskScope;
use thalweg_proto::model::SavepointMode;
use thalweg_proto::v1;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;

pub(crate) use requests::{News, last};
pub(crate) use views::{LiveJob, LiveTask, LogPiece, TaskManagerView};

use crate::checkpoint::Statistics;
use crate::cluster::{JobRecord, Layout};
use crate::consensus::{Consensus, Leadership};
use crate::job::{CheckpointNews, Patience, RescaleNews, SavepointNews};
use crate::scheduler::adaptive::AdaptiveSettings;
use crate::submission::{Planner, Replicator};

/// One connection of a task manager; never used again.
pub(crate) type ConnectionId = u64;

/// Where messages to a task manager go.
pub(crate) type Outbound = mpsc::Sender<Result<v1::JobManagerMessage, Status>>;

/// A new leader waits at most this long for task managers to come back.
const MAX_ADOPTION_MS: u64 = 10_000;

/// What the actor is told.
pub(crate) enum Mail {
    /// A task manager wants to register.
    Connect {
        register: v1::Register,
        outbound: Outbound,
        reply: oneshot::Sender<Result<ConnectionId, Status>>,
    },
    /// A task manager says something.
    Received { connection: ConnectionId, message: v1::TaskManagerMessage },
    /// A task manager's connection has ended.
    Closed { connection: ConnectionId, reason: String },
    /// A user wants a job to end.
    Cancel { job_id: JobId, reply: oneshot::Sender<Result<(), NotLeading>> },
    /// A user wants a savepoint: the answer is where its news will come from.
    Savepoint {
        job_id: JobId,
        directory: String,
        mode: SavepointMode,
        reply: oneshot::Sender<Result<watch::Receiver<SavepointNews>, NotLeading>>,
    },
    /// A user wants a checkpoint now: the answer is where its news will come from.
    Checkpoint { job_id: JobId, reply: oneshot::Sender<Result<watch::Receiver<CheckpointNews>, NotLeading>> },
    /// A user wants a job to run in this layout: the answer is where its news will come from.
    Rescale {
        job_id: JobId,
        layout: Layout,
        reply: oneshot::Sender<Result<watch::Receiver<RescaleNews>, NotLeading>>,
    },
    /// What is known of running jobs beside the replicated state: one or all.
    View { job_id: Option<JobId>, reply: oneshot::Sender<Result<BTreeMap<JobId, LiveJob>, NotLeading>> },
    /// The last checkpoints of a job, the oldest first.
    Checkpoints { job_id: JobId, reply: oneshot::Sender<Result<Vec<Statistics>, NotLeading>> },
    /// Who is registered.
    TaskManagers { reply: oneshot::Sender<Result<Vec<TaskManagerView>, NotLeading>> },
    /// Logs of a job, as they come from the task managers; the sink is dropped when all have answered.
    Logs {
        job_id: JobId,
        tail_bytes: u64,
        sink: mpsc::Sender<LogPiece>,
        reply: oneshot::Sender<Result<(), NotLeading>>,
    },
    /// How the tasks of a job keep time, as they answer; the reply says which are to be awaited, the sink is dropped behind the last.
    Time {
        job_id: JobId,
        sink: mpsc::Sender<v1::TaskTime>,
        reply: oneshot::Sender<Result<BTreeSet<SubtaskId>, NotLeading>>,
    },
}

/// This node does not lead: ask another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotLeading {
    /// `host:port` of the leader, when known.
    pub(crate) leader: Option<String>,
}

impl From<NotLeading> for Status {
    fn from(not: NotLeading) -> Self {
        thalweg_proto::leader::not_leader(not.leader.as_deref())
    }
}

impl NotLeading {
    /// The refusal as clients read it.
    pub(crate) fn into_status(self) -> Status {
        self.into()
    }

    pub(crate) fn of(leadership: &Leadership) -> Self {
        let other = leadership.leader.as_ref().filter(|_| !leadership.is_leader);
        Self { leader: other.map(|(_, node)| node.address.clone()) }
    }
}

/// Times that the leader goes by.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) heartbeat_interval_ms: u64,
    pub(crate) heartbeat_timeout_ms: u64,
    configuration: Configuration,
}

impl Settings {
    pub(crate) fn new(configuration: &Configuration) -> Self {
        Self {
            heartbeat_interval_ms: milliseconds(configuration, &keys::HEARTBEAT_INTERVAL),
            heartbeat_timeout_ms: milliseconds(configuration, &keys::HEARTBEAT_TIMEOUT),
            configuration: configuration.clone(),
        }
    }

    /// How patient to be with a job: its own settings win over the cluster's.
    pub(crate) fn patience(&self, job: &JobRecord) -> Patience {
        let mut configuration = self.configuration.clone();
        for (key, value) in &job.configuration {
            if let Err(error) = configuration.set(key, value) {
                // It was checked when the job was submitted, perhaps by another version.
                tracing::debug!(job = %job.id, "setting ignored: {error}");
            }
        }
        Patience {
            slot_request_ms: milliseconds(&configuration, &keys::SLOT_REQUEST_TIMEOUT),
            adoption_ms: self.heartbeat_timeout_ms.min(MAX_ADOPTION_MS),
            cancellation_ms: milliseconds(&configuration, &keys::TASK_CANCELLATION_TIMEOUT),
            immediate_restart_ms: milliseconds(&configuration, &keys::IMMEDIATE_RESTART_AFTER),
            restarts_regions: configuration.text(&keys::FAILOVER_STRATEGY) != Some("full"),
            adaptive: adaptive(&configuration),
        }
    }
}

/// How patient the adaptive scheduler is, if it is in charge.
fn adaptive(configuration: &Configuration) -> Option<AdaptiveSettings> {
    (configuration.text(&keys::SCHEDULER) == Some("adaptive")).then(|| AdaptiveSettings {
        resource_wait_ms: milliseconds(configuration, &keys::ADAPTIVE_RESOURCE_WAIT),
        stabilization_ms: milliseconds(configuration, &keys::ADAPTIVE_STABILIZATION),
        scaling_interval_ms: milliseconds(configuration, &keys::ADAPTIVE_SCALING_INTERVAL),
    })
}

/// The duration under `key`, which has a default.
fn milliseconds(configuration: &Configuration, key: &ConfigKey) -> u64 {
    configuration.duration(key).map_or(0, |duration| duration.as_millis() as u64)
}

/// What the actor works with.
pub(crate) struct Context {
    pub(crate) consensus: Arc<dyn Consensus>,
    pub(crate) clock: SharedClock,
    pub(crate) settings: Settings,
    /// This node's binaries, to hold those of the jobs it leads.
    pub(crate) replicator: Replicator,
    /// Finds out what jobs look like at other parallelisms; absent in local mode.
    pub(crate) planner: Option<Planner>,
    /// Opens where checkpoints are stored.
    pub(crate) storages: StorageFactory,
}

/// The way to the actor. Clones are ways to the same one.
#[derive(Clone)]
pub(crate) struct Leader {
    mailbox: mpsc::Sender<Mail>,
    reasons: watch::Receiver<Arc<BTreeMap<JobId, String>>>,
    leadership: watch::Receiver<Leadership>,
}

impl Leader {
    /// Starts the actor in `scope`.
    pub(crate) fn start(context: Context, scope: &TaskScope) -> Self {
        let (mailbox, mails) = mpsc::channel(ACTOR_MAILBOX);
        let (reasons_sender, reasons) = watch::channel(Arc::default());
        let leadership = context.consensus.leadership();
        let actor = actor::Actor::new(Arc::new(context), mails, reasons_sender);
        scope.spawn("leader", actor.run(scope.token()));
        Self { mailbox, reasons, leadership }
    }

    /// Tells the actor something that has no answer. Waits while its mailbox is full.
    pub(crate) async fn tell(&self, mail: Mail) -> Result<(), NotLeading> {
        self.mailbox.send(mail).await.map_err(|_| self.not_leading())
    }

    /// Asks the actor something.
    pub(crate) async fn ask<T, E: From<NotLeading>>(
        &self,
        mail: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Mail,
    ) -> Result<T, E> {
        let (reply, answer) = oneshot::channel();
        self.tell(mail(reply)).await?;
        answer.await.map_err(|_| self.not_leading())?
    }

    /// Why jobs wait for slots, with every change. Empty on nodes that do not lead.
    pub(crate) fn reasons(&self) -> watch::Receiver<Arc<BTreeMap<JobId, String>>> {
        self.reasons.clone()
    }

    /// Who leads, with every change.
    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// The refusal of a node that does not lead.
    pub(crate) fn not_leading(&self) -> NotLeading {
        NotLeading::of(&self.leadership.borrow())
    }

    /// Whether this node leads.
    pub(crate) fn check_leading(&self) -> Result<(), NotLeading> {
        if self.leadership.borrow().is_leader { Ok(()) } else { Err(self.not_leading()) }
    }
}
