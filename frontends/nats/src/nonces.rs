//! The nonces that were used, for as long as an envelope with one could still be accepted.
//!
//! Invariants
//! - No nonce is forgotten before its envelope has expired: where there is no room, the new one is refused instead.
//! - At most [`COUNT_MAX`] are remembered. Only those of envelopes that were verified come here.
//! - They are remembered by this process alone. Another gateway of the queue group would accept one that was used here, and
//!   so would this one after a restart, until the envelope expires.

use std::collections::{BTreeSet, HashMap};

use crate::envelope::Envelope;

/// Remembered at most; of some 100 bytes each.
pub const COUNT_MAX: usize = 200_000;

/// A nonce of an access key.
type Name = (String, [u8; 16]);

/// What was used.
#[derive(Default)]
pub struct Nonces {
    used: HashMap<Name, i64>,
    by_expiry: BTreeSet<(i64, Name)>,
}

/// Why a nonce is not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// It was used.
    #[error("the envelope's nonce was used before")]
    Replayed,
    /// No more can be remembered now.
    #[error("too many envelopes at once")]
    Full,
}

impl Nonces {
    /// Remembers the nonce of a verified envelope. `now_s`: Unix seconds.
    ///
    /// # Errors
    /// `Replayed`, `Full`.
    pub fn use_up(&mut self, envelope: &Envelope, now_s: i64) -> Result<(), Error> {
        self.forget(now_s);
        let name = (envelope.access_key_id.clone(), envelope.nonce);
        if self.used.contains_key(&name) {
            return Err(Error::Replayed);
        }
        if self.used.len() >= COUNT_MAX {
            return Err(Error::Full);
        }
        self.used.insert(name.clone(), envelope.expires_s);
        self.by_expiry.insert((envelope.expires_s, name));
        Ok(())
    }

    fn forget(&mut self, now_s: i64) {
        while self.by_expiry.first().is_some_and(|(expires_s, _)| *expires_s < now_s) {
            if let Some((_, name)) = self.by_expiry.pop_first() {
                self.used.remove(&name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Signed;
    use predastore::object::access::Secret;

    fn envelope(id: &str, expires_s: i64, number: u64) -> Envelope {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&number.to_le_bytes());
        let message = Signed { subject: "s", payload: b"", reply: "r" };
        Envelope::sign(id, &Secret::new("secret"), expires_s, nonce, &message)
    }

    #[test]
    fn a_nonce_is_used_once_by_each_key() {
        let mut nonces = Nonces::default();
        assert_eq!(nonces.use_up(&envelope("a", 100, 1), 50), Ok(()));
        assert_eq!(nonces.use_up(&envelope("a", 100, 1), 50), Err(Error::Replayed));
        assert_eq!(nonces.use_up(&envelope("a", 300, 1), 100), Err(Error::Replayed), "under another expiry");
        assert_eq!(nonces.use_up(&envelope("b", 100, 1), 50), Ok(()));
        assert_eq!(nonces.use_up(&envelope("a", 100, 2), 50), Ok(()));
    }

    #[test]
    fn it_is_forgotten_once_its_envelope_is_worthless() {
        let mut nonces = Nonces::default();
        nonces.use_up(&envelope("a", 100, 1), 50).ok();
        assert_eq!(nonces.use_up(&envelope("a", 100, 1), 100), Err(Error::Replayed), "still valid in its last second");
        assert_eq!(nonces.use_up(&envelope("a", 200, 2), 101), Ok(()));
        assert_eq!((nonces.used.len(), nonces.by_expiry.len()), (1, 1));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_nothing_is_forgotten_for_it() {
        let mut nonces = Nonces::default();
        let template = envelope("a", 100, 0);
        for number in 0..COUNT_MAX as u64 {
            let mut next = template.clone();
            next.nonce[..8].copy_from_slice(&number.to_le_bytes());
            assert_eq!(nonces.use_up(&next, 50), Ok(()));
        }
        assert_eq!(nonces.use_up(&envelope("b", 100, 1), 50), Err(Error::Full));
        assert_eq!(nonces.use_up(&template, 50), Err(Error::Replayed));
        assert_eq!(nonces.use_up(&envelope("b", 200, 1), 101), Ok(()));
    }
}
