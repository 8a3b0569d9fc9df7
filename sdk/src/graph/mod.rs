//! The topology as the program declared it, as data: what `plan`, chaining and checks work on. No user code in here.
//!
//! A job's way from text to tasks: declared ([`NodeSpec`]s, one per call such as `map` or `sink`) -> chained
//! ([`chain`]) -> [`JobGraph`](thalweg_common::graph::JobGraph) ([`build`]). All of it is pure, so that plan and
//! workers, which run the same program, come to the same graph.

pub(crate) mod build;
mod chain;
#[cfg(test)]
mod tests;

use std::fmt;
use std::panic::Location;

use thalweg_common::graph::{Partitioning, StateDescriptor, StateKind, TimeDescriptor};
use thalweg_common::limits::MAX_OPERATOR_NAME_BYTES;
use thalweg_common::schema::Schema;
use thalweg_runtime::operator_state::OperatorStates;

/// Where the author wrote something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: &'static str,
    pub(crate) line: u32,
}

impl Place {
    /// Where the function that called this one was called. Only for functions with `#[track_caller]`.
    #[track_caller]
    pub(crate) fn caller() -> Self {
        let location = Location::caller();
        Self { file: location.file(), line: location.line() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Whether an operator may run in one task with its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Chaining {
    /// With both.
    #[default]
    Always,
    /// With those behind it only.
    Head,
    /// With none.
    Never,
}

/// One operator as declared. Its position in the list of all is its number.
#[derive(Debug, Clone)]
pub(crate) struct NodeSpec {
    /// `source`, `map`, `process`, `sink`, ...
    pub(crate) kind: &'static str,
    /// The author's name for it, or one that follows from the kind.
    pub(crate) name: String,
    /// Whether the name is the author's.
    pub(crate) is_named: bool,
    pub(crate) uid: Option<String>,
    pub(crate) parallelism: Option<u32>,
    pub(crate) max_parallelism: Option<u32>,
    pub(crate) slot_sharing_group: Option<String>,
    pub(crate) chaining: Chaining,
    pub(crate) place: Place,
    /// Empty for a source.
    pub(crate) inputs: Vec<EdgeSpec>,
    pub(crate) states: Vec<StateDescriptor>,
    /// The type of its keys, if its state is keyed.
    pub(crate) key_schema: Option<Schema>,
    /// How it keeps time.
    pub(crate) time: Option<TimeDescriptor>,
    /// Whether it has an output that somebody should read.
    pub(crate) has_output: bool,
    /// Whether it may emit to side outputs.
    pub(crate) has_side_outputs: bool,
    /// Whether it is the local stage of an aggregation: nobody has declared it, so it runs as its only input does and
    /// counts in no one's place.
    pub(crate) is_combiner: bool,
}

impl NodeSpec {
    /// An operator with nothing set.
    pub(crate) fn new(kind: &'static str, name: &str, place: Place) -> Self {
        Self {
            kind,
            name: name.to_string(),
            is_named: false,
            uid: None,
            parallelism: None,
            max_parallelism: None,
            slot_sharing_group: None,
            chaining: Chaining::default(),
            place,
            inputs: Vec::new(),
            states: Vec::new(),
            key_schema: None,
            time: None,
            has_output: true,
            has_side_outputs: false,
            is_combiner: false,
        }
    }

    /// Declares what each subtask of a function remembers beside its keys.
    pub(crate) fn remembers(&mut self, visit: impl FnOnce(&mut OperatorStates<'_>)) {
        visit(&mut OperatorStates::declaring(&mut self.states));
        if self.states.iter().any(|state| state.kind == StateKind::UnionList) {
            // It restores snapshots of all subtasks, and what runs in its task would too: a source must not.
            self.chaining = Chaining::Head;
        }
    }
}

/// One input of an operator as declared.
#[derive(Debug, Clone)]
pub(crate) struct EdgeSpec {
    /// The number of the operator whose output it is.
    pub(crate) from: usize,
    /// The tag of the side output that it is; nothing for the main output.
    pub(crate) tag: Option<&'static str>,
    /// What the author asked for; nothing lets the parallelism decide.
    pub(crate) partitioning: Option<Partitioning>,
    /// Where the author asked for it.
    pub(crate) place: Place,
    pub(crate) schema_fingerprint: u64,
}

/// The kind of an operator that finds the splits of the source behind it.
pub(crate) const ENUMERATOR: &str = "enumerator";

/// The kind of an operator that makes the watermarks of a stream.
pub(crate) const WATERMARKS: &str = "watermarks";

/// Names enumerators after their sources, whose settings follow them in the text of the job.
pub(crate) fn name_enumerators(nodes: &mut [NodeSpec]) {
    for index in 0..nodes.len() {
        let source = &nodes[index];
        let Some(from) = source.enumerator() else { continue };
        let own = |text: &str| format!("{text}: {ENUMERATOR}");
        let (uid, is_named) = (source.uid.as_deref().map(own), source.is_named);
        let (group, mut name) = (source.slot_sharing_group.clone(), own(&source.name));
        if name.len() > MAX_OPERATOR_NAME_BYTES {
            name.clone_from(&source.name);
        }
        if let Some(enumerator) = nodes.get_mut(from) {
            (enumerator.name, enumerator.is_named) = (name, is_named);
            (enumerator.uid, enumerator.slot_sharing_group) = (uid, group);
        }
    }
}

impl NodeSpec {
    /// The operator that finds the splits of this one, if this is a source that has one.
    fn enumerator(&self) -> Option<usize> {
        let input = self.inputs.first()?;
        (input.partitioning == Some(Partitioning::Splits)).then_some(input.from)
    }
}
