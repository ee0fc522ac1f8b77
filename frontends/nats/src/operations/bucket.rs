//! Buckets.

use predastore::catalog::{Bucket, Refusal as Refused};
use predastore::object::Error;
use predastore_vocabulary::error::{ErrorCode, S3Error};
use serde_json::json;

use super::list::{Page, next_token, token};
use super::{Request, fields};
use crate::answer::{Answer, Refusal};
use crate::input::{self, said};
use crate::shown;

/// The region with rules of its own.
const FIRST_REGION: &str = "us-east-1";
/// Buckets on a page at most.
const PAGE_MAX_COUNT: i64 = 10_000;

/// CreateBucket. One's own bucket may be made again in `us-east-1` and nowhere else, as on S3.
pub(super) async fn create(request: &Request<'_>) -> Result<Answer, Refusal> {
    let input: input::CreateBucket = request.parse()?;
    let name = input::bucket(&input.bucket)?;
    request.may(name, "")?;
    let asked = input.create_bucket_configuration.as_ref().and_then(|asked| said(&asked.location_constraint));
    let region = asked.unwrap_or(&request.service.region);
    let store = &request.service.store;
    match store.create_bucket(name, &request.caller.account_id, region, false).await {
        Ok(_) => {}
        Err(Error::Refused(Refused::BucketExists { owner })) if owner == request.caller.account_id => {
            let again = region == FIRST_REGION && store.bucket(name).await?.region == FIRST_REGION;
            if !again {
                return Err(S3Error::from(ErrorCode::BucketAlreadyOwnedByYou).with("BucketName", name).into());
            }
        }
        Err(Error::Refused(Refused::BucketExists { .. })) => {
            return Err(S3Error::from(ErrorCode::BucketAlreadyExists).with("BucketName", name).into());
        }
        Err(other) => return Err(other.into()),
    }
    Ok(Answer::of(&fields([("Location", json!(format!("/{name}")))])))
}

/// DeleteBucket.
pub(super) async fn delete(request: &Request<'_>) -> Result<Answer, Refusal> {
    let input: input::OfBucket = request.parse()?;
    let name = input::bucket(&input.bucket)?;
    request.may(name, "")?;
    request.service.store.delete_bucket(name).await?;
    Ok(Answer::of(&fields([])))
}

/// HeadBucket.
pub(super) async fn head(request: &Request<'_>) -> Result<Answer, Refusal> {
    let input: input::OfBucket = request.parse()?;
    let name = input::bucket(&input.bucket)?;
    request.may(name, "")?;
    let bucket = request.service.store.bucket(name).await?;
    Ok(Answer::of(&fields([("BucketRegion", json!(bucket.region))])))
}

/// ListBuckets: in pages where they do not fit into one answer.
pub(super) async fn list(request: &Request<'_>) -> Result<Answer, Refusal> {
    let input: input::ListBuckets = request.parse()?;
    request.may("", "")?;
    let max_count = match input.max_buckets {
        None | Some(0) => PAGE_MAX_COUNT,
        Some(count @ 1..=PAGE_MAX_COUNT) => count,
        Some(other) => return Err(input::invalid("Not a count of buckets", "MaxBuckets", &other.to_string())),
    };
    let after = said(&input.continuation_token).map(token).transpose()?;
    let page_count = usize::try_from(PAGE_MAX_COUNT).unwrap_or_default();
    let all = request.service.store.buckets(after.as_deref(), page_count).await?;
    let (prefix, region) = (said(&input.prefix).unwrap_or_default(), said(&input.bucket_region));
    let wanted = |bucket: &&Bucket| {
        request.rights.sees(bucket)
            && bucket.name.starts_with(prefix)
            && region.is_none_or(|region| *region == bucket.region)
    };
    let mut page = Page::new(request, max_count as usize).await?;
    for bucket in all.iter().filter(wanted) {
        if !page.push(shown::bucket(bucket)) {
            break;
        }
    }
    // Without a filter the last one shown is where the next page begins; so it is with one: others are passed over again.
    let last = all.iter().filter(wanted).nth(page.shown.len().wrapping_sub(1));
    let next = last.filter(|_| page.is_cut).map(|bucket| next_token(&bucket.name));
    let owner = &request.caller.account_id;
    let answer = fields([
        ("Buckets", json!(page.shown)),
        ("Owner", json!({ "ID": owner, "DisplayName": owner })),
        ("Prefix", json!(prefix)),
        ("ContinuationToken", json!(next)),
    ]);
    Ok(page.answer(&answer))
}
