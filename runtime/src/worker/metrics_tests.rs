//! What a slow sink does to the metrics of the tasks before it, from the task loop to what a task manager is told.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};

use thalweg_proto::metrics::{BackPressure, TaskMetrics, TaskRates};
use thalweg_proto::model::TaskCounters;
use thalweg_proto::v1::worker_message;

use super::test_manager::{Attempt, TaskManager, TestWorker, within};
use super::*;
use crate::batch::Batch;
use crate::fixtures::{Pair, SOURCES, SUMS, program};
use crate::operator::{Sink, SinkContext};
use crate::operators::{self, GeneratorSource};

/// A sink whose second subtask is as slow as can be while the test holds it: it takes a batch and stands still.
#[derive(Clone, Default)]
struct StandsStill {
    subtask: u32,
    is_held: Arc<(Mutex<bool>, Condvar)>,
}

impl StandsStill {
    /// Must wait until all tasks run: a task that stands still keeps its slot from starting others.
    fn hold(&self) {
        *self.is_held.0.lock().unwrap() = true;
    }

    fn let_go(&self) {
        *self.is_held.0.lock().unwrap() = false;
        self.is_held.1.notify_all();
    }
}

impl Sink<Pair> for StandsStill {
    type Committable = ();

    fn open(&mut self, context: &SinkContext) -> Result<(), Failure> {
        self.subtask = context.subtask_index;
        Ok(())
    }

    fn write(&mut self, batch: &mut Batch<Pair>) -> Result<(), Failure> {
        if self.subtask == 1 {
            let is_held = self.is_held.0.lock().unwrap();
            drop(self.is_held.1.wait_while(is_held, |is_held| *is_held).unwrap());
        }
        batch.clear();
        Ok(())
    }
}

/// Reads what a worker tells of a task until it is as wanted.
async fn until(
    worker: &mut TestWorker,
    subtask: SubtaskId,
    wanted: impl Fn(&TaskMetrics, &TaskRates) -> bool,
) {
    let mut earlier: Option<TaskCounters> = None;
    let mut last = None;
    let wait = async {
        loop {
            let message = worker.stream.messages.message().await.unwrap().unwrap().message;
            let Some(worker_message::Message::Counters(counters)) = message else { continue };
            let of_task = counters.tasks.into_iter().find(|task| task.subtask == Some(subtask.into()));
            let later = TaskCounters::try_from(of_task.unwrap()).unwrap();
            let metrics = TaskMetrics::between(earlier.as_ref(), &later);
            if metrics.rates.is_some_and(|rates| wanted(&metrics, &rates)) {
                return;
            }
            last = Some(metrics);
            earlier = Some(later);
        }
    };
    let deadline = tokio::time::timeout(Duration::from_secs(30), wait);
    assert!(deadline.await.is_ok(), "task {subtask} does not become as wanted: {last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_stands_still_is_busy_and_holds_up_what_is_before_it() {
    let sink = StandsStill::default();
    let source = operators::source(GeneratorSource::new(|number| -> Pair { (number % 1_000, 1) }));
    let sum = operators::reduce(|pair: &Pair| pair.0, |a: Pair, b: Pair| (a.0, a.1 + b.1));
    let mut manager = TaskManager::start(program(source, sum, operators::sink(sink.clone()), 2)).await;
    // The source of the first worker sends to the sink of the second one.
    let mut workers = [manager.worker(1).await, manager.worker(2).await];
    let mut attempt =
        Attempt { program: &manager.program, number: 1, workers: &mut workers, directory: String::new() };
    attempt.deploy(&BTreeMap::new()).await;
    attempt.all_are(TaskStatus::Running).await;
    sink.hold();

    let [first, second] = &mut workers;
    until(first, SubtaskId { vertex: SOURCES, index: 0 }, |metrics, rates| {
        rates.back_pressured_time_ms_per_second > 900
            && rates.back_pressure_level == BackPressure::High
            && rates.num_records_out_per_second == 0.0
            && metrics.output_queue_length > 0
            && metrics.num_records_out > 0
    })
    .await;
    until(first, SubtaskId { vertex: SUMS, index: 0 }, |_, rates| rates.idle_time_ms_per_second > 900).await;
    until(second, SubtaskId { vertex: SUMS, index: 1 }, |metrics, rates| {
        rates.busy_time_ms_per_second > 900 && metrics.num_records_in > 0
    })
    .await;

    sink.let_go();
    until(second, SubtaskId { vertex: SUMS, index: 1 }, |_, rates| rates.num_records_in_per_second > 0.0)
        .await;
    until(first, SubtaskId { vertex: SOURCES, index: 0 }, |_, rates| rates.num_bytes_out_per_second > 0.0)
        .await;
    for worker in &mut workers {
        worker.cancel(1).await;
    }
    for worker in &mut workers {
        within(worker.stopped(1)).await;
    }
}
