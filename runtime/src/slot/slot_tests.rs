//! Which tasks share a thread, and how a slot ends.
#![allow(clippy::unwrap_used, clippy::panic)]

use thalweg_common::clock::SystemClock;
use thalweg_common::task_scope::TaskScope;

use super::*;
use crate::fixtures::{pairs, sums};
use crate::operators::{Collected, CollectionSource};

/// The graph of two jobs in one: 0 -> 1 and 2 -> 3, with these sharing groups.
fn two_pipelines(groups: [&str; 4]) -> JobGraph {
    let mut graph = sums(CollectionSource::new(pairs(1)), 2, &Collected::default()).graph;
    graph.vertices.extend(graph.vertices.clone());
    let mut edge = graph.edges[0].clone();
    (edge.source, edge.target) = (2, 3);
    graph.edges.push(edge);
    for (vertex, group) in graph.vertices.iter_mut().zip(groups) {
        vertex.slot_sharing_group = group.into();
    }
    graph
}

fn share(graph: &JobGraph, one: (u32, u32), other: (u32, u32)) -> bool {
    let parts = connected_parts(graph);
    let slot = |(vertex, index)| SlotId::of(graph, &parts, SubtaskId { vertex, index });
    assert!(slot(one).is_some() && slot(other).is_some());
    slot(one) == slot(other)
}

#[test]
fn tasks_that_hand_records_to_each_other_in_a_slot_share_its_thread() {
    let graph = two_pipelines(["a"; 4]);
    assert!(share(&graph, (0, 1), (1, 1)));
    assert!(!share(&graph, (0, 0), (1, 1)), "another slot");
    assert!(!share(&graph, (1, 0), (2, 0)), "no record gets from one to the other");
    assert!(!share(&two_pipelines(["a", "b", "a", "a"]), (0, 0), (1, 0)), "another sharing group");
    assert_eq!(SlotId::of(&graph, &connected_parts(&graph), SubtaskId { vertex: 9, index: 0 }), None);
}

#[test]
fn parts_of_a_graph_are_what_its_edges_connect() {
    let mut graph = two_pipelines(["a"; 4]);
    assert_eq!(connected_parts(&graph), [0, 0, 2, 2]);
    let mut edge = graph.edges[0].clone();
    (edge.source, edge.target) = (1, 3);
    graph.edges.push(edge);
    assert_eq!(connected_parts(&graph), [0, 0, 0, 0]);
    graph.edges.clear();
    assert_eq!(connected_parts(&graph), [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_slot_ends_when_no_task_comes() {
    let (slot, seats) = slot(3, SystemClock::shared());
    let scope = TaskScope::new("test");
    let thread = scope.spawn_thread("slot 0", move || slot.run());
    drop(seats);
    tokio::time::timeout(Duration::from_secs(30), thread.join()).await.unwrap().unwrap();
}

#[test]
fn a_seat_can_be_called_before_and_after_the_slot() {
    let (slot, mut seats) = slot(1, SystemClock::shared());
    let seat = seats.remove(0);
    seat.waker().wake();
    drop(slot);
    seat.waker().wake();
    drop(seat);
}
