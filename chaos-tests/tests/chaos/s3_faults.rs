//! An S3 that denies everything while a job runs: people are told what is denied and what to allow, nobody asks again and again, and
//! the job goes on from its last good checkpoint when it is allowed.

use anyhow::Result;
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::trial::Trial;
use thalweg_chaos_tests::wait;
use thalweg_common::status::JobStatus;
use thalweg_proto::model::SavepointMode;
use thalweg_test_support::{FaultProxy, Faults, S3Peer};

const BUCKET: &str = "checkpoints";
const DENIED: Faults = Faults {
    denied: 1_000,
    slow_down: 0,
    reset_before: 0,
    reset_after: 0,
    slow_body: 0,
    truncated: 0,
    silence: 0,
};
/// What is said of a denied request.
const CAUSE: [&str; 3] = [
    "AccessDenied: Access Denied (HTTP 403)",
    "s3://checkpoints/jobs/",
    "allow these credentials s3:GetObject",
];
/// Far more than one checkpoint or one restart of this job needs.
const REQUESTS_EACH: u64 = 40;

async fn start(tolerated: &str) -> Result<(S3Peer, FaultProxy, Trial)> {
    let peer = S3Peer::start().await?;
    peer.create_bucket(BUCKET).await?;
    let proxy = FaultProxy::start(peer.address(), 1).await?;
    let mut options = ClusterOptions::default()
        .set("s3.endpoint", &format!("http://{}", proxy.address()))
        .set("s3.region", "us-east-1");
    let credentials = peer.credentials_file().display().to_string();
    options.environment.insert("AWS_SHARED_CREDENTIALS_FILE".to_string(), credentials);
    options.environment.insert("AWS_EC2_METADATA_DISABLED".to_string(), "true".to_string());
    let cluster = Cluster::start(options).await?;
    let tolerated = ("execution.checkpointing.tolerable-failed-checkpoints", tolerated);
    let trial = Trial::start(cluster, &format!("s3://{BUCKET}/jobs"), &[tolerated]).await?;
    Ok((peer, proxy, trial))
}

fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is missing in: {text}");
    }
}

#[tokio::test]
async fn denied_checkpoints_are_given_up_at_once_and_the_job_runs_on() -> Result<()> {
    let (_peer, proxy, trial) = start("1000").await?;
    proxy.set_faults(DENIED);
    let failed = trial.failed_checkpoints(5, || Ok(())).await?;
    assert_says(&failed[0].1, &CAUSE);
    let checkpoints = trial.details().await?.checkpoints;
    let requests = proxy.failed();
    assert!(requests < REQUESTS_EACH * (checkpoints.failed + 1), "{requests} requests: {checkpoints:?}");
    assert_says(&trial.shown("checkpoints")?, &["FAILED", "AccessDenied"]);

    let client = trial.cluster.client().await?;
    let savepoint =
        client.savepoint(trial.job, Some("s3://checkpoints/mine"), SavepointMode::Stop, |_| ()).await;
    let refused = savepoint.expect_err("it is denied").to_string();
    assert_says(
        &refused,
        &["no savepoint was taken", "AccessDenied", "s3://checkpoints/mine", "allow these credentials"],
    );

    let retained = trial.retained().await?;
    assert_eq!((trial.details().await?.summary.attempt, retained.len()), (1, 2));
    proxy.set_faults(Faults::default());
    trial.completes_beyond(&retained).await?;
    trial.finishes_exactly().await
}

#[tokio::test]
async fn a_restore_that_is_denied_waits_for_permission_and_goes_back_no_further() -> Result<()> {
    let (_peer, proxy, mut trial) = start("1000").await?;
    let manager = trial.cluster.task_managers()[0];
    let worker = trial.cluster.task_manager(manager)?.id().children()?[0];
    proxy.set_faults(DENIED);
    worker.kill()?;
    let failure = trial.failure(&CAUSE, || Ok(())).await?;
    assert_says(&failure, &["cannot restore checkpoint"]);
    let attempt = trial.details().await?.summary.attempt;
    wait::until("more attempts", async || {
        Ok((trial.details().await?.summary.attempt > attempt + 3).then_some(()))
    })
    .await?;
    let (requests, attempts) = (proxy.failed(), u64::from(trial.details().await?.summary.attempt));
    assert!(requests < REQUESTS_EACH * (attempts + 1), "{requests} requests in {attempts} attempts");
    let newest = trial.retained().await?.last().copied();
    assert_says(&trial.shown("describe")?, &["RESTARTING", "AccessDenied", "allow these credentials"]);
    proxy.set_faults(Faults::default());
    wait::until("the job to run", async || {
        Ok((trial.details().await?.summary.status == JobStatus::Running).then_some(()))
    })
    .await?;
    assert_eq!(trial.details().await?.checkpoints.restored_id, newest);
    trial.finishes_exactly().await
}
