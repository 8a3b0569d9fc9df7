//! What a check has found, for people and for programs.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::OperatorManifest;
use crate::graph::StateKind;
use crate::id::OperatorId;
use crate::schema::{Change, Problem};

/// What becomes of the state of a savepoint or checkpoint in a job. Its text has a line for each operator, with what there is
/// to say about its states below.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Those that the job declares, in its order, then those that it does not declare any more.
    pub operators: Vec<OperatorReport>,
    /// Whether state that nobody declares may be dropped.
    pub allow_non_restored_state: bool,
}

/// What becomes of an operator's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperatorReport {
    /// Its id.
    #[serde(with = "crate::id::as_text")]
    pub id: OperatorId,
    /// Its uid, if it has one.
    pub uid: Option<String>,
    /// Its name.
    pub name: String,
    /// In one word.
    pub verdict: Verdict,
    /// State by state; empty for an operator that is added or removed.
    pub states: Vec<StateReport>,
    /// Why it cannot be restored whatever its states are.
    pub problems: Vec<OperatorProblem>,
    /// If it goes on with another max parallelism than it declares.
    pub max_parallelism: Option<KeptMaxParallelism>,
    /// For one that is gone: a new one that may be it under another name.
    pub similar: Option<String>,
    label: String,
}

/// What becomes of an operator's state, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Restored as it is.
    Compatible,
    /// Restored after values have been rewritten.
    Migrated,
    /// Cannot be restored.
    Incompatible,
    /// New, begins empty.
    Added,
    /// Not in the job any more: a reason to refuse, or dropped if that is allowed.
    Removed,
}

/// What becomes of one state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateReport {
    /// Its name.
    pub name: String,
    /// What becomes of it.
    pub verdict: StateVerdict,
}

/// What becomes of one state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateVerdict {
    /// Restored as it is.
    Compatible,
    /// Restored after values have been rewritten.
    Migrated(Vec<Change>),
    /// Cannot be restored.
    Incompatible(Vec<Problem>),
    /// Of another kind now, such as a map in place of a value.
    OtherKind {
        /// What it was.
        from: StateKind,
        /// What it is.
        to: StateKind,
    },
    /// New, begins empty.
    Added,
    /// Not declared any more: as with operators.
    Removed,
}

/// Why an operator cannot be restored whatever its states are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum OperatorProblem {
    /// Keys of another type: they would be found in other groups, or not at all.
    #[error(
        "its keys were {from} and are {to} now{}{detail}; a key's encoding decides where its state lives: key the stream as before, \
         or give the operator a new uid to start it empty",
        if detail.is_empty() { "" } else { ": " }
    )]
    KeyChanged {
        /// What they were.
        from: String,
        /// What they are.
        to: String,
        /// What the difference is.
        detail: String,
    },
    /// More subtasks than key groups.
    #[error(
        "it has parallelism {parallelism}, but its state was created with max parallelism {max_parallelism}; lower the parallelism to \
         {max_parallelism}, or give the operator a new uid to start it empty"
    )]
    Parallelism {
        /// What the job wants.
        parallelism: u32,
        /// The number of key groups in its state.
        max_parallelism: u32,
    },
}

/// A max parallelism that stays what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptMaxParallelism {
    /// That of the state, with which the operator must go on.
    pub restored: u32,
    /// What the job declares, which has no effect.
    pub declared: u32,
}

impl OperatorReport {
    pub(super) fn new(operator: &OperatorManifest, verdict: Verdict) -> Self {
        Self {
            id: operator.id,
            uid: operator.uid.clone(),
            name: operator.name.clone(),
            verdict,
            states: Vec::new(),
            problems: Vec::new(),
            max_parallelism: None,
            similar: None,
            label: operator.label(),
        }
    }

    /// Each reason to refuse, as a sentence that names operator, state and field, and says what to do.
    fn refusals(&self, allow_non_restored_state: bool) -> Vec<String> {
        let mut refusals: Vec<String> =
            self.problems.iter().map(|problem| format!("operator {}: {problem}", self.label)).collect();
        for StateReport { name, verdict } in &self.states {
            let subject = || format!("state `{name}` of {}", self.label);
            match verdict {
                StateVerdict::Incompatible(problems) => {
                    refusals.extend(problems.iter().map(|problem| format!("{}: {problem}", subject())));
                }
                StateVerdict::OtherKind { from, to } => refusals.push(format!(
                    "{} was a {from} state and is a {to} state now; declare it as before, or give the new one another name",
                    subject()
                )),
                StateVerdict::Removed if !allow_non_restored_state => refusals.push(format!(
                    "{} is not declared any more; declare it again, or drop it with --allow-non-restored-state",
                    subject()
                )),
                _ => {}
            }
        }
        if self.verdict == Verdict::Removed && !allow_non_restored_state {
            refusals.push(self.removed());
        }
        refusals
    }

    fn removed(&self) -> String {
        let similar = self.similar.as_ref().map(|name| format!(" ({name}, perhaps)")).unwrap_or_default();
        let cure = match &self.uid {
            Some(uid) => format!("give the one that continues it{similar} .uid(\"{uid}\")"),
            None => format!(
                "it has no uid and was found by its place in the job: put the one that continues it{similar} there"
            ),
        };
        format!(
            "operator {} is not in the job any more; {cure}, or drop its state with --allow-non-restored-state",
            self.label
        )
    }
}

impl Report {
    /// Whether the job can be restored.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.refusals().is_empty()
    }

    /// Each reason to refuse, as a sentence that names operator, state and field, and says what to do.
    #[must_use]
    pub fn refusals(&self) -> Vec<String> {
        self.operators.iter().flat_map(|operator| operator.refusals(self.allow_non_restored_state)).collect()
    }

    /// Whether some values have to be rewritten.
    #[must_use]
    pub fn needs_migration(&self) -> bool {
        self.operators.iter().any(|operator| operator.verdict == Verdict::Migrated)
    }

    /// What is said of the operator with this id.
    #[must_use]
    pub fn operator(&self, id: OperatorId) -> Option<&OperatorReport> {
        self.operators.iter().find(|operator| operator.id == id)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refusals = self.refusals().len();
        match refusals {
            0 if self.needs_migration() => writeln!(f, "compatible after migration")?,
            0 => writeln!(f, "compatible")?,
            1 => writeln!(f, "incompatible, for one reason")?,
            more => writeln!(f, "incompatible, for {more} reasons")?,
        }
        for operator in &self.operators {
            let verdict = match operator.verdict {
                Verdict::Compatible => "compatible",
                Verdict::Migrated => "compatible after migration",
                Verdict::Incompatible => "incompatible",
                Verdict::Added => "added, begins empty",
                Verdict::Removed if self.allow_non_restored_state => "removed, its state is dropped",
                Verdict::Removed => "removed",
            };
            writeln!(f, "operator {}: {verdict}", operator.label)?;
            if operator.verdict == Verdict::Removed && !self.allow_non_restored_state {
                writeln!(f, "    {}", operator.removed())?;
            }
            operator.problems.iter().try_for_each(|problem| writeln!(f, "    {problem}"))?;
            if let Some(KeptMaxParallelism { restored, declared }) = operator.max_parallelism {
                writeln!(
                    f,
                    "    it keeps max parallelism {restored} of its state; {declared} has no effect"
                )?;
            }
            operator.states.iter().try_for_each(|state| self.write_state(state, f))?;
        }
        Ok(())
    }
}

impl Report {
    fn write_state(&self, state: &StateReport, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &state.name;
        match &state.verdict {
            StateVerdict::Compatible => Ok(()),
            StateVerdict::Migrated(changes) => {
                changes.iter().try_for_each(|change| writeln!(f, "    state `{name}`: {change}"))
            }
            StateVerdict::Incompatible(problems) => {
                problems.iter().try_for_each(|problem| writeln!(f, "    state `{name}`: {problem}"))
            }
            StateVerdict::OtherKind { from, to } => writeln!(
                f,
                "    state `{name}` was a {from} state and is a {to} state now; declare it as before, or give the new one \
                 another name"
            ),
            StateVerdict::Added => writeln!(f, "    state `{name}` is added, begins empty"),
            StateVerdict::Removed if self.allow_non_restored_state => {
                writeln!(f, "    state `{name}` is removed, it is dropped")
            }
            StateVerdict::Removed => writeln!(
                f,
                "    state `{name}` is not declared any more; declare it again, or drop it with --allow-non-restored-state"
            ),
        }
    }
}
