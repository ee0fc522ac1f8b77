//! Response bodies, as functions of plain values.
//!
//! Times are Unix milliseconds, ETags stand without quotes, sizes are in bytes.

use super::Writer;
use super::request::{Tag, VersioningStatus};
use crate::checksum::{ChecksumAlgorithm, ChecksumType, Kind, Spelling as _};
use crate::error::S3Error;
use crate::listing::{Filter, ListObjects, ListObjectsV2, ListParts, ListUploads, ListVersions, continuation_token};

const XSI: &str = " xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"CanonicalUser\"";

/// An account as S3 names owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Canonical user id.
    pub id: String,
    /// For people.
    pub display_name: String,
}

/// The checksum of an object, upload or part as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownChecksum {
    /// Which one.
    pub algorithm: ChecksumAlgorithm,
    /// Base64, with `-<part count>` where composite.
    pub text: String,
    /// `None` for a part.
    pub kind: Option<ChecksumType>,
}

/// A bucket in ListBuckets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Bucket {
    pub name: String,
    pub created_ms: i64,
    pub region: Option<String>,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Object {
    pub key: String,
    pub modified_ms: i64,
    pub etag: String,
    pub size_bytes: u64,
    pub storage_class: String,
    pub owner: Option<Owner>,
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
}

/// A version or a delete marker in ListObjectVersions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Key, time, owner; the rest of it is ignored for a delete marker.
    pub object: Object,
    /// `null` for the null version.
    pub version_id: String,
    /// Whether it is the one that a GET without a version finds.
    pub is_latest: bool,
    /// Whether it is a delete marker.
    pub is_delete_marker: bool,
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries, in order.
    pub entries: Vec<T>,
    /// The groups, delimiter included, in order.
    pub common_prefixes: Vec<String>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<Next>,
}

/// Where the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// After this key or common prefix.
    pub after: String,
    /// And after this version or upload id of it.
    pub id: Option<String>,
}

/// ListBuckets. `next`: a token, `None` on the last page.
pub fn list_buckets(owner: &Owner, buckets: &[Bucket], prefix: &str, next: Option<&str>) -> String {
    Writer::document("ListAllMyBucketsResult", |xml| {
        write_owner(xml, "Owner", owner);
        xml.element("Buckets", |xml| buckets.iter().for_each(|bucket| write_bucket(xml, bucket)));
        xml.optional("ContinuationToken", next);
        xml.optional("Prefix", (!prefix.is_empty()).then_some(prefix));
    })
}

fn write_bucket(xml: &mut Writer, bucket: &Bucket) {
    xml.element("Bucket", |xml| {
        xml.text("Name", &bucket.name);
        xml.time("CreationDate", bucket.created_ms);
        xml.optional("BucketRegion", bucket.region.as_deref());
    });
}

/// ListObjects. `NextMarker` only with a delimiter, as S3 has it.
pub fn list_objects(bucket: &str, list: &ListObjects, page: &Page<Object>) -> String {
    Writer::document("ListBucketResult", |xml| {
        begin_list(xml, &list.filter, |xml| xml.text("Name", bucket));
        xml.key("Marker", &list.marker);
        if let (Some(next), Some(_)) = (&page.next, &list.filter.delimiter) {
            xml.key("NextMarker", &next.after);
        }
        xml.value("MaxKeys", list.filter.max_count);
        end_list(xml, page, |xml, object| write_object(xml, "Contents", object));
    })
}

/// ListObjectsV2.
pub fn list_objects_v2(bucket: &str, list: &ListObjectsV2, page: &Page<Object>) -> String {
    Writer::document("ListBucketResult", |xml| {
        begin_list(xml, &list.filter, |xml| xml.text("Name", bucket));
        xml.value("MaxKeys", list.filter.max_count);
        xml.value("KeyCount", page.entries.len() + page.common_prefixes.len());
        if let Some(start_after) = &list.start_after {
            xml.key("StartAfter", start_after);
        }
        xml.optional("ContinuationToken", list.continuation.as_ref().map(|continuation| continuation.token.as_str()));
        let next = page.next.as_ref().map(|next| continuation_token(&next.after));
        xml.optional("NextContinuationToken", next.as_deref());
        end_list(xml, page, |xml, object| write_object(xml, "Contents", object));
    })
}

/// ListObjectVersions.
pub fn list_versions(bucket: &str, list: &ListVersions, page: &Page<Version>) -> String {
    Writer::document("ListVersionsResult", |xml| {
        begin_list(xml, &list.filter, |xml| xml.text("Name", bucket));
        xml.key("KeyMarker", list.key_marker.as_deref().unwrap_or_default());
        xml.text("VersionIdMarker", list.version_id_marker.as_deref().unwrap_or_default());
        if let Some(next) = &page.next {
            xml.key("NextKeyMarker", &next.after);
            xml.optional("NextVersionIdMarker", next.id.as_deref());
        }
        xml.value("MaxKeys", list.filter.max_count);
        end_list(xml, page, write_version);
    })
}

/// An upload in ListMultipartUploads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Upload {
    pub key: String,
    pub upload_id: String,
    pub initiated_ms: i64,
    pub owner: Owner,
    pub storage_class: String,
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
}

/// ListMultipartUploads.
pub fn list_uploads(bucket: &str, list: &ListUploads, page: &Page<Upload>) -> String {
    Writer::document("ListMultipartUploadsResult", |xml| {
        begin_list(xml, &list.filter, |xml| xml.text("Bucket", bucket));
        xml.key("KeyMarker", list.key_marker.as_deref().unwrap_or_default());
        xml.text("UploadIdMarker", list.upload_id_marker.as_deref().unwrap_or_default());
        if let Some(next) = &page.next {
            xml.key("NextKeyMarker", &next.after);
            xml.optional("NextUploadIdMarker", next.id.as_deref());
        }
        xml.value("MaxUploads", list.filter.max_count);
        end_list(xml, page, write_upload);
    })
}

fn begin_list(xml: &mut Writer, filter: &Filter, name: impl FnOnce(&mut Writer)) {
    xml.set_url_encoded(filter.url_encoded);
    name(xml);
    xml.key("Prefix", &filter.prefix);
    if let Some(delimiter) = &filter.delimiter {
        xml.key("Delimiter", delimiter);
    }
    xml.optional("EncodingType", filter.url_encoded.then_some("url"));
}

fn end_list<T>(xml: &mut Writer, page: &Page<T>, write: impl Fn(&mut Writer, &T)) {
    xml.value("IsTruncated", page.next.is_some());
    page.entries.iter().for_each(|entry| write(xml, entry));
    for prefix in &page.common_prefixes {
        xml.element("CommonPrefixes", |xml| xml.key("Prefix", prefix));
    }
}

fn write_object(xml: &mut Writer, name: &str, object: &Object) {
    xml.element(name, |xml| write_object_fields(xml, object));
}

fn write_object_fields(xml: &mut Writer, object: &Object) {
    xml.key("Key", &object.key);
    xml.time("LastModified", object.modified_ms);
    xml.etag(&object.etag);
    write_checksum_kind(xml, object.checksum);
    xml.value("Size", object.size_bytes);
    if let Some(owner) = &object.owner {
        write_owner(xml, "Owner", owner);
    }
    xml.text("StorageClass", &object.storage_class);
}

fn write_checksum_kind(xml: &mut Writer, checksum: Option<(ChecksumAlgorithm, ChecksumType)>) {
    if let Some((algorithm, kind)) = checksum {
        xml.text("ChecksumAlgorithm", algorithm.name());
        xml.text("ChecksumType", kind.name());
    }
}

fn write_version(xml: &mut Writer, version: &Version) {
    let write_identity = |xml: &mut Writer| {
        xml.text("VersionId", &version.version_id);
        xml.value("IsLatest", version.is_latest);
    };
    if !version.is_delete_marker {
        return xml.element("Version", |xml| {
            write_identity(xml);
            write_object_fields(xml, &version.object);
        });
    }
    xml.element("DeleteMarker", |xml| {
        write_identity(xml);
        xml.key("Key", &version.object.key);
        xml.time("LastModified", version.object.modified_ms);
        if let Some(owner) = &version.object.owner {
            write_owner(xml, "Owner", owner);
        }
    });
}

fn write_upload(xml: &mut Writer, upload: &Upload) {
    xml.element("Upload", |xml| {
        xml.key("Key", &upload.key);
        xml.text("UploadId", &upload.upload_id);
        write_owner(xml, "Initiator", &upload.owner);
        write_owner(xml, "Owner", &upload.owner);
        xml.text("StorageClass", &upload.storage_class);
        xml.time("Initiated", upload.initiated_ms);
        write_checksum_kind(xml, upload.checksum);
    });
}

fn write_owner(xml: &mut Writer, name: &str, owner: &Owner) {
    xml.element(name, |xml| write_owner_fields(xml, owner));
}

fn write_owner_fields(xml: &mut Writer, owner: &Owner) {
    xml.text("ID", &owner.id);
    xml.text("DisplayName", &owner.display_name);
}

fn write_checksum(xml: &mut Writer, checksum: Option<&ShownChecksum>) {
    if let Some(checksum) = checksum {
        xml.text(checksum.algorithm.element(), &checksum.text);
        xml.optional("ChecksumType", checksum.kind.map(Kind::name));
    }
}

/// A part as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Part {
    pub part_number: u32,
    pub modified_ms: i64,
    pub etag: String,
    pub size_bytes: u64,
    pub checksum: Option<ShownChecksum>,
}

/// ListParts. `upload`: whose parts; `next`: the number of the last part here, `None` on the last page.
pub fn list_parts(bucket: &str, upload: &Upload, list: &ListParts, parts: &[Part], next: Option<u32>) -> String {
    Writer::document("ListPartsResult", |xml| {
        xml.set_url_encoded(list.url_encoded);
        xml.text("Bucket", bucket);
        xml.key("Key", &upload.key);
        xml.text("UploadId", &upload.upload_id);
        write_owner(xml, "Initiator", &upload.owner);
        write_owner(xml, "Owner", &upload.owner);
        xml.text("StorageClass", &upload.storage_class);
        write_checksum_kind(xml, upload.checksum);
        xml.value("PartNumberMarker", list.part_number_marker);
        if let Some(next) = next {
            xml.value("NextPartNumberMarker", next);
        }
        xml.value("MaxParts", list.max_count);
        xml.value("IsTruncated", next.is_some());
        parts.iter().for_each(|part| write_part(xml, part));
    })
}

fn write_part(xml: &mut Writer, part: &Part) {
    xml.element("Part", |xml| {
        xml.value("PartNumber", part.part_number);
        xml.time("LastModified", part.modified_ms);
        xml.etag(&part.etag);
        xml.value("Size", part.size_bytes);
        write_checksum(xml, part.checksum.as_ref());
    });
}

/// CreateMultipartUpload.
pub fn initiate_multipart_upload(bucket: &str, key: &str, upload_id: &str) -> String {
    Writer::document("InitiateMultipartUploadResult", |xml| {
        xml.text("Bucket", bucket);
        xml.text("Key", key);
        xml.text("UploadId", upload_id);
    })
}

/// CompleteMultipartUpload. `location`: the object's URL.
pub fn complete_multipart_upload(
    location: &str,
    bucket: &str,
    key: &str,
    etag: &str,
    checksum: Option<&ShownChecksum>,
) -> String {
    Writer::document("CompleteMultipartUploadResult", |xml| {
        xml.text("Location", location);
        xml.text("Bucket", bucket);
        xml.text("Key", key);
        xml.etag(etag);
        write_checksum(xml, checksum);
    })
}

/// CopyObject.
pub fn copy_object(etag: &str, modified_ms: i64, checksum: Option<&ShownChecksum>) -> String {
    copied("CopyObjectResult", etag, modified_ms, checksum)
}

/// UploadPartCopy.
pub fn copy_part(etag: &str, modified_ms: i64, checksum: Option<&ShownChecksum>) -> String {
    copied("CopyPartResult", etag, modified_ms, checksum)
}

fn copied(root: &str, etag: &str, modified_ms: i64, checksum: Option<&ShownChecksum>) -> String {
    Writer::document(root, |xml| {
        xml.time("LastModified", modified_ms);
        xml.etag(etag);
        write_checksum(xml, checksum);
    })
}

/// What became of one key of a DeleteObjects.
#[derive(Debug)]
pub enum Deleted {
    /// It is gone, or was never there.
    Done {
        /// The key.
        key: String,
        /// The version the request named.
        version_id: Option<String>,
        /// The delete marker made or removed.
        delete_marker_version_id: Option<String>,
    },
    /// It was refused.
    Refused {
        /// The key.
        key: String,
        /// The version the request named.
        version_id: Option<String>,
        /// Why.
        error: S3Error,
    },
}

/// DeleteObjects. `quiet`: only refusals are told.
pub fn delete_objects(results: &[Deleted], quiet: bool) -> String {
    Writer::document("DeleteResult", |xml| results.iter().for_each(|result| write_deleted(xml, result, quiet)))
}

fn write_deleted(xml: &mut Writer, result: &Deleted, quiet: bool) {
    match result {
        Deleted::Done { .. } if quiet => {}
        Deleted::Done { key, version_id, delete_marker_version_id } => xml.element("Deleted", |xml| {
            xml.text("Key", key);
            xml.optional("VersionId", version_id.as_deref());
            if let Some(marker) = delete_marker_version_id {
                xml.value("DeleteMarker", true);
                xml.text("DeleteMarkerVersionId", marker);
            }
        }),
        Deleted::Refused { key, version_id, error } => xml.element("Error", |xml| {
            xml.text("Key", key);
            xml.optional("VersionId", version_id.as_deref());
            xml.text("Code", error.code.as_str());
            xml.text("Message", &error.message);
        }),
    }
}

/// GetBucketLocation. S3 writes us-east-1 as nothing.
pub fn location(region: &str) -> String {
    let shown = if region == "us-east-1" { "" } else { region };
    Writer::document("LocationConstraint", |xml| xml.push_text(shown))
}

/// GetBucketVersioning. `None`: never set.
pub fn versioning(status: Option<VersioningStatus>) -> String {
    Writer::document("VersioningConfiguration", |xml| xml.optional("Status", status.map(VersioningStatus::name)))
}

/// GetObjectTagging and GetBucketTagging.
pub fn tagging(tags: &[Tag]) -> String {
    let write = |xml: &mut Writer, tag: &Tag| {
        xml.element("Tag", |xml| {
            xml.text("Key", &tag.key);
            xml.text("Value", &tag.value);
        });
    };
    Writer::document("Tagging", |xml| xml.element("TagSet", |xml| tags.iter().for_each(|tag| write(xml, tag))))
}

/// GetBucketAcl and GetObjectAcl: the owner has full control, nobody else anything.
pub fn owner_only_acl(owner: &Owner) -> String {
    Writer::document("AccessControlPolicy", |xml| {
        write_owner(xml, "Owner", owner);
        xml.element("AccessControlList", |xml| {
            xml.element("Grant", |xml| {
                xml.element_with("Grantee", XSI, |xml| write_owner_fields(xml, owner));
                xml.text("Permission", "FULL_CONTROL");
            });
        });
    })
}

/// What GetObjectAttributes was asked for; `None` is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `ETag`.
    pub etag: Option<String>,
    /// `Checksum`.
    pub checksum: Option<ShownChecksum>,
    /// `ObjectParts`; only objects that were multipart have any.
    pub parts: Option<AttributeParts>,
    /// `StorageClass`.
    pub storage_class: Option<String>,
    /// `ObjectSize`.
    pub size_bytes: Option<u64>,
}

/// The parts of GetObjectAttributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeParts {
    /// How many parts the object has.
    pub total_count: u32,
    /// Which were asked for.
    pub list: ListParts,
    /// The number of the last part here; `None` on the last page.
    pub next: Option<u32>,
    /// Those with checksums; S3 lists no others.
    pub parts: Vec<Part>,
}

/// GetObjectAttributes.
pub fn object_attributes(attributes: &Attributes) -> String {
    Writer::document("GetObjectAttributesResponse", |xml| {
        // The one place where S3 writes an ETag without quotes.
        xml.optional("ETag", attributes.etag.as_deref());
        if attributes.checksum.is_some() {
            xml.element("Checksum", |xml| write_checksum(xml, attributes.checksum.as_ref()));
        }
        if let Some(parts) = &attributes.parts {
            xml.element("ObjectParts", |xml| write_attribute_parts(xml, parts));
        }
        xml.optional("StorageClass", attributes.storage_class.as_deref());
        if let Some(size_bytes) = attributes.size_bytes {
            xml.value("ObjectSize", size_bytes);
        }
    })
}

fn write_attribute_parts(xml: &mut Writer, parts: &AttributeParts) {
    xml.value("PartsCount", parts.total_count);
    xml.value("PartNumberMarker", parts.list.part_number_marker);
    xml.value("NextPartNumberMarker", parts.next.unwrap_or(0));
    xml.value("MaxParts", parts.list.max_count);
    xml.value("IsTruncated", parts.next.is_some());
    for part in &parts.parts {
        xml.element("Part", |xml| {
            xml.value("PartNumber", part.part_number);
            xml.value("Size", part.size_bytes);
            write_checksum(xml, part.checksum.as_ref());
        });
    }
}

/// An error body. `resource`: the path as sent; `request_id`: that of `x-amz-request-id` and `x-amz-id-2`.
pub fn error(error: &S3Error, resource: &str, request_id: &str) -> String {
    Writer::plain_document("Error", |xml| {
        xml.text("Code", error.code.as_str());
        xml.text("Message", &error.message);
        error.fields.iter().for_each(|(name, value)| xml.text(name, value));
        xml.text("Resource", resource);
        xml.text("RequestId", request_id);
        xml.text("HostId", request_id);
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
