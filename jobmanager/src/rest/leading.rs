//! A job manager that does not lead passes requests on to the one that does, and what that answers back.
//!
//! It does so at the cluster's own port, as nodes speak with each other ([`Dialer`]): with TLS, certificates and the token of the cluster,
//! whatever REST itself has, and also where REST listens for its own machine only. There the same handlers stand below [`PREFIX`].
//!
//! Invariants: bodies pass as they come, in both directions; a request is passed on once at most, because behind [`PREFIX`] nobody passes on;
//! each has a connection of its own, so whoever reads slowly holds up nobody else.

use std::future::poll_fn;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CONNECTION, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use axum::http::{StatusCode, Uri, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use thalweg_common::task_scope::with_causes;
use thalweg_proto::transport::{Dialer, endpoint};
use tonic::codegen::Service;

use super::Rest;
use super::error::RestError;
use crate::consensus::Leadership;

/// Below which path of the cluster's port REST is served to job managers that do not lead.
pub(super) const PREFIX: &str = "/thalweg.rest";

/// What concerns one connection and no request: not passed on, as is what `connection` names. The host is that of the next connection,
/// and whoever waits for a leave to send its body gets it here.
const OF_CONNECTION: [HeaderName; 9] = [
    CONNECTION,
    EXPECT,
    HOST,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Answers where this job manager leads, and passes on where it does not.
pub(super) async fn guard(State(rest): State<Rest>, request: Request, next: Next) -> Response {
    if rest.leader.check_leading().is_ok() {
        return next.run(request).await;
    }
    let leadership = rest.leader.leadership().borrow().clone();
    pass_on(&rest.dialer, &leadership, request).await.unwrap_or_else(IntoResponse::into_response)
}

/// Answers what another job manager has passed on, if this one leads.
pub(super) async fn passed_on(State(rest): State<Rest>, request: Request, next: Next) -> Response {
    match rest.leader.check_leading() {
        Ok(()) => next.run(request).await,
        Err(_) => RestError::leads_no_more().into_response(),
    }
}

/// Asks the leader instead.
async fn pass_on(dialer: &Dialer, leadership: &Leadership, request: Request) -> Result<Response, RestError> {
    let Some((id, node)) = leadership.leader.as_ref().filter(|_| !leadership.is_leader) else {
        return Err(unavailable("no job manager leads at the moment; ask again"));
    };
    let leader = format!("job manager {id} at {}", node.address);
    let no_answer = |reason: String| {
        unavailable(format!(
            "this job manager does not lead, and {leader}, which does, does not answer: {reason}; if it is gone another one leads in a moment: \
             ask again"
        ))
    };
    let endpoint = endpoint(&node.address).map_err(|error| no_answer(error.to_string()))?;
    let request = for_leader(request)?;
    let mut connection = dialer.connect(&endpoint).await.map_err(|error| no_answer(with_causes(&error)))?;
    let ready = poll_fn(|context| connection.poll_ready(context)).await;
    ready.map_err(|error| no_answer(with_causes(&error)))?;
    let answer = connection.call(request).await.map_err(|error| no_answer(with_causes(&error)))?;
    let (head, body) = answer.into_parts();
    let is_grpc = |kind: &axum::http::HeaderValue| kind.as_bytes().starts_with(b"application/grpc");
    if head.headers.get(CONTENT_TYPE).is_some_and(is_grpc) {
        return Err(unavailable(format!(
            "this job manager does not lead, and {leader}, which does, takes no requests from it: bring both to the same version"
        )));
    }
    Ok((head.status, without_those_of_connection(head.headers), Body::new(body)).into_response())
}

/// The same request, as the leader is asked.
fn for_leader(request: Request) -> Result<axum::http::Request<tonic::body::Body>, RestError> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri = format!("{PREFIX}{path}").parse::<Uri>();
    head.uri = uri.map_err(|error| RestError::bad_request(format!("`{path}` is no path: {error}")))?;
    head.headers = without_those_of_connection(head.headers);
    head.version = Version::HTTP_2;
    Ok(axum::http::Request::from_parts(head, tonic::body::Body::new(body)))
}

fn without_those_of_connection(mut headers: HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in OF_CONNECTION.iter().chain(&named) {
        headers.remove(name);
    }
    headers
}

fn unavailable(message: impl Into<String>) -> RestError {
    RestError::new(StatusCode::SERVICE_UNAVAILABLE, message)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use axum::http::header::{ACCEPT, COOKIE};
    use tokio::net::TcpListener;

    use super::*;
    use crate::consensus::Node;

    async fn refusal(leader: Option<&str>) -> String {
        let leader = leader.map(|address| (2, Node { address: address.into() }));
        let leadership = Leadership { term: 1, is_leader: false, leader };
        let refused = pass_on(&Dialer::default(), &leadership, Request::default()).await;
        let response = refused.expect_err("nobody is there").into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.expect("a short one");
        String::from_utf8(body.to_vec()).expect("text")
    }

    #[tokio::test]
    async fn who_cannot_ask_the_leader_says_why_and_what_to_do() {
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = gone.local_addr().expect("bound").to_string();
        drop(gone);
        for (leader, parts) in [
            (None, ["{\"errors\":[", "no job manager leads", "ask again"]),
            (Some("nonsense"), ["job manager 2 at nonsense", "is not an address", "ask again"]),
            (Some(address.as_str()), [address.as_str(), "refused", "ask again"]),
        ] {
            let said = refusal(leader).await;
            for part in parts {
                assert!(said.contains(part), "{part}: {said}");
            }
        }
    }

    #[test]
    fn what_is_of_one_connection_stays_there() {
        let request = Request::builder().uri("/jobs/a%20b?c=%2F").version(Version::HTTP_10);
        let request = [
            (CONNECTION, "close, Cookie"),
            (COOKIE, "secret"),
            (TRANSFER_ENCODING, "chunked"),
            (EXPECT, "100-continue"),
            (HOST, "jm-2:8081"),
            (ACCEPT, "text/html"),
            (ACCEPT, "*/*"),
        ]
        .into_iter()
        .fold(request, |request, (name, value)| request.header(name, value));
        let passed_on = for_leader(request.body(Body::empty()).expect("a request")).expect("a path");
        let expected = [HeaderValue::from_static("text/html"), HeaderValue::from_static("*/*")];
        assert!(passed_on.headers().get_all(ACCEPT).iter().eq(&expected));
        assert_eq!(passed_on.headers().len(), 2, "{:?}", passed_on.headers());
        assert_eq!(passed_on.uri(), "/thalweg.rest/jobs/a%20b?c=%2F");
    }
}
