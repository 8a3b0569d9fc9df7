//! Credit of a remote channel, at both of its ends: who may send how much, and when it is given back. Pure.
//!
//! On a record's way this decides whether a frame may leave its task and when its bytes may be used again. Invariants: a
//! frame is sent only while credit is left and may overdraw it once, so that a frame larger than the window still passes;
//! what waits at a receiver never costs more than the window and one frame; a receiver that has handed over
//! everything withholds less than a quarter of the window, so a sender never waits for nothing.

use thalweg_common::limits::{FRAME_OVERHEAD_BYTES, MAX_CHANNEL_CREDIT_BYTES};

/// What a data frame with a payload of this length costs: its bytes and what it takes to keep them.
pub(super) fn frame_cost(payload_bytes: usize) -> u64 {
    (payload_bytes + FRAME_OVERHEAD_BYTES) as u64
}

/// The other end did not keep to the credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum CreditViolation {
    /// A frame came although no credit was left.
    #[error("a data frame came without credit ({overdrawn} bytes overdrawn)")]
    Overdrawn {
        /// How far below zero the credit is.
        overdrawn: u64,
    },
    /// More was granted than any window may be.
    #[error(
        "credit of {credit} bytes was granted, more than the largest window of {MAX_CHANNEL_CREDIT_BYTES} bytes"
    )]
    TooMuch {
        /// What the sender would own.
        credit: u64,
    },
}

/// The sender's end: starts with nothing and waits for the first grant.
#[derive(Debug, Default)]
pub(super) struct SenderCredit {
    available: i64,
}

impl SenderCredit {
    /// Whether a frame may be sent.
    pub(super) fn is_open(&self) -> bool {
        self.available > 0
    }

    /// Bytes that are left; none when a frame has overdrawn them.
    pub(super) fn available(&self) -> u64 {
        u64::try_from(self.available).unwrap_or(0)
    }

    /// A frame of this cost is sent.
    pub(super) fn spend(&mut self, cost: u64) {
        self.available = self.available.saturating_sub_unsigned(cost);
    }

    /// The receiver gave back, or gave for the first time.
    pub(super) fn grant(&mut self, bytes: u64) -> Result<(), CreditViolation> {
        let available = self.available.saturating_add_unsigned(bytes);
        if available > MAX_CHANNEL_CREDIT_BYTES as i64 {
            return Err(CreditViolation::TooMuch { credit: available.unsigned_abs() });
        }
        self.available = available;
        Ok(())
    }
}

/// The receiver's end: what its sender may still spend, and what waits to be given back.
#[derive(Debug)]
pub(super) struct ReceiverCredit {
    window: u64,
    available: i64,
    withheld: u64,
}

impl ReceiverCredit {
    /// The credit of a new channel. The whole window is its first grant.
    pub(super) fn new(window: u64) -> Self {
        Self { window, available: i64::try_from(window).unwrap_or(i64::MAX), withheld: 0 }
    }

    /// A data frame of this cost has arrived.
    pub(super) fn receive(&mut self, cost: u64) -> Result<(), CreditViolation> {
        if self.available <= 0 {
            return Err(CreditViolation::Overdrawn { overdrawn: self.available.unsigned_abs() });
        }
        self.available = self.available.saturating_sub_unsigned(cost);
        Ok(())
    }

    /// The batch of a frame of this cost is with the task. Returns what is to be granted now: nothing until a
    /// quarter of the window has come together, so that a grant is sent for many small frames.
    pub(super) fn hand_over(&mut self, cost: u64) -> u64 {
        self.withheld += cost;
        if self.withheld < self.window.div_ceil(4) {
            return 0;
        }
        let grant = std::mem::take(&mut self.withheld);
        self.available = self.available.saturating_add_unsigned(grant);
        grant
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn a_sender_starts_closed_and_overdraws_once() {
        let mut credit = SenderCredit::default();
        assert!(!credit.is_open());
        credit.grant(10).expect("within the limit");
        assert!(credit.is_open());
        credit.spend(1_000);
        assert!(!credit.is_open());
        credit.grant(990).expect("within the limit");
        assert!(!credit.is_open(), "at zero nothing is left");
        credit.grant(1).expect("within the limit");
        assert!(credit.is_open());
    }

    #[test]
    fn a_receiver_refuses_what_it_has_no_room_for() {
        let mut credit = ReceiverCredit::new(100);
        credit.receive(99).expect("there is room");
        credit.receive(50).expect("one byte is left: a frame may overdraw it");
        assert_eq!(credit.receive(1), Err(CreditViolation::Overdrawn { overdrawn: 49 }));
    }

    #[test]
    fn small_hand_overs_are_granted_together() {
        let mut credit = ReceiverCredit::new(100);
        let grants: Vec<_> = [10, 10, 4, 1, 30, 24].into_iter().map(|cost| credit.hand_over(cost)).collect();
        assert_eq!(grants, [0, 0, 0, 25, 30, 0]);
    }

    #[test]
    fn a_grant_beyond_every_window_is_a_violation() {
        let mut credit = SenderCredit::default();
        credit.grant(MAX_CHANNEL_CREDIT_BYTES as u64).expect("the largest window");
        assert!(matches!(credit.grant(1), Err(CreditViolation::TooMuch { .. })));
        assert!(matches!(credit.grant(u64::MAX), Err(CreditViolation::TooMuch { .. })));
        assert!(credit.is_open(), "a refused grant changes nothing");
    }

    proptest! {
        /// Two ends with delays between them: nobody is ever accused, memory is bounded, nobody waits for nothing.
        #[test]
        fn both_ends_agree(window in 1u64..5_000, steps in proptest::collection::vec((0u8..4, 1u64..2_000), 0..400)) {
            let mut sender = SenderCredit::default();
            let mut receiver = ReceiverCredit::new(window);
            let (mut frames, mut grants) = (VecDeque::new(), VecDeque::from([window]));
            let (mut queue, mut largest) = (VecDeque::new(), 0);
            for (action, cost) in steps {
                match action {
                    0 if sender.is_open() => {
                        sender.spend(cost);
                        largest = largest.max(cost);
                        frames.push_back(cost);
                    }
                    1 => if let Some(cost) = frames.pop_front() {
                        prop_assert_eq!(receiver.receive(cost), Ok(()));
                        queue.push_back(cost);
                    },
                    2 => if let Some(cost) = queue.pop_front() {
                        grants.push_back(receiver.hand_over(cost));
                    },
                    3 => if let Some(grant) = grants.pop_front() {
                        sender.grant(grant).expect("within the limit");
                    },
                    _ => {}
                }
                let held: u64 = queue.iter().chain(&frames).sum();
                prop_assert!(held <= window + largest, "{held} bytes wait");
            }
            // Everything is handed over and every grant arrives: the sender may go on.
            for cost in queue.into_iter().chain(frames) {
                grants.push_back(receiver.hand_over(cost));
            }
            for grant in grants {
                sender.grant(grant).expect("within the limit");
            }
            prop_assert!(sender.is_open());
        }
    }
}
