//! Names of part files, which tell whose they are and how far they are. Pure.
//!
//! | name | state |
//! | --- | --- |
//! | `.part-<subtask>-<counter>.inprogress.<job>.<attempt>` | open: records of no checkpoint yet |
//! | `.part-<subtask>-<counter>.pending.<job>.<attempt>` | complete and on disk, named by a checkpoint that may still fail |
//! | `part-<subtask>-<counter>` | committed: visible for good |

use std::fmt;

use thalweg_common::id::{Attempt, JobId};

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

/// The visible name of a part.
pub(crate) fn committed_name(subtask: u32, counter: u64) -> String {
    format!("part-{subtask}-{counter}")
}

impl Writer {
    /// The name of one of its parts while it is not committed.
    pub(crate) fn hidden_name(&self, counter: u64, stage: Stage) -> String {
        let Self { subtask, job, attempt } = self;
        format!(".part-{subtask}-{counter}.{stage}.{job}.{attempt}")
    }

    /// Whether `name` was left behind by an earlier attempt of this subtask. Other jobs' files, and those of a newer
    /// attempt (this one is then out of date without knowing it), are never touched.
    pub(crate) fn is_left_over(&self, name: &str) -> bool {
        parse_hidden(name).is_some_and(|(owner, _)| {
            (owner.subtask, owner.job) == (self.subtask, self.job) && owner.attempt < self.attempt
        })
    }
}

/// The counter in the name of any part of `subtask`, committed or hidden.
pub(crate) fn counter_of(name: &str, subtask: u32) -> Option<u64> {
    let (owner, counter) = match parse_hidden(name) {
        Some((owner, counter)) => (owner.subtask, counter),
        None => parse_part(name)?,
    };
    (owner == subtask).then_some(counter)
}

fn parse_hidden(name: &str) -> Option<(Writer, u64)> {
    let mut words = name.strip_prefix('.')?.split('.');
    let (part, stage, job, attempt) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let known = stage == "inprogress" || stage == "pending";
    if !known || words.next().is_some() {
        return None;
    }
    let (subtask, counter) = parse_part(part)?;
    Some((Writer { subtask, job: job.parse().ok()?, attempt: attempt.parse().ok()? }, counter))
}

fn parse_part(name: &str) -> Option<(u32, u64)> {
    let (subtask, counter) = name.strip_prefix("part-")?.split_once('-')?;
    Some((subtask.parse().ok()?, counter.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITER: Writer = Writer { subtask: 3, job: JobId(7), attempt: 2 };

    #[test]
    fn a_part_is_hidden_until_it_is_committed() {
        let job = "00000000000000000000000000000007";
        assert_eq!(WRITER.hidden_name(5, Stage::InProgress), format!(".part-3-5.inprogress.{job}.2"));
        assert_eq!(WRITER.hidden_name(5, Stage::Pending), format!(".part-3-5.pending.{job}.2"));
        assert_eq!(committed_name(3, 5), "part-3-5");
    }

    #[test]
    fn only_earlier_attempts_of_the_same_subtask_and_job_are_left_overs() {
        let table = [
            (Writer { attempt: 1, ..WRITER }, true),
            (WRITER, false),
            (Writer { attempt: 3, ..WRITER }, false),
            (Writer { attempt: 1, subtask: 4, ..WRITER }, false),
            (Writer { attempt: 1, job: JobId(8), ..WRITER }, false),
        ];
        for (owner, expected) in table {
            for stage in [Stage::InProgress, Stage::Pending] {
                assert_eq!(WRITER.is_left_over(&owner.hidden_name(9, stage)), expected, "{owner:?} {stage}");
            }
        }
        for name in ["part-3-9", ".part-3-9", ".part-3-9.other.7.1", ".hidden", "", ".part-3-9.pending.x.1"] {
            assert!(!WRITER.is_left_over(name), "{name}");
        }
    }

    #[test]
    fn counters_are_found_in_all_names_of_a_subtask() {
        assert_eq!(counter_of("part-3-12", 3), Some(12));
        assert_eq!(counter_of(&WRITER.hidden_name(13, Stage::Pending), 3), Some(13));
        for name in ["part-4-12", "part-3", "part-3-x", "port-3-1", "notes.txt"] {
            assert_eq!(counter_of(name, 3), None, "{name}");
        }
    }
}
