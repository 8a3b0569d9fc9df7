//! The connection to the leading job manager: finds it, registers, passes on what it says, and starts over.
//!
//! Whoever is asked is told everything at once (the actor's registration is the first message of every stream), so finding
//! a new leader takes one round trip. Nothing that runs depends on this: losing the leader only ends the stream.

use std::time::Duration;

use thalweg_common::limits::CONTROL_STREAM_MESSAGES;
use thalweg_common::task_scope::{TaskScope, with_causes};
use thalweg_proto::leader::redirect;
use thalweg_proto::route::{Backoff, Route, RouteStep};
use thalweg_proto::transport::{Dialer, check_address, endpoint, task_manager_service};
use thalweg_proto::v1;
use thalweg_proto::v1::job_manager_message::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::actor::Mail;
use crate::messages::LeaderMessage;

/// Pauses between rounds in which nobody led.
const BACKOFF: Backoff = Backoff { min: Duration::from_millis(50), max: Duration::from_secs(1) };

/// How long a job manager may take to register a task manager.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time between two heartbeats, so that progress is seen while it happens.
const MAX_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Shortest time between two heartbeats, whatever a job manager asks for.
const MIN_HEARTBEAT_INTERVAL: Duration = Duration::from_millis(10);

/// Why a connection ended or did not come to be.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("{}", .0.message())]
    Redirected(Status),
    #[error("{0}")]
    Broken(String),
}

impl From<Status> for Lost {
    fn from(status: Status) -> Self {
        if redirect(&status).is_some() {
            Self::Redirected(status)
        } else {
            Self::Broken(with_causes(&status))
        }
    }
}

/// Connects to the leader for as long as the scope lives; `known` always holds where job managers are, the leader first.
pub(crate) fn start(
    addresses: Vec<String>,
    known: watch::Sender<Vec<String>>,
    mailbox: mpsc::Sender<Mail>,
    dialer: Dialer,
    scope: &TaskScope,
) {
    let route = Route::new(addresses, BACKOFF);
    let mut connection = Connection { route, dialer, known, mailbox, number: 0, complained: false };
    let token = scope.token();
    scope.spawn("leader connection", async move {
        token.run_until_cancelled(connection.run()).await;
    });
}

struct Connection {
    route: Route,
    dialer: Dialer,
    known: watch::Sender<Vec<String>>,
    mailbox: mpsc::Sender<Mail>,
    /// Counts connections, so that the actor tells the end of one from the next.
    number: u64,
    /// Whether people were told that nobody leads.
    complained: bool,
}

impl Connection {
    async fn run(&mut self) {
        let mut last = String::new();
        loop {
            let address = match self.route.step() {
                RouteStep::Ask(address) => address,
                RouteStep::Pause(pause) => {
                    if pause == BACKOFF.max && !std::mem::replace(&mut self.complained, true) {
                        let addresses = self.route.addresses().join(", ");
                        tracing::warn!("no leading job manager at {addresses} ({last}); goes on trying");
                    }
                    tokio::time::sleep(pause).await;
                    continue;
                }
            };
            self.number += 1;
            let number = self.number;
            let lost = self.connect(&address).await;
            tracing::debug!("connection to job manager {address} ended: {lost}");
            match &lost {
                Lost::Redirected(status) => {
                    let leader = redirect(status).flatten().filter(|leader| check_address(leader).is_ok());
                    self.route.redirected(leader);
                }
                Lost::Broken(_) => self.route.unreachable(&address),
            }
            last = format!("{address}: {lost}");
            let ended = Mail::Disconnected { connection: number, reason: last.clone() };
            if self.mailbox.send(ended).await.is_err() {
                return;
            }
        }
    }

    /// One connection, from its making to its end.
    async fn connect(&mut self, address: &str) -> Lost {
        let broken = CancellationToken::new();
        tokio::select! {
            biased;
            () = broken.cancelled() => Lost::Broken("it reads too slowly, or leads no more".into()),
            outcome = self.converse(address, broken.clone()) => match outcome {
                Ok(()) => Lost::Broken("it closed the connection".into()),
                Err(lost) => lost,
            },
        }
    }

    async fn converse(&mut self, address: &str, broken: CancellationToken) -> Result<(), Lost> {
        let endpoint = endpoint(address).map_err(|error| Lost::Broken(error.to_string()))?;
        let connected = self.dialer.connect(&endpoint).await;
        let channel = connected.map_err(|error| Lost::Broken(with_causes(&error)))?;
        let (outbound, queue) = mpsc::channel(CONTROL_STREAM_MESSAGES);
        // The registration is in the queue before the stream is opened.
        self.tell(Mail::Connecting { connection: self.number, outbound, broken }).await?;
        let registration = async {
            let stream = task_manager_service(channel).connect(ReceiverStream::new(queue)).await?;
            let mut messages = stream.into_inner();
            let first = messages.message().await?;
            Ok::<_, Status>((messages, first))
        };
        let outcome = tokio::time::timeout(REGISTRATION_TIMEOUT, registration).await;
        let (mut messages, first) = outcome.map_err(|_| {
            Lost::Broken(format!("it did not register within {} s", REGISTRATION_TIMEOUT.as_secs()))
        })??;
        let first = first.ok_or_else(|| Lost::Broken("it closed the connection at once".into()))?;
        let Some(Message::Registered(registered)) = &first.message else {
            return Err(Lost::Broken("its first message was not a registration".into()));
        };
        let silence = Duration::from_millis(registered.heartbeat_timeout_ms).max(MIN_HEARTBEAT_INTERVAL);
        let interval = Duration::from_millis(registered.heartbeat_interval_ms);
        let mut heartbeats =
            tokio::time::interval(interval.clamp(MIN_HEARTBEAT_INTERVAL, MAX_HEARTBEAT_INTERVAL));
        heartbeats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.learn(address, registered);
        self.pass_on(first).await?;
        loop {
            let next = tokio::time::timeout(silence, self.next_message(&mut messages, &mut heartbeats)).await;
            let next = next.map_err(|_| {
                Lost::Broken(format!(
                    "The heartbeat of JobManager with id {address} timed out: it was silent for {} s",
                    silence.as_secs_f32()
                ))
            })??;
            let Some(message) = next else { return Ok(()) };
            self.pass_on(message).await?;
        }
    }

    /// The leader's next message; heartbeats fall due while it is waited for.
    async fn next_message(
        &self,
        messages: &mut Streaming<v1::JobManagerMessage>,
        heartbeats: &mut tokio::time::Interval,
    ) -> Result<Option<v1::JobManagerMessage>, Lost> {
        loop {
            tokio::select! {
                biased;
                message = messages.message() => return Ok(message?),
                _ = heartbeats.tick() => self.tell(Mail::HeartbeatDue).await?,
            }
        }
    }

    /// Passes a message to the actor. One that does not follow the protocol is left out: the next may be right.
    async fn pass_on(&self, message: v1::JobManagerMessage) -> Result<(), Lost> {
        match LeaderMessage::try_from(message) {
            Ok(message) => self.tell(Mail::FromLeader(message)).await,
            Err(malformed) => {
                tracing::error!("refused a message of the leader: {malformed}");
                Ok(())
            }
        }
    }

    async fn tell(&self, mail: Mail) -> Result<(), Lost> {
        self.mailbox.send(mail).await.map_err(|_| Lost::Broken("this task manager has ended".into()))
    }

    fn learn(&mut self, leader: &str, registered: &v1::Registered) {
        self.complained = false;
        self.route.leads(leader);
        self.route
            .learn(registered.job_managers.iter().filter(|address| check_address(address).is_ok()).cloned());
        let others = self.route.addresses().iter().filter(|address| *address != leader).cloned();
        self.known.send_replace(std::iter::once(leader.to_string()).chain(others).collect());
    }
}
