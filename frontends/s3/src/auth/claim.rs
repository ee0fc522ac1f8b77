//! What a request claims about itself: the parsed Authorization header or presigned query, and the payload mode.

use http::HeaderMap;

use super::canonical::Canonical;
use super::chunked::{ChunkSigning, ChunkedBody};
use super::key::{Digest, SigningKey, hex, parse_hex};
use super::{Identity, MAX_EXPIRES_S, Payload, RequestHead, SignedBy};
use crate::dates::{amz_date, parse_amz_date, parse_http_date};
use crate::error::{ErrorCode, S3Error};
use crate::query::Query;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
pub(super) const SIGNATURE_PARAMETER: &str = "X-Amz-Signature";
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const PRESIGNED_PARAMETERS: [&str; 6] =
    ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", SIGNATURE_PARAMETER];

/// When a signature holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Validity {
    /// Around the time it was made.
    AroundNow,
    /// From then on for so long.
    For { expires_s: i64 },
}

/// A signature with all it says of itself; nothing of it is proven yet.
pub struct Claim {
    pub(super) access_key_id: String,
    /// `yyyymmdd` of the credential's scope.
    pub(super) date: String,
    pub(super) region: String,
    service: String,
    terminal: String,
    /// Lower-case, in the order given.
    pub(super) signed_headers: Vec<String>,
    pub(super) signature: Digest,
    pub(super) signed_at_s: i64,
    /// The canonical request's last line.
    pub(super) payload_hash: String,
    pub(super) validity: Validity,
}

/// Whether the signature is in the query. Such a request is refused unless it is the only one, and holds.
pub fn is_presigned(query: &Query) -> bool {
    query.has(SIGNATURE_PARAMETER)
}

impl Claim {
    /// Whose key is said to have signed.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// `None`: the request is anonymous.
    pub(super) fn parse(request: &RequestHead<'_>) -> Result<Option<Claim>, S3Error> {
        let in_header = request.headers.get_all("authorization").iter().count();
        let in_query =
            ["X-Amz-Algorithm", SIGNATURE_PARAMETER, "X-Amz-Credential"].iter().any(|name| request.query.has(name));
        let in_query_v2 = request.query.has("AWSAccessKeyId") && request.query.has("Signature");
        match (in_header, in_query || in_query_v2) {
            (0, false) => Ok(None),
            (0, true) if in_query_v2 => Err(unsupported_mechanism()),
            (0, true) => presigned(request).map(Some),
            (1, false) => from_header(request).map(Some),
            _ => Err(S3Error::invalid_argument(
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified",
                "Authorization",
                request.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default(),
            )),
        }
    }

    pub(super) fn signs(&self, header: &str) -> bool {
        self.signed_headers.iter().any(|name| name == header)
    }

    pub(super) fn identity(&self) -> Identity {
        let how = if self.validity == Validity::AroundNow { SignedBy::Header } else { SignedBy::Presigned };
        Identity::Signed { access_key_id: self.access_key_id.clone(), how }
    }

    /// The scope must be this service's, in a region of ours, on the day of the signature.
    pub(super) fn check_scope(&self, regions: &[String]) -> Result<(), S3Error> {
        let day = &amz_date(self.signed_at_s)[..8];
        if self.service != "s3" {
            return Err(
                self.malformed(format!("incorrect service \"{}\". This endpoint belongs to \"s3\"", self.service))
            );
        }
        if self.terminal != "aws4_request" {
            return Err(self
                .malformed(format!("incorrect terminal \"{}\". This endpoint uses \"aws4_request\"", self.terminal)));
        }
        if self.date != day {
            return Err(self.malformed(format!(
                "Invalid credential date \"{}\". This date is not the same as X-Amz-Date: \"{day}\"",
                self.date
            )));
        }
        match regions.first() {
            Some(ours) if !regions.contains(&self.region) => Err(self
                .malformed(format!("the region '{}' is wrong; expecting '{ours}'", self.region))
                .with("Region", ours)),
            _ => Ok(()),
        }
    }

    pub(super) fn string_to_sign(&self, canonical: &Canonical) -> String {
        format!("{ALGORITHM}\n{}\n{}\n{}", amz_date(self.signed_at_s), self.scope(), hex(&canonical.hash()))
    }

    fn scope(&self) -> String {
        format!("{}/{}/{}/{}", self.date, self.region, self.service, self.terminal)
    }

    fn malformed(&self, why: String) -> S3Error {
        match self.validity {
            Validity::AroundNow => header_malformed(why),
            Validity::For { .. } => query_malformed(format!("Error parsing the X-Amz-Credential parameter; {why}")),
        }
    }

    fn chunk_signing(&self, key: SigningKey) -> ChunkSigning {
        ChunkSigning::new(key, amz_date(self.signed_at_s), self.scope(), self.signature)
    }
}

/// `AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…`, white space around the commas being optional.
fn from_header(request: &RequestHead<'_>) -> Result<Claim, S3Error> {
    let text = header(request.headers, "authorization").ok_or_else(|| header_malformed("it is not ASCII text"))?;
    let (algorithm, fields) = text.trim().split_once(' ').unwrap_or((text, ""));
    if algorithm != ALGORITHM {
        return Err(unsupported_mechanism());
    }
    let [credential, signed_headers, signature] = header_fields(fields)?;
    let [access_key_id, date, region, service, terminal] = credential_of(credential).ok_or_else(|| {
        header_malformed(
            "the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".",
        )
    })?;
    let payload_hash = header(request.headers, "x-amz-content-sha256").ok_or_else(|| {
        S3Error::new(ErrorCode::InvalidRequest, "Missing required header for this request: x-amz-content-sha256")
    })?;
    Ok(Claim {
        access_key_id,
        date,
        region,
        service,
        terminal,
        signed_headers: signed_headers_of(signed_headers)
            .ok_or_else(|| header_malformed("SignedHeaders is not valid"))?,
        signature: parse_hex(signature.as_bytes())
            .ok_or_else(|| header_malformed("Signature is not 64 lower-case hex digits"))?,
        signed_at_s: signing_time(request.headers)?,
        payload_hash: payload_hash.to_owned(),
        validity: Validity::AroundNow,
    })
}

fn header_fields(fields: &str) -> Result<[&str; 3], S3Error> {
    let mut found = [None; 3];
    let names = ["Credential", "SignedHeaders", "Signature"];
    for field in fields.split(',').map(str::trim).filter(|field| !field.is_empty()) {
        let (name, value) = field.split_once('=').ok_or_else(|| header_malformed(format!("unexpected \"{field}\"")))?;
        let index = names
            .iter()
            .position(|known| *known == name)
            .ok_or_else(|| header_malformed(format!("unexpected \"{name}\"")))?;
        if found[index].replace(value).is_some() {
            return Err(header_malformed(format!("{name} is given twice")));
        }
    }
    match found {
        [Some(credential), Some(signed_headers), Some(signature)] => Ok([credential, signed_headers, signature]),
        _ => Err(header_malformed("Credential, SignedHeaders and Signature are required")),
    }
}

fn signing_time(headers: &HeaderMap) -> Result<i64, S3Error> {
    let from_amz = header(headers, "x-amz-date").map(|text| parse_amz_date(text).or_else(|| parse_http_date(text)));
    let from_date = || header(headers, "date").map(|text| parse_http_date(text).or_else(|| parse_amz_date(text)));
    from_amz.or_else(from_date).flatten().ok_or_else(|| {
        S3Error::new(ErrorCode::AccessDenied, "AWS authentication requires a valid Date or x-amz-date header")
    })
}

fn presigned(request: &RequestHead<'_>) -> Result<Claim, S3Error> {
    let [algorithm, credential, date, expires, signed_headers, signature] = presigned_parameters(request.query)?;
    if algorithm != ALGORITHM {
        return Err(query_malformed("X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\""));
    }
    let [access_key_id, scope_date, region, service, terminal] = credential_of(credential)
        .ok_or_else(|| query_malformed("Error parsing the X-Amz-Credential parameter; the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\"."))?;
    let payload_hash = request.query.get("X-Amz-Content-Sha256").or(header(request.headers, "x-amz-content-sha256"));
    Ok(Claim {
        access_key_id,
        date: scope_date,
        region,
        service,
        terminal,
        signed_headers: signed_headers_of(signed_headers)
            .ok_or_else(|| query_malformed("X-Amz-SignedHeaders is not valid"))?,
        signature: parse_hex(signature.as_bytes()).ok_or(ErrorCode::SignatureDoesNotMatch)?,
        signed_at_s: parse_amz_date(date)
            .ok_or_else(|| query_malformed("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\""))?,
        payload_hash: payload_hash.unwrap_or(UNSIGNED).to_owned(),
        validity: Validity::For { expires_s: expires_of(expires)? },
    })
}

/// Each exactly once: with two of one name, what is checked and what is signed could differ.
fn presigned_parameters(query: &Query) -> Result<[&str; 6], S3Error> {
    let mut found = [""; 6];
    for (value, name) in found.iter_mut().zip(PRESIGNED_PARAMETERS) {
        let mut given = query.pairs().filter(|(key, _)| *key == name).map(|(_, value)| value);
        match (given.next(), given.next()) {
            (Some(only), None) if !only.is_empty() => *value = only,
            _ => {
                return Err(query_malformed(
                    "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.",
                ));
            }
        }
    }
    Ok(found)
}

fn expires_of(text: &str) -> Result<i64, S3Error> {
    match text.parse::<i64>() {
        Err(_) => Err(query_malformed("X-Amz-Expires should be a number")),
        Ok(..0) => Err(query_malformed("X-Amz-Expires must be non-negative")),
        Ok(seconds) if seconds > MAX_EXPIRES_S => Err(query_malformed(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds",
        )),
        Ok(seconds) => Ok(seconds),
    }
}

/// Splits from the right: an access key may hold slashes, the four scope elements may not.
fn credential_of(text: &str) -> Option<[String; 5]> {
    if text.contains(['\n', '\r']) {
        return None;
    }
    let mut elements: Vec<String> = text.rsplitn(5, '/').map(str::to_owned).collect();
    elements.reverse();
    elements.try_into().ok().filter(|elements: &[String; 5]| elements.iter().all(|element| !element.is_empty()))
}

fn signed_headers_of(text: &str) -> Option<Vec<String>> {
    let names: Vec<String> = text.split(';').map(str::to_owned).collect();
    let valid = |name: &String| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase())
    };
    names.iter().all(valid).then_some(names)
}

/// The payload mode of a request whose head has been verified.
pub(super) fn payload(request: &RequestHead<'_>, claim: &Claim, key: SigningKey) -> Result<Payload, S3Error> {
    match claim.payload_hash.as_str() {
        UNSIGNED => Ok(Payload::Unsigned),
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => chunked(request, Some(claim.chunk_signing(key)), false),
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => chunked(request, Some(claim.chunk_signing(key)), true),
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => chunked(request, None, true),
        hash => parse_hex(hash.as_bytes()).map(Payload::Sha256).ok_or_else(invalid_payload_hash),
    }
}

/// The payload mode of an anonymous request: there is no signature that chunks could continue.
pub(super) fn anonymous_payload(request: &RequestHead<'_>) -> Result<Payload, S3Error> {
    match header(request.headers, "x-amz-content-sha256") {
        None | Some(UNSIGNED) => Ok(Payload::Unsigned),
        Some("STREAMING-UNSIGNED-PAYLOAD-TRAILER") => chunked(request, None, true),
        Some(hash) => parse_hex(hash.as_bytes()).map(Payload::Sha256).ok_or_else(invalid_payload_hash),
    }
}

fn chunked(request: &RequestHead<'_>, signing: Option<ChunkSigning>, has_trailers: bool) -> Result<Payload, S3Error> {
    let length = header(request.headers, "x-amz-decoded-content-length").ok_or(ErrorCode::MissingContentLength)?;
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let len_bytes = length.parse().ok().filter(|_| digits).ok_or_else(|| {
        S3Error::invalid_argument("The decoded content length is not a number", "x-amz-decoded-content-length", length)
    })?;
    let trailers = has_trailers.then(|| declared_trailers(request.headers));
    Ok(Payload::Chunked(ChunkedBody { len_bytes, signing, trailers }))
}

fn declared_trailers(headers: &HeaderMap) -> Vec<String> {
    let names = header(headers, "x-amz-trailer").unwrap_or_default().split(',').map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_ascii_lowercase).collect()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn header_malformed(why: impl std::fmt::Display) -> S3Error {
    S3Error::new(ErrorCode::AuthorizationHeaderMalformed, format!("The authorization header is malformed; {why}"))
}

fn query_malformed(why: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::new(ErrorCode::AuthorizationQueryParametersError, why)
}

fn unsupported_mechanism() -> S3Error {
    S3Error::new(
        ErrorCode::InvalidRequest,
        "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
    )
}

fn invalid_payload_hash() -> S3Error {
    S3Error::invalid_argument(
        "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.",
        "x-amz-content-sha256",
        "",
    )
}
