//! Tests of the receiving end without a network: frames are handed to the stream one by one.

use std::collections::VecDeque;

use thalweg_common::limits::{FRAME_OVERHEAD_BYTES, MAX_FRAME_BYTES, MAX_FRAME_RECORDS};

use super::super::frame::{encode_event, encode_records};
use super::*;
use crate::event::Barrier;

const ID: ChannelId = ChannelId { edge: 4, from: 5, to: 6 };
const WINDOW_BYTES: u64 = 1_000;

/// Frames that have come, then either nothing for now, or what is at the end.
#[derive(Default)]
struct Wire {
    frames: VecDeque<Result<v1::Frame, Status>>,
    closed: bool,
}

impl Stream for Wire {
    type Item = Result<v1::Frame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.frames.pop_front() {
            None if !self.closed => Poll::Pending,
            frame => Poll::Ready(frame),
        }
    }
}

struct Fixture {
    stream: Option<InboundStream<Wire>>,
    receiver: Option<RemoteReceiver<u64>>,
    next_sequence: u64,
}

impl Fixture {
    /// An open channel whose first grant has been taken.
    fn new() -> Self {
        let inbound = Inbound::for_test(ID, WINDOW_BYTES);
        let receiver = RemoteReceiver::new(Arc::clone(&inbound));
        let stream = InboundStream::new(inbound, "127.0.0.1:9".to_owned(), Wire::default());
        let mut fixture = Self { stream: Some(stream), receiver: Some(receiver), next_sequence: 1 };
        assert_eq!(fixture.answer(), Answer::Grant(WINDOW_BYTES));
        assert_eq!(fixture.answer(), Answer::Pending);
        fixture
    }

    fn stream(&mut self) -> &mut InboundStream<Wire> {
        self.stream.as_mut().expect("still open")
    }

    fn push(&mut self, message: frame::Message) {
        let frame = v1::Frame { sequence: self.next_sequence, message: Some(message), backlog: 0 };
        self.next_sequence += 1;
        self.stream().frames.frames.push_back(Ok(frame));
    }

    fn push_records(&mut self, records: &[u64]) {
        let mut payload = Vec::new();
        assert_eq!(encode_records(records, usize::MAX, &mut payload), Ok(records.len()));
        self.push(frame::Message::Data(payload.into()));
    }

    fn push_event(&mut self, event: Event) {
        self.push(frame::Message::Event(encode_event(event).into()));
    }

    /// Lets the connection work until it has something to say to the sender, or nothing to do.
    fn answer(&mut self) -> Answer {
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(self.stream()).poll_next(&mut context) {
            Poll::Pending => Answer::Pending,
            Poll::Ready(None) => Answer::End,
            Poll::Ready(Some(Ok(grant))) => Answer::Grant(grant.bytes),
            Poll::Ready(Some(Err(status))) => Answer::Refused(status.message().to_owned()),
        }
    }

    fn poll(&mut self) -> Result<Option<Message<Batch<u64>>>, Failure> {
        self.receiver.as_mut().expect("still there").poll(&mut Batch::default(), &mut 0)
    }

    /// The connection finds a broken protocol: sender and receiver hear the same.
    fn expect_violation(mut self, text: &str) {
        let Answer::Refused(message) = self.answer() else { panic!("`{text}` was accepted") };
        let failure = self.poll().expect_err("the receiver fails");
        assert_eq!(failure.message, message);
        assert_eq!(failure.fault, Fault::Internal);
        assert!(message.contains("edge 4 from subtask 5 to subtask 6"), "{message}");
        assert!(message.contains(text), "{message} does not say `{text}`");
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Pending,
    End,
    Grant(u64),
    Refused(String),
}

fn barrier(id: u64) -> Event {
    Event::Barrier(Barrier { id, timestamp_ms: 0, is_final: false, is_savepoint: false })
}

#[test]
fn frames_arrive_in_order_and_credit_goes_back_on_hand_over() {
    let mut fixture = Fixture::new();
    fixture.push_records(&[1, 2]);
    fixture.push_event(barrier(1));
    fixture.push_records(&[3; 20]);
    assert_eq!(fixture.answer(), Answer::Pending, "nothing was handed over");
    assert_eq!(fixture.poll(), Ok(Some(Message::Batch(Batch::from(vec![1, 2])))));
    assert_eq!(fixture.answer(), Answer::Pending, "too little for a grant");
    assert_eq!(fixture.poll(), Ok(Some(Message::Event(barrier(1)))));
    assert_eq!(fixture.poll(), Ok(Some(Message::Batch(Batch::from(vec![3; 20])))));
    let cost = 4 + 2 * 8 + 4 + 20 * 8 + 2 * FRAME_OVERHEAD_BYTES as u64;
    assert_eq!(fixture.answer(), Answer::Grant(cost));
    assert_eq!(fixture.answer(), Answer::Pending);
    assert_eq!(fixture.poll(), Ok(None));
}

#[test]
fn a_gap_is_found() {
    let mut fixture = Fixture::new();
    fixture.push_records(&[1]);
    fixture.next_sequence += 1;
    fixture.push_records(&[2]);
    fixture.expect_violation("frame 3 came where frame 2 was due");
}

#[test]
fn a_repeated_frame_is_found() {
    let mut fixture = Fixture::new();
    fixture.push_records(&[1]);
    fixture.next_sequence -= 1;
    fixture.push_records(&[1]);
    fixture.expect_violation("frame 1 came where frame 2 was due");
}

#[test]
fn a_sender_without_credit_is_found() {
    let mut fixture = Fixture::new();
    fixture.push_records(&[1; 200]);
    assert_eq!(fixture.answer(), Answer::Pending, "one frame may overdraw the credit");
    fixture.push_event(barrier(1));
    assert_eq!(fixture.answer(), Answer::Pending, "an event costs nothing");
    fixture.push_records(&[2]);
    fixture.expect_violation("without credit (668 bytes overdrawn)");
}

#[test]
fn rubbish_is_found() {
    let mut fixture = Fixture::new();
    fixture.push(frame::Message::Event(vec![200; 3].into()));
    fixture.expect_violation("cannot decode");

    let mut fixture = Fixture::new();
    fixture.push(frame::Message::Open(v1::OpenChannel::default()));
    fixture.expect_violation("opened a second time");

    let mut fixture = Fixture::new();
    let frame = v1::Frame { sequence: 1, message: None, backlog: 0 };
    fixture.stream().frames.frames.push_back(Ok(frame));
    fixture.expect_violation("unknown kind");

    let mut fixture = Fixture::new();
    fixture.push(frame::Message::Data(vec![0; MAX_FRAME_BYTES + 1].into()));
    fixture.expect_violation("a frame of 16777217 bytes came, the limit is 16777216");
}

#[test]
fn a_damaged_batch_fails_the_task_that_reads_it() {
    for payload in [vec![], vec![1, 0, 0, 0], vec![1, 0, 0, 0, 9, 9], vec![0, 0, 0, 0, 9], vec![255; 12]] {
        let mut fixture = Fixture::new();
        fixture.push(frame::Message::Data(payload.clone().into()));
        assert_eq!(fixture.answer(), Answer::Pending);
        let failure = fixture.poll().expect_err("not a batch");
        assert!(failure.message.contains("damaged frame"), "{payload:?}: {failure}");
        assert!(failure.message.contains("edge 4 from subtask 5 to subtask 6"), "{payload:?}: {failure}");
    }
    const { assert!(MAX_FRAME_RECORDS < u32::MAX as usize) };
}

#[test]
fn only_barriers_may_follow_the_end() {
    for message in [
        frame::Message::Data(vec![0; 4].into()),
        frame::Message::Event(encode_event(Event::EndOfInput).into()),
    ] {
        let mut fixture = Fixture::new();
        fixture.push_event(Event::EndOfInput);
        fixture.push_event(barrier(1));
        assert_eq!(fixture.answer(), Answer::Pending);
        fixture.push(message);
        fixture.expect_violation("after the end of its input");
    }
}

#[test]
fn a_stream_that_ends_too_early_is_a_failure() {
    let mut fixture = Fixture::new();
    fixture.push_records(&[1]);
    fixture.stream().frames.closed = true;
    assert_eq!(fixture.answer(), Answer::End);
    let failure = fixture.poll().expect_err("no end marker");
    assert!(failure.message.contains("closed without an end marker"), "{failure}");

    let mut fixture = Fixture::new();
    fixture.stream().frames.frames.push_back(Err(Status::unknown("h2 protocol error: connection reset")));
    assert_eq!(fixture.answer(), Answer::End);
    let failure = fixture.poll().expect_err("lost");
    assert!(failure.message.contains("127.0.0.1:9 failed: h2 protocol error: connection reset"), "{failure}");

    let mut fixture = Fixture::new();
    fixture.stream = None;
    let failure = fixture.poll().expect_err("lost");
    assert!(
        failure.message.contains("Connection unexpectedly closed by remote task manager '127.0.0.1:9'"),
        "{failure}"
    );
}

#[test]
fn a_stream_that_ends_after_the_end_marker_is_none() {
    let mut fixture = Fixture::new();
    fixture.push_records(&[1]);
    fixture.push_event(Event::EndOfInput);
    fixture.stream().frames.closed = true;
    assert_eq!(fixture.answer(), Answer::End);
    fixture.stream = None;
    assert_eq!(fixture.poll(), Ok(Some(Message::Batch(Batch::from(vec![1])))));
    assert_eq!(fixture.poll(), Ok(Some(Message::Event(Event::EndOfInput))));
    assert_eq!(fixture.poll(), Ok(None));
}

#[test]
fn a_receiver_that_goes_tells_the_sender() {
    let mut fixture = Fixture::new();
    fixture.push_records(&[1]);
    assert_eq!(fixture.answer(), Answer::Pending);
    fixture.receiver = None;
    let Answer::Refused(message) = fixture.answer() else { panic!("the sender is not told") };
    assert!(message.contains("look at that task's failure"), "{message}");

    let mut fixture = Fixture::new();
    fixture.push_event(Event::EndOfInput);
    assert_eq!(fixture.answer(), Answer::Pending);
    fixture.receiver = None;
    assert_eq!(fixture.answer(), Answer::End, "after the end of input this is how a channel closes");
}
