//! The clock of a tested operator.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::clock::{Clock, SharedClock};

/// The clock of the tested operator: that of the setup, moved forward.
#[derive(Debug)]
pub(super) struct HarnessClock {
    setup: SharedClock,
    ahead: Mutex<Duration>,
}

impl HarnessClock {
    /// Takes the place of the setup's clock.
    pub(super) fn over(setup: &mut SharedClock) -> Arc<Self> {
        let clock = Arc::new(Self { setup: Arc::clone(setup), ahead: Mutex::default() });
        *setup = clock.clone();
        clock
    }

    fn ahead(&self) -> MutexGuard<'_, Duration> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn move_to(&self, now_ms: Timestamp) {
        let left_ms = u64::try_from(now_ms.saturating_sub(self.now_ms())).unwrap_or(0);
        *self.ahead() += Duration::from_millis(left_ms);
    }
}

impl Clock for HarnessClock {
    fn now_ms(&self) -> Timestamp {
        self.setup.now_ms() + self.ahead().as_millis() as Timestamp
    }

    fn monotonic(&self) -> Duration {
        self.setup.monotonic() + *self.ahead()
    }
}
