//! A proxy for HTTP/1.1 that makes requests fail, by a schedule that a seed repeats.
//!
//! Stands between a client and a store. What happens to a request is decided purely ([`decide`]) from the seed and the
//! number of the request in the order of their arrival, so that a run is described by its seed and its rates.
//! Invariants: a request of which the proxy says [`Fault::ResetBefore`] or a refusal never reached the store; one with
//! [`Fault::ResetAfter`] or [`Fault::Truncated`] was done there, and its client does not know. Each connection carries one
//! request; what is not made to fail is passed through piece by piece.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use thalweg_common::task_scope::{ErrorPolicy, TaskScope};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Longest head of a request or an answer.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Pieces of a slow answer, and the pause before each.
const SLOW_PIECES: usize = 8;
const SLOW_PAUSE: Duration = Duration::from_millis(50);

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It is passed on, and so is its answer.
    None,
    /// It is refused with 503 SlowDown.
    SlowDown,
    /// It is refused with 403 AccessDenied.
    Denied,
    /// The connection is reset, and the store knows nothing of it.
    ResetBefore,
    /// The store does it; the connection is reset before the answer.
    ResetAfter,
    /// The content of the answer comes slowly.
    SlowBody,
    /// The store does it; the answer ends in the middle.
    Truncated,
    /// Nothing is ever answered, and the store knows nothing of it.
    Silence,
}

/// How many of a thousand requests fail in which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// [`Fault::SlowDown`].
    pub slow_down: u16,
    /// [`Fault::Denied`].
    pub denied: u16,
    /// [`Fault::ResetBefore`].
    pub reset_before: u16,
    /// [`Fault::ResetAfter`].
    pub reset_after: u16,
    /// [`Fault::SlowBody`].
    pub slow_body: u16,
    /// [`Fault::Truncated`].
    pub truncated: u16,
    /// [`Fault::Silence`].
    pub silence: u16,
}

impl Fault {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SlowDown => "503",
            Self::Denied => "403",
            Self::ResetBefore => "reset_before",
            Self::ResetAfter => "reset_after",
            Self::SlowBody => "slow",
            Self::Truncated => "truncated",
            Self::Silence => "silence",
        }
    }
}

impl Faults {
    /// What a store that is in trouble, but keeps its promises, does to so many of a thousand requests: a fifth of them
    /// each is refused, reset before, reset after, slow, and truncated.
    #[must_use]
    pub fn of_thousand(faults: u16) -> Self {
        let each = faults / 5;
        Self {
            slow_down: faults - 4 * each,
            reset_before: each,
            reset_after: each,
            slow_body: each,
            truncated: each,
            ..Self::default()
        }
    }

    fn table(self) -> [(Fault, u16); 7] {
        [
            (Fault::SlowDown, self.slow_down),
            (Fault::Denied, self.denied),
            (Fault::ResetBefore, self.reset_before),
            (Fault::ResetAfter, self.reset_after),
            (Fault::SlowBody, self.slow_body),
            (Fault::Truncated, self.truncated),
            (Fault::Silence, self.silence),
        ]
    }
}

/// What happens to the request with this number, counted from 0.
#[must_use]
pub fn decide(seed: u64, request: u64, faults: Faults) -> Fault {
    let mut lot = xxh3_64_with_seed(&request.to_le_bytes(), seed) % 1_000;
    for (fault, of_thousand) in faults.table() {
        match lot.checked_sub(u64::from(of_thousand)) {
            None => return fault,
            Some(rest) => lot = rest,
        }
    }
    Fault::None
}

/// A running proxy. It ends with this value.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _scope: TaskScope,
}

#[derive(Debug)]
struct Shared {
    store: SocketAddr,
    seed: u64,
    plan: Mutex<Plan>,
    requests: AtomicU64,
    connections: AtomicUsize,
}

#[derive(Debug, Default)]
struct Plan {
    faults: Faults,
    /// How many requests have failed in which way.
    failed: BTreeMap<Fault, u64>,
    /// For the next requests, the last one first; then `faults` decides again.
    script: Vec<Fault>,
    denial: Denial,
}

/// What [`Fault::Denied`] answers.
#[derive(Debug, Clone, Copy)]
struct Denial {
    code: &'static str,
    message: &'static str,
}

impl Default for Denial {
    fn default() -> Self {
        Self { code: "AccessDenied", message: "Access Denied" }
    }
}

impl FaultProxy {
    /// Starts a proxy in front of `store`, on a free port of the loopback interface. It makes nothing fail yet.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(store: SocketAddr, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port for the proxy")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            store,
            seed,
            plan: Mutex::default(),
            requests: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
        });
        let scope = TaskScope::with_policy("fault proxy", ErrorPolicy::LogOnly);
        let (serving, connections) = (Arc::clone(&shared), scope.clone());
        let token = scope.token();
        scope.spawn("accept", async move {
            while let Some(Ok((client, _))) = token.run_until_cancelled(listener.accept()).await {
                let (shared, token) = (Arc::clone(&serving), token.clone());
                connections.spawn("connection", async move {
                    shared.connections.fetch_add(1, Ordering::Relaxed);
                    // Connections break: that is what they are here for.
                    let _ = token.run_until_cancelled(serve(client, &shared)).await;
                    shared.connections.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Ok(Self { address, shared, _scope: scope })
    }

    /// Where it serves.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes so many requests fail from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.plan().faults = faults;
    }

    /// Denies all requests from now on, with this code and message and the status 403.
    pub fn deny_with(&self, code: &'static str, message: &'static str) {
        let mut plan = self.shared.plan();
        plan.faults = Faults { denied: 1_000, ..Faults::default() };
        plan.denial = Denial { code, message };
    }

    /// Decides about the next requests one by one.
    pub fn script(&self, next: &[Fault]) {
        self.shared.plan().script = next.iter().rev().copied().collect();
    }

    /// How many requests arrived.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// How many of them were made to fail.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.shared.plan().failed.values().sum()
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many of them failed in which way.
    #[must_use]
    pub fn failed_by_fault(&self) -> BTreeMap<Fault, u64> {
        self.shared.plan().failed.clone()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self._scope.cancel();
    }
}

impl Shared {
    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens to the request that has just arrived.
    fn next_fault(&self) -> Fault {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut plan = self.plan();
        let fault = plan.script.pop().unwrap_or_else(|| decide(self.seed, number, plan.faults));
        if fault != Fault::None {
            *plan.failed.entry(fault).or_default() += 1;
        }
        fault
    }
}

/// Handles the one request of a connection.
async fn serve(mut client: TcpStream, shared: &Shared) -> Result<()> {
    let (head, mut begun) = read_head(&mut client).await?;
    let fault = shared.next_fault();
    match fault {
        Fault::ResetBefore => {
            client.set_zero_linger()?;
            return Ok(());
        }
        Fault::Silence => {
            // Until the client gives up.
            while client.read(&mut [0; 4096]).await? > 0 {}
            return Ok(());
        }
        _ => {}
    }
    let length = content_length(&head)?;
    if head_has(&head, "expect", "100-continue") {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let left = length.saturating_sub(begun.len());
    if matches!(fault, Fault::SlowDown | Fault::Denied) {
        // A client that is still sending would not see the answer.
        tokio::io::copy(&mut (&mut client).take(left as u64), &mut tokio::io::sink()).await?;
        let denial = shared.plan().denial;
        return refuse(&mut client, fault, denial).await;
    }
    let mut store = TcpStream::connect(shared.store).await?;
    store.write_all(with_close(&head).as_bytes()).await?;
    begun.truncate(length);
    store.write_all(&begun).await?;
    tokio::io::copy(&mut (&mut client).take(left as u64), &mut store).await?;
    if fault == Fault::None {
        tokio::io::copy(&mut store, &mut client).await?;
        return Ok(client.shutdown().await?);
    }
    let mut answer = Vec::new();
    store.read_to_end(&mut answer).await?;
    fail(client, &answer, fault).await
}

/// Passes an answer on in a way that hurts.
async fn fail(mut client: TcpStream, answer: &[u8], fault: Fault) -> Result<()> {
    let body_at =
        answer.windows(4).position(|window| window == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let (head, body) = answer.split_at(body_at);
    match fault {
        Fault::SlowBody => {
            client.write_all(head).await?;
            for piece in body.chunks(body.len().div_ceil(SLOW_PIECES).max(1)) {
                tokio::time::sleep(SLOW_PAUSE).await;
                client.write_all(piece).await?;
            }
            Ok(client.shutdown().await?)
        }
        Fault::Truncated => {
            // Where there is no content, half of the head.
            let end = if body.is_empty() { head.len() / 2 } else { head.len() + body.len() / 2 };
            client.write_all(answer.get(..end).unwrap_or_default()).await?;
            Ok(client.shutdown().await?)
        }
        _ => Ok(client.set_zero_linger()?),
    }
}

async fn refuse(client: &mut TcpStream, fault: Fault, denial: Denial) -> Result<()> {
    let (status, code, message) = match fault {
        Fault::Denied => ("403 Forbidden", denial.code, denial.message),
        _ => ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
    };
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    client.write_all(answer.as_bytes()).await?;
    Ok(client.shutdown().await?)
}

/// Reads up to the empty line; what came behind it is the begin of the content.
async fn read_head(client: &mut TcpStream) -> Result<(String, Vec<u8>)> {
    let mut read = Vec::new();
    loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let content = read.split_off(at + 4);
            return Ok((String::from_utf8(read)?, content));
        }
        ensure!(read.len() < MAX_HEAD_BYTES, "the head of a request has no end");
        ensure!(client.read_buf(&mut read).await? > 0, "the client went away");
    }
}

/// The lines of a head with their values, the names in lower case.
fn headers(head: &str) -> impl Iterator<Item = (String, &str)> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim()))
}

fn head_has(head: &str, wanted: &str, value: &str) -> bool {
    headers(head).any(|(name, found)| name == wanted && found.eq_ignore_ascii_case(value))
}

fn content_length(head: &str) -> Result<usize> {
    ensure!(
        !headers(head).any(|(name, _)| name == "transfer-encoding"),
        "chunked requests are not understood"
    );
    let length = headers(head).find(|(name, _)| name == "content-length");
    length.map_or(Ok(0), |(_, length)| length.parse().with_context(|| format!("no length: {length}")))
}

/// The same head, telling the store to close the connection behind its answer.
fn with_close(head: &str) -> String {
    let kept = head.trim_end().lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let mut head: String = kept.flat_map(|line| [line, "\r\n"]).collect();
    head.push_str("Connection: close\r\n\r\n");
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_schedule_and_rates_are_kept() {
        let faults = Faults { denied: 20, silence: 30, ..Faults::of_thousand(250) };
        let schedule = |seed| (0..100_000).map(|n| decide(seed, n, faults)).collect::<Vec<_>>();
        let first = schedule(7);
        assert_eq!(first, schedule(7));
        assert_ne!(first, schedule(8));
        for (fault, of_thousand) in faults.table() {
            let found = first.iter().filter(|&&found| found == fault).count();
            let wanted = usize::from(of_thousand) * 100;
            assert!(found.abs_diff(wanted) < 300, "{fault:?}: {found} instead of {wanted}");
        }
        assert!((0..1_000).all(|n| decide(1, n, Faults::default()) == Fault::None));
        assert!(
            (0..1_000).all(|n| decide(1, n, Faults { denied: 1_000, ..Faults::default() }) == Fault::Denied)
        );
    }

    #[test]
    fn heads_are_understood() {
        let head = "PUT /b/k HTTP/1.1\r\nHost: x\r\nconnection: keep-alive\r\nContent-Length: 12\r\nExpect: 100-Continue\r\n\r\n";
        assert_eq!(content_length(head).expect("a length"), 12);
        assert!(head_has(head, "expect", "100-continue") && !head_has(head, "host", "y"));
        assert_eq!(
            with_close(head),
            "PUT /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\nExpect: 100-Continue\r\nConnection: close\r\n\r\n"
        );
        assert!(content_length("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }
}
