//! Channels inside a process: batches move as they are, nothing is encoded.
//!
//! On a record's way this joins the output of one task to the gate of another one in the same worker. Two rings with one
//! writer and one reader each connect the ends: one for messages, one back for the buffers of batches that were
//! processed, so that a channel in steady use allocates nothing. Handing over a batch takes no lock and waits for nobody.
//!
//! Invariants: at most [`Room::batches`] batches wait; an event takes the place of a batch while it waits, but is never
//! refused: one that finds the ring full goes to a short queue of its own, and until the receiver has emptied that one
//! no message enters the ring, so nothing overtakes; a sender that was refused is woken once half of the room is
//! free, so that the two tasks do not wake each other for every batch. No wake-up is lost: each end first says what it
//! did (waits, is gone, has put in, has taken out) and then, behind a fence, looks at what the other one said, so of two
//! ends that do so at once at least one sees the other.

use std::convert::Infallible;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use thalweg_common::failure::Failure;
use thalweg_common::id::ChannelId;
use thalweg_common::limits::FIRST_BATCH_RECORDS;

use super::channel::{closed_without_end, receiver_gone};
use super::memory::{AtomicBool, AtomicU64, Mutex, MutexGuard, OnceLock, Ordering, fence};
use super::queue::{Message, MessageQueue};
use super::ready::ReadySignal;
use super::ring::{Consumer, Producer, PushError, RingBuffer, look_at};
use super::traffic::Queue;
use super::waker::TaskWaker;
use crate::batch::Batch;
use crate::event::Event;
use crate::exchange::Note;

/// Buffers beside those that wait in a full channel: one is being filled, one is being processed.
const BUFFERS_IN_USE: usize = 2;

/// How much a channel holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Batches, from one.
    pub(super) batches: usize,
    /// Events behind them, before they take the slower way.
    pub(super) events: usize,
}

/// What both ends see. Written rarely, but for the two counts, which have cache lines of their own.
struct Shared {
    id: ChannelId,
    /// The sender was refused and waits for room.
    sender_waits: AtomicBool,
    receiver_gone: AtomicBool,
    /// The sender was closed without an end of input.
    broken: AtomicBool,
    /// Whether there is something in `late`: set by the sender, cleared by the receiver.
    has_late: AtomicBool,
    /// Events that found the ring full.
    late: Mutex<MessageQueue<Infallible>>,
    signal: OnceLock<ReadySignal>,
    sender: OnceLock<TaskWaker>,
    sent: Count,
    taken: Count,
    /// What the receiver says.
    note: Note,
}

/// Messages so far, written by one end only.
#[repr(align(128))]
struct Count(AtomicU64);

/// The sending end.
pub(super) struct LocalSender<T> {
    shared: Arc<Shared>,
    messages: Producer<Message<Batch<T>>>,
    spares: Consumer<Batch<T>>,
    room: Room,
    /// The end of input was sent.
    has_ended: bool,
}

/// The receiving end.
pub(super) struct LocalReceiver<T> {
    shared: Arc<Shared>,
    messages: Consumer<Message<Batch<T>>>,
    spares: Producer<Batch<T>>,
    room: Room,
}

/// A channel inside this process.
pub(super) fn channel<T>(id: ChannelId, room: Room) -> (LocalSender<T>, LocalReceiver<T>) {
    let shared = Arc::new(Shared {
        id,
        sender_waits: AtomicBool::new(false),
        receiver_gone: AtomicBool::new(false),
        broken: AtomicBool::new(false),
        has_late: AtomicBool::new(false),
        late: Mutex::new(MessageQueue::new()),
        signal: OnceLock::new(),
        sender: OnceLock::new(),
        sent: Count(AtomicU64::new(0)),
        taken: Count(AtomicU64::new(0)),
        note: Note::default(),
    });
    let (message_sender, message_receiver) = RingBuffer::new(room.batches + room.events);
    let (spare_sender, spare_receiver) = RingBuffer::new(room.batches + BUFFERS_IN_USE);
    let sender = LocalSender {
        shared: Arc::clone(&shared),
        messages: message_sender,
        spares: spare_receiver,
        room,
        has_ended: false,
    };
    (sender, LocalReceiver { shared, messages: message_receiver, spares: spare_sender, room })
}

impl<T> LocalSender<T> {
    /// Says whom to wake when there is room again. Must be called before the first batch; a second call has no effect.
    pub(super) fn set_waker(&mut self, waker: TaskWaker) {
        // An output that was given a waker keeps it for its life.
        let _ = self.shared.sender.set(waker);
    }

    /// Appends a batch, or gives it back if there is no room.
    pub(super) fn try_send(&mut self, batch: Batch<T>) -> Result<Option<Batch<T>>, Failure> {
        self.check_receiver()?;
        if !self.has_room() {
            self.shared.sender_waits.store(true, Ordering::Relaxed);
            // Pairs with the fences of the receiver: either it sees the flag, or its last step is seen here.
            fence(Ordering::SeqCst);
            self.check_receiver()?;
            if !self.has_room() {
                return Ok(Some(batch));
            }
            self.shared.sender_waits.store(false, Ordering::Relaxed);
        }
        if let Err(PushError::Full(Message::Batch(batch))) = self.messages.push(Message::Batch(batch)) {
            return Ok(Some(batch));
        }
        self.announce();
        Ok(None)
    }

    /// Appends an event, whether there is room or not.
    pub(super) fn send_event(&mut self, event: Event) -> Result<(), Failure> {
        self.check_receiver()?;
        // Acquire: what was late has been taken before anything that is put into the ring from here on.
        let is_late = self.shared.has_late.load(Ordering::Acquire)
            || self.messages.push(Message::Event(event)).is_err();
        if is_late {
            let mut late = self.shared.late();
            late.push_event(event);
            // Release: whoever sees the flag sees everything that was put into the ring before.
            self.shared.has_late.store(true, Ordering::Release);
        }
        self.has_ended |= event == Event::EndOfInput;
        self.announce();
        if matches!(event, Event::Barrier(_))
            && let Some(signal) = self.signal()
        {
            signal.announce();
        }
        Ok(())
    }

    /// How many records a batch may hold, as the receiving task gets through them.
    pub(super) fn batch_records(&self) -> usize {
        // Without a gate yet nothing is known.
        self.shared.signal.get().map_or(FIRST_BATCH_RECORDS, ReadySignal::batch_records)
    }

    /// An emptied buffer that has come back.
    pub(super) fn take_spare(&mut self) -> Option<Batch<T>> {
        self.spares.pop().ok()
    }

    /// Sends nothing more. What was sent still arrives.
    pub(super) fn close(&mut self) {
        if self.has_ended || self.shared.receiver_gone.load(Ordering::Relaxed) {
            return;
        }
        let was_broken = self.shared.broken.swap(true, Ordering::AcqRel);
        if !was_broken && let Some(signal) = self.signal() {
            signal.fail();
        }
    }

    /// Where the receiver's notes are.
    pub(super) fn note(&self) -> Note {
        self.shared.note.clone()
    }

    fn check_receiver(&self) -> Result<(), Failure> {
        let is_gone = self.shared.receiver_gone.load(Ordering::Relaxed);
        if is_gone { Err(receiver_gone(self.shared.id)) } else { Ok(()) }
    }

    fn has_room(&self) -> bool {
        let events = self.room.events;
        // The cached number is a lower bound and costs no look at the receiver's side.
        let is_free = self.messages.cached_slots() > events || self.messages.slots() > events;
        is_free && !self.shared.has_late.load(Ordering::Acquire)
    }

    /// Counts a message that was put in and tells the gate about it.
    fn announce(&self) {
        self.shared.sent.increment();
        if let Some(signal) = self.signal() {
            signal.raise();
        }
    }

    /// Without a gate yet, nothing: it looks at every channel once it is there, and then finds what was done before.
    fn signal(&self) -> Option<&ReadySignal> {
        self.shared.signal.get().or_else(|| {
            // Pairs with the fence of `attach`.
            fence(Ordering::SeqCst);
            self.shared.signal.get()
        })
    }
}

impl<T> Drop for LocalSender<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> LocalReceiver<T> {
    pub(super) fn id(&self) -> ChannelId {
        self.shared.id
    }

    /// Tells the sending end whom to wake. Must be called before the first poll; a second call has no effect.
    pub(super) fn attach(&self, signal: ReadySignal) {
        // A gate takes a receiver by value, so there is never a second one.
        let _ = self.shared.signal.set(signal);
        fence(Ordering::SeqCst);
    }

    /// Takes the oldest message.
    pub(super) fn poll(&mut self) -> Result<Option<Message<Batch<T>>>, Failure> {
        self.check()?;
        let message = self.messages.pop().ok().or_else(|| self.pop_late());
        if message.is_some() {
            self.shared.taken.increment();
            self.tell_of_room();
        }
        Ok(message)
    }

    /// Looks at what waits, oldest first, as long as `look` wants to see more. Nothing is taken out.
    pub(super) fn look(&mut self, mut look: impl FnMut(&Message<Batch<T>>) -> bool) {
        // Acquire, and first: when something is late, all that was sent before it is in the ring.
        let has_late = self.shared.has_late.load(Ordering::Acquire);
        if look_at(&mut self.messages, &mut look) && has_late {
            let late = self.shared.late();
            let events = late.iter().map(|message| match message {
                Message::Event(event) => Message::Event(*event),
                Message::Batch(never) => match *never {},
            });
            events.into_iter().all(|event| look(&event));
        }
    }

    /// Gives an emptied buffer back to the sender.
    pub(super) fn recycle(&mut self, buffer: Batch<T>) {
        // More than ever are in use at once come back only after the sender had to keep some: they are freed.
        let _ = self.spares.push(buffer);
    }

    /// Fails if the channel has failed.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let is_broken = self.shared.broken.load(Ordering::Acquire);
        if is_broken { Err(closed_without_end(self.shared.id)) } else { Ok(()) }
    }

    /// Where others can read how much waits.
    pub(super) fn queue(&self) -> Arc<dyn Queue> {
        Arc::clone(&self.shared) as Arc<dyn Queue>
    }

    /// Leaves a note for the sender, whose task is woken.
    pub(super) fn write_note(&self, note: Bytes) {
        self.shared.note.write(note);
        if let Some(sender) = self.shared.sender.get() {
            sender.wake();
        }
    }

    fn pop_late(&mut self) -> Option<Message<Batch<T>>> {
        if !self.shared.has_late.load(Ordering::Acquire) {
            return None;
        }
        // What was sent before the late events is in the ring by now, and comes first.
        if let Ok(message) = self.messages.pop() {
            return Some(message);
        }
        let mut late = self.shared.late();
        let message = late.pop();
        if late.is_empty() {
            self.shared.has_late.store(false, Ordering::Release);
        }
        match message? {
            Message::Event(event) => Some(Message::Event(event)),
            Message::Batch(never) => match never {},
        }
    }

    /// Wakes the sender if it waits and half of the room is free.
    fn tell_of_room(&self) {
        let shared = &self.shared;
        fence(Ordering::SeqCst);
        if shared.sender_waits.load(Ordering::Relaxed)
            && self.messages.slots() <= self.room.batches / 2
            && !shared.has_late.load(Ordering::Relaxed)
            && shared.sender_waits.swap(false, Ordering::Relaxed)
            && let Some(sender) = shared.sender.get()
        {
            sender.wake();
        }
    }
}

impl<T> Drop for LocalReceiver<T> {
    fn drop(&mut self) {
        self.shared.receiver_gone.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        // It may wait for room that never comes.
        if let Some(sender) = self.shared.sender.get() {
            sender.wake();
        }
        while self.messages.pop().is_ok() {}
    }
}

impl Shared {
    /// The late events. They are whole whenever they are unlocked, so a panic elsewhere does not spoil them.
    fn late(&self) -> MutexGuard<'_, MessageQueue<Infallible>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue for Shared {
    fn len(&self) -> u64 {
        // In this order, because the receiver never takes more than was sent.
        let taken = self.taken.0.load(Ordering::Relaxed);
        self.sent.0.load(Ordering::Relaxed).saturating_sub(taken)
    }
}

impl Count {
    /// Only one thread calls this, so it needs no atomic addition.
    fn increment(&self) {
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}
