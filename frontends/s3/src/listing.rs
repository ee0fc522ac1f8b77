//! The parameters of the list operations.
//!
//! A continuation token is a key in base64: listings resume by key, whatever happens between two pages.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::S3Error;
use crate::names::KEY_MAX_BYTES;
use crate::query::Query;

/// The most entries a page has, whatever is asked for.
pub const PAGE_MAX_COUNT: u32 = 1000;
const BUCKET_PAGE_MAX_COUNT: u32 = 10_000;

/// What every listing of keys has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Only keys that begin so; empty for all.
    pub prefix: String,
    /// Keys that share what stands before its first occurrence after the prefix are grouped. Never empty.
    pub delimiter: Option<String>,
    /// Entries on this page, 0 to 1,000.
    pub max_count: u32,
    /// `encoding-type=url`: keys are percent-encoded in the answer.
    pub url_encoded: bool,
}

/// ListObjects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListObjects {
    /// Prefix, delimiter, page size, encoding.
    pub filter: Filter,
    /// Keys after this one; empty for all.
    pub marker: String,
}

/// ListObjectsV2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListObjectsV2 {
    /// Prefix, delimiter, page size, encoding.
    pub filter: Filter,
    /// Keys after this one, on the first page.
    pub start_after: Option<String>,
    /// The token as sent, to be echoed, and the key it stands for; wins over `start_after`.
    pub continuation: Option<Continuation>,
    /// Whether each entry names its owner.
    pub fetch_owner: bool,
}

/// A token and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// As sent.
    pub token: String,
    /// The page begins after this key.
    pub after: String,
}

/// ListObjectVersions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListVersions {
    /// Prefix, delimiter, page size, encoding.
    pub filter: Filter,
    /// Keys after this one, or versions of it after `version_id_marker`.
    pub key_marker: Option<String>,
    /// Only beside a key marker.
    pub version_id_marker: Option<String>,
}

/// ListMultipartUploads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListUploads {
    /// Prefix, delimiter, page size, encoding.
    pub filter: Filter,
    /// Uploads of keys after this one, or of it after `upload_id_marker`.
    pub key_marker: Option<String>,
    /// Ignored by S3 without a key marker, so `None` then.
    pub upload_id_marker: Option<String>,
}

/// ListParts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListParts {
    /// Parts with greater numbers.
    pub part_number_marker: u32,
    /// Entries on this page, 0 to 1,000.
    pub max_count: u32,
    /// `encoding-type=url`.
    pub url_encoded: bool,
}

/// ListBuckets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListBuckets {
    /// Only buckets that begin so.
    pub prefix: String,
    /// Buckets on this page; `None` for all of them in one page, as when S3 is not asked to paginate.
    pub max_count: Option<u32>,
    /// Where the page begins.
    pub continuation: Option<Continuation>,
    /// Only buckets of this region.
    pub region: Option<String>,
}

impl Filter {
    fn parse(query: &Query, max_name: &'static str) -> Result<Filter, S3Error> {
        Ok(Filter {
            prefix: query.get("prefix").unwrap_or_default().to_owned(),
            delimiter: non_empty(query, "delimiter"),
            max_count: count(query, max_name, PAGE_MAX_COUNT)?.unwrap_or(PAGE_MAX_COUNT),
            url_encoded: url_encoded(query)?,
        })
    }
}

impl ListObjects {
    /// # Errors
    /// `InvalidArgument`: a bad `max-keys` or `encoding-type`.
    pub fn parse(query: &Query) -> Result<Self, S3Error> {
        let marker = query.get("marker").unwrap_or_default().to_owned();
        Ok(ListObjects { filter: Filter::parse(query, "max-keys")?, marker })
    }
}

impl ListObjectsV2 {
    /// # Errors
    /// `InvalidArgument`: a bad `max-keys`, `encoding-type` or `continuation-token`.
    pub fn parse(query: &Query) -> Result<Self, S3Error> {
        Ok(ListObjectsV2 {
            filter: Filter::parse(query, "max-keys")?,
            start_after: non_empty(query, "start-after"),
            continuation: continuation(query)?,
            fetch_owner: query.get("fetch-owner") == Some("true"),
        })
    }
}

impl ListVersions {
    /// # Errors
    /// `InvalidArgument`: a bad `max-keys` or `encoding-type`, a version marker without a key marker.
    pub fn parse(query: &Query) -> Result<Self, S3Error> {
        let (key_marker, version_id_marker) = (non_empty(query, "key-marker"), non_empty(query, "version-id-marker"));
        if let (None, Some(version_id)) = (&key_marker, &version_id_marker) {
            let message = "A version-id marker cannot be specified without a key marker.";
            return Err(S3Error::invalid_argument(message, "version-id-marker", version_id));
        }
        Ok(ListVersions { filter: Filter::parse(query, "max-keys")?, key_marker, version_id_marker })
    }
}

impl ListUploads {
    /// # Errors
    /// `InvalidArgument`: a bad `max-uploads` or `encoding-type`.
    pub fn parse(query: &Query) -> Result<Self, S3Error> {
        let key_marker = non_empty(query, "key-marker");
        let upload_id_marker = key_marker.as_ref().and_then(|_| non_empty(query, "upload-id-marker"));
        Ok(ListUploads { filter: Filter::parse(query, "max-uploads")?, key_marker, upload_id_marker })
    }
}

impl ListParts {
    /// # Errors
    /// `InvalidArgument`: a bad `max-parts`, `part-number-marker` or `encoding-type`.
    pub fn parse(query: &Query) -> Result<Self, S3Error> {
        Ok(ListParts {
            part_number_marker: count(query, "part-number-marker", i32::MAX as u32)?.unwrap_or(0),
            max_count: count(query, "max-parts", PAGE_MAX_COUNT)?.unwrap_or(PAGE_MAX_COUNT),
            url_encoded: url_encoded(query)?,
        })
    }
}

impl ListBuckets {
    /// # Errors
    /// `InvalidArgument`: `max-buckets` not in 1 to 10,000, a bad token.
    pub fn parse(query: &Query) -> Result<Self, S3Error> {
        let max_count = count(query, "max-buckets", u32::MAX)?;
        if let Some(outside) = max_count.filter(|max| !(1..=BUCKET_PAGE_MAX_COUNT).contains(max)) {
            return Err(not_an_integer("max-buckets", &outside.to_string()));
        }
        Ok(ListBuckets {
            prefix: query.get("prefix").unwrap_or_default().to_owned(),
            max_count,
            continuation: continuation(query)?,
            region: non_empty(query, "bucket-region"),
        })
    }
}

/// The token that resumes a listing after `key`.
pub fn continuation_token(key: &str) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

fn continuation(query: &Query) -> Result<Option<Continuation>, S3Error> {
    let Some(token) = query.get("continuation-token") else {
        return Ok(None);
    };
    let refuse =
        || S3Error::invalid_argument("The continuation token provided is incorrect", "continuation-token", token);
    let key = URL_SAFE_NO_PAD.decode(token).map_err(|_| refuse())?;
    if key.is_empty() || key.len() > KEY_MAX_BYTES {
        return Err(refuse());
    }
    let after = String::from_utf8(key).map_err(|_| refuse())?;
    Ok(Some(Continuation { token: token.to_owned(), after }))
}

fn non_empty(query: &Query, name: &str) -> Option<String> {
    query.get(name).filter(|value| !value.is_empty()).map(str::to_owned)
}

fn url_encoded(query: &Query) -> Result<bool, S3Error> {
    match query.get("encoding-type") {
        None | Some("") => Ok(false),
        Some("url") => Ok(true),
        Some(other) => {
            Err(S3Error::invalid_argument("Invalid Encoding Method specified in Request", "encoding-type", other))
        }
    }
}

/// A count in 0 to 2^31 - 1, cut to `max`; `None` when absent or empty.
fn count(query: &Query, name: &'static str, max: u32) -> Result<Option<u32>, S3Error> {
    let Some(text) = query.get(name).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<i32>() {
        Ok(count) if digits => Ok(Some(count.unsigned_abs().min(max))),
        _ => Err(not_an_integer(name, text)),
    }
}

fn not_an_integer(name: &'static str, text: &str) -> S3Error {
    S3Error::invalid_argument(format!("Provided {name} not an integer or within integer range"), name, text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
    use proptest::prelude::*;

    fn query(raw: &str) -> Query {
        Query::parse(raw).unwrap()
    }

    #[test]
    fn defaults() {
        let filter = Filter { prefix: String::new(), delimiter: None, max_count: 1000, url_encoded: false };
        assert_eq!(ListObjects::parse(&query("")).unwrap(), ListObjects { filter: filter.clone(), marker: "".into() });
        let v2 = ListObjectsV2 { filter: filter.clone(), start_after: None, continuation: None, fetch_owner: false };
        assert_eq!(ListObjectsV2::parse(&query("list-type=2&prefix=&delimiter=&max-keys=")).unwrap(), v2);
        let versions = ListVersions { filter, key_marker: None, version_id_marker: None };
        assert_eq!(ListVersions::parse(&query("versions&key-marker=&version-id-marker=")).unwrap(), versions);
    }

    #[test]
    fn everything_given() {
        let token = continuation_token("a/é");
        let raw = format!(
            "prefix=p%2F&delimiter=--&max-keys=7&encoding-type=url&start-after=s&continuation-token={token}&fetch-owner=true"
        );
        let list = ListObjectsV2::parse(&query(&raw)).unwrap();
        let filter = Filter { prefix: "p/".into(), delimiter: Some("--".into()), max_count: 7, url_encoded: true };
        assert_eq!(list.filter, filter);
        assert_eq!(list.start_after.as_deref(), Some("s"));
        assert_eq!(list.continuation, Some(Continuation { token, after: "a/é".into() }));
        assert!(list.fetch_owner);
    }

    #[test]
    fn page_sizes() {
        let max = |text: &str| {
            ListObjects::parse(&query(&format!("max-keys={text}")))
                .map(|list| list.filter.max_count)
                .map_err(|e| e.code)
        };
        assert_eq!([max("0"), max("1"), max("1000"), max("2147483647")], [Ok(0), Ok(1), Ok(1000), Ok(1000)]);
        for text in ["-1", "x", "1.5", "2147483648", "%201", "%2B1", "0x1"] {
            assert_eq!(max(text), Err(ErrorCode::InvalidArgument), "{text}");
        }
        let buckets = |raw: &str| ListBuckets::parse(&query(raw)).map(|list| list.max_count).map_err(|e| e.code);
        assert_eq!(buckets(""), Ok(None));
        assert_eq!(buckets("max-buckets=10000"), Ok(Some(10_000)));
        assert_eq!(buckets("max-buckets=0"), Err(ErrorCode::InvalidArgument));
        assert_eq!(buckets("max-buckets=10001"), Err(ErrorCode::InvalidArgument));
    }

    #[test]
    fn what_s3_refuses() {
        let code = |raw: &str| ListObjectsV2::parse(&query(raw)).unwrap_err().code;
        let too_long = continuation_token(&"k".repeat(1025));
        for raw in ["encoding-type=base64", "continuation-token=", "continuation-token=***", "continuation-token=_w"] {
            assert_eq!(code(raw), ErrorCode::InvalidArgument, "{raw}");
        }
        assert_eq!(code(&format!("continuation-token={too_long}")), ErrorCode::InvalidArgument);
        let refused = ListVersions::parse(&query("version-id-marker=v")).unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidArgument);
    }

    #[test]
    fn markers_of_uploads_and_parts() {
        let uploads = |raw: &str| ListUploads::parse(&query(raw)).unwrap();
        assert_eq!(uploads("upload-id-marker=u").upload_id_marker, None);
        assert_eq!(uploads("key-marker=k&upload-id-marker=u").upload_id_marker.as_deref(), Some("u"));
        assert_eq!(uploads("max-uploads=3").filter.max_count, 3);
        let parts = ListParts::parse(&query("part-number-marker=17&max-parts=5")).unwrap();
        assert_eq!(parts, ListParts { part_number_marker: 17, max_count: 5, url_encoded: false });
    }

    proptest! {
        #[test]
        fn tokens_round_trip(key in any::<String>()) {
            prop_assume!(!key.is_empty() && key.len() <= KEY_MAX_BYTES);
            let list = ListObjectsV2::parse(&query(&format!("continuation-token={}", continuation_token(&key)))).unwrap();
            prop_assert_eq!(list.continuation.unwrap().after, key);
        }
    }
}
