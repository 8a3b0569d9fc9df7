//! A Kinesis for tests that others have written: `kinesis-local`, a program of its own on a free port of the loopback interface.
//!
//! `cargo xtask setup` installs it; a test that does not find it fails and says so. Slow, but it splits and merges shards as the service does:
//! the model in this crate is held to what it does. The process ends with its [`KinesisPeer`].

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use crate::installed::Installed;

/// The program.
const INSTALLED: Installed = Installed {
    role: "Kinesis peer",
    variable: "THALWEG_KINESIS_PEER",
    package: "kinesis-local",
    program: "node_modules/kinesis-local/main.js",
};

/// Left to itself it listens on all interfaces.
const ONLY_LOOPBACK: &str = "
const server = require('net').Server.prototype;
const listen = server.listen;
server.listen = function (where, ...rest) {
  const port = typeof where === 'object' ? where.port : where;
  return listen.call(this, { port, host: '127.0.0.1' }, ...rest.filter((other) => typeof other === 'function'));
};
";

/// Far more than the start needs: about a second on an idle machine.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A running peer.
#[derive(Debug)]
pub struct KinesisPeer {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl KinesisPeer {
    /// Starts a peer and waits until it serves.
    ///
    /// # Errors
    /// When it is not installed, or does not start.
    pub async fn start() -> Result<Self> {
        let program = INSTALLED.program()?;
        let directory = tempfile::tempdir().context("cannot make a directory for the Kinesis peer")?;
        let shim = directory.path().join("loopback.js");
        std::fs::write(&shim, ONLY_LOOPBACK)?;
        let log = File::create(directory.path().join("log"))?;
        // Both at once, so that they are two.
        let (plain, tls) = (free_port().await?, free_port().await?);
        let (plain_port, tls_port) = (plain.local_addr()?.port(), tls.local_addr()?.port());
        drop((plain, tls));
        let certificate = program.with_file_name("server.json");
        let child = Command::new("node")
            .arg("--require")
            .arg(&shim)
            .arg(&program)
            .env("KINESIS_MOCK_PLAIN_PORT", plain_port.to_string())
            .env("KINESIS_MOCK_TLS_PORT", tls_port.to_string())
            .env("KINESIS_MOCK_CERT_PATH", certificate)
            .env("LOG_LEVEL", "ERROR")
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start node")?;
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, plain_port).into();
        let mut peer = Self { child, address, directory };
        match tokio::time::timeout(READY_WITHIN, peer.ready()).await {
            Ok(ready) => ready?,
            Err(_) => {
                bail!("the Kinesis peer does not serve within {READY_WITHIN:?}; it said: {}", peer.said())
            }
        }
        Ok(peer)
    }

    async fn ready(&mut self) -> Result<()> {
        while TcpStream::connect(self.address).await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the Kinesis peer ended ({status}); it said: {}", self.said());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// What clients are told as their endpoint.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for KinesisPeer {
    fn drop(&mut self) {
        // It has already ended, or ends now; there is nothing to keep.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn free_port() -> Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port is free")
}
