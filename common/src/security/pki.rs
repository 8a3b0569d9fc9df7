//! The authority of a cluster: makes itself, signs the certificates of nodes, and tells what certificates say.
//!
//! For `thalweg pki` and for tests; no node has it. A node's certificate is for servers and for clients, because every node is both, and has the
//! names under which others reach the node.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A certificate cannot be made or read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PkiError(String);

impl From<rcgen::Error> for PkiError {
    fn from(error: rcgen::Error) -> Self {
        Self(format!("a certificate cannot be made: {error}"))
    }
}

/// From when until when a certificate is valid, in milliseconds since the epoch. Certificates count seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub from_ms: i64,
    /// The last moment.
    pub until_ms: i64,
}

impl Validity {
    /// So many days from now on. It begins an hour earlier, because clocks differ.
    #[must_use]
    pub fn days(now_ms: i64, days: u32) -> Self {
        const HOUR_MS: i64 = 60 * 60 * 1_000;
        Self { from_ms: now_ms - HOUR_MS, until_ms: now_ms + i64::from(days) * 24 * HOUR_MS }
    }
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Issued {
    /// For everybody to see.
    pub certificate: String,
    /// For nobody else to see.
    pub private_key: String,
}

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    own: Issued,
}

impl Authority {
    /// A new one, with a key of its own.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn create(validity: Validity) -> Result<Self, PkiError> {
        let mut distinct = [0; 4];
        getrandom::fill(&mut distinct)
            .map_err(|error| PkiError(format!("the system gives no random bytes: {error}")))?;
        let mut parameters =
            parameters(&format!("Thalweg authority {:08x}", u32::from_be_bytes(distinct)), validity);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = parameters.self_signed(&key)?.pem();
        let own = Issued { certificate, private_key: key.serialize_pem() };
        Ok(Self { issuer: Issuer::new(parameters, key), own })
    }

    /// The one that was made before, from its PEM files.
    ///
    /// # Errors
    /// When they are not what they should be, or do not belong together.
    pub fn from_pem(own: Issued) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(&own.private_key)
            .map_err(|error| PkiError(format!("the authority's key cannot be read: {error}")))?;
        let der = first_certificate(&own.certificate)?;
        let parsed = parse(&der)?;
        if !parsed.is_ca() {
            return Err(PkiError("the certificate is none of an authority and cannot sign others".into()));
        }
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(PkiError("the authority's key does not belong to its certificate".into()));
        }
        let issuer = Issuer::from_ca_cert_pem(&own.certificate, key)
            .map_err(|error| PkiError(format!("the authority's certificate cannot be read: {error}")))?;
        Ok(Self { issuer, own })
    }

    /// Its own certificate and key.
    #[must_use]
    pub fn own(&self) -> &Issued {
        &self.own
    }

    /// Signs a certificate for a node that others reach under these names and addresses, with a new key.
    ///
    /// # Errors
    /// When there is no name, or one is neither a name nor an address.
    pub fn issue(&self, hosts: &[String], validity: Validity) -> Result<Issued, PkiError> {
        let first = hosts.first().ok_or_else(|| PkiError("a certificate needs at least one host".into()))?;
        for host in hosts {
            // A wildcard takes the place of one label.
            let plain = host.strip_prefix("*.").unwrap_or(host);
            if ServerName::try_from(plain).is_err() {
                return Err(PkiError(format!(
                    "`{host}` is neither a host name nor an address; write it as others dial it, without a port"
                )));
            }
        }
        let mut parameters = parameters(first, validity);
        parameters.subject_alt_names = CertificateParams::new(hosts.to_vec())?.subject_alt_names;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, private_key: key.serialize_pem() })
    }
}

fn parameters(name: &str, validity: Validity) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    let at = |ms: i64| {
        date_time_ymd(1970, 1, 1)
            + Duration::from_millis(u64::try_from(ms).unwrap_or_default() / 1_000 * 1_000)
    };
    (parameters.not_before, parameters.not_after) = (at(validity.from_ms), at(validity.until_ms));
    parameters
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Whose it is.
    pub subject: String,
    /// Who has signed it.
    pub issuer: String,
    /// The names and addresses for which it is.
    pub names: Vec<String>,
    /// When it is valid.
    pub validity: Validity,
    /// Whether it may sign others.
    pub is_authority: bool,
    /// Whether a server may show it, and a client.
    pub is_for: (bool, bool),
}

/// What the first certificate of a PEM text says; those behind it only lead to an authority.
///
/// # Errors
/// When it has none, or one that cannot be read.
pub fn describe(pem: &str) -> Result<Description, PkiError> {
    let der = first_certificate(pem)?;
    let certificate = parse(&der)?;
    let unreadable = |error| PkiError(format!("the certificate cannot be read: {error}"));
    let names = certificate.subject_alternative_name().map_err(unreadable)?;
    let names = names.map(|names| names.value.general_names.iter().map(name).collect()).unwrap_or_default();
    let usages = certificate.extended_key_usage().map_err(unreadable)?;
    let (from, until) = (certificate.validity().not_before, certificate.validity().not_after);
    Ok(Description {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        names,
        validity: Validity { from_ms: from.timestamp() * 1_000, until_ms: until.timestamp() * 1_000 },
        is_authority: certificate.is_ca(),
        is_for: usages.map_or((true, true), |usages| (usages.value.server_auth, usages.value.client_auth)),
    })
}

fn name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
            (Ok(four), _) => IpAddr::from(four).to_string(),
            (_, Ok(sixteen)) => IpAddr::from(sixteen).to_string(),
            _ => format!("{bytes:?}"),
        },
        other => other.to_string(),
    }
}

fn first_certificate(pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| PkiError(format!("there is no certificate in PEM: {error}")))
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PkiError> {
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|error| PkiError(format!("the certificate cannot be read: {error}")))?;
    Ok(certificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_800_000_000_000;

    fn hosts(hosts: &[&str]) -> Vec<String> {
        hosts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_certificate_says_what_was_asked_for() {
        let authority = Authority::create(Validity::days(NOW_MS, 3_650)).expect("an authority");
        let again = Authority::from_pem(authority.own().clone()).expect("the same authority");
        let names = hosts(&["worker-1", "*.example.com", "10.0.0.7", "::1"]);
        let issued = again.issue(&names, Validity::days(NOW_MS, 90)).expect("a certificate");
        let described = describe(&issued.certificate).expect("readable");
        let own = describe(&authority.own().certificate).expect("readable");
        assert!(own.is_authority && own.subject.starts_with("CN=Thalweg authority "), "{own:?}");
        let expected = Description {
            subject: "CN=worker-1".into(),
            issuer: own.subject,
            names,
            validity: Validity { from_ms: NOW_MS - 3_600_000, until_ms: NOW_MS + 90 * 86_400_000 },
            is_authority: false,
            is_for: (true, true),
        };
        assert_eq!(described, expected);
    }

    #[test]
    fn what_cannot_sign_or_be_signed_is_refused() {
        let validity = Validity::days(NOW_MS, 1);
        let authority = Authority::create(validity).expect("an authority");
        let other = Authority::create(validity).expect("another one");
        let node = authority.issue(&hosts(&["a"]), validity).expect("a certificate");
        let refused = |own: Issued| Authority::from_pem(own).err().expect("refused").to_string();
        let mixed = Issued { certificate: authority.own().certificate.clone(), ..other.own().clone() };
        assert!(refused(mixed).contains("does not belong"));
        assert!(refused(node).contains("none of an authority"));
        for host in ["a b", "jm-1:6123", "http://a", ""] {
            let error = authority.issue(&hosts(&[host]), validity).err().expect(host).to_string();
            assert!(error.contains("neither a host name"), "{error}");
        }
        assert!(authority.issue(&[], validity).is_err());
    }
}
