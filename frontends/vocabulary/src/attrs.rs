//! What an object carries beside its bytes: metadata, what file systems say in it, storage class, ETag.

use crate::error::{ErrorCode, S3Error};
use predastore::catalog::{Attrs, ETag, FileKind, Header, Posix};
use predastore::env::Timestamp;

/// All of a request's user metadata, names and values.
const USER_METADATA_MAX_BYTES: usize = 2048;

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

/// The name of a header that is kept.
pub fn header_name(header: Header) -> &'static str {
    match header {
        Header::ContentType => "content-type",
        Header::CacheControl => "cache-control",
        Header::ContentDisposition => "content-disposition",
        Header::ContentEncoding => "content-encoding",
        Header::ContentLanguage => "content-language",
        Header::Expires => "expires",
        Header::WebsiteRedirect => "x-amz-website-redirect-location",
    }
}

/// User metadata in the order it is kept in. `metadata`: names in lower case, without `x-amz-meta-`.
///
/// # Errors
/// `MetadataTooLarge`, with the sizes.
pub fn user_metadata(mut metadata: Vec<(String, String)>) -> Result<Vec<(String, String)>, S3Error> {
    metadata.sort();
    let size: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > USER_METADATA_MAX_BYTES {
        return Err(S3Error::from(ErrorCode::MetadataTooLarge)
            .with("Size", size.to_string())
            .with("MaxSizeAllowed", USER_METADATA_MAX_BYTES.to_string()));
    }
    Ok(metadata)
}

/// A storage class as it is kept: empty for `STANDARD`, and where none was said.
///
/// # Errors
/// `InvalidStorageClass`.
pub fn storage_class(class: &str) -> Result<String, S3Error> {
    match class {
        "" | "STANDARD" => Ok(String::new()),
        class if STORAGE_CLASSES.contains(&class) => Ok(class.to_owned()),
        class => Err(S3Error::from(ErrorCode::InvalidStorageClass).with("StorageClassRequested", class)),
    }
}

/// What a copy carries: the source's or the request's metadata and tags; owner and class are always the request's.
pub fn of_copy(source: &Attrs, fresh: &Attrs, replace_metadata: bool, replace_tags: bool) -> Attrs {
    let mut attrs = fresh.clone();
    if !replace_metadata {
        attrs.headers.clone_from(&source.headers);
        attrs.metadata.clone_from(&source.metadata);
        attrs.posix = source.posix;
        attrs.xattrs.clone_from(&source.xattrs);
        // A redirect is a property of the name, not of the bytes: S3 does not copy it.
        attrs.headers.retain(|(header, _)| *header != Header::WebsiteRedirect);
        attrs.headers.extend(fresh.headers.iter().filter(|(header, _)| *header == Header::WebsiteRedirect).cloned());
    }
    if !replace_tags {
        attrs.tags.clone_from(&source.tags);
    }
    attrs
}

/// What s3fs and rclone say of a file, taken out of the metadata: `mode` (decimal, of `st_mode`) and `mtime` (seconds).
/// Privileges and types are dropped; `uid` and `gid` are kept as they were sent, and own nothing.
pub fn take_posix(metadata: &mut Vec<(String, String)>) -> Option<Posix> {
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
    use super::*;

    #[test]
    fn etags_round_trip_and_foreign_ones_match_nothing() {
        let text = "d41d8cd98f00b204e9800998ecf8427e-3";
        assert_eq!(etag(text).to_string(), text);
        assert_eq!(etag("nonsense").part_count, u32::MAX);
    }
}
