//! Every bound of the system, by name, in one place.
//!
//! Whatever comes from outside a process (a file, a frame, a request, a child's output) and whatever queues inside
//! one is checked against a constant of this module, a file for each part of the system, so that a look answers "how large can it get?".
//! A limit which a user may change is a configuration key instead (see [`crate::config`]); the value here is then
//! its hard ceiling or its default. Sizes end in `_BYTES`, durations in `_MS`, everything else is a count.
//!
//! ```
//! use thalweg_common::limits;
//!
//! // A frame always fits into a channel's credit many times over, or a channel could never be filled.
//! assert!(limits::CHANNEL_CREDIT_BYTES >= 2 * limits::FRAME_TARGET_BYTES);
//! ```

mod connectors;
mod control;
mod jobs;
mod records;
mod state;

pub use connectors::*;
pub use control::*;
pub use jobs::*;
pub use records::*;
pub use state::*;

#[cfg(test)]
mod tests {
    use super::*;

    /// The relations between limits that other code relies on.
    #[test]
    fn limits_fit_together() {
        const {
            assert!(MIN_BATCH_RECORDS <= BATCH_RECORDS);
            assert!(FRAME_TARGET_BYTES <= MAX_FRAME_BYTES);
            assert!(MAX_FRAME_BYTES < GRPC_MAX_MESSAGE_BYTES, "a frame and its envelope fit into a message");
            assert!(MAX_PLAN_BYTES < GRPC_MAX_MESSAGE_BYTES, "a plan and its envelope fit into a message");
            assert!(UPLOAD_CHUNK_BYTES < GRPC_MAX_MESSAGE_BYTES);
            assert!(RAFT_APPEND_BYTES + RAFT_MAX_COMMAND_BYTES < GRPC_MAX_MESSAGE_BYTES / 2);
            assert!(RAFT_SNAPSHOT_CHUNK_BYTES < GRPC_MAX_MESSAGE_BYTES);
            assert!(FRAME_TARGET_BYTES < HTTP2_FRAME_BYTES as usize);
            assert!(CHANNEL_CREDIT_BYTES <= MAX_CHANNEL_CREDIT_BYTES);
            assert!(MAX_TEXT_LINE_BYTES < MAX_FRAME_BYTES, "a line passes a remote channel");
            assert!(INLINE_STATE_BYTES < MAX_CHECKPOINT_METADATA_BYTES);
            assert!(DEFAULT_MAX_PARALLELISM_MIN <= MAX_PARALLELISM && MAX_PARALLELISM.is_power_of_two());
        }
    }
}
