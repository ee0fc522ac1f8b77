//! Multipart uploads.

use axum::response::Response;
use http::StatusCode;
use predastore::catalog::{CompletePart, Refusal};
use predastore::ids::Ino;
use predastore::object::{Error, Promised};
use predastore_vocabulary::attrs;

use super::object::{of_write, precondition};
use super::{bucket, lock};
use crate::app::{App, Request};
use crate::body::Upload;
use crate::checksum::{self, Base64 as _, ChecksumType, Expected, Kind as _, Spelling as _};
use crate::error::{ErrorCode, S3Error};
use crate::listing::ListParts;
use crate::xml::request::part_number;
use crate::xml::{response, shown};
use crate::{acl, failure, metadata, respond, xml};

/// CreateMultipartUpload.
pub(super) async fn create(app: &App, request: &Request) -> Result<Response, S3Error> {
    acl::check_headers(request)?;
    let mut attrs = metadata::attrs_of(request)?;
    lock::attach(app, request, &mut attrs).await?;
    attrs.upload_checksum = checksum::of_upload(&request.head.headers)?;
    let announced = attrs.upload_checksum;
    let upload =
        app.store.create_upload(request.bucket(), request.key().as_bytes(), attrs).await.map_err(failure::of)?;
    let mut response =
        respond::xml(response::initiate_multipart_upload(request.bucket(), request.key(), &shown::upload_id(upload)));
    if let Some((algorithm, kind)) = announced {
        respond::put(response.headers_mut(), "x-amz-checksum-algorithm", algorithm.name());
        respond::put(response.headers_mut(), "x-amz-checksum-type", kind.name());
    }
    Ok(response)
}

/// UploadPart.
pub(super) async fn put_part(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    let (upload, number) = part_of(request)?;
    let incoming = body.incoming(&request.head.headers)?;
    let (bucket, key) = (request.bucket(), request.key().as_bytes());
    let part =
        app.store.put_part(bucket, key, upload, number, incoming, body).await.map_err(|error| of_write(error, body))?;
    let mut response = respond::empty(StatusCode::OK);
    respond::put(response.headers_mut(), "etag", &respond::quoted(part.etag));
    // The first is the one that was asked for; without one, the upload's own.
    if let Some(one) = part.checksums.first() {
        respond::put(response.headers_mut(), one.algorithm.header(), &one.to_base64());
    }
    Ok(response)
}

/// ListParts.
pub(super) async fn list_parts(app: &App, request: &Request) -> Result<Response, S3Error> {
    let asked = ListParts::parse(&request.query)?;
    let upload = upload_of(request)?;
    let limit = asked.max_count as usize + 1;
    let (bucket_name, key) = (request.bucket(), request.key().as_bytes());
    let (found, mut parts) =
        app.store.parts(bucket_name, key, upload, asked.part_number_marker, limit).await.map_err(failure::of)?;
    let more = parts.len() >= limit;
    parts.truncate(asked.max_count as usize);
    let next = parts.last().filter(|_| more).map(|part| part.number);
    let owner = bucket::of(app, request).await?.owner;
    let algorithm = found.attrs.upload_checksum.map(|(algorithm, _)| algorithm);
    let parts: Vec<_> = parts.iter().map(|part| shown::part(part, algorithm)).collect();
    Ok(respond::xml(response::list_parts(bucket_name, &shown::upload(&found, &owner), &asked, &parts, next)))
}

/// CompleteMultipartUpload.
pub(super) async fn complete(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    let upload = upload_of(request)?;
    let promised = match Expected::from_headers(&request.head.headers)? {
        Expected::Value(value) => Some(value),
        Expected::Nothing | Expected::Trailer(_) => None,
    };
    let kind = ChecksumType::said(&request.head.headers)?;
    let size_bytes = match request.header("x-amz-mp-object-size")? {
        None => None,
        Some(text) => {
            Some(text.parse().map_err(|_| S3Error::invalid_argument("Invalid size", "x-amz-mp-object-size", text))?)
        }
    };
    let precondition = precondition(request)?;
    let document = body.collect_unchecked(xml::BODY_MAX_BYTES).await?;
    app.confirm(request).await?;
    let listed = xml::request::complete_multipart_upload(&document)?;
    let parts: Vec<_> = listed
        .into_iter()
        .map(|part| (CompletePart { number: part.part_number, etag: attrs::etag(&part.etag) }, part.checksums))
        .collect();
    let promised = Promised { checksum: promised, kind, size_bytes };
    let (bucket_name, key) = (request.bucket(), request.key().as_bytes());
    let tags: Vec<(u32, String)> = listed_tags(&parts);
    let stored =
        app.store.complete_upload(bucket_name, key, upload, parts, promised, precondition).await.map_err(|error| {
            let small = match &error {
                Error::Refused(Refusal::PartTooSmall { number, .. }) => {
                    tags.into_iter().find(|(tagged, _)| tagged == number)
                }
                _ => None,
            };
            let error = with_upload(failure::of(error), request);
            small.into_iter().fold(error, |error, (_, tag)| error.with("ETag", tag))
        })?;
    // Of a version that is gone since, only the first answer is known.
    let checksums = stored.figures.map_or(Vec::new(), |(_, checksums)| checksums);
    let location = location_of(app, request);
    let mut response = respond::xml(response::complete_multipart_upload(
        &location,
        bucket_name,
        request.key(),
        &stored.written.etag.to_string(),
        shown::object_checksum(&checksums, stored.written.etag.part_count).as_ref(),
    ));
    if stored.written.ever_versioned {
        respond::put(response.headers_mut(), "x-amz-version-id", &stored.written.version.to_string());
    }
    Ok(response)
}

/// The parts' numbers and tags.
fn listed_tags(parts: &[(CompletePart, Vec<checksum::Checksum>)]) -> Vec<(u32, String)> {
    parts.iter().map(|(part, _)| (part.number, part.etag.to_string())).collect()
}

fn with_upload(error: S3Error, request: &Request) -> S3Error {
    match error.code {
        ErrorCode::NoSuchUpload => error.with("UploadId", request.query.get("uploadId").unwrap_or_default()),
        _ => error,
    }
}

/// The object's URL: this request's own, without its query. So the bucket stands where the client had put it.
fn location_of(app: &App, request: &Request) -> String {
    let scheme = if app.config.tls { "https" } else { "http" };
    let host = request.header("host").ok().flatten().unwrap_or("localhost");
    format!("{scheme}://{host}{}", request.head.uri.path())
}

/// AbortMultipartUpload.
pub(super) async fn abort(app: &App, request: &Request) -> Result<Response, S3Error> {
    let upload = upload_of(request)?;
    let (bucket_name, key) = (request.bucket(), request.key().as_bytes());
    app.store.abort_upload(bucket_name, key, upload).await.map_err(|error| with_upload(failure::of(error), request))?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

/// The upload that a request names; any other text is an upload that does not exist.
pub(super) fn upload_of(request: &Request) -> Result<Ino, S3Error> {
    let text = request.query.get("uploadId").unwrap_or_default();
    shown::parse_upload_id(text).ok_or_else(|| S3Error::from(ErrorCode::NoSuchUpload).with("UploadId", text))
}

/// Upload and part number.
pub(super) fn part_of(request: &Request) -> Result<(Ino, u32), S3Error> {
    let number = part_number(request.query.get("partNumber").unwrap_or_default())?;
    Ok((upload_of(request)?, number))
}
