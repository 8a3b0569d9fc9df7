//! What can be wrong with certificates, keys and tokens, each with its cure.

use std::io;
use std::path::PathBuf;

/// Certificates, keys or the token cannot be used as the configuration says.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// TLS is on, and a file that it needs is not named.
    #[error(
        "`{switch}` is true, but `{missing}` is not set; give the path of a PEM file (`thalweg pki init` makes an authority and certificates)"
    )]
    Missing {
        /// The key that is true.
        switch: &'static str,
        /// The key that is to be set.
        missing: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read `{key}` ({}): {cause}; check the path and who may read it", path.display())]
    Unreadable {
        /// The key that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// A file has not what it should have.
    #[error("`{key}` ({}) is not usable: {reason}", path.display())]
    Unusable {
        /// The key that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what helps.
        reason: String,
    },
    /// Others reach this node under a name that its certificate does not have.
    #[error(
        "the certificate `{}` is not valid for `{host}`, under which others reach this node, so that they would refuse it; issue one \
         that is: `thalweg pki issue {host}`",
        path.display()
    )]
    WrongName {
        /// The certificate.
        path: PathBuf,
        /// The name or address.
        host: String,
    },
}
