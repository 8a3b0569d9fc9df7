//! A job manager that does not lead sends whoever asks to the leader's REST.
//!
//! Where that is, only the leader knows (its port may be a free one), so it is asked once in each term. Flink's own client does not follow
//! a redirection; it shows the text, which names the address to use.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::{StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use thalweg_proto::transport::{Dialer, endpoint, job_service};
use thalweg_proto::v1;

use super::Rest;
use super::error::{LeadsNoMore, RestError};
use crate::consensus::Leadership;

/// How long the leader may take to say where its REST is.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the leader of a term serves REST, once it was asked.
#[derive(Debug)]
pub(crate) struct LeaderUrl {
    dialer: Dialer,
    known: Mutex<Option<(u64, String)>>,
}

impl LeaderUrl {
    pub(super) fn new(dialer: Dialer) -> Self {
        Self { dialer, known: Mutex::default() }
    }

    /// The leader's URL; `None` if nobody leads, or the leader does not answer or serves no REST.
    async fn of(&self, leadership: &Leadership) -> Option<String> {
        let (_, node) = leadership.leader.as_ref()?;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, url)) = known.filter(|(term, _)| *term == leadership.term) {
            return Some(url);
        }
        let url = tokio::time::timeout(ASK_TIMEOUT, ask(&self.dialer, &node.address)).await.ok()??;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((leadership.term, url.clone()));
        Some(url)
    }
}

async fn ask(dialer: &Dialer, address: &str) -> Option<String> {
    let channel = dialer.connect(&endpoint(address).ok()?).await.ok()?;
    let answer = job_service(channel).list_job_managers(v1::ListJobManagersRequest {}).await.ok()?;
    Some(answer.into_inner().rest_url).filter(|url| !url.is_empty())
}

/// Lets a request pass where this job manager leads.
pub(super) async fn guard(State(rest): State<Rest>, request: Request, next: Next) -> Response {
    let uri = request.uri().clone();
    if rest.leader.check_leading().is_err() {
        return to_leader(&rest, &uri).await;
    }
    let response = next.run(request).await;
    if response.extensions().get::<LeadsNoMore>().is_some() {
        return to_leader(&rest, &uri).await;
    }
    response
}

/// The answer of one that does not lead: where the leader is, or that nobody leads.
pub(super) async fn to_leader(rest: &Rest, uri: &Uri) -> Response {
    let leadership = rest.leader.leadership().borrow().clone();
    let Some(url) = rest.leader_url.of(&leadership).await else {
        let message = match leadership.leader {
            Some((id, node)) if !leadership.is_leader => format!(
                "this job manager does not lead; job manager {id} at {} does, but does not say where it serves REST; try again",
                node.address
            ),
            _ => "no job manager leads at the moment; try again".to_string(),
        };
        return RestError::new(StatusCode::SERVICE_UNAVAILABLE, message).into_response();
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let message = format!("this job manager does not lead; ask the leader at {url}");
    let refusal = RestError::new(StatusCode::TEMPORARY_REDIRECT, message);
    ([(LOCATION, format!("{url}{path}"))], refusal).into_response()
}
