//! The HTTP server: routes below `/` and `/v1`, limits, and its end with the job manager.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use thalweg_common::limits::{REST_MAX_BODY_BYTES, REST_MAX_REQUESTS};
use thalweg_common::security::Token;
use thalweg_common::task_scope::TaskScope;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::connections::Connections;
use super::error::RestError;
use super::{Rest, admission, dashboard, leading, routes};
use crate::rest_listener::RestListener;

/// How long requests under way may take to end when the job manager stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves REST as long as `scope` lives, and returns what other job managers pass on to, where nodes alone are let in.
pub(crate) fn start(listener: RestListener, rest: &Rest, token: Option<Token>, scope: &TaskScope) -> Router {
    tracing::info!("REST is served at {}", listener.url());
    let places = Arc::new(Semaphore::new(REST_MAX_REQUESTS));
    let router = bounded(router(rest), &places).layer(from_fn_with_state(token, admission::guard));
    let connections = Connections::new(listener.listener, listener.tls);
    scope.spawn_fallible("rest", serve(connections, router, scope.token()));
    Router::new().nest(leading::PREFIX, bounded(for_followers(rest), &places))
}

async fn serve(connections: Connections, router: Router, stopped: CancellationToken) -> io::Result<()> {
    let serving = axum::serve(connections, router)
        .with_graceful_shutdown(stopped.clone().cancelled_owned())
        .into_future();
    let too_late = async {
        stopped.cancelled().await;
        tokio::time::sleep(STOP_TIMEOUT).await;
    };
    tokio::select! {
        biased;
        served = serving => served,
        () = too_late => Ok(()),
    }
}

/// All routes, then the pages, and behind them what no route matches.
fn router(rest: &Rest) -> Router {
    api()
        .route_layer(from_fn_with_state(rest.clone(), leading::guard))
        .layer(DefaultBodyLimit::max(REST_MAX_BODY_BYTES))
        .merge(dashboard::pages())
        .fallback(unknown)
        .with_state(rest.clone())
}

/// What job managers that do not lead ask this one for.
fn for_followers(rest: &Rest) -> Router {
    api()
        .route_layer(from_fn_with_state(rest.clone(), leading::passed_on))
        .layer(DefaultBodyLimit::max(REST_MAX_BODY_BYTES))
        .fallback(unknown)
        .with_state(rest.clone())
}

fn api() -> Router<Rest> {
    let both = |router: Router<Rest>, route: routes::Route| {
        let versioned = format!("/v1{}", route.path);
        router.route(route.path, route.handler.clone()).route(&versioned, route.handler)
    };
    routes::all().into_iter().fold(Router::new(), both)
}

/// Refuses what comes while all places are taken by requests under way, so that those end in time.
fn bounded(router: Router, places: &Arc<Semaphore>) -> Router {
    router.layer(from_fn_with_state(Arc::clone(places), unless_full))
}

async fn unless_full(State(places): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    match places.try_acquire() {
        Ok(_place) => next.run(request).await,
        Err(_) => {
            let message = "this job manager answers as many requests as it can; ask again in a moment";
            RestError::new(StatusCode::SERVICE_UNAVAILABLE, message).into_response()
        }
    }
}

/// The answer to a path that is none.
async fn unknown(uri: Uri) -> RestError {
    RestError::not_found(format!("there is nothing at `{}`; `/openapi.json` lists all paths", uri.path()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::routing::get;
    use thalweg_common::config::Configuration;
    use thalweg_test_support::http::request;

    use super::*;

    #[tokio::test]
    async fn what_comes_while_too_much_is_under_way_is_refused() {
        let configuration = Configuration::from_yaml("rest.port: 0").unwrap();
        let listener = RestListener::bind(&configuration, "").await.unwrap();
        let url = listener.url().to_string();
        let (entered, mut inside) = tokio::sync::mpsc::channel::<()>(1);
        let (leave, left) = tokio::sync::watch::channel(false);
        let slow = get(async move || {
            entered.send(()).await.unwrap();
            left.clone().wait_for(|left| *left).await.map(drop).unwrap();
            "done"
        });
        let router = Router::new().route("/slow", slow).route("/quick", get(async || "quick"));
        let router = bounded(router, &Arc::new(Semaphore::new(1)));
        let stopped = CancellationToken::new();
        let serving = serve(Connections::new(listener.listener, None), router, stopped.clone());
        let asking = async {
            let slow = request(&url, "GET", "/slow", b"");
            let meanwhile = async {
                inside.recv().await.unwrap();
                let refused = request(&url, "GET", "/quick", b"").await.unwrap();
                leave.send_replace(true);
                refused.status
            };
            let (slow, refused) = tokio::join!(slow, meanwhile);
            assert_eq!((slow.unwrap().status, refused), (200, 503));
            assert_eq!(request(&url, "GET", "/quick", b"").await.unwrap().status, 200);
            stopped.cancel();
        };
        let (served, ()) = tokio::join!(serving, asking);
        served.unwrap();
    }
}
