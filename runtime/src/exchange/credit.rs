//! Credit of a remote channel, at both of its ends: who may send how much, and when it is given back. Pure.
//!
//! On a record's way this decides whether a frame may leave its task and when its bytes may be used again. A channel's
//! window is what may be on its way: credit that its sender still has, and frames that wait here. The window moves (see
//! `window.rs`); above its own share a channel borrows from the worker's floating credit. Invariants: a frame is sent only
//! while credit is left and may overdraw it once, so that a frame larger than the window still passes; what waits at a
//! receiver never costs more than its largest window and one frame; a receiver that has handed over everything
//! withholds less than a quarter of the window, so a sender never waits for nothing; what all channels have borrowed
//! never exceeds the floating credit, and their own shares are never lent.

use thalweg_common::limits::{FRAME_OVERHEAD_BYTES, MAX_CHANNEL_CREDIT_BYTES};

/// A window holds at least about as many frames.
const FRAMES_PER_WINDOW: u64 = 4;

/// Frames do not get smaller than this because of a small window; an own cost below it is not worth a frame.
const MIN_FRAME_BYTES: usize = 256;

/// What a data frame with a payload of this length costs: its bytes on the wire, compressed or not, and what it takes to
/// keep them. A frame is decompressed only when its task takes it, so this is also what it takes while it waits.
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
    window: u64,
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

    /// The size at which the next frame is full: at most `target_bytes`, and so small that some of them are on their way
    /// while the receiver works on one.
    pub(super) fn frame_bytes(&self, target_bytes: usize) -> usize {
        let share = usize::try_from(self.window / FRAMES_PER_WINDOW).unwrap_or(usize::MAX);
        share.max(MIN_FRAME_BYTES).min(target_bytes)
    }

    /// The receiver gave back, or gave for the first time. `window` is how much may be on its way in all.
    pub(super) fn grant(&mut self, bytes: u64, window: u64) -> Result<(), CreditViolation> {
        let available = self.available.saturating_add_unsigned(bytes);
        if available > MAX_CHANNEL_CREDIT_BYTES as i64 {
            return Err(CreditViolation::TooMuch { credit: available.unsigned_abs() });
        }
        self.available = available;
        self.window = window;
        Ok(())
    }
}

/// The receiver's end: what its sender may still spend, and what waits here.
#[derive(Debug)]
pub(super) struct ReceiverCredit {
    window: u64,
    available: i64,
    held: u64,
    /// Of the frames since the last question: whether their sender had more to send than credit for it.
    hunger: Option<bool>,
}

impl ReceiverCredit {
    /// The credit of a new channel. The whole window is its first grant.
    pub(super) fn new(window: u64) -> Self {
        Self { window, available: i64::try_from(window).unwrap_or(i64::MAX), held: 0, hunger: None }
    }

    /// How much may be on its way.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// From the next grant on this much may be on its way. What was granted before stays granted.
    pub(super) fn set_window(&mut self, window: u64) {
        self.window = window.max(1);
    }

    /// What is on its way, or may be at any moment.
    pub(super) fn in_flight(&self) -> u64 {
        self.held.saturating_add_signed(self.available.max(0))
    }

    /// A data frame of this cost has arrived, and its sender keeps `backlog` bytes back.
    pub(super) fn receive(&mut self, cost: u64, backlog: u64) -> Result<(), CreditViolation> {
        if self.available <= 0 {
            return Err(CreditViolation::Overdrawn { overdrawn: self.available.unsigned_abs() });
        }
        self.available = self.available.saturating_sub_unsigned(cost);
        self.held = self.held.saturating_add(cost);
        let is_hungry = self.available <= 0 || backlog > self.available.unsigned_abs();
        self.hunger = Some(is_hungry || self.hunger == Some(true));
        Ok(())
    }

    /// Whether the sender has had more to send than it had credit for, since the last call; `None` if no frame has come.
    pub(super) fn take_hunger(&mut self) -> Option<bool> {
        self.hunger.take()
    }

    /// The batch of a frame of this cost is with the task. Returns what is to be granted now: nothing until a
    /// quarter of the window has come together, so that a grant is sent for many small frames.
    pub(super) fn hand_over(&mut self, cost: u64) -> u64 {
        self.held = self.held.saturating_sub(cost);
        // Negative credit counts: a frame that has overdrawn it is paid back before anything is granted anew.
        let on_its_way = i128::from(self.available) + i128::from(self.held);
        let room = u64::try_from(i128::from(self.window) - on_its_way).unwrap_or(0);
        if room < self.window.div_ceil(4) {
            return 0;
        }
        self.available = self.available.saturating_add_unsigned(room);
        room
    }
}

/// Credit that a worker lends to those of its channels that need more than their own share.
#[derive(Debug)]
pub(super) struct FloatingCredit {
    capacity: u64,
    lent: u64,
}

impl FloatingCredit {
    /// All of it is there to be lent.
    pub(super) fn new(capacity: u64) -> Self {
        Self { capacity, lent: 0 }
    }

    /// A channel that has borrowed `borrowed` would like to have `wish` and cannot give back what is below `floor`, because
    /// it is on its way. Returns what it has borrowed from now on.
    ///
    /// Half of what is free stays free, so that whoever comes later finds some too, and those who come again and again
    /// arrive at equal parts.
    pub(super) fn lend(&mut self, borrowed: u64, floor: u64, wish: u64) -> u64 {
        let free = self.capacity.saturating_sub(self.lent).saturating_add(borrowed);
        let share = wish.min(free / 2).max(floor.min(borrowed));
        self.lent = self.lent.saturating_sub(borrowed).saturating_add(share);
        share
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
        credit.grant(10, 10).expect("within the limit");
        assert!(credit.is_open());
        credit.spend(1_000);
        assert!(!credit.is_open());
        credit.grant(990, 10).expect("within the limit");
        assert!(!credit.is_open(), "at zero nothing is left");
        credit.grant(1, 10).expect("within the limit");
        assert!(credit.is_open());
    }

    #[test]
    fn a_receiver_refuses_what_it_has_no_room_for() {
        let mut credit = ReceiverCredit::new(100);
        credit.receive(99, 0).expect("there is room");
        credit.receive(50, 0).expect("one byte is left: a frame may overdraw it");
        assert_eq!(credit.receive(1, 0), Err(CreditViolation::Overdrawn { overdrawn: 49 }));
    }

    #[test]
    fn small_hand_overs_are_granted_together() {
        let mut credit = ReceiverCredit::new(100);
        let costs = [10, 10, 4, 1, 30, 24];
        costs.iter().for_each(|cost| credit.receive(*cost, 0).expect("there is room"));
        let grants: Vec<_> = costs.into_iter().map(|cost| credit.hand_over(cost)).collect();
        assert_eq!(grants, [0, 0, 0, 25, 30, 0]);
    }

    #[test]
    fn a_window_that_shrinks_takes_nothing_back_and_one_that_grows_is_granted() {
        let mut credit = ReceiverCredit::new(100);
        credit.receive(60, 0).expect("there is room");
        credit.set_window(20);
        assert_eq!((credit.hand_over(60), credit.in_flight()), (0, 40), "40 are still with the sender");
        credit.receive(40, 0).expect("it may use them");
        assert_eq!((credit.hand_over(40), credit.in_flight()), (20, 20));
        credit.set_window(200);
        credit.receive(20, 0).expect("there is room");
        assert_eq!((credit.hand_over(20), credit.in_flight()), (200, 200));
    }

    #[test]
    fn a_sender_is_hungry_if_it_keeps_back_more_than_it_may_send() {
        let mut credit = ReceiverCredit::new(100);
        for (cost, backlog, is_hungry) in [(10, 0, false), (10, 80, false), (10, 71, true), (70, 0, true)] {
            credit.receive(cost, backlog).expect("there is room");
            assert_eq!(credit.take_hunger(), Some(is_hungry), "cost {cost}, backlog {backlog}");
            assert_eq!(credit.take_hunger(), None);
        }
    }

    #[test]
    fn frames_are_a_part_of_the_window() {
        let mut credit = SenderCredit::default();
        for (window, frame_bytes) in [(0, 256), (4_000, 1_000), (1 << 20, 65_536)] {
            credit.grant(1, window).expect("within the limit");
            assert_eq!(credit.frame_bytes(65_536), frame_bytes);
        }
        assert_eq!(credit.frame_bytes(100), 100);
    }

    #[test]
    fn whoever_comes_later_finds_floating_credit_too() {
        let mut floating = FloatingCredit::new(1_000);
        assert_eq!(floating.lend(0, 0, 2_000), 500);
        assert_eq!(floating.lend(0, 0, 2_000), 250);
        assert_eq!(floating.lend(500, 0, 2_000), 375, "half of what would be free without it");
        assert_eq!(floating.lend(375, 300, 0), 300, "it is on its way");
        assert_eq!(floating.lend(250, 0, 0), 0);
        assert_eq!(floating.lend(300, 0, 0), 0);
        assert_eq!(floating.lend(0, 0, 100), 100);
    }

    #[test]
    fn a_grant_beyond_every_window_is_a_violation() {
        let mut credit = SenderCredit::default();
        credit.grant(MAX_CHANNEL_CREDIT_BYTES as u64, 1).expect("the largest window");
        assert!(matches!(credit.grant(1, 1), Err(CreditViolation::TooMuch { .. })));
        assert!(matches!(credit.grant(u64::MAX, 1), Err(CreditViolation::TooMuch { .. })));
        assert!(credit.is_open(), "a refused grant changes nothing");
    }

    /// A channel with delays between its ends.
    struct Line {
        sender: SenderCredit,
        receiver: ReceiverCredit,
        frames: VecDeque<u64>,
        grants: VecDeque<u64>,
        queue: VecDeque<u64>,
        own: u64,
        borrowed: u64,
        largest: u64,
    }

    impl Line {
        fn new(own: u64) -> Self {
            Self {
                sender: SenderCredit::default(),
                receiver: ReceiverCredit::new(own),
                frames: VecDeque::new(),
                grants: VecDeque::from([own]),
                queue: VecDeque::new(),
                own,
                borrowed: 0,
                largest: 0,
            }
        }

        fn step(&mut self, action: u8, bytes: u64, floating: &mut FloatingCredit) {
            match action {
                0 if self.sender.is_open() => {
                    self.sender.spend(bytes);
                    self.largest = self.largest.max(bytes);
                    self.frames.push_back(bytes);
                }
                1 => {
                    if let Some(cost) = self.frames.pop_front() {
                        self.receiver.receive(cost, bytes).expect("nobody is accused");
                        self.queue.push_back(cost);
                    }
                }
                2 => {
                    if let Some(cost) = self.queue.pop_front() {
                        self.grants.push_back(self.receiver.hand_over(cost));
                    }
                }
                3 => {
                    if let Some(grant) = self.grants.pop_front() {
                        self.sender.grant(grant, self.receiver.window()).expect("within the limit");
                    }
                }
                4 => {
                    let floor = self.receiver.in_flight().saturating_sub(self.own);
                    self.borrowed = floating.lend(self.borrowed, floor, bytes);
                    self.receiver.set_window(self.own + self.borrowed);
                }
                5 => self.receiver.set_window(bytes.min(self.own + self.borrowed)),
                _ => {}
            }
        }

        fn waiting(&self) -> u64 {
            self.queue.iter().chain(&self.frames).sum()
        }

        /// Everything is handed over and every grant arrives: the sender may go on.
        fn drain(&mut self, floating: &mut FloatingCredit) -> bool {
            while !self.frames.is_empty() {
                self.step(1, 0, floating);
            }
            while !self.queue.is_empty() {
                self.step(2, 0, floating);
            }
            while !self.grants.is_empty() {
                self.step(3, 0, floating);
            }
            self.sender.is_open()
        }
    }

    proptest! {
        /// Channels of a worker, with windows that move: nobody is accused, memory is bounded, nobody starves.
        #[test]
        fn all_ends_agree(
            windows in proptest::collection::vec(1u64..5_000, 1..4),
            capacity in 0u64..20_000,
            steps in proptest::collection::vec((0usize..4, 0u8..6, 1u64..8_000), 0..600),
        ) {
            let mut floating = FloatingCredit::new(capacity);
            let own: u64 = windows.iter().sum();
            let mut lines: Vec<_> = windows.into_iter().map(Line::new).collect();
            for (line, action, bytes) in steps {
                let at = line % lines.len();
                lines[at].step(action, bytes, &mut floating);
                let borrowed: u64 = lines.iter().map(|line| line.borrowed).sum();
                prop_assert!(borrowed == floating.lent && borrowed <= capacity, "{borrowed} bytes are lent");
                for line in &lines {
                    let bound = line.own + line.borrowed + line.largest;
                    prop_assert!(line.waiting() <= bound, "{} bytes wait, {bound} may", line.waiting());
                }
                let waiting: u64 = lines.iter().map(Line::waiting).sum();
                let largest: u64 = lines.iter().map(|line| line.largest).sum();
                prop_assert!(waiting <= own + capacity + largest, "{waiting} bytes wait in all");
            }
            for line in &mut lines {
                prop_assert!(line.drain(&mut floating), "it starves");
            }
        }
    }
}
