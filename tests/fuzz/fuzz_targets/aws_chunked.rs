//! aws-chunked: how the input is split must not matter; what is signed decodes; what was changed after does not.
#![no_main]

mod signer;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use predastore_s3::auth::chunked::{Decoder, Piece};
use predastore_s3::auth::{ChunkedBody, Payload};
use predastore_s3::error::ErrorCode;
use predastore_s3::query::Query;
use signer::{SCOPE, TIMESTAMP, authenticate, authorize, sha256, sign, string_to_sign};

type Decoded = Result<(Vec<u8>, Vec<(String, String)>), ErrorCode>;

fn decode(body: ChunkedBody, pieces: impl Iterator<Item = Bytes>) -> Decoded {
    let mut decoder = Decoder::new(body);
    let (mut data, mut end) = (Vec::new(), None);
    for piece in pieces {
        decoder.push(piece);
        while let Some(piece) = decoder.poll().map_err(|error| error.code)? {
            match piece {
                Piece::Data(bytes) => data.extend_from_slice(&bytes),
                Piece::End(found) => assert!(end.replace(found).is_none(), "one end"),
            }
        }
    }
    decoder.finish().map_err(|error| error.code)?;
    Ok((data, end.expect("a finished body has ended")))
}

fn split(body: &[u8], step: usize) -> impl Iterator<Item = Bytes> + '_ {
    body.chunks(step).map(Bytes::copy_from_slice)
}

/// The headers of a PUT of `len_bytes` in signed chunks.
fn head(len_bytes: usize, trailers: bool) -> HeaderMap {
    let hash = match trailers {
        true => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        false => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    };
    let mut headers = HeaderMap::new();
    let fixed = [("host", "localhost"), ("x-amz-date", TIMESTAMP), ("x-amz-content-sha256", hash)];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("x-amz-decoded-content-length", len_bytes.into());
    if trailers {
        headers.insert("x-amz-trailer", HeaderValue::from_static("x-amz-checksum-crc32"));
    }
    headers
}

/// What the server expects of such a body, and the signature of its head, on which the chunks' are chained.
fn signed_head(len_bytes: usize, trailers: bool) -> (ChunkedBody, String) {
    let (headers, query) = (head(len_bytes, trailers), Query::parse("").expect("an empty query"));
    let send = |signature: &str| authenticate("PUT", "/bucket/key", &query, &authorize(headers.clone(), signature));
    let refusal = send(&"0".repeat(64)).expect_err("forged");
    let signature = sign(&string_to_sign(&refusal).expect("a mismatch shows what to sign"));
    let Payload::Chunked(body) = send(&signature).expect("signed").payload else { panic!("not chunked") };
    (body, signature)
}

/// `data` in signed chunks of `step` bytes, with a trailer or without.
fn signed_chunks(data: &[u8], step: usize, trailers: bool, seed: String) -> Vec<u8> {
    let (mut framed, mut previous) = (Vec::new(), seed);
    for chunk in data.chunks(step).chain([&b""[..]]) {
        let hashes = format!("{}\n{}", sha256(b""), sha256(chunk));
        previous = sign(&format!("AWS4-HMAC-SHA256-PAYLOAD\n{TIMESTAMP}\n{SCOPE}\n{previous}\n{hashes}"));
        framed.extend(format!("{:x};chunk-signature={previous}\r\n", chunk.len()).bytes());
        framed.extend(chunk);
        framed.extend(if chunk.is_empty() { &b""[..] } else { b"\r\n" });
    }
    if trailers {
        let hash = sha256(b"x-amz-checksum-crc32:AAAAAA==\n");
        let signature = sign(&format!("AWS4-HMAC-SHA256-TRAILER\n{TIMESTAMP}\n{SCOPE}\n{previous}\n{hash}"));
        framed.extend(format!("x-amz-checksum-crc32:AAAAAA==\r\nx-amz-trailer-signature:{signature}\r\n").bytes());
    }
    framed.extend(b"\r\n");
    framed
}

fn as_signed(data: &[u8], step: usize, trailers: bool, damage: u16) {
    let (body, seed) = signed_head(data.len(), trailers);
    let mut framed = signed_chunks(data, step, trailers, seed);
    let whole = decode(body.clone(), std::iter::once(Bytes::from(framed.clone())));
    assert_eq!(whole.as_ref().map(|(decoded, _)| decoded.as_slice()), Ok(data));
    assert_eq!(whole, decode(body.clone(), split(&framed, step)));
    // Digits of a size may be of either case, and white space has its places: it must be the same data, not the same bytes.
    let at = usize::from(damage) >> 3;
    let at = at % framed.len();
    framed[at] ^= 1 << (damage & 7);
    if let Ok(damaged) = decode(body, split(&framed, step)) {
        assert_eq!(damaged, whole.expect("it was right"), "a change went unnoticed");
    }
}

fuzz_target!(|input: (u8, bool, u8, u16, Vec<u8>)| {
    let (len_bytes, trailers, step, damage, body) = input;
    let step = usize::from(step).max(1);
    let unsigned = || ChunkedBody {
        len_bytes: len_bytes.into(),
        signing: None,
        trailers: trailers.then(|| vec!["x-amz-checksum-crc32".to_owned()]),
    };
    let whole = decode(unsigned(), std::iter::once(Bytes::from(body.clone())));
    assert_eq!(whole, decode(unsigned(), split(&body, step)));
    if let Ok((data, _)) = whole {
        assert_eq!(data.len(), usize::from(len_bytes));
    }
    // A signature a chunk: few of them.
    as_signed(&body[..body.len().min(step * 8)], step, trailers, damage);
});
