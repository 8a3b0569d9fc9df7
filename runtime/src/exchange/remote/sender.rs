//! The sending end of a remote channel: encodes batches into frames and queues them for the connection.
//!
//! On a record's way this stands between an output and the gRPC stream. The task puts frames in, the
//! connection takes them out and hands them to HTTP/2, another task on the network runtime brings in the grants.
//! Invariants: the task never waits; frames are taken in only while there is credit, so what waits here costs at most the
//! window and one frame; frames are numbered in the order in which they leave, from 0 and without gaps.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::Stream;
use thalweg_common::failure::Failure;
use thalweg_common::id::ChannelId;
use thalweg_common::limits::FIRST_BATCH_RECORDS;
use thalweg_common::record::Record;
use thalweg_proto::v1::{self, frame};

use super::client::Peer;
use super::frame::{Payload, compress, encode_event};
use super::timestamped::encode_batch;
use super::{Compression, ExchangeSettings, OpenChannel, register};
use crate::batch::Batch;
use crate::event::Event;
use crate::exchange::credit::{CreditViolation, SenderCredit, frame_cost};
use crate::exchange::note::Note;
use crate::exchange::queue::{Message, MessageQueue};
use crate::exchange::waker::TaskWaker;
use crate::exchange::{MAX_SPARE_RECORDS, lock};

/// What a channel takes at the moment.
struct Room {
    /// The size of a frame; nothing without credit.
    frame_bytes: Option<usize>,
    /// Bytes of credit that are left.
    credit: u64,
}

/// What the task, the connection and the reader of grants share.
pub(super) struct Outbound {
    id: ChannelId,
    state: Mutex<State>,
    /// What the receiver says.
    note: Note,
}

struct State {
    /// The first frame, until it has left.
    open: Option<OpenChannel>,
    queue: MessageQueue<(Payload, u64)>,
    next_sequence: u64,
    credit: SenderCredit,
    /// No more comes into the queue.
    closed: bool,
    failure: Option<Failure>,
    task: Option<TaskWaker>,
    /// The task was refused and waits for credit.
    task_waits: bool,
    /// The connection, when it has found the queue empty.
    connection: Option<Waker>,
}

impl Outbound {
    pub(super) fn new(open: OpenChannel) -> Arc<Self> {
        let state = State {
            open: Some(open),
            queue: MessageQueue::new(),
            next_sequence: 0,
            credit: SenderCredit::default(),
            closed: false,
            failure: None,
            task: None,
            task_waits: false,
            connection: None,
        };
        Arc::new(Self { id: open.channel, state: Mutex::new(state), note: Note::default() })
    }

    pub(super) fn id(&self) -> ChannelId {
        self.id
    }

    /// The receiver has granted credit, or left a note.
    pub(super) fn grant(&self, grant: v1::CreditGrant) -> Result<(), CreditViolation> {
        if !grant.note.is_empty() {
            self.note.write(grant.note);
            wake(lock(&self.state).task.clone());
            if grant.bytes == 0 {
                return Ok(());
            }
        }
        let mut state = lock(&self.state);
        state.credit.grant(grant.bytes, grant.window)?;
        if state.task_waits && state.credit.is_open() {
            state.task_waits = false;
            let task = state.task.clone();
            drop(state);
            wake(task);
        }
        Ok(())
    }

    /// The channel is broken: the task learns it with its next call, and what waits is dropped.
    pub(super) fn fail(&self, failure: Failure) {
        let (task, connection, queue) = {
            let mut state = lock(&self.state);
            state.failure.get_or_insert(failure);
            state.closed = true;
            let queue = std::mem::replace(&mut state.queue, MessageQueue::new());
            (state.task.clone(), state.connection.take(), queue)
        };
        drop(queue);
        wake(task);
        if let Some(connection) = connection {
            connection.wake();
        }
    }

    /// How large a frame may be put in, and the credit for it. If there is none, the task is woken when there is.
    fn room(&self, target_bytes: usize) -> Result<Room, Failure> {
        let mut state = lock(&self.state);
        state.check()?;
        state.task_waits = !state.credit.is_open();
        let frame_bytes = (!state.task_waits).then(|| state.credit.frame_bytes(target_bytes));
        Ok(Room { frame_bytes, credit: state.credit.available() })
    }

    fn put(&self, put: impl FnOnce(&mut State)) -> Result<(), Failure> {
        let connection = {
            let mut state = lock(&self.state);
            state.check()?;
            put(&mut state);
            state.connection.take()
        };
        if let Some(connection) = connection {
            connection.wake();
        }
        Ok(())
    }
}

impl State {
    fn check(&self) -> Result<(), Failure> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn pop(&mut self) -> Option<v1::Frame> {
        let (message, backlog) = match self.open.take() {
            Some(open) => (frame::Message::Open(open.into()), 0),
            None => match self.queue.pop()? {
                Message::Batch((Payload { bytes, compression: Compression::None }, backlog)) => {
                    (frame::Message::Data(bytes), backlog)
                }
                Message::Batch((Payload { bytes, compression: Compression::Lz4 }, backlog)) => {
                    (frame::Message::Lz4Data(bytes), backlog)
                }
                Message::Event(event) => (frame::Message::Event(encode_event(event).into()), 0),
            },
        };
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        Some(v1::Frame { sequence, message: Some(message), backlog })
    }
}

fn wake(task: Option<TaskWaker>) {
    if let Some(task) = task {
        task.wake();
    }
}

/// The body of the gRPC request: the connection takes frames from it as fast as HTTP/2 lets it.
pub(super) struct OutboundStream {
    outbound: Arc<Outbound>,
}

impl OutboundStream {
    pub(super) fn new(outbound: Arc<Outbound>) -> Self {
        Self { outbound }
    }
}

impl Stream for OutboundStream {
    type Item = v1::Frame;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<v1::Frame>> {
        let mut state = lock(&self.outbound.state);
        if let Some(frame) = state.pop() {
            return Poll::Ready(Some(frame));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        register(&mut state.connection, context);
        Poll::Pending
    }
}

/// The sending end as the task sees it.
pub(in crate::exchange) struct RemoteSender<T> {
    outbound: Arc<Outbound>,
    /// Keeps the connection while one of its channels is in use.
    _peer: Arc<Peer>,
    target_bytes: usize,
    /// Credit that was left behind the last frame, or when it was last asked for.
    credit: u64,
    /// How many records the last frame had room for, as large as they were.
    frame_records: usize,
    compression: Compression,
    payload: Vec<u8>,
    compressed: Vec<u8>,
    /// The empty buffer of the last batch.
    spare: Option<Batch<T>>,
}

impl<T> RemoteSender<T> {
    pub(super) fn new(outbound: Arc<Outbound>, peer: Arc<Peer>, settings: ExchangeSettings) -> Self {
        Self {
            outbound,
            _peer: peer,
            target_bytes: settings.frame_target_bytes,
            credit: 0,
            frame_records: FIRST_BATCH_RECORDS,
            compression: settings.compression,
            payload: Vec::new(),
            compressed: Vec::new(),
            spare: None,
        }
    }

    pub(in crate::exchange) fn set_waker(&mut self, waker: TaskWaker) {
        lock(&self.outbound.state).task = Some(waker);
    }

    /// Where the receiver's notes are.
    pub(in crate::exchange) fn note(&self) -> Note {
        self.outbound.note.clone()
    }

    pub(in crate::exchange) fn send_event(&mut self, event: Event) -> Result<(), Failure> {
        self.outbound.put(|state| state.queue.push_event(event))
    }

    /// Puts nothing more in. What is queued still leaves.
    pub(in crate::exchange) fn close(&mut self) {
        // An error says that the channel is closed already.
        let _ = self.outbound.put(|state| state.closed = true);
    }

    /// Credit that was left behind the last frame, or when it was last asked for.
    pub(in crate::exchange) fn credit(&self) -> u64 {
        self.credit
    }

    /// How many records fill a frame: more of them need not wait for each other.
    pub(in crate::exchange) fn batch_records(&self) -> usize {
        self.frame_records
    }

    pub(in crate::exchange) fn take_spare(&mut self) -> Option<Batch<T>> {
        self.spare.take()
    }

    /// The encoded payload, in no more memory than it is charged for.
    fn take_payload(&mut self) -> Payload {
        if self.compression == Compression::Lz4 && compress(&self.payload, &mut self.compressed) {
            let bytes = Bytes::copy_from_slice(&self.compressed);
            return Payload { bytes, compression: Compression::Lz4 };
        }
        Payload { bytes: self.take_plain(), compression: Compression::None }
    }

    fn take_plain(&mut self) -> Bytes {
        if self.payload.len() < self.payload.capacity() / 2 {
            return Bytes::copy_from_slice(&self.payload);
        }
        // Frames end a record behind the target: with some room to spare the next one does not grow.
        let room = self.payload.len() + self.payload.len() / 8;
        Bytes::from(std::mem::replace(&mut self.payload, Vec::with_capacity(room)))
    }
}

impl<T: Record> RemoteSender<T> {
    /// Encodes as much of the batch as there is credit for and gives back the rest.
    pub(in crate::exchange) fn try_send(
        &mut self,
        mut batch: Batch<T>,
        bytes: &mut u64,
    ) -> Result<Option<Batch<T>>, Failure> {
        let mut sent = 0;
        while sent < batch.len() {
            let room = self.outbound.room(self.target_bytes)?;
            self.credit = room.credit;
            let Some(target_bytes) = room.frame_bytes else {
                batch.drop_front(sent);
                return Ok(Some(batch));
            };
            let encoded = encode_batch(&batch, sent, target_bytes, &mut self.payload)
                .map_err(|failure| failure.context(format_args!("the channel of {}", self.outbound.id)))?;
            sent += encoded;
            let record_bytes = self.payload.len().div_ceil(encoded.max(1)).max(1);
            self.frame_records = (target_bytes / record_bytes).max(1);
            let payload = self.take_payload();
            let cost = frame_cost(payload.bytes.len());
            *bytes += payload.bytes.len() as u64;
            // The rest of the batch will take about as much for each record.
            let backlog = cost.saturating_mul((batch.len() - sent) as u64) / encoded.max(1) as u64;
            self.outbound.put(|state| {
                state.credit.spend(cost);
                self.credit = state.credit.available();
                state.queue.push_batch((payload, backlog));
            })?;
        }
        batch.clear();
        if batch.capacity() <= MAX_SPARE_RECORDS {
            self.spare = Some(batch);
        }
        Ok(None)
    }
}

impl<T> Drop for RemoteSender<T> {
    fn drop(&mut self) {
        self.close();
    }
}
