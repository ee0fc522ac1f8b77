//! The aws-chunked body, as a state machine with no I/O.
//!
//! ```text
//! body    = chunk* last trailer* CRLF
//! chunk   = size [";chunk-signature=" 64 hex] CRLF data CRLF        size: hex, 1 or more
//! last    = "0"  [";chunk-signature=" 64 hex] CRLF
//! trailer = name ":" value CRLF                                     only in the -TRAILER modes
//! ```
//!
//! A signed body's last trailer is `x-amz-trailer-signature`. Each signature covers the one before it, from the head's
//! on, so chunks can be neither dropped, moved nor cut off.
//!
//! Invariants: data goes out before its chunk's signature is known, so nothing may be committed before
//! [`Piece::End`]; any error comes before it. Memory is what was pushed and one line. An error is final.

use std::collections::VecDeque;
use std::fmt;

use aws_lc_rs::digest;
use bytes::{Buf, Bytes};

use super::key::{Digest, SigningKey, digest_of, hex, parse_hex, sha256};
use crate::error::{ErrorCode, S3Error};

const CHUNK_LINE_MAX_BYTES: usize = 128;
const TRAILER_LINE_MAX_BYTES: usize = 1024;
const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature";

/// What a verified head says about an aws-chunked body.
#[derive(Debug, Clone)]
pub struct ChunkedBody {
    /// `x-amz-decoded-content-length`: what the data must come to.
    pub len_bytes: u64,
    /// How chunks are signed; `None` when they are not.
    pub signing: Option<ChunkSigning>,
    /// The trailers `x-amz-trailer` announces, lower-case; `None` in a mode without any.
    pub trailers: Option<Vec<String>>,
}

/// The chain of chunk signatures. Never shown.
#[derive(Clone)]
pub struct ChunkSigning {
    key: SigningKey,
    timestamp: String,
    scope: String,
    previous: Digest,
}

impl fmt::Debug for ChunkSigning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkSigning(..)")
    }
}

impl ChunkSigning {
    pub(super) fn new(key: SigningKey, timestamp: String, scope: String, seed: Digest) -> Self {
        ChunkSigning { key, timestamp, scope, previous: seed }
    }

    fn check_chunk(&mut self, signature: Digest, data_hash: Digest) -> Result<(), S3Error> {
        let hashes = format!("{}\n{}", hex(&sha256(b"")), hex(&data_hash));
        self.check("AWS4-HMAC-SHA256-PAYLOAD", &hashes, signature)
    }

    fn check_trailers(&mut self, signature: Digest, canonical: &str) -> Result<(), S3Error> {
        self.check("AWS4-HMAC-SHA256-TRAILER", &hex(&sha256(canonical.as_bytes())), signature)
    }

    fn check(&mut self, algorithm: &str, hashes: &str, signature: Digest) -> Result<(), S3Error> {
        let previous = hex(&self.previous);
        let to_sign = format!("{algorithm}\n{}\n{}\n{previous}\n{hashes}", self.timestamp, self.scope);
        if !self.key.verifies(to_sign.as_bytes(), &signature) {
            return Err(S3Error::from(ErrorCode::SignatureDoesNotMatch).with("StringToSign", to_sign));
        }
        self.previous = signature;
        Ok(())
    }
}

/// What comes out of a decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Some of the object's bytes; never empty.
    Data(Bytes),
    /// All was there and verified. The trailers, lower-case names, without the signature's.
    End(Vec<(String, String)>),
}

enum State {
    ChunkLine,
    Data { left_bytes: u64 },
    DataEnd,
    Trailers,
    Ended,
    Failed(S3Error),
}

/// The signature a chunk's line gave, and the hash of its data so far.
struct Signed {
    signature: Digest,
    hash: digest::Context,
}

/// Decodes one aws-chunked body: push what arrives, poll until `None`, and finish when the connection has no more.
pub struct Decoder {
    state: State,
    signing: Option<ChunkSigning>,
    /// Data bytes still to come.
    left_bytes: u64,
    chunk: Option<Signed>,
    announced: Option<Vec<String>>,
    trailers: Vec<(String, String)>,
    input: VecDeque<Bytes>,
    line: Vec<u8>,
}

impl Decoder {
    /// A decoder at the start of a body.
    pub fn new(body: ChunkedBody) -> Self {
        Decoder {
            state: State::ChunkLine,
            signing: body.signing,
            left_bytes: body.len_bytes,
            chunk: None,
            announced: body.trailers,
            trailers: Vec::new(),
            input: VecDeque::new(),
            line: Vec::new(),
        }
    }

    /// Takes what has arrived. Kept until polled, so poll to `None` before pushing more.
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.input.push_back(bytes);
        }
    }

    /// The next piece; `None` when more input is needed, or after the end.
    ///
    /// # Errors
    /// `SignatureDoesNotMatch`: a chunk or the trailers. `IncompleteBody`: more or less data than announced.
    /// `InvalidRequest`: malformed framing. `MalformedTrailerError`: trailers other than announced.
    pub fn poll(&mut self) -> Result<Option<Piece>, S3Error> {
        let polled = self.advance();
        if let Err(error) = &polled {
            self.state = State::Failed(error.clone());
        }
        polled
    }

    /// The connection has no more.
    ///
    /// # Errors
    /// `IncompleteBody` unless the body's end was seen and nothing stood after it.
    pub fn finish(&self) -> Result<(), S3Error> {
        match &self.state {
            State::Ended if self.input.is_empty() => Ok(()),
            State::Failed(error) => Err(error.clone()),
            _ => Err(ErrorCode::IncompleteBody.into()),
        }
    }

    fn advance(&mut self) -> Result<Option<Piece>, S3Error> {
        loop {
            match &self.state {
                State::ChunkLine => {
                    let Some(line) = self.take_line(CHUNK_LINE_MAX_BYTES)? else {
                        return Ok(None);
                    };
                    self.begin_chunk(&line)?;
                }
                State::Data { left_bytes } => {
                    return Ok(self.take_data(*left_bytes).map(Piece::Data));
                }
                State::DataEnd => {
                    let Some(line) = self.take_line(2)? else {
                        return Ok(None);
                    };
                    self.end_chunk(&line)?;
                }
                State::Trailers => {
                    let Some(line) = self.take_line(TRAILER_LINE_MAX_BYTES)? else {
                        return Ok(None);
                    };
                    if line.is_empty() {
                        return self.end_body().map(Some);
                    }
                    self.add_trailer(&line)?;
                }
                State::Ended if self.input.is_empty() => return Ok(None),
                State::Ended => return Err(malformed("data follows the last chunk")),
                State::Failed(error) => return Err(error.clone()),
            }
        }
    }

    fn begin_chunk(&mut self, line: &str) -> Result<(), S3Error> {
        let (size, signature) = self.chunk_line(line)?;
        self.chunk = signature.map(|signature| Signed { signature, hash: digest::Context::new(&digest::SHA256) });
        if size == 0 {
            return self.last_chunk();
        }
        let left_bytes = self.left_bytes.checked_sub(size).ok_or_else(wrong_length)?;
        self.left_bytes = left_bytes;
        self.state = State::Data { left_bytes: size };
        Ok(())
    }

    fn chunk_line(&self, line: &str) -> Result<(u64, Option<Digest>), S3Error> {
        let (size, extension) = match line.split_once(';') {
            Some((size, extension)) => (size, Some(extension)),
            None => (line, None),
        };
        let size = chunk_size(size).ok_or_else(|| malformed("a chunk's size is not hexadecimal"))?;
        match (&self.signing, extension.map(|text| text.trim().strip_prefix("chunk-signature="))) {
            (None, None) => Ok((size, None)),
            (Some(_), Some(Some(signature))) => {
                let signature = parse_hex(signature.as_bytes()).ok_or(ErrorCode::SignatureDoesNotMatch)?;
                Ok((size, Some(signature)))
            }
            (Some(_), _) => Err(malformed("a chunk has no chunk-signature")),
            (None, Some(_)) => Err(malformed("a chunk has an extension")),
        }
    }

    fn last_chunk(&mut self) -> Result<(), S3Error> {
        self.check_chunk()?;
        if self.left_bytes != 0 {
            return Err(wrong_length());
        }
        self.state = State::Trailers;
        Ok(())
    }

    fn end_chunk(&mut self, line: &str) -> Result<(), S3Error> {
        if !line.is_empty() {
            return Err(malformed("a chunk's data is longer than its size"));
        }
        self.check_chunk()?;
        self.state = State::ChunkLine;
        Ok(())
    }

    fn check_chunk(&mut self) -> Result<(), S3Error> {
        match (&mut self.signing, self.chunk.take()) {
            (Some(signing), Some(chunk)) => {
                signing.check_chunk(chunk.signature, digest_of(chunk.hash.finish().as_ref()))
            }
            _ => Ok(()),
        }
    }

    fn add_trailer(&mut self, line: &str) -> Result<(), S3Error> {
        let (name, value) = line.split_once(':').ok_or(ErrorCode::MalformedTrailerError)?;
        let name = name.trim().to_ascii_lowercase();
        let expected = match &self.announced {
            None => false,
            Some(_) if name == TRAILER_SIGNATURE => self.signing.is_some(),
            Some(announced) => announced.contains(&name),
        };
        let repeated = self.trailers.iter().any(|(known, _)| *known == name);
        if !expected || repeated {
            return Err(ErrorCode::MalformedTrailerError.into());
        }
        self.trailers.push((name, value.trim().to_owned()));
        Ok(())
    }

    fn end_body(&mut self) -> Result<Piece, S3Error> {
        let signature = self.trailers.iter().position(|(name, _)| name == TRAILER_SIGNATURE);
        let signature = signature.map(|index| self.trailers.remove(index).1);
        self.check_trailers(signature)?;
        let came = |name: &String| self.trailers.iter().any(|(known, _)| known == name);
        if !self.announced.iter().flatten().all(came) {
            return Err(ErrorCode::MalformedTrailerError.into());
        }
        self.state = State::Ended;
        Ok(Piece::End(std::mem::take(&mut self.trailers)))
    }

    fn check_trailers(&mut self, signature: Option<String>) -> Result<(), S3Error> {
        let (Some(signing), true) = (&mut self.signing, self.announced.is_some()) else {
            return Ok(());
        };
        let given = signature.ok_or(ErrorCode::MalformedTrailerError)?;
        let signature = parse_hex(given.as_bytes()).ok_or(ErrorCode::SignatureDoesNotMatch)?;
        let mut lines: Vec<String> = self.trailers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        lines.sort_unstable();
        signing.check_trailers(signature, &lines.concat())
    }

    /// A slice of what was pushed, at most the rest of the chunk.
    fn take_data(&mut self, left_bytes: u64) -> Option<Bytes> {
        let front = self.input.front_mut()?;
        let len = usize::try_from(left_bytes).unwrap_or(usize::MAX).min(front.len());
        let data = front.split_to(len);
        self.drop_empty_front();
        if let Some(chunk) = &mut self.chunk {
            chunk.hash.update(&data);
        }
        let left_bytes = left_bytes - len as u64;
        self.state = if left_bytes == 0 { State::DataEnd } else { State::Data { left_bytes } };
        Some(data)
    }

    /// The next line without its CRLF, once it is there whole.
    fn take_line(&mut self, max_bytes: usize) -> Result<Option<String>, S3Error> {
        while let Some(front) = self.input.front_mut() {
            let room = max_bytes - self.line.len();
            let window = &front[..room.min(front.len())];
            let newline = window.iter().position(|byte| *byte == b'\n');
            let len = newline.map_or(window.len(), |index| index + 1);
            self.line.extend_from_slice(&window[..len]);
            front.advance(len);
            self.drop_empty_front();
            if newline.is_some() {
                return self.finished_line().map(Some);
            }
            if self.line.len() == max_bytes {
                return Err(malformed("a line is too long"));
            }
        }
        Ok(None)
    }

    fn finished_line(&mut self) -> Result<String, S3Error> {
        let mut line = std::mem::take(&mut self.line);
        if !line.ends_with(b"\r\n") {
            return Err(malformed("a line does not end in CRLF"));
        }
        line.truncate(line.len() - 2);
        String::from_utf8(line).map_err(|_| malformed("a line is not text"))
    }

    fn drop_empty_front(&mut self) {
        if self.input.front().is_some_and(Bytes::is_empty) {
            self.input.pop_front();
        }
    }
}

fn chunk_size(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok())?
}

fn wrong_length() -> S3Error {
    S3Error::new(
        ErrorCode::IncompleteBody,
        "You did not provide the number of bytes specified by the x-amz-decoded-content-length HTTP header",
    )
}

fn malformed(why: &str) -> S3Error {
    S3Error::new(ErrorCode::InvalidRequest, format!("The aws-chunked body is malformed: {why}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    type Decoded = Result<(Vec<u8>, Vec<(String, String)>), ErrorCode>;

    /// Decodes `body`, pushed in pieces that end at `cuts`.
    pub(in crate::auth) fn decode(spec: ChunkedBody, body: &[u8], cuts: &[usize]) -> Decoded {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (body.len() + 1)).chain([body.len()]).collect();
        ends.sort_unstable();
        let (mut decoder, mut data, mut trailers, mut begin) = (Decoder::new(spec), Vec::new(), None, 0);
        for end in ends {
            decoder.push(Bytes::copy_from_slice(&body[begin..end]));
            begin = end;
            while let Some(piece) = decoder.poll().map_err(|error| error.code)? {
                match piece {
                    Piece::Data(bytes) => data.extend_from_slice(&bytes),
                    Piece::End(found) => assert!(trailers.replace(found).is_none(), "one end"),
                }
            }
        }
        decoder.finish().map_err(|error| error.code)?;
        Ok((data, trailers.unwrap()))
    }

    fn unsigned(len_bytes: u64, trailers: Option<&[&str]>) -> ChunkedBody {
        let trailers = trailers.map(|names| names.iter().map(|name| name.to_string()).collect());
        ChunkedBody { len_bytes, signing: None, trailers }
    }

    fn unsigned_body(body: &str, len_bytes: u64, trailers: Option<&[&str]>) -> Decoded {
        decode(unsigned(len_bytes, trailers), body.as_bytes(), &[])
    }

    const CRC: &[&str] = &["x-amz-checksum-crc32"];

    #[test]
    fn unsigned_with_a_trailer() {
        let body = "5\r\nhello\r\nA\r\n0123456789\r\n0\r\nx-amz-checksum-crc32: AAAAAA== \r\n\r\n";
        let trailers = vec![("x-amz-checksum-crc32".to_owned(), "AAAAAA==".to_owned())];
        assert_eq!(unsigned_body(body, 15, Some(CRC)), Ok((b"hello0123456789".to_vec(), trailers)));
        assert_eq!(unsigned_body("0\r\n\r\n", 0, Some(&[])), Ok((vec![], vec![])));
        assert_eq!(unsigned_body("000\r\n\r\n", 0, None), Ok((vec![], vec![])));
    }

    #[test]
    fn the_data_must_have_the_announced_length() {
        for (body, len_bytes) in [
            ("5\r\nhello\r\n0\r\n\r\n", 4),
            ("5\r\nhello\r\n0\r\n\r\n", 6),
            ("ffffffffffffffff\r\n", 4),
            ("5\r\nhello\r\n", 5),
            ("5\r\nhel", 5),
            ("5\r\nhello\r\n0\r\n", 5),
            ("", 0),
        ] {
            assert_eq!(unsigned_body(body, len_bytes, None), Err(ErrorCode::IncompleteBody), "{body:?}");
        }
    }

    #[test]
    fn malformed_framing() {
        let long_line = "0".repeat(200);
        for body in [
            "\r\n",
            "x\r\n",
            "-5\r\nhello\r\n",
            "+5\r\nhello\r\n",
            " 5\r\nhello\r\n",
            "5\nhello\r\n",
            "5\r\nhelloo\r\n",
            "5\r\nhello0\r\n\r\n",
            "5;ext=1\r\nhello\r\n",
            "10000000000000000\r\n",
            "5\r\nhello\r\n0\r\n\r\nmore",
            &long_line,
            "5\r\nhello\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
        ] {
            assert_eq!(unsigned_body(body, 5, None), Err(ErrorCode::InvalidRequest), "{body:?}");
        }
        assert_eq!(decode(unsigned(5, None), b"\xff\r\n", &[]), Err(ErrorCode::InvalidRequest));
    }

    #[test]
    fn trailers_are_those_announced_once_each() {
        let code = |body: &str, announced| unsigned_body(body, 0, announced).unwrap_err();
        let crc = "x-amz-checksum-crc32:AAAAAA==\r\n";
        assert_eq!(code(&format!("0\r\n{crc}\r\n"), None), ErrorCode::MalformedTrailerError);
        assert_eq!(code(&format!("0\r\n{crc}{crc}\r\n"), Some(CRC)), ErrorCode::MalformedTrailerError);
        assert_eq!(code("0\r\nx-amz-meta-a:b\r\n\r\n", Some(CRC)), ErrorCode::MalformedTrailerError);
        assert_eq!(code("0\r\nx-amz-trailer-signature:00\r\n\r\n", Some(CRC)), ErrorCode::MalformedTrailerError);
        assert_eq!(code("0\r\n\r\n", Some(CRC)), ErrorCode::MalformedTrailerError);
        assert_eq!(code("0\r\nnonsense\r\n\r\n", Some(CRC)), ErrorCode::MalformedTrailerError);
        assert_eq!(code(&format!("0\r\n{}", "a".repeat(2000)), Some(CRC)), ErrorCode::InvalidRequest);
    }

    #[test]
    fn an_error_is_final_and_no_end_follows() {
        let mut decoder = Decoder::new(unsigned(5, None));
        decoder.push(Bytes::from_static(b"zz\r\n"));
        assert!(decoder.poll().is_err());
        decoder.push(Bytes::from_static(b"5\r\nhello\r\n0\r\n\r\n"));
        assert!(decoder.poll().is_err() && decoder.finish().is_err());
    }

    #[test]
    fn data_is_not_copied() {
        let body = Bytes::from_static(b"5\r\nhello\r\n0\r\n\r\n");
        let mut decoder = Decoder::new(unsigned(5, None));
        decoder.push(body.clone());
        let Some(Piece::Data(data)) = decoder.poll().unwrap() else { unreachable!("data first") };
        assert_eq!(data.as_ptr(), body[3..].as_ptr());
    }

    proptest! {
        #[test]
        fn splits_of_the_input_change_nothing(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..6),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let data = chunks.concat();
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n");
            let spec = unsigned(data.len() as u64, Some(CRC));
            let decoded = decode(spec.clone(), &body, &cuts);
            prop_assert_eq!(&decoded, &decode(spec, &body, &[]));
            prop_assert_eq!(decoded.unwrap().0, data);
        }

        #[test]
        fn garbage_splits_alike(body in prop::collection::vec(prop::sample::select(&b"05a;\r\n:x"[..]), 0..40), cuts in prop::collection::vec(any::<usize>(), 0..8), len in 0u64..8) {
            let spec = unsigned(len, None);
            prop_assert_eq!(decode(spec.clone(), &body, &cuts), decode(spec, &body, &[]));
        }
    }
}
