//! Objects: GET, HEAD, PUT, DELETE, attributes.

use std::ops::Range;

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use predastore::catalog::{DeleteKey, Deleted, Precondition, Refusal, Version};
use predastore::object::{Error, Found, Put, Stored, Target};
use predastore_vocabulary::attrs;

use super::{XML_MAX_BYTES, lock, parse_version, target_of, version_of};
use crate::app::{App, Request};
use crate::body::Upload;
use crate::checksum::{self, Base64 as _, Expected, Kind as _, Spelling as _};
use crate::conditions::{Outcome, ReadConditions, WriteCondition};
use crate::context::Touched;
use crate::error::{ErrorCode, S3Error};
use crate::range::ByteRange;
use crate::respond::{self, milliseconds};
use crate::route::Operation;
use crate::xml::request::{ObjectToDelete, part_number};
use crate::xml::{response, shown};
use crate::{acl, dates, failure, metadata, xml};

/// GET of an object.
pub(super) async fn get(app: &App, request: &Request) -> Result<Response, S3Error> {
    let target = target_of(request)?;
    let object = app.store.get(&target).await.map_err(|error| of_read(app, request, error, &target))?;
    let Answer { mut response, range } = describe(app, request, &object.version, object.bucket.ever_versioned).await?;
    if let Some(range) = range.filter(|range| !range.is_empty()) {
        let len_bytes = range.end - range.start;
        *response.body_mut() = respond::stream(object.read(range), len_bytes);
    }
    Ok(response)
}

/// HEAD of an object.
pub(super) async fn head(app: &App, request: &Request) -> Result<Response, S3Error> {
    let target = target_of(request)?;
    let Found { bucket, version } = find(app, request, &target).await?;
    Ok(describe(app, request, &version, bucket.ever_versioned).await?.response)
}

/// A version without its bytes.
pub(super) async fn find(app: &App, request: &Request, target: &Target) -> Result<Found, S3Error> {
    app.store.head(target).await.map_err(|error| of_read(app, request, error, target))
}

/// Why an object cannot be read. That it is missing is told only to those who may list its bucket.
pub(super) fn of_read(app: &App, request: &Request, error: Error, target: &Target) -> S3Error {
    let error = describe_failure(error, target);
    match error.code {
        ErrorCode::NoSuchKey | ErrorCode::NoSuchVersion => {
            app.require(request, Operation::ListObjects.action(false), &target.bucket, "").err().unwrap_or(error)
        }
        _ => error,
    }
}

/// A missing object, with what S3 says beyond the code.
fn describe_failure(error: Error, target: &Target) -> S3Error {
    let key = String::from_utf8_lossy(&target.key).into_owned();
    match error {
        Error::Deleted { marker } => S3Error::from(ErrorCode::NoSuchKey)
            .with("Key", key)
            .with_header("x-amz-delete-marker", "true")
            .with_header("x-amz-version-id", marker.to_string()),
        Error::DeleteMarker { modified } => S3Error::from(ErrorCode::MethodNotAllowed)
            .with("Method", "GET")
            .with("ResourceType", "DeleteMarker")
            .with_header("allow", "DELETE")
            .with_header("last-modified", dates::http_date(milliseconds(modified)))
            .with_header("x-amz-delete-marker", "true")
            .with_header("x-amz-version-id", target.version.map(|id| id.to_string()).unwrap_or_default()),
        Error::Refused(Refusal::NoSuchVersion) => S3Error::from(ErrorCode::NoSuchVersion)
            .with("Key", key)
            .with("VersionId", target.version.map(|id| id.to_string()).unwrap_or_default()),
        Error::Refused(Refusal::NoSuchKey) => S3Error::from(ErrorCode::NoSuchKey).with("Key", key),
        Error::Refused(Refusal::NoSuchBucket) => {
            S3Error::from(ErrorCode::NoSuchBucket).with("BucketName", target.bucket.clone())
        }
        other => failure::of(other),
    }
}

/// The head of an answer, and the bytes that belong to it; none for 304.
struct Answer {
    response: Response,
    range: Option<Range<u64>>,
}

async fn describe(app: &App, request: &Request, version: &Version, ever_versioned: bool) -> Result<Answer, S3Error> {
    let mut response = respond::empty(StatusCode::OK);
    let headers = response.headers_mut();
    respond::describe(headers, version, ever_versioned);
    lock::describe(app, request, headers, version);
    let tags = Operation::GetObjectTagging.action(request.query.has("versionId"));
    if !version.attrs.tags.is_empty() && app.require(request, tags, request.bucket(), request.key()).is_err() {
        headers.remove("x-amz-tagging-count");
    }
    let conditions = conditions(request)?;
    match conditions.evaluate(&version.etag.to_string(), milliseconds(version.modified)) {
        Outcome::Proceed => {}
        outcome @ Outcome::PreconditionFailed => {
            return Err(S3Error::from(ErrorCode::PreconditionFailed).with("Condition", conditions.decided_by(outcome)));
        }
        Outcome::NotModified => {
            headers.remove(header::CONTENT_TYPE);
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(Answer { response, range: None });
        }
    }
    let selected = select(app, request, version).await?;
    let range = match &selected {
        Selected::Whole => 0..version.size_bytes,
        Selected::Range(range) | Selected::Part { range, .. } => range.clone(),
    };
    respond::put(headers, "content-length", &(range.end - range.start).to_string());
    if matches!(selected, Selected::Part { .. }) && version.etag.part_count > 0 {
        respond::put(headers, "x-amz-mp-parts-count", &version.etag.part_count.to_string());
    }
    if request.header("x-amz-checksum-mode")?.is_some_and(|mode| mode.eq_ignore_ascii_case("enabled")) {
        put_checksums(app, headers, version, &selected).await?;
    }
    override_headers(headers, request)?;
    if !matches!(selected, Selected::Whole) && !range.is_empty() {
        let content_range = format!("bytes {}-{}/{}", range.start, range.end - 1, version.size_bytes);
        respond::put(headers, "content-range", &content_range);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(Answer { response, range: Some(range) })
}

/// The checksums of what is selected: the whole's, or a part's; of any other range there is none.
async fn put_checksums(
    app: &App,
    headers: &mut HeaderMap,
    version: &Version,
    selected: &Selected,
) -> Result<(), S3Error> {
    let of_whole = &version.attrs.checksums;
    match selected {
        Selected::Range(_) => {}
        Selected::Part { number, .. } if version.etag.part_count > 0 => {
            // Parts are read by their place, whatever number they were uploaded under.
            let mut parts = app.store.object_parts(version, 0, *number as usize).await.map_err(failure::of)?;
            let part = parts.pop().filter(|_| parts.len() + 1 == *number as usize);
            let of_part = part.map(|part| part.checksums).unwrap_or_default();
            for one in of_part.iter().filter(|one| of_whole.iter().any(|whole| whole.algorithm == one.algorithm)) {
                respond::put(headers, one.algorithm.header(), &one.to_base64());
            }
            if let Some(whole) = of_whole.first().filter(|_| !of_part.is_empty()) {
                respond::put(headers, "x-amz-checksum-type", whole.kind.name());
            }
        }
        Selected::Whole | Selected::Part { .. } => respond::checksums(headers, of_whole, version.etag.part_count),
    }
    Ok(())
}

fn conditions(request: &Request) -> Result<ReadConditions<'_>, S3Error> {
    Ok(ReadConditions {
        if_match: request.header("if-match")?,
        if_none_match: request.header("if-none-match")?,
        if_modified_since: request.header("if-modified-since")?,
        if_unmodified_since: request.header("if-unmodified-since")?,
    })
}

enum Selected {
    Whole,
    Range(Range<u64>),
    Part { number: u32, range: Range<u64> },
}

async fn select(app: &App, request: &Request, version: &Version) -> Result<Selected, S3Error> {
    let range = request.header("range")?;
    if let Some(number) = request.query.get("partNumber") {
        if range.is_some() {
            let message = "Cannot specify both Range header and partNumber query parameter";
            return Err(S3Error::new(ErrorCode::InvalidRequest, message));
        }
        let number = part_number(number)?;
        let range = app.store.part_range(version, number).await.map_err(|error| match error {
            Error::InvalidRange { .. } => ErrorCode::InvalidPartNumber.into(),
            other => failure::of(other),
        })?;
        return Ok(Selected::Part { number, range });
    }
    match range.and_then(ByteRange::parse) {
        None => Ok(Selected::Whole),
        Some(range) => range.resolve(version.size_bytes).map(Selected::Range).map_err(|outside| {
            S3Error::from(ErrorCode::InvalidRange)
                .with("RangeRequested", request.header("range").ok().flatten().unwrap_or_default())
                .with("ActualObjectSize", outside.len_bytes.to_string())
                .with_header("content-range", format!("bytes */{}", outside.len_bytes))
        }),
    }
}

/// `response-content-type` and friends; only for those who signed, as on S3.
fn override_headers(headers: &mut HeaderMap, request: &Request) -> Result<(), S3Error> {
    const OVERRIDES: [&str; 6] =
        ["content-type", "content-language", "expires", "cache-control", "content-disposition", "content-encoding"];
    for name in OVERRIDES {
        let Some(value) = request.query.get(&format!("response-{name}")) else { continue };
        if request.caller.is_none() {
            let message = "Request specific response headers cannot be used for anonymous GET requests.";
            return Err(S3Error::new(ErrorCode::InvalidRequest, message));
        }
        if HeaderValue::from_str(value).is_err() {
            return Err(S3Error::invalid_argument(
                "Header value cannot be represented",
                format!("response-{name}"),
                value,
            ));
        }
        respond::put(headers, name, value);
    }
    Ok(())
}

/// PUT of an object.
pub(super) async fn put(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    acl::check_headers(request)?;
    let mut attrs = metadata::attrs_of(request)?;
    lock::attach(app, request, &mut attrs).await?;
    lock::expect_digest(&request.head.headers, &attrs)?;
    let put = Put {
        bucket: request.bucket().to_owned(),
        owner: request.rights().owner(request.bucket()),
        key: request.key().as_bytes().to_vec(),
        attrs,
        precondition: precondition(request)?,
    };
    let incoming = body.incoming(&request.head.headers)?;
    let stored = app.store.put(put, incoming, body).await.map_err(|error| of_write(error, body))?;
    Ok(stored_response(&stored))
}

/// What a write failed with; where its body did, the body knows why.
pub(super) fn of_write(error: Error, body: &mut Upload) -> S3Error {
    match error {
        Error::Source => body.take_failure(),
        Error::TooLarge { .. } => match body.announced_bytes() {
            Some(proposed) => failure::of(error).with("ProposedSize", proposed.to_string()),
            None => failure::of(error),
        },
        other => failure::of(other),
    }
}

/// If-Match and If-None-Match of a write.
pub(super) fn precondition(request: &Request) -> Result<Precondition, S3Error> {
    Ok(WriteCondition::parse(request.header("if-match")?, request.header("if-none-match")?)?.into())
}

fn stored_response(stored: &Stored) -> Response {
    let mut response = respond::empty(StatusCode::OK);
    let headers = response.headers_mut();
    respond::put(headers, "etag", &respond::quoted(stored.written.etag));
    respond::checksums(headers, &stored.checksums, 0);
    if stored.written.ever_versioned {
        respond::put(headers, "x-amz-version-id", &stored.written.version.to_string());
    }
    response
}

/// DELETE of a key or a version. A key that is not there is 204 too.
pub(super) async fn delete(app: &App, request: &Request) -> Result<Response, S3Error> {
    let asked = version_of(request)?;
    let key = DeleteKey {
        key: Bytes::copy_from_slice(request.key().as_bytes()),
        version: asked,
        precondition: delete_precondition(request)?,
        bypass_governance: lock::bypasses(app, request, request.key())?,
    };
    let outcomes = app.store.delete(request.bucket(), vec![key]).await.map_err(failure::of)?;
    let mut response = respond::empty(StatusCode::NO_CONTENT);
    for outcome in outcomes {
        let deleted = outcome.map_err(failure::of_refusal)?;
        // A version that is not there was deleted all the same.
        if let Some(version) = deleted.version.or(asked) {
            respond::put(response.headers_mut(), "x-amz-version-id", &version.to_string());
        }
        if deleted.delete_marker {
            respond::put(response.headers_mut(), "x-amz-delete-marker", "true");
        }
    }
    Ok(response)
}

fn delete_precondition(request: &Request) -> Result<Precondition, S3Error> {
    let mut precondition = precondition(request)?;
    if let Some(size) = request.header("x-amz-if-match-size")? {
        let parsed =
            size.parse().map_err(|_| S3Error::invalid_argument("Invalid size", "x-amz-if-match-size", size))?;
        precondition.if_match_size_bytes = Some(parsed);
    }
    if let Some(time) = request.header("x-amz-if-match-last-modified-time")? {
        let parsed = dates::parse_http_date(time)
            .ok_or_else(|| S3Error::invalid_argument("Invalid date", "x-amz-if-match-last-modified-time", time))?;
        precondition.if_match_modified_s = Some(parsed);
    }
    Ok(precondition)
}

/// POST ?delete: up to 1,000 keys, an answer for each.
pub(super) async fn delete_many(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    let headers = &request.head.headers;
    if checksum::content_md5(headers)?.is_none() && Expected::from_headers(headers)? == Expected::Nothing {
        let message = "Missing required header for this request: Content-MD5 OR x-amz-checksum-*";
        return Err(S3Error::new(ErrorCode::InvalidRequest, message));
    }
    let document = super::collect(app, request, body, xml::BODY_MAX_BYTES).await?;
    let asked = xml::request::delete(&document)?;
    let mut answers: Vec<Option<S3Error>> = Vec::with_capacity(asked.objects.len());
    let mut keys = Vec::with_capacity(asked.objects.len());
    for object in &asked.objects {
        let action = Operation::DeleteObjects.action(object.version_id.is_some());
        let version = object.version_id.as_deref();
        let touched = Touched { bucket: request.bucket(), key: &object.key, version, tags: None };
        let allowed = app.require_of(request, action, &touched);
        // Who deletes what has a tag is told whether it has that tag.
        let reads = object.etag.as_ref().is_some_and(|tag| tag != "*");
        let read = Operation::GetObject.action(object.version_id.is_some());
        let parsed = allowed
            .and_then(|()| match reads {
                // The tags of many objects are not looked up for it.
                true if request.rights().ask_for("s3:existingobjecttag/") => Err(ErrorCode::AccessDenied.into()),
                true => app.require_of(request, read, &touched),
                false => Ok(()),
            })
            .and_then(|()| lock::bypasses(app, request, &object.key))
            .and_then(|bypass_governance| Ok(DeleteKey { bypass_governance, ..delete_key(object)? }));
        answers.push(parsed.as_ref().err().cloned());
        keys.extend(parsed);
    }
    let outcomes = app.store.delete(request.bucket(), keys).await.map_err(failure::of)?;
    let mut outcomes = outcomes.into_iter();
    let results = answers.into_iter().map(|error| match error {
        Some(error) => Err(error),
        None => {
            outcomes.next().map_or_else(|| Err(ErrorCode::InternalError.into()), |one| one.map_err(failure::of_refusal))
        }
    });
    let shown: Vec<_> =
        asked.objects.iter().zip(results).map(|(object, result)| shown_deleted(object, result)).collect();
    Ok(respond::xml(response::delete_objects(&shown, asked.quiet)))
}

fn shown_deleted(object: &ObjectToDelete, result: Result<Deleted, S3Error>) -> response::Deleted {
    let (key, version_id) = (object.key.clone(), object.version_id.clone());
    match result {
        Err(error) => response::Deleted::Refused { key, version_id, error },
        Ok(deleted) => {
            let marker = deleted.version.filter(|_| deleted.delete_marker).map(|marker| marker.to_string());
            response::Deleted::Done { key, version_id, delete_marker_version_id: marker }
        }
    }
}

fn delete_key(asked: &ObjectToDelete) -> Result<DeleteKey, S3Error> {
    crate::names::check_key(&asked.key)?;
    let precondition = Precondition {
        if_match: asked.etag.as_deref().map(|tag| match tag {
            "*" => vec![None],
            tag => vec![Some(attrs::etag(tag))],
        }),
        if_none_match: None,
        if_match_size_bytes: asked.size_bytes,
        if_match_modified_s: asked.last_modified_ms.map(|ms| ms.div_euclid(1000)),
    };
    Ok(DeleteKey {
        key: Bytes::copy_from_slice(asked.key.as_bytes()),
        version: asked.version_id.as_deref().map(parse_version).transpose()?,
        precondition,
        bypass_governance: false,
    })
}

/// GET ?acl: the owner has full control, always.
pub(super) async fn acl(app: &App, request: &Request) -> Result<Response, S3Error> {
    let target = target_of(request)?;
    let bucket = find(app, request, &target).await?.bucket;
    Ok(respond::xml(response::owner_only_acl(&shown::owner(&bucket.owner))))
}

/// PUT ?acl: what amounts to owner-only is accepted.
pub(super) async fn set_acl(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    let target = target_of(request)?;
    let bucket = find(app, request, &target).await?.bucket;
    let document = super::collect(app, request, body, XML_MAX_BYTES).await?;
    acl::check(request, &document, &bucket.owner)?;
    Ok(respond::empty(StatusCode::OK))
}
