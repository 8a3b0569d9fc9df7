//! From PEM files to configurations of rustls, with every check that can be made before the first connection.
//!
//! Invariant: what is returned works: the key belongs to the certificate, which is valid at this time and signed by what is trusted.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, Error, InconsistentKeys, RootCertStore, ServerConfig, version};

use super::SecurityError;
use super::tls::{NamedFile, TlsFiles};
use crate::calendar::date_of;

/// What is spoken over these connections, as both ends tell each other: HTTP/2, as gRPC is.
const PROTOCOL: &[u8] = b"h2";

/// What REST speaks.
const REST_PROTOCOL: &[u8] = b"http/1.1";

/// The end of the last year that a certificate can name, in seconds since the epoch.
const END_OF_TIME_SECONDS: u64 = 253_402_300_800;

/// What has been made of the files.
#[derive(Debug)]
pub(super) struct Material {
    /// For those who connect to this process; absent if it has no certificate.
    pub(super) server: Option<Arc<ServerConfig>>,
    /// For those to whom it connects.
    pub(super) client: Arc<ClientConfig>,
    /// Its own certificate with those that lead to an authority.
    own: Vec<CertificateDer<'static>>,
}

impl Material {
    /// Reads and checks the files. `now_ms` is the time at which the own certificate has to be valid; who connects must show one if
    /// `asks_for_certificates`, and may otherwise.
    pub(super) fn load(
        files: &TlsFiles,
        asks_for_certificates: bool,
        now_ms: i64,
    ) -> Result<Self, SecurityError> {
        let provider = Arc::new(ring::default_provider());
        let roots = files.trusted.as_ref().map_or(Ok(RootCertStore::empty()), read_roots)?;
        let roots = Arc::new(roots);
        let own = match &files.own {
            Some((certificate, key)) => {
                Some(Own::read(certificate, key, &provider)?.checked(&roots, files, &provider, now_ms)?)
            }
            None => None,
        };
        let unusable = |error: &dyn std::fmt::Display| files.unusable(error.to_string());
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| unusable(&error))?
            .with_root_certificates(Arc::clone(&roots));
        let mut client = match &own {
            Some(own) => client.with_client_cert_resolver(own.resolver()),
            None => client.with_no_client_auth(),
        };
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        // A session that goes on from an earlier one asks for no certificate again, also if it has expired or been replaced since.
        client.resumption = Resumption::disabled();
        let server = match &own {
            Some(own) => {
                let mut server = if files.trusted.is_some() {
                    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
                    let verifier =
                        if asks_for_certificates { verifier } else { verifier.allow_unauthenticated() };
                    let verifier = verifier.build().map_err(|error| unusable(&error))?;
                    ServerConfig::builder_with_provider(provider)
                        .with_protocol_versions(&[&version::TLS13])
                        .map_err(|error| unusable(&error))?
                        .with_client_cert_verifier(verifier)
                        .with_cert_resolver(own.resolver())
                } else {
                    ServerConfig::builder_with_provider(provider)
                        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
                        .map_err(|error| unusable(&error))?
                        .with_no_client_auth()
                        .with_cert_resolver(own.resolver())
                };
                let protocol = if files.trusted.is_some() { PROTOCOL } else { REST_PROTOCOL };
                server.alpn_protocols = vec![protocol.to_vec()];
                server.session_storage = Arc::new(NoServerSessionStorage {});
                server.send_tls13_tickets = 0;
                Some(Arc::new(server))
            }
            None => None,
        };
        let own = own.map(|own| own.certified.cert.clone()).unwrap_or_default();
        Ok(Self { server, client: Arc::new(client), own })
    }

    /// Until when the own certificate is valid, in milliseconds since the epoch.
    pub(super) fn expires_ms(&self) -> Option<i64> {
        self.own.first().and_then(expires_seconds).and_then(|seconds| i64::try_from(seconds * 1_000).ok())
    }

    /// Whether the own certificate has this name, or there is none.
    pub(super) fn is_for(&self, host: &str) -> bool {
        let Some(own) = self.own.first() else { return true };
        let name = ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']'));
        let (Ok(parsed), Ok(name)) = (ParsedCertificate::try_from(own), name) else { return false };
        verify_server_name(&parsed, &name).is_ok()
    }
}

/// A certificate and its key.
struct Own {
    certified: Arc<CertifiedKey>,
}

impl Own {
    fn read(
        certificate: &NamedFile,
        key: &NamedFile,
        provider: &CryptoProvider,
    ) -> Result<Self, SecurityError> {
        let chain = read_certificates(certificate)?;
        let private = PrivateKeyDer::from_pem_slice(&key.read()?).map_err(|_| {
            key.unusable("it has no private key in PEM (`-----BEGIN PRIVATE KEY-----`)".into())
        })?;
        let certified = CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => key.unusable(format!(
                "the key does not belong to the certificate in {}; both have to be of one issue",
                certificate.path.display()
            )),
            error => key.unusable(error.to_string()),
        })?;
        Ok(Self { certified: Arc::new(certified) })
    }

    fn resolver(&self) -> Arc<SingleCertAndKey> {
        Arc::new(SingleCertAndKey::from(Arc::clone(&self.certified)))
    }

    /// The same, if others would accept it.
    fn checked(
        self,
        roots: &RootCertStore,
        files: &TlsFiles,
        provider: &CryptoProvider,
        now_ms: i64,
    ) -> Result<Self, SecurityError> {
        let Some((certificate, _)) = &files.own else { return Ok(self) };
        let [own, intermediates @ ..] = self.certified.cert.as_slice() else {
            return Err(certificate.unusable("it has no certificate".into()));
        };
        let now =
            UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(now_ms).unwrap_or_default()));
        let algorithms = provider.signature_verification_algorithms.all;
        let verified = ParsedCertificate::try_from(own).and_then(|own| {
            verify_server_cert_signed_by_trust_anchor(&own, roots, intermediates, now, algorithms)
        });
        match verified {
            Ok(()) => Ok(self),
            // One that a client alone has need not be fit for a server.
            Err(Error::InvalidCertificate(
                CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
            )) if files.is_client => Ok(self),
            // Whom browsers trust is their affair.
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) if files.trusted.is_none() => {
                Ok(self)
            }
            Err(error) => Err(certificate.unusable(refusal(&error, files.trusted.as_ref()))),
        }
    }
}

fn refusal(error: &Error, trusted: Option<&NamedFile>) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            let trusted = trusted.map_or_else(String::new, |file| format!("`{}` ({})", file.key, file.path.display()));
            format!(
                "no certificate in {trusted} has signed it, so that all others would refuse it; take both from the same authority"
            )
        }
        Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => format!(
            "it has expired on {}; issue a new one (`thalweg pki issue`)",
            date(not_after.as_secs())
        ),
        Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
            format!("it is valid only from {} on; check this machine's clock", date(not_before.as_secs()))
        }
        Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => "that of a node has to be one for servers and for clients (`thalweg pki issue` gives it both usages)".into(),
        error => error.to_string(),
    }
}

fn read_roots(file: &NamedFile) -> Result<RootCertStore, SecurityError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(file)? {
        roots.add(certificate).map_err(|error| file.unusable(error.to_string()))?;
    }
    Ok(roots)
}

fn read_certificates(file: &NamedFile) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let pem = file.read()?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = read.map_err(|error| file.unusable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(file.unusable("it has no certificate in PEM (`-----BEGIN CERTIFICATE-----`)".into()));
    }
    Ok(certificates)
}

/// Until when a certificate is valid, in seconds since the epoch: rustls says so of one that has expired, which all have at the end of time.
fn expires_seconds(certificate: &CertificateDer<'static>) -> Option<u64> {
    let end = UnixTime::since_unix_epoch(Duration::from_secs(END_OF_TIME_SECONDS));
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    match verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore::empty(), &[], end, &[]) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(not_after.as_secs())
        }
        _ => None,
    }
}

/// A day as people write it.
pub(super) fn date(seconds: u64) -> String {
    let (year, month, day) = date_of(i64::try_from(seconds / 86_400).unwrap_or(i64::MAX));
    format!("{year:04}-{month:02}-{day:02}")
}
