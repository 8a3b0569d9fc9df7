//! `thalweg savepoint` and `thalweg stop --savepoint`: taking savepoints, listing and deleting them.

use anyhow::bail;
use serde::Serialize;
use thalweg_common::id::{Attempt, JobId};
use thalweg_common::status::JobStatus;
use thalweg_proto::client::{ClientError, JobClient};
use thalweg_proto::model::{JobEvent, SavepointMode, SavepointProgress, SavepointSummary};

use super::Session;
use super::follow::{Followed, follow};
use crate::exit::Exit;
use crate::human::{ago, bytes, duration, span_ms};
use crate::notice::{self, Progress};
use crate::savepoint_arguments::{SavepointArguments, SavepointCommand, StopArguments};
use crate::table::{Align, Table};

/// A savepoint with what became of its job.
#[derive(Debug, Serialize)]
struct Stopped {
    job_id: String,
    savepoint: SavepointSummary,
    /// The state in which the job ended; none if that was not waited for.
    status: Option<JobStatus>,
}

#[derive(Debug, Serialize)]
struct Disposed {
    path: String,
}

pub(super) async fn run(session: &Session, arguments: SavepointArguments) -> anyhow::Result<Exit> {
    let client = session.client().await?;
    match arguments.command {
        Some(SavepointCommand::List(job)) => {
            let job_id = session.job(&client, &job.reference).await?;
            let now_ms = session.now_ms();
            session
                .output
                .result(&client.savepoints(job_id).await?, |savepoints| list(savepoints, now_ms))?;
        }
        Some(SavepointCommand::Dispose { path }) => {
            client.dispose_savepoint(&path).await?;
            session
                .output
                .result(&Disposed { path }, |disposed| format!("Deleted savepoint {}\n", disposed.path))?;
        }
        None => {
            let job_id = session.job(&client, &arguments.reference.unwrap_or_default()).await?;
            let directory = arguments.directory.dir.as_deref();
            let savepoint = take(&client, job_id, directory, SavepointMode::Continue).await?;
            session.output.result(&savepoint, taken)?;
        }
    }
    Ok(Exit::Success)
}

pub(super) async fn stop(session: &Session, arguments: &StopArguments) -> anyhow::Result<Exit> {
    let client = session.client().await?;
    let job_id = session.job(&client, &arguments.job.reference).await?;
    let mode = if arguments.drain { SavepointMode::Drain } else { SavepointMode::Stop };
    let attempt = client.describe(job_id).await?.summary.attempt;
    let savepoint = take(&client, job_id, arguments.directory.dir.as_deref(), mode).await?;
    let path = savepoint.path.clone();
    let status = ended(&client, job_id, attempt).await?;
    let stopped = Stopped { job_id: job_id.to_string(), savepoint, status };
    session.output.result(&stopped, |stopped| {
        let ended = stopped.status.map_or(String::new(), |status| format!("Job {job_id} is {status}\n"));
        format!("{}{ended}", taken(&stopped.savepoint))
    })?;
    Ok(match status {
        Some(JobStatus::Finished) | None => Exit::Success,
        Some(status) => {
            notice::say(&format!(
                "job {job_id} is {status} although its savepoint {path} is complete; `thalweg describe {job_id}` tells why"
            ));
            Exit::Failure
        }
    })
}

/// Waits until a job that was told to stop in this attempt has ended; `None` after Ctrl-C.
///
/// # Errors
/// When it fails while it stops: it goes on from its savepoint then, and whatever else it writes is not part of that.
pub(super) async fn ended(
    client: &JobClient,
    job_id: JobId,
    attempt: Attempt,
) -> anyhow::Result<Option<JobStatus>> {
    let tell = |event: &JobEvent| {
        let summary = &event.summary;
        if summary.status != JobStatus::Restarting && summary.attempt == attempt {
            return Ok(());
        }
        bail!(
            "job {job_id} failed while it stopped, and goes on from its savepoint ({}); stop it again, or cancel it",
            summary.reason
        )
    };
    Ok(match follow(client, job_id, tell).await? {
        Followed::Ended(event) => Some(event.summary.status),
        Followed::Interrupted => None,
    })
}

/// Takes a savepoint and shows how far it is.
pub(super) async fn take(
    client: &JobClient,
    job_id: JobId,
    directory: Option<&str>,
    mode: SavepointMode,
) -> Result<SavepointSummary, ClientError> {
    let mut progress = Progress::new();
    client.savepoint(job_id, directory, mode, |step| progress.step(&text(step))).await
}

fn text(step: SavepointProgress) -> String {
    match step.id {
        None => "waiting for the savepoint to begin".to_string(),
        Some(id) => format!(
            "savepoint {id}: {} of {} subtasks have written their part",
            step.acknowledged, step.subtasks
        ),
    }
}

fn taken(savepoint: &SavepointSummary) -> String {
    let took = duration(span_ms(savepoint.triggered_ms, savepoint.completed_ms));
    format!("Savepoint {} ({}, {took})\n", savepoint.path, bytes(savepoint.size_bytes))
}

fn list(savepoints: &[SavepointSummary], now_ms: i64) -> String {
    if savepoints.is_empty() {
        return "The cluster knows no savepoint of this job\n".to_string();
    }
    let mut table = Table::new(&[
        ("ID", Align::Right),
        ("COMPLETED", Align::Left),
        ("DURATION", Align::Right),
        ("SIZE", Align::Right),
        ("JOB ENDED", Align::Left),
        ("PATH", Align::Left),
    ]);
    for one in savepoints.iter().rev() {
        table.row([
            one.id.to_string(),
            ago(now_ms, one.completed_ms),
            duration(span_ms(one.triggered_ms, one.completed_ms)),
            bytes(one.size_bytes),
            if one.is_final { "yes" } else { "no" }.to_string(),
            one.path.clone(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    #[test]
    fn savepoints_are_shown_with_their_paths() {
        let savepoint = SavepointSummary {
            id: 12,
            path: "file:///s/savepoint-00c0ff-12".into(),
            triggered_ms: NOW - 60_000,
            completed_ms: NOW - 59_750,
            size_bytes: 2_048,
            is_final: true,
        };
        assert_eq!(taken(&savepoint), "Savepoint file:///s/savepoint-00c0ff-12 (2.0 KiB, 250 ms)\n");
        let listed = list(&[savepoint], NOW);
        assert!(
            listed.contains("12  59 s ago") && listed.contains("yes        file:///s/savepoint"),
            "{listed}"
        );
        assert!(list(&[], NOW).contains("no savepoint"));
        let step = |id| text(SavepointProgress { id, acknowledged: 1, subtasks: 4 });
        assert_eq!(step(Some(3)), "savepoint 3: 1 of 4 subtasks have written their part");
        assert!(step(None).starts_with("waiting"));
    }
}
