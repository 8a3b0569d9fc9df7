//! Peers that send rubbish to a real exchange, from bytes that are no HTTP/2 to frames that are almost right: their channel
//! or connection fails and says why, and another channel of the same server goes on unharmed. Deterministic.

use std::time::Duration;

use crate::support::*;
use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use thalweg_common::failure::Fault;
use thalweg_common::limits::MAX_FRAME_BYTES;
use thalweg_proto::v1::exchange_service_client::ExchangeServiceClient;
use thalweg_proto::v1::{self, Frame, frame};
use thalweg_runtime::event::Event;
use thalweg_runtime::exchange::{ExchangeSettings, InputGate, Sender, TaskParker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// What a channel may hold here: less than some of the frames below.
const WINDOW_BYTES: u64 = 4_096;

type Record = (u64, String);

fn settings() -> ExchangeSettings {
    ExchangeSettings {
        channel_credit_bytes: WINDOW_BYTES,
        floating_credit_bytes: 0,
        debloat_target: None,
        ..ExchangeSettings::default()
    }
}

/// The same values in every run.
fn samples<S: Strategy>(seed: u8, count: usize, strategy: &S) -> Vec<S::Value> {
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// A channel that works, and is used again and again between the attacks.
struct Bystander {
    sender: Sender<Record>,
    sender_parker: TaskParker,
    gate: InputGate<Record>,
    parker: TaskParker,
    next: u64,
}

impl Bystander {
    async fn new(pair: &Pair) -> Self {
        let (mut sender, receiver) = pair.channel::<Record>(u32::MAX).await;
        let sender_parker = TaskParker::new();
        sender.set_waker(sender_parker.waker());
        let (gate, parker) = gate(receiver);
        Self { sender, sender_parker, gate, parker, next: 0 }
    }

    /// Records go through, in order and complete.
    fn work(&mut self) {
        let batch: Vec<Record> = (0..10).map(|index| (self.next + index, "x".repeat(20))).collect();
        send(&mut self.sender, &mut self.sender_parker, batch).unwrap();
        let end = self.next + 10;
        while self.next < end {
            let thalweg_runtime::exchange::Input::Batch(batch) =
                next(&mut self.gate, &mut self.parker).unwrap()
            else {
                panic!("only batches were sent")
            };
            for (number, text) in batch.into_parts().0 {
                assert_eq!((number, text.len()), (self.next, 20));
                self.next += 1;
            }
        }
    }
}

async fn connect(pair: &Pair) -> Channel {
    Channel::from_shared(format!("http://{}", pair.address())).unwrap().connect().await.unwrap()
}

fn open_frame(to: u32) -> Frame {
    let message = frame::Message::Open(v1::OpenChannel::from(open(to)));
    Frame { sequence: 0, message: Some(message), backlog: 0 }
}

/// Sends these frames behind one that opens the channel, then `hangs_up` or waits. Returns how the receiver ends it.
async fn attack(connection: Channel, to: u32, frames: Vec<Frame>, hangs_up: bool) -> Option<Status> {
    let (sender, stream) = mpsc::channel(frames.len() + 1);
    sender.send(open_frame(to)).await.unwrap();
    for frame in frames {
        sender.send(frame).await.unwrap();
    }
    let kept_open = Some(sender).filter(|_| !hangs_up);
    let wait = async {
        let mut grants = match ExchangeServiceClient::new(connection).open(ReceiverStream::new(stream)).await
        {
            Ok(grants) => grants.into_inner(),
            Err(status) => return Some(status),
        };
        loop {
            match grants.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    };
    let end = tokio::time::timeout(DEADLINE, wait).await.expect("the receiver ends the channel");
    drop(kept_open);
    end
}

/// A payload, sometimes whole, mostly damaged.
fn payloads() -> impl Strategy<Value = Vec<u8>> {
    let noise = proptest::collection::vec(any::<u8>(), 0..300);
    let records = (0u32..5, proptest::collection::vec(any::<u8>(), 0..100)).prop_map(|(count, text)| {
        let mut payload = count.to_le_bytes().to_vec();
        for number in 0..count {
            payload.extend_from_slice(&u64::from(number).to_le_bytes());
            payload.extend_from_slice(&(text.len() as u64).to_le_bytes());
            payload.extend_from_slice(&text);
        }
        payload
    });
    let cut = (records.clone(), 0usize..200).prop_map(|(mut payload, length)| {
        payload.truncate(length);
        payload
    });
    prop_oneof![noise, records, cut, Just(vec![0; 2 * WINDOW_BYTES as usize])]
}

fn messages() -> impl Strategy<Value = Option<frame::Message>> {
    let data = payloads().prop_map(|payload| Some(frame::Message::Data(payload.into())));
    let lz4 = (any::<u32>(), payloads()).prop_map(|(claimed, payload)| {
        let payload = [&claimed.to_le_bytes()[..], &payload].concat();
        Some(frame::Message::Lz4Data(payload.into()))
    });
    let event = proptest::collection::vec(any::<u8>(), 0..30)
        .prop_map(|payload| Some(frame::Message::Event(payload.into())));
    let open = Just(Some(frame::Message::Open(v1::OpenChannel::default())));
    prop_oneof![4 => data, 3 => lz4, 2 => event, 1 => open, 1 => Just(None)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_frames_fail_their_channel_and_no_other() {
    const CHANNELS: usize = 200;
    let pair = Pair::start(settings()).await;
    let mut bystander = Bystander::new(&pair).await;
    let connection = connect(&pair).await;
    // A jump in the sequence now and then; else the frames count as they should.
    let frames = proptest::collection::vec((0u64..10, messages(), any::<u64>()), 0..6);
    for (to, frames) in (0u32..).zip(samples(1, CHANNELS, &frames)) {
        let receiver = pair.server.register::<Record>(0, channel(to)).unwrap();
        let mut sequence = 0;
        let number = |(jump, message, backlog)| {
            sequence += if jump == 0 { 2 } else { 1 };
            Frame { sequence, message, backlog }
        };
        let frames: Vec<_> = frames.into_iter().map(number).collect();
        let described = format!("{frames:?}");
        let (status, result) = tokio::join!(
            attack(connection.clone(), to, frames, true),
            on_thread(&pair.scope, move || receive_all(receiver)),
        );
        // Rubbish that is an end of input by chance is one; everything else fails, and both ends are told.
        if let Err(failure) = result {
            assert!(failure.message.contains(&channel(to).to_string()), "{failure}: {described}");
            if let Some(status) = status {
                let codes = [Code::Internal, Code::Aborted];
                assert!(codes.contains(&status.code()), "{status}: {described}");
            }
        }
        bystander.work();
    }
    drop(bystander);
    pair.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_damage_has_its_message() {
    let pair = Pair::start(settings()).await;
    let mut bystander = Bystander::new(&pair).await;
    let connection = connect(&pair).await;
    let frame = |sequence, message| Frame { sequence, message: Some(message), backlog: 0 };
    let data = |payload: Vec<u8>| frame::Message::Data(payload.into());
    let lz4 = |claimed: u32, block: &[u8]| {
        frame::Message::Lz4Data(Bytes::from([&claimed.to_le_bytes()[..], block].concat()))
    };
    let table = [
        (vec![frame(1, lz4(MAX_FRAME_BYTES as u32 + 1, &[1; 100]))], "the limit is 16777216"),
        (vec![frame(1, lz4(1 << 20, &[1; 100]))], "cannot be decompressed"),
        (vec![frame(1, lz4(100, &[0xff; 100]))], "damaged frame: a frame cannot be decompressed"),
        (vec![frame(1, frame::Message::Lz4Data(Bytes::from_static(&[1, 2])))], "it has only 2 bytes"),
        (vec![frame(1, data(vec![1, 0, 0, 0, 7]))], "damaged frame: cannot decode"),
        (vec![frame(2, data(vec![0; 4]))], "frame 2 came where frame 1 was due"),
        (vec![frame(1, data(vec![0; MAX_FRAME_BYTES + 9]))], "the limit is 16777216"),
        (vec![frame(1, data(vec![0; 4])), frame(2, frame::Message::Event(vec![77].into()))], "cannot decode"),
    ];
    for (to, (frames, reason)) in (0u32..).zip(table) {
        let receiver = pair.server.register::<Record>(0, channel(to)).unwrap();
        let (_, result) = tokio::join!(
            attack(connection.clone(), to, frames, false),
            on_thread(&pair.scope, move || receive_all(receiver)),
        );
        let failure = result.unwrap_err();
        assert_eq!(failure.fault, Fault::Internal, "{failure}");
        assert!(failure.message.contains(reason), "{failure} does not say `{reason}`");
        bystander.work();
    }
    bystander.sender.send_event(Event::EndOfInput).unwrap();
    drop(bystander);
    pair.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_http2_end_their_connection_and_no_other() {
    const CONNECTIONS: usize = 50;
    let pair = Pair::start(settings()).await;
    let mut bystander = Bystander::new(&pair).await;
    // Half of them begin as a client does.
    let preface = prop_oneof![Just(&b""[..]), Just(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..])];
    let rubbish = (preface, proptest::collection::vec(any::<u8>(), 1..2_000));
    for (preface, noise) in samples(2, CONNECTIONS, &rubbish) {
        let mut stream = TcpStream::connect(pair.server.address()).await.unwrap();
        // The server may have closed it already: then writing fails, and so does reading.
        let _ = stream.write_all(&[preface, &noise].concat()).await;
        let _ = stream.shutdown().await;
        let read_to_end = async {
            let mut buffer = [0; 1_024];
            while matches!(stream.read(&mut buffer).await, Ok(count) if count > 0) {}
        };
        tokio::time::timeout(Duration::from_secs(10), read_to_end).await.expect("the server closes it");
        bystander.work();
    }
    drop(bystander);
    pair.shutdown().await;
}
