//! A job with the slots that are there, as these come and go.

use super::*;
use crate::scheduler::adaptive::AdaptiveSettings;

const SETTINGS: AdaptiveSettings =
    AdaptiveSettings { resource_wait_ms: 60_000, stabilization_ms: 1_000, scaling_interval_ms: 30_000 };

impl Bench {
    /// A job that has been submitted to a cluster with the adaptive scheduler.
    pub(super) fn adaptive(graph: JobGraph, task_managers: &[&str]) -> Self {
        let mut state = ClusterState::default();
        let binary =
            Some(crate::cluster::Binary { sha256: thalweg_proto::blob::BlobHash([1; 32]), size_bytes: 1 });
        state.apply(Command::SubmitJob(crate::cluster::SubmitJob { binary, ..submission(1, graph) }));
        let patience = Patience { adaptive: Some(SETTINGS), ..PATIENCE };
        Self::with(state, Origin::Submitted, task_managers, 0, BTreeMap::new(), patience)
    }

    fn comes_up(&mut self) {
        self.workers_ready();
        self.all_tasks(TaskStatus::Running);
        assert_eq!(self.status(), JobStatus::Running);
    }

    fn plans(&self) -> usize {
        self.other.iter().filter(|action| matches!(action, Action::Plan { .. })).count()
    }
}

/// `count` wants four slots.
fn wide() -> JobGraph {
    at(&checkpointed_graph(), &[2, 4])
}

#[test]
fn a_job_runs_with_fewer_slots_goes_up_with_more_and_down_with_their_loss() {
    let mut bench = Bench::adaptive(wide(), &["a"]);
    assert_eq!((bench.status(), bench.plans()), (JobStatus::Created, 1));
    assert!(bench.core.waits_for().contains("2 of 4 slots"), "{}", bench.core.waits_for());
    assert_eq!(bench.core.deadline(), Some(1_000));
    bench.advance(1_000);
    assert_eq!((bench.parallelism(), bench.attempt()), (2, 1));
    bench.comes_up();
    assert!(bench.record().layouts.wanted.is_some());

    // More slots: not at once, and through a checkpoint.
    bench.register("b");
    bench.advance(1_000);
    bench.acknowledge_all(1);
    assert_eq!((bench.status(), bench.parallelism()), (JobStatus::Running, 2));
    bench.advance(29_000);
    bench.acknowledge_all(2);
    assert_eq!((bench.status(), bench.parallelism()), (JobStatus::Restarting, 4));
    bench.stop_tasks_on("a");
    assert_eq!(bench.attempt(), 2);
    bench.comes_up();
    assert_eq!((bench.record().restored, bench.record().layouts.clone()), (Some(2), OtherLayouts::default()));
    assert!(bench.record().failures.is_empty());

    // Fewer again: no waiting for those that are gone.
    bench.lose("b");
    bench.stop_tasks_on("a");
    bench.advance(100);
    assert_eq!(
        (bench.status(), bench.parallelism()),
        (JobStatus::Restarting, 4),
        "the strategy's delay is over"
    );
    bench.advance(1_000);
    assert_eq!((bench.parallelism(), bench.attempt(), bench.record().restored), (2, 3, Some(2)));
    bench.comes_up();
    assert_eq!(bench.plans(), 1, "what it is at two is known");
}

#[test]
fn a_restart_with_the_same_slots_is_not_put_off() {
    let mut bench = Bench::adaptive(wide(), &["a"]);
    bench.advance(1_000);
    bench.comes_up();
    bench.advance(20_000);
    bench.task("a", subtask(0, 0), TaskStatus::Failed);
    bench.stop_tasks_on("a");
    assert_eq!((bench.attempt(), bench.parallelism()), (2, 2), "at once");
}

#[test]
fn a_job_that_cannot_run_at_all_fails_in_the_end() {
    let mut bench = Bench::adaptive(at(&checkpointed_graph(), &[4, 4]), &["a"]);
    assert!(bench.core.waits_for().contains("2 of 4 slots"), "{}", bench.core.waits_for());
    bench.advance(59_000);
    assert_eq!(bench.status(), JobStatus::Created);
    bench.advance(1_000);
    let failure = bench.record().failures[0].failure.message.clone();
    assert!(failure.contains("resource-wait-timeout"), "{failure}");
}

#[test]
fn a_new_leader_knows_what_a_job_has_and_wants() {
    let mut bench = Bench::adaptive(wide(), &["a"]);
    bench.advance(1_000);
    bench.comes_up();
    let mut bench = bench.new_leader();
    bench.register_with("a", 1, TaskStatus::Running);
    assert_eq!((bench.status(), bench.parallelism(), bench.attempt()), (JobStatus::Running, 2, 1));
    assert_eq!(bench.plans(), 0, "what it runs in is in the log");
    bench.register("b");
    bench.advance(30_000);
    let checkpoint = bench.record().last_checkpoint_id;
    bench.acknowledge_all(checkpoint);
    assert_eq!((bench.status(), bench.parallelism()), (JobStatus::Restarting, 4));
}

#[test]
fn without_checkpoints_a_job_stays_as_it_began() {
    let mut graph = wide();
    graph.checkpointing.interval_ms = None;
    let mut bench = Bench::adaptive(graph, &["a"]);
    bench.advance(1_000);
    bench.comes_up();
    bench.register("b");
    assert!(!bench.core.wants_slots());
}

#[test]
fn a_user_may_want_another_parallelism() {
    let mut bench = Bench::adaptive(wide(), &["a"]);
    bench.advance(1_000);
    bench.comes_up();
    bench.rescale(1);
    bench.acknowledge_all(1);
    bench.stop_tasks_on("a");
    bench.comes_up();
    assert_eq!((bench.parallelism(), bench.rescale_told()), (1, Some(&RescaleNews::Running)));
    assert_eq!(bench.record().layouts, OtherLayouts::default(), "that is what it wants now");
    // The slots for what was asked for go before it runs.
    bench.register("b");
    bench.other.clear();
    bench.rescale(4);
    bench.acknowledge_all(2);
    bench.lose("b");
    bench.stop_tasks_on("a");
    bench.advance(1_000);
    assert_eq!(bench.parallelism(), 2);
    assert!(
        matches!(bench.rescale_told(), Some(RescaleNews::Failed(reason)) if reason.contains("not enough slots"))
    );
}
