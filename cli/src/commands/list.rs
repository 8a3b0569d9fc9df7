//! `thalweg list`: all jobs that the cluster remembers, a line each.

use serde::Serialize;
use thalweg_proto::model::JobSummary;

use super::Session;
use crate::exit::Exit;
use crate::human::{ago, count, duration, span_ms};
use crate::table::{Align, Table};

/// Digits of an id that a table shows: they tell any two jobs apart that a cluster remembers.
const SHOWN_DIGITS: usize = 12;

#[derive(Serialize)]
struct Jobs {
    jobs: Vec<JobSummary>,
}

pub(super) async fn run(session: &Session) -> anyhow::Result<Exit> {
    let jobs = Jobs { jobs: session.client().await?.list().await? };
    session.output.result(&jobs, |jobs| text(&jobs.jobs, session.now_ms()))?;
    Ok(Exit::Success)
}

fn text(jobs: &[JobSummary], now_ms: i64) -> String {
    if jobs.is_empty() {
        return "No jobs; `thalweg submit ./binary` submits one.\n".into();
    }
    let mut table = Table::new(&[
        ("JOB ID", Align::Left),
        ("NAME", Align::Left),
        ("STATUS", Align::Left),
        ("TASKS", Align::Right),
        ("ATTEMPT", Align::Right),
        ("STARTED", Align::Left),
        ("DURATION", Align::Right),
        ("REASON", Align::Left),
    ]);
    for job in jobs {
        let running = format!("{}/{}", count(job.tasks_running.into()), count(job.tasks_total.into()));
        table.row([
            job.job_id.to_string().chars().take(SHOWN_DIGITS).collect(),
            job.name.clone(),
            job.status.to_string(),
            running,
            count(job.attempt.into()),
            ago(now_ms, job.start_time_ms),
            duration(span_ms(job.start_time_ms, job.end_time_ms.unwrap_or(now_ms))),
            job.reason.clone(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use thalweg_common::id::JobId;
    use thalweg_common::status::JobStatus;

    use super::*;

    #[test]
    fn a_job_is_a_line_and_none_is_said() {
        let now = 1_700_000_000_000;
        let running = JobSummary {
            job_id: JobId(0x0123_4567_89ab_cdef << 64),
            name: "word_count".into(),
            status: JobStatus::Running,
            attempt: 2,
            start_time_ms: now - 63_000,
            end_time_ms: None,
            tasks_total: 1_024,
            tasks_running: 7,
            reason: String::new(),
        };
        let ended = JobSummary {
            job_id: JobId(0xfedc << 112),
            name: "trades".into(),
            status: JobStatus::Failed,
            attempt: 1,
            end_time_ms: Some(now - 62_500),
            reason: "no slots".into(),
            ..running.clone()
        };
        let expected = "\
JOB ID        NAME        STATUS     TASKS  ATTEMPT  STARTED     DURATION  REASON
0123456789ab  word_count  RUNNING  7/1,024        2  1m 03s ago    1m 03s
fedc00000000  trades      FAILED   7/1,024        1  1m 03s ago    500 ms  no slots
";
        assert_eq!(text(&[running, ended], now), expected);
        assert!(text(&[], now).starts_with("No jobs"));
    }
}
