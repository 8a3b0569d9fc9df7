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

#[cfg(feature = "rest")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_send_whoever_asks_by_rest_to_the_leader() {
    use crate::rest::{get, refusal, request};
    let trio = Trio::start().await;
    let leader = trio.leader().await;
    let url = &trio.members[&leader].manager.rest_url;
    let knows = |member: &Member| member.log.leadership().borrow().leader.is_some();
    for (_, member) in trio.members.iter().filter(|(id, _)| **id != leader) {
        soon("a known leader", async {
            while !knows(member) {
                tokio::time::sleep(Duration::from_millis(10)).await; // not a wait: the pause between two looks
            }
        })
        .await;
        // The page of the dashboard too.
        for path in ["/v1/jobs/overview?a=b", "/"] {
            let answer = request(&member.manager.rest_url, "GET", path, "").await;
            assert_eq!(answer.status, 307, "{}", answer.head);
            assert_eq!(answer.header("location"), Some(format!("{url}{path}").as_str()));
            assert!(refusal(&answer).contains(url), "{}", refusal(&answer));
        }
        let unknown = request(&member.manager.rest_url, "GET", "/nowhere", "").await;
        assert_eq!(unknown.status, 404, "what is no API needs no leader");
    }
    assert_eq!(get(url, "/v1/jobs/overview").await["jobs"], serde_json::json!([]));
}
