//! A cluster that does what it is told, late and in any order of its task managers, while tasks, workers, task managers and leaders fail:
//! no task ever runs twice, nothing that is left of an older attempt counts, and in the end every region runs once.

use proptest::prelude::*;

use super::regions::two_pipelines;
use super::*;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// A task manager with its worker, and what is on its way to the leader.
#[derive(Debug, Default)]
struct Node {
    inbox: VecDeque<Message>,
    outbox: VecDeque<(Attempt, News)>,
    worker: Option<Worker>,
    /// The newest attempt that it has heard of.
    heard: Attempt,
    tasks: BTreeMap<SubtaskId, (Attempt, TaskStatus)>,
    /// The end of its last worker, until a leader has registered it.
    lost: Option<(Attempt, News)>,
}

struct Model {
    bench: Bench,
    /// Workers that were ever started.
    started: u128,
    /// A new leader does not wait for the end of tasks that it does not know.
    had_new_leader: bool,
    nodes: BTreeMap<&'static str, Node>,
}

#[derive(Debug, Clone)]
enum Happening {
    /// A task manager reads a message, if there is one.
    Read(&'static str),
    /// The leader reads a report of it, if there is one.
    Report(&'static str),
    FailTask(u32),
    KillWorker(&'static str),
    /// Its connection is gone, and itself with it; it comes back empty.
    Lose(&'static str),
    Return(&'static str),
    Time(u64),
    HoldLog(bool),
    NewLeader,
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let name = || proptest::sample::select(&NAMES[..]);
    prop_oneof![
        12 => name().prop_map(Happening::Read),
        12 => name().prop_map(Happening::Report),
        2 => (0u32..4).prop_map(Happening::FailTask),
        1 => name().prop_map(Happening::KillWorker),
        1 => name().prop_map(Happening::Lose),
        2 => name().prop_map(Happening::Return),
        4 => (1u64..1_500).prop_map(Happening::Time),
        1 => any::<bool>().prop_map(Happening::HoldLog),
        1 => Just(Happening::NewLeader),
    ]
}

impl Model {
    fn new(graph: JobGraph, patience: Patience) -> Self {
        let mut state = ClusterState::default();
        state.apply(Command::SubmitJob(submission(1, graph)));
        let bench = Bench::with(state, Origin::Submitted, &NAMES, 0, BTreeMap::new(), patience);
        let nodes = NAMES.map(|name| (name, Node::default())).into();
        let mut model = Self { bench, started: 0, had_new_leader: false, nodes };
        model.deliver();
        model
    }

    /// What the old leader had not committed is lost, and all connections with it.
    fn new_leader(mut self) -> Self {
        for node in self.nodes.values_mut() {
            node.inbox.clear();
            node.outbox.clear();
        }
        Self { bench: self.bench.new_leader(), had_new_leader: true, ..self }
    }

    /// A task manager registers, and tells what a leader may have missed.
    fn register(&mut self, name: &'static str) {
        let node = self.nodes.get_mut(name).unwrap();
        node.inbox.clear();
        node.outbox.clear();
        let report = node.worker.clone().map(|worker| Report { worker, tasks: node.tasks.clone() });
        node.outbox.extend(node.lost.take());
        let failed = node.tasks.iter().filter(|(_, (_, status))| *status == TaskStatus::Failed);
        node.outbox.extend(failed.map(|(subtask, (attempt, status))| {
            let failure = Some(failure("boom"));
            (*attempt, News::Task { subtask: *subtask, status: *status, failure })
        }));
        self.bench.registered.insert(tm(name));
        self.bench.step(Input::Registered { task_manager: tm(name), report });
    }

    /// What the core has sent goes to whom it is for, and a task manager that was cut off is gone.
    fn deliver(&mut self) {
        for (name, message) in std::mem::take(&mut self.bench.sent) {
            let node = self.nodes.iter_mut().find(|(node, _)| **node == name.0);
            if let Some((_, node)) = node.filter(|_| self.bench.registered.contains(&name)) {
                node.inbox.push_back(message);
            }
        }
        let cut_off = std::mem::take(&mut self.bench.other).into_iter().find_map(|action| match action {
            Action::Disconnect { task_manager, .. } => NAMES.into_iter().find(|name| *name == task_manager.0),
            _ => None,
        });
        if let Some(name) = cut_off {
            self.lose(name);
        }
    }

    fn lose(&mut self, name: &'static str) {
        if self.bench.registered.contains(&tm(name)) {
            self.nodes.insert(name, Node::default());
            self.bench.lose(name);
            self.deliver();
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Read(name) => self.read(name),
            Happening::Report(name) => {
                let report = self.nodes.get_mut(name).unwrap().outbox.pop_front();
                if let Some((attempt, news)) = report {
                    self.bench.report(name, attempt, news);
                }
            }
            Happening::FailTask(number) => self.fail_task(number),
            Happening::KillWorker(name) => self.kill_worker(name),
            Happening::Lose(name) => self.lose(name),
            Happening::Return(name) if !self.bench.registered.contains(&tm(name)) => self.register(name),
            Happening::Return(_) => {}
            Happening::Time(by_ms) => self.bench.advance(by_ms),
            Happening::HoldLog(hold) => self.bench.hold_log = hold,
            Happening::NewLeader => {}
        }
        if !self.bench.hold_log {
            self.bench.apply_log();
        }
        self.bench.offer();
        self.deliver();
    }

    fn fail_task(&mut self, number: u32) {
        for node in self.nodes.values_mut() {
            let running =
                node.tasks.iter_mut().find(|(id, (_, status))| id.vertex == number && !status.is_terminal());
            if let Some((subtask, (attempt, status))) = running {
                *status = TaskStatus::Failed;
                let news = News::Task { subtask: *subtask, status: *status, failure: Some(failure("boom")) };
                node.outbox.push_back((*attempt, news));
                return;
            }
        }
    }

    fn kill_worker(&mut self, name: &'static str) {
        let node = self.nodes.get_mut(name).unwrap();
        if let Some(Worker { id, .. }) = node.worker.take() {
            node.tasks.clear();
            let lost = (node.heard, News::WorkerLost { id, failure: failure("signal 9") });
            node.lost = Some(lost.clone());
            node.outbox.push_back(lost);
        }
    }

    fn read(&mut self, name: &'static str) {
        let Some(message) = self.nodes.get_mut(name).unwrap().inbox.pop_front() else { return };
        match message {
            Message::StartWorker { attempt } => {
                let node = self.nodes.get_mut(name).unwrap();
                assert!(attempt >= node.heard, "a task manager refuses older attempts than it has heard of");
                (node.heard, node.lost) = (attempt, None);
                self.started += 1;
                let fresh = Worker { id: WorkerId(self.started), data_address: "there".to_string() };
                let worker = node.worker.get_or_insert(fresh).clone();
                node.outbox.push_back((attempt, News::WorkerReady(worker)));
            }
            Message::DeployTasks(deployment) => self.deploy(name, &deployment),
            Message::CancelTasks { attempt, regions } => {
                let spec = Arc::clone(self.bench.core.spec());
                let node = self.nodes.get_mut(name).unwrap();
                assert!(attempt >= node.heard);
                node.heard = attempt;
                let is_meant = |subtask: SubtaskId| {
                    regions.is_empty() || regions.contains(&spec.regions.region(subtask))
                };
                for (subtask, (attempt, status)) in &node.tasks {
                    if is_meant(*subtask) && !status.is_terminal() {
                        let news =
                            News::Task { subtask: *subtask, status: TaskStatus::Canceled, failure: None };
                        node.outbox.push_back((*attempt, news));
                    }
                }
                node.tasks.retain(|subtask, _| !is_meant(*subtask));
                node.outbox.push_back((attempt, News::TasksStopped(regions)));
            }
            Message::TriggerCheckpoint { attempt, checkpoint_id, .. } => {
                self.acknowledge(attempt, checkpoint_id)
            }
            _ => {}
        }
    }

    /// All running tasks that the barrier reaches.
    fn acknowledge(&mut self, newest: Attempt, checkpoint_id: CheckpointId) {
        for node in self.nodes.values_mut() {
            for (subtask, (attempt, status)) in &node.tasks {
                if *attempt <= newest && *status == TaskStatus::Running {
                    let (snapshot, phases) = (snapshot(), CheckpointPhases::default());
                    let news = News::Acknowledged { checkpoint_id, subtask: *subtask, snapshot, phases };
                    node.outbox.push_back((*attempt, news));
                }
            }
        }
    }

    fn deploy(&mut self, name: &'static str, deployment: &Deployment) {
        let regions = &self.bench.core.spec().regions;
        let deployed = regions.regions(deployment.tasks.iter().map(|(subtask, _)| *subtask));
        let older = self.nodes.values().flat_map(|node| &node.tasks);
        for (subtask, (attempt, status)) in older.filter(|(id, _)| deployed.contains(&regions.region(**id))) {
            assert!(
                status.is_terminal() || *attempt == deployment.attempt || self.had_new_leader,
                "{subtask} runs in attempt {attempt} when its region is deployed in {}",
                deployment.attempt
            );
        }
        let node = self.nodes.get_mut(name).unwrap();
        // Its worker is gone: the leader is about to hear of it.
        if node.worker.is_none() || deployment.attempt < node.heard {
            return;
        }
        for (subtask, _) in &deployment.tasks {
            node.tasks.insert(*subtask, (deployment.attempt, TaskStatus::Running));
            let news = News::Task { subtask: *subtask, status: TaskStatus::Running, failure: None };
            node.outbox.push_back((deployment.attempt, news));
        }
    }

    /// What the core believes of tasks that go on is what the cluster has, as far as nothing is on its way.
    fn check(&self) {
        let core = &self.bench.core;
        if matches!(core.phase, Phase::Adopting { .. }) {
            return;
        }
        for (subtask, task) in &core.execution.tasks {
            if core.is_restarting(*subtask) {
                continue;
            }
            let Some(node) = self.nodes.get(task.slot.task_manager.0.as_str()) else { continue };
            let is_known = node.tasks.get(subtask).is_some_and(|(attempt, _)| *attempt == task.attempt);
            // Or there is news of it.
            assert!(
                is_known || !node.outbox.is_empty(),
                "{subtask} does not run in attempt {}",
                task.attempt
            );
        }
    }

    /// Nothing more fails.
    fn settle(&mut self) {
        self.happen(Happening::HoldLog(false));
        for _ in 0..200 {
            for name in NAMES {
                self.happen(Happening::Return(name));
                self.happen(Happening::Read(name));
                self.happen(Happening::Report(name));
            }
            self.happen(Happening::Time(100));
            let is_quiet =
                self.nodes.values().all(|node| {
                    let is_checkpoint = |news: &News| matches!(news, News::Acknowledged { .. });
                    !node.inbox.iter().any(|message| {
                        matches!(message, Message::DeployTasks(_) | Message::CancelTasks { .. })
                    }) && node.outbox.iter().all(|(_, news)| is_checkpoint(news))
                });
            if is_quiet && self.bench.core.is_running() {
                return;
            }
        }
        panic!("the job does not run again: {:?} {:?}", self.bench.core.phase, self.nodes);
    }
}

/// What may befall the first pipeline and the leaders.
fn any_happening_to_the_first() -> impl Strategy<Value = Happening> {
    let name = || proptest::sample::select(&NAMES[..]);
    prop_oneof![
        12 => name().prop_map(Happening::Read),
        12 => name().prop_map(Happening::Report),
        3 => (0u32..2).prop_map(Happening::FailTask),
        4 => (1u64..200).prop_map(Happening::Time),
        1 => any::<bool>().prop_map(Happening::HoldLog),
        2 => Just(Happening::NewLeader),
    ]
}

fn restarted_for_ever(shares_slots: bool) -> JobGraph {
    let mut graph = two_pipelines();
    graph.restart_strategy = thalweg_common::config::RestartStrategy::FixedDelay {
        attempts: thalweg_common::config::RestartStrategy::UNLIMITED,
        delay_ms: 100,
    };
    graph.checkpointing.tolerable_failures = 1_000;
    if shares_slots {
        graph.vertices.iter_mut().for_each(|vertex| vertex.slot_sharing_group = "default".into());
    }
    graph
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_region_that_nothing_befalls_goes_on_under_every_leader(
        happenings in proptest::collection::vec(any_happening_to_the_first(), 0..150),
        shares_slots in any::<bool>(),
    ) {
        let mut model = Model::new(restarted_for_ever(shares_slots), PATIENCE);
        model.settle();
        for happening in happenings {
            if matches!(happening, Happening::NewLeader) {
                model = model.new_leader();
                NAMES.into_iter().for_each(|name| model.happen(Happening::Return(name)));
            } else {
                model.happen(happening);
            }
            model.check();
        }
        model.settle();
        for vertex in [2, 3] {
            prop_assert_eq!(model.bench.record().attempts[&subtask(vertex, 0)], 1);
        }
    }

    #[test]
    fn every_region_runs_once_whatever_fails(
        happenings in proptest::collection::vec(any_happening(), 0..200),
        shares_slots in any::<bool>(),
        is_full in any::<bool>(),
    ) {
        let graph = restarted_for_ever(shares_slots);
        let mut model = Model::new(graph, Patience { restarts_regions: !is_full, ..PATIENCE });
        for happening in happenings {
            if matches!(happening, Happening::NewLeader) {
                model = model.new_leader();
                continue;
            }
            let before: BTreeMap<_, _> =
                model.bench.core.execution.tasks.iter().map(|(id, task)| (*id, task.attempt)).collect();
            model.happen(happening);
            model.check();
            for (subtask, attempt) in before {
                prop_assert!(model.bench.core.execution.attempt_of(subtask) >= attempt, "attempts grow");
            }
        }
        model.settle();
        let core = &model.bench.core;
        prop_assert_eq!(model.bench.status(), JobStatus::Running);
        for subtask in core.spec.graph.subtasks() {
            let task = &core.execution.tasks[&subtask];
            let running: Vec<_> = NAMES
                .into_iter()
                .filter_map(|name| model.nodes[name].tasks.get(&subtask).map(|task| (name, *task)))
                .filter(|(_, (_, status))| !status.is_terminal())
                .collect();
            let expected = (task.slot.task_manager.0.as_str(), (task.attempt, TaskStatus::Running));
            prop_assert_eq!(running, [expected], "{}", subtask);
            prop_assert_eq!(model.bench.record().attempts[&subtask], task.attempt);
            prop_assert_eq!(&model.bench.record().placement[&subtask], &task.slot);
        }
        for region in core.spec.regions.all() {
            let tasks = core.execution.tasks.iter();
            let attempts: BTreeSet<_> =
                tasks.filter(|(id, _)| core.region(**id) == region).map(|(_, task)| task.attempt).collect();
            prop_assert_eq!(attempts.len(), 1, "a region is of one attempt");
        }
    }
}
