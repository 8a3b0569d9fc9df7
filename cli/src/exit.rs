//! How a command ends, as an exit code that scripts can use, and what is said about it.
//!
//! Stands at the end of every command. Invariants: whatever a person has to know about a failure goes to stderr with the
//! prefix `thalweg: `; a reader of stdout that is gone is no failure.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

use thalweg_common::config::ConfigError;
use thalweg_common::security::ClientSecurityError;
use thalweg_common::status::JobStatus;
use thalweg_common::task_scope::with_causes;
use thalweg_proto::client::ClientError;

use crate::human::one_line;
use crate::reference::ReferenceError;

/// The exit codes, as `thalweg --help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done; a job that was followed is FINISHED, or goes on after Ctrl-C.
    Success = 0,
    /// Refused by the cluster, or the job that was followed is FAILED.
    Failure = 1,
    /// The arguments make no sense.
    Usage = 2,
    /// The job that was followed is CANCELED.
    Canceled = 3,
    /// No leading job manager answered.
    Unreachable = 4,
}

impl Exit {
    /// How a command ends that followed a job to this state.
    pub(crate) fn of_job(status: JobStatus) -> Self {
        match status {
            JobStatus::Finished => Self::Success,
            JobStatus::Canceled => Self::Canceled,
            _ => Self::Failure,
        }
    }

    /// How a command ends that met this error; `None` if stdout's reader is gone, of which nothing is said.
    pub(crate) fn of_error(error: &anyhow::Error) -> Option<Self> {
        if let Some(OutputError(cause)) = error.downcast_ref() {
            return (cause.kind() != io::ErrorKind::BrokenPipe).then_some(Self::Failure);
        }
        if error.is::<ConfigError>() || error.is::<ClientSecurityError>() {
            return Some(Self::Usage);
        }
        if let Some(error) = error.downcast_ref::<ReferenceError>() {
            return Some(match error {
                ReferenceError::Unknown { .. } => Self::Failure,
                ReferenceError::Ambiguous { .. } => Self::Usage,
            });
        }
        Some(match error.downcast_ref::<ClientError>() {
            Some(ClientError::InvalidAddress(_) | ClientError::NoAddress | ClientError::Binary { .. }) => {
                Self::Usage
            }
            Some(ClientError::Unreachable { .. }) => Self::Unreachable,
            _ => Self::Failure,
        })
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Stdout cannot be written to.
#[derive(Debug)]
pub(crate) struct OutputError(pub(crate) io::Error);

impl fmt::Display for OutputError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot write the output: {}; check where it is sent", self.0)
    }
}

impl Error for OutputError {}

/// What stderr is told of an error: its message with the prefix. Further lines, as a refused plan brings them, follow
/// indented.
pub(crate) fn message(error: &anyhow::Error) -> String {
    let text = with_causes(error.as_ref());
    let mut lines = text.trim().lines();
    let mut message =
        format!("thalweg: {}", one_line(lines.next().unwrap_or("the request failed without a reason")));
    for line in lines {
        message.push_str("\n  ");
        message.push_str(&one_line(line));
    }
    message
}

/// What stderr is told of arguments that make no sense: what clap says, in one line.
pub(crate) fn usage_message(rendered: &str) -> String {
    let mut message = String::from("thalweg: ");
    let told = rendered.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    for line in told.filter(|line| !line.is_empty() && !line.starts_with("For more information")) {
        let line = line.strip_prefix("error: ").unwrap_or(line);
        let line = line.strip_prefix("tip: ").unwrap_or(line);
        match message.chars().last() {
            Some(':') => message.push(' '),
            Some(' ') => {}
            _ => message.push_str("; "),
        }
        message.push_str(&one_line(line));
    }
    message.push_str("; `thalweg --help` shows what there is");
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_code() {
        let pipe = OutputError(io::ErrorKind::BrokenPipe.into());
        let disk = OutputError(io::ErrorKind::StorageFull.into());
        let config = ConfigError::UnknownKey { key: "a".into(), nearest: None };
        let unknown = ReferenceError::Unknown { reference: "x".into() };
        let cases: [(anyhow::Error, Option<Exit>); 6] = [
            (pipe.into(), None),
            (disk.into(), Some(Exit::Failure)),
            (config.into(), Some(Exit::Usage)),
            (unknown.into(), Some(Exit::Failure)),
            (ClientError::NoAddress.into(), Some(Exit::Usage)),
            (anyhow::anyhow!("anything else"), Some(Exit::Failure)),
        ];
        for (error, exit) in cases {
            assert_eq!(Exit::of_error(&error), exit, "{error}");
        }
    }

    #[test]
    fn a_followed_job_decides_the_code() {
        assert_eq!(Exit::of_job(JobStatus::Finished), Exit::Success);
        assert_eq!(Exit::of_job(JobStatus::Canceled), Exit::Canceled);
        assert_eq!(Exit::of_job(JobStatus::Failed), Exit::Failure);
    }

    #[test]
    fn a_message_has_one_line_and_its_details_below() {
        assert_eq!(message(&anyhow::anyhow!("refused; build it again")), "thalweg: refused; build it again");
        let plan = anyhow::anyhow!("the plan failed:\nmain.rs:7: \u{1b}[31mno sink\n");
        assert_eq!(message(&plan), "thalweg: the plan failed:\n  main.rs:7:  [31mno sink");
    }

    #[test]
    fn what_clap_says_becomes_one_line() {
        let rendered = "error: the following required arguments were not provided:\n  <JOB>\n\n\
                        Usage: thalweg describe <JOB>\n\nFor more information, try '--help'.\n";
        assert_eq!(
            usage_message(rendered),
            "thalweg: the following required arguments were not provided: <JOB>; `thalweg --help` shows what there is"
        );
        let rendered = "error: unexpected argument '--nmae' found\n\n  tip: a similar argument exists: '--name'\n\n\
                        Usage: thalweg submit --name <NAME> <BINARY>\n";
        assert_eq!(
            usage_message(rendered),
            "thalweg: unexpected argument '--nmae' found; a similar argument exists: '--name'; `thalweg --help` shows \
             what there is"
        );
    }
}
