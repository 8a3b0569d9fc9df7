//! Ends that break the protocol, over real sockets: only their channel fails, and it says why.

use crate::support::*;
use bytes::Bytes;
use thalweg_common::failure::Fault;
use thalweg_common::limits::{MAX_CHANNEL_CREDIT_BYTES, MAX_FRAME_BYTES};
use thalweg_common::task_scope::TaskScope;
use thalweg_proto::transport::Dialer;
use thalweg_proto::v1::exchange_service_client::ExchangeServiceClient;
use thalweg_proto::v1::exchange_service_server::{ExchangeService, ExchangeServiceServer};
use thalweg_proto::v1::{self, CreditGrant, Frame, frame};
use thalweg_runtime::batch::Batch;
use thalweg_runtime::event::Event;
use thalweg_runtime::exchange::{ExchangeClient, ExchangeSettings, Sent};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status, Streaming};

/// A sender that writes its frames by hand.
struct RawSender {
    frames: mpsc::Sender<Frame>,
    grants: Streaming<CreditGrant>,
}

fn open_frame(to: u32) -> Frame {
    let open = v1::OpenChannel {
        job_id: JOB.0.to_be_bytes().to_vec().into(),
        region: 0,
        attempt: ATTEMPT,
        edge: channel(to).edge,
        from: channel(to).from,
        to,
        plan_fingerprint: PLAN,
    };
    Frame { sequence: 0, message: Some(frame::Message::Open(open)), backlog: 0 }
}

fn data(sequence: u64, payload: impl Into<Bytes>) -> Frame {
    Frame { sequence, message: Some(frame::Message::Data(payload.into())), backlog: 0 }
}

impl RawSender {
    async fn open(connection: Channel, first: Frame) -> Result<Self, Status> {
        let (frames, stream) = mpsc::channel(16);
        frames.send(first).await.unwrap();
        let grants =
            ExchangeServiceClient::new(connection).open(ReceiverStream::new(stream)).await?.into_inner();
        Ok(Self { frames, grants })
    }

    /// How the receiver ends the channel.
    async fn refusal(&mut self) -> Status {
        let wait = async {
            loop {
                match self.grants.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the channel ended without an error"),
                    Err(status) => return status,
                }
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("the receiver answers")
    }
}

async fn connect(pair: &Pair) -> Channel {
    Channel::from_shared(format!("http://{}", pair.address())).unwrap().connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_protocol_fails_one_channel_and_no_other() {
    let settings =
        ExchangeSettings { channel_credit_bytes: 1_000, debloat_target: None, ..ExchangeSettings::default() };
    let pair = Pair::start(settings).await;
    let connection = connect(&pair).await;
    let (mut bystander, bystander_receiver) = pair.channel::<u64>(99).await;

    let two_records = [2u32.to_le_bytes().as_slice(), &[7; 16]].concat();
    let table = [
        (
            vec![data(1, two_records.clone()), data(3, two_records.clone())],
            "frame 3 came where frame 2 was due",
        ),
        (vec![data(1, vec![0; 2_000]), data(2, vec![0; 4])], "without credit"),
        (
            vec![Frame { sequence: 1, message: Some(frame::Message::Event(vec![9; 9].into())), backlog: 0 }],
            "cannot decode",
        ),
        (vec![Frame { sequence: 1, message: None, backlog: 0 }], "unknown kind"),
        (vec![data(1, vec![0; MAX_FRAME_BYTES + 100])], "the limit is 16777216"),
        (vec![Frame { sequence: 1, ..open_frame(0) }], "opened a second time"),
    ];
    for (to, (frames, reason)) in (0u32..).zip(table) {
        // Kept until the channel has failed; a receiver that nobody reads.
        let receiver = pair.server.register::<u64>(0, channel(to)).unwrap();
        let mut sender = RawSender::open(connection.clone(), open_frame(to)).await.unwrap();
        for frame in frames {
            sender.frames.send(frame).await.unwrap();
        }
        let status = sender.refusal().await;
        assert_eq!(status.code(), Code::Internal, "{status}");
        assert!(status.message().contains(reason), "{status}");
        let failure = on_thread(&pair.scope, move || receive_all(receiver)).await.unwrap_err();
        assert_eq!(failure.fault, Fault::Internal);
        assert!(failure.message.contains(reason), "{failure}");
        assert!(failure.message.contains(&channel(to).to_string()), "{failure}");
    }

    assert_eq!(bystander.try_send(Batch::from(vec![1, 2])), Ok(Sent::Done));
    bystander.send_event(Event::EndOfInput).unwrap();
    assert_eq!(on_thread(&pair.scope, move || receive_all(bystander_receiver)).await, Ok(vec![1, 2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_batch_fails_the_reading_task_and_its_sender_hears_of_it() {
    let pair = Pair::start(ExchangeSettings::default()).await;
    let receiver = pair.server.register::<u64>(0, channel(0)).unwrap();
    let mut sender = RawSender::open(connect(&pair).await, open_frame(0)).await.unwrap();
    sender.frames.send(data(1, vec![1, 0, 0, 0, 5])).await.unwrap();
    let failure = on_thread(&pair.scope, move || receive_all(receiver)).await.unwrap_err();
    assert!(failure.message.contains("damaged frame"), "{failure}");
    let status = sender.refusal().await;
    assert!(status.message().contains("the receiving task has failed"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_must_be_opened_first() {
    let pair = Pair::start(ExchangeSettings::default()).await;
    let connection = connect(&pair).await;
    let bad_id = v1::OpenChannel { job_id: Bytes::from_static(b"short"), ..Default::default() };
    let bad_id = Frame { sequence: 0, message: Some(frame::Message::Open(bad_id)), backlog: 0 };
    for first in [data(0, vec![0; 4]), Frame { sequence: 1, ..open_frame(0) }, bad_id] {
        let Err(status) = RawSender::open(connection.clone(), first).await else { panic!("it was let in") };
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
}

/// A receiver that grants whatever it is told to, once, and reads nothing.
struct Generous(u64);

#[tonic::async_trait]
impl ExchangeService for Generous {
    type OpenStream = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<CreditGrant, Status>> + Send>>;

    async fn open(&self, _request: Request<Streaming<Frame>>) -> Result<Response<Self::OpenStream>, Status> {
        let grant =
            tokio_stream::once(Ok(CreditGrant { bytes: self.0, window: self.0, ..CreditGrant::default() }));
        Ok(Response::new(Box::pin(grant.chain(tokio_stream::pending()))))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_credit_than_any_window_fails_the_sender() {
    let scope = TaskScope::new("test");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let service = ExchangeServiceServer::new(Generous(MAX_CHANNEL_CREDIT_BYTES as u64 + 1));
    let server = Server::builder().add_service(service);
    let cancelled = scope.token();
    scope.spawn("server", async move {
        tokio::select! {
            biased;
            () = cancelled.cancelled() => {}
            end = server.serve_with_incoming(TcpIncoming::from(listener)) => end.unwrap(),
        }
    });
    let client = ExchangeClient::new(ExchangeSettings::default(), Dialer::default(), &scope);
    let sender = client.open::<u64>(&address, open(0)).await.unwrap();
    let failure = on_thread(&scope, || send_until_failure(sender)).await;
    assert_eq!(failure.fault, Fault::Internal);
    assert!(failure.message.contains("more than the largest window"), "{failure}");
}
