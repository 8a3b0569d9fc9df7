//! What Prometheus reads of the leading job manager.
#![cfg(feature = "prometheus")]

use thalweg_proto::v1::TaskStatus as Reported;
use thalweg_proto::v1::task_manager_message::Message as Says;
use thalweg_proto::{v1, v1::job_manager_message::Message as Told};
use thalweg_test_support::http;
use tokio::net::TcpListener;

use crate::fake::*;

/// What the endpoint answers.
async fn read(port: u16) -> String {
    let answer = http::request(&format!("http://127.0.0.1:{port}"), "GET", "/metrics", &[]).await.unwrap();
    String::from_utf8(answer.body).unwrap()
}

/// The value of a metric without labels of its own.
fn value(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[tokio::test]
async fn prometheus_reads_the_cluster_and_its_jobs() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let cluster = Cluster::configured(&format!("metrics.reporter.prom.port: {port}")).await;
    let mut manager = cluster.task_manager("a", 3).await;
    let text = read(port).await;
    assert_eq!(value(&text, "flink_jobmanager_numRegisteredTaskManagers"), Some(1.0), "{text}");
    assert_eq!(value(&text, "flink_jobmanager_taskSlotsAvailable"), Some(3.0), "{text}");
    assert!(value(&text, "flink_jobmanager_threadCount").unwrap() >= 1.0, "{text}");

    let job = cluster.submit(graph(2, None)).await;
    manager.deployed().await;
    manager.status(job, 1, Reported::Running).await;
    let client = cluster.client().await;
    job_is(&client, job, "all tasks running", |job| job.tasks_running == 4).await;
    let heartbeat = v1::Heartbeat {
        process: Some(v1::ProcessMetrics { threads: 21, ..Default::default() }),
        ..Default::default()
    };
    manager.say(Says::Heartbeat(heartbeat)).await;
    assert!(matches!(manager.try_next().await.unwrap().unwrap(), Told::HeartbeatAnswer(_)));
    let text = read(port).await;
    for (name, expected) in [
        ("flink_jobmanager_numRunningJobs", 1.0),
        ("flink_jobmanager_taskSlotsAvailable", 1.0),
        ("flink_jobmanager_job_downtime", 0.0),
        ("flink_jobmanager_job_numRestarts", 0.0),
        ("flink_jobmanager_job_threadCount", 21.0),
    ] {
        assert_eq!(value(&text, name), Some(expected), "{name} in\n{text}");
    }
    assert!(value(&text, "flink_jobmanager_job_uptime").unwrap() >= 0.0, "{text}");
    assert!(text.contains("job_name=\"word_count\""), "{text}");

    manager.task(job, 1, (0, 0), Reported::Failed).await;
    manager.until(cancel_tasks).await;
    manager.tasks_stopped(job, 1).await;
    manager.deployed().await;
    job_is(&client, job, "restarted", |job| job.attempt == 2).await;
    let text = read(port).await;
    assert_eq!(value(&text, "flink_jobmanager_job_numRestarts"), Some(1.0), "{text}");
    assert_eq!(value(&text, "flink_jobmanager_job_fullRestarts"), Some(1.0), "{text}");
}
