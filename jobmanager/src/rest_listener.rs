//! Where a job manager serves REST, and where others reach that: `rest.port`, `rest.bind-address`, `rest.address`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use thalweg_common::config::{Configuration, keys};
use thalweg_common::security::Tls;
use tokio::net::TcpListener;

/// REST cannot be served where the settings say.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot serve REST at {address}: {cause}; is another job manager or program there? choose another `{}` (0 takes any free one)",
    keys::REST_PORT.name
)]
pub struct RestBindError {
    address: String,
    cause: io::Error,
}

/// The socket at which REST is served, bound already, so that its port is known.
#[derive(Debug)]
pub struct RestListener {
    pub(crate) listener: TcpListener,
    #[cfg_attr(not(feature = "rest"), expect(dead_code, reason = "nobody serves REST without that feature"))]
    pub(crate) tls: Option<Arc<Tls>>,
    authority: String,
    url: String,
}

impl RestListener {
    /// Listens where the settings say. `host` is that under which others reach this job manager: used if REST is served at every address of
    /// the machine and `rest.address` does not say better.
    ///
    /// # Errors
    /// When that is taken or no address of this machine.
    pub async fn bind(configuration: &Configuration, host: &str) -> Result<Self, RestBindError> {
        let address = configuration.text(&keys::REST_BIND_ADDRESS).unwrap_or_default();
        let port = configuration.integer(&keys::REST_PORT).and_then(|port| u16::try_from(port).ok());
        let port = port.unwrap_or_default();
        let fail = |cause| RestBindError { address: authority(address, port), cause };
        // IPv6 addresses may be written as in a URL.
        let listener = TcpListener::bind((bare(address), port)).await.map_err(fail)?;
        let bound = listener.local_addr().map_err(fail)?;
        let authority = reachable(configuration.text(&keys::REST_ADDRESS), host, bound);
        let url = format!("http://{authority}");
        Ok(Self { listener, tls: None, authority, url })
    }

    /// The same with TLS, if there is any.
    #[must_use]
    pub fn with_tls(self, tls: Option<Arc<Tls>>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        Self { url: format!("{scheme}://{}", self.authority), tls, ..self }
    }

    /// The address of this machine at which it listens.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn ip(&self) -> io::Result<IpAddr> {
        Ok(self.listener.local_addr()?.ip())
    }

    /// Where others reach it, as `http://jm-1:8081`, or `https://jm-1:8081` with TLS.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// What comes behind `http://` or `https://`.
fn reachable(configured: Option<&str>, host: &str, bound: SocketAddr) -> String {
    match configured {
        Some(configured) => authority(configured, bound.port()),
        None if bound.ip().is_unspecified() => authority(host, bound.port()),
        None => bound.to_string(),
    }
}

fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn authority(host: &str, port: u16) -> String {
    match bare(host) {
        host if host.contains(':') => format!("[{host}]:{port}"),
        host => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_reach_it_where_it_listens_unless_told_otherwise() {
        for (configured, bound, expected) in [
            (None, "127.0.0.1:8081", "127.0.0.1:8081"),
            (None, "0.0.0.0:1234", "jm-1:1234"),
            (None, "[::]:1234", "jm-1:1234"),
            (Some("rest.example"), "0.0.0.0:1234", "rest.example:1234"),
            (Some("::1"), "127.0.0.1:8081", "[::1]:8081"),
            (Some("[::1]"), "127.0.0.1:8081", "[::1]:8081"),
        ] {
            let bound = bound.parse().expect("an address");
            assert_eq!(reachable(configured, "jm-1", bound), expected, "{configured:?} {bound}");
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_with_the_cure() {
        let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = taken.local_addr().expect("bound").port();
        let configuration = Configuration::from_yaml(&format!("rest.port: {port}")).expect("valid");
        let error =
            RestListener::bind(&configuration, "jm-1").await.expect_err("the port is taken").to_string();
        assert!(error.contains(&format!("127.0.0.1:{port}")) && error.contains("`rest.port`"), "{error}");
        let configuration = Configuration::from_yaml("rest.port: 0").expect("valid");
        let free = RestListener::bind(&configuration, "jm-1").await.expect("any port");
        assert!(free.url().starts_with("http://127.0.0.1:") && !free.url().ends_with(":0"), "{}", free.url());
    }
}
