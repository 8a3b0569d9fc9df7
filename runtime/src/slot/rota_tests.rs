//! Whose turn it is, as scripts and for any course of events.

use std::collections::BTreeMap;

use proptest::prelude::*;
use thalweg_common::status::TaskStatus;

use super::*;

const IDLE: Turn = Turn::Parked { wait: Wait::Input, timeout: None };
const FULL: Turn = Turn::Parked { wait: Wait::Room, timeout: None };
const DONE: Turn = Turn::Done(TaskStatus::Finished);

fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

fn idle_for(time: u64) -> Turn {
    Turn::Parked { wait: Wait::Input, timeout: Some(ms(time)) }
}

/// A slot whose seats are all taken.
fn full(seats: usize) -> Rota {
    let mut rota = Rota::new(seats);
    (0..seats).for_each(|seat| rota.seated(seat, ms(0)));
    rota
}

#[test]
fn a_round_goes_through_the_ready_tasks_in_order() {
    let mut rota = full(3);
    for seat in [0, 1, 2, 0, 1, 2] {
        assert_eq!(rota.next(ms(0)), Next::Run(seat));
        rota.turned(seat, Turn::Ready, ms(0));
    }
    assert_eq!(rota.next(ms(0)), Next::Run(0));
    rota.turned(0, Turn::Ready, ms(0));
    rota.turned(1, IDLE, ms(0));
    assert_eq!(rota.next(ms(0)), Next::Run(2), "who is parked is left out");
}

#[test]
fn who_is_called_by_a_task_before_it_has_its_turn_in_the_same_round() {
    let mut rota = full(3);
    for seat in [1, 2] {
        rota.turned(seat, IDLE, ms(0));
    }
    assert_eq!(rota.next(ms(0)), Next::Run(0));
    rota.turned(0, Turn::Ready, ms(0));
    rota.called(1, ms(0));
    assert_eq!(rota.next(ms(0)), Next::Run(1));
    rota.turned(1, IDLE, ms(0));
    rota.called(2, ms(0));
    assert_eq!(rota.next(ms(0)), Next::Run(2));
    rota.turned(2, IDLE, ms(0));
    assert_eq!(rota.next(ms(0)), Next::Run(0));
}

#[test]
fn the_thread_rests_until_the_earliest_timer() {
    let mut rota = full(3);
    assert_eq!(Rota::new(0).next(ms(0)), Next::Rest(None));
    rota.turned(0, idle_for(30), ms(1));
    rota.turned(1, idle_for(10), ms(2));
    rota.turned(2, FULL, ms(2));
    assert_eq!(rota.next(ms(2)), Next::Rest(Some(ms(12))));
    assert_eq!(rota.next(ms(12)), Next::Run(1));
    rota.turned(1, idle_for(10), ms(12));
    assert_eq!(rota.next(ms(12)), Next::Rest(Some(ms(22))));
    // Both timers are over; a call for one more.
    rota.called(2, ms(40));
    for seat in [2, 0, 1] {
        assert_eq!(rota.next(ms(40)), Next::Run(seat));
        rota.turned(seat, IDLE, ms(40));
    }
    assert_eq!(rota.next(ms(40)), Next::Rest(None));
    rota.turned(0, idle_for(u64::MAX), ms(40));
    assert!(matches!(rota.next(ms(41)), Next::Rest(Some(_))), "a timer far away is no problem");
}

#[test]
fn a_timer_ends_while_others_keep_the_thread_busy() {
    let mut rota = full(2);
    rota.turned(0, idle_for(5), ms(0));
    for now in 0..5 {
        assert_eq!(rota.next(ms(now)), Next::Run(1));
        rota.turned(1, Turn::Ready, ms(now));
    }
    assert_eq!(rota.next(ms(5)), Next::Run(0));
}

#[test]
fn a_seat_is_vacant_before_its_task_comes_and_after_it_has_ended() {
    let mut rota = Rota::new(2);
    rota.called(1, ms(0));
    assert_eq!(rota.next(ms(0)), Next::Rest(None));
    rota.seated(1, ms(7));
    assert_eq!(rota.next(ms(7)), Next::Run(1));
    assert_eq!(rota.turned(1, DONE, ms(9)), Spent { busy: ms(2), ..Spent::default() });
    rota.called(1, ms(9));
    assert_eq!(rota.next(ms(9)), Next::Rest(None));
    assert_eq!(rota.settle(1, ms(20)), Spent::default());
}

#[test]
fn time_is_busy_idle_or_back_pressured() {
    let mut rota = full(1);
    assert_eq!(rota.turned(0, IDLE, ms(3)), Spent { busy: ms(3), ..Spent::default() });
    assert_eq!(rota.settle(0, ms(5)), Spent { idle: ms(2), ..Spent::default() });
    rota.called(0, ms(6));
    rota.called(0, ms(7));
    // It waited for its turn until 8 and ran until 10.
    assert_eq!(rota.turned(0, FULL, ms(10)), Spent { idle: ms(1), busy: ms(4), ..Spent::default() });
    rota.called(0, ms(14));
    assert_eq!(rota.settle(0, ms(15)), Spent { back_pressured: ms(4), busy: ms(1), ..Spent::default() });
    assert_eq!(rota.turned(0, Turn::Ready, ms(16)), Spent { busy: ms(1), ..Spent::default() });
}

/// What happens in a slot.
#[derive(Debug, Clone)]
enum Happens {
    Call(usize),
    Passes(u64),
    /// The next task has its turn, which ends like this.
    Turn(Turn),
}

fn happens(seats: usize) -> impl Strategy<Value = Happens> {
    let turn = prop_oneof![
        6 => Just(Turn::Ready),
        2 => Just(IDLE),
        1 => Just(FULL),
        2 => (0u64..20).prop_map(idle_for),
    ];
    prop_oneof![
        1 => (0..seats).prop_map(Happens::Call),
        1 => (0u64..10).prop_map(Happens::Passes),
        4 => turn.prop_map(Happens::Turn),
    ]
}

proptest! {
    #[test]
    fn nobody_starves_nobody_runs_in_vain_and_all_time_is_accounted(
        (seats, course) in (1usize..150).prop_flat_map(|seats| {
            (Just(seats), proptest::collection::vec(happens(seats), 1..400))
        }),
    ) {
        let mut rota = full(seats);
        let mut now = 0;
        // The model: the turns of others that each ready task has seen, and the timers of the parked ones.
        let mut ready: BTreeMap<usize, usize> = (0..seats).map(|seat| (seat, 0)).collect();
        let mut timers: BTreeMap<usize, u64> = BTreeMap::new();
        let mut accounted = vec![Duration::ZERO; seats];
        for event in course {
            match event {
                Happens::Call(seat) => {
                    rota.called(seat, ms(now));
                    timers.remove(&seat);
                    ready.entry(seat).or_insert(0);
                }
                Happens::Passes(time) => now += time,
                Happens::Turn(turn) => {
                    let due: Vec<usize> =
                        timers.iter().filter(|(_, until)| **until <= now).map(|(seat, _)| *seat).collect();
                    for seat in due {
                        timers.remove(&seat);
                        ready.insert(seat, 0);
                    }
                    match rota.next(ms(now)) {
                        Next::Run(seat) => {
                            prop_assert!(ready.remove(&seat).is_some(), "{seat} has nothing to do");
                            for passed in ready.values_mut() {
                                *passed += 1;
                                prop_assert!(*passed <= seats, "a task starves");
                            }
                            let spent = rota.turned(seat, turn, ms(now));
                            accounted[seat] += spent.busy + spent.idle + spent.back_pressured;
                            match turn {
                                Turn::Ready => drop(ready.insert(seat, 0)),
                                Turn::Parked { timeout: Some(timeout), .. } => {
                                    timers.insert(seat, now + timeout.as_millis() as u64);
                                }
                                _ => {}
                            }
                        }
                        Next::Rest(until) => {
                            prop_assert!(ready.is_empty(), "{ready:?} are ready");
                            let earliest = timers.values().min().map(|until| ms(*until));
                            // It may be too early, when the task of a timer was called meanwhile, and never too late.
                            prop_assert!(earliest.is_none_or(|earliest| until.is_some_and(|until| until <= earliest)));
                            now = until.map_or(now, |until| now.max(until.as_millis() as u64));
                        }
                    }
                }
            }
        }
        for (seat, accounted) in accounted.iter_mut().enumerate() {
            let spent = rota.settle(seat, ms(now));
            prop_assert_eq!(*accounted + spent.busy + spent.idle + spent.back_pressured, ms(now));
        }
    }
}
