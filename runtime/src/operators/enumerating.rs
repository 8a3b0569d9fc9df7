//! The task of an enumerator: finds splits on a thread of its own and deals them to the readers.
//!
//! On a record's way it is a source whose records are assignments. Invariants: what of the enumerator is in a snapshot is from behind a call
//! whose splits are in that snapshot too, or were sent before its barrier; one call is under way at a time; the task never waits for it.

use std::marker::PhantomData;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use thalweg_common::clock::SharedClock;
use thalweg_common::failure::Failure;
use thalweg_common::limits::MAX_WAITING_SPLITS;
use thalweg_common::record::Record;
use thalweg_common::task_scope::TaskScope;
use tracing::warn;

use super::source::{Reading, head};
use crate::batch::Batch;
use crate::exchange::Note;
use crate::operator::SourceStatus;
use crate::program::{AnyLink, Calls, Head, OperatorContext, SourceFactory};
use crate::snapshot::OperatorSnapshot;
use crate::split::dealer::{Dealer, Undealt};
use crate::split::message::{Assignment, EncodedSplit, Found, Word};
use crate::split::{Discovery, EnumeratedSource, Next, SourceSplit, SplitEnumerator};
use crate::task::counters::Gauge;
use crate::task::panics;

/// How long to sleep while a call is under way or nothing is to be done: whatever happens wakes the task.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// How long the end of a job waits for its enumerator to give up what it holds outside.
const LONGEST_CLOSE: Duration = Duration::from_secs(5);

/// Makes the enumerator of a source.
pub(super) struct EnumeratorFactory<S>(pub(super) S);

impl<S: EnumeratedSource> SourceFactory for EnumeratorFactory<S> {
    fn build(&self, context: &mut OperatorContext, next: AnyLink) -> Result<Box<dyn Head>, Failure> {
        head(context, next, |context| Enumerating::<S::Enumerator>::open(&self.0, context))
    }
}

/// What is in checkpoints.
#[derive(thalweg_common::Record, Clone, Default)]
#[record(crate = thalweg_common)]
struct Remembered {
    /// Of the enumerator itself; nothing before its first call.
    enumerator: Option<Vec<u8>>,
    undealt: Undealt,
}

/// An enumerator with its thread, and what it has found.
struct Enumerating<E> {
    dealer: Dealer,
    /// The enumerator behind the last call that has found or was told something.
    state: Option<Vec<u8>>,
    /// What readers say.
    notes: Vec<Note>,
    finder: Finder,
    /// When the next look is due, if there is one, by the monotonic clock.
    due: Duration,
    /// Whether a call is under way.
    is_calling: bool,
    clock: SharedClock,
    /// Tells how many splits nobody has.
    unassigned: Gauge,
    types: PhantomData<fn() -> E>,
}

/// Calls the enumerator.
enum Finder {
    /// On a thread of its own. Dropping this lets the thread end behind the call at hand.
    OnThread { calls: SyncSender<Call>, answers: Receiver<Result<Answer, Failure>>, _scope: TaskScope },
    /// At once, for tests.
    InTurn { call: Box<dyn FnMut(Call) -> Result<Answer, Failure> + Send>, answer: Option<Answer> },
}

enum Call {
    Discover,
    Finished(Vec<String>),
    /// The last one: what is sent when it is done.
    Close(SyncSender<()>),
}

/// What a call has brought.
struct Answer {
    splits: Vec<Found>,
    /// Behind a look: when to look again.
    next: Option<Next>,
    /// The enumerator's state, if it may have changed.
    state: Option<Vec<u8>>,
    /// The splits at their end that it was told.
    told: Vec<String>,
}

impl<E: SplitEnumerator> Enumerating<E> {
    fn open<S>(source: &S, context: &OperatorContext) -> Result<Self, Failure>
    where
        S: EnumeratedSource<Split = E::Split, Enumerator = E>,
    {
        let Remembered { enumerator: state, undealt } = match context.restored_operator_state()? {
            Some(bytes) if !bytes.is_empty() => decoded(bytes)?,
            _ => Remembered::default(),
        };
        let restored = state.as_deref().map(decoded::<E::State>).transpose()?;
        let enumerator = source.enumerator(&context.open, restored)?;
        let notes = context.wires.notes.clone();
        let clock = context.open.clock.clone();
        let mut dealer = Dealer::new(notes.len(), source.splits_per_reader());
        for split in undealt.waiting {
            let pin = super::splits::decoded::<E::Split>(&split.bytes, &split.id)?.pin();
            dealer.found([Found { split, pin }]);
        }
        if undealt.is_complete {
            dealer.complete();
        }
        Ok(Self {
            dealer,
            state,
            notes,
            finder: Finder::new(enumerator, context),
            due: clock.monotonic(),
            is_calling: false,
            clock,
            unassigned: context.counters.unassigned_splits_gauge(),
            types: PhantomData,
        })
    }

    fn read_notes(&mut self) -> Result<(), Failure> {
        for (reader, note) in (0..).zip(&self.notes) {
            if let Some(note) = note.take() {
                self.dealer.on_word(reader, Word::from_note(&note)?);
            }
        }
        Ok(())
    }

    fn read_answer(&mut self) -> Result<(), Failure> {
        let Some(answer) = self.finder.answer()? else { return Ok(()) };
        self.is_calling = false;
        self.dealer.found(answer.splits);
        self.dealer.told(answer.told);
        self.state = answer.state.or_else(|| self.state.take());
        match answer.next {
            None => {}
            Some(Next::AtOnce) => self.due = self.clock.monotonic(),
            Some(Next::After(pause)) => {
                self.dealer.looked();
                self.due = self.clock.monotonic().saturating_add(pause);
            }
            Some(Next::Never) => self.dealer.complete(),
        }
        Ok(())
    }

    /// When to look again. Never while a call is under way, while too many splits wait, or when all are found.
    fn next_look(&self) -> Option<Duration> {
        let has_to_wait =
            self.is_calling || self.dealer.is_complete() || self.dealer.waiting() >= MAX_WAITING_SPLITS;
        (!has_to_wait).then_some(self.due)
    }

    /// Begins the call that is due, if one is.
    fn call(&mut self) -> Result<(), Failure> {
        if self.is_calling || self.dealer.is_complete() {
            return Ok(());
        }
        let untold = self.dealer.take_untold();
        let is_due = self.next_look().is_some_and(|look| look <= self.clock.monotonic());
        let call = match untold.is_empty() {
            false => Call::Finished(untold),
            true if is_due => Call::Discover,
            true => return Ok(()),
        };
        self.is_calling = true;
        self.finder.call(call)
    }
}

impl<E: SplitEnumerator> Reading for Enumerating<E> {
    type Out = Assignment;

    fn poll(&mut self, out: &mut Batch<Assignment>, max: usize) -> Result<SourceStatus, Failure> {
        self.read_notes()?;
        self.read_answer()?;
        self.call()?;
        self.read_answer()?;
        while out.len() < max
            && let Some(assignment) = self.dealer.next()
        {
            out.push(assignment);
        }
        self.unassigned.set(self.dealer.waiting() as u64);
        if self.dealer.is_at_end() {
            return Ok(SourceStatus::Finished);
        }
        let until = |look: Duration| look.saturating_sub(self.clock.monotonic()).min(LONGEST_SLEEP);
        let retry_after = self.next_look().map_or(LONGEST_SLEEP, until);
        Ok(if out.is_empty() { SourceStatus::Idle { retry_after } } else { SourceStatus::Ready })
    }

    fn close(&mut self) {
        if E::CLOSES {
            self.finder.close();
        }
    }

    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot) -> Result<(), Failure> {
        let remembered = Remembered { enumerator: self.state.clone(), undealt: self.dealer.undealt() };
        let mut bytes = Vec::new();
        remembered.encode(&mut bytes);
        snapshot.operator_state.push(bytes);
        Ok(())
    }
}

impl Finder {
    fn new<E: SplitEnumerator>(mut enumerator: E, context: &OperatorContext) -> Self {
        if context.wires.calls == Calls::InTurn {
            return Self::InTurn { call: Box::new(move |call| answer(&mut enumerator, call)), answer: None };
        }
        let (scope, waker) =
            (TaskScope::new(context.open.operator_name.clone()), context.wires.waker.clone());
        // One call at a time, and the last one behind it.
        let (calls, to_do) = sync_channel(2);
        let (done, answers) = sync_channel(1);
        // Nobody waits for it: a call to an outside that does not answer must not hold up the end of an attempt.
        let _ = scope.spawn_thread("enumerator", move || {
            while let Ok(call) = to_do.recv() {
                let answer = panics::guard(|| answer(&mut enumerator, call));
                if done.send(answer).is_err() {
                    return;
                }
                waker.wake();
            }
        });
        Self::OnThread { calls, answers, _scope: scope }
    }

    /// Begins a call.
    fn call(&mut self, call: Call) -> Result<(), Failure> {
        match self {
            Self::OnThread { calls, .. } => calls.try_send(call).map_err(|_| thread_ended()),
            Self::InTurn { call: make, answer } => {
                *answer = Some(make(call)?);
                Ok(())
            }
        }
    }

    /// Lets the enumerator give up what it holds outside.
    fn close(&mut self) {
        let (done, closed) = sync_channel(1);
        // A thread that has ended holds nothing.
        if self.call(Call::Close(done)).is_ok() && closed.recv_timeout(LONGEST_CLOSE).is_err() {
            warn!("The enumerator has not given up what it holds outside within {LONGEST_CLOSE:?}.");
        }
    }

    /// What the last call has brought, if it has returned.
    fn answer(&mut self) -> Result<Option<Answer>, Failure> {
        match self {
            Self::OnThread { answers, .. } => match answers.try_recv() {
                Ok(answer) => answer.map(Some),
                Err(TryRecvError::Empty) => Ok(None),
                Err(TryRecvError::Disconnected) => Err(thread_ended()),
            },
            Self::InTurn { answer, .. } => Ok(answer.take()),
        }
    }
}

fn thread_ended() -> Failure {
    Failure::internal("the thread of the enumerator has ended, or could not be started")
}

fn answer<E: SplitEnumerator>(enumerator: &mut E, call: Call) -> Result<Answer, Failure> {
    let (splits, next, told) = match call {
        Call::Discover => {
            let Discovery { splits, next } = enumerator.discover()?;
            (splits, Some(next), Vec::new())
        }
        Call::Finished(told) => (enumerator.finished(&told)?, None, told),
        Call::Close(done) => {
            if let Err(failure) = enumerator.close() {
                warn!("The source has not given up all that it holds outside: {failure}");
            }
            // Nobody waits any more, if it took too long.
            let _ = done.send(());
            (Vec::new(), None, Vec::new())
        }
    };
    let is_changed = !splits.is_empty() || !told.is_empty() || next == Some(Next::Never);
    let state = is_changed.then(|| encoded(&enumerator.state()));
    let encode = |split: E::Split| Found {
        pin: split.pin(),
        split: EncodedSplit { id: split.split_id(), bytes: encoded(&split) },
    };
    Ok(Answer { splits: splits.into_iter().map(encode).collect(), next, state, told })
}

fn encoded<R: Record>(record: &R) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}

fn decoded<R: Record>(mut bytes: &[u8]) -> Result<R, Failure> {
    match R::decode(&mut bytes) {
        Ok(state) if bytes.is_empty() => Ok(state),
        _ => Err(Failure::user(
            "the restored state of the enumerator cannot be read: it was written by another version of the source; run that version, or \
             give the source another uid, so that it begins anew",
        )
        .permanent()),
    }
}

#[cfg(test)]
#[path = "enumerating_tests.rs"]
mod tests;
