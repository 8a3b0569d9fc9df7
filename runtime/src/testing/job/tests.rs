//! What the tasks of a job that is driven by hand do with their time.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use thalweg_common::clock::ManualClock;
use thalweg_common::graph::{Edge, JobGraph, Partitioning, Vertex};
use thalweg_common::record::Record as _;

use super::*;
use crate::batch::Batch;
use crate::fixtures::{self, Pair, operator};
use crate::operator::{Sink, SinkContext};
use crate::operators;
use crate::program::{EdgeCode, Node, OperatorFactory, Program};
use crate::testing::{Gathered, Script};
use crate::time::MAX_WATERMARK;

/// The clock of the job, once it runs.
type Clock = Arc<OnceLock<Arc<ManualClock>>>;

/// An operator that takes so long for each record, and makes so many of it.
fn slow(clock: &Clock, cost: Duration, copies: usize) -> Arc<dyn OperatorFactory> {
    let clock = Arc::clone(clock);
    operators::flat_map(move |pair: Pair| {
        clock.get().unwrap().advance(cost);
        std::iter::repeat_n(pair, copies)
    })
}

/// A -> B -> C -> D, each in a task and a slot of its own.
fn chain(script: &Script<Pair>, gathered: &Gathered<Pair>, clock: &Clock) -> Program {
    let first = slow(clock, Duration::from_micros(1), 2);
    let mut program = fixtures::program(script.source(), first.clone(), gathered.sink(), 1);
    let vertex = |name: &str, node| Vertex {
        name: name.into(),
        slot_sharing_group: name.into(),
        operators: vec![operator(node, name, &[])],
        ..program.graph.vertices[0].clone()
    };
    let edge = |source| Edge {
        source,
        source_operator: 0,
        tag: None,
        target: source + 1,
        partitioning: Partitioning::Rebalance,
        schema_fingerprint: Pair::schema().fingerprint(),
    };
    program.graph = JobGraph {
        vertices: vec![vertex("A", 0), vertex("B", 1), vertex("C", 3), vertex("D", 2)],
        edges: (0..3).map(edge).collect(),
        ..program.graph
    };
    program.nodes.push(Node::operator::<Pair>(slow(clock, Duration::from_millis(1), 1)));
    // What makes batches smaller where tasks are slow would count the time of others: here all have one clock, and one thread.
    program.exchange.debloat_target = None;
    program.edges = (0..3).map(|_| EdgeCode::rebalance::<Pair>()).collect();
    program
}

#[test]
fn acceptance_ds_39_the_culprit_is_behind_the_last_task_that_is_held_up() {
    let (script, gathered, clock) = (Script::default(), Gathered::default(), Clock::default());
    let mut job = ManualJob::start(chain(&script, &gathered, &clock), 0, None).unwrap();
    clock.set(Arc::clone(&job.clock)).unwrap();
    let count = 200 * 1_024;
    script.records(0, (0..count).map(|number| ((number, number), None)));
    job.wake_sources().unwrap();
    assert_eq!(gathered.take().len() as u64, 2 * count);

    let share = |vertex, of: fn(&crate::task::counters::Counted) -> u64| {
        let counted = job.tasks[&SubtaskId { vertex, index: 0 }].counters.read();
        let all = counted.busy_ns + counted.idle_ns + counted.back_pressured_ns;
        of(&counted) as f64 / all as f64
    };
    let held_up: Vec<f64> = (0..4).map(|vertex| share(vertex, |counted| counted.back_pressured_ns)).collect();
    // The levels HIGH (above half), HIGH, OK (up to a tenth), OK.
    assert!(held_up[0] > 0.5 && held_up[1] > 0.5, "{held_up:?}");
    assert!(held_up[2] <= 0.1 && held_up[3] <= 0.1, "{held_up:?}");
    // C is the first behind the last that is held up much: it is busy, and those before it wait for it.
    let busy: Vec<f64> = (0..4).map(|vertex| share(vertex, |counted| counted.busy_ns)).collect();
    assert!(busy[2] > 0.9, "{busy:?}");
}

/// What has come to a sink, in order.
type Log = Arc<Mutex<Vec<String>>>;

/// Notes what comes.
#[derive(Clone, Default)]
struct Notes(Log);

impl Sink<Pair> for Notes {
    type Committable = ();

    fn open(&mut self, _: &SinkContext) -> Result<(), Failure> {
        Ok(())
    }

    fn write(&mut self, batch: &mut Batch<Pair>) -> Result<(), Failure> {
        self.0.lock().unwrap().extend(batch.drain().map(|pair| pair.1.to_string()));
        Ok(())
    }

    fn write_watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure> {
        self.0.lock().unwrap().push(format!("w{timestamp}"));
        Ok(())
    }
}

#[test]
fn a_sink_is_told_each_watermark_behind_the_records_before_it() {
    let (script, log) = (Script::<Pair>::default(), Log::default());
    let last = operators::reduce(|pair: &Pair| pair.0, |_: Pair, next: Pair| next);
    let program = fixtures::program(script.source(), last, operators::sink(Notes(Arc::clone(&log))), 1);
    let mut job = ManualJob::start(program, 0, None).unwrap();
    script.records(0, [((1, 10), Some(5)), ((2, 20), Some(6))]);
    script.watermark(0, 5);
    script.records(0, [((1, 30), Some(7))]);
    script.watermark(0, 7);
    job.wake_sources().unwrap();
    job.end_input().unwrap();
    let end = format!("w{MAX_WATERMARK}");
    assert_eq!(*log.lock().unwrap(), ["10", "20", "w5", "30", "w7", end.as_str()]);
}
