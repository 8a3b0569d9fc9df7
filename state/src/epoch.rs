//! An epoch on its way from the cache to the disk: what has changed between two barriers.
//!
//! The task freezes it at a barrier, which is a swap of two bits, encodes it in slices between its batches, and hands the
//! batches through a bounded channel to whoever works on the [`FrozenEpoch`], a thread that may block. Invariants: epochs are
//! written in their order; an epoch is sealed when all of it is behind the cache and its checkpoint is made or given up; one
//! that is dropped before it is written makes its store fail, because what it held is nowhere else.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::clock::{Stopwatch, SystemClock};
use thalweg_common::id::CheckpointId;
use thalweg_common::key_group::KeyGroup;
use thalweg_common::limits::{EPOCH_BATCHES, EPOCH_CHUNK_BYTES};

use crate::backend::{SharedBackend, StoreDescription, StoreFiles};
use crate::cache::batch::EntryBatch;
use crate::canonical::Pieces;
use crate::error::StoreError;

/// A piece of an epoch.
struct Piece {
    batch: EntryBatch,
    is_last: bool,
}

/// How far the epochs of a store are, for its task and for those who write them.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    sealed: AtomicU64,
    has_failed: AtomicBool,
    /// Changes with every piece that is taken and every epoch that is sealed.
    progress: Mutex<Progress>,
    changed: Condvar,
    /// How often its task has waited here, and how long.
    stalls: AtomicU64,
    stall_ns: AtomicU64,
}

#[derive(Debug, Default)]
struct Progress {
    steps: u64,
    failure: Option<String>,
}

impl Gate {
    /// How many epochs are sealed.
    pub(crate) fn sealed(&self) -> u64 {
        self.sealed.load(Ordering::Acquire)
    }

    /// What has gone wrong for good, if anything.
    #[inline]
    pub(crate) fn failure(&self) -> Option<String> {
        if !self.has_failed.load(Ordering::Acquire) {
            return None;
        }
        self.progress().failure.clone()
    }

    /// Remembers that changes are lost.
    pub(crate) fn fail(&self, cause: impl Into<String>) {
        let mut progress = self.progress();
        progress.failure.get_or_insert_with(|| cause.into());
        progress.steps += 1;
        self.has_failed.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    fn seal(&self, epoch: u64) {
        self.sealed.fetch_max(epoch, Ordering::AcqRel);
        self.step();
    }

    fn step(&self) {
        self.progress().steps += 1;
        self.changed.notify_all();
    }

    /// A number that grows with every step.
    pub(crate) fn steps(&self) -> u64 {
        self.progress().steps
    }

    /// Waits for the next step, or a failure. Whether there was one in time.
    pub(crate) fn wait(&self, steps: u64, timeout: Duration) -> bool {
        let unchanged = |progress: &mut Progress| progress.steps == steps;
        let stopwatch = Stopwatch::start(&SystemClock::shared());
        let waited = self.changed.wait_timeout_while(self.progress(), timeout, unchanged);
        let is_in_time = !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out();
        let stall_ns = u64::try_from(stopwatch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.stalls.fetch_add(1, Ordering::Relaxed);
        self.stall_ns.fetch_add(stall_ns, Ordering::Relaxed);
        is_in_time
    }

    /// How often the task has waited for a step, and how long in all.
    pub(crate) fn stalls(&self) -> (u64, Duration) {
        let time = Duration::from_nanos(self.stall_ns.load(Ordering::Relaxed));
        (self.stalls.load(Ordering::Relaxed), time)
    }

    /// Waits until an epoch is sealed, or nothing will be any more.
    fn wait_until_sealed(&self, epoch: u64) {
        let waiting = |progress: &mut Progress| progress.failure.is_none() && self.sealed() < epoch;
        drop(self.changed.wait_while(self.progress(), waiting));
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task's end of an epoch that is being encoded.
pub(crate) struct EpochSender {
    sender: SyncSender<Piece>,
}

/// What became of a piece.
pub(crate) enum Sent {
    Yes,
    /// The writer is behind: the batch comes back.
    Full(EntryBatch),
    /// There is no writer any more.
    Gone,
}

impl EpochSender {
    pub(crate) fn send(&self, batch: EntryBatch, is_last: bool) -> Sent {
        match self.sender.try_send(Piece { batch, is_last }) {
            Ok(()) => Sent::Yes,
            Err(TrySendError::Full(piece)) => Sent::Full(piece.batch),
            Err(TrySendError::Disconnected(_)) => Sent::Gone,
        }
    }
}

/// What has changed before a barrier, for a thread that may block: write it with [`finish`](Self::finish).
pub struct FrozenEpoch {
    checkpoint: CheckpointId,
    number: u64,
    /// When it was frozen.
    frozen_ms: Timestamp,
    operator: String,
    backend: SharedBackend,
    description: StoreDescription,
    gate: Arc<Gate>,
    /// Behind a lock only so that references to an epoch may cross threads: whoever writes it owns it.
    pieces: Mutex<Receiver<Piece>>,
    is_written: bool,
}

impl FrozenEpoch {
    pub(crate) fn new(
        checkpoint: CheckpointId,
        number: u64,
        frozen_ms: Timestamp,
        operator: &str,
        backend: SharedBackend,
        description: StoreDescription,
        gate: Arc<Gate>,
    ) -> (Self, EpochSender) {
        let (sender, pieces) = sync_channel(EPOCH_BATCHES);
        let (operator, pieces) = (operator.to_string(), Mutex::new(pieces));
        let is_written = false;
        let epoch =
            Self { checkpoint, number, frozen_ms, operator, backend, description, gate, pieces, is_written };
        (epoch, EpochSender { sender })
    }

    /// The checkpoint whose barrier froze it.
    pub fn checkpoint(&self) -> CheckpointId {
        self.checkpoint
    }

    /// Writes the epoch as the task encodes it, makes the store durable and links it into `directory`, which must not exist
    /// and must be on the same disk as the store. Blocks until the task has encoded everything.
    ///
    /// # Errors
    /// When it cannot be written; the store then fails, too. When the checkpoint cannot be made; the store goes on.
    pub fn finish(mut self, directory: &Path) -> Result<StoreFiles, StoreError> {
        self.write()?;
        let files = self.backend.checkpoint(directory);
        self.gate.seal(self.number);
        Ok(StoreFiles { description: self.description.clone(), files: files? })
    }

    /// Writes the epoch as the task encodes it, and reads all state as it was at its barrier: `piece` takes the canonical entries of a
    /// state and key group, in pieces that suit a savepoint, one state and in it one group after the other. Nothing is made of it on
    /// disk. Blocks; the task and later epochs wait only until the epoch is written.
    ///
    /// # Errors
    /// When it cannot be written; the store then fails, too. When it cannot be read, and what `piece` returns; the store goes on.
    pub fn read<E: From<StoreError>>(
        mut self,
        piece: impl FnMut(&str, KeyGroup, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.write()?;
        let mut pieces = Pieces::new(&self.operator, &self.description, self.frozen_ms, piece);
        let mut failed = None;
        let read =
            self.backend.read_all(&mut || self.gate.seal(self.number), &mut |state, key, value| match pieces
                .add(state, key, value)
            {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            });
        read?;
        match failed {
            Some(error) => Err(error),
            None => pieces.finish(),
        }
    }

    /// Writes the epoch without making a checkpoint, for one that was aborted: what has changed must not be lost.
    ///
    /// # Errors
    /// When it cannot be written; the store then fails, too.
    pub fn give_up(mut self) -> Result<(), StoreError> {
        self.write()?;
        self.gate.seal(self.number);
        Ok(())
    }

    fn write(&mut self) -> Result<(), StoreError> {
        self.gate.wait_until_sealed(self.number - 1);
        if let Some(cause) = self.gate.failure() {
            return Err(StoreError::Incomplete { operator: self.operator.clone(), cause });
        }
        let mut chunk = EntryBatch::default();
        loop {
            let Ok(Piece { batch, is_last }) =
                self.pieces.get_mut().unwrap_or_else(PoisonError::into_inner).recv()
            else {
                let cause = format!("its task has ended before checkpoint {} was encoded", self.checkpoint);
                return Err(StoreError::Incomplete { operator: self.operator.clone(), cause });
            };
            self.gate.step();
            if chunk.is_empty() {
                chunk = batch;
            } else {
                chunk.append(&batch);
            }
            if (is_last || chunk.size_bytes() >= EPOCH_CHUNK_BYTES) && !chunk.is_empty() {
                self.backend
                    .ingest(std::mem::take(&mut chunk))
                    .inspect_err(|error| self.gate.fail(error.to_string()))?;
            }
            if is_last {
                self.is_written = true;
                return Ok(());
            }
        }
    }
}

impl Drop for FrozenEpoch {
    fn drop(&mut self) {
        if !self.is_written {
            self.gate
                .fail(format!("the changes before checkpoint {} were dropped unwritten", self.checkpoint));
        }
    }
}

impl std::fmt::Debug for FrozenEpoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FrozenEpoch {} of `{}`", self.checkpoint, self.operator)
    }
}
