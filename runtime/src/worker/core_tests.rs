//! Commands and reports, and what a worker makes of them.

use super::*;

const FINGERPRINT: u64 = 7;
const REGION: RegionId = 5;
const A: SubtaskId = SubtaskId { vertex: 0, index: 0 };
const B: SubtaskId = SubtaskId { vertex: 1, index: 0 };

/// All but B are sources.
fn role(subtask: SubtaskId) -> Role {
    if subtask == B { Role::Inner } else { Role::Source }
}

fn deployment(attempt: Attempt) -> Deployment {
    deployment_of(REGION, attempt, &[A, B])
}

fn deployment_of(region: RegionId, attempt: Attempt, tasks: &[SubtaskId]) -> Deployment {
    Deployment {
        region,
        attempt,
        tasks: tasks.iter().map(|subtask| (*subtask, Vec::new())).collect(),
        remote: std::sync::Arc::default(),
        checkpoint_directory: None,
        restore_directory: None,
        savepoint: None,
    }
}

fn deploy(attempt: Attempt) -> Command {
    deploy_all(vec![deployment(attempt)])
}

fn deploy_all(deployments: Vec<Deployment>) -> Command {
    Command::Deploy { plan_fingerprint: FINGERPRINT, deployments }
}

fn stopped(attempt: Attempt) -> Action {
    Action::ReportStopped(attempt, vec![REGION])
}

fn report(attempt: Attempt, subtask: SubtaskId, news: News) -> Report {
    Report { attempt, subtask, news }
}

/// A worker whose tasks of this attempt run; A is a source.
fn running(attempt: Attempt) -> WorkerCore {
    let mut core = WorkerCore::new(FINGERPRINT);
    assert_eq!(core.on_command(deploy(attempt)), [Action::Start(deployment(attempt))]);
    core.started(&deployment(attempt), role);
    for subtask in [A, B] {
        let actions = core.on_report(report(attempt, subtask, News::Status(TaskStatus::Running)));
        assert_eq!(actions, [Action::ReportStatus(subtask, TaskStatus::Running, None)]);
    }
    core
}

fn cancel(attempt: Attempt) -> Command {
    Command::Cancel { attempt, regions: vec![REGION] }
}

/// Both tasks end; the actions at the end of the second one.
fn both_end(core: &mut WorkerCore, attempt: Attempt) -> Vec<Action> {
    assert_eq!(core.on_report(report(attempt, B, News::Gone)), []);
    core.on_report(report(attempt, A, News::Gone))
}

fn is_ignored(actions: &[Action]) -> bool {
    matches!(actions, [Action::Ignore(_)])
}

#[test]
fn a_cancelled_attempt_is_stopped_when_its_last_task_has_ended() {
    let mut core = running(1);
    assert_eq!(core.on_command(cancel(1)), [Action::CancelTasks(REGION)]);
    assert_eq!(core.on_command(cancel(1)), [], "once is enough");
    assert_eq!(both_end(&mut core, 1), [Action::EndAttempt(REGION, 1), stopped(1)]);
    assert_eq!(core.on_command(cancel(1)), [stopped(1)], "nothing runs: answered at once");
    assert!(is_ignored(&core.on_command(deploy(1))));
}

#[test]
fn a_cancellation_before_the_deployment_prevents_it() {
    let mut core = WorkerCore::new(FINGERPRINT);
    assert_eq!(core.on_command(cancel(3)), [stopped(3)]);
    for attempt in 1..=3 {
        assert!(is_ignored(&core.on_command(deploy(attempt))));
    }
    assert_eq!(core.on_command(deploy(4)), [Action::Start(deployment(4))]);
}

#[test]
fn a_newer_attempt_waits_for_the_older_one_to_end() {
    let mut core = running(1);
    assert_eq!(core.on_command(deploy(2)), [Action::CancelTasks(REGION)]);
    assert!(is_ignored(&core.on_command(deploy(2))));
    assert_eq!(both_end(&mut core, 1), [Action::EndAttempt(REGION, 1), Action::Start(deployment(2))]);
    core.started(&deployment(2), role);
    assert_eq!(core.attempt(A), 2);
    assert!(is_ignored(&core.on_command(deploy(1))));
    // What is left to do about the first attempt is done already.
    assert_eq!(core.on_command(cancel(1)), [stopped(1)]);
    let expected = [(2, A, TaskStatus::Deploying), (2, B, TaskStatus::Deploying)];
    assert_eq!(core.statuses().collect::<Vec<_>>(), expected);
}

#[test]
fn a_waiting_attempt_can_be_cancelled_or_replaced() {
    let mut core = running(1);
    core.on_command(deploy(2));
    assert_eq!(core.on_command(deploy(3)), []);
    assert_eq!(both_end(&mut core, 1), [Action::EndAttempt(REGION, 1), Action::Start(deployment(3))]);

    let mut core = running(1);
    core.on_command(deploy(2));
    assert_eq!(core.on_command(cancel(2)), []);
    assert_eq!(both_end(&mut core, 1), [Action::EndAttempt(REGION, 1), stopped(2)]);

    let mut core = running(1);
    core.on_command(deploy(2));
    assert_eq!(core.on_command(cancel(1)), []);
    let expected = [Action::EndAttempt(REGION, 1), stopped(1), Action::Start(deployment(2))];
    assert_eq!(both_end(&mut core, 1), expected);
}

#[test]
fn failures_are_reported_until_the_attempt_is_cancelled() {
    let failure = || Failure::user("x");
    let mut core = running(1);
    let actions = core.on_report(report(1, A, News::Failed(failure())));
    assert_eq!(actions, [Action::ReportStatus(A, TaskStatus::Failed, Some(failure()))]);
    core.on_command(cancel(1));
    let actions = core.on_report(report(1, B, News::Failed(failure())));
    assert_eq!(actions, [Action::ReportStatus(B, TaskStatus::Canceled, None)]);
    assert_eq!(
        core.statuses().collect::<Vec<_>>(),
        [(1, A, TaskStatus::Failed), (1, B, TaskStatus::Canceled)]
    );
}

fn taken(barrier: Barrier) -> TakenSnapshot {
    TakenSnapshot {
        barrier,
        snapshot: crate::snapshot::TaskSnapshot::default(),
        frozen: Vec::new(),
        in_flight: None,
        start_delay: std::time::Duration::ZERO,
        alignment: crate::event::Aligned::default(),
        sync: std::time::Duration::ZERO,
    }
}

#[test]
fn checkpoints_concern_the_running_attempt_only() {
    let barrier = Barrier { id: 5, timestamp_ms: 0, is_final: true, is_savepoint: false };
    let completed = |attempt| Command::Completed { attempt, checkpoint: 5, is_final: true };
    let mail = Mail::Completed { checkpoint: 5, is_final: true };
    let mut core = running(2);
    let actions = core.on_command(Command::Trigger { attempt: 2, barrier, savepoint_directory: None });
    assert_eq!(actions, [Action::Tell(A, Mail::Trigger(barrier))], "only sources are triggered");
    assert_eq!(core.on_command(completed(2)), [Action::Tell(A, mail), Action::Tell(B, mail)]);
    let aborted = Command::Aborted { attempt: 2, checkpoint: 6 };
    assert_eq!(core.on_command(aborted).len(), 2);
    assert!(is_ignored(&core.on_command(Command::Trigger {
        attempt: 1,
        barrier,
        savepoint_directory: None
    })));
    assert!(is_ignored(&core.on_command(completed(1))), "it was restarted since");
    assert_eq!(
        core.on_command(completed(3)).len(),
        2,
        "another region was restarted since, this one goes on"
    );

    let taken = || taken(barrier);
    assert_eq!(core.on_report(report(2, B, News::Snapshot(taken()))), [Action::Store(B, taken())]);
    core.on_report(report(2, B, News::Status(TaskStatus::Finished)));
    core.on_report(report(2, B, News::Gone));
    assert_eq!(core.on_command(completed(2)), [Action::Tell(A, mail)], "who has ended gets no mail");
    core.on_command(cancel(2));
    assert!(is_ignored(&core.on_command(completed(2))));
    assert_eq!(core.on_report(report(2, A, News::Snapshot(taken()))), []);
}

#[test]
fn a_part_of_a_savepoint_waits_for_its_directory_and_is_given_up_with_it() {
    let barrier = |id| Barrier { id, timestamp_ms: 0, is_final: false, is_savepoint: true };
    let taken = |id| taken(barrier(id));
    let mut core = running(2);
    for id in [5, 6] {
        assert_eq!(core.on_report(report(2, B, News::Snapshot(taken(id)))), []);
    }
    let given_up = core.on_command(Command::Aborted { attempt: 2, checkpoint: 5 });
    assert_eq!(given_up.last(), Some(&Action::GiveUp(B, taken(5))));
    let savepoint_directory = Some("there".to_string());
    let trigger = Command::Trigger { attempt: 2, barrier: barrier(6), savepoint_directory };
    let write = |subtask| Action::WriteSavepoint(subtask, taken(6), "there".into());
    assert_eq!(core.on_command(trigger), [write(B), Action::Tell(A, Mail::Trigger(barrier(6)))]);
    assert_eq!(core.on_report(report(2, A, News::Snapshot(taken(6)))), [write(A)]);
    assert_eq!(core.on_command(Command::Aborted { attempt: 2, checkpoint: 6 }).len(), 2, "only mail");
}

#[test]
fn a_task_that_does_not_read_its_mail_declines_or_fails() {
    let failure = || Failure::user("it hangs");
    let mut core = running(1);
    let trigger = Mail::Trigger(Barrier { id: 9, timestamp_ms: 0, is_final: false, is_savepoint: false });
    assert_eq!(core.on_mailbox_full(A, trigger, failure()), [Action::Decline(A, 9, failure())]);
    let completed = Mail::Completed { checkpoint: 9, is_final: false };
    let expected = [Action::ReportStatus(A, TaskStatus::Failed, Some(failure()))];
    assert_eq!(core.on_mailbox_full(A, completed, failure()), expected);
}

#[test]
fn another_plan_is_refused_for_good() {
    let mut core = WorkerCore::new(FINGERPRINT + 1);
    let actions = core.on_command(deploy(1));
    assert!(matches!(&actions[..], [Action::Fail(failure)] if !failure.retryable), "{actions:?}");
}

#[test]
fn stray_reports_are_ignored() {
    let mut core = running(2);
    let stranger = SubtaskId { vertex: 9, index: 9 };
    assert!(is_ignored(&core.on_report(report(1, A, News::Gone))));
    assert!(is_ignored(&core.on_report(report(2, stranger, News::Gone))));
}

const C: SubtaskId = SubtaskId { vertex: 2, index: 0 };
const OTHER: RegionId = 6;

/// A and B run, and C in a region of its own; all in attempt 1.
fn two_regions() -> WorkerCore {
    let mut core = WorkerCore::new(FINGERPRINT);
    let both = [deployment(1), deployment_of(OTHER, 1, &[C])];
    let started = both.clone().map(Action::Start);
    assert_eq!(core.on_command(deploy_all(both.to_vec())), started);
    both.iter().for_each(|deployment| core.started(deployment, role));
    core
}

#[test]
fn a_region_is_restarted_while_another_one_runs() {
    let mut core = two_regions();
    let mail = |checkpoint| Mail::Completed { checkpoint, is_final: false };
    let completed = |attempt, checkpoint| Command::Completed { attempt, checkpoint, is_final: false };
    assert_eq!(core.on_command(cancel(1)), [Action::CancelTasks(REGION)]);
    let told = core.on_command(completed(1, 3));
    assert!(
        told.contains(&Action::Tell(C, mail(3))) && told.len() == 2,
        "the other one hears of it: {told:?}"
    );
    assert_eq!(both_end(&mut core, 1), [Action::EndAttempt(REGION, 1), stopped(1)]);
    assert_eq!(core.on_command(deploy(2)), [Action::Start(deployment(2))]);
    core.started(&deployment(2), role);
    assert_eq!([A, B, C].map(|subtask| core.attempt(subtask)), [2, 2, 1]);
    // Each speaks for its own attempt.
    assert!(is_ignored(&core.on_report(report(1, A, News::Status(TaskStatus::Running)))));
    assert!(is_ignored(&core.on_report(report(2, C, News::Status(TaskStatus::Running)))));
    let running = core.on_report(report(1, C, News::Status(TaskStatus::Running)));
    assert_eq!(running, [Action::ReportStatus(C, TaskStatus::Running, None)]);
    // What an older attempt has completed concerns only who took part; what the newest says concerns all.
    let told = core.on_command(completed(1, 4));
    assert!(told.contains(&Action::Tell(C, mail(4))) && told.len() == 2, "{told:?}");
    assert_eq!(core.on_command(completed(2, 5)), [A, B, C].map(|subtask| Action::Tell(subtask, mail(5))));
}

#[test]
fn regions_stop_one_by_one_or_all_together() {
    let mut core = two_regions();
    let all = Command::Cancel { attempt: 1, regions: vec![] };
    assert_eq!(core.on_command(all), [Action::CancelTasks(REGION), Action::CancelTasks(OTHER)]);
    let last = core.on_report(report(1, C, News::Gone));
    assert_eq!(last, [Action::EndAttempt(OTHER, 1), Action::ReportStopped(1, vec![OTHER])]);
    assert_eq!(both_end(&mut core, 1), [Action::EndAttempt(REGION, 1), stopped(1)]);
    let mut empty = WorkerCore::new(FINGERPRINT);
    let all = Command::Cancel { attempt: 1, regions: vec![] };
    assert_eq!(empty.on_command(all), [Action::ReportStopped(1, vec![])], "there is nothing");
}

#[test]
fn a_shutdown_ends_the_worker() {
    assert_eq!(running(1).on_command(Command::Shutdown), [Action::Shutdown]);
}
