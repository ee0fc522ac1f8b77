//! One message on one direction of a stream: frame, header, body, end.
//!
//! Invariants
//! - A message that is not sent to its end is reset, so that nobody takes a part of it for the whole.
//! - Nothing is allocated because it was announced: what is held is what came, and of a body only what is about to be read.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt, stream};
use quinn::{ReadError, ReadExactError, RecvStream, SendStream, StoppedError, VarInt, WriteError};
use tokio::time::{Instant, timeout_at};

use super::counters::Counters;
use super::frame::{FRAME_BYTES, Frame, FrameError, Message};
use super::{Body, BodyStream};

/// Why a stream was reset. Codes are on the wire: never reuse one.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum Reset {
    /// Its sender no longer wants, or could not, go on.
    Abandoned = 1,
    /// The call's deadline has passed.
    Deadline = 2,
    /// What came on it is no message.
    Malformed = 3,
}

impl Reset {
    fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    fn reason(code: VarInt) -> &'static str {
        match code {
            code if code == Reset::Abandoned.code() => "it could not go on",
            code if code == Reset::Deadline.code() => "the deadline has passed",
            code if code == Reset::Malformed.code() => "what it got was no message",
            _ => "no reason that we know",
        }
    }
}

/// A message did not get to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("not a message: {0}")]
    Frame(#[from] FrameError),
    #[error("the other side ended it: {}", Reset::reason(*.0))]
    Reset(VarInt),
    #[error("{}", with_causes(.0))]
    Read(ReadError),
    #[error("{}", with_causes(.0))]
    Write(#[from] WriteError),
    #[error("the message ended early")]
    Short,
    #[error("the message is longer than it said")]
    Long,
    #[error("a message that has no place here")]
    Unasked,
    #[error("not to be sent: {0}")]
    Unsendable(FrameError),
    #[error("the body to send failed: {0}")]
    Body(io::Error),
    #[error("the body to send is not of {0} bytes, as it said")]
    Length(u64),
}

impl Broken {
    /// Whether whoever sent these bytes does not keep to the protocol.
    pub(super) fn is_malformed(&self) -> bool {
        matches!(self, Broken::Frame(_) | Broken::Short | Broken::Long | Broken::Unasked)
    }
}

/// An error and what caused it: quinn says "connection lost", and why only when asked.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(|error| error.to_string()).collect::<Vec<_>>().join(": ")
}

impl From<ReadError> for Broken {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Broken::Reset(code),
            error => Broken::Read(error),
        }
    }
}

impl From<ReadExactError> for Broken {
    fn from(error: ReadExactError) -> Self {
        match error {
            ReadExactError::FinishedEarly(_) => Broken::Short,
            ReadExactError::ReadError(error) => error.into(),
        }
    }
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        let kind = match &broken {
            Broken::Frame(_) | Broken::Long | Broken::Unasked => io::ErrorKind::InvalidData,
            Broken::Unsendable(_) | Broken::Length(_) => io::ErrorKind::InvalidInput,
            Broken::Short => io::ErrorKind::UnexpectedEof,
            Broken::Body(error) => error.kind(),
            Broken::Reset(code) if *code == Reset::Deadline.code() => io::ErrorKind::TimedOut,
            Broken::Reset(_) => io::ErrorKind::ConnectionReset,
            Broken::Read(_) | Broken::Write(_) => io::ErrorKind::ConnectionAborted,
        };
        io::Error::new(kind, broken)
    }
}

/// The sending half of a stream, for one message.
pub(super) struct Sender {
    stream: SendStream,
    counters: Arc<Counters>,
    is_closed: bool,
}

impl Sender {
    pub(super) fn new(stream: SendStream, counters: Arc<Counters>) -> Sender {
        Sender { stream, counters, is_closed: false }
    }

    /// Sends a message whole.
    ///
    /// `message`, `id`: its frame's. Ends when all has been handed over; whether it arrives, [`Sender::gone`] tells.
    pub(super) async fn send(&mut self, message: Message, id: u32, header: Bytes, body: Body) -> Result<(), Broken> {
        let header_len_bytes = u32::try_from(header.len()).unwrap_or(u32::MAX);
        let frame = Frame { message, id, header_len_bytes, body_len_bytes: body.len_bytes };
        let frame = frame.encode().map_err(Broken::Unsendable)?;
        let Body { len_bytes, mut stream } = body;
        // A body that is at hand goes with its header, in one packet if it is small.
        let ready = if len_bytes > 0 { stream.next().now_or_never().flatten() } else { None };
        let first = ready.transpose().map_err(Broken::Body)?.unwrap_or_default();
        let mut left = less(len_bytes, len_bytes, first.len())?;
        self.write(&mut [Bytes::copy_from_slice(&frame), header, first]).await?;
        while left > 0 {
            let piece = stream.next().await.ok_or(Broken::Length(len_bytes))?.map_err(Broken::Body)?;
            left = less(len_bytes, left, piece.len())?;
            self.write(&mut [piece]).await?;
        }
        self.is_closed = true;
        // Only a stream that is closed already cannot be finished.
        let _ = self.stream.finish();
        Ok(())
    }

    async fn write(&mut self, pieces: &mut [Bytes]) -> Result<(), Broken> {
        let len_bytes: usize = pieces.iter().map(Bytes::len).sum();
        self.stream.write_all_chunks(pieces).await?;
        self.counters.sent_bytes.add(len_bytes as u64);
        Ok(())
    }

    /// Ends when the other side no longer reads: it has all, wants no more, or is not there.
    pub(super) fn gone(&self) -> impl Future<Output = Result<Option<VarInt>, StoppedError>> + Send + 'static {
        self.stream.stopped()
    }

    /// Ends the message before its end.
    pub(super) fn reset(&mut self, why: Reset) {
        if !self.is_closed {
            self.is_closed = true;
            // Only a stream that is closed already cannot be reset.
            let _ = self.stream.reset(why.code());
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.reset(Reset::Abandoned);
    }
}

/// `left` less a piece; `len_bytes`: of the whole.
fn less(len_bytes: u64, left: u64, piece_len: usize) -> Result<u64, Broken> {
    left.checked_sub(piece_len as u64).ok_or(Broken::Length(len_bytes))
}

/// The receiving half of a stream, for one message. Dropped before the end it stops the sender.
pub(super) struct Receiver {
    stream: RecvStream,
    counters: Arc<Counters>,
}

impl Receiver {
    pub(super) fn new(stream: RecvStream, counters: Arc<Counters>) -> Receiver {
        Receiver { stream, counters }
    }

    pub(super) async fn frame(&mut self) -> Result<Frame, Broken> {
        let mut bytes = [0; FRAME_BYTES];
        self.stream.read_exact(&mut bytes).await?;
        self.counters.received_bytes.add(FRAME_BYTES as u64);
        Ok(Frame::decode(&bytes)?)
    }

    /// What follows `frame`. The body ends in an error if it is not there whole at `deadline`. `with`: kept until it is
    /// read or dropped.
    pub(super) async fn content<K: Send + 'static>(
        mut self,
        frame: &Frame,
        deadline: Instant,
        with: K,
    ) -> Result<(Bytes, Body), Broken> {
        let header = self.header(frame.header_len_bytes).await?;
        Ok((header, self.body(frame.body_len_bytes, deadline, with).await?))
    }

    /// Without a copy if it came in one piece.
    async fn header(&mut self, len_bytes: u32) -> Result<Bytes, Broken> {
        let len_bytes = len_bytes as usize;
        if len_bytes == 0 {
            return Ok(Bytes::new());
        }
        let first = self.piece(len_bytes).await?;
        if first.len() == len_bytes {
            return Ok(first);
        }
        let mut header = BytesMut::from(first);
        while header.len() < len_bytes {
            header.extend_from_slice(&self.piece(len_bytes - header.len()).await?);
        }
        Ok(header.freeze())
    }

    async fn piece(&mut self, max_len_bytes: usize) -> Result<Bytes, Broken> {
        let piece = self.stream.read_chunk(max_len_bytes, true).await?.ok_or(Broken::Short)?.bytes;
        self.counters.received_bytes.add(piece.len() as u64);
        Ok(piece)
    }

    /// One that is empty is checked here and now.
    async fn body<K: Send + 'static>(mut self, len_bytes: u64, deadline: Instant, with: K) -> Result<Body, Broken> {
        if len_bytes == 0 {
            self.end().await?;
            return Ok(Body::empty());
        }
        let incoming = Incoming { receiver: self, left: len_bytes, pieces: VecDeque::new(), _with: with };
        let stream = stream::try_unfold(incoming, |mut incoming| async move {
            Ok(incoming.next().await?.map(|piece| (piece, incoming)))
        });
        Ok(Body { len_bytes, stream: until(deadline, Box::pin(stream)) })
    }

    async fn end(&mut self) -> Result<(), Broken> {
        match self.stream.read_chunk(1, true).await? {
            None => Ok(()),
            Some(_) => Err(Broken::Long),
        }
    }
}

/// Pieces taken at once from the connection, which has a lock: each is a packet's or less.
const PIECES_AT_ONCE: usize = 64;

/// A body as it comes.
struct Incoming<K> {
    receiver: Receiver,
    left: u64,
    pieces: VecDeque<Bytes>,
    _with: K,
}

impl<K> Incoming<K> {
    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        if self.pieces.is_empty() {
            self.take().await?;
        }
        let Some(piece) = self.pieces.pop_front() else { return Ok(None) };
        self.left = self.left.checked_sub(piece.len() as u64).ok_or(Broken::Long)?;
        Ok(Some(piece))
    }

    async fn take(&mut self) -> Result<(), Broken> {
        if self.left == 0 {
            return self.receiver.end().await;
        }
        let mut pieces = [const { Bytes::new() }; PIECES_AT_ONCE];
        let count = self.receiver.stream.read_chunks(&mut pieces).await?.ok_or(Broken::Short)?;
        self.pieces.extend(pieces.into_iter().take(count));
        self.receiver.counters.received_bytes.add(self.pieces.iter().map(|piece| piece.len() as u64).sum());
        Ok(())
    }
}

/// `stream`, which ends in an error at `deadline`.
pub(super) fn until(deadline: Instant, stream: BodyStream) -> BodyStream {
    Box::pin(stream::unfold(Some(stream), move |stream| async move {
        let mut stream = stream?;
        match timeout_at(deadline, stream.next()).await {
            Ok(piece) => piece.map(|piece| (piece, Some(stream))),
            Err(_) => Some((Err(io::Error::new(io::ErrorKind::TimedOut, "the call's deadline has passed")), None)),
        }
    }))
}
