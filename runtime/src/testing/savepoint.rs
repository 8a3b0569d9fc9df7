//! What tested operators are given that restore a savepoint, without writing one.

use std::collections::BTreeMap;

use thalweg_common::failure::Failure;

use crate::parts::{self, Part};
use crate::snapshot::OperatorSnapshot;

/// What subtasks that restore a savepoint are given, when these are the snapshots of those that wrote it: with the parts of sources, sinks and
/// functions, as items of a savepoint, and without keyed state.
///
/// # Errors
/// When parts cannot be divided.
pub fn through_savepoint(
    written: &[OperatorSnapshot],
    subtasks: u32,
) -> Result<Vec<OperatorSnapshot>, Failure> {
    let mut items = BTreeMap::new();
    for (subtask, snapshot) in (0..).zip(written) {
        let parts = snapshot.parts.iter().flat_map(|parts| &parts.list);
        items.insert(subtask, parts.map(Part::to_item).collect::<Result<Vec<_>, Failure>>()?);
    }
    let written_by = u32::try_from(written.len()).unwrap_or(u32::MAX);
    let of = |index| parts::of_items(&items, written_by, index, subtasks);
    (0..subtasks)
        .map(|index| Ok(OperatorSnapshot { parts: of(index)?, ..OperatorSnapshot::default() }))
        .collect()
}
