//! How the tasks of a job keep time: asks them all, and waits a little for those that are busy.

use std::time::Duration;

use thalweg_common::id::JobId;
use thalweg_proto::v1;
use tokio::sync::mpsc;
use tonic::Status;

use super::describe;
use crate::cluster::JobRecord;
use crate::leader::{Leader, Mail, NotLeading};

/// How long tasks may take: each answers between two of its turns.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What the tasks of a job tell.
pub(super) async fn ask(leader: &Leader, job_id: JobId, record: &JobRecord) -> Result<v1::JobTime, Status> {
    let subtasks = record.graph.subtasks().count();
    let (sink, mut answers) = mpsc::channel(subtasks.max(1));
    let awaited = leader.ask(|reply| Mail::Time { job_id, sink, reply }).await;
    let mut missing = awaited.map_err(NotLeading::into_status)?;
    let mut tasks: Vec<v1::TaskTime> = Vec::with_capacity(missing.len());
    let all_told = async {
        while let Some(told) = answers.recv().await {
            tasks.push(told);
        }
    };
    // Those that have not answered are named.
    let _ = tokio::time::timeout(ANSWER_TIMEOUT, all_told).await;
    missing.retain(|subtask| !tasks.iter().any(|told| told.subtask == Some((*subtask).into())));
    let live = leader.ask(|reply| Mail::View { job_id: Some(job_id), reply }).await;
    let live = live.map_err(NotLeading::into_status)?;
    Ok(v1::JobTime {
        summary: Some(describe::summary(record, live.get(&job_id))),
        graph: describe::plan(record)?,
        tasks,
        missing: missing.into_iter().map(Into::into).collect(),
    })
}
