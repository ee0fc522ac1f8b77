//! Answers on the wire: JSON in the shape of the AWS SDK's outputs, or `{"Error":{"Code":…,"Message":…}}`.
//!
//! Invariant: an answer with a body is made in place, so that it is never in memory twice.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use predastore::object::{Error, Reader};
use predastore_vocabulary::error::{ErrorCode, S3Error};
use predastore_vocabulary::failure;
use serde_json::{Map, Value, json};

use crate::limits::{Held, Overloaded};
use crate::{envelope, nonces};

/// What a request comes to.
pub struct Answer {
    /// The payload.
    pub bytes: Vec<u8>,
    /// The memory that it holds.
    pub held: Option<Held>,
}

/// Why a request was not carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// S3's code.
    pub code: &'static str,
    /// What it says.
    pub message: String,
    /// Further fields.
    pub fields: Vec<(&'static str, String)>,
    /// What failed in the store, for the log alone.
    pub cause: Option<String>,
}

impl Refusal {
    /// What SDKs call an answer of 304.
    pub fn not_modified() -> Self {
        Refusal { code: "NotModified", message: "Not Modified".to_owned(), fields: Vec::new(), cause: None }
    }

    /// As answered.
    pub fn to_json(&self) -> Vec<u8> {
        let mut error = Map::new();
        error.insert("Code".to_owned(), json!(self.code));
        error.insert("Message".to_owned(), json!(self.message));
        for (name, value) in &self.fields {
            error.entry(*name).or_insert_with(|| json!(value));
        }
        json!({ "Error": error }).to_string().into_bytes()
    }
}

impl From<S3Error> for Refusal {
    fn from(error: S3Error) -> Self {
        let S3Error { code, message, fields, headers: _, cause } = error;
        Refusal { code: code.as_str(), message: message.into_owned(), fields, cause }
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        S3Error::from(code).into()
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        failure::of(error).into()
    }
}

impl From<Overloaded> for Refusal {
    fn from(_: Overloaded) -> Self {
        ErrorCode::SlowDown.into()
    }
}

impl From<envelope::Error> for Refusal {
    fn from(error: envelope::Error) -> Self {
        let code = match error {
            envelope::Error::Malformed => ErrorCode::InvalidSecurity,
            envelope::Error::Expired => ErrorCode::RequestTimeTooSkewed,
            envelope::Error::TooFarAhead => ErrorCode::RequestTimeTooSkewed,
            envelope::Error::Mismatch => ErrorCode::SignatureDoesNotMatch,
        };
        S3Error::new(code, error.to_string()).into()
    }
}

impl From<nonces::Error> for Refusal {
    fn from(error: nonces::Error) -> Self {
        match error {
            nonces::Error::Replayed => S3Error::new(ErrorCode::AccessDenied, error.to_string()).into(),
            nonces::Error::Full => S3Error::new(ErrorCode::SlowDown, error.to_string()).into(),
        }
    }
}

impl Answer {
    /// An answer without a body.
    pub fn of(value: &Map<String, Value>) -> Answer {
        Answer { bytes: rendered(value), held: None }
    }

    /// How long an answer of `head`, which is not empty, and a body of `body_bytes` is.
    pub fn len_bytes_with_body(head: &Map<String, Value>, body_bytes: u64) -> u64 {
        // The brace that ends the head is written again behind the body.
        (rendered(head).len() - 1 + BODY.len() + END.len()) as u64 + body_bytes.div_ceil(3) * 4
    }

    /// `head`, and as `Body` what `reader` gives, in base64. `held`: memory for all of it.
    ///
    /// # Errors
    /// The store's.
    pub async fn with_body(
        head: &Map<String, Value>,
        body_bytes: u64,
        mut reader: Reader,
        held: Held,
    ) -> Result<Answer, Error> {
        let len_bytes = Answer::len_bytes_with_body(head, body_bytes);
        let mut bytes = Vec::with_capacity(usize::try_from(len_bytes).unwrap_or_default());
        bytes.extend_from_slice(&rendered(head));
        bytes.pop();
        bytes.extend_from_slice(BODY);
        let mut encoder = Base64::default();
        while let Some(run) = reader.next().await {
            encoder.push(&run?, &mut bytes);
        }
        encoder.end(&mut bytes);
        bytes.extend_from_slice(END);
        Ok(Answer { bytes, held: Some(held) })
    }
}

const BODY: &[u8] = b",\"Body\":\"";
const END: &[u8] = b"\"}";

fn rendered(value: &Map<String, Value>) -> Vec<u8> {
    // Text and numbers in a map with text as keys have no way to fail.
    serde_json::to_vec(value).unwrap_or_default()
}

/// Base64 of bytes that come in runs of any length.
#[derive(Default)]
struct Base64 {
    /// Up to two bytes that wait for the third.
    rest: Vec<u8>,
}

impl Base64 {
    fn push(&mut self, mut run: &[u8], to: &mut Vec<u8>) {
        if !self.rest.is_empty() {
            let (first, later) = run.split_at(run.len().min(3 - self.rest.len()));
            self.rest.extend_from_slice(first);
            run = later;
            if self.rest.len() < 3 {
                return;
            }
            encode(&self.rest, to);
            self.rest.clear();
        }
        let (whole, rest) = run.split_at(run.len() - run.len() % 3);
        encode(whole, to);
        self.rest.extend_from_slice(rest);
    }

    fn end(self, to: &mut Vec<u8>) {
        encode(&self.rest, to);
    }
}

fn encode(bytes: &[u8], to: &mut Vec<u8>) {
    let start = to.len();
    to.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // The room is exactly what it takes.
    let written = STANDARD.encode_slice(bytes, &mut to[start..]).unwrap_or_default();
    to.truncate(start + written);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use predastore::catalog;

    #[test]
    fn runs_of_any_length_make_one_base64() {
        let bytes: Vec<u8> = (0..=255).collect();
        for len in [0, 1, 2, 3, 4, 7, 256] {
            for run in [1, 2, 3, 4, 5, 100] {
                let (mut encoder, mut text) = (Base64::default(), Vec::new());
                bytes[..len].chunks(run).for_each(|run| encoder.push(run, &mut text));
                encoder.end(&mut text);
                assert_eq!(String::from_utf8(text).unwrap(), STANDARD.encode(&bytes[..len]), "{len} by {run}");
            }
        }
    }

    #[test]
    fn the_length_is_known_before_the_body() {
        let head = json!({ "ETag": "\"x\"" });
        let head = head.as_object().unwrap();
        for len in 0..10_usize {
            let expected = format!("{{\"ETag\":\"\\\"x\\\"\",\"Body\":\"{}\"}}", STANDARD.encode(vec![7; len]));
            assert_eq!(Answer::len_bytes_with_body(head, len as u64), expected.len() as u64);
        }
    }

    #[test]
    fn errors_have_s3s_codes_and_hide_what_failed_inside() {
        let cases = [
            (Error::Refused(catalog::Refusal::NoSuchKey), "NoSuchKey"),
            (Error::Overloaded, "SlowDown"),
            (Error::Full, "InsufficientStorage"),
            (Error::Unavailable("the disk of node 7".to_owned()), "ServiceUnavailable"),
        ];
        for (error, code) in cases {
            let refusal = Refusal::from(error);
            assert_eq!(refusal.code, code);
            let shown: Value = serde_json::from_slice(&refusal.to_json()).unwrap();
            assert_eq!(shown["Error"]["Code"], code);
            assert!(!shown.to_string().contains("node 7"));
        }
    }
}
