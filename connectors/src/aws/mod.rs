//! What all connectors to AWS services share: where a service is, who asks it, what its answers mean, when to ask again.
//!
//! Settings have Flink's keys ([`settings`]). Credentials are found when they are first needed, stay inside of the client and are shown
//! nowhere ([`access`]). What a refusal means is decided in one place ([`problem`]); pauses between tries are pure ([`backoff`]), and
//! nobody waits for them in silence ([`again`]).
//! Retries of the SDK are off: a connector knows better what may be tried again, and for how long.

mod access;
mod again;
mod backoff;
mod problem;
mod settings;
pub(crate) mod writing;

pub use backoff::Backoff;
pub use settings::{AssumeRole, AwsSettings, CredentialsProvider, WebIdentity};

pub(crate) use access::Connection;
pub(crate) use again::{Place, Question};
pub(crate) use backoff::random;
pub(crate) use problem::{Kind, Problem};
pub(crate) use settings::{canonical, keys};
