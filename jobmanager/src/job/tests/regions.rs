//! Two pipelines that have nothing to do with each other: a failure of one is no matter of the other's, except where it has to be.

use super::*;
use JobStatus::{Canceled, Failing, Restarting, Running};
use thalweg_common::config::RestartStrategy;
use thalweg_proto::model::SavepointMode;

/// Two pipelines of a source and a count each, in slots of their own; vertices 0 and 1 are region 0, the others region 1.
pub(super) fn two_pipelines() -> JobGraph {
    let mut graph = at(&checkpointed_graph(), &[1, 1]);
    let (mut vertices, mut edge) = (graph.vertices.clone(), graph.edges[0].clone());
    (edge.source, edge.target) = (2, 3);
    for (id, vertex) in (11..).zip(&mut vertices) {
        vertex.slot_sharing_group = "other".to_string();
        vertex.operators[0].id = thalweg_common::id::OperatorId(id);
    }
    graph.vertices.extend(vertices);
    graph.edges.push(edge);
    graph
}

const ONE: [u32; 2] = [0, 1];
const OTHER: [u32; 2] = [2, 3];

/// How far the restart of a region is.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(super) enum Reached {
    Stopping,
    Delayed,
    WaitingForSlots,
    Starting,
    WaitingForWorkers,
    Deployed,
    /// And the log does not know.
    Running,
}

impl Bench {
    /// Behind a checkpoint the first pipeline has failed, and its restart has come so far.
    pub(super) fn restarting(graph: JobGraph, reached: Reached) -> Self {
        let mut bench = Self::running_with(graph, PATIENCE);
        bench.complete_checkpoint();
        bench.fail_on("a");
        if reached == Reached::WaitingForSlots {
            bench.registered.clear();
        }
        if reached >= Reached::Delayed {
            bench.stop_tasks_on("a");
        }
        bench.hold_log = reached == Reached::Starting;
        if reached >= Reached::WaitingForSlots {
            bench.advance(100);
        }
        if reached >= Reached::Deployed {
            bench.workers_ready();
        }
        if reached == Reached::Running {
            bench.hold_log = true;
            bench.all_tasks(TaskStatus::Running);
        }
        bench.registered = BTreeSet::from([tm("a"), tm("b")]);
        let is_there = match &bench.core.phase {
            Phase::Stopping { .. } => reached == Reached::Stopping,
            Phase::Delayed { .. } => reached == Reached::Delayed,
            Phase::Waiting { .. } => reached == Reached::WaitingForSlots && bench.core.slots().count() == 2,
            Phase::Starting => reached == Reached::Starting,
            Phase::Deploying { deployed: false, .. } => reached == Reached::WaitingForWorkers,
            Phase::Deploying { deployed: true, .. } => reached == Reached::Deployed,
            Phase::Running => reached == Reached::Running,
            Phase::Adopting { .. } | Phase::Ending | Phase::Ended => false,
        };
        assert!(is_there, "{reached:?}: {:?}", bench.core.phase);
        bench
    }

    /// Both run, the first one on `a`, the other one on `b`.
    pub(super) fn two_regions() -> Self {
        Self::running_with(two_pipelines(), PATIENCE)
    }

    pub(super) fn running_with(graph: JobGraph, patience: Patience) -> Self {
        let mut state = ClusterState::default();
        state.apply(Command::SubmitJob(submission(1, graph)));
        let names = ["a", "b"];
        let mut bench = Self::with(state, Origin::Submitted, &names, 0, BTreeMap::new(), patience);
        bench.offer();
        bench.workers_ready();
        bench.all_tasks(TaskStatus::Running);
        assert_eq!(bench.status(), Running);
        bench.sent.clear();
        bench
    }

    /// The attempts of both pipelines, as the core and the log know them.
    pub(super) fn attempts(&self) -> (Attempt, Attempt) {
        let of = |vertices: [u32; 2]| {
            let attempts = vertices.map(|vertex| self.core.execution.attempt_of(subtask(vertex, 0)));
            assert_eq!(attempts, vertices.map(|vertex| self.record().attempts[&subtask(vertex, 0)]));
            assert_eq!(attempts[0], attempts[1], "a region is of one attempt");
            attempts[0]
        };
        (of(ONE), of(OTHER))
    }

    pub(super) fn fail_on(&mut self, name: &str) {
        let vertex = if name == "a" { 1 } else { 3 };
        self.task(name, subtask(vertex, 0), TaskStatus::Failed);
    }

    /// Everybody does what it is told, until all tasks run.
    pub(super) fn recover(&mut self) {
        self.hold_log = false;
        self.apply_log();
        for name in ["a", "b"] {
            self.stop_tasks_on(name);
        }
        self.advance(100);
        self.offer();
        self.workers_ready();
        self.all_tasks(TaskStatus::Running);
        assert_eq!(self.status(), Running);
    }

    pub(super) fn complete_checkpoint(&mut self) -> CheckpointId {
        self.advance(1_000);
        let id = self.record().last_checkpoint_id;
        self.acknowledge_all(id);
        assert_eq!(self.record().latest_checkpoint().unwrap().id, id);
        id
    }
}

#[test]
fn a_failure_restarts_its_region_and_no_other() {
    let mut bench = Bench::two_regions();
    assert_eq!(bench.complete_checkpoint(), 1);
    bench.take_kinds();
    bench.fail_on("a");
    assert_eq!(bench.status(), Restarting);
    let cancel = Message::CancelTasks { attempt: 1, regions: BTreeSet::from([0]) };
    assert_eq!(bench.take_sent(), [("a".into(), cancel)]);
    bench.report("a", 1, News::TasksStopped(BTreeSet::from([0])));
    bench.advance(100);
    assert_eq!(bench.take_sent(), [("a".into(), Message::StartWorker { attempt: 2 })]);
    bench.report("a", 2, News::WorkerReady(worker("a")));
    let sent = bench.take_sent();
    let [(name, Message::DeployTasks(deployment))] = &sent[..] else { panic!("{sent:?}") };
    let deployed: Vec<_> = deployment.tasks.iter().map(|(subtask, _)| subtask.vertex).collect();
    assert_eq!((name.as_str(), deployed, deployment.restored), ("a", ONE.to_vec(), Some(1)));
    assert!(deployment.tasks.iter().all(|(_, snapshots)| snapshots.len() == 1));
    assert_eq!(deployment.locations.len(), 2, "nobody else is connected with them");
    for vertex in ONE {
        bench.task("a", subtask(vertex, 0), TaskStatus::Running);
    }
    assert_eq!((bench.status(), bench.attempts()), (Running, (2, 1)));
    assert_eq!(bench.history(), [Running, Restarting, Running]);
    // What it says of itself in its own attempt counts, and nothing of any other.
    bench.report("b", 2, News::Task { subtask: subtask(3, 0), status: TaskStatus::Failed, failure: None });
    assert_eq!((bench.status(), bench.refused_stale()), (Running, 1));
    // The next checkpoint is one of both.
    bench.take_kinds();
    bench.advance(1_000);
    let trigger = |message: &Message| matches!(message, Message::TriggerCheckpoint { attempt: 2, .. });
    let sent = bench.take_sent();
    assert!(sent.len() == 2 && sent.iter().all(|(_, message)| trigger(message)), "{sent:?}");
    bench.acknowledge_all(2);
    assert_eq!(bench.take_kinds(), ["a:CheckpointCompleted", "b:CheckpointCompleted"]);
    // The other one in its turn.
    bench.fail_on("b");
    bench.recover();
    assert_eq!(bench.attempts(), (2, 3));
}

#[test]
fn a_checkpoint_in_progress_is_over_for_those_that_go_on() {
    let mut bench = Bench::two_regions();
    bench.advance(1_000);
    bench.take_kinds();
    bench.fail_on("a");
    assert_eq!(bench.take_kinds(), ["b:CheckpointAborted", "a:CancelTasks"]);
    assert_eq!(bench.record().checkpoints_failed, 1);
    // What is late changes nothing.
    bench.acknowledge_all(1);
    bench.recover();
    assert_eq!((bench.record().checkpoints_completed, bench.attempts()), (0, (2, 1)));
    assert_eq!(bench.complete_checkpoint(), 2);
}

#[test]
fn a_checkpoint_that_the_log_decides_meanwhile_is_told_to_those_that_go_on() {
    let mut bench = Bench::two_regions();
    bench.advance(1_000);
    bench.hold_log = true;
    bench.acknowledge_all(1);
    bench.fail_on("a");
    bench.stop_tasks_on("a");
    bench.advance(100);
    bench.take_kinds();
    bench.apply_log();
    assert!(bench.take_kinds().contains(&"b:CheckpointCompleted".to_string()));
    bench.recover();
    assert_eq!((bench.attempts(), bench.record().restored), ((2, 1), Some(1)));
}

#[test]
fn a_failure_elsewhere_widens_the_restart_whatever_it_is_at() {
    use Reached::{Delayed, Deployed, Starting, Stopping, WaitingForSlots, WaitingForWorkers};
    for reached in [Stopping, Delayed, WaitingForSlots, Starting, WaitingForWorkers, Deployed] {
        let mut graph = two_pipelines();
        graph.restart_strategy = RestartStrategy::FixedDelay { attempts: 3, delay_ms: 100 };
        let mut bench = Bench::restarting(graph, reached);
        bench.take_kinds();
        bench.fail_on("b");
        assert_eq!(bench.status(), Restarting, "{reached:?}");
        let kinds = bench.take_kinds();
        assert!(kinds.contains(&"b:CancelTasks".to_string()), "{reached:?}: {kinds:?}");
        // The first one is not told twice, and told again if it had been started.
        let was_started = reached >= WaitingForWorkers;
        assert_eq!(kinds.contains(&"a:CancelTasks".to_string()), was_started, "{reached:?}");
        bench.fail_on("b");
        bench.recover();
        let attempt = if reached < Starting { 2 } else { 3 };
        assert_eq!(bench.attempts(), (attempt, attempt), "{reached:?}");
        assert_eq!(bench.record().failures.len(), 2, "{reached:?}: the second failure of a region is noise");
        assert_eq!(bench.record().restored, Some(1), "{reached:?}");
    }
}

#[test]
fn a_lost_task_manager_takes_its_regions_with_it() {
    let mut bench = Bench::two_regions();
    bench.lose("a");
    assert!(bench.logged("The assigned slot a_0 was removed."));
    assert_eq!(bench.take_kinds(), [""; 0], "nobody is left to be told");
    bench.advance(100);
    // There is room on the other one.
    assert_eq!(bench.members(), ["b"]);
    assert_eq!(bench.take_sent(), [("b".into(), Message::StartWorker { attempt: 2 })]);
    bench.workers_ready();
    bench.all_tasks(TaskStatus::Running);
    assert_eq!((bench.status(), bench.attempts()), (Running, (2, 1)));
    // Now both are on one.
    bench.lose("b");
    bench.register("a");
    bench.recover();
    assert_eq!(bench.attempts(), (3, 3));
}

#[test]
fn a_lost_worker_takes_only_those_that_it_ran() {
    let mut bench = Bench::two_regions();
    bench.report("b", 1, worker_lost("b", failure("signal 9")));
    assert_eq!(bench.take_kinds(), ["b:CancelTasks"]);
    bench.recover();
    assert_eq!(bench.attempts(), (1, 2));
    // Its task manager has heard of the first attempt only, and may still lose it.
    bench.report("a", 1, worker_lost("a", failure("signal 9")));
    bench.recover();
    assert_eq!(bench.attempts(), (3, 2));
    bench.report("a", 2, worker_lost("an old one", failure("signal 9")));
    assert_eq!(bench.status(), Running);
}

#[test]
fn a_worker_that_is_lost_while_it_is_asked_for_takes_those_with_it_that_went_on() {
    let mut graph = two_pipelines();
    graph.vertices.iter_mut().for_each(|vertex| vertex.slot_sharing_group = "default".into());
    let mut bench = Bench::running_with(graph, PATIENCE);
    bench.task("a", subtask(1, 0), TaskStatus::Failed);
    bench.report("a", 1, News::TasksStopped(BTreeSet::from([0])));
    bench.advance(100);
    assert_eq!(bench.attempt(), 2);
    // Its task manager has not heard of the second attempt yet.
    bench.report("a", 1, worker_lost("a", failure("signal 9")));
    bench.recover();
    assert_eq!(bench.attempts(), (3, 3));
}

#[test]
fn a_task_manager_that_stops_moves_only_its_regions() {
    let mut bench = Bench::two_regions();
    bench.registered.remove(&tm("b"));
    bench.step(Input::Draining { task_manager: tm("b") });
    assert_eq!(bench.take_kinds(), ["b:CancelTasks"]);
    bench.stop_tasks_on("b");
    bench.recover();
    assert_eq!((bench.attempts(), bench.members()), ((1, 2), vec!["a".to_string()]));
    assert_eq!(bench.record().restarts.restarts, 0, "no failure");
}

#[test]
fn regions_in_one_slot_return_to_it() {
    let mut graph = two_pipelines();
    graph.vertices.iter_mut().for_each(|vertex| vertex.slot_sharing_group = "default".into());
    let mut bench = Bench::running_with(graph, PATIENCE);
    let before = bench.record().placement.clone();
    assert_eq!(before.values().collect::<BTreeSet<_>>().len(), 1);
    bench.registered = BTreeSet::from([tm("a")]);
    bench.task("a", subtask(1, 0), TaskStatus::Failed);
    bench.recover();
    assert_eq!((&bench.record().placement, bench.attempts()), (&before, (2, 1)));
}

#[test]
fn all_is_restarted_where_a_region_alone_would_not_do() {
    let full = Patience { restarts_regions: false, ..PATIENCE };
    type Before = fn(&mut Bench);
    let table: [(&str, Patience, Before); 5] = [
        ("failover-strategy: full", full, |_| {}),
        ("a final checkpoint is in progress", PATIENCE, |bench| bench.all_tasks(TaskStatus::Drained)),
        ("it is complete", PATIENCE, |bench| {
            bench.all_tasks(TaskStatus::Drained);
            bench.acknowledge_all(1);
        }),
        ("sources were told to end", PATIENCE, |bench| {
            let (directory, mode) = ("/savepoints".to_string(), SavepointMode::Drain);
            bench.step(Input::Savepoint { request: 1, directory, mode });
        }),
        ("the job stops with a savepoint", PATIENCE, |bench| {
            let (directory, mode) = ("/savepoints".to_string(), SavepointMode::Stop);
            bench.step(Input::Savepoint { request: 1, directory, mode });
        }),
    ];
    for (name, patience, before) in table {
        let mut bench = Bench::running_with(two_pipelines(), patience);
        before(&mut bench);
        bench.take_kinds();
        bench.fail_on("a");
        assert_eq!(bench.take_kinds(), ["a:CancelTasks", "b:CancelTasks"], "{name}");
        bench.recover();
        assert_eq!(bench.attempts(), (2, 2), "{name}");
        // Behind that it is as ever.
        bench.take_kinds();
        bench.fail_on("b");
        assert_eq!(bench.take_kinds().len(), if name.ends_with("full") { 2 } else { 1 }, "{name}");
    }
}

#[test]
fn too_many_failed_checkpoints_restart_all() {
    let mut bench = Bench::two_regions();
    bench.advance(1_000);
    let declined = News::Declined { checkpoint_id: 1, subtask: subtask(1, 0), failure: failure("disk full") };
    bench.report("a", 1, declined);
    assert_eq!(bench.status(), Restarting);
    bench.recover();
    assert_eq!(bench.attempts(), (2, 2));
}

#[test]
fn all_go_back_together_when_the_newest_checkpoint_cannot_be_read() {
    let mut graph = two_pipelines();
    graph.checkpointing.retained = 2;
    let mut bench = Bench::running_with(graph, PATIENCE);
    bench.complete_checkpoint();
    bench.complete_checkpoint();
    bench.files.remove(&2);
    bench.fail_on("a");
    bench.stop_tasks_on("a");
    bench.take_kinds();
    bench.advance(100);
    let kinds = BTreeSet::from_iter(bench.take_kinds());
    assert!(kinds.contains("a:CancelTasks") && kinds.contains("b:CancelTasks"), "{kinds:?}");
    bench.recover();
    assert_eq!((bench.attempts(), bench.record().restored), ((3, 3), Some(1)));
    assert_eq!(bench.record().failures.len(), 1);
}

#[test]
fn a_job_is_cancelled_or_given_up_as_a_whole_while_a_region_is_restarted() {
    for gives_up in [false, true] {
        let mut bench = Bench::two_regions();
        bench.fail_on("a");
        bench.stop_tasks_on("a");
        bench.advance(100);
        bench.workers_ready();
        bench.take_kinds();
        if gives_up {
            bench.report("b", 1, worker_lost("b", failure("another plan").permanent()));
            assert_eq!(bench.status(), Failing);
        } else {
            bench.step(Input::Cancel);
        }
        let cancels: Vec<_> = bench.take_sent();
        let all = Message::CancelTasks { attempt: 2, regions: BTreeSet::new() };
        assert_eq!(cancels, [("a".into(), all.clone()), ("b".into(), all)]);
        bench.stop_tasks_on("a");
        bench.stop_tasks_on("b");
        assert_eq!(bench.status(), if gives_up { JobStatus::Failed } else { Canceled });
    }
}

#[test]
fn a_task_manager_that_does_not_stop_a_region_loses_all_of_its_regions() {
    let mut graph = two_pipelines();
    graph.vertices.iter_mut().for_each(|vertex| vertex.slot_sharing_group = "default".into());
    let mut bench = Bench::running_with(graph, PATIENCE);
    bench.task("a", subtask(1, 0), TaskStatus::Failed);
    bench.registered = BTreeSet::from([tm("b")]);
    bench.advance(PATIENCE.cancellation_ms + 30_000);
    assert!(bench.other.iter().any(|action| matches!(action, Action::Disconnect { .. })));
    bench.step(Input::TaskManagerLost { task_manager: tm("a"), reason: "cut off".into() });
    bench.recover();
    assert_eq!((bench.attempts(), bench.members()), ((2, 2), vec!["b".to_string()]));
}

/// What both task managers report to a new leader, each its own tasks in these attempts.
fn register_both(bench: &mut Bench, attempts: [Attempt; 2]) {
    for (name, vertices, attempt) in [("a", ONE, attempts[0]), ("b", OTHER, attempts[1])] {
        let tasks = vertices.map(|vertex| (subtask(vertex, 0), (attempt, TaskStatus::Running))).into();
        bench.registered.insert(tm(name));
        let report = Some(Report { worker: worker(name), tasks });
        bench.step(Input::Registered { task_manager: tm(name), report });
    }
}

/// The other region was restarted once.
fn with_two_attempts() -> Bench {
    let mut bench = Bench::two_regions();
    bench.complete_checkpoint();
    bench.fail_on("b");
    bench.recover();
    assert_eq!(bench.attempts(), (1, 2));
    bench.take_kinds();
    bench
}

#[test]
fn a_new_leader_takes_over_regions_of_different_attempts() {
    let mut bench = with_two_attempts().new_leader();
    register_both(&mut bench, [1, 2]);
    assert_eq!((bench.core.phase.clone(), bench.attempts()), (Phase::Running, (1, 2)));
    // Who took part in the newest checkpoint may not have heard of it; who restored it needs not.
    let expected = Message::CheckpointCompleted { attempt: 1, checkpoint_id: 1, is_final: false };
    assert_eq!(bench.take_sent(), [("a".into(), expected)]);
    assert_eq!(bench.complete_checkpoint(), 2);
    bench.take_kinds();
    bench.fail_on("a");
    assert_eq!(bench.take_kinds(), ["a:CancelTasks"]);
    bench.recover();
    assert_eq!(bench.attempts(), (3, 2));
}

#[test]
fn a_new_leader_does_not_take_over_tasks_of_an_older_attempt() {
    let mut bench = with_two_attempts().new_leader();
    register_both(&mut bench, [1, 1]);
    bench.advance(200);
    assert_eq!(bench.status(), Restarting);
    bench.recover();
    assert_eq!(bench.attempts(), (1, 3));
}

#[test]
fn task_managers_hear_of_no_attempt_that_is_not_in_the_log() {
    let mut bench = Bench::two_regions();
    bench.fail_on("a");
    bench.stop_tasks_on("a");
    bench.hold_log = true;
    bench.advance(100);
    bench.take_kinds();
    // The second attempt may be lost with this leader.
    bench.fail_on("b");
    let cancel = Message::CancelTasks { attempt: 1, regions: BTreeSet::new() };
    assert_eq!(bench.take_sent(), [("b".into(), cancel)]);
}
