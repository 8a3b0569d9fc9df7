//! Messages that no job manager of this cluster sends, and nodes that cannot go on.

use openraft::{CommittedLeaderId, LogId, SnapshotMeta, Vote};
use thalweg_common::codec;
use thalweg_jobmanager::consensus::{Consensus, Node, NodeId, ProposeError};
use thalweg_proto::v1::raft_service_client::RaftServiceClient;
use thalweg_proto::v1::{RaftMessage, RaftSender, SnapshotChunk};
use tonic::Code;
use tonic::transport::Channel;

use crate::cluster::{Cluster, large_submission, soon, submission};

async fn client(cluster: &Cluster, id: NodeId) -> RaftServiceClient<Channel> {
    let address = format!("http://{}", cluster.node(id).address);
    RaftServiceClient::new(Channel::from_shared(address).unwrap().connect().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_for_another_node_or_in_another_form_are_refused() {
    let mut cluster = Cluster::start(1).await;
    cluster.submit(0..1).await;
    let mut client = client(&cluster, 1).await;

    let for_another = RaftMessage { payload: vec![1, 2, 3].into(), target: 2, sender: None };
    let status = client.vote(for_another.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("this is job manager 1, not 2"), "{status}");
    assert_eq!(client.append_entries(for_another).await.unwrap_err().code(), Code::FailedPrecondition);

    let rubbish = RaftMessage { payload: vec![1, 2, 3].into(), target: 1, sender: None };
    assert_eq!(client.vote(rubbish.clone()).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(client.append_entries(rubbish).await.unwrap_err().code(), Code::InvalidArgument);

    let chunk = SnapshotChunk { header: vec![1, 2, 3].into(), target: 1, ..SnapshotChunk::default() };
    let status = client.install_snapshot(tokio_stream::iter([chunk])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let status = client.install_snapshot(tokio_stream::iter([])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);

    cluster.submit(1..2).await;
    cluster.all_have(2).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_another_cluster_are_refused() {
    let mut cluster = Cluster::start(2).await;
    cluster.submit(0..1).await;
    let mut client = client(&cluster, 1).await;
    let stranger = Some(RaftSender { id: 2, address: "elsewhere:6123".into() });
    let message = RaftMessage { payload: vec![1, 2, 3].into(), target: 1, sender: stranger.clone() };
    let chunk = SnapshotChunk { target: 1, sender: stranger, ..SnapshotChunk::default() };
    for answer in [
        client.vote(message.clone()).await,
        client.append_entries(message).await,
        client.install_snapshot(tokio_stream::iter([chunk])).await,
    ] {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        let known = cluster.node(2).address;
        assert!(status.message().contains(&known) && status.message().contains("elsewhere:6123"), "{status}");
    }
    cluster.submit(1..2).await;
    cluster.all_have(2).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_at_the_address_of_a_lost_one_is_not_drawn_into_its_cluster() {
    let mut old = Cluster::start(2).await;
    old.submit(100..105).await;
    let leader = old.leader().await;
    let lost = 3 - leader;
    let address = old.node(lost).address;
    old.stop(lost).await;
    let mut new = Cluster::start_with(2, lost, address.parse().unwrap()).await;
    new.submit(0..2).await;
    new.all_have(2).await;

    // The old leader asks the new node to store this; with its word it would have a majority.
    let error = old.log(leader).propose(submission(105)).await.unwrap_err();
    assert!(matches!(error, ProposeError::NotLeader { .. } | ProposeError::Unavailable { .. }), "{error}");
    new.submit(2..3).await;
    new.all_have(3).await;
    new.stop_all().await;
    old.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_gets_a_snapshot_it_cannot_read_stops_and_says_why() {
    let mut cluster = Cluster::start(1).await;
    cluster.leader().await;
    cluster.start_joining(2).await;

    // A leader's snapshot that this node cannot read: it can neither take part without it nor pass it over.
    let vote = Vote::<NodeId>::new_committed(9, 1);
    let meta: SnapshotMeta<NodeId, Node> = SnapshotMeta {
        last_log_id: Some(LogId::new(CommittedLeaderId::new(9, 1), 100)),
        ..SnapshotMeta::default()
    };
    let header = codec::to_bytes(&(vote, meta)).unwrap();
    let chunk = SnapshotChunk {
        header: header.into(),
        data: vec![255; 40].into(),
        target: 2,
        ..SnapshotChunk::default()
    };
    let answer = client(&cluster, 2).await.install_snapshot(tokio_stream::iter([chunk])).await;
    assert_eq!(answer.unwrap_err().code(), Code::Unavailable);

    let log = cluster.log(2);
    let reason = soon("the reason", log.fatal()).await;
    assert!(reason.contains("written by another version"), "{reason}");
    assert!(log.propose(thalweg_jobmanager::cluster::Command::Noop).await.is_err());
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_fails_stops_and_says_why() {
    let mut cluster = Cluster::start(3).await;
    cluster.submit(0..3).await;
    cluster.all_have(3).await;
    let failing = cluster.leader().await;
    let log = cluster.log(failing);
    // The next file that its log needs cannot be created.
    std::fs::remove_dir_all(cluster.options(failing).data_dir).unwrap();
    let filling = async {
        for number in 0.. {
            // The answers do not matter here: the others may have a majority without it.
            let _ = log.propose(large_submission(number, 1024 * 1024)).await;
        }
    };
    let reason = tokio::select! {
        reason = soon("the reason", log.fatal()) => reason,
        () = filling => unreachable!("it fills until it fails"),
    };
    println!("{reason}");
    assert!(reason.contains("cannot") && reason.contains("restart the job manager"), "{reason}");
    assert!(!log.leadership().borrow().is_leader);
    assert!(log.propose(submission(99)).await.is_err());

    // The others go on.
    cluster.stop(failing).await;
    cluster.propose(submission(1_000)).await;
    cluster.stop_all().await;
}
