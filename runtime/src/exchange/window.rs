//! The window of a remote channel at its receiving end: how much may be on its way at this moment. Pure.
//!
//! On a record's way this is asked when a frame arrives and when its batch is handed to the task. It joins the credit with
//! what moves the window: the sender's hunger makes it grow, first within the channel's own share, then with floating
//! credit of the worker; a slow consumer makes it shrink (`debloat.rs`). Invariants: the window never exceeds the own share
//! and what was borrowed; it at most doubles while as much as it holds is consumed, so that a slow consumer is known
//! before much waits for it; what was borrowed goes back with the channel.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use thalweg_common::limits::{
    MAX_CHANNEL_CREDIT_BYTES, MAX_CHANNEL_FLOATING_BYTES, MIN_CHANNEL_WINDOW_BYTES,
};

use super::credit::{CreditViolation, FloatingCredit, ReceiverCredit};
use super::debloat::Debloater;
use super::lock;

/// A channel that consumes little looks at its window after this time.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What decides about the windows of a worker's channels.
#[derive(Debug, Clone)]
pub(super) struct WindowPolicy {
    /// Each channel's own share.
    pub(super) own: u64,
    /// Time within which all that is on its way is to be consumed; without it windows do not shrink.
    pub(super) debloat_target: Option<Duration>,
    /// What the worker lends.
    pub(super) floating: Arc<Mutex<FloatingCredit>>,
}

/// The window of one channel, and the credit within it.
#[derive(Debug)]
pub(super) struct Window {
    policy: WindowPolicy,
    credit: ReceiverCredit,
    debloater: Option<Debloater>,
    borrowed: u64,
    /// Handed over since the last look at the window.
    consumed: u64,
    looked_at: Duration,
}

impl Window {
    /// The window of a new channel. All of it is the first grant.
    pub(super) fn new(policy: WindowPolicy) -> Self {
        // Without knowing how slow the consumer is, only little may wait for it.
        let first = policy.debloat_target.map_or(policy.own, |_| policy.own.min(MIN_CHANNEL_WINDOW_BYTES));
        Self {
            credit: ReceiverCredit::new(first),
            debloater: policy.debloat_target.map(Debloater::new),
            policy,
            borrowed: 0,
            consumed: 0,
            looked_at: Duration::ZERO,
        }
    }

    /// How much may be on its way.
    pub(super) fn bytes(&self) -> u64 {
        self.credit.window()
    }

    /// A data frame of this cost has arrived, and its sender keeps `backlog` bytes back.
    pub(super) fn receive(&mut self, cost: u64, backlog: u64) -> Result<(), CreditViolation> {
        self.credit.receive(cost, backlog)
    }

    /// At `now` the task takes the batch of a frame of this cost; whether `more` wait behind it. Returns what is to be granted.
    pub(super) fn hand_over(&mut self, cost: u64, more: bool, now: Duration) -> u64 {
        if let Some(debloater) = &mut self.debloater {
            debloater.end(now);
            // Without more to read, the next hand-over comes when there is something, not when the task is through.
            if more {
                debloater.begin(cost, now);
            }
        }
        self.consumed = self.consumed.saturating_add(cost);
        if self.consumed >= self.credit.window() || now.saturating_sub(self.looked_at) >= LOOK_INTERVAL {
            (self.consumed, self.looked_at) = (0, now);
            self.look();
        }
        self.credit.hand_over(cost)
    }

    fn look(&mut self) {
        let debloated = self.debloater.as_mut().and_then(Debloater::amount).unwrap_or(u64::MAX);
        let debloated = debloated.max(MIN_CHANNEL_WINDOW_BYTES);
        let window = self.credit.window();
        let wish = match self.credit.take_hunger() {
            Some(true) => window.saturating_mul(2),
            // A sender that has enough gives back a little of what others may need more.
            Some(false) => window - window / 16,
            None => window,
        };
        let wish = wish.min(debloated).min(MAX_CHANNEL_CREDIT_BYTES as u64);
        let own = self.policy.own;
        let borrow = wish.saturating_sub(own).min(MAX_CHANNEL_FLOATING_BYTES);
        if borrow > 0 || self.borrowed > 0 {
            let floor = self.credit.in_flight().saturating_sub(own);
            self.borrowed = lock(&self.policy.floating).lend(self.borrowed, floor, borrow);
        }
        // Not hungry is no reason to go below the own share; being slow is.
        let wish = wish.max(own.min(window)).min(debloated);
        self.credit.set_window(wish.min(own + self.borrowed));
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if self.borrowed > 0 {
            lock(&self.policy.floating).lend(self.borrowed, 0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::credit::SenderCredit;
    use std::collections::VecDeque;

    const SECOND: Duration = Duration::from_secs(1);
    const OWN: u64 = 256 << 10;
    const FLOATING: u64 = 16 << 20;

    fn policy(debloat_target: Option<Duration>) -> WindowPolicy {
        let floating = Arc::new(Mutex::new(FloatingCredit::new(FLOATING)));
        WindowPolicy { own: OWN, debloat_target, floating }
    }

    /// A channel whose sender always has more, in frames of a quarter of the window.
    struct Flow {
        window: Window,
        sender: SenderCredit,
        queue: VecDeque<u64>,
        now: Duration,
        /// The most that was on its way.
        most: u64,
    }

    impl Flow {
        fn new(policy: WindowPolicy) -> Self {
            let window = Window::new(policy);
            let mut sender = SenderCredit::default();
            sender.grant(window.bytes(), window.bytes()).expect("within the limit");
            Self { window, sender, queue: VecDeque::new(), now: Duration::from_secs(5), most: 0 }
        }

        /// The consumer takes this long for a byte. Returns the window in the end.
        fn consume(&mut self, ns_per_byte: u64, bytes: u64) -> u64 {
            let mut consumed = 0;
            while consumed < bytes {
                while self.sender.is_open() {
                    let cost = self.sender.frame_bytes(64 << 10) as u64;
                    self.sender.spend(cost);
                    self.window.receive(cost, 1 << 30).expect("within its credit");
                    self.queue.push_back(cost);
                }
                let cost = self.queue.pop_front().expect("credit came back");
                let grant = self.window.hand_over(cost, !self.queue.is_empty(), self.now);
                self.sender.grant(grant, self.window.bytes()).expect("within the limit");
                self.most = self.most.max(self.window.credit.in_flight());
                self.now += Duration::from_nanos(cost * ns_per_byte);
                consumed += cost;
            }
            self.window.bytes()
        }
    }

    #[test]
    fn a_fast_consumer_gets_its_own_share_and_floating_credit() {
        let mut flow = Flow::new(policy(Some(SECOND)));
        assert_eq!(flow.window.bytes(), MIN_CHANNEL_WINDOW_BYTES);
        assert_eq!(flow.consume(2, 64 << 20), OWN + MAX_CHANNEL_FLOATING_BYTES);

        let mut flow = Flow::new(policy(None));
        assert_eq!(flow.window.bytes(), OWN);
        assert_eq!(flow.consume(1_000_000, 64 << 20), OWN + MAX_CHANNEL_FLOATING_BYTES);
    }

    #[test]
    fn a_slow_consumer_has_no_more_on_its_way_than_it_takes_in_the_target_time() {
        // 10,000 bytes a second.
        let mut flow = Flow::new(policy(Some(SECOND)));
        let bytes = flow.consume(100_000, 1 << 20);
        assert!((9_000..=11_000).contains(&bytes), "{bytes}");
        assert!(flow.most <= 11_000, "{} bytes were on their way", flow.most);
    }

    #[test]
    fn a_consumer_that_slows_down_shrinks_its_window_and_one_that_recovers_gets_it_back() {
        let mut flow = Flow::new(policy(Some(SECOND)));
        flow.consume(2, 64 << 20);
        let bytes = flow.consume(100_000, 8 << 20);
        assert!((9_000..=11_000).contains(&bytes), "{bytes}");
        // About a second later.
        assert_eq!(flow.consume(2, 512 << 20), OWN + MAX_CHANNEL_FLOATING_BYTES);
    }

    #[test]
    fn floating_credit_comes_back() {
        let policy = policy(Some(SECOND));
        let mut flow = Flow::new(policy.clone());
        flow.consume(2, 64 << 20);
        assert_eq!(flow.window.borrowed, MAX_CHANNEL_FLOATING_BYTES);
        while let Some(cost) = flow.queue.pop_front() {
            flow.window.hand_over(cost, false, flow.now);
        }
        // Enough credit all the time: little by little the rest goes back, the own share stays.
        for second in 0..1_000 {
            let now = flow.now + Duration::from_secs(second);
            flow.window.receive(10_000, 0).expect("within its credit");
            flow.window.hand_over(10_000, false, now);
        }
        assert_eq!((flow.window.borrowed, flow.window.bytes()), (0, OWN));
        flow.window.receive(OWN, 1 << 30).expect("within its credit");
        flow.window.hand_over(OWN, false, flow.now);
        drop(flow);
        assert_eq!(lock(&policy.floating).lend(0, 0, FLOATING), FLOATING / 2, "all of it was there");
    }

    #[test]
    fn a_channel_that_is_never_behind_is_not_taken_for_a_slow_one() {
        let mut window = Window::new(policy(Some(Duration::from_millis(1))));
        for second in 0..10 {
            window.receive(window.bytes(), 1 << 20).expect("within its credit");
            window.hand_over(window.bytes(), false, Duration::from_secs(second));
        }
        assert!(window.bytes() >= OWN, "{}", window.bytes());
    }
}
