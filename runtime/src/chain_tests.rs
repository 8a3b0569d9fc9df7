//! Chains that branch, block, and do not fit their code.
#![allow(clippy::unwrap_used, clippy::panic)]

use thalweg_common::clock::SystemClock;
use thalweg_common::failure::Fault;
use thalweg_common::graph::Partitioning;
use thalweg_common::limits::LOCAL_CHANNEL_BATCHES;

use super::*;
use crate::event::Barrier;
use crate::exchange::TaskParker;
use crate::fixtures::{Pair, SOURCES, SUMS, operator, pairs, sums};
use crate::link::Flushed;
use crate::operators::{self, Collected, CollectionSource};
use crate::process::{Process, ProcessContext};
use crate::program::Polled;
use crate::side_output::OutputTag;
use crate::snapshot::SnapshotBuilder;

fn parts(subtask: SubtaskId) -> ChainParts {
    ChainParts {
        job_id: JobId(1),
        attempt: 1,
        subtask,
        is_local: true,
        clock: SystemClock::shared(),
        waker: TaskParker::new().waker(),
        runtime: None,
        counters: Counters::default(),
        stores: Default::default(),
        restored: Vec::new(),
        receivers: Vec::new(),
        senders: BTreeMap::new(),
        kept_open: Vec::new(),
    }
}

/// A source in one vertex, with whatever is chained behind it.
fn chained(operators: Vec<Operator>, nodes: Vec<Node>) -> Program {
    let mut program = sums(CollectionSource::new(pairs(10)), 1, &Collected::default());
    program.graph.vertices.truncate(1);
    program.graph.edges.clear();
    program.edges.clear();
    program.graph.vertices[0].operators.extend(operators);
    program.nodes.truncate(1);
    program.nodes.extend(nodes);
    program
}

const SOURCE: SubtaskId = SubtaskId { vertex: SOURCES, index: 0 };
const SUM: SubtaskId = SubtaskId { vertex: SUMS, index: 0 };

fn drain(head: &mut dyn Head) {
    while head.poll().unwrap() != Polled::EndOfInput {}
    head.finish().unwrap();
    assert_eq!(head.flush(true), Ok(Flushed::All));
}

#[test]
fn a_chain_may_branch() {
    let (all, even) = (Collected::<Pair>::default(), Collected::<Pair>::default());
    let operators = vec![
        operator(1, "all", &[0]),
        operator(2, "even", &[0]),
        operator(3, "even sink", &[2]),
        // Its output is not used.
        operator(4, "dangling", &[2]),
    ];
    let nodes = vec![
        Node::sink(operators::sink(all.sink())),
        Node::operator::<Pair>(operators::filter(|pair: &Pair| pair.1.is_multiple_of(2))),
        Node::sink(operators::sink(even.sink())),
        Node::operator::<u64>(operators::map(|pair: Pair| pair.1)),
    ];
    let mut head = build(&chained(operators, nodes), &mut parts(SOURCE)).unwrap();
    drain(head.as_mut());
    let mut builder = SnapshotBuilder::default();
    head.snapshot(Barrier { id: 1, timestamp_ms: 0, is_final: true, is_savepoint: false }, &mut builder)
        .unwrap();
    let operators: Vec<u64> = builder.build().operators.keys().map(|id| id.0).collect();
    assert_eq!(operators, [100, 101, 103], "the source and both sinks");
    head.completed(1).unwrap();
    assert_eq!(all.take(), pairs(10).collect::<Vec<_>>());
    assert_eq!(even.take(), pairs(10).filter(|pair| pair.1.is_multiple_of(2)).collect::<Vec<_>>());
}

/// Emits numbers above 5 aside.
#[derive(Clone)]
struct Sort;

const LARGE: OutputTag<u64> = OutputTag::new("large");

impl Process<Pair> for Sort {
    type Out = Pair;

    fn on_record(&mut self, pair: Pair, context: &mut ProcessContext<'_, Pair>) -> Result<(), Failure> {
        if pair.1 > 5 {
            context.output(&LARGE, pair.1);
        } else {
            context.emit(pair);
        }
        Ok(())
    }
}

#[test]
fn side_outputs_are_chained_by_their_tags() {
    let (small, large, again) =
        (Collected::<Pair>::default(), Collected::<u64>::default(), Collected::<u64>::default());
    let aside =
        |node: u32, name: &str| Operator { input_tag: Some("large".into()), ..operator(node, name, &[1]) };
    let operators =
        vec![operator(1, "sort", &[0]), aside(2, "large"), operator(3, "small", &[1]), aside(4, "again")];
    let mut sort = Node::operator::<Pair>(operators::process(Sort));
    sort.read_side_output(&LARGE).unwrap();
    let nodes = vec![
        sort,
        Node::sink(operators::sink(large.sink())),
        Node::sink(operators::sink(small.sink())),
        Node::sink(operators::sink(again.sink())),
    ];
    let mut program = chained(operators, nodes);
    let mut head = build(&program, &mut parts(SOURCE)).unwrap();
    drain(head.as_mut());
    let mut builder = SnapshotBuilder::default();
    head.snapshot(Barrier { id: 1, timestamp_ms: 0, is_final: true, is_savepoint: false }, &mut builder)
        .unwrap();
    head.completed(1).unwrap();
    assert_eq!(small.take(), pairs(5).collect::<Vec<_>>());
    for collected in [large, again] {
        assert_eq!(collected.take(), [6, 7, 8, 9, 10]);
    }

    let refused = |program: &Program, expected: &str| {
        let failure = build(program, &mut parts(SOURCE)).err().unwrap();
        assert!(failure.message.contains(expected), "`{failure}` should say `{expected}`");
    };
    let failure = program.nodes[1].read_side_output(&OutputTag::<String>::new("large")).unwrap_err();
    assert_eq!(failure.message.matches("chain_tests.rs:").count(), 2, "{failure}");
    program.graph.vertices[0].operators[2].input_tag = Some("small".into());
    refused(&program, "`sort` has no side output `small`");
    program.graph.vertices[0].operators[2].input_tag = None;
    refused(&program, "a link of `u64`");
    program.nodes[1] = Node::operator::<Pair>(operators::map(|pair: Pair| pair));
    program.nodes[1].read_side_output(&LARGE).unwrap();
    program.graph.vertices[0].operators[2].input_tag = Some("large".into());
    refused(&program, "`sort` emits to no side outputs");
}

#[test]
fn an_output_that_is_full_blocks_the_chain_and_nothing_is_lost() {
    let mut program = sums(CollectionSource::new(pairs(100_000)), 1, &Collected::default());
    program.graph.edges[0].partitioning = Partitioning::Forward;
    program.edges[0] = EdgeCode::forward::<Pair>();
    // Batches are full from the first one.
    program.exchange.debloat_target = None;
    let operations = program.edges[0].record_type.operations();
    let (sender, receiver) = operations.local_channel(program.graph.channels(0).next().unwrap());
    let mut sum = parts(SUM);
    sum.receivers.push(receiver);
    let mut reader = build(&program, &mut sum).unwrap();
    let mut source = parts(SOURCE);
    source.senders.insert(0, vec![sender]);
    let mut head = build(&program, &mut source).unwrap();
    let mut polls = 0;
    while head.flush(false) == Ok(Flushed::All) {
        head.poll().unwrap();
        polls += 1;
    }
    assert_eq!(polls, LOCAL_CHANNEL_BATCHES + 1);

    let mut is_ended = false;
    while !is_ended {
        while reader.poll().unwrap() == Polled::Progress {}
        while !is_ended && head.flush(false) == Ok(Flushed::All) {
            is_ended = head.poll().unwrap() == Polled::EndOfInput;
        }
    }
    head.finish().unwrap();
    while head.flush(true) == Ok(Flushed::Blocked) {
        while reader.poll().unwrap() == Polled::Progress {}
    }
    while reader.poll().unwrap() != Polled::EndOfInput {}
    assert_eq!(source.counters.read().records_out, 100_000);
    assert_eq!(sum.counters.read().records_in, 100_000);
}

#[test]
fn a_graph_that_does_not_fit_its_code_is_refused_by_name() {
    let sums = || sums(CollectionSource::new(pairs(10)), 1, &Collected::default());
    let refused = |program: &Program, subtask, expected: &str| {
        let failure = build(program, &mut parts(subtask)).err().unwrap();
        assert_eq!((failure.fault, failure.retryable), (Fault::Internal, false), "{failure}");
        assert!(failure.message.contains(expected), "`{failure}` should say `{expected}`");
    };
    let mut program = sums();
    refused(&program, SubtaskId { vertex: 9, index: 0 }, "no vertex 9");
    program.edges.clear();
    refused(&program, SOURCE, "edge 0 has no code");
    program.nodes.clear();
    refused(&program, SOURCE, "`source` has no code");

    let mut program = sums();
    program.edges[0] = EdgeCode::rebalance::<Pair>();
    refused(&program, SOURCE, "an edge behind `source` is Hash in the plan and Rebalance here");
    program.edges[0] = EdgeCode::hash(|number: &u64| *number);
    refused(&program, SOURCE, "the output of `source`");
    refused(&program, SUM, "`u64`");

    let mut program = sums();
    program.graph.edges.clear();
    refused(&program, SUM, "`sum` is no source and has no inputs");
    program.nodes[0].output = None;
    refused(&program, SOURCE, "the source `source` has no output");

    let mut program = sums();
    program.nodes.swap(0, 1);
    refused(&program, SUM, "the source `sum` has inputs");

    let two_inputs = chained(vec![operator(1, "sink", &[0, 0])], vec![]);
    refused(&two_inputs, SOURCE, "`sink` has no code");
    let nodes = || vec![Node::sink(operators::sink(Collected::<Pair>::default().sink()))];
    refused(&chained(vec![operator(1, "sink", &[0, 0])], nodes()), SOURCE, "`sink` has 2 inputs");
    let behind_sink = vec![operator(1, "sink", &[0]), operator(1, "behind", &[1])];
    refused(
        &chained(behind_sink, nodes()),
        SOURCE,
        "`sink` has no output and something is connected behind it",
    );
    let wrong = vec![Node::sink(operators::sink(Collected::<u64>::default().sink()))];
    refused(&chained(vec![operator(1, "sink", &[0])], wrong), SOURCE, "a link of `u64`");
}

#[test]
fn state_that_nobody_asks_for_is_not_lost_in_silence() {
    let program = chained(vec![], vec![]);
    let mut restoring = parts(SOURCE);
    let mut stranger = SnapshotBuilder::default();
    stranger.operator(OperatorId(0xabc)).operator_state.push(vec![1]);
    restoring.restored.push(stranger.build());
    let failure = build(&program, &mut restoring).err().unwrap();
    assert!(failure.message.contains("operator 0000000000000abc which is not part of the job"), "{failure}");
}
