//! Every command of the real program against a small job manager: output for people, JSON, exit codes.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "commands/pki.rs"]
mod pki;
#[path = "commands/savepoints.rs"]
mod savepoints;
mod support;
#[path = "commands/time.rs"]
mod time;

use serde_json::{Value, json};
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus::{Canceled, Cancelling, Created, Failed, Finished, Running};
use thalweg_proto::v1;
use tokio::io::{AsyncBufReadExt, BufReader};

use support::{Cluster, PATIENCE, Script, binary, details, event, failure, run, summary, thalweg};

const ID: &str = "00000000000000000000000000000007";

fn one_job() -> Script {
    Script { jobs: vec![summary(7, "word_count", Running)], details: Some(details(7)), ..Script::default() }
}

fn ending_in(events: Vec<v1::JobEvent>) -> Script {
    Script { events, ..one_job() }
}

fn finished() -> Script {
    ending_in(vec![
        event(7, None, Created),
        event(7, Some(Created), Running),
        event(7, Some(Running), Finished),
    ])
}

fn failed() -> Script {
    let mut last = event(7, Some(Running), Failed);
    last.failure = Some(failure("division by zero", "at main.rs:9"));
    ending_in(vec![event(7, None, Running), last])
}

fn canceled() -> Script {
    ending_in(vec![event(7, None, Cancelling), event(7, Some(Cancelling), Canceled)])
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(json_of).collect()
}

#[tokio::test]
async fn submit_uploads_warns_and_follows_to_the_end() {
    let cluster = Cluster::start(finished()).await;
    let content = vec![42; 3_000_000];
    let path = binary("submit_follows", &content);
    let arguments = ["submit", path.to_str().unwrap(), "--parallelism", "4", "--name", "wc"];
    let arguments = [&arguments[..], &["-D", "restart-strategy=none", "--", "--input", "x"]].concat();
    let ended = cluster.run(&arguments).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with(&format!("Submitted wc as job {ID}\n")), "{ended:?}");
    assert!(ended.stdout.contains("2023-11-14 22:13:20 UTC  CREATED -> RUNNING\n"), "{ended:?}");
    assert!(ended.stdout.ends_with("RUNNING -> FINISHED\nword_count FINISHED after 1m 03s\n"), "{ended:?}");
    assert_eq!(ended.stderr, "thalweg: warning: main.rs:7: `reduce` has no uid\n");
    let script = cluster.script.lock().unwrap();
    let (header, received) = &script.submitted[0];
    assert_eq!((script.submitted.len(), *received), (1, content.len()));
    assert_eq!(header.arguments, ["--input", "x"]);
    let mut settings: Vec<_> = header.configuration.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    settings.sort_unstable();
    assert_eq!(
        settings,
        [("parallelism.default", "4"), ("pipeline.name", "wc"), ("restart-strategy.type", "none")]
    );
}

#[tokio::test]
async fn submit_as_json_is_two_lines_or_one_when_detached() {
    let cluster = Cluster::start(finished()).await;
    let path = binary("submit_json", b"x");
    let path = path.to_str().unwrap();
    let accepted = json!({
        "job_id": ID, "name": "word_count", "repeated": false, "warnings": ["main.rs:7: `reduce` has no uid"]
    });
    let ended = cluster.run(&["submit", path, "--output", "json"]).await;
    let lines = json_lines(&ended.stdout);
    assert_eq!((ended.code, lines.len()), (Some(0), 2), "{ended:?}");
    assert_eq!(lines[0], accepted);
    assert_eq!((&lines[1]["job_id"], &lines[1]["status"]), (&json!(ID), &json!("FINISHED")));
    let ended = cluster.run(&["submit", path, "--output", "json", "--detach"]).await;
    assert_eq!((ended.code, json_lines(&ended.stdout)), (Some(0), vec![accepted]), "{}", ended.stderr);
}

#[tokio::test]
async fn submit_ends_with_the_code_of_the_jobs_end() {
    let path = binary("submit_codes", b"x");
    for (script, code, told) in [
        (
            failed(),
            1,
            "thalweg: job 00000000000000000000000000000007 FAILED: division by zero; `thalweg describe",
        ),
        (canceled(), 3, ""),
    ] {
        let cluster = Cluster::start(script).await;
        let ended = cluster.run(&["submit", path.to_str().unwrap()]).await;
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.stderr.contains(told), "{ended:?}");
    }
}

#[tokio::test]
async fn ctrl_c_leaves_the_job_running() {
    let script = Script { goes_on: true, ..ending_in(vec![event(7, None, Running)]) };
    let cluster = Cluster::start(script).await;
    let path = binary("ctrl_c", b"x");
    for arguments in [&["submit", path.to_str().unwrap()][..], &["watch", ID]] {
        let mut child = cluster.command(arguments).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The job's state is told when the program follows; then Ctrl-C has its meaning.
        loop {
            let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
            if line.expect("the program ended before it followed").contains("RUNNING") {
                break;
            }
        }
        let pid = child.id().unwrap().to_string();
        let killed = std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap();
        assert!(killed.success());
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        assert!(stderr.contains(&format!("job {ID} goes on; `thalweg watch {ID}`")), "{stderr}");
        assert!(stderr.contains(&format!("`thalweg cancel {ID}` cancels it")), "{stderr}");
    }
    assert_eq!(cluster.script.lock().unwrap().canceled, []);
}

#[tokio::test]
async fn what_cannot_be_submitted_is_told() {
    let cluster = Cluster::start(Script { refusal: Some("no sink; add one".into()), ..one_job() }).await;
    let path = binary("refused", b"x");
    let ended = cluster.run(&["submit", path.to_str().unwrap()]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), "thalweg: no sink; add one\n"));
    let ended = cluster.run(&["submit", "/nowhere/job"]).await;
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.starts_with("thalweg: cannot submit /nowhere/job: "), "{}", ended.stderr);
    let ended = cluster.run(&["submit", "/nowhere/job", "-D", "paralelism.default=4"]).await;
    assert_eq!(ended.code, Some(2));
    assert_eq!(
        ended.stderr,
        "thalweg: unknown configuration key `paralelism.default`; did you mean `parallelism.default`?\n"
    );
}

#[tokio::test]
async fn list_shows_all_jobs() {
    let jobs = vec![summary(0xabcd << 112, "word_count", Running), summary(7, "trades", Finished)];
    let cluster = Cluster::start(Script { jobs, ..Script::default() }).await;
    let ended = cluster.run(&["list"]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert!(lines[0].starts_with("JOB ID        NAME        STATUS"), "{}", lines[0]);
    assert!(
        lines[1].starts_with("abcd00000000  word_count  RUNNING     4/4        1  1m 03s ago"),
        "{}",
        lines[1]
    );
    let ended = cluster.run(&["list", "--output", "json"]).await;
    let jobs = &json_of(&ended.stdout)["jobs"];
    assert_eq!(jobs[0]["job_id"], "abcd0000000000000000000000000000");
    assert_eq!((&jobs[0]["status"], &jobs[0]["end_time_ms"]), (&json!("RUNNING"), &Value::Null));
    assert!(jobs[1]["end_time_ms"].is_i64() && jobs[1]["start_time_ms"].is_i64(), "{jobs}");
    let empty = Cluster::start(Script::default()).await;
    assert!(empty.run(&["list"]).await.stdout.starts_with("No jobs"));
}

#[tokio::test]
async fn describe_tells_everything() {
    let cluster = Cluster::start(one_job()).await;
    let ended = cluster.run(&["describe", "word_count"]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for part in [
        "source -> split",
        "1,234,567",
        "1.2 MiB",
        "tm-1",
        "busy up to 80 %, back-pressured up to 20 % (LOW)",
        "256.0 KiB",
        "3 completed",
        "killed by signal 9",
        "last line",
    ] {
        assert!(ended.stdout.contains(part), "{part} is missing in {}", ended.stdout);
    }
    let details = json_of(&cluster.run(&["describe", ID, "--output", "json"]).await.stdout);
    assert_eq!(details["job_id"], ID);
    assert_eq!(details["vertices"][0]["subtasks"][0]["records_in"], 1_234_567);
    assert_eq!(details["vertices"][0]["subtasks"][0]["task_manager"], "tm-1");
    let metrics = &details["vertices"][0]["subtasks"][0]["metrics"];
    assert_eq!(metrics["numRecordsInPerSecond"], 200_000.0);
    assert_eq!(metrics["busyTimeMsPerSecond"], 800);
    assert_eq!(metrics["backPressuredTimeMsPerSecond"], 200);
    assert_eq!(metrics["backpressureLevel"], "LOW");
    assert_eq!(metrics["inputQueueLength"], 8);
    assert_eq!(details["checkpoints"]["latest"]["id"], 3);
    assert_eq!(details["failures"][0]["failure"]["message"], "killed by signal 9");
}

#[tokio::test]
async fn a_checkpoint_is_taken_or_the_reason_told() {
    let retained = vec![v1::RetainedCheckpoint { checkpoint_id: 17, ..Default::default() }];
    let checkpoints = v1::ListCheckpointsResponse { retained, ..Default::default() };
    let cluster = Cluster::start(Script { checkpoints, ..one_job() }).await;
    let taken = cluster.run(&["checkpoint", "word_count"]).await;
    assert_eq!((taken.code, taken.stdout.as_str()), (Some(0), "Checkpoint 17 is complete\n"));
    let taken = cluster.run(&["checkpoint", ID, "--json"]).await;
    assert_eq!(json_of(&taken.stdout), json!({ "job_id": ID, "checkpoint_id": 17 }));
    let cluster = Cluster::start(one_job()).await;
    let refused = cluster.run(&["checkpoint", ID]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("the job is CREATED"), "{}", refused.stderr);
}

#[tokio::test]
async fn checkpoints_are_told_with_the_phases_of_every_subtask() {
    let phases = v1::CheckpointPhases { sync_us: 150, async_us: 2_500, ..Default::default() };
    let subtask = v1::SubtaskCheckpoint {
        subtask: Some(v1::SubtaskId { vertex: 1, index: 2 }),
        end_to_end_ms: 40,
        state_bytes: 512,
        phases: Some(phases),
    };
    let statistics = v1::CheckpointStatistics {
        checkpoint_id: 17,
        attempt: 1,
        status: v1::CheckpointStatus::Completed.into(),
        subtasks_total: 1,
        subtasks: vec![subtask],
        ..Default::default()
    };
    let checkpoints = v1::ListCheckpointsResponse { history: vec![statistics], ..Default::default() };
    let cluster = Cluster::start(Script { checkpoints, ..one_job() }).await;
    let overview = cluster.run(&["checkpoints", "word_count"]).await.stdout;
    assert!(overview.contains("17  COMPLETED"), "{overview}");
    let details = cluster.run(&["checkpoints", "word_count", "--details", "17"]).await.stdout;
    assert!(details.contains("START DELAY") && details.contains("150 µs"), "{details}");
    let json =
        json_of(&cluster.run(&["checkpoints", "word_count", "--details", "17", "--json"]).await.stdout);
    assert_eq!((&json["status"], &json["subtasks"][0]["async_us"]), (&json!("COMPLETED"), &json!(2_500)));
    let unknown = cluster.run(&["checkpoints", "word_count", "--details", "3"]).await;
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.stderr.contains("remembers the last ones: 17"), "{}", unknown.stderr);
}

#[tokio::test]
async fn jobs_are_found_by_what_people_call_them() {
    let jobs = vec![
        summary(0xabcd_1111 << 96, "word_count", Running),
        summary(0xabcd_2222 << 96, "trades", Running),
        summary(0x1234_5678 << 96, "trades", Finished),
    ];
    let cluster = Cluster::start(Script { jobs, details: Some(details(7)), ..Script::default() }).await;
    for (reference, code, told) in [
        ("abcd1", 0, ""),
        ("word_count", 0, ""),
        ("abcd", 2, "abcd2222000000000000000000000000 (trades, RUNNING)"),
        ("trades", 2, "12345678000000000000000000000000 (trades, FINISHED)"),
        ("abc", 1, "at least 4 digits"),
        ("nobody", 1, "`thalweg list` shows all jobs"),
        (ID, 1, "there is no job 00000000000000000000000000000007; `thalweg list` shows all"),
    ] {
        let ended = cluster.run(&["describe", reference]).await;
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.stderr.contains(told), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), usize::from(code != 0), "{ended:?}");
    }
}

#[tokio::test]
async fn watch_tells_every_change_and_ends_with_the_jobs_code() {
    for (script, code, last) in
        [(finished(), 0, "FINISHED"), (failed(), 1, "FAILED"), (canceled(), 3, "CANCELED")]
    {
        let events = script.events.len();
        let cluster = Cluster::start(script).await;
        let ended = cluster.run(&["watch", "word_count"]).await;
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.stdout.ends_with(&format!("word_count {last} after 1m 03s\n")), "{ended:?}");
        let ended = cluster.run(&["watch", ID, "--output", "json"]).await;
        let lines = json_lines(&ended.stdout);
        assert_eq!((ended.code, lines.len()), (Some(code), events), "{ended:?}");
        assert_eq!(lines[0].get("change"), None);
        assert_eq!(
            (&lines[events - 1]["status"], &lines[events - 1]["change"]["to"]),
            (&json!(last), &json!(last))
        );
    }
}

#[tokio::test]
async fn cancel_waits_unless_told_not_to() {
    let cluster = Cluster::start(canceled()).await;
    let ended = cluster.run(&["cancel", "word_count"]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), format!("Job {ID} is CANCELED\n").as_str()));
    let ended = cluster.run(&["cancel", ID, "--output", "json"]).await;
    assert_eq!(json_of(&ended.stdout), json!({"job_id": ID, "waited": true, "status": "CANCELED"}));
    cluster.script.lock().unwrap().goes_on = true;
    cluster.script.lock().unwrap().events.truncate(1);
    let ended = cluster.run(&["cancel", ID, "--no-wait"]).await;
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), format!("Cancellation of job {ID} requested\n").as_str())
    );
    let ended = cluster.run(&["cancel", ID, "--no-wait", "--output", "json"]).await;
    assert_eq!(json_of(&ended.stdout), json!({"job_id": ID, "waited": false, "status": null}));
    assert_eq!(cluster.script.lock().unwrap().canceled, [JobId(7); 4]);
}

#[tokio::test]
async fn a_job_that_ended_before_its_cancellation_is_a_failure_of_cancel() {
    let cluster = Cluster::start(finished()).await;
    let ended = cluster.run(&["cancel", ID]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("was FINISHED before it could be canceled"), "{}", ended.stderr);
}

#[tokio::test]
async fn logs_are_printed_under_headings() {
    let cluster = Cluster::start(one_job()).await;
    let ended = cluster.run(&["logs", "word_count"]).await;
    let expected = "==> tm-1 stdout <==\nhello\n\n==> tm-1 stderr <==\noh\n";
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), expected), "{}", ended.stderr);
    let ended = cluster.run(&["logs", ID, "--tail", "2 kb", "--output", "json"]).await;
    let logs = json!([
        {"task_manager": "tm-1", "source": "stdout", "text": "hello\n"},
        {"task_manager": "tm-1", "source": "stderr", "text": "oh"},
    ]);
    assert_eq!(json_of(&ended.stdout), json!({"job_id": ID, "logs": logs}));
    assert_eq!(cluster.script.lock().unwrap().tails, [0, 2048]);
}

#[tokio::test]
async fn cluster_shows_and_changes_its_machines() {
    let task_manager = v1::TaskManagerSummary {
        id: "tm-1".into(),
        host: "10.0.1.1".into(),
        slots_total: 4,
        slots_free: 1,
        labels: vec!["ssd".into()],
        connected_since_ms: 1_700_000_000_000,
        last_heartbeat_ms: 0,
    };
    let cluster = Cluster::start(Script { task_managers: vec![task_manager], ..Script::default() }).await;
    let ended = cluster.run(&["cluster"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for part in ["Job managers (term 7)", &cluster.address, "leader", "tm-1", "10.0.1.1", "ssd", "never"] {
        assert!(ended.stdout.contains(part), "{part} is missing in {}", ended.stdout);
    }
    let machines = json_of(&cluster.run(&["cluster", "--output", "json"]).await.stdout);
    assert_eq!((&machines["term"], &machines["job_managers"][0]["leader"]), (&json!(7), &json!(true)));
    assert_eq!(machines["task_managers"][0]["last_heartbeat_ms"], 0);
    let ended = cluster.run(&["cluster", "add", "4", "10.0.0.4:6123"]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "Job manager 4 at 10.0.0.4:6123 added\n"));
    let ended = cluster.run(&["cluster", "remove", "4", "--output", "json"]).await;
    assert_eq!(json_of(&ended.stdout), json!({"action": "removed", "id": 4}));
    assert_eq!(cluster.script.lock().unwrap().members, [(4, Some("10.0.0.4:6123".to_string())), (4, None)]);
}

#[tokio::test]
async fn a_cluster_that_is_not_there_is_a_code_of_its_own() {
    let cluster = Cluster::start(one_job()).await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let ended = run(thalweg(&["list", "--timeout", "100ms", "--jobmanager", &dead])).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(4), ""));
    assert!(ended.stderr.starts_with("thalweg: no leading job manager answered at "), "{}", ended.stderr);
    let several = format!("{dead},{}", cluster.address);
    let ended = run(thalweg(&["--jobmanager", &several, "list"])).await;
    assert_eq!(ended.code, Some(0), "one that is up is enough: {ended:?}");
}

#[tokio::test]
async fn wrong_usage_is_one_line_and_code_2() {
    for (arguments, told) in [
        (&["list", "--jobmanager", "nonsense"][..], "write host:port"),
        (&["describe"], "<JOB>"),
        (&["describe", "job", "--outptu", "json"], "'--output'"),
        (&["submti", "job"], "'submit'"),
        (&["logs", "job", "--tail", "many"], "at least 1 byte"),
    ] {
        let ended = run(thalweg(arguments)).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
        assert!(ended.stderr.starts_with("thalweg: ") && ended.stderr.contains(told), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
}

#[tokio::test]
async fn help_is_a_result_and_documents_the_codes() {
    let ended = run(thalweg(&["--help"])).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for part in ["Exit codes:", "3  the job that was followed is CANCELED", "THALWEG_JOBMANAGER"] {
        assert!(ended.stdout.contains(part), "{part} is missing in {}", ended.stdout);
    }
    for command in ["submit", "list", "describe", "watch", "cancel", "rescale", "logs", "cluster", "state"] {
        let ended = run(thalweg(&[command, "--help"])).await;
        assert!(
            ended.stdout.contains(&format!("thalweg {command}")) && ended.stdout.contains("Example"),
            "{ended:?}"
        );
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    let cluster = Cluster::start(one_job()).await;
    // The answer waits until nobody reads any more.
    cluster.list_gate.forget_permits(usize::MAX);
    let mut child = cluster.command(&["list"]).spawn().unwrap();
    drop(child.stdout.take());
    cluster.list_gate.add_permits(1);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
}
