//! What a task does next. Pure: the loop executes each [`Step`] and tells the core what came of it.
//!
//! Order of precedence: control mail, then output that is held back, then input. Invariants: no input is read while output is
//! held back; a task is idle only if it has looked at its input since the last call; a barrier is never taken while the
//! operators are telling their last records, so a snapshot is from before the end or from behind it; a task ends as finished
//! only after it was drained and its final checkpoint completed, or after the savepoint completed with which its job stops; a source
//! that has given the barrier of such a savepoint reads no more until that is decided; while a frozen epoch is not encoded, which a
//! flush does slice by slice, a task does not sleep until it is woken.

use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_common::limits::EPOCH_PAUSE_MS;
use thalweg_state::Drained;

use super::Role;
use super::mailbox::Mail;
use crate::event::{Aligned, Barrier};
use crate::link::Flushed;
use crate::program::Polled;

/// What the loop is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Read input, and tell [`TaskCore::polled`].
    Poll,
    /// Send what is held back, and tell [`TaskCore::flushed`].
    Flush { partial: bool },
    /// Sleep until woken, or this long: there is nothing to read.
    Park(Option<Duration>),
    /// A channel is full: look for a barrier that overtakes, and tell [`TaskCore::looked`].
    Look,
    /// Sleep until woken, or this long: a channel is full.
    AwaitRoom(Option<Duration>),
    /// Take the snapshot of the chain and pass the barrier on.
    Snapshot { barrier: Barrier, alignment: Aligned },
    /// Tell the chain the end of its input.
    Finish,
    /// Report that the task is drained.
    ReportDrained,
    /// Commit; then end as finished if `ends`.
    Complete { checkpoint: CheckpointId, ends: bool },
    /// Forget a checkpoint.
    Abort { checkpoint: CheckpointId },
    /// The task fails.
    Fail(Failure),
}

/// The state of one task's loop.
#[derive(Debug)]
pub(crate) struct TaskCore {
    role: Role,
    /// Whether a barrier may overtake what the task cannot read because a channel is full.
    overtakes: bool,
    phase: Phase,
    turn: Turn,
    /// A trigger that came while the input was ending.
    deferred: Option<Barrier>,
    /// How far the frozen epochs of the operators were encoded by the last flush.
    drained: Drained,
    /// The barrier with which the job stops, while its savepoint is undecided. Nothing is read behind it.
    stopping: Option<CheckpointId>,
}

/// How far the input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// There may be more.
    Open,
    /// It has ended; the operators tell their last records.
    Ending,
    /// Everything has left the task.
    Drained,
}

/// What comes next when there is no mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Poll,
    /// Behind it, sleep if there was nothing to read.
    Flush {
        partial: bool,
        then: Then,
    },
    /// A channel is full. Behind it, read: the call that tells of input may have come while the task waited for room, and
    /// there is no second one.
    Blocked {
        partial: bool,
        look: Look,
    },
    Idle(Option<Duration>),
    Snapshot {
        barrier: Barrier,
        alignment: Aligned,
    },
    Finish,
    ReportDrained,
}

/// Whether a task that must not read has looked at what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// It is to look.
    Due,
    /// It has looked, and goes on at the latest after this time.
    Done(Option<Duration>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Poll,
    Idle(Option<Duration>),
}

impl TaskCore {
    /// A new task. `overtakes` says whether barriers may.
    pub(crate) fn new(role: Role, overtakes: bool) -> Self {
        let (drained, stopping) = (Drained::All, None);
        Self { role, overtakes, phase: Phase::Open, turn: Turn::Poll, deferred: None, drained, stopping }
    }

    /// The next step.
    pub(crate) fn next(&mut self, mail: Option<Mail>) -> Step {
        let step = self.decide(mail);
        if let Step::Snapshot { barrier, .. } = step
            && barrier.is_final
            && barrier.is_savepoint
        {
            self.stopping = Some(barrier.id);
        }
        step
    }

    fn decide(&mut self, mail: Option<Mail>) -> Step {
        match mail {
            Some(Mail::Trigger(barrier)) => self.on_trigger(barrier),
            Some(Mail::Completed { checkpoint, is_final: true })
                if self.phase != Phase::Drained && self.stopping != Some(checkpoint) =>
            {
                let message =
                    format!("the final checkpoint {checkpoint} completed before the task was drained");
                Step::Fail(Failure::internal(message))
            }
            Some(Mail::EndInput) => {
                if self.role.reads_outside() && self.phase == Phase::Open {
                    self.turn = Turn::Finish;
                }
                self.own_step()
            }
            Some(Mail::Completed { checkpoint, is_final }) => Step::Complete { checkpoint, ends: is_final },
            Some(Mail::Aborted { checkpoint }) => {
                self.deferred = self.deferred.filter(|barrier| barrier.id != checkpoint);
                self.stopping = self.stopping.filter(|stopping| *stopping != checkpoint);
                // Channels that waited for its barrier may go on.
                self.turn = self.turn.awake();
                Step::Abort { checkpoint }
            }
            // The next flush brings the answer.
            Some(Mail::TellTime { .. }) => {
                self.turn = self.turn.awake();
                self.own_step()
            }
            None => self.own_step(),
        }
    }

    /// What reading the input has brought.
    pub(crate) fn polled(&mut self, polled: Polled) {
        self.turn = match polled {
            Polled::Progress => Turn::Flush { partial: false, then: Then::Poll },
            Polled::Idle { retry_after } => Turn::Flush { partial: true, then: Then::Idle(retry_after) },
            Polled::Barrier { barrier, alignment } => Turn::Snapshot { barrier, alignment },
            Polled::EndOfInput => Turn::Finish,
        };
    }

    /// Whether everything is on its way, and how much of a frozen epoch is left. Answers [`Step::Flush`].
    pub(crate) fn flushed(&mut self, flushed: Flushed, drained: Drained) {
        self.drained = drained;
        let Turn::Flush { partial, then } = self.turn else { return };
        self.turn = match (flushed, self.phase, then) {
            (Flushed::Blocked, ..) => Turn::Blocked { partial, look: self.look() },
            (Flushed::All, Phase::Ending, _) => Turn::ReportDrained,
            (Flushed::All, _, Then::Poll) => Turn::Poll,
            (Flushed::All, _, Then::Idle(retry_after)) => Turn::Idle(retry_after),
        };
    }

    /// An operator wants to be flushed, although nothing has happened.
    pub(crate) fn called(&mut self) {
        self.turn = self.turn.awake();
    }

    /// What there is for a task that must not read. Answers [`Step::Look`].
    pub(crate) fn looked(&mut self, polled: Polled) {
        let Turn::Blocked { partial, .. } = self.turn else { return };
        self.turn = match polled {
            Polled::Barrier { barrier, alignment } => Turn::Snapshot { barrier, alignment },
            Polled::Idle { retry_after } => Turn::Blocked { partial, look: Look::Done(retry_after) },
            Polled::Progress | Polled::EndOfInput => self.turn,
        };
    }

    /// Whether to look for barriers while a channel is full. Not while operators tell their last records: see above.
    fn look(&self) -> Look {
        let looks = self.overtakes && self.role != Role::Source && self.phase != Phase::Ending;
        if looks { Look::Due } else { Look::Done(None) }
    }

    fn on_trigger(&mut self, barrier: Barrier) -> Step {
        if self.role != Role::Source {
            let message = format!("checkpoint {} was triggered at a task that has no source", barrier.id);
            return Step::Fail(Failure::internal(message));
        }
        if self.phase == Phase::Ending || self.turn == Turn::Finish {
            self.deferred = Some(barrier);
            return self.own_step();
        }
        self.turn = match self.turn {
            // A deferred barrier that was not taken yet: the newer one stands for it.
            Turn::Snapshot { .. } => Turn::Flush { partial: false, then: Then::Poll },
            other => other.awake(),
        };
        Step::Snapshot { barrier, alignment: Aligned::default() }
    }

    fn own_step(&mut self) -> Step {
        let (step, turn) = match self.turn {
            // A source that has ended has nothing more to say; a gate still has barriers.
            Turn::Poll if self.role == Role::Source && self.phase == Phase::Drained => {
                self.rest_without_input()
            }
            // Nothing comes behind the barrier; a channel whose sender has finished first must not be read.
            Turn::Poll if self.stopping.is_some() => self.rest_without_input(),
            Turn::Poll => (Step::Poll, Turn::Poll),
            Turn::Flush { partial, .. } => (Step::Flush { partial }, self.turn),
            Turn::Blocked { partial, look: Look::Due } => {
                (Step::Look, Turn::Blocked { partial, look: Look::Done(None) })
            }
            Turn::Blocked { partial, look: Look::Done(longest) } => {
                (Step::AwaitRoom(self.rest(longest)), Turn::Flush { partial, then: Then::Poll })
            }
            Turn::Idle(retry_after) => (Step::Park(self.rest(retry_after)), Turn::Poll),
            Turn::Snapshot { barrier, alignment } => {
                (Step::Snapshot { barrier, alignment }, Turn::Flush { partial: false, then: Then::Poll })
            }
            Turn::Finish => {
                self.phase = Phase::Ending;
                (Step::Finish, Turn::Flush { partial: true, then: Then::Poll })
            }
            Turn::ReportDrained => {
                self.phase = Phase::Drained;
                let turn = match self.deferred.take() {
                    Some(barrier) => Turn::Snapshot { barrier, alignment: Aligned::default() },
                    None => Turn::Poll,
                };
                (Step::ReportDrained, turn)
            }
        };
        self.turn = turn;
        step
    }

    /// Sleeps while nothing may be read, but not before what was frozen is encoded.
    fn rest_without_input(&self) -> (Step, Turn) {
        match self.drained {
            Drained::All => (Step::Park(None), Turn::Poll),
            _ => (Step::Park(self.rest(None)), Turn::Flush { partial: false, then: Then::Poll }),
        }
    }

    /// How long to sleep at the most: with a frozen epoch only until its next slice.
    fn rest(&self, longest: Option<Duration>) -> Option<Duration> {
        let pause = match self.drained {
            Drained::All => return longest,
            Drained::Some => Duration::ZERO,
            Drained::Behind => Duration::from_millis(EPOCH_PAUSE_MS),
        };
        Some(longest.map_or(pause, |longest| longest.min(pause)))
    }
}

impl Turn {
    /// The turn after something has happened that may give the task work again.
    fn awake(self) -> Self {
        match self {
            Self::Poll | Self::Idle(_) => Self::Flush { partial: false, then: Then::Poll },
            Self::Blocked { partial, .. } | Self::Flush { partial, .. } => {
                Self::Flush { partial, then: Then::Poll }
            }
            other => other,
        }
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
