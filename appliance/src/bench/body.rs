//! Bodies: windows on one megabyte of noise, at a place that the key chooses. Writing them costs nothing, comparing
//! them hardly more, and an object served under another's key is noticed.

use std::sync::OnceLock;

use aws_lc_rs::digest::{Context, SHA256};

use crate::sign::hex;

const NOISE_BYTES: usize = 1 << 20;
/// The longest piece handed out at once.
const PIECE_BYTES: u64 = 256 << 10;

fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| (0..NOISE_BYTES as u64 / 8).flat_map(|index| mix(index).to_le_bytes()).collect())
}

/// A number that looks like chance and is always the same (the finaliser of splitmix64).
pub(super) fn mix(index: u64) -> u64 {
    let mut x = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The bytes of one object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Body {
    start: usize,
    pub(super) len_bytes: u64,
}

impl Body {
    /// That of the object with `key`.
    pub(super) fn of(key: &str, len_bytes: u64) -> Self {
        let hash = key.bytes().fold(0, |hash, byte| mix(hash ^ u64::from(byte)));
        Body { start: (hash % NOISE_BYTES as u64) as usize, len_bytes }
    }

    /// The run of bytes that begins at `offset`, as long as lies in one piece; empty at the end.
    pub(super) fn piece(&self, offset: u64) -> &'static [u8] {
        let start = ((self.start as u64 + offset) % NOISE_BYTES as u64) as usize;
        let len = (self.len_bytes.saturating_sub(offset)).min(PIECE_BYTES).min((NOISE_BYTES - start) as u64);
        &noise()[start..start + len as usize]
    }

    /// Whether `bytes` are those at `offset`.
    pub(super) fn matches(&self, mut offset: u64, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let piece = self.piece(offset);
            let len = piece.len().min(bytes.len());
            if len == 0 || piece[..len] != bytes[..len] {
                return false;
            }
            offset += len as u64;
            bytes = &bytes[len..];
        }
        true
    }

    /// Hexadecimal SHA-256 of all of it.
    pub(super) fn sha256(&self) -> String {
        let mut context = Context::new(&SHA256);
        let mut offset = 0;
        while offset < self.len_bytes {
            let piece = self.piece(offset);
            context.update(piece);
            offset += piece.len() as u64;
        }
        hex(context.finish().as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(body: Body) -> Vec<u8> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < body.len_bytes {
            bytes.extend_from_slice(body.piece(bytes.len() as u64));
        }
        bytes
    }

    #[test]
    fn a_body_matches_itself_however_it_is_cut_and_nothing_else() {
        let body = Body::of("some/key", 3 * NOISE_BYTES as u64 + 17);
        let mut bytes = all(body);
        assert_eq!(bytes.len() as u64, body.len_bytes);
        for step in [1 << 20, 65_537] {
            let mut offset = 0;
            for cut in bytes.chunks(step) {
                assert!(body.matches(offset, cut));
                offset += cut.len() as u64;
            }
        }
        assert!(!Body::of("other/key", body.len_bytes).matches(0, &bytes[..64]));
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert!(!body.matches(0, &bytes));
        assert!(!body.matches(body.len_bytes, &[0]), "past the end");
    }

    #[test]
    fn the_hash_is_that_of_the_bytes() {
        let body = Body::of("k", 2_000_000);
        let hash = aws_lc_rs::digest::digest(&SHA256, &all(body));
        assert_eq!(body.sha256(), hex(hash.as_ref()));
    }
}
