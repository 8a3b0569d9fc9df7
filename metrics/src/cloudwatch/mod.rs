//! Reports for Amazon CloudWatch: as requests ([`batch`]), which [`client`] sends, or as log lines in the embedded metric format ([`embedded`]).

pub mod batch;
#[cfg(feature = "cloudwatch")]
pub mod client;
pub mod embedded;
