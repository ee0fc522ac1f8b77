//! Object lock: what a bucket says of new versions, and how long a version is kept.
//!
//! Locks are kept and enforced by the catalog, for whoever comes; here they are read and shown.

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use predastore::catalog::{Attrs, Bucket, Change, LockRule, Retention, Setting, Version};
use predastore::object::Found;

use super::object::{find, of_read};
use super::{XML_MAX_BYTES, target_of};
use crate::app::{App, Request};
use crate::body::Upload;
use crate::error::{ErrorCode, S3Error};
use crate::route::Operation;
use crate::xml::lock;
use crate::{checksum, failure, respond};

const MODE: &str = "x-amz-object-lock-mode";
const UNTIL: &str = "x-amz-object-lock-retain-until-date";
const HOLD: &str = "x-amz-object-lock-legal-hold";
const BYPASS: &str = "x-amz-bypass-governance-retention";

/// Who bypasses GOVERNANCE.
const BYPASS_ACTION: &str = "s3:BypassGovernanceRetention";

fn missing() -> S3Error {
    S3Error::new(ErrorCode::InvalidRequest, "Bucket is missing Object Lock Configuration")
}

/// GetObjectLockConfiguration.
pub(super) async fn configuration(app: &App, request: &Request) -> Result<Response, S3Error> {
    let bucket = super::bucket::of(app, request).await?;
    if !bucket.lock {
        let none = S3Error::from(ErrorCode::ObjectLockConfigurationNotFoundError);
        return Err(none.with("BucketName", request.bucket()));
    }
    let kept = super::kept(app, request, Setting::ObjectLock).await?;
    let later =
        || S3Error::from(ErrorCode::InternalError).because("what the bucket says of locks is of a later version");
    let rule = kept.map_or(Some(LockRule::default()), |kept| LockRule::from_bytes(&kept)).ok_or_else(later)?;
    Ok(respond::xml(lock::write_configuration(rule)))
}

/// PutObjectLockConfiguration; a bucket with versioning that did not lock does so from then on.
pub(super) async fn set_configuration(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    let document = super::collect(app, request, body, XML_MAX_BYTES).await?;
    let value = Bytes::copy_from_slice(&lock::object_lock_configuration(&document)?.to_bytes());
    app.store.expect_locking().await.map_err(failure::of)?;
    let set = app.store.set_setting(request.bucket(), Setting::ObjectLock, Some(value)).await;
    set.map_err(|error| {
        let error = failure::of(error);
        match error.code {
            ErrorCode::InvalidBucketState => S3Error::new(
                ErrorCode::InvalidBucketState,
                "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration",
            ),
            _ => error,
        }
    })?;
    Ok(respond::empty(StatusCode::OK))
}

/// Whether a new bucket is to lock.
pub(super) async fn is_wanted(app: &App, request: &Request) -> Result<bool, S3Error> {
    let name = "x-amz-bucket-object-lock-enabled";
    let is_wanted = match request.header(name)? {
        None => false,
        Some(value) if value.eq_ignore_ascii_case("true") => true,
        Some(value) if value.eq_ignore_ascii_case("false") => false,
        Some(value) => return Err(S3Error::invalid_argument("The header is neither true nor false", name, value)),
    };
    if is_wanted {
        for operation in [Operation::PutObjectLockConfiguration, Operation::PutBucketVersioning] {
            app.require(request, operation.action(false), request.bucket(), "")?;
        }
        app.store.expect_locking().await.map_err(failure::of)?;
    }
    Ok(is_wanted)
}

/// A version of a bucket that locks.
async fn locking(app: &App, request: &Request) -> Result<Found, S3Error> {
    let found = find(app, request, &target_of(request)?).await?;
    if found.bucket.lock { Ok(found) } else { Err(missing()) }
}

/// GetObjectRetention.
pub(super) async fn retention(app: &App, request: &Request) -> Result<Response, S3Error> {
    let found = locking(app, request).await?;
    let retention = found.version.attrs.retention.ok_or(ErrorCode::NoSuchObjectLockConfiguration)?;
    Ok(respond::xml(lock::write_retention(retention)))
}

/// PutObjectRetention.
pub(super) async fn set_retention(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    let document = super::collect(app, request, body, XML_MAX_BYTES).await?;
    let retention = lock::retention(&document)?;
    locking(app, request).await?;
    lock::check_future(retention, app.store.now())?;
    let bypass = bypasses(app, request, request.key())?;
    change(app, request, Change::Retention { retention, bypass }).await
}

/// GetObjectLegalHold. One that was never set is off.
pub(super) async fn hold(app: &App, request: &Request) -> Result<Response, S3Error> {
    Ok(respond::xml(lock::write_legal_hold(locking(app, request).await?.version.attrs.hold)))
}

/// PutObjectLegalHold.
pub(super) async fn set_hold(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    let document = super::collect(app, request, body, XML_MAX_BYTES).await?;
    let hold = lock::legal_hold(&document)?;
    locking(app, request).await?;
    change(app, request, Change::Hold(hold)).await
}

async fn change(app: &App, request: &Request, change: Change) -> Result<Response, S3Error> {
    app.store.expect_locking().await.map_err(failure::of)?;
    let target = target_of(request)?;
    app.store.change(&target, change).await.map_err(|error| of_read(app, request, error, &target))?;
    Ok(respond::empty(StatusCode::OK))
}

/// Whether a request bypasses GOVERNANCE: it says so, and its sender may.
///
/// # Errors
/// `AccessDenied`: he may not.
pub(super) fn bypasses(app: &App, request: &Request, key: &str) -> Result<bool, S3Error> {
    if !request.header(BYPASS)?.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(false);
    }
    app.require(request, BYPASS_ACTION, request.bucket(), key)?;
    Ok(true)
}

/// What the headers of a write say of a lock, put into the attributes of the version to be.
///
/// # Errors
/// `AccessDenied`: its sender may not lock. `InvalidArgument`: what is said is no lock. `InvalidRequest`: the bucket does not
/// lock.
pub(super) async fn attach(app: &App, request: &Request, attrs: &mut Attrs) -> Result<(), S3Error> {
    let (retention, hold) = (said_retention(app, request)?, said_hold(request)?);
    if retention.is_none() && hold.is_none() {
        return Ok(());
    }
    if retention.is_some() {
        app.require(request, Operation::PutObjectRetention.action(false), request.bucket(), request.key())?;
    }
    if hold.is_some() {
        app.require(request, Operation::PutObjectLegalHold.action(false), request.bucket(), request.key())?;
    }
    let bucket: Bucket = super::bucket::of(app, request).await?;
    if !bucket.lock {
        return Err(missing());
    }
    app.store.expect_locking().await.map_err(failure::of)?;
    (attrs.retention, attrs.hold) = (retention, hold.unwrap_or(false));
    Ok(())
}

/// As S3 wants it of a PUT that locks: a digest, so that what cannot be deleted is what was meant.
///
/// # Errors
/// `InvalidRequest`.
pub(super) fn expect_digest(headers: &HeaderMap, attrs: &Attrs) -> Result<(), S3Error> {
    let is_locked = attrs.retention.is_some() || attrs.hold;
    let is_proven = checksum::content_md5(headers)?.is_some()
        || checksum::Expected::from_headers(headers)? != checksum::Expected::Nothing;
    if !is_locked || is_proven {
        return Ok(());
    }
    let message =
        "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters";
    Err(S3Error::new(ErrorCode::InvalidRequest, message))
}

fn said_retention(app: &App, request: &Request) -> Result<Option<Retention>, S3Error> {
    let (mode, until) = match (request.header(MODE)?, request.header(UNTIL)?) {
        (None, None) => return Ok(None),
        (Some(mode), Some(until)) => (mode, until),
        (Some(_), None) | (None, Some(_)) => {
            let message = format!("{UNTIL} and {MODE} must both be supplied");
            return Err(S3Error::invalid_argument(message, MODE, ""));
        }
    };
    let unknown = || S3Error::invalid_argument("Unknown wormMode directive.", MODE, mode);
    let no_date =
        || S3Error::invalid_argument("The retain until date must be provided in ISO 8601 format", UNTIL, until);
    let retention = Retention {
        mode: lock::parse_mode(mode).ok_or_else(unknown)?,
        until: lock::parse_until(until).ok_or_else(no_date)?,
    };
    lock::check_future(Some(retention), app.store.now())?;
    Ok(Some(retention))
}

fn said_hold(request: &Request) -> Result<Option<bool>, S3Error> {
    let Some(text) = request.header(HOLD)? else { return Ok(None) };
    let neither = || S3Error::invalid_argument("Legal Hold must be either of 'ON' or 'OFF'", HOLD, text);
    lock::parse_hold(text).map(Some).ok_or_else(neither)
}

/// What GET and HEAD tell of a lock: to those who may see it.
pub(super) fn describe(app: &App, request: &Request, headers: &mut HeaderMap, version: &Version) {
    let may = |operation: Operation| {
        let action = operation.action(false);
        app.require(request, action, request.bucket(), request.key()).is_ok()
    };
    if let Some(retention) = version.attrs.retention.filter(|_| may(Operation::GetObjectRetention)) {
        respond::put(headers, MODE, lock::mode_name(retention.mode));
        respond::put(headers, UNTIL, &crate::dates::iso_8601_ms(respond::milliseconds(retention.until)));
    }
    if version.attrs.hold && may(Operation::GetObjectLegalHold) {
        respond::put(headers, HOLD, "ON");
    }
}
