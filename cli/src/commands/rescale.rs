//! `thalweg rescale`: a running job goes on at another parallelism, with all of its state.
//!
//! The cluster does it by itself; this command tells the steps and waits until all tasks run. When the leader changes meanwhile, nobody
//! tells any more, and the job says what has become of it.

use std::time::Duration;

use anyhow::bail;
use serde::Serialize;
use thalweg_common::config::keys;
use thalweg_common::id::{Attempt, JobId};
use thalweg_common::status::JobStatus;
use thalweg_proto::client::{JobClient, Rescaled};
use thalweg_proto::model::JobDetails;

use super::Session;
use crate::arguments::RescaleArguments;
use crate::exit::Exit;
use crate::notice;

/// Pause between two looks at a job whose leader has changed.
const LOOK: Duration = Duration::from_millis(200);

/// How long a job may take to be RUNNING again after its leader has changed.
const PATIENCE: Duration = Duration::from_secs(120);

/// The job as it runs now.
#[derive(Debug, Serialize)]
struct Outcome {
    job_id: String,
    attempt: Attempt,
    vertices: Vec<Vertex>,
}

#[derive(Debug, Serialize)]
struct Vertex {
    name: String,
    parallelism: u32,
}

pub(super) async fn run(session: &Session, arguments: &RescaleArguments) -> anyhow::Result<Exit> {
    let client = session.client().await?;
    let job_id = session.job(&client, &arguments.job.reference).await?;
    let parallelism = arguments.parallelism;
    let details = match client.rescale(job_id, parallelism, notice::say).await? {
        Rescaled::Running => client.describe(job_id).await?,
        Rescaled::Unknown => {
            notice::say("another job manager leads now; waiting for the job to be RUNNING");
            let details = running(session, &client, job_id).await?;
            if !has(&details, parallelism) {
                bail!(
                    "job {job_id} runs at its old parallelism, because the leader changed meanwhile; rescale it again"
                );
            }
            details
        }
    };
    let vertices = details.vertices.iter();
    let vertices = vertices.map(|one| Vertex { name: one.name.clone(), parallelism: one.parallelism });
    let (job_id, attempt) = (job_id.to_string(), details.summary.attempt);
    let outcome = Outcome { job_id, attempt, vertices: vertices.collect() };
    session.output.result(&outcome, text)?;
    Ok(Exit::Success)
}

fn has(details: &JobDetails, parallelism: u32) -> bool {
    details.configuration.get(keys::PARALLELISM_DEFAULT.name) == Some(&parallelism.to_string())
}

/// Waits until all tasks of the job run.
async fn running(session: &Session, client: &JobClient, job_id: JobId) -> anyhow::Result<JobDetails> {
    let end = session.clock.monotonic() + PATIENCE;
    loop {
        let details = client.describe(job_id).await?;
        let status = details.summary.status;
        if status == JobStatus::Running && details.summary.tasks_running == details.summary.tasks_total {
            return Ok(details);
        }
        if status.is_terminal() || session.clock.monotonic() > end {
            bail!(
                "job {job_id} is {status} ({}); `thalweg describe {job_id}` tells more",
                details.summary.reason
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn text(outcome: &Outcome) -> String {
    let mut text = format!("Job {} is RUNNING (attempt {})\n", outcome.job_id, outcome.attempt);
    for Vertex { name, parallelism } in &outcome.vertices {
        text.push_str(&format!("  {parallelism:>4}  {name}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parallelism_of_every_vertex_is_shown() {
        let vertex = |name: &str, parallelism| Vertex { name: name.to_string(), parallelism };
        let vertices = vec![vertex("numbers -> map", 2), vertex("count", 16)];
        let outcome = Outcome { job_id: "00c0ffee".into(), attempt: 3, vertices };
        assert_eq!(
            text(&outcome),
            "Job 00c0ffee is RUNNING (attempt 3)\n     2  numbers -> map\n    16  count\n"
        );
    }
}
