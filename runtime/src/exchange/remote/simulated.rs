//! Remote channels without a network, for simulations: the real ends, and between them a wire that a test moves by hand.
//!
//! Stands where the gRPC stream of a channel stands. Each end is only looked at after it was called, as a runtime does, so
//! that a call which is lost leaves its channel still. Invariant: frames and grants of one channel keep their order;
//! when they travel is up to whoever calls [`SimulatedConnection::make`].

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::Stream;
use thalweg_common::clock::SharedClock;
use thalweg_common::id::{ChannelId, JobId};
use thalweg_common::record::Record;
use thalweg_proto::v1::{CreditGrant, Frame};
use tonic::Status;

use super::client::Peer;
use super::receiver::{Inbound, InboundStream, RemoteReceiver};
use super::sender::{Outbound, OutboundStream, RemoteSender};
use super::{ExchangeSettings, OpenChannel, failure_of};
use crate::exchange::channel::{Receiver, Sender, receiver_gone};
use crate::exchange::credit::FloatingCredit;
use crate::exchange::lock;
use crate::exchange::window::WindowPolicy;

/// How the failures of a channel call the worker at its other end.
const PEER: &str = "a simulated worker";

/// A worker whose tasks receive from others: what its channels share.
pub(crate) struct SimulatedWorker {
    settings: ExchangeSettings,
    windows: WindowPolicy,
    clock: SharedClock,
}

impl SimulatedWorker {
    pub(crate) fn new(settings: ExchangeSettings, clock: SharedClock) -> Self {
        let windows = WindowPolicy {
            own: settings.channel_credit_bytes,
            debloat_target: settings.debloat_target,
            floating: Arc::new(Mutex::new(FloatingCredit::new(settings.floating_credit_bytes))),
        };
        Self { settings, windows, clock }
    }

    /// A channel to a task of this worker, already open; at most `capacity` frames are on its wire.
    pub(crate) fn connect<T: Record>(
        &self,
        id: ChannelId,
        capacity: usize,
    ) -> (Sender<T>, Receiver<T>, SimulatedConnection) {
        let outbound = Outbound::new(OpenChannel {
            job_id: JobId(1),
            region: 0,
            attempt: 1,
            channel: id,
            plan_fingerprint: 0,
        });
        let mut requests = OutboundStream::new(Arc::clone(&outbound));
        // The frame that opens the channel has been read by the server.
        let opened = Pin::new(&mut requests).poll_next(&mut Context::from_waker(Waker::noop()));
        assert!(
            matches!(opened, Poll::Ready(Some(Frame { sequence: 0, .. }))),
            "a channel opens with a frame"
        );
        let inbound = Inbound::new(id, self.windows.clone(), Arc::clone(&self.clock));
        let wire = Wire::default();
        let connection = SimulatedConnection {
            id,
            capacity,
            requests: Some(requests),
            frames: VecDeque::new(),
            wire: wire.clone(),
            answers: Some(InboundStream::new(Arc::clone(&inbound), PEER.to_owned(), wire)),
            grants: VecDeque::new(),
            outbound: Arc::clone(&outbound),
            sender_called: Called::new(),
            receiver_called: Called::new(),
        };
        let sender = RemoteSender::new(outbound, Arc::new(Peer::default()), self.settings);
        (Sender::remote(id, sender), Receiver::remote(RemoteReceiver::new(inbound)), connection)
    }

    /// Whether no channel has borrowed anything.
    pub(crate) fn has_lent_nothing(&self) -> bool {
        let capacity = self.settings.floating_credit_bytes;
        lock(&self.windows.floating).lend(0, 0, capacity) == capacity / 2
    }
}

/// What can happen on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    /// A frame leaves the sending end.
    Send,
    /// The oldest frame arrives at the receiving worker.
    Arrive,
    /// The receiving worker reads what has arrived, or answers.
    Answer,
    /// The oldest answer arrives at the sending worker.
    Grant,
}

impl Move {
    pub(crate) const ALL: [Self; 4] = [Self::Send, Self::Arrive, Self::Answer, Self::Grant];
}

/// The connection of one channel.
pub(crate) struct SimulatedConnection {
    id: ChannelId,
    capacity: usize,
    requests: Option<OutboundStream>,
    /// On their way to the receiver; `None` is the end of the stream.
    frames: VecDeque<Option<Frame>>,
    wire: Wire,
    answers: Option<InboundStream<Wire>>,
    /// On their way to the sender; `None` is the end of the stream.
    grants: VecDeque<Option<Result<CreditGrant, Status>>>,
    outbound: Arc<Outbound>,
    sender_called: Arc<Called>,
    receiver_called: Arc<Called>,
}

impl SimulatedConnection {
    /// Whether something can happen.
    pub(crate) fn can(&self, what: Move) -> bool {
        match what {
            Move::Send => {
                self.requests.is_some() && self.sender_called.is_set() && self.frames.len() < self.capacity
            }
            Move::Arrive => !self.frames.is_empty(),
            Move::Answer => self.answers.is_some() && self.receiver_called.is_set(),
            Move::Grant => !self.grants.is_empty(),
        }
    }

    /// Lets it happen.
    pub(crate) fn make(&mut self, what: Move) {
        match what {
            Move::Send => self.send(),
            Move::Arrive => self.arrive(),
            Move::Answer => self.answer(),
            Move::Grant => self.grant(),
        }
    }

    fn send(&mut self) {
        let Some(requests) = &mut self.requests else { return };
        let waker = Waker::from(Arc::clone(&self.sender_called));
        self.sender_called.clear();
        match Pin::new(requests).poll_next(&mut Context::from_waker(&waker)) {
            Poll::Pending => {}
            Poll::Ready(Some(frame)) => {
                self.frames.push_back(Some(frame));
                self.sender_called.set();
            }
            Poll::Ready(None) => {
                self.frames.push_back(None);
                self.requests = None;
            }
        }
    }

    fn arrive(&mut self) {
        let Some(frame) = self.frames.pop_front() else { return };
        if self.answers.is_none() {
            return;
        }
        let waker = {
            let mut arrived = lock(&self.wire.arrived);
            match frame {
                Some(frame) => arrived.frames.push_back(frame),
                None => arrived.is_closed = true,
            }
            arrived.reader.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn answer(&mut self) {
        let Some(answers) = &mut self.answers else { return };
        let waker = Waker::from(Arc::clone(&self.receiver_called));
        self.receiver_called.clear();
        match Pin::new(answers).poll_next(&mut Context::from_waker(&waker)) {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(grant))) => {
                self.grants.push_back(Some(Ok(grant)));
                self.receiver_called.set();
            }
            Poll::Ready(end) => {
                self.grants.push_back(end);
                self.answers = None;
            }
        }
    }

    /// What the reader of grants does with an answer.
    fn grant(&mut self) {
        let failure = match self.grants.pop_front() {
            None => return,
            Some(Some(Ok(grant))) => match self.outbound.grant(grant) {
                Ok(()) => return,
                Err(violation) => thalweg_common::failure::Failure::internal(violation.to_string()),
            },
            Some(Some(Err(status))) => failure_of(self.id, PEER, &status),
            Some(None) => receiver_gone(self.id),
        };
        self.outbound.fail(failure);
        self.requests = None;
    }

    /// What is where, in words.
    pub(crate) fn describe(&self) -> String {
        let arrived = lock(&self.wire.arrived);
        format!(
            "{}: sender {}, {} frames on the wire, {} arrived, receiver {}, {} answers on the wire",
            self.id,
            end_in_words(self.requests.is_some(), &self.sender_called),
            self.frames.len(),
            arrived.frames.len(),
            end_in_words(self.answers.is_some(), &self.receiver_called),
            self.grants.len(),
        )
    }
}

fn end_in_words(is_open: bool, called: &Called) -> &'static str {
    match (is_open, called.is_set()) {
        (false, _) => "closed",
        (true, true) => "called",
        (true, false) => "waits",
    }
}

/// The receiving worker's end of the wire. Clones are the same.
#[derive(Clone, Default)]
struct Wire {
    arrived: Arc<Mutex<Arrived>>,
}

#[derive(Default)]
struct Arrived {
    frames: VecDeque<Frame>,
    is_closed: bool,
    reader: Option<Waker>,
}

impl Stream for Wire {
    type Item = Result<Frame, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut arrived = lock(&self.arrived);
        match arrived.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None if arrived.is_closed => Poll::Ready(None),
            None => {
                arrived.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Whether an end of a connection was called since it was looked at. A new one is looked at once.
struct Called(AtomicBool);

impl Called {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Wake for Called {
    fn wake(self: Arc<Self>) {
        self.set();
    }
}
