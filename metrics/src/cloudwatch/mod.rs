//! Reports for Amazon CloudWatch: as requests ([`batch`]), which [`client`] sends, or as log lines in the embedded metric format ([`embedded`]);
//! and what processes log ([`logs`]).

pub mod batch;
#[cfg(feature = "cloudwatch")]
pub mod client;
#[cfg(feature = "cloudwatch")]
pub mod connect;
pub mod embedded;
pub mod logs;
