//! The policies that the operator's command line hands out, as JSON texts for identity policies.
//!
//! A prefix is taken literally and covers every key that begins with it: `logs` covers `logs-old/x`, `logs/` does not.

use serde_json::{Value, json};

/// Reading objects and what belongs to them.
const READ: [&str; 8] = [
    "s3:GetObject",
    "s3:GetObjectVersion",
    "s3:GetObjectAttributes",
    "s3:GetObjectVersionAttributes",
    "s3:GetObjectTagging",
    "s3:GetObjectVersionTagging",
    "s3:GetObjectRetention",
    "s3:GetObjectLegalHold",
];

/// Writing and deleting objects. Noncurrent versions stay: who overwrites or deletes can be undone.
const WRITE: [&str; 6] = [
    "s3:PutObject",
    "s3:PutObjectTagging",
    "s3:DeleteObject",
    "s3:DeleteObjectTagging",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
];

/// Everything everywhere.
pub fn full() -> String {
    text(&[json!({"Sid": "Everything", "Effect": "Allow", "Action": "*", "Resource": "*"})])
}

/// Listing and reading what begins with `prefix` (empty: everything) in `bucket`.
pub fn read_only(bucket: &str, prefix: &str) -> String {
    text(&in_prefix(bucket, prefix, &["s3:ListBucket", "s3:ListBucketVersions"], &READ))
}

/// The same, and writing and deleting there.
pub fn read_write(bucket: &str, prefix: &str) -> String {
    let list = ["s3:ListBucket", "s3:ListBucketVersions", "s3:ListBucketMultipartUploads"];
    text(&in_prefix(bucket, prefix, &list, &[&READ[..], &WRITE[..]].concat()))
}

fn in_prefix(bucket: &str, prefix: &str, list: &[&str], objects: &[&str]) -> [Value; 3] {
    let (bucket, prefix) = (literal(bucket), literal(prefix));
    let bucket = format!("arn:aws:s3:::{bucket}");
    let mut listing = json!({"Sid": "List", "Effect": "Allow", "Action": list, "Resource": bucket});
    if !prefix.is_empty() {
        listing["Condition"] = json!({"StringLike": {"s3:prefix": format!("{prefix}*")}});
    }
    let keys = format!("{bucket}/{prefix}*");
    [
        json!({"Sid": "Locate", "Effect": "Allow", "Action": "s3:GetBucketLocation", "Resource": bucket}),
        listing,
        json!({"Sid": "Objects", "Effect": "Allow", "Action": objects, "Resource": keys}),
    ]
}

fn text(statements: &[Value]) -> String {
    format!("{:#}", json!({"Version": "2012-10-17", "Statement": statements}))
}

/// `text` as a pattern that matches nothing else.
fn literal(text: &str) -> String {
    text.replace('$', "${$}").replace('*', "${*}").replace('?', "${?}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::super::{Kind, Policies, Policy, Principal, Request};
    use super::*;

    fn allows(policy: &str, action: &str, bucket: &str, key: &str, prefix: Option<&str>) -> bool {
        let policies: Policies = [Policy::parse(policy.as_bytes(), Kind::Identity).unwrap()].into_iter().collect();
        let context: BTreeMap<_, _> =
            prefix.map(|prefix| ("s3:prefix".to_owned(), vec![prefix.to_owned()])).into_iter().collect();
        let principal = Principal::User { account: "1", name: "ann" };
        policies.decide(&Request { action, bucket, key, principal, context: &context }).is_allowed()
    }

    #[test]
    fn a_prefix_is_all_there_is() {
        let (read, write) = (read_only("b", "logs/"), read_write("b", "logs/"));
        for (action, bucket, key, prefix, reads, writes) in [
            ("s3:GetObject", "b", "logs/x", None, true, true),
            ("s3:GetObject", "b", "logs", None, false, false),
            ("s3:GetObject", "b", "other/logs/x", None, false, false),
            ("s3:GetObject", "b2", "logs/x", None, false, false),
            ("s3:ListBucket", "b", "", Some("logs/2026"), true, true),
            ("s3:ListBucket", "b", "", Some("logs"), false, false),
            ("s3:ListBucket", "b", "", None, false, false),
            ("s3:ListBucketMultipartUploads", "b", "", Some("logs/"), false, true),
            ("s3:GetBucketLocation", "b", "", None, true, true),
            ("s3:PutObject", "b", "logs/x", None, false, true),
            ("s3:PutObject", "b", "x", None, false, false),
            ("s3:DeleteObject", "b", "logs/x", None, false, true),
            ("s3:DeleteObjectVersion", "b", "logs/x", None, false, false),
            ("s3:DeleteBucket", "b", "", None, false, false),
            ("s3:ListAllMyBuckets", "", "", None, false, false),
        ] {
            assert_eq!(
                allows(&read, action, bucket, key, prefix),
                reads,
                "read_only {action} {bucket}/{key} {prefix:?}"
            );
            assert_eq!(
                allows(&write, action, bucket, key, prefix),
                writes,
                "read_write {action} {bucket}/{key} {prefix:?}"
            );
        }
    }

    #[test]
    fn no_prefix_is_the_whole_bucket_and_full_is_all() {
        assert!(allows(&read_only("b", ""), "s3:ListBucket", "b", "", None));
        assert!(allows(&read_only("b", ""), "s3:GetObject", "b", "x", None));
        assert!(!allows(&read_only("b", ""), "s3:GetObject", "bc", "x", None));
        assert!(allows(&full(), "s3:ListAllMyBuckets", "", "", None));
        assert!(allows(&full(), "s3express:CreateSession", "b", "", None));
    }

    #[test]
    fn a_prefix_has_no_wildcards() {
        let odd = read_only("b", "*?${aws:username}\"/");
        assert!(allows(&odd, "s3:GetObject", "b", "*?${aws:username}\"/x", None));
        assert!(allows(&odd, "s3:ListBucket", "b", "", Some("*?${aws:username}\"/")));
        assert!(!allows(&odd, "s3:GetObject", "b", "abann\"/x", None));
        assert!(!allows(&odd, "s3:ListBucket", "b", "", Some("abann\"/")));
    }
}
