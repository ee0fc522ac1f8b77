//! Objects: GET, HEAD, PUT, DELETE. A body that is too long for a message goes by a presigned URL, in both directions:
//! `Presigned` in an answer is the request to send to the S3 endpoint instead.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use predastore::catalog::{Checksum, DeleteKey, Header, Version};
use predastore::env::Timestamp;
use predastore::object::{Found, Incoming, Put, Source, Target};
use predastore_vocabulary::attrs::header_name;
use predastore_vocabulary::conditions::{Outcome, WriteCondition};
use predastore_vocabulary::error::{ErrorCode, S3Error};
use predastore_vocabulary::range::ByteRange;
use serde_json::{Map, Value, json};

use super::{Request, fields, version};
use crate::answer::{Answer, Refusal};
use crate::input::{self, said};
use crate::presign::ToPresign;
use crate::shown;

/// How long a URL may be used.
const URL_LIFE_S: u32 = 15 * 60;

/// GetObject.
pub(super) async fn get(request: &Request<'_>) -> Result<Answer, Refusal> {
    let input: input::Read = request.parse()?;
    let target = target(request, &input)?;
    let object = request.service.store.get(&target).await.map_err(|error| request.unreadable(error, &target.bucket))?;
    let (mut head, range) = describe(&input, &object.version, object.bucket.ever_versioned)?;
    let len_bytes = range.end - range.start;
    let answer_bytes = Answer::len_bytes_with_body(&head, len_bytes);
    let max_bytes = request.answer_max_bytes.min(request.service.limits.answer_max_bytes());
    match usize::try_from(answer_bytes) {
        Ok(answer_bytes) if answer_bytes <= max_bytes && input.presign != Some(true) => {
            let held = request.service.limits.answer(answer_bytes).await?;
            Ok(Answer::with_body(&head, len_bytes, object.read(range), held).await?)
        }
        Ok(_) | Err(_) => {
            head.insert("Presigned".to_owned(), to_get(request, &input));
            Ok(Answer::of(&head))
        }
    }
}

/// HeadObject.
pub(super) async fn head(request: &Request<'_>) -> Result<Answer, Refusal> {
    let input: input::Read = request.parse()?;
    let target = target(request, &input)?;
    let found = request.service.store.head(&target).await;
    let Found { bucket, version } = found.map_err(|error| request.unreadable(error, &target.bucket))?;
    Ok(Answer::of(&describe(&input, &version, bucket.ever_versioned)?.0))
}

/// What is asked for, if the caller may have it.
fn target(request: &Request<'_>, input: &input::Read) -> Result<Target, Refusal> {
    let (bucket, key) = (input::bucket(&input.bucket)?, input::key(&input.key)?);
    let version = version(&input.version_id)?;
    request.may_version(version, bucket, key)?;
    Ok(Target { bucket: bucket.to_owned(), key: key.as_bytes().to_vec(), version })
}

/// The fields of a version, and the range of its bytes that was asked for.
fn describe(
    input: &input::Read,
    version: &Version,
    ever_versioned: bool,
) -> Result<(Map<String, Value>, Range<u64>), Refusal> {
    let conditions = input.conditions.as_read();
    match conditions.evaluate(&version.etag.to_string(), milliseconds(version.modified)) {
        Outcome::Proceed => {}
        Outcome::NotModified => return Err(Refusal::not_modified()),
        outcome @ Outcome::PreconditionFailed => {
            let decided_by = conditions.decided_by(outcome);
            return Err(S3Error::from(ErrorCode::PreconditionFailed).with("Condition", decided_by).into());
        }
    }
    let mut head = shown::version(version, ever_versioned);
    let range = match said(&input.range).and_then(ByteRange::parse) {
        None => 0..version.size_bytes,
        Some(range) => {
            let range = range.resolve(version.size_bytes).map_err(|outside| {
                S3Error::from(ErrorCode::InvalidRange).with("ActualObjectSize", outside.len_bytes.to_string())
            })?;
            let shown = format!("bytes {}-{}/{}", range.start, range.end - 1, version.size_bytes);
            head.insert("ContentRange".to_owned(), json!(shown));
            range
        }
    };
    head.insert("ContentLength".to_owned(), json!(range.end - range.start));
    Ok((head, range))
}

/// PutObject: the body that came with the request, or a URL to send one to.
pub(super) async fn put(request: &Request<'_>) -> Result<Answer, Refusal> {
    let mut input: input::PutObject = request.parse()?;
    let body = input.body.take();
    let (bucket, key) = (input::bucket(&input.bucket)?, input::key(&input.key)?);
    request.may(bucket, key)?;
    request.may_compare(&input.if_match, bucket, key)?;
    if input.presign == Some(true) {
        if body.is_some() {
            return Err(input::invalid("A URL to send a body to goes without one", "Presign", "true"));
        }
        return Ok(Answer::of(&fields([("Presigned", to_put(request, &input)?)])));
    }
    let body = decoded(body)?;
    let put = Put {
        bucket: bucket.to_owned(),
        owner: request.rights.owner(bucket),
        key: key.as_bytes().to_vec(),
        attrs: input.described.attrs(&request.caller.account_id, key)?,
        precondition: input.condition()?.into(),
    };
    let incoming = Incoming {
        // SDKs write 0 where nobody set it.
        len_bytes: Some(input.content_length.filter(|len| *len != 0).unwrap_or(body.len() as u64)),
        md5: said(&input.content_md5).map(md5).transpose()?,
        ..Incoming::default()
    };
    let stored = request.service.store.put(put, incoming, &mut InMemory(Some(body))).await?;
    let mut answer = fields([("ETag", json!(shown::etag(stored.written.etag)))]);
    if stored.written.ever_versioned {
        answer.insert("VersionId".to_owned(), json!(stored.written.version.to_string()));
    }
    Ok(Answer::of(&answer))
}

/// The body of a request; none is an empty one.
fn decoded(body: Option<String>) -> Result<Bytes, Refusal> {
    let text = body.unwrap_or_default();
    STANDARD.decode(text).map(Bytes::from).map_err(|_| input::invalid("The body is not in base64", "Body", ""))
}

fn md5(text: &str) -> Result<[u8; 16], Refusal> {
    let digest = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    digest.ok_or_else(|| ErrorCode::InvalidDigest.into())
}

/// A body that is there.
struct InMemory(Option<Bytes>);

impl Source for InMemory {
    async fn next(&mut self) -> Result<Option<Bytes>, ()> {
        Ok(self.0.take())
    }

    fn promised(&self) -> Vec<Checksum> {
        Vec::new()
    }
}

/// DeleteObject. A key that is not there is no error.
pub(super) async fn delete(request: &Request<'_>) -> Result<Answer, Refusal> {
    let input: input::DeleteObject = request.parse()?;
    let (bucket, key) = (input::bucket(&input.bucket)?, input::key(&input.key)?);
    let asked = version(&input.version_id)?;
    request.may_version(asked, bucket, key)?;
    request.may_compare(&input.if_match, bucket, key)?;
    let key = DeleteKey {
        key: Bytes::copy_from_slice(key.as_bytes()),
        version: asked,
        precondition: WriteCondition::parse(said(&input.if_match), None)?.into(),
        bypass_governance: false,
    };
    let outcomes = request.service.store.delete(bucket, vec![key]).await?;
    let mut answer = Map::new();
    for outcome in outcomes {
        let deleted = outcome.map_err(predastore::object::Error::Refused)?;
        // A version that is not there was deleted all the same.
        if let Some(version) = deleted.version.or(asked) {
            answer.insert("VersionId".to_owned(), json!(version.to_string()));
        }
        if deleted.delete_marker {
            answer.insert("DeleteMarker".to_owned(), json!(true));
        }
    }
    Ok(Answer::of(&answer))
}

/// The request that gets the body.
fn to_get(request: &Request<'_>, input: &input::Read) -> Value {
    let query: Vec<_> = said(&input.version_id).map(|id| ("versionId".to_owned(), id.to_owned())).into_iter().collect();
    let headers: Vec<_> = said(&input.range).map(|range| ("range".to_owned(), range.to_owned())).into_iter().collect();
    presigned(request, "GET", (&input.bucket, &input.key), &query, &headers)
}

/// The request that stores a body as `input` describes it. What S3 takes from the query goes there, so that it need not be
/// sent again.
fn to_put(request: &Request<'_>, input: &input::PutObject) -> Result<Value, Refusal> {
    let (mut query, mut headers) = (Vec::new(), Vec::new());
    for (header, value) in input.described.headers()? {
        let to = if header == Header::WebsiteRedirect { &mut query } else { &mut headers };
        to.push((header_name(header).to_owned(), value));
    }
    for (name, value) in input.described.metadata()? {
        query.push((format!("x-amz-meta-{name}"), value));
    }
    let class = input.described.storage_class()?;
    if !class.is_empty() {
        query.push(("x-amz-storage-class".to_owned(), class));
    }
    input.condition()?;
    let sent = [
        ("content-md5", said(&input.content_md5)),
        ("if-match", said(&input.if_match)),
        ("if-none-match", said(&input.if_none_match)),
    ];
    headers.extend(sent.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))));
    headers.sort();
    Ok(presigned(request, "PUT", (&input.bucket, &input.key), &query, &headers))
}

/// `{URL, Method, Headers, Expires}`. Its headers are signed: the request must have them.
fn presigned(
    request: &Request<'_>,
    method: &'static str,
    (bucket, key): (&Option<String>, &Option<String>),
    query: &[(String, String)],
    headers: &[(String, String)],
) -> Value {
    let now = request.service.store.now();
    let url = (request.service.presign)(&ToPresign {
        access_key_id: &request.caller.access_key_id,
        secret: &request.caller.secret,
        method,
        bucket: bucket.as_deref().unwrap_or_default(),
        key: key.as_deref().unwrap_or_default(),
        query,
        headers,
        now_s: now.seconds(),
        life_s: URL_LIFE_S,
    });
    let expires = Timestamp::from_seconds(now.seconds() + i64::from(URL_LIFE_S));
    let headers: Map<String, Value> = headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({ "URL": url, "Method": method, "Headers": headers, "Expires": shown::time(expires) })
}

/// Since 1970.
pub(super) fn milliseconds(time: Timestamp) -> i64 {
    time.0.div_euclid(1_000_000)
}
