//! Range, conditions and dates: values of headers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use predastore_s3::conditions::{ReadConditions, WriteCondition};
use predastore_s3::dates::{amz_date, http_date, iso_8601_ms, parse_amz_date, parse_http_date, parse_iso_8601_ms};
use predastore_s3::range::ByteRange;

fuzz_target!(|input: (u64, &str, &str)| {
    let (len_bytes, first, second) = input;
    for header in [first.to_owned(), format!("bytes={first}"), format!("bytes={first}-{second}")] {
        if let Some(Ok(range)) = ByteRange::parse(&header).map(|range| range.resolve(len_bytes)) {
            assert!(range.start < range.end && range.end <= len_bytes);
        }
        let _ = ByteRange::parse_copy_source(&header);
    }
    let conditions = ReadConditions {
        if_match: Some(first),
        if_none_match: Some(second),
        if_modified_since: Some(first),
        if_unmodified_since: Some(second),
    };
    let _ = (conditions.evaluate("e", len_bytes as i64), WriteCondition::parse(Some(first), None));
    if let Some(unix_s) = parse_http_date(first) {
        assert_eq!(parse_http_date(&http_date(unix_s * 1000)), Some(unix_s));
    }
    if let Some(unix_s) = parse_amz_date(first) {
        assert_eq!(parse_amz_date(&amz_date(unix_s)), Some(unix_s));
    }
    if let Some(unix_ms) = parse_iso_8601_ms(first) {
        assert_eq!(parse_iso_8601_ms(&iso_8601_ms(unix_ms)), Some(unix_ms));
    }
});
