//! Savepoints of a job, and jobs that begin with one.

use thalweg_proto::model::SavepointMode;
use thalweg_savepoint::DataFile;

use super::*;
use crate::cluster::{Base, BaseKind};

fn part() -> SnapshotHandle {
    let location = SnapshotLocation::DataFiles(DataFile::encode_list(&[]).unwrap());
    SnapshotHandle { location, size_bytes: 0, checksum: 0, shared: vec![] }
}

impl Bench {
    fn ask(&mut self, mode: SavepointMode) {
        self.step(Input::Savepoint { request: 7, directory: "/s".into(), mode });
    }

    /// What the one who asked was told in the end.
    fn told(&self) -> Option<&SavepointNews> {
        let mut told = self.other.iter().filter_map(|action| match action {
            Action::Savepoint { request: 7, news } if !matches!(news, SavepointNews::Progress { .. }) => {
                Some(news)
            }
            _ => None,
        });
        let first = told.next();
        assert!(told.next().is_none(), "one last answer");
        first
    }

    fn path(&self) -> String {
        format!("/s/{}", thalweg_savepoint::directory_name(JOB, self.record().last_checkpoint_id))
    }
}

#[test]
fn an_intermediate_savepoint_goes_into_the_log_and_commits_nothing() {
    let mut bench = Bench::running();
    bench.ask(SavepointMode::Continue);
    assert_eq!(
        bench.take_kinds(),
        ["a:TriggerSavepoint", "b:TriggerSavepoint"],
        "all workers learn the directory"
    );
    bench.acknowledge_with(1, &part());
    assert_eq!(bench.take_kinds(), Vec::<String>::new());
    let Some(SavepointNews::Completed(savepoint)) = bench.told() else { panic!("{:?}", bench.told()) };
    assert_eq!((savepoint.id, savepoint.path.clone()), (1, Some(bench.path())));
    assert_eq!(bench.record().savepoints.len(), 1);
    assert!(
        bench.record().checkpoints.is_empty() && bench.record().base.is_none(),
        "it replaces no checkpoint"
    );
}

#[test]
fn a_stop_commits_and_finishes_and_a_failure_goes_back_to_its_savepoint() {
    let mut bench = Bench::running();
    bench.ask(SavepointMode::Stop);
    bench.acknowledge_with(1, &part());
    assert!(bench.take_kinds().contains(&"a:CheckpointCompleted".to_string()));
    let mut failed = Bench::on(bench.state.clone(), Origin::Adopted, &[], bench.now_ms);
    bench.all_tasks(TaskStatus::Finished);
    assert_eq!(bench.status(), JobStatus::Finished);

    failed.register_with("a", 1, TaskStatus::Running);
    failed.register_with("b", 1, TaskStatus::Finished);
    assert_eq!(failed.status(), JobStatus::Running);
    let completed = failed.take_kinds();
    assert!(
        completed.contains(&"a:CheckpointCompleted".to_string()),
        "a new leader tells it again: {completed:?}"
    );
    assert_eq!(failed.core.candidates().front(), Some(&1));
    assert_eq!(failed.record().base.as_ref().map(|base| base.path.clone()), Some(failed.path()));
}

#[test]
fn a_drain_ends_the_sources_first() {
    let mut bench = Bench::running();
    bench.ask(SavepointMode::Drain);
    assert_eq!(bench.take_kinds(), ["a:EndInput", "b:EndInput"]);
    bench.all_tasks(TaskStatus::Drained);
    assert_eq!(bench.take_kinds(), ["a:TriggerSavepoint", "b:TriggerSavepoint"]);
    bench.acknowledge_with(1, &part());
    bench.all_tasks(TaskStatus::Finished);
    assert_eq!(bench.status(), JobStatus::Finished);
    assert!(bench.record().savepoints[0].is_final);
}

#[test]
fn what_cannot_be_taken_is_told_and_leaves_nothing() {
    let mut bench = Bench::submitted(checkpointed_graph(), &[]);
    bench.ask(SavepointMode::Continue);
    let Some(SavepointNews::Failed(reason)) = bench.told() else { panic!("{:?}", bench.told()) };
    assert!(reason.contains("the job is CREATED"), "{reason}");

    let mut bench = Bench::running();
    bench.ask(SavepointMode::Continue);
    bench.step(Input::Savepoint { request: 8, directory: "/s".into(), mode: SavepointMode::Stop });
    let refused = |action: &Action| matches!(action, Action::Savepoint { request: 8, news: SavepointNews::Failed(reason) } if reason.contains("already"));
    assert!(bench.other.iter().any(refused));
    bench.task("a", subtask(0, 0), TaskStatus::Failed);
    assert!(matches!(bench.told(), Some(SavepointNews::Failed(_))));
    assert!(bench.other.contains(&Action::DeleteSavepoint(bench.path())));
}

fn base(kind: BaseKind, path: &str, is_claimed: bool) -> Base {
    Base { id: 40, path: path.into(), kind, allow_non_restored_state: false, is_claimed }
}

/// A checkpoint of another job at parallelism 2.
fn foreign() -> CheckpointMetadata {
    let graph = checkpointed_graph();
    CheckpointMetadata {
        job_id: JobId(77),
        checkpoint_id: 40,
        attempt: 3,
        is_final: false,
        shape: crate::checkpoint::Shape::of(&graph),
        in_flight_bytes: 0,
        triggered_ms: 5,
        snapshots: graph.subtasks().map(|subtask| (subtask, snapshot())).collect(),
        manifest: thalweg_common::manifest::StateManifest::of(&graph),
    }
}

#[test]
fn a_job_begins_with_the_checkpoint_of_another_one_and_deletes_only_what_it_claimed() {
    for (is_claimed, parallelism) in [(true, 2), (false, 4)] {
        let base = base(BaseKind::Checkpoint, "/checkpoints/4d/chk-40", is_claimed);
        let mut state = ClusterState::default();
        let job = submission(1, at(&checkpointed_graph(), &[2, parallelism]));
        state.apply(Command::SubmitJob(crate::cluster::SubmitJob { base: Some(base.clone()), ..job }));
        let files = BTreeMap::from([(40, Arc::new(foreign()))]);
        let mut bench = Bench::with(state, Origin::Submitted, &["a", "b"], 0, files, PATIENCE);
        bench.workers_ready();
        let mut deployed = BTreeMap::new();
        for (_, message) in bench.take_sent() {
            let Message::DeployTasks(deployment) = message else { continue };
            assert_eq!(deployment.base.as_ref(), Some(&base));
            deployed.extend(deployment.tasks);
        }
        assert_eq!(deployed.len() as u32, 2 + parallelism);
        assert!(
            deployed.values().all(|snapshots| *snapshots == [snapshot()]),
            "each its own, or that of its groups"
        );
        bench.all_tasks(TaskStatus::Running);
        assert_eq!(bench.record().reason, "restored from checkpoint /checkpoints/4d/chk-40");
        let keeps = bench.core.spec.graph.checkpointing.keeps() as u64;
        for checkpoint_id in 41..41 + keeps {
            bench.advance(1_000_000);
            bench.acknowledge_all(checkpoint_id);
        }
        assert!(bench.record().base.is_none() && bench.core.base.is_none());
        let of_others = |action: &&Action| {
            matches!(
                action,
                Action::DeleteForeign(_) | Action::DeleteSavepoint(_) | Action::DeleteCheckpoint(40)
            )
        };
        let deleted: Vec<_> = bench.other.iter().filter(of_others).cloned().collect();
        assert_eq!(deleted, if is_claimed { vec![Action::DeleteForeign(base)] } else { vec![] });
    }
}

#[test]
fn a_checkpoint_of_another_job_that_is_gone_fails_the_job_and_says_so() {
    let base = base(BaseKind::Checkpoint, "/checkpoints/4d/chk-40", false);
    let mut state = ClusterState::default();
    let job = submission(1, checkpointed_graph());
    state.apply(Command::SubmitJob(crate::cluster::SubmitJob { base: Some(base), ..job }));
    let bench = Bench::on(state, Origin::Submitted, &["a", "b"], 0);
    let failure = bench.record().failures.back().unwrap().failure.message.clone();
    assert!(failure.contains("checkpoint 40: no such file"), "{failure}");
}

#[test]
fn a_job_begins_with_a_savepoint_until_enough_checkpoints_have_replaced_it() {
    let base = |is_claimed| base(BaseKind::Savepoint, "/s/x", is_claimed);
    for is_claimed in [true, false] {
        let mut state = ClusterState::default();
        let job = submission(1, checkpointed_graph());
        state.apply(Command::SubmitJob(crate::cluster::SubmitJob { base: Some(base(is_claimed)), ..job }));
        let mut bench = Bench::on(state, Origin::Submitted, &["a", "b"], 0);
        bench.workers_ready();
        let deployed = |(_, message): &(String, Message)| match message {
            Message::DeployTasks(deployment) => deployment.base.clone(),
            _ => None,
        };
        assert_eq!(bench.take_sent().iter().find_map(deployed), Some(base(is_claimed)));
        bench.all_tasks(TaskStatus::Running);
        assert_eq!(bench.record().reason, "restored from savepoint /s/x");
        let keeps = bench.core.spec.graph.checkpointing.keeps() as u64;
        for checkpoint_id in 41..41 + keeps {
            assert!(bench.record().base.is_some());
            bench.advance(1_000_000);
            bench.acknowledge_all(checkpoint_id);
        }
        assert!(bench.record().base.is_none() && bench.core.base.is_none());
        assert_eq!(bench.other.contains(&Action::DeleteSavepoint("/s/x".into())), is_claimed);
    }
}
