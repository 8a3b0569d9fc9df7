//! TLS of a process: its files, what was made of them, and the new ones as soon as they are there.
//!
//! Whoever makes a connection asks for the configuration of that moment. At most once a second that looks whether the files have changed;
//! so a new certificate is used by all connections from then on, and those that exist go on. Invariant: files that cannot be used
//! change nothing, and are complained of once.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::{ClientConfig, ServerConfig};

use super::material::{Material, date};
use super::{Role, SecurityError, explain};
use crate::clock::SharedClock;
use crate::config::{ConfigKey, Configuration, keys};
use crate::limits::{CERTIFICATE_CHECK_INTERVAL_MS, CERTIFICATE_WARNING_MS};
use crate::task_scope::TaskScope;

/// A file that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedFile {
    pub(super) key: &'static str,
    pub(super) path: PathBuf,
}

impl NamedFile {
    fn of(configuration: &Configuration, key: &'static ConfigKey) -> Option<Self> {
        configuration.text(key).map(|path| Self { key: key.name, path: path.into() })
    }

    fn needed(
        configuration: &Configuration,
        key: &'static ConfigKey,
        switch: &'static str,
    ) -> Result<Self, SecurityError> {
        Self::of(configuration, key).ok_or(SecurityError::Missing { switch, missing: key.name })
    }

    pub(super) fn read(&self) -> Result<Vec<u8>, SecurityError> {
        std::fs::read(&self.path).map_err(|cause| SecurityError::Unreadable {
            key: self.key,
            path: self.path.clone(),
            cause,
        })
    }

    pub(super) fn unusable(&self, reason: String) -> SecurityError {
        SecurityError::Unusable { key: self.key, path: self.path.clone(), reason }
    }
}

/// The files of a process: what it shows, and whom it trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// A certificate and its key; a client may have none.
    pub(super) own: Option<(NamedFile, NamedFile)>,
    /// Nothing for REST: who connects there shows no certificate.
    pub(super) trusted: Option<NamedFile>,
    pub(super) is_client: bool,
}

impl TlsFiles {
    /// What `security.ssl.internal.*` names.
    ///
    /// # Errors
    /// When a key is missing that this role needs.
    pub fn internal(configuration: &Configuration, role: Role) -> Result<Self, SecurityError> {
        let switch = keys::SSL_INTERNAL_ENABLED.name;
        let is_client = role == Role::Client;
        let certificate = NamedFile::of(configuration, &keys::SSL_INTERNAL_CERTIFICATE);
        let key = NamedFile::of(configuration, &keys::SSL_INTERNAL_PRIVATE_KEY);
        let own = if is_client && certificate.is_none() && key.is_none() {
            None
        } else {
            Some((
                NamedFile::needed(configuration, &keys::SSL_INTERNAL_CERTIFICATE, switch)?,
                NamedFile::needed(configuration, &keys::SSL_INTERNAL_PRIVATE_KEY, switch)?,
            ))
        };
        let trusted = NamedFile::needed(configuration, &keys::SSL_INTERNAL_TRUSTED, switch)?;
        Ok(Self { own, trusted: Some(trusted), is_client })
    }

    /// What `security.ssl.rest.*` names, or `security.ssl.internal.*` in its place.
    fn rest(configuration: &Configuration) -> Result<Self, SecurityError> {
        let switch = keys::SSL_REST_ENABLED.name;
        // A pair, or none of it: a key goes with its certificate.
        let has_own = [keys::SSL_REST_CERTIFICATE, keys::SSL_REST_PRIVATE_KEY]
            .iter()
            .any(|key| configuration.is_set(key));
        let own = if has_own || !configuration.is_set(&keys::SSL_INTERNAL_CERTIFICATE) {
            [&keys::SSL_REST_CERTIFICATE, &keys::SSL_REST_PRIVATE_KEY]
        } else {
            [&keys::SSL_INTERNAL_CERTIFICATE, &keys::SSL_INTERNAL_PRIVATE_KEY]
        };
        let [certificate, key] = own.map(|key| NamedFile::needed(configuration, key, switch));
        Ok(Self { own: Some((certificate?, key?)), trusted: None, is_client: false })
    }

    fn all(&self) -> impl Iterator<Item = &NamedFile> {
        self.own.iter().flat_map(|(certificate, key)| [certificate, key]).chain(&self.trusted)
    }

    /// They do not go together, or not with this program.
    pub(super) fn unusable(&self, reason: String) -> SecurityError {
        let missing = SecurityError::Missing {
            switch: keys::SSL_INTERNAL_ENABLED.name,
            missing: keys::SSL_INTERNAL_TRUSTED.name,
        };
        self.all().next().map_or(missing, |file| file.unusable(reason))
    }

    /// What tells these files from others under the same names.
    fn stamp(&self) -> Stamp {
        let of = |metadata: Metadata| {
            (metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec(), metadata.ctime_nsec())
        };
        self.all().map(|file| std::fs::metadata(&file.path).ok().map(of)).collect()
    }
}

type Stamp = Vec<Option<(u64, u64, i64, i64, i64)>>;

/// TLS of a process, with certificates that may be replaced while it runs.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    asks_for_certificates: bool,
    clock: SharedClock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    material: Arc<Material>,
    stamp: Stamp,
    checked: Duration,
    /// What was last said of files that cannot be used.
    complaint: Option<String>,
}

impl Tls {
    /// Reads the files and checks them against each other. Whoever connects has to show a certificate if `asks_for_certificates`;
    /// otherwise they may, and one that they show has to be right.
    ///
    /// # Errors
    /// When a file cannot be used, the certificate is not valid at the moment, or nothing that is trusted has signed it.
    pub fn open(
        files: TlsFiles,
        asks_for_certificates: bool,
        clock: SharedClock,
    ) -> Result<Self, SecurityError> {
        let stamp = files.stamp();
        let material = Arc::new(Material::load(&files, asks_for_certificates, clock.now_ms())?);
        let state = State { material, stamp, checked: clock.monotonic(), complaint: None };
        Ok(Self { files, asks_for_certificates, clock, state: Mutex::new(state) })
    }

    /// TLS of REST, if `security.ssl.rest.enabled` says so: 1.2 or 1.3, and no certificate is asked for.
    ///
    /// # Errors
    /// When a file is missing or cannot be used, or the certificate is not valid at the moment.
    pub fn of_rest(
        configuration: &Configuration,
        clock: &SharedClock,
    ) -> Result<Option<Arc<Self>>, SecurityError> {
        if configuration.boolean(&keys::SSL_REST_ENABLED) != Some(true) {
            return Ok(None);
        }
        let files = TlsFiles::rest(configuration)?;
        Ok(Some(Arc::new(Self::open(files, false, Arc::clone(clock))?)))
    }

    /// An error of a connection that `peer` has made, in words, if it is one of TLS.
    #[must_use]
    pub fn explain(&self, peer: &str, error: &io::Error) -> Option<String> {
        match self.files.trusted {
            Some(_) => explain(peer, error),
            // A browser or a program, which may have closed the connection because it does not know the certificate.
            None => error
                .get_ref()?
                .downcast_ref::<rustls::Error>()
                .map(|error| format!("{peer}: no TLS with REST: {error}")),
        }
    }

    /// For a connection that others make to this process; `None` if it has no certificate, as clients may.
    #[must_use]
    pub fn server(&self) -> Option<Arc<ServerConfig>> {
        self.current().server.clone()
    }

    /// For a connection that this process makes.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.current().client)
    }

    /// Checks that others may reach this process under `host`, a name or an address.
    ///
    /// # Errors
    /// When its certificate does not have that name, so that all would refuse it.
    pub fn check_name(&self, host: &str) -> Result<(), SecurityError> {
        match &self.files.own {
            Some((certificate, _)) if !self.current().is_for(host) => {
                Err(SecurityError::WrongName { path: certificate.path.clone(), host: host.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Looks after the certificate for as long as `scope` lives: says when files are replaced or cannot be used also while nobody connects,
    /// and once a day that the certificate expires within 30 days. For nodes; the programs that they start have the same files.
    pub fn watch_within(self: &Arc<Self>, scope: &TaskScope) {
        let (tls, ended) = (Arc::clone(self), scope.token());
        scope.spawn("certificates", async move {
            ended.run_until_cancelled(tls.watch()).await;
        });
    }

    async fn watch(&self) {
        const CHECK: Duration = Duration::from_secs(10);
        const WARN: Duration = Duration::from_secs(24 * 60 * 60);
        let mut warned: Option<Duration> = None;
        loop {
            self.current();
            let now = self.clock.monotonic();
            if warned.is_none_or(|warned| now.saturating_sub(warned) >= WARN) {
                warned = Some(now);
                self.warn_of_expiry();
            }
            tokio::time::sleep(CHECK).await;
        }
    }

    /// Until when the certificate is valid that new connections show, in milliseconds since the epoch; `None` without one.
    #[must_use]
    pub fn expires_ms(&self) -> Option<i64> {
        self.current().expires_ms()
    }

    fn warn_of_expiry(&self) {
        let (Some(expires_ms), Some((certificate, _))) = (self.expires_ms(), &self.files.own) else { return };
        if let Some(warning) = expiry_warning(self.clock.now_ms(), expires_ms) {
            tracing::warn!("the certificate {} {warning}", certificate.path.display());
        }
    }

    /// What is in use, after a look at the files if the last one is long ago.
    fn current(&self) -> Arc<Material> {
        let mut state = self.lock();
        let now = self.clock.monotonic();
        if now.saturating_sub(state.checked) >= Duration::from_millis(CERTIFICATE_CHECK_INTERVAL_MS) {
            state.checked = now;
            self.refresh(&mut state);
        }
        Arc::clone(&state.material)
    }

    fn refresh(&self, state: &mut State) {
        let stamp = self.files.stamp();
        // Files that could not be used are tried again: the rest of them may be on its way, or their time not yet come.
        if stamp == state.stamp && state.complaint.is_none() {
            return;
        }
        match Material::load(&self.files, self.asks_for_certificates, self.clock.now_ms()) {
            Ok(material) => {
                let until = material.expires_ms().and_then(|ms| u64::try_from(ms / 1_000).ok()).map(date);
                tracing::info!(
                    "certificates were replaced: new connections use the new ones{}",
                    until.map(|until| format!(", valid until {until}")).unwrap_or_default()
                );
                (state.material, state.complaint) = (Arc::new(material), None);
            }
            Err(error) => {
                let complaint = error.to_string();
                if state.complaint.as_ref() != Some(&complaint) {
                    tracing::error!(
                        "goes on with the certificates from before, because of the new ones: {complaint}"
                    );
                }
                state.complaint = Some(complaint);
            }
        }
        state.stamp = stamp;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be said of a certificate, if anything.
fn expiry_warning(now_ms: i64, expires_ms: i64) -> Option<String> {
    const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
    let left_ms = expires_ms - now_ms;
    let on = date(u64::try_from(expires_ms / 1_000).unwrap_or_default());
    let cure = "`thalweg pki issue` makes a new one; put it in the place of the old one, nothing has to be restarted";
    if left_ms <= 0 {
        return Some(format!("has expired on {on}, and others refuse new connections; {cure}"));
    }
    (left_ms < CERTIFICATE_WARNING_MS)
        .then(|| format!("expires on {on}, in {} days; {cure}", left_ms / DAY_MS))
}

#[cfg(all(test, feature = "pki"))]
#[path = "tls_tests.rs"]
mod tests;
