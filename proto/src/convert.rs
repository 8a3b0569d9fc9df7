//! Between messages and the types of `thalweg-common`: the border of every crate that speaks gRPC.
//!
//! Outwards a conversion always succeeds (`From`); inwards it is checked, and a message that does not follow the
//! protocol is a [`Malformed`] which names the field. Invariants: ids travel as 16 big-endian bytes, an enumeration's
//! value 0 is never valid, a text of a failure is cut to [`MAX_FAILURE_TEXT_BYTES`] before it is sent.

mod snapshot;

use std::collections::BTreeMap;

use bytes::Bytes;
use thalweg_common::failure::{Failure, Fault};
use thalweg_common::id::{JobId, SubmissionId, SubtaskId, WorkerId};
use thalweg_common::limits::MAX_FAILURE_TEXT_BYTES;
use thalweg_common::properties::{PropertiesError, RuntimeProperties};
use thalweg_common::status::{JobStatus, TaskStatus};

pub use snapshot::{
    CheckpointPhases, SHARED_DIRECTORY, SharedFile, SnapshotHandle, SnapshotLocation, snapshot,
};

use crate::v1;

/// A message that does not follow the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: `{field}` {problem}; use the same Thalweg version on both sides")]
pub struct Malformed {
    /// The field, as in the `.proto` file.
    pub field: &'static str,
    /// What is wrong with it, as in `is missing`.
    pub problem: String,
}

impl Malformed {
    /// The field holds something that it must not.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }

    /// The field is absent.
    pub fn missing(field: &'static str) -> Self {
        Self::new(field, "is missing")
    }
}

impl From<Malformed> for tonic::Status {
    fn from(malformed: Malformed) -> Self {
        Self::invalid_argument(malformed.to_string())
    }
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::internal(malformed.to_string())
    }
}

/// The value of a message field that must be there.
///
/// # Errors
/// When it is absent.
pub fn required<T>(field: &'static str, value: Option<T>) -> Result<T, Malformed> {
    value.ok_or_else(|| Malformed::missing(field))
}

/// An id that travels as 16 big-endian bytes.
pub trait WireId: Sized {
    /// Its bytes.
    fn to_wire(&self) -> Bytes;

    /// The id that `bytes` name; `field` is named when they are not 16.
    ///
    /// # Errors
    /// When there are not exactly 16 bytes.
    fn from_wire(field: &'static str, bytes: &[u8]) -> Result<Self, Malformed>;
}

macro_rules! wire_id {
    ($($name:ident),*) => {$(
        impl WireId for $name {
            fn to_wire(&self) -> Bytes {
                Bytes::copy_from_slice(&self.0.to_be_bytes())
            }

            fn from_wire(field: &'static str, bytes: &[u8]) -> Result<Self, Malformed> {
                let array = bytes.try_into().map_err(|_| {
                    Malformed::new(field, format!("is {} bytes long instead of 16", bytes.len()))
                })?;
                Ok(Self(u128::from_be_bytes(array)))
            }
        }
    )*};
}

wire_id!(JobId, SubmissionId, WorkerId);

impl From<SubtaskId> for v1::SubtaskId {
    fn from(id: SubtaskId) -> Self {
        Self { vertex: id.vertex, index: id.index }
    }
}

impl From<v1::SubtaskId> for SubtaskId {
    fn from(id: v1::SubtaskId) -> Self {
        Self { vertex: id.vertex, index: id.index }
    }
}

/// The subtask in a field that must be there.
///
/// # Errors
/// When it is absent.
pub fn subtask(field: &'static str, id: Option<v1::SubtaskId>) -> Result<SubtaskId, Malformed> {
    required(field, id).map(SubtaskId::from)
}

macro_rules! status {
    ($common:ident, $function:ident, $what:literal, [$($state:ident),*]) => {
        impl From<$common> for v1::$common {
            fn from(status: $common) -> Self {
                match status {
                    $($common::$state => Self::$state,)*
                }
            }
        }

        #[doc = concat!("The state of a ", $what, " in a field.")]
        ///
        /// # Errors
        /// When it is unspecified or unknown.
        pub fn $function(field: &'static str, value: i32) -> Result<$common, Malformed> {
            match v1::$common::try_from(value) {
                $(Ok(v1::$common::$state) => Ok($common::$state),)*
                Ok(v1::$common::Unspecified) => Err(Malformed::missing(field)),
                Err(_) => Err(Malformed::new(field, concat!("has no ", $what, " state of number ").to_string() + &value.to_string())),
            }
        }
    };
}

status!(
    JobStatus,
    job_status,
    "job",
    [Created, Running, Failing, Failed, Cancelling, Canceled, Finished, Restarting]
);
status!(
    TaskStatus,
    task_status,
    "task",
    [Created, Scheduled, Deploying, Initializing, Running, Drained, Finished, Canceling, Canceled, Failed]
);

impl From<Failure> for v1::Failure {
    fn from(failure: Failure) -> Self {
        let fault = match failure.fault {
            Fault::User => v1::Fault::User,
            Fault::External => v1::Fault::External,
            Fault::Internal => v1::Fault::Internal,
        };
        Self {
            fault: fault.into(),
            retryable: failure.retryable,
            message: cut_in_the_middle(failure.message, MAX_FAILURE_TEXT_BYTES),
            details: cut_in_the_middle(failure.details, MAX_FAILURE_TEXT_BYTES),
        }
    }
}

impl TryFrom<v1::Failure> for Failure {
    type Error = Malformed;

    fn try_from(failure: v1::Failure) -> Result<Self, Malformed> {
        let fault = match v1::Fault::try_from(failure.fault) {
            Ok(v1::Fault::User) => Fault::User,
            Ok(v1::Fault::External) => Fault::External,
            Ok(v1::Fault::Internal) => Fault::Internal,
            Ok(v1::Fault::Unspecified) => return Err(Malformed::missing("failure.fault")),
            Err(_) => return Err(Malformed::new("failure.fault", format!("has no value {}", failure.fault))),
        };
        Ok(Self {
            fault,
            retryable: failure.retryable,
            message: cut_in_the_middle(failure.message, MAX_FAILURE_TEXT_BYTES),
            details: cut_in_the_middle(failure.details, MAX_FAILURE_TEXT_BYTES),
            is_consequence: false,
        })
    }
}

/// The failure in a field that must be there.
///
/// # Errors
/// When it is absent or malformed.
pub fn failure(field: &'static str, failure: Option<v1::Failure>) -> Result<Failure, Malformed> {
    required(field, failure)?.try_into()
}

/// The text if it has at most `limit` bytes, else its beginning and its end: causes stand first, cures last.
/// Runtime properties as messages carry them.
#[must_use]
pub fn properties_to_wire(properties: &RuntimeProperties) -> Vec<v1::PropertyGroup> {
    let group = |(id, map): (&str, &BTreeMap<String, String>)| v1::PropertyGroup {
        id: id.to_owned(),
        properties: map.clone().into_iter().collect(),
    };
    properties.groups().map(group).collect()
}

/// The same from messages.
///
/// # Errors
/// When there is more than the limits say, or something that no program could have been given.
pub fn properties_from_wire(groups: Vec<v1::PropertyGroup>) -> Result<RuntimeProperties, PropertiesError> {
    let group = |group: v1::PropertyGroup| (group.id, group.properties.into_iter().collect());
    RuntimeProperties::from_groups(groups.into_iter().map(group))
}

fn cut_in_the_middle(text: String, limit: usize) -> String {
    const GAP: &str = "\n[...]\n";
    if text.len() <= limit {
        return text;
    }
    let half = limit.saturating_sub(GAP.len()) / 2;
    let head = text.floor_char_boundary(half);
    let tail = text.ceil_char_boundary(text.len() - half);
    format!("{}{GAP}{}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_and_wrong_lengths_name_the_field() {
        let id = JobId(0x0102_0304);
        assert_eq!(id.to_wire().last(), Some(&4), "big-endian");
        assert_eq!(JobId::from_wire("job_id", &id.to_wire()), Ok(id));
        for bytes in [&[][..], &[0; 15], &[0; 17]] {
            let error = JobId::from_wire("job_id", bytes).expect_err("wrong length");
            assert_eq!(error.field, "job_id");
            assert!(error.to_string().contains("instead of 16"), "{error}");
        }
    }

    #[test]
    fn states_survive_and_unknown_ones_are_refused() {
        for number in 1..=8 {
            let status = job_status("status", number).expect("a known state");
            assert_eq!(i32::from(v1::JobStatus::from(status)), number);
        }
        for number in 1..=10 {
            let status = task_status("status", number).expect("a known state");
            assert_eq!(i32::from(v1::TaskStatus::from(status)), number);
        }
        for number in [0, -1, 99] {
            assert_eq!(
                job_status("summary.status", number).map_err(|error| error.field),
                Err("summary.status")
            );
            assert_eq!(task_status("status", number).map_err(|error| error.field), Err("status"));
        }
    }

    #[test]
    fn failures_survive() {
        for failure in [
            Failure::user("bad record").permanent(),
            Failure::external("disk full").with_details("df says 100%"),
            Failure::internal("sequence gap"),
        ] {
            assert_eq!(Failure::try_from(v1::Failure::from(failure.clone())), Ok(failure));
        }
        assert_eq!(super::failure("failure", None).map_err(|error| error.field), Err("failure"));
        let nobody = v1::Failure { fault: 0, ..v1::Failure::from(Failure::user("x")) };
        assert_eq!(Failure::try_from(nobody).map_err(|error| error.field), Err("failure.fault"));
    }

    #[test]
    fn long_failures_keep_their_beginning_and_their_end() {
        let text = format!("cause {} cure", "ä".repeat(MAX_FAILURE_TEXT_BYTES));
        let sent = v1::Failure::from(Failure::user(text));
        assert!(sent.message.len() <= MAX_FAILURE_TEXT_BYTES);
        assert!(sent.message.starts_with("cause ä") && sent.message.ends_with("ä cure"));
    }
}
