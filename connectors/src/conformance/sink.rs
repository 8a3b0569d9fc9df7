//! Checks of sinks.

use thalweg_common::clock::SystemClock;
use thalweg_common::failure::Failure;
use thalweg_runtime::io::Io;
use thalweg_runtime::link::Flushed;
use thalweg_runtime::operator::Sink;
use thalweg_runtime::operators;
use thalweg_runtime::snapshot::OperatorSnapshot;
use thalweg_runtime::testing::{OperatorHarness, Setup, through_savepoint};

use super::{Trouble, all_closed, at_once, broken, each_once, until};

/// How often a record may be seen outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    /// Once or more often, behind a restore.
    AtLeastOnce,
    /// Once.
    ExactlyOnce,
}

/// A sink and its peer. Records are numbers, however the peer writes them.
pub trait SinkSubject {
    /// What it takes.
    type In: Send + 'static;
    /// The sink.
    type Sink: Sink<Self::In> + Clone + Sync + 'static;

    /// What it promises.
    const GUARANTEE: Guarantee;

    /// A new one.
    fn sink(&self) -> Self::Sink;

    /// The record of a number.
    fn record(&self, number: u64) -> Self::In;

    /// The numbers that are seen outside.
    fn written(&self) -> Vec<u64>;

    /// How the sink asks its peer.
    fn io(&self) -> Io {
        Io::default()
    }

    /// Lets the peer be in trouble, or out of it. Says whether there is such trouble with it.
    fn trouble(&self, trouble: Option<Trouble>) -> bool {
        let _ = trouble;
        false
    }

    /// How many connections the peer has open, if it has any.
    fn connections(&self) -> Option<usize> {
        None
    }

    /// Gives the outside a moment, some milliseconds at the most.
    fn breathe(&self) {
        std::thread::yield_now();
    }
}

/// The subtasks of a sink in an attempt.
struct Attempt<'a, S: SinkSubject> {
    subject: &'a S,
    subtasks: Vec<OperatorHarness<S::In>>,
}

impl<'a, S: SinkSubject> Attempt<'a, S> {
    fn open(subject: &'a S, parallelism: u32, restored: &[OperatorSnapshot]) -> Result<Self, Failure> {
        let factory = operators::sink(subject.sink());
        let open = |index| {
            let setup = Setup {
                restored: restored.to_vec(),
                clock: SystemClock::shared(),
                io: subject.io(),
                ..Setup::default()
            };
            OperatorHarness::open_sink(factory.as_ref(), setup.subtask(index, parallelism))
        };
        let subtasks: Result<Vec<_>, Failure> = (0..parallelism).map(open).collect();
        Ok(Self { subject, subtasks: subtasks? })
    }

    /// Gives records to the subtasks in turn.
    fn push(&mut self, numbers: std::ops::Range<u64>) -> Result<(), Failure> {
        let parallelism = self.subtasks.len() as u64;
        for (index, subtask) in (0..).zip(&mut self.subtasks) {
            let mine = numbers.clone().filter(|number| number % parallelism == index);
            subtask.push(mine.map(|number| self.subject.record(number)).collect())?;
        }
        Ok(())
    }

    /// Everything has a turn; says whether all take more.
    fn turn(&mut self) -> Result<bool, Failure> {
        let mut takes_more = true;
        for subtask in &mut self.subtasks {
            takes_more &= subtask.flush()? == Flushed::All;
        }
        self.subject.breathe();
        Ok(takes_more)
    }

    fn barrier(&mut self, checkpoint: u64) -> Result<Vec<OperatorSnapshot>, Failure> {
        self.subtasks.iter_mut().map(|subtask| subtask.barrier(checkpoint)).collect()
    }

    fn completed(&mut self, checkpoint: u64) -> Result<(), Failure> {
        self.subtasks.iter_mut().try_for_each(|subtask| subtask.completed(checkpoint))
    }

    /// Until the outside has all numbers below.
    fn expect(&mut self, numbers: u64) -> Result<(), Failure> {
        until(&format!("{numbers} records are outside"), || {
            self.turn()?;
            let mut written = self.subject.written();
            written.sort_unstable();
            written.dedup();
            Ok(written.len() as u64 >= numbers)
        })?;
        promised::<S>(self.subject.written(), numbers)
    }
}

/// That what is outside keeps the promise.
fn promised<S: SinkSubject>(mut written: Vec<u64>, numbers: u64) -> Result<(), Failure> {
    if S::GUARANTEE == Guarantee::AtLeastOnce {
        written.sort_unstable();
        written.dedup();
    }
    each_once(written, numbers)
}

/// Attempts that end before and behind a barrier: nothing is lost, and what the promise says is not doubled.
///
/// # Errors
/// What the sink does wrong.
pub fn kill_and_restore<S: SinkSubject>(subject: &S) -> Result<(), Failure> {
    let mut attempt = Attempt::open(subject, 2, &[])?;
    attempt.push(0..40)?;
    attempt.turn()?;
    let first = attempt.barrier(1)?;
    // Not complete: none of it may be lost. What comes behind it is read again.
    attempt.push(40..70)?;
    attempt.turn()?;
    drop(attempt);
    let mut attempt = Attempt::open(subject, 2, &first)?;
    attempt.push(40..80)?;
    let second = attempt.barrier(2)?;
    attempt.completed(2)?;
    drop(attempt);
    let mut attempt = Attempt::open(subject, 2, &second)?;
    attempt.push(80..100)?;
    attempt.barrier(3)?;
    attempt.completed(3)?;
    attempt.expect(100)
}

/// From one parallelism to another.
///
/// # Errors
/// What the sink does wrong.
pub fn rescaling<S: SinkSubject>(subject: &S) -> Result<(), Failure> {
    rescaled(subject, |snapshots, _| Ok(snapshots.to_vec()))
}

/// By way of a savepoint, with another parallelism.
///
/// # Errors
/// What the sink does wrong.
pub fn restore_from_savepoint<S: SinkSubject>(subject: &S) -> Result<(), Failure> {
    rescaled(subject, through_savepoint)
}

fn rescaled<S: SinkSubject>(
    subject: &S,
    by_way: impl Fn(&[OperatorSnapshot], u32) -> Result<Vec<OperatorSnapshot>, Failure>,
) -> Result<(), Failure> {
    let mut attempt = Attempt::open(subject, 3, &[])?;
    let (mut written, mut checkpoint) = (0, 0);
    for parallelism in [1, 2] {
        attempt.push(written..written + 30)?;
        written += 30;
        checkpoint += 1;
        let snapshots = attempt.barrier(checkpoint)?;
        drop(attempt);
        attempt = Attempt::open(subject, parallelism, &by_way(&snapshots, parallelism)?)?;
    }
    attempt.push(written..written + 10)?;
    attempt.barrier(checkpoint + 1)?;
    attempt.completed(checkpoint + 1)?;
    attempt.expect(written + 10)
}

/// A sink whose peer takes nothing says so before it holds very much, and goes on when it can.
///
/// # Errors
/// What the sink does wrong.
pub fn backpressure<S: SinkSubject>(subject: &S) -> Result<(), Failure> {
    const MOST: u64 = 100_000;
    let mut attempt = Attempt::open(subject, 1, &[])?;
    let mut pushed = 0;
    if subject.trouble(Some(Trouble::Silent)) {
        loop {
            attempt.push(pushed..pushed + 100)?;
            pushed += 100;
            if !attempt.turn()? {
                break;
            }
            if pushed >= MOST {
                return Err(broken(format!("the sink holds {MOST} records and takes more")));
            }
        }
    }
    // Barriers pass meanwhile.
    let snapshots = attempt.barrier(1)?;
    drop(attempt);
    subject.trouble(None);
    let mut attempt = Attempt::open(subject, 1, &snapshots)?;
    until("it takes more", || attempt.turn())?;
    attempt.push(pushed..pushed + 10)?;
    attempt.barrier(2)?;
    attempt.completed(2)?;
    attempt.expect(pushed + 10)
}

/// A peer that refuses now and then.
///
/// # Errors
/// What the sink does wrong.
pub fn slow_and_failing_peer<S: SinkSubject>(subject: &S) -> Result<(), Failure> {
    let mut attempt = Attempt::open(subject, 2, &[])?;
    subject.trouble(Some(Trouble::Failing));
    for round in 0..5 {
        attempt.push(round * 20..round * 20 + 20)?;
        attempt.turn()?;
        attempt.barrier(round + 1)?;
        attempt.completed(round + 1)?;
    }
    attempt.expect(100)?;
    subject.trouble(None);
    Ok(())
}

/// An attempt ends at once, also while its peer does not answer.
///
/// # Errors
/// What the sink does wrong.
pub fn cancellation<S: SinkSubject>(subject: &S) -> Result<(), Failure> {
    let mut attempt = Attempt::open(subject, 2, &[])?;
    subject.trouble(Some(Trouble::Silent));
    attempt.push(0..20)?;
    attempt.turn()?;
    at_once("the end of an attempt", move || drop(attempt))?;
    subject.trouble(None);
    Ok(())
}

/// Subtasks that get nothing: barriers pass, and nothing is written.
///
/// # Errors
/// What the sink does wrong.
pub fn idle_subtasks<S: SinkSubject>(subject: &S) -> Result<(), Failure> {
    let mut attempt = Attempt::open(subject, 8, &[])?;
    for checkpoint in 1..4 {
        attempt.turn()?;
        attempt.barrier(checkpoint)?;
        attempt.completed(checkpoint)?;
    }
    attempt.push(0..3)?;
    attempt.barrier(4)?;
    attempt.completed(4)?;
    attempt.expect(3)
}

/// Behind the end of an attempt no connection is left.
///
/// # Errors
/// What the sink does wrong.
pub fn no_leaked_connection<S: SinkSubject>(subject: &S) -> Result<(), Failure> {
    for round in 0..3 {
        let mut attempt = Attempt::open(subject, 3, &[])?;
        attempt.push(round * 10..round * 10 + 10)?;
        attempt.barrier(round + 1)?;
        attempt.completed(round + 1)?;
        attempt.expect(round * 10 + 10)?;
    }
    all_closed(|| subject.breathe(), || subject.connections())
}

/// Makes a test of each check, with a new subject for each.
#[macro_export]
macro_rules! sink_conformance {
    ($subject:expr; $($checks:tt)*) => {
        $crate::conformance_tests! { sink, $subject; $($checks)* }
    };
    ($subject:expr) => {
        $crate::sink_conformance! { $subject;
            kill_and_restore as conformance_sink_kill_and_restore,
            rescaling as conformance_sink_rescaling,
            restore_from_savepoint as conformance_sink_restore_from_savepoint,
            backpressure as conformance_sink_backpressure,
            slow_and_failing_peer as conformance_sink_slow_and_failing_peer,
            cancellation as conformance_sink_cancellation,
            idle_subtasks as conformance_sink_idle_subtasks,
            no_leaked_connection as conformance_sink_no_leaked_connection,
        }
    };
}
