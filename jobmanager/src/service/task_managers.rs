//! TaskManagerService: one stream per task manager, passed on to the leader actor.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use thalweg_common::limits::CONTROL_STREAM_MESSAGES;
use thalweg_common::task_scope::TaskScope;
use thalweg_proto::convert::Malformed;
use thalweg_proto::v1;
use thalweg_proto::v1::task_manager_message::Message;
use thalweg_proto::v1::task_manager_service_server::TaskManagerService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::leader::{ConnectionId, Leader, Mail};

/// How long a task manager may take to send its registration.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);

/// The service of one job manager.
pub(crate) struct TaskManagerServer {
    leader: Leader,
    scope: TaskScope,
}

impl TaskManagerServer {
    /// Connections live in `scope`.
    pub(crate) fn new(leader: Leader, scope: TaskScope) -> Self {
        Self { leader, scope }
    }
}

#[tonic::async_trait]
impl TaskManagerService for TaskManagerServer {
    type ConnectStream = BoxStream<'static, Result<v1::JobManagerMessage, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::TaskManagerMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        self.leader.check_leading()?;
        let mut messages = request.into_inner();
        let first = tokio::time::timeout(REGISTER_TIMEOUT, messages.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no registration arrived"))??;
        let Some(Message::Register(register)) = first.and_then(|first| first.message) else {
            return Err(Malformed::new("register", "must come first").into());
        };
        let (outbound, stream) = mpsc::channel(CONTROL_STREAM_MESSAGES);
        let connection = self.leader.ask(|reply| Mail::Connect { register, outbound, reply }).await?;
        let (leader, stopped) = (self.leader.clone(), self.scope.token());
        self.scope.spawn("task manager connection", async move {
            let reason = tokio::select! {
                biased;
                () = stopped.cancelled() => return,
                reason = listen(connection, messages, &leader) => reason,
            };
            // Without a leader actor there is nobody to tell.
            let _ = leader.tell(Mail::Closed { connection, reason }).await;
        });
        Ok(Response::new(ReceiverStream::new(stream).boxed()))
    }
}

/// Passes on what a task manager says, and returns why it ended.
async fn listen(
    connection: ConnectionId,
    mut messages: Streaming<v1::TaskManagerMessage>,
    leader: &Leader,
) -> String {
    loop {
        match messages.message().await {
            Ok(Some(message)) => {
                if leader.tell(Mail::Received { connection, message }).await.is_err() {
                    return "the job manager is stopping".to_string();
                }
            }
            Ok(None) => return "it closed the connection".to_string(),
            Err(status) => return format!("its connection broke: {}", status.message()),
        }
    }
}
