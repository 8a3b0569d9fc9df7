//! Builds the chain of one subtask, from its last operator to its head.
//!
//! Invariant: whatever the graph and the program disagree about is a failure that names the operator or the edge; a
//! chain that was built moves records of the right type along every one of its links.

use std::collections::BTreeMap;
use std::sync::Arc;

use thalweg_common::clock::SharedClock;
use thalweg_common::failure::Failure;
use thalweg_common::graph::{Edge, Operator, Partitioning, Vertex};
use thalweg_common::id::{Attempt, EdgeId, JobId, OperatorId, SubtaskId};
use thalweg_common::key_group::groups_of;
use tokio::runtime::Handle;

use crate::edge::{KeptOpen, SendingEnd};
use crate::erased::{AnyLink, AnyReceiver, AnySender, mismatch};
use crate::exchange::{Note, TaskWaker};
use crate::in_flight::{self, Overtakes, Restored};
use crate::io::Io;
use crate::metrics::Flow;
use crate::operator::{OpenContext, OperatorMetrics};
use crate::program::{Calls, EdgeCode, Head, Node, NodeCode, OperatorContext, Program, SplitWires};
use crate::record_type::{ReceivingEnd, RecordType};
use crate::side_output::SideOutputs;
use crate::snapshot::{OperatorSnapshot, TaskSnapshot};
use crate::stores::TaskStores;
use crate::task::counters::Counters;
use crate::time::splits::SharedSplits;

/// A timer of processing time fires behind its millisecond: within it records may still come, as they may until a watermark says
/// otherwise.
const TIMER_DELAY_MS: i64 = 1;

/// What a subtask is built from, beside the program.
pub(crate) struct ChainParts {
    pub(crate) job_id: JobId,
    pub(crate) attempt: Attempt,
    pub(crate) subtask: SubtaskId,
    pub(crate) is_local: bool,
    pub(crate) clock: SharedClock,
    pub(crate) waker: TaskWaker,
    /// The runtime whose sockets and timers user code may use.
    pub(crate) runtime: Option<Handle>,
    pub(crate) counters: Counters,
    /// Where its operators keep their state.
    pub(crate) stores: TaskStores,
    /// What the checkpoint holds of this subtask; several after a change of parallelism.
    pub(crate) restored: Vec<TaskSnapshot>,
    /// The channels of all edges into the subtask.
    pub(crate) receivers: Vec<AnyReceiver>,
    /// The channels of each edge out of the subtask, in the order of their receivers.
    pub(crate) senders: BTreeMap<EdgeId, Vec<AnySender>>,
    /// Keeps the channels open, also when the chain could not be built. Filled while it is built.
    pub(crate) kept_open: Vec<KeptOpen>,
}

/// Builds the chain and opens its operators. All channels stay open as long as `parts` lives, whatever happens.
///
/// # Errors
/// An operator that cannot be opened or restored, or a graph that does not fit the program.
pub(crate) fn build(program: &Program, parts: &mut ChainParts) -> Result<Box<dyn Head>, Failure> {
    let Some(vertex) = program.graph.vertices.get(parts.subtask.vertex as usize) else {
        return Err(damaged(format!("there is no vertex {}", parts.subtask.vertex)));
    };
    let found = parts.restored.iter_mut().map(|snapshot| std::mem::take(&mut snapshot.in_flight));
    let mut in_flight = in_flight::divide(program, parts.subtask, found)?;
    let overtakes = overtakes(program, parts);
    let mut builder = Builder {
        program,
        vertex,
        parts,
        links: BTreeMap::new(),
        overtakes,
        in_flight: &mut in_flight,
        splits: SharedSplits::default(),
        notes: Vec::new(),
        flows: BTreeMap::new(),
    };
    for position in (1..vertex.operators.len()).rev() {
        builder.build_link(position)?;
    }
    let head = builder.build_head()?;
    builder.check_leftovers()?;
    Ok(head)
}

struct Builder<'a> {
    program: &'a Program,
    vertex: &'a Vertex,
    parts: &'a mut ChainParts,
    /// Operators that are built and not connected yet, by the position of the operator that feeds them and the tag of its output.
    links: BTreeMap<OutputId, Vec<AnyLink>>,
    overtakes: Option<Overtakes>,
    /// Records on their way, to be restored.
    in_flight: &'a mut Restored,
    /// What a source at the head tells of its splits.
    splits: SharedSplits,
    /// What the readers of an enumerator say.
    notes: Vec<Note>,
    /// What flows from each output of each operator.
    flows: BTreeMap<OutputId, Arc<Flow>>,
}

/// The position of an operator, and the tag of its output.
type OutputId = (u32, Option<String>);

impl<'a> Builder<'a> {
    /// Builds an operator behind the head.
    fn build_link(&mut self, position: usize) -> Result<(), Failure> {
        let (operator, node) = self.operator(position)?;
        let [feeder] = operator.inputs[..] else {
            let inputs = operator.inputs.len();
            return Err(damaged(format!(
                "`{}` has {inputs} inputs inside a chain instead of one",
                operator.name
            )));
        };
        let link = self.operator_link(position, operator, node)?;
        // Built from the last to the first, but fed in the order of the graph.
        let output = (feeder, operator.input_tag.clone());
        self.links.entry(output).or_default().insert(0, link);
        Ok(())
    }

    fn build_head(&mut self) -> Result<Box<dyn Head>, Failure> {
        let (operator, node) = self.operator(0)?;
        let inputs: Vec<(EdgeId, &Edge)> = self.program.graph.inputs(self.parts.subtask.vertex).collect();
        match (&node.code, inputs.first()) {
            (NodeCode::Source(factory), input) => {
                let next = self
                    .next(0, operator, node)?
                    .ok_or_else(|| damaged(format!("the source `{}` has no output", operator.name)))?;
                let side_outputs = self.side_outputs(0, operator, node)?;
                let mut context = self.context(0, operator);
                context.side_outputs = side_outputs;
                context.wires.notes = std::mem::take(&mut self.notes);
                if let Some((_, edge)) = input {
                    if edge.partitioning != Partitioning::Splits || inputs.len() > 1 {
                        return Err(damaged(format!("the source `{}` has inputs", operator.name)));
                    }
                    let end = ReceivingEnd { debloat_target: None, ..self.receiving_end() };
                    context.wires.input = Some((end, std::mem::take(&mut self.parts.receivers)));
                }
                factory.build(&mut context, next)
            }
            (NodeCode::Operator(_), Some((first, _))) => {
                let record_type = self.edge(*first)?.record_type.clone();
                for (id, _) in &inputs {
                    let other = &self.edge(*id)?.record_type;
                    same_type(&record_type, other, format_args!("the inputs of `{}`", operator.name))?;
                }
                let link = self.operator_link(0, operator, node)?;
                let end = self.receiving_end();
                let receivers = std::mem::take(&mut self.parts.receivers);
                let head = record_type.operations().gate(&end, receivers, link);
                head.map_err(|failure| failure.context(&operator.name))
            }
            (NodeCode::Operator(_), None) => {
                Err(damaged(format!("`{}` is no source and has no inputs", operator.name)))
            }
        }
    }

    fn receiving_end(&mut self) -> ReceivingEnd {
        ReceivingEnd {
            checkpoint_mode: self.program.graph.checkpointing.mode,
            waker: self.parts.waker.clone(),
            clock: self.parts.clock.clone(),
            counters: self.parts.counters.clone(),
            debloat_target: self.program.exchange.debloat_target,
            overtakes: self.overtakes.clone(),
            restored: std::mem::take(&mut self.in_flight.inputs),
        }
    }

    fn operator_link(
        &mut self,
        position: usize,
        operator: &Operator,
        node: &Node,
    ) -> Result<AnyLink, Failure> {
        let NodeCode::Operator(factory) = &node.code else {
            return Err(damaged(format!("the source `{}` is not at the head of its chain", operator.name)));
        };
        let next = self.next(position, operator, node)?;
        let side_outputs = self.side_outputs(position, operator, node)?;
        let mut context = self.context(position, operator);
        context.side_outputs = side_outputs;
        let link = factory.build(&mut context, next)?;
        if context.side_outputs.is_empty() {
            Ok(link)
        } else {
            Err(damaged(format!("`{}` emits to no side outputs and something reads one", operator.name)))
        }
    }

    /// The link to everything that reads the operator's main output.
    fn next(
        &mut self,
        position: usize,
        operator: &Operator,
        node: &Node,
    ) -> Result<Option<AnyLink>, Failure> {
        let links = self.links_behind(position, None, operator, node.output.as_ref())?;
        match &node.output {
            Some(output) => {
                let flow = self.flow((position as u32, None));
                output.operations().fan_out(links, flow).map(Some)
            }
            None if links.is_empty() => Ok(None),
            None => Err(damaged(format!(
                "`{}` has no output and something is connected behind it",
                operator.name
            ))),
        }
    }

    /// The operator's side outputs that something reads.
    fn side_outputs(
        &mut self,
        position: usize,
        operator: &Operator,
        node: &Node,
    ) -> Result<SideOutputs, Failure> {
        let mut outputs = Vec::new();
        for (tag, record_type) in &node.side_outputs {
            let links = self.links_behind(position, Some(tag.name), operator, Some(record_type))?;
            if !links.is_empty() {
                let flow = self.flow((position as u32, Some(tag.name.to_string())));
                outputs.push(record_type.operations().side_output(*tag, links, flow)?);
            }
        }
        let edges = self.program.graph.outputs(self.parts.subtask.vertex).map(|(_, edge)| edge);
        let edges = edges.filter(|edge| edge.source_operator == position as u32).map(|edge| &edge.tag);
        let chained = self.links.keys().filter(|(feeder, _)| *feeder == position as u32).map(|(_, tag)| tag);
        let is_known = |tag: &String| node.side_outputs.iter().any(|(known, _)| known.name == tag);
        match edges.chain(chained).flatten().find(|tag| !is_known(tag)) {
            None => Ok(SideOutputs::new(outputs)),
            Some(tag) => Err(damaged(format!("`{}` has no side output `{tag}`", operator.name))),
        }
    }

    /// Everything behind one output of an operator: chained operators first, then edges.
    fn links_behind(
        &mut self,
        position: usize,
        tag: Option<&str>,
        operator: &Operator,
        record_type: Option<&RecordType>,
    ) -> Result<Vec<AnyLink>, Failure> {
        let position = position as u32;
        let mut links = self.links.remove(&(position, tag.map(str::to_string))).unwrap_or_default();
        let program = self.program;
        for (id, edge) in program.graph.outputs(self.parts.subtask.vertex) {
            if edge.source_operator == position && edge.tag.as_deref() == tag {
                links.push(self.output(id, edge, operator, record_type)?);
            }
        }
        Ok(links)
    }

    fn output(
        &mut self,
        id: EdgeId,
        edge: &Edge,
        operator: &Operator,
        record_type: Option<&RecordType>,
    ) -> Result<AnyLink, Failure> {
        let code = self.edge(id)?;
        if code.partitioning != edge.partitioning {
            let (planned, found) = (edge.partitioning, code.partitioning);
            let message =
                format!("an edge behind `{}` is {planned:?} in the plan and {found:?} here", operator.name);
            return Err(damaged(message));
        }
        if let Some(output) = record_type {
            same_type(output, &code.source_type, format_args!("the output of `{}`", operator.name))?;
        }
        let target = self.program.graph.vertices.get(edge.target as usize);
        let target =
            target.ok_or_else(|| damaged(format!("an edge behind `{}` leads nowhere", operator.name)))?;
        let end = SendingEnd {
            subtask_index: self.parts.subtask.index,
            target_max_parallelism: target.max_parallelism,
            waker: self.parts.waker.clone(),
            counters: self.parts.counters.clone(),
            overtakes: self.overtakes.clone(),
            restored: self.in_flight.outputs.remove(&id).unwrap_or_default(),
        };
        let senders = self.parts.senders.remove(&id).unwrap_or_default();
        let (link, kept_open) =
            code.output(&end, senders).map_err(|failure| failure.context(&operator.name))?;
        self.notes.extend(kept_open.notes.iter().cloned());
        self.parts.kept_open.push(kept_open);
        Ok(link)
    }

    /// What flows from an output.
    fn flow(&mut self, output: OutputId) -> Arc<Flow> {
        Arc::clone(self.flows.entry(output).or_default())
    }

    /// What the operator in this place counts. Its outputs have been built.
    fn metrics(&mut self, position: usize, operator: &Operator) -> OperatorMetrics {
        let position = position as u32;
        let feeder = operator.inputs.first().filter(|_| position > 0);
        let input = feeder.map(|feeder| self.flow((*feeder, operator.input_tag.clone())));
        let outputs = self.flows.iter().filter(|((of, _), _)| *of == position);
        let outputs = outputs.map(|(_, flow)| Arc::clone(flow)).collect();
        let metrics = self.parts.counters.operator_metrics(position, &operator.name);
        metrics.set_flows(input, outputs);
        metrics
    }

    fn context(&mut self, position: usize, operator: &Operator) -> OperatorContext {
        let metrics = self.metrics(position, operator);
        let splits = self.is_at_source(operator).then(|| self.splits.clone());
        let is_by_hand = self.program.time.is_by_hand;
        let calls = if is_by_hand { Calls::InTurn } else { Calls::OnThread };
        let (parts, vertex) = (&mut *self.parts, self.vertex);
        let open = OpenContext {
            job_id: parts.job_id,
            job_name: self.program.graph.name.clone(),
            attempt: parts.attempt,
            operator_id: operator.id,
            operator_name: operator.name.clone(),
            subtask_index: parts.subtask.index,
            parallelism: vertex.parallelism,
            max_parallelism: vertex.max_parallelism,
            is_local: parts.is_local,
            clock: parts.clock.clone(),
            metrics,
            io: Io::new(parts.waker.clone(), parts.runtime.clone()),
            storages: self.program.storages.clone(),
        };
        OperatorContext {
            open,
            owned: groups_of(parts.subtask.index, vertex.parallelism, vertex.max_parallelism),
            restored: take_restored(&mut parts.restored, operator.id),
            side_outputs: SideOutputs::default(),
            checkpoint_mode: self.program.graph.checkpointing.mode,
            counters: parts.counters.clone(),
            stores: parts.stores.clone(),
            timer_delay_ms: if is_by_hand { 0 } else { TIMER_DELAY_MS },
            debloat_target: self.program.exchange.debloat_target,
            time: self.program.time,
            splits,
            wires: SplitWires { calls, ..SplitWires::none(parts.waker.clone()) },
        }
    }

    /// Whether it is the source at the head, or takes its batches as they are.
    fn is_at_source(&self, operator: &Operator) -> bool {
        let head = self.vertex.operators.first();
        let node = head.and_then(|head| self.program.nodes.get(head.node as usize));
        let begins = matches!(node.map(|node| &node.code), Some(NodeCode::Source(_)));
        begins && (operator.inputs == [0] || head.is_some_and(|head| head.id == operator.id))
    }

    fn operator(&self, position: usize) -> Result<(&'a Operator, &'a Node), Failure> {
        let Some(operator) = self.vertex.operators.get(position) else {
            return Err(damaged(format!("`{}` has no operators", self.vertex.name)));
        };
        let node = self.program.nodes.get(operator.node as usize);
        node.map(|node| (operator, node)).ok_or_else(|| damaged(format!("`{}` has no code", operator.name)))
    }

    fn edge(&self, id: EdgeId) -> Result<&'a EdgeCode, Failure> {
        self.program.edges.get(id as usize).ok_or_else(|| damaged(format!("edge {id} has no code")))
    }

    /// State that no operator of the job asks for would be lost without a word. At another parallelism operators may be in other
    /// chains than those that took the snapshots: then another task asks for it.
    fn check_leftovers(&self) -> Result<(), Failure> {
        let mut left = self.parts.restored.iter().flat_map(|snapshot| snapshot.operators.keys());
        let operators = || self.program.graph.vertices.iter().flat_map(|vertex| &vertex.operators);
        match left.find(|id| !operators().any(|operator| operator.id == **id)) {
            None if *self.in_flight == Restored::default() => Ok(()),
            None => Err(Failure::internal(format!(
                "the checkpoint of `{}` holds records on their way over edges that it does not have",
                self.vertex.name
            ))),
            Some(operator) => Err(Failure::internal(format!(
                "the checkpoint of `{}` holds state of an operator {operator} which is not part of the job",
                self.vertex.name
            ))),
        }
    }
}

/// Whether and when barriers overtake.
fn overtakes(program: &Program, parts: &ChainParts) -> Option<Overtakes> {
    let after = program.graph.checkpointing.overtakes_after()?;
    Some(Overtakes { after, clock: Arc::clone(&parts.clock) })
}

fn take_restored(restored: &mut [TaskSnapshot], operator: OperatorId) -> Vec<OperatorSnapshot> {
    restored.iter_mut().filter_map(|snapshot| snapshot.operators.remove(&operator)).collect()
}

fn same_type(one: &RecordType, other: &RecordType, place: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    if one.name() == other.name() {
        Ok(())
    } else {
        Err(mismatch("an edge", other.name(), one.name()).context(place))
    }
}

/// The graph and the program do not fit each other.
fn damaged(what: String) -> Failure {
    let message = format!(
        "{what}: the job's graph and its code differ; build the job again with one version of thalweg"
    );
    Failure::internal(message).permanent()
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
