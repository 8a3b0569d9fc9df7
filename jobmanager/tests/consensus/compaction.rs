//! The log does not grow for ever, and a node that needs what was purged gets the snapshot.

use thalweg_jobmanager::consensus::Consensus;

use crate::cluster::{Cluster, has, soon};

const SNAPSHOT_AFTER: u64 = 20;

/// Waits until every running node has purged its log up to a snapshot that is past `index`.
async fn all_purged_past(cluster: &Cluster, index: u64) {
    for id in cluster.ids() {
        let log = cluster.log(id);
        let purged = log.when(|status| status.purged_index.is_some_and(|purged| purged > index));
        let status = soon("purging the log", purged).await.unwrap();
        assert!(status.snapshot_index >= status.purged_index, "purged without a snapshot: {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purged_log_and_its_snapshot_survive_a_restart() {
    let mut cluster = Cluster::start_compacting(1, SNAPSHOT_AFTER).await;
    cluster.submit(0..70).await;
    all_purged_past(&cluster, 40).await;
    let before = cluster.log(1).status();
    cluster.stop(1).await;

    cluster.restart(1).await;
    let now = cluster.log(1).status();
    assert_eq!((now.snapshot_index, now.purged_index), (before.snapshot_index, before.purged_index));
    assert_eq!(now.voters, [1]);
    cluster.all_have(70).await;
    cluster.submit(70..75).await;
    cluster.all_have(75).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_too_long_catches_up_by_snapshot() {
    let mut cluster = Cluster::start_compacting(3, SNAPSHOT_AFTER).await;
    cluster.submit(0..5).await;
    cluster.all_have(5).await;
    let away = cluster.followers().await[0];
    let missed = cluster.log(away).status().last_index.unwrap();
    cluster.stop(away).await;
    cluster.submit(5..100).await;
    all_purged_past(&cluster, missed + 1).await;

    cluster.restart(away).await;
    cluster.all_have(100).await;
    let status = cluster.log(away).status();
    assert!(status.snapshot_index > Some(missed), "it came from a snapshot: {status:?}");
    cluster.submit(100..105).await;
    cluster.all_have(105).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_gets_the_snapshot_and_votes() {
    let mut cluster = Cluster::start_compacting(1, SNAPSHOT_AFTER).await;
    cluster.submit(0..70).await;
    all_purged_past(&cluster, 40).await;

    cluster.start_joining(2).await;
    cluster.log(1).add_member(2, cluster.node(2)).await.unwrap();
    cluster.all_have(70).await;
    let status = soon("voting", cluster.log(2).when(|status| status.voters == [1, 2])).await.unwrap();
    assert!(status.learners.is_empty());
    assert!(has(&cluster.member(2).state(), 70));

    // What it got is on its disk.
    cluster.stop(2).await;
    cluster.restart(2).await;
    cluster.submit(70..72).await;
    cluster.all_have(72).await;
    cluster.stop_all().await;
}
