//! `thalweg cancel`: asks for a job's cancellation and waits until its tasks have stopped.

use serde::Serialize;
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;

use super::Session;
use super::follow::{Followed, follow};
use crate::arguments::CancelArguments;
use crate::exit::Exit;
use crate::notice;

/// What became of the request.
#[derive(Debug, Serialize)]
struct Cancellation {
    job_id: String,
    /// Whether the job's end was waited for.
    waited: bool,
    /// The state in which it ended; none if that was not waited for.
    status: Option<JobStatus>,
}

pub(super) async fn run(session: &Session, arguments: &CancelArguments) -> anyhow::Result<Exit> {
    let client = session.client().await?;
    let job_id = session.job(&client, &arguments.job.reference).await?;
    client.cancel(job_id).await?;
    let status = match arguments.no_wait {
        true => None,
        false => match follow(&client, job_id, |_| Ok(())).await? {
            Followed::Ended(event) => Some(event.summary.status),
            Followed::Interrupted => {
                notice::say(&format!(
                    "the cancellation of job {job_id} goes on; `thalweg watch {job_id}` tells when it is done"
                ));
                None
            }
        },
    };
    let cancellation = Cancellation { job_id: job_id.to_string(), waited: status.is_some(), status };
    session.output.result(&cancellation, text)?;
    Ok(conclude(status, job_id))
}

/// A job may reach its end while its cancellation is on the way.
fn conclude(status: Option<JobStatus>, job_id: JobId) -> Exit {
    match status {
        None | Some(JobStatus::Canceled) => Exit::Success,
        Some(status) => {
            notice::say(&format!(
                "job {job_id} was {status} before it could be canceled; `thalweg describe {job_id}` tells more"
            ));
            Exit::Failure
        }
    }
}

fn text(cancellation: &Cancellation) -> String {
    match cancellation.status {
        None => format!("Cancellation of job {} requested\n", cancellation.job_id),
        Some(status) => format!("Job {} is {status}\n", cancellation.job_id),
    }
}
