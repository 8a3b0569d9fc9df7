//! How an item says of itself that it is a part: any subtask of its source or sink can go on with it.
//!
//! Other items, and all of those of the first savepoints, are the whole of what one subtask remembers: they go back to the subtask of the
//! same number, so that the operator keeps its parallelism.

/// What parts begin with.
pub const MARK: &[u8] = b"\x00thalweg-part\x01";

/// Whether this item is a part.
#[must_use]
pub fn is_part(item: &[u8]) -> bool {
    item.starts_with(MARK)
}
