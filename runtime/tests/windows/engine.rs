//! The engine under test: subtasks of the real operator, each in a harness, which are snapshotted, killed and rescaled.

use std::sync::Arc;

use thalweg_common::clock::ManualClock;
use thalweg_common::key_group::{key_group, key_hash, subtask_of};
use thalweg_runtime::batch::Batch;
use thalweg_runtime::snapshot::OperatorSnapshot;
use thalweg_runtime::testing::{OperatorHarness, Setup};

use crate::operator::{In, LATE, Out, factory, from_wire, to_wire};
use crate::script::{Event, Record, Shape, Shown, Spec, Step};

const MAX_PARALLELISM: u32 = 128;

/// A snapshot of all subtasks, and the step behind which it was taken.
struct Taken {
    step: usize,
    snapshots: Vec<OperatorSnapshot>,
    watermark: i64,
    clock: i64,
}

struct Engine<'a> {
    spec: &'a Spec,
    subtasks: Vec<OperatorHarness<In, Out>>,
    watermark: i64,
    clock: i64,
    checkpoint: u64,
    /// What came out of subtasks that are gone.
    taken: (Vec<Event>, u64),
}

/// Runs the steps against the operator, and compares what comes of each with what is expected.
pub fn check(spec: &Spec, steps: &[Step], expected: &[Vec<Event>]) -> Result<(), String> {
    let mut engine = Engine {
        spec,
        subtasks: Vec::new(),
        watermark: i64::MIN,
        clock: 0,
        checkpoint: 0,
        taken: Default::default(),
    };
    engine.open(1, &[]);
    let mut taken = Taken { step: 0, snapshots: Vec::new(), watermark: i64::MIN, clock: 0 };
    let mut kills = 0;
    let mut step = 0;
    while step < steps.len() {
        let parallelism = engine.subtasks.len();
        match steps[step] {
            Step::Record(record) => engine.push(record),
            Step::Watermark(at) => engine.watermark(at),
            Step::Clock(at) => engine.clock(at),
            Step::Checkpoint => taken = engine.snapshot(step + 1),
            Step::Rescale(subtasks) => {
                taken = engine.snapshot(step + 1);
                let before = engine.take();
                engine.restore(subtasks, &taken);
                engine.taken = before;
            }
            Step::Kill if kills > step => {}
            Step::Kill => {
                // What comes behind the snapshot is read again.
                kills = step + 1;
                engine.restore(parallelism as u32, &taken);
                step = taken.step;
                continue;
            }
        }
        let late: u64 = expected[step].iter().filter(|event| matches!(event, Event::Late(_))).count() as u64;
        let mut wanted = expected[step].clone();
        if !spec.has_late_output {
            wanted.retain(|event| !matches!(event, Event::Late(_)));
        }
        wanted.sort();
        let (found, dropped) = engine.take();
        if found != wanted || (!spec.has_late_output && dropped != late) {
            let what = steps[step];
            return Err(format!(
                "step {step}, {what:?}: expected {wanted:?} and {late} late, found {found:?} and {dropped} dropped"
            ));
        }
        step += 1;
    }
    Ok(())
}

impl Engine<'_> {
    fn open(&mut self, parallelism: u32, restored: &[OperatorSnapshot]) {
        let open = |index: u32| {
            let mut setup = Setup { clock: Arc::new(ManualClock::new(0)), ..Setup::default() }
                .subtask(index, parallelism);
            setup.max_parallelism = MAX_PARALLELISM;
            setup.restored = restored.to_vec();
            OperatorHarness::open(factory(self.spec).as_ref(), setup).unwrap()
        };
        self.subtasks = (0..parallelism).map(open).collect();
    }

    fn push(&mut self, record: Record) {
        let group = key_group(key_hash(&record.key, &mut Vec::new()), MAX_PARALLELISM);
        let subtask = subtask_of(group, self.subtasks.len() as u32, MAX_PARALLELISM);
        let batch = Batch::from_parts(vec![to_wire(record)], vec![record.at]);
        self.subtasks[subtask as usize].push_batch(batch).unwrap();
    }

    fn watermark(&mut self, at: i64) {
        if at <= self.watermark {
            return;
        }
        self.watermark = at;
        self.subtasks.iter_mut().for_each(|subtask| subtask.watermark(at).unwrap());
    }

    fn clock(&mut self, at: i64) {
        self.clock = at;
        self.subtasks.iter_mut().for_each(|subtask| subtask.processing_time(at).unwrap());
    }

    fn snapshot(&mut self, step: usize) -> Taken {
        self.checkpoint += 1;
        let checkpoint = self.checkpoint;
        for subtask in &mut self.subtasks {
            if self.watermark > i64::MIN {
                subtask.watermark(self.watermark).unwrap();
            }
            subtask.fire().unwrap();
        }
        let snapshots =
            self.subtasks.iter_mut().map(|subtask| subtask.barrier(checkpoint).unwrap()).collect();
        Taken { step, snapshots, watermark: self.watermark, clock: self.clock }
    }

    /// Goes on from a snapshot; the watermark comes again before anything else, as it does behind sources that go on.
    fn restore(&mut self, parallelism: u32, taken: &Taken) {
        self.open(parallelism, &taken.snapshots);
        (self.watermark, self.clock) = (taken.watermark, taken.clock);
        for subtask in &mut self.subtasks {
            subtask.processing_time(taken.clock).unwrap();
            if taken.watermark > i64::MIN {
                subtask.watermark(taken.watermark).unwrap();
            }
        }
        let (events, _) = self.take();
        assert!(events.is_empty(), "behind the restore, with nothing new: {events:?}");
    }

    /// What has come out since the last call, sorted, and how many records were dropped.
    fn take(&mut self) -> (Vec<Event>, u64) {
        let (mut events, mut dropped) = std::mem::take(&mut self.taken);
        for subtask in &mut self.subtasks {
            let mut output = subtask.output_batch();
            for ((key, window, ids, count, sum), at) in output.drain_with_timestamps() {
                let shown = match self.spec.shape {
                    Shape::Summed => Shown::Sum(count, sum),
                    Shape::Collected | Shape::Elements => Shown::Ids(ids),
                };
                events.push(Event::Fired(key, window.start, window.end, shown, at.unwrap()));
            }
            let late = subtask.side_output(&LATE).into_parts().0;
            events.extend(late.into_iter().map(|record| Event::Late(from_wire(record))));
            dropped += subtask.take_late_records();
        }
        events.sort();
        (events, dropped)
    }
}
