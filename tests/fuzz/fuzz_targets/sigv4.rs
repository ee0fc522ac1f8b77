//! SigV4: signing what the verifier says it signs must verify, whatever the request holds.
#![no_main]

use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use predastore_s3::auth::{Identity, RequestHead, Secret, Verifier};
use predastore_s3::error::ErrorCode;
use predastore_s3::query::Query;

const NOW_S: i64 = 1_369_353_600;
const SCOPE: &str = "AK/20130524/us-east-1/s3/aws4_request";

/// Lines: method, path, query, then `name:value` headers. Without an authorization header of its own, the request gets
/// one that names all its headers.
fn request_of(text: &str) -> Option<(&str, &str, &str, HeaderMap)> {
    let mut lines = text.lines();
    let (method, path, query) = (lines.next()?, lines.next()?, lines.next()?);
    let mut headers = HeaderMap::new();
    for line in lines.take(20) {
        let (name, value) = line.split_once(':')?;
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).ok()?,
            HeaderValue::from_str(value).ok()?,
        );
    }
    Some((method, path, query, headers))
}

fn with_authorization(mut headers: HeaderMap, signature: &str) -> HeaderMap {
    let fixed = [
        ("host", "localhost"),
        ("x-amz-date", "20130524T000000Z"),
        ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let mut names: Vec<_> = headers
        .keys()
        .map(|name| name.as_str().to_owned())
        .collect();
    names.sort();
    let names = names.join(";");
    let text = format!(
        "AWS4-HMAC-SHA256 Credential={SCOPE}, SignedHeaders={names}, Signature={signature}"
    );
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert("authorization", value);
    }
    headers
}

fn sign(to_sign: &str) -> String {
    let mut key = b"AWS4secret".to_vec();
    for step in ["20130524", "us-east-1", "s3", "aws4_request", to_sign] {
        key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), step.as_bytes())
            .as_ref()
            .to_vec();
    }
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fuzz_target!(|text: &str| {
    let verifier = Verifier::new(
        |id: &str| (id == "AK").then(|| Secret::new("secret")),
        vec![],
    );
    let Some((method, raw_path, raw_query, headers)) = request_of(text) else {
        return;
    };
    let Ok(query) = Query::parse(raw_query) else {
        return;
    };
    let send = |headers: &HeaderMap| {
        verifier.authenticate(
            &RequestHead {
                method,
                raw_path,
                query: &query,
                headers,
            },
            NOW_S,
        )
    };
    if headers.contains_key("authorization") || query.has("X-Amz-Signature") {
        if let Ok(sent) = send(&headers) {
            assert_eq!(sent.identity, Identity::Anonymous, "forged");
        }
        return;
    }
    let Err(refusal) = send(&with_authorization(headers.clone(), &"0".repeat(64))) else {
        panic!("forged")
    };
    if refusal.code != ErrorCode::SignatureDoesNotMatch {
        return;
    }
    let shown = refusal
        .fields
        .iter()
        .find(|(name, _)| *name == "StringToSign");
    let (_, to_sign) = shown.expect("all its signed headers are there");
    assert!(send(&with_authorization(headers, &sign(to_sign))).is_ok());
});
