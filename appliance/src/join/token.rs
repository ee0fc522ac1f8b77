//! A token, as it is read out and typed: `pd1.<address>.<hash>.<secret>`.
//!
//! The address is "host:port" of a box of the cluster; the hash is the SHA-256 of its authority's certificate, DER, and the
//! secret is what lets in, both in hexadecimal.

use std::fmt;
use std::str::FromStr;

use predastore::object::access::Secret;

const VERSION: &str = "pd1";
const HASH_BYTES: usize = 32;
/// As `object::join` makes it.
const SECRET_LEN: usize = 64;

/// What a token says.
#[derive(Clone)]
pub(super) struct Token {
    /// "host:port".
    pub(super) address: String,
    /// Of the authority's certificate.
    pub(super) authority_sha256: [u8; HASH_BYTES],
    /// What lets in.
    pub(super) secret: Secret,
}

/// It is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "this is no token: one looks like pd1.10.0.0.1:6660.<64 digits>.<64 digits>, as `predastore token create` prints it"
)]
pub(crate) struct NoToken;

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = crate::sign::hex(&self.authority_sha256);
        write!(f, "{VERSION}.{}.{hash}.{}", self.address, self.secret.reveal())
    }
}

impl FromStr for Token {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        // An address has dots, too.
        let mut parts = text.trim().rsplitn(3, '.');
        let (secret, hash, rest) = (parts.next(), parts.next(), parts.next());
        let address = rest.and_then(|rest| rest.strip_prefix(VERSION)?.strip_prefix('.')).ok_or(NoToken)?;
        let secret = secret.filter(|secret| secret.len() == SECRET_LEN && is_hex(secret)).ok_or(NoToken)?;
        let authority_sha256 = hash.and_then(unhex).ok_or(NoToken)?;
        let (host, port) = address.rsplit_once(':').ok_or(NoToken)?;
        match !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) {
            true => Ok(Token { address: address.to_owned(), authority_sha256, secret: Secret::new(secret) }),
            false => Err(NoToken),
        }
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn unhex(text: &str) -> Option<[u8; HASH_BYTES]> {
    let mut bytes = [0; HASH_BYTES];
    if text.len() != 2 * HASH_BYTES || !is_hex(text) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tokens_come_out_as_they_went_in() {
        for address in ["10.0.0.1:6660", "[fd00::1]:7", "box-1.example.com:65535"] {
            let token = Token {
                address: address.into(),
                authority_sha256: [0xAB; 32],
                secret: Secret::new(&"0123456789abcdef".repeat(4)),
            };
            let text = token.to_string();
            let read: Token = format!(" {text}\n").parse().unwrap();
            assert_eq!(read.address, address);
            assert_eq!(read.authority_sha256, token.authority_sha256);
            assert!(read.secret.is(&token.secret));
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let (hash, secret) = ("ab".repeat(32), "cd".repeat(32));
        let good = format!("pd1.h:1.{hash}.{secret}");
        assert!(good.parse::<Token>().is_ok());
        for len in 0..good.len() {
            assert!(good[..len].parse::<Token>().is_err(), "{len}");
        }
        for text in [
            format!("pd2.h:1.{hash}.{secret}"),
            format!("pd1.h.{hash}.{secret}"),
            format!("pd1.h:0.{hash}.{secret}"),
            format!("pd1.:1.{hash}.{secret}"),
            format!("pd1.h:1.{hash}.{}", secret.to_uppercase()),
            format!("pd1.h:1.{hash}.{secret}0"),
            format!("pd1.h:1.{}é.{secret}", &hash[2..]),
        ] {
            assert!(text.parse::<Token>().is_err(), "{text}");
        }
    }
}
