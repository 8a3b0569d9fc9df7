//! Objects that grow piece by piece, and are visible when they are complete: Flink's `RecoverableWriter` for stores that have multipart
//! uploads.
//!
//! Stands behind the file sink, which carries an object that is not complete from checkpoint to checkpoint. Invariants: nobody sees an object before
//! it is [completed](GrowingObjects::complete); what was added survives whoever added it; completing is repeated without harm.

use async_trait::async_trait;
use bytes::Bytes;

use super::StorageError;

/// A piece that a store has: its number, and what the store calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its place in the object; the first is 1.
    pub number: u32,
    /// Changes with its content.
    pub tag: String,
}

/// Begins, extends and completes objects. Each object has a path of its own, which is used once.
#[async_trait]
pub trait GrowingObjects: Send + Sync + std::fmt::Debug {
    /// How large every piece must be but for the last one, in bytes.
    fn piece_bytes(&self) -> u64;

    /// Begins an object, and answers what the store calls it until it is complete.
    ///
    /// # Errors
    /// If the path is not allowed, or the store refuses.
    async fn begin(&self, path: &str) -> Result<String, StorageError>;

    /// Adds a piece. One with the same number replaces it.
    ///
    /// # Errors
    /// If there is no such object any more ([`StorageError::is_not_found`]), or the store refuses.
    async fn add(&self, path: &str, object: &str, number: u32, bytes: Bytes) -> Result<Piece, StorageError>;

    /// Makes an object of these pieces, `size` bytes in all. If it was completed before that is no error.
    ///
    /// # Errors
    /// If there is neither the object that was begun nor the complete one ([`StorageError::is_not_found`]), if another object is in its
    /// place ([`StorageError::Damaged`]), or the store refuses.
    async fn complete(
        &self,
        path: &str,
        object: &str,
        pieces: &[Piece],
        size: u64,
    ) -> Result<(), StorageError>;

    /// Gives an object up. It is no error if there is none.
    ///
    /// # Errors
    /// If the store refuses.
    async fn abort(&self, path: &str, object: &str) -> Result<(), StorageError>;

    /// The objects at and below a prefix that are not complete: their paths, and what the store calls them.
    ///
    /// # Errors
    /// If the store cannot be read.
    async fn begun(&self, prefix: &str) -> Result<Vec<(String, String)>, StorageError>;
}
