//! Who is told of what happens in a bucket.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use predastore::catalog::Setting;

use super::XML_MAX_BYTES;
use crate::app::{App, Request};
use crate::body::Upload;
use crate::error::{ErrorCode, S3Error};
use crate::notification::Notification;
use crate::xml::notification::{notification, write};
use crate::{failure, respond};

/// GetBucketNotificationConfiguration; nobody is told: no rules.
pub(super) async fn get(app: &App, request: &Request) -> Result<Response, S3Error> {
    let kept = super::kept(app, request, Setting::Notification).await?;
    let rules = match kept {
        None => Notification::default(),
        Some(kept) => Notification::decode(&kept).ok_or_else(|| {
            S3Error::from(ErrorCode::InternalError).because("the notification configuration is of a later version")
        })?,
    };
    Ok(respond::xml(write(&rules)))
}

/// PutBucketNotificationConfiguration; without rules nobody is told any more.
pub(super) async fn set(app: &App, request: &Request, body: &mut Upload) -> Result<Response, S3Error> {
    let document = super::collect(app, request, body, XML_MAX_BYTES).await?;
    let rules = notification(&document)?;
    let value = match rules.rules.first() {
        None => None,
        Some(rule) if !app.config.tells_events => {
            let message = "Unable to validate the following destination configurations: this gateway publishes no events \
                           (nats.events).";
            return Err(S3Error::invalid_argument(message, "Arn", &rule.arn));
        }
        Some(_) => {
            app.store.expect_events().await.map_err(failure::of)?;
            Some(Bytes::from(rules.encode()))
        }
    };
    super::keep(app, request, Setting::Notification, value).await?;
    Ok(respond::empty(StatusCode::OK))
}
