//! A client's half of Signature Version 4, for one key on one day.

#![allow(dead_code)] // Each target uses its part.

use aws_lc_rs::{digest, hmac};
use http::{HeaderMap, HeaderValue};
use predastore::object::access::Secret;
use predastore_s3::auth::{Authenticated, RequestHead, Verifier, anonymous};
use predastore_s3::error::S3Error;
use predastore_s3::query::Query;

/// 2013-05-24, Unix seconds.
const NOW_S: i64 = 1_369_353_600;
pub const TIMESTAMP: &str = "20130524T000000Z";
pub const SCOPE: &str = "20130524/us-east-1/s3/aws4_request";

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

pub fn sign(to_sign: &str) -> String {
    let mut key = b"AWS4secret".to_vec();
    for step in ["20130524", "us-east-1", "s3", "aws4_request", to_sign] {
        key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), step.as_bytes()).as_ref().to_vec();
    }
    hex(&key)
}

/// Adds an authorization header that names all headers.
pub fn authorize(mut headers: HeaderMap, signature: &str) -> HeaderMap {
    let mut names: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
    names.sort();
    let names = names.join(";");
    let text = format!("AWS4-HMAC-SHA256 Credential=AK/{SCOPE}, SignedHeaders={names}, Signature={signature}");
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert("authorization", value);
    }
    headers
}

/// What a server that knows the key says to a request.
pub fn authenticate(
    method: &str,
    raw_path: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Authenticated, S3Error> {
    let (verifier, head) = (Verifier::new(vec![]), RequestHead { method, raw_path, query, headers });
    match verifier.claim(&head, NOW_S)? {
        None => anonymous(&head),
        Some(claim) => {
            let secret = (claim.access_key_id() == "AK").then(|| Secret::new("secret"));
            verifier.verify(&head, &claim, secret.as_ref())
        }
    }
}

/// The string to sign that a refusal shows.
pub fn string_to_sign(refusal: &S3Error) -> Option<String> {
    let shown = refusal.fields.iter().find(|(name, _)| *name == "StringToSign");
    shown.map(|(_, text)| text.to_string())
}
