//! Who holds back what, over plans of a few vertices.

use thalweg_common::config::{CheckpointConfig, RestartStrategy};
use thalweg_common::graph::{Edge, JobGraph, PROTOCOL_VERSION, Partitioning};
use thalweg_common::id::{JobId, OperatorId};
use thalweg_common::status::JobStatus;

use super::*;
use crate::model::JobSummary;
use crate::model::time::OperatorTime;

fn operator(id: u64, name: &str, kind: &str, inputs: &[u32]) -> Operator {
    Operator {
        node: 0,
        id: OperatorId(id),
        uid: None,
        name: name.into(),
        kind: kind.into(),
        location: "src/main.rs:1".into(),
        inputs: inputs.to_vec(),
        input_tag: None,
        states: vec![],
        key_schema: None,
        time: None,
    }
}

fn vertex(parallelism: u32, operators: Vec<Operator>) -> Vertex {
    Vertex {
        name: "v".into(),
        parallelism,
        max_parallelism: 128,
        slot_sharing_group: "default".into(),
        operators,
    }
}

/// `source -> strategy` with two subtasks, `map` with two, `window` with one.
fn graph() -> JobGraph {
    let edge = |source, source_operator, target, partitioning| Edge {
        source,
        source_operator,
        tag: None,
        target,
        partitioning,
        schema_fingerprint: 0,
    };
    JobGraph {
        protocol_version: PROTOCOL_VERSION,
        name: "j".into(),
        vertices: vec![
            vertex(
                2,
                vec![operator(1, "source", "source", &[]), operator(2, "strategy", "watermarks", &[0])],
            ),
            vertex(2, vec![operator(3, "map", "map", &[])]),
            vertex(1, vec![operator(4, "window", "window", &[])]),
        ],
        edges: vec![edge(0, 1, 1, Partitioning::Rebalance), edge(1, 0, 2, Partitioning::Hash)],
        checkpointing: CheckpointConfig::default(),
        restart_strategy: RestartStrategy::None,
        warnings: vec![],
    }
}

fn id(vertex: u32, index: u32) -> SubtaskId {
    SubtaskId { vertex, index }
}

fn task(subtask: SubtaskId) -> TaskTime {
    TaskTime {
        subtask,
        attempt: 1,
        now_ms: 100_000,
        watermark: None,
        inputs: vec![],
        origins: vec![],
        operators: vec![],
    }
}

fn input(sender: SubtaskId, edge: u32, watermark: Option<i64>) -> InputTime {
    InputTime { sender, edge, watermark, idle: false, idle_since_ms: None, ended: false }
}

fn idle(input: InputTime, since_ms: i64) -> InputTime {
    InputTime { idle: true, idle_since_ms: Some(since_ms), ..input }
}

fn origin(split: &str, watermark: Option<i64>, last_record_ms: i64) -> OriginTime {
    OriginTime {
        operator_id: OperatorId(2),
        split: Some(split.into()),
        watermark,
        idle: false,
        last_record_ms,
        idleness_ms: None,
        waits_for_others: false,
    }
}

/// Two sources, of which the second is behind in one of its splits; a timer at 500.
fn tasks() -> Vec<TaskTime> {
    let both = |edge, vertex, first, second| {
        vec![input(id(vertex, 0), edge, first), input(id(vertex, 1), edge, second)]
    };
    let timer = OperatorTime { operator_id: OperatorId(4), earliest_timer_ms: Some(500) };
    vec![
        TaskTime { origins: vec![origin("a", Some(900), 99_000)], ..task(id(0, 0)) },
        TaskTime {
            origins: vec![origin("b", Some(800), 98_000), origin("c", Some(120), 60_000)],
            ..task(id(0, 1))
        },
        TaskTime { inputs: both(0, 0, Some(900), Some(120)), watermark: Some(120), ..task(id(1, 0)) },
        TaskTime { inputs: both(0, 0, Some(900), Some(110)), watermark: Some(110), ..task(id(1, 1)) },
        TaskTime {
            inputs: both(1, 1, Some(120), Some(110)),
            watermark: Some(110),
            operators: vec![timer],
            ..task(id(2, 0))
        },
    ]
}

fn explained(tasks: Vec<TaskTime>) -> Vec<Waiting> {
    explained_in(graph(), tasks)
}

fn explained_in(graph: JobGraph, tasks: Vec<TaskTime>) -> Vec<Waiting> {
    let job = JobSummary {
        job_id: JobId(1),
        name: "j".into(),
        status: JobStatus::Running,
        attempt: 1,
        start_time_ms: 0,
        end_time_ms: None,
        tasks_total: 5,
        tasks_running: 5,
        reason: String::new(),
    };
    why(&JobTime { job, graph, tasks, missing: vec![] })
}

fn steps(waiting: &Waiting) -> Vec<(SubtaskId, &str, Option<i64>)> {
    let holders = waiting.held_back_by.iter();
    holders.map(|holder| (holder.subtask, holder.operator.as_str(), holder.watermark_ms)).collect()
}

#[test]
fn the_way_leads_from_the_window_to_the_split_that_is_behind() {
    let waiting = explained(tasks());
    let [window] = &waiting[..] else { panic!("{waiting:?}") };
    assert_eq!((window.operator.as_str(), window.subtask), ("window", id(2, 0)));
    assert_eq!((window.watermark_ms, window.earliest_timer_ms), (Some(110), Some(500)));
    assert_eq!(window.missing_ms, Some(390));
    assert_eq!(steps(window), [(id(1, 1), "map", Some(110)), (id(0, 1), "strategy", Some(120))]);
    let Cause::Origin { split, silent_ms, idle, idleness_ms, .. } = &window.held_back_by[1].cause else {
        panic!("{window:?}")
    };
    assert_eq!((split.as_deref(), *silent_ms, *idle, *idleness_ms), (Some("c"), 40_000, false, None));
}

#[test]
fn idle_inputs_and_splits_are_passed_over_until_all_are_idle() {
    let mut some = tasks();
    some[1].origins[1].idle = true;
    some[4].inputs[1] = idle(some[4].inputs[1], 70_000);
    let waiting = explained(some.clone());
    assert_eq!(steps(&waiting[0]), [(id(1, 0), "map", Some(120)), (id(0, 1), "strategy", Some(800))]);

    some[4].inputs[0] = idle(some[4].inputs[0], 80_000);
    let waiting = explained(some);
    assert_eq!(waiting[0].held_back_by[0].cause, Cause::AllIdle { since_ms: Some(80_000) });
    assert_eq!(waiting[0].held_back_by[0].subtask, id(1, 0), "the latest");
}

#[test]
fn who_has_no_watermark_holds_back_before_all_others() {
    let mut some = tasks();
    some[0].origins[0].watermark = None;
    some[2].inputs[0].watermark = None;
    some[4].inputs[0].watermark = None;
    some[4].watermark = None;
    let waiting = explained(some);
    assert_eq!(steps(&waiting[0]), [(id(1, 0), "map", None), (id(0, 0), "strategy", None)]);
    assert_eq!((waiting[0].watermark_ms, waiting[0].missing_ms), (None, None));
}

#[test]
fn what_cannot_be_followed_is_said() {
    let mut without = tasks();
    without.remove(3);
    assert_eq!(explained(without)[0].held_back_by[1].cause, Cause::NoAnswer);

    let mut graph = graph();
    graph.vertices[0].operators[1].kind = "map".into();
    let waiting = explained_in(graph, tasks());
    assert_eq!(waiting[0].held_back_by[2].cause, Cause::NoStrategy);

    let mut empty = tasks();
    empty[1].origins.clear();
    assert_eq!(explained(empty)[0].held_back_by[1].cause, Cause::NoSplits);

    let mut ended = tasks();
    ended[4].inputs.iter_mut().for_each(|input| input.ended = true);
    assert_eq!(explained(ended)[0].held_back_by.len(), 1);

    let mut none = tasks();
    none[4].operators[0].earliest_timer_ms = None;
    assert_eq!((explained(none)[0].held_back_by.len(), explained(vec![]).len()), (0, 0));
}

#[test]
fn an_operator_behind_a_strategy_in_its_own_task_goes_by_that() {
    let mut graph = graph();
    graph.vertices[0].operators.push(operator(5, "count", "window", &[1]));
    graph.vertices[0].operators.push(operator(6, "before", "window", &[0]));
    let mut some = tasks();
    some[1].operators =
        [5, 6].map(|id| OperatorTime { operator_id: OperatorId(id), earliest_timer_ms: Some(150) }).to_vec();
    let waiting = explained_in(graph, some);
    let [behind, before, _] = &waiting[..] else { panic!("{waiting:?}") };
    assert_eq!((behind.watermark_ms, behind.missing_ms), (Some(120), Some(30)));
    assert_eq!(steps(behind), [(id(0, 1), "strategy", Some(120))]);
    assert_eq!(before.held_back_by[0].cause, Cause::NoStrategy, "not behind the strategy");
}
