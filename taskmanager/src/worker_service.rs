//! Where workers attach: the WorkerService, on loopback, on a port of its own, with TLS if the cluster has it.
//!
//! One stream per worker. Its first message proves who the worker is; from then on everything it says goes to the actor,
//! and the end of the stream is the end of the worker.

use std::time::Duration;

use thalweg_common::limits::{CONTROL_STREAM_MESSAGES, GRPC_MAX_MESSAGE_BYTES};
use thalweg_common::task_scope::{BoxError, TaskScope};
use thalweg_proto::convert::required;
use thalweg_proto::transport::Incoming;
use thalweg_proto::v1;
use thalweg_proto::v1::worker_message::Message;
use thalweg_proto::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::actor::Mail;
use crate::messages::{Hello, Report};

/// How long a connection may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves workers until the scope is cancelled.
pub(crate) fn serve(incoming: Incoming, mailbox: mpsc::Sender<Mail>, scope: &TaskScope) {
    let connections = scope.child_with_policy("workers", thalweg_common::task_scope::ErrorPolicy::LogOnly);
    let token = scope.token();
    let service = WorkerServiceServer::new(Service { mailbox, connections })
        .max_decoding_message_size(GRPC_MAX_MESSAGE_BYTES)
        .max_encoding_message_size(GRPC_MAX_MESSAGE_BYTES);
    let server = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
    scope.spawn_fallible("worker service", async move {
        token.run_until_cancelled(server).await.unwrap_or(Ok(())).map_err(BoxError::from)
    });
}

struct Service {
    mailbox: mpsc::Sender<Mail>,
    connections: TaskScope,
}

#[tonic::async_trait]
impl WorkerService for Service {
    type AttachStream = ReceiverStream<Result<v1::WorkerCommand, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut messages = request.into_inner();
        let hello = read_hello(&mut messages).await?;
        let worker = hello.worker;
        let (commands, stream) = mpsc::channel(CONTROL_STREAM_MESSAGES);
        let (reply, verdict) = oneshot::channel();
        let stopping = || Status::unavailable("this task manager is being stopped");
        self.mailbox.send(Mail::Attach { hello, commands, reply }).await.map_err(|_| stopping())?;
        verdict.await.map_err(|_| stopping())?.map_err(Status::permission_denied)?;

        let (mailbox, token) = (self.mailbox.clone(), self.connections.token());
        self.connections.spawn(&format!("worker {worker}"), async move {
            let reading = async {
                while let Some(report) = next_report(&mut messages).await {
                    if mailbox.send(Mail::FromWorker { worker, report }).await.is_err() {
                        return;
                    }
                }
            };
            token.run_until_cancelled(reading).await;
            // A task manager that has ended wants to know nothing any more.
            let _ = mailbox.send(Mail::Detached(worker)).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

async fn read_hello(messages: &mut Streaming<v1::WorkerMessage>) -> Result<Hello, Status> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, messages.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("the first message did not come"))??;
    match required("message", first.and_then(|first| first.message))? {
        Message::Hello(hello) => Ok(Hello::try_from(hello)?),
        _ => Err(Status::failed_precondition("the first message has to be a hello")),
    }
}

/// What the worker says next; nothing when its stream has ended, is broken, or makes no sense.
async fn next_report(messages: &mut Streaming<v1::WorkerMessage>) -> Option<Report> {
    match messages.message().await {
        Ok(message) => match Report::try_from(message?) {
            Ok(report) => Some(report),
            Err(malformed) => {
                tracing::error!("closed a worker's connection: {malformed}");
                None
            }
        },
        Err(status) => {
            tracing::debug!("a worker's connection broke: {status}");
            None
        }
    }
}
