//! `thalweg upgrade`: replaces a running job by another version of it, and takes that back by itself if the new one does not come up.
//!
//! Check against the running job's state -> stop with a savepoint -> the new version from it, checked again -> RUNNING and a checkpoint,
//! or the old version from the same savepoint. Invariants: a version that does not fit is refused before the running job is touched;
//! the new version commits nothing to the outside before its first checkpoint, so that going back loses and doubles nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use thalweg_common::clock::deadline_in;
use thalweg_common::config::Configuration;
use thalweg_common::id::{JobId, SubmissionId};
use thalweg_common::manifest::Report;
use thalweg_common::status::JobStatus;
use thalweg_proto::client::{Begin, GivenProperties, JobClient, KnownBinary, SubmitOptions};
use thalweg_proto::model::{JobDetails, SavepointMode};

use super::Session;
use super::follow::{Followed, follow};
use super::savepoint;
use crate::exit::Exit;
use crate::notice::{self, Progress};
use crate::savepoint_arguments::UpgradeArguments;

/// How often the cluster is asked how far the new version is.
const PROBE: Duration = Duration::from_millis(200);

/// What came of it.
#[derive(Debug, Serialize)]
struct Upgraded {
    /// The job that was stopped.
    old_job_id: String,
    /// The job that runs now.
    job_id: String,
    /// Between the two.
    savepoint: String,
    /// What became of the state.
    report: Option<Report>,
    /// Why the old version runs again, if it does.
    rolled_back: Option<String>,
}

pub(super) async fn run(session: &Session, arguments: UpgradeArguments) -> anyhow::Result<Exit> {
    let client = session.client().await?;
    let job_id = session.job(&client, &arguments.job.reference).await?;
    let old = client.describe(job_id).await?;
    if old.summary.status != JobStatus::Running {
        bail!(
            "job {job_id} is {}; only a RUNNING job can be upgraded, any other is submitted anew",
            old.summary.status
        );
    }
    let new = options(&arguments, &old)?;
    let allow = arguments.allow_non_restored_state;
    let check = Begin::Check { against: job_id, allow_non_restored_state: allow };
    let checked = {
        let mut progress = Progress::new();
        client.submit_with(new.clone(), check, |step| progress.step(step)).await
    };
    let report = checked.context("the running job was not touched")?.report;
    if let (Some(report), false) = (&report, session.output.is_json()) {
        session.output.text(&report.to_string())?;
    }
    let directory = arguments.directory.dir.as_deref();
    let taken = savepoint::take(&client, job_id, directory, SavepointMode::Stop).await;
    let path = taken.context("the job goes on as it was")?.path;
    match savepoint::ended(&client, job_id, old.summary.attempt).await? {
        Some(JobStatus::Finished) => {}
        Some(status) => bail!(
            "job {job_id} is {status} instead of FINISHED; nothing was started, its savepoint is {path}"
        ),
        None => bail!("interrupted: job {job_id} stops with the savepoint {path}, and nothing was started"),
    }
    let begin = |allow_non_restored_state| Begin::Savepoint {
        path: path.clone(),
        allow_non_restored_state,
        claim: false,
    };
    let replaced = replace(session, &client, (new, begin(allow)), &old, arguments.limit).await?;
    let (runs, rolled_back) = match replaced {
        Ok(new_id) => (new_id, None),
        Err(reason) => {
            (roll_back(session, &client, begin(false), old, arguments.limit, &reason).await?, Some(reason))
        }
    };
    let upgraded = Upgraded {
        old_job_id: job_id.to_string(),
        job_id: runs.to_string(),
        savepoint: path,
        report,
        rolled_back,
    };
    session.output.result(&upgraded, text)?;
    Ok(if upgraded.rolled_back.is_none() { Exit::Success } else { Exit::Failure })
}

/// The new version as it is submitted: with the running job's settings, arguments and runtime properties, as far as no others are given.
fn options(arguments: &UpgradeArguments, old: &JobDetails) -> anyhow::Result<SubmitOptions> {
    let mut configuration = Configuration::new();
    for (key, value) in &old.configuration {
        configuration.set(key, value)?;
    }
    for setting in &arguments.settings {
        configuration.set_assignment(setting)?;
    }
    let configuration: BTreeMap<String, String> =
        configuration.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let given = arguments.arguments.clone().unwrap_or_else(|| old.arguments.clone());
    let binary = arguments.binary.clone();
    let properties = match arguments.properties.is_empty() {
        true => GivenProperties::Of(old.summary.job_id),
        false => GivenProperties::These(arguments.properties.read()?),
    };
    Ok(SubmitOptions {
        binary,
        arguments: given,
        configuration,
        properties,
        submission_id: new_submission()?,
    })
}

fn new_submission() -> anyhow::Result<SubmissionId> {
    SubmissionId::random().context("cannot make a submission id: the system gives no random bytes")
}

/// Starts the new version: its job, or why it does not come up.
async fn replace(
    session: &Session,
    client: &JobClient,
    (mut new, begin): (SubmitOptions, Begin),
    old: &JobDetails,
    limit: Duration,
) -> anyhow::Result<Result<JobId, String>> {
    // The check had an id of its own.
    new.submission_id = new_submission()?;
    let submitted = {
        let mut progress = Progress::new();
        client.submit_with(new, begin, |step| progress.step(step)).await
    };
    let job_id = match submitted {
        Ok(result) => result.job_id,
        Err(error) => return Ok(Err(error.to_string())),
    };
    // A job that takes no checkpoints is not waited for to complete one.
    let wants_checkpoint = old.checkpoints.completed > 0;
    match comes_up(session, client, job_id, wants_checkpoint, limit).await? {
        None => Ok(Ok(job_id)),
        Some(reason) => {
            end(client, job_id).await?;
            Ok(Err(reason))
        }
    }
}

/// Waits until a job is RUNNING and has completed a checkpoint; tells why it did not.
async fn comes_up(
    session: &Session,
    client: &JobClient,
    job_id: JobId,
    wants_checkpoint: bool,
    limit: Duration,
) -> anyhow::Result<Option<String>> {
    let deadline = deadline_in(&session.clock, limit);
    let mut progress = Progress::new();
    loop {
        let details = client.describe(job_id).await?;
        let status = details.summary.status;
        let failure = details.failures.last().map(|last| last.failure.message.clone());
        let cause = failure.map_or(String::new(), |failure| format!(": {failure}"));
        let has_checkpoint = !wants_checkpoint || details.checkpoints.completed > 0;
        if (status == JobStatus::Running && has_checkpoint) || status == JobStatus::Finished {
            return Ok(None);
        }
        if status.is_terminal() {
            return Ok(Some(format!("the new version is {status}{cause}")));
        }
        if deadline.is_over() {
            let wanted = if wants_checkpoint {
                "was not RUNNING with a completed checkpoint"
            } else {
                "was not RUNNING"
            };
            return Ok(Some(format!(
                "the new version {wanted} within {} s (it is {status}){cause}",
                limit.as_secs()
            )));
        }
        progress.step(&format!(
            "the new version is {status}, {} checkpoints completed",
            details.checkpoints.completed
        ));
        tokio::time::sleep(PROBE).await;
    }
}

/// Cancels a job that did not come up, and waits for its end.
async fn end(client: &JobClient, job_id: JobId) -> anyhow::Result<()> {
    client.cancel(job_id).await?;
    match follow(client, job_id, |_| Ok(())).await? {
        Followed::Ended(_) => Ok(()),
        Followed::Interrupted => {
            bail!("interrupted while job {job_id} was cancelled; the old version was not started again")
        }
    }
}

/// Starts the old version again from the savepoint with which it ended.
async fn roll_back(
    session: &Session,
    client: &JobClient,
    begin: Begin,
    old: JobDetails,
    limit: Duration,
    reason: &str,
) -> anyhow::Result<JobId> {
    notice::say(&format!("{reason}; the old version is started again"));
    let Some(sha256) = old.sha256 else {
        bail!("the old version has no binary in the cluster; submit it again with --from-savepoint");
    };
    let binary = KnownBinary { sha256, size_bytes: old.size_bytes };
    let given = (old.arguments, old.configuration, GivenProperties::Of(old.summary.job_id));
    let submitted = client.resubmit(binary, begin, old.summary.name, given, new_submission()?).await;
    let job_id = submitted.context("the old version could not be started again")?.job_id;
    if let Some(failed) = comes_up(session, client, job_id, false, limit).await? {
        bail!("the old version was started again as job {job_id}, but: {failed}");
    }
    Ok(job_id)
}

fn text(upgraded: &Upgraded) -> String {
    let Upgraded { old_job_id, job_id, savepoint, rolled_back, .. } = upgraded;
    match rolled_back {
        None => format!("Job {old_job_id} was replaced by job {job_id}, from savepoint {savepoint}\n"),
        Some(reason) => format!(
            "Job {old_job_id} was not upgraded: {reason}\nThe old version runs again as job {job_id}, from savepoint {savepoint}\n"
        ),
    }
}
