//! What an error of TLS means, and what helps: rustls says what has happened, people need to know what to do. Pure.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

use super::material::date;

/// An error of a connection to or from `peer` in words, if it is one of TLS; `None` for all others.
///
/// ```
/// use thalweg_common::security::explain;
///
/// assert_eq!(explain("10.0.0.7:6123", &std::io::Error::other("disk full")), None);
/// ```
#[must_use]
pub fn explain(peer: &str, error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(in_words(peer, error))
}

fn in_words(peer: &str, error: &Error) -> String {
    match error {
        // Random bytes where a record should begin are text without encryption, nothing else.
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => format!(
            "{peer} speaks plain text where TLS is expected; set `security.ssl.internal.enabled` to true on both ends"
        ),
        Error::InvalidCertificate(certificate) => refused(peer, certificate),
        Error::NoCertificatesPresented => format!(
            "{peer} shows no certificate; give it one of this cluster (`security.ssl.internal.certificate` and `.private-key`), or a \
             client the token (`security.token-file`)"
        ),
        Error::AlertReceived(alert) => alerted(peer, *alert),
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOfferedOrEnabled | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => format!("{peer} does not speak TLS 1.3; between processes of a cluster nothing older is spoken"),
        other => format!("TLS with {peer} failed: {other}"),
    }
}

fn refused(peer: &str, error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "the certificate of {peer} is unknown: none of those in `security.ssl.internal.trusted-certificates` has signed it; issue \
             one with this cluster's authority (`thalweg pki issue`), or add the authority that has signed it to that file"
        ),
        CertificateError::ExpiredContext { not_after, .. } => format!(
            "the certificate of {peer} has expired (on {}); issue a new one (`thalweg pki issue`) and put it in the place of the old one: \
             nothing has to be restarted",
            date(not_after.as_secs())
        ),
        CertificateError::Expired => {
            format!("the certificate of {peer} has expired; issue a new one (`thalweg pki issue`)")
        }
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "the certificate of {peer} is valid only from {} on; check the clocks of both machines",
            date(not_before.as_secs())
        ),
        CertificateError::NotValidForNameContext { presented, .. } => format!(
            "the certificate of {peer} is not for that name, but for {}; dial one of these, or issue one that has the name \
             (`thalweg pki issue`)",
            if presented.is_empty() { "none at all".to_owned() } else { presented.join(", ") }
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => format!(
            "the certificate of {peer} is not meant for this: that of a node needs the usages of a server and of a client (`thalweg pki \
             issue` gives it both)"
        ),
        other => format!("the certificate of {peer} is refused: {other}"),
    }
}

/// What the other end says of this one.
fn alerted(peer: &str, alert: AlertDescription) -> String {
    let own = "`security.ssl.internal.certificate` of this process";
    match alert {
        AlertDescription::CertificateExpired => {
            format!(
                "{peer} refuses this process, whose certificate has expired: renew {own} (`thalweg pki issue`)"
            )
        }
        AlertDescription::UnknownCA => format!(
            "{peer} refuses this process, whose certificate it does not know: {own} must be signed by the authority of that cluster"
        ),
        AlertDescription::CertificateRequired => format!(
            "{peer} asks for a certificate: set `security.ssl.internal.certificate` and `.private-key`, or give a client the cluster's \
             token (`security.token-file`)"
        ),
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::AccessDenied => {
            format!(
                "{peer} refuses {own}: {alert:?}; its log says more (`thalweg pki show` tells what the certificate is for)"
            )
        }
        AlertDescription::ProtocolVersion => {
            format!("{peer} speaks another version of TLS; between processes of a cluster it is 1.3")
        }
        other => format!("{peer} ended TLS: {other:?}; its log says more"),
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{ServerName, UnixTime};
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_refusal_names_cause_and_cure() {
        let at = |days: u64| UnixTime::since_unix_epoch(Duration::from_secs(days * 86_400));
        let expected = ServerName::try_from("jm-2").expect("a name");
        let of_certificate = |error: CertificateError| Error::InvalidCertificate(error);
        let table = [
            (
                Error::InvalidMessage(InvalidMessage::InvalidContentType),
                "plain text where TLS is expected",
                "enabled",
            ),
            (of_certificate(CertificateError::UnknownIssuer), "unknown", "thalweg pki issue"),
            (
                of_certificate(CertificateError::ExpiredContext { time: at(20), not_after: at(10) }),
                "expired (on 1970-01-11)",
                "nothing has to be restarted",
            ),
            (
                of_certificate(CertificateError::NotValidYetContext { time: at(1), not_before: at(2) }),
                "from 1970-01-03 on",
                "clocks",
            ),
            (
                of_certificate(CertificateError::NotValidForNameContext {
                    expected,
                    presented: vec!["jm-1".into()],
                }),
                "but for jm-1",
                "thalweg pki issue",
            ),
            (Error::NoCertificatesPresented, "no certificate", "security.token-file"),
            (Error::AlertReceived(AlertDescription::CertificateExpired), "has expired", "renew"),
            (Error::AlertReceived(AlertDescription::UnknownCA), "does not know", "signed by the authority"),
            (
                Error::AlertReceived(AlertDescription::CertificateRequired),
                "asks for a certificate",
                "security.token-file",
            ),
        ];
        for (error, cause, cure) in table {
            let text = explain("10.0.0.7:6123", &io::Error::new(io::ErrorKind::InvalidData, error))
                .expect("an error of TLS");
            assert!(text.contains("10.0.0.7:6123") && text.contains(cause) && text.contains(cure), "{text}");
        }
    }
}
