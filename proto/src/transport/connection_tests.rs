//! Two ends of a connection that trust each other, and all that they do not trust.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::clock::{Clock, ManualClock, SharedClock, SystemClock};
use thalweg_common::config::{Configuration, keys};
use thalweg_common::security::pki::{Authority, Issued, Validity};
use thalweg_common::security::{Role, Security, TOKEN_VARIABLE, Token};
use thalweg_common::task_scope::{TaskScope, with_causes};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Code, Status};

use super::*;
use crate::v1;

const DAY_MS: i64 = 86_400_000;
const TOKEN: &str = "0123456789abcdef";

/// An authority and files that it has signed.
struct Pki {
    directory: tempfile::TempDir,
    authority: Authority,
    now_ms: i64,
}

impl Pki {
    fn new() -> Self {
        let now_ms = SystemClock::new().now_ms();
        let authority =
            Authority::create(Validity { from_ms: now_ms - 90 * DAY_MS, until_ms: now_ms + DAY_MS });
        Self { directory: tempfile::tempdir().unwrap(), authority: authority.unwrap(), now_ms }
    }

    fn valid(&self) -> Validity {
        Validity { from_ms: self.now_ms - DAY_MS, until_ms: self.now_ms + DAY_MS }
    }

    /// Valid two months ago.
    fn over(&self) -> Validity {
        Validity { from_ms: self.now_ms - 80 * DAY_MS, until_ms: self.now_ms - 60 * DAY_MS }
    }

    /// A process with a certificate for `host`, which believes that it is valid, and the name of its files.
    fn node(&self, name: &str, host: &str, validity: Validity, role: Role) -> (Security, Arc<ManualClock>) {
        self.place(name, &self.authority.issue(&[host.into()], validity).unwrap());
        let clock = Arc::new(ManualClock::new(validity.from_ms + 1_000));
        (self.load(name, role, None, clock.clone()), clock)
    }

    fn member(&self, name: &str) -> Security {
        self.node(name, "127.0.0.1", self.valid(), Role::TaskManager).0
    }

    fn place(&self, name: &str, issued: &Issued) {
        for (kind, text) in [
            ("pem", &issued.certificate),
            ("key", &issued.private_key),
            ("ca", &self.authority.own().certificate),
        ] {
            let new = self.path("new", "new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, self.path(name, kind)).unwrap();
        }
    }

    fn path(&self, name: &str, kind: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.{kind}"))
    }

    fn load(&self, name: &str, role: Role, token: Option<&str>, clock: SharedClock) -> Security {
        let mut configuration = Configuration::new();
        let mut set = |key: &str, value: String| configuration.set(key, &value).unwrap();
        set(keys::SSL_INTERNAL_ENABLED.name, "true".into());
        set(keys::SSL_INTERNAL_TRUSTED.name, self.path(name, "ca").display().to_string());
        if self.path(name, "pem").exists() {
            set(keys::SSL_INTERNAL_CERTIFICATE.name, self.path(name, "pem").display().to_string());
            set(keys::SSL_INTERNAL_PRIVATE_KEY.name, self.path(name, "key").display().to_string());
        }
        let variable = |name: &str| token.filter(|_| name == TOKEN_VARIABLE).map(str::to_owned);
        Security::load(&configuration, variable, role, &clock).unwrap()
    }

    /// A client without a certificate, which knows the authority.
    fn client(&self, token: Option<&str>) -> Security {
        std::fs::write(self.path("client", "ca"), &self.authority.own().certificate).unwrap();
        self.load("client", Role::Client, token, SystemClock::shared())
    }
}

/// Serves nothing: whoever is let in learns that it is not implemented.
struct Port {
    address: String,
    scope: TaskScope,
}

impl Port {
    async fn open(security: &Security) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let scope = TaskScope::new("test");
        let services = Admission::new(security, Routes::default().prepare());
        let incoming = Incoming::new(listener, security.tls.clone());
        scope.spawn_fallible("port", Server::builder().serve_with_incoming(services, incoming));
        Self { address, scope }
    }

    async fn asked(&self, by: &Security) -> Result<Channel, tonic::transport::Error> {
        Dialer::new(by.clone()).connect(&endpoint(&self.address).unwrap()).await
    }

    /// What a client hears that asks for the jobs: that nobody implements it, or why it was not let in.
    async fn answers(&self, client: &Security) -> Result<(), String> {
        let channel = self.asked(client).await.map_err(|error| with_causes(&error))?;
        admitted(job_service(channel).list_jobs(v1::ListJobsRequest {}).await.unwrap_err())
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

fn admitted(status: Status) -> Result<(), String> {
    match status.code() {
        Code::Unimplemented => Ok(()),
        _ => Err(with_causes(&status)),
    }
}

fn refused(answer: Result<(), String>, parts: &[&str]) {
    let said = answer.expect_err("was let in");
    for part in parts {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn members_speak_with_each_other() {
    let pki = Pki::new();
    let port = Port::open(&pki.member("server")).await;
    assert_eq!(port.answers(&pki.member("client")).await, Ok(()));
    let plain = Port::open(&Security::default()).await;
    assert_eq!(plain.answers(&Security::default()).await, Ok(()));
}

#[tokio::test]
async fn plain_text_and_tls_do_not_understand_each_other_but_say_so() {
    let pki = Pki::new();
    let (tls, plain) = (pki.member("node"), Security::default());
    let port = Port::open(&tls).await;
    refused(
        port.answers(&plain).await,
        &[&port.address, "speaks TLS where plain text is expected", "security.ssl.internal.enabled"],
    );
    let port = Port::open(&plain).await;
    refused(
        port.answers(&tls).await,
        &[&port.address, "speaks plain text where TLS is expected", "security.ssl.internal.enabled"],
    );
}

#[tokio::test]
async fn unknown_certificates_are_refused_at_either_end() {
    let (here, elsewhere) = (Pki::new(), Pki::new());
    let port = Port::open(&here.member("server")).await;
    // The client knows this cluster's authority, but was certified by another one.
    let stranger = elsewhere.member("client");
    refused(port.answers(&stranger).await, &["unknown", "security.ssl.internal.trusted-certificates"]);
    std::fs::copy(here.path("server", "ca"), elsewhere.path("both", "ca")).unwrap();
    let both = format!("{}{}", here.authority.own().certificate, elsewhere.authority.own().certificate);
    for kind in ["pem", "key"] {
        std::fs::copy(elsewhere.path("client", kind), elsewhere.path("both", kind)).unwrap();
    }
    std::fs::write(elsewhere.path("both", "ca"), both).unwrap();
    let stranger = elsewhere.load("both", Role::TaskManager, None, SystemClock::shared());
    refused(port.answers(&stranger).await, &["does not know", "signed by the authority"]);
}

#[tokio::test]
async fn expired_certificates_are_refused_at_either_end() {
    let pki = Pki::new();
    let (old, _) = pki.node("old", "127.0.0.1", pki.over(), Role::TaskManager);
    let port = Port::open(&pki.member("server")).await;
    refused(port.answers(&old).await, &["has expired", "renew"]);
    let port = Port::open(&old).await;
    refused(port.answers(&pki.member("client")).await, &["has expired (on ", "thalweg pki issue"]);
}

#[tokio::test]
async fn the_name_that_is_dialled_must_be_the_certificates() {
    let pki = Pki::new();
    let (other, _) = pki.node("other", "worker-9", pki.valid(), Role::TaskManager);
    let port = Port::open(&other).await;
    let client = pki.member("client");
    refused(port.answers(&client).await, &["not for that name", "worker-9"]);
    let dialer = Dialer::new(client).expecting("worker-9");
    let channel = dialer.connect(&endpoint(&port.address).unwrap()).await.unwrap();
    assert_eq!(admitted(job_service(channel).list_jobs(v1::ListJobsRequest {}).await.unwrap_err()), Ok(()));
}

#[tokio::test]
async fn clients_come_with_a_certificate_or_the_token_and_reach_no_more_than_they_need() {
    let pki = Pki::new();
    let (strict, clock) = pki.node("server", "127.0.0.1", pki.valid(), Role::JobManager);
    let port = Port::open(&strict).await;
    refused(port.answers(&pki.client(Some(TOKEN))).await, &["asks for a certificate", "security.token-file"]);

    let open = pki.load("server", Role::JobManager, Some(TOKEN), clock);
    let port = Port::open(&open).await;
    assert_eq!(port.answers(&pki.client(Some(TOKEN))).await, Ok(()));
    assert_eq!(port.answers(&pki.member("member")).await, Ok(()));
    refused(port.answers(&pki.client(None)).await, &["asks its clients for a token", "THALWEG_TOKEN"]);
    refused(port.answers(&pki.client(Some("another-secret-token"))).await, &["not the token of the cluster"]);
    let channel = port.asked(&pki.client(Some(TOKEN))).await.unwrap();
    let request = v1::GetBlobRequest::default();
    let status = blob_service(channel).get_blob(request.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let channel = port.asked(&pki.member("member")).await.unwrap();
    assert_eq!(blob_service(channel).get_blob(request).await.unwrap_err().code(), Code::Unimplemented);

    // Without TLS the token is asked for everywhere, and nodes show it.
    let token = |text: &str| Security { tls: None, token: Some(Token::new(text).unwrap()) };
    let port = Port::open(&token(TOKEN)).await;
    assert_eq!(port.answers(&token(TOKEN)).await, Ok(()));
    refused(port.answers(&Security::default()).await, &["asks its clients for a token"]);
}

/// The certificate that a port shows to whoever connects now.
async fn shown(port: &Port, client: &Security) -> CertificateDer<'static> {
    let tcp = TcpStream::connect(&port.address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let config = client.tls.as_ref().unwrap().client();
    let stream = TlsConnector::from(config).connect(name, tcp).await.unwrap();
    let certificate = stream.get_ref().1.peer_certificates().unwrap().first().unwrap();
    certificate.clone().into_owned()
}

#[tokio::test]
async fn new_certificates_are_shown_to_new_connections_and_old_ones_go_on() {
    let pki = Pki::new();
    let (server, clock) = pki.node("server", "127.0.0.1", pki.valid(), Role::TaskManager);
    let client = pki.member("client");
    let port = Port::open(&server).await;
    let old = port.asked(&client).await.unwrap();
    let first = shown(&port, &client).await;

    let next = pki.authority.issue(&["127.0.0.1".into()], pki.valid()).unwrap();
    pki.place("server", &next);
    clock.advance(Duration::from_secs(1));
    let second = shown(&port, &client).await;
    assert_ne!(first, second);
    assert_eq!(second, CertificateDer::from_pem_slice(next.certificate.as_bytes()).unwrap());
    let status = job_service(old).list_jobs(v1::ListJobsRequest {}).await.unwrap_err();
    assert_eq!(admitted(status), Ok(()), "the connection from before");

    std::fs::write(pki.path("server", "pem"), "broken").unwrap();
    clock.advance(Duration::from_secs(1));
    assert_eq!(shown(&port, &client).await, second, "a broken file changes nothing");
}

#[tokio::test]
async fn who_connects_and_says_nothing_holds_up_nobody() {
    let pki = Pki::new();
    let port = Port::open(&pki.member("server")).await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(TcpStream::connect(&port.address).await.unwrap());
    }
    assert_eq!(port.answers(&pki.member("client")).await, Ok(()));
}
