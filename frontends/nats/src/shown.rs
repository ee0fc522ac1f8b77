//! Versions, buckets and times as the fields of answers.

use predastore::catalog::{Bucket, ETag, Header, ListEntry, Version};
use predastore::env::Timestamp;
use predastore_vocabulary::attrs::of_posix;
use predastore_vocabulary::dates;
use serde_json::{Map, Value, json};

/// `2026-11-30T02:06:55.123Z`.
pub(crate) fn time(time: Timestamp) -> String {
    dates::iso_8601_ms(time.0.div_euclid(1_000_000))
}

/// An ETag in its quotes.
pub(crate) fn etag(etag: ETag) -> String {
    format!("\"{etag}\"")
}

/// A key or a prefix.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What GET and HEAD give of a version, without its length.
pub(crate) fn version(version: &Version, ever_versioned: bool) -> Map<String, Value> {
    let attrs = &version.attrs;
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    put("AcceptRanges", json!("bytes"));
    put("ETag", json!(etag(version.etag)));
    put("LastModified", json!(time(version.modified)));
    put("ContentType", json!("binary/octet-stream"));
    for (header, value) in &attrs.headers {
        put(field_of(*header), json!(value));
    }
    put("Metadata", Value::Object(metadata(version)));
    if ever_versioned {
        put("VersionId", json!(version.id.to_string()));
    }
    if !attrs.tags.is_empty() {
        put("TagCount", json!(attrs.tags.len()));
    }
    if !attrs.storage_class.is_empty() {
        put("StorageClass", json!(attrs.storage_class));
    }
    fields
}

fn metadata(version: &Version) -> Map<String, Value> {
    let mut fields = Map::new();
    for (name, value) in &version.attrs.metadata {
        fields.insert(name.clone(), json!(value));
    }
    for (name, value) in version.attrs.posix.iter().flat_map(of_posix) {
        // What a client sent as the owner is given back to it.
        fields.entry(name).or_insert_with(|| json!(value));
    }
    fields
}

fn field_of(header: Header) -> &'static str {
    match header {
        Header::ContentType => "ContentType",
        Header::CacheControl => "CacheControl",
        Header::ContentDisposition => "ContentDisposition",
        Header::ContentEncoding => "ContentEncoding",
        Header::ContentLanguage => "ContentLanguage",
        Header::Expires => "Expires",
        Header::WebsiteRedirect => "WebsiteRedirectLocation",
    }
}

/// A bucket in a listing.
pub(crate) fn bucket(bucket: &Bucket) -> Value {
    json!({ "Name": bucket.name, "CreationDate": time(bucket.created), "BucketRegion": bucket.region })
}

/// An entry of a listing, and whether it is a common prefix.
pub(crate) fn entry(entry: &ListEntry) -> (Value, bool) {
    match entry {
        ListEntry::Prefix(prefix) => (json!({ "Prefix": text(prefix) }), true),
        ListEntry::Object { key, size_bytes, modified, etag: tag, storage_class } => {
            let class = if storage_class.is_empty() { "STANDARD" } else { storage_class };
            let object = json!({
                "Key": text(key),
                "LastModified": time(*modified),
                "ETag": etag(*tag),
                "Size": size_bytes,
                "StorageClass": class,
            });
            (object, false)
        }
    }
}
