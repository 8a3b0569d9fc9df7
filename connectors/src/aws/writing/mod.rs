//! What sinks share that write to a service with batched requests, of whose records some may be refused: Kinesis and Firehose.
//!
//! ```text
//! Sink::write -> Writer::push -> Queue (pure): what goes with which request -> the sink's own request -> Answer
//!                                  ^ what was refused comes again, ever later          |
//!                                  +---------------------------------------------------+
//! ```
//!
//! On a record's way this is its end. At least once: what the service has not taken at a barrier is part of the checkpoint (the committables),
//! and written again behind a restore. So a barrier waits for no request, where Flink's asynchronous sinks wait for all. Invariant: whatever
//! is refused is written again or fails the task; nothing is dropped.

mod options;
mod queue;
mod setters;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::clock::SharedClock;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_runtime::io::BoxedRequests;
use thalweg_runtime::operator::{SinkContext, UnderWay};
use tracing::warn;

pub(crate) use self::options::{ServiceLimits, WriteOptions, from_properties};
use self::queue::Queue;
pub(crate) use self::setters::setters;
use super::{AwsSettings, Kind, Place, Problem, random};

/// How long a host is looked for that was never there.
const UNKNOWN_HOST_WAIT: Duration = Duration::from_secs(3);

/// At most so often people are told that records are refused.
const WARNING_PAUSE: Duration = Duration::from_secs(10);

/// A record to be written.
pub(crate) trait Entry: Clone + Send + Sync + 'static {
    /// What of a request's limit it takes.
    fn bytes(&self) -> usize;

    /// What must arrive in order, where order is wanted.
    fn key(&self) -> &str {
        ""
    }
}

/// What a request has brought: for each record nothing, or why it was refused.
pub(crate) type Answer = Result<Vec<Option<Problem>>, Problem>;

/// What the service says of one record, if it has refused it.
pub(crate) fn refusal(code: Option<&str>, message: Option<&str>) -> Option<Problem> {
    code.map(|code| Problem::of_refusal(500, Some(code), message))
}

/// What a sink has while it is open.
pub(crate) struct Writer<E> {
    queue: Queue<E>,
    options: WriteOptions,
    /// As `the stream orders`, and where it is.
    target: String,
    place: Place,
    requests: BoxedRequests<(u64, Answer)>,
    subtask: u32,
    clock: SharedClock,
    /// When people were last told of refusals, and how many there were since.
    warned_at: Option<Duration>,
    refused: usize,
    /// Whether the service has ever answered.
    has_answered: bool,
}

impl<E: Entry> Writer<E> {
    /// A writer to the `target` of a service, as `the stream orders`.
    ///
    /// # Errors
    /// If the settings make no sense together.
    pub(crate) fn open(
        limits: &ServiceLimits,
        aws: &AwsSettings,
        options: WriteOptions,
        target: String,
        context: &SinkContext,
    ) -> Result<Self, Failure> {
        options::check(aws, &options, limits)?;
        Ok(Self {
            queue: Queue::new(options),
            options,
            target,
            place: Place::of(limits.name, aws),
            requests: context.io.requests(),
            subtask: context.subtask_index,
            clock: Arc::clone(&context.clock),
            warned_at: None,
            refused: 0,
            has_answered: false,
        })
    }

    /// Takes what was left at barriers, each with the subtask that had it and the barrier.
    pub(crate) fn recover(&mut self, prepared: Vec<(u32, CheckpointId, E)>) {
        let now = self.clock.monotonic();
        // Each barrier has all that was left. Of an older one, whose checkpoint failed, some was written meanwhile.
        let mut newest: BTreeMap<u32, CheckpointId> = BTreeMap::new();
        for (subtask, checkpoint, _) in &prepared {
            let newest = newest.entry(*subtask).or_default();
            *newest = (*newest).max(*checkpoint);
        }
        for (subtask, checkpoint, entry) in prepared {
            if newest.get(&subtask) == Some(&checkpoint) {
                self.queue.push(entry, now);
            }
        }
        self.queue.flush();
    }

    /// A record comes.
    pub(crate) fn push(&mut self, entry: E) {
        let now = self.clock.monotonic();
        self.queue.push(entry, now);
    }

    /// Nothing more comes for now: what waits need not wait for company.
    pub(crate) fn flush(&mut self) {
        self.queue.flush();
    }

    /// The subtask, and all that the service has not taken, for a barrier.
    pub(crate) fn unsent(&mut self) -> (u32, Vec<E>) {
        self.queue.flush();
        (self.subtask, self.queue.unsent())
    }

    /// Begins the requests that are due and takes the answers that have come.
    pub(crate) fn advance<F>(&mut self, send: impl Fn(Vec<E>) -> F) -> Result<UnderWay, Failure>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let now = self.clock.monotonic();
        loop {
            while let Some((number, entries)) = self.queue.request(now) {
                let request = send(entries);
                self.requests.begin(|| Box::pin(async move { (number, request.await) }));
            }
            match self.requests.answer() {
                Some((number, answer)) => self.take(number, answer)?,
                None => break,
            }
        }
        Ok(UnderWay {
            records: self.queue.len(),
            is_full: self.queue.is_full(),
            again_at: self.queue.again_at(now),
        })
    }

    fn take(&mut self, number: u64, answer: Answer) -> Result<(), Failure> {
        let now = self.clock.monotonic();
        let fails_on_error = self.options.fails_on_error;
        let is_passing = |problem: &Problem| problem.kind.may_pass();
        self.has_answered |= answer.is_ok();
        let (refused, why) = match &answer {
            Err(problem) if fails_on_error || !is_passing(problem) => return Err(self.failure(problem)),
            Err(problem) => (self.queue.answered(number, |_| true, now, random()), Some(problem)),
            Ok(records) => {
                let mut refusals = records.iter().flatten();
                if let Some(problem) = refusals.find(|problem| fails_on_error || !is_passing(problem)) {
                    return Err(self.failure(problem));
                }
                // A record of which the answer says nothing was not taken.
                let is_refused = |place: usize| records.get(place).is_none_or(Option::is_some);
                let first = records.iter().flatten().next();
                (self.queue.answered(number, is_refused, now, random()), first)
            }
        };
        let Some(problem) = why else { return Ok(()) };
        self.refused += refused;
        let waits = self.queue.oldest_since().map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let longest = self.longest_wait(problem.kind);
        if waits < longest {
            self.warn(now, problem, longest);
            return Ok(());
        }
        let longest_ms = longest.as_millis();
        Err(self.failure(problem).context(format_args!("records were refused for {longest_ms} ms")))
    }

    /// How long records may wait that are refused so.
    fn longest_wait(&self, kind: Kind) -> Duration {
        let longest = self.options.delivery_timeout;
        // Nobody waits for a host that never was there: its name is written wrongly.
        if kind == Kind::UnknownHost && !self.has_answered { longest.min(UNKNOWN_HOST_WAIT) } else { longest }
    }

    fn failure(&self, problem: &Problem) -> Failure {
        problem.failure("write to", &self.target)
    }

    fn warn(&mut self, now: Duration, problem: &Problem, longest: Duration) {
        if self.warned_at.is_none_or(|at| now.saturating_sub(at) >= WARNING_PAUSE) {
            let (refused, place, seconds) = (self.refused, &self.place, longest.as_secs_f64());
            let failure = self.failure(problem);
            warn!(refused, "{failure}. {place} will be given each record again for {seconds:.1} s at most");
            (self.warned_at, self.refused) = (Some(now), 0);
        }
    }
}
