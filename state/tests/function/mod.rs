//! A function with states of every kind, a function with a single one, and what their states should hold.
#![allow(dead_code)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use thalweg_common::key_group::{key_group, key_hash, subtask_of};
use thalweg_state::{AtKey, Declarations, MapState, State, ValueState};

/// Stands for the `thalweg` crate of a job.
pub mod krate {
    pub mod state {
        pub use thalweg_state::*;
    }
}

pub const MAX_PARALLELISM: u32 = 32;

#[derive(State, Clone, Default)]
#[state(crate = krate)]
pub struct Function {
    pub count: ValueState<u64>,
    #[state(name = "last-word")]
    pub word: ValueState<String>,
    pub seen: MapState<u8, i32>,
    #[state(skip)]
    _factor: u64,
}

/// One value beside its key.
#[derive(State, Clone, Default)]
#[state(crate = krate)]
pub struct Single {
    pub count: ValueState<u64>,
}

/// What both are to a test.
pub trait Subject: Default {
    fn declared(&mut self) -> Declarations<u16>;
    /// Applies what applies to it.
    fn apply(&self, at: &mut AtKey<'_, u16>, operation: &Operation);
    fn read(&self, at: &AtKey<'_, u16>) -> Expected;
    /// What it holds of what the other one would.
    fn part(expected: &Expected) -> Expected;
}

/// What the store should hold of one key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Expected {
    pub count: Option<u64>,
    pub word: Option<String>,
    pub seen: BTreeMap<u8, i32>,
}

#[derive(Debug, Clone)]
pub enum Operation {
    SetCount(u64),
    AddToCount(u64),
    DoubleInPlace,
    CountOrInsert(u64),
    TakeCount,
    SetWord(String),
    ClearWord,
    Insert(u8, i32),
    AddToEntry(u8, i32),
    Remove(u8),
    ClearSeen,
    Read,
}

pub fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        any::<u64>().prop_map(Operation::SetCount),
        (0u64..9).prop_map(Operation::AddToCount),
        Just(Operation::DoubleInPlace),
        (0u64..9).prop_map(Operation::CountOrInsert),
        Just(Operation::TakeCount),
        "[a-z]{0,4}".prop_map(Operation::SetWord),
        Just(Operation::ClearWord),
        (0u8..4, any::<i32>()).prop_map(|(key, value)| Operation::Insert(key, value)),
        (0u8..4, -2i32..3).prop_map(|(key, value)| Operation::AddToEntry(key, value)),
        (0u8..4).prop_map(Operation::Remove),
        Just(Operation::ClearSeen),
        Just(Operation::Read),
    ]
}

impl Subject for Function {
    fn declared(&mut self) -> Declarations<u16> {
        let mut declarations = Declarations::default();
        self.declare(&mut declarations);
        declarations
    }

    fn apply(&self, at: &mut AtKey<'_, u16>, operation: &Operation) {
        let Self { count, word, seen, .. } = self;
        match operation.clone() {
            Operation::SetCount(value) => count.set(at, value),
            // Zero stands for nothing, so that updates also clear.
            Operation::AddToCount(value) => {
                count.update(at, |count| Some(count.unwrap_or(0).wrapping_add(value)).filter(|sum| *sum > 0));
            }
            Operation::DoubleInPlace => {
                if let Some(value) = count.get_mut(at) {
                    *value = value.wrapping_mul(2);
                }
            }
            Operation::CountOrInsert(value) => *count.get_or_insert_with(at, || value) |= 1,
            Operation::TakeCount => drop(count.take(at)),
            Operation::SetWord(value) => word.set(at, value),
            Operation::ClearWord => word.clear(at),
            Operation::Insert(key, value) => drop(seen.insert(at, key, value)),
            Operation::AddToEntry(key, value) => seen.update(at, key, |entry| {
                Some(entry.unwrap_or(0).wrapping_add(value)).filter(|sum| *sum != 0)
            }),
            Operation::Remove(key) => drop(seen.remove(at, &key)),
            Operation::ClearSeen => seen.clear(at),
            Operation::Read => {}
        }
    }

    fn read(&self, at: &AtKey<'_, u16>) -> Expected {
        let Self { count, word, seen, .. } = self;
        let pairs: BTreeMap<u8, i32> = seen.iter(at).map(|(key, value)| (*key, *value)).collect();
        assert_eq!((seen.len(at), seen.is_empty(at)), (pairs.len(), pairs.is_empty()));
        assert!(pairs.iter().all(|(key, value)| seen.get(at, key) == Some(value) && seen.contains(at, key)));
        Expected { count: count.get(at).copied(), word: word.get(at).cloned(), seen: pairs }
    }

    fn part(expected: &Expected) -> Expected {
        expected.clone()
    }
}

impl Subject for Single {
    fn declared(&mut self) -> Declarations<u16> {
        let mut declarations = Declarations::default();
        self.declare(&mut declarations);
        declarations
    }

    fn apply(&self, at: &mut AtKey<'_, u16>, operation: &Operation) {
        let count = &self.count;
        match operation.clone() {
            Operation::SetCount(value) => count.set(at, value),
            // Zero stands for nothing, so that updates also clear.
            Operation::AddToCount(value) => {
                count.update(at, |count| Some(count.unwrap_or(0).wrapping_add(value)).filter(|sum| *sum > 0));
            }
            Operation::DoubleInPlace => {
                if let Some(value) = count.get_mut(at) {
                    *value = value.wrapping_mul(2);
                }
            }
            Operation::CountOrInsert(value) => *count.get_or_insert_with(at, || value) |= 1,
            Operation::TakeCount => drop(count.take(at)),
            _ => {}
        }
    }

    fn read(&self, at: &AtKey<'_, u16>) -> Expected {
        Expected { count: self.count.get(at).copied(), ..Expected::default() }
    }

    fn part(expected: &Expected) -> Expected {
        Expected { count: expected.count, ..Expected::default() }
    }
}

impl Expected {
    pub fn apply(&mut self, operation: &Operation) {
        match operation.clone() {
            Operation::SetCount(value) => self.count = Some(value),
            Operation::AddToCount(value) => {
                self.count = Some(self.count.unwrap_or(0).wrapping_add(value)).filter(|sum| *sum > 0);
            }
            Operation::DoubleInPlace => self.count = self.count.map(|count| count.wrapping_mul(2)),
            Operation::CountOrInsert(value) => self.count = Some(self.count.unwrap_or(value) | 1),
            Operation::TakeCount => self.count = None,
            Operation::SetWord(value) => self.word = Some(value),
            Operation::ClearWord => self.word = None,
            Operation::Insert(key, value) => drop(self.seen.insert(key, value)),
            Operation::AddToEntry(key, value) => {
                let sum = self.seen.remove(&key).unwrap_or(0).wrapping_add(value);
                if sum != 0 {
                    self.seen.insert(key, sum);
                }
            }
            Operation::Remove(key) => drop(self.seen.remove(&key)),
            Operation::ClearSeen => self.seen.clear(),
            Operation::Read => {}
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The subtask that owns a key.
pub fn owner(key: u16, parallelism: usize) -> usize {
    let group = key_group(key_hash(&key, &mut Vec::new()), MAX_PARALLELISM);
    subtask_of(group, parallelism as u32, MAX_PARALLELISM) as usize
}
