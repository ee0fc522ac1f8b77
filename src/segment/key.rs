//! Keys: one for each chunk, made afresh, kept in the catalog wrapped by the cluster's; and secrets of users, kept there
//! sealed by it.
//!
//! ```text
//! wrapped key, 61 bytes    0 version u8 = 1    1 nonce 12, random    13 the chunk's key, sealed 32    45 tag 16
//!                          AES-256-GCM under the cluster's key
//!                          associated data: "predastore chunk key" | version u8 | key id u32 LE | chunk id u64 LE
//! sealed secret            0 version u8 = 1    1 nonce 12, random    13 the secret, sealed n    13 + n tag 16
//!                          associated data: "predastore secret of" | version u8 | key id u32 LE | whose, UTF-8
//! ```
//!
//! Invariants
//! - A wrapped key opens for its chunk only: rows of the catalog that were swapped are seen.
//! - Nonces are random: a cluster's key wraps at most 2^32 chunk keys (the odds of a repeated nonce are then 2^-33);
//!   rotate it before, which rewraps keys and touches no data.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::Error;
use super::format::TAG_BYTES;
use crate::env::Rng;
use crate::ids::Ino;

/// Length of every key, bytes.
pub const KEY_BYTES: usize = 32;
/// Length of a wrapped key, bytes.
const WRAPPED_BYTES: usize = SEALED_AT + KEY_BYTES + TAG_BYTES;
const NONCE_AT: usize = 1;
const SEALED_AT: usize = NONCE_AT + NONCE_LEN;
const VERSION: u8 = 1;
const CONTEXT: &[u8; 20] = b"predastore chunk key";
const SECRET_CONTEXT: &[u8; 20] = b"predastore secret of";

/// The key that a chunk's segments are sealed under. Opens them; only a [`super::Sealer`] makes one.
#[derive(PartialEq, Eq)]
pub struct ChunkKey([u8; KEY_BYTES]);

impl ChunkKey {
    /// A key that nobody has used before.
    pub(super) fn fresh(rng: &dyn Rng) -> ChunkKey {
        let mut bytes = [0; KEY_BYTES];
        rng.fill(&mut bytes);
        ChunkKey(bytes)
    }

    pub(super) fn cipher(&self) -> LessSafeKey {
        cipher(&self.0)
    }
}

impl fmt::Debug for ChunkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkKey(..)")
    }
}

/// A key that wraps chunk keys. Gateways alone have it.
pub struct ClusterKey {
    id: u32,
    cipher: LessSafeKey,
}

impl ClusterKey {
    /// The cluster's key of that id. Ids are never reused.
    pub fn new(id: u32, bytes: &[u8; KEY_BYTES]) -> ClusterKey {
        ClusterKey { id, cipher: cipher(bytes) }
    }

    /// Its id, kept beside each key that it wraps.
    pub const fn id(&self) -> u32 {
        self.id
    }

    fn associated_data(&self, context: &[u8; 20], of: &[u8]) -> Aad<Vec<u8>> {
        Aad::from([&context[..], &[VERSION], &self.id.to_le_bytes(), of].concat())
    }

    fn seal(&self, aad: Aad<Vec<u8>>, bytes: &[u8], rng: &dyn Rng) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        rng.fill(&mut nonce);
        let mut sealed = bytes.to_vec();
        let tag = self.cipher.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed);
        let Ok(tag) = tag else { unreachable!("so few bytes can be sealed") };
        [&[VERSION], &nonce[..], &sealed, tag.as_ref()].concat()
    }

    fn open(&self, aad: Aad<Vec<u8>>, wrapped: &[u8]) -> Result<Vec<u8>, Error> {
        if let Some(version) = wrapped.first().copied().filter(|version| *version != VERSION) {
            return Err(Error::UnknownFormat { version });
        }
        let Some(len) = wrapped.len().checked_sub(SEALED_AT + TAG_BYTES) else {
            return Err(Error::Length { len_bytes: wrapped.len(), frame_len_bytes: SEALED_AT + TAG_BYTES });
        };
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&wrapped[NONCE_AT..SEALED_AT]);
        let (sealed, tag) = wrapped[SEALED_AT..].split_at(len);
        let mut opened = vec![0; len];
        let nonce = Nonce::assume_unique_for_key(nonce);
        let outcome = self.cipher.open_separate_gather(nonce, aad, sealed, tag, &mut opened);
        outcome.map(|()| opened).map_err(|_| Error::Seal)
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterKey({}, ..)", self.id)
    }
}

/// The key of `chunk`, as the catalog may keep it.
pub fn wrap(cluster_key: &ClusterKey, chunk: Ino, key: &ChunkKey, rng: &dyn Rng) -> Vec<u8> {
    cluster_key.seal(cluster_key.associated_data(CONTEXT, &chunk.0.to_le_bytes()), &key.0, rng)
}

/// The inverse of [`wrap`], under the cluster's key and for the chunk that it was wrapped with.
///
/// # Errors
/// [`Error::UnknownFormat`]: of a version that came later. [`Error::Length`]: not a wrapped key. [`Error::Seal`]: wrapped
/// under another key or for another chunk, or damaged.
pub fn unwrap(cluster_key: &ClusterKey, chunk: Ino, wrapped: &[u8]) -> Result<ChunkKey, Error> {
    let opened = cluster_key.open(cluster_key.associated_data(CONTEXT, &chunk.0.to_le_bytes()), wrapped)?;
    let length = |_| Error::Length { len_bytes: wrapped.len(), frame_len_bytes: WRAPPED_BYTES };
    <[u8; KEY_BYTES]>::try_from(opened).map(ChunkKey).map_err(length)
}

/// A secret of somebody or something, `of`, as the catalog may keep it.
pub fn seal_secret(cluster_key: &ClusterKey, of: &str, secret: &[u8], rng: &dyn Rng) -> Vec<u8> {
    cluster_key.seal(cluster_key.associated_data(SECRET_CONTEXT, of.as_bytes()), secret, rng)
}

/// The inverse of [`seal_secret`].
///
/// # Errors
/// As of [`unwrap`].
pub fn open_secret(cluster_key: &ClusterKey, of: &str, sealed: &[u8]) -> Result<Vec<u8>, Error> {
    cluster_key.open(cluster_key.associated_data(SECRET_CONTEXT, of.as_bytes()), sealed)
}

fn cipher(bytes: &[u8; KEY_BYTES]) -> LessSafeKey {
    let Ok(key) = UnboundKey::new(&AES_256_GCM, bytes) else { unreachable!("AES-256 takes any 32 bytes") };
    LessSafeKey::new(key)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::env::Rng;
    use proptest::prelude::*;

    pub(in crate::segment) fn chunk_key(byte: u8) -> ChunkKey {
        ChunkKey([byte; KEY_BYTES])
    }

    /// Counts: 0, 1, 2 and so on.
    pub(in crate::segment) struct Counting(pub(in crate::segment) std::sync::atomic::AtomicU8);

    impl Rng for Counting {
        fn fill(&self, buffer: &mut [u8]) {
            buffer.fill_with(|| self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        }
    }

    pub(in crate::segment) fn counting() -> Counting {
        Counting(Default::default())
    }

    const CHUNK: Ino = Ino::new(1, 77);

    #[test]
    fn a_wrapped_key_is_golden() {
        let cluster_key = ClusterKey::new(9, &[3; KEY_BYTES]);
        let wrapped = wrap(&cluster_key, CHUNK, &chunk_key(5), &counting());
        let hex: String = wrapped.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("golden/wrapped_key.txt").trim());
        assert_eq!(unwrap(&cluster_key, CHUNK, &wrapped).unwrap(), chunk_key(5));
    }

    #[test]
    fn a_key_opens_for_its_chunk_under_its_wrapper_only() {
        let cluster_key = ClusterKey::new(9, &[3; KEY_BYTES]);
        let wrapped = wrap(&cluster_key, CHUNK, &chunk_key(5), &counting());
        assert_eq!(unwrap(&cluster_key, Ino(78), &wrapped), Err(Error::Seal));
        assert_eq!(unwrap(&ClusterKey::new(10, &[3; KEY_BYTES]), CHUNK, &wrapped), Err(Error::Seal));
        assert_eq!(unwrap(&ClusterKey::new(9, &[4; KEY_BYTES]), CHUNK, &wrapped), Err(Error::Seal));
        for bit in 8..wrapped.len() * 8 {
            let mut damaged = wrapped.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unwrap(&cluster_key, CHUNK, &damaged), Err(Error::Seal), "bit {bit}");
        }
        let of_later = [&[2], &wrapped[1..]].concat();
        assert_eq!(unwrap(&cluster_key, CHUNK, &of_later), Err(Error::UnknownFormat { version: 2 }));
    }

    #[test]
    fn a_sealed_secret_is_golden_and_opens_for_its_owner_only() {
        let cluster_key = ClusterKey::new(9, &[3; KEY_BYTES]);
        let sealed = seal_secret(&cluster_key, "AKIAX", b"hush", &counting());
        let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("golden/sealed_secret.txt").trim());
        assert_eq!(open_secret(&cluster_key, "AKIAX", &sealed).unwrap(), b"hush");
        assert_eq!(open_secret(&cluster_key, "AKIAY", &sealed), Err(Error::Seal));
        assert_eq!(open_secret(&ClusterKey::new(10, &[3; KEY_BYTES]), "AKIAX", &sealed), Err(Error::Seal));
        assert!(open_secret(&cluster_key, "AKIAX", &sealed[..28]).is_err());
        assert_eq!(unwrap(&cluster_key, CHUNK, &sealed), Err(Error::Seal));
    }

    #[test]
    fn keys_are_not_shown() {
        let shown = format!("{:?} {:?}", chunk_key(5), ClusterKey::new(9, &[3; KEY_BYTES]));
        assert_eq!(shown, "ChunkKey(..) ClusterKey(9, ..)");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn any_bytes_are_refused(mut bytes: Vec<u8>, versioned: bool) {
            if versioned && !bytes.is_empty() {
                bytes[0] = VERSION;
            }
            prop_assert!(unwrap(&ClusterKey::new(9, &[3; KEY_BYTES]), CHUNK, &bytes).is_err());
        }
    }
}
