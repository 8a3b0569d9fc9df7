//! The worker's stream to its task manager.

use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::id::{JobId, WorkerId};
use thalweg_common::limits::CONTROL_STREAM_MESSAGES;
use thalweg_common::task_scope::with_causes;
use thalweg_proto::convert::WireId;
use thalweg_proto::transport::{Dialer, worker_service};
use thalweg_proto::v1::{self, worker_message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

use super::WorkerOptions;
use super::messages::{self, Command};

/// Longest time to reach the task manager, which is on the same machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time to deliver the last messages when the worker ends.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The stream to the task manager. Its end is the end of the worker.
pub(super) struct Connection {
    pub(super) outgoing: Outgoing,
    commands: Streaming<v1::WorkerCommand>,
}

/// Where messages to the task manager go.
#[derive(Clone)]
pub(super) struct Outgoing {
    sender: mpsc::Sender<v1::WorkerMessage>,
}

impl Connection {
    /// Connects and says who this is.
    pub(super) async fn attach(
        options: &WorkerOptions,
        data_port: u16,
        plan_fingerprint: u64,
    ) -> Result<Self, Failure> {
        let address = &options.taskmanager_address;
        let cannot_connect = |error: tonic::transport::Error| {
            Failure::external(format!(
                "the worker cannot reach its task manager at {address}: {}",
                with_causes(&error)
            ))
        };
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(cannot_connect)?;
        // It is reached by loopback, and shows the certificate of this machine.
        let dialer = Dialer::new(options.security.clone()).expecting(&options.data_host);
        let channel =
            dialer.connect(&endpoint.connect_timeout(CONNECT_TIMEOUT)).await.map_err(cannot_connect)?;
        let mut client = worker_service(channel);
        let (sender, messages) = mpsc::channel(CONTROL_STREAM_MESSAGES);
        let outgoing = Outgoing { sender };
        let hello = v1::WorkerHello {
            job_id: options.job_id.to_wire(),
            worker_id: options.worker_id.to_wire(),
            token: options.token.clone().into(),
            process_id: std::process::id(),
            data_port: data_port.into(),
            plan_fingerprint,
        };
        // Before the call: the task manager answers only after it has read it.
        outgoing.send(messages::message(worker_message::Message::Hello(hello))).await;
        let answer = client.attach(ReceiverStream::new(messages)).await;
        let commands = answer.map_err(|status| refused(address, &status))?.into_inner();
        Ok(Self { outgoing, commands })
    }

    /// The next command for this worker. Cancel-safe.
    ///
    /// # Errors
    /// When the task manager is gone, or says what cannot be understood.
    pub(super) async fn command(&mut self, job: JobId, worker: WorkerId) -> Result<Command, Failure> {
        match self.commands.message().await {
            Ok(Some(command)) => Ok(Command::read(job, worker, command)?),
            Ok(None) => Err(Failure::external("the task manager has ended the connection to its worker")),
            Err(status) => {
                let reason = with_causes(&status);
                Err(Failure::external(format!("the connection to the task manager is lost: {reason}")))
            }
        }
    }

    /// Sends what is still on its way, as far as the task manager takes it.
    pub(super) async fn close(self) {
        let Self { outgoing, mut commands } = self;
        // The end of the messages tells the task manager that this is the end.
        drop(outgoing);
        let ended = async { while let Ok(Some(_)) = commands.message().await {} };
        // What a task manager that is gone does not take is lost with it.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, ended).await;
    }
}

impl Outgoing {
    /// Sends a message, and waits while too many are on their way.
    pub(super) async fn send(&self, message: v1::WorkerMessage) {
        // When the stream has ended the worker ends too, and nobody misses the message.
        let _ = self.sender.send(message).await;
    }

    /// Sends a message unless too many are on their way.
    pub(super) fn try_send(&self, message: v1::WorkerMessage) {
        let _ = self.sender.try_send(message);
    }
}

fn refused(address: &str, status: &tonic::Status) -> Failure {
    Failure::external(format!("the task manager at {address} has refused its worker: {}", status.message()))
}
