//! Every XML body's reader on the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use predastore_s3::xml::request::*;

fuzz_target!(|body: &[u8]| {
    if let Ok(parts) = complete_multipart_upload(body) {
        assert!((1..=10_000).contains(&parts.len()));
        assert!(parts.windows(2).all(|pair| pair[0].part_number < pair[1].part_number));
    }
    if let Ok(delete) = delete(body) {
        assert!((1..=1000).contains(&delete.objects.len()));
    }
    for (tagged, max_count) in [(Tagged::Object, 10), (Tagged::Bucket, 50)] {
        if let Ok(tags) = tagging(body, tagged) {
            assert!(tags.len() <= max_count);
            let written = predastore_s3::xml::response::tagging(&tags);
            assert_eq!(tagging(written.as_bytes(), tagged).expect("what is answered can be sent back"), tags);
        }
    }
    if let Ok(rules) = predastore_s3::xml::notification::notification(body) {
        let written = predastore_s3::xml::notification::write(&rules);
        let read = predastore_s3::xml::notification::notification(written.as_bytes());
        assert_eq!(read.expect("what is answered can be sent back"), rules);
    }
    let _ = create_bucket_configuration(body);
    let _ = versioning_configuration(body);
    if let Ok(policy) = access_control_policy(body) {
        let _ = policy.is_owner_only("me");
    }
});
