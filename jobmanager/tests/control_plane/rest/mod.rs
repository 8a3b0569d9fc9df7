//! REST over a real socket: what is answered is compared with the whole shape that Flink has.

mod acts;
mod dashboard;
mod reads;

use serde_json::Value;
use thalweg_test_support::http;
pub use thalweg_test_support::http::Answer;

pub async fn request(base: &str, method: &str, path: &str, body: &str) -> Answer {
    http::request(base, method, path, body.as_bytes()).await.unwrap()
}

/// What a path answers that is there.
pub async fn get(base: &str, path: &str) -> Value {
    http::get(base, path).await.unwrap()
}

/// The text of a refusal.
pub fn refusal(answer: &Answer) -> String {
    let json = answer.json().unwrap();
    assert_eq!(names(&json), ["errors"]);
    json["errors"][0].as_str().unwrap().to_string()
}

/// The names of an object's fields, sorted.
pub fn names(object: &Value) -> Vec<&str> {
    let object = object.as_object().unwrap_or_else(|| panic!("{object} is no object"));
    object.keys().map(String::as_str).collect()
}
