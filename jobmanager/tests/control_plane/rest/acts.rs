//! What changes a job: each request as Flink's client sends it.

use serde_json::{Value, json};
use thalweg_common::status::JobStatus;
use thalweg_proto::v1::TaskStatus as Reported;

use super::{get, names, refusal, request};
use crate::fake::*;

const TRIGGER: &str = "00c0ffee00c0ffee00c0ffee00c0ffee";

/// Waits for the end of an operation and gives what came of it.
async fn ended(url: &str, path: &str) -> Value {
    soon("the end of the operation", async {
        loop {
            let status = get(url, path).await;
            assert_eq!(names(&status), ["operation", "status"]);
            if status["status"]["id"] == "COMPLETED" {
                return status["operation"].clone();
            }
            assert_eq!(status, json!({ "status": { "id": "IN_PROGRESS" }, "operation": null }));
            tokio::time::sleep(std::time::Duration::from_millis(5)).await; // not a wait: the pause between two looks
        }
    })
    .await
}

#[tokio::test]
async fn a_job_is_cancelled_by_patch_and_by_get() {
    let cluster = Cluster::start().await;
    let (url, client) = (&cluster.manager.rest_url, cluster.client().await);
    for (method, path) in [("PATCH", "?mode=cancel"), ("PATCH", ""), ("GET", "/yarn-cancel")] {
        let job = cluster.submit(graph(1, None)).await;
        let answer = request(url, method, &format!("/v1/jobs/{job}{path}"), "{}").await;
        assert_eq!((answer.status, answer.json().unwrap()), (202, json!({})));
        job_is(&client, job, "cancelled", |job| job.status == JobStatus::Canceled).await;
    }
    let job = cluster.submit(graph(1, None)).await;
    let answer = request(url, "PATCH", &format!("/jobs/{job}?mode=stop"), "{}").await;
    assert_eq!(answer.status, 400);
    assert!(refusal(&answer).contains("/stop"), "{}", refusal(&answer));
}

#[tokio::test]
async fn a_savepoint_that_fails_says_why_to_people_and_to_flinks_client() {
    let cluster = Cluster::start().await;
    let url = &cluster.manager.rest_url;
    let mut manager = cluster.task_manager("a", 2).await;
    let job = cluster.submit(graph(1, None)).await;
    manager.deployed().await;
    manager.status(job, 1, Reported::Running).await;
    let client = cluster.client().await;
    job_is(&client, job, "running", |job| job.tasks_running == 2).await;
    let directory = cluster.directory.path().join("savepoints");
    let directory = format!("file://{}", directory.display());
    let body = json!({
        "target-directory": directory, "cancel-job": false, "formatType": "CANONICAL", "triggerId": TRIGGER,
    })
    .to_string();
    let path = format!("/v1/jobs/{job}/savepoints");
    // Twice the same is one savepoint.
    for _ in 0..2 {
        let answer = request(url, "POST", &path, &body).await;
        assert_eq!((answer.status, answer.json().unwrap()), (202, json!({ "request-id": TRIGGER })));
    }
    manager.task(job, 1, (0, 0), Reported::Failed).await;
    let operation = ended(url, &format!("{path}/{TRIGGER}")).await;
    let cause = &operation["failure-cause"];
    assert_eq!(names(cause), ["class", "serialized-throwable", "stack-trace"]);
    assert!(!cause["stack-trace"].as_str().unwrap().is_empty(), "{cause}");

    let answer = request(url, "GET", &format!("{path}/{}", TRIGGER.replace('c', "d")), "").await;
    assert_eq!(answer.status, 404);
    assert!(refusal(&answer).contains("another job manager"), "{}", refusal(&answer));
}

#[tokio::test]
async fn a_checkpoint_that_is_asked_for_has_flinks_shape() {
    let cluster = Cluster::start().await;
    let url = &cluster.manager.rest_url;
    let mut manager = cluster.task_manager("a", 2).await;
    let mut graph = graph(1, Some(&cluster.directory.path().join("checkpoints")));
    graph.checkpointing.interval_ms = Some(3_600_000);
    let job = cluster.submit(graph).await;
    manager.deployed().await;
    manager.status(job, 1, Reported::Running).await;
    let client = cluster.client().await;
    job_is(&client, job, "running", |job| job.tasks_running == 2).await;
    let path = format!("/v1/jobs/{job}/checkpoints");
    let body = json!({ "checkpointType": "CONFIGURED", "triggerId": TRIGGER }).to_string();
    // Twice the same is one checkpoint.
    for _ in 0..2 {
        let answer = request(url, "POST", &path, &body).await;
        assert_eq!((answer.status, answer.json().unwrap()), (202, json!({ "request-id": TRIGGER })));
    }
    let checkpoint = manager.until(trigger_checkpoint).await.checkpoint_id;
    manager.acknowledge(job, 1, checkpoint).await;
    let status = format!("{path}/{TRIGGER}");
    assert_eq!(ended(url, &status).await, json!({ "checkpointId": checkpoint }));
    assert_eq!(get(url, &path).await["latest"]["completed"]["id"], checkpoint);

    // Without a body, and it fails.
    let answer = request(url, "POST", &path, "").await;
    let trigger = answer.json().unwrap()["request-id"].as_str().unwrap().to_string();
    manager.until(trigger_checkpoint).await;
    manager.task(job, 1, (0, 0), Reported::Failed).await;
    let operation = ended(url, &format!("{path}/{trigger}")).await;
    assert_eq!(names(&operation), ["failureCause"]);
    let cause = operation["failureCause"]["stack-trace"].as_str().unwrap();
    assert!(cause.contains("the job has failed"), "{cause}");
    let unknown = request(url, "GET", &format!("{path}/{}", TRIGGER.replace('c', "d")), "").await;
    assert!(unknown.status == 404 && refusal(&unknown).contains("no checkpoint with trigger id"));
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_before_it_begins() {
    let cluster = Cluster::start().await;
    let url = &cluster.manager.rest_url;
    let job = cluster.submit(graph(1, None)).await;
    let unknown = TRIGGER;
    for (method, path, body, status, expected) in [
        ("POST", format!("/jobs/{job}/savepoints"), "{}", 400, "no directory for savepoints"),
        ("POST", format!("/jobs/{job}/stop"), "{\"formatType\":\"NATIVE\"}", 400, "CANONICAL"),
        ("POST", format!("/jobs/{job}/stop"), "{\"drian\":true}", 400, "drain"),
        ("POST", format!("/jobs/{job}/stop"), "{", 400, "the body cannot be read"),
        ("POST", format!("/jobs/{unknown}/stop"), "{}", 404, unknown),
        ("POST", format!("/jobs/{unknown}/checkpoints"), "{}", 404, unknown),
        (
            "POST",
            format!("/jobs/{job}/checkpoints"),
            "{\"checkpointType\":\"FULL\"}",
            400,
            "checkpointing.incremental",
        ),
        ("POST", format!("/jobs/{job}/checkpoints"), "{\"checkpointType\":\"full\"}", 400, "`CONFIGURED`"),
        ("POST", format!("/jobs/{job}/checkpoints"), "{\"triggerId\":\"1\"}", 400, "32 hexadecimal digits"),
        ("GET", format!("/jobs/{job}/checkpoints/{unknown}"), "", 404, "no checkpoint"),
        ("PATCH", format!("/jobs/{unknown}"), "{}", 404, unknown),
        ("PATCH", format!("/jobs/{job}/rescaling?parallelism=0"), "{}", 400, "from 1 to"),
        ("PATCH", format!("/jobs/{job}/rescaling?parallelism=2"), "{}", 409, "process of its author"),
        ("POST", "/savepoint-disposal".to_string(), "{}", 400, "savepoint-path"),
        ("GET", format!("/savepoint-disposal/{unknown}"), "", 404, "deletion"),
    ] {
        let answer = request(url, method, &path, body).await;
        let error = refusal(&answer);
        assert!(
            answer.status == status && error.contains(expected),
            "{method} {path}: {} {error}",
            answer.status
        );
    }
}

#[tokio::test]
async fn what_is_no_savepoint_is_not_deleted() {
    let cluster = Cluster::start().await;
    let url = &cluster.manager.rest_url;
    let precious = cluster.directory.path().join("precious");
    std::fs::create_dir(&precious).unwrap();
    std::fs::write(precious.join("file"), b"all I have").unwrap();
    let dispose = async |path: &std::path::Path| {
        let body = json!({ "savepoint-path": format!("file://{}", path.display()) }).to_string();
        let answer = request(url, "POST", "/v1/savepoint-disposal", &body).await;
        assert_eq!(answer.status, 202);
        let trigger = answer.json().unwrap()["request-id"].as_str().unwrap().to_string();
        ended(url, &format!("/v1/savepoint-disposal/{trigger}")).await
    };
    let refused = dispose(&precious).await;
    assert!(refused["failure-cause"]["stack-trace"].as_str().unwrap().contains("no savepoint"), "{refused}");
    assert!(precious.join("file").exists());
    assert_eq!(dispose(&cluster.directory.path().join("gone")).await, json!({}));
}

/// `/bin/echo` is a fine job: it prints the plan that it is given.
#[cfg(feature = "raft")]
#[tokio::test]
async fn a_job_binary_is_uploaded_run_and_forgotten() {
    let cluster = crate::submission::Checked::start("").await;
    let url = &cluster.manager.rest_url;
    let upload = async |field: &str, bytes: &[u8]| {
        let head = format!("--x\r\nContent-Disposition: form-data; name=\"jarfile\"{field}\r\n\r\n");
        let body = [head.as_bytes(), bytes, b"\r\n--x--\r\n"].concat();
        let form = "multipart/form-data; boundary=x";
        thalweg_test_support::http::request_of(url, "POST", "/v1/jars/upload", form, &body).await.unwrap()
    };
    let refused = upload("", b"no file").await;
    assert_eq!(refused.status, 400);
    assert!(refusal(&refused).contains("jarfile=@FILE"), "{}", refusal(&refused));

    let uploaded =
        upload("; filename=\"my job\"", &std::fs::read("/bin/echo").unwrap()).await.json().unwrap();
    assert_eq!((names(&uploaded), &uploaded["status"]), (vec!["filename", "status"], &json!("success")));
    let id = uploaded["filename"].as_str().unwrap().rsplit('/').next().unwrap();
    let list = get(url, "/jars").await;
    let one = &list["files"][0];
    assert_eq!(
        (names(&list), names(one)),
        (vec!["address", "files"], vec!["entry", "id", "name", "uploaded"])
    );
    assert_eq!((&one["id"], &one["name"]), (&json!(id), &json!("my_job")));

    let plan = crate::submission::plan(&graph(1, None));
    let body = json!({ "programArgsList": [plan], "parallelism": 3 }).to_string();
    let run = request(url, "POST", &format!("/v1/jars/{id}/run"), &body).await;
    assert_eq!(run.status, 200, "{}", String::from_utf8_lossy(&run.body));
    let job = run.json().unwrap();
    assert_eq!(names(&job), ["jobid"]);
    let config = get(url, &format!("/jobs/{}/config", job["jobid"].as_str().unwrap())).await;
    assert_eq!(config["execution-config"]["job-parallelism"], 3);
    let wrong =
        request(url, "POST", &format!("/v1/jars/{id}/run"), "{\"programArgsList\":[\"no plan\"]}").await;
    assert_eq!(wrong.status, 400, "{}", refusal(&wrong));

    let deleted = request(url, "DELETE", &format!("/jars/{id}"), "").await;
    assert_eq!((deleted.status, deleted.json().unwrap()), (200, json!({})));
    let gone = request(url, "POST", &format!("/jars/{id}/run"), "{}").await;
    assert_eq!(gone.status, 404, "{}", refusal(&gone));
}
