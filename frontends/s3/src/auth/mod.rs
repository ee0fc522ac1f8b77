//! Who sent a request, and what its body must be: SigV4 in the Authorization header or in a presigned query.
//!
//! Source: "Authenticating Requests (AWS Signature Version 4)" in the S3 API reference.
//!
//! Invariants:
//! * The head's signature is checked for every payload mode, streaming and unsigned ones too.
//! * Host and every `x-amz-*` header present are signed, or the request is refused.
//! * The path is signed as sent, or as decoded and encoded anew; the query as decoded, which is also how it is obeyed.
//! * No secret, key or signature is ever in a Debug output.

mod canonical;
pub mod chunked;
mod claim;
mod key;

use http::HeaderMap;

use crate::dates::{amz_date, iso_8601_ms};
use crate::error::{ErrorCode, S3Error};
use crate::query::{Query, uri_decode, uri_encode_path};

pub use chunked::{ChunkSigning, ChunkedBody};
pub use claim::{Claim, is_presigned};

use canonical::Canonical;
use claim::Validity;
pub(crate) use key::hex;
use key::{KeyCache, SigningKey};
use predastore::env::Timestamp;
use predastore::object::access::{Invalid, Secret, Session};

/// A request may be this much older or newer than the clock here.
pub const MAX_SKEW_S: i64 = 15 * 60;
/// The longest life of a presigned URL.
pub const MAX_EXPIRES_S: i64 = 7 * 24 * 60 * 60;

/// What of a request is signed.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    /// `GET` and so on.
    pub method: &'a str,
    /// The path as sent, before the `?`.
    pub raw_path: &'a str,
    /// The query string, decoded.
    pub query: &'a Query,
    /// All headers, Host among them.
    pub headers: &'a HeaderMap,
}

/// A request that has passed authentication.
#[derive(Debug, Clone)]
pub struct Authenticated {
    /// Who sent it.
    pub identity: Identity,
    /// What the body must be.
    pub payload: Payload,
}

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Nobody said; the request may do what anybody may.
    Anonymous,
    /// The holder of this key, proven.
    Signed {
        /// The access key's public half.
        access_key_id: String,
        /// Where the signature was.
        how: SignedBy,
    },
}

/// Where the signature was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedBy {
    /// In the Authorization header.
    Header,
    /// In the query of a presigned URL.
    Presigned,
}

/// What the body must be; whoever reads it verifies it before anything is committed.
#[derive(Debug, Clone)]
pub enum Payload {
    /// Not covered by the signature.
    Unsigned,
    /// Its SHA-256; else `XAmzContentSHA256Mismatch`.
    Sha256([u8; 32]),
    /// aws-chunked: goes through [`chunked::Decoder`].
    Chunked(ChunkedBody),
}

/// Verifies requests. Cheap to share; derived keys are cached inside.
pub struct Verifier {
    regions: Vec<String>,
    keys: KeyCache,
}

impl Verifier {
    /// `regions`: those that a request may be signed for, the first being ours; empty for any.
    pub fn new(regions: Vec<String>) -> Self {
        Verifier { regions, keys: KeyCache::default() }
    }

    /// What a request says of who sent it, as far as that can be judged without its secret. None: nobody says anything.
    /// `now_s`: Unix seconds.
    ///
    /// # Errors
    /// The S3 error to answer with; nothing of the request may be acted on.
    pub fn claim(&self, request: &RequestHead<'_>, now_s: i64) -> Result<Option<Claim>, S3Error> {
        let Some(claim) = Claim::parse(request)? else { return Ok(None) };
        claim.check_scope(&self.regions)?;
        check_time(&claim, now_s)?;
        check_signed_headers(request, &claim)?;
        Ok(Some(claim))
    }

    /// Holds the claim of a request against the secret of its access key; none: there is no such key.
    ///
    /// # Errors
    /// As of [`Verifier::claim`].
    pub fn verify(
        &self,
        request: &RequestHead<'_>,
        claim: &Claim,
        secret: Option<&Secret>,
    ) -> Result<Authenticated, S3Error> {
        let secret = secret.ok_or_else(|| unknown_key(claim))?;
        let key = self.keys.derive(claim, secret);
        let canonical = Canonical::of(request, claim)?;
        let to_sign = claim.string_to_sign(&canonical);
        let holds = key.verifies(to_sign.as_bytes(), &claim.signature) || holds_anew(request, claim, &key)?;
        if !holds {
            return Err(mismatch(claim, &canonical, to_sign));
        }
        self.keys.remember(claim, secret, &key);
        let payload = claim::payload(request, claim, key)?;
        Ok(Authenticated { identity: claim.identity(), payload })
    }
}

/// S3 decodes the path and encodes it anew before it compares, so a client may send `~` as `%7E`, or `(` as it is, and sign
/// the canonical form. What is obeyed is the decoded path, which is the same.
fn holds_anew(request: &RequestHead<'_>, claim: &Claim, key: &SigningKey) -> Result<bool, S3Error> {
    let decoded = uri_decode(request.raw_path)?;
    let path = uri_encode_path(&decoded);
    if path == request.raw_path {
        return Ok(false);
    }
    let canonical = Canonical::of(&RequestHead { raw_path: &path, ..*request }, claim)?;
    Ok(key.verifies(claim.string_to_sign(&canonical).as_bytes(), &claim.signature))
}

/// A request that claims nothing.
///
/// # Errors
/// Its body's declared form.
pub fn anonymous(request: &RequestHead<'_>) -> Result<Authenticated, S3Error> {
    Ok(Authenticated { identity: Identity::Anonymous, payload: claim::anonymous_payload(request)? })
}

fn check_time(claim: &Claim, now_s: i64) -> Result<(), S3Error> {
    match claim.validity {
        Validity::AroundNow if claim.signed_at_s.abs_diff(now_s) > MAX_SKEW_S.unsigned_abs() => {
            Err(S3Error::from(ErrorCode::RequestTimeTooSkewed)
                .with("RequestTime", amz_date(claim.signed_at_s))
                .with("ServerTime", iso_8601_ms(now_s.saturating_mul(1000)))
                .with("MaxAllowedSkewMilliseconds", (MAX_SKEW_S * 1000).to_string()))
        }
        Validity::For { .. } if claim.signed_at_s > now_s.saturating_add(MAX_SKEW_S) => {
            Err(S3Error::new(ErrorCode::AccessDenied, "Request is not yet valid"))
        }
        Validity::For { expires_s } if now_s >= claim.signed_at_s.saturating_add(expires_s) => {
            let expired_at_ms = claim.signed_at_s.saturating_add(expires_s).saturating_mul(1000);
            Err(S3Error::new(ErrorCode::AccessDenied, "Request has expired")
                .with("X-Amz-Expires", expires_s.to_string())
                .with("Expires", iso_8601_ms(expired_at_ms))
                .with("ServerTime", iso_8601_ms(now_s.saturating_mul(1000))))
        }
        _ => Ok(()),
    }
}

/// An unsigned `x-amz-acl` or `x-amz-copy-source` could be added on the way, so any unsigned one is refused. An unsigned
/// Content-MD5 can only make a body be refused, and is let through as on S3.
fn check_signed_headers(request: &RequestHead<'_>, claim: &Claim) -> Result<(), S3Error> {
    let must_be_signed = |name: &str| name == "host" || name.starts_with("x-amz-");
    let mut unsigned: Vec<&str> =
        request.headers.keys().map(|name| name.as_str()).filter(|name| must_be_signed(name)).collect();
    unsigned.push("host");
    unsigned.retain(|name| !claim.signs(name));
    unsigned.sort_unstable();
    unsigned.dedup();
    if unsigned.is_empty() {
        return Ok(());
    }
    Err(S3Error::new(ErrorCode::AccessDenied, "There were headers present in the request which were not signed")
        .with("HeadersNotSigned", unsigned.join(", ")))
}

/// A temporary key counts with its token, until it ends; any other without one. `session`: that of the key.
///
/// # Errors
/// `InvalidToken`, `ExpiredToken`.
pub fn check_session(request: &RequestHead<'_>, session: Option<&Session>, now: Timestamp) -> Result<(), S3Error> {
    // What is no text is nobody's token, and not none.
    let in_header = request.headers.get("x-amz-security-token").map(|token| token.to_str().unwrap_or("\u{fffd}"));
    let in_query = request.query.get("X-Amz-Security-Token");
    let token = in_header.into_iter().chain(in_query).find(|token| !token.is_empty());
    let checked = match (session, token) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(Invalid::Token),
        (Some(session), token) => session.check(token, now),
    };
    checked.map_err(|invalid| match invalid {
        Invalid::Token => ErrorCode::InvalidToken.into(),
        Invalid::Expired => ErrorCode::ExpiredToken.into(),
    })
}

fn unknown_key(claim: &Claim) -> S3Error {
    S3Error::from(ErrorCode::InvalidAccessKeyId).with("AWSAccessKeyId", claim.access_key_id.as_str())
}

/// Shows the client what was signed here, which is what it takes to find its mistake; all of it is its own.
fn mismatch(claim: &Claim, canonical: &Canonical, to_sign: String) -> S3Error {
    let shown = canonical.shown();
    S3Error::from(ErrorCode::SignatureDoesNotMatch)
        .with("AWSAccessKeyId", claim.access_key_id.as_str())
        .with("StringToSignBytes", spaced(&to_sign))
        .with("StringToSign", to_sign)
        .with("SignatureProvided", key::hex(&claim.signature))
        .with("CanonicalRequestBytes", spaced(&shown))
        .with("CanonicalRequest", shown)
}

/// Bytes as `61 62`.
fn spaced(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
