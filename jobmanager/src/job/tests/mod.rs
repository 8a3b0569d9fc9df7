//! A job's core against a fake cluster: two task managers, a log that applies commands to a real cluster state.

#![allow(clippy::unwrap_used, clippy::panic)]

mod adaptive;
mod checkpoints;
mod failures;
mod files;
mod leader_change;
mod life;
mod region_leaders;
mod region_model;
mod regions;
mod requested;
mod rescale;
mod savepoints;
mod simulation;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use thalweg_common::graph::JobGraph;
use thalweg_common::id::{Attempt, JobId, WorkerId};
use thalweg_proto::convert::{CheckpointPhases, SharedFile, SnapshotHandle, SnapshotLocation};

use super::*;
use crate::checkpoint::verify::RestoreError;
use crate::cluster::{ClusterState, Layout};
use crate::scheduler::place::Offer;
use crate::testing::{at, checkpointed_graph, graph_with_splits, submission};

const JOB: JobId = JobId(1);
const WALL_MS: i64 = 1_700_000_000_000;
const PATIENCE: Patience = Patience {
    slot_request_ms: 60_000,
    adoption_ms: 10_000,
    cancellation_ms: 5_000,
    immediate_restart_ms: 10_000,
    restarts_regions: true,
    adaptive: None,
};

fn tm(name: &str) -> TaskManagerId {
    TaskManagerId(name.to_string())
}

fn subtask(vertex: u32, index: u32) -> SubtaskId {
    SubtaskId { vertex, index }
}

fn worker(name: &str) -> Worker {
    Worker { id: WorkerId(name.bytes().map(u128::from).sum()), data_address: format!("{name}:1") }
}

fn failure(text: &str) -> thalweg_common::failure::Failure {
    thalweg_common::failure::Failure::user(text)
}

fn worker_lost(name: &str, failure: thalweg_common::failure::Failure) -> News {
    News::WorkerLost { id: worker(name).id, failure }
}

fn snapshot() -> SnapshotHandle {
    SnapshotHandle { location: SnapshotLocation::Inline(vec![1]), size_bytes: 1, checksum: 2, shared: vec![] }
}

struct Bench {
    core: JobCore,
    patience: Patience,
    /// As submitted; the job's program plans it with other parallelisms of `count`.
    graph: JobGraph,
    state: ClusterState,
    now_ms: u64,
    /// Task managers that offer two slots each.
    registered: BTreeSet<TaskManagerId>,
    /// Commands that are not applied yet; applied at once unless `hold_log`.
    log: VecDeque<Command>,
    hold_log: bool,
    /// Metadata files that were written; read back at once.
    files: BTreeMap<CheckpointId, Arc<CheckpointMetadata>>,
    hold_files: bool,
    /// Checkpoints of which a file is damaged so that it is seen when it is read as a whole.
    damaged: BTreeSet<CheckpointId>,
    /// What the job's directory holds, when it is listed.
    listing: Vec<String>,
    /// Messages since the last look.
    sent: Vec<(TaskManagerId, Message)>,
    /// All other actions since the last look.
    other: Vec<Action>,
}

impl Bench {
    /// A job that has been submitted to a cluster with these task managers.
    fn submitted(graph: JobGraph, task_managers: &[&str]) -> Self {
        let mut state = ClusterState::default();
        state.apply(Command::SubmitJob(submission(1, graph)));
        Self::on(state, Origin::Submitted, task_managers, 0)
    }

    fn on(state: ClusterState, origin: Origin, task_managers: &[&str], now_ms: u64) -> Self {
        Self::with(state, origin, task_managers, now_ms, BTreeMap::new(), PATIENCE)
    }

    fn with(
        state: ClusterState,
        origin: Origin,
        task_managers: &[&str],
        now_ms: u64,
        files: BTreeMap<CheckpointId, Arc<CheckpointMetadata>>,
        patience: Patience,
    ) -> Self {
        let spec = Arc::new(JobSpec::new(state.job(JOB).unwrap(), patience));
        let graph = JobGraph::clone(&spec.graph);
        let now = Self::moment(now_ms);
        let (core, actions) = JobCore::new(spec, state.job(JOB).unwrap(), origin, now);
        let mut bench = Self {
            core,
            patience,
            graph,
            state,
            now_ms,
            registered: task_managers.iter().map(|name| tm(name)).collect(),
            log: VecDeque::new(),
            hold_log: false,
            files,
            hold_files: false,
            damaged: BTreeSet::new(),
            listing: vec![],
            sent: vec![],
            other: vec![],
        };
        bench.execute(actions);
        bench
    }

    fn moment(elapsed_ms: u64) -> Now {
        Now { elapsed_ms, wall_ms: WALL_MS + elapsed_ms as i64, jitter: 0.0 }
    }

    /// A job at parallelism 2 on the task managers `a` and `b`, deployed and running.
    fn running() -> Self {
        let mut bench = Self::submitted(checkpointed_graph(), &["a", "b"]);
        bench.workers_ready();
        bench.all_tasks(TaskStatus::Running);
        assert_eq!(bench.status(), JobStatus::Running);
        bench.sent.clear();
        bench.other.clear();
        bench
    }

    /// The same job under a new leader; none of its task managers has registered.
    fn new_leader(self) -> Self {
        let graph = self.graph;
        let new = Self::with(self.state, Origin::Adopted, &[], self.now_ms, self.files, self.patience);
        Self { graph, ..new }
    }

    fn step(&mut self, input: Input) {
        let actions = self.core.step(input, Self::moment(self.now_ms));
        self.execute(actions);
    }

    fn execute(&mut self, actions: Vec<Action>) {
        let mut allocate = false;
        for action in actions {
            match action {
                Action::Propose(command) => self.log.push_back(command),
                Action::Send { task_manager, message } => self.sent.push((task_manager, message)),
                Action::AllocateSlots => allocate = true,
                Action::WriteMetadata { metadata, .. } => {
                    self.files.insert(metadata.checkpoint_id, Arc::clone(&metadata));
                    if !self.hold_files {
                        let result = Ok(format!("/checkpoints/chk-{}", metadata.checkpoint_id));
                        let (attempt, checkpoint_id) = (metadata.attempt, metadata.checkpoint_id);
                        self.step(Input::MetadataWritten { attempt, checkpoint_id, result });
                    }
                }
                Action::ReadMetadata { attempt, checkpoint_id, as_a_whole, .. } => {
                    let file = self.files.get(&checkpoint_id).cloned();
                    let is_sound = !(as_a_whole && self.damaged.contains(&checkpoint_id));
                    let unreadable = || RestoreError::Unreadable("no such file".into());
                    let result = file.filter(|_| is_sound).ok_or_else(unreadable);
                    if !self.hold_files {
                        self.step(Input::MetadataRead { attempt, checkpoint_id, result });
                    }
                }
                Action::WriteSavepoint { attempt, directory, metadata } => {
                    let (checkpoint_id, result) = (metadata.savepoint_id, Ok(directory));
                    self.step(Input::MetadataWritten { attempt, checkpoint_id, result });
                }
                Action::ReadShared(checkpoint_id) => {
                    let file = self.files.get(&checkpoint_id);
                    let shared = file.map(|metadata| metadata.shared_files());
                    let result = shared.ok_or_else(|| "no such file".to_string());
                    self.step(Input::SharedRead { checkpoint_id, result });
                }
                Action::Plan { parallelism } => {
                    self.other.push(Action::Plan { parallelism });
                    let result = Ok(self.layout(parallelism));
                    self.step(Input::Planned { parallelism, result });
                }
                Action::ListFiles => {
                    let listing = self.listing.clone();
                    self.step(Input::Listed(listing));
                }
                Action::DeleteShared(paths) => {
                    self.other.push(Action::DeleteShared(paths.clone()));
                    self.listing.retain(|path| !paths.contains(path));
                    self.step(Input::SharedDeleted { paths, are_gone: true });
                }
                other => self.other.push(other),
            }
        }
        if !self.hold_log {
            self.apply_log();
        }
        if allocate {
            self.offer();
        }
    }

    /// Applies what is in the log and tells the core.
    fn apply_log(&mut self) {
        while let Some(command) = self.log.pop_front() {
            self.apply(command);
        }
    }

    fn apply(&mut self, command: Command) {
        let proposal = Proposal::of(&command);
        let outcome = self.state.apply(command.clone());
        let may_be_refused = matches!(
            proposal,
            Proposal::BeginCheckpoint(_) | Proposal::CompleteCheckpoint(..) | Proposal::Other
        );
        assert!(may_be_refused || outcome == Outcome::Ok, "{command:?}: {outcome:?}");
        self.step(Input::Proposed { proposal, outcome });
    }

    fn offer(&mut self) {
        if self.core.wants_slots() {
            let offers = self.offers();
            self.step(Input::Slots(offers));
        }
    }

    fn offers(&self) -> Vec<Offer> {
        let offer = |name: &TaskManagerId| Offer {
            task_manager: name.clone(),
            slots_total: 2,
            free: BTreeSet::from([0, 1]),
            draining: false,
        };
        self.registered.iter().map(offer).collect()
    }

    /// What the job's program plans at this parallelism: a source without splits sets its own.
    fn layout(&self, parallelism: u32) -> Layout {
        let source = &self.graph.vertices[0];
        let own = if source.operators[0].has_parts() { parallelism } else { source.parallelism };
        Layout {
            graph: Arc::new(at(&self.graph, &[own, parallelism])),
            configuration: BTreeMap::from([("parallelism.default".to_string(), parallelism.to_string())]),
        }
    }

    /// A user wants the job to run at this parallelism.
    fn rescale(&mut self, parallelism: u32) {
        let (layout, offers) = (self.layout(parallelism), self.offers());
        self.step(Input::Rescale { request: 9, layout, offers });
    }

    /// What the one who wanted that was told in the end.
    fn rescale_told(&self) -> Option<&RescaleNews> {
        let mut told = self.other.iter().filter_map(|action| match action {
            Action::Rescaled { request: 9, news } if !matches!(news, RescaleNews::Progress(_)) => Some(news),
            _ => None,
        });
        let first = told.next();
        assert!(told.next().is_none(), "one last answer");
        first
    }

    /// How many subtasks `count` has.
    fn parallelism(&self) -> u32 {
        assert_eq!(self.record().layout(), self.core.spec.layout());
        self.record().graph.vertices[1].parallelism
    }

    fn report(&mut self, name: &str, attempt: Attempt, news: News) {
        self.step(Input::Reported { task_manager: tm(name), attempt, news });
    }

    fn task(&mut self, name: &str, subtask: SubtaskId, status: TaskStatus) {
        let failure = (status == TaskStatus::Failed).then(|| failure("panicked: boom"));
        let attempt = self.core.execution.attempt_of(subtask);
        self.report(name, attempt, News::Task { subtask, status, failure });
    }

    fn workers_ready(&mut self) {
        for name in self.members() {
            let attempt = self.attempt();
            self.report(&name, attempt, News::WorkerReady(worker(&name)));
        }
    }

    fn all_tasks(&mut self, status: TaskStatus) {
        let tasks: Vec<_> = self.core.tasks().map(|(subtask, name, _)| (subtask, name.0.clone())).collect();
        for (subtask, name) in tasks {
            self.task(&name, subtask, status);
        }
    }

    fn stop_tasks_on(&mut self, name: &str) {
        let attempt = self.core.logged;
        self.report(name, attempt, News::TasksStopped(BTreeSet::new()));
    }

    fn acknowledge_all(&mut self, checkpoint_id: CheckpointId) {
        self.acknowledge_with(checkpoint_id, &snapshot());
    }

    fn acknowledge_with(&mut self, checkpoint_id: CheckpointId, snapshot: &SnapshotHandle) {
        let tasks: Vec<_> = self.core.tasks().map(|(subtask, name, _)| (subtask, name.0.clone())).collect();
        for (subtask, name) in tasks {
            self.acknowledge(&name, checkpoint_id, subtask, snapshot);
        }
    }

    fn acknowledge(
        &mut self,
        name: &str,
        checkpoint_id: CheckpointId,
        subtask: SubtaskId,
        snapshot: &SnapshotHandle,
    ) {
        let attempt = self.core.execution.attempt_of(subtask);
        let (snapshot, phases) = (snapshot.clone(), CheckpointPhases::default());
        self.report(name, attempt, News::Acknowledged { checkpoint_id, subtask, snapshot, phases });
    }

    fn advance(&mut self, by_ms: u64) {
        self.now_ms += by_ms;
        self.step(Input::Tick);
    }

    fn lose(&mut self, name: &str) {
        self.registered.remove(&tm(name));
        self.step(Input::TaskManagerLost { task_manager: tm(name), reason: "connection closed".into() });
    }

    /// A task manager registers and runs nothing of the job.
    fn register(&mut self, name: &str) {
        self.registered.insert(tm(name));
        self.step(Input::Registered { task_manager: tm(name), report: None });
        self.offer();
    }

    /// A task manager registers and runs its tasks of this attempt, all in this state.
    fn register_with(&mut self, name: &str, attempt: Attempt, status: TaskStatus) {
        let index = u32::from(name == "b");
        let mut tasks: BTreeMap<_, _> =
            self.core.execution.tasks_on(&tm(name)).map(|subtask| (subtask, (attempt, status))).collect();
        if tasks.is_empty() {
            tasks = [0, 1].map(|vertex| (subtask(vertex, index), (attempt, status))).into();
        }
        self.registered.insert(tm(name));
        let report = Some(Report { worker: worker(name), tasks });
        self.step(Input::Registered { task_manager: tm(name), report });
        self.offer();
    }

    fn record(&self) -> &JobRecord {
        self.state.job(JOB).unwrap()
    }

    fn status(&self) -> JobStatus {
        self.record().status
    }

    fn attempt(&self) -> Attempt {
        self.core.execution.attempt
    }

    fn members(&self) -> Vec<String> {
        self.core.execution.members.keys().map(|name| name.0.clone()).collect()
    }

    /// What was sent since the last look, to whom.
    fn take_sent(&mut self) -> Vec<(String, Message)> {
        std::mem::take(&mut self.sent).into_iter().map(|(name, message)| (name.0, message)).collect()
    }

    /// The names of what was sent since the last look, as in `a:CancelTasks`.
    fn take_kinds(&mut self) -> Vec<String> {
        let kind = |message: &Message| match message {
            Message::StartWorker { .. } => "StartWorker",
            Message::DeployTasks(_) => "DeployTasks",
            Message::CancelTasks { .. } => "CancelTasks",
            Message::TriggerCheckpoint { .. } => "TriggerCheckpoint",
            Message::TriggerSavepoint { .. } => "TriggerSavepoint",
            Message::EndInput { .. } => "EndInput",
            Message::CheckpointCompleted { .. } => "CheckpointCompleted",
            Message::CheckpointAborted { .. } => "CheckpointAborted",
            Message::StopWorker => "StopWorker",
        };
        self.take_sent().iter().map(|(name, message)| format!("{name}:{}", kind(message))).collect()
    }

    fn logged(&self, text: &str) -> bool {
        self.other
            .iter()
            .any(|action| matches!(action, Action::Log(line) | Action::Warn(line) if line == text))
    }

    fn refused_stale(&self) -> usize {
        self.other.iter().filter(|action| matches!(action, Action::RefuseStale { .. })).count()
    }

    fn history(&self) -> Vec<JobStatus> {
        self.record().history.iter().map(|change| change.to).collect()
    }
}
