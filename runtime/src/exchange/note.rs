//! Notes: what the receiver of a channel tells its sender, against the direction of the records.
//!
//! Beside a record's way. A note is a place for one message, not a queue: a newer one takes the place of one that was not read, so that it
//! costs a bounded amount of memory and needs no credit. Whoever writes notes therefore says all that counts each time. Nothing of them is
//! in a checkpoint: what must not be lost is said again in the next attempt.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::lock;

/// The place for the note of one channel, as both of its ends know it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Note {
    newest: Arc<Mutex<Option<Bytes>>>,
}

impl Note {
    /// Leaves a note; it takes the place of an older one.
    pub(crate) fn write(&self, note: Bytes) {
        *lock(&self.newest) = Some(note);
    }

    /// The newest note, if it was not taken before.
    pub(crate) fn take(&self) -> Option<Bytes> {
        lock(&self.newest).take()
    }
}
