//! The body of a request as a source of bytes: decoded, verified, and never waited for without a deadline.
//!
//! Invariant: `next` says "end" only after every digest and signature that the request's head promised has held.

use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, header};
use predastore::catalog::{Checksum, ChecksumAlgorithm};
use predastore::object::{Incoming, Source};
use tokio::time::timeout;

use crate::auth::chunked::{Decoder, Piece};
use crate::auth::{Payload, hex};
use crate::checksum::{self, Expected};
use crate::error::{ErrorCode, S3Error};

/// What is read of a refused request's body, so that its sender gets to see the answer.
const DRAIN_MAX_BYTES: u64 = 1 << 20;
const DRAIN_MAX: Duration = Duration::from_secs(1);

enum Decoding {
    /// Nothing may be read before the head was verified.
    Unverified,
    Plain,
    Sha256 {
        context: Context,
        expected: [u8; 32],
    },
    Chunked(Box<Decoder>),
    Ended,
}

/// A request's body.
pub struct Upload {
    stream: BodyDataStream,
    content_length: Option<u64>,
    expects_continue: bool,
    stall: Duration,
    decoding: Decoding,
    decoded_length: Option<u64>,
    expected: Expected,
    promised: Option<Checksum>,
    received_bytes: u64,
    failure: Option<S3Error>,
}

impl Upload {
    /// Wraps a body; `stall`: how long to wait for its next bytes.
    pub fn new(body: Body, headers: &HeaderMap, stall: Duration) -> Self {
        let content_length = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse().ok());
        Upload {
            stream: body.into_data_stream(),
            content_length,
            expects_continue: headers.contains_key(header::EXPECT),
            stall,
            decoding: Decoding::Unverified,
            decoded_length: None,
            expected: Expected::Nothing,
            promised: None,
            received_bytes: 0,
            failure: None,
        }
    }

    /// Takes what the verified head says of the body; before this nothing can be read.
    pub fn verify(&mut self, payload: Payload) {
        self.decoding = match payload {
            Payload::Unsigned => Decoding::Plain,
            Payload::Sha256(expected) => Decoding::Sha256 { context: Context::new(&SHA256), expected },
            Payload::Chunked(body) => {
                self.decoded_length = Some(body.len_bytes);
                Decoding::Chunked(Box::new(Decoder::new(body)))
            }
        };
    }

    /// What the request's headers say of the object's bytes. Call it before the body is handed to the store.
    ///
    /// # Errors
    /// `MissingContentLength`; `InvalidRequest` and `InvalidDigest` for checksum headers.
    pub fn incoming(&mut self, headers: &HeaderMap) -> Result<Incoming, S3Error> {
        self.expected = Expected::from_headers(headers)?;
        let len_bytes = self.announced_bytes();
        if len_bytes.is_none() {
            return Err(ErrorCode::MissingContentLength.into());
        }
        let algorithms: Vec<ChecksumAlgorithm> = self.expected.algorithm().into_iter().collect();
        Ok(Incoming { len_bytes, algorithms, md5: checksum::content_md5(headers)? })
    }

    /// The length of what was sent, without its framing, where its sender told it.
    pub fn announced_bytes(&self) -> Option<u64> {
        self.decoded_length.or(self.content_length)
    }

    /// The whole of a small body: the XML of a request.
    ///
    /// # Errors
    /// `MaxMessageLengthExceeded` past `limit_bytes`; `BadDigest` for a wrong Content-MD5 or checksum; what `next` fails with.
    pub async fn collect(&mut self, headers: &HeaderMap, limit_bytes: usize) -> Result<Bytes, S3Error> {
        self.expected = Expected::from_headers(headers)?;
        let collected = self.collect_unchecked(limit_bytes).await?;
        checksum::verify(&collected, checksum::content_md5(headers)?, self.promised.as_ref())?;
        Ok(collected)
    }

    /// As [`Upload::collect`], where checksum headers are of something else than this body (CompleteMultipartUpload).
    ///
    /// # Errors
    /// `MaxMessageLengthExceeded` past `limit_bytes`; what `next` fails with.
    pub async fn collect_unchecked(&mut self, limit_bytes: usize) -> Result<Bytes, S3Error> {
        let mut collected = BytesMut::new();
        loop {
            match self.next().await {
                Ok(Some(run)) if collected.len() + run.len() > limit_bytes => {
                    return Err(ErrorCode::MaxMessageLengthExceeded.into());
                }
                Ok(Some(run)) => collected.extend_from_slice(&run),
                Ok(None) => break,
                Err(()) => return Err(self.take_failure()),
            }
        }
        Ok(collected.freeze())
    }

    /// Why `next` failed.
    pub fn take_failure(&mut self) -> S3Error {
        self.failure.take().unwrap_or_else(|| ErrorCode::IncompleteBody.into())
    }

    /// Bytes that came over the wire.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Whether the client waited for a 100 that it was not given. Its connection must not be used again: botocore
    /// misreads what follows a final answer that came in the place of a 100.
    pub fn continue_was_withheld(&self) -> bool {
        self.expects_continue && self.received_bytes == 0
    }

    /// Reads away a little of what a refused client still sends.
    pub async fn drain(&mut self) {
        if self.continue_was_withheld() {
            return;
        }
        let reading = async {
            let mut drained = 0;
            while let Some(Ok(run)) = self.stream.next().await {
                drained += run.len() as u64;
                if drained > DRAIN_MAX_BYTES {
                    break;
                }
            }
        };
        // A body that does not end in time is cut with its connection.
        let _ = timeout(DRAIN_MAX, reading).await;
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, S3Error> {
        match timeout(self.stall, self.stream.next()).await {
            Err(_) => Err(ErrorCode::RequestTimeout.into()),
            Ok(None) => Ok(None),
            Ok(Some(Err(_))) => Err(ErrorCode::IncompleteBody.into()),
            Ok(Some(Ok(run))) => {
                self.received_bytes += run.len() as u64;
                Ok(Some(run))
            }
        }
    }

    async fn decode(&mut self) -> Result<Option<Bytes>, S3Error> {
        loop {
            if let Decoding::Chunked(decoder) = &mut self.decoding {
                match decoder.poll()? {
                    Some(Piece::Data(run)) => return Ok(Some(run)),
                    Some(Piece::End(trailers)) => self.promised = self.expected.clone().resolve(&trailers)?,
                    None => {}
                }
            }
            let received = self.receive().await?;
            match (&mut self.decoding, received) {
                (Decoding::Unverified, _) => return Err(ErrorCode::InternalError.into()),
                (Decoding::Chunked(decoder), Some(run)) => decoder.push(run),
                (Decoding::Chunked(decoder), None) => {
                    decoder.finish()?;
                    self.decoding = Decoding::Ended;
                    return Ok(None);
                }
                (Decoding::Sha256 { context, .. }, Some(run)) => {
                    context.update(&run);
                    return Ok(Some(run));
                }
                (Decoding::Plain, Some(run)) => return Ok(Some(run)),
                (Decoding::Plain | Decoding::Sha256 { .. }, None) => return self.end_whole(),
                (Decoding::Ended, _) => return Ok(None),
            }
        }
    }

    fn end_whole(&mut self) -> Result<Option<Bytes>, S3Error> {
        if let Decoding::Sha256 { context, expected } = std::mem::replace(&mut self.decoding, Decoding::Ended) {
            let computed = context.finish();
            if computed.as_ref() != expected {
                return Err(S3Error::from(ErrorCode::XAmzContentSHA256Mismatch)
                    .with("ClientComputedContentSHA256", hex(expected.as_ref()))
                    .with("S3ComputedContentSHA256", hex(computed.as_ref())));
            }
        }
        self.promised = self.expected.clone().resolve(&[])?;
        Ok(None)
    }
}

impl Source for Upload {
    async fn next(&mut self) -> Result<Option<Bytes>, ()> {
        self.decode().await.map_err(|failure| self.failure = Some(failure))
    }

    fn promised(&self) -> Vec<Checksum> {
        self.promised.iter().cloned().collect()
    }
}
