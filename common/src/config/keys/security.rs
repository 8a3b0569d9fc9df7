//! Who is let in, and what processes show each other.

use super::kind::{ConfigKey, ValueKind};

keys! {
    /// Whether all connections between the processes of a cluster, and of its clients to job managers, use TLS, and nodes show each other
    /// certificates. On all of them or none.
    SSL_INTERNAL_ENABLED: "security.ssl.internal.enabled", ValueKind::Boolean, default "false";
    /// A PEM file with the certificate of this machine, which has the names under which others reach it, and those that lead to the
    /// authority, if there are any. A new one is used without a restart. Clients that have the token need none.
    SSL_INTERNAL_CERTIFICATE: "security.ssl.internal.certificate", ValueKind::Text;
    /// A PEM file with the key of that certificate, which nobody else may read.
    SSL_INTERNAL_PRIVATE_KEY: "security.ssl.internal.private-key", ValueKind::Text;
    /// A PEM file with the certificates of the authorities whose certificates are accepted: that of this cluster, and while it is
    /// replaced the old and the new one.
    SSL_INTERNAL_TRUSTED: "security.ssl.internal.trusted-certificates", ValueKind::Text;
    /// Whether REST and the dashboard are served with TLS, at `https://`. Clients need no certificate, but the token, if there is one.
    SSL_REST_ENABLED: "security.ssl.rest.enabled", ValueKind::Boolean, default "false";
    /// A PEM file with the certificate of REST, and those that lead to an authority that browsers know. Without it: that of
    /// `security.ssl.internal.certificate`.
    SSL_REST_CERTIFICATE: "security.ssl.rest.certificate", ValueKind::Text;
    /// A PEM file with the key of that certificate. Without it: that of `security.ssl.internal.private-key`.
    SSL_REST_PRIVATE_KEY: "security.ssl.rest.private-key", ValueKind::Text;
    /// A file with the token that clients show, the same for all nodes: 16 characters or more in one line. Without a certificate of the
    /// cluster no client is let in that does not have it. The environment variable THALWEG_TOKEN wins over it.
    TOKEN_FILE: "security.token-file", ValueKind::Text;
    /// Lets a node listen beyond its own machine without TLS or without a token, so that whoever reaches it can run programs there.
    ALLOW_INSECURE: "security.allow-insecure", ValueKind::Boolean, default "false";
}
