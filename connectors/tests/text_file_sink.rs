//! The text file sink shows each record exactly once, and only when its checkpoint is complete.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use support::{context, names};
use thalweg_common::failure::Failure;
use thalweg_connectors::files::{PendingPart, TextFileSink};
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operator::{OpenContext, Sink};

/// One execution attempt of a subtask's sink, with what the runtime remembers of it.
struct Attempt {
    sink: TextFileSink,
    prepared: Vec<(u64, PendingPart)>,
}

impl Attempt {
    fn start(directory: &Path, attempt: u32, restored: Option<&[PendingPart]>) -> Self {
        Self::try_start(directory, attempt, restored).unwrap()
    }

    fn try_start(directory: &Path, attempt: u32, restored: Option<&[PendingPart]>) -> Result<Self, Failure> {
        let context = OpenContext { attempt, ..context(0, 1) };
        Self::of_subtask(directory, &context, restored.unwrap_or_default())
    }

    fn of_subtask(
        directory: &Path,
        context: &OpenContext,
        restored: &[PendingPart],
    ) -> Result<Self, Failure> {
        let mut sink = TextFileSink::directory(directory).clone();
        Sink::<String>::open(&mut sink, context)?;
        Sink::<String>::recover(&mut sink, restored)?;
        Sink::<String>::commit(&mut sink, restored)?;
        Ok(Self { sink, prepared: Vec::new() })
    }

    fn write(&mut self, record: &str) {
        self.sink.write(&mut Batch::from(vec![record.to_string()])).unwrap();
    }

    fn prepare(&mut self, checkpoint: u64) -> Vec<PendingPart> {
        let prepared = Sink::<String>::prepare(&mut self.sink, checkpoint).unwrap();
        self.prepared.extend(prepared.into_iter().map(|part| (checkpoint, part)));
        self.prepared.iter().map(|(_, part)| part.clone()).collect()
    }

    fn commit(&mut self, checkpoint: u64) {
        self.try_commit(checkpoint).unwrap();
    }

    fn try_commit(&mut self, checkpoint: u64) -> Result<(), Failure> {
        let due = self.prepared.iter().filter(|(prepared, _)| *prepared <= checkpoint);
        let due: Vec<PendingPart> = due.map(|(_, part)| part.clone()).collect();
        Sink::<String>::commit(&mut self.sink, &due)?;
        Sink::<String>::commit(&mut self.sink, &due)?;
        self.prepared.retain(|(prepared, _)| *prepared > checkpoint);
        Ok(())
    }

    fn abort(&mut self, checkpoint: u64) {
        Sink::<String>::abort(&mut self.sink, checkpoint).unwrap();
    }

    /// The process is killed: nothing is tidied up.
    fn kill(self) {
        std::mem::forget(self.sink);
    }
}

/// All visible lines, in the order of the parts' checkpoints.
fn visible(directory: &Path) -> Vec<String> {
    let mut parts: Vec<(u64, String)> = names(directory)
        .into_iter()
        .filter(|name| !name.starts_with('.'))
        .map(|name| (name.split('-').nth(2).unwrap().parse().unwrap(), name))
        .collect();
    parts.sort();
    let read = |(_, name): (u64, String)| fs::read_to_string(directory.join(name)).unwrap();
    parts.into_iter().map(read).collect::<String>().lines().map(str::to_string).collect()
}

fn hidden(directory: &Path) -> Vec<String> {
    names(directory).into_iter().filter(|name| name.starts_with('.')).collect()
}

#[test]
fn output_is_visible_when_its_checkpoint_is_complete_and_not_before() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = Attempt::start(directory.path(), 1, None);
    sink.write("a");
    sink.write("b");
    assert_eq!(visible(directory.path()), [""; 0]);
    sink.prepare(1);
    sink.write("c");
    assert_eq!(visible(directory.path()), [""; 0]);
    sink.commit(1);
    assert_eq!(names(directory.path()).len(), 2, "the committed part and the open one");
    assert_eq!(fs::read_to_string(directory.path().join("part-0-1-00000000")).unwrap(), "a\nb\n");
    sink.prepare(2);
    sink.commit(2);
    sink.commit(2);
    assert_eq!(names(directory.path()), ["part-0-1-00000000", "part-0-2-00000000"]);
    assert_eq!(visible(directory.path()), ["a", "b", "c"]);
}

#[test]
fn without_records_there_are_no_files() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = Attempt::start(directory.path(), 1, None);
    for checkpoint in 1..4 {
        sink.sink.write(&mut Batch::<String>::default()).unwrap();
        sink.prepare(checkpoint);
        sink.commit(checkpoint);
    }
    assert_eq!(names(directory.path()), [""; 0]);
}

#[test]
fn an_aborted_checkpoint_s_output_comes_with_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = Attempt::start(directory.path(), 1, None);
    sink.write("a");
    sink.prepare(1);
    sink.abort(1);
    sink.write("b");
    sink.prepare(2);
    assert_eq!(visible(directory.path()), [""; 0]);
    sink.commit(2);
    assert_eq!(visible(directory.path()), ["a", "b"]);
}

#[test]
fn the_news_of_a_completed_checkpoint_may_come_after_the_next_barrier() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = Attempt::start(directory.path(), 1, None);
    sink.write("a");
    sink.prepare(1);
    sink.write("b");
    sink.prepare(2);
    sink.commit(1);
    assert_eq!(visible(directory.path()), ["a"]);
    sink.commit(2);
    assert_eq!(visible(directory.path()), ["a", "b"]);
}

#[test]
fn recovery_commits_what_the_checkpoint_names_and_removes_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = Attempt::start(directory.path(), 1, None);
    sink.write("a");
    let snapshot = sink.prepare(1);
    sink.write("b");
    sink.prepare(2);
    sink.write("c");
    sink.kill();
    assert_eq!(hidden(directory.path()).len(), 3);

    // Checkpoint 1 was complete, 2 was not: b and c will be written again.
    let sink = Attempt::start(directory.path(), 2, Some(&snapshot));
    assert_eq!(visible(directory.path()), ["a"]);
    assert_eq!(hidden(directory.path()), [""; 0]);
    sink.kill();
    // Recovery itself may fail and be repeated.
    let mut sink = Attempt::start(directory.path(), 3, Some(&snapshot));
    sink.write("b");
    sink.prepare(3);
    sink.commit(3);
    assert_eq!(visible(directory.path()), ["a", "b"]);
}

#[test]
fn with_another_parallelism_each_left_over_is_removed_and_each_prepared_part_is_kept_by_whoever_commits_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut prepared = Vec::new();
    for subtask in 0..3 {
        let mut sink = Attempt::of_subtask(directory.path(), &context(subtask, 3), &[]).unwrap();
        sink.write(&subtask.to_string());
        prepared.push(sink.prepare(1));
        sink.write("lost");
        sink.prepare(2);
        sink.write("lost");
        sink.kill();
    }
    let recovered = |subtask: u32, restored: &[PendingPart]| {
        let context = OpenContext { attempt: 2, ..context(subtask, 2) };
        Attempt::of_subtask(directory.path(), &context, restored).unwrap();
    };
    recovered(1, &prepared[1]);
    assert_eq!(visible(directory.path()), ["1"]);
    assert_eq!(hidden(directory.path()).len(), 6, "those of the others are not touched");
    recovered(0, &[&prepared[0][..], &prepared[2]].concat());
    assert_eq!(visible(directory.path()), ["0", "1", "2"]);
    assert_eq!(hidden(directory.path()), [""; 0]);
}

#[test]
fn a_task_that_ends_takes_its_open_part_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = Attempt::start(directory.path(), 1, None);
    sink.write("a");
    drop(sink);
    assert_eq!(names(directory.path()), [""; 0]);
}

#[test]
fn a_new_job_never_touches_the_output_of_an_older_one() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("part-0-1-000000ff"), "old\n").unwrap();
    fs::write(directory.path().join("notes.txt"), "x").unwrap();
    let foreign = ".part-0-5.pending.000000000000000000000000000000ff.1";
    fs::write(directory.path().join(foreign), "not ours\n").unwrap();
    let mut sink = Attempt::start(directory.path(), 2, None);
    sink.write("new");
    sink.prepare(1);
    sink.commit(1);
    assert_eq!(names(directory.path()), [foreign, "notes.txt", "part-0-1-00000000", "part-0-1-000000ff"]);
}

#[test]
fn a_part_that_is_there_already_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = Attempt::start(directory.path(), 1, None);
    sink.write("a");
    sink.prepare(1);
    fs::write(directory.path().join("part-0-1-00000000"), "other\n").unwrap();
    let failure = sink.try_commit(1).unwrap_err();
    assert!(failure.message.contains("give each job a directory of its own"), "{failure}");
    assert_eq!(visible(directory.path()), ["other"]);
}

#[test]
fn lost_output_is_a_failure_and_not_silence() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = Attempt::start(directory.path(), 1, None);
    sink.write("a");
    let snapshot = sink.prepare(1);
    let pending = hidden(directory.path()).remove(0);
    fs::write(directory.path().join(&pending), "").unwrap();
    sink.kill();
    let failure = Attempt::try_start(directory.path(), 2, Some(&snapshot)).map(|_| ()).unwrap_err();
    assert!(failure.message.contains("should have 2 bytes but has 0"), "{failure}");
    fs::remove_file(directory.path().join(&pending)).unwrap();
    let failure = Attempt::try_start(directory.path(), 2, Some(&snapshot)).map(|_| ()).unwrap_err();
    assert!(failure.message.contains("should have 2 bytes but is gone"), "{failure}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "x").unwrap();
    let failure = Attempt::try_start(&directory.path().join("file/below"), 1, None).map(|_| ()).unwrap_err();
    assert!(failure.message.contains("cannot create") && failure.message.contains("file/below"), "{failure}");
}

/// What happens to a job, step by step.
#[derive(Debug, Clone)]
enum Step {
    Write,
    /// A barrier passes; its checkpoint completes, is aborted, or stays open.
    Checkpoint(End),
    /// The process dies, before or after it heard that the last checkpoint is complete, and the job is restored.
    Crash,
}

#[derive(Debug, Clone)]
enum End {
    /// Complete in the log, and the sink is told.
    Told,
    /// Complete in the log, and the sink is not told (it dies before).
    NotTold,
    Aborted,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Write),
        2 => prop_oneof![Just(End::Told), Just(End::NotTold), Just(End::Aborted)].prop_map(Step::Checkpoint),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #[test]
    fn every_record_is_visible_exactly_once_whatever_happens(steps in proptest::collection::vec(any_step(), 0..40)) {
        let directory = tempfile::tempdir().unwrap();
        let mut attempt = 1;
        let mut sink = Attempt::start(directory.path(), attempt, None);
        // The source: the next record, and where the last completed checkpoint says to go on.
        let (mut next, mut restart_at) = (0u32, 0u32);
        let mut completed: Option<Vec<PendingPart>> = None;
        let mut checkpoint = 0;
        for step in steps.into_iter().chain([Step::Checkpoint(End::Told)]) {
            match step {
                Step::Write => {
                    sink.write(&next.to_string());
                    next += 1;
                }
                Step::Checkpoint(end) => {
                    checkpoint += 1;
                    let snapshot = sink.prepare(checkpoint);
                    match end {
                        End::Aborted => sink.abort(checkpoint),
                        End::Told => sink.commit(checkpoint),
                        End::NotTold => {}
                    }
                    if !matches!(end, End::Aborted) {
                        (completed, restart_at) = (Some(snapshot), next);
                    }
                }
                Step::Crash => {
                    sink.kill();
                    attempt += 1;
                    sink = Attempt::start(directory.path(), attempt, completed.as_deref());
                    next = restart_at;
                }
            }
            let lines = visible(directory.path());
            let expected: Vec<String> = (0..lines.len()).map(|number| number.to_string()).collect();
            prop_assert!(lines.len() as u32 <= restart_at, "only completed checkpoints are visible");
            prop_assert_eq!(lines, expected);
        }
        prop_assert_eq!(visible(directory.path()).len() as u32, next);
        prop_assert_eq!(hidden(directory.path()), [""; 0]);
    }
}
