//! Deploys a job that is driven by hand: channels, slots and tasks as a worker makes them, all in one process.

use std::collections::BTreeMap;
use std::sync::Arc;

use thalweg_common::Timestamp;
use thalweg_common::clock::{ManualClock, SharedClock};
use thalweg_common::failure::Failure;
use thalweg_common::id::{EdgeId, JobId, SubtaskId};
use thalweg_common::status::TaskStatus;
use tokio::sync::mpsc;

use super::{Held, JobSnapshot, ManualJob};
use crate::chain::ChainParts;
use crate::erased::{AnyReceiver, AnySender};
use crate::program::Program;
use crate::slot::{self, Seat, SlotId};
use crate::task::counters::Counters;
use crate::task::mailbox::{Cancellation, mailbox};
use crate::task::{Reporter, Task, role};

/// Reports that wait to be read. They are read after every turn, in which a task makes a few.
const REPORTS: usize = 1_024;

/// The channel ends of a task.
#[derive(Default)]
struct Ends {
    receivers: Vec<AnyReceiver>,
    senders: BTreeMap<EdgeId, Vec<AnySender>>,
}

/// All tasks, seated and not begun.
pub(super) fn deploy(
    program: Arc<Program>,
    now_ms: Timestamp,
    restored: Option<&JobSnapshot>,
) -> Result<ManualJob, Failure> {
    let clock = Arc::new(ManualClock::new(now_ms));
    let (reporter, reports) = mpsc::channel(REPORTS);
    let mut job = ManualJob {
        slots: Vec::new(),
        tasks: BTreeMap::new(),
        reports,
        taken: BTreeMap::new(),
        attempt: restored.map_or(1, |snapshot| snapshot.attempt + 1),
        next_checkpoint: restored.map_or(1, |snapshot| snapshot.next_checkpoint),
        is_over: false,
        failure: None,
        clock: Arc::clone(&clock),
        program,
    };
    let mut wires = wires(&job.program);
    for subtasks in by_slot(&job.program) {
        let (slot, seats) = slot::slot(subtasks.len(), clock.clone());
        job.slots.push(slot);
        for (subtask, seat) in subtasks.into_iter().zip(seats) {
            let snapshots = restored.map(|snapshot| snapshot.for_subtask(&job.program.graph, subtask));
            let parts = ChainParts {
                job_id: JobId(1),
                attempt: job.attempt,
                subtask,
                is_local: true,
                clock: clock.clone() as SharedClock,
                waker: seat.waker(),
                runtime: None,
                counters: Counters::default(),
                stores: Default::default(),
                restored: snapshots.transpose()?.unwrap_or_default(),
                receivers: Vec::new(),
                senders: BTreeMap::new(),
                kept_open: Vec::new(),
            };
            let ends = wires.remove(&subtask).unwrap_or_default();
            let reporter = Reporter { attempt: job.attempt, subtask, reports: reporter.clone() };
            let held = seat_task(seat, &job.program, reporter, parts, ends);
            job.tasks.insert(subtask, held);
        }
    }
    Ok(job)
}

/// Puts a task on its seat.
fn seat_task(seat: Seat, program: &Arc<Program>, reporter: Reporter, parts: ChainParts, ends: Ends) -> Held {
    let parts = ChainParts { receivers: ends.receivers, senders: ends.senders, ..parts };
    let (mailbox, inbox) = mailbox(seat.waker(), Cancellation::default());
    let (role, counters) = (role(program, parts.subtask), parts.counters.clone());
    // Its end is seen in its reports.
    drop(seat.take(Task::new(inbox, reporter, Arc::clone(program), parts, Vec::new())));
    Held { mailbox, counters, role, status: TaskStatus::Deploying }
}

/// The tasks of each slot, as in a worker that has all of them.
fn by_slot(program: &Program) -> impl Iterator<Item = Vec<SubtaskId>> + use<> {
    let parts = slot::connected_parts(&program.graph);
    let mut slots: BTreeMap<_, Vec<SubtaskId>> = BTreeMap::new();
    for subtask in program.graph.subtasks() {
        slots.entry(SlotId::of(&program.graph, &parts, subtask)).or_default().push(subtask);
    }
    slots.into_values().collect::<Vec<_>>().into_iter()
}

/// All channels.
fn wires(program: &Program) -> BTreeMap<SubtaskId, Ends> {
    let mut ends: BTreeMap<SubtaskId, Ends> = BTreeMap::new();
    for ((id, edge), code) in (0..).zip(&program.graph.edges).zip(&program.edges) {
        for channel in program.graph.channels(id) {
            let (sender, receiver) = code.record_type.operations().local_channel(channel);
            let from = SubtaskId { vertex: edge.source, index: channel.from };
            let to = SubtaskId { vertex: edge.target, index: channel.to };
            ends.entry(from).or_default().senders.entry(id).or_default().push(sender);
            ends.entry(to).or_default().receivers.push(receiver);
        }
    }
    ends
}
