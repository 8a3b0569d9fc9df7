//! Whose turn it is on the thread of a slot, and until when the thread may sleep. Pure: it is told what happens and the time.
//!
//! A round goes over the tasks in the order of their seats, which is that of the graph, and gives each that is ready one
//! turn: what a source has just read goes through the tasks behind it while it is in the cache. Who is called during a round and sits
//! further behind gets its turn in the same round. Invariants: whoever is ready has its turn after at most one turn of each
//! other task; a task that is parked costs nothing; every moment of a task is accounted once, as busy, idle or
//! back-pressured.

use std::time::Duration;

use crate::task::{Turn, Wait};

const WORD_BITS: usize = u64::BITS as usize;

/// What the thread does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Give the task on this seat a turn.
    Run(usize),
    /// Sleep until called, or until this time.
    Rest(Option<Duration>),
}

/// Where a task's time went, up to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Spent {
    /// It ran, or could have.
    pub(super) busy: Duration,
    /// It had nothing to read.
    pub(super) idle: Duration,
    /// An output was full.
    pub(super) back_pressured: Duration,
}

/// The seats of a slot.
#[derive(Debug)]
pub(super) struct Rota {
    seats: Vec<Seat>,
    /// A bit for each seat whose task is ready.
    ready: Vec<u64>,
    /// The seat whose turn is next, if its task is ready.
    cursor: usize,
    /// No timer ends before this.
    earliest: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Seat {
    state: State,
    /// Accounted up to here.
    since: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody sits here, not yet or not any more.
    Vacant,
    /// It can go on. If it had to wait before: for what, and until when.
    Ready(Option<(Wait, Duration)>),
    /// It waits until it is called, or until then.
    Parked(Wait, Option<Duration>),
}

impl Rota {
    /// So many seats, all vacant.
    pub(super) fn new(seats: usize) -> Self {
        let seat = Seat { state: State::Vacant, since: Duration::ZERO };
        Self {
            seats: vec![seat; seats],
            ready: vec![0; seats.div_ceil(WORD_BITS)],
            cursor: 0,
            earliest: None,
        }
    }

    /// A task has come to its seat.
    pub(super) fn seated(&mut self, seat: usize, now: Duration) {
        self.seats[seat] = Seat { state: State::Ready(None), since: now };
        self.set_ready(seat, true);
    }

    /// A task was called.
    pub(super) fn called(&mut self, seat: usize, now: Duration) {
        if let State::Parked(wait, _) = self.seats[seat].state {
            self.seats[seat].state = State::Ready(Some((wait, now)));
            self.set_ready(seat, true);
        }
    }

    /// What comes next.
    pub(super) fn next(&mut self, now: Duration) -> Next {
        if self.earliest.is_some_and(|earliest| earliest <= now) {
            self.wake_due(now);
        }
        match self.next_ready() {
            Some(seat) => {
                self.cursor = seat + 1;
                Next::Run(seat)
            }
            None => Next::Rest(self.earliest),
        }
    }

    /// A task has had its turn. Says where its time went since the last one.
    pub(super) fn turned(&mut self, seat: usize, turn: Turn, now: Duration) -> Spent {
        let spent = self.settle(seat, now);
        let state = match turn {
            Turn::Ready => return spent,
            Turn::Parked { wait, timeout } => {
                let until = timeout.map(|timeout| now.saturating_add(timeout));
                self.earliest = [self.earliest, until].into_iter().flatten().min();
                State::Parked(wait, until)
            }
            Turn::Done(_) => State::Vacant,
        };
        self.seats[seat].state = state;
        self.set_ready(seat, false);
        spent
    }

    /// Where a task's time went since it was last asked, whatever it does now.
    pub(super) fn settle(&mut self, seat: usize, now: Duration) -> Spent {
        let Seat { state, since } = &mut self.seats[seat];
        let mut spent = Spent::default();
        match *state {
            State::Vacant => {}
            State::Ready(None) => spent.busy = now.saturating_sub(*since),
            State::Ready(Some((wait, until))) => {
                *spent.waited(wait) = until.saturating_sub(*since);
                spent.busy = now.saturating_sub(until);
                *state = State::Ready(None);
            }
            State::Parked(wait, _) => *spent.waited(wait) = now.saturating_sub(*since),
        }
        *since = now;
        spent
    }

    /// What a seat waits for, in words.
    #[cfg(test)]
    pub(super) fn describe(&self, seat: usize) -> String {
        format!("{:?}", self.seats[seat].state)
    }

    fn wake_due(&mut self, now: Duration) {
        self.earliest = None;
        for seat in 0..self.seats.len() {
            match self.seats[seat].state {
                State::Parked(_, Some(until)) if until <= now => self.called(seat, now),
                State::Parked(_, Some(until)) => {
                    self.earliest = Some(self.earliest.map_or(until, |earliest| earliest.min(until)));
                }
                _ => {}
            }
        }
    }

    /// The first ready seat from the cursor on, then from the beginning.
    fn next_ready(&self) -> Option<usize> {
        let first_at = |from: usize| {
            let mut words = self.ready.iter().enumerate().skip(from / WORD_BITS);
            let (index, word) = words.next()?;
            let rest = [(index, word & (u64::MAX << (from % WORD_BITS)))].into_iter();
            let mut words = rest.chain(words.map(|(index, word)| (index, *word)));
            let (index, word) = words.find(|(_, word)| *word != 0)?;
            Some(index * WORD_BITS + word.trailing_zeros() as usize)
        };
        first_at(self.cursor).or_else(|| first_at(0))
    }

    fn set_ready(&mut self, seat: usize, is_ready: bool) {
        let (word, bit) = (&mut self.ready[seat / WORD_BITS], 1 << (seat % WORD_BITS));
        if is_ready { *word |= bit } else { *word &= !bit }
    }
}

impl Spent {
    fn waited(&mut self, wait: Wait) -> &mut Duration {
        match wait {
            Wait::Input => &mut self.idle,
            Wait::Room => &mut self.back_pressured,
        }
    }
}

#[cfg(test)]
#[path = "rota_tests.rs"]
mod tests;
