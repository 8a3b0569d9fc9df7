//! What can be read of a cluster and its jobs.

use serde_json::json;
use thalweg_common::id::JobId;
use thalweg_proto::convert::WireId;
use thalweg_proto::v1;
use thalweg_proto::v1::TaskStatus as Reported;
use thalweg_proto::v1::task_manager_message::Message as Says;

use super::{get, names, refusal, request};
use crate::fake::*;

/// The fields of Flink's object `metrics` of tasks.
const METRICS: [&str; 11] = [
    "accumulated-backpressured-time",
    "accumulated-busy-time",
    "accumulated-idle-time",
    "read-bytes",
    "read-bytes-complete",
    "read-records",
    "read-records-complete",
    "write-bytes",
    "write-bytes-complete",
    "write-records",
    "write-records-complete",
];

/// A job of two vertices with two tasks each, all of which run.
async fn running() -> (Cluster, String, FakeTaskManager) {
    let cluster = Cluster::start().await;
    let mut manager = cluster.task_manager("a", 3).await;
    let job = cluster.submit(graph(2, None)).await;
    manager.deployed().await;
    manager.status(job, 1, Reported::Running).await;
    let client = cluster.client().await;
    job_is(&client, job, "all tasks running", |job| job.tasks_running == 4).await;
    (cluster, job.to_string(), manager)
}

#[tokio::test]
async fn the_cluster_and_its_jobs_are_told_in_short() {
    let (cluster, job, _manager) = running().await;
    let url = &cluster.manager.rest_url;
    for prefix in ["", "/v1"] {
        let overview = get(url, &format!("{prefix}/overview")).await;
        let expected = json!({
            "taskmanagers": 1,
            "slots-total": 3,
            "slots-available": 1,
            "jobs-running": 1,
            "jobs-finished": 0,
            "jobs-cancelled": 0,
            "jobs-failed": 0,
            "flink-version": overview["flink-version"],
        });
        assert_eq!(overview, expected);
        let jobs = get(url, &format!("{prefix}/jobs")).await;
        assert_eq!(jobs, json!({ "jobs": [{ "id": job, "status": "RUNNING" }] }));
    }
    let config = get(url, "/config").await;
    let expected = ["features", "flink-version", "refresh-interval", "timezone-name", "timezone-offset"];
    assert_eq!(names(&config), expected);
    let overview = get(url, "/jobs/overview").await;
    let one = &overview["jobs"][0];
    let expected = json!({
        "jid": job,
        "name": "word_count",
        "start-time": one["start-time"].as_i64().unwrap(),
        "end-time": -1,
        "duration": one["duration"].as_u64().unwrap(),
        "state": "RUNNING",
        "last-modification": one["last-modification"].as_i64().unwrap(),
        "tasks": {
            "created": 0, "scheduled": 0, "deploying": 0, "initializing": 0, "running": 4, "reconciling": 0,
            "finished": 0, "canceling": 0, "canceled": 0, "failed": 0, "total": 4,
        },
        "pending-operators": 0,
    });
    assert_eq!(one, &expected);
}

#[tokio::test]
async fn a_job_is_told_with_its_vertices_and_its_plan() {
    let (cluster, job, manager) = running().await;
    let url = &cluster.manager.rest_url;
    let heartbeat = |records_in, busy_ns| {
        let counters = v1::TaskCounters {
            subtask: Some(v1::SubtaskId { vertex: 1, index: 0 }),
            status: Reported::Running.into(),
            records_in,
            bytes_in: 70,
            records_in_errors: 2,
            busy_ns,
            back_pressured_ns: 3 * busy_ns,
            current_input_watermark: Some(-5),
            ..v1::TaskCounters::default()
        };
        let job_id = job.parse::<JobId>().unwrap().to_wire();
        let tasks = v1::JobCounters { job_id, attempt: 1, tasks: vec![counters], ..Default::default() };
        Says::Heartbeat(v1::Heartbeat { jobs: vec![tasks], ..v1::Heartbeat::default() })
    };
    manager.say(heartbeat(3, 1_000_000)).await;
    manager.say(heartbeat(7, 2_000_000)).await;
    soon("the counters", async {
        while get(url, &format!("/jobs/{job}")).await["vertices"][1]["metrics"]["read-records"] != 7 {}
    })
    .await;
    let details = get(url, &format!("/jobs/{job}")).await;
    let expected = [
        "duration",
        "end-time",
        "isStoppable",
        "jid",
        "job-type",
        "maxParallelism",
        "name",
        "now",
        "pending-operators",
        "plan",
        "start-time",
        "state",
        "status-counts",
        "timestamps",
        "vertices",
    ];
    assert_eq!(names(&details), expected);
    assert_eq!((&details["state"], &details["maxParallelism"]), (&json!("RUNNING"), &json!(-1)));
    assert_eq!(names(&details["timestamps"]).len(), 11);
    assert!(details["timestamps"]["RUNNING"].as_i64() >= details["start-time"].as_i64());
    assert_eq!(details["status-counts"]["RUNNING"], 2);
    let vertex = &details["vertices"][1];
    let id = vertex["id"].as_str().unwrap();
    let expected = [
        "duration",
        "end-time",
        "id",
        "maxParallelism",
        "metrics",
        "name",
        "parallelism",
        "start-time",
        "status",
        "tasks",
    ];
    assert_eq!(names(vertex), expected);
    assert_eq!((id, &vertex["duration"]), ("00000000000000000000000000000002", &json!(8)));
    assert_eq!(names(&vertex["metrics"]), METRICS);
    assert_eq!(vertex["tasks"]["RUNNING"], 2);
    let source = "00000000000000000000000000000001";
    let input = json!([{ "num": 0, "id": source, "ship_strategy": "HASH", "exchange": "pipelined_bounded" }]);
    let plan = &details["plan"];
    assert_eq!(names(plan), ["jid", "name", "nodes", "type"]);
    assert_eq!(plan["nodes"][1]["inputs"], input);
    let expected =
        ["description", "id", "operator", "operator_strategy", "optimizer_properties", "parallelism"];
    assert_eq!(names(&plan["nodes"][0]), expected);
    assert_eq!(&get(url, &format!("/jobs/{job}/plan")).await["plan"], plan);
    assert_eq!(get(url, &format!("/jobs/{job}/status")).await, json!({ "status": "RUNNING" }));
    let config = get(url, &format!("/jobs/{job}/config")).await;
    assert_eq!(names(&config), ["execution-config", "jid", "name"]);

    let path = format!("/jobs/{job}/vertices/{id}");
    let vertex = get(url, &path).await;
    assert_eq!(
        names(&vertex),
        ["aggregated", "id", "maxParallelism", "name", "now", "parallelism", "subtasks"]
    );
    let expected = [
        "attempt",
        "duration",
        "end-time",
        "endpoint",
        "metrics",
        "start-time",
        "status",
        "subtask",
        "taskmanager-id",
    ];
    assert_eq!(names(&vertex["subtasks"][0]), expected);
    assert_eq!(vertex["subtasks"][0]["endpoint"], "a.example");
    assert_eq!(vertex["aggregated"]["metrics"]["read-records"]["max"], 7);
    let pressure = get(url, &format!("{path}/backpressure")).await;
    assert_eq!(
        names(&pressure),
        ["backpressure-level", "backpressureLevel", "end-timestamp", "status", "subtasks"]
    );
    let expected = json!({
        "subtask": 0, "attempt-number": 1, "backpressure-level": "high", "backpressureLevel": "high",
        "ratio": 0.75, "idleRatio": 0.0, "busyRatio": 0.25,
    });
    assert_eq!(pressure["subtasks"], json!([expected]));
    let watermarks = get(url, &format!("{path}/watermarks")).await;
    assert_eq!(watermarks, json!([{ "id": "0.currentInputWatermark", "value": "-5" }]));
    let metrics = get(url, &format!("{path}/metrics?get=0.numRecordsIn,0.nothing")).await;
    assert_eq!(metrics, json!([{ "id": "0.numRecordsIn", "value": "7" }]));
    let metrics = get(url, &format!("{path}/metrics?get=0.numRecordsInErrors")).await;
    assert_eq!(metrics, json!([{ "id": "0.numRecordsInErrors", "value": "2" }]));
    let metrics = get(url, &format!("{path}/subtasks/metrics?get=numBytesIn")).await;
    assert_eq!(metrics[0]["sum"], 70.0);
    let metrics = get(url, &format!("/jobs/{job}/metrics")).await;
    assert!(metrics.as_array().unwrap().contains(&json!({ "id": "uptime" })), "{metrics}");
    let managers = get(url, &format!("{path}/taskmanagers")).await;
    assert_eq!(managers["taskmanagers"][0]["taskmanager-id"], "a");
}

#[tokio::test]
async fn the_machines_are_told() {
    let (cluster, _, manager) = running().await;
    let url = &cluster.manager.rest_url;
    let process =
        v1::ProcessMetrics { threads: 21, heap_used_bytes: 5, heap_total_bytes: 9, ..Default::default() };
    manager.say(Says::Heartbeat(v1::Heartbeat { process: Some(process), ..Default::default() })).await;
    soon("the figures", async { while get(url, "/taskmanagers/a").await.get("metrics").is_none() {} }).await;
    let managers = get(url, "/taskmanagers").await;
    let one = &managers["taskmanagers"][0];
    let expected = json!({
        "id": "a", "path": "a.example", "slotsNumber": 3, "freeSlots": 1, "metrics": { "heapUsed": 5, "heapMax": 9 },
        "timeSinceLastHeartbeat": one["timeSinceLastHeartbeat"].as_i64().unwrap(),
    });
    assert_eq!(one, &expected);
    let metrics = get(url, "/taskmanagers/a/metrics?get=threadCount").await;
    assert_eq!(metrics, json!([{ "id": "threadCount", "value": "21" }]));
    let metrics = get(url, "/jobmanager/metrics?get=numRegisteredTaskManagers,taskSlotsTotal").await;
    let expected = json!([{ "id": "numRegisteredTaskManagers", "value": "1" }, { "id": "taskSlotsTotal", "value": "3" }]);
    assert_eq!(metrics, expected);
    let settings = get(url, "/jobmanager/config").await;
    assert_eq!(settings, json!([{ "key": "rest.port", "value": "0" }]));
    assert_eq!(request(url, "GET", "/taskmanagers/b", "").await.status, 404);
}

#[tokio::test]
async fn failures_are_told_the_newest_first() {
    let (cluster, job, mut manager) = running().await;
    let url = &cluster.manager.rest_url;
    manager.task(job.parse().unwrap(), 1, (0, 0), Reported::Failed).await;
    manager.until(cancel_tasks).await;
    let told = get(url, &format!("/jobs/{job}/exceptions?maxExceptions=5")).await;
    let entry = &told["exceptionHistory"]["entries"][0];
    let expected = [
        "concurrentExceptions",
        "exceptionName",
        "failureLabels",
        "stacktrace",
        "taskManagerId",
        "taskName",
        "timestamp",
    ];
    assert_eq!(names(entry), expected);
    assert!(entry["exceptionName"].as_str().unwrap().contains("boom"), "{entry}");
    assert_eq!((&entry["failureLabels"]["fault"], &entry["taskManagerId"]), (&json!("USER"), &json!("a")));
    assert_eq!(told["exceptionHistory"]["truncated"], false);
}

/// The document and the router are made of one list; here both are asked.
#[tokio::test]
async fn every_path_of_the_openapi_document_is_there_and_no_other_method_is() {
    let cluster = Cluster::start().await;
    let url = &cluster.manager.rest_url;
    let document = get(url, "/openapi.json").await;
    assert_eq!(document["openapi"], "3.0.3");
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 30, "{}", paths.len());
    for (path, methods) in paths {
        let concrete = path.replace("{subtaskindex}", "0").replace(['{', '}'], "");
        for method in ["get", "post", "patch", "delete", "put"] {
            let answer = request(url, &method.to_uppercase(), &concrete, "").await;
            if let Some(operation) = methods.get(method) {
                let in_path = path.matches('{').count();
                let named = operation["parameters"].as_array().unwrap().iter();
                assert_eq!(named.filter(|parameter| parameter["in"] == "path").count(), in_path, "{path}");
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                assert!(
                    answer.status != 405 && !text.contains("there is nothing at"),
                    "{method} {path}: {text}"
                );
            } else {
                assert_eq!(
                    answer.status, 405,
                    "{method} {path} is served, and the document does not know it"
                );
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_refused_as_flink_refuses_it() {
    let cluster = Cluster::start().await;
    let url = &cluster.manager.rest_url;
    let refused = async |path: &str| {
        let answer = request(url, "GET", path, "").await;
        (answer.status, refusal(&answer))
    };
    let (status, error) = refused("/nowhere").await;
    assert!(status == 404 && error.contains("/nowhere"), "{status} {error}");
    let (status, error) = refused("/v1/nowhere").await;
    assert!(status == 404 && error.contains("/v1/nowhere"), "{status} {error}");
    let (status, error) = refused("/jobs/1").await;
    assert!(status == 400 && error.contains("32 hexadecimal digits"), "{status} {error}");
    let (status, error) = refused("/jobs/00c0ffee00c0ffee00c0ffee00c0ffee").await;
    assert!(status == 404 && error.contains("00c0ffee"), "{status} {error}");
}

#[tokio::test]
async fn nobody_is_told_anything_while_nobody_leads() {
    use thalweg_jobmanager::consensus::Consensus;
    let cluster = Cluster::start().await;
    cluster.log.shutdown().await;
    let answer = request(&cluster.manager.rest_url, "GET", "/jobs/overview", "").await;
    assert_eq!(answer.status, 503);
    assert!(refusal(&answer).contains("no job manager leads"), "{}", refusal(&answer));
    // But for the dashboard's page, which waits for one.
    let page = request(&cluster.manager.rest_url, "GET", "/", "").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
}
