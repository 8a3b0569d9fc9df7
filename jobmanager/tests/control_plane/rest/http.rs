//! The smallest client of HTTP: one request, one answer, one connection.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a server says.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The text of a refusal.
    pub fn error(&self) -> String {
        let json = self.json();
        assert_eq!(names(&json), ["errors"]);
        json["errors"][0].as_str().unwrap().to_string()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
    }
}

/// The names of an object's fields, in order.
pub fn names(object: &Value) -> Vec<&str> {
    let object = object.as_object().unwrap_or_else(|| panic!("{object} is no object"));
    object.keys().map(String::as_str).collect()
}

/// Asks `base`, as `http://127.0.0.1:8081`, in one connection that ends with the answer.
pub async fn request(base: &str, method: &str, path: &str, body: &[u8]) -> Answer {
    let json = "application/json; charset=UTF-8";
    request_of(base, method, path, json, body).await
}

/// The same with another type of content.
pub async fn request_of(base: &str, method: &str, path: &str, content: &str, body: &[u8]) -> Answer {
    let host = base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: {content}\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // A refusal may come before all of it is read.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: answer[end + 4..].to_vec() }
}

/// What a path answers that is there.
pub async fn get(base: &str, path: &str) -> Value {
    let answer = request(base, "GET", path, b"").await;
    assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
    answer.json()
}
