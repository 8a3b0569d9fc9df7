//! The coordinator of checkpoints, step by step: tables of events and what they lead to.

#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use thalweg_proto::convert::SnapshotLocation;

use super::*;

const WALL: Timestamp = 1_700_000_000_000;

fn subtasks(count: u32) -> BTreeSet<SubtaskId> {
    (0..count).map(|index| SubtaskId { vertex: 0, index }).collect()
}

fn snapshot() -> SnapshotHandle {
    SnapshotHandle {
        location: SnapshotLocation::Inline(vec![1, 2]),
        size_bytes: 2,
        checksum: 3,
        shared: vec![],
    }
}

fn config() -> CheckpointConfig {
    CheckpointConfig { interval_ms: Some(1_000), timeout_ms: 500, ..CheckpointConfig::default() }
}

struct Bench {
    coordinator: Coordinator,
    now_ms: u64,
}

impl Bench {
    fn new(config: CheckpointConfig) -> Self {
        Self { coordinator: Coordinator::new(config, subtasks(2), 0), now_ms: 0 }
    }

    fn at(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        self.now_ms = now_ms;
        self.coordinator.step(event, now_ms, WALL + now_ms as i64)
    }

    fn now(&mut self, event: Event) -> Vec<Effect> {
        self.at(self.now_ms, event)
    }

    fn acknowledge(&mut self, checkpoint_id: CheckpointId, index: u32) -> Vec<Effect> {
        let subtask = SubtaskId { vertex: 0, index };
        let phases = CheckpointPhases { sync_us: u64::from(index) + 1, ..CheckpointPhases::default() };
        self.now(Event::Acknowledged { checkpoint_id, subtask, snapshot: snapshot(), phases })
    }

    /// Begins a checkpoint that is due.
    fn begin(&mut self, now_ms: u64, checkpoint_id: CheckpointId) {
        assert_eq!(self.at(now_ms, Event::Tick), [Effect::Begin], "due at {now_ms}");
        self.begun(checkpoint_id, false);
    }

    /// What is in progress.
    fn in_progress(&self) -> Vec<CheckpointId> {
        self.coordinator.in_progress().map(|pending| pending.checkpoint_id).collect()
    }

    fn begun(&mut self, checkpoint_id: CheckpointId, is_final: bool) {
        let timestamp_ms = WALL + self.now_ms as i64;
        assert_eq!(
            self.now(Event::Begun(checkpoint_id)),
            [Effect::Trigger { checkpoint_id, is_final, is_savepoint: false, timestamp_ms }]
        );
    }

    /// All acknowledge; the metadata is written; returns the effects of the commit.
    fn complete(&mut self, now_ms: u64, checkpoint_id: CheckpointId) -> Vec<Effect> {
        self.now_ms = now_ms;
        assert_eq!(self.acknowledge(checkpoint_id, 0), []);
        let effects = self.acknowledge(checkpoint_id, 1);
        if self.coordinator.config.is_enabled() {
            assert!(matches!(&effects[..], [Effect::Write(pending)] if pending.parts.len() == 2));
            let effects = self.now(Event::Written(checkpoint_id, Ok("uri".into())));
            assert!(matches!(&effects[..], [Effect::Complete { path: Some(path), .. }] if path == "uri"));
        } else {
            assert!(matches!(&effects[..], [Effect::Complete { path: None, .. }]));
        }
        self.now(Event::Committed(checkpoint_id))
    }
}

fn completed(effects: &[Effect]) -> Option<(CheckpointId, bool)> {
    match effects.first() {
        Some(Effect::Completed { checkpoint_id, is_final, .. }) => Some((*checkpoint_id, *is_final)),
        _ => None,
    }
}

fn aborted(effects: &[Effect]) -> (CheckpointId, &str) {
    match effects.first() {
        Some(Effect::Aborted { pending, reason, .. }) => (pending.checkpoint_id, reason),
        other => panic!("expected an abort: {other:?}"),
    }
}

#[test]
fn a_checkpoint_goes_its_way_and_the_next_follows_by_the_interval() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.coordinator.deadline(), Some(1_000));
    assert_eq!(bench.at(999, Event::Tick), []);
    bench.begin(1_000, 1);
    assert_eq!(bench.in_progress(), [1]);
    assert_eq!(bench.coordinator.deadline(), Some(1_500), "its timeout");
    let effects = bench.complete(1_300, 1);
    assert_eq!(effects, [Effect::Completed { checkpoint_id: 1, is_final: false }]);
    assert_eq!(bench.coordinator.deadline(), Some(2_000));
    bench.begin(2_000, 2);
}

#[test]
fn the_pause_counts_from_the_end_of_the_last_one() {
    let mut bench = Bench::new(CheckpointConfig { min_pause_ms: 900, ..config() });
    bench.begin(1_000, 1);
    bench.complete(1_400, 1);
    assert_eq!(bench.coordinator.deadline(), Some(2_300));
    assert_eq!(bench.at(2_000, Event::Tick), []);
    bench.begin(2_300, 2);
}

#[test]
fn a_slow_checkpoint_delays_the_next_one_but_never_overlaps_it() {
    let mut bench = Bench::new(CheckpointConfig { timeout_ms: 60_000, ..config() });
    bench.begin(1_000, 1);
    assert_eq!(bench.at(2_000, Event::Tick), []);
    assert_eq!(bench.at(9_000, Event::Tick), []);
    let effects = bench.complete(9_500, 1);
    assert_eq!(completed(&effects), Some((1, false)));
    assert_eq!(effects[1], Effect::Begin, "overdue: begins at once");
}

#[test]
fn what_belongs_to_no_checkpoint_in_progress_changes_nothing() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.acknowledge(1, 0), []);
    bench.begin(1_000, 2);
    assert_eq!(bench.acknowledge(1, 0), []);
    assert_eq!(bench.acknowledge(2, 7), [], "no such subtask");
    assert_eq!(bench.acknowledge(2, 0), []);
    assert_eq!(bench.acknowledge(2, 0), [], "a repeated acknowledgement counts once");
    assert_eq!(bench.now(Event::Declined { checkpoint_id: 1, reason: "old".into() }), []);
    assert_eq!(bench.now(Event::Written(1, Ok("x".into()))), []);
    assert_eq!(bench.now(Event::Committed(2)), [], "it was not proposed");
    assert_eq!(bench.now(Event::Begun(3)), [], "it was not asked for");
    assert_eq!(bench.in_progress(), [2]);
}

#[test]
fn a_checkpoint_fails_in_five_ways() {
    let one = |fail: fn(&mut Bench) -> Vec<Effect>| {
        let mut bench = Bench::new(CheckpointConfig { tolerable_failures: 9, ..config() });
        bench.begin(1_000, 1);
        let effects = fail(&mut bench);
        assert!(!is_failing(&effects), "tolerated: {effects:?}");
        let (id, reason) = aborted(&effects);
        assert_eq!((id, bench.in_progress()), (1, vec![]));
        assert_eq!(bench.acknowledge(1, 1), [], "late");
        match effects.last() {
            Some(Effect::Begin) => bench.begun(2, false),
            _ => bench.begin(bench.coordinator.deadline().unwrap(), 2),
        }
        reason.to_string()
    };
    let timeout = one(|bench| {
        bench.acknowledge(1, 0);
        assert_eq!(bench.at(1_499, Event::Tick), []);
        bench.at(1_500, Event::Tick)
    });
    assert!(timeout.contains("within 500 ms: 1 of 2 subtasks"), "{timeout}");
    let declined = one(|bench| bench.now(Event::Declined { checkpoint_id: 1, reason: "disk full".into() }));
    assert_eq!(declined, "disk full");
    let unwritten = one(|bench| {
        bench.acknowledge(1, 0);
        bench.acknowledge(1, 1);
        bench.now(Event::Written(1, Err("no space".into())))
    });
    assert!(unwritten.contains("no space"), "{unwritten}");
    let slow = one(|bench| {
        bench.acknowledge(1, 0);
        bench.acknowledge(1, 1);
        bench.at(1_500, Event::Tick)
    });
    assert!(slow.contains("metadata file was not written within 500 ms"), "{slow}");
    let refused = one(|bench| {
        bench.acknowledge(1, 0);
        bench.acknowledge(1, 1);
        bench.now(Event::Written(1, Ok("uri".into())));
        assert_eq!(bench.at(9_000, Event::Tick), [], "only the log decides now");
        bench.now(Event::CommitRefused(1, "stale".into()))
    });
    assert_eq!(refused, "stale");
}

#[test]
fn a_checkpoint_that_the_log_refuses_to_begin_is_asked_for_later() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.at(1_000, Event::Tick), [Effect::Begin]);
    assert_eq!(bench.now(Event::BeginRefused), []);
    assert_eq!(bench.coordinator.deadline(), Some(2_000));
}

#[test]
fn too_many_failures_in_a_row_fail_the_job() {
    let mut bench = Bench::new(CheckpointConfig { tolerable_failures: 1, ..config() });
    let decline = |id| Event::Declined { checkpoint_id: id, reason: "disk full".into() };
    bench.begin(1_000, 1);
    assert_eq!(bench.now(decline(1)).len(), 1);
    bench.begin(2_000, 2);
    bench.complete(2_100, 2);
    bench.begin(3_000, 3);
    assert_eq!(bench.now(decline(3)).len(), 1, "a success starts the count over");
    bench.begin(4_000, 4);
    let effects = bench.now(decline(4));
    let Effect::Fail(failure) = &effects[1] else { panic!("expected a failure: {effects:?}") };
    assert!(
        failure.message.contains("2 in a row where 1 are tolerated") && failure.message.contains("disk full")
    );
}

#[test]
fn drained_tasks_get_a_final_checkpoint_at_once_and_none_after_it() {
    for config in [config(), CheckpointConfig { interval_ms: None, ..config() }] {
        let mut bench = Bench::new(config);
        assert_eq!(bench.at(100, Event::AllDrained), [Effect::Begin]);
        bench.begun(1, true);
        assert_eq!(completed(&bench.complete(200, 1)), Some((1, true)));
        assert!(bench.coordinator.is_finished());
        assert_eq!(bench.coordinator.deadline(), None);
        assert_eq!(bench.at(99_000, Event::Tick), []);
        assert_eq!(bench.now(Event::AllDrained), []);
    }
}

#[test]
fn without_checkpointing_nothing_begins_before_the_end() {
    let mut bench = Bench::new(CheckpointConfig { interval_ms: None, ..config() });
    assert_eq!(bench.coordinator.deadline(), None);
    assert_eq!(bench.at(99_000, Event::Tick), []);
}

#[test]
fn a_checkpoint_in_progress_delays_the_final_one() {
    let mut bench = Bench::new(config());
    bench.begin(1_000, 1);
    assert_eq!(bench.at(1_100, Event::AllDrained), []);
    let effects = bench.complete(1_200, 1);
    assert_eq!(completed(&effects), Some((1, false)));
    assert_eq!(effects[1], Effect::Begin);
    bench.begun(2, true);
}

#[test]
fn a_failed_final_checkpoint_is_tried_again_after_a_pause() {
    let mut bench = Bench::new(CheckpointConfig { tolerable_failures: 3, ..config() });
    assert_eq!(bench.at(100, Event::AllDrained), [Effect::Begin]);
    bench.begun(1, true);
    let effects = bench.now(Event::Declined { checkpoint_id: 1, reason: "disk full".into() });
    assert_eq!(aborted(&effects), (1, "disk full"));
    assert_eq!(bench.coordinator.deadline(), Some(100 + FINAL_RETRY_PAUSE_MS));
    assert_eq!(bench.at(1_100, Event::Tick), [Effect::Begin]);
    bench.begun(2, true);
}

#[test]
fn an_adopted_finished_attempt_takes_no_checkpoint() {
    let mut coordinator = Coordinator::finished(config(), subtasks(2));
    assert!(coordinator.is_finished());
    assert_eq!(coordinator.step(Event::AllDrained, 5, WALL), []);
    assert_eq!(coordinator.deadline(), None);
}

fn any_event() -> impl Strategy<Value = Event> {
    let id = 1u64..8;
    prop_oneof![
        4 => Just(Event::Tick),
        1 => Just(Event::AllDrained),
        4 => id.clone().prop_map(Event::Begun),
        1 => Just(Event::BeginRefused),
        8 => (id.clone(), 0u32..3).prop_map(|(checkpoint_id, index)| Event::Acknowledged {
            checkpoint_id,
            subtask: SubtaskId { vertex: 0, index },
            snapshot: snapshot(),
            phases: CheckpointPhases::default(),
        }),
        1 => id.clone().prop_map(|checkpoint_id| Event::Declined { checkpoint_id, reason: "no".into() }),
        3 => id.clone().prop_map(|id| Event::Written(id, Ok("uri".into()))),
        1 => id.clone().prop_map(|id| Event::Written(id, Err("no".into()))),
        3 => id.clone().prop_map(Event::Committed),
        1 => id.prop_map(|id| Event::CommitRefused(id, "no".into())),
    ]
}

/// A coordinator of up to three at a time.
fn concurrent() -> Bench {
    Bench::new(CheckpointConfig { max_concurrent: 3, interval_ms: Some(100), timeout_ms: 5_000, ..config() })
}

#[test]
fn acknowledgements_carry_what_each_part_took() {
    let mut bench = Bench::new(config());
    bench.begin(1_000, 1);
    bench.now_ms = 1_200;
    bench.acknowledge(1, 1);
    bench.now_ms = 1_350;
    let effects = bench.acknowledge(1, 0);
    let Effect::Write(pending) = &effects[0] else { panic!("{effects:?}") };
    let parts = pending.parts.values().map(|part| (part.end_to_end_ms, part.phases.sync_us));
    assert_eq!(parts.collect::<Vec<_>>(), [(350, 1), (200, 2)]);
    assert_eq!((pending.duration_ms(), pending.state_bytes()), (350, 4));
}

#[test]
fn as_many_as_configured_are_in_progress() {
    let mut bench = concurrent();
    for (at, id) in [(100, 1), (200, 2), (300, 3)] {
        bench.begin(at, id);
    }
    assert_eq!(bench.at(400, Event::Tick), [], "three are enough");
    assert_eq!(bench.coordinator.deadline(), Some(5_100), "the timeout of the oldest");
    let effects = bench.complete(450, 1);
    assert_eq!(completed(&effects), Some((1, false)));
    assert_eq!(effects[1..], [Effect::Begin], "there is room again");
    bench.begun(4, false);
    assert_eq!(bench.in_progress(), [2, 3, 4]);
}

#[test]
fn a_checkpoint_that_completes_ends_the_older_ones_without_counting_them_as_failures() {
    let mut bench = concurrent();
    bench.begin(100, 1);
    bench.begin(200, 2);
    bench.acknowledge(1, 0);
    let effects = bench.complete(250, 2);
    assert_eq!(completed(&effects), Some((2, false)));
    assert_eq!(aborted(&effects[1..]), (1, "checkpoint 2 completed before it"));
    assert_eq!(effects.len(), 2, "none is tolerated, and none failed");
    assert_eq!(bench.acknowledge(1, 1), []);
}

#[test]
fn what_the_log_has_in_its_hands_ends_by_its_answer() {
    let mut bench = concurrent();
    bench.begin(100, 1);
    bench.begin(200, 2);
    for id in [2, 1] {
        bench.acknowledge(id, 0);
        bench.acknowledge(id, 1);
        bench.now(Event::Written(id, Ok("uri".into())));
    }
    assert_eq!(bench.now(Event::Committed(2)), [Effect::Completed { checkpoint_id: 2, is_final: false }]);
    assert_eq!(bench.in_progress(), [1]);
    let effects = bench.now(Event::CommitRefused(1, "stale".into()));
    assert_eq!(aborted(&effects), (1, "stale"));
    assert_eq!(effects.len(), 1, "no failure");
}

#[test]
fn each_times_out_by_itself() {
    let mut bench = concurrent();
    bench.coordinator.config.tolerable_failures = 5;
    for (at, id) in [(100, 1), (200, 2), (300, 3)] {
        bench.begin(at, id);
    }
    let effects = bench.at(5_200, Event::Tick);
    assert_eq!((aborted(&effects).0, aborted(&effects[1..]).0), (1, 2));
    assert_eq!(effects[2..], [Effect::Begin]);
    assert_eq!(bench.in_progress(), [3]);
}

#[test]
fn the_final_one_is_alone() {
    let mut bench = concurrent();
    bench.begin(100, 1);
    bench.begin(200, 2);
    assert_eq!(bench.at(300, Event::AllDrained), []);
    assert_eq!(bench.complete(350, 1).len(), 1, "the other one goes on");
    assert_eq!(bench.complete(400, 2)[1..], [Effect::Begin]);
    bench.begun(3, true);
    assert_eq!(bench.at(2_000, Event::Tick), []);
}

#[test]
fn at_least_once_takes_one_at_a_time() {
    let mut bench = concurrent();
    bench.coordinator.config.mode = thalweg_common::config::CheckpointMode::AtLeastOnce;
    bench.begin(100, 1);
    assert_eq!(bench.at(900, Event::Tick), []);
}

/// Takes the savepoint that was asked for, to the commit.
fn take(bench: &mut Bench, id: CheckpointId, is_final: bool) -> Vec<Effect> {
    let timestamp_ms = WALL + bench.now_ms as i64;
    let trigger = Effect::Trigger { checkpoint_id: id, is_final, is_savepoint: true, timestamp_ms };
    assert_eq!(bench.now(Event::Begun(id)), [trigger]);
    assert_eq!(bench.acknowledge(id, 0), []);
    assert!(matches!(&bench.acknowledge(id, 1)[..], [Effect::Write(pending)] if pending.is_savepoint));
    let effects = bench.now(Event::Written(id, Ok("uri".into())));
    assert!(matches!(&effects[..], [Effect::Complete { pending, path: Some(_) }] if pending.is_savepoint));
    bench.now(Event::Committed(id))
}

#[test]
fn a_savepoint_is_taken_at_once_and_nobody_hears_of_its_completion() {
    for interval_ms in [None, Some(1_000)] {
        let mut bench = Bench::new(CheckpointConfig { interval_ms, ..config() });
        assert_eq!(bench.at(10, Event::Savepoint(SavepointMode::Continue)), [Effect::Begin]);
        assert_eq!(take(&mut bench, 1, false), []);
        assert!(!bench.coordinator.is_finished());
        if interval_ms.is_some() {
            assert_eq!(bench.coordinator.deadline(), Some(1_000), "checkpoints keep their interval");
        }
    }
}

#[test]
fn a_savepoint_waits_for_the_checkpoint_in_progress_and_holds_up_the_next_one() {
    let mut bench = Bench::new(CheckpointConfig { max_concurrent: 3, ..config() });
    bench.begin(1_000, 1);
    assert_eq!(bench.at(1_100, Event::Savepoint(SavepointMode::Continue)), []);
    assert_eq!(bench.coordinator.deadline(), Some(1_500), "only the timeout of the first");
    let effects = bench.complete(1_200, 1);
    assert_eq!(effects, [Effect::Completed { checkpoint_id: 1, is_final: false }, Effect::Begin]);
    let timestamp_ms = WALL + 1_200;
    let trigger = Effect::Trigger { checkpoint_id: 2, is_final: false, is_savepoint: true, timestamp_ms };
    assert_eq!(bench.now(Event::Begun(2)), [trigger]);
    assert_eq!(bench.at(1_600, Event::Tick), [], "no checkpoint beside it");
    let (id, reason) = (2, "disk full".to_string());
    let effects = bench.now(Event::Declined { checkpoint_id: id, reason });
    assert_eq!(aborted(&effects), (2, "disk full"));
    assert_eq!(effects.len(), 1, "a savepoint that fails does not fail the job");
}

#[test]
fn behind_the_savepoint_of_a_stop_nothing_begins_unless_it_fails() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.at(10, Event::Savepoint(SavepointMode::Stop)), [Effect::Begin]);
    assert_eq!(take(&mut bench, 1, true), [Effect::Completed { checkpoint_id: 1, is_final: true }]);
    assert!(bench.coordinator.is_finished());
    assert_eq!(bench.coordinator.deadline(), None);
    assert_eq!(bench.at(9_000, Event::Tick), []);

    let mut bench = Bench::new(config());
    assert_eq!(bench.at(10, Event::Savepoint(SavepointMode::Stop)), [Effect::Begin]);
    bench.now(Event::Begun(1));
    assert_eq!(aborted(&bench.at(510, Event::Tick)).0, 1, "it timed out");
    bench.begin(1_000, 2);
}

#[test]
fn a_drain_takes_its_savepoint_when_all_are_drained() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.at(10, Event::Savepoint(SavepointMode::Drain)), []);
    bench.begin(1_000, 1);
    assert_eq!(bench.at(1_100, Event::AllDrained), [], "the checkpoint in progress comes first");
    let effects = bench.complete(1_200, 1);
    assert_eq!(effects.last(), Some(&Effect::Begin));
    assert_eq!(take(&mut bench, 2, true), [Effect::Completed { checkpoint_id: 2, is_final: true }]);
    assert!(bench.coordinator.is_finished());
}

#[test]
fn a_savepoint_that_the_log_refuses_is_told() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.at(10, Event::Savepoint(SavepointMode::Continue)), [Effect::Begin]);
    assert!(matches!(&bench.now(Event::BeginRefused)[..], [Effect::SavepointRefused(_)]));
    bench.begin(1_000, 1);
}

proptest! {
    /// Whatever happens in whatever order: never too many, completion only after the commit, nothing older is left behind
    /// one that completed, nothing after the final one.
    #[test]
    fn every_sequence_of_events_keeps_the_invariants(
        events in proptest::collection::vec((any_event(), 0u64..400), 0..200),
        enabled in any::<bool>(),
        max_concurrent in 1u32..4,
    ) {
        let interval_ms = enabled.then_some(300);
        let config = CheckpointConfig { interval_ms, tolerable_failures: 1_000, max_concurrent, ..config() };
        let mut bench = Bench::new(config);
        let (mut asked, mut open, mut proposed) = (false, BTreeSet::new(), BTreeSet::new());
        let mut begun = BTreeSet::new();
        for (event, pause_ms) in events {
            // The log hands out each id once, in order.
            if let Event::Begun(id) = event && begun.last().is_some_and(|last| id <= *last) {
                continue;
            }
            let (was_finished, happened) = (bench.coordinator.is_finished(), event.clone());
            asked &= event != Event::BeginRefused;
            for effect in bench.at(bench.now_ms + pause_ms, event) {
                prop_assert!(!was_finished, "{effect:?} after the final checkpoint");
                match effect {
                    Effect::Begin => {
                        prop_assert!(!asked && open.len() < max_concurrent as usize);
                        asked = true;
                    }
                    Effect::Trigger { checkpoint_id, is_final, .. } => {
                        prop_assert!(asked && (open.is_empty() || !is_final));
                        asked = false;
                        prop_assert!(open.insert(checkpoint_id) && begun.insert(checkpoint_id));
                    }
                    Effect::Write(pending) => {
                        prop_assert!(open.contains(&pending.checkpoint_id));
                        prop_assert_eq!(pending.parts.len(), 2);
                    }
                    Effect::Complete { pending, .. } => {
                        prop_assert!(open.contains(&pending.checkpoint_id));
                        prop_assert!(proposed.insert(pending.checkpoint_id));
                    }
                    Effect::Completed { checkpoint_id, .. } => {
                        prop_assert!(proposed.remove(&checkpoint_id) && open.remove(&checkpoint_id));
                        prop_assert_eq!(&happened, &Event::Committed(checkpoint_id));
                    }
                    Effect::Aborted { pending, .. } => {
                        prop_assert!(open.remove(&pending.checkpoint_id));
                        proposed.remove(&pending.checkpoint_id);
                    }
                    Effect::Fail(_) | Effect::SavepointRefused(_) => {}
                }
            }
            if let Event::Committed(id) = happened && bench.coordinator.newest_completed == id {
                prop_assert!(open.range(..id).all(|older| proposed.contains(older)), "left behind");
            }
            prop_assert_eq!(bench.in_progress(), open.iter().copied().collect::<Vec<_>>());
        }
    }
}
