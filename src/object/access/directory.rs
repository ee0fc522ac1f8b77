//! Access keys that somebody else keeps, and what comes with them: sessions that end, accounts that keep to themselves.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;

use crate::env::Timestamp;

use super::Caller;

/// Knows access keys from elsewhere; asked for those that the configuration does not have. It answers at once.
pub trait Directory: Send + Sync {
    /// The holder of a key; none: there is no such key, or it does not count.
    ///
    /// # Errors
    /// It is not known just now; or what is kept of it cannot be understood.
    fn caller(&self, access_key_id: &str) -> Result<Option<Arc<Caller>>, Unknown>;
}

/// Why it is not known who holds a key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unknown {
    /// Whoever keeps it cannot be asked.
    #[error("who has access keys is not known just now: {0}")]
    Away(String),
    /// What is kept of the key makes no sense.
    #[error("what is kept of access key {id}: {why}")]
    Corrupt {
        /// Which.
        id: String,
        /// What is wrong with it.
        why: String,
    },
}

/// What a temporary key comes with.
#[derive(Clone)]
pub struct Session {
    /// From when on it does not count.
    pub expires: Timestamp,
    /// HMAC-SHA256 of its token.
    token: Vec<u8>,
    key: Arc<hmac::Key>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// What is wrong with a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalid {
    /// It has ended.
    Expired,
    /// The token is not its own; or there is none.
    Token,
}

impl Session {
    /// `token`: the HMAC-SHA256 of its token under `key`.
    pub fn new(expires: Timestamp, key: Arc<hmac::Key>, token: Vec<u8>) -> Session {
        Session { expires, token, key }
    }

    /// Whether who brings `token` may act by it.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, token: Option<&str>, now: Timestamp) -> Result<(), Invalid> {
        let token = token.filter(|token| !token.is_empty()).ok_or(Invalid::Token)?;
        hmac::verify(&self.key, token.as_bytes(), &self.token).map_err(|_| Invalid::Token)?;
        if now < self.expires { Ok(()) } else { Err(Invalid::Expired) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_its_tokens_and_ends() {
        let key = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, b"master"));
        let token = hmac::sign(&key, b"token").as_ref().to_vec();
        let session = Session::new(Timestamp(10), key, token);
        assert_eq!(session.check(Some("token"), Timestamp(9)), Ok(()));
        assert_eq!(session.check(Some("token"), Timestamp(10)), Err(Invalid::Expired));
        for token in [None, Some(""), Some("tokem")] {
            assert_eq!(session.check(token, Timestamp(9)), Err(Invalid::Token));
        }
        assert!(!format!("{session:?}").contains("token"));
    }
}
