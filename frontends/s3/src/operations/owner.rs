//! Whose bucket a client believes it is talking to: `x-amz-expected-bucket-owner` and its twin for the source of a copy.

use crate::app::{App, Request};
use crate::error::{ErrorCode, S3Error};
use crate::failure;
use crate::names::CopySource;
use crate::route::Operation;

/// The catalog is read only where a request says whom it expects. ListBuckets and CreateBucket have no bucket to check.
///
/// # Errors
/// `AccessDenied`: a bucket is another's. `NoSuchBucket`. `InvalidBucketOwnerAWSAccountID`: nobody can be called that.
pub(super) async fn check(app: &App, operation: Operation, request: &Request) -> Result<(), S3Error> {
    let has_bucket = !matches!(operation, Operation::ListBuckets | Operation::CreateBucket);
    if let Some(expected) = request.header("x-amz-expected-bucket-owner")?.filter(|_| has_bucket) {
        check_one(app, request.bucket(), expected).await?;
    }
    let source = request.header("x-amz-copy-source")?;
    if let Some((expected, source)) = request.header("x-amz-source-expected-bucket-owner")?.zip(source) {
        check_one(app, &CopySource::parse(source)?.bucket, expected).await?;
    }
    Ok(())
}

async fn check_one(app: &App, bucket: &str, expected: &str) -> Result<(), S3Error> {
    if expected.len() != 12 || !expected.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ErrorCode::InvalidBucketOwnerAWSAccountID.into());
    }
    let found = app.store.bucket(bucket).await.map_err(failure::of)?;
    if found.owner == expected { Ok(()) } else { Err(ErrorCode::AccessDenied.into()) }
}
