//! The thread of a slot: runs all its tasks, turn by turn.
//!
//! Stands between a task and the processor. Subtask i of the vertices that share a slot, as far as records can get from one to
//! the other, sits here; `rota` decides whose turn it is. Invariants: a task that blocks in user code holds up the tasks of its own
//! slot and nobody else; a thread without a task that is ready sleeps; it ends when all its tasks have ended.

mod rota;

use std::num::NonZeroU64;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use rustix::thread::set_current_timer_slack;
use thalweg_common::clock::{SharedClock, Stopwatch};
use thalweg_common::graph::JobGraph;
use thalweg_common::id::{SubtaskId, VertexId};
use tokio::sync::oneshot;
use tracing::debug;

use self::rota::{Next, Rota, Spent};
use crate::exchange::{Called, SlotParker, TaskWaker};
use crate::task::times::Activity;
use crate::task::{Task, Turn, Wait};

/// A thread sleeps no longer than this without a look around. Nothing depends on it: whatever concerns a task calls it.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// By how many nanoseconds the system may delay the end of a thread's sleep, to wake it together with others. By default it
/// is 50 µs, a tenth of what a record may take through a whole job.
const TIMER_SLACK_NS: NonZeroU64 = NonZeroU64::MIN;

/// The thread's end of a slot.
pub(crate) struct Slot {
    parker: SlotParker,
    arrivals: Receiver<Arrival>,
    /// Seats whose tasks may still come.
    awaited: usize,
    rota: Rota,
    tasks: Vec<Option<Seated>>,
    clock: SharedClock,
}

/// What comes to a slot's thread: a task, or the word that there will be none.
struct Arrival {
    seat: usize,
    task: Option<Seated>,
}

/// What the thread of a slot does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Give the task on this seat its turn.
    Turn(usize),
    /// Sleep until called, or until this time.
    Rest(Option<Duration>),
    /// Nothing more: all tasks have ended.
    End,
}

struct Seated {
    task: Box<Task>,
    /// Told when nothing of the task is left.
    ended: oneshot::Sender<()>,
}

/// A place for one task on the thread of its slot. Dropping it unused says that the task does not come.
pub(crate) struct Seat {
    number: usize,
    arrivals: SyncSender<Arrival>,
    waker: TaskWaker,
    is_taken: bool,
}

/// A slot of a worker: tasks of the same one have the same thread.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlotId<'a> {
    /// The subtask index of its tasks.
    pub(crate) index: u32,
    sharing_group: &'a str,
    /// The first vertex of the part of the graph to which its tasks belong. Parts that are not connected have nothing to hand
    /// to each other, so that they gain nothing from one thread and would only hold each other up.
    part: VertexId,
}

impl<'a> SlotId<'a> {
    /// The slot of a subtask; `None` if the graph has no such vertex.
    pub(crate) fn of(graph: &'a JobGraph, parts: &[VertexId], subtask: SubtaskId) -> Option<Self> {
        let vertex = graph.vertices.get(subtask.vertex as usize)?;
        let part = *parts.get(subtask.vertex as usize)?;
        Some(Self { index: subtask.index, sharing_group: &vertex.slot_sharing_group, part })
    }
}

/// For each vertex the first one of those with which it is connected.
pub(crate) fn connected_parts(graph: &JobGraph) -> Vec<VertexId> {
    let mut parts: Vec<VertexId> = (0..).take(graph.vertices.len()).collect();
    for edge in &graph.edges {
        let part = |vertex: VertexId| parts.get(vertex as usize).copied();
        if let (Some(one), Some(other)) = (part(edge.source), part(edge.target)) {
            let (first, second) = (one.min(other), one.max(other));
            parts.iter_mut().filter(|part| **part == second).for_each(|part| *part = first);
        }
    }
    parts
}

/// A slot for so many tasks, and their seats. Earlier seats have their turn first.
pub(crate) fn slot(seats: usize, clock: SharedClock) -> (Slot, Vec<Seat>) {
    let (sender, arrivals) = sync_channel(seats);
    let parker = SlotParker::new();
    let seat =
        |number| Seat { number, arrivals: sender.clone(), waker: parker.waker(number), is_taken: false };
    let all = (0..seats).map(seat).collect();
    let tasks = (0..seats).map(|_| None).collect();
    (Slot { parker, arrivals, awaited: seats, rota: Rota::new(seats), tasks, clock }, all)
}

impl Seat {
    /// What wakes the task on this seat, now and when it has come.
    pub(crate) fn waker(&self) -> TaskWaker {
        self.waker.clone()
    }

    /// Brings the task to its thread. What is returned resolves when nothing of it is left; to an error if its thread could
    /// not be started or has ended before.
    pub(crate) fn take(mut self, task: Task) -> oneshot::Receiver<()> {
        let (ended, has_ended) = oneshot::channel();
        self.is_taken = true;
        self.send(Some(Seated { task: Box::new(task), ended }));
        has_ended
    }

    fn send(&self, task: Option<Seated>) {
        // There is room for one arrival of each seat. A thread that is gone drops it, which tells whoever waits for its end.
        let _ = self.arrivals.try_send(Arrival { seat: self.number, task });
        self.waker.wake();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.is_taken {
            self.send(None);
        }
    }
}

impl Slot {
    /// Runs the tasks until all have ended. This is the whole life of a slot's thread.
    pub(crate) fn run(mut self) {
        if let Err(error) = set_current_timer_slack(Some(TIMER_SLACK_NS)) {
            debug!("timers stay inexact, which delays sources with a limited rate by some 50 µs: {error}");
        }
        let mut now = self.clock.monotonic();
        let mut called = self.parker.called();
        loop {
            called = match self.next(called, now) {
                Step::Turn(seat) => {
                    now = self.give_turn(seat, now);
                    self.parker.called()
                }
                Step::Rest(until) => {
                    let rest =
                        until.map_or(LONGEST_REST, |until| until.saturating_sub(now).min(LONGEST_REST));
                    let called = self.parker.park(rest);
                    now = self.clock.monotonic();
                    called
                }
                Step::End => return,
            };
        }
    }

    /// What comes next, after some tasks were called.
    fn next(&mut self, called: Called, now: Duration) -> Step {
        self.admit(now);
        called.seats(self.tasks.len()).for_each(|seat| self.rota.called(seat, now));
        match self.rota.next(now) {
            Next::Run(seat) => Step::Turn(seat),
            Next::Rest(_) if self.awaited == 0 && self.tasks.iter().all(Option::is_none) => Step::End,
            Next::Rest(until) => Step::Rest(until),
        }
    }

    /// What comes next, for a simulation or a test by hand in the place of the thread.
    pub(crate) fn simulated_next(&mut self) -> Step {
        let called = self.parker.called();
        self.next(called, self.clock.monotonic())
    }

    /// Gives a task its turn, for whoever is in the place of the thread.
    pub(crate) fn simulate_turn(&mut self, seat: usize) {
        self.give_turn(seat, self.clock.monotonic());
    }

    /// What the task on a seat waits for, in words.
    #[cfg(test)]
    pub(crate) fn describe(&self, seat: usize) -> String {
        self.rota.describe(seat)
    }

    /// Seats the tasks that have come.
    fn admit(&mut self, now: Duration) {
        while self.awaited > 0
            && let Ok(Arrival { seat, task }) = self.arrivals.try_recv()
        {
            self.awaited -= 1;
            if let Some(seated) = &task {
                seated.task.counters().begin(Stopwatch::start(&self.clock));
                self.tasks[seat] = task;
                self.rota.seated(seat, now);
            }
        }
    }

    /// Gives a task its turn, and returns the time after it: the only look at the clock for the turn.
    fn give_turn(&mut self, seat: usize, now: Duration) -> Duration {
        let Some(seated) = &mut self.tasks[seat] else { return now };
        account(&seated.task, self.rota.settle(seat, now), Activity::Busy);
        let turn = seated.task.turn();
        let now = self.clock.monotonic();
        account(&seated.task, self.rota.turned(seat, turn, now), activity_behind(turn));
        if let Turn::Done(status) = turn
            && let Some(Seated { task, ended }) = self.tasks[seat].take()
        {
            task.end(status);
            // Nobody waits any more when the worker ends.
            let _ = ended.send(());
        }
        now
    }
}

/// What a task does until its next turn.
fn activity_behind(turn: Turn) -> Activity {
    match turn {
        Turn::Ready => Activity::Busy,
        Turn::Parked { wait: Wait::Input, .. } => Activity::Idle,
        Turn::Parked { wait: Wait::Room, .. } => Activity::BackPressured,
        Turn::Done(_) => Activity::None,
    }
}

/// Adds the time that a task has spent, and says what it does next.
fn account(task: &Task, spent: Spent, next: Activity) {
    let (counters, Spent { busy, idle, back_pressured }) = (task.counters(), spent);
    counters.add_time(Activity::Busy, busy);
    counters.add_time(Activity::Idle, idle);
    counters.add_time(Activity::BackPressured, back_pressured);
    counters.enter(next);
}

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;
