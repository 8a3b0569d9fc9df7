//! Barrier alignment: which channels of a gate must wait, and when a barrier has arrived on all. Pure.
//!
//! On a record's way this stands in the gate, behind the channels and before the chain. Invariants: in exactly-once mode
//! no record behind a barrier is delivered before that barrier has arrived on every channel; in at-least-once mode no
//! channel ever waits; a checkpoint is reported once or never. A channel whose input has ended still delivers barriers.
//!
//! Several checkpoints may be on their way at the same time in exactly-once mode: a channel that has delivered one barrier
//! is not read before that one has arrived everywhere, so the next one stands behind it. Where a newer barrier comes first
//! all the same, its sender has left the older one out, which never completes: the newer one wins. In at-least-once mode,
//! where no channel waits, the job manager takes one at a time.

use std::collections::BTreeSet;

use thalweg_common::config::CheckpointMode;
use thalweg_common::id::CheckpointId;

use super::ready::ChannelSet;
use crate::event::Barrier;

/// Most dead checkpoints that are remembered one by one.
const MAX_DEAD: usize = 1_024;

/// What a barrier has brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alignment {
    /// It belongs to a checkpoint that is already dead or done.
    Ignored,
    /// It is the first one of its checkpoint; others are to come. An older alignment ends here.
    Started,
    /// Others are still to come.
    Continued,
    /// It was the last one: the checkpoint's cut is here.
    Completed(Barrier),
}

/// A sender did what no sender may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum AlignmentViolation {
    /// Two barriers of one checkpoint.
    #[error("it delivered the barrier of checkpoint {0} twice")]
    Repeated(CheckpointId),
    /// Two ends of input.
    #[error("it delivered the end of its input twice")]
    EndedTwice,
}

/// The state of one gate's alignment.
#[derive(Debug)]
pub(super) struct Aligner {
    mode: CheckpointMode,
    channels: usize,
    current: Option<Barrier>,
    /// Channels that have delivered the current barrier.
    arrived: ChannelSet,
    /// Those among them that must wait; empty in at-least-once mode.
    blocked: ChannelSet,
    /// Channels whose input has ended.
    ended: ChannelSet,
    /// Checkpoints up to this one are done or dead.
    settled: CheckpointId,
    /// Those behind it that are dead.
    dead: BTreeSet<CheckpointId>,
}

impl Aligner {
    /// The state of a new gate.
    pub(super) fn new(channels: usize, mode: CheckpointMode) -> Self {
        Self {
            mode,
            channels,
            current: None,
            arrived: ChannelSet::new(channels),
            blocked: ChannelSet::new(channels),
            ended: ChannelSet::new(channels),
            settled: 0,
            dead: BTreeSet::new(),
        }
    }

    /// `channel` delivers a barrier.
    pub(super) fn on_barrier(
        &mut self,
        channel: usize,
        barrier: Barrier,
    ) -> Result<Alignment, AlignmentViolation> {
        if barrier.id <= self.settled || self.dead.contains(&barrier.id) {
            return Ok(Alignment::Ignored);
        }
        let is_first = match self.current {
            Some(current) if barrier.id == current.id => false,
            Some(current) if barrier.id < current.id => return Ok(Alignment::Ignored),
            Some(current) => {
                self.settle(current.id);
                true
            }
            None => true,
        };
        self.current = Some(barrier);
        if !self.arrived.insert(channel) {
            return Err(AlignmentViolation::Repeated(barrier.id));
        }
        if self.arrived.len() == self.channels {
            self.settle(barrier.id);
            return Ok(Alignment::Completed(barrier));
        }
        if self.mode == CheckpointMode::ExactlyOnce {
            self.blocked.insert(channel);
        }
        Ok(if is_first { Alignment::Started } else { Alignment::Continued })
    }

    /// The barrier overtakes what is in front of it: its checkpoint's cut is here, and nothing waits for it any more. Returns the
    /// channels that had delivered it; nothing if the checkpoint is already dead or done.
    pub(super) fn overtake(&mut self, barrier: Barrier) -> Option<ChannelSet> {
        let is_over = barrier.id <= self.settled || self.dead.contains(&barrier.id);
        if is_over || self.current.is_some_and(|current| current.id > barrier.id) {
            return None;
        }
        let is_current = self.current.is_some_and(|current| current.id == barrier.id);
        let arrived = if is_current { self.arrived.clone() } else { ChannelSet::new(self.channels) };
        self.settle(barrier.id);
        Some(arrived)
    }

    /// `channel` delivers the end of its input. True if it was the last one.
    pub(super) fn on_end(&mut self, channel: usize) -> Result<bool, AlignmentViolation> {
        if !self.ended.insert(channel) {
            return Err(AlignmentViolation::EndedTwice);
        }
        Ok(self.ended.len() == self.channels)
    }

    /// The checkpoint will never complete: what waits for it goes on, and its barriers mean nothing.
    pub(super) fn abort(&mut self, checkpoint: CheckpointId) {
        match self.current {
            Some(current) if current.id == checkpoint => self.settle(checkpoint),
            _ if checkpoint > self.settled => {
                self.dead.insert(checkpoint);
                // So many later ones are dead that one which is still waited for will hardly complete.
                if self.dead.len() > MAX_DEAD
                    && let Some(oldest) = self.dead.pop_first()
                {
                    self.forget(oldest);
                }
            }
            _ => {}
        }
    }

    /// The channels that must not be read.
    pub(super) fn blocked(&self) -> &ChannelSet {
        &self.blocked
    }

    /// Nothing up to this checkpoint is taken any more.
    fn forget(&mut self, checkpoint: CheckpointId) {
        match self.current {
            Some(current) if current.id > checkpoint => self.settled = self.settled.max(checkpoint),
            _ => self.settle(checkpoint),
        }
    }

    fn settle(&mut self, checkpoint: CheckpointId) {
        self.settled = self.settled.max(checkpoint);
        self.dead = self.dead.split_off(&self.settled);
        self.current = None;
        self.arrived.clear();
        self.blocked.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Alignment::{Completed, Continued, Ignored, Started};

    fn barrier(id: CheckpointId) -> Barrier {
        Barrier { id, timestamp_ms: 0, is_final: false, is_savepoint: false }
    }

    /// What happens, what the aligner says to it, and which channels are then blocked.
    enum Step {
        Barrier(usize, CheckpointId, Alignment, &'static [usize]),
        Abort(CheckpointId, &'static [usize]),
    }

    fn check(mode: CheckpointMode, channels: usize, steps: &[Step]) {
        let mut aligner = Aligner::new(channels, mode);
        for (number, step) in steps.iter().enumerate() {
            let expected = match *step {
                Step::Barrier(channel, id, alignment, blocked) => {
                    assert_eq!(aligner.on_barrier(channel, barrier(id)), Ok(alignment), "step {number}");
                    blocked
                }
                Step::Abort(id, blocked) => {
                    aligner.abort(id);
                    blocked
                }
            };
            let mut set = ChannelSet::new(channels);
            expected.iter().for_each(|channel| assert!(set.insert(*channel)));
            assert_eq!(aligner.blocked(), &set, "step {number}");
        }
    }

    #[test]
    fn exactly_once_blocks_until_all_have_arrived() {
        check(
            CheckpointMode::ExactlyOnce,
            3,
            &[
                Step::Barrier(1, 1, Started, &[1]),
                Step::Barrier(0, 1, Continued, &[0, 1]),
                Step::Barrier(2, 1, Completed(barrier(1)), &[]),
                Step::Barrier(2, 2, Started, &[2]),
                Step::Barrier(1, 2, Continued, &[1, 2]),
                Step::Barrier(0, 2, Completed(barrier(2)), &[]),
            ],
        );
    }

    #[test]
    fn at_least_once_blocks_nobody() {
        check(
            CheckpointMode::AtLeastOnce,
            2,
            &[
                Step::Barrier(0, 1, Started, &[]),
                Step::Barrier(0, 2, Started, &[]),
                Step::Barrier(1, 1, Ignored, &[]),
                Step::Barrier(1, 2, Completed(barrier(2)), &[]),
            ],
        );
    }

    #[test]
    fn one_channel_needs_no_alignment() {
        check(
            CheckpointMode::ExactlyOnce,
            1,
            &[Step::Barrier(0, 4, Completed(barrier(4)), &[]), Step::Barrier(0, 3, Ignored, &[])],
        );
    }

    #[test]
    fn a_newer_checkpoint_ends_an_older_alignment() {
        check(
            CheckpointMode::ExactlyOnce,
            3,
            &[
                Step::Barrier(0, 1, Started, &[0]),
                Step::Barrier(1, 2, Started, &[1]),
                Step::Barrier(2, 1, Ignored, &[1]),
                Step::Barrier(0, 2, Continued, &[0, 1]),
                Step::Barrier(2, 2, Completed(barrier(2)), &[]),
            ],
        );
    }

    #[test]
    fn an_abort_unblocks_and_later_barriers_of_the_dead_are_ignored() {
        check(
            CheckpointMode::ExactlyOnce,
            2,
            &[
                Step::Barrier(0, 3, Started, &[0]),
                Step::Abort(2, &[0]),
                Step::Abort(3, &[]),
                Step::Barrier(1, 3, Ignored, &[]),
                Step::Barrier(1, 4, Started, &[1]),
                Step::Abort(9, &[1]),
                Step::Barrier(0, 4, Completed(barrier(4)), &[]),
                Step::Barrier(0, 9, Ignored, &[]),
                Step::Barrier(0, 10, Started, &[0]),
                Step::Barrier(1, 10, Completed(barrier(10)), &[]),
                Step::Barrier(1, 9, Ignored, &[]),
            ],
        );
    }

    #[test]
    fn checkpoints_that_follow_each_other_closely_are_aligned_one_by_one() {
        check(
            CheckpointMode::ExactlyOnce,
            2,
            &[
                Step::Barrier(0, 1, Started, &[0]),
                // The second and the third were triggered meanwhile; the third is dead already.
                Step::Abort(3, &[0]),
                Step::Barrier(1, 1, Completed(barrier(1)), &[]),
                Step::Barrier(1, 2, Started, &[1]),
                Step::Barrier(0, 2, Completed(barrier(2)), &[]),
                Step::Barrier(0, 3, Ignored, &[]),
                Step::Barrier(0, 4, Started, &[0]),
                Step::Barrier(1, 3, Ignored, &[0]),
                Step::Barrier(1, 4, Completed(barrier(4)), &[]),
            ],
        );
    }

    #[test]
    fn the_dead_are_remembered_to_a_limit_and_none_of_them_ever_blocks() {
        let mut aligner = Aligner::new(2, CheckpointMode::ExactlyOnce);
        assert_eq!(aligner.on_barrier(0, barrier(1)), Ok(Started));
        let last = MAX_DEAD as CheckpointId + 2;
        (2..last).for_each(|checkpoint| aligner.abort(checkpoint));
        assert_eq!(aligner.blocked().len(), 1, "it may still complete");
        aligner.abort(last);
        assert_eq!(aligner.blocked().len(), 0);
        for checkpoint in [1, 2, 3, last] {
            assert_eq!(aligner.on_barrier(0, barrier(checkpoint)), Ok(Ignored), "{checkpoint}");
        }
        assert_eq!(aligner.on_barrier(0, barrier(last + 1)), Ok(Started));
    }

    #[test]
    fn what_no_sender_may_do_is_found() {
        let mut aligner = Aligner::new(2, CheckpointMode::AtLeastOnce);
        assert_eq!(aligner.on_barrier(0, barrier(1)), Ok(Started));
        assert_eq!(aligner.on_barrier(0, barrier(1)), Err(AlignmentViolation::Repeated(1)));
        assert_eq!(aligner.on_end(1), Ok(false));
        assert_eq!(aligner.on_end(1), Err(AlignmentViolation::EndedTwice));
        assert_eq!(aligner.on_end(0), Ok(true));
    }

    #[test]
    fn ended_channels_still_deliver_barriers() {
        let mut aligner = Aligner::new(2, CheckpointMode::ExactlyOnce);
        assert_eq!(aligner.on_end(0), Ok(false));
        assert_eq!(aligner.on_barrier(1, barrier(1)), Ok(Started), "the ended channel is waited for");
        assert_eq!(aligner.on_barrier(0, barrier(1)), Ok(Completed(barrier(1))));
    }
}
