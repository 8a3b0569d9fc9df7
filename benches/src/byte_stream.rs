//! What bytes cost without Thalweg: a stream between two processes over bare TCP, and over bare tonic.
//!
//! The measuring program starts itself twice, as sender and as receiver; the receiver notes down how far it is. Both
//! streams carry messages of the same size, and tonic is set up as the exchange between workers: large frames, wide windows.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use thalweg_chaos_tests::process::Process;
use thalweg_chaos_tests::wait;
use thalweg_common::limits::{
    EXCHANGE_CONNECTION_WINDOW_BYTES, EXCHANGE_STREAM_WINDOW_BYTES, HTTP2_FRAME_BYTES,
};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use self::generated::byte_stream_client::ByteStreamClient;
use self::generated::byte_stream_server::{ByteStream, ByteStreamServer};
use self::generated::{Piece, Received};
use crate::progress::{Point, Progress};
use crate::submitted::Sample;
use crate::usage;

mod generated {
    tonic::include_proto!("thalweg.benches");
}

/// How much is handed over at once.
const MESSAGE_BYTES: usize = 64 * 1024;

/// How long a stream runs before it is measured.
const WARM_UP: Duration = Duration::from_millis(500);

/// What carries the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// Blocking sockets.
    Tcp,
    /// A stream of gRPC messages.
    Tonic,
}

/// One end of a stream. Hidden options of a measuring program that starts itself as one.
#[derive(Debug, Clone, Args)]
pub struct End {
    /// Be one end of a stream over this transport.
    #[arg(long, hide = true)]
    stream: Option<Transport>,
    /// Be the sender to this address; otherwise the receiver.
    #[arg(long, hide = true)]
    to: Option<String>,
    /// Where the receiver notes down how far it is.
    #[arg(long, hide = true, default_value = "")]
    progress: String,
}

impl End {
    /// Runs this end if the process was started as one; it then lasts until the process is killed.
    ///
    /// # Errors
    /// When the stream breaks.
    pub fn run(&self) -> Result<bool> {
        let Some(transport) = self.stream else { return Ok(false) };
        let progress = Progress::new(&self.progress);
        match (transport, &self.to) {
            (Transport::Tcp, None) => receive_tcp(progress)?,
            (Transport::Tcp, Some(address)) => send_tcp(address)?,
            (Transport::Tonic, end) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                match end {
                    None => runtime.block_on(receive_tonic(progress))?,
                    Some(address) => runtime.block_on(send_tonic(address))?,
                }
            }
        }
        Ok(true)
    }
}

fn receive_tcp(mut progress: Progress) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening {}", listener.local_addr()?);
    let (mut stream, _) = listener.accept()?;
    let mut buffer = vec![0; MESSAGE_BYTES];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            bytes => progress.add(bytes)?,
        }
    }
}

fn send_tcp(address: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let message = vec![7; MESSAGE_BYTES];
    loop {
        stream.write_all(&message)?;
    }
}

async fn receive_tonic(progress: Progress) -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening {}", listener.local_addr()?);
    Server::builder()
        .max_frame_size(HTTP2_FRAME_BYTES)
        .initial_stream_window_size(EXCHANGE_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(EXCHANGE_CONNECTION_WINDOW_BYTES)
        .add_service(ByteStreamServer::new(Receiver { progress }))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await?;
    Ok(())
}

async fn send_tonic(address: &str) -> Result<()> {
    let connection = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?;
    let payload = Bytes::from(vec![7; MESSAGE_BYTES]);
    let pieces = tokio_stream::iter(std::iter::repeat_with(move || Piece { payload: payload.clone() }));
    ByteStreamClient::new(connection).send(pieces).await?;
    Ok(())
}

struct Receiver {
    progress: Progress,
}

#[tonic::async_trait]
impl ByteStream for Receiver {
    async fn send(&self, request: Request<Streaming<Piece>>) -> Result<Response<Received>, Status> {
        let mut pieces = request.into_inner();
        let mut progress = self.progress.clone();
        let mut bytes = 0;
        while let Some(piece) = pieces.message().await? {
            bytes += piece.payload.len() as u64;
            progress.add(piece.payload.len())?;
        }
        Ok(Response::new(Received { bytes }))
    }
}

/// Bytes per CPU second of both ends of a stream while it runs for so long.
///
/// # Errors
/// When an end does not start, or ends.
pub async fn bytes_per_cpu_second(transport: Transport, measured: Duration) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let progress = folder.path().join("progress");
    let transport = transport.to_possible_value().context("a transport without a name")?;
    let end = |options: &[&str]| -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--stream", transport.get_name()]).args(options);
        Ok(command)
    };
    let progress_text = progress.to_str().context("a path that is not UTF-8")?;
    let mut receiver = end(&["--progress", progress_text])?;
    let mut receiver = Process::start("receiver", &mut receiver, folder.path())?;
    let address = receiver.ready("listening").await?;
    let sender = Process::start("sender", &mut end(&["--to", &address])?, folder.path())?;
    let sample = async || sample(&[&sender, &receiver], &progress).await;
    sample().await?;
    tokio::time::sleep(WARM_UP).await;
    let before = sample().await?;
    tokio::time::sleep(measured).await;
    Ok(sample().await?.per_cpu_second_since(before))
}

async fn sample(ends: &[&Process], progress: &Path) -> Result<Sample> {
    wait::until("the first bytes", async || {
        let cpu_seconds = ends.iter().map(|end| usage::cpu_seconds(end.id())).sum::<Result<f64>>()?;
        Ok(Point::latest(progress)?.map(|point| Sample { cpu_seconds, point }))
    })
    .await
}
