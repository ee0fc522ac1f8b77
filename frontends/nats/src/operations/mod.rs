//! What each operation does: a thin layer between JSON on one side and the object API on the other.
//!
//! Invariant: no operation touches the store before `may` allowed it.

mod bucket;
mod copy;
mod list;
mod object;
mod storage;

use std::borrow::Cow;
use std::sync::OnceLock;

use predastore::ids::VersionId;
use predastore::object::access::{Caller, Deed, Rights, Tagged};
use predastore::object::{Error, Store, Target};
use predastore::policy::Context;
use predastore_vocabulary::dates;
use predastore_vocabulary::error::ErrorCode;
use predastore_vocabulary::failure;
use predastore_vocabulary::names::CopySource;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::answer::{Answer, Refusal};
use crate::input::{self, Input};
use crate::limits::Limits;
use crate::presign::Presign;
use crate::serve::DbNode;
use crate::subject::Operation;

/// What operations work on.
pub(crate) struct Service {
    pub(crate) store: Store,
    pub(crate) limits: Limits,
    pub(crate) presign: Presign,
    /// The region of buckets that name none.
    pub(crate) region: String,
    /// What kind of store it is: `file` or `distributed`.
    pub(crate) backend: &'static str,
    pub(crate) db_nodes: Vec<DbNode>,
}

/// A request whose sender is known.
pub(crate) struct Request<'a> {
    pub(crate) service: &'a Service,
    pub(crate) operation: Operation,
    pub(crate) caller: &'a Caller,
    /// What he may do in the buckets that it names.
    pub(crate) rights: &'a Rights,
    /// Tags of the objects that it names, where policies ask for them.
    pub(crate) tagged: &'a Tagged,
    pub(crate) payload: &'a [u8],
    /// The longest answer that the server carries.
    pub(crate) answer_max_bytes: usize,
    /// Bucket and key that it is about, for the log.
    pub(crate) named: OnceLock<(String, String)>,
}

impl Request<'_> {
    /// The payload, read.
    fn parse<T: Input>(&self) -> Result<T, Refusal> {
        input::parse(self.payload)
    }

    /// # Errors
    /// `AccessDenied`, unless the caller may do what this request asks for.
    fn may(&self, bucket: &str, key: &str) -> Result<(), Refusal> {
        self.may_do(self.operation.action(), bucket, key)
    }

    /// As [`Request::may`], of a version if one was named.
    fn may_version(&self, version: Option<VersionId>, bucket: &str, key: &str) -> Result<(), Refusal> {
        match version {
            None => self.may(bucket, key),
            Some(_) => self.may_do(self.operation.action_on_version(), bucket, key),
        }
    }

    /// # Errors
    /// `AccessDenied`: a condition on the tag of what there is tells what there is, and the caller may not read it.
    fn may_compare(&self, tag: &Option<String>, bucket: &str, key: &str) -> Result<(), Refusal> {
        match input::said(tag) {
            None | Some("*") => Ok(()),
            Some(_) => self.may_do(Operation::GetObject.action(), bucket, key),
        }
    }

    fn may_do(&self, action: &str, bucket: &str, key: &str) -> Result<(), Refusal> {
        self.may_do_with(&Told { request: self, listed: None, object: (bucket, key) }, action, bucket, key)
    }

    fn may_do_with(&self, told: &Told<'_>, action: &str, bucket: &str, key: &str) -> Result<(), Refusal> {
        self.named.get_or_init(|| (bucket.to_owned(), key.to_owned()));
        match self.rights.may(&Deed { action, bucket, key, context: told }) {
            true => Ok(()),
            false => Err(ErrorCode::AccessDenied.into()),
        }
    }

    /// Why an object cannot be read. That it is missing is told only to those who may list its bucket.
    fn unreadable(&self, error: Error, bucket: &str) -> Refusal {
        let error = failure::of(error);
        match error.code {
            ErrorCode::NoSuchKey | ErrorCode::NoSuchVersion => {
                self.may_do(Operation::ListObjects.action(), bucket, "").err().unwrap_or(error.into())
            }
            _ => error.into(),
        }
    }
}

/// What the conditions of policies are told of a request. An address and a connection's security it has none of that this side
/// could vouch for: the server is in between.
struct Told<'a> {
    request: &'a Request<'a>,
    listed: Option<&'a input::ListObjects>,
    /// What is about to be touched.
    object: (&'a str, &'a str),
}

impl Context for Told<'_> {
    fn values(&self, key: &str) -> Option<Vec<Cow<'_, str>>> {
        let one = |text: &str| Some(vec![Cow::Owned(text.to_owned())]);
        let now = || self.request.service.store.now();
        let listed = |field: fn(&input::ListObjects) -> &Option<String>| one(input::said(field(self.listed?))?);
        match key {
            "aws:currenttime" => one(&dates::iso_8601_ms(now().0.div_euclid(1_000_000))),
            "aws:epochtime" => one(&now().seconds().to_string()),
            "s3:prefix" => listed(|input| &input.prefix),
            "s3:delimiter" => listed(|input| &input.delimiter),
            "s3:max-keys" => one(&self.listed?.max_keys?.to_string()),
            // Whether the connection to the server is secure nobody here can vouch for.
            "aws:securetransport" => one("false"),
            _ => self.request.tagged.values(key, self.object.0, self.object.1),
        }
    }
}

/// Carries out a request.
///
/// # Errors
/// What S3 would answer.
pub(crate) async fn carry_out(request: &Request<'_>) -> Result<Answer, Refusal> {
    match request.operation {
        Operation::CreateBucket => bucket::create(request).await,
        Operation::DeleteBucket => bucket::delete(request).await,
        Operation::ListBuckets => bucket::list(request).await,
        Operation::HeadBucket => bucket::head(request).await,
        Operation::PutObject => object::put(request).await,
        Operation::GetObject => object::get(request).await,
        Operation::HeadObject => object::head(request).await,
        Operation::DeleteObject => object::delete(request).await,
        Operation::ListObjects => list::objects(request).await,
        Operation::CopyObject => copy::object(request).await,
        Operation::StorageConfig => storage::config(request).await,
    }
}

/// What a request names, whatever operation it is: read once, and of the rest, a body above all, nothing is kept. Of what cannot
/// be read so nothing is named, and nothing may be done in it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Named {
    bucket: Option<String>,
    key: Option<String>,
    version_id: Option<String>,
    copy_source: Option<String>,
    if_match: Option<String>,
}

impl Named {
    pub(crate) fn of(payload: &[u8]) -> Named {
        serde_json::from_slice(payload).unwrap_or_default()
    }

    fn source(&self) -> Option<CopySource> {
        CopySource::parse(self.copy_source.as_deref()?).ok()
    }

    /// The buckets that a request has to do with.
    pub(crate) fn buckets(&self) -> Vec<String> {
        self.bucket.clone().into_iter().chain(self.source().map(|source| source.bucket)).collect()
    }

    /// The objects whose tags may decide: what is read, or compared.
    pub(crate) fn decided_by_tags(&self, operation: Operation) -> Vec<Target> {
        // A version that is none is found out later.
        let object = |bucket: &str, key: &str, version: Option<&str>| Target {
            bucket: bucket.to_owned(),
            key: key.as_bytes().to_vec(),
            version: version.and_then(|version| version.parse().ok()),
        };
        let reads = matches!(operation, Operation::GetObject | Operation::HeadObject);
        let named = self.bucket.as_ref().zip(self.key.as_ref()).filter(|_| reads || self.if_match.is_some());
        let named = named.map(|(bucket, key)| object(bucket, key, self.version_id.as_deref()));
        let source = self.source().map(|source| object(&source.bucket, &source.key, source.version_id.as_deref()));
        named.into_iter().chain(source).collect()
    }
}

/// A version's id; none where none was named.
fn version(field: &Option<String>) -> Result<Option<VersionId>, Refusal> {
    let parse =
        |text: &str| text.parse().map_err(|_| input::invalid("Invalid version id specified", "VersionId", text));
    input::said(field).map(parse).transpose()
}

/// The fields of an answer.
fn fields<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
