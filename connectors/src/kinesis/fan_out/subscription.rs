//! When a shard is subscribed to, and what becomes of a subscription. Pure: the caller says what time it is.
//!
//! Stands between a shard's reader and the service, as `Polling` does. Invariants: a shard has at most one subscription, and one step of it is
//! under way at a time; the next one begins behind the last record that was read; throttling is never given up, other trouble after as many
//! tries in a row as the settings say; whoever was told something is not taken over without a word.

use std::time::Duration;

use super::super::polling::Verdict;
use super::options::FanOutOptions;
use crate::aws::{Backoff, Kind};

/// What to do with the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Step {
    /// Subscribe behind what was read.
    Subscribe,
    /// Wait for the next event.
    Listen,
}

/// A shard's subscriptions, one after the other.
#[derive(Debug)]
pub(in super::super) struct Subscription {
    backoff: Backoff,
    stage: Stage,
    /// When the next step may begin.
    next_at: Duration,
    /// How many steps failed in a row, and how many of them because too much was asked.
    failures: u32,
    throttled: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There is no subscription.
    None,
    Subscribing,
    /// There is one, and nobody listens.
    Open {
        has_spoken: bool,
    },
    Listening {
        has_spoken: bool,
    },
    /// The shard has nothing more.
    Ended,
}

impl Subscription {
    pub(in super::super) fn new(options: &FanOutOptions, now: Duration) -> Self {
        Self { backoff: options.subscribing, stage: Stage::None, next_at: now, failures: 0, throttled: 0 }
    }

    pub(in super::super) fn has_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// When there will be something to do; nothing while a step is under way.
    pub(in super::super) fn due_at(&self) -> Option<Duration> {
        matches!(self.stage, Stage::None | Stage::Open { .. }).then_some(self.next_at)
    }

    /// Begins the step that is due.
    pub(in super::super) fn ask(&mut self, now: Duration) -> Option<Step> {
        if now < self.next_at {
            return None;
        }
        let (stage, step) = match self.stage {
            Stage::None => (Stage::Subscribing, Step::Subscribe),
            Stage::Open { has_spoken } => (Stage::Listening { has_spoken }, Step::Listen),
            Stage::Subscribing | Stage::Listening { .. } | Stage::Ended => return None,
        };
        self.stage = stage;
        Some(step)
    }

    /// The service has taken the subscription.
    pub(in super::super) fn on_subscribed(&mut self) {
        self.stage = Stage::Open { has_spoken: false };
        self.throttled = 0;
    }

    /// It has spoken, perhaps to say that there is nothing; `is_last` if the shard is at its end.
    pub(in super::super) fn on_event(&mut self, is_last: bool) {
        self.failures = 0;
        self.stage = if is_last { Stage::Ended } else { Stage::Open { has_spoken: true } };
    }

    /// The service has ended it, as it does after five minutes: the next one begins at once. One that has never spoken counts as trouble.
    pub(in super::super) fn on_end(&mut self, now: Duration, random: u64) -> Verdict {
        let has_spoken = matches!(self.stage, Stage::Listening { has_spoken: true });
        self.stage = Stage::None;
        if has_spoken { Verdict::Again } else { self.retry(now, random) }
    }

    /// A step has failed. A subscription that another reader has taken over is given up: it is the newer one's.
    pub(in super::super) fn on_trouble(
        &mut self,
        kind: Kind,
        is_in_use: bool,
        now: Duration,
        random: u64,
    ) -> Verdict {
        let has_spoken = matches!(self.stage, Stage::Listening { has_spoken: true });
        self.stage = Stage::None;
        match kind {
            _ if is_in_use && has_spoken => Verdict::GiveUp,
            Kind::Throttled => {
                // At least the base: with no pause at all nothing becomes better.
                let pause = self.backoff.base.max(self.backoff.pause(self.throttled, random));
                self.next_at = now.saturating_add(pause);
                self.throttled = self.throttled.saturating_add(1);
                Verdict::Again
            }
            Kind::Passing | Kind::UnknownHost | Kind::ExpiredIterator => self.retry(now, random),
            Kind::NotFound | Kind::Denied | Kind::BadCredentials | Kind::Refused => Verdict::GiveUp,
        }
    }

    fn retry(&mut self, now: Duration, random: u64) -> Verdict {
        if self.failures >= self.backoff.max_retries {
            return Verdict::GiveUp;
        }
        self.next_at = now.saturating_add(self.backoff.pause(self.failures, random));
        self.failures += 1;
        Verdict::Again
    }

    /// Nobody listens for now: the subscription is not kept, so that what it would push holds up no other on its connection.
    pub(in super::super) fn close(&mut self) {
        if matches!(self.stage, Stage::Open { .. }) {
            self.stage = Stage::None;
        }
    }

    /// What was read is forgotten: it is subscribed to anew, even if the shard was at its end.
    pub(in super::super) fn restart(&mut self) {
        self.stage = Stage::None;
    }

    /// The shard is gone, so there is nothing more to read.
    pub(in super::super) fn end(&mut self) {
        self.stage = Stage::Ended;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn open() -> Subscription {
        let mut subscription = Subscription::new(&FanOutOptions::default(), Duration::ZERO);
        assert_eq!(subscription.ask(Duration::ZERO), Some(Step::Subscribe));
        assert_eq!((subscription.ask(MS), subscription.due_at()), (None, None), "one step at a time");
        subscription.on_subscribed();
        assert_eq!(subscription.ask(MS), Some(Step::Listen));
        subscription
    }

    #[test]
    fn one_that_is_over_is_renewed_at_once_and_one_at_the_end_of_its_shard_is_not() {
        let mut subscription = open();
        subscription.on_event(false);
        assert_eq!(subscription.ask(MS), Some(Step::Listen));
        assert_eq!(subscription.on_end(2 * MS, u64::MAX), Verdict::Again);
        assert_eq!(subscription.ask(2 * MS), Some(Step::Subscribe));
        subscription.on_subscribed();
        assert_eq!(subscription.ask(2 * MS), Some(Step::Listen));
        subscription.on_event(true);
        assert_eq!((subscription.has_ended(), subscription.due_at()), (true, None));
    }

    #[test]
    fn trouble_is_given_up_after_some_tries_in_a_row_and_throttling_never() {
        for end in [false, true] {
            let mut subscription = open();
            for _ in 0..10 {
                let verdict = match end {
                    true => subscription.on_end(Duration::ZERO, 0),
                    false => subscription.on_trouble(Kind::Passing, false, Duration::ZERO, 0),
                };
                assert_eq!(verdict, Verdict::Again);
                assert_eq!(subscription.ask(Duration::ZERO), Some(Step::Subscribe));
                // That it is taken means nothing before it has brought something.
                subscription.on_subscribed();
                assert_eq!(subscription.ask(Duration::ZERO), Some(Step::Listen));
            }
            assert_eq!(subscription.on_end(Duration::ZERO, 0), Verdict::GiveUp);
        }
        let (mut subscription, mut now) = (open(), Duration::ZERO);
        for _ in 0..100 {
            assert_eq!(subscription.on_trouble(Kind::Throttled, false, now, u64::MAX), Verdict::Again);
            let pause = subscription.next_at - now;
            assert!((1_000 * MS..=2_000 * MS).contains(&pause), "{pause:?}");
            now = subscription.next_at;
            assert_eq!((subscription.ask(now - MS), subscription.ask(now)), (None, Some(Step::Subscribe)));
        }
        for kind in [Kind::NotFound, Kind::Denied, Kind::BadCredentials, Kind::Refused] {
            assert_eq!(open().on_trouble(kind, false, MS, 0), Verdict::GiveUp, "{kind:?}");
        }
    }

    #[test]
    fn a_place_that_is_taken_is_tried_again_but_one_that_was_taken_over_is_given_up() {
        let mut subscription = open();
        assert_eq!(subscription.on_trouble(Kind::Passing, true, MS, 0), Verdict::Again);
        assert_eq!(subscription.ask(MS), Some(Step::Subscribe));
        assert_eq!(
            subscription.on_trouble(Kind::Passing, true, MS, 0),
            Verdict::Again,
            "not within five seconds"
        );
        let mut subscription = open();
        subscription.on_event(false);
        assert_eq!(subscription.ask(MS), Some(Step::Listen));
        assert_eq!(subscription.on_trouble(Kind::Passing, true, MS, 0), Verdict::GiveUp);
    }

    #[test]
    fn one_that_is_closed_is_begun_again() {
        let mut subscription = open();
        subscription.close();
        assert_eq!(subscription.due_at(), None, "an answer is still to come");
        subscription.on_event(false);
        subscription.close();
        assert_eq!(subscription.ask(MS), Some(Step::Subscribe));
    }
}
