//! Savepoints as people ask for them: taken, stopped with, listed, deleted, begun with and upgraded over.

use thalweg_proto::v1::savepoint_event::Message;

use super::*;

const PATH: &str = "file:///s/savepoint-000000-12";

fn taken(is_final: bool) -> v1::SavepointSummary {
    v1::SavepointSummary {
        savepoint_id: 12,
        path: PATH.into(),
        triggered_ms: 1_700_000_000_000,
        completed_ms: 1_700_000_000_250,
        size_bytes: 2_048,
        r#final: is_final,
    }
}

/// A job of which savepoints can be taken, and how it ends when it is stopped.
fn takes_savepoints(script: Script) -> Script {
    let progress = v1::SavepointProgress { savepoint_id: 12, acknowledged: 1, subtasks: 4 };
    let news = [Message::Progress(progress), Message::Completed(taken(true))];
    let savepoint_news = news.map(|message| v1::SavepointEvent { message: Some(message) }).to_vec();
    Script { savepoint_news, ..script }
}

fn asked(cluster: &Cluster) -> Vec<(String, v1::SavepointMode)> {
    let script = cluster.script.lock().unwrap();
    script.asked_savepoints.iter().map(|request| (request.directory.clone(), request.mode())).collect()
}

#[tokio::test]
async fn a_savepoint_tells_its_path() {
    let cluster = Cluster::start(takes_savepoints(one_job())).await;
    let ended = cluster.run(&["savepoint", "word_count", "--dir", "file:///s"]).await;
    let expected = format!("Savepoint {PATH} (2.0 KiB, 250 ms)\n");
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), expected.as_str()), "{ended:?}");
    let ended = cluster.run(&["savepoint", ID, "--output", "json"]).await;
    let json = json_of(&ended.stdout);
    assert_eq!((&json["path"], &json["size_bytes"]), (&json!(PATH), &json!(2_048)));
    let modes = [("file:///s", v1::SavepointMode::Continue), ("", v1::SavepointMode::Continue)];
    assert_eq!(asked(&cluster), modes.map(|(directory, mode)| (directory.to_string(), mode)));
}

#[tokio::test]
async fn a_savepoint_that_is_refused_says_why_and_a_stop_leaves_the_job_alone() {
    let cluster = Cluster::start(one_job()).await;
    for arguments in [&["savepoint", ID][..], &["stop", ID, "--savepoint"]] {
        let ended = cluster.run(arguments).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        assert!(ended.stderr.ends_with("a savepoint can be taken while all its tasks run\n"), "{ended:?}");
    }
    let nobody = cluster.run(&["stop", "nobody", "--savepoint"]).await;
    assert!(nobody.code == Some(1) && nobody.stderr.contains("`thalweg list`"), "{nobody:?}");
}

#[tokio::test]
async fn stop_takes_the_last_savepoint_and_waits_for_the_end() {
    let cluster = Cluster::start(takes_savepoints(finished())).await;
    let ended = cluster.run(&["stop", "word_count", "--savepoint"]).await;
    let expected = format!("Savepoint {PATH} (2.0 KiB, 250 ms)\nJob {ID} is FINISHED\n");
    assert_eq!((ended.code, ended.stdout), (Some(0), expected));
    let arguments = ["stop", ID, "--savepoint", "--drain", "--dir", "s3://b/s", "--output", "json"];
    let ended = cluster.run(&arguments).await;
    let json = json_of(&ended.stdout);
    assert_eq!((&json["status"], &json["savepoint"]["path"]), (&json!("FINISHED"), &json!(PATH)));
    let modes = [("", v1::SavepointMode::Stop), ("s3://b/s", v1::SavepointMode::Drain)];
    assert_eq!(asked(&cluster), modes.map(|(directory, mode)| (directory.to_string(), mode)));
}

#[tokio::test]
async fn a_job_that_fails_while_it_stops_is_no_success_and_its_savepoint_is_told() {
    let cluster = Cluster::start(takes_savepoints(failed())).await;
    let ended = cluster.run(&["stop", ID, "--savepoint"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.starts_with(&format!("Savepoint {PATH}")), "{ended:?}");
    let told =
        format!("job {ID} is FAILED although its savepoint {PATH} is complete; `thalweg describe {ID}`");
    assert!(ended.stderr.contains(&told), "{ended:?}");
    let restarting = event(7, Some(Running), thalweg_common::status::JobStatus::Restarting);
    let script = ending_in(vec![event(7, None, Running), restarting]);
    let cluster = Cluster::start(takes_savepoints(Script { goes_on: true, ..script })).await;
    let ended = cluster.run(&["stop", ID, "--savepoint"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("failed while it stopped, and goes on from its savepoint"), "{ended:?}");
    assert!(ended.stderr.contains("stop it again, or cancel it"), "{ended:?}");
}

#[tokio::test]
async fn savepoints_are_listed_and_deleted() {
    let cluster = Cluster::start(Script { savepoints: vec![taken(true)], ..one_job() }).await;
    let listed = cluster.run(&["savepoint", "list", "word_count"]).await.stdout;
    assert!(listed.contains("JOB ENDED") && listed.contains(PATH) && listed.contains("250 ms"), "{listed}");
    let json = json_of(&cluster.run(&["savepoint", "list", ID, "--output", "json"]).await.stdout);
    assert_eq!((&json[0]["path"], &json[0]["is_final"]), (&json!(PATH), &json!(true)));
    let ended = cluster.run(&["savepoint", "dispose", PATH]).await;
    assert_eq!((ended.code, ended.stdout), (Some(0), format!("Deleted savepoint {PATH}\n")));
    let ended = cluster.run(&["savepoint", "dispose", PATH]).await;
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.stderr, "thalweg: there are files but no savepoint; check the path\n");
    assert!(cluster.run(&["savepoint", "list", ID]).await.stdout.contains("no savepoint"));
}

#[tokio::test]
async fn submit_says_what_it_begins_with() {
    let cluster = Cluster::start(finished()).await;
    let path = binary("submit_from_savepoint", b"x");
    let program = path.to_str().unwrap();
    for (flags, allow_non_restored_state, claim) in [
        (&[][..], false, false),
        (&["--allow-non-restored-state"], true, false),
        (&["--restore-mode", "claim"], false, true),
        (&["--restore-mode", "no-claim", "--allow-non-restored-state"], true, false),
    ] {
        let arguments = [&["submit", "--detach", program, "--from-savepoint", PATH][..], flags].concat();
        let ended = cluster.run(&arguments).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let (header, _) = cluster.script.lock().unwrap().submitted.pop().unwrap();
        let expected = v1::SavepointRestore { path: PATH.into(), allow_non_restored_state, claim };
        assert_eq!(header.savepoint, Some(expected), "{flags:?}");
    }
    cluster.run(&["submit", "--detach", program]).await;
    assert_eq!(cluster.script.lock().unwrap().submitted.pop().unwrap().0.savepoint, None);
}

#[tokio::test]
async fn wrong_usage_of_savepoints_is_told_before_the_cluster_is_asked() {
    for (arguments, told) in [
        (&["stop", ID][..], "--savepoint"),
        (&["stop", ID, "--drain"], "--savepoint"),
        (&["savepoint"], "<JOB>"),
        (&["savepoint", "dispose"], "<PATH>"),
        (&["submit", "job", "--allow-non-restored-state"], "--from-savepoint"),
        (&["submit", "job", "--restore-mode", "claim"], "--from-savepoint"),
        (&["submit", "job", "--from-savepoint", PATH, "--restore-mode", "mine"], "no-claim"),
        (&["upgrade", ID], "<BINARY>"),
        (&["upgrade", ID, "job", "--limit", "soon"], "--limit"),
    ] {
        let ended = run(thalweg(arguments)).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
        assert!(ended.stderr.starts_with("thalweg: ") && ended.stderr.contains(told), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
    for command in ["savepoint", "stop", "upgrade"] {
        let help = run(thalweg(&[command, "--help"])).await;
        assert!(help.stdout.contains("Example") && help.stdout.contains("--dir"), "{help:?}");
    }
}

#[tokio::test]
async fn an_upgrade_checks_stops_and_begins_with_the_savepoint() {
    let cluster = Cluster::start(takes_savepoints(finished())).await;
    let path = binary("upgrade_works", b"new");
    let arguments = [
        "upgrade",
        "word_count",
        path.to_str().unwrap(),
        "--dir",
        "file:///s",
        "-D",
        "restart-strategy=none",
    ];
    let arguments = [&arguments[..], &["--allow-non-restored-state", "--", "--input", "x"]].concat();
    let ended = cluster.run(&arguments).await;
    let expected = format!("Job {ID} was replaced by job {ID}, from savepoint {PATH}\n");
    assert_eq!((ended.code, ended.stdout), (Some(0), expected), "{}", ended.stderr);
    assert_eq!(asked(&cluster), [("file:///s".to_string(), v1::SavepointMode::Stop)]);
    let script = cluster.script.lock().unwrap();
    let [(check, _), (begin, _)] = &script.submitted[..] else { panic!("{:?}", script.submitted) };
    assert!(check.savepoint.is_none(), "{check:?}");
    let restore = v1::SavepointRestore { path: PATH.into(), allow_non_restored_state: true, claim: false };
    assert_eq!(begin.savepoint, Some(restore));
    assert_eq!(begin.arguments, ["--input", "x"]);
    assert_eq!(begin.configuration.get("restart-strategy.type").map(String::as_str), Some("none"));
    assert_ne!(check.submission_id, begin.submission_id, "the check is none of the job's submissions");
}

#[tokio::test]
async fn an_upgrade_that_cannot_be_says_that_the_job_goes_on() {
    let path = binary("upgrade_refused", b"new");
    let arguments = ["upgrade", ID, path.to_str().unwrap()];
    let refusal = Some("the state does not fit the job:\n`count`: field `sum` has no default".to_string());
    let cluster = Cluster::start(takes_savepoints(Script { refusal, ..finished() })).await;
    let ended = cluster.run(&arguments).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.starts_with("thalweg: the running job was not touched: the state does not fit"),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("`sum` has no default"), "{ended:?}");
    assert_eq!(asked(&cluster), []);

    let cluster = Cluster::start(finished()).await;
    let ended = cluster.run(&arguments).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.starts_with("thalweg: the job goes on as it was: the job is RESTARTING"),
        "{ended:?}"
    );

    let mut ended_job = details(7);
    ended_job.summary = Some(summary(7, "word_count", Finished));
    let cluster = Cluster::start(takes_savepoints(Script { details: Some(ended_job), ..one_job() })).await;
    let ended = cluster.run(&arguments).await;
    assert!(ended.stderr.contains("is FINISHED; only a RUNNING job can be upgraded"), "{ended:?}");
    assert_eq!((ended.code, asked(&cluster)), (Some(1), vec![]));
}
