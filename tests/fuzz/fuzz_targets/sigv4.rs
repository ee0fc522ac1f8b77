//! SigV4: signing what the verifier says it signs must verify, whatever the request holds.
#![no_main]

mod signer;

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use predastore_s3::auth::Identity;
use predastore_s3::error::ErrorCode;
use predastore_s3::query::Query;
use signer::{TIMESTAMP, authenticate, authorize, sign, string_to_sign};

/// Lines: method, path, query, then `name:value` headers. Without an authorization header of its own, the request gets
/// one that names all its headers.
fn request_of(text: &str) -> Option<(&str, &str, &str, HeaderMap)> {
    let mut lines = text.lines();
    let (method, path, query) = (lines.next()?, lines.next()?, lines.next()?);
    let mut headers = HeaderMap::new();
    for line in lines.take(20) {
        let (name, value) = line.split_once(':')?;
        headers.append(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?);
    }
    Some((method, path, query, headers))
}

fuzz_target!(|text: &str| {
    let Some((method, raw_path, raw_query, mut headers)) = request_of(text) else { return };
    let Ok(query) = Query::parse(raw_query) else { return };
    let send = |headers: &HeaderMap| authenticate(method, raw_path, &query, headers);
    if headers.contains_key("authorization") || query.has("X-Amz-Signature") {
        if let Ok(sent) = send(&headers) {
            assert_eq!(sent.identity, Identity::Anonymous, "forged");
        }
        return;
    }
    let fixed = [("host", "localhost"), ("x-amz-date", TIMESTAMP), ("x-amz-content-sha256", "UNSIGNED-PAYLOAD")];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let Err(refusal) = send(&authorize(headers.clone(), &"0".repeat(64))) else { panic!("forged") };
    if refusal.code != ErrorCode::SignatureDoesNotMatch {
        return;
    }
    let to_sign = string_to_sign(&refusal).expect("all its signed headers are there");
    assert!(send(&authorize(headers, &sign(&to_sign))).is_ok());
});
