//! Settings of a bucket that are one word, and those of which there are none here: their lists are empty.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use predastore::catalog::Setting;
use predastore::object::access::REQUESTER_PAYS;

use super::{XML_MAX_BYTES, keep, kept};
use crate::app::{App, Request};
use crate::body::Upload;
use crate::error::{ErrorCode, S3Error};
use crate::xml::simple;
use crate::{failure, respond};

/// Keeps a word, once all of the cluster know that setting.
async fn keep_word(app: &App, request: &Request, setting: Setting, word: &'static [u8]) -> Result<Response, S3Error> {
    app.store.expect_locking().await.map_err(failure::of)?;
    keep(app, request, setting, Some(Bytes::from_static(word))).await?;
    Ok(respond::empty(StatusCode::OK))
}

/// GetBucketRequestPayment: the owner pays, where nothing was said.
pub(super) async fn payment(app: &App, request: &Request) -> Result<Response, S3Error> {
    let kept = kept(app, request, Setting::RequestPayment).await?;
    Ok(respond::xml(simple::write_request_payment(kept.as_deref() == Some(REQUESTER_PAYS))))
}

/// PutBucketRequestPayment.
pub(super) async fn set_payment(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    let document = super::collect(app, request, body, XML_MAX_BYTES).await?;
    let value = if simple::request_payment(&document)? { REQUESTER_PAYS } else { b"BucketOwner" };
    keep_word(app, request, Setting::RequestPayment, value).await
}

/// GetBucketAccelerateConfiguration.
pub(super) async fn accelerate(app: &App, request: &Request) -> Result<Response, S3Error> {
    let kept = kept(app, request, Setting::Accelerate).await?;
    let status = kept.as_deref().map(|kept| String::from_utf8_lossy(kept).into_owned());
    Ok(respond::xml(simple::write_accelerate(status.as_deref())))
}

/// PutBucketAccelerateConfiguration: kept and told; nothing is faster or slower by it.
pub(super) async fn set_accelerate(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    let document = super::collect(app, request, body, XML_MAX_BYTES).await?;
    let status = simple::accelerate(&document)?;
    if request.bucket().contains('.') {
        let message = "S3 Transfer Acceleration is not supported for buckets with periods (.) in their names";
        return Err(S3Error::new(ErrorCode::InvalidRequest, message));
    }
    keep_word(app, request, Setting::Accelerate, status.as_bytes()).await
}

/// GetBucketLogging: buckets are not logged.
pub(super) async fn logging(app: &App, request: &Request) -> Result<Response, S3Error> {
    super::bucket::of(app, request).await?;
    Ok(respond::xml(simple::no_logging()))
}

/// A list of configurations that cannot be put here, so that there are none.
pub(super) async fn none(app: &App, request: &Request, list: &str) -> Result<Response, S3Error> {
    super::bucket::of(app, request).await?;
    Ok(respond::xml(simple::no_configurations(list)))
}

/// One of them.
pub(super) async fn no_such(app: &App, request: &Request) -> Result<Response, S3Error> {
    super::bucket::of(app, request).await?;
    Err(ErrorCode::NoSuchConfiguration.into())
}
