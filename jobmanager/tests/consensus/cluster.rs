//! Job managers' logs in one process, each with its own directory and gRPC server, that can be stopped and started.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::select_all;
use tempfile::TempDir;
use thalweg_common::config::{CheckpointConfig, Configuration, RestartStrategy};
use thalweg_common::graph::{JobGraph, PROTOCOL_VERSION};
use thalweg_common::id::{JobId, SubmissionId};
use thalweg_common::task_scope::TaskScope;
use thalweg_jobmanager::cluster::{ClusterState, Command, Outcome, SubmitJob};
use thalweg_jobmanager::consensus::raft::{RaftLog, RaftOptions};
use thalweg_jobmanager::consensus::{Consensus, Node, NodeId, ProposeError};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// Longest wait for anything. Far more than it takes, because the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

const GRACE: Duration = Duration::from_secs(20);

/// Waits for `what` and fails with its name when it does not come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen in {DEADLINE:?}"))
}

pub struct Member {
    pub log: Arc<RaftLog>,
    server: TaskScope,
}

impl Member {
    /// Waits until this node's state is as `reached` wants.
    pub async fn state_is(&self, what: &str, reached: impl Fn(&ClusterState) -> bool) {
        soon(what, async {
            let mut changes = self.log.state().changes();
            while !reached(&self.log.state().read()) {
                changes.changed().await.unwrap();
            }
        })
        .await;
    }

    pub fn state(&self) -> ClusterState {
        self.log.state().read().clone()
    }
}

/// A cluster of which some members run.
pub struct Cluster {
    directory: TempDir,
    scope: TaskScope,
    addresses: BTreeMap<NodeId, SocketAddr>,
    founders: BTreeMap<NodeId, Node>,
    snapshot_after_entries: u64,
    running: BTreeMap<NodeId, Member>,
}

impl Cluster {
    /// Starts nodes 1 to `size`.
    pub async fn start(size: u64) -> Self {
        Self::start_compacting(size, 5_000).await
    }

    /// Starts nodes 1 to `size` that compact their logs after so many entries.
    pub async fn start_compacting(size: u64, snapshot_after_entries: u64) -> Self {
        Self::found(size, snapshot_after_entries, BTreeMap::new()).await
    }

    /// Starts nodes 1 to `size`, of which one takes an address that was another's.
    pub async fn start_with(size: u64, id: NodeId, address: SocketAddr) -> Self {
        Self::found(size, 5_000, BTreeMap::from([(id, address)])).await
    }

    async fn found(size: u64, snapshot_after_entries: u64, given: BTreeMap<NodeId, SocketAddr>) -> Self {
        let mut cluster = Self {
            directory: TempDir::new().unwrap(),
            scope: TaskScope::new("cluster"),
            addresses: given,
            founders: BTreeMap::new(),
            snapshot_after_entries,
            running: BTreeMap::new(),
        };
        let mut listeners = Vec::new();
        for id in 1..=size {
            let listener = match cluster.addresses.get(&id) {
                Some(given) => bind_again(*given).await,
                None => cluster.new_address(id).await,
            };
            cluster.founders.insert(id, cluster.node(id));
            listeners.push((id, listener));
        }
        for (id, listener) in listeners {
            cluster.run(id, listener, false).await;
        }
        cluster
    }

    async fn new_address(&mut self, id: NodeId) -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.addresses.insert(id, listener.local_addr().unwrap());
        listener
    }

    pub fn node(&self, id: NodeId) -> Node {
        Node { address: self.addresses[&id].to_string() }
    }

    pub fn options(&self, id: NodeId) -> RaftOptions {
        RaftOptions {
            // A founder whose address has changed lists itself as it is now.
            peers: self.founders.clone().into_iter().filter(|(peer, _)| *peer != id).collect(),
            heartbeat_ms: 100,
            election_min_ms: 400,
            election_max_ms: 800,
            snapshot_after_entries: self.snapshot_after_entries,
            propose_timeout_ms: 2_000,
            ..RaftOptions::new(
                id,
                self.addresses[&id].to_string(),
                self.directory.path().join(id.to_string()),
            )
        }
    }

    async fn run(&mut self, id: NodeId, listener: TcpListener, join: bool) {
        let options = RaftOptions { join, ..self.options(id) };
        let log = Arc::new(RaftLog::open(options, &self.scope).await.unwrap());
        let server = self.scope.child(format!("server-{id}"));
        let stopped = server.token();
        let serving = Server::builder().add_service(log.raft_server()).serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            stopped.cancelled_owned(),
        );
        server.spawn_fallible("serve", serving);
        self.running.insert(id, Member { log, server });
    }

    /// Starts a node that was stopped, from its disk.
    pub async fn restart(&mut self, id: NodeId) {
        let listener = bind_again(self.addresses[&id]).await;
        self.run(id, listener, false).await;
    }

    /// Starts a node that was stopped, from its disk, at another address.
    pub async fn restart_elsewhere(&mut self, id: NodeId) {
        let listener = self.new_address(id).await;
        self.run(id, listener, false).await;
    }

    /// Why a node that was stopped cannot be started with these options.
    pub async fn failed_start(&self, options: RaftOptions) -> String {
        match RaftLog::open(options, &self.scope).await {
            Ok(_) => panic!("it started"),
            Err(error) => error.to_string(),
        }
    }

    /// Starts a node that waits to be added.
    pub async fn start_joining(&mut self, id: NodeId) {
        let listener = self.new_address(id).await;
        self.run(id, listener, true).await;
    }

    /// Stops a node without a word to the others.
    pub async fn stop(&mut self, id: NodeId) {
        let member = self.running.remove(&id).unwrap();
        member.log.shutdown().await;
        member.server.shutdown(GRACE).await.unwrap();
    }

    pub async fn stop_all(&mut self) {
        for id in self.ids() {
            self.stop(id).await;
        }
    }

    /// The nodes that run.
    pub fn ids(&self) -> Vec<NodeId> {
        self.running.keys().copied().collect()
    }

    pub fn member(&self, id: NodeId) -> &Member {
        &self.running[&id]
    }

    pub fn log(&self, id: NodeId) -> Arc<RaftLog> {
        Arc::clone(&self.running[&id].log)
    }

    /// Waits for a node that leads.
    pub async fn leader(&self) -> NodeId {
        self.leadership().await.0
    }

    /// Waits for a node that leads and returns its term too.
    pub async fn leadership(&self) -> (NodeId, u64) {
        let leading = |(&id, member): (&NodeId, &Member)| {
            let mut leadership = member.log.leadership();
            async move { (id, leadership.wait_for(|leadership| leadership.is_leader).await.unwrap().term) }
                .boxed()
        };
        soon("an election", select_all(self.running.iter().map(leading))).await.0
    }

    /// Running nodes that do not lead.
    pub async fn followers(&self) -> Vec<NodeId> {
        let leader = self.leader().await;
        self.ids().into_iter().filter(|id| *id != leader).collect()
    }

    /// Proposes until it is accepted, whoever leads.
    pub async fn propose(&self, command: Command) -> Outcome {
        soon("accepting a command", async {
            loop {
                let leader = self.leader().await;
                match self.member(leader).log.propose(command.clone()).await {
                    Ok(outcome) => return outcome,
                    Err(ProposeError::Refused { reason }) => panic!("refused: {reason}"),
                    Err(ProposeError::NotLeader { .. } | ProposeError::Unavailable { .. }) => {}
                }
            }
        })
        .await
    }

    /// Submits the jobs with these numbers, one after the other.
    pub async fn submit(&self, jobs: std::ops::Range<u128>) {
        for number in jobs {
            self.propose(submission(number)).await;
        }
    }

    /// Waits until all running nodes have exactly the jobs `0..count`, and checks that their states are the same.
    pub async fn all_have(&self, count: u128) {
        for (id, member) in &self.running {
            member
                .state_is(&format!("job manager {id} having {count} jobs"), |state| has(state, count))
                .await;
        }
        let states: Vec<_> = self.running.values().map(Member::state).collect();
        assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "the states differ");
    }
}

/// Listens where somebody else did before.
async fn bind_again(address: SocketAddr) -> TcpListener {
    soon("binding the old port", async {
        loop {
            // The port may be another process's for a moment.
            match TcpListener::bind(address).await {
                Ok(listener) => return listener,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await
}

/// Whether exactly the jobs `0..count` were submitted.
pub fn has(state: &ClusterState, count: u128) -> bool {
    state.jobs().map(|job| job.id).eq((0..count).map(JobId))
}

/// The submission of a job with this number. Repeating it changes nothing.
pub fn submission(number: u128) -> Command {
    let configuration = Configuration::default();
    let graph = JobGraph {
        protocol_version: PROTOCOL_VERSION,
        name: format!("job {number}"),
        vertices: Vec::new(),
        edges: Vec::new(),
        checkpointing: CheckpointConfig::from_configuration(&configuration).unwrap(),
        restart_strategy: RestartStrategy::None,
        warnings: Vec::new(),
    };
    Command::SubmitJob(SubmitJob {
        job_id: JobId(number),
        submission_id: SubmissionId(number),
        name: graph.name.clone(),
        binary: None,
        arguments: vec!["--verbose".to_string()],
        properties: Default::default(),
        configuration: BTreeMap::from([("parallelism.default".to_string(), "4".to_string())]),
        graph: Arc::new(graph),
        checkpoint_directory: None,
        base: None,
        warnings: Vec::new(),
        time_ms: 1_700_000_000_000,
    })
}

/// A submission that is `bytes` large.
pub fn large_submission(number: u128, bytes: usize) -> Command {
    match submission(number) {
        Command::SubmitJob(job) => {
            Command::SubmitJob(SubmitJob { arguments: vec!["x".repeat(bytes)], ..job })
        }
        other => other,
    }
}
