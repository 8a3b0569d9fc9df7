//! How a job manager that does not lead says so, and how a client reads it.
//!
//! The answer is FAILED_PRECONDITION with the leader's address in the metadata key [`LEADER_KEY`]; the key without a
//! value says that no leader is known at the moment. Any other FAILED_PRECONDITION is a real refusal.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// The metadata key of a refusal by a job manager that does not lead.
pub const LEADER_KEY: &str = "thalweg-leader";

/// The answer of a job manager that does not lead; `leader` is `host:port` when it is known.
#[must_use]
pub fn not_leader(leader: Option<&str>) -> Status {
    let leader = leader.unwrap_or_default();
    let mut status = Status::failed_precondition(if leader.is_empty() {
        "this job manager does not lead and knows no leader at the moment; try again".to_string()
    } else {
        format!("this job manager does not lead; ask {leader}")
    });
    // An address that is no header value cannot be dialled either: then no leader is known.
    let value = leader.parse().unwrap_or_else(|_| MetadataValue::from_static(""));
    status.metadata_mut().insert(LEADER_KEY, value);
    status
}

/// Whether a refusal says that another job manager leads, and which: `Some(None)` when it does not know.
#[must_use]
pub fn redirect(status: &Status) -> Option<Option<String>> {
    if status.code() != Code::FailedPrecondition {
        return None;
    }
    let leader = status.metadata().get(LEADER_KEY)?.to_str().unwrap_or_default();
    Some(Some(leader.to_string()).filter(|leader| !leader.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_reads_what_a_follower_says() {
        assert_eq!(redirect(&not_leader(Some("10.0.0.1:6123"))), Some(Some("10.0.0.1:6123".to_string())));
        assert_eq!(redirect(&not_leader(None)), Some(None));
        assert_eq!(redirect(&not_leader(Some("a\nb"))), Some(None));
        assert_eq!(redirect(&Status::failed_precondition("the job has ended")), None);
        assert_eq!(redirect(&Status::unavailable("")), None);
    }
}
