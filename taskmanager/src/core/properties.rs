//! What holds whatever happens to a task manager.

use proptest::prelude::*;

use super::*;

/// Anything that can happen to a task manager with one job and a few workers.
fn anything() -> impl Strategy<Value = (u8, u32, u128)> {
    (0..14u8, 1..4u32, 1..5u128)
}

proptest! {
    /// Whatever happens: one worker at a time, none after it exited, and every cancellation is answered.
    #[test]
    fn one_worker_at_a_time_and_no_cancellation_unanswered(steps in prop::collection::vec(anything(), 1..60)) {
        let mut core = core();
        let mut living: Option<u128> = None;
        let mut next = 100;
        let mut unanswered: Option<Attempt> = None;
        for (kind, attempt, worker) in steps {
            let worker = if worker < 4 { living.unwrap_or(worker) } else { worker };
            next += 1;
            let actions = match kind {
                0 | 1 => start(&mut core, attempt, next),
                2 | 3 => core.step(Input::Attach(hello(worker))),
                4 | 5 => deploy(&mut core, attempt),
                6 => cancel(&mut core, attempt),
                7 => report(&mut core, worker, stopped_in(attempt, [])),
                8 => core.step(Input::Detached(WorkerId(worker))),
                9 => { if living == Some(worker) { living = None; } exited(&mut core, worker) }
                10 => core.step(Input::Timer(Timer::Exit(WorkerId(worker)))),
                11 => stop_worker(&mut core),
                12 => core.step(Input::Launched(WorkerId(worker))),
                _ => report(&mut core, worker, status(attempt, TASKS[0], TaskStatus::Running)),
            };
            if kind == 6 && names(&actions) != ["warn"] {
                unanswered = Some(attempt);
            }
            for action in &actions {
                match action {
                    Action::Launch { fresh, .. } => {
                        prop_assert_eq!(living, None, "a second worker is launched");
                        living = Some(fresh.worker.0);
                    }
                    Action::Tell { worker, .. } | Action::Kill { worker } => {
                        prop_assert_eq!(living, Some(worker.0), "a worker that is gone is spoken to");
                    }
                    Action::Send(ToLeader::TasksStopped(stopped)) => {
                        unanswered = unanswered.filter(|attempt| *attempt > stopped.attempt);
                    }
                    _ => {}
                }
            }
        }
        if let Some(worker) = living {
            for action in exited(&mut core, worker) {
                if let Action::Send(ToLeader::TasksStopped(stopped)) = action {
                    unanswered = unanswered.filter(|attempt| *attempt > stopped.attempt);
                }
            }
        }
        prop_assert_eq!(unanswered, None, "a cancellation was never answered");
    }
}
