//! A source with an enumerator in two workers: assignments and notes inside a process and between two.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use thalweg_common::graph::{Edge, Partitioning};
use thalweg_proto::convert::WireId;
use thalweg_proto::v1::{self, worker_command};

use super::test_manager::{Attempt, JOB, TaskManager};
use super::*;
use crate::fixtures::{self, Pair, expected_sums, final_sums};
use crate::operators::{AnySource, Collected};
use crate::program::Program;
use crate::split::fixtures::Ranges;

/// The usual job with an enumerator in front of its three sources: one in the enumerator's worker, one in the other, and a third.
fn job(source: Ranges, collected: &Collected<Pair>) -> Program {
    let code = AnySource::enumerator(&source).unwrap();
    let mut program = fixtures::sums(source, 3, collected);
    let graph = &mut program.graph;
    let mut vertex = graph.vertices[0].clone();
    (vertex.name, vertex.parallelism) = ("enumerator".into(), 1);
    vertex.operators = vec![fixtures::operator(3, "enumerator", &[])];
    graph.vertices.insert(0, vertex);
    (graph.edges[0].source, graph.edges[0].target) = (1, 2);
    graph.edges.push(Edge {
        source: 0,
        source_operator: 0,
        target: 1,
        partitioning: Partitioning::Splits,
        tag: None,
        schema_fingerprint: code.schema_fingerprint,
    });
    program.nodes.push(code.node);
    program.edges.push(code.edge);
    program
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn splits_are_dealt_to_readers_in_two_workers_and_restored_in_the_midst() {
    for in_turn in [false, true] {
        let collected = Collected::default();
        let mut manager = TaskManager::start(job(Ranges { count: 20_000, in_turn }, &collected)).await;
        let mut workers = [manager.worker(1).await, manager.worker(2).await];
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().display().to_string();
        let mut attempt = Attempt { program: &manager.program, number: 1, workers: &mut workers, directory };
        attempt.deploy(&BTreeMap::new()).await;
        attempt.all_are(TaskStatus::Running).await;
        let snapshots = attempt.checkpoint(1, false).await;
        attempt.completed(1, false).await;
        for worker in attempt.workers.iter_mut() {
            worker.cancel(1).await;
            worker.stopped(1).await;
        }
        attempt.number = 2;
        attempt.deploy(&snapshots).await;
        attempt.all_are(TaskStatus::Drained).await;
        attempt.checkpoint(2, true).await;
        attempt.completed(2, true).await;
        attempt.all_are(TaskStatus::Finished).await;
        assert_eq!(final_sums(&collected.take()), expected_sums(20_000), "in turn: {in_turn}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_end_when_they_are_told_and_keep_their_splits() {
    let collected = Collected::default();
    let source = Ranges { count: 200_000, in_turn: false };
    let mut manager = TaskManager::start(job(source, &collected)).await;
    let mut workers = [manager.worker(1).await, manager.worker(2).await];
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().display().to_string();
    let mut attempt = Attempt { program: &manager.program, number: 1, workers: &mut workers, directory };
    let mut snapshots = BTreeMap::new();
    for number in 1..=3 {
        attempt.number = number;
        attempt.deploy(&snapshots).await;
        if number < 3 {
            attempt.all_are(TaskStatus::Running).await;
            for worker in attempt.workers.iter() {
                let end = v1::EndInput { job_id: JOB.to_wire(), attempt: number };
                worker.order(worker_command::Message::EndInput(end)).await;
            }
        }
        attempt.all_are(TaskStatus::Drained).await;
        snapshots = attempt.checkpoint(u64::from(number), true).await;
        attempt.completed(u64::from(number), true).await;
        attempt.all_are(TaskStatus::Finished).await;
    }
    assert_eq!(final_sums(&collected.take()), expected_sums(200_000));
}
