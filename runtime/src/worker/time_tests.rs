//! What a worker tells of event time, and what it does with what it is told: the test is the leader.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use thalweg_proto::convert::WireId;
use thalweg_proto::v1::{self, worker_command, worker_message};

use super::test_manager::{Attempt, JOB, TaskManager, TestWorker};
use crate::fixtures::{self, Pair};
use crate::operators::{Collected, GeneratorSource};
use crate::program::{Node, Program};
use crate::time::WatermarkStrategy;

/// The usual job with an aligned strategy behind its source, which goes through a second in a millisecond at the most.
fn job(collected: &Collected<Pair>) -> Program {
    let source = GeneratorSource::new(|number| (number % 10, number)).records_per_second(1_000.0);
    let mut program = fixtures::sums(source, 1, collected);
    let strategy = WatermarkStrategy::for_monotonous_timestamps()
        .timestamps(|pair: &Pair| pair.1 as i64)
        .with_watermark_alignment("g", Duration::from_millis(50), Duration::from_millis(10));
    let mut operator = fixtures::operator(3, "watermarks", &[0]);
    operator.time = Some(strategy.describe::<Pair>());
    program.graph.vertices[0].operators.push(operator);
    program.graph.edges[0].source_operator = 1;
    program.nodes.push(Node::operator::<Pair>(crate::operators::watermarks(strategy)));
    program.time.auto_watermark_interval = Duration::from_millis(5);
    program
}

/// What the source says next of its watermark.
async fn told(worker: &mut TestWorker) -> i64 {
    loop {
        match worker.message().await {
            worker_message::Message::SourceWatermarks(told) => {
                assert_eq!((told.attempt, told.sources.len()), (1, 1));
                assert_eq!(told.sources[0].group, "g");
                return told.sources[0].watermark;
            }
            worker_message::Message::TaskStatusChanged(changed) => assert_eq!(changed.failure, None),
            other => panic!("{other:?}"),
        }
    }
}

async fn announce(worker: &TestWorker, attempt: u32, watermark: Option<i64>) {
    let groups = vec![v1::GroupWatermark { group: "g".into(), watermark }];
    let said = v1::GroupWatermarks { job_id: JOB.to_wire(), attempt, groups };
    worker.order(worker_command::Message::GroupWatermarks(said)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_go_as_far_as_the_leader_says_and_tasks_tell_how_they_keep_time() {
    let collected = Collected::default();
    let mut manager = TaskManager::start(job(&collected)).await;
    let mut workers = [manager.worker(1).await];
    let program = manager.program.clone();
    let attempt = Attempt { program: &program, number: 1, workers: &mut workers, directory: String::new() };
    attempt.deploy(&BTreeMap::new()).await;
    let worker = &mut workers[0];
    // Without a word nobody waits.
    while told(worker).await < 100 {}
    announce(worker, 1, Some(200)).await;
    // It comes to its limit, and stays there for as long as it is said.
    while told(worker).await <= 250 {}
    let mut before = told(worker).await;
    let mut still = 0;
    while still < 20 {
        let now = told(worker).await;
        still = if now == before { still + 1 } else { 0 };
        before = now;
    }
    assert!(before < 10_000, "{before}");
    // What is not known, or is of another attempt, changes nothing.
    announce(worker, 1, None).await;
    announce(worker, 2, Some(i64::MAX)).await;
    for _ in 0..20 {
        assert_eq!(told(worker).await, before);
    }

    let request = v1::TimeRequest { request_id: 5, job_id: JOB.to_wire(), attempt: 1 };
    worker.order(worker_command::Message::TimeRequest(request)).await;
    let mut answers = BTreeMap::new();
    while answers.len() < 2 {
        if let worker_message::Message::TaskTime(told) = worker.message().await {
            assert_eq!((told.request_id, told.attempt), (5, 1));
            answers.insert(told.subtask.unwrap().vertex, told);
        }
    }
    let [origin] = &answers[&0].origins[..] else { panic!("{answers:?}") };
    assert_eq!((origin.operator_id, origin.watermark), (103, Some(before)));
    assert!(origin.aligned_wait && !origin.idle && origin.split.is_empty());
    let [input] = answers[&1].inputs[..] else { panic!("{answers:?}") };
    assert_eq!(input.sender, Some(v1::SubtaskId { vertex: 0, index: 0 }));
    assert_eq!((input.watermark, input.idle, input.ended), (Some(before), false, false));
    assert_eq!(answers[&1].watermark, Some(before));
    let [sum] = answers[&1].operators[..] else { panic!("{answers:?}") };
    assert_eq!((sum.operator_id, sum.earliest_timer_ms), (101, None));

    // A leader that answers no more holds nobody for ever.
    while told(worker).await <= before + 50 {}
    worker.cancel(1).await;
}
