//! Buckets.

use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use predastore::catalog::{Bucket, Refusal, Versioning};
use predastore::object::Error;

use super::{XML_MAX_BYTES, lock};
use crate::app::{App, Request};
use crate::body::Upload;
use crate::error::{ErrorCode, S3Error};
use crate::listing::{ListBuckets, continuation_token};
use crate::respond::milliseconds;
use crate::xml::request::VersioningStatus;
use crate::xml::{response, shown};
use crate::{acl, failure, respond, xml};

/// Buckets in the store at most; a listing without paging shows them all.
const BUCKET_COUNT_MAX: usize = 10_000;
/// The region with rules of its own.
const FIRST_REGION: &str = "us-east-1";

/// The bucket of a request.
///
/// # Errors
/// `NoSuchBucket`.
pub(super) async fn of(app: &App, request: &Request) -> Result<Bucket, S3Error> {
    app.store.bucket(request.bucket()).await.map_err(failure::of)
}

/// ListBuckets: those that the key may list or own.
pub(super) async fn list(app: &App, request: &Request) -> Result<Response, S3Error> {
    let asked = ListBuckets::parse(&request.query)?;
    let after = asked.continuation.as_ref().map(|continuation| continuation.after.as_str());
    let all = app.store.buckets(after, BUCKET_COUNT_MAX).await.map_err(failure::of)?;
    let wanted = |bucket: &Bucket| {
        request.rights().sees(bucket)
            && bucket.name.starts_with(&asked.prefix)
            && asked.region.as_ref().is_none_or(|region| *region == bucket.region)
    };
    let mut buckets: Vec<_> = all.into_iter().filter(wanted).collect();
    let max_count = asked.max_count.map_or(BUCKET_COUNT_MAX, |count| count as usize);
    let more = buckets.len() > max_count;
    buckets.truncate(max_count);
    let shown: Vec<_> = buckets.iter().map(|bucket| shown_bucket(bucket, &asked)).collect();
    let next = buckets.last().filter(|_| more).map(|bucket| continuation_token(&bucket.name));
    Ok(respond::xml(response::list_buckets(
        &shown::owner(request.account_id()),
        &shown,
        &asked.prefix,
        next.as_deref(),
    )))
}

/// S3 tells the region only to those who page or filter.
fn shown_bucket(bucket: &Bucket, asked: &ListBuckets) -> response::Bucket {
    let pages = asked.max_count.is_some() || asked.continuation.is_some();
    let filters = asked.region.is_some() || !asked.prefix.is_empty();
    response::Bucket {
        name: bucket.name.clone(),
        created_ms: milliseconds(bucket.created),
        region: (pages || filters).then(|| bucket.region.clone()),
    }
}

/// CreateBucket. One's own bucket may be made again in `us-east-1` and nowhere else, as on S3.
pub(super) async fn create(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    acl::check_headers(request).map_err(|error| match error.code {
        ErrorCode::AccessControlListNotSupported => ErrorCode::InvalidBucketAclWithObjectOwnership.into(),
        _ => error,
    })?;
    check_ownership(request)?;
    let locks = lock::is_wanted(app, request).await?;
    let document = super::collect(app, request, body, XML_MAX_BYTES).await?;
    let region = xml::request::create_bucket_configuration(&document)?.unwrap_or_else(|| app.config.region.clone());
    let made = app.store.create_bucket(request.bucket(), request.account_id(), &region, locks).await;
    match made {
        Ok(_) => {}
        Err(Error::Refused(Refusal::BucketExists { owner })) if owner == request.account_id() => {
            let again = region == FIRST_REGION && of(app, request).await?.region == FIRST_REGION;
            if !again {
                return Err(S3Error::from(ErrorCode::BucketAlreadyOwnedByYou).with("BucketName", request.bucket()));
            }
        }
        Err(Error::Refused(Refusal::BucketExists { .. })) => {
            return Err(S3Error::from(ErrorCode::BucketAlreadyExists).with("BucketName", request.bucket()));
        }
        Err(other) => return Err(failure::of(other)),
    }
    let mut response = respond::empty(StatusCode::OK);
    respond::put(response.headers_mut(), header::LOCATION.as_str(), &format!("/{}", request.bucket()));
    Ok(response)
}

/// ACLs mean nothing here, so an owner is always enforced.
fn check_ownership(request: &Request) -> Result<(), S3Error> {
    let name = "x-amz-object-ownership";
    match request.header(name)? {
        None | Some("BucketOwnerEnforced") => Ok(()),
        Some("BucketOwnerPreferred" | "ObjectWriter") => {
            Err(S3Error::from(ErrorCode::NotImplemented).with("Header", name))
        }
        Some(other) => Err(S3Error::invalid_argument("Invalid x-amz-object-ownership header", name, other)),
    }
}

/// DeleteBucket.
pub(super) async fn delete(app: &App, request: &Request) -> Result<Response, S3Error> {
    app.store.delete_bucket(request.bucket()).await.map_err(|error| match error {
        Error::Refused(refusal) => failure::of_refusal(refusal).with("BucketName", request.bucket()),
        other => failure::of(other),
    })?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

/// HeadBucket.
pub(super) async fn head(app: &App, request: &Request) -> Result<Response, S3Error> {
    let bucket = of(app, request).await?;
    let mut response = respond::empty(StatusCode::OK);
    respond::put(response.headers_mut(), "x-amz-bucket-region", &bucket.region);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    Ok(response)
}

/// GetBucketLocation; `us-east-1` is the empty one.
pub(super) async fn location(app: &App, request: &Request) -> Result<Response, S3Error> {
    Ok(respond::xml(response::location(&of(app, request).await?.region)))
}

/// GetBucketVersioning.
pub(super) async fn versioning(app: &App, request: &Request) -> Result<Response, S3Error> {
    let status = match of(app, request).await?.versioning {
        Versioning::Never => None,
        Versioning::Enabled => Some(VersioningStatus::Enabled),
        Versioning::Suspended => Some(VersioningStatus::Suspended),
    };
    Ok(respond::xml(response::versioning(status)))
}

/// PutBucketVersioning.
pub(super) async fn set_versioning(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    let document = super::collect(app, request, body, XML_MAX_BYTES).await?;
    let versioning = match xml::request::versioning_configuration(&document)? {
        VersioningStatus::Enabled => Versioning::Enabled,
        VersioningStatus::Suspended => Versioning::Suspended,
    };
    app.store.set_versioning(request.bucket(), versioning).await.map_err(|error| match error {
        Error::Refused(Refusal::InvalidBucketState) => S3Error::new(
            ErrorCode::InvalidBucketState,
            "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed.",
        ),
        error => failure::of(error),
    })?;
    Ok(respond::empty(StatusCode::OK))
}

/// GET ?acl: the owner has full control, always.
pub(super) async fn acl(app: &App, request: &Request) -> Result<Response, S3Error> {
    Ok(respond::xml(response::owner_only_acl(&shown::owner(&of(app, request).await?.owner))))
}

/// PUT ?acl: what amounts to owner-only is accepted.
pub(super) async fn set_acl(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    let bucket = of(app, request).await?;
    let document = super::collect(app, request, body, XML_MAX_BYTES).await?;
    acl::check(request, &document, &bucket.owner)?;
    Ok(respond::empty(StatusCode::OK))
}
