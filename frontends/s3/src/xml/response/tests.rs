use super::*;
use crate::error::ErrorCode;
use crate::query::Query;
use crate::xml::{NAMESPACE, request};

fn owner() -> Owner {
    Owner { id: "me".into(), display_name: "Me".into() }
}

fn object(key: &str) -> Object {
    Object {
        key: key.into(),
        modified_ms: 1500,
        etag: "e".into(),
        size_bytes: 5,
        storage_class: "STANDARD".into(),
        owner: None,
        checksum: None,
    }
}

fn page<T>(entries: Vec<T>, next: Option<Next>) -> Page<T> {
    Page { entries, common_prefixes: vec!["p/".into()], next }
}

fn query(raw: &str) -> Query {
    Query::parse(raw).unwrap()
}

fn assert_body(written: &str, root: &str, content: &str) {
    let declaration = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
    assert_eq!(written, format!("{declaration}<{root} xmlns=\"{NAMESPACE}\">{content}</{root}>"));
}

const CONTENTS: &str = "<LastModified>1970-01-01T00:00:01.500Z</LastModified><ETag>&quot;e&quot;</ETag><Size>5</Size><StorageClass>STANDARD</StorageClass>";

#[test]
fn listing_v1() {
    let list = ListObjects::parse(&query("delimiter=/&marker=a%26&encoding-type=url")).unwrap();
    let next = Next { after: "p/".into(), id: None };
    assert_body(
        &list_objects("bucket", &list, &page(vec![object("a b")], Some(next))),
        "ListBucketResult",
        &format!(
            "<Name>bucket</Name><Prefix></Prefix><Delimiter>/</Delimiter><EncodingType>url</EncodingType><Marker>a%26</Marker><NextMarker>p/</NextMarker><MaxKeys>1000</MaxKeys><IsTruncated>true</IsTruncated><Contents><Key>a%20b</Key>{CONTENTS}</Contents><CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes>"
        ),
    );
}

#[test]
fn listing_v2_tokens_resume() {
    let list = ListObjectsV2::parse(&query("start-after=s&max-keys=2")).unwrap();
    let mut first = object("k");
    first.owner = Some(owner());
    first.checksum = Some((ChecksumAlgorithm::Crc32, ChecksumType::FullObject));
    let written = list_objects_v2("bucket", &list, &page(vec![first], Some(Next { after: "p/".into(), id: None })));
    assert_body(
        &written,
        "ListBucketResult",
        "<Name>bucket</Name><Prefix></Prefix><MaxKeys>2</MaxKeys><KeyCount>2</KeyCount><StartAfter>s</StartAfter><NextContinuationToken>cC8</NextContinuationToken><IsTruncated>true</IsTruncated><Contents><Key>k</Key><LastModified>1970-01-01T00:00:01.500Z</LastModified><ETag>&quot;e&quot;</ETag><ChecksumAlgorithm>CRC32</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType><Size>5</Size><Owner><ID>me</ID><DisplayName>Me</DisplayName></Owner><StorageClass>STANDARD</StorageClass></Contents><CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes>",
    );
    let resumed = ListObjectsV2::parse(&query("continuation-token=cC8")).unwrap();
    assert_eq!(resumed.continuation.unwrap().after, "p/");
}

#[test]
fn listing_versions() {
    let list = ListVersions::parse(&query("versions")).unwrap();
    let version = Version { object: object("k"), version_id: "v2".into(), is_latest: false, is_delete_marker: false };
    let marker = Version { version_id: "v3".into(), is_latest: true, is_delete_marker: true, ..version.clone() };
    let next = Next { after: "k".into(), id: Some("v2".into()) };
    assert_body(
        &list_versions("bucket", &list, &page(vec![marker, version], Some(next))),
        "ListVersionsResult",
        &format!(
            "<Name>bucket</Name><Prefix></Prefix><KeyMarker></KeyMarker><VersionIdMarker></VersionIdMarker><NextKeyMarker>k</NextKeyMarker><NextVersionIdMarker>v2</NextVersionIdMarker><MaxKeys>1000</MaxKeys><IsTruncated>true</IsTruncated><DeleteMarker><VersionId>v3</VersionId><IsLatest>true</IsLatest><Key>k</Key><LastModified>1970-01-01T00:00:01.500Z</LastModified></DeleteMarker><Version><VersionId>v2</VersionId><IsLatest>false</IsLatest><Key>k</Key>{CONTENTS}</Version><CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes>"
        ),
    );
}

fn upload() -> Upload {
    Upload {
        key: "k".into(),
        upload_id: "u".into(),
        initiated_ms: 0,
        owner: owner(),
        storage_class: "STANDARD".into(),
        checksum: None,
    }
}

const UPLOAD_OWNERS: &str = "<Initiator><ID>me</ID><DisplayName>Me</DisplayName></Initiator><Owner><ID>me</ID><DisplayName>Me</DisplayName></Owner><StorageClass>STANDARD</StorageClass>";

#[test]
fn listing_uploads_and_parts() {
    let list = ListUploads::parse(&query("uploads&key-marker=j")).unwrap();
    assert_body(
        &list_uploads("bucket", &list, &page(vec![upload()], None)),
        "ListMultipartUploadsResult",
        &format!(
            "<Bucket>bucket</Bucket><Prefix></Prefix><KeyMarker>j</KeyMarker><UploadIdMarker></UploadIdMarker><MaxUploads>1000</MaxUploads><IsTruncated>false</IsTruncated><Upload><Key>k</Key><UploadId>u</UploadId>{UPLOAD_OWNERS}<Initiated>1970-01-01T00:00:00.000Z</Initiated></Upload><CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes>"
        ),
    );
    let list = ListParts::parse(&query("max-parts=1")).unwrap();
    let checksum = ShownChecksum { algorithm: ChecksumAlgorithm::Crc32, text: "AAAAAA==".into(), kind: None };
    let part = Part { part_number: 1, modified_ms: 0, etag: "e".into(), size_bytes: 7, checksum: Some(checksum) };
    assert_body(
        &list_parts("bucket", &upload(), &list, &[part], Some(1)),
        "ListPartsResult",
        &format!(
            "<Bucket>bucket</Bucket><Key>k</Key><UploadId>u</UploadId>{UPLOAD_OWNERS}<PartNumberMarker>0</PartNumberMarker><NextPartNumberMarker>1</NextPartNumberMarker><MaxParts>1</MaxParts><IsTruncated>true</IsTruncated><Part><PartNumber>1</PartNumber><LastModified>1970-01-01T00:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag><Size>7</Size><ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part>"
        ),
    );
}

#[test]
fn multipart_and_copy_results() {
    let composite = ShownChecksum {
        algorithm: ChecksumAlgorithm::Sha256,
        text: "abc=-2".into(),
        kind: Some(ChecksumType::Composite),
    };
    assert_body(
        &complete_multipart_upload("https://h/bucket/k", "bucket", "k&", "e-2", Some(&composite)),
        "CompleteMultipartUploadResult",
        "<Location>https://h/bucket/k</Location><Bucket>bucket</Bucket><Key>k&amp;</Key><ETag>&quot;e-2&quot;</ETag><ChecksumSHA256>abc=-2</ChecksumSHA256><ChecksumType>COMPOSITE</ChecksumType>",
    );
    let initiated = "<Bucket>b</Bucket><Key>k</Key><UploadId>u</UploadId>";
    assert_body(&initiate_multipart_upload("b", "k", "u"), "InitiateMultipartUploadResult", initiated);
    let copied = "<LastModified>1970-01-01T00:00:00.001Z</LastModified><ETag>&quot;e&quot;</ETag>";
    assert_body(&copy_object("e", 1, None), "CopyObjectResult", copied);
    assert_body(&copy_part("e", 1, None), "CopyPartResult", copied);
}

#[test]
fn deletes_tell_all_or_only_refusals() {
    let done = Deleted::Done { key: "a".into(), version_id: None, delete_marker_version_id: Some("m".into()) };
    let refused =
        Deleted::Refused { key: "b".into(), version_id: Some("v".into()), error: ErrorCode::AccessDenied.into() };
    let refusal =
        "<Error><Key>b</Key><VersionId>v</VersionId><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
    let results = [done, refused];
    assert_body(&delete_objects(&results, true), "DeleteResult", refusal);
    let all = format!(
        "<Deleted><Key>a</Key><DeleteMarker>true</DeleteMarker><DeleteMarkerVersionId>m</DeleteMarkerVersionId></Deleted>{refusal}"
    );
    assert_body(&delete_objects(&results, false), "DeleteResult", &all);
}

#[test]
fn bucket_settings() {
    assert_body(&location("us-east-1"), "LocationConstraint", "");
    assert_body(&location("eu-west-1"), "LocationConstraint", "eu-west-1");
    assert_body(&versioning(None), "VersioningConfiguration", "");
    let buckets = [Bucket { name: "b".into(), created_ms: 0, region: None }];
    assert_body(
        &list_buckets(&owner(), &buckets, "", Some("t")),
        "ListAllMyBucketsResult",
        "<Owner><ID>me</ID><DisplayName>Me</DisplayName></Owner><Buckets><Bucket><Name>b</Name><CreationDate>1970-01-01T00:00:00.000Z</CreationDate></Bucket></Buckets><ContinuationToken>t</ContinuationToken>",
    );
}

#[test]
fn what_is_answered_can_be_sent_back() {
    let acl = request::access_control_policy(owner_only_acl(&owner()).as_bytes()).unwrap();
    assert!(acl.is_owner_only("me"));
    let tags = vec![Tag { key: "k".into(), value: "a b".into() }];
    assert_eq!(request::tagging(tagging(&tags).as_bytes(), request::Tagged::Object).unwrap(), tags);
    let written = versioning(Some(VersioningStatus::Suspended));
    assert_eq!(request::versioning_configuration(written.as_bytes()).unwrap(), VersioningStatus::Suspended);
}

#[test]
fn attributes_are_those_asked_for() {
    assert_body(&object_attributes(&Attributes::default()), "GetObjectAttributesResponse", "");
    let list = ListParts::parse(&query("")).unwrap();
    let parts = AttributeParts { total_count: 3, list, next: None, parts: vec![] };
    let attributes = Attributes {
        etag: Some("e-3".into()),
        parts: Some(parts),
        storage_class: Some("STANDARD".into()),
        size_bytes: Some(9),
        ..Default::default()
    };
    assert_body(
        &object_attributes(&attributes),
        "GetObjectAttributesResponse",
        "<ETag>e-3</ETag><ObjectParts><PartsCount>3</PartsCount><PartNumberMarker>0</PartNumberMarker><NextPartNumberMarker>0</NextPartNumberMarker><MaxParts>1000</MaxParts><IsTruncated>false</IsTruncated></ObjectParts><StorageClass>STANDARD</StorageClass><ObjectSize>9</ObjectSize>",
    );
}

#[test]
fn errors_have_no_namespace() {
    let refused = S3Error::from(ErrorCode::NoSuchKey).with("Key", "a<b");
    let body = "<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message><Key>a&lt;b</Key><Resource>/bucket/a%3Cb</Resource><RequestId>4442587FB7D0A2F9</RequestId><HostId>4442587FB7D0A2F9</HostId></Error>";
    let written = error(&refused, "/bucket/a%3Cb", "4442587FB7D0A2F9");
    assert_eq!(written, format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}"));
}
