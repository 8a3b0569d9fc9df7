//! Following a job until it has ended or Ctrl-C, and the text of its news. Shared by submit, watch and cancel.
//!
//! Invariant: Ctrl-C ends the following and never the job, and says so.

use std::pin::pin;

use anyhow::bail;
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;
use thalweg_proto::client::JobClient;
use thalweg_proto::model::{JobEvent, JobSummary};

use crate::exit::Exit;
use crate::human::{date_time, duration, indented, one_line, span_ms};
use crate::notice;

/// How the following ended.
pub(super) enum Followed {
    /// With the job; its last news.
    Ended(Box<JobEvent>),
    /// By Ctrl-C.
    Interrupted,
}

/// Hands all news of a job to `tell`, until the job has ended or Ctrl-C.
///
/// # Errors
/// When there is no such job, nobody leads, or `tell` fails.
pub(super) async fn follow(
    client: &JobClient,
    job_id: JobId,
    mut tell: impl FnMut(&JobEvent) -> anyhow::Result<()>,
) -> anyhow::Result<Followed> {
    let mut interrupt = pin!(interrupt());
    let mut watch = client.watch(job_id);
    let mut last = None;
    loop {
        let news = tokio::select! {
            biased;
            () = interrupt.as_mut() => return Ok(Followed::Interrupted),
            news = watch.next() => news?,
        };
        match (news, last.take()) {
            (Some(event), _) => {
                tell(&event)?;
                last = Some(event);
            }
            (None, Some(event)) => return Ok(Followed::Ended(Box::new(event))),
            (None, None) => {
                bail!("the cluster told nothing about job {job_id}; `thalweg describe {job_id}` asks again")
            }
        }
    }
}

/// Completes at Ctrl-C. Where that cannot be noticed it keeps its usual effect, which ends the program.
async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What a person is told, and with which code the command ends, when following was all it did.
pub(super) fn conclude(followed: &Followed, job_id: JobId) -> Exit {
    let event = match followed {
        Followed::Ended(event) => event,
        Followed::Interrupted => {
            notice::say(&format!(
                "job {job_id} goes on; `thalweg watch {job_id}` follows it again, `thalweg cancel {job_id}` cancels it"
            ));
            return Exit::Success;
        }
    };
    if event.summary.status == JobStatus::Failed {
        let cause =
            event.failure.as_ref().map_or(event.summary.reason.as_str(), |failure| failure.message.as_str());
        let cause = if cause.is_empty() { String::new() } else { format!(": {}", first_line(cause)) };
        notice::say(&format!("job {job_id} FAILED{cause}; `thalweg describe {job_id}` tells more"));
    }
    Exit::of_job(event.summary.status)
}

/// The news as lines for people: when, what, why.
pub(super) fn news(event: &JobEvent, now_ms: i64) -> String {
    let summary = &event.summary;
    let (time_ms, what, reason) = match &event.change {
        Some(change) => (change.time_ms, format!("{} -> {}", change.from, change.to), &change.reason),
        None => (now_ms, summary.status.to_string(), &summary.reason),
    };
    let mut text = format!("{}  {what}", date_time(time_ms));
    if summary.attempt > 1 {
        text.push_str(&format!(" (attempt {})", summary.attempt));
    }
    if !reason.is_empty() {
        text.push_str(&format!(": {}", one_line(reason)));
    }
    text.push('\n');
    if let Some(failure) = &event.failure {
        if failure.message != *reason {
            text.push_str(&indented(&failure.message, "    "));
        }
        text.push_str(&indented(&failure.details, "    "));
    }
    if summary.status.is_terminal() {
        text.push_str(&ending(summary, now_ms));
    }
    text
}

fn ending(summary: &JobSummary, now_ms: i64) -> String {
    let lasted = duration(span_ms(summary.start_time_ms, summary.end_time_ms.unwrap_or(now_ms)));
    format!("{} {} after {lasted}\n", one_line(&summary.name), summary.status)
}

fn first_line(text: &str) -> &str {
    text.trim().lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use thalweg_common::failure::Failure;
    use thalweg_proto::model::StatusChange;

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn summary(status: JobStatus, attempt: u32, reason: &str) -> JobSummary {
        JobSummary {
            job_id: JobId(7),
            name: "word_count".into(),
            status,
            attempt,
            start_time_ms: NOW - 63_000,
            end_time_ms: status.is_terminal().then_some(NOW),
            tasks_total: 4,
            tasks_running: 4,
            reason: reason.into(),
        }
    }

    fn change(from: JobStatus, to: JobStatus, attempt: u32, reason: &str) -> JobEvent {
        let change = StatusChange { time_ms: NOW, from, to, attempt, reason: reason.into() };
        JobEvent { summary: summary(to, attempt, reason), change: Some(change), failure: None }
    }

    #[test]
    fn the_present_state_comes_with_its_reason() {
        let summary = summary(JobStatus::Created, 0, "waiting for 2 of 4 slots");
        let event = JobEvent { summary, change: None, failure: None };
        assert_eq!(news(&event, NOW), "2023-11-14 22:13:20 UTC  CREATED: waiting for 2 of 4 slots\n");
    }

    #[test]
    fn a_restart_names_the_attempt_and_the_failure_once() {
        let mut event = change(JobStatus::Running, JobStatus::Restarting, 2, "task 0/1: worker lost");
        event.failure =
            Some(Failure::external("task 0/1: worker lost").with_details("signal 9\n\tlast line"));
        assert_eq!(
            news(&event, NOW),
            "2023-11-14 22:13:20 UTC  RUNNING -> RESTARTING (attempt 2): task 0/1: worker lost\n    signal 9\n        \
             last line\n"
        );
        event.failure = Some(Failure::external("out of memory"));
        assert!(news(&event, NOW).ends_with("worker lost\n    out of memory\n"));
    }

    #[test]
    fn the_end_says_how_long_it_took() {
        let event = change(JobStatus::Running, JobStatus::Finished, 1, "");
        assert_eq!(
            news(&event, NOW),
            "2023-11-14 22:13:20 UTC  RUNNING -> FINISHED\nword_count FINISHED after 1m 03s\n"
        );
    }
}
