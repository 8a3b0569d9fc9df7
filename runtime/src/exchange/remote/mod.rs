//! Channels between processes: one gRPC stream per channel, one HTTP/2 connection per pair of workers and direction.
//!
//! On a record's way this stands between the output of one task and the gate of another one in a different worker:
//! `frame.rs` and `timestamped.rs` (bytes), `wire.rs` (gRPC messages), `sender.rs` and `client.rs` (out), `server.rs`, `registry.rs`
//! and `receiver.rs` (in).

mod client;
mod frame;
pub(super) mod receiver;
mod registry;
pub(super) mod sender;
mod server;
#[cfg(test)]
pub(crate) mod simulated;
mod timestamped;
mod wire;

use std::task::{Context, Waker};
use std::time::Duration;

use thalweg_common::config::{Configuration, keys};
use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, ChannelId, JobId, RegionId};
use thalweg_common::limits::{
    CHANNEL_CREDIT_BYTES, FLOATING_CREDIT_BYTES, FRAME_TARGET_BYTES, MAX_CHANNEL_CREDIT_BYTES,
    MAX_FRAME_BYTES,
};
use thalweg_common::task_scope::with_causes;
use thalweg_proto::v1;
use tonic::{Code, Status};

pub use client::ExchangeClient;
pub(super) use frame::{Payload, PayloadError};
pub use server::ExchangeServer;

/// What a user may set about remote channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExchangeSettings {
    /// Credit of each channel whose receiver is here: `taskmanager.network.memory.channel-credit`.
    pub channel_credit_bytes: u64,
    /// What the worker lends to channels whose senders have more: `taskmanager.network.memory.floating-credit`.
    pub floating_credit_bytes: u64,
    /// Time within which a task is to consume what is on its way to it: `taskmanager.network.memory.buffer-debloat.target`.
    /// `None` if `taskmanager.network.memory.buffer-debloat.enabled` is false.
    pub debloat_target: Option<Duration>,
    /// Size at which an outgoing frame is full: `taskmanager.memory.segment-size`.
    pub frame_target_bytes: usize,
    /// How outgoing batches are compressed: `taskmanager.network.compression.codec`. Incoming ones say it themselves.
    pub compression: Compression,
}

/// How the batches in frames are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4 blocks, where they are smaller.
    Lz4,
}

impl Default for ExchangeSettings {
    fn default() -> Self {
        Self {
            channel_credit_bytes: CHANNEL_CREDIT_BYTES as u64,
            floating_credit_bytes: FLOATING_CREDIT_BYTES as u64,
            debloat_target: Some(Duration::from_secs(1)),
            frame_target_bytes: FRAME_TARGET_BYTES,
            compression: Compression::None,
        }
    }
}

impl ExchangeSettings {
    /// The settings of a configuration, or their defaults.
    #[must_use]
    pub fn from_configuration(configuration: &Configuration) -> Self {
        let defaults = Self::default();
        let credit = configuration.memory_size(&keys::CHANNEL_CREDIT);
        let frame =
            configuration.memory_size(&keys::SEGMENT_SIZE).and_then(|bytes| usize::try_from(bytes).ok());
        let is_debloated = configuration.boolean(&keys::BUFFER_DEBLOAT_ENABLED).unwrap_or(true);
        let target = configuration.duration(&keys::BUFFER_DEBLOAT_TARGET).or(defaults.debloat_target);
        let is_compressed = configuration.text(&keys::COMPRESSION_CODEC) == Some("LZ4");
        Self {
            floating_credit_bytes: configuration
                .memory_size(&keys::FLOATING_CREDIT)
                .unwrap_or(defaults.floating_credit_bytes),
            debloat_target: target.filter(|_| is_debloated),
            compression: if is_compressed { Compression::Lz4 } else { Compression::None },
            channel_credit_bytes: credit
                .unwrap_or(defaults.channel_credit_bytes)
                .clamp(1, MAX_CHANNEL_CREDIT_BYTES as u64),
            frame_target_bytes: frame.unwrap_or(defaults.frame_target_bytes).clamp(1, MAX_FRAME_BYTES),
        }
    }
}

/// What a sender says to open a channel: which one, and what fences it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenChannel {
    /// The job.
    pub job_id: JobId,
    /// The region of both ends.
    pub region: RegionId,
    /// Its execution attempt. A receiver of a later one refuses it.
    pub attempt: Attempt,
    /// The channel.
    pub channel: ChannelId,
    /// Fingerprint of the sender's plan. A receiver with another plan refuses it.
    pub plan_fingerprint: u64,
}

impl From<OpenChannel> for v1::OpenChannel {
    fn from(open: OpenChannel) -> Self {
        Self {
            job_id: open.job_id.0.to_be_bytes().to_vec().into(),
            region: open.region,
            attempt: open.attempt,
            edge: open.channel.edge,
            from: open.channel.from,
            to: open.channel.to,
            plan_fingerprint: open.plan_fingerprint,
        }
    }
}

impl TryFrom<v1::OpenChannel> for OpenChannel {
    type Error = Status;

    fn try_from(open: v1::OpenChannel) -> Result<Self, Status> {
        let job_id = <[u8; 16]>::try_from(open.job_id.as_ref())
            .map_err(|_| Status::invalid_argument("the job id of a channel must have 16 bytes"))?;
        Ok(Self {
            job_id: JobId(u128::from_be_bytes(job_id)),
            region: open.region,
            attempt: open.attempt,
            channel: ChannelId { edge: open.edge, from: open.from, to: open.to },
            plan_fingerprint: open.plan_fingerprint,
        })
    }
}

/// Remembers whom to wake; for one who asks again and again without a new handle each time.
fn register(waker: &mut Option<Waker>, context: &Context<'_>) {
    if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
        *waker = Some(context.waker().clone());
    }
}

/// The failure of a channel whose other end is at `peer`: what the connection or the other end said.
fn failure_of(channel: ChannelId, peer: &str, status: &Status) -> Failure {
    let said = if status.message().is_empty() { with_causes(status) } else { status.message().to_owned() };
    let message = format!("the channel of {channel} to {peer} failed: {said}");
    match status.code() {
        // What has a source did not come from the other end: the connection to it broke.
        _ if std::error::Error::source(status).is_some() => Failure::external(message).consequence(),
        Code::Unavailable | Code::Cancelled => Failure::external(message).consequence(),
        Code::Internal | Code::DataLoss | Code::InvalidArgument | Code::OutOfRange => {
            Failure::internal(message)
        }
        _ => Failure::external(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_from_the_configuration() {
        let mut configuration = Configuration::new();
        assert_eq!(ExchangeSettings::from_configuration(&configuration), ExchangeSettings::default());
        configuration.set("taskmanager.network.memory.channel-credit", "1 mb").expect("a known key");
        configuration.set("taskmanager.memory.segment-size", "32 kb").expect("a known key");
        configuration.set("taskmanager.network.memory.floating-credit", "0 b").expect("a known key");
        configuration.set("taskmanager.network.memory.buffer-debloat.target", "200 ms").expect("a known key");
        configuration.set("taskmanager.network.compression.codec", "lz4").expect("a known key");
        let expected = ExchangeSettings {
            channel_credit_bytes: 1 << 20,
            floating_credit_bytes: 0,
            debloat_target: Some(Duration::from_millis(200)),
            frame_target_bytes: 32 << 10,
            compression: Compression::Lz4,
        };
        assert_eq!(ExchangeSettings::from_configuration(&configuration), expected);
        configuration.set("taskmanager.network.memory.buffer-debloat.enabled", "false").expect("a known key");
        let settings = ExchangeSettings::from_configuration(&configuration);
        assert_eq!(settings, ExchangeSettings { debloat_target: None, ..expected });
    }

    #[test]
    fn an_open_channel_survives_the_wire() {
        let open = OpenChannel {
            job_id: JobId(7 << 100),
            region: 4,
            attempt: 3,
            channel: ChannelId { edge: 1, from: 2, to: 3 },
            plan_fingerprint: u64::MAX,
        };
        let mut message = v1::OpenChannel::from(open);
        assert_eq!(OpenChannel::try_from(message.clone()).expect("valid"), open);
        message.job_id = vec![0; 15].into();
        assert!(OpenChannel::try_from(message).is_err());
    }
}
