//! What a person calls a job: its id, the beginning of its id, or its name. Pure.
//!
//! Stands before every command that is about one job. Invariant: a reference that fits two jobs is never resolved to one
//! of them.

use std::error::Error;
use std::fmt;

use thalweg_common::id::JobId;
use thalweg_proto::model::JobSummary;

use crate::human::one_line;

/// Fewest digits of an id that stand for it.
const MIN_PREFIX_DIGITS: usize = 4;

/// Most jobs that an error lists.
const MAX_CANDIDATES: usize = 8;

/// A reference that does not stand for one job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReferenceError {
    /// It fits none.
    Unknown {
        /// As it was written.
        reference: String,
    },
    /// It fits several.
    Ambiguous {
        /// As it was written.
        reference: String,
        /// Each with id, name and state.
        candidates: Vec<String>,
    },
}

impl fmt::Display for ReferenceError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { reference } if is_digits(reference) && reference.len() < MIN_PREFIX_DIGITS => {
                write!(
                    formatter,
                    "no job has the name `{}`, and for an id it needs at least {MIN_PREFIX_DIGITS} digits; `thalweg list` \
                 shows all jobs",
                    one_line(reference)
                )
            }
            Self::Unknown { reference } => write!(
                formatter,
                "no job has the id or the name `{}`; `thalweg list` shows all jobs",
                one_line(reference)
            ),
            Self::Ambiguous { reference, candidates } => {
                let shown = candidates.iter().take(MAX_CANDIDATES).cloned().collect::<Vec<_>>().join(", ");
                let more = match candidates.len().saturating_sub(MAX_CANDIDATES) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                write!(
                    formatter,
                    "`{}` fits {} jobs: {shown}{more}; give more digits of the id",
                    one_line(reference),
                    candidates.len()
                )
            }
        }
    }
}

impl Error for ReferenceError {}

/// The id that a reference is in full, if it is one: then the list of jobs is not needed.
pub(crate) fn as_id(reference: &str) -> Option<JobId> {
    reference.parse().ok()
}

/// The one job that a reference stands for.
///
/// # Errors
/// When it fits none, or several.
pub(crate) fn resolve(reference: &str, jobs: &[JobSummary]) -> Result<JobId, ReferenceError> {
    let prefix =
        (reference.len() >= MIN_PREFIX_DIGITS && is_digits(reference)).then(|| reference.to_lowercase());
    let fits = |job: &&JobSummary| {
        job.name == reference
            || prefix.as_ref().is_some_and(|prefix| job.job_id.to_string().starts_with(prefix.as_str()))
    };
    let found: Vec<&JobSummary> = jobs.iter().filter(fits).collect();
    match found.as_slice() {
        [] => Err(ReferenceError::Unknown { reference: reference.to_string() }),
        [job] => Ok(job.job_id),
        jobs => Err(ReferenceError::Ambiguous {
            reference: reference.to_string(),
            candidates: jobs.iter().map(|job| candidate(job)).collect(),
        }),
    }
}

fn candidate(job: &JobSummary) -> String {
    format!("{} ({}, {})", job.job_id, one_line(&job.name), job.status)
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use thalweg_common::status::JobStatus;

    use super::*;

    fn job(id: u128, name: &str) -> JobSummary {
        JobSummary {
            job_id: JobId(id),
            name: name.into(),
            status: JobStatus::Running,
            attempt: 1,
            start_time_ms: 1,
            end_time_ms: None,
            tasks_total: 1,
            tasks_running: 1,
            reason: String::new(),
        }
    }

    fn jobs() -> Vec<JobSummary> {
        vec![
            job(0xabcd_1111 << 96, "word_count"),
            job(0xabcd_2222 << 96, "trades"),
            job(0x0123_4567 << 96, "trades"),
            job(0xface_0000 << 96, "abcd"),
        ]
    }

    #[test]
    fn ids_prefixes_and_names_stand_for_their_job() {
        let jobs = jobs();
        for (reference, position) in [
            (jobs[1].job_id.to_string().as_str(), 1),
            ("abcd1", 0),
            ("ABCD2", 1),
            ("0123", 2),
            ("face", 3),
            ("word_count", 0),
        ] {
            assert_eq!(resolve(reference, &jobs), Ok(jobs[position].job_id), "{reference}");
        }
    }

    #[test]
    fn what_fits_none_is_unknown() {
        for (reference, text) in [
            ("abc", "at least 4 digits"),
            ("", "at least 4 digits"),
            ("abcd3", "no job has the id or the name `abcd3`"),
            ("word", "no job has the id or the name `word`"),
            ("Trades", "`thalweg list` shows all"),
        ] {
            let error = resolve(reference, &jobs()).expect_err(reference);
            assert_eq!(error, ReferenceError::Unknown { reference: reference.into() });
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn what_fits_several_lists_them() {
        let error = resolve("trades", &jobs()).expect_err("two have that name");
        assert_eq!(
            error.to_string(),
            "`trades` fits 2 jobs: abcd2222000000000000000000000000 (trades, RUNNING), \
             01234567000000000000000000000000 (trades, RUNNING); give more digits of the id"
        );
        let error =
            resolve("abcd", &jobs()).expect_err("the beginning of two ids and the name of a third job");
        assert!(error.to_string().contains("fits 3 jobs"), "{error}");
    }

    #[test]
    fn a_long_list_of_candidates_is_cut() {
        let jobs: Vec<_> = (0..20).map(|number| job(number, "same")).collect();
        let error = resolve("same", &jobs).expect_err("twenty have that name").to_string();
        assert!(error.contains("fits 20 jobs") && error.contains(" and 12 more"), "{error}");
    }

    #[test]
    fn only_a_whole_id_needs_no_list() {
        assert_eq!(as_id("000000000000000000000000000000ff"), Some(JobId(255)));
        assert_eq!(as_id("00ff"), None);
    }
}
