//! Where a request keeps the names of its bucket and its key.
//!
//! Invariants: a path is split at `/` before it is decoded and is never normalised (`..`, `//` and `%2F` are part of the
//! key); names are checked after the only decoding, before any use.

use std::net::IpAddr;

pub use predastore_vocabulary::names::{CopySource, KEY_MAX_BYTES, check_bucket_name, check_key};

use crate::error::{ErrorCode, S3Error};
use crate::query::uri_decode;

/// What a request addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// A valid bucket name; `None` for the service itself.
    pub bucket: Option<String>,
    /// A key of 1 to 1,024 bytes, any UTF-8; only beside a bucket.
    pub key: Option<String>,
}

impl Target {
    /// Splits a request. `host`: the Host header; `raw_path`: as sent, before `?`; `base_domains`: lower-case, those
    /// under which `bucket.domain` names a bucket. Any other host, IP addresses among them, means path style.
    ///
    /// # Errors
    /// `InvalidBucketName`, `KeyTooLongError`; `InvalidURI` for bad escapes, bad UTF-8 or a path without its `/`.
    pub fn parse(host: Option<&str>, raw_path: &str, base_domains: &[String]) -> Result<Target, S3Error> {
        let path = raw_path.strip_prefix('/').ok_or(ErrorCode::InvalidURI)?;
        let (bucket, raw_key) = match host.and_then(|host| bucket_of_host(host, base_domains)) {
            Some(bucket) => (bucket, path),
            None => path_style(path)?,
        };
        if bucket.is_empty() {
            return if raw_key.is_empty() { Ok(Target::default()) } else { Err(ErrorCode::InvalidBucketName.into()) };
        }
        check_bucket_name(&bucket)?;
        Ok(Target { bucket: Some(bucket), key: decode_key(raw_key)? })
    }
}

fn path_style(path: &str) -> Result<(String, &str), S3Error> {
    let (bucket, raw_key) = path.split_once('/').unwrap_or((path, ""));
    Ok((uri_decode(bucket)?, raw_key))
}

fn decode_key(raw_key: &str) -> Result<Option<String>, S3Error> {
    if raw_key.is_empty() {
        return Ok(None);
    }
    let key = uri_decode(raw_key)?;
    check_key(&key)?;
    Ok(Some(key))
}

fn bucket_of_host(host: &str, base_domains: &[String]) -> Option<String> {
    let host = host_without_port(host).to_ascii_lowercase();
    if host == "localhost" || host.parse::<IpAddr>().is_ok() {
        return None;
    }
    let longest = base_domains
        .iter()
        .filter(|domain| host == **domain || host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.')))
        .max_by_key(|domain| domain.len())?;
    let bucket = host.strip_suffix(longest.as_str())?.strip_suffix('.')?;
    Some(bucket.to_owned())
}

fn host_without_port(host: &str) -> &str {
    if let Some(v6) = host.strip_prefix('[') {
        return v6.split(']').next().unwrap_or(v6);
    }
    host.split(':').next().unwrap_or(host)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::query::uri_encode_path;

    fn domains() -> Vec<String> {
        vec!["s3.example.com".into(), "example.com".into()]
    }

    fn parse(host: &str, path: &str) -> Result<Target, ErrorCode> {
        Target::parse(Some(host), path, &domains()).map_err(|error| error.code)
    }

    fn target(bucket: &str, key: &str) -> Result<Target, ErrorCode> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(Target { bucket: some(bucket), key: some(key) })
    }

    #[test]
    fn path_style() {
        assert_eq!(parse("localhost:8443", "/"), target("", ""));
        assert_eq!(parse("localhost:8443", "/bucket"), target("bucket", ""));
        assert_eq!(parse("127.0.0.1", "/bucket/"), target("bucket", ""));
        assert_eq!(parse("[::1]:8443", "/bucket/a/b"), target("bucket", "a/b"));
        assert_eq!(parse("s3.example.com", "/bucket/k"), target("bucket", "k"));
        assert_eq!(parse("elsewhere.org", "/bucket/k"), target("bucket", "k"));
        assert_eq!(Target::parse(None, "/bucket/k", &domains()).unwrap(), target("bucket", "k").unwrap());
    }

    #[test]
    fn virtual_host_style() {
        assert_eq!(parse("bucket.s3.example.com", "/"), target("bucket", ""));
        assert_eq!(parse("bucket.s3.example.com:8443", "/a//b"), target("bucket", "a//b"));
        assert_eq!(parse("My.Bucket.S3.EXAMPLE.com", "/k"), target("my.bucket", "k"));
        assert_eq!(parse("nots3.example.com", "/k"), target("nots3", "k"));
        assert_eq!(parse("a_b.s3.example.com", "/k"), Err(ErrorCode::InvalidBucketName));
        let unlucky = ["0.0.1".to_owned(), "localhost".to_owned()];
        assert_eq!(Target::parse(Some("127.0.0.1"), "/bucket", &unlucky).unwrap().bucket.as_deref(), Some("bucket"));
        assert_eq!(Target::parse(Some("b12.localhost"), "/k", &unlucky).unwrap().bucket.as_deref(), Some("b12"));
    }

    #[test]
    fn nothing_is_normalised() {
        for (raw, key) in [
            ("..", ".."),
            ("../x", "../x"),
            ("/", "/"),
            ("//a//", "//a//"),
            ("%2e%2e/a", "../a"),
            ("a%2Fb", "a/b"),
            ("a+b", "a+b"),
            ("%20", " "),
            ("%00", "\0"),
            ("%F0%9F%A6%80", "🦀"),
            ("./.", "./."),
            ("%252e", "%2e"),
        ] {
            assert_eq!(parse("localhost", &format!("/bucket/{raw}")), target("bucket", key), "{raw}");
        }
    }

    #[test]
    fn what_cannot_be_a_name_is_refused() {
        assert_eq!(parse("localhost", "/bucket/%ff"), Err(ErrorCode::InvalidURI));
        assert_eq!(parse("localhost", "/bucket/%2"), Err(ErrorCode::InvalidURI));
        assert_eq!(parse("localhost", ""), Err(ErrorCode::InvalidURI));
        assert_eq!(parse("localhost", "*"), Err(ErrorCode::InvalidURI));
        assert_eq!(parse("localhost", "//key"), Err(ErrorCode::InvalidBucketName));
        assert_eq!(parse("localhost", "/../etc/passwd"), Err(ErrorCode::InvalidBucketName));
        assert_eq!(parse("localhost", "/a%2Fbcd/k"), Err(ErrorCode::InvalidBucketName));
    }

    #[test]
    fn a_key_has_at_most_1024_bytes() {
        let longest = "é".repeat(512);
        assert_eq!(parse("localhost", &format!("/bucket/{}", uri_encode_path(&longest))), target("bucket", &longest));
        assert_eq!(parse("localhost", &format!("/bucket/{longest}a")), Err(ErrorCode::KeyTooLongError));
    }

    proptest! {
        #[test]
        fn any_key_survives_the_path(key in any::<String>()) {
            prop_assume!(!key.is_empty() && key.len() <= KEY_MAX_BYTES);
            let path = format!("/bucket/{}", uri_encode_path(&key));
            prop_assert_eq!(parse("localhost", &path).unwrap().key, Some(key));
        }

        #[test]
        fn nothing_panics(host in ".{0,30}", path in ".{0,60}") {
            let _ = parse(&host, &path);
        }
    }
}
