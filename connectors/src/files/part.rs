//! Names of part files, which tell whose they are and how far they are. Pure.
//!
//! | name | state |
//! | --- | --- |
//! | `.part-<subtask>-<number>.inprogress.<job>.<attempt>` | open: records of no checkpoint yet |
//! | `.part-<subtask>-<checkpoint>.pending.<job>.<attempt>` | complete and on disk, named by a checkpoint that may still fail |
//! | `part-<subtask>-<checkpoint>-<job>` | committed: visible for good |
//!
//! A checkpoint's number is never used twice in a job, and another job has another id, of which the visible name has the first digits: so no name
//! is used twice, whatever becomes of the files.

use std::fmt;

use thalweg_common::id::{Attempt, CheckpointId, JobId};

/// Who writes: one subtask in one execution attempt of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Writer {
    pub(crate) subtask: u32,
    pub(crate) job: JobId,
    pub(crate) attempt: Attempt,
}

/// What a hidden file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    InProgress,
    Pending,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InProgress => "inprogress",
            Self::Pending => "pending",
        })
    }
}

/// Digits of the job's id in a visible name.
const JOB_DIGITS: usize = 8;

impl Writer {
    /// The name of one of its parts while it is not committed.
    pub(crate) fn hidden_name(&self, number: u64, stage: Stage) -> String {
        let Self { subtask, job, attempt } = self;
        format!(".part-{subtask}-{number}.{stage}.{job}.{attempt}")
    }

    /// The visible name of the part that was prepared at this checkpoint.
    pub(crate) fn committed_name(&self, checkpoint: CheckpointId) -> String {
        let job: String = self.job.to_string().chars().take(JOB_DIGITS).collect();
        format!("part-{}-{checkpoint}-{job}", self.subtask)
    }

    /// Whether `name` was left behind by an earlier attempt, and this writer of `parallelism` answers for the subtask that did. Other
    /// jobs' files, and those of a newer attempt (this one is then out of date without knowing it), are never touched.
    pub(crate) fn is_left_over(&self, name: &str, parallelism: u32) -> bool {
        parse_hidden(name).is_some_and(|owner| {
            owner.subtask % parallelism.max(1) == self.subtask
                && owner.job == self.job
                && owner.attempt < self.attempt
        })
    }
}

fn parse_hidden(name: &str) -> Option<Writer> {
    let mut words = name.strip_prefix('.')?.split('.');
    let (part, stage, job, attempt) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let known = stage == "inprogress" || stage == "pending";
    if !known || words.next().is_some() {
        return None;
    }
    let (subtask, number) = part.strip_prefix("part-")?.split_once('-')?;
    number.parse::<u64>().ok()?;
    Some(Writer { subtask: subtask.parse().ok()?, job: job.parse().ok()?, attempt: attempt.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITER: Writer = Writer { subtask: 3, job: JobId(7 << 96), attempt: 2 };

    #[test]
    fn a_part_is_hidden_until_it_is_committed() {
        let job = "00000007000000000000000000000000";
        assert_eq!(WRITER.hidden_name(5, Stage::InProgress), format!(".part-3-5.inprogress.{job}.2"));
        assert_eq!(WRITER.hidden_name(5, Stage::Pending), format!(".part-3-5.pending.{job}.2"));
        assert_eq!(WRITER.committed_name(5), "part-3-5-00000007");
    }

    #[test]
    fn only_earlier_attempts_of_its_own_subtasks_and_job_are_left_overs() {
        let table = [
            (Writer { attempt: 1, ..WRITER }, 4, true),
            (WRITER, 4, false),
            (Writer { attempt: 3, ..WRITER }, 4, false),
            (Writer { attempt: 1, subtask: 4, ..WRITER }, 4, false),
            (Writer { attempt: 1, subtask: 7, ..WRITER }, 4, true),
            (Writer { attempt: 1, subtask: 7, ..WRITER }, 5, false),
            (Writer { attempt: 1, job: JobId(8), ..WRITER }, 4, false),
        ];
        for (owner, parallelism, expected) in table {
            for stage in [Stage::InProgress, Stage::Pending] {
                let name = owner.hidden_name(9, stage);
                assert_eq!(WRITER.is_left_over(&name, parallelism), expected, "{name} of {parallelism}");
            }
        }
        let earlier = WRITER.committed_name(9);
        for name in [&earlier, ".part-3-9", ".part-3-9.other.7.1", ".hidden", "", ".part-3-9.pending.x.1"] {
            assert!(!WRITER.is_left_over(name, 4), "{name}");
        }
    }
}
