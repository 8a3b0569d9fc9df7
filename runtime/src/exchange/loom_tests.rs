//! The local channel and the ready bits under loom: every interleaving of small threads, with the reorderings that the memory
//! model allows.
//!
//! The very files are compiled a second time, with loom's atomics and locks. The ring is a model: two counters, with the
//! orderings of the real one, around cells that loom does not look at.

use loom::model::Builder;
use loom::sync::Arc;
use thalweg_common::id::ChannelId;

use self::local::{LocalReceiver, LocalSender, Room, channel as local_channel};
use self::ready::{ChannelSet, ReadySet};
use self::waker::Parker;
use super::queue::Message;
use super::{channel, queue, traffic};
use crate::batch::Batch;
use crate::event::{Barrier, Event};

#[path = "local.rs"]
#[allow(
    clippy::duplicate_mod,
    dead_code,
    reason = "on purpose; and the models need only the part that orders"
)]
mod local;
#[path = "ready.rs"]
#[allow(
    clippy::duplicate_mod,
    dead_code,
    reason = "on purpose; and the models need only the part that orders"
)]
mod ready;

mod memory {
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
    pub(super) use loom::sync::{Mutex, MutexGuard};

    /// Has the orderings of the standard one.
    pub(super) struct OnceLock<T> {
        is_set: AtomicBool,
        value: std::sync::OnceLock<T>,
    }

    impl<T> OnceLock<T> {
        pub(super) fn new() -> Self {
            Self { is_set: AtomicBool::new(false), value: std::sync::OnceLock::new() }
        }

        pub(super) fn set(&self, value: T) -> Result<(), T> {
            self.value.set(value)?;
            self.is_set.store(true, Ordering::Release);
            Ok(())
        }

        pub(super) fn get(&self) -> Option<&T> {
            if self.is_set.load(Ordering::Acquire) { self.value.get() } else { None }
        }
    }
}

mod waker {
    use loom::sync::{Arc, Notify};

    /// Sleeps without a timeout, so a lost wake-up is a deadlock, which loom reports.
    #[derive(Clone)]
    pub(super) struct Parker(Arc<Notify>);

    #[derive(Clone)]
    pub(super) struct TaskWaker(Arc<Notify>);

    impl Parker {
        pub(super) fn new() -> (Self, TaskWaker) {
            let notify = Arc::new(Notify::new());
            (Self(Arc::clone(&notify)), TaskWaker(notify))
        }

        pub(super) fn park(&self) {
            self.0.wait();
        }
    }

    impl TaskWaker {
        pub(super) fn wake(&self) {
            self.0.notify();
        }
    }
}

mod ring {
    use std::sync::{Arc, Mutex};

    use loom::sync::atomic::{AtomicUsize, Ordering};

    pub(super) struct RingBuffer<T> {
        /// What was taken and what was put in, ever.
        head: AtomicUsize,
        tail: AtomicUsize,
        cells: Vec<Mutex<Option<T>>>,
    }

    #[derive(Debug)]
    pub(super) enum PushError<T> {
        Full(T),
    }

    pub(super) struct Producer<T>(Arc<RingBuffer<T>>);

    pub(super) struct Consumer<T>(Arc<RingBuffer<T>>);

    impl<T> RingBuffer<T> {
        #[expect(clippy::new_ret_no_self, reason = "as in the real one")]
        pub(super) fn new(capacity: usize) -> (Producer<T>, Consumer<T>) {
            let cells = (0..capacity).map(|_| Mutex::new(None)).collect();
            let ring = Arc::new(Self { head: AtomicUsize::new(0), tail: AtomicUsize::new(0), cells });
            (Producer(Arc::clone(&ring)), Consumer(ring))
        }

        fn cell(&self, position: usize) -> std::sync::MutexGuard<'_, Option<T>> {
            self.cells[position % self.cells.len()].lock().unwrap()
        }
    }

    impl<T> Producer<T> {
        pub(super) fn push(&mut self, value: T) -> Result<(), PushError<T>> {
            if self.slots() == 0 {
                return Err(PushError::Full(value));
            }
            let tail = self.0.tail.load(Ordering::Relaxed);
            let before = self.0.cell(tail).replace(value);
            assert!(before.is_none(), "a message was overwritten");
            self.0.tail.store(tail + 1, Ordering::Release);
            Ok(())
        }

        pub(super) fn slots(&self) -> usize {
            let head = self.0.head.load(Ordering::Acquire);
            self.0.cells.len() - (self.0.tail.load(Ordering::Relaxed) - head)
        }

        /// The worst that the real one may know.
        pub(super) fn cached_slots(&self) -> usize {
            0
        }
    }

    impl<T> Consumer<T> {
        pub(super) fn pop(&mut self) -> Result<T, ()> {
            if self.slots() == 0 {
                return Err(());
            }
            let head = self.0.head.load(Ordering::Relaxed);
            let value = self.0.cell(head).take().expect("what is counted is there");
            self.0.head.store(head + 1, Ordering::Release);
            Ok(value)
        }

        pub(super) fn slots(&self) -> usize {
            let tail = self.0.tail.load(Ordering::Acquire);
            tail - self.0.head.load(Ordering::Relaxed)
        }
    }

    pub(super) fn look_at<T>(ring: &mut Consumer<T>, mut look: impl FnMut(&T) -> bool) -> bool {
        let slots = ring.slots();
        let head = ring.0.head.load(Ordering::Relaxed);
        (head..head + slots)
            .all(|position| look(ring.0.cell(position).as_ref().expect("what is counted is there")))
    }
}

const ID: ChannelId = ChannelId { edge: 0, from: 0, to: 0 };

/// Runs the model in all ways in which at most this often a thread is interrupted where it could go on.
fn check(interruptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(interruptions);
    builder.check(model);
}

fn batch(number: u64) -> Batch<u64> {
    Batch::from(vec![number])
}

fn barrier(id: u64) -> Event {
    Event::Barrier(Barrier { id, timestamp_ms: 0, is_final: false, is_savepoint: false })
}

/// Sends a batch, however often that takes. False if the receiver is gone.
fn send(sender: &mut LocalSender<u64>, parker: &Parker, number: u64) -> bool {
    let mut rest = Some(batch(number));
    while let Some(batch) = rest {
        rest = match sender.try_send(batch) {
            Ok(rest) => rest,
            Err(_) => return false,
        };
        if rest.is_some() {
            parker.park();
        }
    }
    true
}

/// A gate of one channel: so many messages or a failure, sleeping when there is nothing.
struct Gate {
    receiver: LocalReceiver<u64>,
    arrivals: std::sync::Arc<ReadySet>,
    ready: ChannelSet,
    parker: Parker,
}

impl Gate {
    fn new(receiver: LocalReceiver<u64>) -> Self {
        let (parker, waker) = Parker::new();
        let arrivals = ReadySet::new(1, waker);
        receiver.attach(arrivals.signal(0));
        Self { receiver, arrivals, ready: ChannelSet::all(1), parker }
    }

    fn read(&mut self, count: usize) -> Result<Vec<Message<Batch<u64>>>, ()> {
        let mut messages = Vec::new();
        let none = ChannelSet::new(1);
        loop {
            if self.arrivals.take_alarms().has_failure() {
                self.receiver.check().map_err(drop)?;
            }
            self.arrivals.take(&mut self.ready, &none);
            if self.ready.next_from(0, &none).is_none() {
                self.parker.park();
                continue;
            }
            match self.receiver.poll().map_err(drop)? {
                None => self.ready.remove(0),
                Some(message) => {
                    messages.push(message);
                    if messages.len() == count {
                        return Ok(messages);
                    }
                }
            }
        }
    }
}

/// Room for so little that the sender is refused and its events are late.
const TINY: Room = Room { batches: 1, events: 0 };

#[test]
fn a_refused_sender_is_woken_when_there_is_room() {
    check(2, || {
        let (mut sender, receiver) = local_channel(ID, TINY);
        let mut gate = Gate::new(receiver);
        let sending = loom::thread::spawn(move || {
            let (parker, waker) = Parker::new();
            sender.set_waker(waker);
            assert!((1..=2).all(|number| send(&mut sender, &parker, number)));
            sender
        });
        assert_eq!(gate.read(2), Ok(vec![Message::Batch(batch(1)), Message::Batch(batch(2))]));
        sending.join().unwrap();
    });
}

#[test]
fn nothing_overtakes_a_late_event() {
    check(2, || {
        let (mut sender, receiver) = local_channel(ID, TINY);
        let mut gate = Gate::new(receiver);
        let sending = loom::thread::spawn(move || {
            assert_eq!(sender.try_send(batch(1)), Ok(None));
            sender.send_event(barrier(1)).unwrap();
            sender.send_event(Event::EndOfInput).unwrap();
        });
        let barrier = Message::Event(barrier(1));
        let expected = vec![Message::Batch(batch(1)), barrier, Message::Event(Event::EndOfInput)];
        assert_eq!(gate.read(3), Ok(expected));
        sending.join().unwrap();
    });
}

/// What is in front of a barrier, as soon as the gate can know of the barrier. Nothing is taken out.
fn seen(mut gate: Gate) -> Vec<Message<Batch<u64>>> {
    let mut barriers = ChannelSet::all(1);
    loop {
        if gate.arrivals.take_alarms().has_barrier() {
            gate.arrivals.take_barriers(&mut barriers);
        }
        let mut in_front = Vec::new();
        if barriers.contains(0) {
            barriers.remove(0);
            let mut has_come = false;
            gate.receiver.look(|message| {
                has_come = matches!(message, Message::Event(Event::Barrier(_)));
                if let Message::Batch(batch) = message {
                    in_front.push(Message::Batch(batch.clone()));
                }
                !has_come
            });
            if has_come {
                return in_front;
            }
        }
        gate.parker.park();
    }
}

#[test]
fn a_barrier_is_seen_before_its_turn_with_all_that_is_in_front_of_it() {
    // In the ring, and behind it.
    for room in [TINY, Room { batches: 2, events: 1 }] {
        check(2, move || {
            let (mut sender, receiver) = local_channel(ID, room);
            let gate = Gate::new(receiver);
            let sending = loom::thread::spawn(move || {
                assert_eq!(sender.try_send(batch(1)), Ok(None));
                sender.send_event(barrier(1)).unwrap();
                // Behind the barrier: not to be seen.
                let _ = sender.try_send(batch(2));
                sender
            });
            assert_eq!(seen(gate), [Message::Batch(batch(1))]);
            sending.join().unwrap();
        });
    }
}

#[test]
fn a_gate_that_comes_while_a_barrier_does_sees_it() {
    check(2, || {
        let (mut sender, receiver) = local_channel(ID, TINY);
        let sending = loom::thread::spawn(move || {
            assert_eq!(sender.try_send(batch(1)), Ok(None));
            sender.send_event(barrier(1)).unwrap();
            sender
        });
        assert_eq!(seen(Gate::new(receiver)), [Message::Batch(batch(1))]);
        sending.join().unwrap();
    });
}

#[test]
fn a_late_event_keeps_batches_back_and_lets_them_go() {
    check(2, || {
        let (mut sender, receiver) = local_channel(ID, TINY);
        let mut gate = Gate::new(receiver);
        let (parker, waker) = Parker::new();
        sender.set_waker(waker);
        assert_eq!(sender.try_send(batch(1)), Ok(None));
        sender.send_event(barrier(1)).unwrap();
        let receiving = loom::thread::spawn(move || (gate.read(3), gate));
        assert!(send(&mut sender, &parker, 2));
        let expected = vec![Message::Batch(batch(1)), Message::Event(barrier(1)), Message::Batch(batch(2))];
        assert_eq!(receiving.join().unwrap().0, Ok(expected));
    });
}

#[test]
fn a_gate_that_comes_while_messages_do_finds_all_of_them() {
    check(2, || {
        let (mut sender, receiver) = local_channel(ID, Room { batches: 2, events: 1 });
        let sending = loom::thread::spawn(move || {
            assert_eq!(sender.try_send(batch(1)), Ok(None));
            sender.send_event(Event::EndOfInput).unwrap();
        });
        let expected = vec![Message::Batch(batch(1)), Message::Event(Event::EndOfInput)];
        // Lives until the sender has ended, because loom knows nothing of the order in which clones of an `Arc` are dropped.
        let mut gate = Gate::new(receiver);
        assert_eq!(gate.read(2), Ok(expected));
        sending.join().unwrap();
    });
}

#[test]
fn a_receiver_that_goes_wakes_the_sender_that_waits() {
    check(2, || {
        let (mut sender, receiver) = local_channel(ID, TINY);
        let sending = loom::thread::spawn(move || {
            let (parker, waker) = Parker::new();
            sender.set_waker(waker);
            // The second one may find the room that the receiver makes while it goes, and then knows.
            assert!(!(1..=3).all(|number| send(&mut sender, &parker, number)));
            sender
        });
        drop(receiver);
        sending.join().unwrap();
    });
}

#[test]
fn a_sender_that_goes_without_an_end_is_noticed() {
    check(2, || {
        let (mut sender, receiver) = local_channel(ID, TINY);
        let mut gate = Gate::new(receiver);
        let sending = loom::thread::spawn(move || {
            assert_eq!(sender.try_send(batch(1)), Ok(None));
            drop(sender);
        });
        assert_eq!(gate.read(2), Err(()));
        sending.join().unwrap();
    });
}

#[test]
fn buffers_come_back_whole() {
    check(2, || {
        let (mut sender, mut receiver) = local_channel::<u64>(ID, TINY);
        let receiving = loom::thread::spawn(move || {
            (0..4).for_each(|capacity| receiver.recycle(Batch::with_capacity(capacity + 1)));
        });
        let early = sender.take_spare();
        receiving.join().unwrap();
        let spares: Vec<_> = early.into_iter().chain(std::iter::from_fn(|| sender.take_spare())).collect();
        assert!(spares.len() >= 3 && spares.iter().all(|spare| spare.capacity() > 0));
    });
}

/// Two channels of one gate: a bit that is left set for a channel already known as ready hides nothing.
#[test]
fn ready_bits_hide_no_message() {
    check(2, || {
        let (parker, waker) = Parker::new();
        let arrivals = ReadySet::new(2, waker);
        let queues = Arc::new([(); 2].map(|()| loom::sync::atomic::AtomicUsize::new(0)));
        let sending = [0, 1].map(|channel| {
            let (signal, queues) = (arrivals.signal(channel), Arc::clone(&queues));
            loom::thread::spawn(move || {
                for _ in 0..2 - channel {
                    queues[channel].fetch_add(1, memory::Ordering::Relaxed);
                    signal.raise();
                }
            })
        });
        let (none, mut ready) = (ChannelSet::new(2), ChannelSet::all(2));
        let mut seen = 0;
        while seen < 3 {
            arrivals.take(&mut ready, &none);
            match ready.next_from(0, &none) {
                None => parker.park(),
                Some(channel) => match queues[channel].load(memory::Ordering::Relaxed) {
                    0 => ready.remove(channel),
                    _ => {
                        queues[channel].fetch_sub(1, memory::Ordering::Relaxed);
                        seen += 1;
                    }
                },
            }
        }
        sending.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
