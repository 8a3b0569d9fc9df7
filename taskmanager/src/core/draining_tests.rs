//! A task manager that is to stop.

use super::*;

#[test]
fn a_draining_task_manager_says_so_and_takes_no_more() {
    let mut core = with_tasks();
    assert_eq!(names(&core.step(Input::Drain)), ["draining"]);
    assert_eq!(names(&core.step(Input::Connecting)), ["register", "draining"]);
    assert!(core.runs_tasks());
    let actions = start(&mut core, 2, 2);
    assert_eq!(names(&actions), ["lost 2"]);
    assert!(lost(&actions).message.contains("being stopped"));
    cancel(&mut core, 1);
    report(&mut core, 1, stopped_in(1, []));
    assert!(!core.runs_tasks() && core.has_workers());
    assert_eq!(names(&core.step(Input::Stop)), ["shutdown", "exit timer"]);
    assert_eq!(names(&exited(&mut core, 1)), ["note"]);
    assert!(!core.has_workers());
}

#[test]
fn tasks_that_have_ended_do_not_keep_it_from_draining() {
    let mut core = with_tasks();
    report(&mut core, 1, status(1, TASKS[0], TaskStatus::Finished));
    assert!(core.runs_tasks());
    report(&mut core, 1, status(1, TASKS[1], TaskStatus::Finished));
    assert!(!core.runs_tasks());
}
