//! All paths of the API. One list makes both the router and the OpenAPI document (`openapi`).

use axum::handler::Handler;
use axum::routing::{MethodRouter, delete, get, patch, post};

use super::{
    Rest, actions, checkpoints, cluster, configuration, dashboard, exceptions, job, jobs, metrics, openapi,
    task_managers, uploads, vertex,
};

/// A field of a query or a body: its name, its type in OpenAPI, and what it says.
pub(super) type Field = (&'static str, &'static str, &'static str);

/// One method of one path.
pub(super) struct Route {
    /// As OpenAPI writes it: `get`.
    pub(super) method: &'static str,
    /// As in `/jobs/{jobid}`, which is how axum and OpenAPI both write it.
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) query: &'static [Field],
    pub(super) body: &'static [Field],
    pub(super) handler: MethodRouter<Rest>,
}

type Wrap<H> = fn(H) -> MethodRouter<Rest>;

/// A route that only reads.
fn reads<H: Handler<T, Rest>, T: 'static>(path: &'static str, handler: H, summary: &'static str) -> Route {
    route(("get", get as Wrap<H>), path, handler, summary)
}

fn posts<H: Handler<T, Rest>, T: 'static>(path: &'static str, handler: H, summary: &'static str) -> Route {
    route(("post", post as Wrap<H>), path, handler, summary)
}

fn patches<H: Handler<T, Rest>, T: 'static>(path: &'static str, handler: H, summary: &'static str) -> Route {
    route(("patch", patch as Wrap<H>), path, handler, summary)
}

fn route<H>(
    (method, wrap): (&'static str, Wrap<H>),
    path: &'static str,
    handler: H,
    summary: &'static str,
) -> Route {
    Route { method, path, summary, query: &[], body: &[], handler: wrap(handler) }
}

impl Route {
    fn query(self, query: &'static [Field]) -> Self {
        Self { query, ..self }
    }

    fn body(self, body: &'static [Field]) -> Self {
        Self { body, ..self }
    }
}

const METRICS: &[Field] =
    &[("get", "string", "names of metrics with commas between them; without it the names that there are")];
const TRIGGER: Field =
    ("triggerId", "string", "32 hexadecimal digits; the same ones begin nothing a second time");
const FORMAT: Field = ("formatType", "string", "`CANONICAL`, the only form of savepoints here");

/// Every route.
pub(super) fn all() -> Vec<Route> {
    let mut all = of_cluster();
    all.extend(of_jobs());
    all.extend(of_vertices());
    all.extend(that_change());
    all.extend(of_uploads());
    all.extend(of_dashboard());
    all
}

fn of_cluster() -> Vec<Route> {
    vec![
        reads("/overview", cluster::overview, "How many task managers, slots and jobs there are"),
        reads("/config", cluster::dashboard_configuration, "What a dashboard needs to know"),
        reads("/openapi.json", openapi::document, "This document"),
        reads("/jobmanager/config", configuration::job_manager, "The cluster's settings"),
        reads(
            "/jobmanager/metrics",
            metrics::of_job_manager,
            "Metrics of the leading job manager and the cluster",
        )
        .query(METRICS),
        reads("/taskmanagers", task_managers::list, "The task managers that are connected"),
        reads("/taskmanagers/{taskmanagerid}", task_managers::details, "One task manager"),
        reads(
            "/taskmanagers/{taskmanagerid}/metrics",
            metrics::of_task_manager,
            "Metrics of one task manager",
        )
        .query(METRICS),
    ]
}

fn of_jobs() -> Vec<Route> {
    vec![
        reads("/jobs", jobs::list, "All jobs with their states"),
        reads("/jobs/overview", jobs::overview, "All jobs in short, the newest first"),
        reads("/jobs/{jobid}", job::details, "One job with its vertices and its plan"),
        reads("/jobs/{jobid}/config", job::settings, "The settings of a job"),
        reads("/jobs/{jobid}/plan", job::plan, "The plan of a job"),
        reads("/jobs/{jobid}/status", job::status, "The state of a job"),
        reads("/jobs/{jobid}/exceptions", exceptions::list, "The failures of a job, the newest first")
            .query(&[("maxExceptions", "integer", "how many of them")]),
        reads(
            "/jobs/{jobid}/log",
            task_managers::job_log,
            "The end of what the workers of a job have written, as text",
        ),
        reads("/jobs/{jobid}/metrics", metrics::of_job, "Metrics of a job").query(METRICS),
        reads("/jobs/{jobid}/checkpoints", checkpoints::list, "The checkpoints of a job"),
        reads("/jobs/{jobid}/checkpoints/config", checkpoints::settings, "When a job takes checkpoints"),
        reads("/jobs/{jobid}/checkpoints/details/{checkpointid}", checkpoints::details, "One checkpoint"),
        reads(
            "/jobs/{jobid}/checkpoints/details/{checkpointid}/subtasks/{vertexid}",
            checkpoints::subtasks,
            "What each subtask of a vertex took for a checkpoint",
        ),
    ]
}

/// What the dashboard asks beyond Flink's paths.
fn of_dashboard() -> Vec<Route> {
    vec![
        reads("/thalweg/cluster", dashboard::overview, "Machines, and all jobs with what they do"),
        reads("/thalweg/configuration", dashboard::configuration, "All settings with what they mean"),
        reads(
            "/thalweg/jobs/{jobid}",
            dashboard::describe,
            "Everything about a job, as `thalweg describe --json`",
        ),
        reads(
            "/thalweg/jobs/{jobid}/charts",
            dashboard::charts,
            "Curves of the last hour, from the leader's memory",
        ),
        reads(
            "/thalweg/jobs/{jobid}/checkpoints",
            dashboard::checkpoints,
            "Its checkpoints with their phases",
        ),
        reads("/thalweg/jobs/{jobid}/logs", dashboard::logs, "The ends of what its workers have written")
            .query(&[("tail_bytes", "integer", "how much of each file")]),
        reads("/thalweg/jobs/{jobid}/why", dashboard::why, "What windows wait for, and who holds that back"),
    ]
}

fn of_vertices() -> Vec<Route> {
    vec![
        reads("/jobs/{jobid}/vertices/{vertexid}", vertex::details, "One vertex with its subtasks"),
        reads(
            "/jobs/{jobid}/vertices/{vertexid}/backpressure",
            vertex::back_pressure,
            "How its subtasks spend their time",
        ),
        reads(
            "/jobs/{jobid}/vertices/{vertexid}/taskmanagers",
            vertex::task_managers,
            "Its subtasks by task manager",
        ),
        reads(
            "/jobs/{jobid}/vertices/{vertexid}/watermarks",
            vertex::watermarks,
            "The watermarks of its subtasks",
        ),
        reads(
            "/jobs/{jobid}/vertices/{vertexid}/metrics",
            metrics::of_vertex,
            "Metrics of its subtasks, each by itself",
        )
        .query(METRICS),
        reads(
            "/jobs/{jobid}/vertices/{vertexid}/subtasks/metrics",
            metrics::over_subtasks,
            "Metrics of its subtasks: least, most, mean and sum",
        )
        .query(METRICS),
        reads(
            "/jobs/{jobid}/vertices/{vertexid}/subtasks/{subtaskindex}/metrics",
            metrics::of_subtask,
            "Metrics of one subtask",
        )
        .query(METRICS),
    ]
}

fn that_change() -> Vec<Route> {
    vec![
        patches("/jobs/{jobid}", actions::cancel, "Cancel a job").query(&[("mode", "string", "`cancel`")]),
        reads(
            "/jobs/{jobid}/yarn-cancel",
            actions::cancel_by_get,
            "Cancel a job, for those who cannot PATCH",
        ),
        posts("/jobs/{jobid}/stop", actions::stop, "End a job with a savepoint").body(&[
            (
                "targetDirectory",
                "string",
                "where the savepoint's own directory is made; else the configured one",
            ),
            ("drain", "boolean", "end the input first, so that operators emit all they have"),
            FORMAT,
            TRIGGER,
        ]),
        posts("/jobs/{jobid}/savepoints", actions::savepoint, "Take a savepoint").body(&[
            (
                "target-directory",
                "string",
                "where the savepoint's own directory is made; else the configured one",
            ),
            ("cancel-job", "boolean", "cancel the job behind it"),
            FORMAT,
            TRIGGER,
        ]),
        reads(
            "/jobs/{jobid}/savepoints/{triggerid}",
            actions::savepoint_status,
            "How far a savepoint or a stop is",
        ),
        posts("/jobs/{jobid}/checkpoints", actions::checkpoint, "Take a checkpoint now").body(&[
            (
                "checkpointType",
                "string",
                "`CONFIGURED` or `INCREMENTAL`, which are the same: as the job's settings say",
            ),
            TRIGGER,
        ]),
        reads(
            "/jobs/{jobid}/checkpoints/{triggerid}",
            actions::checkpoint_status,
            "How far a checkpoint is that was asked for",
        ),
        posts("/savepoint-disposal", actions::dispose, "Delete a savepoint").body(&[(
            "savepoint-path",
            "string",
            "its directory",
        )]),
        reads(
            "/savepoint-disposal/{triggerid}",
            actions::disposal_status,
            "How far the deletion of a savepoint is",
        ),
        patches("/jobs/{jobid}/rescaling", actions::rescale, "Bring a job to another parallelism")
            .query(&[("parallelism", "integer", "of the operators that set none in the program")]),
        reads("/jobs/{jobid}/rescaling/{triggerid}", actions::rescale_status, "How far a rescaling is"),
    ]
}

fn of_uploads() -> Vec<Route> {
    vec![
        reads("/jars", uploads::list, "The job binaries that were uploaded to the leading job manager"),
        posts("/jars/upload", uploads::upload, "Upload a job binary: multipart/form-data with one file"),
        posts("/jars/{jarid}/run", uploads::run, "Run an uploaded job binary")
            .query(uploads::RUN_QUERY)
            .body(uploads::RUN_FIELDS),
        route(
            ("delete", delete as Wrap<_>),
            "/jars/{jarid}",
            uploads::delete,
            "Forget an uploaded job binary",
        ),
    ]
}
