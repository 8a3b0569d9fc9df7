//! Log lines through two programs that speak CloudWatch Logs: the peer of the other tests, and, where it is installed, moto, which refuses what
//! CloudWatch refuses. What arrives is what was logged, each line once and in order; what cannot be sent is counted and explained.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::config::{BehaviorVersion, Credentials, Region};
use thalweg_common::clock::{Clock, SystemClock};
use thalweg_common::limits::LOG_QUEUE_LINES;
use thalweg_common::telemetry::{self, LogLine};
use thalweg_metrics::cloudwatch::connect::Place;
use thalweg_metrics::cloudwatch::logs::shipping::{LogSettings, LogShipping};
use thalweg_test_support::S3Peer;
use thalweg_test_support::s3_peer::{ACCESS_KEY, SECRET_KEY};
use tokio::process::{Child, Command};

const GROUP: &str = "/aws/kinesis-analytics/words";
const STREAM: &str = "kinesis-analytics-log-stream";

fn settings(address: SocketAddr, credentials: PathBuf) -> LogSettings {
    let place = Place {
        region: Some("us-east-1".into()),
        endpoint: Some(format!("http://{address}")),
        credentials_file: Some(credentials),
    };
    LogSettings { group: GROUP.into(), stream: STREAM.into(), place }
}

fn asking(address: SocketAddr) -> Client {
    let config = aws_sdk_cloudwatchlogs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(format!("http://{address}"))
        .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    Client::from_conf(config.build())
}

/// All lines of the stream, in its order.
async fn arrived(client: &Client) -> Vec<LogLine> {
    let mut lines = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let page =
            client.get_log_events().log_group_name(GROUP).log_stream_name(STREAM).start_from_head(true);
        let page = page.set_next_token(token.clone()).send().await.unwrap();
        let found = page.events().iter();
        lines.extend(
            found.map(|event| LogLine::new(event.timestamp().unwrap(), event.message().unwrap().into())),
        );
        let next = page.next_forward_token().map(str::to_owned);
        if page.events().is_empty() || next == token {
            return lines;
        }
        token = next;
    }
}

/// Sends lines that come out of order, more than one request takes, to a group that is not there; and looks at what arrives.
async fn lines_arrive_in_order_and_groups_are_made(address: SocketAddr, credentials: PathBuf) {
    let shipping = LogShipping::start(&settings(address, credentials)).await;
    let copies = shipping.copies();
    let now_ms = SystemClock::new().now_ms();
    // Pairs in the wrong order; and so wide that they are several requests.
    let expected: Vec<_> = (0..120)
        .map(|number| LogLine::new(now_ms + number, format!("{number:03} {}", "w".repeat(20_000))))
        .collect();
    for pair in expected.chunks(2) {
        for line in pair.iter().rev() {
            assert!(copies.add(line.clone()).await);
        }
    }
    shipping.finish().await;
    let found = arrived(&asking(address)).await;
    let numbers: Vec<&str> = found.iter().map(|line| &line.text[..3]).collect();
    assert_eq!(found.len(), expected.len(), "{numbers:?}");
    assert_eq!(found.iter().map(|line| &line.text).collect::<BTreeSet<_>>().len(), expected.len());
    assert!(found == expected, "each line has its time and its place: {numbers:?}");
}

#[tokio::test]
async fn lines_arrive_in_order() {
    let peer = S3Peer::start().await.unwrap();
    lines_arrive_in_order_and_groups_are_made(peer.address(), peer.credentials_file()).await;
}

#[tokio::test]
async fn lines_arrive_where_order_is_checked() {
    let Some(moto) = Moto::start().await else {
        eprintln!("skipped: moto_server is not installed");
        return;
    };
    lines_arrive_in_order_and_groups_are_made(moto.address, moto.credentials()).await;
}

#[tokio::test]
async fn what_cannot_be_sent_is_explained_and_nobody_waits_for_it() {
    // Nobody listens at the port of a listener that is gone.
    let address =
        tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let credentials = credentials(directory.path());
    telemetry::init("test");
    let shipping = LogShipping::start(&settings(address, credentials)).await;
    let (logged, mut own) = telemetry::LogCopies::new();
    telemetry::copy_to(logged);
    let copies = shipping.copies();
    // The queue is full at some time, and whoever logs goes on.
    for number in 0..4 * LOG_QUEUE_LINES as i64 {
        copies.offer(LogLine::new(number, "line".into()));
    }
    let complaint = loop {
        let line = own.recv().await.unwrap().text;
        if line.contains("CloudWatch Logs does not take lines") {
            break line;
        }
    };
    assert!(complaint.contains("check `logs.cloudwatch.region` and `.endpoint`"), "{complaint}");
    assert!(!complaint.contains(SECRET_KEY), "{complaint}");
    // Its end is not held up by that either.
    tokio::time::timeout(Duration::from_secs(10), shipping.finish()).await.unwrap();
    let last = loop {
        let line = own.recv().await.unwrap().text;
        if line.contains("on this machine only") {
            break line;
        }
    };
    assert!(last.contains("the last "), "{last}");
}

fn credentials(directory: &std::path::Path) -> PathBuf {
    let file = directory.join("credentials");
    let text = format!("[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
    std::fs::write(&file, text).unwrap();
    file
}

/// A running moto, which ends with this.
struct Moto {
    address: SocketAddr,
    directory: tempfile::TempDir,
    _child: Child,
}

impl Moto {
    /// Nothing where it is not installed.
    async fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let free = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let child = Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
            .current_dir(directory.path())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let mut child = child.ok()?;
        let ready = async {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                // A command that is there and does not start what it is called is as good as none.
                child.try_wait().unwrap().is_none().then_some(())?;
                // not a wait: until it is looked at again, with a deadline.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Some(())
        };
        tokio::time::timeout(Duration::from_secs(60), ready).await.ok()??;
        Some(Self { address, directory, _child: child })
    }

    fn credentials(&self) -> PathBuf {
        credentials(self.directory.path())
    }
}
