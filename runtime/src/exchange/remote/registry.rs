//! Who may connect to this worker's tasks: the fence of the exchange.
//!
//! On a record's way this stands before the first frame. Receivers are registered when their tasks are deployed; a sender
//! that is faster waits for its receiver. Invariants: the attempt of each region only grows; a channel of another job, another plan
//! or an older attempt is refused by name; a receiver is given to one sender, once; what waits is bounded in time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, ChannelId, JobId, RegionId};
use thalweg_common::limits::OPEN_CHANNEL_TIMEOUT_MS;
use tokio::sync::watch;
use tonic::Status;

use super::OpenChannel;
use super::receiver::Inbound;
use crate::exchange::lock;

/// Why a sender is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "another plan: the sender runs the plan {theirs:016x} and the receiver {ours:016x}; the job's program must build the same \
         topology in every process, so it must not depend on time, randomness or the machine"
    )]
    OtherPlan { ours: u64, theirs: u64 },
    #[error("another job: this worker runs job {ours}, the sender belongs to job {theirs}")]
    OtherJob { ours: JobId, theirs: JobId },
    #[error("stale attempt: the sender belongs to attempt {theirs}, this worker is at attempt {ours}")]
    StaleAttempt { ours: Attempt, theirs: Attempt },
    #[error("stale attempt: attempt {0} has ended on this worker")]
    Ended(Attempt),
    #[error("the channel of {0} has a sender already")]
    Taken(ChannelId),
    #[error("no receiver for the channel of {0} was deployed within {OPEN_CHANNEL_TIMEOUT_MS} ms")]
    NotDeployed(ChannelId),
    #[error("the receiving worker is stopping")]
    Stopping,
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::OtherPlan { .. }
            | Refusal::OtherJob { .. }
            | Refusal::StaleAttempt { .. }
            | Refusal::Ended(_) => Self::failed_precondition(message),
            Refusal::Taken(_) => Self::already_exists(message),
            Refusal::NotDeployed(_) => Self::deadline_exceeded(message),
            Refusal::Stopping => Self::unavailable(message),
        }
    }
}

/// The receivers of one worker.
pub(super) struct Registry {
    plan_fingerprint: u64,
    state: Mutex<State>,
    /// Moves with every change that a waiting sender may be waiting for.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    running: BTreeMap<RegionId, Running>,
    stopping: bool,
}

/// A region, as far as it runs here.
struct Running {
    job_id: JobId,
    attempt: Attempt,
    ended: bool,
    channels: HashMap<ChannelId, Slot>,
}

struct Slot {
    inbound: Arc<Inbound>,
    taken: bool,
}

/// What is decided about a sender at this moment.
enum Claim {
    Granted(Arc<Inbound>),
    /// Its receiver may still come.
    Wait,
    Refused(Refusal),
}

impl Registry {
    pub(super) fn new(plan_fingerprint: u64) -> Self {
        Self { plan_fingerprint, state: Mutex::default(), changed: watch::Sender::new(()) }
    }

    /// From now on only senders of this attempt are let in to the region.
    pub(super) fn start_attempt(
        &self,
        job_id: JobId,
        region: RegionId,
        attempt: Attempt,
    ) -> Result<(), Failure> {
        let mut state = lock(&self.state);
        if let Some(running) = state.running.get(&region).filter(|running| running.job_id == job_id) {
            if running.attempt == attempt && !running.ended {
                return Ok(());
            }
            if running.attempt >= attempt {
                let ours = running.attempt;
                return Err(Failure::internal(format!(
                    "stale attempt: attempt {attempt} of job {job_id} cannot start, this worker is at attempt {ours}"
                )));
            }
        }
        let running = Running { job_id, attempt, ended: false, channels: HashMap::new() };
        let last = state.running.insert(region, running);
        drop(state);
        if let Some(last) = last {
            last.close("a later attempt has started");
        }
        self.changed.send_replace(());
        Ok(())
    }

    /// Closes the channels of this attempt and of older ones, and lets no sender of theirs in any more.
    pub(super) fn end_attempt(&self, job_id: JobId, region: RegionId, attempt: Attempt) {
        let mut state = lock(&self.state);
        if let Some(running) = state.running.get_mut(&region)
            && running.job_id == job_id
            && running.attempt <= attempt
        {
            running.ended = true;
            let channels = std::mem::take(&mut running.channels);
            drop(state);
            close(channels, "the attempt has ended");
            self.changed.send_replace(());
        }
    }

    /// Expects a sender for this receiver.
    pub(super) fn register(
        &self,
        region: RegionId,
        channel: ChannelId,
        inbound: Arc<Inbound>,
    ) -> Result<(), Failure> {
        let mut state = lock(&self.state);
        let Some(running) = state.running.get_mut(&region).filter(|running| !running.ended) else {
            return Err(Failure::internal(format!(
                "the channel of {channel} was registered while no attempt runs"
            )));
        };
        if running.channels.contains_key(&channel) {
            let attempt = running.attempt;
            return Err(Failure::internal(format!(
                "the channel of {channel} was registered twice in attempt {attempt}"
            )));
        }
        running.channels.insert(channel, Slot { inbound, taken: false });
        drop(state);
        self.changed.send_replace(());
        Ok(())
    }

    /// Lets nobody in any more and closes all channels.
    pub(super) fn stop(&self) {
        let running = {
            let mut state = lock(&self.state);
            state.stopping = true;
            std::mem::take(&mut state.running)
        };
        for running in running.into_values() {
            running.close("its worker is stopping");
        }
        self.changed.send_replace(());
    }

    /// The receiver for a sender, as soon as it is there.
    pub(super) async fn claim(&self, open: OpenChannel) -> Result<Arc<Inbound>, Refusal> {
        let mut changed = self.changed.subscribe();
        let claim = async {
            loop {
                // What changes after this is seen by `changed`, which was subscribed before.
                match self.try_claim(open) {
                    Claim::Granted(inbound) => return Ok(inbound),
                    Claim::Refused(refusal) => return Err(refusal),
                    Claim::Wait => {}
                }
                if changed.changed().await.is_err() {
                    return Err(Refusal::Stopping);
                }
            }
        };
        let limit = Duration::from_millis(OPEN_CHANNEL_TIMEOUT_MS);
        tokio::time::timeout(limit, claim).await.unwrap_or(Err(Refusal::NotDeployed(open.channel)))
    }

    fn try_claim(&self, open: OpenChannel) -> Claim {
        if open.plan_fingerprint != self.plan_fingerprint {
            let (ours, theirs) = (self.plan_fingerprint, open.plan_fingerprint);
            return Claim::Refused(Refusal::OtherPlan { ours, theirs });
        }
        let mut state = lock(&self.state);
        if state.stopping {
            return Claim::Refused(Refusal::Stopping);
        }
        match state.running.get_mut(&open.region) {
            None => Claim::Wait,
            Some(running) => running.claim(open),
        }
    }
}

impl Running {
    fn claim(&mut self, open: OpenChannel) -> Claim {
        if open.job_id != self.job_id {
            return Claim::Refused(Refusal::OtherJob { ours: self.job_id, theirs: open.job_id });
        }
        if open.attempt < self.attempt {
            return Claim::Refused(Refusal::StaleAttempt { ours: self.attempt, theirs: open.attempt });
        }
        if open.attempt > self.attempt {
            return Claim::Wait;
        }
        if self.ended {
            return Claim::Refused(Refusal::Ended(self.attempt));
        }
        match self.channels.get_mut(&open.channel) {
            None => Claim::Wait,
            Some(slot) if slot.taken => Claim::Refused(Refusal::Taken(open.channel)),
            Some(slot) => {
                slot.taken = true;
                Claim::Granted(Arc::clone(&slot.inbound))
            }
        }
    }

    fn close(self, reason: &str) {
        close(self.channels, reason);
    }
}

fn close(channels: HashMap<ChannelId, Slot>, reason: &str) {
    for (channel, slot) in channels {
        slot.inbound.lose(Failure::external(format!("the channel of {channel} was closed: {reason}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{Future, poll_fn};
    use std::task::Poll;

    const JOB: JobId = JobId(1);
    const CHANNEL: ChannelId = ChannelId { edge: 0, from: 1, to: 2 };
    const PLAN: u64 = 7;
    const REGION: RegionId = 3;

    fn open(attempt: Attempt) -> OpenChannel {
        OpenChannel { job_id: JOB, region: REGION, attempt, channel: CHANNEL, plan_fingerprint: PLAN }
    }

    fn register(registry: &Registry) -> Result<(), Failure> {
        registry.register(REGION, CHANNEL, Inbound::for_test(CHANNEL, 1_000))
    }

    #[tokio::test]
    async fn a_sender_is_fenced() {
        let registry = Registry::new(PLAN);
        assert!(register(&registry).is_err(), "no attempt runs");
        registry.start_attempt(JOB, REGION, 3).expect("the first");
        register(&registry).expect("registers");
        assert!(register(&registry).is_err(), "registered twice");

        let refused = |open| {
            let registry = &registry;
            async move { registry.claim(open).await.err() }
        };
        let other_plan = OpenChannel { plan_fingerprint: 8, ..open(3) };
        assert_eq!(refused(other_plan).await, Some(Refusal::OtherPlan { ours: PLAN, theirs: 8 }));
        let other_job = OpenChannel { job_id: JobId(2), ..open(3) };
        assert_eq!(refused(other_job).await, Some(Refusal::OtherJob { ours: JOB, theirs: JobId(2) }));
        assert_eq!(refused(open(2)).await, Some(Refusal::StaleAttempt { ours: 3, theirs: 2 }));
        assert_eq!(refused(open(3)).await, None);
        assert_eq!(refused(open(3)).await, Some(Refusal::Taken(CHANNEL)));
        registry.end_attempt(JOB, REGION, 3);
        assert_eq!(refused(open(3)).await, Some(Refusal::Ended(3)));
        registry.stop();
        assert_eq!(refused(open(4)).await, Some(Refusal::Stopping));
        assert_eq!(Status::from(Refusal::Ended(3)).code(), tonic::Code::FailedPrecondition);
    }

    #[test]
    fn attempts_only_grow() {
        let registry = Registry::new(PLAN);
        registry.start_attempt(JOB, REGION, 2).expect("the first");
        registry.start_attempt(JOB, REGION, 2).expect("the same again");
        assert!(registry.start_attempt(JOB, REGION, 1).is_err());
        registry.end_attempt(JOB, REGION, 1);
        register(&registry).expect("attempt 2 still runs");
        registry.end_attempt(JOB, REGION, 2);
        assert!(registry.start_attempt(JOB, REGION, 2).is_err(), "it has ended");
        registry.start_attempt(JOB, REGION, 3).expect("a higher one");
        register(&registry).expect("the channel of the new attempt");
    }

    #[tokio::test]
    async fn regions_have_attempts_of_their_own() {
        let registry = Registry::new(PLAN);
        registry.start_attempt(JOB, REGION, 1).expect("the first");
        registry.start_attempt(JOB, REGION + 1, 1).expect("the first of the other");
        register(&registry).expect("registers");
        // The other one is restarted, twice.
        for attempt in [2, 3] {
            registry.end_attempt(JOB, REGION + 1, attempt - 1);
            registry.start_attempt(JOB, REGION + 1, attempt).expect("the next");
        }
        let other = OpenChannel { region: REGION + 1, ..open(2) };
        assert_eq!(registry.claim(other).await.err(), Some(Refusal::StaleAttempt { ours: 3, theirs: 2 }));
        assert!(registry.claim(open(1)).await.is_ok(), "nothing has happened to this one");
    }

    #[tokio::test]
    async fn an_early_sender_waits_for_its_attempt_and_receiver() {
        let registry = Registry::new(PLAN);
        let claim = registry.claim(open(2));
        tokio::pin!(claim);
        let mut is_pending =
            async || poll_fn(|context| Poll::Ready(claim.as_mut().poll(context).is_pending())).await;
        assert!(is_pending().await, "no attempt runs");
        registry.start_attempt(JOB, REGION, 1).expect("starts");
        assert!(is_pending().await, "an older attempt runs");
        registry.start_attempt(JOB, REGION, 2).expect("starts");
        assert!(is_pending().await, "the receiver is not there");
        register(&registry).expect("registers");
        assert!(claim.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_does_not_wait_for_ever() {
        let registry = Registry::new(PLAN);
        registry.start_attempt(JOB, REGION, 1).expect("starts");
        assert_eq!(registry.claim(open(1)).await.err(), Some(Refusal::NotDeployed(CHANNEL)));
    }
}
