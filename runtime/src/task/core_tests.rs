//! What happens to a task, and its next step, as scripts.

use super::*;

fn barrier(id: CheckpointId) -> Barrier {
    Barrier { id, timestamp_ms: 0, is_final: false, is_savepoint: false }
}

fn snapshot(id: CheckpointId) -> Step {
    Step::Snapshot { barrier: barrier(id), alignment: Aligned::default() }
}

/// What happens to a task between two of its steps.
#[derive(Debug, Clone)]
enum Happens {
    Nothing,
    Mail(Mail),
    Polled(Polled),
    Flushed(Flushed),
    /// The same with a frozen epoch.
    Drained(Flushed, Drained),
}

use Happens::{Drained as D, Flushed as F, Mail as M, Nothing, Polled as P};

const TRIGGER: Happens =
    M(Mail::Trigger(Barrier { id: 5, timestamp_ms: 0, is_final: false, is_savepoint: false }));
const IDLE: Happens = P(Polled::Idle { retry_after: None });
const PARTIAL: Step = Step::Flush { partial: true };
const FULL: Step = Step::Flush { partial: false };

/// Runs a task through what happens to it and compares its steps.
fn check(name: &str, role: Role, script: &[(Happens, Step)]) {
    let mut core = TaskCore::new(role, false);
    for (number, (happens, expected)) in script.iter().enumerate() {
        let mail = match happens.clone() {
            Nothing => None,
            M(mail) => Some(mail),
            P(polled) => {
                core.polled(polled);
                None
            }
            F(flushed) => {
                core.flushed(flushed, Drained::All);
                None
            }
            D(flushed, drained) => {
                core.flushed(flushed, drained);
                None
            }
        };
        assert_eq!(&core.next(mail), expected, "{name}, step {number}: {happens:?}");
    }
}

#[test]
fn a_call_of_an_operator_is_answered_by_a_flush() {
    let mut core = TaskCore::new(GATE, false);
    assert_eq!(core.next(None), Step::Poll);
    core.polled(Polled::Idle { retry_after: None });
    assert_eq!(core.next(None), PARTIAL);
    core.flushed(Flushed::All, Drained::All);
    assert_eq!(core.next(None), Step::Park(None));
    core.called();
    assert_eq!(core.next(None), FULL);
    // What the operator has emitted may fill the output: then nothing is read.
    core.flushed(Flushed::Blocked, Drained::All);
    assert_eq!(core.next(None), Step::AwaitRoom(None));
    core.called();
    assert_eq!(core.next(None), FULL);
    core.flushed(Flushed::All, Drained::All);
    assert_eq!(core.next(None), Step::Poll);
}

const SOURCE: Role = Role::Source;
const GATE: Role = Role::Inner;

#[test]
fn input_and_output_take_turns() {
    check(
        "busy",
        GATE,
        &[
            (Nothing, Step::Poll),
            (P(Polled::Progress), FULL),
            (F(Flushed::All), Step::Poll),
            (P(Polled::Progress), FULL),
        ],
    );
    check(
        "nothing to read: partial batches leave, then it sleeps",
        GATE,
        &[(Nothing, Step::Poll), (IDLE, PARTIAL), (F(Flushed::All), Step::Park(None)), (Nothing, Step::Poll)],
    );
    let second = Some(Duration::from_secs(1));
    check(
        "a source says when to ask again",
        SOURCE,
        &[
            (Nothing, Step::Poll),
            (P(Polled::Idle { retry_after: second }), PARTIAL),
            (F(Flushed::All), Step::Park(second)),
            (Nothing, Step::Poll),
        ],
    );
}

#[test]
fn a_reader_of_assigned_splits_is_told_the_end_like_a_source_and_has_barriers_like_a_gate() {
    let (alignment, five) = (Aligned::default(), Barrier { is_final: true, ..barrier(5) });
    check(
        "the end of the input, then the final barrier from the enumerator",
        Role::Reader,
        &[
            (Nothing, Step::Poll),
            (P(Polled::Progress), FULL),
            (M(Mail::EndInput), Step::Finish),
            (Nothing, PARTIAL),
            (F(Flushed::All), Step::ReportDrained),
            (Nothing, Step::Poll),
            (P(Polled::Barrier { barrier: five, alignment }), Step::Snapshot { barrier: five, alignment }),
        ],
    );
    let mut reader = TaskCore::new(Role::Reader, false);
    assert!(
        matches!(reader.next(Some(Mail::Trigger(barrier(5)))), Step::Fail(_)),
        "barriers come through its gate"
    );
}

#[test]
fn no_input_is_read_while_output_is_held_back() {
    check(
        "full channel",
        GATE,
        &[
            (Nothing, Step::Poll),
            (P(Polled::Progress), FULL),
            (F(Flushed::Blocked), Step::AwaitRoom(None)),
            (Nothing, FULL),
            (F(Flushed::Blocked), Step::AwaitRoom(None)),
            (Nothing, FULL),
            (F(Flushed::All), Step::Poll),
        ],
    );
    check(
        "full channel when idle: the flush stays a partial one",
        GATE,
        &[
            (Nothing, Step::Poll),
            (IDLE, PARTIAL),
            (F(Flushed::Blocked), Step::AwaitRoom(None)),
            (Nothing, PARTIAL),
            (F(Flushed::All), Step::Poll),
        ],
    );
    check(
        "input that comes while it waits for room is not forgotten: its call was the one that brought the second flush",
        GATE,
        &[
            (Nothing, Step::Poll),
            (IDLE, PARTIAL),
            (F(Flushed::Blocked), Step::AwaitRoom(None)),
            (Nothing, PARTIAL),
            (F(Flushed::Blocked), Step::AwaitRoom(None)),
            (Nothing, PARTIAL),
            (F(Flushed::All), Step::Poll),
            (IDLE, PARTIAL),
            (F(Flushed::All), Step::Park(None)),
        ],
    );
}

#[test]
fn mail_comes_first() {
    check(
        "a source is triggered while it is idle, and looks at its input afterwards",
        SOURCE,
        &[
            (Nothing, Step::Poll),
            (IDLE, PARTIAL),
            (F(Flushed::All), Step::Park(None)),
            (TRIGGER, snapshot(5)),
            (Nothing, FULL),
            (F(Flushed::All), Step::Poll),
        ],
    );
    check(
        "a blocked source emits its barrier behind what is held back",
        SOURCE,
        &[
            (Nothing, Step::Poll),
            (P(Polled::Progress), FULL),
            (F(Flushed::Blocked), Step::AwaitRoom(None)),
            (TRIGGER, snapshot(5)),
            (Nothing, FULL),
            (F(Flushed::Blocked), Step::AwaitRoom(None)),
            (
                M(Mail::Completed { checkpoint: 5, is_final: false }),
                Step::Complete { checkpoint: 5, ends: false },
            ),
            (Nothing, FULL),
        ],
    );
    check(
        "an abort lets blocked channels go on, so the gate is looked at",
        GATE,
        &[
            (Nothing, Step::Poll),
            (IDLE, PARTIAL),
            (F(Flushed::All), Step::Park(None)),
            (M(Mail::Aborted { checkpoint: 4 }), Step::Abort { checkpoint: 4 }),
            (Nothing, FULL),
            (F(Flushed::All), Step::Poll),
        ],
    );
}

#[test]
fn a_gate_takes_its_snapshot_when_the_barrier_has_arrived() {
    let alignment = Aligned { duration: Duration::from_millis(3), bytes: 9 };
    check(
        "barrier",
        GATE,
        &[
            (Nothing, Step::Poll),
            (
                P(Polled::Barrier { barrier: barrier(7), alignment }),
                Step::Snapshot { barrier: barrier(7), alignment },
            ),
            (Nothing, FULL),
            (F(Flushed::All), Step::Poll),
        ],
    );
    let mut gate = TaskCore::new(GATE, false);
    assert!(matches!(gate.next(Some(Mail::Trigger(barrier(1)))), Step::Fail(_)));
}

#[test]
fn the_end_is_reported_when_everything_has_left() {
    check(
        "a gate drains, still takes barriers, and finishes with the final checkpoint",
        GATE,
        &[
            (Nothing, Step::Poll),
            (P(Polled::EndOfInput), Step::Finish),
            (Nothing, PARTIAL),
            (F(Flushed::Blocked), Step::AwaitRoom(None)),
            (Nothing, PARTIAL),
            (F(Flushed::All), Step::ReportDrained),
            (Nothing, Step::Poll),
            (IDLE, PARTIAL),
            (F(Flushed::All), Step::Park(None)),
            (Nothing, Step::Poll),
            (
                P(Polled::Barrier { barrier: barrier(8), alignment: Aligned::default() }),
                Step::Snapshot { barrier: barrier(8), alignment: Aligned::default() },
            ),
            (
                M(Mail::Completed { checkpoint: 8, is_final: true }),
                Step::Complete { checkpoint: 8, ends: true },
            ),
        ],
    );
    check(
        "a drained source is not read again, and emits barriers when triggered",
        SOURCE,
        &[
            (Nothing, Step::Poll),
            (P(Polled::EndOfInput), Step::Finish),
            (Nothing, PARTIAL),
            (F(Flushed::All), Step::ReportDrained),
            (Nothing, Step::Park(None)),
            (Nothing, Step::Park(None)),
            (TRIGGER, snapshot(5)),
            (Nothing, FULL),
            (F(Flushed::All), Step::Park(None)),
        ],
    );
}

#[test]
fn a_barrier_waits_for_the_end_to_be_told() {
    check(
        "deferred",
        SOURCE,
        &[
            (Nothing, Step::Poll),
            (P(Polled::EndOfInput), Step::Finish),
            (TRIGGER, PARTIAL),
            (F(Flushed::Blocked), Step::AwaitRoom(None)),
            (Nothing, PARTIAL),
            (F(Flushed::All), Step::ReportDrained),
            (Nothing, snapshot(5)),
            (Nothing, FULL),
            (F(Flushed::All), Step::Park(None)),
        ],
    );
    check(
        "deferred and aborted",
        SOURCE,
        &[
            (Nothing, Step::Poll),
            (P(Polled::EndOfInput), Step::Finish),
            (TRIGGER, PARTIAL),
            (M(Mail::Aborted { checkpoint: 5 }), Step::Abort { checkpoint: 5 }),
            (Nothing, PARTIAL),
            (F(Flushed::All), Step::ReportDrained),
            (Nothing, Step::Park(None)),
        ],
    );
    check(
        "of two, the newer one counts",
        SOURCE,
        &[
            (Nothing, Step::Poll),
            (P(Polled::EndOfInput), Step::Finish),
            (TRIGGER, PARTIAL),
            (F(Flushed::All), Step::ReportDrained),
            (M(Mail::Trigger(barrier(6))), snapshot(6)),
            (Nothing, FULL),
            (F(Flushed::All), Step::Park(None)),
        ],
    );
    let mut source = TaskCore::new(SOURCE, false);
    source.polled(Polled::EndOfInput);
    assert_eq!(
        source.next(Some(Mail::Trigger(barrier(1)))),
        Step::Finish,
        "a trigger between the end and its telling"
    );
}

#[test]
fn a_task_that_is_not_drained_cannot_finish() {
    let mut core = TaskCore::new(GATE, false);
    let step = core.next(Some(Mail::Completed { checkpoint: 3, is_final: true }));
    assert!(matches!(step, Step::Fail(failure) if failure.message.contains("before the task was drained")));
}

#[test]
fn a_frozen_epoch_is_encoded_between_batches_and_to_its_end_without_input() {
    let slice = Some(Duration::ZERO);
    let pause = Some(Duration::from_millis(EPOCH_PAUSE_MS));
    check(
        "idle: slice by slice, with a look at the input between them",
        GATE,
        &[
            (Nothing, Step::Poll),
            (P(Polled::Barrier { barrier: barrier(3), alignment: Aligned::default() }), snapshot(3)),
            (Nothing, FULL),
            (D(Flushed::All, Drained::Some), Step::Poll),
            (IDLE, PARTIAL),
            (D(Flushed::All, Drained::Some), Step::Park(slice)),
            (Nothing, Step::Poll),
            (P(Polled::Progress), FULL),
            (D(Flushed::All, Drained::Behind), Step::Poll),
            (IDLE, PARTIAL),
            (D(Flushed::All, Drained::Behind), Step::Park(pause)),
            (Nothing, Step::Poll),
            (IDLE, PARTIAL),
            (D(Flushed::All, Drained::All), Step::Park(None)),
        ],
    );
    check(
        "without room",
        GATE,
        &[
            (Nothing, Step::Poll),
            (P(Polled::Progress), FULL),
            (D(Flushed::Blocked, Drained::Some), Step::AwaitRoom(slice)),
            (Nothing, FULL),
            (D(Flushed::Blocked, Drained::Behind), Step::AwaitRoom(pause)),
            (Nothing, FULL),
            (D(Flushed::Blocked, Drained::All), Step::AwaitRoom(None)),
        ],
    );
    check(
        "a source behind its end",
        SOURCE,
        &[
            (Nothing, Step::Poll),
            (P(Polled::EndOfInput), Step::Finish),
            (Nothing, PARTIAL),
            (F(Flushed::All), Step::ReportDrained),
            (TRIGGER, snapshot(5)),
            (Nothing, FULL),
            (D(Flushed::All, Drained::Some), Step::Park(slice)),
            (Nothing, FULL),
            (F(Flushed::All), Step::Park(None)),
        ],
    );
}

#[test]
fn a_task_that_is_blocked_looks_for_barriers_that_overtake() {
    let found = Polled::Barrier { barrier: barrier(5), alignment: Aligned::default() };
    let soon = Some(Duration::from_millis(7));
    let mut core = TaskCore::new(GATE, true);
    assert_eq!(core.next(None), Step::Poll);
    core.polled(Polled::Progress);
    assert_eq!(core.next(None), FULL);
    core.flushed(Flushed::Blocked, Drained::All);
    // There is none, there will be one, there is one.
    assert_eq!(core.next(None), Step::Look);
    core.looked(Polled::Idle { retry_after: None });
    assert_eq!(core.next(None), Step::AwaitRoom(None));
    assert_eq!(core.next(None), FULL);
    core.flushed(Flushed::Blocked, Drained::All);
    assert_eq!(core.next(None), Step::Look);
    core.looked(Polled::Idle { retry_after: soon });
    assert_eq!(core.next(None), Step::AwaitRoom(soon));
    assert_eq!(core.next(None), FULL);
    core.flushed(Flushed::Blocked, Drained::All);
    assert_eq!(core.next(None), Step::Look);
    core.looked(found);
    assert_eq!(core.next(None), snapshot(5));
    assert_eq!(core.next(None), FULL);

    // Not while the operators tell their last records.
    core.flushed(Flushed::All, Drained::All);
    assert_eq!(core.next(None), Step::Poll);
    core.polled(Polled::EndOfInput);
    assert_eq!(core.next(None), Step::Finish);
    assert_eq!(core.next(None), PARTIAL);
    core.flushed(Flushed::Blocked, Drained::All);
    assert_eq!(core.next(None), Step::AwaitRoom(None));

    // Sources are told.
    let mut source = TaskCore::new(SOURCE, true);
    assert_eq!(source.next(None), Step::Poll);
    source.polled(Polled::Progress);
    assert_eq!(source.next(None), FULL);
    source.flushed(Flushed::Blocked, Drained::All);
    assert_eq!(source.next(None), Step::AwaitRoom(None));
}
