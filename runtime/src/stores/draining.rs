//! How far the frozen epochs of a task's operators are encoded: what its chain tells its loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use thalweg_state::Drained;

/// Shared by a task's loop, which asks, and its operators, which encode a slice whenever they are flushed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Draining {
    left: Arc<AtomicU8>,
}

impl Draining {
    /// The chain is about to be flushed.
    pub(crate) fn begin(&self) {
        self.left.store(0, Ordering::Relaxed);
    }

    /// What an operator has left.
    pub(crate) fn add(&self, drained: Drained) {
        let left = match drained {
            Drained::All => return,
            Drained::Behind => 1,
            // Another one may go on while one waits.
            Drained::Some => 2,
        };
        self.left.fetch_max(left, Ordering::Relaxed);
    }

    /// What is left in all.
    pub(crate) fn left(&self) -> Drained {
        match self.left.load(Ordering::Relaxed) {
            0 => Drained::All,
            1 => Drained::Behind,
            _ => Drained::Some,
        }
    }
}
