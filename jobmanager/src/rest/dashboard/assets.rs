//! The files of `jobmanager/dashboard`, embedded: no build step, and nothing from elsewhere at run time either, which the page's policy
//! enforces.
//!
//! Names stay the same over versions, so browsers ask each time whether a file has changed, by its tag.

use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use xxhash_rust::xxh3::xxh3_64;

use crate::rest::error::RestError;

/// Scripts, styles and data come from here only; nothing is inline, nothing may frame the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

const PAGE: &str = include_str!("../../../dashboard/index.html");

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        /// Name and content.
        const FILES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../../dashboard/", $name)))),*];
    };
}

files![
    "actions.js",
    "api.js",
    "app.js",
    "base.css",
    "chart.js",
    "dialog.js",
    "dom.js",
    "faults.js",
    "format.js",
    "graph.js",
    "icon.svg",
    "job.js",
    "job_charts.js",
    "job_checkpoints.js",
    "job_faults.js",
    "job_graph.js",
    "job_logs.js",
    "job_settings.js",
    "job_time.js",
    "jobs.js",
    "keys.js",
    "layout.js",
    "live.js",
    "managers.js",
    "parts.css",
    "parts.js",
    "questions.js",
    "settings.js",
    "sight.js",
    "submit.js",
    "table.js",
    "views.css",
];

/// The page.
pub(super) fn page() -> impl IntoResponse {
    (
        [
            (CONTENT_SECURITY_POLICY, POLICY),
            (CACHE_CONTROL, "no-cache"),
            (CONTENT_TYPE, "text/html; charset=utf-8"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
        ],
        PAGE,
    )
}

/// `GET /dashboard/FILE`
pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, RestError> {
    let found = FILES.iter().find(|(known, _)| *known == name);
    let Some((name, content)) = found else {
        return Err(RestError::not_found(format!("the dashboard has no file `{name}`; its page is at `/`")));
    };
    let tag = format!("\"{:016x}\"", xxh3_64(content.as_bytes()));
    let common = [
        (ETAG, tag.as_str()),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_TYPE, content_type(name)),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // An image that is opened by itself is a document too.
        (CONTENT_SECURITY_POLICY, POLICY),
    ];
    let is_known = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    Ok(match is_known {
        true => (StatusCode::NOT_MODIFIED, common).into_response(),
        false => (common, *content).into_response(),
    })
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.') {
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the whole page may weigh.
    const MAX_BYTES: usize = 150 * 1024;

    #[tokio::test]
    async fn files_have_types_and_tags_and_are_sent_once() {
        for (name, content_type) in [
            ("app.js", "text/javascript; charset=utf-8"),
            ("base.css", "text/css; charset=utf-8"),
            ("icon.svg", "image/svg+xml"),
        ] {
            let response = file(Path(name.into()), HeaderMap::new()).await.expect("it is there");
            assert_eq!(response.headers()[CONTENT_TYPE], content_type);
            let mut known = HeaderMap::new();
            known.insert(IF_NONE_MATCH, response.headers()[ETAG].clone());
            let again = file(Path(name.into()), known).await.expect("it is there");
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{name}");
        }
        assert!(file(Path("../index.html".into()), HeaderMap::new()).await.is_err());
    }

    #[test]
    fn what_is_named_is_there_and_small_and_nothing_comes_from_elsewhere() {
        let weight: usize = FILES.iter().map(|(_, content)| content.len()).sum();
        assert!(weight + PAGE.len() <= MAX_BYTES, "the dashboard weighs {weight} bytes");
        let is_there = |name: &str| FILES.iter().any(|(known, _)| *known == name);
        for (name, content) in FILES.iter().chain([&("index.html", PAGE)]) {
            let modules = content.split("from \"./").skip(1).chain(content.split("\"/dashboard/").skip(1));
            for named in modules.filter_map(|rest| rest.split('"').next()) {
                assert!(is_there(named), "{name} names {named}");
            }
            let addresses = content.replace("http://www.w3.org/", "");
            assert!(!addresses.contains("http://") && !addresses.contains("https://"), "{name}");
            assert!(!content.contains("innerHTML"), "{name}: what is told is text and never markup");
        }
        let files = std::fs::read_dir("dashboard").expect("the files");
        assert_eq!(files.count(), FILES.len() + 1, "every file is embedded");
    }
}
