//! Names of parts, which tell whose they are. Pure.
//!
//! | name | what it is |
//! | --- | --- |
//! | `BUCKET/PREFIX-<subtask>-<attempt>-<number>-<job>SUFFIX` | a finished part |
//! | `.inprogress/part-<subtask>-<attempt>-<number>.<job>` | a part in a directory that is not finished: its bytes |
//! | `.inprogress/part-<subtask>-<attempt>-<number>.<job>.<checkpoint>` | on S3: the end of such a part at a checkpoint |
//!
//! An attempt's number is never used twice in a job, and another job has another id: so no name is used twice, and there is no counter to
//! remember. (An object on S3 has its name from its beginning, when nobody knows the checkpoint that will finish it.)

use thalweg_common::Record;
use thalweg_common::id::{Attempt, JobId};

/// Where unfinished parts are, below the directory of the sink. Readers leave it out, because its name begins with a dot.
pub(super) const HIDDEN: &str = ".inprogress";

/// Digits of the job's id in a visible name.
const JOB_DIGITS: usize = 8;

/// A part: which one of those that a subtask began in an attempt of a job.
#[derive(Record, Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[record(crate = thalweg_common)]
pub(crate) struct PartId {
    pub(crate) subtask: u32,
    pub(crate) attempt: Attempt,
    pub(crate) number: u64,
    /// The id of the job.
    pub(crate) job: u128,
}

/// What the author puts around names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Affixes {
    pub(super) prefix: String,
    pub(super) suffix: String,
}

impl Default for Affixes {
    fn default() -> Self {
        Self { prefix: "part".to_owned(), suffix: String::new() }
    }
}

impl PartId {
    /// The path of the finished part.
    pub(super) fn visible(&self, bucket: &str, affixes: &Affixes) -> String {
        let Self { subtask, attempt, number, job } = self;
        let Affixes { prefix, suffix } = affixes;
        let job: String = JobId(*job).to_string().chars().take(JOB_DIGITS).collect();
        let slash = if bucket.is_empty() { "" } else { "/" };
        format!("{bucket}{slash}{prefix}-{subtask}-{attempt}-{number}-{job}{suffix}")
    }

    /// The path of what is hidden of it.
    pub(super) fn hidden(&self) -> String {
        let Self { subtask, attempt, number, job } = self;
        format!("{HIDDEN}/part-{subtask}-{attempt}-{number}.{}", JobId(*job))
    }

    /// Whether an earlier attempt of the same job left it behind, and subtask `subtask` of `parallelism` answers for whoever did. Those of newer
    /// attempts are never touched (this one is out of date then without knowing it), nor those of other jobs.
    pub(super) fn is_left_over(&self, job: JobId, attempt: Attempt, subtask: u32, parallelism: u32) -> bool {
        self.job == job.0 && self.attempt < attempt && self.subtask % parallelism.max(1) == subtask
    }

    /// The part that a name in [`HIDDEN`] is of.
    pub(super) fn of_hidden(name: &str) -> Option<Self> {
        let mut words = name.strip_prefix("part-")?.split('.');
        let mut numbers = words.next()?.split('-');
        let job: JobId = words.next()?.parse().ok()?;
        let (subtask, attempt, number) = (numbers.next()?, numbers.next()?, numbers.next()?);
        if numbers.next().is_some()
            || words.next().is_some_and(|word| word.parse::<u64>().is_err())
            || words.next().is_some()
        {
            return None;
        }
        Some(Self {
            subtask: subtask.parse().ok()?,
            attempt: attempt.parse().ok()?,
            number: number.parse().ok()?,
            job: job.0,
        })
    }

    /// The part that a visible name is of, if it is one of this job.
    pub(super) fn of_visible(path: &str, affixes: &Affixes, job: JobId) -> Option<Self> {
        let name = path.rsplit('/').next()?;
        let rest = name.strip_prefix(&affixes.prefix)?.strip_suffix(&affixes.suffix)?.strip_prefix('-')?;
        let mut words = rest.split('-');
        let (subtask, attempt, number) = (words.next()?, words.next()?, words.next()?);
        let digits: String = job.to_string().chars().take(JOB_DIGITS).collect();
        if words.next()? != digits || words.next().is_some() {
            return None;
        }
        Some(Self {
            subtask: subtask.parse().ok()?,
            attempt: attempt.parse().ok()?,
            number: number.parse().ok()?,
            job: job.0,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const PART: PartId = PartId { subtask: 3, attempt: 2, number: 17, job: 7 << 96 };

    #[test]
    fn names_tell_whose_a_part_is() {
        let affixes = Affixes { prefix: "clicks-eu".into(), suffix: ".json".into() };
        let visible = PART.visible("2024-01-05--10", &affixes);
        assert_eq!(visible, "2024-01-05--10/clicks-eu-3-2-17-00000007.json");
        assert_eq!(PartId::of_visible(&visible, &affixes, JobId(PART.job)), Some(PART));
        assert_eq!(PartId::of_visible(&visible, &affixes, JobId(8)), None);
        assert_eq!(PART.visible("", &Affixes::default()), "part-3-2-17-00000007");
        let hidden = PART.hidden();
        assert_eq!(hidden, format!(".inprogress/part-3-2-17.{}", JobId(PART.job)));
        let name = hidden.strip_prefix(".inprogress/").unwrap();
        assert_eq!(PartId::of_hidden(name), Some(PART));
        assert_eq!(PartId::of_hidden(&format!("{name}.12")), Some(PART), "the end of a part on S3");
        for other in
            ["part-3-2.x", "part-3-2-17", "x", "part-3-2-17.zz", &format!("{name}.x"), &format!("{name}.1.2")]
        {
            assert_eq!(PartId::of_hidden(other), None, "{other}");
        }
    }

    #[test]
    fn only_what_earlier_attempts_of_the_same_job_and_share_left_is_a_left_over() {
        for (attempt, subtask, parallelism, job, is_left_over) in [
            (3, 3, 4, JobId(PART.job), true),
            (2, 3, 4, JobId(PART.job), false),
            (1, 3, 4, JobId(PART.job), false),
            (3, 2, 4, JobId(PART.job), false),
            (3, 1, 2, JobId(PART.job), true),
            (3, 3, 4, JobId(1), false),
        ] {
            assert_eq!(
                PART.is_left_over(job, attempt, subtask, parallelism),
                is_left_over,
                "{attempt} {subtask}"
            );
        }
    }
}
