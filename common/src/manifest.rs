//! The state manifest of a job: which operators have which states, of which types, in how many key groups.
//!
//! Made from the job graph; part of every savepoint. [`check`] compares what a savepoint or checkpoint holds with what a new version of
//! the job declares, before anything of the running one is touched. Pure.
//!
//! Invariant of a manifest that [`StateManifest::validate`] accepts: operators and their states have unique names, keyed states
//! have a key type, and a state's fingerprint is that of its schema.

mod check;
mod report;
mod same;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::entries;
use crate::graph::{JobGraph, StateDescriptor};
use crate::id::OperatorId;
use crate::limits::MAX_PARALLELISM;
use crate::schema::Schema;

pub use check::check;
pub use report::{
    KeptMaxParallelism, OperatorProblem, OperatorReport, Report, StateReport, StateVerdict, Verdict,
};
pub use same::differences;

/// The states of all operators of a job.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StateManifest {
    /// The job's name for people.
    pub job_name: String,
    /// The operators that have state, in the order of the job graph.
    pub operators: Vec<OperatorManifest>,
}

/// The states of an operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperatorManifest {
    /// By which its state is found.
    #[serde(with = "crate::id::as_text")]
    pub id: OperatorId,
    /// What the author called it with `uid`, if so.
    pub uid: Option<String>,
    /// Its name for people.
    pub name: String,
    /// How many subtasks it has.
    pub parallelism: u32,
    /// The number of key groups.
    pub max_parallelism: u32,
    /// The type of its keys, if it has keyed state.
    pub key_schema: Option<Schema>,
    /// Its states.
    pub states: Vec<StateDescriptor>,
}

/// A manifest that contradicts itself, or is of no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Two operators with one id.
    #[error("the manifest has two operators with the id {id}; leave one of them out")]
    DuplicateOperator {
        /// The id.
        id: OperatorId,
    },
    /// Two states with one name.
    #[error("the manifest has two states `{state}` of {operator}; leave one of them out")]
    DuplicateState {
        /// The operator.
        operator: String,
        /// The state's name.
        state: String,
    },
    /// A number of key groups that cannot be.
    #[error(
        "the manifest says that {operator} has max parallelism {max_parallelism}; it must be from 1 to {}",
        MAX_PARALLELISM
    )]
    MaxParallelism {
        /// The operator.
        operator: String,
        /// As it stands there.
        max_parallelism: u32,
    },
    /// Keyed state without a type of keys.
    #[error(
        "the manifest says that {operator} has the keyed state `{state}`, but not of which type its keys are; add key_schema"
    )]
    NoKeys {
        /// The operator.
        operator: String,
        /// The state's name.
        state: String,
    },
    /// A fingerprint of another schema, or a map state that is no map.
    #[error(
        "the manifest contradicts itself about the type of state `{state}` of {operator}; take it from the job's plan again"
    )]
    Contradiction {
        /// The operator.
        operator: String,
        /// The state's name.
        state: String,
    },
}

impl StateManifest {
    /// What the graph declares.
    #[must_use]
    pub fn of(graph: &JobGraph) -> Self {
        let operators = graph.vertices.iter().flat_map(|vertex| {
            let with_state = vertex.operators.iter().filter(|operator| !operator.states.is_empty());
            with_state.map(|operator| OperatorManifest {
                id: operator.id,
                uid: operator.uid.clone(),
                name: operator.name.clone(),
                parallelism: vertex.parallelism,
                max_parallelism: vertex.max_parallelism,
                key_schema: operator.key_schema.clone(),
                states: operator.states.clone(),
            })
        });
        Self { job_name: graph.name.clone(), operators: operators.collect() }
    }

    /// The operator with this id.
    #[must_use]
    pub fn operator(&self, id: OperatorId) -> Option<&OperatorManifest> {
        self.operators.iter().find(|operator| operator.id == id)
    }

    /// The operator that a person calls so: by its uid, its id, or its name if no other has it.
    #[must_use]
    pub fn find(&self, reference: &str) -> Option<&OperatorManifest> {
        let by_uid = || self.operators.iter().find(|operator| operator.uid.as_deref() == Some(reference));
        let by_id = || self.operators.iter().find(|operator| operator.id.to_string() == reference);
        let by_name = || {
            let mut named = self.operators.iter().filter(|operator| operator.name == reference);
            named.next().filter(|_| named.next().is_none())
        };
        by_uid().or_else(by_id).or_else(by_name)
    }

    /// Checks what everything that reads a manifest relies on.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn validate(&self) -> Result<(), ManifestError> {
        let mut ids = BTreeSet::new();
        for operator in &self.operators {
            if !ids.insert(operator.id) {
                return Err(ManifestError::DuplicateOperator { id: operator.id });
            }
            operator.validate()?;
        }
        Ok(())
    }
}

impl OperatorManifest {
    /// How messages call it: its name, and its uid if it has another one.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.uid {
            Some(uid) if *uid != self.name => format!("`{}` (uid `{uid}`)", self.name),
            _ => format!("`{}`", self.name),
        }
    }

    /// The state of this name.
    #[must_use]
    pub fn state(&self, name: &str) -> Option<&StateDescriptor> {
        self.states.iter().find(|state| state.name == name)
    }

    /// Whether some of its state is by key.
    #[must_use]
    pub fn is_keyed(&self) -> bool {
        self.states.iter().any(|state| state.kind.is_keyed())
    }

    fn validate(&self) -> Result<(), ManifestError> {
        let operator = || self.label();
        if self.max_parallelism == 0 || self.max_parallelism > MAX_PARALLELISM {
            let max_parallelism = self.max_parallelism;
            return Err(ManifestError::MaxParallelism { operator: operator(), max_parallelism });
        }
        let mut names = BTreeSet::new();
        for state in &self.states {
            let name = || state.name.clone();
            if !names.insert(&state.name) {
                return Err(ManifestError::DuplicateState { operator: operator(), state: name() });
            }
            if state.kind.is_keyed() && self.key_schema.is_none() {
                return Err(ManifestError::NoKeys { operator: operator(), state: name() });
            }
            let is_map = matches!(state.schema, Schema::Map(..));
            let is_other = state.fingerprint != state.schema.fingerprint() || !entries::fits_ttl(state);
            if is_other || (state.kind.is_map() && !is_map) {
                return Err(ManifestError::Contradiction { operator: operator(), state: name() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
