//! Job managers are added and removed while the cluster works.

use thalweg_jobmanager::consensus::raft::RaftOptions;
use thalweg_jobmanager::consensus::{Consensus, Node, ProposeError};

use crate::cluster::{Cluster, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_one_grows_to_three_and_survives_its_first_node() {
    let mut cluster = Cluster::start(1).await;
    cluster.submit(0..3).await;
    for id in [2, 3] {
        cluster.start_joining(id).await;
        let leader = cluster.log(cluster.leader().await);
        leader.add_member(id, cluster.node(id)).await.unwrap();
        leader.add_member(id, cluster.node(id)).await.unwrap();
    }
    cluster.all_have(3).await;
    for id in cluster.ids() {
        let log = cluster.log(id);
        soon("knowing all voters", log.when(|status| status.voters == [1, 2, 3])).await.unwrap();
        assert_eq!(log.members()[&id], cluster.node(id));
    }

    cluster.stop(1).await;
    cluster.submit(3..6).await;
    cluster.restart(1).await;
    cluster.all_have(6).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_can_be_removed_down_to_the_last_one_the_leader_too() {
    let mut cluster = Cluster::start(3).await;
    cluster.submit(0..3).await;
    cluster.all_have(3).await;

    let follower = cluster.followers().await[0];
    let leader = cluster.leader().await;
    cluster.log(leader).remove_member(follower).await.unwrap();
    cluster.log(leader).remove_member(follower).await.unwrap();
    assert!(!cluster.log(leader).members().contains_key(&follower));
    cluster.stop(follower).await;
    cluster.submit(3..5).await;

    let leader = cluster.leader().await;
    cluster.log(leader).remove_member(leader).await.unwrap();
    let mut leadership = cluster.log(leader).leadership();
    soon("stepping down", leadership.wait_for(|now| !now.is_leader)).await.unwrap();
    cluster.stop(leader).await;

    let last = cluster.leader().await;
    assert_eq!(cluster.ids(), [last]);
    cluster.submit(5..7).await;
    let error = cluster.log(last).remove_member(last).await.unwrap_err();
    assert!(matches!(error, ProposeError::Refused { .. }), "{error}");
    assert_eq!(cluster.log(last).members().into_keys().collect::<Vec<_>>(), [last]);
    cluster.all_have(7).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_makes_no_sense_is_refused() {
    let mut cluster = Cluster::start(1).await;
    let log = cluster.log(cluster.leader().await);
    let own = cluster.node(1);
    let elsewhere = Node { address: "127.0.0.1:1".to_string() };
    let nonsense = Node { address: "nonsense".to_string() };
    for (id, node) in [(1, elsewhere), (2, own), (2, nonsense)] {
        let error = log.add_member(id, node).await.unwrap_err();
        assert!(matches!(error, ProposeError::Refused { .. }), "{error}");
    }
    assert_eq!(log.members().len(), 1);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_may_move_as_long_as_it_is_alone() {
    let mut cluster = Cluster::start(1).await;
    cluster.submit(0..2).await;
    let old = cluster.node(1);
    cluster.stop(1).await;
    cluster.restart_elsewhere(1).await;
    cluster.leader().await;
    assert_ne!(cluster.node(1), old);
    assert_eq!(cluster.log(1).members()[&1], cluster.node(1));
    assert_eq!(cluster.log(1).leadership().borrow().leader, Some((1, cluster.node(1))));
    cluster.all_have(2).await;
    cluster.stop_all().await;

    let mut cluster = Cluster::start(3).await;
    cluster.submit(0..2).await;
    cluster.all_have(2).await;
    cluster.stop(3).await;
    let moved = RaftOptions { address: "127.0.0.1:1".to_string(), ..cluster.options(3) };
    let reason = cluster.failed_start(moved).await;
    assert!(reason.contains("start it at the old address"), "{reason}");
    cluster.restart(3).await;
    cluster.submit(2..4).await;
    cluster.all_have(4).await;
    cluster.stop_all().await;
}
