//! Cross-origin rules of a bucket, preflights, and what other answers say to a browser.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use predastore::catalog::{Refusal, Setting};
use predastore::object::Error;

use super::{XML_MAX_BYTES, keep};
use crate::app::{App, Request};
use crate::body::Upload;
use crate::cors::{Asked, METHODS, Rule, answer};
use crate::error::{ErrorCode, S3Error};
use crate::xml::cors::{cors_configuration, write_cors};
use crate::{failure, respond};

/// GetBucketCors.
pub(super) async fn get(app: &App, request: &Request) -> Result<Response, S3Error> {
    let none = || S3Error::from(ErrorCode::NoSuchCORSConfiguration).with("BucketName", request.bucket());
    let rules = rules(app, request.bucket()).await.map_err(failure::of)?.ok_or_else(none)?;
    Ok(respond::xml(write_cors(&rules)))
}

/// PutBucketCors. It is kept as the document that answers it.
pub(super) async fn set(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    let document = super::collect(app, request, body, XML_MAX_BYTES).await?;
    let value = Bytes::from(write_cors(&cors_configuration(&document)?));
    keep(app, request, Setting::Cors, Some(value)).await?;
    Ok(respond::empty(StatusCode::OK))
}

/// DeleteBucketCors; there need be none.
pub(super) async fn remove(app: &App, request: &Request) -> Result<Response, S3Error> {
    keep(app, request, Setting::Cors, None).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

/// The rules of a bucket; none: it has none.
async fn rules(app: &App, bucket: &str) -> Result<Option<Vec<Rule>>, Error> {
    read(bucket, app.store.setting(bucket, Setting::Cors).await?)
}

fn read(bucket: &str, kept: Option<Bytes>) -> Result<Option<Vec<Rule>>, Error> {
    let Some(kept) = kept else { return Ok(None) };
    let later = |_| Error::Corrupt(format!("the cross-origin rules of bucket {bucket}"));
    cors_configuration(&kept).map(Some).map_err(later)
}

/// A preflight: a browser asks, without a key, whether a page may make a request.
pub(super) async fn preflight(app: &App, request: &Request) -> Result<Response, S3Error> {
    let origin = request.header("origin")?.ok_or_else(|| {
        S3Error::new(ErrorCode::BadRequest, "Insufficient information. Origin request header needed.")
    })?;
    let method = request.header("access-control-request-method")?.unwrap_or("null");
    if !METHODS.contains(&method) {
        return Err(S3Error::new(ErrorCode::BadRequest, format!("Invalid Access-Control-Request-Method: {method}")));
    }
    let headers = request.header("access-control-request-headers")?.unwrap_or_default();
    let headers: Vec<&str> = headers.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let forbidden = |message: &'static str| {
        let kind = if request.key().is_empty() { "BUCKET" } else { "OBJECT" };
        S3Error::new(ErrorCode::AccessForbidden, message).with("Method", method).with("ResourceType", kind)
    };
    let rules = match rules(app, request.bucket()).await {
        Ok(rules) => rules.ok_or_else(|| forbidden("CORSResponse: CORS is not enabled for this bucket."))?,
        Err(Error::Refused(Refusal::NoSuchBucket)) => return Err(forbidden("CORSResponse: Bucket not found")),
        Err(error) => return Err(failure::of(error)),
    };
    let allowed = answer(&rules, &Asked { origin, method, headers: &headers }).ok_or_else(|| {
        forbidden(
            "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request method / \
             Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's CORS spec.",
        )
    })?;
    let mut response = respond::empty(StatusCode::OK);
    allowed.iter().for_each(|(name, value)| respond::put(response.headers_mut(), name, value));
    Ok(response)
}

/// What a browser is told with the answer to a request that says where its page is from: a good one, or an error, which the
/// page could not read otherwise. Where the rules cannot be read the page learns nothing.
pub(crate) async fn for_browser(app: &App, bucket: &str, origin: &str, method: &str) -> Vec<(&'static str, String)> {
    if bucket.is_empty() {
        return Vec::new();
    }
    // An answer that is ready waits for nobody.
    match app.store.setting_here(bucket, Setting::Cors).await.and_then(|kept| read(bucket, kept)) {
        Ok(Some(rules)) => answer(&rules, &Asked { origin, method, headers: &[] }).unwrap_or_default(),
        Ok(None) | Err(Error::Refused(_)) => Vec::new(),
        Err(error) => {
            tracing::warn!(bucket, %error, "cross-origin rules cannot be read");
            Vec::new()
        }
    }
}
