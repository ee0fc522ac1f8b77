//! Answers: their bodies, and the headers of a version.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use predastore::catalog::{Encryption, Version};
use predastore::env::Timestamp;
use predastore::object::Reader;
use predastore_vocabulary::attrs::{header_name, of_posix};

use crate::app::Done;
use crate::checksum::{Kind as _, Spelling as _};
use crate::dates::http_date;
use crate::error::S3Error;
use crate::xml;

/// Milliseconds since 1970, as S3 shows times.
pub fn milliseconds(time: Timestamp) -> i64 {
    time.0.div_euclid(1_000_000)
}

/// A status and nothing else.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// 200 with an XML document.
pub fn xml(document: String) -> Response {
    let mut response = Response::new(Body::from(document));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response
}

/// An error document; `HEAD` gets the status alone.
pub fn error(error: &S3Error, resource: &str, request_id: &str, method: &Method) -> Response {
    let mut response = match *method {
        Method::HEAD => Response::new(Body::empty()),
        _ => xml(xml::response::error(error, resource, request_id)),
    };
    *response.status_mut() = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &error.headers {
        put(response.headers_mut(), name, value);
    }
    response
}

/// Adds a header; a value that HTTP cannot carry is left out.
pub fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes())) {
        headers.insert(name, value);
    }
}

/// An ETag in its quotes.
pub fn quoted(etag: impl std::fmt::Display) -> String {
    format!("\"{etag}\"")
}

/// Headers that GET and HEAD give of a version, without those of its length.
pub fn describe(headers: &mut HeaderMap, version: &Version, ever_versioned: bool) {
    let attrs = &version.attrs;
    put(headers, "etag", &quoted(version.etag));
    put(headers, "last-modified", &http_date(milliseconds(version.modified)));
    put(headers, "accept-ranges", "bytes");
    put(headers, "content-type", "binary/octet-stream");
    for (name, value) in &attrs.headers {
        put(headers, header_name(*name), value);
    }
    for (name, value) in &attrs.metadata {
        put(headers, &format!("x-amz-meta-{name}"), &mail_safe(value));
    }
    for (name, value) in attrs.posix.iter().flat_map(of_posix) {
        // What a client sent as the owner is given back to it.
        if !attrs.metadata.iter().any(|(had, _)| had == name) {
            put(headers, &format!("x-amz-meta-{name}"), &value);
        }
    }
    if ever_versioned {
        put(headers, "x-amz-version-id", &version.id.to_string());
    }
    if !attrs.tags.is_empty() {
        put(headers, "x-amz-tagging-count", &attrs.tags.len().to_string());
    }
    if !attrs.storage_class.is_empty() && attrs.storage_class != "STANDARD" {
        put(headers, "x-amz-storage-class", &attrs.storage_class);
    }
    if attrs.encryption == Encryption::S3 {
        put(headers, "x-amz-server-side-encryption", "AES256");
    }
}

/// Text as S3 gives user metadata back: what is not ASCII in the form of RFC 2047.
fn mail_safe(text: &str) -> Cow<'_, str> {
    match text.is_ascii() {
        true => Cow::Borrowed(text),
        false => Cow::Owned(format!("=?UTF-8?B?{}?=", STANDARD.encode(text))),
    }
}

/// The checksum headers of a version.
pub fn checksums(headers: &mut HeaderMap, checksums: &[predastore::catalog::Checksum], part_count: u32) {
    for one in checksums {
        put(headers, one.algorithm.header(), &xml::shown::checksum_text(one, part_count));
        put(headers, "x-amz-checksum-type", one.kind.name());
    }
}

/// A body of `len_bytes` that comes from the store. An error ends the connection: the client sees a short body.
pub fn stream(reader: Reader, len_bytes: u64) -> Body {
    let runs = futures::stream::unfold(reader, |mut reader| async move {
        let run = reader.next().await?;
        Some((run, reader))
    });
    Body::new(Sized { stream: Box::pin(runs), remaining_bytes: len_bytes })
}

type Runs = Pin<Box<dyn futures::Stream<Item = Result<Bytes, predastore::object::Error>> + Send>>;

/// A stream with a known length, so that the answer has a Content-Length.
struct Sized {
    stream: Runs,
    remaining_bytes: u64,
}

impl HttpBody for Sized {
    type Data = Bytes;
    type Error = predastore::object::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.stream.as_mut().poll_next(context).map(|next| {
            next.map(|run| {
                let run = run?;
                self.remaining_bytes = self.remaining_bytes.saturating_sub(run.len() as u64);
                Ok(Frame::data(run))
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.remaining_bytes == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining_bytes)
    }
}

/// Keeps `done` until the answer's body has been handed over, and counts it.
pub fn when_sent(response: Response, done: Done) -> Response {
    response.map(|body| Body::new(Counted { body, done }))
}

struct Counted {
    body: Body,
    done: Done,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.done.sent_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(Some(Err(error))) => self.done.cut_short(error),
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
