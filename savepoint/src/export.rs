//! Shows the state in a savepoint, entry by entry.

use thalweg_common::entries::EntryLayout;
use thalweg_common::key_group::KeyGroupRange;
use thalweg_common::manifest::OperatorManifest;
use thalweg_common::schema::Encoded;

use crate::error::SavepointError;
use crate::lines::{ItemLine, Line, reference, show};
use crate::reader::Savepoint;

/// What of a savepoint is wanted; by default everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// One operator, by uid, id or name.
    pub operator: Option<String>,
    /// States of this name.
    pub state: Option<String>,
    /// Entries of these key groups, and no items.
    pub groups: Option<KeyGroupRange>,
}

impl Selection {
    fn wants(&self, state: &str) -> bool {
        self.state.as_deref().is_none_or(|wanted| wanted == state)
    }

    fn operators<'a>(&self, savepoint: &'a Savepoint) -> Result<Vec<&'a OperatorManifest>, SavepointError> {
        match &self.operator {
            Some(reference) => Ok(vec![savepoint.operator(reference)?]),
            None => Ok(savepoint.metadata().manifest.operators.iter().collect()),
        }
    }
}

/// Hands over a line for every entry and item that is wanted, in the order of the files.
///
/// # Errors
/// When the savepoint cannot be read, a state has a type that only its own code can read, or the visitor refuses.
pub async fn export<E: From<SavepointError>>(
    savepoint: &Savepoint,
    selection: &Selection,
    mut visitor: impl FnMut(Line) -> Result<(), E>,
) -> Result<(), E> {
    for operator in selection.operators(savepoint)? {
        let all = KeyGroupRange { start: 0, end: operator.max_parallelism };
        let groups = selection.groups.unwrap_or(all);
        let layouts = layouts(operator, selection)?;
        savepoint
            .visit(operator.id, groups, |state, group, mut entries| {
                let Some((state, layout)) = layouts.iter().find(|(descriptor, _)| descriptor.name == state)
                else {
                    return Ok(());
                };
                while !entries.is_empty() {
                    let entry = layout.take(&mut entries).map_err(|error| {
                        SavepointError::damaged_state(&operator.label(), &state.name, &error)
                    })?;
                    visitor(Line::Entry(show(operator, state, group, entry)?))?;
                }
                Ok::<(), E>(())
            })
            .await?;
        let items =
            operator.states.iter().any(|state| !state.kind.is_keyed() && selection.wants(&state.name));
        if items && selection.groups.is_none() {
            for item in savepoint.items(operator.id).await? {
                visitor(Line::Item(ItemLine { operator: reference(operator), item: Encoded(item) }))?;
            }
        }
    }
    Ok(())
}

/// The keyed states that are wanted.
fn layouts<'a>(
    operator: &'a OperatorManifest,
    selection: &Selection,
) -> Result<Vec<(&'a thalweg_common::graph::StateDescriptor, EntryLayout)>, SavepointError> {
    let Some(key_schema) = &operator.key_schema else { return Ok(Vec::new()) };
    let wanted = operator.states.iter().filter(|state| state.kind.is_keyed() && selection.wants(&state.name));
    wanted
        .map(|state| {
            let layout = EntryLayout::of(state, key_schema);
            let layout = layout.map_err(|unreadable| SavepointError::Unreadable {
                operator: operator.label(),
                unreadable,
            })?;
            Ok((state, layout))
        })
        .collect()
}
