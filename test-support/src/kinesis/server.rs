//! Serves the model over HTTP/1.1, and lets a test look into it and make it fail.
//!
//! A subscription is an answer in chunks, one for each event, which goes on until the subscription ends or the client goes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use thalweg_common::clock::{SharedClock, SystemClock};
use thalweg_common::task_scope::{ErrorPolicy, TaskScope};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::event_stream::{initial_response, pushed};
use super::fan_out::{Push, Subscription};
use super::model::{Entry, Model, Refusal, Rules, StoredRecord};
use super::protocol;

/// Largest request: 500 records of 1 MiB would be more than the service takes.
const MOST_REQUEST_BYTES: usize = 16 * 1024 * 1024;

/// What answers are written in.
const JSON: &str = "application/x-amz-json-1.1";

/// Credentials of a role.
const ROLE: &str = "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>\
    <AccessKeyId>ROLEACCESSKEY</AccessKeyId><SecretAccessKey>role-secret</SecretAccessKey><SessionToken>role-token</SessionToken>\
    <Expiration>2100-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>";

/// A running model. It ends with this value.
#[derive(Debug)]
pub struct KinesisModel {
    address: SocketAddr,
    shared: Arc<Shared>,
    _scope: TaskScope,
}

#[derive(Debug)]
struct Shared {
    model: Mutex<Model>,
    /// How often each operation was asked for.
    requests: Mutex<Vec<String>>,
    /// What the service that gives credentials for roles was asked.
    roles: Mutex<Vec<String>>,
    connections: AtomicUsize,
    /// The model may have something new to say.
    changed: Notify,
    clock: SharedClock,
}

impl KinesisModel {
    /// Starts a model without streams, on a free port of the loopback interface.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port for the model")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            model: Mutex::default(),
            requests: Mutex::default(),
            roles: Mutex::default(),
            connections: AtomicUsize::new(0),
            changed: Notify::new(),
            clock: SystemClock::shared(),
        });
        let scope = TaskScope::with_policy("Kinesis model", ErrorPolicy::LogOnly);
        let (serving, connections, token) = (Arc::clone(&shared), scope.clone(), scope.token());
        scope.spawn("accept", async move {
            while let Some(Ok((client, _))) = token.run_until_cancelled(listener.accept()).await {
                let (shared, token) = (Arc::clone(&serving), token.clone());
                connections.spawn("connection", async move {
                    shared.connections.fetch_add(1, Ordering::Relaxed);
                    // A client may go whenever it likes.
                    let _ = token.run_until_cancelled(serve(client, &shared)).await;
                    shared.connections.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Ok(Self { address, shared, _scope: scope })
    }

    /// What clients are told as their endpoint.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes a stream.
    pub fn create_stream(&self, stream: &str, shards: u32) {
        self.shared.model().create(stream, shards);
    }

    /// Makes a delivery stream of Firehose.
    pub fn create_delivery_stream(&self, stream: &str) {
        self.shared.model().delivery_streams.entry(stream.to_owned()).or_default();
    }

    /// What was put into a delivery stream, in the order in which it came.
    #[must_use]
    pub fn delivered(&self, stream: &str) -> Vec<Vec<u8>> {
        self.shared.model().delivery_streams.get(stream).cloned().unwrap_or_default()
    }

    /// Splits a shard in the middle.
    ///
    /// # Errors
    /// When it is closed, or not there.
    pub fn split_shard(&self, stream: &str, shard: usize) -> Result<()> {
        let mut model = self.shared.changing();
        let (id, (first, last)) = shard_of(&model, stream, shard)?;
        model.split(stream, &id, first + (last - first) / 2 + 1).map_err(shown)
    }

    /// Merges two neighbours.
    ///
    /// # Errors
    /// When they are closed, not there, or no neighbours.
    pub fn merge_shards(&self, stream: &str, left: usize, right: usize) -> Result<()> {
        let mut model = self.shared.changing();
        let ((left, _), (right, _)) = (shard_of(&model, stream, left)?, shard_of(&model, stream, right)?);
        model.merge(stream, &left, &right).map_err(shown)
    }

    /// Writes a record, whatever the rules say; gives the number of its shard.
    ///
    /// # Errors
    /// When there is no such stream.
    pub fn put(&self, stream: &str, partition_key: &str, data: impl Into<Vec<u8>>) -> Result<usize> {
        self.put_at(stream, partition_key, data, self.shared.clock.now_ms())
    }

    /// The same, as if it had arrived at this time.
    ///
    /// # Errors
    /// When there is no such stream.
    pub fn put_at(
        &self,
        stream: &str,
        partition_key: &str,
        data: impl Into<Vec<u8>>,
        arrival_ms: i64,
    ) -> Result<usize> {
        let entry =
            Entry { partition_key: partition_key.to_owned(), explicit_hash_key: None, data: data.into() };
        let mut model = self.shared.changing();
        let rules = std::mem::take(&mut model.rules);
        let written = model.write(stream, vec![entry], arrival_ms);
        model.rules = rules;
        let (shard, _) = written.map_err(shown)?.remove(0).map_err(shown)?;
        Ok(shard.trim_start_matches("shardId-").parse()?)
    }

    /// All records of a stream, shard by shard.
    ///
    /// # Errors
    /// When there is no such stream.
    pub fn records(&self, stream: &str) -> Result<Vec<Vec<StoredRecord>>> {
        let model = self.shared.model();
        Ok(model.shards(stream).map_err(shown)?.iter().map(|shard| shard.records.clone()).collect())
    }

    /// Changes what is made to fail.
    pub fn rule(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.shared.changing().rules);
    }

    /// Ends all subscriptions, as the service does when their time is over.
    pub fn end_subscriptions(&self) {
        self.shared.changing().end_subscriptions();
    }

    /// The names of the consumers that are registered with a stream.
    #[must_use]
    pub fn consumers(&self, stream: &str) -> Vec<String> {
        self.shared.model().consumers(stream).map(|consumer| consumer.name.clone()).collect()
    }

    /// The ARN of a consumer that is registered with a stream.
    #[must_use]
    pub fn consumer_arn(&self, stream: &str, name: &str) -> Option<String> {
        self.shared.model().consumer(stream, name).ok().map(|consumer| consumer.arn.clone())
    }

    /// Makes all iterators too old.
    pub fn expire_iterators(&self) {
        self.shared.model().expire_iterators();
    }

    /// How often an operation was asked for.
    #[must_use]
    pub fn requests(&self, operation: &str) -> usize {
        let requests = self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.iter().filter(|asked| *asked == operation).count()
    }

    /// The forms in which credentials for roles were asked for: it gives them too, as the service STS.
    #[must_use]
    pub fn roles(&self) -> Vec<String> {
        self.shared.roles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for KinesisModel {
    fn drop(&mut self) {
        self._scope.cancel();
    }
}

fn shard_of(model: &Model, stream: &str, shard: usize) -> Result<(String, (u128, u128))> {
    let shards = model.shards(stream).map_err(shown)?;
    let shard = shards.get(shard).ok_or_else(|| anyhow!("there is no shard {shard} in {stream}"))?;
    Ok((shard.id.clone(), shard.range))
}

fn shown(refusal: Refusal) -> anyhow::Error {
    anyhow!("{}: {}", refusal.code, refusal.message)
}

impl Shared {
    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same for a change, which subscriptions may have to tell of. They look when it is done: they need the lock.
    fn changing(&self) -> MutexGuard<'_, Model> {
        let model = self.model();
        self.changed.notify_waiters();
        model
    }

    fn note(&self, operation: &str) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(operation.to_owned());
    }
}

/// Answers the requests of a connection until its client closes it.
async fn serve(client: TcpStream, shared: &Shared) -> Result<()> {
    let mut client = BufReader::new(client);
    loop {
        let Some((operation, body)) = request(&mut client).await? else { return Ok(()) };
        if operation.is_empty() && body.starts_with(b"Action=AssumeRole") {
            let form = String::from_utf8_lossy(&body).into_owned();
            shared.roles.lock().unwrap_or_else(PoisonError::into_inner).push(form);
            answer(&mut client, "200 OK", "text/xml", ROLE).await?;
            continue;
        }
        shared.note(&operation);
        let request: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if shared.model().rules.is_silent {
            // Until the client gives up.
            while client.read(&mut [0; 4096]).await? > 0 {}
            return Ok(());
        }
        let now_ms = shared.clock.now_ms();
        if operation == "SubscribeToShard" && shared.model().rules.lost_answers == 0 {
            let subscribed = protocol::subscribe(&mut shared.changing(), &request, now_ms);
            let Some(refusal) = subscription(&mut client, shared, subscribed).await? else { continue };
            refuse(&mut client, &refusal).await?;
            continue;
        }
        let (answered, is_lost) = {
            let mut model = shared.changing();
            let answered = protocol::answer(&mut model, &operation, &request, now_ms);
            let is_lost = model.rules.lost_answers > 0;
            model.rules.lost_answers = model.rules.lost_answers.saturating_sub(1);
            (answered, is_lost)
        };
        if is_lost {
            client.get_ref().set_zero_linger()?;
            return Ok(());
        }
        match answered {
            Ok(body) => answer(&mut client, "200 OK", JSON, &body.to_string()).await?,
            Err(refusal) => refuse(&mut client, &refusal).await?,
        }
    }
}

async fn refuse(client: &mut BufReader<TcpStream>, Refusal { code, message }: &Refusal) -> Result<()> {
    let status = if code.starts_with("Internal") { "500 Internal Server Error" } else { "400 Bad Request" };
    let body = json!({ "__type": code, "message": message });
    answer(client, status, JSON, &body.to_string()).await
}

/// Tells what a subscription has to say, until it is over or the client goes. Gives back why there is none.
async fn subscription(
    client: &mut BufReader<TcpStream>,
    shared: &Shared,
    subscribed: Result<Subscription, Refusal>,
) -> Result<Option<Refusal>> {
    let mut subscription = match subscribed {
        Ok(subscription) => subscription,
        Err(refusal) => return Ok(Some(refusal)),
    };
    let told = tell(client, shared, &mut subscription).await;
    shared.model().unsubscribe(&subscription);
    told.map(|()| None)
}

async fn tell(
    client: &mut BufReader<TcpStream>,
    shared: &Shared,
    subscription: &mut Subscription,
) -> Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.amazon.eventstream\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.write_all(head.as_bytes()).await?;
    chunk(client, &initial_response()).await?;
    loop {
        // Before the look, so that no change between it and the wait is missed.
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let push = {
            let mut model = shared.model();
            let now_ms = shared.clock.now_ms();
            if model.rules.is_silent { Push::Nothing(i64::MAX) } else { model.push(subscription, now_ms) }
        };
        if let Some(event) = pushed(&push) {
            chunk(client, &event).await?;
        }
        let pause = match push {
            Push::Event { .. } => continue,
            Push::Refused(_) | Push::End => return chunk(client, &[]).await,
            Push::Nothing(ms) => Duration::from_millis(ms.clamp(1, 3_600_000) as u64),
        };
        tokio::select! {
            biased;
            () = changed => {}
            // A client says nothing more before the end: what there is to read is that it has gone.
            read = client.fill_buf() => {
                anyhow::ensure!(read?.is_empty(), "a client asks before its subscription is over");
                return Ok(());
            }
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn chunk(client: &mut BufReader<TcpStream>, bytes: &[u8]) -> Result<()> {
    client.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
    client.write_all(bytes).await?;
    client.write_all(b"\r\n").await?;
    Ok(client.flush().await?)
}

async fn answer(client: &mut BufReader<TcpStream>, status: &str, form: &str, body: &str) -> Result<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {form}\r\nContent-Length: {}\r\n\r\n", body.len());
    client.write_all(head.as_bytes()).await?;
    client.write_all(body.as_bytes()).await?;
    Ok(client.flush().await?)
}

/// The operation and content of the next request; nothing behind the last one.
async fn request(client: &mut BufReader<TcpStream>) -> Result<Option<(String, Vec<u8>)>> {
    let (mut operation, mut length) = (String::new(), 0);
    let mut lines = 0;
    loop {
        let mut line = String::new();
        if client.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() && lines > 0 {
            break;
        }
        lines += 1;
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "x-amz-target" => operation = value.rsplit('.').next().unwrap_or_default().trim().to_owned(),
            "content-length" => length = value.trim().parse().context("a length that is no number")?,
            _ => {}
        }
    }
    anyhow::ensure!(length <= MOST_REQUEST_BYTES, "a request of {length} bytes is too large");
    let mut body = vec![0; length];
    client.read_exact(&mut body).await?;
    Ok(Some((operation, body)))
}
