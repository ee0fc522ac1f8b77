//! What each operation does: a thin layer between headers and XML on one side and the object API on the other.

mod access;
mod attributes;
mod bucket;
mod copy;
pub(crate) mod cors;
mod list;
mod lock;
mod multipart;
mod notification;
mod object;
mod owner;
mod prefix;
mod simple;
mod tagging;

use axum::response::Response;
use bytes::Bytes;
use predastore::catalog::Setting;
use predastore::ids::VersionId;

use crate::app::{App, Request};
use crate::body::Upload;
use crate::error::{ErrorCode, S3Error};
use crate::route::Operation;
use crate::{failure, metadata};

/// The largest XML body of a request, but for those with lists of keys or parts ([`crate::xml::BODY_MAX_BYTES`]).
const XML_MAX_BYTES: usize = 64 << 10;

/// Carries out an authorized operation.
pub(crate) async fn carry_out(
    app: &App,
    operation: Operation,
    request: &Request,
    body: &mut Upload,
) -> Result<Response, S3Error> {
    use Operation as O;
    owner::check(app, operation, request).await?;
    metadata::refuse_unkept(&request.head.headers)?;
    match operation {
        O::ListBuckets => bucket::list(app, request).await,
        O::CreateBucket => bucket::create(app, request, body).await,
        O::DeleteBucket => bucket::delete(app, request).await,
        O::HeadBucket => bucket::head(app, request).await,
        O::GetBucketLocation => bucket::location(app, request).await,
        O::GetBucketVersioning => bucket::versioning(app, request).await,
        O::PutBucketVersioning => bucket::set_versioning(app, request, body).await,
        O::GetBucketAcl => bucket::acl(app, request).await,
        O::PutBucketAcl => bucket::set_acl(app, request, body).await,

        O::ListObjects => list::objects(app, request).await,
        O::ListObjectsV2 => list::objects_v2(app, request).await,
        O::ListObjectVersions => list::versions(app, request).await,
        O::ListMultipartUploads => list::uploads(app, request).await,

        O::GetObject => object::get(app, request).await,
        O::HeadObject => object::head(app, request).await,
        O::PutObject => object::put(app, request, body).await,
        O::DeleteObject => object::delete(app, request).await,
        O::DeleteObjects => object::delete_many(app, request, body).await,
        O::GetObjectAttributes => attributes::get(app, request).await,
        O::GetObjectAcl => object::acl(app, request).await,
        O::PutObjectAcl => object::set_acl(app, request, body).await,
        O::CopyObject => copy::object(app, request).await,

        O::CreateMultipartUpload => multipart::create(app, request).await,
        O::UploadPart => multipart::put_part(app, request, body).await,
        O::UploadPartCopy => copy::part(app, request).await,
        O::ListParts => multipart::list_parts(app, request).await,
        O::CompleteMultipartUpload => multipart::complete(app, request, body).await,
        O::AbortMultipartUpload => multipart::abort(app, request).await,

        O::GetObjectTagging => tagging::of_object(app, request).await,
        O::PutObjectTagging => tagging::set_of_object(app, request, body).await,
        O::DeleteObjectTagging => tagging::remove_of_object(app, request).await,
        O::GetBucketTagging => tagging::of_bucket(app, request).await,
        O::PutBucketTagging => tagging::set_of_bucket(app, request, body).await,
        O::DeleteBucketTagging => tagging::remove_of_bucket(app, request).await,

        O::GetObjectLockConfiguration => lock::configuration(app, request).await,
        O::PutObjectLockConfiguration => lock::set_configuration(app, request, body).await,
        O::GetObjectRetention => lock::retention(app, request).await,
        O::PutObjectRetention => lock::set_retention(app, request, body).await,
        O::GetObjectLegalHold => lock::hold(app, request).await,
        O::PutObjectLegalHold => lock::set_hold(app, request, body).await,

        O::GetBucketRequestPayment => simple::payment(app, request).await,
        O::PutBucketRequestPayment => simple::set_payment(app, request, body).await,
        O::GetBucketAccelerateConfiguration => simple::accelerate(app, request).await,
        O::PutBucketAccelerateConfiguration => simple::set_accelerate(app, request, body).await,
        O::GetBucketLogging => simple::logging(app, request).await,
        O::ListBucketAnalyticsConfigurations => {
            simple::none(app, request, "ListBucketAnalyticsConfigurationsResult").await
        }
        O::ListBucketIntelligentTieringConfigurations => {
            simple::none(app, request, "ListBucketIntelligentTieringConfigurationsOutput").await
        }
        O::ListBucketInventoryConfigurations => simple::none(app, request, "ListInventoryConfigurationsResult").await,
        O::ListBucketMetricsConfigurations => simple::none(app, request, "ListMetricsConfigurationsResult").await,
        O::GetBucketAnalyticsConfiguration
        | O::GetBucketIntelligentTieringConfiguration
        | O::GetBucketInventoryConfiguration
        | O::GetBucketMetricsConfiguration => simple::no_such(app, request).await,

        O::GetBucketCors => cors::get(app, request).await,
        O::PutBucketCors => cors::set(app, request, body).await,
        O::DeleteBucketCors => cors::remove(app, request).await,
        O::OptionsBucket | O::OptionsObject => cors::preflight(app, request).await,

        O::GetBucketNotificationConfiguration => notification::get(app, request).await,
        O::PutBucketNotificationConfiguration => notification::set(app, request, body).await,

        O::GetBucketPolicy => access::policy(app, request).await,
        O::PutBucketPolicy => access::set_policy(app, request, body).await,
        O::DeleteBucketPolicy => access::remove_policy(app, request).await,
        O::GetBucketPolicyStatus => access::policy_status(app, request).await,
        O::GetPublicAccessBlock => access::block(app, request).await,
        O::PutPublicAccessBlock => access::set_block(app, request, body).await,
        O::DeletePublicAccessBlock => access::remove_block(app, request).await,
        O::GetBucketOwnershipControls => access::ownership(app, request).await,
        O::PutBucketOwnershipControls => access::set_ownership(app, request, body).await,
        O::DeleteBucketOwnershipControls => access::remove_ownership(app, request).await,

        O::GetBucketLifecycleConfiguration => {
            unset(app, request, Setting::Lifecycle, ErrorCode::NoSuchLifecycleConfiguration).await
        }
        O::GetBucketEncryption => {
            unset(app, request, Setting::Encryption, ErrorCode::ServerSideEncryptionConfigurationNotFoundError).await
        }
        O::GetBucketWebsite => unset(app, request, Setting::Website, ErrorCode::NoSuchWebsiteConfiguration).await,
        O::GetBucketReplication => {
            unset(app, request, Setting::Replication, ErrorCode::ReplicationConfigurationNotFoundError).await
        }

        other => Err(S3Error::new(ErrorCode::NotImplemented, format!("{} is not implemented.", other.name()))),
    }
}

/// The answer for a setting that cannot be set yet: the bucket's own error first, then that there is none.
async fn unset(app: &App, request: &Request, setting: Setting, code: ErrorCode) -> Result<Response, S3Error> {
    match kept(app, request, setting).await? {
        None => Err(S3Error::from(code).with("BucketName", request.bucket())),
        Some(_) => Err(ErrorCode::NotImplemented.into()),
    }
}

/// What is kept of a setting of the bucket.
async fn kept(app: &App, request: &Request, setting: Setting) -> Result<Option<Bytes>, S3Error> {
    app.store.setting(request.bucket(), setting).await.map_err(failure::of)
}

/// Keeps something of it, or nothing any more.
async fn keep(app: &App, request: &Request, setting: Setting, value: Option<Bytes>) -> Result<(), S3Error> {
    app.store.set_setting(request.bucket(), setting, value).await.map_err(failure::of)
}

/// The whole body of a request that may still be carried out once it is there.
async fn collect(app: &App, request: &Request, body: &mut Upload, max_bytes: usize) -> Result<Bytes, S3Error> {
    let collected = body.collect(&request.head.headers, max_bytes).await?;
    app.confirm(request).await?;
    Ok(collected)
}

/// `versionId` of the query.
fn version_of(request: &Request) -> Result<Option<VersionId>, S3Error> {
    request.query.get("versionId").map(parse_version).transpose()
}

fn parse_version(text: &str) -> Result<VersionId, S3Error> {
    text.parse().map_err(|_| S3Error::invalid_argument("Invalid version id specified", "versionId", text))
}

fn target_of(request: &Request) -> Result<predastore::object::Target, S3Error> {
    Ok(predastore::object::Target {
        bucket: request.bucket().to_owned(),
        key: request.key().as_bytes().to_vec(),
        version: version_of(request)?,
    })
}
