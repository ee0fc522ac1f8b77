//! What a request's headers say of an object: the headers to give back, user metadata, tags, storage class.

use http::{HeaderMap, HeaderName};
use predastore::catalog::{Attrs, ETag, FileKind, Header, Posix};
use predastore::env::Timestamp;

use crate::app::{Request, header_of};
use crate::error::{ErrorCode, S3Error};
use crate::xml;

/// All of a request's user metadata, names and values.
const USER_METADATA_MAX_BYTES: usize = 2048;
const PREFIX: &str = "x-amz-meta-";

/// Classes whose objects can be read at once. Those of an archive would have to be restored first, which does not exist here.
const STORAGE_CLASSES: [&str; 8] = [
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
    "EXPRESS_ONEZONE",
    "OUTPOSTS",
];

const KEPT: [(Header, &str); 7] = [
    (Header::ContentType, "content-type"),
    (Header::CacheControl, "cache-control"),
    (Header::ContentDisposition, "content-disposition"),
    (Header::ContentEncoding, "content-encoding"),
    (Header::ContentLanguage, "content-language"),
    (Header::Expires, "expires"),
    (Header::WebsiteRedirect, "x-amz-website-redirect-location"),
];

/// Everything that a PUT, a copy with new metadata or a new upload carries.
///
/// # Errors
/// `MetadataTooLarge`, `InvalidTag`, `InvalidStorageClass`.
pub fn attrs_of(request: &Request) -> Result<Attrs, S3Error> {
    let headers = &request.head.headers;
    let mut metadata = user_metadata(headers)?;
    // What s3fs says of a directory (`x/`) is between s3fs and its metadata.
    let posix = if request.key().ends_with('/') { None } else { take_posix(&mut metadata) };
    Ok(Attrs {
        owner: request.account_id().to_owned(),
        headers: kept_headers(headers)?,
        metadata,
        posix,
        tags: tags(headers)?,
        storage_class: storage_class(headers)?,
        ..Attrs::default()
    })
}

/// Encryption and object lock, in any request: saying yes and storing plain, deletable bytes would be a lie, and so would
/// be taking a key for bytes that are not encrypted.
///
/// # Errors
/// `NotImplemented`, with the header.
pub fn refuse_unkept(headers: &HeaderMap) -> Result<(), S3Error> {
    const UNKEPT: [&str; 3] =
        ["x-amz-server-side-encryption", "x-amz-copy-source-server-side-encryption", "x-amz-object-lock-"];
    let unkept = |name: &&HeaderName| UNKEPT.iter().any(|prefix| name.as_str().starts_with(prefix));
    match headers.keys().find(unkept) {
        None => Ok(()),
        Some(name) => Err(S3Error::from(ErrorCode::NotImplemented).with("Header", name.as_str())),
    }
}

fn kept_headers(headers: &HeaderMap) -> Result<Vec<(Header, String)>, S3Error> {
    let mut kept = Vec::new();
    for (header, name) in KEPT {
        let Some(value) = header_of(headers, name)? else { continue };
        let value = if header == Header::ContentEncoding { without_aws_chunked(value) } else { value.to_owned() };
        if !value.is_empty() {
            kept.push((header, value));
        }
    }
    Ok(kept)
}

/// `aws-chunked` is how the body travelled, not what it is.
fn without_aws_chunked(value: &str) -> String {
    if !value.contains("aws-chunked") {
        return value.to_owned();
    }
    let codings: Vec<_> =
        value.split(',').map(str::trim).filter(|coding| *coding != "aws-chunked" && !coding.is_empty()).collect();
    codings.join(", ")
}

fn user_metadata(headers: &HeaderMap) -> Result<Vec<(String, String)>, S3Error> {
    let mut metadata: Vec<(String, String)> = Vec::new();
    for name in headers.keys() {
        let Some(short) = name.as_str().strip_prefix(PREFIX) else { continue };
        let mut values = Vec::new();
        for value in headers.get_all(name) {
            let text = std::str::from_utf8(value.as_bytes())
                .map_err(|_| S3Error::invalid_argument("Metadata is not valid UTF-8", name.as_str(), ""))?;
            values.push(text);
        }
        metadata.push((short.to_owned(), values.join(",")));
    }
    metadata.sort();
    let size: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > USER_METADATA_MAX_BYTES {
        return Err(S3Error::from(ErrorCode::MetadataTooLarge)
            .with("Size", size.to_string())
            .with("MaxSizeAllowed", USER_METADATA_MAX_BYTES.to_string()));
    }
    Ok(metadata)
}

/// What s3fs and rclone say of a file, taken out of the metadata: `mode` (decimal, of `st_mode`) and `mtime` (seconds).
/// Privileges and types are dropped; `uid` and `gid` are kept as they were sent, and own nothing.
fn take_posix(metadata: &mut Vec<(String, String)>) -> Option<Posix> {
    let value = |name: &str| metadata.iter().find(|(had, _)| had == name).map(|(_, value)| value.as_str());
    // rclone's mode is octal, and larger than any of `st_mode` if it is read as decimal.
    let mode = value("mode").and_then(|mode| mode.parse::<u16>().ok()).map(u32::from);
    let mtime = value("mtime").and_then(parse_seconds);
    // A link of s3fs is an object to everybody else.
    let is_file = mode.is_none_or(|mode| FileKind::of_mode(mode) == FileKind::File);
    if mode.is_none() && mtime.is_none() || !is_file {
        return None;
    }
    let (had_mode, had_mtime) = (mode.is_some(), mtime.is_some());
    metadata.retain(|(name, _)| !(had_mode && name == "mode" || had_mtime && name == "mtime"));
    let time = mtime.unwrap_or(Timestamp(0));
    let mode = FileKind::File.format() | mode.unwrap_or(0o644) & 0o777;
    Some(Posix { mode, uid: 0, gid: 0, rdev: 0, mtime: time, ctime: time, atime: time })
}

/// The inverse of [`take_posix`], with the owner.
pub fn of_posix(posix: &Posix) -> [(&'static str, String); 4] {
    [
        ("mode", posix.mode.to_string()),
        ("uid", posix.uid.to_string()),
        ("gid", posix.gid.to_string()),
        ("mtime", format_seconds(posix.mtime)),
    ]
}

/// Seconds since 1970, perhaps with a fraction; none: it is no such text.
fn parse_seconds(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(fraction) {
        return None;
    }
    let nanos: i64 = format!("{:0<9}", &fraction[..fraction.len().min(9)]).parse().ok()?;
    seconds.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos).map(Timestamp)
}

fn format_seconds(time: Timestamp) -> String {
    let (seconds, nanos) = (time.0.div_euclid(1_000_000_000), time.0.rem_euclid(1_000_000_000));
    if nanos == 0 { seconds.to_string() } else { format!("{seconds}.{nanos:09}").trim_end_matches('0').to_owned() }
}

/// `x-amz-tagging`: tags as a query string.
pub fn tags(headers: &HeaderMap) -> Result<Vec<(String, String)>, S3Error> {
    let Some(text) = header_of(headers, "x-amz-tagging")? else { return Ok(Vec::new()) };
    Ok(xml::shown::pairs(xml::request::tagging_header(text)?))
}

fn storage_class(headers: &HeaderMap) -> Result<String, S3Error> {
    match header_of(headers, "x-amz-storage-class")? {
        None | Some("STANDARD") => Ok(String::new()),
        Some(class) if STORAGE_CLASSES.contains(&class) => Ok(class.to_owned()),
        Some(class) => Err(S3Error::from(ErrorCode::InvalidStorageClass).with("StorageClassRequested", class)),
    }
}

/// An ETag from its text. One that this store could not have made equals none of its own.
pub fn etag(text: &str) -> ETag {
    let (digits, count) = text.split_once('-').unwrap_or((text, "0"));
    parse_md5(digits)
        .zip(count.parse().ok())
        .map(|(md5, part_count)| ETag { md5, part_count })
        .unwrap_or(ETag { md5: [0; 16], part_count: u32::MAX })
}

fn parse_md5(digits: &str) -> Option<[u8; 16]> {
    let mut md5 = [0; 16];
    if digits.len() != 32 || !digits.is_ascii() {
        return None;
    }
    for (at, byte) in md5.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(md5)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn aws_chunked_is_not_an_encoding_of_the_object() {
        for (sent, kept) in
            [("aws-chunked", ""), ("aws-chunked,gzip", "gzip"), ("gzip, aws-chunked", "gzip"), ("gzip,br", "gzip,br")]
        {
            assert_eq!(without_aws_chunked(sent), kept);
        }
    }

    #[test]
    fn metadata_is_kept_to_the_byte_and_bounded() {
        let sent = headers(&[("x-amz-meta-b", "Grüße  two"), ("x-amz-meta-a", "1")]);
        assert_eq!(user_metadata(&sent).unwrap(), [("a".into(), "1".into()), ("b".into(), "Grüße  two".into())]);
        let large = "x".repeat(2048);
        assert_eq!(user_metadata(&headers(&[("x-amz-meta-c", &large)])).unwrap_err().code, ErrorCode::MetadataTooLarge);
    }

    #[test]
    fn what_would_not_be_kept_is_refused() {
        for name in [
            "x-amz-server-side-encryption",
            "x-amz-server-side-encryption-customer-key",
            "x-amz-copy-source-server-side-encryption-customer-key",
            "x-amz-object-lock-mode",
        ] {
            assert_eq!(refuse_unkept(&headers(&[(name, "x")])).unwrap_err().code, ErrorCode::NotImplemented);
        }
    }

    #[test]
    fn archive_classes_are_refused() {
        let class = |name| storage_class(&headers(&[("x-amz-storage-class", name)])).map_err(|error| error.code);
        assert_eq!(class("GLACIER_IR"), Ok("GLACIER_IR".to_owned()));
        for name in ["GLACIER", "DEEP_ARCHIVE", "standard"] {
            assert_eq!(class(name), Err(ErrorCode::InvalidStorageClass), "{name}");
        }
    }

    #[test]
    fn etags_round_trip_and_foreign_ones_match_nothing() {
        let text = "d41d8cd98f00b204e9800998ecf8427e-3";
        assert_eq!(etag(text).to_string(), text);
        assert_eq!(etag("nonsense").part_count, u32::MAX);
    }
}
