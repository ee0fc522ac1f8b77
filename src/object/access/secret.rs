//! Secrets, and access keys that nobody has had before.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use crate::env::Rng;

/// What the ids of access keys begin with.
const ID_PREFIX: &str = "AKIA";
/// A letter each.
const ID_BYTES: usize = 16;
const SECRET_BYTES: usize = 40;
/// Their lengths are powers of two, so that no letter is likelier than another.
const ID_ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const SECRET_ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The secret half of an access key. Never shown.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps the secret access key's text.
    pub fn new(text: &str) -> Self {
        Secret(text.into())
    }

    /// The text, for deriving keys and for whoever it was made for.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether it is the same, in time that does not depend on where they differ.
    pub fn is(&self, other: &Secret) -> bool {
        verify_slices_are_equal(self.0.as_bytes(), other.0.as_bytes()).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// An access key that nobody has: its id and its secret.
pub fn fresh_key(rng: &dyn Rng) -> (String, Secret) {
    let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
    rng.fill(&mut id);
    rng.fill(&mut secret);
    key_of(&id, &secret)
}

/// The access key that bytes stand for which nobody can guess: its id and its secret.
pub fn key_of(id: &[u8; ID_BYTES], secret: &[u8; SECRET_BYTES]) -> (String, Secret) {
    (format!("{ID_PREFIX}{}", text(id, ID_ALPHABET)), Secret::new(&text(secret, SECRET_ALPHABET)))
}

fn text<const N: usize>(bytes: &[u8], alphabet: &[u8; N]) -> String {
    bytes.iter().map(|byte| char::from(alphabet[usize::from(*byte) % N])).collect()
}
