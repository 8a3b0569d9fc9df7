//! Leaders come and go; what was accepted stays, and nothing else does.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use thalweg_common::id::JobId;
use thalweg_common::limits;
use thalweg_jobmanager::cluster::{Command, Outcome};
use thalweg_jobmanager::consensus::{Consensus, ProposeError};

use crate::cluster::{Cluster, has, large_submission, soon, submission};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_leads_and_remembers() {
    let mut cluster = Cluster::start(1).await;
    cluster.submit(0..5).await;
    cluster.stop(1).await;
    cluster.restart(1).await;
    cluster.all_have(5).await;
    assert_eq!(cluster.leader().await, 1);
    cluster.submit(5..6).await;
    cluster.all_have(6).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_a_leader_costs_no_command() {
    let mut cluster = Cluster::start(3).await;
    let (first, first_term) = cluster.leadership().await;
    cluster.submit(0..10).await;
    cluster.all_have(10).await;

    cluster.stop(first).await;
    let (second, second_term) = cluster.leadership().await;
    assert_ne!(first, second);
    assert!(second_term > first_term, "{second_term} after {first_term}");
    assert!(
        has(&cluster.member(second).state(), 10),
        "a new leader has every command when it says that it leads"
    );
    cluster.submit(10..20).await;

    cluster.restart(first).await;
    cluster.all_have(20).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steady_proposals_survive_leader_after_leader() {
    let mut cluster = Cluster::start(3).await;
    let mut terms = BTreeSet::new();
    let mut next = 0;
    for _ in 0..4 {
        let (leader, term) = cluster.leadership().await;
        assert!(terms.insert(term), "term {term} has had a leader before");
        // Half of them are on their way when the leader goes.
        let log = cluster.log(leader);
        cluster.submit(next..next + 10).await;
        let on_their_way = (next + 10..next + 20).map(|number| {
            let log = log.clone();
            async move { log.propose(submission(number)).await }
        });
        let (_, ()) = tokio::join!(join_all(on_their_way), cluster.stop(leader));
        cluster.submit(next + 10..next + 20).await;
        next += 20;
        cluster.restart(leader).await;
    }
    cluster.all_have(next).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_names_the_leader() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    for follower in cluster.followers().await {
        let log = cluster.log(follower);
        let mut leadership = log.leadership();
        soon("knowing the leader", leadership.wait_for(|now| now.leader.is_some())).await.unwrap();
        let error = log.propose(submission(0)).await.unwrap_err();
        assert_eq!(error, ProposeError::NotLeader { leader: Some(cluster.node(leader).address) });
        let error = log.remove_member(leader).await.unwrap_err();
        assert_eq!(error, ProposeError::NotLeader { leader: Some(cluster.node(leader).address) });
    }
    assert!(has(&cluster.member(leader).state(), 0));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_commits_nothing_and_its_leader_stops_leading() {
    let mut cluster = Cluster::start(3).await;
    cluster.submit(0..3).await;
    cluster.all_have(3).await;
    let leader = cluster.leader().await;
    let followers = cluster.followers().await;
    for &follower in &followers {
        cluster.stop(follower).await;
    }

    let log = cluster.log(leader);
    let error = log.propose(submission(99)).await.unwrap_err();
    assert!(matches!(error, ProposeError::Unavailable { .. }), "{error}");
    let mut leadership = log.leadership();
    soon("losing the leadership", leadership.wait_for(|now| !now.is_leader)).await.unwrap();
    assert!(has(&cluster.member(leader).state(), 3), "nothing was applied without a majority");
    cluster.stop(leader).await;

    // The others know nothing of job 99 and go on; the old leader's entry has to give way to theirs.
    for &follower in &followers {
        cluster.restart(follower).await;
    }
    cluster.submit(3..6).await;
    cluster.restart(leader).await;
    cluster.all_have(6).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_come_back_from_their_disks() {
    let mut cluster = Cluster::start(3).await;
    cluster.submit(0..10).await;
    cluster.all_have(10).await;
    let before: Vec<_> = cluster.ids().iter().map(|&id| cluster.log(id).status()).collect();
    cluster.stop_all().await;

    for (id, before) in (1..).zip(before) {
        cluster.restart(id).await;
        let now = cluster.log(id).status();
        assert!(now.term >= before.term, "job manager {id} forgot its vote: {now:?} after {before:?}");
        assert!(
            now.last_index >= before.last_index,
            "job manager {id} forgot entries: {now:?} after {before:?}"
        );
        assert_eq!(now.voters, [1, 2, 3]);
    }
    cluster.all_have(10).await;
    cluster.submit(10..12).await;
    cluster.all_have(12).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_at_the_same_time_share_entries_and_get_their_own_answers() {
    const PROPOSALS: u128 = 500;
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let log = cluster.log(leader);
    let before = log.status().last_index.unwrap();
    let proposals = (0..PROPOSALS).map(|number| {
        let log = log.clone();
        async move { log.propose(submission(number)).await }
    });
    let answers = soon("500 answers", join_all(proposals)).await;
    for (number, answer) in (0..PROPOSALS).zip(answers) {
        assert_eq!(answer, Ok(Outcome::Submitted { job_id: JobId(number), repeated: false }));
    }
    let entries = log.status().last_index.unwrap() - before;
    assert!(u128::from(entries) < PROPOSALS / 2, "{entries} entries for {PROPOSALS} commands");
    cluster.all_have(PROPOSALS).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_commands_pass_and_too_large_ones_are_refused() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let too_large = large_submission(7, limits::RAFT_MAX_COMMAND_BYTES);
    let error = cluster.log(leader).propose(too_large).await.unwrap_err();
    assert!(matches!(error, ProposeError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("smaller"), "{error}");
    for number in 0..3 {
        cluster.propose(large_submission(number, limits::RAFT_MAX_COMMAND_BYTES / 2)).await;
    }
    cluster.all_have(3).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_accepted_after_a_shutdown() {
    let cluster = Cluster::start(1).await;
    let log = cluster.log(cluster.leader().await);
    log.shutdown().await;
    assert!(!log.leadership().borrow().is_leader);
    let error = log.propose(Command::Noop).await.unwrap_err();
    assert!(matches!(error, ProposeError::Unavailable { .. }), "{error}");
    log.shutdown().await;
}
