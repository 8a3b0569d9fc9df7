//! A new leader of two pipelines that have nothing to do with each other: what goes on is adopted, and only what does not is restarted.

use super::regions::{Reached, two_pipelines};
use super::*;
use JobStatus::{Restarting, Running};

impl Bench {
    /// Under the next leader: the first pipeline ran on `a`, the other one on `b`.
    fn regions_of_new_leader(self) -> Self {
        let mut bench = self.new_leader();
        assert_eq!(bench.take_kinds(), [""; 0]);
        bench.other.clear();
        bench
    }

    /// The regions that are told to stop, by task manager.
    fn take_cancelled(&mut self) -> BTreeMap<String, BTreeSet<RegionId>> {
        let cancelled = self.take_sent().into_iter().filter_map(|(name, message)| match message {
            Message::CancelTasks { regions, .. } => Some((name, regions)),
            _ => None,
        });
        cancelled.collect()
    }
}

#[test]
fn a_leader_that_dies_amid_the_restart_of_a_region_does_not_disturb_the_others() {
    use Reached::{Delayed, Deployed, Starting, Stopping, WaitingForSlots, WaitingForWorkers};
    for reached in
        [Stopping, Delayed, WaitingForSlots, Starting, WaitingForWorkers, Deployed, Reached::Running]
    {
        let mut bench = Bench::restarting(two_pipelines(), reached);
        assert_eq!(bench.record().going_on, [1].into(), "{reached:?}");
        bench.sent.clear();
        let mut bench = bench.regions_of_new_leader();
        let present = bench.attempt();
        bench.register_with("a", present, TaskStatus::Running);
        assert_eq!(bench.take_cancelled(), [("a".into(), [0].into())].into(), "{reached:?}");
        bench.register_with("b", 1, TaskStatus::Running);
        assert_eq!(
            bench.take_kinds(),
            ["b:CheckpointCompleted"],
            "{reached:?}: the old one may not have told it"
        );
        assert_eq!(bench.status(), Restarting, "{reached:?}");
        bench.advance(1_000);
        bench.recover();
        let attempt = if reached < WaitingForWorkers { 2 } else { 3 };
        assert_eq!(bench.attempts(), (attempt, 1), "{reached:?}");
        assert_eq!((bench.record().restored, bench.record().failures.len()), (Some(1), 1), "{reached:?}");
        assert!(bench.record().going_on.is_empty(), "{reached:?}");
        assert_eq!(bench.complete_checkpoint(), 2, "{reached:?}: one of both");
    }
}

#[test]
fn what_shall_go_on_and_does_not_is_restarted_too() {
    let mut bench = Bench::two_regions();
    bench.complete_checkpoint();
    bench.fail_on("a");
    bench.sent.clear();
    let mut bench = bench.regions_of_new_leader();
    bench.register("a");
    bench.register_with("b", 1, TaskStatus::Failed);
    bench.advance(200);
    assert_eq!(bench.status(), Restarting);
    bench.advance(1_000);
    bench.recover();
    assert_eq!(bench.attempts(), (2, 2));
}

#[test]
fn a_new_leader_of_a_running_job_restarts_only_what_it_does_not_find() {
    // What happens under the new leader, and the attempts behind it.
    type Then = fn(&mut Bench);
    let table: [(&str, Then, (Attempt, Attempt)); 7] = [
        (
            "a task manager does not come back",
            |bench| {
                bench.register_with("b", 1, TaskStatus::Running);
                bench.advance(9_999);
                assert_eq!(bench.status(), Running);
                bench.advance(1);
            },
            (2, 1),
        ),
        (
            "a task has failed",
            |bench| {
                bench.register_with("a", 1, TaskStatus::Failed);
                bench.register_with("b", 1, TaskStatus::Running);
                bench.advance(200);
            },
            (2, 1),
        ),
        (
            "a task has failed, and the other task manager comes later",
            |bench| {
                bench.register_with("a", 1, TaskStatus::Failed);
                bench.fail_on("a");
                bench.advance(500);
                assert_eq!(bench.status(), Running, "the other one is waited for");
                bench.register_with("b", 1, TaskStatus::Running);
            },
            (2, 1),
        ),
        (
            "a task has failed, and the other task manager does not come",
            |bench| {
                bench.register_with("a", 1, TaskStatus::Failed);
                bench.advance(1_000);
                bench.register("b");
            },
            (2, 2),
        ),
        (
            "a worker was lost",
            |bench| {
                bench.register_with("a", 1, TaskStatus::Running);
                bench.report("a", 1, worker_lost("a", failure("signal 9")));
                bench.register_with("b", 1, TaskStatus::Running);
            },
            (2, 1),
        ),
        (
            "a task manager is gone again",
            |bench| {
                bench.register_with("a", 1, TaskStatus::Running);
                bench.lose("a");
                bench.register_with("b", 1, TaskStatus::Running);
            },
            (2, 1),
        ),
        (
            "a task manager is stopping",
            |bench| {
                bench.register_with("a", 1, TaskStatus::Running);
                bench.step(Input::Draining { task_manager: tm("a") });
                bench.register("b");
            },
            (2, 2),
        ),
    ];
    for (name, then, attempts) in table {
        let mut bench = Bench::two_regions().regions_of_new_leader();
        then(&mut bench);
        assert_eq!(bench.status(), Restarting, "{name}");
        let regions: BTreeSet<_> = bench.take_cancelled().into_values().flatten().collect();
        assert!(attempts == (2, 2) || regions.is_subset(&[0].into()), "{name}: {regions:?}");
        bench.recover();
        assert_eq!(bench.attempts(), attempts, "{name}");
        assert_eq!(bench.complete_checkpoint(), 1, "{name}");
    }
}
