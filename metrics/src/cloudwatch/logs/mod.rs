//! What processes log, to CloudWatch Logs: divided into requests ([`batch`]), which [`shipping`] sends.

pub mod batch;
#[cfg(feature = "cloudwatch")]
mod client;
#[cfg(feature = "cloudwatch")]
pub mod shipping;
