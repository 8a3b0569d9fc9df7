//! What outlasts the request that began it: savepoints, stops, checkpoints, deletions of savepoints, rescalings.
//!
//! As in Flink a request gets the id of its trigger at once, and whoever asks with that id later how far it is. The id may be the client's
//! own: the same one begins nothing a second time. The leader remembers them; the newest [`REST_MAX_OPERATIONS`], and none of an earlier
//! leader, whose clients are told so and where to look.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::Json;
use axum::http::StatusCode;
use serde_json::{Value, json};
use thalweg_common::id::SubmissionId;
use thalweg_common::limits::REST_MAX_OPERATIONS;

use super::error::{Answer, RestError};
use super::java;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Savepoint,
    Checkpoint,
    Disposal,
    Rescaling,
}

impl Kind {
    /// As people call it.
    fn name(self) -> &'static str {
        match self {
            Self::Savepoint => "savepoint",
            Self::Checkpoint => "checkpoint",
            Self::Disposal => "deletion of a savepoint",
            Self::Rescaling => "rescaling",
        }
    }

    /// Where Flink writes why it failed.
    fn failure_field(self) -> &'static str {
        match self {
            Self::Checkpoint => "failureCause",
            Self::Savepoint | Self::Disposal | Self::Rescaling => "failure-cause",
        }
    }
}

/// What an operation is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) kind: Kind,
    /// The job, if it is about one.
    pub(super) job: String,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Progress {
    Going,
    /// What came of it: the fields of Flink's `operation`.
    Done(Value),
    Failed(String),
}

#[derive(Debug)]
struct Operation {
    subject: Subject,
    trigger: String,
    progress: Progress,
}

/// All that are remembered, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Operations {
    all: Mutex<VecDeque<Operation>>,
}

impl Operations {
    fn all(&self) -> MutexGuard<'_, VecDeque<Operation>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that an operation begins, under the client's trigger id or a new one. The flag says whether this one is to begin it.
    ///
    /// # Errors
    /// When the id is none, or so many others are under way that none can be forgotten.
    pub(super) fn begin(
        &self,
        subject: &Subject,
        wanted: Option<String>,
    ) -> Result<(String, bool), RestError> {
        // Any 128 random bits do.
        let trigger = match wanted {
            Some(wanted) => wanted.parse::<SubmissionId>().map_err(|_| {
                RestError::bad_request(format!("`{wanted}` is no trigger id; it has 32 hexadecimal digits"))
            })?,
            None => SubmissionId::random().map_err(|error| {
                RestError::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("the system gives no random bytes: {error}"),
                )
            })?,
        };
        let trigger = trigger.to_string();
        let mut all = self.all();
        if all.iter().any(|known| known.trigger == trigger && known.subject == *subject) {
            return Ok((trigger, false));
        }
        if all.len() >= REST_MAX_OPERATIONS {
            let ended = all.iter().position(|known| known.progress != Progress::Going).ok_or_else(|| {
                let message =
                    format!("{REST_MAX_OPERATIONS} operations are under way already; try again later");
                RestError::new(StatusCode::SERVICE_UNAVAILABLE, message)
            })?;
            all.remove(ended);
        }
        all.push_back(Operation {
            subject: subject.clone(),
            trigger: trigger.clone(),
            progress: Progress::Going,
        });
        Ok((trigger, true))
    }

    /// Forgets an operation that was refused before it had begun.
    pub(super) fn forget(&self, subject: &Subject, trigger: &str) {
        self.all().retain(|known| known.trigger != trigger || known.subject != *subject);
    }

    /// Notes what has come of it.
    pub(super) fn end(&self, subject: &Subject, trigger: &str, progress: Progress) {
        let mut all = self.all();
        if let Some(known) =
            all.iter_mut().find(|known| known.trigger == trigger && known.subject == *subject)
        {
            known.progress = progress;
        }
    }

    /// How far it is, as Flink says it.
    ///
    /// # Errors
    /// When no such operation is remembered.
    pub(super) fn status(&self, subject: &Subject, trigger: &str) -> Answer {
        let all = self.all();
        let known =
            all.iter().find(|known| known.trigger.eq_ignore_ascii_case(trigger) && known.subject == *subject);
        let Some(known) = known else {
            return Err(RestError::not_found(format!(
                "no {} with trigger id `{trigger}` is known to the leading job manager: it never began, is long over, or another job \
                 manager led when it began; what was completed is in `/jobs/JOB/checkpoints`",
                subject.kind.name()
            )));
        };
        let (id, operation) = match &known.progress {
            Progress::Going => ("IN_PROGRESS", Value::Null),
            Progress::Done(result) => ("COMPLETED", result.clone()),
            Progress::Failed(reason) => {
                ("COMPLETED", json!({ subject.kind.failure_field(): java::failure_cause(reason) }))
            }
        };
        Ok(Json(json!({ "status": { "id": id }, "operation": operation })))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn subject(job: &str) -> Subject {
        Subject { kind: Kind::Savepoint, job: job.into() }
    }

    #[test]
    fn a_trigger_id_begins_one_operation_of_its_job() {
        let operations = Operations::default();
        let id = "00c0ffee00c0ffee00c0ffee00c0ffee".to_string();
        assert_eq!(operations.begin(&subject("a"), Some(id.clone())).unwrap(), (id.clone(), true));
        assert_eq!(operations.begin(&subject("a"), Some(id.to_uppercase())).unwrap(), (id.clone(), false));
        assert_eq!(operations.begin(&subject("b"), Some(id.clone())).unwrap(), (id.clone(), true));
        assert!(operations.begin(&subject("a"), Some("1".into())).is_err());
        let progress = |job: &str| operations.status(&subject(job), &id).unwrap().0;
        assert_eq!(progress("a"), json!({ "status": { "id": "IN_PROGRESS" }, "operation": null }));
        operations.end(&subject("a"), &id, Progress::Done(json!({ "location": "file:///s" })));
        let done = json!({ "status": { "id": "COMPLETED" }, "operation": { "location": "file:///s" } });
        assert_eq!(progress("a"), done);
        assert_eq!(progress("b")["status"]["id"], "IN_PROGRESS");
        operations.forget(&subject("b"), &id);
        assert!(operations.status(&subject("b"), &id).is_err());
        assert_eq!(progress("a"), done);
    }

    #[test]
    fn the_oldest_that_has_ended_makes_room_and_none_that_goes_on() {
        let operations = Operations::default();
        let begin = || operations.begin(&subject("a"), None).map(|(trigger, _)| trigger);
        let triggers: Vec<_> = (0..REST_MAX_OPERATIONS).map(|_| begin().unwrap()).collect();
        assert!(begin().is_err(), "all are under way");
        operations.end(&subject("a"), &triggers[3], Progress::Failed("full disk".into()));
        let status = operations.status(&subject("a"), &triggers[3]).unwrap().0;
        assert_eq!(status["operation"]["failure-cause"]["stack-trace"], "full disk");
        begin().unwrap();
        assert!(operations.status(&subject("a"), &triggers[3]).is_err());
        assert!(operations.status(&subject("a"), &triggers[0]).is_ok());
    }
}
