//! Who may speak with whom: TLS between the processes of a cluster, the token of its clients, and what may listen where.
//!
//! Stands in front of every connection. The configuration names files; from these come the configurations of rustls that servers and
//! clients use, here and nowhere else. How connections are made with them is told by the transport of `thalweg-proto`.
//!
//! Invariants: whoever has a certificate that the cluster's own authority has signed is a member of it, and nobody else is; the name that
//! is dialled must be one of the certificate's; key material and tokens are read from files and are in no log, message or command line;
//! certificates that cannot be used never replace those in use.

mod error;
mod explain;
mod exposure;
mod material;
#[cfg(feature = "pki")]
pub mod pki;
mod tls;
mod token;

use std::sync::Arc;

use crate::clock::{SharedClock, SystemClock};
use crate::config::{ConfigError, Configuration, Settings, keys};
use crate::task_scope::TaskScope;

pub use error::SecurityError;
pub use explain::explain;
pub use exposure::{Exposed, check_exposure};
pub use tls::{Tls, TlsFiles};
pub use token::{TOKEN_VARIABLE, Token};

/// The part that a process plays in a cluster: what it must show, and what it asks of those who connect to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It needs a certificate. Clients may come with the token instead of one, if there is a token.
    JobManager,
    /// It needs a certificate and asks for one.
    TaskManager,
    /// As its task manager, but it never has the token: it runs the code of a job.
    Worker,
    /// A program outside the cluster: it shows a certificate, the token, or both. Nobody connects to it.
    Client,
}

/// What a process shows to others and asks of them. The default shows nothing and asks for nothing. Cheap to clone.
///
/// ```
/// use thalweg_common::clock::SystemClock;
/// use thalweg_common::config::Configuration;
/// use thalweg_common::security::{Role, Security};
///
/// let plain = Security::load(&Configuration::new(), |_| None, Role::Client, &SystemClock::shared()).expect("nothing is set");
/// assert!(plain.tls.is_none() && plain.token.is_none());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Security {
    /// `security.ssl.internal.*`, if that is enabled.
    pub tls: Option<Arc<Tls>>,
    /// What clients show, if the cluster has such a token.
    pub token: Option<Token>,
}

impl Security {
    /// What the configuration says for this role; `environment` may have the token ([`TOKEN_VARIABLE`]), which wins over a file.
    ///
    /// # Errors
    /// When a file is missing, is not what it should be, or does not go with the others.
    pub fn load(
        configuration: &Configuration,
        environment: impl Fn(&str) -> Option<String>,
        role: Role,
        clock: &SharedClock,
    ) -> Result<Self, SecurityError> {
        let token = match role {
            Role::Worker => None,
            _ => Token::load(configuration, environment)?,
        };
        let is_enabled = configuration.boolean(&keys::SSL_INTERNAL_ENABLED).unwrap_or(false);
        if !is_enabled {
            return Ok(Self { tls: None, token });
        }
        let files = TlsFiles::internal(configuration, role)?;
        let may_come_without = role == Role::JobManager && token.is_some();
        let tls = Tls::open(files, !may_come_without, Arc::clone(clock))?;
        Ok(Self { tls: Some(Arc::new(tls)), token })
    }

    /// The security of a program outside the cluster: of `config.yaml` in [`CONF_DIR_VARIABLE`](crate::config::CONF_DIR_VARIABLE), of the
    /// environment's settings, and of the environment's token.
    ///
    /// # Errors
    /// When the settings are wrong or their files cannot be used.
    pub fn of_client() -> Result<Self, ClientSecurityError> {
        let settings = Settings::load(None, &[])?;
        let clock = SystemClock::shared();
        Ok(Self::load(settings.configuration(), |name| std::env::var(name).ok(), Role::Client, &clock)?)
    }

    /// Checks that `address` (`host:port`), under which others reach this process, is one for which its certificate is valid.
    ///
    /// # Errors
    /// When it is not, so that all others would refuse it.
    pub fn check_address(&self, address: &str) -> Result<(), SecurityError> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        self.tls.as_ref().map_or(Ok(()), |tls| tls.check_name(host))
    }

    /// Looks after the certificate for as long as `scope` lives ([`Tls::watch_within`]).
    pub fn watch(&self, scope: &TaskScope) {
        if let Some(tls) = &self.tls {
            tls.watch_within(scope);
        }
    }
}

/// What a program outside the cluster may meet before it asks for anything.
#[derive(Debug, thiserror::Error)]
pub enum ClientSecurityError {
    /// A setting is wrong.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// Certificates or the token cannot be used.
    #[error(transparent)]
    Security(#[from] SecurityError),
}
