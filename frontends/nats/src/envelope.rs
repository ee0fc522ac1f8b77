//! The envelope: a header of a message that proves who sent it, for where, and until when. Version 1.
//!
//! ```text
//! Predastore-Envelope: 1;AKIAIOSFODNN7EXAMPLE;1764468000;00112233445566778899aabbccddeeff;5d41…64 digits…
//!                      │ │                    │          │                                │
//!                      │ access key id        │          nonce: 16 random bytes           signature: 32 bytes
//!                      version                expiry: Unix seconds, at most 300 ahead     (both in lower-case hex)
//!
//! signature = HMAC-SHA256(key, text)
//! key       = HMAC-SHA256("PREDASTORE" + secret access key, "nats-envelope-1")
//! text      = seven lines, each ended by one LF:
//!     PREDASTORE-NATS-1
//!     <access key id>
//!     <subject, as published>
//!     <SHA-256 of the message's payload, 64 lower-case hex digits>
//!     <reply subject, as published>
//!     <expiry, as in the header>
//!     <nonce, as in the header>
//! ```
//!
//! Whoever sees a message can neither send it elsewhere, nor have its answer sent elsewhere, nor change it, nor, while its
//! nonce is remembered, send it again. Nothing here hides what a message says: that is TLS's work.
//!
//! Invariants
//! - Each envelope has one spelling, so what is verified is what was sent: an expiry without leading zeros, lower-case digits.
//! - An envelope is accepted only for a time that is bounded, so the nonces that must be remembered are.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};

use predastore::object::access::Secret;

/// The header's name.
pub const HEADER: &str = "Predastore-Envelope";
/// How far ahead an expiry may lie, seconds.
pub const LIFE_MAX_S: i64 = 300;

const VERSION: &str = "1";
const FIRST_LINE: &str = "PREDASTORE-NATS-1";
const KEY_PREFIX: &str = "PREDASTORE";
const KEY_PURPOSE: &[u8] = b"nats-envelope-1";

/// What a nonce is.
pub type Nonce = [u8; 16];

/// An envelope as it was sent; nothing of it is proven.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Who claims to have sent it.
    pub access_key_id: String,
    /// When it ends, Unix seconds.
    pub expires_s: i64,
    /// What makes it unlike any other.
    pub nonce: Nonce,
    signature: [u8; 32],
}

/// What of a message is signed.
#[derive(Clone, Copy)]
pub struct Signed<'a> {
    /// The subject it was published to.
    pub subject: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
    /// Where its answer goes.
    pub reply: &'a str,
}

/// Why an envelope proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// It has not the form of one.
    #[error("the envelope is malformed, or of a version that is not known here")]
    Malformed,
    /// Its time is over.
    #[error("the envelope has expired")]
    Expired,
    /// Its time ends too late.
    #[error("the envelope's expiry lies too far ahead")]
    TooFarAhead,
    /// Another key, or another message.
    #[error("the envelope's signature is not that of this message")]
    Mismatch,
}

impl Envelope {
    /// Makes the envelope of a message.
    pub fn sign(access_key_id: &str, secret: &Secret, expires_s: i64, nonce: Nonce, message: &Signed<'_>) -> Envelope {
        let mut envelope = Envelope { access_key_id: access_key_id.to_owned(), expires_s, nonce, signature: [0; 32] };
        let tag = hmac::sign(&key(secret), envelope.text(message).as_bytes());
        envelope.signature.copy_from_slice(tag.as_ref());
        envelope
    }

    /// Whether its time is neither over nor too far ahead. `now_s`: Unix seconds.
    ///
    /// # Errors
    /// `Expired`, `TooFarAhead`.
    pub fn check_time(&self, now_s: i64) -> Result<(), Error> {
        match self.expires_s.saturating_sub(now_s) {
            left if left < 0 => Err(Error::Expired),
            left if left > LIFE_MAX_S => Err(Error::TooFarAhead),
            _ => Ok(()),
        }
    }

    /// Whether whoever has `secret` signed this message.
    ///
    /// # Errors
    /// `Mismatch`.
    pub fn verify(&self, secret: &Secret, message: &Signed<'_>) -> Result<(), Error> {
        hmac::verify(&key(secret), self.text(message).as_bytes(), &self.signature).map_err(|_| Error::Mismatch)
    }

    fn text(&self, message: &Signed<'_>) -> String {
        let payload = hex(digest(&SHA256, message.payload).as_ref());
        let Envelope { access_key_id, expires_s, nonce, .. } = self;
        let (subject, reply, nonce) = (message.subject, message.reply, hex(nonce));
        format!("{FIRST_LINE}\n{access_key_id}\n{subject}\n{payload}\n{reply}\n{expires_s}\n{nonce}\n")
    }
}

/// The header's value.
impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Envelope { access_key_id, expires_s, nonce, signature } = self;
        write!(f, "{VERSION};{access_key_id};{expires_s};{};{}", hex(nonce), hex(signature))
    }
}

/// Hides the signature.
impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Envelope({}, {})", self.access_key_id, self.expires_s)
    }
}

impl FromStr for Envelope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fields: Vec<&str> = text.split(';').collect();
        let [VERSION, id, expires, nonce, signature] = fields[..] else { return Err(Error::Malformed) };
        let envelope = Envelope {
            access_key_id: id.to_owned(),
            expires_s: expires.parse().map_err(|_| Error::Malformed)?,
            nonce: parse_hex(nonce).ok_or(Error::Malformed)?,
            signature: parse_hex(signature).ok_or(Error::Malformed)?,
        };
        let is_plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic());
        if is_plain && envelope.to_string() == text { Ok(envelope) } else { Err(Error::Malformed) }
    }
}

fn key(secret: &Secret) -> Key {
    let first = Key::new(HMAC_SHA256, format!("{KEY_PREFIX}{}", secret.reveal()).as_bytes());
    Key::new(HMAC_SHA256, hmac::sign(&first, KEY_PURPOSE).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Exactly `N` bytes; none for anything else.
fn parse_hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if digits.len() != 2 * N || !digits.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
    const NOW_S: i64 = 1_764_467_800;
    const MESSAGE: Signed<'_> =
        Signed { subject: "s3.getobject", payload: br#"{"Bucket":"photos","Key":"a"}"#, reply: "_INBOX.abc.1" };
    const NONCE: Nonce =
        [0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];

    fn secret() -> Secret {
        Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    }

    fn envelope() -> Envelope {
        Envelope::sign(KEY_ID, &secret(), NOW_S + 200, NONCE, &MESSAGE)
    }

    #[test]
    fn version_1_is_as_it_was() {
        let golden = include_str!("golden/envelope.txt");
        let made = format!("{}{HEADER}: {}\n", envelope().text(&MESSAGE), envelope());
        assert_eq!(made, golden);
        let value = golden.lines().last().and_then(|line| line.split_once(": ")).unwrap().1;
        assert_eq!(value.parse::<Envelope>().unwrap(), envelope());
    }

    #[test]
    fn it_holds_for_its_own_message_and_key_alone() {
        let envelope = envelope();
        assert_eq!(envelope.verify(&secret(), &MESSAGE), Ok(()));
        let others = [
            Signed { subject: "s3.GetObject", ..MESSAGE },
            Signed { payload: br#"{"Bucket":"photos","Key":"b"}"#, ..MESSAGE },
            Signed { reply: "_INBOX.abc.2", ..MESSAGE },
        ];
        for other in others {
            assert_eq!(envelope.verify(&secret(), &other), Err(Error::Mismatch));
        }
        assert_eq!(envelope.verify(&Secret::new("another"), &MESSAGE), Err(Error::Mismatch));
        let altered = [
            Envelope { access_key_id: "AKIAOTHER".to_owned(), ..envelope.clone() },
            Envelope { expires_s: envelope.expires_s + 1, ..envelope.clone() },
            Envelope { nonce: [7; 16], ..envelope.clone() },
        ];
        for altered in altered {
            assert_eq!(altered.verify(&secret(), &MESSAGE), Err(Error::Mismatch), "{altered:?}");
        }
    }

    #[test]
    fn its_time_is_bounded_on_both_sides() {
        let until = |expires_s| Envelope { expires_s, ..envelope() }.check_time(NOW_S);
        assert_eq!(until(NOW_S - 1), Err(Error::Expired));
        assert_eq!(until(NOW_S), Ok(()));
        assert_eq!(until(NOW_S + LIFE_MAX_S), Ok(()));
        assert_eq!(until(NOW_S + LIFE_MAX_S + 1), Err(Error::TooFarAhead));
        assert_eq!(until(i64::MIN), Err(Error::Expired));
        assert_eq!(until(i64::MAX), Err(Error::TooFarAhead));
    }

    #[test]
    fn other_spellings_are_refused() {
        let good = envelope().to_string();
        assert_eq!(good.parse::<Envelope>().unwrap(), envelope());
        let wrong = [
            String::new(),
            "1;;;;".to_owned(),
            good.replacen('1', "2", 1),
            good.to_uppercase(),
            format!("{good};"),
            format!(" {good}"),
            good.replace(";1764", ";+1764"),
            good.replace(";1764", ";01764"),
            good.replace(KEY_ID, ""),
            good.replace(KEY_ID, "AKIA\nX"),
            good.replace("00112233", "0011223"),
            good.replace("00112233", "é112233"),
        ];
        for text in wrong {
            assert_eq!(text.parse::<Envelope>(), Err(Error::Malformed), "{text}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let shown = format!("{:?} {:?}", envelope(), secret());
        assert!(!shown.contains("wJalr") && !shown.contains(&hex(&envelope().signature)), "{shown}");
    }
}
