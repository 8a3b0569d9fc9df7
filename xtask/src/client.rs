//! The cluster as a program sees it: the `thalweg` command with `--output json`.
//!
//! Invariant: what the command prints is read here only, so that a changed field name has one place to change.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How long a question may look for a leading job manager. Who asks again and again does not want to wait long.
const ANSWER_WITHIN: &str = "3s";

/// Calls the `thalweg` command.
#[derive(Debug, Clone)]
pub struct Client {
    program: PathBuf,
    addresses: String,
}

/// What to submit.
#[derive(Debug)]
pub struct Submission<'a> {
    pub binary: &'a Path,
    pub name: &'a str,
    pub parallelism: usize,
    /// Flink-named settings.
    pub configuration: &'a [(&'a str, String)],
    /// The job's own arguments.
    pub arguments: &'a [OsString],
}

/// What the cluster tells of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// As in Flink: `RUNNING`, `FINISHED`, ...
    pub status: String,
    /// Why it is in this state; may be empty.
    pub reason: String,
    /// Completed ones.
    pub checkpoints: u64,
    /// What the newest failure says, if there was one.
    pub failure: Option<String>,
}

impl Job {
    pub fn has_ended(&self) -> bool {
        matches!(self.status.as_str(), "FINISHED" | "FAILED" | "CANCELED")
    }
}

impl Client {
    pub fn new(program: &Path, addresses: String) -> Self {
        Self { program: program.to_path_buf(), addresses }
    }

    /// Submits a job without waiting for its end; answers its id.
    ///
    /// # Errors
    /// When the cluster refuses it; with the command's own message.
    pub fn submit(&self, submission: &Submission<'_>) -> Result<String> {
        let mut arguments: Vec<OsString> = vec![
            "submit".into(),
            submission.binary.into(),
            "--name".into(),
            submission.name.into(),
            "--parallelism".into(),
            submission.parallelism.to_string().into(),
            "--detach".into(),
        ];
        for (key, value) in submission.configuration {
            arguments.extend(["-D".into(), format!("{key}={value}").into()]);
        }
        arguments.push("--".into());
        arguments.extend(submission.arguments.iter().cloned());
        read_job_id(&self.call(&arguments)?)
    }

    /// # Errors
    /// When the cluster does not know the job, or has no leader for longer than the command waits.
    pub fn describe(&self, job: &str) -> Result<Job> {
        read_job(&self.call(["--timeout", ANSWER_WITHIN, "describe", job])?)
    }

    /// The id of the leading job manager, when there is one.
    ///
    /// # Errors
    /// When no job manager answers.
    pub fn leader(&self) -> Result<Option<usize>> {
        read_leader(&self.call(["--timeout", ANSWER_WITHIN, "cluster"])?)
    }

    fn call<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Value> {
        let output = Command::new(&self.program)
            .args(["--jobmanager", &self.addresses, "--output", "json"])
            .args(arguments)
            .output()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        if !output.status.success() {
            bail!("thalweg failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        read_json(&output.stdout)
    }
}

fn read_json(stdout: &[u8]) -> Result<Value> {
    serde_json::from_slice(stdout)
        .with_context(|| format!("thalweg printed no JSON: {:?}", String::from_utf8_lossy(stdout)))
}

fn read_job_id(answer: &Value) -> Result<String> {
    Ok(answer["job_id"].as_str().with_context(|| format!("no `job_id` in {answer}"))?.to_owned())
}

fn read_job(answer: &Value) -> Result<Job> {
    let newest_failure = answer["failures"].as_array().and_then(|failures| failures.last());
    Ok(Job {
        status: answer["status"].as_str().with_context(|| format!("no `status` in {answer}"))?.to_owned(),
        reason: answer["reason"].as_str().unwrap_or_default().to_owned(),
        checkpoints: answer["checkpoints"]["completed"]
            .as_u64()
            .with_context(|| format!("no `checkpoints.completed` in {answer}"))?,
        failure: newest_failure.and_then(|failure| failure["failure"]["message"].as_str()).map(str::to_owned),
    })
}

fn read_leader(answer: &Value) -> Result<Option<usize>> {
    let managers =
        answer["job_managers"].as_array().with_context(|| format!("no `job_managers` in {answer}"))?;
    let Some(leader) = managers.iter().find(|manager| manager["leader"] == true) else { return Ok(None) };
    let id = leader["id"].as_u64().with_context(|| format!("no `id` in {leader}"))?;
    Ok(Some(usize::try_from(id).context("the id of a job manager is too large")?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_read() {
        assert_eq!(read_job_id(&json!({"job_id": "00ff", "name": "word count"})).expect("valid"), "00ff");
        let job = json!({
            "status": "RESTARTING",
            "reason": "waiting for 2 of 4 slots",
            "checkpoints": {"completed": 7},
            "failures": [{"failure": {"message": "first"}}, {"failure": {"message": "second"}}],
        });
        let expected = Job {
            status: "RESTARTING".into(),
            reason: "waiting for 2 of 4 slots".into(),
            checkpoints: 7,
            failure: Some("second".into()),
        };
        assert_eq!(read_job(&job).expect("valid"), expected);
        let managers = json!({"job_managers": [{"id": 1, "leader": false}, {"id": 3, "leader": true}]});
        assert_eq!(read_leader(&managers).expect("valid"), Some(3));
        assert_eq!(read_leader(&json!({"job_managers": [{"id": 1, "leader": false}]})).expect("valid"), None);
    }

    #[test]
    fn an_answer_that_lacks_a_field_is_quoted() {
        let error = read_job(&json!({"checkpoints": {"completed": 7}})).expect_err("no status");
        assert!(error.to_string().contains("no `status`"), "{error}");
        assert!(read_json(b"oops").expect_err("no JSON").to_string().contains("oops"));
    }

    #[test]
    fn only_terminal_states_end_a_job() {
        let job = |status: &str| Job {
            status: status.into(),
            reason: String::new(),
            checkpoints: 0,
            failure: None,
        };
        for status in ["FINISHED", "FAILED", "CANCELED"] {
            assert!(job(status).has_ended(), "{status}");
        }
        for status in ["CREATED", "RUNNING", "FAILING", "RESTARTING", "CANCELLING"] {
            assert!(!job(status).has_ended(), "{status}");
        }
    }
}
