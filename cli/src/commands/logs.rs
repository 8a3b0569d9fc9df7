//! `thalweg logs`: what a job's workers wrote to stdout and stderr.
//!
//! For people the bytes are printed as the workers wrote them, each log under a heading as `tail` prints it.

use serde::Serialize;
use thalweg_proto::model::LogPart;

use super::Session;
use crate::arguments::LogsArguments;
use crate::exit::Exit;
use crate::human::one_line;

#[derive(Serialize)]
struct Logs {
    job_id: String,
    logs: Vec<Log>,
}

#[derive(Serialize)]
struct Log {
    task_manager: String,
    source: String,
    /// What is no UTF-8 is replaced.
    text: String,
}

pub(super) async fn run(session: &Session, arguments: &LogsArguments) -> anyhow::Result<Exit> {
    let client = session.client().await?;
    let job_id = session.job(&client, &arguments.job.reference).await?;
    // 0 leaves it to the cluster.
    let parts = client.logs(job_id, arguments.tail.unwrap_or(0)).await?;
    if session.output.is_json() {
        let logs = parts.into_iter().map(Log::from).collect();
        session.output.result(&Logs { job_id: job_id.to_string(), logs }, |_| String::new())?;
    } else {
        session.output.bytes(&text(&parts))?;
    }
    Ok(Exit::Success)
}

impl From<LogPart> for Log {
    fn from(part: LogPart) -> Self {
        Self {
            task_manager: part.task_manager,
            source: part.source,
            text: String::from_utf8_lossy(&part.data).into_owned(),
        }
    }
}

fn text(parts: &[LogPart]) -> Vec<u8> {
    if parts.is_empty() {
        return b"The job's workers have written nothing yet.\n".to_vec();
    }
    let mut text = Vec::new();
    for (position, part) in parts.iter().enumerate() {
        if position > 0 {
            text.push(b'\n');
        }
        let heading = format!("==> {} {} <==\n", one_line(&part.task_manager), one_line(&part.source));
        text.extend_from_slice(heading.as_bytes());
        text.extend_from_slice(&part.data);
        if !part.data.ends_with(b"\n") && !part.data.is_empty() {
            text.push(b'\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(source: &str, data: &[u8]) -> LogPart {
        LogPart { task_manager: "tm-1".into(), source: source.into(), data: data.to_vec() }
    }

    #[test]
    fn every_log_has_a_heading_and_ends_its_last_line() {
        let parts = [part("stdout", b"a\xff"), part("stderr", b"b\n"), part("stdout of another", b"")];
        assert_eq!(
            text(&parts),
            b"==> tm-1 stdout <==\na\xff\n\n==> tm-1 stderr <==\nb\n\n==> tm-1 stdout of another <==\n"
        );
    }
}
