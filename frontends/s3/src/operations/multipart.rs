//! Multipart uploads.

use axum::response::Response;
use http::StatusCode;
use predastore::catalog::CompletePart;
use predastore::ids::Ino;

use super::object::{of_write, precondition};
use super::{XML_LIST_MAX_BYTES, bucket};
use crate::app::{App, Request};
use crate::body::Upload;
use crate::checksum::{self, Expected};
use crate::error::{ErrorCode, S3Error};
use crate::listing::ListParts;
use crate::{acl, failure, metadata, respond, xml};
use predastore::units::PART_COUNT_MAX;

/// CreateMultipartUpload.
pub async fn create(app: &App, request: &Request) -> Result<Response, S3Error> {
    acl::check_headers(request)?;
    let mut attrs = metadata::attrs_of(request)?;
    attrs.upload_checksum = checksum::of_upload(&request.head.headers)?;
    let announced = attrs.upload_checksum;
    let upload = app.store.create_upload(request.bucket(), request.key().as_bytes(), attrs).await.map_err(failure::of)?;
    let mut response = respond::xml(xml::initiate_result(request.bucket(), request.key(), &upload_id(upload)));
    if let Some((algorithm, kind)) = announced {
        respond::put(response.headers_mut(), "x-amz-checksum-algorithm", checksum::name(algorithm));
        respond::put(response.headers_mut(), "x-amz-checksum-type", checksum::kind_name(kind));
    }
    Ok(response)
}

/// UploadPart.
pub async fn put_part(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    let (upload, number) = part_of(request)?;
    let incoming = body.incoming(&request.head.headers)?;
    let (bucket, key) = (request.bucket(), request.key().as_bytes());
    let part = app
        .store
        .put_part(bucket, key, upload, number, incoming, body)
        .await
        .map_err(|error| of_write(error, body))?;
    let mut response = respond::empty(StatusCode::OK);
    respond::put(response.headers_mut(), "etag", &respond::quoted(part.etag));
    for one in &part.checksums {
        respond::put(response.headers_mut(), checksum::header(one.algorithm), &checksum::to_base64(one));
    }
    Ok(response)
}

/// ListParts.
pub async fn list_parts(app: &App, request: &Request) -> Result<Response, S3Error> {
    let asked = ListParts::parse(&request.query)?;
    let upload = upload_of(request)?;
    let limit = asked.max_count as usize + 1;
    let (bucket_name, key) = (request.bucket(), request.key().as_bytes());
    let (found, mut parts) =
        app.store.parts(bucket_name, key, upload, asked.part_number_marker, limit).await.map_err(failure::of)?;
    let more = parts.len() >= limit;
    parts.truncate(asked.max_count as usize);
    let owner = bucket::of(app, request).await?.owner;
    Ok(respond::xml(xml::parts(request, &asked, &found, &parts, more, &owner)))
}

/// CompleteMultipartUpload.
pub async fn complete(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    let upload = upload_of(request)?;
    let promised = match Expected::from_headers(&request.head.headers)? {
        Expected::Value(value) => Some(value),
        Expected::Nothing | Expected::Trailer(_) => None,
    };
    let kind = checksum::kind_of(&request.head.headers)?;
    let size_bytes = match request.header("x-amz-mp-object-size")? {
        None => None,
        Some(text) => {
            Some(text.parse().map_err(|_| S3Error::invalid_argument("Invalid size", "x-amz-mp-object-size", text))?)
        }
    };
    let precondition = precondition(request)?;
    let document = body.collect_unchecked(XML_LIST_MAX_BYTES).await?;
    let listed = xml::parse_complete(&document)?;
    let parts = listed
        .into_iter()
        .map(|part| (CompletePart { number: part.number, etag: metadata::etag(&part.etag) }, part.checksums))
        .collect();
    let promised = promised.map(|mut one| {
        one.kind = kind.unwrap_or(one.kind);
        one
    });
    let (bucket_name, key) = (request.bucket(), request.key().as_bytes());
    let stored = app
        .store
        .complete_upload(bucket_name, key, upload, parts, promised, size_bytes, precondition)
        .await
        .map_err(|error| with_upload(failure::of(error), request))?;
    let location = location_of(request);
    let mut response = respond::xml(xml::complete_result(&location, request, &stored));
    if stored.written.ever_versioned {
        respond::put(response.headers_mut(), "x-amz-version-id", &stored.written.version.to_string());
    }
    Ok(response)
}

fn with_upload(error: S3Error, request: &Request) -> S3Error {
    match error.code {
        ErrorCode::NoSuchUpload => error.with("UploadId", request.query.get("uploadId").unwrap_or_default()),
        _ => error,
    }
}

fn location_of(request: &Request) -> String {
    let host = request.header("host").ok().flatten().unwrap_or("localhost");
    format!("https://{host}/{}/{}", request.bucket(), crate::query::uri_encode_path(request.key()))
}

/// AbortMultipartUpload.
pub async fn abort(app: &App, request: &Request) -> Result<Response, S3Error> {
    let upload = upload_of(request)?;
    let (bucket_name, key) = (request.bucket(), request.key().as_bytes());
    app.store
        .abort_upload(bucket_name, key, upload)
        .await
        .map_err(|error| with_upload(failure::of(error), request))?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

/// An upload's id for clients: its node in hexadecimal.
pub fn upload_id(upload: Ino) -> String {
    format!("{:016x}", upload.0)
}

/// The upload that a request names; any other text is an upload that does not exist.
pub fn upload_of(request: &Request) -> Result<Ino, S3Error> {
    let text = request.query.get("uploadId").unwrap_or_default();
    parse_upload_id(text).ok_or_else(|| S3Error::from(ErrorCode::NoSuchUpload).with("UploadId", text))
}

/// The inverse of [`upload_id`].
pub fn parse_upload_id(text: &str) -> Option<Ino> {
    let canonical = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|id| canonical && *id <= i64::MAX as u64).map(Ino)
}

/// Upload and part number.
pub fn part_of(request: &Request) -> Result<(Ino, u32), S3Error> {
    let number = part_number(request.query.get("partNumber").unwrap_or_default())?;
    Ok((upload_of(request)?, number))
}

/// 1 to 10,000.
pub fn part_number(text: &str) -> Result<u32, S3Error> {
    text.parse().ok().filter(|number| (1..=PART_COUNT_MAX).contains(number)).ok_or_else(|| {
        let message = format!("Part number must be an integer between 1 and {PART_COUNT_MAX}, inclusive");
        S3Error::invalid_argument(message, "partNumber", text)
    })
}

