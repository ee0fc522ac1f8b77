//! What Spinifex keeps in its buckets, as far as it matters here: JSON objects with fields of these names.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `spinifex-iam-access-keys`, by the key's id.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct AccessKey {
    /// AES-256-GCM: base64 of nonce, ciphertext and tag.
    pub(super) secret_access_key: String,
    #[serde(default)]
    pub(super) user_name: String,
    #[serde(default)]
    pub(super) account_id: String,
    /// `Active`, or it does not count.
    #[serde(default)]
    pub(super) status: String,
}

/// `spinifex-iam-session-credentials`, by the key's id.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct SessionKey {
    /// Sealed as an access key's.
    pub(super) secret_encrypted: String,
    /// Base64 of HMAC-SHA256 of the token under the master key.
    #[serde(default)]
    pub(super) session_token_hmac: String,
    #[serde(default)]
    pub(super) account_id: String,
    /// `user`, or `assumed-role`; empty is the latter.
    #[serde(default)]
    pub(super) principal_type: String,
    /// Of a user's session the user's name.
    #[serde(default)]
    pub(super) session_name: String,
    /// Of a role's session the role.
    #[serde(default)]
    pub(super) underlying_role_arn: String,
    /// Whose it was when it was made: names are given again. Empty in records that are older than the field.
    #[serde(default)]
    pub(super) user_id: String,
    #[serde(default)]
    pub(super) role_id: String,
    /// RFC 3339.
    pub(super) expires_at: String,
}

/// `spinifex-iam-users`, `-roles` and `-groups`, by `account.name`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Holder {
    /// A user's, unlike any other's before or after.
    #[serde(default)]
    pub(super) user_id: String,
    /// A role's.
    #[serde(default)]
    pub(super) role_id: String,
    /// ARNs of policies.
    #[serde(default, deserialize_with = "or_null")]
    pub(super) attached_policies: Vec<String>,
    /// Documents by their names.
    #[serde(default, deserialize_with = "or_null")]
    pub(super) inline_policies: BTreeMap<String, String>,
    /// Names of a user's groups.
    #[serde(default, deserialize_with = "or_null")]
    pub(super) groups: Vec<String>,
}

/// `spinifex-iam-policies`, by `account.name`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Document {
    /// IAM's JSON.
    pub(super) policy_document: String,
}

/// Go writes an empty list as null.
fn or_null<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The name in an ARN like `arn:aws:iam::<account>:<kind>/<path>/<name>`, of that account; none: it is another ARN.
pub(super) fn name_in<'a>(arn: &'a str, kind: &str, account: &str) -> Option<&'a str> {
    let rest = arn.strip_prefix("arn:aws:iam::")?.strip_prefix(account)?.strip_prefix(':')?;
    let path = rest.strip_prefix(kind)?.strip_prefix('/')?;
    path.rsplit('/').next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_in_arns() {
        let name = |arn| name_in(arn, "policy", "000000000001");
        assert_eq!(name("arn:aws:iam::000000000001:policy/read"), Some("read"));
        assert_eq!(name("arn:aws:iam::000000000001:policy/a/b/read"), Some("read"));
        for arn in [
            "arn:aws:iam::000000000002:policy/read",
            "arn:aws:iam::000000000001:role/read",
            "arn:aws:iam::000000000001:policy/",
            "arn:aws:iam::0000000000011:policy/read",
            "arn:aws:iam::aws:policy/ReadOnlyAccess",
            "policy/read",
            "",
        ] {
            assert_eq!(name(arn), None, "{arn}");
        }
    }

    #[test]
    fn lists_may_be_null_or_missing() {
        let read = |text: &str| serde_json::from_str::<Holder>(text).unwrap();
        let null = read(r#"{"user_name":"ann","attached_policies":null,"groups":null}"#);
        assert!(null.attached_policies.is_empty() && null.groups.is_empty() && null.inline_policies.is_empty());
        let some = read(r#"{"attached_policies":["a"],"inline_policies":{"b":"{}"},"groups":["c"],"tags":[]}"#);
        assert_eq!((some.attached_policies.len(), some.inline_policies.len(), some.groups.len()), (1, 1, 1));
    }
}
