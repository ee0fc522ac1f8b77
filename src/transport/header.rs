//! Headers of calls and replies, for services that encode them so: one version byte, then postcard.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The bytes of a header.
pub fn encode<T: Serialize + ?Sized>(version: u8, value: &T) -> Bytes {
    // Serialising plain values into a growing vector has no way to fail.
    postcard::to_extend(value, vec![version]).unwrap_or_default().into()
}

/// The inverse of [`encode`]; none: of another version, or not such a header.
pub fn decode<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Option<T> {
    match bytes.split_first() {
        Some((found, rest)) if *found == version => postcard::from_bytes(rest).ok(),
        _ => None,
    }
}
