//! Who may ask a job manager for what: decided from the certificate of a connection and the token of a request, before any service sees it.
//!
//! Nodes have certificates. Clients have a certificate or the token, whatever suits them; with the token alone they reach the service
//! for clients and no other.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures_util::future::Either;
use thalweg_common::security::{Security, Token};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::header::{AUTHORIZATION, HeaderMap};
use tonic::codegen::http::{Request, Response};

use super::stream::Peer;
use crate::v1::job_service_server;

/// What is asked of those who make requests.
#[derive(Debug, Clone)]
struct Rule {
    has_tls: bool,
    token: Option<Token>,
}

impl Rule {
    /// Whether a request may go on. `is_for_clients`: it asks for what clients ask for, and not for what only nodes do.
    fn judge(&self, is_certified: bool, is_for_clients: bool, headers: &HeaderMap) -> Result<(), Status> {
        if is_certified {
            return Ok(());
        }
        if self.has_tls && !is_for_clients {
            return Err(Status::permission_denied(
                "only nodes with a certificate of this cluster may ask for this; set `security.ssl.internal.certificate` and \
                 `.private-key`",
            ));
        }
        let Some(token) = &self.token else {
            // With TLS, but no token, nobody connects without a certificate.
            return Ok(());
        };
        let shown = headers.get(AUTHORIZATION);
        match shown {
            Some(shown) if token.is_borne_by(shown.as_bytes()) => Ok(()),
            Some(_) => Err(Status::unauthenticated(
                "this is not the token of the cluster; look into `security.token-file` and THALWEG_TOKEN, which wins over it",
            )),
            None => Err(Status::unauthenticated(
                "this cluster asks its clients for a token; set `security.token-file`, or THALWEG_TOKEN in the environment",
            )),
        }
    }
}

/// Services that only those reach who may.
#[derive(Debug, Clone)]
pub struct Admission<S> {
    rule: Rule,
    inner: S,
}

impl<S> Admission<S> {
    /// In front of the services of a job manager.
    pub fn new(security: &Security, inner: S) -> Self {
        let rule = Rule { has_tls: security.tls.is_some(), token: security.token.clone() };
        Self { rule, inner }
    }
}

/// Whether a path of gRPC is one of the service for clients.
fn is_for_clients(path: &str) -> bool {
    let service = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    service == job_service_server::SERVICE_NAME
}

impl<S> Service<Request<Body>> for Admission<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response<Body>, Infallible>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_certified = request.extensions().get::<Peer>().is_some_and(|peer| peer.is_certified);
        match self.rule.judge(is_certified, is_for_clients(request.uri().path()), request.headers()) {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(status) => Either::Left(ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic::codegen::http::HeaderValue;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    #[test]
    fn certificates_open_everything_and_tokens_what_is_for_clients() {
        let headers = |value: Option<String>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(AUTHORIZATION, HeaderValue::from_str(&value).expect("a header"));
            }
            headers
        };
        let token = Token::new(TOKEN).expect("long enough");
        let (right, wrong, none) = (Some(token.bearer()), Some(format!("Bearer {TOKEN}x")), None::<String>);
        let refused = Some(Code::Unauthenticated);
        let forbidden = Some(Code::PermissionDenied);
        // TLS, a token is asked for, a certificate was shown, a client's service: right, wrong and no token.
        let table = [
            (false, false, false, false, [None, None, None]),
            (false, true, false, true, [None, refused, refused]),
            (false, true, false, false, [None, refused, refused]),
            (true, true, true, true, [None, None, None]),
            (true, true, true, false, [None, None, None]),
            (true, true, false, true, [None, refused, refused]),
            (true, true, false, false, [forbidden, forbidden, forbidden]),
            (true, false, true, false, [None, None, None]),
            (true, false, false, false, [forbidden, forbidden, forbidden]),
        ];
        for (has_tls, has_token, is_certified, for_clients, expected) in table {
            let rule = Rule { has_tls, token: has_token.then(|| token.clone()) };
            for (shown, expected) in [&right, &wrong, &none].into_iter().zip(expected) {
                let judged = rule.judge(is_certified, for_clients, &headers(shown.clone()));
                let what = (has_tls, has_token, is_certified, for_clients, shown);
                assert_eq!(judged.as_ref().err().map(Status::code), expected, "{what:?}");
                assert!(judged.err().is_none_or(|status| !status.message().contains(TOKEN)), "{what:?}");
            }
        }
    }

    #[test]
    fn only_one_service_is_for_clients() {
        assert!(is_for_clients("/thalweg.v1.JobService/ListJobs"));
        for path in [
            "/thalweg.v1.RaftService/Vote",
            "/thalweg.v1.TaskManagerService/Connect",
            "/thalweg.v1.BlobService/PutBlob",
            "/thalweg.v1.JobServiceX/ListJobs",
            "/",
            "",
        ] {
            assert!(!is_for_clients(path), "{path}");
        }
    }
}
