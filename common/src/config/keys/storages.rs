//! Storages on S3.

use crate::limits::{S3_MIN_PART_BYTES, S3_PART_BYTES, S3_PARTS_UNDER_WAY};

use super::kind::{ConfigKey, POSITIVE_DURATION, ValueKind};

keys! {
    /// Where a store other than AWS is that speaks S3, as in `http://127.0.0.1:9000`.
    S3_ENDPOINT: "s3.endpoint", ValueKind::Text;
    /// Region of the bucket. Without it: what the environment, the profile or the machine says.
    S3_REGION: "s3.region" | "s3.endpoint.region", ValueKind::Text;
    /// Whether the bucket is in the path of a request and not in its host name. Without it: where `s3.endpoint` is set.
    S3_PATH_STYLE: "s3.path.style.access" | "s3.path-style-access", ValueKind::Boolean;
    /// Least size of the parts in which large objects are written and read. At most `s3.upload.max.concurrent.uploads` of
    /// them are in memory.
    S3_PART_SIZE: "s3.upload.min.part.size",
        ValueKind::MemorySize { min_bytes: S3_MIN_PART_BYTES, max_bytes: 1 << 30 }, default "8 mb";
    /// Parts of large objects that a process writes or reads at the same time.
    S3_PARTS: "s3.upload.max.concurrent.uploads", ValueKind::Integer { min: 1, max: 1_000 }, default "8";
    /// Longest time in which a connection to S3 must come about.
    S3_CONNECTION_TIMEOUT: "s3.connection.timeout", POSITIVE_DURATION, default "5 s";
    /// A request to S3 is tried again when nothing is heard for this time.
    S3_SOCKET_TIMEOUT: "s3.socket.timeout", POSITIVE_DURATION, default "15 s";
    /// A request to S3 is tried again when it takes longer, with its content.
    S3_ATTEMPT_TIMEOUT: "s3.attempt.timeout", POSITIVE_DURATION, default "1 min";
    /// A request to S3 that takes longer with all its tries has failed.
    S3_OPERATION_TIMEOUT: "s3.operation.timeout", POSITIVE_DURATION, default "2 min";
    /// How often a request to S3 is tried again. Pauses double and are partly random; when many requests fail, a budget for
    /// the whole process ends them earlier.
    S3_RETRIES: "s3.retry.max-num-retries", ValueKind::Integer { min: 0, max: 100 }, default "9";
    /// How S3 encrypts what it keeps: as the bucket says, with its own keys, or with a key of AWS KMS.
    S3_SSE_TYPE: "s3.sse.type",
        ValueKind::Choice(&[&["none"], &["sse-s3", "AES256"], &["sse-kms", "aws:kms"]]), default "none";
    /// Id, ARN or alias of the key for `sse-kms`. Without it: the one that AWS keeps for S3.
    S3_SSE_KMS_KEY: "s3.sse.kms.key-id", ValueKind::Text;
}

// The defaults are written out for people; they must stay the constants.
const _: () = assert!(S3_PART_BYTES == 8 << 20 && S3_PARTS_UNDER_WAY == 8);
