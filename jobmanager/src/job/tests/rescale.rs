//! A running job goes to another parallelism, or back.

use super::*;

/// How many snapshots each subtask of `count` was deployed with.
fn deployed(bench: &mut Bench) -> BTreeMap<u32, usize> {
    deployed_of(1, bench)
}

fn deployed_of(vertex: u32, bench: &mut Bench) -> BTreeMap<u32, usize> {
    let mut snapshots = BTreeMap::new();
    for (_, message) in bench.take_sent() {
        if let Message::DeployTasks(deployment) = message {
            let counts = deployment.tasks.into_iter().filter(|(subtask, _)| subtask.vertex == vertex);
            snapshots.extend(counts.map(|(subtask, handles)| (subtask.index, handles.len())));
        }
    }
    snapshots
}

impl Bench {
    /// All tasks of the attempt stop, and those of the next one come up.
    fn restart(&mut self) {
        for name in ["a", "b"] {
            self.stop_tasks_on(name);
        }
        self.workers_ready();
    }
}

#[test]
fn a_job_goes_on_from_a_checkpoint_at_another_parallelism() {
    let mut bench = Bench::running();
    bench.rescale(4);
    assert_eq!(bench.take_kinds(), ["a:TriggerCheckpoint", "b:TriggerCheckpoint"], "at once");
    assert_eq!((bench.status(), bench.parallelism()), (JobStatus::Running, 2), "nothing has changed yet");
    bench.acknowledge_all(1);
    assert_eq!(
        bench.take_kinds(),
        ["a:CheckpointCompleted", "b:CheckpointCompleted", "a:CancelTasks", "b:CancelTasks"]
    );
    assert_eq!((bench.status(), bench.parallelism()), (JobStatus::Restarting, 4));
    assert_eq!(bench.record().reason, "rescaled to parallelism 4");
    let has_ended_so = |action: &Action| matches!(action, Action::Log(line) if line.ends_with("property: parallelism.default, 4"));
    assert!(bench.other.iter().any(has_ended_so), "queries read the number from the end of the line");
    bench.restart();
    assert_eq!(deployed(&mut bench), BTreeMap::from([(0, 1), (1, 1), (2, 1), (3, 1)]));
    assert_eq!((bench.attempt(), bench.record().restored), (2, Some(1)));
    assert_eq!(bench.rescale_told(), None);
    assert!(bench.record().layouts.previous.is_some(), "until it runs there is a way back");
    bench.all_tasks(TaskStatus::Running);
    assert_eq!((bench.status(), bench.rescale_told()), (JobStatus::Running, Some(&RescaleNews::Running)));
    assert_eq!(bench.record().layouts, OtherLayouts::default());
    assert!(bench.record().failures.is_empty() && bench.record().restarts.restarts == 0, "it is no failure");

    bench.other.clear();
    bench.rescale(1);
    bench.acknowledge_all(2);
    bench.restart();
    assert_eq!(deployed(&mut bench), BTreeMap::from([(0, 4)]));
    bench.all_tasks(TaskStatus::Running);
    assert_eq!((bench.parallelism(), bench.attempt(), bench.record().restored), (1, 3, Some(2)));
    // A failure behind it restores the same checkpoint at the present parallelism.
    bench.task("a", subtask(0, 0), TaskStatus::Failed);
    bench.restart();
    bench.advance(100);
    bench.workers_ready();
    assert_eq!(deployed(&mut bench), BTreeMap::from([(0, 4)]));
}

#[test]
fn a_source_with_splits_goes_along_and_every_subtask_is_handed_the_splits_of_all() {
    let mut bench = Bench::submitted(graph_with_splits(), &["a", "b"]);
    bench.workers_ready();
    bench.all_tasks(TaskStatus::Running);
    for (checkpoint, parallelism, handles) in [(1, 4, 2), (2, 1, 4), (3, 3, 1)] {
        bench.other.clear();
        bench.rescale(parallelism);
        bench.acknowledge_all(checkpoint);
        bench.restart();
        assert_eq!(bench.record().graph.vertices[0].parallelism, parallelism);
        let expected: BTreeMap<_, _> = (0..parallelism).map(|index| (index, handles)).collect();
        assert_eq!(deployed_of(0, &mut bench), expected);
        bench.all_tasks(TaskStatus::Running);
        assert_eq!((bench.status(), bench.parallelism()), (JobStatus::Running, parallelism));
    }
}

#[test]
fn what_cannot_be_is_refused_before_the_job_is_touched() {
    type Change = fn(&mut Bench);
    let table: [(&str, u32, Change, &str); 8] = [
        ("slots", 5, |_| (), "it would need 5 slots, and 4 can be had"),
        ("the same", 2, |_| (), "runs like that already"),
        (
            "not running",
            4,
            |bench| bench.task("a", subtask(0, 0), TaskStatus::Failed),
            "the job is RESTARTING",
        ),
        ("drained", 4, |bench| bench.all_tasks(TaskStatus::Drained), "about to finish"),
        ("source", 4, |bench| bench.graph.vertices[0].parallelism = 3, "`set_parallelism(2)`"),
        ("key groups", 4, |bench| bench.graph.vertices[1].max_parallelism = 64, "max parallelism 128"),
        (
            "savepoint",
            4,
            |bench| {
                let mode = thalweg_proto::model::SavepointMode::Continue;
                bench.step(Input::Savepoint { request: 7, directory: "/s".into(), mode });
            },
            "a savepoint of the job is being taken",
        ),
        (
            "no checkpoints",
            4,
            |bench| {
                let mut spec = JobSpec::clone(&bench.core.spec);
                Arc::make_mut(&mut spec.graph).checkpointing.interval_ms = None;
                bench.core.spec = Arc::new(spec);
            },
            "takes no checkpoints",
        ),
    ];
    for (name, parallelism, change, expected) in table {
        let mut bench = Bench::running();
        change(&mut bench);
        let before = bench.record().clone();
        bench.take_sent();
        bench.rescale(parallelism);
        let Some(RescaleNews::Failed(reason)) = bench.rescale_told() else { panic!("{name} is not refused") };
        assert!(reason.contains(expected), "{name}: {reason}");
        assert_eq!(bench.record(), &before, "{name}");
        assert_eq!(bench.take_kinds(), [""; 0], "{name}");
    }
    let mut bench = Bench::running();
    bench.rescale(4);
    let (layout, offers) = (bench.layout(3), bench.offers());
    bench.step(Input::Rescale { request: 10, layout, offers });
    let refused = |action: &Action| matches!(action, Action::Rescaled { request: 10, news: RescaleNews::Failed(reason) } if reason.contains("already"));
    assert!(bench.other.iter().any(refused));
    let mode = thalweg_proto::model::SavepointMode::Stop;
    bench.step(Input::Savepoint { request: 7, directory: "/s".into(), mode });
    let refused = |action: &Action| matches!(action, Action::Savepoint { request: 7, news: SavepointNews::Failed(reason) } if reason.contains("rescaled"));
    assert!(bench.other.iter().any(refused));
}

#[test]
fn a_checkpoint_that_fails_leaves_the_job_as_it_is() {
    let mut graph = checkpointed_graph();
    graph.checkpointing.tolerable_failures = 3;
    let mut bench = Bench::submitted(graph, &["a", "b"]);
    bench.workers_ready();
    bench.all_tasks(TaskStatus::Running);
    bench.rescale(4);
    bench.report(
        "a",
        1,
        News::Declined { checkpoint_id: 1, subtask: subtask(1, 0), failure: failure("disk full") },
    );
    let Some(RescaleNews::Failed(reason)) = bench.rescale_told() else { panic!("it has not failed") };
    assert!(reason.contains("keeps its parallelism") && reason.contains("disk full"), "{reason}");
    assert_eq!((bench.status(), bench.parallelism(), bench.attempt()), (JobStatus::Running, 2, 1));
    bench.advance(1_000);
    bench.acknowledge_all(2);
    assert_eq!(
        (bench.status(), bench.attempt()),
        (JobStatus::Running, 1),
        "later checkpoints are checkpoints"
    );

    let mut bench = Bench::running();
    bench.rescale(4);
    bench.task("a", subtask(0, 0), TaskStatus::Failed);
    assert!(matches!(bench.rescale_told(), Some(RescaleNews::Failed(_))));
    assert_eq!((bench.status(), bench.parallelism()), (JobStatus::Restarting, 2));
}

#[test]
fn a_checkpoint_that_was_in_progress_will_do() {
    let mut bench = Bench::running();
    bench.advance(1_000);
    bench.take_sent();
    bench.rescale(3);
    assert_eq!(bench.take_kinds(), [""; 0], "one at a time");
    bench.acknowledge_all(1);
    assert_eq!((bench.status(), bench.parallelism()), (JobStatus::Restarting, 3));
}

#[test]
fn a_job_goes_back_when_it_cannot_run_at_the_new_parallelism() {
    type Hinder = fn(&mut Bench);
    let table: [(&str, Hinder, &str); 3] = [
        (
            "slots",
            |bench| {
                bench.lose("b");
                bench.stop_tasks_on("a");
                bench.advance(10_000);
            },
            "no slots within 10000 ms",
        ),
        (
            "task",
            |bench| {
                bench.restart();
                bench.task("a", subtask(0, 0), TaskStatus::Failed);
                bench.restart();
            },
            "boom",
        ),
        (
            "worker",
            |bench| {
                bench.restart();
                bench.report("a", 2, worker_lost("a", failure("another plan").permanent()));
                bench.restart();
            },
            "another plan",
        ),
    ];
    for (name, hinder, expected) in table {
        let mut graph = checkpointed_graph();
        // Not even this costs the job its life.
        graph.restart_strategy = thalweg_common::config::RestartStrategy::None;
        let mut bench = Bench::submitted(graph, &["a", "b"]);
        bench.workers_ready();
        bench.all_tasks(TaskStatus::Running);
        bench.rescale(4);
        bench.acknowledge_all(1);
        assert_eq!(bench.parallelism(), 4);
        hinder(&mut bench);
        let Some(RescaleNews::Failed(reason)) = bench.rescale_told() else { panic!("{name}: nothing told") };
        assert!(reason.contains("old parallelism") && reason.contains(expected), "{name}: {reason}");
        assert_eq!((bench.parallelism(), bench.record().failures.len()), (2, 1), "{name}");
        bench.workers_ready();
        bench.all_tasks(TaskStatus::Running);
        assert_eq!((bench.status(), bench.record().restored), (JobStatus::Running, Some(1)), "{name}");
        assert_eq!(bench.record().layouts, OtherLayouts::default());
        // From now on it fails as ever.
        bench.task("a", subtask(0, 0), TaskStatus::Failed);
        assert_eq!(bench.status(), JobStatus::Failing, "{name}");
    }
}

#[test]
fn a_new_leader_goes_by_the_log() {
    // Not in the log yet: the job runs on as it was.
    let mut bench = Bench::running();
    bench.rescale(4);
    bench.hold_log = true;
    bench.acknowledge_all(1);
    let mut bench = bench.new_leader();
    bench.register_with("a", 1, TaskStatus::Running);
    bench.register_with("b", 1, TaskStatus::Running);
    assert_eq!((bench.status(), bench.parallelism(), bench.attempt()), (JobStatus::Running, 2, 1));

    // In the log: what still runs is stopped, and the next attempt has the new parallelism.
    let mut bench = Bench::running();
    bench.rescale(4);
    bench.acknowledge_all(1);
    let mut bench = bench.new_leader();
    bench.register_with("a", 1, TaskStatus::Running);
    bench.register_with("b", 1, TaskStatus::Running);
    assert_eq!(bench.take_kinds(), ["a:CancelTasks", "b:CancelTasks"]);
    bench.advance(1_000);
    bench.workers_ready();
    bench.all_tasks(TaskStatus::Running);
    assert_eq!((bench.status(), bench.parallelism(), bench.attempt()), (JobStatus::Running, 4, 2));

    // It also knows the way back.
    let mut bench = Bench::running();
    bench.rescale(4);
    bench.acknowledge_all(1);
    let mut bench = bench.new_leader();
    bench.register("a");
    bench.advance(1_000);
    assert!(bench.core.waits_for().contains("2 of 4 slots"), "{}", bench.core.waits_for());
    bench.advance(10_000);
    assert_eq!((bench.parallelism(), bench.attempt()), (2, 2));
}

#[test]
fn a_job_that_is_cancelled_meanwhile_ends() {
    for acknowledged in [false, true] {
        let mut bench = Bench::running();
        bench.rescale(4);
        if acknowledged {
            bench.acknowledge_all(1);
        }
        bench.step(Input::Cancel);
        bench.stop_tasks_on("a");
        bench.stop_tasks_on("b");
        assert_eq!(bench.status(), JobStatus::Canceled);
        assert!(matches!(bench.rescale_told(), Some(RescaleNews::Failed(_))));
    }
}
