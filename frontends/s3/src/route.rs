//! Which operation a request asks for, and under which IAM action it is authorized: one table.
//!
//! A *sub-resource* is a query parameter that names an operation (`?acl`, `?uploads`); the table's third column has them
//! all. A request's operation is the row whose sub-resources are exactly those the request has, so a known sub-resource
//! that a method does not take is 405 and never a plain GET, PUT or DELETE. Every other query parameter is either an
//! argument of the operation (`versionId`, `prefix`, `response-content-type`, `X-Amz-…`) or, as on S3, ignored (`x-id`, anything
//! unknown); S3 cannot refuse those, since presigned URLs carry the client's own.
//!
//! ListDirectoryBuckets and ListBuckets are one request to different hosts, so only the latter is here.

use http::{HeaderMap, Method};

use crate::error::{ErrorCode, S3Error};
use crate::names::Target;
use crate::query::Query;

/// What a request addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// No bucket.
    Service,
    /// A bucket without a key.
    Bucket,
    /// A bucket and a key.
    Object,
}

impl From<&Target> for Level {
    fn from(target: &Target) -> Self {
        match (&target.bucket, &target.key) {
            (None, _) => Level::Service,
            (Some(_), None) => Level::Bucket,
            (Some(_), Some(_)) => Level::Object,
        }
    }
}

/// What a row asks for beyond its sub-resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    Header(&'static str),
    Parameter(&'static str),
}
use Needs::{Header, Nothing, Parameter};

struct Row {
    operation: Operation,
    method: &'static str,
    level: Level,
    subresources: &'static [&'static str],
    needs: Needs,
}

macro_rules! operations {
    ($($operation:ident $method:ident $level:ident [$($subresource:literal)*] $needs:expr, $action:literal $($version_action:literal)?;)*) => {
        /// Every operation of the S3 API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Operation { $($operation),* }

        impl Operation {
            /// Every operation, in the order of the table.
            pub const ALL: &[Operation] = &[$(Operation::$operation),*];

            /// The name in the API reference; also the label of metrics.
            pub fn name(self) -> &'static str {
                match self { $(Operation::$operation => stringify!($operation)),* }
            }

            /// The IAM action that allows it, and the one that allows it on a named version where that differs.
            fn actions(self) -> (&'static str, Option<&'static str>) {
                match self { $(Operation::$operation => ($action, [$($version_action)?].first().copied())),* }
            }
        }

        const TABLE: &[Row] = &[$(Row {
            operation: Operation::$operation,
            method: stringify!($method),
            level: Level::$level,
            subresources: &[$($subresource),*],
            needs: $needs,
        }),*];
    };
}

// Rows with needs stand before the same row without.
operations! {
    ListBuckets GET Service [] Nothing, "s3:ListAllMyBuckets";

    CreateSession GET Bucket ["session"] Nothing, "s3express:CreateSession";
    GetBucketAbac GET Bucket ["abac"] Nothing, "s3:GetBucketAbac";
    GetBucketAccelerateConfiguration GET Bucket ["accelerate"] Nothing, "s3:GetAccelerateConfiguration";
    GetBucketAcl GET Bucket ["acl"] Nothing, "s3:GetBucketAcl";
    GetBucketAnalyticsConfiguration GET Bucket ["analytics"] Parameter("id"), "s3:GetAnalyticsConfiguration";
    ListBucketAnalyticsConfigurations GET Bucket ["analytics"] Nothing, "s3:GetAnalyticsConfiguration";
    GetBucketCors GET Bucket ["cors"] Nothing, "s3:GetBucketCORS";
    GetBucketEncryption GET Bucket ["encryption"] Nothing, "s3:GetEncryptionConfiguration";
    GetBucketIntelligentTieringConfiguration GET Bucket ["intelligent-tiering"] Parameter("id"), "s3:GetIntelligentTieringConfiguration";
    ListBucketIntelligentTieringConfigurations GET Bucket ["intelligent-tiering"] Nothing, "s3:GetIntelligentTieringConfiguration";
    GetBucketInventoryConfiguration GET Bucket ["inventory"] Parameter("id"), "s3:GetInventoryConfiguration";
    ListBucketInventoryConfigurations GET Bucket ["inventory"] Nothing, "s3:GetInventoryConfiguration";
    GetBucketLifecycleConfiguration GET Bucket ["lifecycle"] Nothing, "s3:GetLifecycleConfiguration";
    GetBucketLocation GET Bucket ["location"] Nothing, "s3:GetBucketLocation";
    GetBucketLogging GET Bucket ["logging"] Nothing, "s3:GetBucketLogging";
    GetBucketMetadataConfiguration GET Bucket ["metadataConfiguration"] Nothing, "s3:GetBucketMetadataTableConfiguration";
    GetBucketMetadataTableConfiguration GET Bucket ["metadataTable"] Nothing, "s3:GetBucketMetadataTableConfiguration";
    GetBucketMetricsConfiguration GET Bucket ["metrics"] Parameter("id"), "s3:GetMetricsConfiguration";
    ListBucketMetricsConfigurations GET Bucket ["metrics"] Nothing, "s3:GetMetricsConfiguration";
    GetBucketNotificationConfiguration GET Bucket ["notification"] Nothing, "s3:GetBucketNotification";
    GetBucketOwnershipControls GET Bucket ["ownershipControls"] Nothing, "s3:GetBucketOwnershipControls";
    GetBucketPolicy GET Bucket ["policy"] Nothing, "s3:GetBucketPolicy";
    GetBucketPolicyStatus GET Bucket ["policyStatus"] Nothing, "s3:GetBucketPolicyStatus";
    GetBucketReplication GET Bucket ["replication"] Nothing, "s3:GetReplicationConfiguration";
    GetBucketRequestPayment GET Bucket ["requestPayment"] Nothing, "s3:GetBucketRequestPayment";
    GetBucketTagging GET Bucket ["tagging"] Nothing, "s3:GetBucketTagging";
    GetBucketVersioning GET Bucket ["versioning"] Nothing, "s3:GetBucketVersioning";
    GetBucketWebsite GET Bucket ["website"] Nothing, "s3:GetBucketWebsite";
    GetObjectLockConfiguration GET Bucket ["object-lock"] Nothing, "s3:GetBucketObjectLockConfiguration";
    GetPublicAccessBlock GET Bucket ["publicAccessBlock"] Nothing, "s3:GetBucketPublicAccessBlock";
    ListMultipartUploads GET Bucket ["uploads"] Nothing, "s3:ListBucketMultipartUploads";
    ListObjectVersions GET Bucket ["versions"] Nothing, "s3:ListBucketVersions";
    ListObjectsV2 GET Bucket ["list-type"] Nothing, "s3:ListBucket";
    ListObjects GET Bucket [] Nothing, "s3:ListBucket";
    HeadBucket HEAD Bucket [] Nothing, "s3:ListBucket";

    PutBucketAbac PUT Bucket ["abac"] Nothing, "s3:PutBucketAbac";
    PutBucketAccelerateConfiguration PUT Bucket ["accelerate"] Nothing, "s3:PutAccelerateConfiguration";
    PutBucketAcl PUT Bucket ["acl"] Nothing, "s3:PutBucketAcl";
    PutBucketAnalyticsConfiguration PUT Bucket ["analytics"] Nothing, "s3:PutAnalyticsConfiguration";
    PutBucketCors PUT Bucket ["cors"] Nothing, "s3:PutBucketCORS";
    PutBucketEncryption PUT Bucket ["encryption"] Nothing, "s3:PutEncryptionConfiguration";
    PutBucketIntelligentTieringConfiguration PUT Bucket ["intelligent-tiering"] Nothing, "s3:PutIntelligentTieringConfiguration";
    PutBucketInventoryConfiguration PUT Bucket ["inventory"] Nothing, "s3:PutInventoryConfiguration";
    PutBucketLifecycleConfiguration PUT Bucket ["lifecycle"] Nothing, "s3:PutLifecycleConfiguration";
    PutBucketLogging PUT Bucket ["logging"] Nothing, "s3:PutBucketLogging";
    PutBucketMetricsConfiguration PUT Bucket ["metrics"] Nothing, "s3:PutMetricsConfiguration";
    PutBucketNotificationConfiguration PUT Bucket ["notification"] Nothing, "s3:PutBucketNotification";
    PutBucketOwnershipControls PUT Bucket ["ownershipControls"] Nothing, "s3:PutBucketOwnershipControls";
    PutBucketPolicy PUT Bucket ["policy"] Nothing, "s3:PutBucketPolicy";
    PutBucketReplication PUT Bucket ["replication"] Nothing, "s3:PutReplicationConfiguration";
    PutBucketRequestPayment PUT Bucket ["requestPayment"] Nothing, "s3:PutBucketRequestPayment";
    PutBucketTagging PUT Bucket ["tagging"] Nothing, "s3:PutBucketTagging";
    PutBucketVersioning PUT Bucket ["versioning"] Nothing, "s3:PutBucketVersioning";
    PutBucketWebsite PUT Bucket ["website"] Nothing, "s3:PutBucketWebsite";
    PutObjectLockConfiguration PUT Bucket ["object-lock"] Nothing, "s3:PutBucketObjectLockConfiguration";
    PutPublicAccessBlock PUT Bucket ["publicAccessBlock"] Nothing, "s3:PutBucketPublicAccessBlock";
    UpdateBucketMetadataInventoryTableConfiguration PUT Bucket ["metadataInventoryTable"] Nothing, "s3:UpdateBucketMetadataInventoryTableConfiguration";
    UpdateBucketMetadataJournalTableConfiguration PUT Bucket ["metadataJournalTable"] Nothing, "s3:UpdateBucketMetadataJournalTableConfiguration";
    CreateBucket PUT Bucket [] Nothing, "s3:CreateBucket";

    CreateBucketMetadataConfiguration POST Bucket ["metadataConfiguration"] Nothing, "s3:CreateBucketMetadataTableConfiguration";
    CreateBucketMetadataTableConfiguration POST Bucket ["metadataTable"] Nothing, "s3:CreateBucketMetadataTableConfiguration";
    DeleteObjects POST Bucket ["delete"] Nothing, "s3:DeleteObject" "s3:DeleteObjectVersion";
    WriteGetObjectResponse POST Bucket [] Header("x-amz-request-route"), "s3-object-lambda:WriteGetObjectResponse";
    PostObject POST Bucket [] Nothing, "s3:PutObject";

    DeleteBucketAnalyticsConfiguration DELETE Bucket ["analytics"] Nothing, "s3:PutAnalyticsConfiguration";
    DeleteBucketCors DELETE Bucket ["cors"] Nothing, "s3:PutBucketCORS";
    DeleteBucketEncryption DELETE Bucket ["encryption"] Nothing, "s3:PutEncryptionConfiguration";
    DeleteBucketIntelligentTieringConfiguration DELETE Bucket ["intelligent-tiering"] Nothing, "s3:PutIntelligentTieringConfiguration";
    DeleteBucketInventoryConfiguration DELETE Bucket ["inventory"] Nothing, "s3:PutInventoryConfiguration";
    DeleteBucketLifecycle DELETE Bucket ["lifecycle"] Nothing, "s3:PutLifecycleConfiguration";
    DeleteBucketMetadataConfiguration DELETE Bucket ["metadataConfiguration"] Nothing, "s3:DeleteBucketMetadataTableConfiguration";
    DeleteBucketMetadataTableConfiguration DELETE Bucket ["metadataTable"] Nothing, "s3:DeleteBucketMetadataTableConfiguration";
    DeleteBucketMetricsConfiguration DELETE Bucket ["metrics"] Nothing, "s3:PutMetricsConfiguration";
    DeleteBucketOwnershipControls DELETE Bucket ["ownershipControls"] Nothing, "s3:PutBucketOwnershipControls";
    DeleteBucketPolicy DELETE Bucket ["policy"] Nothing, "s3:DeleteBucketPolicy";
    DeleteBucketReplication DELETE Bucket ["replication"] Nothing, "s3:PutReplicationConfiguration";
    DeleteBucketTagging DELETE Bucket ["tagging"] Nothing, "s3:PutBucketTagging";
    DeleteBucketWebsite DELETE Bucket ["website"] Nothing, "s3:DeleteBucketWebsite";
    DeletePublicAccessBlock DELETE Bucket ["publicAccessBlock"] Nothing, "s3:PutBucketPublicAccessBlock";
    DeleteBucket DELETE Bucket [] Nothing, "s3:DeleteBucket";
    OptionsBucket OPTIONS Bucket [] Nothing, "";

    GetObjectAcl GET Object ["acl"] Nothing, "s3:GetObjectAcl" "s3:GetObjectVersionAcl";
    GetObjectAttributes GET Object ["attributes"] Nothing, "s3:GetObjectAttributes" "s3:GetObjectVersionAttributes";
    GetObjectLegalHold GET Object ["legal-hold"] Nothing, "s3:GetObjectLegalHold";
    GetObjectRetention GET Object ["retention"] Nothing, "s3:GetObjectRetention";
    GetObjectTagging GET Object ["tagging"] Nothing, "s3:GetObjectTagging" "s3:GetObjectVersionTagging";
    GetObjectTorrent GET Object ["torrent"] Nothing, "s3:GetObjectTorrent" "s3:GetObjectVersionTorrent";
    ListParts GET Object ["uploadId"] Nothing, "s3:ListMultipartUploadParts";
    GetObject GET Object [] Nothing, "s3:GetObject" "s3:GetObjectVersion";
    HeadObject HEAD Object [] Nothing, "s3:GetObject" "s3:GetObjectVersion";
    OptionsObject OPTIONS Object [] Nothing, "";

    PutObjectAcl PUT Object ["acl"] Nothing, "s3:PutObjectAcl" "s3:PutObjectVersionAcl";
    PutObjectLegalHold PUT Object ["legal-hold"] Nothing, "s3:PutObjectLegalHold";
    PutObjectRetention PUT Object ["retention"] Nothing, "s3:PutObjectRetention";
    PutObjectTagging PUT Object ["tagging"] Nothing, "s3:PutObjectTagging" "s3:PutObjectVersionTagging";
    RenameObject PUT Object ["renameObject"] Nothing, "s3:PutObject";
    UpdateObjectEncryption PUT Object ["encryption"] Nothing, "s3:UpdateObjectEncryption";
    UploadPartCopy PUT Object ["partNumber" "uploadId"] Header("x-amz-copy-source"), "s3:PutObject";
    UploadPart PUT Object ["partNumber" "uploadId"] Nothing, "s3:PutObject";
    CopyObject PUT Object [] Header("x-amz-copy-source"), "s3:PutObject";
    PutObject PUT Object [] Nothing, "s3:PutObject";

    CompleteMultipartUpload POST Object ["uploadId"] Nothing, "s3:PutObject";
    CreateMultipartUpload POST Object ["uploads"] Nothing, "s3:PutObject";
    RestoreObject POST Object ["restore"] Nothing, "s3:RestoreObject";
    SelectObjectContent POST Object ["select"] Nothing, "s3:GetObject" "s3:GetObjectVersion";

    AbortMultipartUpload DELETE Object ["uploadId"] Nothing, "s3:AbortMultipartUpload";
    DeleteObjectTagging DELETE Object ["tagging"] Nothing, "s3:DeleteObjectTagging" "s3:DeleteObjectVersionTagging";
    DeleteObject DELETE Object [] Nothing, "s3:DeleteObject" "s3:DeleteObjectVersion";
}

impl Operation {
    /// The operation a request asks for.
    ///
    /// # Errors
    /// `MethodNotAllowed`: no operation has this method here, or takes this sub-resource. `InvalidArgument`: sub-resources
    /// that exclude each other, a `list-type` other than 2, a part number without its upload, a version for a write.
    pub fn of(method: &Method, level: Level, query: &Query, headers: &HeaderMap) -> Result<Operation, S3Error> {
        let named = subresources_of(query, method, level);
        let row = TABLE.iter().find(|row| row.takes(method, level, &named) && row.needs.are_met(query, headers));
        match row {
            Some(row) => row.check(query),
            None => Err(no_operation(method, level, &named)),
        }
    }

    /// Whether it is a CORS preflight, which carries no identity.
    pub fn is_preflight(self) -> bool {
        matches!(self, Operation::OptionsBucket | Operation::OptionsObject)
    }

    /// The IAM action to authorize. `versioned`: the request names a version. Empty for a CORS preflight, which
    /// carries no identity.
    pub fn action(self, versioned: bool) -> &'static str {
        match self.actions() {
            (_, Some(on_version)) if versioned => on_version,
            (action, _) => action,
        }
    }
}

impl Operation {
    /// Whether what it may do depends on the tags that its object has: to read it, or what is said of it, or to change that.
    pub fn is_about_object(self) -> bool {
        use Operation as O;
        matches!(
            self,
            O::GetObject
                | O::HeadObject
                | O::GetObjectAttributes
                | O::GetObjectAcl
                | O::PutObjectAcl
                | O::GetObjectTagging
                | O::PutObjectTagging
                | O::DeleteObjectTagging
        )
    }

    /// Whether it is a write that may depend on the tag of what there is.
    pub fn is_conditional(self) -> bool {
        use Operation as O;
        matches!(self, O::PutObject | O::CopyObject | O::CompleteMultipartUpload | O::DeleteObject)
    }

    /// Whether it makes an object, or begins to.
    pub fn writes_object(self) -> bool {
        matches!(self, Operation::PutObject | Operation::CopyObject | Operation::CreateMultipartUpload)
    }
}

const VERSIONLESS: [Operation; 6] = [
    Operation::PutObject,
    Operation::CopyObject,
    Operation::CreateMultipartUpload,
    Operation::UploadPart,
    Operation::UploadPartCopy,
    Operation::CompleteMultipartUpload,
];

impl Row {
    fn takes(&self, method: &Method, level: Level, named: &[&str]) -> bool {
        self.method == method.as_str() && self.level == level && self.subresources == named
    }

    fn check(&self, query: &Query) -> Result<Operation, S3Error> {
        match query.get("list-type") {
            Some(other) if self.operation == Operation::ListObjectsV2 && other != "2" => {
                return Err(S3Error::invalid_argument("Invalid List Type specified in Request", "list-type", other));
            }
            _ => {}
        }
        // A write makes a version of its own; that it replaces the one named would be a misunderstanding.
        match query.get("versionId") {
            Some(id) if VERSIONLESS.contains(&self.operation) => {
                Err(S3Error::invalid_argument("This operation does not accept a version-id.", "versionId", id))
            }
            _ => Ok(self.operation),
        }
    }
}

impl Needs {
    fn are_met(self, query: &Query, headers: &HeaderMap) -> bool {
        match self {
            Nothing => true,
            Header(name) => headers.contains_key(name),
            Parameter(name) => query.has(name),
        }
    }
}

/// The table's sub-resources that the query has, sorted, each once. Reading one part of an object is a plain GET or
/// HEAD, so there `partNumber` is an argument; `list-type` means nothing outside a GET of a bucket. A preflight names the
/// request that is to come, whatever that is.
fn subresources_of(query: &Query, method: &Method, level: Level) -> Vec<&'static str> {
    let reading = method == Method::GET || method == Method::HEAD;
    let is_argument = |name: &str| match name {
        _ if method == Method::OPTIONS => true,
        "partNumber" => reading && level == Level::Object,
        "list-type" => level != Level::Bucket || method != Method::GET || query.has("versions") || query.has("uploads"),
        _ => false,
    };
    let mut named: Vec<_> =
        query.pairs().filter_map(|(name, _)| known(name)).filter(|name| !is_argument(name)).collect();
    named.sort_unstable();
    named.dedup();
    named
}

fn known(name: &str) -> Option<&'static str> {
    TABLE.iter().flat_map(|row| row.subresources).find(|known| **known == name).copied()
}

fn no_operation(method: &Method, level: Level, named: &[&str]) -> S3Error {
    match named {
        [] | [_] if named != ["partNumber"] => not_allowed(method, level, named),
        ["partNumber"] => {
            S3Error::invalid_argument("This operation does not accept a partNumber without upload id", "partNumber", "")
        }
        _ => {
            let all = named.join(", ");
            S3Error::invalid_argument(format!("Conflicting query string parameters: {all}"), "ResourceType", all)
        }
    }
}

/// 405, with the methods that this resource has.
fn not_allowed(method: &Method, level: Level, named: &[&str]) -> S3Error {
    let mut allowed: Vec<_> =
        TABLE.iter().filter(|row| row.level == level && row.subresources == named).map(|row| row.method).collect();
    allowed.sort_unstable();
    allowed.dedup();
    let resource = match (named, level) {
        ([name, ..], _) => name.to_ascii_uppercase(),
        ([], Level::Service) => "SERVICE".to_owned(),
        ([], Level::Bucket) => "BUCKET".to_owned(),
        ([], Level::Object) => "OBJECT".to_owned(),
    };
    S3Error::from(ErrorCode::MethodNotAllowed)
        .with("Method", method.as_str())
        .with("ResourceType", resource)
        .with_header("allow", allowed.join(", "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn route(method: &str, level: Level, raw_query: &str, header: &[&'static str]) -> Result<Operation, ErrorCode> {
        let headers = header
            .iter()
            .map(|name| (http::HeaderName::from_static(name), http::HeaderValue::from_static("x")))
            .collect();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        Operation::of(&method, level, &Query::parse(raw_query).unwrap(), &headers).map_err(|error| error.code)
    }

    fn query_of(row: &Row) -> String {
        let mut names: Vec<_> = row.subresources.to_vec();
        if let Parameter(name) = row.needs {
            names.push(name);
        }
        names.join("&").replace("list-type", "list-type=2")
    }

    #[test]
    fn every_operation_is_reachable_by_its_own_row() {
        let mut reached = BTreeSet::new();
        for row in TABLE {
            let header = if let Header(name) = row.needs { vec![name] } else { vec![] };
            assert_eq!(
                route(row.method, row.level, &query_of(row), &header),
                Ok(row.operation),
                "{}",
                row.operation.name()
            );
            reached.insert(row.operation);
        }
        assert_eq!(reached.len(), Operation::ALL.len());
    }

    #[test]
    fn sub_resources_of_rows_are_sorted_as_the_look_up_expects() {
        for row in TABLE {
            assert!(row.subresources.is_sorted(), "{}", row.operation.name());
        }
    }

    #[test]
    fn a_known_sub_resource_never_falls_through_to_a_plain_operation() {
        let plain: BTreeSet<_> =
            TABLE.iter().filter(|row| row.subresources.is_empty()).map(|row| row.operation).collect();
        let names: BTreeSet<_> = TABLE.iter().flat_map(|row| row.subresources).collect();
        for method in ["GET", "HEAD", "PUT", "POST", "DELETE"] {
            for level in [Level::Service, Level::Bucket, Level::Object] {
                for name in &names {
                    let reads_a_part =
                        **name == "partNumber" && level == Level::Object && ["GET", "HEAD"].contains(&method);
                    if reads_a_part || **name == "list-type" {
                        continue;
                    }
                    let routed = route(method, level, name, &["x-amz-copy-source"]);
                    assert!(
                        !routed.is_ok_and(|operation| plain.contains(&operation)),
                        "{method} {level:?} ?{name}: {routed:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn unknown_parameters_and_arguments_are_ignored() {
        assert_eq!(route("PUT", Level::Object, "x-id=PutObject&whatever", &[]), Ok(Operation::PutObject));
        assert_eq!(
            route("GET", Level::Object, "versionId=3&partNumber=2&response-expires=x", &[]),
            Ok(Operation::GetObject)
        );
        assert_eq!(route("HEAD", Level::Object, "partNumber=2", &[]), Ok(Operation::HeadObject));
        assert_eq!(route("GET", Level::Bucket, "versions&list-type=2", &[]), Ok(Operation::ListObjectVersions));
        assert_eq!(route("GET", Level::Bucket, "id=4", &[]), Ok(Operation::ListObjects));
        assert_eq!(route("OPTIONS", Level::Object, "uploadId=u&partNumber=1", &[]), Ok(Operation::OptionsObject));
    }

    #[test]
    fn headers_and_parameters_decide_where_the_table_says_so() {
        assert_eq!(route("PUT", Level::Object, "uploadId=u&partNumber=1", &[]), Ok(Operation::UploadPart));
        let copy = &["x-amz-copy-source"][..];
        assert_eq!(route("PUT", Level::Object, "partNumber=1&uploadId=u", copy), Ok(Operation::UploadPartCopy));
        assert_eq!(route("PUT", Level::Object, "", copy), Ok(Operation::CopyObject));
        assert_eq!(route("GET", Level::Bucket, "analytics&id=a", &[]), Ok(Operation::GetBucketAnalyticsConfiguration));
    }

    #[test]
    fn what_no_row_takes_is_refused() {
        use ErrorCode::{InvalidArgument, MethodNotAllowed};
        assert_eq!(route("PUT", Level::Object, "uploadId=u", &[]), Err(MethodNotAllowed));
        assert_eq!(route("PUT", Level::Object, "partNumber=1", &[]), Err(InvalidArgument));
        assert_eq!(route("PUT", Level::Object, "uploads", &[]), Err(MethodNotAllowed));
        assert_eq!(route("PUT", Level::Object, "acl&tagging", &[]), Err(InvalidArgument));
        assert_eq!(route("GET", Level::Bucket, "list-type=3", &[]), Err(InvalidArgument));
        for query in ["versionId=null", "partNumber=1&uploadId=u&versionId=3"] {
            for headers in [&[][..], &["x-amz-copy-source"]] {
                assert_eq!(route("PUT", Level::Object, query, headers), Err(InvalidArgument), "{query}");
            }
        }
        assert_eq!(route("POST", Level::Object, "uploads&versionId=3", &[]), Err(InvalidArgument));
        assert_eq!(route("PATCH", Level::Object, "", &[]), Err(MethodNotAllowed));
        assert_eq!(route("POST", Level::Object, "", &[]), Err(MethodNotAllowed));
        assert_eq!(route("DELETE", Level::Service, "", &[]), Err(MethodNotAllowed));
    }

    #[test]
    fn a_405_says_what_is_allowed() {
        let refused = |method: &Method, level, query| {
            Operation::of(method, level, &Query::parse(query).unwrap(), &HeaderMap::new()).unwrap_err()
        };
        for (level, query, resource, allowed) in [
            (Level::Service, "", "SERVICE", "GET"),
            (Level::Object, "", "OBJECT", "DELETE, GET, HEAD, OPTIONS, PUT"),
            (Level::Object, "uploads", "UPLOADS", "POST"),
        ] {
            let error = refused(&Method::PATCH, level, query);
            assert_eq!(error.headers, [("allow", allowed.to_owned())]);
            assert_eq!(error.fields, [("Method", "PATCH".to_owned()), ("ResourceType", resource.to_owned())]);
        }
    }

    #[test]
    fn every_action_is_documented() {
        let document = include_str!("../../../docs/AUTHORIZATION.md");
        for operation in Operation::ALL.iter().filter(|operation| !operation.is_preflight()) {
            let (action, on_version) = operation.actions();
            let on_version = on_version.map(|action| format!("`{action}`")).unwrap_or_default();
            let row = format!("| {} | `{action}` | {on_version} |", operation.name());
            assert!(document.lines().any(|line| line == row), "docs/AUTHORIZATION.md lacks {row}");
        }
    }

    #[test]
    fn every_operation_is_documented() {
        let document = include_str!("../../../docs/S3.md");
        for operation in Operation::ALL {
            assert!(document.contains(&format!("| {} |", operation.name())), "docs/S3.md lacks {}", operation.name());
        }
    }

    #[test]
    fn actions() {
        assert_eq!(Operation::GetObject.action(false), "s3:GetObject");
        assert_eq!(Operation::GetObject.action(true), "s3:GetObjectVersion");
        assert_eq!(Operation::PutObject.action(true), "s3:PutObject");
        for operation in Operation::ALL {
            let action = operation.action(false);
            assert!(action.contains(':') || operation.is_preflight(), "{operation:?}");
        }
    }
}
