//! Tags of objects and of buckets.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use predastore::catalog::{Bucket, Change, Setting};
use predastore::ids::VersionId;
use predastore::object::Found;

use super::object::{find, of_read};
use super::{XML_MAX_BYTES, target_of};
use crate::app::{App, Request};
use crate::body::Upload;
use crate::context::Touched;
use crate::error::{ErrorCode, S3Error};
use crate::respond;
use crate::xml::request::{Tagged, tagging};
use crate::xml::{response, shown};

/// GetObjectTagging; no tags are an empty set.
pub(super) async fn of_object(app: &App, request: &Request) -> Result<Response, S3Error> {
    let target = target_of(request)?;
    let Found { bucket, version } = find(app, request, &target).await?;
    let response = respond::xml(response::tagging(&shown::tags(&version.attrs.tags)));
    Ok(with_version(response, &bucket, version.id))
}

/// PutObjectTagging.
pub(super) async fn set_of_object(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    let document = super::collect(app, request, body, XML_MAX_BYTES).await?;
    let tags = shown::pairs(tagging(&document, Tagged::Object)?);
    let version = request.query.get("versionId");
    let touched = Touched { bucket: request.bucket(), key: request.key(), version, tags: Some(&tags) };
    app.require_of(request, request.operation.action(version.is_some()), &touched)?;
    change(app, request, tags, StatusCode::OK).await
}

/// DeleteObjectTagging.
pub(super) async fn remove_of_object(app: &App, request: &Request) -> Result<Response, S3Error> {
    change(app, request, Vec::new(), StatusCode::NO_CONTENT).await
}

async fn change(
    app: &App,
    request: &Request,
    tags: Vec<(String, String)>,
    status: StatusCode,
) -> Result<Response, S3Error> {
    let target = target_of(request)?;
    let changed = app.store.change(&target, Change::Tags(tags)).await;
    let changed = changed.map_err(|error| of_read(app, request, error, &target))?;
    let bucket = super::bucket::of(app, request).await?;
    Ok(with_version(respond::empty(status), &bucket, changed))
}

fn with_version(mut response: Response, bucket: &Bucket, version: VersionId) -> Response {
    if bucket.ever_versioned {
        respond::put(response.headers_mut(), "x-amz-version-id", &version.to_string());
    }
    response
}

/// GetBucketTagging. The setting is kept as the document that answers it.
pub(super) async fn of_bucket(app: &App, request: &Request) -> Result<Response, S3Error> {
    let kept = super::kept(app, request, Setting::Tagging).await?;
    let document = kept.ok_or_else(|| S3Error::from(ErrorCode::NoSuchTagSet).with("BucketName", request.bucket()))?;
    Ok(respond::xml(response::tagging(&tagging(&document, Tagged::Bucket)?)))
}

/// PutBucketTagging.
pub(super) async fn set_of_bucket(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    let document = super::collect(app, request, body, XML_MAX_BYTES).await?;
    let tags = tagging(&document, Tagged::Bucket)?;
    let value = Bytes::from(response::tagging(&tags));
    super::keep(app, request, Setting::Tagging, Some(value)).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

/// DeleteBucketTagging.
pub(super) async fn remove_of_bucket(app: &App, request: &Request) -> Result<Response, S3Error> {
    super::keep(app, request, Setting::Tagging, None).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}
