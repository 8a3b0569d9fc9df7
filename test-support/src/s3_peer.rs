//! An S3 for tests: `ministack`, a program of its own on a free port of the loopback interface.
//!
//! `cargo xtask setup` installs it; a test that does not find it fails and says so. The process ends
//! with its [`S3Peer`]. It keeps objects in memory, and knows conditional writes, also those that complete multipart uploads.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tempfile::TempDir;
use thalweg_common::storage::{S3Settings, StorageSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::installed::Installed;

/// The program.
const INSTALLED: Installed =
    Installed { role: "S3 peer", variable: PROGRAM_VARIABLE, package: "ministack", program: "bin/ministack" };

/// Tells where the program is.
pub const PROGRAM_VARIABLE: &str = "THALWEG_S3_PEER";

/// What the credentials of tests look like; the peer takes any.
pub const ACCESS_KEY: &str = "TESTACCESSKEY";
/// Must never be seen in an error or a log.
pub const SECRET_KEY: &str = "test-secret-key-that-nobody-may-see";

/// How often a port is chosen anew because somebody else was faster.
const ATTEMPTS: usize = 5;

/// Far more than the start needs: about 0.4 s on an idle machine.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A running peer.
#[derive(Debug)]
pub struct S3Peer {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl S3Peer {
    /// Starts a peer and waits until it serves.
    ///
    /// # Errors
    /// When it is not installed, or does not start.
    pub async fn start() -> Result<Self> {
        let program = INSTALLED.program()?;
        let mut last = anyhow!("it was not tried");
        for _ in 0..ATTEMPTS {
            match Self::start_once(&program).await {
                Ok(peer) => return Ok(peer),
                Err(error) => last = error,
            }
        }
        Err(last.context(format!("the S3 peer {} does not start", program.display())))
    }

    async fn start_once(program: &PathBuf) -> Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory for the S3 peer")?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?.port();
        let log = File::create(directory.path().join("log"))?;
        let child = Command::new(program)
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", port.to_string())
            .env("LOG_LEVEL", "WARNING")
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let credentials =
            format!("[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
        std::fs::write(directory.path().join("credentials"), credentials)?;
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into();
        let mut peer = Self { child, address, directory };
        match tokio::time::timeout(READY_WITHIN, peer.ready()).await {
            Ok(ready) => ready?,
            Err(_) => bail!("it does not serve within {READY_WITHIN:?}; it said: {}", peer.said()),
        }
        Ok(peer)
    }

    async fn ready(&mut self) -> Result<()> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended ({status}); it said: {}", self.said());
            }
            if let Ok((200, _)) = self.ask("GET", "/_ministack/health").await {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Where it serves, without any proxy.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A file of credentials that it accepts, in the form of `~/.aws/credentials`.
    #[must_use]
    pub fn credentials_file(&self) -> PathBuf {
        self.directory.path().join("credentials")
    }

    /// Settings that reach it at this address, its own or that of a proxy.
    #[must_use]
    pub fn settings_at(&self, address: SocketAddr) -> StorageSettings {
        let mut s3 = S3Settings::default().with_credentials_file(self.credentials_file());
        s3.endpoint = Some(format!("http://{address}"));
        StorageSettings { s3 }
    }

    /// Settings that reach it.
    #[must_use]
    pub fn settings(&self) -> StorageSettings {
        self.settings_at(self.address)
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// When the peer refuses.
    pub async fn create_bucket(&self, name: &str) -> Result<()> {
        let (status, said) = self.ask("PUT", &format!("/{name}")).await?;
        ensure!(status == 200, "the S3 peer makes no bucket {name}: HTTP {status}: {said}");
        Ok(())
    }

    /// Makes a delivery stream of Firehose, which the peer is too, that writes each record as an object below `prefix` in a bucket, and below
    /// a directory for the hour.
    ///
    /// # Errors
    /// When the peer refuses.
    pub async fn create_delivery_stream(&self, name: &str, bucket: &str, prefix: &str) -> Result<()> {
        let body = format!(
            r#"{{"DeliveryStreamName":"{name}","ExtendedS3DestinationConfiguration":{{"RoleARN":"arn:aws:iam::000000000000:role/firehose","BucketARN":"arn:aws:s3:::{bucket}","Prefix":"{prefix}"}}}}"#
        );
        let headers = "Content-Type: application/x-amz-json-1.1\r\nX-Amz-Target: Firehose_20150804.CreateDeliveryStream\r\n";
        let (status, said) = self.send("POST", "/", headers, &body).await?;
        ensure!(status == 200, "the peer makes no delivery stream {name}: HTTP {status}: {said}");
        Ok(())
    }

    /// How many multipart uploads of a bucket are neither completed nor aborted.
    ///
    /// # Errors
    /// When the peer does not answer.
    pub async fn unfinished_uploads(&self, bucket: &str) -> Result<usize> {
        let (status, said) = self.ask("GET", &format!("/{bucket}?uploads")).await?;
        ensure!(status == 200, "the S3 peer lists no uploads: HTTP {status}: {said}");
        Ok(said.matches("<UploadId>").count())
    }

    /// Sends a request without content, and answers the status and everything behind the status line.
    ///
    /// # Errors
    /// When the peer does not answer.
    pub async fn ask(&self, method: &str, target: &str) -> Result<(u16, String)> {
        self.send(method, target, "", "").await
    }

    async fn send(&self, method: &str, target: &str, headers: &str, body: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.address).await?;
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        let (first, rest) = answer.split_once("\r\n").context("no answer")?;
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.with_context(|| format!("no status in {first:?}"))?, rest.to_owned()))
    }
}

impl Drop for S3Peer {
    fn drop(&mut self) {
        // It has already ended, or ends now; there is nothing to keep.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
