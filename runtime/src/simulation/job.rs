//! Builds a scenario: the program, its tasks in their slots, and the channels between them.
//!
//! Everything is what a worker uses, but for the threads of the slots and the network between workers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thalweg_common::clock::SharedClock;
use thalweg_common::config::{CheckpointConfig, RestartStrategy};
use thalweg_common::graph::{self, JobGraph, PROTOCOL_VERSION, Partitioning};
use thalweg_common::id::{ChannelId, EdgeId, JobId, SubtaskId};
use thalweg_common::record::Record;
use thalweg_common::storage::StorageFactory;
use tokio::sync::mpsc;

use super::random::{Random, mix};
use super::records::{Counter, Item, Ledger, MAX_PARALLELISM, Punctual, Reader, Station, StationFactory};
use super::scenario::{Edge, Scenario, Weight};
use crate::batch::Batch;
use crate::chain::ChainParts;
use crate::erased::{AnyReceiver, AnySender};
use crate::exchange::{SimulatedConnection, SimulatedWorker, local_channel_with_room};
use crate::fixtures::operator;
use crate::operators::{self, CombinePolicy};
use crate::program::{EdgeCode, Node, OperatorFactory, Program};
use crate::slot::{self, Seat, Slot, SlotId, connected_parts};
use crate::task::counters::Counters;
use crate::task::mailbox::{Cancellation, Mailbox, mailbox};
use crate::task::{Report, Reporter, Task};
use crate::time::{TimeSettings, WatermarkStrategy};

/// Reports that wait to be read. They are read after every turn.
const REPORTS: usize = 1_024;

/// The snapshots of all tasks at one checkpoint, as they are stored.
pub(super) type Snapshots = BTreeMap<SubtaskId, Bytes>;

/// A job that is deployed and has not begun.
pub(super) struct Job {
    pub(super) slots: Vec<SimulatedSlot>,
    pub(super) tasks: BTreeMap<SubtaskId, SimulatedTask>,
    pub(super) connections: Vec<SimulatedConnection>,
    pub(super) workers: Vec<SimulatedWorker>,
    /// One for each worker.
    pub(super) cancellations: Vec<Cancellation>,
    pub(super) reports: mpsc::Receiver<Report>,
    pub(super) ledger: Arc<Ledger>,
    /// Records of a full batch.
    pub(super) full_records: u64,
}

/// The thread of a slot, which has a turn when the simulation says so.
pub(super) struct SimulatedSlot {
    pub(super) slot: Slot,
    pub(super) seats: Vec<SubtaskId>,
    pub(super) has_ended: bool,
}

/// What is outside of a task.
pub(super) struct SimulatedTask {
    pub(super) mailbox: Mailbox,
    pub(super) counters: Counters,
    pub(super) worker: usize,
    pub(super) slot: usize,
    pub(super) seat: usize,
}

impl Job {
    /// Deploys a scenario, from the snapshots of its tasks if it has some.
    pub(super) fn deploy(scenario: &Scenario, restored: &Snapshots) -> Self {
        match scenario.weight {
            Weight::Light => Self::with_items::<0>(scenario, restored),
            Weight::Medium => Self::with_items::<32>(scenario, restored),
            Weight::Heavy => Self::with_items::<125>(scenario, restored),
        }
    }

    fn with_items<const PADDING: usize>(scenario: &Scenario, restored: &Snapshots) -> Self {
        let ledger = Ledger::new(scenario);
        let clock: SharedClock = ledger.clock.clone();
        let program = Arc::new(program::<PADDING>(scenario, &ledger));
        let workers: Vec<SimulatedWorker> =
            (0..scenario.workers).map(|_| SimulatedWorker::new(scenario.exchange, clock.clone())).collect();
        let (reporter, reports) = mpsc::channel(REPORTS);
        let mut job = Self {
            slots: Vec::new(),
            tasks: BTreeMap::new(),
            connections: Vec::new(),
            cancellations: workers.iter().map(|_| Cancellation::default()).collect(),
            workers,
            reports,
            ledger,
            full_records: Batch::<Item<PADDING>>::FULL_RECORDS as u64,
        };
        let places = places(scenario, &program.graph);
        let mut wires = wires::<PADDING>(scenario, &program, &places, &mut job);
        for ((worker, _), subtasks) in by_slot(&program.graph, &places) {
            let (slot, seats) = slot::slot(subtasks.len(), clock.clone());
            for (subtask, (number, seat)) in subtasks.iter().zip(seats.into_iter().enumerate()) {
                let ends = wires.remove(subtask).unwrap_or_default();
                let reporter = Reporter { attempt: 1, subtask: *subtask, reports: reporter.clone() };
                let restored = restored.get(subtask).cloned().into_iter().collect();
                let task = job.seat(seat, number, worker, &program, reporter, ends, restored);
                job.tasks.insert(*subtask, task);
            }
            job.slots.push(SimulatedSlot { slot, seats: subtasks, has_ended: false });
        }
        job
    }

    /// Puts a task on its seat.
    #[expect(clippy::too_many_arguments, reason = "what a task is made of, once")]
    fn seat(
        &self,
        seat: Seat,
        number: usize,
        worker: usize,
        program: &Arc<Program>,
        reporter: Reporter,
        ends: Ends,
        restored: Vec<Bytes>,
    ) -> SimulatedTask {
        let counters = Counters::default();
        let parts = ChainParts {
            job_id: JobId(1),
            attempt: 1,
            subtask: reporter.subtask,
            is_local: true,
            clock: self.ledger.clock.clone(),
            waker: seat.waker(),
            runtime: None,
            counters: counters.clone(),
            stores: Default::default(),
            restored: Vec::new(),
            receivers: ends.receivers,
            senders: ends.senders,
            kept_open: Vec::new(),
        };
        let (mailbox, inbox) = mailbox(seat.waker(), self.cancellations[worker].clone());
        // Its end is seen in its reports.
        drop(seat.take(Task::new(inbox, reporter, Arc::clone(program), parts, restored)));
        SimulatedTask { mailbox, counters, worker, slot: self.slots.len(), seat: number }
    }
}

/// The channel ends of a task.
#[derive(Default)]
struct Ends {
    receivers: Vec<AnyReceiver>,
    senders: BTreeMap<EdgeId, Vec<AnySender>>,
}

/// On which worker each task runs: all tasks of a sharing group with the same index on the same one.
fn places(scenario: &Scenario, graph: &JobGraph) -> BTreeMap<SubtaskId, usize> {
    let place = |subtask: SubtaskId| {
        let group = scenario.vertices[subtask.vertex as usize].sharing_group;
        let mut random = Random::new(mix(scenario.seed, u64::from(group) << 32 | u64::from(subtask.index)));
        random.within(0..=u64::from(scenario.workers) - 1) as usize
    };
    graph.subtasks().map(|subtask| (subtask, place(subtask))).collect()
}

/// The tasks of each worker's slots.
fn by_slot<'a>(
    graph: &'a JobGraph,
    places: &BTreeMap<SubtaskId, usize>,
) -> BTreeMap<(usize, SlotId<'a>), Vec<SubtaskId>> {
    let parts = connected_parts(graph);
    let mut slots: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (subtask, worker) in places {
        if let Some(slot) = SlotId::of(graph, &parts, *subtask) {
            slots.entry((*worker, slot)).or_default().push(*subtask);
        }
    }
    slots
}

/// All channels.
fn wires<const PADDING: usize>(
    scenario: &Scenario,
    program: &Program,
    places: &BTreeMap<SubtaskId, usize>,
    job: &mut Job,
) -> BTreeMap<SubtaskId, Ends> {
    let mut ends: BTreeMap<SubtaskId, Ends> = BTreeMap::new();
    for (id, edge) in (0..).zip(&program.graph.edges) {
        for channel in program.graph.channels(id) {
            let ChannelId { from, to, .. } = channel;
            let from = SubtaskId { vertex: edge.source, index: from };
            let to = SubtaskId { vertex: edge.target, index: to };
            let (sender, receiver) = if places[&from] == places[&to] {
                local_channel_with_room::<Item<PADDING>>(
                    channel,
                    scenario.local.batches,
                    scenario.local.events,
                )
            } else {
                let worker = &job.workers[places[&to]];
                let (sender, receiver, connection) = worker.connect(channel, scenario.wire_frames);
                job.connections.push(connection);
                (sender, receiver)
            };
            let sending = ends.entry(from).or_default();
            sending.senders.entry(id).or_default().push(AnySender::new(sender));
            ends.entry(to).or_default().receivers.push(AnyReceiver::new(receiver));
        }
    }
    ends
}

fn program<const PADDING: usize>(scenario: &Scenario, ledger: &Arc<Ledger>) -> Program {
    let mut builder = Builder::<PADDING> {
        scenario,
        ledger,
        partitionings: scenario.edges.iter().map(|edge| edge.partitioning).collect(),
        nodes: Vec::new(),
        outlets: BTreeMap::new(),
    };
    let vertices = (0..).zip(&scenario.vertices).map(|(number, _)| builder.vertex(number)).collect();
    let outlets = builder.outlets;
    let edge = |(number, edge): (usize, &Edge)| graph::Edge {
        source: edge.source,
        source_operator: outlets[&number],
        tag: None,
        target: edge.target,
        partitioning: edge.partitioning,
        schema_fingerprint: Item::<PADDING>::schema().fingerprint(),
    };
    let graph = JobGraph {
        protocol_version: PROTOCOL_VERSION,
        name: format!("seed {}", scenario.seed),
        vertices,
        edges: scenario.edges.iter().enumerate().map(edge).collect(),
        checkpointing: CheckpointConfig {
            mode: scenario.mode,
            unaligned: scenario.overtakes_after.is_some(),
            aligned_timeout_ms: scenario.overtakes_after.map_or(0, |after| after.as_millis() as u64),
            ..CheckpointConfig::default()
        },
        restart_strategy: RestartStrategy::None,
        warnings: Vec::new(),
    };
    graph.validate().expect("a scenario is a valid job");
    let codes = scenario.edges.iter().map(|edge| match edge.partitioning {
        Partitioning::Forward => EdgeCode::forward::<Item<PADDING>>(),
        Partitioning::Hash => EdgeCode::hash(|item: &Item<PADDING>| item.key),
        Partitioning::Rebalance => EdgeCode::rebalance::<Item<PADDING>>(),
        Partitioning::Rescale => EdgeCode::rescale::<Item<PADDING>>(),
        Partitioning::Broadcast => EdgeCode::broadcast::<Item<PADDING>>(),
        Partitioning::Splits => unreachable!("no scenario has a source with an enumerator"),
    });
    Program {
        graph,
        edges: codes.collect(),
        nodes: builder.nodes,
        exchange: scenario.exchange,
        storages: StorageFactory::default(),
        state: Default::default(),
        // With an alarm in every source, nothing would ever be found to stand still.
        time: TimeSettings { auto_watermark_interval: Duration::ZERO, ..TimeSettings::default() },
    }
}

struct Builder<'a, const PADDING: usize> {
    scenario: &'a Scenario,
    ledger: &'a Arc<Ledger>,
    partitionings: Arc<[Partitioning]>,
    nodes: Vec<Node>,
    /// The position of the last operator before each edge.
    outlets: BTreeMap<usize, u32>,
}

impl<const PADDING: usize> Builder<'_, PADDING> {
    fn vertex(&mut self, number: u32) -> graph::Vertex {
        let scenario = self.scenario;
        let vertex = &scenario.vertices[number as usize];
        let mut chain = Chain { operators: Vec::new(), nodes: &mut self.nodes };
        // What everything else of the vertex is behind.
        let mut head = 0;
        match vertex.source {
            Some(plan) => {
                let (seed, random) = (scenario.seed, Random::new(0));
                let reader = Reader::<PADDING> { seed, vertex: number, plan, random, subtask: 0, next: 0 };
                chain.add(Node::source::<Item<PADDING>>(operators::source(reader)), "source", &[]);
                let strategy = WatermarkStrategy::for_generator(Punctual { seed });
                let watermarks = operators::watermarks::<Item<PADDING>, _, _>(strategy);
                head = chain.operator::<Item<PADDING>>(watermarks, "watermarks", &[0]);
            }
            None => {
                let station = Station {
                    seed: scenario.seed,
                    ledger: Arc::clone(self.ledger),
                    vertex: number,
                    record_cost: vertex.record_cost,
                    partitionings: Arc::clone(&self.partitionings),
                };
                let factory = Arc::new(StationFactory::<PADDING>(Arc::new(station)));
                chain.operator::<Item<PADDING>>(factory, "station", &[]);
            }
        }
        for (number, edge) in scenario.outputs(number) {
            let outlet = chain.outlet::<PADDING>(head, number, edge, self.ledger);
            self.outlets.insert(number, outlet);
        }
        if scenario.is_sink(number) {
            chain.add(Node::sink(operators::sink::<Item<PADDING>, _>(Counter::default())), "sink", &[head]);
        }
        graph::Vertex {
            name: format!("vertex {number}"),
            parallelism: vertex.parallelism,
            max_parallelism: MAX_PARALLELISM,
            slot_sharing_group: vertex.sharing_group.to_string(),
            operators: chain.operators,
        }
    }
}

/// The operators of one vertex.
struct Chain<'a> {
    operators: Vec<graph::Operator>,
    nodes: &'a mut Vec<Node>,
}

impl Chain<'_> {
    /// Appends an operator and returns its position.
    fn add(&mut self, node: Node, name: &str, inputs: &[u32]) -> u32 {
        let number = self.nodes.len() as u32;
        self.nodes.push(node);
        self.operators.push(operator(number, name, inputs));
        self.operators.len() as u32 - 1
    }

    fn operator<T: Record>(&mut self, factory: Arc<dyn OperatorFactory>, name: &str, inputs: &[u32]) -> u32 {
        self.add(Node::operator::<T>(factory), name, inputs)
    }

    /// What happens to the records of an edge before they leave. Returns the position of the last operator.
    fn outlet<const PADDING: usize>(
        &mut self,
        head: u32,
        number: usize,
        edge: &Edge,
        ledger: &Arc<Ledger>,
    ) -> u32 {
        type Pair<const PADDING: usize> = (u64, Item<PADDING>);
        let mut last = head;
        if edge.filters {
            let edge = edge.clone();
            let filter = operators::filter(move |item: &Item<PADDING>| edge.keeps(item.key));
            last = self.operator::<Item<PADDING>>(filter, "filter", &[last]);
        }
        let copying = edge.clone();
        let copies = move |item: Item<PADDING>| item.copies(copying.factors(item.key));
        let copy = if edge.copies == 0 {
            operators::map(move |item| copies(item).next().unwrap_or(item))
        } else {
            operators::flat_map(copies)
        };
        last = self.operator::<Item<PADDING>>(copy, "copy", &[last]);
        if edge.combines {
            let policy =
                if edge.salt.is_multiple_of(2) { CombinePolicy::Always } else { CombinePolicy::WhilePaying };
            let combine = operators::combine_reduce(|item: &Item<PADDING>| item.key, Item::merged, policy);
            last = self.operator::<Pair<PADDING>>(combine, "combine", &[last]);
            let strip = operators::map(|(_, item): Pair<PADDING>| item);
            last = self.operator::<Item<PADDING>>(strip, "strip", &[last]);
        }
        let ledger = Arc::clone(ledger);
        let depart = operators::map(move |item: Item<PADDING>| {
            ledger.departed[number].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            item.departing(number)
        });
        self.operator::<Item<PADDING>>(depart, "depart", &[last])
    }
}
