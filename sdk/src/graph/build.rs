//! From declared operators to the job graph: settings are resolved, wrong declarations refused, chains formed. Pure.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_common::config::{CheckpointConfig, Configuration, RestartStrategy, keys};
use thalweg_common::graph::{Edge, JobGraph, Operator, PROTOCOL_VERSION, Partitioning, StateKind, Vertex};
use thalweg_common::id::OperatorId;
use thalweg_common::key_group::{default_max_parallelism, key_hash};
use thalweg_common::limits::{MAX_JOB_NAME_BYTES, MAX_OPERATOR_NAME_BYTES, MAX_OPERATORS, MAX_PARALLELISM};

use super::chain::{self, Resolved};
use super::{ENUMERATOR, NodeSpec, Place};
use crate::error::{Error, Result};

/// The group that operators are in unless they or their inputs are in another, as in Flink.
const DEFAULT_SLOT_SHARING_GROUP: &str = "default";

/// The graph, and where its edges come from.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) graph: JobGraph,
    /// For each edge of the graph the declared operator and the position among its inputs.
    pub(crate) edges: Vec<(usize, usize)>,
}

/// Builds the graph of the declared operators under the given settings. `default_name` is the job's when the settings
/// have none.
///
/// # Errors
/// The first declaration that cannot run, with its file and line.
pub(crate) fn build(nodes: &[NodeSpec], configuration: &Configuration, default_name: &str) -> Result<Built> {
    check_names(nodes)?;
    if nodes.iter().all(|node| node.has_output) {
        return Err(Error::new(
            "the job has no sink, so it would do nothing: add .print() or .sink(..) to a stream",
        ));
    }
    let resolved = resolve(nodes, configuration)?;
    let enabled = configuration.boolean(&keys::PIPELINE_OPERATOR_CHAINING).unwrap_or(true);
    let heads = chain::heads(nodes, &resolved, enabled);
    check_alignment(nodes, &heads)?;
    let checkpointing = CheckpointConfig::from_configuration(configuration)?;
    let (vertices, slots) = vertices(nodes, &resolved, &heads);
    let (edges, origins) = edges(nodes, &resolved, &heads, &slots);
    let graph = JobGraph {
        protocol_version: PROTOCOL_VERSION,
        name: job_name(configuration, default_name)?,
        vertices,
        edges,
        warnings: warnings(nodes, checkpointing.is_enabled()),
        restart_strategy: RestartStrategy::from_configuration(configuration)?,
        checkpointing,
    };
    graph.validate()?;
    Ok(Built { graph, edges: origins })
}

fn job_name(configuration: &Configuration, default_name: &str) -> Result<String> {
    let name = configuration.text(&keys::PIPELINE_NAME).unwrap_or(default_name);
    if name.len() > MAX_JOB_NAME_BYTES {
        return Err(Error::new(format!(
            "the job's name is longer than {MAX_JOB_NAME_BYTES} bytes; choose a shorter one"
        )));
    }
    Ok(name.to_string())
}

fn check_names(nodes: &[NodeSpec]) -> Result<()> {
    if nodes.len() > MAX_OPERATORS {
        return Err(Error::new(format!(
            "the job has more than {MAX_OPERATORS} operators; split it into several jobs"
        )));
    }
    let mut uids: BTreeMap<&str, Place> = BTreeMap::new();
    for node in nodes {
        let names = [Some(node.name.as_str()), node.uid.as_deref()];
        if names.into_iter().flatten().any(|name| name.is_empty() || name.len() > MAX_OPERATOR_NAME_BYTES) {
            let message = format!("a name or uid has from 1 to {MAX_OPERATOR_NAME_BYTES} bytes");
            return Err(Error::at(node.place, message));
        }
        if let Some(uid) = &node.uid
            && let Some(first) = uids.insert(uid, node.place)
        {
            let message =
                format!("the uid `{uid}` is already that of the operator at {first}; give each its own");
            return Err(Error::at(node.place, message));
        }
    }
    Ok(())
}

/// Who is aligned with other sources pauses the source, so it must stand directly behind it, in its task; and a source goes by one group.
fn check_alignment(nodes: &[NodeSpec], heads: &[usize]) -> Result<()> {
    let mut aligned: BTreeMap<usize, &NodeSpec> = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate() {
        let Some(alignment) = node.time.as_ref().and_then(|time| time.alignment.as_ref()) else { continue };
        let behind = node.inputs.first().map(|edge| edge.from).filter(|_| node.inputs.len() == 1);
        let is_source = |from: &usize| {
            let before = nodes.get(*from);
            before.is_some_and(|before| before.inputs.is_empty() || before.enumerator().is_some())
        };
        let source = behind.filter(|from| is_source(from) && heads.get(index) == Some(from));
        let Some(source) = source else {
            let message = format!(
                "the strategy of {} is aligned with the group `{}`, so it must stand directly behind a source and in its task: call \
                 watermarks() on the source's stream, with nothing between and with chaining enabled",
                node.name, alignment.group
            );
            return Err(Error::at(node.place, message));
        };
        if let Some(other) = aligned.insert(source, node) {
            let message = format!(
                "the source is aligned at {} already; give it one strategy with alignment",
                other.place
            );
            return Err(Error::at(node.place, message));
        }
    }
    Ok(())
}

/// Decides parallelism, key groups, slot sharing group and partitioning of every operator.
fn resolve(nodes: &[NodeSpec], configuration: &Configuration) -> Result<Vec<Resolved>> {
    let number = |key| configuration.integer(key).and_then(|number| u32::try_from(number).ok());
    let (parallelism, max_parallelism) =
        (number(&keys::PARALLELISM_DEFAULT).unwrap_or(1), number(&keys::PIPELINE_MAX_PARALLELISM));
    let mut all: Vec<Resolved> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let followed = node.inputs.first().filter(|_| node.is_combiner).and_then(|edge| all.get(edge.from));
        let parallelism = followed.map_or(node.parallelism.unwrap_or(parallelism), |input| input.parallelism);
        let max_parallelism = followed
            .map(|input| input.max_parallelism)
            .or(node.max_parallelism)
            .or(max_parallelism)
            .unwrap_or_else(|| default_max_parallelism(parallelism.min(MAX_PARALLELISM)));
        if parallelism == 0 || parallelism > max_parallelism.min(MAX_PARALLELISM) {
            let message = format!(
                "{} has parallelism {parallelism}; it must be from 1 to the max parallelism, which is {}",
                node.name,
                max_parallelism.min(MAX_PARALLELISM)
            );
            return Err(Error::at(node.place, message));
        }
        let slot_sharing_group = slot_sharing_group(node, &all);
        let mut resolved =
            Resolved { parallelism, max_parallelism, slot_sharing_group, partitionings: Vec::new() };
        for (input, edge) in node.inputs.iter().enumerate() {
            let senders = all.get(edge.from).map_or(parallelism, |sender| sender.parallelism);
            let partitioning = edge.partitioning.unwrap_or_else(|| by_parallelism(senders, parallelism));
            if partitioning == Partitioning::Forward && senders != parallelism {
                return Err(wrong_forward(nodes, node, input, senders, parallelism));
            }
            resolved.partitionings.push(partitioning);
        }
        all.push(resolved);
    }
    Ok(all)
}

/// Without a word of the author records stay where they are, or are spread if that is not possible.
fn by_parallelism(senders: u32, receivers: u32) -> Partitioning {
    if senders == receivers { Partitioning::Forward } else { Partitioning::Rebalance }
}

/// Its own, or the one that all its inputs are in.
fn slot_sharing_group(node: &NodeSpec, before: &[Resolved]) -> String {
    if let Some(group) = &node.slot_sharing_group {
        return group.clone();
    }
    let groups: BTreeSet<&str> = node
        .inputs
        .iter()
        .filter_map(|edge| before.get(edge.from))
        .map(|input| input.slot_sharing_group.as_str())
        .collect();
    match (groups.first(), groups.len()) {
        (Some(group), 1) => (*group).to_string(),
        _ => DEFAULT_SLOT_SHARING_GROUP.to_string(),
    }
}

fn wrong_forward(nodes: &[NodeSpec], node: &NodeSpec, input: usize, senders: u32, receivers: u32) -> Error {
    let edge = node.inputs.get(input);
    let sender = edge.and_then(|edge| nodes.get(edge.from));
    let (sender_name, sender_place) =
        sender.map_or(("its input", node.place), |sender| (&sender.name, sender.place));
    let message = format!(
        "forward() cannot connect {sender_name} ({senders} subtasks, {sender_place}) with {} ({receivers} subtasks, {}): \
         use the same parallelism, or rebalance() or rescale() in place of forward()",
        node.name, node.place
    );
    Error::at(edge.map_or(node.place, |edge| edge.place), message)
}

/// The vertices in the order of their heads, and for each operator its vertex and its position in the chain.
fn vertices(nodes: &[NodeSpec], resolved: &[Resolved], heads: &[usize]) -> (Vec<Vertex>, Vec<(u32, u32)>) {
    let mut vertices: Vec<Vertex> = Vec::new();
    let mut slots: Vec<(u32, u32)> = Vec::with_capacity(nodes.len());
    let ids = operator_ids(nodes);
    for (index, ((node, resolved), head)) in nodes.iter().zip(resolved).zip(heads).enumerate() {
        let is_head = *head == index;
        if is_head {
            vertices.push(Vertex {
                name: String::new(),
                parallelism: resolved.parallelism,
                max_parallelism: resolved.max_parallelism,
                slot_sharing_group: resolved.slot_sharing_group.clone(),
                operators: Vec::new(),
            });
        }
        let position =
            if is_head { vertices.len() - 1 } else { slots.get(*head).map_or(0, |slot| slot.0 as usize) };
        let Some(vertex) = vertices.get_mut(position) else { continue };
        let feeders = node.inputs.iter().filter(|_| !is_head).filter_map(|edge| slots.get(edge.from));
        let operator = Operator {
            node: index as u32,
            id: ids.get(index).copied().unwrap_or(OperatorId(0)),
            uid: node.uid.clone(),
            name: node.name.clone(),
            kind: node.kind.to_string(),
            location: node.place.to_string(),
            inputs: feeders.map(|slot| slot.1).collect(),
            input_tag: node.inputs.first().filter(|_| !is_head).and_then(|edge| edge.tag.map(str::to_string)),
            states: node.states.clone(),
            key_schema: node.key_schema.clone(),
            time: node.time.clone(),
        };
        slots.push((position as u32, vertex.operators.len() as u32));
        if !is_head {
            vertex.name.push_str(" -> ");
        }
        vertex.name.push_str(&node.name);
        vertex.operators.push(operator);
    }
    (vertices, slots)
}

/// The edges between vertices, and where each was declared.
fn edges(
    nodes: &[NodeSpec],
    resolved: &[Resolved],
    heads: &[usize],
    slots: &[(u32, u32)],
) -> (Vec<Edge>, Vec<(usize, usize)>) {
    let (mut edges, mut origins) = (Vec::new(), Vec::new());
    for (index, (node, resolved)) in nodes.iter().zip(resolved).enumerate() {
        if heads.get(index) != Some(&index) {
            continue;
        }
        for (input, (edge, partitioning)) in node.inputs.iter().zip(&resolved.partitionings).enumerate() {
            let (Some(source), Some(target)) = (slots.get(edge.from), slots.get(index)) else { continue };
            edges.push(Edge {
                source: source.0,
                source_operator: source.1,
                tag: edge.tag.map(str::to_string),
                target: target.0,
                partitioning: *partitioning,
                schema_fingerprint: edge.schema_fingerprint,
            });
            origins.push((index, input));
        }
    }
    (edges, origins)
}

/// The stable names of the operators: by uid; sources and sinks that the author named by that name; others by their
/// place in the topology, in which combiners and enumerators do not count.
fn operator_ids(nodes: &[NodeSpec]) -> Vec<OperatorId> {
    let hash = |words: (&str, &str, u32)| {
        OperatorId(key_hash(&(words.0.to_string(), words.1.to_string(), words.2), &mut Vec::new()))
    };
    let mut place = 0;
    let ids = nodes.iter().zip(1u32..).map(|(node, number)| {
        place += u32::from(!node.is_combiner && node.kind != ENUMERATOR);
        match &node.uid {
            Some(uid) => hash(("uid", uid, 0)),
            None if is_found_by_name(nodes, node) => hash((node.kind, &node.name, 0)),
            None if node.is_combiner => hash((node.kind, &node.name, number)),
            None => hash((node.kind, &node.name, place)),
        }
    });
    ids.collect()
}

/// A source or sink has no uid in most jobs, but a name, and that is as good if no other has it.
fn is_found_by_name(nodes: &[NodeSpec], node: &NodeSpec) -> bool {
    let is_end = node.inputs.is_empty() || node.enumerator().is_some() || !node.has_output;
    let same = |other: &&NodeSpec| (other.kind, &other.name) == (node.kind, &node.name);
    is_end && node.is_named && nodes.iter().filter(same).count() == 1
}

fn warnings(nodes: &[NodeSpec], checkpoints: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    let used: BTreeSet<usize> = nodes.iter().flat_map(|node| &node.inputs).map(|edge| edge.from).collect();
    for (index, node) in nodes.iter().enumerate() {
        let is_found_by_uid = |kind| !matches!(kind, StateKind::Source | StateKind::Sink | StateKind::Splits);
        let has_state = node.states.iter().any(|state| is_found_by_uid(state.kind));
        if checkpoints && has_state && node.uid.is_none() {
            warnings.push(format!(
                "{}: {} has state but no uid: a changed job will not find it again; add .uid(\"...\")",
                node.place, node.name
            ));
        }
        if node.has_output && !used.contains(&index) {
            warnings.push(format!("{}: nothing reads the output of {}", node.place, node.name));
        }
    }
    warnings
}
