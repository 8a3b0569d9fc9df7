//! Random histories: task managers come and go, tasks do anything, commands are applied late, leaders change. Whatever
//! happens, the log accepts what the core proposes, and a job that is then left in peace comes to its end.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Happening {
    Time(u64),
    Lose(&'static str),
    Register(&'static str),
    Ready,
    Tasks(&'static str, TaskStatus),
    Stopped(&'static str),
    WorkerLost(&'static str),
    Acknowledge,
    Apply,
    Hold(bool),
    Cancel,
    Rescale(u32),
    NewLeader,
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let name = || prop_oneof![Just("a"), Just("b")];
    let status = prop_oneof![
        6 => Just(TaskStatus::Running),
        4 => Just(TaskStatus::Drained),
        2 => Just(TaskStatus::Finished),
        1 => Just(TaskStatus::Failed),
        1 => Just(TaskStatus::Canceled),
    ];
    prop_oneof![
        4 => (1u64..1_500).prop_map(Happening::Time),
        1 => name().prop_map(Happening::Lose),
        2 => name().prop_map(Happening::Register),
        6 => Just(Happening::Ready),
        8 => (name(), status).prop_map(|(name, status)| Happening::Tasks(name, status)),
        4 => name().prop_map(Happening::Stopped),
        1 => name().prop_map(Happening::WorkerLost),
        4 => Just(Happening::Acknowledge),
        3 => Just(Happening::Apply),
        1 => any::<bool>().prop_map(Happening::Hold),
        1 => prop_oneof![9 => Just(Happening::Apply), 1 => Just(Happening::Cancel)],
        2 => (1u32..6).prop_map(Happening::Rescale),
        1 => Just(Happening::NewLeader),
    ]
}

fn happen(mut bench: Bench, happening: Happening) -> Bench {
    let attempt = bench.attempt();
    match happening {
        Happening::Time(by_ms) => bench.advance(by_ms),
        Happening::Lose(name) => bench.lose(name),
        Happening::Register(name) if !bench.registered.contains(&tm(name)) => bench.register(name),
        Happening::Register(_) => {}
        Happening::Ready => bench.workers_ready(),
        Happening::Tasks(name, status) => {
            let tasks: Vec<_> =
                bench.core.tasks().filter(|(_, on, _)| on.0 == name).map(|(subtask, ..)| subtask).collect();
            for subtask in tasks {
                bench.task(name, subtask, status);
            }
        }
        Happening::Stopped(name) => bench.stop_tasks_on(name),
        Happening::WorkerLost(name) => bench.report(name, attempt, worker_lost(name, failure("signal 9"))),
        Happening::Acknowledge => {
            let id = bench.record().last_checkpoint_id;
            bench.acknowledge_all(id);
        }
        Happening::Apply => bench.apply_log(),
        Happening::Hold(hold) => bench.hold_log = hold,
        Happening::Cancel => bench.step(Input::Cancel),
        Happening::Rescale(parallelism) => bench.rescale(parallelism),
        Happening::NewLeader => {
            // What the old leader had not committed is lost.
            bench = bench.new_leader();
        }
    }
    bench
}

/// Everybody behaves: time passes, what is asked for is done.
fn settle(bench: &mut Bench) {
    bench.hold_log = false;
    bench.apply_log();
    for round in 0..60 {
        if bench.status().is_terminal() {
            return;
        }
        for name in ["a", "b"] {
            if !bench.registered.contains(&tm(name)) {
                bench.register(name);
            }
            bench.stop_tasks_on(name);
        }
        bench.workers_ready();
        bench.all_tasks(TaskStatus::Running);
        bench.all_tasks(TaskStatus::Drained);
        let id = bench.record().last_checkpoint_id;
        bench.acknowledge_all(id);
        if bench.core.may_finish() {
            bench.all_tasks(TaskStatus::Finished);
        }
        bench.advance(if round % 2 == 0 { 1_000 } else { 11_000 });
    }
    panic!("the job hangs: {:?}", bench.core);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_history_is_accepted_by_the_log_and_comes_to_an_end(
        happenings in proptest::collection::vec(any_happening(), 0..120),
        is_adaptive in any::<bool>(),
        has_splits in any::<bool>(),
    ) {
        let mut graph = if has_splits { graph_with_splits() } else { checkpointed_graph() };
        graph.restart_strategy = thalweg_common::config::RestartStrategy::FixedDelay {
            attempts: thalweg_common::config::RestartStrategy::UNLIMITED,
            delay_ms: 100,
        };
        let mut bench = match is_adaptive {
            true => Bench::adaptive(at(&graph, &[if has_splits { 4 } else { 2 }, 4]), &["a"]),
            false => Bench::submitted(graph, &["a", "b"]),
        };
        for happening in happenings {
            let before = (bench.record().attempt, bench.record().latest_checkpoint().map(|latest| latest.id));
            bench = happen(bench, happening);
            let record = bench.record();
            prop_assert!((record.attempt, record.latest_checkpoint().map(|latest| latest.id)) >= before);
            // What runs was restored from the newest checkpoint that existed when it started.
            prop_assert!(record.restored <= record.latest_checkpoint().map(|latest| latest.id));
        }
        settle(&mut bench);
        prop_assert!(bench.core.is_ended());
        prop_assert_eq!(bench.core.slots().count(), 0);
    }
}
