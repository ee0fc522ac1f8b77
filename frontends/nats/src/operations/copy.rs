//! CopyObject: a new name for bytes that stay where they are.

use predastore::catalog::Refusal as Refused;
use predastore::object::{Error, Found, Put, Target};
use predastore_vocabulary::attrs;
use predastore_vocabulary::conditions::Outcome;
use predastore_vocabulary::error::{ErrorCode, S3Error};
use predastore_vocabulary::names::CopySource;
use serde_json::json;

use super::object::milliseconds;
use super::{Request, fields, version};
use crate::answer::{Answer, Refusal};
use crate::input::{self, said};
use crate::shown;
use crate::subject::Operation;

/// A source may be overwritten between reading and naming it; then it is read again.
const ATTEMPTS: usize = 3;

/// CopyObject.
pub(super) async fn object(request: &Request<'_>) -> Result<Answer, Refusal> {
    let input: input::CopyObject = request.parse()?;
    let (bucket, key) = (input::bucket(&input.bucket)?, input::key(&input.key)?);
    request.may(bucket, key)?;
    request.may_compare(&input.if_match, bucket, key)?;
    let source = source(request, &input)?;
    let replace = match said(&input.metadata_directive) {
        None | Some("COPY") => false,
        Some("REPLACE") => true,
        Some(other) => return Err(input::invalid("Unknown directive.", "MetadataDirective", other)),
    };
    let fresh = input.described.attrs(&request.caller.account_id, key)?;
    let in_place = source.bucket == bucket && source.key == key.as_bytes() && source.version.is_none();
    if in_place && !replace && fresh.storage_class.is_empty() {
        let message = "This copy request is illegal because it is trying to copy an object to itself without changing \
                       the object's metadata, storage class, website redirect location or encryption attributes.";
        return Err(S3Error::new(ErrorCode::InvalidRequest, message).into());
    }
    let mut attempt = 1;
    let (found, stored) = loop {
        let found = read_source(request, &input, &source).await?;
        may_copy_tags(request, &source, &found, (bucket, key))?;
        let put = Put {
            bucket: bucket.to_owned(),
            owner: request.rights.owner(bucket),
            key: key.as_bytes().to_vec(),
            attrs: attrs::of_copy(&found.version.attrs, &fresh, replace, false),
            precondition: input.condition()?.into(),
        };
        match request.service.store.copy(&found.version, put, Vec::new()).await {
            Err(Error::Refused(Refused::SourceGone)) if attempt < ATTEMPTS => attempt += 1,
            outcome => break (found, outcome?),
        }
    };
    let written = &stored.written;
    let result = json!({ "ETag": shown::etag(written.etag), "LastModified": shown::time(written.modified) });
    let mut answer = fields([("CopyObjectResult", result)]);
    if found.bucket.ever_versioned {
        answer.insert("CopySourceVersionId".to_owned(), json!(found.version.id.to_string()));
    }
    if written.ever_versioned {
        answer.insert("VersionId".to_owned(), json!(written.version.to_string()));
    }
    Ok(Answer::of(&answer))
}

/// The source, if the caller may read it.
fn source(request: &Request<'_>, input: &input::CopyObject) -> Result<Target, Refusal> {
    let source = CopySource::parse(said(&input.copy_source).unwrap_or_default())?;
    let version = version(&source.version_id)?;
    let read = Operation::GetObject;
    let action = if version.is_some() { read.action_on_version() } else { read.action() };
    request.may_do(action, &source.bucket, &source.key)?;
    Ok(Target { bucket: source.bucket, key: source.key.into_bytes(), version })
}

/// Tags that go along are read there and written here.
fn may_copy_tags(
    request: &Request<'_>,
    source: &Target,
    found: &Found,
    (bucket, key): (&str, &str),
) -> Result<(), Refusal> {
    if found.version.attrs.tags.is_empty() {
        return Ok(());
    }
    // Conditions on tags that are to be are told of none here: better refused than not asked.
    if request.rights.ask_for("s3:requestobjecttag") {
        return Err(ErrorCode::AccessDenied.into());
    }
    let read = if source.version.is_some() { "s3:GetObjectVersionTagging" } else { "s3:GetObjectTagging" };
    request.may_do(read, &source.bucket, &String::from_utf8_lossy(&source.key))?;
    request.may_do("s3:PutObjectTagging", bucket, key)
}

async fn read_source(request: &Request<'_>, input: &input::CopyObject, source: &Target) -> Result<Found, Refusal> {
    let found = request.service.store.head(source).await.map_err(|error| match error {
        Error::DeleteMarker { .. } => {
            let message = "The source of a copy request may not specifically refer to a delete marker by version id.";
            S3Error::new(ErrorCode::InvalidRequest, message).into()
        }
        other => request.unreadable(other, &source.bucket),
    })?;
    let conditions = input.of_source();
    match conditions.evaluate(&found.version.etag.to_string(), milliseconds(found.version.modified)) {
        Outcome::Proceed => Ok(found),
        // Nobody asked for the source: there is no 304 of it.
        outcome @ (Outcome::NotModified | Outcome::PreconditionFailed) => {
            let condition = format!("x-amz-copy-source-{}", conditions.decided_by(outcome));
            Err(S3Error::from(ErrorCode::PreconditionFailed).with("Condition", condition).into())
        }
    }
}
