//! The job `tweets` on the lines of the example.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../tweets.rs"]
#[allow(dead_code)]
mod job;

use thalweg::testing::{JobHarness, JobSetup};

#[test]
fn acceptance_ds_19_only_korean_texts_pass() {
    let lines = [
        r#"{"user":{"lang":"ko"},"text":"안녕하세요"}"#,
        r#"{"user":{"lang":"en"},"text":"hi"}"#,
        r#"{"user":{"lang":"ko"}}"#,
        r#"{"text":"x"}"#,
        r#"{"delete":{}}"#,
    ];
    let mut job = JobHarness::open(job::topology, JobSetup::default()).unwrap();
    job.feed("tweets", lines.map(String::from)).unwrap();
    assert_eq!(job.output::<String>("texts").unwrap(), ["안녕하세요"]);
}

#[test]
fn acceptance_ds_19_what_is_no_json_fails_the_job() {
    let mut job = JobHarness::open(job::topology, JobSetup::default()).unwrap();
    let error = job.feed("tweets", ["no tweet".to_string()]).unwrap_err().to_string();
    assert!(error.contains("`no tweet` is no tweet"), "{error}");
}
