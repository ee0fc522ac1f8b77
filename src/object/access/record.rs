//! Users and access keys as the catalog has them, each encoded as all records are (`object::record`).
//!
//! ```text
//! user (`record` of kind User, by name): id u64, account, created i64 ns, policies [(name, document)]
//! key (`credential`, by access key id; its account is a column): user, id of the user u64, created i64 ns, active bool,
//!   secret: 0 and its text, or 1, the id of the cluster's key u32 and the sealed text (`segment::seal_secret`)
//! ```

use serde::{Deserialize, Serialize};

use crate::env::{Env, Timestamp};
use crate::object::{ClusterKeys, Error};
use crate::segment;

use super::Secret;

/// Something with a name: a policy with its document, as it was given.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Named {
    /// Unique among those of one user.
    pub name: String,
    /// IAM JSON.
    pub document: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct UserRecord {
    /// No other user has it or had it.
    pub(super) id: u64,
    pub(super) account_id: String,
    pub(super) created: Timestamp,
    /// By name.
    pub(super) policies: Vec<Named>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct KeyRecord {
    pub(super) user: String,
    pub(super) user_id: u64,
    pub(super) created: Timestamp,
    pub(super) is_active: bool,
    pub(super) secret: StoredSecret,
}

/// A secret in the catalog. Never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum StoredSecret {
    Plain(String),
    Sealed { key: u32, bytes: Vec<u8> },
}

impl std::fmt::Debug for StoredSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoredSecret(..)")
    }
}

impl StoredSecret {
    /// `keys`: those of the cluster; none on a box.
    pub(super) fn new(keys: Option<&ClusterKeys>, access_key: &str, secret: &Secret, env: &Env) -> StoredSecret {
        match keys.map(ClusterKeys::current) {
            None => StoredSecret::Plain(secret.reveal().to_owned()),
            Some(key) => StoredSecret::Sealed {
                key: key.id(),
                bytes: segment::seal_secret(key, access_key, secret.reveal().as_bytes(), &*env.rng),
            },
        }
    }

    /// # Errors
    /// `Corrupt`: it was sealed for another key, or under a key that is not known here.
    pub(super) fn open(&self, keys: Option<&ClusterKeys>, access_key: &str) -> Result<Secret, Error> {
        let (key, bytes) = match self {
            StoredSecret::Plain(text) => return Ok(Secret::new(text)),
            StoredSecret::Sealed { key, bytes } => (*key, bytes),
        };
        let corrupt = |why: String| Error::Corrupt(format!("the secret of access key {access_key}: {why}"));
        let key = keys.and_then(|keys| keys.get(key)).ok_or_else(|| corrupt(format!("there is no key {key}")))?;
        let opened = segment::open_secret(key, access_key, bytes).map_err(|error| corrupt(error.to_string()))?;
        String::from_utf8(opened).map(|text| Secret::new(&text)).map_err(|error| corrupt(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::object::record::{decode, encode};

    fn user() -> UserRecord {
        let policies = vec![Named { name: "read".into(), document: "{}".into() }];
        UserRecord { id: 300, account_id: "000000000000".into(), created: Timestamp(5), policies }
    }

    fn key(secret: StoredSecret) -> KeyRecord {
        KeyRecord { user: "ann".into(), user_id: 300, created: Timestamp(-5), is_active: true, secret }
    }

    #[test]
    fn encodings_are_golden() {
        let sealed = StoredSecret::Sealed { key: 300, bytes: vec![1, 2] };
        let plain = StoredSecret::Plain("hush".into());
        let encoded = [encode(&user()), encode(&key(plain.clone())), encode(&key(sealed.clone()))];
        let hex: Vec<String> =
            encoded.iter().map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
        assert_eq!(hex, include_str!("golden.txt").lines().collect::<Vec<_>>());
        assert_eq!(decode::<UserRecord>("user", &encoded[0]).unwrap(), user());
        assert_eq!(decode::<KeyRecord>("access key", &encoded[1]).unwrap(), key(plain));
        assert_eq!(decode::<KeyRecord>("access key", &encoded[2]).unwrap(), key(sealed));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let whole = encode(&user());
        for len in 0..whole.len() {
            assert!(decode::<UserRecord>("user", &whole[..len]).is_err(), "{len}");
        }
        assert!(decode::<UserRecord>("user", &[&[2], &whole[1..]].concat()).is_err());
    }
}
