//! A function with states of every kind, a function with a single one, and what their states should hold.

use std::collections::BTreeMap;

use proptest::prelude::*;
use std::time::Duration;
use thalweg_common::key_group::{key_group, key_hash, subtask_of};
use thalweg_state::{
    AtKey, Declarations, ExpiringList, ExpiringMap, ExpiringReducing, ExpiringValue, ListState, MapState,
    ReducingState, State, StateTtl, TtlUpdate, ValueState,
};

/// Stands for the `thalweg` crate of a job.
pub mod krate {
    pub mod state {
        pub use thalweg_state::*;
    }
}

pub const MAX_PARALLELISM: u32 = 32;

#[derive(State, Clone)]
#[state(crate = crate::function::krate)]
pub struct Function {
    pub count: ValueState<u64>,
    #[state(name = "last-word")]
    pub word: ValueState<String>,
    pub seen: MapState<u8, i32>,
    pub list: ListState<u16>,
    pub most: ReducingState<u64>,
    #[state(skip)]
    _factor: u64,
}

impl Default for Function {
    fn default() -> Self {
        Self {
            count: ValueState::default(),
            word: ValueState::default(),
            seen: MapState::default(),
            list: ListState::default(),
            most: ReducingState::new(|one, other| one.max(other)),
            _factor: 0,
        }
    }
}

/// One value beside its key.
#[derive(State, Clone, Default)]
#[state(crate = crate::function::krate)]
pub struct Single {
    pub count: ValueState<u64>,
}

/// How long the values of [`Mortal`] live, in milliseconds.
pub const COUNT_TTL_MS: i64 = 10_000;
pub const SEEN_TTL_MS: i64 = 4_000;
pub const LIST_TTL_MS: i64 = 6_000;
pub const MOST_TTL_MS: i64 = 8_000;

/// Values that live for a time only, and one that lives for ever.
#[derive(State, Clone)]
#[state(crate = crate::function::krate)]
pub struct Mortal {
    #[state(ttl = "10s")]
    pub count: ExpiringValue<u64>,
    #[state(name = "last-word")]
    pub word: ValueState<String>,
    #[state(ttl = StateTtl::new(Duration::from_secs(4)).updated(TtlUpdate::OnReadAndWrite))]
    pub seen: ExpiringMap<u8, i32>,
    #[state(ttl = "6s")]
    pub list: ExpiringList<u16>,
    #[state(ttl = StateTtl::new(Duration::from_secs(8)).updated(TtlUpdate::OnReadAndWrite))]
    pub most: ExpiringReducing<u64>,
}

impl Default for Mortal {
    fn default() -> Self {
        Self {
            count: ExpiringValue::default(),
            word: ValueState::default(),
            seen: ExpiringMap::default(),
            list: ExpiringList::default(),
            most: ExpiringReducing::new(|one, other| one.max(other)),
        }
    }
}

/// What all are to a test.
pub trait Subject: Default + 'static {
    const IS_MORTAL: bool = false;

    fn declared(&mut self) -> Declarations<u16>;
    /// Applies what applies to it.
    fn apply(&self, at: &mut AtKey<'_, u16>, operation: &Operation);
    fn read(&self, at: &AtKey<'_, u16>) -> Expected;
    /// What it holds of what the other one would.
    fn part(expected: &Expected) -> Expected;

    /// What it holds at this time.
    fn part_at(expected: &Expected, now_ms: i64) -> Expected {
        let mut expected = expected.clone();
        if Self::IS_MORTAL {
            expected.expire(now_ms);
        }
        Self::part(&Expected { since: Since::default(), ..expected })
    }

    /// Applies an operation to what it should hold.
    fn expect(expected: &mut Expected, operation: &Operation, now_ms: i64) {
        if Self::IS_MORTAL {
            expected.expire(now_ms);
        }
        expected.apply(operation);
        if Self::IS_MORTAL {
            expected.begin(operation, now_ms);
        }
    }
}

/// What the store should hold of one key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Expected {
    pub count: Option<u64>,
    pub word: Option<String>,
    pub seen: BTreeMap<u8, i32>,
    pub list: Vec<u16>,
    pub most: Option<u64>,
    pub since: Since,
}

/// Since when its values live.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Since {
    pub count: i64,
    pub seen: BTreeMap<u8, i64>,
    /// With the elements.
    pub list: Vec<(u16, i64)>,
    pub most: i64,
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
    Add(u16),
    Extend(Vec<u16>),
    SetList(Vec<u16>),
    RetainBelow(u16),
    TakeList,
    ClearList,
    Reduce(u64),
    ClearMost,
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
        (0u16..9).prop_map(Operation::Add),
        prop::collection::vec(0u16..9, 0..4).prop_map(Operation::Extend),
        prop::collection::vec(0u16..9, 0..4).prop_map(Operation::SetList),
        (0u16..9).prop_map(Operation::RetainBelow),
        Just(Operation::TakeList),
        Just(Operation::ClearList),
        (0u64..9).prop_map(Operation::Reduce),
        Just(Operation::ClearMost),
        Just(Operation::Read),
    ]
}

fn declared(states: &mut impl State) -> Declarations<u16> {
    let mut declarations = Declarations::default();
    states.declare(&mut declarations);
    declarations
}

/// Applies what applies to a count, whether it lives for ever or for a time: what writes has the same names.
macro_rules! apply_to_count {
    ($function:expr, $at:expr, $operation:expr) => {{
        let count = &$function.count;
        match $operation.clone() {
            Operation::SetCount(value) => count.set($at, value),
            // Zero stands for nothing, so that updates also clear.
            Operation::AddToCount(value) => {
                count.update($at, |count| Some(count.unwrap_or(0).wrapping_add(value)).filter(|sum| *sum > 0))
            }
            Operation::DoubleInPlace => {
                if let Some(value) = count.get_mut($at) {
                    *value = value.wrapping_mul(2);
                }
            }
            Operation::CountOrInsert(value) => *count.get_or_insert_with($at, || value) |= 1,
            Operation::TakeCount => drop(count.take($at)),
            _ => {}
        }
    }};
}

/// The same for all states but the count.
macro_rules! apply_to_rest {
    ($function:expr, $at:expr, $operation:expr) => {{
        let Self { word, seen, list, most, .. } = $function;
        match $operation.clone() {
            Operation::SetWord(value) => word.set($at, value),
            Operation::ClearWord => word.clear($at),
            Operation::Insert(key, value) => drop(seen.insert($at, key, value)),
            Operation::AddToEntry(key, value) => seen.update($at, key, |entry| {
                Some(entry.unwrap_or(0).wrapping_add(value)).filter(|sum| *sum != 0)
            }),
            Operation::Remove(key) => drop(seen.remove($at, &key)),
            Operation::ClearSeen => seen.clear($at),
            Operation::Add(element) => list.add($at, element),
            Operation::Extend(elements) => list.extend($at, elements),
            Operation::SetList(elements) => list.set($at, elements),
            Operation::RetainBelow(limit) => list.retain($at, |element| *element < limit),
            Operation::TakeList => {
                let elements = $function.read($at).list;
                assert_eq!(list.take($at), elements);
            }
            Operation::ClearList => list.clear($at),
            Operation::Reduce(value) => most.add($at, value),
            Operation::ClearMost => most.clear($at),
            _ => {}
        }
    }};
}

impl Subject for Function {
    fn declared(&mut self) -> Declarations<u16> {
        declared(self)
    }

    fn apply(&self, at: &mut AtKey<'_, u16>, operation: &Operation) {
        apply_to_count!(self, at, operation);
        apply_to_rest!(self, at, operation);
    }

    fn read(&self, at: &AtKey<'_, u16>) -> Expected {
        let Self { count, word, seen, list, most, .. } = self;
        let pairs: BTreeMap<u8, i32> = seen.iter(at).map(|(key, value)| (*key, *value)).collect();
        assert_eq!((seen.len(at), seen.is_empty(at)), (pairs.len(), pairs.is_empty()));
        assert!(pairs.iter().all(|(key, value)| seen.get(at, key) == Some(value) && seen.contains(at, key)));
        let list = list.get(at).to_vec();
        assert_eq!((self.list.len(at), self.list.is_empty(at)), (list.len(), list.is_empty()));
        let (count, word, most) = (count.get(at).copied(), word.get(at).cloned(), most.get(at).copied());
        Expected { count, word, seen: pairs, list, most, ..Expected::default() }
    }

    fn part(expected: &Expected) -> Expected {
        expected.clone()
    }
}

impl Subject for Single {
    fn declared(&mut self) -> Declarations<u16> {
        declared(self)
    }

    fn apply(&self, at: &mut AtKey<'_, u16>, operation: &Operation) {
        apply_to_count!(self, at, operation);
    }

    fn read(&self, at: &AtKey<'_, u16>) -> Expected {
        Expected { count: self.count.get(at).copied(), ..Expected::default() }
    }

    fn part(expected: &Expected) -> Expected {
        Expected { count: expected.count, ..Expected::default() }
    }
}

impl Subject for Mortal {
    const IS_MORTAL: bool = true;

    fn declared(&mut self) -> Declarations<u16> {
        declared(self)
    }

    fn apply(&self, at: &mut AtKey<'_, u16>, operation: &Operation) {
        apply_to_count!(self, at, operation);
        apply_to_rest!(self, at, operation);
        if matches!(operation, Operation::Read) {
            // Reads count for the map and the reduced value, and not for the others.
            let Self { count, seen, list, most, .. } = self;
            let expected = self.read(at);
            assert_eq!(count.get(at).copied(), expected.count);
            assert_eq!(seen.get(at, &0).copied(), expected.seen.get(&0).copied());
            assert_eq!(seen.contains(at, &1), expected.seen.contains_key(&1));
            assert_eq!(seen.get_mut(at, &2).copied(), expected.seen.get(&2).copied());
            assert_eq!(seen.iter(at).count(), expected.seen.len());
            assert_eq!(list.get(at).copied().collect::<Vec<_>>(), expected.list);
            assert_eq!(most.get(at).copied(), expected.most);
        }
    }

    fn read(&self, at: &AtKey<'_, u16>) -> Expected {
        let Self { count, word, seen, list, most } = self;
        let pairs: BTreeMap<u8, i32> = seen.peek_all(at).map(|(key, value)| (*key, *value)).collect();
        assert_eq!((seen.len(at), seen.is_empty(at)), (pairs.len(), pairs.is_empty()));
        assert!(pairs.iter().all(|(key, value)| seen.peek(at, key) == Some(value)));
        let list: Vec<u16> = list.peek(at).copied().collect();
        assert_eq!((self.list.len(at), self.list.is_empty(at)), (list.len(), list.is_empty()));
        let (count, word, most) = (count.peek(at).copied(), word.get(at).cloned(), most.peek(at).copied());
        Expected { count, word, seen: pairs, list, most, ..Expected::default() }
    }

    fn part(expected: &Expected) -> Expected {
        expected.clone()
    }
}

impl Expected {
    /// Forgets what is over.
    pub fn expire(&mut self, now_ms: i64) {
        self.count = self.count.filter(|_| now_ms < self.since.count + COUNT_TTL_MS);
        self.seen.retain(|key, _| now_ms < self.since.seen[key] + SEEN_TTL_MS);
        self.since.list.retain(|(_, since)| now_ms < since + LIST_TTL_MS);
        self.list = self.since.list.iter().map(|(element, _)| *element).collect();
        self.most = self.most.filter(|_| now_ms < self.since.most + MOST_TTL_MS);
    }

    /// Begins the life of what an operation has written or read.
    fn begin(&mut self, operation: &Operation, now_ms: i64) {
        match operation {
            Operation::SetCount(_)
            | Operation::AddToCount(_)
            | Operation::DoubleInPlace
            | Operation::CountOrInsert(_) => self.since.count = now_ms,
            Operation::Insert(key, _) | Operation::AddToEntry(key, _) => {
                self.since.seen.insert(*key, now_ms);
            }
            Operation::Add(element) => self.since.list.push((*element, now_ms)),
            Operation::Extend(elements) => {
                self.since.list.extend(elements.iter().map(|element| (*element, now_ms)));
            }
            Operation::SetList(elements) => {
                self.since.list = elements.iter().map(|element| (*element, now_ms)).collect();
            }
            Operation::RetainBelow(limit) => self.since.list.retain(|(element, _)| element < limit),
            Operation::TakeList | Operation::ClearList => self.since.list.clear(),
            Operation::Reduce(_) => self.since.most = now_ms,
            Operation::Read => {
                self.since.seen.extend(self.seen.keys().map(|key| (*key, now_ms)));
                self.since.most = now_ms;
            }
            Operation::TakeCount
            | Operation::SetWord(_)
            | Operation::ClearWord
            | Operation::Remove(_)
            | Operation::ClearSeen
            | Operation::ClearMost => {}
        }
    }

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
            Operation::Add(element) => self.list.push(element),
            Operation::Extend(elements) => self.list.extend(elements),
            Operation::SetList(elements) => self.list = elements,
            Operation::RetainBelow(limit) => self.list.retain(|element| *element < limit),
            Operation::TakeList | Operation::ClearList => self.list.clear(),
            Operation::Reduce(value) => self.most = self.most.max(Some(value)),
            Operation::ClearMost => self.most = None,
            Operation::Read => {}
        }
    }

    pub fn is_empty(&self) -> bool {
        (&self.count, &self.word, &self.most) == (&None, &None, &None)
            && self.seen.is_empty()
            && self.list.is_empty()
    }
}

/// As many cases as `PROPTEST_CASES` says, or these.
pub fn cases(few: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig::with_cases(cases.unwrap_or(few))
}

/// The subtask that owns a key.
pub fn owner(key: u16, parallelism: usize) -> usize {
    let group = key_group(key_hash(&key, &mut Vec::new()), MAX_PARALLELISM);
    subtask_of(group, parallelism as u32, MAX_PARALLELISM) as usize
}
