//! The request line: target, route and listing parameters.
#![no_main]

use http::{HeaderMap, Method};
use libfuzzer_sys::fuzz_target;
use predastore_s3::listing::*;
use predastore_s3::names::{CopySource, KEY_MAX_BYTES, Target, check_bucket_name};
use predastore_s3::query::Query;
use predastore_s3::route::{Level, Operation};
use predastore_s3::xml::request::tagging_header;

fuzz_target!(|input: (u8, &str, &str, &str)| {
    let (method, host, path, raw_query) = input;
    let _ = (CopySource::parse(path), tagging_header(raw_query));
    let Ok(query) = Query::parse(raw_query) else {
        return;
    };
    if let Ok(list) = ListObjects::parse(&query) {
        assert!(list.filter.max_count <= PAGE_MAX_COUNT && list.filter.delimiter.as_deref() != Some(""));
    }
    if let Ok(Some(continuation)) = ListObjectsV2::parse(&query).map(|list| list.continuation) {
        assert!((1..=KEY_MAX_BYTES).contains(&continuation.after.len()));
    }
    if let Ok(list) = ListVersions::parse(&query) {
        assert!(list.key_marker.is_some() || list.version_id_marker.is_none());
    }
    let _ = (ListUploads::parse(&query), ListParts::parse(&query), ListBuckets::parse(&query));

    let Ok(target) = Target::parse(Some(host), path, &["s3.example.com".to_owned()]) else {
        return;
    };
    assert!(target.key.as_ref().is_none_or(|key| (1..=KEY_MAX_BYTES).contains(&key.len()) && target.bucket.is_some()));
    assert!(target.bucket.as_ref().is_none_or(|bucket| check_bucket_name(bucket).is_ok()));
    let methods = [Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::DELETE, Method::OPTIONS];
    let method = &methods[usize::from(method) % methods.len()];
    let operation = Operation::of(method, Level::from(&target), &query, &HeaderMap::new());
    if operation.is_ok_and(|operation| operation == Operation::PutObject) {
        assert!(!["acl", "tagging", "uploadId", "uploads", "partNumber"].iter().any(|name| query.has(name)));
    }
});
