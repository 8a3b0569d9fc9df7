//! The gRPC services of a job manager, and what local mode calls without gRPC.
//!
//! On a command's way this is the first step in a job manager: requests are read and checked here, commands proposed,
//! answers written. Only the leader answers; the others name it.

mod beginning;
mod checkpoints;
mod describe;
mod jobs;
mod news;
mod reachable;
mod requests;
mod rescale;
mod savepoints;
mod submit;
mod task_managers;
mod time;
mod watch;

#[cfg(feature = "rest")]
pub(crate) use describe::task_status;
pub(crate) use jobs::JobServer;
pub(crate) use submit::{SubmitError, Submitter, Submitting};
pub(crate) use task_managers::TaskManagerServer;
pub use watch::{JobEvent, JobWatch};

use thalweg_common::failure::{Failure, Fault};
use tonic::Status;

use crate::consensus::ProposeError;

/// How a failure is told to a client: what its user can mend, what may pass, what is our fault.
pub(crate) fn failure_status(failure: &Failure) -> Status {
    let text = failure.to_string();
    match failure.fault {
        Fault::User => Status::invalid_argument(text),
        Fault::External => Status::unavailable(text),
        Fault::Internal => Status::internal(text),
    }
}

pub(crate) fn propose_status(error: ProposeError) -> Status {
    match error {
        ProposeError::NotLeader { leader } => thalweg_proto::leader::not_leader(leader.as_deref()),
        ProposeError::Unavailable { .. } => Status::unavailable(error.to_string()),
        ProposeError::Refused { .. } => Status::invalid_argument(error.to_string()),
    }
}
