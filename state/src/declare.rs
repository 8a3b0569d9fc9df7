//! Declarations: how a function tells which states it has, before anything runs.
//!
//! The same call serves twice: the plan takes the descriptors, a task takes the columns. Both number the states in the
//! order of their declaration, and the number is kept in the field's handle.

use thalweg_common::graph::{StateDescriptor, StateKind};
use thalweg_common::record::Record;
use thalweg_common::schema::Schema;
use thalweg_common::ttl::StateTtl;

use crate::cache::inline::{CacheTable, InlineCache};
use crate::columns::Column;
use crate::error::DuplicateState;
use crate::inline::InlineTable;
use crate::key_table::KeyTable;
use crate::tables::StateKey;
use crate::timers::TimeDomain;

/// A function with state. Derive it: every field that is a state is declared under its name.
pub trait State {
    /// Declares all states of this value, in order, for keys of type `K`.
    fn declare<K: StateKey>(&mut self, declarations: &mut Declarations<K>);
}

/// A handle of a state, as it stands in a field.
#[diagnostic::on_unimplemented(
    message = "a `{Self}` cannot be declared as state",
    note = "state is a ValueState, MapState, ListState, ReducingState or AggregatingState, or an ExpiringValue, ExpiringMap, ExpiringList and so on with #[state(ttl = \"...\")]; put \
            #[state(skip)] above a field that is none"
)]
pub trait Declare {
    /// Declares the state as `name` and remembers its number.
    fn declare<K: StateKey>(&mut self, name: &str, declarations: &mut Declarations<K>);
}

/// The number of a state in its operator: the order of its declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u32);

impl Slot {
    /// Of a handle that was not declared yet.
    pub(crate) const UNDECLARED: Self = Self(u32::MAX);

    /// Of the state that was declared first.
    pub(crate) const FIRST: Self = Self(0);

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Makes tables in which values of one type lie beside their keys.
pub(crate) struct MakeInline<K> {
    table: fn() -> Box<dyn InlineTable<K>>,
    cache: fn() -> Box<dyn CacheTable<K>>,
}

impl<K: StateKey> MakeInline<K> {
    /// For values of this type.
    pub(crate) fn of<T: Record>() -> Self {
        Self {
            table: || Box::new(KeyTable::<K, T>::default()),
            cache: || Box::new(InlineCache::<K, T>::default()),
        }
    }
}

impl<K> MakeInline<K> {
    /// For a memory store.
    pub(crate) fn table(&self) -> Box<dyn InlineTable<K>> {
        (self.table)()
    }

    /// For a cache.
    pub(crate) fn cache(&self) -> Box<dyn CacheTable<K>> {
        (self.cache)()
    }
}

/// A declared state and its empty column.
pub(crate) struct Declared<K> {
    pub(crate) descriptor: StateDescriptor,
    pub(crate) column: Box<dyn Column>,
    /// If its values may lie beside their keys.
    pub(crate) inline: Option<MakeInline<K>>,
}

/// Collects the states of one operator whose keys are of type `K`.
pub struct Declarations<K> {
    declared: Vec<Declared<K>>,
    has_timers: bool,
    duplicate: Option<String>,
}

impl<K> Default for Declarations<K> {
    fn default() -> Self {
        Self { declared: Vec::new(), has_timers: false, duplicate: None }
    }
}

impl<K> Declarations<K> {
    /// What the plan says about the states.
    ///
    /// # Errors
    /// When two states have the same name.
    pub fn descriptors(&self) -> Result<Vec<StateDescriptor>, DuplicateState> {
        self.check()?;
        let declared = self.declared.iter().map(|declared| declared.descriptor.clone());
        let timers = TimeDomain::ALL.into_iter().filter(|_| self.has_timers).map(TimeDomain::descriptor);
        Ok(declared.chain(timers).collect())
    }

    /// The operator has timers, too: behind its states there are two more, one for each [`TimeDomain`].
    pub fn add_timers(&mut self) {
        self.has_timers = true;
    }

    pub(crate) fn has_timers(&self) -> bool {
        self.has_timers
    }

    /// Adds a state with its empty column and gives its number.
    pub(crate) fn add(
        &mut self,
        name: &str,
        kind: StateKind,
        schema: Schema,
        ttl: Option<StateTtl>,
        column: Box<dyn Column>,
        inline: Option<MakeInline<K>>,
    ) -> Slot {
        if self.declared.iter().any(|declared| declared.descriptor.name == name) {
            self.duplicate.get_or_insert_with(|| name.to_string());
        }
        let slot = Slot(u32::try_from(self.declared.len()).unwrap_or(u32::MAX));
        let descriptor = StateDescriptor { ttl, ..StateDescriptor::new(name, kind, schema) };
        self.declared.push(Declared { descriptor, column, inline });
        slot
    }

    /// The states, by number.
    pub(crate) fn into_declared(self) -> Result<Vec<Declared<K>>, DuplicateState> {
        self.check()?;
        Ok(self.declared)
    }

    fn check(&self) -> Result<(), DuplicateState> {
        let of_timers = |name: &&str| self.declared.iter().any(|declared| declared.descriptor.name == **name);
        let timers = TimeDomain::ALL.map(TimeDomain::state_name).into_iter().filter(|_| self.has_timers);
        match self.duplicate.as_deref().or_else(|| timers.clone().find(of_timers)) {
            Some(name) => Err(DuplicateState { name: name.to_string() }),
            None => Ok(()),
        }
    }
}
