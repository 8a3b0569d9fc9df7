//! The smallest client of HTTP, for tests of servers: one request, one answer, one connection, nothing added and nothing followed.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What most requests carry.
const JSON: &str = "application/json; charset=UTF-8";

/// What a server says.
#[derive(Debug)]
pub struct Answer {
    /// As 200.
    pub status: u16,
    /// The first line and all headers.
    pub head: String,
    /// What follows.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("no JSON: {} {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
    }
}

/// Asks `base`, as `http://127.0.0.1:8081`, with a body of JSON.
///
/// # Errors
/// When nobody answers, or what is answered is no HTTP.
pub async fn request(base: &str, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
    request_of(base, method, path, JSON, body).await
}

/// The same with another type of content.
///
/// # Errors
/// As for [`request`].
pub async fn request_of(base: &str, method: &str, path: &str, content: &str, body: &[u8]) -> Result<Answer> {
    let host = base.strip_prefix("http://").context("the address begins with http://")?;
    let mut stream = TcpStream::connect(host).await?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {length}\r\ncontent-type: {content}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    // A refusal may come before all of it was read.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    // Some say how long their answer is, and then close the connection late or never.
    let end = loop {
        let end = end_of_head(&answer);
        let length = end.and_then(|end| Some(end + length_of_body(&answer[..end])?));
        if length.is_some_and(|length| answer.len() >= length) || stream.read_buf(&mut answer).await? == 0 {
            break end;
        }
    };
    let Some(end) = end else {
        bail!("the answer ends within its head: {}", String::from_utf8_lossy(&answer));
    };
    let body = answer.split_off(end);
    let head = String::from_utf8(answer)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Answer { status: status.context("an answer begins with its status")?, head, body })
}

fn end_of_head(answer: &[u8]) -> Option<usize> {
    answer.windows(4).position(|window| window == b"\r\n\r\n").map(|end| end + 4)
}

/// As the head says, if it does.
fn length_of_body(head: &[u8]) -> Option<usize> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let (_, length) = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    length.trim().parse().ok()
}

/// The JSON of a path that is there.
///
/// # Errors
/// When it is not, or has something else.
pub async fn get(base: &str, path: &str) -> Result<Value> {
    let answer = request(base, "GET", path, b"").await?;
    ensure!(answer.status == 200, "{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    answer.json()
}
