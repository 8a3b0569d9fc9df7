//! Who may ask REST for what: whoever shows the token, if the cluster has one, and no page of somebody else's.
//!
//! In front of all routes and of the dashboard. Programs show the token as `Authorization: Bearer TOKEN`; a browser asks its user, who
//! writes it as the password, with any name (`Basic`), so that pages need no code for it. Flink's client shows what is in
//! `FLINK_REST_CLIENT_HEADERS`. Because browsers show what they know to every page that asks, a request that changes something must not come
//! from a page of another origin.

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thalweg_common::security::Token;

use super::error::RestError;

/// Lets a request pass that may.
pub(super) async fn guard(State(token): State<Option<Token>>, request: Request, next: Next) -> Response {
    if is_foreign(request.method(), request.headers()) {
        let message =
            "a page of another site may not change anything here; use the dashboard or a program".to_string();
        return RestError::new(StatusCode::FORBIDDEN, message).into_response();
    }
    match token {
        Some(token) if !shows(&token, request.headers()) => unauthorized(),
        _ => next.run(request).await,
    }
}

fn unauthorized() -> Response {
    let message = "this cluster asks for its token: `Authorization: Bearer TOKEN`, or as the password in a browser, with any name";
    let mut response = RestError::new(StatusCode::UNAUTHORIZED, message.to_string()).into_response();
    let ask = HeaderValue::from_static("Basic realm=\"thalweg\", charset=\"UTF-8\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, ask);
    response
}

/// Whether the token is among the headers.
fn shows(token: &Token, headers: &HeaderMap) -> bool {
    let Some(shown) = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes) else { return false };
    if token.is_borne_by(shown) {
        return true;
    }
    let Some((scheme, encoded)) = shown.split_at_checked("Basic ".len()) else { return false };
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return false;
    }
    let Ok(decoded) = STANDARD.decode(encoded.trim_ascii()) else { return false };
    let colon = decoded.iter().position(|byte| *byte == b':');
    colon.and_then(|colon| decoded.get(colon + 1..)).is_some_and(|password| token.is(password))
}

/// Whether a page of another origin asks for a change. Programs say no origin.
fn is_foreign(method: &Method, headers: &HeaderMap) -> bool {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return false;
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = origin.as_ref().and_then(Uri::authority).map(|authority| authority.as_str());
    authority.is_none() || authority != host
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn headers(pairs: &[(axum::http::HeaderName, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).expect("a value")))
            .collect()
    }

    #[test]
    fn the_token_is_borne_or_is_the_password_of_anybody() {
        let token = Token::new(TOKEN).expect("long enough");
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for right in [token.bearer(), basic(&format!("me:{TOKEN}")), basic(&format!(":{TOKEN}"))] {
            assert!(shows(&token, &headers(&[(AUTHORIZATION, &right)])), "{right}");
        }
        for wrong in [
            basic(TOKEN),
            basic("me:"),
            basic(&format!("me:{TOKEN}x")),
            "Basic !".into(),
            "Basic".into(),
            TOKEN.into(),
        ] {
            assert!(!shows(&token, &headers(&[(AUTHORIZATION, &wrong)])), "{wrong}");
        }
        assert!(!shows(&token, &HeaderMap::new()));
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        let from = |origin: &str| headers(&[(HOST, "jm-1:8081"), (ORIGIN, origin)]);
        for own in ["http://jm-1:8081", "https://jm-1:8081"] {
            assert!(!is_foreign(&Method::POST, &from(own)), "{own}");
        }
        for foreign in ["http://jm-1", "http://evil.example", "null", "http://jm-1:8082"] {
            assert!(is_foreign(&Method::POST, &from(foreign)), "{foreign}");
            assert!(is_foreign(&Method::PATCH, &from(foreign)), "{foreign}");
            assert!(!is_foreign(&Method::GET, &from(foreign)), "{foreign}");
        }
        assert!(!is_foreign(&Method::DELETE, &headers(&[(HOST, "jm-1:8081")])), "a program");
    }
}
