//! Who may do what in a bucket: its policy, its public access block, its ownership controls.
//!
//! What they mean is decided in [`predastore::object::access`]; here they are read, kept and shown.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use predastore::catalog::Setting;
use predastore::object::access::PublicAccessBlock;
use predastore::policy::{self, Policy};

use super::{XML_MAX_BYTES, keep, kept};
use crate::app::{App, Request};
use crate::body::Upload;
use crate::error::{ErrorCode, S3Error};
use crate::respond;
use crate::xml::access::{self, Ownership};

/// What is kept where ownership controls were removed: not set, and not the default either.
const REMOVED: &[u8] = b"";

/// Others than the owner's account have no business with a policy, whatever it allows them.
fn expect_owner(request: &Request) -> Result<(), S3Error> {
    if request.rights().owns(request.bucket()) { Ok(()) } else { Err(ErrorCode::MethodNotAllowed.into()) }
}

/// The policy of a bucket, as it was sent.
///
/// # Errors
/// `NoSuchBucketPolicy`.
async fn document(app: &App, request: &Request) -> Result<Bytes, S3Error> {
    let none = || S3Error::from(ErrorCode::NoSuchBucketPolicy).with("BucketName", request.bucket());
    kept(app, request, Setting::Policy).await?.ok_or_else(none)
}

/// GetBucketPolicy.
pub(super) async fn policy(app: &App, request: &Request) -> Result<Response, S3Error> {
    let document = document(app, request).await?;
    expect_owner(request)?;
    let mut response = Response::new(Body::from(document));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// PutBucketPolicy.
pub(super) async fn set_policy(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    let document = super::collect(app, request, body, XML_MAX_BYTES).await?;
    let block = block_of(app, request).await?;
    expect_owner(request)?;
    let policy = parse(&document, request.bucket())?;
    if block.block_public_policy && policy.is_public() {
        let message = "User is not authorized to perform s3:PutBucketPolicy because public policies are prevented by the \
                       BlockPublicPolicy setting in S3 Block Public Access.";
        return Err(S3Error::new(ErrorCode::AccessDenied, message));
    }
    keep(app, request, Setting::Policy, Some(document)).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

/// A policy that a bucket may have.
///
/// # Errors
/// `MalformedPolicy`, with what is wrong and where.
fn parse(document: &[u8], bucket: &str) -> Result<Policy, S3Error> {
    let malformed = |message: String| S3Error::new(ErrorCode::MalformedPolicy, message);
    let policy = Policy::parse(document, policy::Kind::Resource).map_err(|error| malformed(error.to_string()))?;
    // Better refused than never asked for.
    if policy.asks_for("s3:object-lock-") {
        return Err(malformed("Condition keys of object locks are not known here".to_owned()));
    }
    match policy.resource_elsewhere(bucket) {
        None => Ok(policy),
        Some(place) => Err(malformed(format!("Policy has invalid resource: {place} names none in this bucket"))),
    }
}

/// DeleteBucketPolicy; there need be none.
pub(super) async fn remove_policy(app: &App, request: &Request) -> Result<Response, S3Error> {
    super::bucket::of(app, request).await?;
    expect_owner(request)?;
    keep(app, request, Setting::Policy, None).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

/// GetBucketPolicyStatus.
pub(super) async fn policy_status(app: &App, request: &Request) -> Result<Response, S3Error> {
    let document = document(app, request).await?;
    let policy = Policy::parse(&document, policy::Kind::Resource)
        .map_err(|error| S3Error::from(ErrorCode::InternalError).because(error.to_string()))?;
    Ok(respond::xml(access::policy_status(policy.is_public())))
}

/// What a bucket keeps from the public; nothing, where that was never said.
async fn block_of(app: &App, request: &Request) -> Result<PublicAccessBlock, S3Error> {
    Ok(said_block(app, request).await?.unwrap_or_default())
}

async fn said_block(app: &App, request: &Request) -> Result<Option<PublicAccessBlock>, S3Error> {
    let Some(kept) = kept(app, request, Setting::PublicAccessBlock).await? else { return Ok(None) };
    let later = || S3Error::from(ErrorCode::InternalError).because("the public access block is of a later version");
    PublicAccessBlock::from_bytes(&kept).map(Some).ok_or_else(later)
}

/// GetPublicAccessBlock.
pub(super) async fn block(app: &App, request: &Request) -> Result<Response, S3Error> {
    let none = || S3Error::from(ErrorCode::NoSuchPublicAccessBlockConfiguration).with("BucketName", request.bucket());
    Ok(respond::xml(access::write_block(said_block(app, request).await?.ok_or_else(none)?)))
}

/// PutPublicAccessBlock.
pub(super) async fn set_block(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    let document = super::collect(app, request, body, XML_MAX_BYTES).await?;
    let block = access::public_access_block(&document)?;
    keep(app, request, Setting::PublicAccessBlock, Some(Bytes::copy_from_slice(&block.to_bytes()))).await?;
    Ok(respond::empty(StatusCode::OK))
}

/// DeletePublicAccessBlock; there need be none.
pub(super) async fn remove_block(app: &App, request: &Request) -> Result<Response, S3Error> {
    keep(app, request, Setting::PublicAccessBlock, None).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

/// GetBucketOwnershipControls: of a new bucket, that its owner is enforced.
pub(super) async fn ownership(app: &App, request: &Request) -> Result<Response, S3Error> {
    let kept = kept(app, request, Setting::Ownership).await?;
    let ownership = match kept.as_deref() {
        None => Ownership::BucketOwnerEnforced,
        Some(REMOVED) => {
            let none = S3Error::from(ErrorCode::OwnershipControlsNotFoundError);
            return Err(none.with("BucketName", request.bucket()));
        }
        Some(name) => std::str::from_utf8(name).ok().and_then(Ownership::parse).ok_or_else(|| {
            S3Error::from(ErrorCode::InternalError).because("the ownership controls are of a later version")
        })?,
    };
    Ok(respond::xml(access::write_ownership(ownership)))
}

/// PutBucketOwnershipControls. Lists count for nothing here, so an owner is always enforced.
pub(super) async fn set_ownership(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    let document = super::collect(app, request, body, XML_MAX_BYTES).await?;
    let ownership = access::ownership_controls(&document)?;
    if ownership != Ownership::BucketOwnerEnforced {
        let message = format!("Object ownership {} is not implemented.", ownership.name());
        return Err(S3Error::new(ErrorCode::NotImplemented, message));
    }
    keep(app, request, Setting::Ownership, Some(Bytes::from_static(ownership.name().as_bytes()))).await?;
    Ok(respond::empty(StatusCode::OK))
}

/// DeleteBucketOwnershipControls.
pub(super) async fn remove_ownership(app: &App, request: &Request) -> Result<Response, S3Error> {
    keep(app, request, Setting::Ownership, Some(Bytes::from_static(REMOVED))).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}
