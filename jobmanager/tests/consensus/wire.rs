//! Messages that no job manager of this cluster sends, and nodes that cannot go on.

use openraft::{CommittedLeaderId, LogId, SnapshotMeta, Vote};
use thalweg_common::codec;
use thalweg_jobmanager::consensus::{Consensus, Node, NodeId};
use thalweg_proto::v1::raft_service_client::RaftServiceClient;
use thalweg_proto::v1::{RaftMessage, SnapshotChunk};
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

    let for_another = RaftMessage { payload: vec![1, 2, 3].into(), target: 2 };
    let status = client.vote(for_another.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("this is job manager 1, not 2"), "{status}");
    assert_eq!(client.append_entries(for_another).await.unwrap_err().code(), Code::FailedPrecondition);

    let rubbish = RaftMessage { payload: vec![1, 2, 3].into(), target: 1 };
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
    let chunk = SnapshotChunk { header: header.into(), data: vec![255; 40].into(), target: 2 };
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
