//! CopyObject with `x-predastore-copy-prefix: true`: all that is under a prefix, as of one moment, under another one. Not
//! of S3; docs/S3.md has its contract.

use axum::response::Response;
use predastore::catalog::{ETag, Refusal};
use predastore::object::{Error, Prefix, Target};

use crate::app::{App, Request};
use crate::error::{ErrorCode, S3Error};
use crate::respond::{self, milliseconds};
use crate::xml::response;
use crate::{acl, failure};

const HEADER: &str = "x-predastore-copy-prefix";
/// What it takes beside what it takes to copy an object; `s3:*` does not cover it, `*` does.
const ACTION: &str = "predastore:CopyPrefix";

/// What else may be said of a copy, and not of this one: everything is copied as it is.
const NOT_OF_PREFIXES: [&str; 9] = [
    "x-amz-copy-source-if-match",
    "x-amz-copy-source-if-none-match",
    "x-amz-copy-source-if-modified-since",
    "x-amz-copy-source-if-unmodified-since",
    "if-match",
    "if-none-match",
    "x-amz-tagging",
    "x-amz-storage-class",
    "x-amz-checksum-algorithm",
];
const DIRECTIVES: [&str; 2] = ["x-amz-metadata-directive", "x-amz-tagging-directive"];

/// The tag of what has no bytes: that of an object whose key ends in `/`.
const EMPTY: ETag = ETag {
    md5: [0xd4, 0x1d, 0x8c, 0xd9, 0x8f, 0x00, 0xb2, 0x04, 0xe9, 0x80, 0x09, 0x98, 0xec, 0xf8, 0x42, 0x7e],
    part_count: 0,
};

/// Whether a copy is one of prefixes.
///
/// # Errors
/// `InvalidArgument`: neither `true` nor `false` is said.
pub(super) fn is_asked(request: &Request) -> Result<bool, S3Error> {
    match request.header(HEADER)? {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(S3Error::invalid_argument("It is true or false.", HEADER, other)),
    }
}

/// Copies a prefix; answered when the copy is published.
pub(super) async fn copy(app: &App, request: &Request, source: Target) -> Result<Response, S3Error> {
    acl::check_headers(request)?;
    check(request, &source)?;
    // Of all the keys that are copied none is looked at by itself: what is denied of some of them would be got round.
    app.require(request, ACTION, request.bucket(), request.key())?;
    app.require(request, ACTION, &source.bucket, &String::from_utf8_lossy(&source.key))?;
    if request.rights().deny_something() {
        let message = "A prefix is not copied where a policy of the sender or of a bucket denies anything: it would not be asked key by key.";
        return Err(S3Error::new(ErrorCode::AccessDenied, message));
    }
    let from = Prefix { bucket: source.bucket, prefix: source.key };
    let to = Prefix { bucket: request.bucket().to_owned(), prefix: request.key().as_bytes().to_vec() };
    let state = app.store.copy_prefix(&from, &to).await.map_err(of_copy)?;
    let mut response = respond::xml(response::copy_object(&EMPTY.to_string(), milliseconds(state.began), None));
    let headers = response.headers_mut();
    respond::put(headers, "x-predastore-copied-objects", &state.object_count.to_string());
    respond::put(headers, "x-predastore-copied-bytes", &state.size_bytes.to_string());
    Ok(response)
}

fn check(request: &Request, source: &Target) -> Result<(), S3Error> {
    let refused = |message: &'static str| Err(S3Error::new(ErrorCode::InvalidRequest, message));
    if !request.key().ends_with('/') || !source.key.ends_with(b"/") {
        return refused("With x-predastore-copy-prefix, source and destination are prefixes: both end in /.");
    }
    if source.version.is_some() {
        return refused("A prefix has no versions: its current ones are copied.");
    }
    for name in NOT_OF_PREFIXES {
        if request.header(name)?.is_some() {
            return refused("With x-predastore-copy-prefix everything is copied as it is, without conditions.");
        }
    }
    for name in DIRECTIVES {
        if request.header(name)?.is_some_and(|directive| directive != "COPY") {
            return refused("With x-predastore-copy-prefix everything is copied as it is.");
        }
    }
    Ok(())
}

fn of_copy(error: Error) -> S3Error {
    match error {
        Error::Refused(Refusal::NoSuchKey) => {
            S3Error::new(ErrorCode::NoSuchKey, "There are no objects under the source prefix.")
        }
        Error::Refused(Refusal::EntryExists) => {
            let message = "There are objects under the destination prefix, or a copy to it is under way.";
            S3Error::new(ErrorCode::PreconditionFailed, message).with("Condition", HEADER)
        }
        other => failure::of(other),
    }
}
