//! Declarations: how a function tells which states it has, before anything runs.
//!
//! The same call serves twice: the plan takes the descriptors, a task takes the columns. Both number the states in the
//! order of their declaration, and the number is kept in the field's handle.

use thalweg_common::graph::{StateDescriptor, StateKind};
use thalweg_common::schema::Schema;

use crate::error::DuplicateState;
use crate::tables::Column;

/// A function with state. Derive it: every field that is a state is declared under its name.
pub trait State {
    /// Declares all states of this value, in order.
    fn declare(&mut self, declarations: &mut Declarations);
}

/// A handle of a state, as it stands in a field.
pub trait Declare {
    /// Declares the state as `name` and remembers its number.
    fn declare(&mut self, name: &str, declarations: &mut Declarations);
}

/// The number of a state in its operator: the order of its declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u32);

impl Slot {
    /// Of a handle that was not declared yet.
    pub(crate) const UNDECLARED: Self = Self(u32::MAX);

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A declared state and its empty column.
pub(crate) struct Declared {
    pub(crate) descriptor: StateDescriptor,
    pub(crate) column: Box<dyn Column>,
}

/// Collects the states of one operator.
#[derive(Default)]
pub struct Declarations {
    declared: Vec<Declared>,
    duplicate: Option<String>,
}

impl Declarations {
    /// What the plan says about the states.
    ///
    /// # Errors
    /// When two states have the same name.
    pub fn descriptors(&self) -> Result<Vec<StateDescriptor>, DuplicateState> {
        self.check()?;
        Ok(self.declared.iter().map(|declared| declared.descriptor.clone()).collect())
    }

    /// Adds a state with its empty column and gives its number.
    pub(crate) fn add(
        &mut self,
        name: &str,
        kind: StateKind,
        schema: Schema,
        column: Box<dyn Column>,
    ) -> Slot {
        if self.declared.iter().any(|declared| declared.descriptor.name == name) {
            self.duplicate.get_or_insert_with(|| name.to_string());
        }
        let slot = Slot(u32::try_from(self.declared.len()).unwrap_or(u32::MAX));
        let fingerprint = schema.fingerprint();
        let descriptor = StateDescriptor { name: name.to_string(), kind, schema, fingerprint };
        self.declared.push(Declared { descriptor, column });
        slot
    }

    /// The states, by number.
    pub(crate) fn into_declared(self) -> Result<Vec<Declared>, DuplicateState> {
        self.check()?;
        Ok(self.declared)
    }

    fn check(&self) -> Result<(), DuplicateState> {
        self.duplicate.as_ref().map_or(Ok(()), |name| Err(DuplicateState { name: name.clone() }))
    }
}
