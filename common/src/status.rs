//! States of jobs and tasks and the transitions that are allowed, with Flink's names.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobStatus {
    /// Accepted; waits for slots and for its tasks to start.
    Created,
    /// All its tasks run.
    Running,
    /// A failure is being handled and the restart strategy gives up: tasks are being cancelled.
    Failing,
    /// Ended by a failure.
    Failed,
    /// Cancellation asked for; tasks are being cancelled.
    Cancelling,
    /// Ended by cancellation.
    Canceled,
    /// Ended by reaching the end of its bounded input.
    Finished,
    /// A failure is being handled: tasks are cancelled, then scheduled again after the restart strategy's delay.
    Restarting,
}

impl JobStatus {
    /// Whether the job has ended for good.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Failed | Self::Canceled | Self::Finished)
    }

    /// Whether a job may go from this state to `next`.
    pub fn can_become(self, next: Self) -> bool {
        use JobStatus::{Canceled, Cancelling, Created, Failed, Failing, Finished, Restarting, Running};
        match self {
            Created => matches!(next, Running | Restarting | Failing | Cancelling),
            Running => matches!(next, Restarting | Failing | Cancelling | Finished),
            Restarting => matches!(next, Running | Restarting | Failing | Cancelling),
            Failing => matches!(next, Failed | Cancelling),
            Cancelling => matches!(next, Canceled),
            Failed | Canceled | Finished => false,
        }
    }

    /// Flink's name, as in `RUNNING`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Running => "RUNNING",
            Self::Failing => "FAILING",
            Self::Failed => "FAILED",
            Self::Cancelling => "CANCELLING",
            Self::Canceled => "CANCELED",
            Self::Finished => "FINISHED",
            Self::Restarting => "RESTARTING",
        }
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The state of one execution of a subtask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskStatus {
    /// Known, without a slot.
    Created,
    /// Has a slot.
    Scheduled,
    /// Being sent to its worker.
    Deploying,
    /// Restores its state and opens its channels.
    Initializing,
    /// Processes records.
    Running,
    /// Has read all its input and waits for the job's final checkpoint.
    Drained,
    /// Ended after its output was committed.
    Finished,
    /// Being cancelled.
    Canceling,
    /// Ended by cancellation.
    Canceled,
    /// Ended by a failure.
    Failed,
}

impl TaskStatus {
    /// Whether the execution has ended.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Finished | Self::Canceled | Self::Failed)
    }

    /// Flink's name, as in `RUNNING`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Scheduled => "SCHEDULED",
            Self::Deploying => "DEPLOYING",
            Self::Initializing => "INITIALIZING",
            Self::Running => "RUNNING",
            Self::Drained => "DRAINED",
            Self::Finished => "FINISHED",
            Self::Canceling => "CANCELING",
            Self::Canceled => "CANCELED",
            Self::Failed => "FAILED",
        }
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::JobStatus;

    const ALL: [JobStatus; 8] = [
        JobStatus::Created,
        JobStatus::Running,
        JobStatus::Failing,
        JobStatus::Failed,
        JobStatus::Cancelling,
        JobStatus::Canceled,
        JobStatus::Finished,
        JobStatus::Restarting,
    ];

    #[test]
    fn terminal_states_are_final_and_others_can_end() {
        for state in ALL {
            assert_eq!(state.is_terminal(), !ALL.iter().any(|next| state.can_become(*next)), "{state}");
        }
    }
}
