//! Regions of one job that are restarted one beside the other.

use super::*;

/// Each task in a region of its own, both in attempt 1, with the second one restarted as attempt 2.
fn with_a_restarted_region() -> Core {
    let mut core = with_ready_worker();
    let both = deploy_order_in(1, [(TASKS[0], 0), (TASKS[1], 1)]);
    assert_eq!(names(&order(&mut core, 1, 0, both)), ["deploy"]);
    assert_eq!(names(&cancel_in(&mut core, 1, [1])), ["cancel", "cancellation timer"]);
    assert_eq!(names(&report(&mut core, 1, stopped_in(1, [1]))), ["stopped 1"]);
    assert_eq!(start(&mut core, 2, 2), [ready(2, 1)]);
    assert_eq!(names(&order(&mut core, 1, 0, deploy_order_in(2, [(TASKS[1], 1)]))), ["deploy"]);
    core
}

#[test]
fn a_region_is_restarted_beside_another_one() {
    let mut core = with_a_restarted_region();
    for (attempt, task, expected) in [
        (1, TASKS[0], "status TASK_STATUS_RUNNING"),
        (2, TASKS[1], "status TASK_STATUS_RUNNING"),
        (2, TASKS[0], "warn"),
        (1, TASKS[1], "warn"),
    ] {
        let told = report(&mut core, 1, status(attempt, task, TaskStatus::Running));
        assert_eq!(names(&told), [expected], "{task} in attempt {attempt}");
    }
    let again = order(&mut core, 1, 0, deploy_order_in(2, [(TASKS[1], 1)]));
    assert_eq!(names(&again), ["warn"], "only once");
    let attempts = |running: Vec<v1::RunningTasks>| {
        running.iter().map(|running| (running.attempt, running.tasks.len())).collect::<Vec<_>>()
    };
    assert_eq!(attempts(registered_tasks(&mut core)), [(1, 1), (2, 1)]);
    let beats: Vec<_> = core.heartbeat().jobs.iter().map(|job| (job.attempt, job.tasks.len())).collect();
    assert_eq!(beats, [(1, 1), (2, 1)]);
    // What is said about a checkpoint carries the newest attempt, and the worker knows whom it concerns.
    let relay = Command::TriggerCheckpoint(v1::TriggerCheckpoint { attempt: 2, ..Default::default() });
    let told = order(&mut core, 1, 0, Order::Checkpoint { job: JOB, attempt: 2, relay });
    assert_eq!(names(&told), ["tell"]);
}

#[test]
fn each_cancellation_is_answered_when_its_own_regions_have_stopped() {
    let mut core = with_a_restarted_region();
    assert_eq!(names(&cancel_in(&mut core, 2, [7])), ["stopped 2"], "it has no such region");
    assert_eq!(names(&cancel_in(&mut core, 2, [1])), ["cancel", "cancellation timer"]);
    assert_eq!(cancel_in(&mut core, 2, [1]), [], "told once");
    assert_eq!(names(&cancel_in(&mut core, 2, [])), ["cancel", "cancellation timer"], "all of them now");
    let answered = report(&mut core, 1, stopped_in(2, [1]));
    let regions = |action: &Action| match action {
        Action::Send(ToLeader::TasksStopped(stopped)) => stopped.regions.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(answered.iter().map(regions).collect::<Vec<_>>(), [vec![1]]);
    // The first cancellation was answered in time, the second one was not.
    assert_eq!(core.step(Input::Timer(Timer::Cancellation(WorkerId(1), 2))), []);
    assert_eq!(names(&core.step(Input::Timer(Timer::Cancellation(WorkerId(1), 3)))), ["kill 1"]);
    let answered = exited(&mut core, 1);
    assert_eq!(names(&answered), ["warn", "lost 2", "stopped 2"]);
    assert_eq!(regions(&answered[2]), [0; 0], "as it was asked for");
}

#[test]
fn a_region_that_was_cancelled_is_deployed_with_the_next_attempt_only() {
    let mut core = with_ready_worker();
    assert_eq!(names(&cancel_in(&mut core, 1, [1])), ["stopped 1"]);
    assert_eq!(names(&order(&mut core, 1, 0, deploy_order_in(1, [(TASKS[1], 1)]))), ["warn"]);
    assert_eq!(
        names(&order(&mut core, 1, 0, deploy_order_in(1, [(TASKS[0], 0)]))),
        ["deploy"],
        "another one"
    );
    start(&mut core, 2, 2);
    assert_eq!(names(&order(&mut core, 1, 0, deploy_order_in(2, [(TASKS[1], 1)]))), ["deploy"]);
}
