//! The JSON of requests, in the shape of the AWS SDK's inputs.
//!
//! Invariant: a field that means something and is not known is refused, so nothing that was asked for is silently left
//! undone. What SDKs write into fields that nobody set (null, "", false, 0, [] and {}) means nothing.

use std::collections::BTreeMap;

use predastore::catalog::{Attrs, Header};
use predastore_vocabulary::conditions::{ReadConditions, WriteCondition};
use predastore_vocabulary::dates;
use predastore_vocabulary::error::{ErrorCode, S3Error};
use predastore_vocabulary::{attrs, names};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::answer::Refusal;

/// Fields that may be left undone: they ask for no more than another form of the answer.
const HARMLESS: [&str; 4] = ["ChecksumMode", "EncodingType", "FetchOwner", "RequestPayer"];
/// ACLs that say what is so anyway.
const OWNER_ONLY: [&str; 2] = ["private", "bucket-owner-full-control"];

/// What is said of a request that cannot be read.
const SAID_MAX_CHARS: usize = 200;

/// Fields that none of the structures below has.
type Rest = BTreeMap<String, Value>;

/// A request's JSON.
pub(crate) trait Input: DeserializeOwned {
    /// The fields that are not known.
    fn rest(&self) -> &Rest;
}

/// Reads a request; an empty payload is `{}`.
///
/// # Errors
/// `InvalidRequest`: no such JSON. `NotImplemented`: a field that is not known.
pub(crate) fn parse<T: Input>(payload: &[u8]) -> Result<T, Refusal> {
    let payload = if payload.is_empty() { b"{}" } else { payload };
    let input: T = serde_json::from_slice(payload).map_err(|error| {
        // It quotes what it met, which may be a body.
        let why: String = error.to_string().chars().take(SAID_MAX_CHARS).collect();
        S3Error::new(ErrorCode::InvalidRequest, format!("The request is no JSON of this operation: {why}"))
    })?;
    match input.rest().iter().find(|(name, value)| means_something(name, value)) {
        None => Ok(input),
        Some((name, _)) => Err(S3Error::new(ErrorCode::NotImplemented, format!("{name} is not implemented.")).into()),
    }
}

fn means_something(name: &str, value: &Value) -> bool {
    let is_unset = match value {
        Value::Null => true,
        Value::Bool(switch) => !switch,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || name == "ACL" && OWNER_ONLY.contains(&text.as_str()),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(|value| !means_something("", value)),
    };
    !is_unset && !HARMLESS.contains(&name)
}

macro_rules! inputs {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $($(#[$doc])*
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "PascalCase", default)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type,)*
            #[serde(flatten)]
            rest: Rest,
        }

        impl Input for $name {
            fn rest(&self) -> &Rest {
                &self.rest
            }
        })*
    };
}

inputs! {
    /// HeadBucket, DeleteBucket.
    OfBucket { bucket: Option<String> }
    /// CreateBucket.
    CreateBucket { bucket: Option<String>, create_bucket_configuration: Option<BucketConfiguration> }
    /// ListBuckets.
    ListBuckets { prefix: Option<String>, max_buckets: Option<i64>, continuation_token: Option<String>, bucket_region: Option<String> }
    /// spinifex.storage.config.
    Nothing {}
    /// Both forms of ListObjects.
    ListObjects {
        bucket: Option<String>,
        prefix: Option<String>,
        delimiter: Option<String>,
        max_keys: Option<i64>,
        continuation_token: Option<String>,
        start_after: Option<String>,
        marker: Option<String>,
    }
    /// DeleteObject.
    DeleteObject { bucket: Option<String>, key: Option<String>, version_id: Option<String>, if_match: Option<String> }
}

/// Where a bucket is to be made.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct BucketConfiguration {
    pub(crate) location_constraint: Option<String>,
}

/// GetObject and HeadObject.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Read {
    pub(crate) bucket: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) version_id: Option<String>,
    pub(crate) range: Option<String>,
    #[serde(flatten)]
    pub(crate) conditions: Conditions,
    /// A URL is wanted, however short the object is.
    pub(crate) presign: Option<bool>,
    #[serde(flatten)]
    rest: Rest,
}

impl Input for Read {
    fn rest(&self) -> &Rest {
        &self.rest
    }
}

/// Conditions of a read.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Conditions {
    pub(crate) if_match: Option<String>,
    pub(crate) if_none_match: Option<String>,
    #[serde(deserialize_with = "http_date")]
    pub(crate) if_modified_since: Option<String>,
    #[serde(deserialize_with = "http_date")]
    pub(crate) if_unmodified_since: Option<String>,
}

impl Conditions {
    pub(crate) fn as_read(&self) -> ReadConditions<'_> {
        ReadConditions {
            if_match: said(&self.if_match),
            if_none_match: said(&self.if_none_match),
            if_modified_since: said(&self.if_modified_since),
            if_unmodified_since: said(&self.if_unmodified_since),
        }
    }
}

/// SDKs write times as ISO 8601; conditions are compared as HTTP has them.
fn http_date<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.map(|text| dates::parse_iso_8601_ms(&text).map_or(text, dates::http_date)))
}

/// PutObject.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct PutObject {
    pub(crate) bucket: Option<String>,
    pub(crate) key: Option<String>,
    /// Base64.
    pub(crate) body: Option<String>,
    pub(crate) content_length: Option<u64>,
    #[serde(rename = "ContentMD5")]
    pub(crate) content_md5: Option<String>,
    pub(crate) if_match: Option<String>,
    pub(crate) if_none_match: Option<String>,
    #[serde(flatten)]
    pub(crate) described: Described,
    /// A URL to send the body to is wanted.
    pub(crate) presign: Option<bool>,
    #[serde(flatten)]
    rest: Rest,
}

impl Input for PutObject {
    fn rest(&self) -> &Rest {
        &self.rest
    }
}

impl PutObject {
    /// # Errors
    /// As [`WriteCondition::parse`].
    pub(crate) fn condition(&self) -> Result<WriteCondition, Refusal> {
        Ok(WriteCondition::parse(said(&self.if_match), said(&self.if_none_match))?)
    }
}

/// CopyObject.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CopyObject {
    pub(crate) bucket: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) copy_source: Option<String>,
    pub(crate) metadata_directive: Option<String>,
    pub(crate) if_match: Option<String>,
    pub(crate) if_none_match: Option<String>,
    pub(crate) copy_source_if_match: Option<String>,
    pub(crate) copy_source_if_none_match: Option<String>,
    #[serde(deserialize_with = "http_date")]
    pub(crate) copy_source_if_modified_since: Option<String>,
    #[serde(deserialize_with = "http_date")]
    pub(crate) copy_source_if_unmodified_since: Option<String>,
    #[serde(flatten)]
    pub(crate) described: Described,
    #[serde(flatten)]
    rest: Rest,
}

impl Input for CopyObject {
    fn rest(&self) -> &Rest {
        &self.rest
    }
}

impl CopyObject {
    /// # Errors
    /// As [`WriteCondition::parse`].
    pub(crate) fn condition(&self) -> Result<WriteCondition, Refusal> {
        Ok(WriteCondition::parse(said(&self.if_match), said(&self.if_none_match))?)
    }

    pub(crate) fn of_source(&self) -> ReadConditions<'_> {
        ReadConditions {
            if_match: said(&self.copy_source_if_match),
            if_none_match: said(&self.copy_source_if_none_match),
            if_modified_since: said(&self.copy_source_if_modified_since),
            if_unmodified_since: said(&self.copy_source_if_unmodified_since),
        }
    }
}

/// What an object carries beside its bytes.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Described {
    content_type: Option<String>,
    cache_control: Option<String>,
    content_disposition: Option<String>,
    content_encoding: Option<String>,
    content_language: Option<String>,
    expires: Option<String>,
    website_redirect_location: Option<String>,
    storage_class: Option<String>,
    metadata: Option<BTreeMap<String, Option<String>>>,
}

impl Described {
    /// The headers that are kept, as HTTP could carry each.
    ///
    /// # Errors
    /// `InvalidArgument`, with the field.
    pub(crate) fn headers(&self) -> Result<Vec<(Header, String)>, Refusal> {
        let fields = [
            (Header::ContentType, "ContentType", &self.content_type),
            (Header::CacheControl, "CacheControl", &self.cache_control),
            (Header::ContentDisposition, "ContentDisposition", &self.content_disposition),
            (Header::ContentEncoding, "ContentEncoding", &self.content_encoding),
            (Header::ContentLanguage, "ContentLanguage", &self.content_language),
            (Header::Expires, "Expires", &self.expires),
            (Header::WebsiteRedirect, "WebsiteRedirectLocation", &self.website_redirect_location),
        ];
        let mut headers = Vec::new();
        for (header, name, value) in fields {
            if let Some(value) = said(value) {
                check_value(name, value)?;
                headers.push((header, value.to_owned()));
            }
        }
        Ok(headers)
    }

    /// User metadata, in order, names in lower case.
    ///
    /// # Errors
    /// `InvalidArgument`: what HTTP could not carry. `MetadataTooLarge`.
    pub(crate) fn metadata(&self) -> Result<Vec<(String, String)>, Refusal> {
        let mut metadata = Vec::new();
        for (name, value) in self.metadata.iter().flatten() {
            let value = value.as_deref().unwrap_or_default();
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(invalid("The name of user metadata cannot be that of a header", "Metadata", name));
            }
            check_value("Metadata", value)?;
            metadata.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        Ok(attrs::user_metadata(metadata)?)
    }

    /// As it is kept.
    ///
    /// # Errors
    /// `InvalidStorageClass`.
    pub(crate) fn storage_class(&self) -> Result<String, Refusal> {
        Ok(attrs::storage_class(self.storage_class.as_deref().unwrap_or_default())?)
    }

    /// All of it. `owner`: an account.
    ///
    /// # Errors
    /// Those of its parts.
    pub(crate) fn attrs(&self, owner: &str, key: &str) -> Result<Attrs, Refusal> {
        let mut metadata = self.metadata()?;
        // What s3fs says of a directory (`x/`) is between s3fs and its metadata.
        let posix = if key.ends_with('/') { None } else { attrs::take_posix(&mut metadata) };
        Ok(Attrs {
            owner: owner.to_owned(),
            headers: self.headers()?,
            metadata,
            posix,
            storage_class: self.storage_class()?,
            ..Attrs::default()
        })
    }
}

/// What was said in a field: an empty text says nothing.
pub(crate) fn said(field: &Option<String>) -> Option<&str> {
    field.as_deref().filter(|text| !text.is_empty())
}

/// The bucket's name, by S3's rules.
///
/// # Errors
/// `InvalidBucketName`.
pub(crate) fn bucket(field: &Option<String>) -> Result<&str, Refusal> {
    let name = field.as_deref().unwrap_or_default();
    names::check_bucket_name(name)?;
    Ok(name)
}

/// The key, by S3's rules.
///
/// # Errors
/// `KeyTooLongError`; `InvalidArgument`: there is none.
pub(crate) fn key(field: &Option<String>) -> Result<&str, Refusal> {
    let key = said(field).ok_or_else(|| invalid("A key must be given", "Key", ""))?;
    names::check_key(key)?;
    Ok(key)
}

/// `InvalidArgument`, as S3 words it.
pub(crate) fn invalid(message: &'static str, name: &'static str, value: &str) -> Refusal {
    S3Error::invalid_argument(message, name, value).into()
}

fn check_value(name: &'static str, value: &str) -> Result<(), Refusal> {
    let cannot_be_sent = |byte: u8| byte < b' ' && byte != b'\t' || byte == 0x7f;
    match value.bytes().any(cannot_be_sent) {
        false => Ok(()),
        true => Err(invalid("The value cannot be that of a header", name, value)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn put(json: &str) -> Result<PutObject, &'static str> {
        parse::<PutObject>(json.as_bytes()).map_err(|refusal| refusal.code)
    }

    #[test]
    fn what_sdks_write_into_unset_fields_means_nothing() {
        let json = r#"{"ACL":null,"Body":"aGk=","Bucket":"photos","BucketKeyEnabled":false,"CacheControl":null,
            "ContentLength":null,"Expires":null,"Key":"a","Metadata":null,"ObjectLockMode":"","PartNumber":0,"Tagging":null,
            "ResultMetadata":{"a":null}}"#;
        let input = put(json).unwrap();
        assert_eq!((input.bucket.as_deref(), input.body.as_deref()), (Some("photos"), Some("aGk=")));
        let attrs = input.described.attrs("1", "a").unwrap();
        assert!(attrs.headers.is_empty() && attrs.metadata.is_empty());
    }

    #[test]
    fn what_is_not_done_is_refused() {
        for json in [
            r#"{"ServerSideEncryption":"AES256"}"#,
            r#"{"ObjectLockLegalHoldStatus":"ON"}"#,
            r#"{"ACL":"public-read"}"#,
            r#"{"Tagging":"a=b"}"#,
            r#"{"bucket":"photos"}"#,
        ] {
            assert_eq!(put(json).err(), Some("NotImplemented"), "{json}");
        }
        assert!(put(r#"{"ACL":"private","RequestPayer":"requester"}"#).is_ok());
        for json in ["[]", "{", "7", r#"{"Bucket":7}"#, r#"{"ContentLength":-1}"#] {
            assert_eq!(put(json).err(), Some("InvalidRequest"), "{json}");
        }
        assert!(parse::<Nothing>(b"").is_ok());
    }

    #[test]
    fn an_object_is_described_as_headers_would() {
        let json = r#"{"ContentType":"text/plain","StorageClass":"STANDARD","Metadata":{"Color":"blue","a":null,"mode":"33188"}}"#;
        let attrs = put(json).unwrap().described.attrs("1", "k").unwrap();
        assert_eq!(attrs.headers, [(Header::ContentType, "text/plain".to_owned())]);
        assert_eq!(attrs.metadata, [("a".into(), String::new()), ("color".into(), "blue".into())]);
        assert_eq!((attrs.posix.map(|posix| posix.mode), attrs.storage_class.as_str()), (Some(0o100_644), ""));
        let refused = |json: &str| put(json).unwrap().described.attrs("1", "k").unwrap_err().code;
        assert_eq!(refused(r#"{"ContentType":"a\r\nset-cookie: b"}"#), "InvalidArgument");
        assert_eq!(refused(r#"{"Metadata":{"a b":"c"}}"#), "InvalidArgument");
        assert_eq!(refused(r#"{"StorageClass":"GLACIER"}"#), "InvalidStorageClass");
        assert_eq!(refused(&format!(r#"{{"Metadata":{{"a":"{}"}}}}"#, "x".repeat(2048))), "MetadataTooLarge");
    }

    #[test]
    fn times_are_read_as_sdks_write_them() {
        let json = br#"{"IfModifiedSince":"1994-11-06T08:49:37Z","IfUnmodifiedSince":"Sun, 06 Nov 1994 08:49:37 GMT"}"#;
        let read = parse::<Read>(json).map_err(|refusal| refusal.code).unwrap();
        let conditions = read.conditions.as_read();
        assert_eq!(conditions.if_modified_since, Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(conditions.if_modified_since, conditions.if_unmodified_since);
    }

    #[test]
    fn names_keep_s3s_rules() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(bucket(&some("photos")).map_err(|refusal| refusal.code), Ok("photos"));
        assert_eq!(bucket(&some("Photos")).map_err(|refusal| refusal.code), Err("InvalidBucketName"));
        assert_eq!(bucket(&None).map_err(|refusal| refusal.code), Err("InvalidBucketName"));
        assert_eq!(key(&some("../a b")).map_err(|refusal| refusal.code), Ok("../a b"));
        assert_eq!(key(&some(&"k".repeat(1025))).map_err(|refusal| refusal.code), Err("KeyTooLongError"));
        assert_eq!(key(&some("")).map_err(|refusal| refusal.code), Err("InvalidArgument"));
    }
}
