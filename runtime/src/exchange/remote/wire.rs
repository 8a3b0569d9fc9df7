//! The messages of a channel as gRPC carries them, without a copy of what they hold.
//!
//! On a record's way this stands between the ends of a channel and HTTP/2. Grants go through tonic's own codec; frames do
//! not, because it copies every message into a buffer of its own on both sides. Here a payload leaves as the very buffer it was
//! encoded in, behind a few bytes that say what it is, and arrives as a slice of what was read from the connection.
//! Invariants: what is on the wire is what gRPC and the protocol say, so a peer may use any codec; a message that is longer than
//! allowed is refused before it is read.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::Stream;
use prost::Message;
use thalweg_common::limits::MAX_FRAME_BYTES;
use thalweg_proto::v1::{self, frame};
use tonic::body::Body;
use tonic::codec::{BufferSettings, EncodeBody, SingleMessageCompressionOverride};
use tonic::codegen::http;
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

/// Whether a message is compressed as gRPC does it, and its length as 32 bits, big-endian.
const PREFIX_BYTES: usize = size_of::<u8>() + size_of::<u32>();

/// What a frame has around its payload, generously.
const MESSAGE_OVERHEAD_BYTES: usize = 1_024;

/// Payloads up to this size are copied behind their header: less work than a piece of the body, and a call of the system, for each.
const SMALL_PAYLOAD_BYTES: usize = 16 * 1_024;

/// Small messages that are ready go together up to about this size.
const COALESCED_BYTES: usize = 64 * 1_024;

/// Room for the header of a message with a large payload.
const HEADER_BYTES: usize = 64;

/// What comes before the length of a payload in `thalweg.v1.Frame`: the number of its field and that it has a length.
const DATA_TAG: u8 = (3 << 3) | 2;
const LZ4_DATA_TAG: u8 = (5 << 3) | 2;

/// The service that a channel is opened at, and its only method.
pub(super) const SERVICE: &str = "thalweg.v1.ExchangeService";
const OPEN: &str = "/thalweg.v1.ExchangeService/Open";

/// Settings of tonic's codec for grants, which are small.
fn grant_buffers() -> BufferSettings {
    BufferSettings::new(256, 8 * 1_024)
}

/// The request that opens a channel.
pub(super) fn request(frames: impl Stream<Item = v1::Frame> + Send + Unpin + 'static) -> http::Request<Body> {
    let mut request = http::Request::new(Body::new(FrameBody::new(frames)));
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = http::Uri::from_static(OPEN);
    let headers = request.headers_mut();
    headers.insert(http::header::TE, http::HeaderValue::from_static("trailers"));
    headers.insert(http::header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
    request
}

/// The grants in the answer to a [`request`].
///
/// # Errors
/// When the channel was refused.
pub(super) fn grants(response: http::Response<Body>) -> Result<Streaming<v1::CreditGrant>, Status> {
    if let Some(status) =
        Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok)
    {
        return Err(status);
    }
    let decoder = ProstCodec::<v1::Frame, v1::CreditGrant>::raw_decoder(grant_buffers());
    let (parts, body) = response.into_parts();
    Ok(Streaming::new_response(decoder, body, parts.status, None, None))
}

/// Whether a request opens a channel.
///
/// # Errors
/// When it calls another method.
pub(super) fn check_request<B>(request: &http::Request<B>) -> Result<(), Status> {
    if request.uri().path() == OPEN {
        return Ok(());
    }
    Err(Status::unimplemented(format!("{} is no method of {SERVICE}", request.uri().path())))
}

/// The answer to a [`request`]: grants, and at the end how the channel has ended.
pub(super) fn response(
    grants: impl Stream<Item = Result<v1::CreditGrant, Status>> + Send + 'static,
) -> http::Response<Body> {
    let encoder = ProstCodec::<v1::CreditGrant, v1::Frame>::raw_encoder(grant_buffers());
    let no_compression = SingleMessageCompressionOverride::default();
    let body = EncodeBody::new_server(encoder, grants, None, no_compression, None);
    let mut response = http::Response::new(Body::new(body));
    response.headers_mut().insert(http::header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}

/// A request body of frames.
struct FrameBody<S> {
    frames: S,
    /// The payload whose header has left.
    payload: Option<Bytes>,
    ended: bool,
}

impl<S> FrameBody<S> {
    fn new(frames: S) -> Self {
        Self { frames, payload: None, ended: false }
    }
}

impl<S: Stream<Item = v1::Frame> + Unpin> http_body::Body for FrameBody<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let piece = |bytes| Poll::Ready(Some(Ok(http_body::Frame::data(bytes))));
        if let Some(payload) = this.payload.take() {
            return piece(payload);
        }
        let mut messages = BytesMut::new();
        while !this.ended && messages.len() < COALESCED_BYTES {
            match Pin::new(&mut this.frames).poll_next(context) {
                Poll::Ready(Some(frame)) => this.payload = encode(frame, &mut messages),
                Poll::Ready(None) => this.ended = true,
                Poll::Pending if messages.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
            if this.payload.is_some() {
                break;
            }
        }
        if messages.is_empty() { Poll::Ready(None) } else { piece(messages.freeze()) }
    }
}

/// Appends a message to `messages`, but not its payload if that is large: that comes behind it.
fn encode(mut frame: v1::Frame, messages: &mut BytesMut) -> Option<Bytes> {
    let (tag, payload) = match frame.message.take() {
        Some(frame::Message::Data(payload)) => (DATA_TAG, payload),
        Some(frame::Message::Lz4Data(payload)) => (LZ4_DATA_TAG, payload),
        other => {
            frame.message = other;
            begin(frame.encoded_len(), messages);
            append(&frame, messages);
            return None;
        }
    };
    // Fields may come in any order: the payload is the last one.
    let tag_bytes = size_of_val(&tag) + prost::length_delimiter_len(payload.len());
    begin(frame.encoded_len() + tag_bytes + payload.len(), messages);
    append(&frame, messages);
    messages.put_u8(tag);
    prost::encode_length_delimiter(payload.len(), messages).expect(GROWS);
    if payload.len() <= SMALL_PAYLOAD_BYTES {
        messages.extend_from_slice(&payload);
        return None;
    }
    Some(payload)
}

/// Why nothing fails to be appended to a buffer.
const GROWS: &str = "a buffer that grows has room";

fn append(frame: &v1::Frame, messages: &mut BytesMut) {
    frame.encode(messages).expect(GROWS);
}

fn begin(message_bytes: usize, messages: &mut BytesMut) {
    let large = HEADER_BYTES + SMALL_PAYLOAD_BYTES;
    messages.reserve(PREFIX_BYTES + if message_bytes > large { HEADER_BYTES } else { message_bytes });
    messages.put_u8(0);
    // Below the limit of a frame and what is around it, so it fits.
    messages.put_u32(message_bytes as u32);
}

/// The frames in a request body.
pub(super) struct FrameStream<B> {
    body: B,
    chunks: Chunks,
    /// The length of the message whose prefix was read.
    message_bytes: Option<usize>,
}

impl<B> FrameStream<B> {
    /// The frames that come with `body`.
    pub(super) fn new(body: B) -> Self {
        Self { body, chunks: Chunks::default(), message_bytes: None }
    }

    /// The next message, if all of it is there.
    fn next_message(&mut self) -> Result<Option<v1::Frame>, Status> {
        if self.message_bytes.is_none() && self.chunks.remaining() >= PREFIX_BYTES {
            self.message_bytes = Some(read_prefix(&mut self.chunks)?);
        }
        let Some(length) = self.message_bytes.filter(|length| self.chunks.remaining() >= *length) else {
            return Ok(None);
        };
        self.message_bytes = None;
        let frame = v1::Frame::decode((&mut self.chunks).take(length));
        frame.map(Some).map_err(|error| Status::internal(format!("a frame cannot be decoded: {error}")))
    }
}

/// Reads the begin of a message and returns the length of the rest.
fn read_prefix(chunks: &mut Chunks) -> Result<usize, Status> {
    const LIMIT: usize = MAX_FRAME_BYTES + MESSAGE_OVERHEAD_BYTES;
    if chunks.get_u8() != 0 {
        return Err(Status::unimplemented(
            "a message is compressed by gRPC; a channel compresses its payloads itself (`taskmanager.network.compression.codec`)",
        ));
    }
    let length = chunks.get_u32() as usize;
    if length > LIMIT {
        return Err(Status::out_of_range(format!("a message of {length} bytes came, the limit is {LIMIT}")));
    }
    Ok(length)
}

impl<B> Stream for FrameStream<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Item = Result<v1::Frame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(frame) = this.next_message().transpose() {
                return Poll::Ready(Some(frame));
            }
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                // What is no data are trailers, and a request has none that matter.
                Some(Ok(piece)) => piece.into_data().into_iter().for_each(|chunk| this.chunks.push(chunk)),
                Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
                None if this.message_bytes.is_some() || this.chunks.has_remaining() => {
                    this.chunks = Chunks::default();
                    this.message_bytes = None;
                    return Poll::Ready(Some(Err(Status::data_loss("the stream ends inside a message"))));
                }
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Pieces of a body in their order. What lies in one piece is taken out without a copy.
#[derive(Default)]
struct Chunks {
    /// None of them is empty.
    chunks: VecDeque<Bytes>,
    remaining: usize,
}

impl Chunks {
    fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.remaining += chunk.len();
            self.chunks.push_back(chunk);
        }
    }
}

impl Buf for Chunks {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| chunk)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "no more is taken than there is");
        self.remaining -= count;
        while let Some(front) = self.chunks.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.chunks.pop_front();
        }
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        match self.chunks.front_mut() {
            Some(front) if length < front.len() => {
                self.remaining -= length;
                front.split_to(length)
            }
            Some(front) if length == front.len() => {
                self.remaining -= length;
                self.chunks.pop_front().unwrap_or_default()
            }
            _ => {
                let mut bytes = BytesMut::with_capacity(length);
                bytes.put(self.take(length));
                bytes.freeze()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::task::Waker;

    /// The body of these frames, piece by piece.
    fn pieces(frames: Vec<v1::Frame>) -> Vec<Bytes> {
        let mut body = FrameBody::new(tokio_stream::iter(frames));
        let mut pieces = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(piece))) =
            http_body::Body::poll_frame(Pin::new(&mut body), &mut context)
        {
            pieces.push(piece.into_data().expect("data"));
        }
        pieces
    }

    /// A body of pieces.
    struct Pieces(VecDeque<Bytes>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(http_body::Frame::data(piece))))
        }
    }

    /// The frames in these pieces, up to the first error.
    fn frames(pieces: impl IntoIterator<Item = Bytes>) -> (Vec<v1::Frame>, Option<Status>) {
        let mut stream = FrameStream::new(Pieces(pieces.into_iter().collect()));
        let mut frames = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        loop {
            match Pin::new(&mut stream).poll_next(&mut context) {
                Poll::Ready(Some(Ok(frame))) => frames.push(frame),
                Poll::Ready(Some(Err(status))) => return (frames, Some(status)),
                Poll::Ready(None) | Poll::Pending => return (frames, None),
            }
        }
    }

    fn any_frame() -> impl Strategy<Value = v1::Frame> {
        let small = proptest::collection::vec(any::<u8>(), 0..40);
        let payload = (small, prop_oneof![9 => Just(0), 1 => Just(SMALL_PAYLOAD_BYTES)]).prop_map(
            |(mut payload, more)| {
                payload.resize(payload.len() + more, 7);
                Bytes::from(payload)
            },
        );
        let message = (payload, 0..4).prop_map(|(payload, kind)| match kind {
            0 => Some(frame::Message::Data(payload)),
            1 => Some(frame::Message::Lz4Data(payload)),
            2 => Some(frame::Message::Event(payload)),
            _ => None,
        });
        (any::<u64>(), message, any::<u64>()).prop_map(|(sequence, message, backlog)| v1::Frame {
            sequence,
            message,
            backlog,
        })
    }

    proptest! {
        #[test]
        fn frames_survive_however_they_are_cut(
            sent in proptest::collection::vec(any_frame(), 0..20),
            cut_bytes in 1usize..20_000,
        ) {
            let whole = pieces(sent.clone());
            let (arrived, error) = frames(whole.clone());
            prop_assert!(error.is_none(), "{error:?}");
            prop_assert_eq!(&arrived, &sent);
            let cut = whole.concat();
            let (arrived, error) = frames(cut.chunks(cut_bytes).map(Bytes::copy_from_slice));
            prop_assert!(error.is_none(), "{error:?}");
            prop_assert_eq!(&arrived, &sent);
            // Whatever is missing at the end is an error, unless it is whole messages.
            if let Some(end) = cut.len().checked_sub(1) {
                prop_assert!(frames([Bytes::copy_from_slice(&cut[..end])]).1.is_some());
            }
        }

        #[test]
        fn rubbish_is_an_error_or_a_frame_but_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = frames(bytes.chunks(7).map(Bytes::copy_from_slice));
            let mut message = vec![0];
            message.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            message.extend_from_slice(&bytes);
            let _ = frames([Bytes::from(message)]);
        }
    }

    #[test]
    fn a_large_payload_leaves_and_arrives_without_a_copy() {
        let payload = Bytes::from(vec![7; SMALL_PAYLOAD_BYTES + 1]);
        let data =
            v1::Frame { sequence: 1, message: Some(frame::Message::Data(payload.clone())), backlog: 9 };
        let pieces = pieces(vec![data.clone()]);
        assert_eq!(pieces[1].as_ptr(), payload.as_ptr());
        let (arrived, error) = frames(pieces);
        assert!(error.is_none());
        let Some(frame::Message::Data(there)) = &arrived[0].message else { panic!("{arrived:?}") };
        assert_eq!(there.as_ptr(), payload.as_ptr());
    }

    #[test]
    fn small_messages_travel_together() {
        let event = |sequence| v1::Frame {
            sequence,
            message: Some(frame::Message::Event(Bytes::from_static(b"barrier"))),
            backlog: 0,
        };
        assert_eq!(pieces((0..30).map(event).collect()).len(), 1);
    }

    #[test]
    fn what_is_too_long_or_compressed_is_refused_before_it_is_read() {
        let announced = |flag: u8, length: u32| {
            let prefix = [&[flag][..], &length.to_be_bytes()].concat();
            frames([Bytes::from(prefix)]).1.expect("an error").code()
        };
        assert_eq!(announced(0, u32::MAX), Code::OutOfRange);
        assert_eq!(announced(1, 5), Code::Unimplemented);
        assert_eq!(announced(0, 5), Code::DataLoss);
    }
}
