//! What can be read of a cluster and its jobs.

use serde_json::json;
use thalweg_proto::v1::TaskStatus as Reported;

use super::http::{get, names, request};
use crate::fake::*;

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
async fn what_is_not_there_is_refused_as_flink_refuses_it() {
    let cluster = Cluster::start().await;
    let url = &cluster.manager.rest_url;
    let refused = async |path: &str| {
        let answer = request(url, "GET", path, b"").await;
        (answer.status, answer.error())
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
    let answer = request(&cluster.manager.rest_url, "GET", "/jobs/overview", b"").await;
    assert_eq!(answer.status, 503);
    assert!(answer.error().contains("no job manager leads"), "{}", answer.error());
}
