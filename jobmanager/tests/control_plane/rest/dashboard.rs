//! The dashboard's page, and what it asks beyond Flink's paths.

use serde_json::json;

use super::{get, names, refusal, request};
use crate::fake::Cluster;

#[tokio::test]
async fn the_page_may_ask_nobody_else_and_its_files_are_sent_once() {
    let cluster = Cluster::start().await;
    let url = &cluster.manager.rest_url;
    let page = request(url, "GET", "/", "").await;
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let page = String::from_utf8(page.body).unwrap();
    for file in page.split("\"/dashboard/").skip(1).filter_map(|rest| rest.split('"').next()) {
        let answer = request(url, "GET", &format!("/dashboard/{file}"), "").await;
        assert_eq!(answer.status, 200, "{file}");
        assert!(
            answer.header("etag").is_some() && answer.header("cache-control") == Some("no-cache"),
            "{file}"
        );
    }
    let unknown = request(url, "GET", "/dashboard/nothing.js", "").await;
    assert!(unknown.status == 404 && refusal(&unknown).contains("nothing.js"));
}

#[tokio::test]
async fn the_cluster_is_told_at_a_glance_and_an_unknown_job_is_refused() {
    let cluster = Cluster::start().await;
    let url = &cluster.manager.rest_url;
    let told = get(url, "/thalweg/cluster").await;
    assert_eq!(names(&told), ["job_managers", "jobs", "now_ms", "task_managers", "term", "version"]);
    assert_eq!((&told["jobs"], &told["task_managers"]), (&json!([]), &json!([])));
    assert_eq!(names(&told["job_managers"][0]), ["address", "id", "leader", "voter"]);
    let settings = get(url, "/thalweg/configuration").await;
    let settings = settings["settings"].as_array().unwrap();
    let port = settings.iter().find(|setting| setting["key"] == "rest.port").unwrap();
    assert_eq!(
        (names(port).as_slice(), port["is_set"].is_boolean()),
        (&["help", "is_set", "key", "value"][..], true)
    );
    for view in ["", "/charts", "/checkpoints", "/logs", "/why"] {
        let path = format!("/thalweg/jobs/00c0ffee00c0ffee00c0ffee00c0ffee{view}");
        let answer = request(url, "GET", &path, "").await;
        assert!(answer.status == 404 && refusal(&answer).contains("00c0ffee"), "{view}: {}", answer.status);
    }
}
