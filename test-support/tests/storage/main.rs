//! What every kind of storage promises, held against a directory and against S3; and what becomes of the promises when S3
//! fails.

#![allow(clippy::unwrap_used, clippy::panic)]

mod contract;
mod faults;
mod s3;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thalweg_common::storage::{Storage, StorageError, StorageFactory, StorageSettings};
use thalweg_test_support::S3Peer;

/// Far more than any of these tests needs: only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(100);

const BUCKET: &str = "thalweg-tests";

/// A peer with a bucket.
async fn peer() -> S3Peer {
    let peer = S3Peer::start().await.unwrap_or_else(|error| panic!("{error:#}"));
    peer.create_bucket(BUCKET).await.unwrap();
    peer
}

fn open(settings: &StorageSettings, prefix: &str) -> Arc<dyn Storage> {
    StorageFactory::new(settings.clone()).open(&format!("s3://{BUCKET}/{prefix}")).unwrap()
}

/// Content that differs at each place, so that parts in the wrong order are recognised.
fn content(size: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&next());
    }
    bytes.truncate(size);
    bytes.into()
}

/// Several times the same at the same time.
async fn together<T, F>(count: usize, work: impl Fn(usize) -> F) -> Vec<T>
where
    F: Future<Output = T>,
{
    futures_util::future::join_all((0..count).map(work)).await
}

fn error<T: std::fmt::Debug>(outcome: Result<T, StorageError>) -> StorageError {
    outcome.expect_err("it cannot succeed")
}
