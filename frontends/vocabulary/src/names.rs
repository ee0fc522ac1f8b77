//! What a bucket and a key may be called, and how a source of a copy names both.

use crate::error::{ErrorCode, S3Error};

/// The longest key, in bytes of UTF-8.
pub const KEY_MAX_BYTES: usize = 1024;

const RESERVED_PREFIXES: [&str; 3] = ["xn--", "sthree-", "amzn-s3-demo-"];
const RESERVED_SUFFIXES: [&str; 5] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];

/// The rules for general purpose buckets.
///
/// # Errors
/// `InvalidBucketName`, with the name.
pub fn check_bucket_name(name: &str) -> Result<(), S3Error> {
    if is_bucket_name(name) {
        return Ok(());
    }
    Err(S3Error::from(ErrorCode::InvalidBucketName).with("BucketName", name))
}

fn is_bucket_name(name: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| alphanumeric(byte) || matches!(byte, b'-' | b'.'))
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && !["..", ".-", "-."].iter().any(|pair| name.contains(pair))
        && !looks_like_ipv4(name)
        && !RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        && !RESERVED_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

fn looks_like_ipv4(name: &str) -> bool {
    let mut count = 0;
    name.split('.').all(|label| {
        count += 1;
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit())
    }) && count == 4
}

/// # Errors
/// `KeyTooLongError` past 1,024 bytes, with the sizes.
pub fn check_key(key: &str) -> Result<(), S3Error> {
    if key.len() <= KEY_MAX_BYTES {
        return Ok(());
    }
    Err(S3Error::from(ErrorCode::KeyTooLongError)
        .with("Size", key.len().to_string())
        .with("MaxSizeAllowed", KEY_MAX_BYTES.to_string()))
}

/// `x-amz-copy-source`: `bucket/key` or `/bucket/key`, percent-encoded, perhaps with `?versionId=…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySource {
    /// The source's bucket; valid.
    pub bucket: String,
    /// The source's key.
    pub key: String,
    /// The source's version, as sent.
    pub version_id: Option<String>,
}

impl CopySource {
    /// Reads the header.
    ///
    /// # Errors
    /// `InvalidArgument` when there is no bucket or no key; `InvalidBucketName`, `KeyTooLongError`, `InvalidURI`.
    pub fn parse(header: &str) -> Result<CopySource, S3Error> {
        let (raw_path, query) = header.split_once("?versionId=").unwrap_or((header, ""));
        // Some clients encode the whole value, its first slash included.
        let decoded = uri_decode(raw_path)?;
        let decoded = decoded.strip_prefix('/').unwrap_or(&decoded);
        let (bucket, key) = decoded.split_once('/').filter(|(_, key)| !key.is_empty()).ok_or_else(|| {
            S3Error::invalid_argument(
                "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
                "x-amz-copy-source",
                header,
            )
        })?;
        check_bucket_name(bucket)?;
        check_key(key)?;
        let version_id = (!query.is_empty()).then(|| uri_decode(query)).transpose()?;
        Ok(CopySource { bucket: bucket.to_owned(), key: key.to_owned(), version_id })
    }
}

/// Decodes `%xx`; everything else stands for itself (`+` too).
///
/// # Errors
/// `InvalidURI`: a `%` without two hex digits, or a result that is not UTF-8.
pub fn uri_decode(text: &str) -> Result<String, S3Error> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        decoded.push(if byte == b'%' { escaped(&mut rest)? } else { byte });
    }
    String::from_utf8(decoded).map_err(|_| ErrorCode::InvalidURI.into())
}

fn escaped(rest: &mut impl Iterator<Item = u8>) -> Result<u8, S3Error> {
    let mut digit = || rest.next().and_then(hex_digit).ok_or(ErrorCode::InvalidURI);
    Ok(digit()? << 4 | digit()?)
}

fn hex_digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bucket_names() {
        let longest = "a".repeat(63);
        for name in ["abc", "my-bucket", "my.bucket.1", "0ab", "1.2.3", "1.2.3.4.5", "a--b", longest.as_str()] {
            assert!(check_bucket_name(name).is_ok(), "{name}");
        }
        let too_long = "a".repeat(64);
        for name in [
            "",
            "ab",
            "Abc",
            "a_b",
            "-abc",
            "abc-",
            ".abc",
            "abc.",
            "a..b",
            "a.-b",
            "a-.b",
            "192.168.5.4",
            "999.1.1.1",
            "xn--abc",
            "sthree-abc",
            "abc-s3alias",
            "abc--ol-s3",
            "abc.mrap",
            "abc--x-s3",
            "a/b",
            "a b",
            "ünï",
            "..",
            "abc\0",
            too_long.as_str(),
        ] {
            assert_eq!(check_bucket_name(name).unwrap_err().code, ErrorCode::InvalidBucketName, "{name}");
        }
    }

    #[test]
    fn copy_sources() {
        let parse = |header| CopySource::parse(header).map_err(|error| error.code);
        let source = |bucket: &str, key: &str, version: Option<&str>| {
            Ok(CopySource { bucket: bucket.into(), key: key.into(), version_id: version.map(Into::into) })
        };
        assert_eq!(parse("bucket/a%20b"), source("bucket", "a b", None));
        assert_eq!(parse("/bucket/a/b?versionId=3%2F4"), source("bucket", "a/b", Some("3/4")));
        assert_eq!(parse("bucket%2Fkey"), source("bucket", "key", None));
        assert_eq!(parse("bucket/a+b?c"), source("bucket", "a+b?c", None));
        assert_eq!(parse("bucket//k"), source("bucket", "/k", None));
        for header in ["", "/", "bucket", "bucket/", "/bucket"] {
            assert_eq!(parse(header), Err(ErrorCode::InvalidArgument), "{header}");
        }
        assert_eq!(parse("BUCKET/key"), Err(ErrorCode::InvalidBucketName));
    }

    #[test]
    fn bad_escapes_and_bad_utf8_are_invalid_uris() {
        for raw in ["%", "%2", "%zz", "a%ff", "%c3%28", "%+1"] {
            assert_eq!(uri_decode(raw).unwrap_err().code, ErrorCode::InvalidURI, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,60}") {
            let _ = (CopySource::parse(&text), uri_decode(&text), check_bucket_name(&text));
        }
    }
}
