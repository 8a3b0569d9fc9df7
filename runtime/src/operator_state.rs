//! What each subtask of a function remembers that has no keys: lists that are dealt or united, and maps that all subtasks have alike.
//!
//! A function names such state in one place, by which the plan declares it, a barrier writes it and a restore fills it. It is written as
//! [`Part`]s, and [`parts`](crate::parts) says who gets what.

use std::hash::Hash;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use thalweg_common::failure::Failure;
use thalweg_common::graph::{StateDescriptor, StateKind};
use thalweg_common::record::Record;
use thalweg_common::schema::Schema;

use crate::parts::{Part, Redistribution};

/// Visits the state of a function, to declare, write or fill it.
///
/// A list belongs to the subtask that fills it. After a restore with another parallelism each element of a list that is *split* is in
/// exactly one subtask: they are dealt like cards (Flink's `getListState`). A list that is *united* is in every subtask as a whole, the
/// elements of all one behind the other, after every restore (`getUnionListState`); what a subtask does not keep is gone.
pub struct OperatorStates<'a> {
    pass: Pass<'a>,
}

enum Pass<'a> {
    Declare(&'a mut Vec<StateDescriptor>),
    Write(&'a mut Vec<Part>),
    Fill(&'a [Part], &'a mut Result<(), Failure>),
}

impl<'a> OperatorStates<'a> {
    /// Collects what the plan says of the state.
    #[doc(hidden)]
    pub fn declaring(states: &'a mut Vec<StateDescriptor>) -> Self {
        Self { pass: Pass::Declare(states) }
    }

    /// Collects the parts of a snapshot.
    pub(crate) fn writing(parts: &'a mut Vec<Part>) -> Self {
        Self { pass: Pass::Write(parts) }
    }

    /// Fills the state with what is restored; what cannot be read is left in `result`.
    pub(crate) fn filling(parts: &'a [Part], result: &'a mut Result<(), Failure>) -> Self {
        Self { pass: Pass::Fill(parts, result) }
    }

    /// A list whose elements are dealt among the subtasks when their number changes.
    pub fn split_list<T: Record>(&mut self, name: &str, list: &mut Vec<T>) {
        self.list(name, list, Redistribution::Split, StateKind::SplitList);
    }

    /// A list of which every subtask is given the elements of all.
    pub fn union_list<T: Record>(&mut self, name: &str, list: &mut Vec<T>) {
        self.list(name, list, Redistribution::Union, StateKind::UnionList);
    }

    fn list<T: Record>(&mut self, name: &str, list: &mut Vec<T>, how: Redistribution, kind: StateKind) {
        let schema = T::schema().fingerprint();
        match &mut self.pass {
            Pass::Declare(states) => declare(states, name, kind),
            Pass::Write(parts) => {
                let elements = list.iter().map(encoded).collect();
                parts.push(Part::List { state: name.to_string(), schema, how, elements });
            }
            Pass::Fill(parts, result) => {
                let found = parts.iter().filter_map(|part| match part {
                    Part::List { state, schema, elements, .. } if state == name => Some((schema, elements)),
                    _ => None,
                });
                let found: Vec<_> = found.collect();
                if found.is_empty() {
                    // A state that is new begins as the function has made it.
                    return;
                }
                let filled = found.into_iter().flat_map(|(found, elements)| {
                    elements.iter().map(move |element| decoded(name, (*found, schema), element))
                });
                match filled.collect() {
                    Ok(filled) => *list = filled,
                    Err(failure) => **result = Err(failure),
                }
            }
        }
    }

    /// A map that is the same in all subtasks: after a restore each has that of one former subtask.
    pub fn broadcast<K: Record + Eq + Hash, V: Record>(
        &mut self,
        name: &str,
        state: &mut BroadcastState<K, V>,
    ) {
        let schema = Schema::Map(Box::new(K::schema()), Box::new(V::schema())).fingerprint();
        match &mut self.pass {
            Pass::Declare(states) => declare(states, name, StateKind::Broadcast),
            Pass::Write(parts) => {
                let entries = state.iter().map(|(key, value)| (encoded(key), encoded(value))).collect();
                parts.push(Part::Broadcast { state: name.to_string(), schema, entries });
            }
            Pass::Fill(parts, result) => {
                let found = parts.iter().find_map(|part| match part {
                    Part::Broadcast { state, schema, entries } if state == name => Some((schema, entries)),
                    _ => None,
                });
                let Some((found, entries)) = found else { return };
                let types = (*found, schema);
                let filled = entries
                    .iter()
                    .map(|(key, value)| Ok((decoded(name, types, key)?, decoded(name, types, value)?)));
                match filled.collect() {
                    Ok(entries) => state.entries = entries,
                    Err(failure) => **result = Err(failure),
                }
            }
        }
    }
}

fn declare(states: &mut Vec<StateDescriptor>, name: &str, kind: StateKind) {
    // Its parts say of which type they are; no tool looks into them.
    states.push(StateDescriptor::new(name, kind, Schema::primitive("bytes")));
}

fn encoded<T: Record>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    bytes
}

/// A value whose schema had the first fingerprint when it was written, and has the second now.
fn decoded<T: Record>(name: &str, (found, now): (u64, u64), mut bytes: &[u8]) -> Result<T, Failure> {
    if found == now
        && let Ok(value) = T::decode(&mut bytes)
        && bytes.is_empty()
    {
        return Ok(value);
    }
    Err(Failure::user(format!(
        "the state `{name}` was written with values of another type; go back to that type, or give the state another name, so that it \
         begins anew"
    ))
    .permanent())
}

/// A map that all subtasks of an operator have alike: Flink's broadcast state. It is changed by what comes from the stream that is
/// broadcast, in every subtask by the same records, and only read by everything else.
///
/// It is kept in memory, and every subtask writes its own copy into a checkpoint. Since subtasks see the records of a broadcast stream in
/// an order of their own if it has several subtasks itself, changes must not depend on that order.
#[derive(Debug, Clone)]
pub struct BroadcastState<K, V> {
    entries: HashMap<K, V, RandomState>,
}

impl<K, V> Default for BroadcastState<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::default() }
    }
}

impl<K: Record + Eq + Hash, V: Record> BroadcastState<K, V> {
    /// The value at `key`, if there is one.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    /// Whether there is a value at `key`.
    pub fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// All pairs, in no particular order, which is another one in each subtask.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter()
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value at `key`, if there is one, to change it in place.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    /// Sets the value at `key` and returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.entries.insert(key, value)
    }

    /// Removes and returns the value at `key`.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key)
    }

    /// Forgets all pairs.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}
