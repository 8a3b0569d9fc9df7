//! Which prepared transactions of a sink are committed when: in their order, each when its checkpoint is durable, and again after a
//! while when it failed. Pure.
//!
//! Invariants: a transaction is named in every snapshot until it is committed; none is committed before those that were prepared
//! before it; a failure is given up only behind the last repetition, and then the task fails with it.

use std::collections::VecDeque;
use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_common::limits::{COMMIT_BACKOFF_MS, MAX_COMMIT_BACKOFF_MS, MAX_COMMIT_REPETITIONS};

/// The prepared transactions of one subtask, the oldest first.
#[derive(Debug)]
pub(super) struct Committer<C> {
    prepared: VecDeque<Transactions<C>>,
    failures: u32,
    /// Behind a failure.
    next_try: Option<Duration>,
}

/// What was prepared at one barrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transactions<C> {
    /// The subtask that prepared them.
    pub(super) writer: u32,
    pub(super) checkpoint: CheckpointId,
    pub(super) committables: Vec<C>,
    /// Whether the checkpoint is durable.
    pub(super) is_due: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a, C> {
    /// Nothing is due.
    Nothing,
    /// Wait until then.
    At(Duration),
    /// Commit these, and tell what came of it.
    Commit(&'a [C]),
}

impl<C> Committer<C> {
    /// With what a restored checkpoint had prepared, all of which is due.
    pub(super) fn new(restored: Vec<Transactions<C>>) -> Self {
        let mut prepared: Vec<_> = restored;
        prepared.sort_by_key(|transactions| (transactions.checkpoint, transactions.writer));
        Self { prepared: prepared.into(), failures: 0, next_try: None }
    }

    /// All that is not committed.
    pub(super) fn prepared(&self) -> impl Iterator<Item = &Transactions<C>> {
        self.prepared.iter()
    }

    /// The sink has prepared these.
    pub(super) fn add(&mut self, writer: u32, checkpoint: CheckpointId, committables: Vec<C>) {
        if !committables.is_empty() {
            self.prepared.push_back(Transactions { writer, checkpoint, committables, is_due: false });
        }
    }

    /// The checkpoint is durable, and with it all that was prepared before.
    pub(super) fn complete(&mut self, checkpoint: CheckpointId) {
        let covered = self.prepared.iter_mut().filter(|transactions| transactions.checkpoint <= checkpoint);
        covered.for_each(|transactions| transactions.is_due = true);
    }

    pub(super) fn next(&self, now: Duration) -> Next<'_, C> {
        match (self.prepared.front().filter(|first| first.is_due), self.next_try) {
            (None, _) => Next::Nothing,
            (Some(_), Some(time)) if now < time => Next::At(time),
            (Some(first), _) => Next::Commit(&first.committables),
        }
    }

    /// The oldest ones are committed.
    pub(super) fn committed(&mut self) {
        self.prepared.pop_front();
        (self.failures, self.next_try) = (0, None);
    }

    /// They could not be committed: it is tried again later, unless that cannot help.
    ///
    /// # Errors
    /// The failure, if nothing is tried any more.
    pub(super) fn failed(&mut self, failure: Failure, now: Duration) -> Result<(), Failure> {
        let checkpoint = self.prepared.front().map_or(0, |first| first.checkpoint);
        let failure = failure.context(format_args!("cannot commit checkpoint {checkpoint}"));
        if !failure.retryable || self.failures >= MAX_COMMIT_REPETITIONS {
            return Err(failure);
        }
        let backoff_ms = COMMIT_BACKOFF_MS.saturating_mul(1 << self.failures).min(MAX_COMMIT_BACKOFF_MS);
        self.failures += 1;
        self.next_try = Some(now + Duration::from_millis(backoff_ms));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn committed(committer: &mut Committer<u32>, now: Duration) -> Vec<u32> {
        let mut all = Vec::new();
        while let Next::Commit(committables) = committer.next(now) {
            all.extend_from_slice(committables);
            committer.committed();
        }
        all
    }

    #[test]
    fn what_is_covered_is_committed_in_order_and_once() {
        let mut committer = Committer::new(Vec::new());
        committer.add(0, 1, vec![10, 11]);
        committer.add(0, 2, vec![]);
        committer.add(0, 3, vec![30]);
        assert_eq!(committer.next(MS), Next::Nothing);
        // The news of 2 covers 1, of which there was none.
        committer.complete(2);
        committer.add(0, 4, vec![40]);
        assert_eq!(committed(&mut committer, MS), [10, 11]);
        committer.complete(2);
        assert_eq!(committer.next(MS), Next::Nothing);
        committer.complete(4);
        assert_eq!(committed(&mut committer, MS), [30, 40]);
        assert_eq!(committer.prepared().count(), 0);
    }

    #[test]
    fn what_is_restored_comes_first() {
        let of = |writer, checkpoint, committable| Transactions {
            writer,
            checkpoint,
            committables: vec![committable],
            is_due: true,
        };
        let mut committer = Committer::new(vec![of(1, 5, 51), of(0, 5, 50), of(3, 4, 43)]);
        committer.add(0, 6, vec![60]);
        committer.complete(6);
        assert_eq!(committed(&mut committer, MS), [43, 50, 51, 60]);
    }

    #[test]
    fn a_failed_commit_is_repeated_ever_later_and_holds_up_those_behind_it() {
        let mut committer = Committer::new(Vec::new());
        committer.add(0, 1, vec![1]);
        committer.add(0, 2, vec![2]);
        committer.complete(2);
        let mut now = MS;
        let mut waits = Vec::new();
        loop {
            assert_eq!(committer.next(now), Next::Commit(&[1]));
            if let Err(failure) = committer.failed(Failure::external("no answer"), now) {
                assert_eq!(failure.message, "cannot commit checkpoint 1: no answer");
                break;
            }
            let Next::At(time) = committer.next(now) else { panic!("it waits") };
            waits.push((time - now).as_millis());
            now = time;
        }
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000, 10_000]);
        assert_eq!(committer.prepared().count(), 2, "both are in the snapshots still");
        committer.committed();
        assert!(committer.failed(Failure::external("again"), now).is_ok(), "a success begins the count anew");
        assert!(committer.failed(Failure::external("no").permanent(), now).is_err());
    }
}
