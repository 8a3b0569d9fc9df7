//! A running job at another parallelism, as clients ask for it: planned and checked here before the leader hears of it.

use thalweg_common::limits::MAX_PARALLELISM;
use thalweg_proto::v1;
use thalweg_proto::v1::rescale_event::Message;
use tonic::Status;

use super::failure_status;
use super::submit::Submitter;
use crate::cluster::{JobRecord, Layout};
use crate::job::RescaleNews;

/// The job at this parallelism.
pub(super) async fn layout(
    submitter: &Submitter,
    job: &JobRecord,
    parallelism: u32,
) -> Result<Layout, Status> {
    if parallelism == 0 || parallelism > MAX_PARALLELISM {
        return Err(Status::invalid_argument(format!(
            "a parallelism is a number from 1 to {MAX_PARALLELISM}"
        )));
    }
    if job.status.is_terminal() {
        return Err(Status::aborted("the job has ended; it can be rescaled while it runs"));
    }
    let Some((planner, binary)) = submitter.planner.as_ref().zip(job.binary) else {
        return Err(Status::failed_precondition(
            "the job runs in the process of its author, where its parallelism is fixed; submit it to a cluster",
        ));
    };
    let consensus = &*submitter.consensus;
    let given = (job.arguments.as_slice(), &job.properties);
    let planned = planner.layout(consensus, binary, given, &job.layout(), parallelism).await;
    planned.map_err(|failure| failure_status(&failure))
}

pub(super) fn event(news: RescaleNews) -> Result<v1::RescaleEvent, Status> {
    let message = match news {
        RescaleNews::Progress(step) => Message::Step(step),
        RescaleNews::Running => Message::Running(v1::RescaleRunning {}),
        RescaleNews::Failed(reason) => return Err(Status::aborted(reason)),
    };
    Ok(v1::RescaleEvent { message: Some(message) })
}
