//! When a node may stand for election: never while its leader's messages arrive, and not at once behind a standstill of its own.
//!
//! openraft's core does one thing at a time: while an append waits for the disk, or the process for a processor, it counts no message, and then
//! looks at the clock before it reads what has come meanwhile. So a follower that stood still for longer than the election timeout would depose
//! a leader whose heartbeats lie in its queue; on a busy machine leaders would change all the time. Raft's authors call such a server
//! disruptive. Here messages count when they arrive ([`Heard`], told by the gRPC service), and a pulse that was late itself ([`Loyalty`], pure)
//! gives the network time to deliver. A leader that is gone is still noticed by openraft's own timeout, which is longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use thalweg_common::clock::SharedClock;
use tokio_util::sync::CancellationToken;

use super::types::Raft;

/// When a message of a leader came last.
#[derive(Clone)]
pub(crate) struct Heard {
    clock: SharedClock,
    /// In milliseconds of the clock; 0 before the first.
    last_ms: Arc<AtomicU64>,
}

impl Heard {
    pub(crate) fn new(clock: SharedClock) -> Self {
        Self { clock, last_ms: Arc::default() }
    }

    /// A message of a leader has arrived.
    pub(crate) fn leader(&self) {
        self.last_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    fn last_ms(&self) -> Option<u64> {
        Some(self.last_ms.load(Ordering::Relaxed)).filter(|ms| *ms > 0)
    }
}

/// Decides whether the node may stand for election, look by look. Pure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loyalty {
    /// From one look to the next, in milliseconds.
    pulse_ms: u64,
    /// For so long a leader that was heard of counts as alive.
    patience_ms: u64,
    looked_ms: Option<u64>,
    /// Until then messages may be on their way that came while the node stood still.
    stood_still_until_ms: u64,
    /// When a leader had been heard of before that. Without a message since then no other standstill counts, or a machine that is busy all the
    /// time would never elect anybody.
    excused: Option<Option<u64>>,
}

impl Loyalty {
    pub(crate) fn new(heartbeat_ms: u64, election_min_ms: u64) -> Self {
        let pulse_ms = (heartbeat_ms / 2).max(1);
        Self {
            pulse_ms,
            patience_ms: election_min_ms,
            looked_ms: None,
            stood_still_until_ms: 0,
            excused: None,
        }
    }

    /// Whether the node may stand now, if a leader was heard of then.
    pub(crate) fn may_stand(&mut self, now_ms: u64, heard_ms: Option<u64>) -> bool {
        let late_by_ms =
            self.looked_ms.map_or(0, |looked_ms| now_ms.saturating_sub(looked_ms + self.pulse_ms));
        self.looked_ms = Some(now_ms);
        if late_by_ms > self.patience_ms && self.excused != Some(heard_ms) {
            self.excused = Some(heard_ms);
            self.stood_still_until_ms = now_ms.saturating_add(self.patience_ms);
        }
        let is_silent = heard_ms.is_none_or(|heard_ms| now_ms.saturating_sub(heard_ms) >= self.patience_ms);
        is_silent && now_ms >= self.stood_still_until_ms
    }
}

/// Keeps Raft from elections that would depose a leader who lives.
pub(crate) struct Guard {
    pub(crate) raft: Raft,
    pub(crate) heard: Heard,
    pub(crate) loyalty: Loyalty,
}

impl Guard {
    pub(crate) async fn run(mut self, cancelled: CancellationToken) {
        let pulse = Duration::from_millis(self.loyalty.pulse_ms);
        loop {
            let may_stand = self.loyalty.may_stand(self.heard.now_ms(), self.heard.last_ms());
            self.raft.runtime_config().elect(may_stand);
            tokio::select! {
                biased;
                () = cancelled.cancelled() => return,
                () = tokio::time::sleep(pulse) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at these times; each with when a leader was heard of last.
    fn looks(loyalty: &mut Loyalty, times: &[(u64, Option<u64>)]) -> Vec<bool> {
        times.iter().map(|(now_ms, heard_ms)| loyalty.may_stand(*now_ms, *heard_ms)).collect()
    }

    #[test]
    fn whoever_has_heard_of_nobody_may_stand_and_whoever_hears_may_not() {
        let mut loyalty = Loyalty::new(50, 150);
        let times =
            [(25, None), (50, Some(40)), (75, Some(40)), (175, Some(40)), (190, Some(40)), (200, Some(199))];
        assert_eq!(looks(&mut loyalty, &times), [true, false, false, false, true, false]);
    }

    #[test]
    fn behind_a_standstill_messages_get_time_to_arrive() {
        let mut loyalty = Loyalty::new(50, 150);
        // It stood still from 50 to 2000, and the leader's heartbeats come in a moment.
        let times =
            [(25, Some(20)), (50, Some(45)), (2_000, Some(45)), (2_025, Some(45)), (2_050, Some(2_040))];
        assert_eq!(looks(&mut loyalty, &times), [false; 5]);
        // The same with a leader that is gone: a little later than otherwise.
        let mut loyalty = Loyalty::new(50, 150);
        let times: Vec<_> = [50, 2_000, 2_100, 2_149, 2_150].map(|now_ms| (now_ms, Some(45))).into();
        assert_eq!(looks(&mut loyalty, &times), [false, false, false, false, true]);
        // Who stands still again and again, and has heard of nobody meanwhile, is not held up any more.
        let times = [1_000, 2_000, 3_000, 4_000].map(|now_ms| (now_ms, Some(45)));
        assert_eq!(looks(&mut Loyalty::new(50, 150), &times), [true, false, true, true]);
        let times = [(1_000, Some(990)), (2_000, Some(990)), (2_100, Some(2_050)), (3_000, Some(2_050))];
        assert_eq!(
            looks(&mut Loyalty::new(50, 150), &times),
            [false; 4],
            "it has heard of a leader meanwhile"
        );
        // A look that is a little late is none.
        let mut loyalty = Loyalty::new(50, 150);
        assert_eq!(looks(&mut loyalty, &[(10, None), (180, None)]), [true, true]);
    }
}
