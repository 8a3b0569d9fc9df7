//! The job graph: what a job's `plan` prints, a job manager schedules and a worker builds.
//!
//! A vertex is a chain of operators that run in one task; an edge is a set of channels between the tasks of two
//! vertices. The graph is data: it is made by the SDK, checked here, and its fingerprint tells whether two processes
//! run the same job.

mod regions;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::{CheckpointConfig, RestartStrategy};
use crate::id::{ChannelId, EdgeId, OperatorId, SubtaskId, VertexId};
use crate::limits::MAX_PARALLELISM;
use crate::schema::Schema;
use crate::ttl::StateTtl;

pub use regions::Regions;

/// The version of the graph's form and of the protocol between a job's binary and the cluster.
pub const PROTOCOL_VERSION: u32 = 1;

/// What the line with the graph starts with that a job's executable prints in plan mode. Other lines are the author's own.
pub const PLAN_PREFIX: &str = "THALWEG-PLAN ";

/// The name of a job whose author gave it none; the cluster replaces it by the binary's name.
pub const UNNAMED_JOB: &str = "Thalweg Streaming Job";

/// A job as a graph of chained operators.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobGraph {
    /// [`PROTOCOL_VERSION`] of the SDK that made it.
    pub protocol_version: u32,
    /// The job's name for people.
    pub name: String,
    /// In topological order: an edge leads from a lower position to a higher one.
    pub vertices: Vec<Vertex>,
    /// All edges. Their order is the order of a vertex's inputs and outputs.
    pub edges: Vec<Edge>,
    /// When and where checkpoints are taken.
    pub checkpointing: CheckpointConfig,
    /// What happens on a failure.
    pub restart_strategy: RestartStrategy,
    /// Warnings for the author, each naming file and line.
    pub warnings: Vec<String>,
}

/// A chain of operators that run in one task per subtask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Vertex {
    /// The operators' names, joined by ` -> `.
    pub name: String,
    /// How many subtasks run it.
    pub parallelism: u32,
    /// The number of key groups; bounds the parallelism for good once there is state.
    pub max_parallelism: u32,
    /// Subtasks of vertices in the same group may share a slot.
    pub slot_sharing_group: String,
    /// Head first. A chain may branch: [`Operator::inputs`] says who feeds whom.
    pub operators: Vec<Operator>,
}

/// One operator of a chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operator {
    /// Its position in the topology as the program declared it; finds its code in a worker.
    pub node: u32,
    /// Its stable name for state.
    pub id: OperatorId,
    /// What the author called it with `uid`, if so.
    pub uid: Option<String>,
    /// Its name for people.
    pub name: String,
    /// `source`, `map`, `process`, `sink`, ...
    pub kind: String,
    /// Where the author declared it: `src/main.rs:12`.
    pub location: String,
    /// Positions in the chain of the operators that feed it; empty for the head, which is fed by edges or is a source.
    pub inputs: Vec<u32>,
    /// The tag of the side output that feeds it inside the chain; nothing for the main output.
    #[serde(default)]
    pub input_tag: Option<String>,
    /// The states it declares.
    pub states: Vec<StateDescriptor>,
    /// The type of its keys, if it has keyed state.
    #[serde(default)]
    pub key_schema: Option<Schema>,
    /// How it keeps time, if that is what it does or it has windows.
    #[serde(default)]
    pub time: Option<TimeDescriptor>,
}

/// How an operator keeps time: what people are told of it, and what the cluster has to know.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TimeDescriptor {
    /// Its watermark strategy or its windows, in words.
    pub words: String,
    /// The time without records behind which a watermark strategy counts as idle, if it does.
    pub idleness_ms: Option<u64>,
    /// With whom the source before it is aligned.
    pub alignment: Option<AlignmentDescriptor>,
}

/// The group of sources that read at about the same time of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlignmentDescriptor {
    /// Its name in the job.
    pub group: String,
    /// How far this source may be ahead of the one that is furthest behind.
    pub max_drift_ms: u64,
    /// How often that is looked at.
    pub update_interval_ms: u64,
}

impl Operator {
    /// Whether watermarks are made here, so that those from before it end.
    pub fn makes_watermarks(&self) -> bool {
        self.kind == "watermarks"
    }

    /// Whether another number of subtasks can go on with all that it remembers.
    pub fn has_parts(&self) -> bool {
        self.states.iter().all(|state| state.kind.has_parts())
    }
}

/// A state that an operator declares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateDescriptor {
    /// Its name, unique in the operator.
    pub name: String,
    /// Its form.
    pub kind: StateKind,
    /// The type of its values.
    pub schema: Schema,
    /// The fingerprint of `schema`.
    pub fingerprint: u64,
    /// How long its values live, if not for ever. They are [`Expiring`](crate::ttl::Expiring) then, in `schema` too.
    #[serde(default)]
    pub ttl: Option<StateTtl>,
}

impl StateDescriptor {
    /// A state whose values live for ever.
    pub fn new(name: impl Into<String>, kind: StateKind, schema: Schema) -> Self {
        Self { name: name.into(), kind, fingerprint: schema.fingerprint(), schema, ttl: None }
    }
}

/// The form of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateKind {
    /// One value per key.
    Value,
    /// A map per key.
    Map,
    /// A position of each subtask of a source, which cannot be divided.
    Source,
    /// A sink's prepared transactions.
    Sink,
    /// A source's splits with their positions.
    Splits,
    /// The times at which the timers of a key fire: a map from times to nothing, kept in the order of the times.
    Timers,
    /// A list per key.
    List,
    /// A value per key that others are combined with.
    Reducing,
    /// An accumulator per key.
    Aggregating,
    /// A list of each subtask of a function, whose elements are dealt when the number of subtasks changes.
    SplitList,
    /// A list of each subtask of a function, of which all subtasks restore the elements of all.
    UnionList,
    /// A map that all subtasks of a function have alike.
    Broadcast,
}

impl StateKind {
    /// Whether it is a state of each key, as opposed to one of each subtask.
    pub fn is_keyed(self) -> bool {
        matches!(
            self,
            Self::Value | Self::Map | Self::Timers | Self::List | Self::Reducing | Self::Aggregating
        )
    }

    /// Whether a key has a map, so that there is a key in it behind the key of an entry.
    pub fn is_map(self) -> bool {
        matches!(self, Self::Map | Self::Timers)
    }

    /// Whether another number of subtasks can go on with it.
    pub fn has_parts(self) -> bool {
        self != Self::Source
    }
}

impl fmt::Display for StateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value => "value",
            Self::Map => "map",
            Self::List => "list",
            Self::Reducing => "reducing",
            Self::Aggregating => "aggregating",
            Self::Source => "source",
            Self::Sink => "sink",
            Self::Splits => "splits",
            Self::SplitList => "split list",
            Self::UnionList => "union list",
            Self::Broadcast => "broadcast",
            Self::Timers => "timers",
        })
    }
}

/// The channels between two vertices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// Who sends.
    pub source: VertexId,
    /// The position in the source's chain of the operator whose output this is.
    pub source_operator: u32,
    /// The tag of the side output that it carries; nothing for the main output.
    #[serde(default)]
    pub tag: Option<String>,
    /// Who receives: the head of this vertex.
    pub target: VertexId,
    /// How records find their channel.
    pub partitioning: Partitioning,
    /// The fingerprint of the record type.
    pub schema_fingerprint: u64,
}

/// How records of an edge find their channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Partitioning {
    /// Subtask i to subtask i.
    Forward,
    /// By the key's group.
    Hash,
    /// Round robin over all.
    Rebalance,
    /// Round robin over the near ones, so that few channels exist.
    Rescale,
    /// To all.
    Broadcast,
    /// From the enumerator of a source to the reader that each record names.
    Splits,
}

/// A graph that cannot run. Each message says what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// The binary speaks another protocol.
    #[error(
        "the job was built for protocol version {found}, this cluster speaks version {}; build it with the cluster's SDK version",
        PROTOCOL_VERSION
    )]
    ProtocolVersion {
        /// The binary's.
        found: u32,
    },
    /// There is nothing to run.
    #[error("the job has no operators; declare a source and a sink")]
    Empty,
    /// A parallelism out of range.
    #[error(
        "{vertex} has parallelism {parallelism}, which must be from 1 to its max parallelism {max_parallelism} (at most {})",
        MAX_PARALLELISM
    )]
    Parallelism {
        /// The vertex's name.
        vertex: String,
        /// As asked for.
        parallelism: u32,
        /// Its bound.
        max_parallelism: u32,
    },
    /// A forward edge between different parallelisms.
    #[error(
        "{source_name} ({source_parallelism} subtasks) cannot forward to {target_name} ({target_parallelism}); use the same parallelism, or rebalance() or rescale() between them"
    )]
    Forward {
        /// Who sends.
        source_name: String,
        /// Its parallelism.
        source_parallelism: u32,
        /// Who receives.
        target_name: String,
        /// Its parallelism.
        target_parallelism: u32,
    },
    /// Two operators with one name for state.
    #[error("two operators have the uid `{uid}`; a uid must be unique in a job")]
    DuplicateUid {
        /// The uid or id.
        uid: String,
    },
    /// A position that does not exist, or an edge that leads backwards.
    #[error("the graph is damaged: {reason}; build the job again with the cluster's SDK version")]
    Damaged {
        /// What is wrong.
        reason: String,
    },
}

impl JobGraph {
    /// Checks everything that scheduling and building rely on.
    ///
    /// # Errors
    /// The first thing found that cannot run.
    pub fn validate(&self) -> Result<(), GraphError> {
        if self.protocol_version != PROTOCOL_VERSION {
            return Err(GraphError::ProtocolVersion { found: self.protocol_version });
        }
        if self.vertices.is_empty() {
            return Err(GraphError::Empty);
        }
        let mut ids = BTreeSet::new();
        for vertex in &self.vertices {
            vertex.validate()?;
            for operator in &vertex.operators {
                if !ids.insert(operator.id) {
                    let uid = operator.uid.clone().unwrap_or_else(|| operator.id.to_string());
                    return Err(GraphError::DuplicateUid { uid });
                }
            }
        }
        self.edges.iter().try_for_each(|edge| self.validate_edge(edge))
    }

    fn validate_edge(&self, edge: &Edge) -> Result<(), GraphError> {
        let damaged = |reason: &str| Err(GraphError::Damaged { reason: reason.to_string() });
        let (Some(source), Some(target)) =
            (self.vertices.get(edge.source as usize), self.vertices.get(edge.target as usize))
        else {
            return damaged("an edge ends at a vertex that does not exist");
        };
        if edge.source >= edge.target {
            return damaged("an edge leads backwards");
        }
        if edge.source_operator as usize >= source.operators.len() {
            return damaged("an edge starts at an operator that does not exist");
        }
        if edge.partitioning == Partitioning::Forward && source.parallelism != target.parallelism {
            return Err(GraphError::Forward {
                source_name: source.name.clone(),
                source_parallelism: source.parallelism,
                target_name: target.name.clone(),
                target_parallelism: target.parallelism,
            });
        }
        Ok(())
    }

    /// A number that differs when vertices, operators, states, edges or settings differ.
    pub fn fingerprint(&self) -> u64 {
        // JSON of structs without maps: the same graph always gives the same text.
        let text = serde_json::to_vec(self).unwrap_or_default();
        xxhash_rust::xxh3::xxh3_64(&text)
    }

    /// All subtasks of all vertices.
    pub fn subtasks(&self) -> impl Iterator<Item = SubtaskId> + '_ {
        (0u32..).zip(&self.vertices).flat_map(|(vertex, vertex_data)| {
            (0..vertex_data.parallelism).map(move |index| SubtaskId { vertex, index })
        })
    }

    /// Whether the vertex starts with a source.
    pub fn is_source(&self, vertex: VertexId) -> bool {
        !self.edges.iter().any(|edge| edge.target == vertex)
    }

    /// The edges into a vertex, in the order of its inputs.
    pub fn inputs(&self, vertex: VertexId) -> impl Iterator<Item = (EdgeId, &Edge)> {
        (0u32..).zip(&self.edges).filter(move |(_, edge)| edge.target == vertex)
    }

    /// The edges out of a vertex, in the order of its outputs.
    pub fn outputs(&self, vertex: VertexId) -> impl Iterator<Item = (EdgeId, &Edge)> {
        (0u32..).zip(&self.edges).filter(move |(_, edge)| edge.source == vertex)
    }

    /// The channels of an edge that leave the source's subtask `from`, by receiver.
    pub fn channels_from(&self, edge: EdgeId, from: u32) -> Vec<ChannelId> {
        self.channels(edge).filter(|channel| channel.from == from).collect()
    }

    /// The channels of an edge that reach the target's subtask `to`, by sender.
    pub fn channels_to(&self, edge: EdgeId, to: u32) -> Vec<ChannelId> {
        self.channels(edge).filter(|channel| channel.to == to).collect()
    }

    /// All channels of an edge, by sender, then receiver.
    pub fn channels(&self, edge: EdgeId) -> impl Iterator<Item = ChannelId> + '_ {
        let data = self.edges.get(edge as usize);
        let parallelism =
            |vertex: VertexId| self.vertices.get(vertex as usize).map_or(0, |vertex| vertex.parallelism);
        let (sources, targets) =
            data.map_or((0, 0), |data| (parallelism(data.source), parallelism(data.target)));
        let partitioning = data.map_or(Partitioning::Forward, |data| data.partitioning);
        (0..sources).flat_map(move |from| {
            (0..targets)
                .filter(move |to| connects(partitioning, from, sources, *to, targets))
                .map(move |to| ChannelId { edge, from, to })
        })
    }
}

/// Whether a channel leads from one subtask to the other.
fn connects(partitioning: Partitioning, from: u32, sources: u32, to: u32, targets: u32) -> bool {
    match partitioning {
        Partitioning::Forward => from == to,
        // Each subtask of the smaller side serves a contiguous share of the larger one.
        Partitioning::Rescale if sources <= targets => share_of(to, targets, sources) == from,
        Partitioning::Rescale => share_of(from, sources, targets) == to,
        Partitioning::Hash | Partitioning::Rebalance | Partitioning::Broadcast | Partitioning::Splits => true,
    }
}

fn share_of(index: u32, of: u32, shares: u32) -> u32 {
    (u64::from(index) * u64::from(shares) / u64::from(of.max(1))) as u32
}

impl Vertex {
    fn validate(&self) -> Result<(), GraphError> {
        let bound = self.max_parallelism.min(MAX_PARALLELISM);
        if self.parallelism == 0 || self.parallelism > bound {
            return Err(GraphError::Parallelism {
                vertex: self.name.clone(),
                parallelism: self.parallelism,
                max_parallelism: self.max_parallelism,
            });
        }
        if self.operators.is_empty() {
            return Err(GraphError::Damaged { reason: format!("{} has no operators", self.name) });
        }
        for (position, operator) in (0u32..).zip(&self.operators) {
            let fed_by_edges = operator.inputs.is_empty();
            if fed_by_edges != (position == 0) || operator.inputs.iter().any(|input| *input >= position) {
                return Err(GraphError::Damaged {
                    reason: format!("{} is not chained to its head", operator.name),
                });
            }
        }
        Ok(())
    }
}
