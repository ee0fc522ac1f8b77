//! Configured access keys and what each may do.
//!
//! Invariant: what no grant names is denied.

use std::collections::HashMap;

use crate::auth::{Secret, SecretLookup};

/// An access key.
#[derive(Clone, Debug)]
pub struct Key {
    /// The account it acts for.
    pub account_id: String,
    /// Its secret half.
    pub secret: Secret,
    /// What it may do.
    pub grants: Grants,
}

/// What a key may do.
#[derive(Clone, Debug)]
pub enum Grants {
    /// Everything.
    All,
    /// What one of these names.
    Only(Vec<Grant>),
}

/// Actions in a bucket. `*` and `?` are wildcards in both.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Name or pattern.
    pub bucket: String,
    /// `s3:GetObject`, `s3:*` and so on.
    pub actions: Vec<String>,
}

/// All configured keys, and the buckets that anybody may read.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    keys: HashMap<String, Key>,
    public_buckets: Vec<String>,
}

impl Keyring {
    /// `keys`: by access key id. `public_buckets`: anybody may get their objects.
    pub fn new(keys: HashMap<String, Key>, public_buckets: Vec<String>) -> Self {
        Keyring { keys, public_buckets }
    }

    /// The account of a key; none for an unknown one.
    pub fn account(&self, access_key_id: &str) -> Option<&str> {
        self.keys.get(access_key_id).map(|key| key.account_id.as_str())
    }

    /// Whether a key (none: anybody) may do `action` in `bucket` (empty: on the service).
    pub fn allows(&self, access_key_id: Option<&str>, action: &str, bucket: &str) -> bool {
        let Some(id) = access_key_id else {
            return action == "s3:GetObject" && self.public_buckets.iter().any(|public| public == bucket);
        };
        match self.keys.get(id).map(|key| &key.grants) {
            None => false,
            Some(Grants::All) => true,
            Some(Grants::Only(grants)) => grants.iter().any(|grant| grant.covers(action, bucket)),
        }
    }
}

impl Grant {
    fn covers(&self, action: &str, bucket: &str) -> bool {
        matches(self.bucket.as_bytes(), bucket.as_bytes())
            && self
                .actions
                .iter()
                .any(|pattern| matches(pattern.to_ascii_lowercase().as_bytes(), action.to_ascii_lowercase().as_bytes()))
    }
}

impl SecretLookup for std::sync::Arc<Keyring> {
    fn secret(&self, access_key_id: &str) -> Option<Secret> {
        self.keys.get(access_key_id).map(|key| key.secret.clone())
    }
}

/// Glob match; linear, by returning to the last `*` only.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut in_text) = (0, 0);
    let mut star = None;
    while in_text < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, in_text));
                at += 1;
            }
            Some(b'?') => (at, in_text) = (at + 1, in_text + 1),
            Some(byte) if *byte == text[in_text] => (at, in_text) = (at + 1, in_text + 1),
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    (at, in_text) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring() -> Keyring {
        let key = |grants| Key { account_id: "1".into(), secret: Secret::new("s"), grants };
        let reader = Grant { bucket: "data-*".into(), actions: vec!["s3:Get*".into(), "s3:ListBucket".into()] };
        let keys = [("root", key(Grants::All)), ("reader", key(Grants::Only(vec![reader])))];
        Keyring::new(keys.map(|(id, key)| (id.to_owned(), key)).into(), vec!["open".into()])
    }

    #[test]
    fn only_what_is_granted_is_allowed() {
        let keyring = keyring();
        for (id, action, bucket, allowed) in [
            (Some("root"), "s3:DeleteBucket", "x", true),
            (Some("reader"), "s3:GetObject", "data-1", true),
            (Some("reader"), "s3:listbucket", "data-", true),
            (Some("reader"), "s3:GetObject", "other", false),
            (Some("reader"), "s3:PutObject", "data-1", false),
            (Some("reader"), "s3:ListAllMyBuckets", "", false),
            (Some("nobody"), "s3:GetObject", "open", false),
            (None, "s3:GetObject", "open", true),
            (None, "s3:ListBucket", "open", false),
            (None, "s3:GetObject", "data-1", false),
        ] {
            assert_eq!(keyring.allows(id, action, bucket), allowed, "{id:?} {action} {bucket}");
        }
    }

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*b*c", "aXXbYc", true),
            ("a*b*c", "aXXbY", false),
            ("a?c", "abc", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
