//! What may listen beyond this machine: only what knows its peers. Pure.

use std::net::IpAddr;

use crate::config::{Configuration, keys};

/// A port that others can reach would take orders from anybody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this node would listen at {address}, beyond its own machine, {lacks}, so that whoever reaches the port could run programs here; make \
     certificates and a token with `thalweg pki init` and set `{tls_switch}` and `security.token-file`, or listen on loopback; only in a \
     network that nobody else can reach: `{}: true`", keys::ALLOW_INSECURE.name
)]
pub struct Exposed {
    address: IpAddr,
    lacks: &'static str,
    tls_switch: &'static str,
}

/// Whether a port may be opened at `address`. Loopback always, others if they are encrypted (`tls_switch` is the key that says so) and
/// there is a token, or if `security.allow-insecure` says so: then the log has a warning.
///
/// # Errors
/// When it may not.
pub fn check_exposure(
    configuration: &Configuration,
    address: IpAddr,
    tls_switch: &'static str,
    has_tls: bool,
    has_token: bool,
) -> Result<(), Exposed> {
    let lacks = match (has_tls, has_token) {
        (true, true) => return Ok(()),
        (false, false) => "without TLS and without a token",
        (false, true) => "without TLS",
        (true, false) => "without a token",
    };
    if address.to_canonical().is_loopback() {
        return Ok(());
    }
    let exposed = Exposed { address, lacks, tls_switch };
    if configuration.boolean(&keys::ALLOW_INSECURE) == Some(true) {
        tracing::warn!(
            "listens at {address} {lacks}, because `{}` is true: whoever reaches the port can run programs here",
            keys::ALLOW_INSECURE.name
        );
        return Ok(());
    }
    Err(exposed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_loopback_it_takes_tls_and_a_token_or_a_name_for_going_without() {
        let switch = keys::SSL_INTERNAL_ENABLED.name;
        let plain = Configuration::new();
        let mut forced = Configuration::new();
        forced.set(keys::ALLOW_INSECURE.name, "true").expect("a known key");
        let check = |configuration: &Configuration, address: &str, tls, token| {
            check_exposure(configuration, address.parse().expect("an address"), switch, tls, token)
        };
        for loopback in ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(check(&plain, loopback, false, false), Ok(()), "{loopback}");
        }
        for reachable in ["0.0.0.0", "::", "10.0.0.7", "fe80::1"] {
            assert_eq!(check(&plain, reachable, true, true), Ok(()), "{reachable}");
            assert_eq!(check(&forced, reachable, false, false), Ok(()), "{reachable}");
            for (tls, token, lacks) in [
                (false, false, "without TLS and without a token"),
                (false, true, "without TLS,"),
                (true, false, "without a token,"),
            ] {
                let error = check(&plain, reachable, tls, token).expect_err(reachable).to_string();
                for part in [
                    lacks,
                    switch,
                    "security.token-file",
                    "thalweg pki init",
                    "security.allow-insecure: true",
                ] {
                    assert!(error.contains(part), "{part}: {error}");
                }
            }
        }
    }
}
