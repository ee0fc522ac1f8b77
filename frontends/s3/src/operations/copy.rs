//! CopyObject and UploadPartCopy: a new name for bytes that stay where they are.

use axum::response::Response;
use predastore::catalog::Refusal;
use predastore::object::{Error, Found, Put, Target};
use predastore_vocabulary::attrs;

use super::object::{of_read, precondition};
use super::{lock, multipart, parse_version, prefix};
use crate::app::{App, Request};
use crate::checksum;
use crate::conditions::{Outcome, ReadConditions};
use crate::context::Touched;
use crate::error::{ErrorCode, S3Error};
use crate::names::CopySource;
use crate::range::ByteRange;
use crate::respond::{self, milliseconds};
use crate::route::Operation;
use crate::xml::{response, shown};
use crate::{acl, failure, metadata};

/// A source may be overwritten between reading and naming it; then it is read again.
const ATTEMPTS: usize = 3;

/// CopyObject.
pub(super) async fn object(app: &App, request: &Request) -> Result<Response, S3Error> {
    acl::check_headers(request)?;
    let source = source_of(request)?;
    if prefix::is_asked(request)? {
        return prefix::copy(app, request, source).await;
    }
    let replace_metadata = directive(request, "x-amz-metadata-directive")?;
    let replace_tags = directive(request, "x-amz-tagging-directive")?;
    let mut fresh = metadata::attrs_of(request)?;
    lock::attach(app, request, &mut fresh).await?;
    let algorithm = checksum::algorithm_header(&request.head.headers, "x-amz-checksum-algorithm")?;
    let in_place =
        source.bucket == request.bucket() && source.key == request.key().as_bytes() && source.version.is_none();
    let redirects = request.head.headers.contains_key("x-amz-website-redirect-location");
    if in_place && !replace_metadata && fresh.storage_class.is_empty() && algorithm.is_none() && !redirects {
        let message = "This copy request is illegal because it is trying to copy an object to itself without changing \
                       the object's metadata, storage class, website redirect location or encryption attributes.";
        return Err(S3Error::new(ErrorCode::InvalidRequest, message));
    }
    let mut attempt = 1;
    let (found, stored) = loop {
        let found = read_source(app, request, &source).await?;
        if !replace_tags {
            may_copy_tags(app, request, &source, &found.version.attrs.tags)?;
        }
        let put = Put {
            bucket: request.bucket().to_owned(),
            owner: request.rights().owner(request.bucket()),
            key: request.key().as_bytes().to_vec(),
            attrs: attrs::of_copy(&found.version.attrs, &fresh, replace_metadata, replace_tags),
            precondition: precondition(request)?,
        };
        match app.store.copy(&found.version, put, algorithm.into_iter().collect()).await {
            Err(Error::Refused(Refusal::SourceGone)) if attempt < ATTEMPTS => attempt += 1,
            outcome => break (found, outcome.map_err(failure::of)?),
        }
    };
    let mut response = respond::xml(response::copy_object(
        &stored.written.etag.to_string(),
        milliseconds(stored.written.modified),
        shown::object_checksum(&stored.checksums, stored.written.etag.part_count).as_ref(),
    ));
    let headers = response.headers_mut();
    name_source_version(headers, &found);
    if stored.written.ever_versioned {
        respond::put(headers, "x-amz-version-id", &stored.written.version.to_string());
    }
    Ok(response)
}

/// Tags that go along are read there and written here.
fn may_copy_tags(app: &App, request: &Request, source: &Target, tags: &[(String, String)]) -> Result<(), S3Error> {
    if tags.is_empty() {
        return Ok(());
    }
    let (key, version) = (String::from_utf8_lossy(&source.key), source.version.map(|version| version.to_string()));
    let read = Operation::GetObjectTagging.action(version.is_some());
    let there = Touched { bucket: &source.bucket, key: &key, version: version.as_deref(), tags: None };
    app.require_of(request, read, &there)?;
    let here = Touched { bucket: request.bucket(), key: request.key(), version: None, tags: Some(tags) };
    app.require_of(request, Operation::PutObjectTagging.action(false), &here)
}

/// UploadPartCopy.
pub(super) async fn part(app: &App, request: &Request) -> Result<Response, S3Error> {
    let source = source_of(request)?;
    let (upload, number) = multipart::part_of(request)?;
    let range = match request.header("x-amz-copy-source-range")? {
        None => None,
        Some(text) => Some(ByteRange::parse_copy_source(text).ok_or_else(|| {
            let message = "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last \
                           are the zero-based offsets of the first and last bytes to copy";
            S3Error::invalid_argument(message, "x-amz-copy-source-range", text)
        })?),
    };
    let mut attempt = 1;
    let (found, part) = loop {
        let found = read_source(app, request, &source).await?;
        let range = range.map(|range| within(range, found.version.size_bytes)).transpose()?;
        let (bucket, key) = (request.bucket(), request.key().as_bytes());
        match app.store.copy_part(bucket, key, upload, number, &found.version, range).await {
            Err(Error::Refused(Refusal::SourceGone)) if attempt < ATTEMPTS => attempt += 1,
            outcome => break (found, outcome.map_err(failure::of)?),
        }
    };
    let mut response = respond::xml(response::copy_part(
        &part.etag.to_string(),
        milliseconds(part.modified),
        shown::part_checksum(&part.checksums, None).as_ref(),
    ));
    name_source_version(response.headers_mut(), &found);
    Ok(response)
}

/// Unlike a Range, a copy's range must lie within its source.
fn within(range: ByteRange, size_bytes: u64) -> Result<std::ops::Range<u64>, S3Error> {
    match range {
        ByteRange::Closed { first, last } if last < size_bytes => Ok(first..last + 1),
        ByteRange::Closed { first, last } if first < size_bytes => {
            let message = format!("Range specified is not valid for source object of size: {size_bytes}");
            Err(S3Error::invalid_argument(message, "x-amz-copy-source-range", format!("bytes={first}-{last}")))
        }
        _ => Err(S3Error::new(
            ErrorCode::InvalidRequest,
            format!("The specified copy range is invalid for the source object size: {size_bytes}"),
        )),
    }
}

fn source_of(request: &Request) -> Result<Target, S3Error> {
    let source = CopySource::parse(request.header("x-amz-copy-source")?.unwrap_or_default())?;
    let version = source.version_id.as_deref().map(parse_version).transpose()?;
    Ok(Target { bucket: source.bucket, key: source.key.into_bytes(), version })
}

async fn read_source(app: &App, request: &Request, source: &Target) -> Result<Found, S3Error> {
    let found = app.store.head(source).await.map_err(|error| match error {
        Error::DeleteMarker { .. } => S3Error::new(
            ErrorCode::InvalidRequest,
            "The source of a copy request may not specifically refer to a delete marker by version id.",
        ),
        // What S3 says in headers of a missing object belongs to the request's own, not to a source.
        other => S3Error { headers: Vec::new(), ..of_read(app, request, other, source) },
    })?;
    let conditions = ReadConditions {
        if_match: request.header("x-amz-copy-source-if-match")?,
        if_none_match: request.header("x-amz-copy-source-if-none-match")?,
        if_modified_since: request.header("x-amz-copy-source-if-modified-since")?,
        if_unmodified_since: request.header("x-amz-copy-source-if-unmodified-since")?,
    };
    match conditions.evaluate(&found.version.etag.to_string(), milliseconds(found.version.modified)) {
        Outcome::Proceed => Ok(found),
        // Nobody asked for the source: there is no 304 of it.
        outcome @ (Outcome::NotModified | Outcome::PreconditionFailed) => {
            let condition = format!("x-amz-copy-source-{}", conditions.decided_by(outcome));
            Err(S3Error::from(ErrorCode::PreconditionFailed).with("Condition", condition))
        }
    }
}

/// `true`: REPLACE.
fn directive(request: &Request, name: &str) -> Result<bool, S3Error> {
    match request.header(name)? {
        None | Some("COPY") => Ok(false),
        Some("REPLACE") => Ok(true),
        Some(other) => Err(S3Error::invalid_argument("Unknown directive.", name, other)),
    }
}

fn name_source_version(headers: &mut http::HeaderMap, source: &Found) {
    if source.bucket.ever_versioned {
        respond::put(headers, "x-amz-copy-source-version-id", &source.version.id.to_string());
    }
}
