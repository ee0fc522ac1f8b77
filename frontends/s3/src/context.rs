//! What the conditions of policies are about, as far as a request tells it.
//!
//! Source: "Condition keys for Amazon S3" in the Service Authorization Reference; "AWS global condition context keys" in the
//! IAM User Guide.

use std::borrow::Cow;

use predastore::policy::Context;

use crate::app::{App, Request};
use crate::auth::SignedBy;
use crate::dates;
use crate::query::Query;

/// A request, for conditions.
pub(crate) struct OfRequest<'a> {
    pub(crate) app: &'a App,
    pub(crate) request: &'a Request,
    /// What is about to be touched.
    pub(crate) bucket: &'a str,
    pub(crate) key: &'a str,
}

impl Context for OfRequest<'_> {
    fn values(&self, key: &str) -> Option<Vec<Cow<'_, str>>> {
        let OfRequest { app, request, .. } = self;
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
            "s3:versionid" => query("versionId"),
            "s3:if-match" | "s3:if-none-match" => self.header(&key[3..]),
            "s3:signatureversion" => request.signed_by.map(|_| vec!["AWS4-HMAC-SHA256".into()]),
            "s3:authtype" => Some(vec![match request.signed_by? {
                SignedBy::Header => "REST-HEADER".into(),
                SignedBy::Presigned => "REST-QUERY-STRING".into(),
            }]),
            "s3:requestobjecttagkeys" => {
                Some(self.tags()?.pairs().map(|(name, _)| Cow::Owned(name.to_owned())).collect())
            }
            _ if key.starts_with("s3:existingobjecttag/") => {
                Some(vec![Cow::Borrowed(request.tagged.value(key, self.bucket, self.key)?)])
            }
            _ => match key.strip_prefix("s3:requestobjecttag/") {
                Some(tag) => made(self.tags()?.pairs().find(|(name, _)| name.eq_ignore_ascii_case(tag))?.1.to_owned()),
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

    /// Tags are written as a query is.
    fn tags(&self) -> Option<Query> {
        Query::parse(self.request.head.headers.get("x-amz-tagging")?.to_str().ok()?).ok()
    }
}
