//! The HTTP server: routes below `/` and `/v1`, limits, and its end with the job manager.

use std::io;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Uri;
use axum::middleware::from_fn_with_state;
use thalweg_common::limits::REST_MAX_BODY_BYTES;
use thalweg_common::security::Token;
use thalweg_common::task_scope::TaskScope;
use tokio_util::sync::CancellationToken;

use super::connections::Connections;
use super::error::RestError;
use super::{Rest, RestListener, admission, leading, routes};

/// How long requests under way may take to end when the job manager stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves REST as long as `scope` lives.
pub(crate) fn start(listener: RestListener, rest: &Rest, token: Option<Token>, scope: &TaskScope) {
    tracing::info!("REST is served at {}", listener.url());
    let router = router(rest).layer(from_fn_with_state(token, admission::guard));
    let connections = Connections::new(listener.listener, listener.tls);
    scope.spawn_fallible("rest", serve(connections, router, scope.token()));
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

/// All routes, and behind them what no route matches.
pub(super) fn router(rest: &Rest) -> Router {
    let both = |router: Router<Rest>, route: routes::Route| {
        let versioned = format!("/v1{}", route.path);
        router.route(route.path, route.handler.clone()).route(&versioned, route.handler)
    };
    routes::all()
        .into_iter()
        .fold(Router::new(), both)
        .route_layer(from_fn_with_state(rest.clone(), leading::guard))
        .layer(DefaultBodyLimit::max(REST_MAX_BODY_BYTES))
        .fallback(unknown)
        .with_state(rest.clone())
}

/// The answer to a path that is none.
async fn unknown(uri: Uri) -> RestError {
    RestError::not_found(format!("there is nothing at `{}`; `/openapi.json` lists all paths", uri.path()))
}
