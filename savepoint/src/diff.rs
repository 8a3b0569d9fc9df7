//! How two savepoints differ: entries that were added, removed or changed, state by state.
//!
//! Operators are matched by id, states by name, entries by key. Where the type of a state has changed compatibly, the entries
//! of the first savepoint are compared as the second one would read them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use thalweg_common::entries::{Entry, EntryLayout, StateMigration};
use thalweg_common::graph::StateDescriptor;
use thalweg_common::key_group::{KeyGroup, KeyGroupRange};
use thalweg_common::manifest::OperatorManifest;

use crate::error::SavepointError;
use crate::lines::show;
use crate::reader::Savepoint;

/// How two savepoints differ.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct DiffReport {
    /// Operators of both.
    pub operators: Vec<OperatorDiff>,
    /// Operators that the second one lacks.
    pub only_in_first: Vec<String>,
    /// Operators that the first one lacks.
    pub only_in_second: Vec<String>,
}

/// How an operator's state differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OperatorDiff {
    /// As the second savepoint calls it.
    pub operator: String,
    /// Its keyed states, and those that only one of both has.
    pub states: Vec<StateDiff>,
    /// Whether the items of a source or sink differ.
    pub items_differ: bool,
}

/// How a keyed state differs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct StateDiff {
    /// Its name.
    pub state: String,
    /// Entries that only the second savepoint has.
    pub added: u64,
    /// Entries that only the first one has.
    pub removed: u64,
    /// Entries with another value.
    pub changed: u64,
    /// Entries that are the same.
    pub unchanged: u64,
    /// Why the entries cannot be compared, if so.
    pub not_compared: Option<String>,
}

/// An entry that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The operator's uid, or its id if it has none.
    pub operator: String,
    /// The state's name.
    pub state: String,
    /// The key group in the savepoint that has it.
    pub group: KeyGroup,
    /// The key.
    pub key: Value,
    /// In a map state the key in the map.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map_key: Option<Value>,
    /// Its value in the first savepoint, if it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// Its value in the second savepoint, if it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

impl DiffReport {
    /// Whether all state is the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let is_same = |state: &StateDiff| {
            state.added + state.removed + state.changed == 0 && state.not_compared.is_none()
        };
        self.only_in_first.is_empty()
            && self.only_in_second.is_empty()
            && self
                .operators
                .iter()
                .all(|operator| !operator.items_differ && operator.states.iter().all(is_same))
    }
}

/// Compares two savepoints and hands over each difference, as long as the visitor wants more (`true`).
///
/// # Errors
/// When one of them cannot be read, or the visitor refuses.
pub async fn diff<E: From<SavepointError>>(
    first: &Savepoint,
    second: &Savepoint,
    mut visitor: impl FnMut(Difference) -> Result<bool, E>,
) -> Result<DiffReport, E> {
    let (before, after) = (&first.metadata().manifest, &second.metadata().manifest);
    let mut report = DiffReport::default();
    let gone = before.operators.iter().filter(|operator| after.operator(operator.id).is_none());
    report.only_in_first = gone.map(OperatorManifest::label).collect();
    let mut is_wanted = true;
    for operator in &after.operators {
        let Some(found) = before.operator(operator.id) else {
            report.only_in_second.push(operator.label());
            continue;
        };
        let mut states = Vec::new();
        for state in operator.states.iter().filter(|state| state.kind.is_keyed()) {
            let pair = match Pair::of(found, operator, state) {
                Ok(pair) => pair,
                Err(reason) => {
                    let state = state.name.clone();
                    states.push(StateDiff { state, not_compared: Some(reason), ..StateDiff::default() });
                    continue;
                }
            };
            states.push(pair.diff(first, second, &mut is_wanted, &mut visitor).await?);
        }
        for state in found.states.iter().filter(|state| operator.state(&state.name).is_none()) {
            let (state, reason) = (state.name.clone(), Some("only the first savepoint has it".to_string()));
            states.push(StateDiff { state, not_compared: reason, ..StateDiff::default() });
        }
        let mut items = [first.items(operator.id).await?, second.items(operator.id).await?];
        items.iter_mut().for_each(|items| items.sort_unstable());
        report.operators.push(OperatorDiff {
            operator: operator.label(),
            states,
            items_differ: items[0] != items[1],
        });
    }
    Ok(report)
}

/// Key and map key, in this order: what identifies an entry.
type Name = (Vec<u8>, Option<Vec<u8>>);
type Entries = BTreeMap<Name, (KeyGroup, Vec<u8>)>;

/// A state in both savepoints.
struct Pair<'a> {
    found: &'a OperatorManifest,
    operator: &'a OperatorManifest,
    state: &'a StateDescriptor,
    migration: StateMigration,
    layout: EntryLayout,
}

impl<'a> Pair<'a> {
    fn of(
        found: &'a OperatorManifest,
        operator: &'a OperatorManifest,
        state: &'a StateDescriptor,
    ) -> Result<Self, String> {
        let Some(before) = found.state(&state.name) else {
            return Err("only the second savepoint has it".into());
        };
        let (Some(old_key), Some(key)) = (&found.key_schema, &operator.key_schema) else {
            return Err("one of them is not keyed".into());
        };
        if old_key.fingerprint() != key.fingerprint() {
            return Err(format!("its keys are {old_key} in the first savepoint and {key} in the second"));
        }
        let migration = StateMigration::new(before, state, key).map_err(|error| error.to_string())?;
        let layout = EntryLayout::of(state, key).map_err(|error| error.to_string())?;
        Ok(Self { found, operator, state, migration, layout })
    }

    async fn diff<E: From<SavepointError>>(
        &self,
        first: &Savepoint,
        second: &Savepoint,
        is_wanted: &mut bool,
        visitor: &mut impl FnMut(Difference) -> Result<bool, E>,
    ) -> Result<StateDiff, E> {
        let mut result = StateDiff { state: self.state.name.clone(), ..StateDiff::default() };
        for (old_groups, groups) in self.passes(first, second) {
            let mut before = self.load(first, old_groups, Some(&self.migration)).await?;
            let after = self.load(second, groups, None).await?;
            for (name, (group, value)) in &after {
                let old = before.remove(name).map(|(_, old)| old);
                match &old {
                    None => result.added += 1,
                    Some(old) if old == value => {
                        result.unchanged += 1;
                        continue;
                    }
                    Some(_) => result.changed += 1,
                }
                if *is_wanted {
                    *is_wanted = visitor(self.difference(name, *group, old.as_deref(), Some(value))?)?;
                }
            }
            for (name, (group, value)) in &before {
                result.removed += 1;
                if *is_wanted {
                    *is_wanted = visitor(self.difference(name, *group, Some(value), None)?)?;
                }
            }
        }
        Ok(result)
    }

    /// Ranges that fit into memory. With another number of key groups a key is in another group, so all come at once.
    fn passes(&self, first: &Savepoint, second: &Savepoint) -> Vec<(KeyGroupRange, KeyGroupRange)> {
        if self.found.max_parallelism == self.operator.max_parallelism {
            let (old, new) = (first.passes(self.found), second.passes(self.operator));
            let finer = if old.len() > new.len() { old } else { new };
            return finer.into_iter().map(|groups| (groups, groups)).collect();
        }
        let all = |operator: &OperatorManifest| KeyGroupRange { start: 0, end: operator.max_parallelism };
        vec![(all(self.found), all(self.operator))]
    }

    async fn load(
        &self,
        savepoint: &Savepoint,
        groups: KeyGroupRange,
        migration: Option<&StateMigration>,
    ) -> Result<Entries, SavepointError> {
        let mut loaded = Entries::new();
        let mut scratch = Vec::new();
        savepoint
            .visit(self.operator.id, groups, |state, group, entries| {
                if state != self.state.name {
                    return Ok(());
                }
                let damaged = |error| SavepointError::damaged_state(&self.operator.label(), state, &error);
                scratch.clear();
                let mut entries = match migration {
                    Some(migration) => {
                        migration.migrate(entries, &mut scratch).map_err(damaged)?;
                        scratch.as_slice()
                    }
                    None => entries,
                };
                while !entries.is_empty() {
                    let Entry { key, map_key, value } = self.layout.take(&mut entries).map_err(damaged)?;
                    let name = (key.to_vec(), map_key.map(<[u8]>::to_vec));
                    loaded.insert(name, (group, value.to_vec()));
                }
                Ok::<_, SavepointError>(())
            })
            .await?;
        Ok(loaded)
    }

    fn difference(
        &self,
        (key, map_key): &Name,
        group: KeyGroup,
        before: Option<&[u8]>,
        after: Option<&[u8]>,
    ) -> Result<Difference, SavepointError> {
        let shown = |value: &[u8]| {
            show(self.operator, self.state, group, Entry { key, map_key: map_key.as_deref(), value })
        };
        let (before, after) = (before.map(shown).transpose()?, after.map(shown).transpose()?);
        let line = after.as_ref().or(before.as_ref()).cloned();
        let line =
            line.ok_or_else(|| SavepointError::damaged(&self.state.name, "an entry without a value"))?;
        Ok(Difference {
            operator: line.operator,
            state: line.state,
            group,
            key: line.key,
            map_key: line.map_key,
            before: before.map(|line| line.value),
            after: after.map(|line| line.value),
        })
    }
}
