//! The write-back cache: typed tables over a [`Backend`](crate::Backend).
//!
//! Stands where the tables of the memory store stand, with the same handles above it. A row of the cache is a key of which
//! everything is known, also that it has no state; whoever selects a key gets its row loaded first. Changes stay in the cache
//! until their epoch ends or their row has to leave, and go behind it as batches of encoded entries.
//! Invariants: what lies behind the cache is right for every key that has no row, and for every row without marks;
//! while a frozen epoch is not behind the cache, nothing that is younger goes there.

pub(crate) mod batch;
pub(crate) mod epochs;
pub(crate) mod inline;
pub(crate) mod persistent;
