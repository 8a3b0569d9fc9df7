//! Three job managers over Raft: the leader goes, its jobs go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::config::Configuration;
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;
use thalweg_common::task_scope::TaskScope;
use thalweg_jobmanager::JobManagerHandle;
use thalweg_jobmanager::consensus::raft::{RaftLog, RaftOptions};
use thalweg_jobmanager::consensus::{Consensus, Node, NodeId};
use thalweg_proto::client::JobClient;
use thalweg_proto::v1;
use thalweg_proto::v1::TaskStatus as Reported;
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::fake::*;

struct Member {
    log: Arc<RaftLog>,
    manager: JobManagerHandle,
    scope: TaskScope,
}

struct Trio {
    members: BTreeMap<NodeId, Member>,
    addresses: Vec<String>,
    _directory: tempfile::TempDir,
    _scope: TaskScope,
}

impl Trio {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let scope = TaskScope::new("test");
        let mut listeners = BTreeMap::new();
        for id in 1..=3u64 {
            listeners.insert(id, TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let address = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
        let peers: BTreeMap<_, _> =
            listeners.iter().map(|(id, listener)| (*id, Node { address: address(listener) })).collect();
        let addresses = peers.values().map(|node| node.address.clone()).collect();
        let mut members = BTreeMap::new();
        for (id, listener) in listeners {
            let data = directory.path().join(id.to_string());
            let scope = scope.child(id.to_string());
            let options = RaftOptions {
                peers: peers.clone(),
                heartbeat_ms: 100,
                election_min_ms: 400,
                election_max_ms: 800,
                ..RaftOptions::new(id, address(&listener), &data)
            };
            let log = Arc::new(RaftLog::open(options, &scope).await.unwrap());
            let routes = Routes::new(log.raft_server());
            let configuration = Configuration::new();
            let manager = start(id, listener, log.clone(), configuration, data, None, routes, &scope).await;
            members.insert(id, Member { log, manager, scope });
        }
        Self { members, addresses, _directory: directory, _scope: scope }
    }

    async fn leader(&self) -> NodeId {
        soon("a leader", async {
            loop {
                let leads = |(_, member): &(&NodeId, &Member)| member.log.leadership().borrow().is_leader;
                if let Some((id, _)) = self.members.iter().find(leads) {
                    return *id;
                }
                tokio::time::sleep(Duration::from_millis(10)).await; // not a wait: the pause between two looks
            }
        })
        .await
    }

    /// Stops the leader as if it had been killed.
    async fn lose_leader(&mut self) {
        let id = self.leader().await;
        let member = self.members.remove(&id).unwrap();
        member.scope.cancel();
        member.log.shutdown().await;
        hold(&member.manager.address, &self._scope).await;
    }

    /// A task manager at whoever leads.
    async fn task_manager(&self, name: &str, running: &[v1::RunningTasks]) -> FakeTaskManager {
        soon("a registration", async {
            loop {
                let leader = self.leader().await;
                let address = &self.members[&leader].manager.address;
                if let Ok(manager) = FakeTaskManager::connect(address, name, 1, running.to_vec()).await {
                    return manager;
                }
                tokio::time::sleep(Duration::from_millis(10)).await; // not a wait: the pause between two looks
            }
        })
        .await
    }

    async fn submit(&self) -> JobId {
        let leader = self.leader().await;
        let directory = self._directory.path().join("checkpoints");
        let graph = graph(2, Some(&directory));
        self.members[&leader]
            .manager
            .submit_embedded(graph, Default::default(), BTreeMap::new())
            .await
            .unwrap()
    }
}

/// Keeps a port for the rest of the test, and serves nothing there. The system would give it to another test beside this one, whose job managers have the
/// same numbers: the members that are left, and clients, would then talk to another cluster.
async fn hold(address: &str, scope: &TaskScope) {
    let port = soon("the port of a lost leader", async {
        loop {
            if let Ok(port) = TcpListener::bind(address).await {
                return port;
            }
            tokio::time::sleep(Duration::from_millis(1)).await; // not a wait: the pause between two looks
        }
    });
    let port = port.await;
    scope.spawn("held port", async move { while port.accept().await.is_ok() {} });
}

async fn running_job(trio: &Trio) -> (JobId, FakeTaskManager, FakeTaskManager, JobClient) {
    let (mut a, mut b) = (trio.task_manager("a", &[]).await, trio.task_manager("b", &[]).await);
    let job = trio.submit().await;
    tokio::join!(a.deployed(), b.deployed());
    a.status(job, 1, Reported::Running).await;
    b.status(job, 1, Reported::Running).await;
    let client = JobClient::connect(trio.addresses.clone()).await.unwrap();
    job_is(&client, job, "running", |job| job.status == JobStatus::Running).await;
    (job, a, b, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_job_is_adopted_by_the_next_leader() {
    let mut trio = Trio::start().await;
    let (job, mut a, b, client) = running_job(&trio).await;
    let old_term = a.term;
    let trigger = a.until(trigger_checkpoint).await;
    trio.lose_leader().await;

    let mut a2 = trio.task_manager("a", &a.running(job, 1, Reported::Running)).await;
    let mut b2 = trio.task_manager("b", &b.running(job, 1, Reported::Running)).await;
    assert!(a2.term > old_term, "messages carry the new term");
    // The checkpoint of the old leader is dead; the next one has a new id.
    let next = a2.until(trigger_checkpoint).await;
    assert!(next.checkpoint_id > trigger.checkpoint_id && next.attempt == 1);
    a2.acknowledge(job, 1, next.checkpoint_id).await;
    b2.acknowledge(job, 1, next.checkpoint_id).await;
    assert_eq!(b2.until(checkpoint_completed).await.checkpoint_id, next.checkpoint_id);
    let details = client.describe(job).await.unwrap();
    assert_eq!((details.summary.status, details.summary.attempt), (JobStatus::Running, 1));
    assert!(details.failures.is_empty(), "nothing was disturbed");
    let other = trio.submit().await;
    job_is(&client, other, "a submission to the new leader", |job| job.status == JobStatus::Created).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_died_with_the_leader_are_restarted_from_the_last_checkpoint() {
    let mut trio = Trio::start().await;
    let (job, mut a, mut b, client) = running_job(&trio).await;
    let checkpoint = a.until(trigger_checkpoint).await.checkpoint_id;
    a.acknowledge(job, 1, checkpoint).await;
    b.acknowledge(job, 1, checkpoint).await;
    b.until(checkpoint_completed).await;
    trio.lose_leader().await;

    let mut a2 = trio.task_manager("a", &a.running(job, 1, Reported::Running)).await;
    // Task manager b was started anew and knows nothing.
    let mut b2 = trio.task_manager("b", &[]).await;
    a2.until(cancel_tasks).await;
    a2.tasks_stopped(job, 1).await;
    b2.until(cancel_tasks).await;
    b2.tasks_stopped(job, 1).await;
    let (on_a, on_b) = tokio::join!(a2.deployed(), b2.deployed());
    assert_eq!((on_a.attempt, on_a.restored_checkpoint_id), (2, checkpoint));
    assert_eq!(on_b.restored_checkpoint_id, checkpoint);
    let failure = client.describe(job).await.unwrap().failures[0].failure.message.clone();
    assert_eq!(failure, "task manager b does not run its tasks any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancellation_survives_the_leader() {
    let mut trio = Trio::start().await;
    let (job, mut a, b, client) = running_job(&trio).await;
    client.cancel(job).await.unwrap();
    a.until(cancel_tasks).await;
    trio.lose_leader().await;
    let mut a2 = trio.task_manager("a", &a.running(job, 1, Reported::Canceling)).await;
    let _b2 = trio.task_manager("b", &b.running(job, 1, Reported::Canceled)).await;
    a2.until(cancel_tasks).await;
    a2.tasks_stopped(job, 1).await;
    job_is(&client, job, "the end", |job| job.status == JobStatus::Canceled).await;
    a2.until(stop_worker).await;
}

/// A leader and the other two, which know it.
#[cfg(feature = "rest")]
async fn followers(trio: &Trio) -> (&Member, Vec<&Member>) {
    let leader = trio.leader().await;
    let others = trio.members.iter().filter(|(id, _)| **id != leader).map(|(_, member)| member);
    let others: Vec<_> = others.collect();
    for member in &others {
        let mut leadership = member.log.leadership();
        soon("a known leader", leadership.wait_for(|leadership| leadership.leader.is_some())).await.unwrap();
    }
    (&trio.members[&leader], others)
}

#[cfg(feature = "rest")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_answer_by_rest_what_the_leader_answers() {
    use crate::rest::{get, refusal, request};
    let trio = Trio::start().await;
    let (leader, followers) = followers(&trio).await;
    let url = &leader.manager.rest_url;
    let job = trio.submit().await;
    for follower in followers {
        let follower_url = &follower.manager.rest_url;
        for path in
            ["/v1/jobs/overview?a=b", "/openapi.json", &format!("/jobs/{job}/plan"), "/thalweg/cluster"]
        {
            let answer = request(follower_url, "GET", path, "").await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.head);
            assert_eq!(
                crate::rest::names(&answer.json().unwrap()),
                crate::rest::names(&get(url, path).await)
            );
            assert!(answer.header("connection").is_none_or(|value| value == "close"), "{}", answer.head);
        }
        // Refusals too, of what is asked and how.
        for (method, path) in [("GET", "/jobs/1"), ("PATCH", "/jobs/1?mode=cancel"), ("PUT", "/jobs")] {
            let (asked, here) =
                (request(url, method, path, "").await, request(follower_url, method, path, "").await);
            assert_eq!((asked.status, asked.body), (here.status, here.body), "{method} {path}");
        }
        let unknown = request(follower_url, "GET", "/nowhere", "").await;
        assert!(unknown.status == 404 && refusal(&unknown).contains("`/nowhere`"), "{}", refusal(&unknown));
        let page = request(follower_url, "GET", "/", "").await;
        assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    }
}

#[cfg(feature = "rest")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_passed_on_once_is_not_passed_on_again() {
    use thalweg_proto::transport::{Dialer, endpoint};
    use tonic::codegen::{Service, http};
    let trio = Trio::start().await;
    let (leader, followers) = followers(&trio).await;
    let ask = async |member: &Member, path: &str| {
        let mut port = Dialer::default().connect(&endpoint(&member.manager.address).unwrap()).await.unwrap();
        std::future::poll_fn(|context| port.poll_ready(context)).await.unwrap();
        let request = http::Request::get(path).version(http::Version::HTTP_2);
        port.call(request.body(tonic::body::Body::empty()).unwrap()).await.unwrap().status().as_u16()
    };
    assert_eq!(ask(leader, "/thalweg.rest/v1/jobs").await, 200);
    assert_eq!(ask(leader, "/thalweg.rest/nowhere").await, 404);
    assert_eq!(ask(followers[0], "/thalweg.rest/v1/jobs").await, 503);
}

#[cfg(feature = "rest")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_binary_is_uploaded_through_a_follower() {
    use crate::rest::{get, refusal, request};
    let trio = Trio::start().await;
    let (leader, followers) = followers(&trio).await;
    // More than is under way at any time.
    let binary: Vec<u8> =
        (0..5_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let head = "--x\r\nContent-Disposition: form-data; name=\"jarfile\"; filename=\"job\"\r\n\r\n";
    let body = [head.as_bytes(), &binary, b"\r\n--x--\r\n"].concat();
    let url = &followers[0].manager.rest_url;
    let form = "multipart/form-data; boundary=x";
    let uploaded =
        thalweg_test_support::http::request_of(url, "POST", "/jars/upload", form, &body).await.unwrap();
    assert_eq!(uploaded.status, 200, "{}", refusal(&uploaded));
    let hash = thalweg_proto::blob::BlobHash::of(&binary).to_string();
    let id =
        get(&followers[1].manager.rest_url, "/jars").await["files"][0]["id"].as_str().unwrap().to_string();
    assert!(id.starts_with(&hash), "{id} of {hash}");
    assert_eq!(get(&leader.manager.rest_url, "/jars").await["files"][0]["id"], id.as_str());
    let deleted = request(url, "DELETE", &format!("/jars/{id}"), "").await;
    assert_eq!(deleted.status, 200, "{}", refusal(&deleted));
    assert_eq!(get(url, "/jars").await["files"], serde_json::json!([]));
}
