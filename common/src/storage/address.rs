//! From the address of a storage to the storage.
//!
//! Stands at the start of everything that stores: programs make one [`StorageFactory`] of their settings and open what they
//! need through it. Invariant: opening touches nothing, neither disk nor network; the first operation does.

use std::sync::Arc;

use super::{FileStorage, Storage, StorageError, StorageSettings};

/// Opens storages. Those on S3 that come from one factory, or from its clones, share connections, credentials, the limit of
/// parts under way and the budget of retries.
#[derive(Debug, Clone, Default)]
pub struct StorageFactory {
    #[cfg(feature = "s3")]
    s3: Arc<super::s3::Access>,
}

impl StorageFactory {
    /// A factory with these settings.
    #[must_use]
    #[cfg_attr(not(feature = "s3"), expect(unused_variables, reason = "only S3 has settings"))]
    pub fn new(settings: StorageSettings) -> Self {
        Self {
            #[cfg(feature = "s3")]
            s3: Arc::new(super::s3::Access::new(settings.s3)),
        }
    }

    /// Opens the storage at `uri`: an absolute or relative path, `file:///absolute/path`, or `s3://bucket/prefix`.
    ///
    /// # Errors
    /// If the address cannot be understood, or is of a kind which this build does not have.
    pub fn open(&self, uri: &str) -> Result<Arc<dyn Storage>, StorageError> {
        let invalid =
            |reason: &str| StorageError::InvalidUri { uri: uri.to_owned(), reason: reason.to_owned() };
        let path = match uri.split_once("://") {
            None => uri.strip_prefix("file:").unwrap_or(uri),
            Some(("file", path)) if path.starts_with('/') => path,
            Some(("file", _)) => {
                return Err(invalid(
                    "after `file://` an absolute path must follow, and no name of a machine",
                ));
            }
            // `s3a` is what Hadoop calls it.
            Some(("s3" | "s3a", place)) => return self.open_s3(uri, place),
            Some((scheme, _)) => {
                return Err(StorageError::Unsupported { uri: uri.to_owned(), scheme: scheme.to_owned() });
            }
        };
        if path.contains('\0') {
            return Err(invalid("it contains a zero byte"));
        }
        let root = std::path::absolute(path).map_err(|error| invalid(&error.to_string()))?;
        Ok(Arc::new(FileStorage::new(root)))
    }

    #[cfg(feature = "s3")]
    fn open_s3(&self, uri: &str, place: &str) -> Result<Arc<dyn Storage>, StorageError> {
        let (bucket, prefix) = bucket_and_prefix(place)
            .map_err(|reason| StorageError::InvalidUri { uri: uri.to_owned(), reason: reason.to_owned() })?;
        Ok(Arc::new(super::s3::S3Storage::new(Arc::clone(&self.s3), bucket, prefix)))
    }

    #[cfg(not(feature = "s3"))]
    #[expect(clippy::unused_self, reason = "the other one needs it")]
    fn open_s3(&self, uri: &str, place: &str) -> Result<Arc<dyn Storage>, StorageError> {
        match bucket_and_prefix(place) {
            Ok(_) => Err(StorageError::NotBuiltIn { uri: uri.to_owned(), scheme: "s3" }),
            Err(reason) => Err(StorageError::InvalidUri { uri: uri.to_owned(), reason: reason.to_owned() }),
        }
    }
}

/// The bucket, and the prefix without slashes around it.
fn bucket_and_prefix(place: &str) -> Result<(&str, &str), &'static str> {
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    if bucket.is_empty() {
        return Err("after `s3://` the name of a bucket must follow");
    }
    let is_allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(is_allowed) {
        return Err("a bucket's name has 3 to 63 lower-case letters, digits, dots and dashes");
    }
    match super::path::check_prefix(prefix) {
        Ok(prefix) => Ok((bucket, prefix)),
        Err(_) => Err("what follows the bucket must be segments with `/` between them"),
    }
}

/// Opens the storage at `uri` with default settings; see [`StorageFactory::open`].
///
/// # Errors
/// If the address cannot be understood, or is of a kind which this build does not have.
///
/// ```
/// let error = thalweg_common::storage::open("hdfs://namenode/checkpoints").unwrap_err();
/// assert!(error.to_string().contains("there is no storage of the kind `hdfs://`"));
/// ```
pub fn open(uri: &str) -> Result<Arc<dyn Storage>, StorageError> {
    StorageFactory::default().open(uri)
}

/// Opens a single storage with these settings. Whoever opens several uses a [`StorageFactory`], so that they share what is
/// costly.
///
/// # Errors
/// As [`open`].
pub fn open_with(uri: &str, settings: &StorageSettings) -> Result<Arc<dyn Storage>, StorageError> {
    StorageFactory::new(settings.clone()).open(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories() {
        for (uri, wanted) in [
            ("/data/checkpoints", "file:///data/checkpoints"),
            ("file:///data/checkpoints", "file:///data/checkpoints"),
            ("file:/data/checkpoints", "file:///data/checkpoints"),
        ] {
            assert_eq!(open(uri).expect("this address is right").uri(), wanted);
        }
        assert!(open("relative/dir").expect("made absolute").uri().ends_with("/relative/dir"));
        for uri in ["", "file://machine/data", "file://", "a\0b"] {
            assert!(matches!(open(uri), Err(StorageError::InvalidUri { .. })), "{uri:?} was accepted");
        }
        let error = open("hdfs://namenode/x").expect_err("this kind is not supported").to_string();
        assert!(error.contains("hdfs://namenode/x") && error.contains("use `s3://bucket/prefix`"), "{error}");
    }

    #[test]
    fn buckets() {
        assert_eq!(bucket_and_prefix("bucket"), Ok(("bucket", "")));
        assert_eq!(bucket_and_prefix("bucket/"), Ok(("bucket", "")));
        assert_eq!(bucket_and_prefix("my-bucket.eu/a/b/"), Ok(("my-bucket.eu", "a/b")));
        for uri in [
            "s3://",
            "s3:///prefix",
            "s3://ab",
            "s3://Upper/x",
            "s3://a_b_c/x",
            "s3://bucket/../x",
            "s3://bucket//x",
        ] {
            let error = open(uri).expect_err("this address is wrong");
            assert!(
                matches!(error, StorageError::InvalidUri { .. }) && error.to_string().contains(uri),
                "{error}"
            );
            assert!(!error.retryable());
        }
    }

    #[cfg(feature = "s3")]
    #[test]
    fn s3_is_opened_without_asking_anybody() {
        for (uri, wanted) in [
            ("s3://bucket/checkpoints", "s3://bucket/checkpoints"),
            ("s3a://bucket/checkpoints/", "s3://bucket/checkpoints"),
            ("s3://bucket", "s3://bucket"),
        ] {
            let storage = open(uri).expect("this address is right");
            assert_eq!(storage.uri(), wanted);
            assert!(format!("{storage:?}").contains("bucket"));
        }
    }

    #[cfg(not(feature = "s3"))]
    #[test]
    fn without_s3_the_error_says_how_to_get_it() {
        let error = open("s3://bucket/checkpoints").expect_err("it was left out").to_string();
        assert!(error.contains("enable the feature `s3` of the crate `thalweg`"), "{error}");
    }
}
