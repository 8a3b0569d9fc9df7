//! Checkpoints that somebody asks for.

use super::checkpoints::deleted;
use super::*;

impl Bench {
    fn request(&mut self, request: u64) {
        self.step(Input::Checkpoint { request });
    }

    /// What the one who asked was told in the end.
    fn request_told(&self, wanted: u64) -> Option<&CheckpointNews> {
        let mut told = self.other.iter().filter_map(|action| match action {
            Action::Requested { request, news } if *request == wanted => Some(news),
            _ => None,
        });
        let first = told.next();
        assert!(told.next().is_none(), "one last answer");
        first
    }

    fn request_refused(&self, wanted: u64) -> &str {
        let told = self.request_told(wanted);
        let Some(CheckpointNews::Failed(reason)) = told else { panic!("{wanted}: {told:?}") };
        reason
    }
}

#[test]
fn a_checkpoint_that_was_asked_for_begins_at_once_and_the_next_by_the_interval() {
    let mut bench = Bench::running();
    bench.advance(300);
    bench.request(7);
    assert_eq!(bench.take_kinds(), ["a:TriggerCheckpoint", "b:TriggerCheckpoint"]);
    bench.hold_log = true;
    bench.acknowledge_all(1);
    assert_eq!(bench.request_told(7), None, "before the log has it");
    bench.hold_log = false;
    bench.apply_log();
    assert_eq!(bench.request_told(7), Some(&CheckpointNews::Completed(1)));
    assert_eq!(bench.take_kinds(), ["a:CheckpointCompleted", "b:CheckpointCompleted"]);
    bench.advance(999);
    assert_eq!(bench.take_kinds(), [""; 0]);
    bench.advance(1);
    assert_eq!(bench.take_kinds(), ["a:TriggerCheckpoint", "b:TriggerCheckpoint"]);
    bench.acknowledge_all(2);
    assert_eq!(deleted(&bench), [1], "it was one like any other");
}

#[test]
fn one_that_was_under_way_already_is_not_the_one_that_was_asked_for() {
    let mut bench = Bench::running();
    bench.advance(1_000);
    bench.request(7);
    bench.acknowledge_all(1);
    assert_eq!(bench.request_told(7), None);
    bench.acknowledge_all(2);
    assert_eq!(bench.request_told(7), Some(&CheckpointNews::Completed(2)));
}

#[test]
fn one_that_cannot_be_taken_is_refused_and_changes_nothing() {
    type Change = fn(&mut Bench);
    let table: [(&str, Change, &str); 5] = [
        ("not running", |bench| bench.task("a", subtask(0, 0), TaskStatus::Failed), "the job is RESTARTING"),
        ("twice", |bench| bench.request(1), "taken already"),
        (
            "savepoint",
            |bench| {
                let mode = thalweg_proto::model::SavepointMode::Continue;
                bench.step(Input::Savepoint { request: 1, directory: "/s".into(), mode });
            },
            "a savepoint of the job is being taken",
        ),
        ("rescaling", |bench| bench.rescale(4), "being rescaled"),
        (
            "no checkpoints",
            |bench| {
                let mut spec = JobSpec::clone(&bench.core.spec);
                Arc::make_mut(&mut spec.graph).checkpointing.interval_ms = None;
                bench.core.spec = Arc::new(spec);
            },
            "takes no checkpoints",
        ),
    ];
    for (name, change, expected) in table {
        let mut bench = Bench::running();
        if name == "rescaling" {
            bench.registered.extend([tm("c"), tm("d")]);
        }
        change(&mut bench);
        let before = bench.record().clone();
        bench.take_sent();
        bench.request(7);
        assert!(bench.request_refused(7).contains(expected), "{name}: {}", bench.request_refused(7));
        assert_eq!((bench.take_kinds(), bench.record()), (vec![], &before), "{name}");
    }
}

#[test]
fn whoever_asked_hears_why_it_failed() {
    let mut bench = Bench::running();
    bench.request(7);
    let declined = News::Declined { checkpoint_id: 1, subtask: subtask(1, 1), failure: failure("disk full") };
    bench.report("b", 1, declined);
    assert!(bench.request_refused(7).contains("disk full"), "{}", bench.request_refused(7));

    let mut bench = Bench::running();
    bench.request(7);
    bench.task("a", subtask(0, 0), TaskStatus::Failed);
    assert!(bench.request_refused(7).contains("meanwhile"), "{}", bench.request_refused(7));
}

#[test]
fn one_in_the_hands_of_the_log_is_decided_there_whatever_becomes_of_the_job() {
    let mut bench = Bench::running();
    bench.request(7);
    bench.hold_log = true;
    bench.acknowledge_all(1);
    bench.step(Input::Cancel);
    assert_eq!(bench.request_told(7), None);
    bench.hold_log = false;
    bench.apply_log();
    assert_eq!(bench.request_told(7), Some(&CheckpointNews::Completed(1)));
}

#[test]
fn the_last_of_a_job_is_the_one_that_was_asked_for_when_its_input_ends_first() {
    let mut bench = Bench::running();
    bench.advance(1_000);
    bench.request(7);
    bench.all_tasks(TaskStatus::Drained);
    bench.acknowledge_all(1);
    assert_eq!(bench.request_told(7), None);
    bench.acknowledge_all(2);
    assert!(bench.record().latest_checkpoint().unwrap().is_final);
    assert_eq!(bench.request_told(7), Some(&CheckpointNews::Completed(2)));
    bench.request(8);
    assert!(bench.request_refused(8).contains("about to finish"), "{}", bench.request_refused(8));
}
