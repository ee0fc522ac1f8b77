//! What the conditions of policies are about, as far as a request tells it.
//!
//! Source: "Condition keys for Amazon S3" in the Service Authorization Reference; "AWS global condition context keys" in the
//! IAM User Guide.

use std::borrow::Cow;

use predastore::policy::Context;

use crate::app::{App, Request, header_of};
use crate::auth::SignedBy;
use crate::dates;
use crate::metadata;
use crate::route::Operation;

/// A request, for conditions.
pub(crate) struct OfRequest<'a> {
    pub(crate) app: &'a App,
    pub(crate) request: &'a Request,
    pub(crate) touched: &'a Touched<'a>,
}

/// What is about to be touched.
pub(crate) struct Touched<'a> {
    pub(crate) bucket: &'a str,
    pub(crate) key: &'a str,
    /// The version that is named.
    pub(crate) version: Option<&'a str>,
    /// The tags that it is to have; none: those of the request's headers, if it keeps them.
    pub(crate) tags: Option<&'a [(String, String)]>,
}

impl Context for OfRequest<'_> {
    fn values(&self, key: &str) -> Option<Vec<Cow<'_, str>>> {
        let OfRequest { app, request, touched } = self;
        let query = |name: &str| request.query.get(name).map(|text| vec![Cow::Borrowed(text)]);
        let made = |text: String| Some(vec![Cow::Owned(text)]);
        match key {
            "aws:sourceip" => made(request.peer?.ip().to_canonical().to_string()),
            "aws:securetransport" => made(app.config.tls.to_string()),
            "aws:currenttime" => made(dates::iso_8601_ms(app.store.now().0.div_euclid(1_000_000))),
            "aws:epochtime" => made(app.store.now().seconds().to_string()),
            "aws:requestedregion" => made(app.config.region.clone()),
            "aws:useragent" => self.header("user-agent"),
            "aws:referer" => self.header("referer"),
            "s3:prefix" | "s3:delimiter" | "s3:max-keys" => query(&key[3..]),
            "s3:versionid" => touched.version.map(|version| vec![Cow::Borrowed(version)]),
            "s3:if-match" | "s3:if-none-match" => self.header(&key[3..]),
            "s3:signatureversion" => request.signed_by.map(|_| vec!["AWS4-HMAC-SHA256".into()]),
            "s3:authtype" => Some(vec![match request.signed_by? {
                SignedBy::Header => "REST-HEADER".into(),
                SignedBy::Presigned => "REST-QUERY-STRING".into(),
            }]),
            "s3:requestobjecttagkeys" => Some(self.tags()?.into_iter().map(|(name, _)| Cow::Owned(name)).collect()),
            _ if key.starts_with("s3:existingobjecttag/") => request.tagged.values(key, touched.bucket, touched.key),
            _ => match key.strip_prefix("s3:requestobjecttag/") {
                // A condition key has lost the case of the tag's name: any of those counts.
                Some(tag) => {
                    let tags = self.tags()?.into_iter().filter(|(name, _)| name.to_lowercase() == tag);
                    Some(tags.map(|(_, value)| Cow::Owned(value)).collect())
                }
                None => {
                    key.strip_prefix("s3:").filter(|name| name.starts_with("x-amz-")).and_then(|name| self.header(name))
                }
            },
        }
    }
}

impl OfRequest<'_> {
    fn header(&self, name: &str) -> Option<Vec<Cow<'_, str>>> {
        self.request.head.headers.get(name)?.to_str().ok().map(|text| vec![Cow::Borrowed(text)])
    }

    /// The tags that what is touched is to have, where the request says so.
    fn tags(&self) -> Option<Vec<(String, String)>> {
        let OfRequest { request, touched, .. } = self;
        if let Some(tags) = touched.tags {
            return Some(tags.to_vec());
        }
        let headers = &request.head.headers;
        let replaces = || header_of(headers, "x-amz-tagging-directive").ok().flatten() == Some("REPLACE");
        let keeps = match request.operation {
            Operation::CopyObject => replaces(),
            operation => operation.writes_object(),
        };
        headers.get("x-amz-tagging").filter(|_| keeps)?;
        metadata::tags(headers).ok()
    }
}
