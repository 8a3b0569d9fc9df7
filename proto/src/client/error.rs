//! Why a cluster could not be asked, or what it refused.

use std::path::PathBuf;
use std::time::Duration;

use tonic::{Code, Status};

use crate::convert::Malformed;
use crate::transport::InvalidAddress;

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is nobody to ask.
    #[error("no job manager was named; give at least one address, as in --jobmanager 127.0.0.1:6123")]
    NoAddress,
    /// An address that cannot be dialled.
    #[error(transparent)]
    InvalidAddress(#[from] InvalidAddress),
    /// Nobody that leads the cluster answered in time.
    #[error(
        "no leading job manager answered at {addresses} within {} s (last answer: {last}); check the addresses, and \
         that a majority of the job managers runs",
        .waited.as_secs_f32()
    )]
    Unreachable {
        /// All that were asked.
        addresses: String,
        /// For how long.
        waited: Duration,
        /// What the last attempt met.
        last: String,
    },
    /// The cluster refused the request. The message is the cluster's and says what to do.
    #[error("{message}")]
    Refused {
        /// The kind of refusal.
        code: Code,
        /// Why.
        message: String,
    },
    /// The job's binary cannot be read or is too large.
    #[error("cannot submit {}: {problem}", .path.display())]
    Binary {
        /// The binary.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The cluster's answer makes no sense.
    #[error("the cluster's answer is not understood: {0}")]
    Malformed(#[from] Malformed),
}

impl ClientError {
    /// Whether the cluster was not reached at all, as opposed to having refused.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::NoAddress | Self::InvalidAddress(_) | Self::Unreachable { .. })
    }

    /// A refusal of the cluster.
    pub(super) fn refused(status: &Status) -> Self {
        let message = match status.code() {
            Code::Unimplemented => {
                "this cluster does not know the request; use the client of the cluster's version".into()
            }
            _ if status.message().is_empty() => {
                format!("the cluster refused the request without a reason ({})", status.code())
            }
            _ => status.message().to_string(),
        };
        Self::Refused { code: status.code(), message }
    }
}
