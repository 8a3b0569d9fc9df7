//! Checks of sources whose splits an enumerator finds.

use std::ops::Range;
use std::time::Duration;

use thalweg_common::clock::{Clock as _, SystemClock};
use thalweg_common::failure::Failure;
use thalweg_runtime::io::Io;
use thalweg_runtime::split::EnumeratedSource;
use thalweg_runtime::testing::{EnumeratedHarness, EnumeratedSnapshot, Setup};

use super::{Trouble, all_closed, at_once, broken, each_once, lot, until};

/// A source and its peer. Records are numbers, however the peer writes them.
pub trait SourceSubject {
    /// The source.
    type Source: EnumeratedSource;

    /// One that reads from the first record on, and never ends.
    fn source(&self) -> Self::Source;

    /// The number of a record.
    fn number(&self, record: &<Self::Source as EnumeratedSource>::Out) -> u64;

    /// Lets the peer have these records, spread over several splits.
    fn write(&self, numbers: Range<u64>);

    /// How the source asks its peer.
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

    /// How often the peer was asked, if it is asked.
    fn requests(&self) -> Option<usize> {
        None
    }

    /// Gives the outside a moment, some milliseconds at the most.
    fn breathe(&self) {
        std::thread::yield_now();
    }
}

type Out<S> = <<S as SourceSubject>::Source as EnumeratedSource>::Out;

/// A source in an attempt, and all that the state of its job would have.
struct Attempt<'a, S: SourceSubject> {
    subject: &'a S,
    harness: EnumeratedHarness<Out<S>>,
    clock: SystemClock,
    shown: Duration,
    read: Vec<u64>,
    checkpoints: u64,
}

/// A checkpoint: what the source says, and what was read before.
#[derive(Clone)]
struct Taken {
    snapshot: EnumeratedSnapshot,
    read: Vec<u64>,
}

impl<'a, S: SourceSubject> Attempt<'a, S> {
    fn new(subject: &'a S, readers: u32) -> Result<Self, Failure> {
        Self::open(subject, readers, None, Vec::new())
    }

    fn restored(subject: &'a S, readers: u32, from: &Taken) -> Result<Self, Failure> {
        Self::open(subject, readers, Some(&from.snapshot), from.read.clone())
    }

    fn open(
        subject: &'a S,
        readers: u32,
        from: Option<&EnumeratedSnapshot>,
        read: Vec<u64>,
    ) -> Result<Self, Failure> {
        let setup = Setup { io: subject.io(), ..Setup::default() };
        let harness = EnumeratedHarness::open_in(setup, subject.source(), readers, from)?;
        Ok(Self { subject, harness, clock: SystemClock::new(), shown: Duration::ZERO, read, checkpoints: 0 })
    }

    /// Everything has a turn, and time goes on.
    fn turn(&mut self) -> Result<(), Failure> {
        let now = self.clock.monotonic();
        self.harness.advance(now.saturating_sub(self.shown));
        self.shown = now;
        self.harness.settle()?;
        self.collect();
        self.subject.breathe();
        Ok(())
    }

    fn collect(&mut self) {
        let read = self.harness.output();
        self.read.extend(read.iter().map(|record| self.subject.number(record)));
    }

    /// Reads until the job has so many records.
    fn read_to(&mut self, records: u64) -> Result<(), Failure> {
        until(&format!("{records} records are read"), || {
            self.turn()?;
            Ok(self.read.len() as u64 >= records)
        })
    }

    fn checkpoint(&mut self) -> Result<Taken, Failure> {
        self.checkpoints += 1;
        let snapshot = self.harness.checkpoint(self.checkpoints)?;
        self.collect();
        Ok(Taken { snapshot, read: self.read.clone() })
    }
}

/// Attempts that end anywhere, and others that go on from their last checkpoint: every record once.
///
/// # Errors
/// What the source does wrong.
pub fn kill_and_restore<S: SourceSubject>(subject: &S) -> Result<(), Failure> {
    const ROUNDS: u64 = 6;
    let mut last: Option<Taken> = None;
    for round in 0..ROUNDS {
        subject.write(round * 50..round * 50 + 50);
        let mut attempt = match &last {
            Some(taken) => Attempt::restored(subject, 2, taken)?,
            None => Attempt::new(subject, 2)?,
        };
        let before = attempt.read.len() as u64;
        attempt.read_to(before + 1 + lot(round) % 30)?;
        if round == 0 || !lot(round + 100).is_multiple_of(4) {
            last = Some(attempt.checkpoint()?);
        }
        // Read again by the next one.
        for _ in 0..lot(round + 200) % 5 {
            attempt.turn()?;
        }
    }
    let last = last.ok_or_else(|| broken("no checkpoint was taken"))?;
    let mut attempt = Attempt::restored(subject, 2, &last)?;
    attempt.read_to(ROUNDS * 50)?;
    // Nothing comes behind that.
    (0..3).try_for_each(|_| attempt.turn())?;
    each_once(attempt.read, ROUNDS * 50)
}

/// From one parallelism to another, up and down.
///
/// # Errors
/// What the source does wrong.
pub fn rescaling<S: SourceSubject>(subject: &S) -> Result<(), Failure> {
    subject.write(0..60);
    let mut attempt = Attempt::new(subject, 1)?;
    let mut written = 60;
    for readers in [4, 2, 3, 1] {
        attempt.read_to(written - 30)?;
        let taken = attempt.checkpoint()?;
        drop(attempt);
        subject.write(written..written + 60);
        written += 60;
        attempt = Attempt::restored(subject, readers, &taken)?;
    }
    attempt.read_to(written)?;
    each_once(attempt.read, written)
}

/// By way of a savepoint, with the same parallelism and another one.
///
/// # Errors
/// What the source does wrong.
pub fn restore_from_savepoint<S: SourceSubject>(subject: &S) -> Result<(), Failure> {
    subject.write(0..60);
    let mut attempt = Attempt::new(subject, 2)?;
    let mut written = 60;
    for readers in [2, 3] {
        attempt.read_to(written - 20)?;
        let taken = attempt.checkpoint()?;
        drop(attempt);
        let saved = Taken { snapshot: taken.snapshot.through_savepoint(readers)?, read: taken.read };
        subject.write(written..written + 60);
        written += 60;
        attempt = Attempt::restored(subject, readers, &saved)?;
    }
    attempt.read_to(written)?;
    each_once(attempt.read, written)
}

/// While nobody takes its records a source asks for no more, and takes no harm.
///
/// # Errors
/// What the source does wrong.
pub fn backpressure<S: SourceSubject>(subject: &S) -> Result<(), Failure> {
    subject.write(0..50);
    let mut attempt = Attempt::new(subject, 1)?;
    attempt.read_to(10)?;
    subject.write(50..100);
    subject.breathe();
    let asked = subject.requests();
    (0..20).for_each(|_| subject.breathe());
    if subject.requests() > asked {
        return Err(broken("the source asks its peer while its task does not read"));
    }
    attempt.read_to(100)?;
    each_once(attempt.read, 100)
}

/// A peer that fails now and then, and one that does not answer for a while.
///
/// # Errors
/// What the source does wrong.
pub fn slow_and_failing_peer<S: SourceSubject>(subject: &S) -> Result<(), Failure> {
    subject.write(0..50);
    let mut attempt = Attempt::new(subject, 2)?;
    attempt.read_to(20)?;
    subject.trouble(Some(Trouble::Failing));
    subject.write(50..100);
    attempt.read_to(100)?;
    let taken = attempt.checkpoint()?;
    subject.trouble(None);
    if subject.trouble(Some(Trouble::Silent)) {
        subject.write(100..150);
        (0..5).try_for_each(|_| attempt.turn())?;
        // Barriers do not wait for it.
        attempt.checkpoint()?;
        drop(attempt);
        subject.trouble(None);
        attempt = Attempt::restored(subject, 2, &taken)?;
        attempt.read_to(150)?;
        return each_once(attempt.read, 150);
    }
    each_once(attempt.read, 100)
}

/// An attempt ends at once, also while its peer does not answer.
///
/// # Errors
/// What the source does wrong.
pub fn cancellation<S: SourceSubject>(subject: &S) -> Result<(), Failure> {
    subject.write(0..50);
    let mut attempt = Attempt::new(subject, 2)?;
    attempt.read_to(10)?;
    subject.trouble(Some(Trouble::Silent));
    attempt.turn()?;
    at_once("the end of an attempt", move || drop(attempt))?;
    subject.trouble(None);
    Ok(())
}

/// More readers than splits: barriers pass all of them, and those with splits read.
///
/// # Errors
/// What the source does wrong.
pub fn idle_splits<S: SourceSubject>(subject: &S) -> Result<(), Failure> {
    const READERS: u32 = 40;
    let mut attempt = Attempt::new(subject, READERS)?;
    // There may be nothing at all yet.
    (0..3).try_for_each(|_| attempt.turn())?;
    let taken = attempt.checkpoint()?;
    drop(attempt);
    subject.write(0..40);
    let mut attempt = Attempt::restored(subject, READERS, &taken)?;
    attempt.read_to(40)?;
    attempt.checkpoint()?;
    subject.write(40..50);
    attempt.read_to(50)?;
    each_once(attempt.read, 50)
}

/// Behind the end of an attempt no connection is left.
///
/// # Errors
/// What the source does wrong.
pub fn no_leaked_connection<S: SourceSubject>(subject: &S) -> Result<(), Failure> {
    subject.write(0..20);
    for _ in 0..3 {
        let mut attempt = Attempt::new(subject, 3)?;
        attempt.read_to(20)?;
    }
    all_closed(|| subject.breathe(), || subject.connections())
}

/// Makes a test of each check, with a new subject for each.
#[macro_export]
macro_rules! source_conformance {
    ($subject:expr; $($checks:tt)*) => {
        $crate::conformance_tests! { source, $subject; $($checks)* }
    };
    ($subject:expr) => {
        $crate::source_conformance! { $subject;
            kill_and_restore as conformance_source_kill_and_restore,
            rescaling as conformance_source_rescaling,
            restore_from_savepoint as conformance_source_restore_from_savepoint,
            backpressure as conformance_source_backpressure,
            slow_and_failing_peer as conformance_source_slow_and_failing_peer,
            cancellation as conformance_source_cancellation,
            idle_splits as conformance_source_idle_splits,
            no_leaked_connection as conformance_source_no_leaked_connection,
        }
    };
}
