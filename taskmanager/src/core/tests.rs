//! What the core decides, case by case, and what holds whatever happens.

use thalweg_common::id::SubtaskId;
use thalweg_common::properties::RuntimeProperties;
use thalweg_common::status::TaskStatus;

use super::*;
use crate::messages::WorkerProgram;

const JOB: JobId = JobId(7);
const ATTACH: Duration = Duration::from_secs(10);
const EXIT: Duration = Duration::from_millis(500);
const CANCELLATION: Duration = Duration::from_secs(3);
const FINGERPRINT: u64 = 99;

fn core() -> Core {
    let identity = Identity {
        id: TaskManagerId("tm-1".into()),
        host: "10.0.0.5".into(),
        slots: 2,
        labels: vec!["ssd".into()],
    };
    Core::new(identity, Patience { attach: ATTACH, exit: EXIT })
}

fn fresh(number: u128) -> Fresh {
    Fresh { worker: WorkerId(number), token: token(number) }
}

/// Each worker number has one token, so that tests can name it again.
fn token(number: u128) -> Token {
    let mut wire = v1::WorkerHello { data_port: 1, ..Default::default() };
    wire.job_id = JOB.to_wire();
    wire.worker_id = WorkerId(number).to_wire();
    wire.token = [number.to_be_bytes(), number.to_be_bytes()].concat().into();
    Hello::try_from(wire).expect("is right").token
}

fn hello(worker: u128) -> Hello {
    Hello {
        job: JOB,
        worker: WorkerId(worker),
        token: token(worker),
        process_id: 4711,
        data_port: 6000,
        plan_fingerprint: FINGERPRINT,
    }
}

fn request(attempt: Attempt) -> StartRequest {
    StartRequest {
        job: JOB,
        attempt,
        program: WorkerProgram {
            binary: None,
            arguments: vec!["--fast".into()],
            properties: RuntimeProperties::default(),
            configuration: BTreeMap::new(),
            plan_fingerprint: FINGERPRINT,
        },
        cancellation_timeout: CANCELLATION,
    }
}

/// The leader of `term` gives an order; a worker that is launched for it is number `worker`.
fn order(core: &mut Core, term: Term, worker: u128, order: Order) -> Vec<Action> {
    core.step(Input::Leader { message: LeaderMessage { term, order }, fresh: fresh(worker) })
}

fn start(core: &mut Core, attempt: Attempt, worker: u128) -> Vec<Action> {
    order(core, 1, worker, Order::StartWorker(request(attempt)))
}

fn cancel(core: &mut Core, attempt: Attempt) -> Vec<Action> {
    cancel_in(core, attempt, [])
}

/// In these regions.
fn cancel_in<const N: usize>(core: &mut Core, attempt: Attempt, regions: [RegionId; N]) -> Vec<Action> {
    order(core, 1, 0, Order::Cancel { job: JOB, attempt, regions: regions.into() })
}

/// The tasks of these regions have ended; those of all if there are none.
fn stopped_in<const N: usize>(attempt: Attempt, regions: [RegionId; N]) -> Report {
    Report::Stopped { attempt, regions: regions.into() }
}

fn stop_worker(core: &mut Core) -> Vec<Action> {
    order(core, 1, 0, Order::StopWorker { job: JOB })
}

const TASKS: [SubtaskId; 2] = [SubtaskId { vertex: 0, index: 0 }, SubtaskId { vertex: 1, index: 0 }];

fn deploy_order(attempt: Attempt) -> Order {
    deploy_order_in(attempt, TASKS.map(|task| (task, 0)))
}

/// Tasks with their regions.
fn deploy_order_in<const N: usize>(attempt: Attempt, tasks: [(SubtaskId, RegionId); N]) -> Order {
    let relay = v1::DeployTasks { job_id: JOB.to_wire(), attempt, ..Default::default() };
    Order::Deploy { job: JOB, attempt, tasks: tasks.into(), relay }
}

fn deploy(core: &mut Core, attempt: Attempt) -> Vec<Action> {
    order(core, 1, 0, deploy_order(attempt))
}

fn exited(core: &mut Core, worker: u128) -> Vec<Action> {
    let failure = Failure::user("exited with status 3").with_details("boom");
    core.step(Input::Exited { worker: WorkerId(worker), failure })
}

fn report(core: &mut Core, worker: u128, report: Report) -> Vec<Action> {
    core.step(Input::Report { worker: WorkerId(worker), report })
}

fn status(attempt: Attempt, subtask: SubtaskId, status: TaskStatus) -> Report {
    let relay = v1::TaskStatusChanged {
        job_id: JOB.to_wire(),
        attempt,
        subtask: Some(subtask.into()),
        status: v1::TaskStatus::from(status).into(),
        failure: (status == TaskStatus::Failed).then(|| Failure::user("bad record").into()),
        counters: None,
    };
    Report::Status { attempt, subtask, status, relay }
}

/// A core with one attached worker, number 1, that is ready for attempt 1.
fn with_ready_worker() -> Core {
    let mut core = core();
    assert_eq!(start(&mut core, 1, 1), [Action::Launch { fresh: fresh(1), request: request(1) }]);
    let timer = Timer::Attach(WorkerId(1));
    assert_eq!(core.step(Input::Launched(WorkerId(1))), [Action::StartTimer { timer, after: ATTACH }]);
    let actions = core.step(Input::Attach(hello(1)));
    assert_eq!(actions.first(), Some(&Action::Accept));
    assert_eq!(actions.last(), Some(&ready(1, 1)));
    core
}

/// The same, with tasks of attempt 1.
fn with_tasks() -> Core {
    let mut core = with_ready_worker();
    assert!(matches!(deploy(&mut core, 1)[..], [Action::Tell { command: Command::DeployTasks(_), .. }]));
    for subtask in TASKS {
        assert_eq!(report(&mut core, 1, status(1, subtask, TaskStatus::Running)).len(), 1);
    }
    core
}

fn ready(attempt: Attempt, worker: u128) -> Action {
    Action::Send(ToLeader::WorkerReady(v1::WorkerReady {
        job_id: JOB.to_wire(),
        attempt,
        worker_id: WorkerId(worker).to_wire(),
        data_address: "10.0.0.5:6000".into(),
    }))
}

/// What actions are about, in short.
fn names(actions: &[Action]) -> Vec<String> {
    actions
        .iter()
        .map(|action| match action {
            Action::Send(ToLeader::Register(_)) => "register".to_string(),
            Action::Send(ToLeader::WorkerReady(ready)) => format!("ready {}", ready.attempt),
            Action::Send(ToLeader::WorkerLost(lost)) => format!("lost {}", lost.attempt),
            Action::Send(ToLeader::TasksStopped(stopped)) => format!("stopped {}", stopped.attempt),
            Action::Send(ToLeader::TaskStatusChanged(changed)) => {
                format!("status {}", changed.status().as_str_name())
            }
            Action::Send(ToLeader::Draining(_)) => "draining".to_string(),
            Action::Send(_) => "send".to_string(),
            Action::Launch { fresh, .. } => format!("launch {}", fresh.worker.0),
            Action::Prefetch { .. } => "prefetch".to_string(),
            Action::Tell { command: Command::DeployTasks(_), .. } => "deploy".to_string(),
            Action::Tell { command: Command::CancelTasks(_), .. } => "cancel".to_string(),
            Action::Tell { command: Command::Shutdown(_), .. } => "shutdown".to_string(),
            Action::Tell { .. } => "tell".to_string(),
            Action::Kill { worker } => format!("kill {}", worker.0),
            Action::StartTimer { timer: Timer::Attach(_), .. } => "attach timer".to_string(),
            Action::StartTimer { timer: Timer::Exit(_), .. } => "exit timer".to_string(),
            Action::StartTimer { timer: Timer::Cancellation(..), .. } => "cancellation timer".to_string(),
            Action::Accept => "accept".to_string(),
            Action::Refuse(_) => "refuse".to_string(),
            Action::ReadLogs { .. } => "logs".to_string(),
            Action::Registered => "registered".to_string(),
            Action::Leave => "leave".to_string(),
            Action::Warn(_) => "warn".to_string(),
            Action::Note(_) => "note".to_string(),
        })
        .collect()
}

fn lost(actions: &[Action]) -> Failure {
    let lost = actions.iter().find_map(|action| match action {
        Action::Send(ToLeader::WorkerLost(lost)) => lost.failure.clone(),
        _ => None,
    });
    lost.expect("a worker is lost").try_into().expect("a failure")
}

fn registered_tasks(core: &mut Core) -> Vec<v1::RunningTasks> {
    match core.step(Input::Connecting).into_iter().next() {
        Some(Action::Send(ToLeader::Register(register))) => register.running,
        other => panic!("{other:?} instead of a registration"),
    }
}

#[test]
fn a_healthy_worker_is_reused_for_the_next_attempt() {
    let mut core = with_tasks();
    assert_eq!(names(&cancel(&mut core, 1)), ["cancel", "cancellation timer"]);
    assert_eq!(names(&report(&mut core, 1, stopped_in(1, []))), ["stopped 1"]);
    assert_eq!(start(&mut core, 2, 2), [ready(2, 1)]);
    assert_eq!(names(&deploy(&mut core, 2)), ["deploy"]);
}

#[test]
fn a_worker_that_is_being_started_serves_the_latest_attempt() {
    let mut core = core();
    start(&mut core, 1, 1);
    assert_eq!(start(&mut core, 2, 2), []);
    assert_eq!(
        core.step(Input::Attach(hello(1))).last(),
        Some(&ready(2, 1)),
        "even before its launch was noticed"
    );
    assert_eq!(core.step(Input::Launched(WorkerId(1))), [], "and then it has nothing to wait for");
}

#[test]
fn another_program_needs_another_worker() {
    let mut core = with_ready_worker();
    let mut other = request(2);
    other.program.plan_fingerprint = 100;
    let actions = order(&mut core, 1, 2, Order::StartWorker(other));
    assert_eq!(names(&actions), ["shutdown", "exit timer"]);
    assert_eq!(names(&exited(&mut core, 1)), ["note", "launch 2"]);
}

#[test]
fn stale_attempts_are_refused() {
    let mut core = with_ready_worker();
    start(&mut core, 3, 2);
    for attempt in [1, 2] {
        assert_eq!(names(&start(&mut core, attempt, 3)), ["warn"]);
        assert_eq!(names(&cancel(&mut core, attempt)), ["warn"]);
        assert_eq!(names(&deploy(&mut core, attempt)), ["warn"]);
    }
    assert_eq!(names(&deploy(&mut core, 4)), ["warn"], "nobody asked for a worker for it");
    assert_eq!(names(&deploy(&mut core, 3)), ["deploy"]);
    assert_eq!(names(&deploy(&mut core, 3)), ["warn"], "only once");
    for attempt in [2, 4] {
        assert_eq!(names(&report(&mut core, 1, status(attempt, TASKS[0], TaskStatus::Running))), ["warn"]);
        let relay =
            ToLeader::CheckpointAcknowledged(v1::CheckpointAcknowledged { attempt, ..Default::default() });
        assert_eq!(names(&report(&mut core, 1, Report::Checkpoint { attempt, relay })), ["warn"]);
    }
    let relay = Command::TriggerCheckpoint(v1::TriggerCheckpoint { attempt: 2, ..Default::default() });
    assert_eq!(names(&order(&mut core, 1, 0, Order::Checkpoint { job: JOB, attempt: 2, relay })), ["warn"]);
}

#[test]
fn messages_of_lower_terms_are_refused() {
    let mut core = with_ready_worker();
    assert_eq!(names(&order(&mut core, 5, 0, Order::Registered)), ["registered"]);
    for message in [
        Order::StartWorker(request(9)),
        Order::Cancel { job: JOB, attempt: 9, regions: BTreeSet::new() },
        deploy_order(1),
    ] {
        assert_eq!(names(&order(&mut core, 4, 2, message)), ["warn"]);
    }
    assert_eq!(names(&order(&mut core, 4, 0, Order::Registered)), ["warn", "leave"]);
    assert_eq!(names(&order(&mut core, 5, 0, deploy_order(1))), ["deploy"], "nothing has changed");
}

#[test]
fn checkpoint_messages_pass_both_ways() {
    let mut core = with_tasks();
    let relay = Command::TriggerCheckpoint(v1::TriggerCheckpoint { attempt: 1, ..Default::default() });
    let actions = order(&mut core, 1, 0, Order::Checkpoint { job: JOB, attempt: 1, relay: relay.clone() });
    assert_eq!(actions, [Action::Tell { worker: WorkerId(1), command: relay }]);
    let relay = ToLeader::CheckpointDeclined(v1::CheckpointDeclined { attempt: 1, ..Default::default() });
    let actions = report(&mut core, 1, Report::Checkpoint { attempt: 1, relay: relay.clone() });
    assert_eq!(actions, [Action::Send(relay)]);
}

#[test]
fn a_lost_worker_is_reported_with_its_exit() {
    let mut core = with_tasks();
    let actions = exited(&mut core, 1);
    assert_eq!(names(&actions), ["warn", "lost 1"]);
    assert_eq!(lost(&actions), Failure::user("exited with status 3").with_details("boom"));
    assert_eq!(names(&start(&mut core, 2, 2)), ["launch 2"]);
    assert_eq!(exited(&mut core, 1), [], "its end is told once");
}

#[test]
fn a_worker_lost_while_its_tasks_are_cancelled_has_stopped_them() {
    let mut core = with_tasks();
    cancel(&mut core, 1);
    assert_eq!(names(&exited(&mut core, 1)), ["warn", "lost 1", "stopped 1"]);
    assert_eq!(names(&cancel(&mut core, 1)), ["stopped 1"], "and says so again when asked again");
}

#[test]
fn nothing_to_cancel_is_stopped_at_once() {
    assert_eq!(names(&cancel(&mut core(), 1)), ["stopped 1"], "no such job");
    assert_eq!(names(&cancel(&mut with_ready_worker(), 1)), ["stopped 1"], "no tasks");
    let mut core = core();
    start(&mut core, 1, 1);
    assert_eq!(names(&cancel(&mut core, 1)), ["stopped 1"], "no worker yet");
    core.step(Input::Attach(hello(1)));
    assert_eq!(names(&deploy(&mut core, 1)), ["warn"], "what was cancelled is not deployed");
    assert_eq!(start(&mut core, 2, 2), [ready(2, 1)], "the worker is still good");
}

#[test]
fn a_worker_that_does_not_stop_its_tasks_is_killed() {
    let mut core = with_tasks();
    let timer = Timer::Cancellation(WorkerId(1), 1);
    assert!(cancel(&mut core, 1).contains(&Action::StartTimer { timer, after: CANCELLATION }));
    assert_eq!(cancel(&mut core, 1), [], "a leader that repeats itself gives no more time");
    assert_eq!(names(&core.step(Input::Timer(timer))), ["kill 1"]);
    let actions = exited(&mut core, 1);
    assert_eq!(names(&actions), ["warn", "lost 1", "stopped 1"]);
    let failure = lost(&actions);
    assert!(failure.message.contains("did not stop within 3 s"), "{failure}");
    assert!(failure.details.contains("exited with status 3\nboom"), "{failure}");
}

#[test]
fn a_cancellation_that_succeeded_is_not_timed() {
    let mut core = with_tasks();
    cancel(&mut core, 1);
    report(&mut core, 1, stopped_in(1, []));
    assert_eq!(core.step(Input::Timer(Timer::Cancellation(WorkerId(1), 1))), []);
    assert!(!core.runs_tasks());
}

#[test]
fn tasks_of_a_higher_attempt_survive_the_news_that_older_ones_stopped() {
    let mut core = with_tasks();
    cancel(&mut core, 1);
    start(&mut core, 2, 2);
    assert_eq!(names(&deploy(&mut core, 2)), ["deploy"], "the worker stops the older ones first");
    assert_eq!(names(&report(&mut core, 1, stopped_in(1, []))), ["stopped 1"]);
    assert_eq!(registered_tasks(&mut core)[0].tasks.len(), 2);
    assert_eq!(report(&mut core, 1, stopped_in(1, [])), [], "nobody waits for it");
}

#[test]
fn a_new_leader_is_told_what_runs_and_what_it_may_have_missed() {
    let mut core = with_tasks();
    report(&mut core, 1, status(1, TASKS[1], TaskStatus::Failed));
    let actions = core.step(Input::Connecting);
    assert_eq!(names(&actions), ["register", "status TASK_STATUS_FAILED"]);
    let Some(Action::Send(ToLeader::Register(register))) = actions.into_iter().next() else {
        panic!("no registration")
    };
    assert_eq!((register.task_manager_id.as_str(), register.slots), ("tm-1", 2));
    let running = &register.running[0];
    assert_eq!((running.attempt, running.data_address.as_str()), (1, "10.0.0.5:6000"));
    assert_eq!(running.worker_id, WorkerId(1).to_wire());
    let states: Vec<_> = running.tasks.iter().map(v1::TaskCounters::status).collect();
    assert_eq!(states, [v1::TaskStatus::Running, v1::TaskStatus::Failed]);
}

#[test]
fn a_lost_worker_is_told_to_the_next_leader_until_one_has_registered_this_task_manager() {
    let mut core = with_tasks();
    exited(&mut core, 1);
    for _ in 0..2 {
        assert_eq!(names(&core.step(Input::Connecting)), ["register", "lost 1"]);
    }
    order(&mut core, 2, 0, Order::Registered);
    assert_eq!(names(&core.step(Input::Connecting)), ["register"]);
}

#[test]
fn a_worker_that_is_not_attached_is_not_registered() {
    let mut core = core();
    start(&mut core, 1, 1);
    assert_eq!(registered_tasks(&mut core), []);
    core.step(Input::Attach(hello(1)));
    let running = registered_tasks(&mut core);
    assert_eq!((running[0].attempt, running[0].tasks.len()), (1, 0));
}

#[test]
fn only_the_worker_that_was_started_attaches_and_only_once() {
    let mut core = core();
    start(&mut core, 1, 1);
    for wrong in [
        Hello { worker: WorkerId(2), ..hello(1) },
        Hello { job: JobId(8), ..hello(1) },
        Hello { token: token(2), ..hello(1) },
    ] {
        assert_eq!(names(&core.step(Input::Attach(wrong))), ["refuse"]);
    }
    assert_eq!(names(&core.step(Input::Attach(hello(1)))), ["accept", "note", "ready 1"]);
    assert_eq!(names(&core.step(Input::Attach(hello(1)))), ["refuse"]);
}

#[test]
fn a_worker_with_another_plan_is_refused_for_good() {
    let mut core = core();
    start(&mut core, 1, 1);
    let actions = core.step(Input::Attach(Hello { plan_fingerprint: 1, ..hello(1) }));
    assert_eq!(names(&actions), ["refuse", "kill 1"]);
    let failure = lost(&exited(&mut core, 1));
    assert!(!failure.retryable && failure.message.contains("another plan"), "{failure}");
}

#[test]
fn a_worker_that_does_not_attach_is_killed_and_reported() {
    let mut core = core();
    start(&mut core, 1, 1);
    core.step(Input::Launched(WorkerId(1)));
    assert_eq!(names(&core.step(Input::Timer(Timer::Attach(WorkerId(1))))), ["kill 1"]);
    let failure = lost(&exited(&mut core, 1));
    assert!(failure.message.contains("did not report to its task manager within 10 s"), "{failure}");
    assert!(failure.details.contains("boom"), "its output is shown: {failure}");
}

#[test]
fn an_attached_worker_is_not_killed_by_old_timers() {
    let mut core = with_tasks();
    assert_eq!(core.step(Input::Timer(Timer::Attach(WorkerId(1)))), []);
    assert_eq!(core.step(Input::Timer(Timer::Exit(WorkerId(2)))), []);
}

#[test]
fn a_worker_whose_stream_ends_has_to_exit() {
    let mut core = with_tasks();
    let timer = Timer::Exit(WorkerId(1));
    assert_eq!(core.step(Input::Detached(WorkerId(1))), [Action::StartTimer { timer, after: EXIT }]);
    assert_eq!(core.step(Input::Detached(WorkerId(1))), []);
    assert_eq!(start(&mut core, 2, 2), [], "it is not reused");
    assert_eq!(names(&core.step(Input::Timer(timer))), ["kill 1"]);
    assert_eq!(names(&exited(&mut core, 1)), ["note", "launch 2"], "the next one waits until it is gone");
}

#[test]
fn a_worker_that_exits_in_time_after_its_stream_ended_tells_its_own_reason() {
    let mut core = with_tasks();
    core.step(Input::Detached(WorkerId(1)));
    assert_eq!(lost(&exited(&mut core, 1)).message, "exited with status 3");
}

#[test]
fn what_a_worker_says_of_its_failure_counts_more_than_its_exit() {
    let mut core = with_tasks();
    let failed = Report::Failed(Failure::user("cannot bind a port").permanent());
    assert_eq!(names(&report(&mut core, 1, failed)), ["exit timer"]);
    let failure = lost(&exited(&mut core, 1));
    assert_eq!(failure.message, "cannot bind a port");
    assert_eq!(failure.details, "exited with status 3\nboom");
    assert!(!failure.retryable);
}

#[test]
fn the_worker_of_an_ended_job_is_shut_down_without_a_report() {
    let mut core = with_tasks();
    assert_eq!(names(&stop_worker(&mut core)), ["shutdown", "exit timer"]);
    assert_eq!(stop_worker(&mut core), []);
    assert_eq!(names(&exited(&mut core, 1)), ["note"]);
    assert_eq!(stop_worker(&mut core), []);
    assert!(!core.has_workers() && core.jobs.is_empty());
}

#[test]
fn a_worker_that_is_still_being_started_is_killed_when_its_job_ends() {
    let mut core = core();
    start(&mut core, 1, 1);
    assert_eq!(names(&stop_worker(&mut core)), ["kill 1"]);
    assert_eq!(core.step(Input::Launched(WorkerId(1))), []);
    assert_eq!(names(&core.step(Input::Attach(hello(1)))), ["refuse"]);
    assert_eq!(names(&exited(&mut core, 1)), ["note"]);
}

#[test]
fn heartbeats_carry_the_latest_counters_and_states() {
    let mut core = with_tasks();
    let counters = |subtask: SubtaskId, records_in| v1::TaskCounters {
        subtask: Some(subtask.into()),
        status: v1::TaskStatus::Deploying.into(),
        records_in,
        ..Default::default()
    };
    let tasks = BTreeMap::from([(TASKS[0], counters(TASKS[0], 5))]);
    report(&mut core, 1, Report::Counters { attempt: 1, job_name: "job".into(), tasks });
    let stale = BTreeMap::from([(TASKS[0], counters(TASKS[0], 77))]);
    report(&mut core, 1, Report::Counters { attempt: 2, job_name: "job".into(), tasks: stale });
    let heartbeat = core.heartbeat();
    let tasks = &heartbeat.jobs[0].tasks;
    assert_eq!(tasks.iter().map(|task| task.records_in).collect::<Vec<_>>(), [5, 0]);
    assert_eq!(tasks[0].status(), v1::TaskStatus::Running);
    assert_eq!(with_ready_worker().heartbeat().jobs, []);

    // What comes with the last state is the newest.
    let Report::Status { relay, .. } = status(1, TASKS[0], TaskStatus::Drained) else { unreachable!() };
    let relay = v1::TaskStatusChanged { counters: Some(Box::new(counters(TASKS[0], 6))), ..relay };
    let drained =
        Report::Status { attempt: 1, subtask: TASKS[0], status: TaskStatus::Drained, relay: relay.clone() };
    let told = report(&mut core, 1, drained);
    assert_eq!(told, [Action::Send(ToLeader::TaskStatusChanged(relay))]);
    let task = core.heartbeat().jobs[0].tasks[0].clone();
    assert_eq!((task.records_in, task.status()), (6, v1::TaskStatus::Drained));
}

#[test]
fn logs_are_read_whatever_runs() {
    let wanted = Order::Logs { request_id: 3, job: JOB, tail_bytes: 10 };
    let actions = order(&mut core(), 1, 0, wanted);
    assert_eq!(actions, [Action::ReadLogs { request_id: 3, job: JOB, tail_bytes: 10 }]);
}

#[path = "draining_tests.rs"]
mod draining;
#[path = "properties.rs"]
mod properties;
#[path = "region_tests.rs"]
mod regions;
