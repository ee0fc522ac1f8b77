//! Signing keys, derived from secrets.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac};

use predastore::object::access::Secret;

use super::claim::Claim;

/// A SHA-256 or an HMAC-SHA256.
pub(super) type Digest = [u8; 32];

/// The key of one day, region and service. Never shown.
#[derive(Clone)]
pub(super) struct SigningKey(Arc<hmac::Key>);

impl SigningKey {
    pub(super) fn derive(secret: &Secret, date: &str, region: &str, service: &str) -> Self {
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{}", secret.reveal()).as_bytes());
        for step in [date, region, service, "aws4_request"] {
            key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, step.as_bytes()).as_ref());
        }
        SigningKey(Arc::new(key))
    }

    pub(super) fn sign(&self, text: &[u8]) -> Digest {
        digest_of(hmac::sign(&self.0, text).as_ref())
    }

    /// Whether `signature` is the one of `text`, in time that does not depend on where they differ.
    pub(super) fn verifies(&self, text: &[u8], signature: &Digest) -> bool {
        verify_slices_are_equal(&self.sign(text), signature).is_ok()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// Derived keys by access key, day and region. Only keys that have verified a request get in, so strangers cannot fill
/// it; when full it starts anew. A changed secret misses.
#[derive(Default)]
pub(super) struct KeyCache {
    keys: Mutex<HashMap<String, (Secret, SigningKey)>>,
}

impl KeyCache {
    const MAX_COUNT: usize = 1024;

    pub(super) fn derive(&self, claim: &Claim, secret: &Secret) -> SigningKey {
        let cached = self.lock().get(&cache_name(claim)).filter(|(of, _)| of.is(secret)).map(|(_, key)| key.clone());
        cached.unwrap_or_else(|| SigningKey::derive(secret, &claim.date, &claim.region, "s3"))
    }

    pub(super) fn remember(&self, claim: &Claim, secret: &Secret, key: &SigningKey) {
        let mut keys = self.lock();
        let name = cache_name(claim);
        if keys.get(&name).is_some_and(|(of, _)| of.is(secret)) {
            return;
        }
        if keys.len() >= Self::MAX_COUNT {
            keys.clear();
        }
        keys.insert(name, (secret.clone(), key.clone()));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Secret, SigningKey)>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The scope cannot hold a newline: it came in a header or was refused with the query.
fn cache_name(claim: &Claim) -> String {
    format!("{}\n{}\n{}", claim.access_key_id, claim.date, claim.region)
}

pub(super) fn sha256(bytes: &[u8]) -> Digest {
    digest_of(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Copies a 32-byte digest out of its library's type.
pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    let mut digest = [0; 32];
    digest.copy_from_slice(bytes);
    digest
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS[usize::from(nibble)] as char;
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Reads 64 lower-case hex digits.
pub(super) fn parse_hex(text: &[u8]) -> Option<Digest> {
    if text.len() != 64 {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(digest)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_key_derivation() {
        let secret = Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        let key = SigningKey::derive(&secret, "20120215", "us-east-1", "iam");
        // The derived key itself is f4780e2d…, so its HMAC of nothing is a fixed value that only it yields.
        let derived = parse_hex(b"f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d");
        let expected =
            derived.map(|bytes| digest_of(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &bytes), b"").as_ref()));
        assert_eq!(Some(key.sign(b"")), expected);
    }

    #[test]
    fn hex_round_trips_and_is_strict() {
        let digest = sha256(b"x");
        assert_eq!(parse_hex(hex(&digest).as_bytes()), Some(digest));
        assert_eq!(parse_hex(hex(&digest).to_uppercase().as_bytes()), None);
        assert_eq!(parse_hex(b"abc"), None);
    }

    #[test]
    fn nothing_secret_is_shown() {
        let secret = Secret::new("hush");
        let key = SigningKey::derive(&secret, "20120215", "us-east-1", "s3");
        assert_eq!(format!("{secret:?} {key:?}"), "Secret(..) SigningKey(..)");
    }
}
