//! What Prometheus reads of a task manager that is registered with a leader.
#![cfg(feature = "prometheus")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::{JobManager, soon, test_launcher};
use thalweg_common::id::TaskManagerId;
use thalweg_common::task_scope::TaskScope;
use thalweg_proto::v1::task_manager_message::Message as News;
use thalweg_taskmanager::{TaskManager, TaskManagerOptions};
use thalweg_test_support::http;
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn a_task_manager_tells_what_it_takes_of_its_machine() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut leader = JobManager::leader();
    let data = tempfile::tempdir().unwrap();
    let id = TaskManagerId("tm-1".into());
    let mut options = TaskManagerOptions::new(id, vec![leader.address.clone()], data.path().to_path_buf());
    options.prometheus = Some(("127.0.0.1".into(), port.to_string()));
    let scope = TaskScope::new("test");
    let (launcher, _workers) = test_launcher();
    let manager = TaskManager::start(options, launcher, &scope).await.unwrap();
    let (mut session, _) = leader.register(1).await;
    // It is measured with the first heartbeat, and told with one that follows.
    let process = loop {
        if let Some(News::Heartbeat(heartbeat)) = session.any().await
            && let Some(process) = heartbeat.process
        {
            break process;
        }
    };
    assert!(process.threads >= 1 && process.heap_total_bytes > 0, "{process:?}");

    let base = format!("http://127.0.0.1:{port}");
    let answer = soon(http::request(&base, "GET", "/metrics", &[])).await.unwrap();
    let answer = String::from_utf8(answer.body).unwrap();
    for name in ["flink_taskmanager_cpuUtilization", "flink_taskmanager_threadCount"] {
        let line = format!("{name}{{host=\"127.0.0.1\",tm_id=\"tm-1\"}} ");
        assert!(answer.contains(&line), "{line} is not in\n{answer}");
    }
    soon(manager.stop()).await;
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err(), "it does not listen any more");
}
