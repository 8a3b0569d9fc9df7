//! All paths of the API. One list makes both the router and the OpenAPI document.

use axum::handler::Handler;
use axum::routing::{MethodRouter, get};

use super::{Rest, cluster, configuration, dashboard, job, jobs, vertex};

/// One method of one path.
pub(super) struct Route {
    /// As in `/jobs/{jobid}`, which is how axum and OpenAPI both write it.
    pub(super) path: &'static str,
    pub(super) handler: MethodRouter<Rest>,
}

fn reads<H: Handler<T, Rest>, T: 'static>(path: &'static str, handler: H) -> Route {
    Route { path, handler: get(handler) }
}

/// Every route.
pub(super) fn all() -> Vec<Route> {
    vec![
        reads("/overview", cluster::overview),
        reads("/config", cluster::dashboard_configuration),
        reads("/jobs", jobs::list),
        reads("/jobs/overview", jobs::overview),
        reads("/jobs/{jobid}", job::details),
        reads("/jobs/{jobid}/config", job::settings),
        reads("/jobs/{jobid}/plan", job::plan),
        reads("/jobs/{jobid}/status", job::status),
        reads("/jobs/{jobid}/vertices/{vertexid}", vertex::details),
        reads("/jobs/{jobid}/vertices/{vertexid}/backpressure", vertex::back_pressure),
        reads("/jobs/{jobid}/vertices/{vertexid}/taskmanagers", vertex::task_managers),
        reads("/jobs/{jobid}/vertices/{vertexid}/watermarks", vertex::watermarks),
        reads("/jobmanager/config", configuration::job_manager),
        reads("/thalweg/cluster", dashboard::overview),
        reads("/thalweg/configuration", dashboard::configuration),
        reads("/thalweg/jobs/{jobid}", dashboard::describe),
        reads("/thalweg/jobs/{jobid}/charts", dashboard::charts),
        reads("/thalweg/jobs/{jobid}/checkpoints", dashboard::checkpoints),
        reads("/thalweg/jobs/{jobid}/logs", dashboard::logs),
        reads("/thalweg/jobs/{jobid}/why", dashboard::why),
    ]
}
